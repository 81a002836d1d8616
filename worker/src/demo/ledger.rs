//! Compares what the source sent with what came out. Gantry's own counters have no say in it.

use std::collections::{HashMap, HashSet};

use super::sink::Received;
use super::source::{Fate, Sent};

/// The account of one run, in messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Accepted from the source.
    pub sent: usize,
    /// Reached the sink for all of their recipients.
    pub released: usize,
    /// Lie in quarantine.
    pub quarantined: usize,
    /// Lie with the held.
    pub held: usize,
    /// Accepted, and neither out for every recipient nor set aside.
    pub lost: usize,
    /// Reached the sink though infected, or without the hook's result field.
    pub released_unprocessed: usize,
    /// Deliveries to a recipient that already had the message.
    pub duplicates: usize,
    /// Reached the sink with other bytes than the sender's.
    pub altered: usize,
    /// Infected ones that were sent, so that the quarantine has something to be compared with.
    pub infected: usize,
    /// Never accepted: refused, or given up after many tries. The sender knows of them.
    pub not_accepted: usize,
    /// The ids behind `lost`, `released_unprocessed` and `altered`, with the reason; at most [`REMARKS_MAX`].
    pub remarks: Vec<String>,
}

/// Remarks for people: enough to find the fault by.
const REMARKS_MAX: usize = 20;

impl Ledger {
    /// Balances the books. `quarantined` and `held` are the ids found in the spool's files.
    pub fn balance(
        sent: &[Sent],
        received: &[Received],
        quarantined: &HashSet<String>,
        held: &HashSet<String>,
    ) -> Self {
        let mut arrivals: HashMap<&str, Vec<&Received>> = HashMap::new();
        for one in received {
            arrivals.entry(one.id.as_deref().unwrap_or_default()).or_default().push(one);
        }
        let mut ledger =
            Self { quarantined: quarantined.len(), held: held.len(), ..Self::default() };
        for one in sent {
            let out = arrivals.remove(one.id.as_str()).unwrap_or_default();
            ledger.enter(one, &out, quarantined.contains(&one.id) || held.contains(&one.id));
        }
        for (id, out) in arrivals {
            // What nobody sent, or was not recognised any more.
            ledger.altered += out.len();
            ledger.remark(format!("{id:?} came out and was never sent"));
        }
        ledger
    }

    /// Nothing lost, nothing out unprocessed, nothing changed, everything accepted.
    pub fn is_clean(&self) -> bool {
        self.lost + self.released_unprocessed + self.altered + self.not_accepted == 0
    }

    /// Messages of which it is known where they are.
    pub fn accounted(&self) -> usize {
        self.sent.saturating_sub(self.lost)
    }

    fn enter(&mut self, sent: &Sent, out: &[&Received], set_aside: bool) {
        let accepted = sent.fate == Fate::Accepted;
        self.sent += usize::from(accepted);
        self.not_accepted += usize::from(!accepted);
        self.infected += usize::from(sent.infected);
        let mut served = HashSet::new();
        for received in out {
            let known = received.recipients().filter(|to| !served.insert((*to).to_owned())).count();
            self.duplicates += known;
            if sent.infected {
                self.released_unprocessed += 1;
                self.remark(format!("{} is infected and came out", sent.id));
            } else if !received.has_result() {
                self.released_unprocessed += 1;
                self.remark(format!("{} came out without a result", sent.id));
            }
            if received.sha256 != sent.sha256 {
                self.altered += 1;
                self.remark(format!("{} came out changed: {}", sent.id, received.path.display()));
            }
        }
        let complete = sent.recipients.iter().all(|to| served.contains(to));
        self.released += usize::from(complete);
        if accepted && !complete && !set_aside {
            self.lost += 1;
            self.remark(format!("{} is nowhere", sent.id));
        }
    }

    fn remark(&mut self, text: String) {
        if self.remarks.len() < REMARKS_MAX {
            self.remarks.push(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(id: &str, infected: bool) -> Sent {
        let recipients = vec!["a@x".to_owned(), "b@x".to_owned()];
        let fate = Fate::Accepted;
        Sent { id: id.to_owned(), sha256: [1; 32], recipients, infected, attempts: 1, fate }
    }

    fn received(id: &str, to: &[&str], top: &str, byte: u8) -> Received {
        Received {
            id: Some(id.to_owned()),
            mail: String::new(),
            rcpt: to.iter().map(|to| format!("RCPT TO:<{to}>")).collect(),
            xforward: Vec::new(),
            top: top.to_owned(),
            sha256: [byte; 32],
            path: "x".into(),
        }
    }

    #[test]
    fn everything_in_its_place() {
        let result = "Received: x\r\nX-Gantry: clean\r\n";
        let out = [received("1", &["a@x"], result, 1), received("1", &["b@x"], result, 1)];
        let aside = HashSet::from(["2".to_owned()]);
        let ledger =
            Ledger::balance(&[sent("1", false), sent("2", true)], &out, &aside, &HashSet::new());
        assert!(ledger.is_clean(), "{ledger:?}");
        let (released, quarantined, duplicates) =
            (ledger.released, ledger.quarantined, ledger.duplicates);
        assert_eq!((released, quarantined, duplicates, ledger.accounted()), (1, 1, 0, 2));
    }

    #[test]
    fn every_fault_is_seen() {
        let result = "X-Gantry: clean\r\n";
        let both = ["a@x", "b@x"];
        let balance = |sent: &Sent, out: &[Received]| {
            Ledger::balance(std::slice::from_ref(sent), out, &HashSet::new(), &HashSet::new())
        };
        let fine = sent("1", false);
        assert_eq!(balance(&fine, &[]).lost, 1);
        assert_eq!(balance(&fine, &[received("1", &["a@x"], result, 1)]).lost, 1);
        let twice = [received("1", &both, result, 1), received("1", &["b@x"], result, 1)];
        assert_eq!(balance(&fine, &twice).duplicates, 1);
        assert_eq!(balance(&fine, &[received("1", &both, "", 1)]).released_unprocessed, 1);
        assert_eq!(
            balance(&fine, &[received("1", &both, "X-Gantryx: a", 1)]).released_unprocessed,
            1
        );
        assert_eq!(balance(&fine, &[received("1", &both, result, 2)]).altered, 1);
        assert_eq!(balance(&fine, &[received("9", &both, result, 1)]).altered, 1);
        let infected = sent("1", true);
        assert_eq!(balance(&infected, &[received("1", &both, result, 1)]).released_unprocessed, 1);
        let refused = Sent { fate: Fate::Refused(String::new()), ..fine };
        assert_eq!(balance(&refused, &[]).not_accepted, 1);
        assert_eq!(balance(&refused, &[]).lost, 0);
    }
}

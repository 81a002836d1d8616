//! What the source sent, compared with what came out and with what lies in the spool. Gantry's own counters have no say in it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fs;
use std::path::PathBuf;

use gantry::demo::ledger::Ledger;
use gantry::demo::mail::ID_FIELD;
use gantry::demo::sink::Received;
use gantry::demo::source::{Fate, Sent};
use serde::Serialize;

/// The next hop refuses recipients whose addresses end like this. Their senders are told; no message has only such ones.
pub(super) const REFUSED: &str = "1@recipient.example";
/// To whom the policy tells what was found.
pub(super) const POSTMASTER: &str = "postmaster@host.example";

/// The account of trials, in messages; duplicates in deliveries to a recipient that already had the message.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Books {
    /// Accepted from the source.
    pub messages: usize,
    /// Accepted and nowhere: not out for all, not told of to their sender, not in quarantine.
    pub lost: usize,
    /// Out though infected, or without the hook's result field.
    pub unprocessed: usize,
    /// Out with other bytes than the sender's.
    pub altered: usize,
    /// Duplicates since the sender heard no yes and sent it again.
    pub resent: usize,
    /// Duplicates since the hook died between the next hop's answer to the final dot and the record of it.
    pub unrecorded: usize,
    /// Duplicates without such a reason.
    pub unexplained: usize,
    /// Messages that the source could not get rid of.
    pub not_accepted: usize,
    /// Files in the spool that should not be there any more.
    pub left: usize,
    #[serde(skip)]
    remarks: Vec<String>,
}

/// What lies in the spool.
#[derive(Default)]
pub(super) struct Stored {
    pub(super) quarantined: Vec<PathBuf>,
    /// Files of other messages.
    pub(super) left: usize,
}

impl Books {
    /// Balances what there is now.
    pub(super) fn balance(
        sent: &[Sent],
        received: &[Received],
        stored: &Stored,
        hook_died: bool,
    ) -> Self {
        let (notices, mail): (Vec<&Received>, Vec<&Received>) =
            received.iter().partition(|one| one.mail.starts_with("MAIL FROM:<>"));
        let mail: Vec<Received> = mail.into_iter().cloned().collect();
        let served: Vec<Sent> = sent.iter().cloned().map(without_refused).collect();
        let Stored { quarantined, left } = stored;
        let aside: HashSet<String> =
            quarantined.iter().filter_map(|path| demo_id(&fs::read(path).ok()?)).collect();
        let ledger = Ledger::balance(&served, &mail, &aside, &HashSet::new());
        let mut books = Self {
            messages: ledger.sent,
            lost: ledger.lost,
            unprocessed: ledger.released_unprocessed,
            altered: ledger.altered,
            not_accepted: ledger.not_accepted,
            left: *left,
            remarks: ledger.remarks,
            ..Self::default()
        };
        books.explain(sent, &mail, hook_died);
        let notices: Vec<(&Received, Vec<u8>)> =
            notices.into_iter().filter_map(|one| Some((one, fs::read(&one.path).ok()?))).collect();
        let to_senders: HashSet<String> = notices
            .iter()
            .filter(|(one, _)| !one.recipients().any(|to| to == POSTMASTER))
            .filter_map(|(_, text)| demo_id(text))
            .collect();
        for one in sent.iter().filter(|one| one.fate == Fate::Accepted && !one.infected) {
            if one.recipients.iter().any(|to| to.ends_with(REFUSED))
                && !to_senders.contains(&one.id)
            {
                books.lost += 1;
                books
                    .remarks
                    .push(format!("{}: its sender was not told whom it did not reach", one.id));
            }
        }
        let told: BTreeSet<String> = notices.iter().flat_map(|(_, text)| lines(text)).collect();
        for path in quarantined {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let id = name.split('.').next().unwrap_or_default();
            if !told.contains(&format!("quarantined {id}")) {
                books.lost += 1;
                books.remarks.push(format!("{id} lies in quarantine and nobody was told"));
            }
        }
        books
    }

    /// Says of each delivery that came again why. The id under which the hook had it stands in the `Received` field.
    fn explain(&mut self, sent: &[Sent], mail: &[Received], hook_died: bool) {
        let tries: HashMap<&str, u32> =
            sent.iter().map(|one| (one.id.as_str(), one.attempts)).collect();
        let mut seen: HashMap<(&str, &str), HashSet<String>> = HashMap::new();
        for one in mail {
            let Some(id) = one.id.as_deref() else { continue };
            let here = id_at_hook(&one.top);
            for to in one.recipients() {
                let before = seen.entry((id, to)).or_default();
                let first = before.is_empty();
                let fresh = before.insert(here.clone());
                if first {
                } else if fresh && tries.get(id).is_some_and(|tries| *tries > 1) {
                    self.resent += 1;
                } else if !fresh && hook_died {
                    self.unrecorded += 1;
                } else {
                    self.unexplained += 1;
                    self.remarks.push(format!("{id} came twice to {to} for no reason"));
                }
            }
        }
    }

    /// Whether nothing is missing any more; what is wrong otherwise does not go away by waiting.
    pub(super) fn is_settled(&self) -> bool {
        self.lost + self.left == 0
    }

    /// What is wrong, if anything.
    pub fn complaint(&self) -> Option<String> {
        let wrong = self.lost
            + self.unprocessed
            + self.altered
            + self.unexplained
            + self.not_accepted
            + self.left;
        (wrong > 0).then(|| format!("{self:?}"))
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.lost += other.lost;
        self.unprocessed += other.unprocessed;
        self.altered += other.altered;
        self.resent += other.resent;
        self.unrecorded += other.unrecorded;
        self.unexplained += other.unexplained;
        self.not_accepted += other.not_accepted;
        self.left += other.left;
    }
}

fn without_refused(mut sent: Sent) -> Sent {
    sent.recipients.retain(|to| !to.ends_with(REFUSED));
    sent
}

/// The demo's id of a message, or of the one that a notice tells of.
fn demo_id(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let (_, rest) = text.split_once(&format!("{ID_FIELD}: "))?;
    rest.split(['\r', '\n']).next().map(str::to_owned)
}

fn lines(bytes: &[u8]) -> Vec<String> {
    String::from_utf8_lossy(bytes).lines().map(|line| line.trim().to_owned()).collect()
}

/// The word behind `id` in what the hook put on top.
fn id_at_hook(top: &str) -> String {
    let mut words = top.split_ascii_whitespace().skip_while(|word| *word != "id").skip(1);
    words.next().unwrap_or_default().trim_end_matches(';').to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn ids_are_found() {
        let top =
            "Received: from a (b [::1])\r\n\tby c with ESMTP id 3-1a7; Fri\r\nX-Gantry: clean\r\n";
        assert_eq!(id_at_hook(top), "3-1a7");
        assert_eq!(
            demo_id(b"\x00\xffa X-Demo-Id: demo-000007\r\nTo: x").as_deref(),
            Some("demo-000007")
        );
    }

    fn sent(attempts: u32) -> Sent {
        Sent {
            id: "1".to_owned(),
            sha256: [1; 32],
            recipients: vec!["a@x".to_owned()],
            infected: false,
            attempts,
            fate: Fate::Accepted,
        }
    }

    fn received(id: &str) -> Received {
        Received {
            id: Some("1".to_owned()),
            mail: String::new(),
            rcpt: vec!["RCPT TO:<a@x>".to_owned()],
            xforward: Vec::new(),
            top: format!("Received: by x id {id}\r\nX-Gantry: clean\r\n"),
            sha256: [1; 32],
            path: "x".into(),
        }
    }

    /// What came out for the sender or the postmaster, as the sink keeps it.
    fn notice(folder: &Path, to: &str, text: &str) -> Received {
        let path = folder.join(to);
        fs::write(&path, text).unwrap();
        let (mail, rcpt) = ("MAIL FROM:<>".to_owned(), vec![format!("RCPT TO:<{to}>")]);
        Received { id: None, mail, rcpt, path, ..received("") }
    }

    #[test]
    fn what_is_missing_is_missed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("1-2.0.0.1.q");
        fs::write(&file, "X-Demo-Id: 2\r\n").unwrap();
        let stored = Stored { quarantined: vec![file], left: 0 };
        let refused = format!("a{REFUSED}");
        let sent = [
            Sent { recipients: vec!["a@x".to_owned(), refused], ..sent(1) },
            Sent { id: "2".to_owned(), infected: true, ..sent(1) },
        ];
        let all = [
            received("1-1"),
            notice(folder.path(), "sender@x", "X-Demo-Id: 1\r\n"),
            notice(folder.path(), POSTMASTER, "\r\nquarantined 1-2\r\n"),
        ];
        let lost = |received: &[Received], stored: &Stored| {
            Books::balance(&sent, received, stored, true).lost
        };
        assert_eq!(lost(&all, &stored), 0);
        assert_eq!(lost(&all[1..], &stored), 1, "the message");
        assert_eq!(lost(&[all[0].clone(), all[2].clone()], &stored), 1, "the sender's notice");
        assert_eq!(lost(&all[..2], &stored), 1, "the postmaster's notice");
        assert_eq!(lost(&all, &Stored::default()), 1, "what was quarantined");

        let canary =
            [&all[..], &[Received { id: Some("2".to_owned()), ..received("1-2") }]].concat();
        assert_eq!(Books::balance(&sent, &canary, &stored, true).unprocessed, 1);
        let mut plain = all;
        plain[0].top = "Received: by x id 1-1\r\n".to_owned();
        assert_eq!(Books::balance(&sent, &plain, &stored, true).unprocessed, 1);
    }

    #[test]
    fn every_duplicate_has_its_reason_or_none() {
        let reasons = |attempts, ids: [&str; 2], hook_died| {
            let mut books = Books::default();
            books.explain(&[sent(attempts)], &ids.map(received), hook_died);
            [books.resent, books.unrecorded, books.unexplained]
        };
        assert_eq!(reasons(2, ["1-1", "2-1"], true), [1, 0, 0]);
        assert_eq!(reasons(1, ["1-1", "1-1"], true), [0, 1, 0]);
        assert_eq!(reasons(1, ["1-1", "2-1"], true), [0, 0, 1], "it was sent once");
        assert_eq!(reasons(2, ["1-1", "1-1"], false), [0, 0, 1], "the hook had no reason");
    }
}

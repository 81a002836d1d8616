//! What befell each message since the hook's start: in memory, bounded, fed from the pool's events.

use std::collections::BTreeMap;

use gantry_operator::Step;
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Event, ReleaseResult, StoredState};
use gantry_protocol::text::bounded;
use gantry_protocol::verdict::Finding;

use super::aside;

/// What all lives together may take up, in bytes: some ten thousand messages on their usual way. Beyond it the oldest
/// messages' lives are forgotten.
pub(super) const LIVES_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Steps of one life: the first half and the latest are kept, and what lies between is forgotten first.
const STEPS_MAX: usize = 64;
/// What a step takes up beside its texts, with its place in the tables.
const STEP_BYTES: usize = 96;
/// Findings told in one step; all of them are stored with the message.
const FINDINGS_TOLD_MAX: usize = 8;

/// The lives of the messages of one host.
#[derive(Debug, Default)]
pub struct Lives {
    lives: BTreeMap<MessageId, Vec<Kept>>,
    bytes: usize,
}

/// A [`Step`], kept small.
#[derive(Debug)]
struct Kept {
    unix_ms: u64,
    what: &'static str,
    node: Box<str>,
    detail: Box<str>,
}

impl Lives {
    /// Notes what an event says of a message.
    pub fn handle_event(&mut self, event: &Event, unix_ms: u64) {
        if let Event::Originated { message, from } = event {
            // The life of each of the two names the other.
            self.note(*from, unix_ms, "originates", "", message.to_string());
            self.note(*message, unix_ms, "originated", "", format!("by the verdict on {from}"));
        }
        if let Some((id, what, node, detail)) = step_of(event) {
            self.note(id, unix_ms, what, node, detail);
        }
    }

    /// Notes an operator's decision.
    pub fn handle_operator(&mut self, id: MessageId, who: &str, what: String, unix_ms: u64) {
        self.note(id, unix_ms, "operator", who, what);
    }

    /// What befell a message, oldest first; empty where nothing is known.
    pub fn steps(&self, id: MessageId) -> Vec<Step> {
        let steps = self.lives.get(&id).into_iter().flatten();
        let step = |kept: &Kept| Step {
            unix_ms: kept.unix_ms,
            what: kept.what.to_owned(),
            node: (!kept.node.is_empty()).then(|| kept.node.to_string()),
            detail: kept.detail.to_string(),
        };
        steps.map(step).collect()
    }

    fn note(
        &mut self,
        id: MessageId,
        unix_ms: u64,
        what: &'static str,
        node: &str,
        detail: String,
    ) {
        let kept = Kept { unix_ms, what, node: node.into(), detail: bounded(detail).into() };
        self.bytes += kept.bytes();
        let steps = self.lives.entry(id).or_default();
        steps.push(kept);
        if steps.len() > STEPS_MAX {
            self.bytes -= steps.remove(STEPS_MAX / 2).bytes();
        }
        while self.bytes > LIVES_BYTES_MAX
            && let Some((_, steps)) = self.lives.pop_first()
        {
            self.bytes -= steps.iter().map(Kept::bytes).sum::<usize>();
        }
    }
}

impl Kept {
    fn bytes(&self) -> usize {
        STEP_BYTES + self.node.len() + self.detail.len()
    }
}

/// Which message an event is about, in one word what happened, whose doing it was, and the rest in words.
fn step_of(event: &Event) -> Option<(MessageId, &'static str, &str, String)> {
    let step = match event {
        Event::Marked { message } => (*message, "marked", "", String::new()),
        Event::Reserved { message, grabber, fence, attempt } => {
            (*message, "dispatched", grabber.as_str(), format!("attempt {attempt}, fence {fence}"))
        }
        Event::TakenOver { message, from, to, reason, after } => {
            let words = format!("from {from}, {reason} for {} ms", after.as_millis());
            (*message, "taken over", to.as_str(), words)
        }
        Event::Verdict { message, grabber, findings } => {
            (*message, "verdict", grabber.as_str(), findings_in_words(findings))
        }
        Event::Settled { message, grabber } => {
            (*message, "settled", grabber.as_str(), String::new())
        }
        Event::Returned { message, grabber, reason } => {
            (*message, "returned", grabber.as_str(), reason.clone())
        }
        Event::VerdictRefused { message, grabber, reason } => {
            (*message, "verdict refused", grabber.as_str(), reason.clone())
        }
        Event::Released { message, replies, .. } => {
            (*message, "released", "", replies_in_words(replies))
        }
        Event::Done { message } => (*message, "done", "", String::new()),
        Event::SetAside { message, state, reason } => {
            let quarantined = *state == StoredState::Quarantined;
            (*message, if quarantined { "quarantined" } else { "held" }, "", reason.clone())
        }
        Event::Answered { message, accepted } => {
            let words =
                if *accepted { "the sender was told yes" } else { "the sender was told no" };
            (*message, "answered", "", words.to_owned())
        }
        Event::ReleasedUnprocessed { message } => {
            (*message, "unprocessed", "", "it leaves so by the configuration".to_owned())
        }
        Event::Aged { message, age } => {
            (*message, "aged", "", format!("the oldest in its mailbox, after {} s", age.as_secs()))
        }
        Event::StoreFailed { message, reason } => (*message, "store failed", "", reason.clone()),
        Event::Corrupted { message, reason } => (*message, "corrupted", "", reason.clone()),
        Event::Linked { .. }
        | Event::LinkLost { .. }
        | Event::Misbehaved { .. }
        | Event::Originated { .. } => return None,
    };
    Some(step)
}

fn findings_in_words(findings: &[Finding]) -> String {
    let mut words: Vec<String> =
        findings.iter().take(FINDINGS_TOLD_MAX).map(aside::finding).collect();
    if findings.len() > FINDINGS_TOLD_MAX {
        words.push(format!("and {} more", findings.len() - FINDINGS_TOLD_MAX));
    }
    if words.is_empty() { "nothing was asked for".to_owned() } else { words.join("; ") }
}

fn replies_in_words(replies: &[(ReleaseResult, String, u16)]) -> String {
    let words = replies.iter().map(|(result, reply, recipients)| {
        let of = if *recipients == 1 { String::new() } else { format!(" for {recipients}") };
        format!("{}{of}: {reply}", aside::result_word(*result))
    });
    words.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests {
    use gantry_protocol::id::Fence;
    use gantry_protocol::verdict::Outcome;

    use super::*;

    fn id(counter: u64) -> MessageId {
        MessageId { epoch: 3, counter }
    }

    #[test]
    fn a_life_has_node_module_engine_signatures_and_the_next_hops_reply() {
        let mut lives = Lives::default();
        let message = id(1);
        let grabber = "pc-1".to_owned();
        let finding = Finding {
            need: "virus".to_owned(),
            module: "clamav".to_owned(),
            engine: "ClamAV 1.4.3".to_owned(),
            signatures: "27800".to_owned(),
            outcome: Outcome::Clean,
            duration_ms: 12,
        };
        let fence = Fence { epoch: 3, counter: 9 };
        let replies = vec![(ReleaseResult::Accepted, "250 2.0.0 queued as 7".to_owned(), 2)];
        for (unix_ms, event) in [
            Event::Marked { message },
            Event::Reserved { message, grabber: grabber.clone(), fence, attempt: 1 },
            Event::Verdict { message, grabber, findings: vec![finding] },
            Event::Released {
                message,
                accepted: 2,
                deferred: 0,
                refused: 0,
                possible_duplicates: 0,
                replies,
            },
            Event::Done { message },
        ]
        .into_iter()
        .enumerate()
        {
            lives.handle_event(&event, unix_ms as u64);
        }
        let steps = lives.steps(message);
        let words: Vec<&str> = steps.iter().map(|step| step.what.as_str()).collect();
        assert_eq!(words, ["marked", "dispatched", "verdict", "released", "done"]);
        assert_eq!(steps[2].node.as_deref(), Some("pc-1"));
        assert_eq!(steps[2].detail, "virus: clean (clamav, ClamAV 1.4.3, 27800, 12 ms)");
        assert_eq!(steps[3].detail, "accepted for 2: 250 2.0.0 queued as 7");
        assert!(lives.steps(id(2)).is_empty());
    }

    /// Neither one message that is tried for ever nor any number of messages can fill the memory.
    #[test]
    fn lives_are_bounded() {
        let mut lives = Lives::default();
        for count in 0..1_000_u64 {
            let reason = format!("time {count}");
            let event = Event::Returned { message: id(1), grabber: "pc-1".to_owned(), reason };
            lives.handle_event(&event, count);
        }
        let steps = lives.steps(id(1));
        assert_eq!(steps.len(), STEPS_MAX);
        assert_eq!((steps[0].unix_ms, steps[STEPS_MAX - 1].unix_ms), (0, 999));
        let reason = "x".repeat(10_000);
        for counter in 2..30_000 {
            let event = Event::SetAside {
                message: id(counter),
                state: StoredState::Held,
                reason: reason.clone(),
            };
            lives.handle_event(&event, 0);
        }
        assert!(lives.bytes <= LIVES_BYTES_MAX);
        assert!(lives.steps(id(1)).is_empty() && !lives.steps(id(29_999)).is_empty());
        let sum: usize = lives.lives.values().flatten().map(Kept::bytes).sum();
        assert_eq!(sum, lives.bytes);
    }
}

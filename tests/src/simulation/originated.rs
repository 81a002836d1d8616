//! What verdicts asked for beside the message, and what of it came out: each once, never before the verdict counts, never
//! not at all.

use std::collections::{BTreeMap, BTreeSet};

use gantry_mail::Envelope;
use gantry_protocol::id::MessageId;
use gantry_protocol::verdict::{Originated, OriginatedTo, Verdict};

/// The mailbox's masks allow this one.
pub(super) const POSTMASTER: &str = "postmaster@example.net";
const ORIGIN: &str = "X-Origin: ";

/// Which one: the message whose verdict asked for it, the fence of that verdict, and the number in it.
type Origin = (MessageId, String, usize);

#[derive(Default)]
pub(super) struct Book {
    /// Of verdicts that were about to count.
    asked: BTreeSet<Origin>,
    /// Under which ids each came out, or lies in the spool at the end.
    seen: BTreeMap<Origin, BTreeSet<MessageId>>,
    /// Messages that left on an operator's word, whatever verdicts had come before.
    overruled: BTreeSet<MessageId>,
}

/// What a worker asks for: a notice to the postmaster and one to the sender.
pub(super) fn notices(id: MessageId, stamp: &str, number: usize) -> Vec<Originated> {
    let to = [OriginatedTo::Address(POSTMASTER.to_owned()), OriginatedTo::Sender];
    let notice = |(place, to)| Originated {
        sender: String::new(),
        recipients: vec![to],
        message: format!(
            "Subject: told\r\nX-Number: {number}\r\n{ORIGIN}{id} {stamp} {place}\r\n\r\n"
        )
        .into_bytes(),
        original_at: None,
    };
    to.into_iter().enumerate().map(notice).collect()
}

pub(super) fn is_originated(bytes: &[u8]) -> bool {
    origin(bytes).is_some()
}

fn origin(bytes: &[u8]) -> Option<Origin> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.split("\r\n").find_map(|line| line.strip_prefix(ORIGIN))?;
    let mut words = line.split(' ');
    let (id, stamp) = (words.next()?.parse().ok()?, words.next()?.to_owned());
    Some((id, stamp, words.next()?.parse().ok()?))
}

impl Book {
    /// A verdict is about to count.
    pub(super) fn settled(&mut self, id: MessageId, verdict: &Verdict, envelope: &Envelope) {
        for one in &verdict.originated {
            let nobody = one.recipients == [OriginatedTo::Sender] && envelope.is_null_sender();
            if !nobody {
                self.asked.extend(origin(&one.message));
            }
            debug_assert!(origin(&one.message).is_some_and(|(of, ..)| of == id));
        }
    }

    pub(super) fn overruled(&mut self, id: MessageId) {
        self.overruled.insert(id);
    }

    /// One came out under this id, or is in the spool when everything is over.
    pub(super) fn seen(&mut self, id: MessageId, bytes: &[u8]) -> Result<(), String> {
        let Some(origin) = origin(bytes) else { return Err(format!("{id} has no origin")) };
        if !self.asked.contains(&origin) {
            return Err(format!("{id} was originated by {origin:?}, a verdict that never counted"));
        }
        let ids = self.seen.entry(origin.clone()).or_default();
        ids.insert(id);
        match ids.len() {
            1 => Ok(()),
            _ => Err(format!("what {origin:?} asks for was made more than once: {ids:?}")),
        }
    }

    /// Whether a verdict on this message asked for something, and no such verdict has all of it.
    pub(super) fn lacks(&self, id: MessageId) -> bool {
        let of: BTreeSet<&String> = self
            .asked
            .iter()
            .filter(|(asked, ..)| *asked == id)
            .map(|(_, stamp, _)| stamp)
            .collect();
        let has_all = |stamp: &&String| {
            let mut asked = self.asked.iter().filter(|(of, by, _)| *of == id && by == *stamp);
            asked.all(|origin| self.seen.contains_key(origin))
        };
        !of.is_empty() && !self.overruled.contains(&id) && !of.iter().any(has_all)
    }
}

//! What befalls messages: a line in the log for each transition, and the same in the [history], so that a
//! message's life can be told after it has left, and after a restart of the hook.

mod history;
mod transition;

use std::collections::BTreeMap;

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{About, Event};
use gantry_protocol::text::{bounded, discreet};
use gantry_protocol::time::Moment;
use serde::Serialize;

pub use history::{BYTES_MAX_MIN, History, Kept};
pub use transition::Decided;
use transition::{Doer, Level, Transition};

/// Messages under way whose last transition is remembered for the time between two: what more than that wait, the
/// oldest of them, have been waiting for their first since they came in. Half a megabyte at the most.
const LATEST_MAX: usize = 8 * 1024;

/// Notes what befalls the messages of one host.
#[derive(Debug)]
pub struct Journal {
    /// The names of the mailboxes, by their index.
    mailboxes: Vec<String>,
    history: Option<History>,
    /// When something befell a message last.
    latest: BTreeMap<MessageId, Moment>,
}

/// A line of the history.
#[derive(Debug, Serialize)]
struct Line<'a> {
    id: String,
    unix_ms: u64,
    what: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    mailbox: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    detail: &'a str,
}

impl Journal {
    pub fn new(mailboxes: Vec<String>, history: Option<History>) -> Self {
        Self { mailboxes, history, latest: BTreeMap::new() }
    }

    /// Where lives are kept, if they are.
    pub fn history(&self) -> Option<&History> {
        self.history.as_ref()
    }

    /// Notes what the pool says.
    pub fn handle_event(
        &mut self,
        event: &Event,
        about: Option<&About>,
        now: Moment,
        unix_ms: u64,
    ) {
        if let Event::Originated { message, from } = event {
            self.note(*from, &Transition::originates(*message), None, now, unix_ms);
        }
        match (event.message(), Transition::of(event)) {
            (Some(id), Some(transition)) => self.note(id, &transition, about, now, unix_ms),
            _ => transition::log_link(event),
        }
    }

    /// Notes an operator's decision about a message.
    pub fn handle_operator(
        &mut self,
        id: MessageId,
        who: &str,
        words: String,
        decided: Decided,
        now: Moment,
        unix_ms: u64,
    ) {
        let transition = Transition::operator(who, words, decided);
        self.note(id, &transition, None, now, unix_ms);
    }

    fn note(
        &mut self,
        id: MessageId,
        transition: &Transition<'_>,
        about: Option<&About>,
        now: Moment,
        unix_ms: u64,
    ) {
        let mailbox = about.and_then(|about| self.mailboxes.get(usize::from(about.mailbox.0)));
        let mailbox = mailbox.map(String::as_str);
        log(id, transition, mailbox, about, self.latest.get(&id).map(|last| now.since(*last)), now);
        if transition.is_end() {
            self.latest.remove(&id);
        } else if about.is_some() {
            self.latest.insert(id, now);
            if self.latest.len() > LATEST_MAX {
                self.latest.pop_first();
            }
        }
        let Some(history) = &self.history else { return };
        let line = Line {
            id: id.to_string(),
            unix_ms,
            what: transition.what,
            mailbox: mailbox.unwrap_or_default(),
            node: transition.doer.name(),
            detail: &bounded(transition.detail.as_str()),
        };
        if let Ok(mut text) = serde_json::to_vec(&line) {
            text.push(b'\n');
            history.push(&text);
        }
    }
}

/// One line. Above DEBUG nothing stands in it that is the mail's own: the history has it whole.
fn log(
    id: MessageId,
    transition: &Transition<'_>,
    mailbox: Option<&str>,
    about: Option<&About>,
    since: Option<std::time::Duration>,
    now: Moment,
) {
    let Transition { what, doer, change, fence, .. } = transition;
    let (from, to) = (change.map(|change| change.0), change.map(|change| change.1));
    let (worker, operator) = match doer {
        Doer::Worker(name) => (Some(*name), None),
        Doer::Operator(name) => (None, Some(*name)),
        Doer::Host => (None, None),
    };
    let fence = fence.map(tracing::field::display);
    let attempt = about.map(|about| about.attempts);
    let age_ms = about.map(|about| gantry_protocol::time::millis(now.since(about.since)));
    let since_ms = since.map(gantry_protocol::time::millis);
    let words = || match &transition.logged {
        _ if tracing::enabled!(tracing::Level::DEBUG) => transition.detail.clone(),
        Some(logged) => logged.clone(),
        None => discreet(&transition.detail),
    };
    macro_rules! line {
        ($level:ident) => {
            if tracing::enabled!(tracing::Level::$level) {
                let reason = Some(words()).filter(|words| !words.is_empty());
                tracing::event!(
                    tracing::Level::$level, %id, mailbox, from = from.filter(|from| !from.is_empty()), to,
                    attempt, fence, worker, operator, reason, since_ms, age_ms, "{what}"
                );
            }
        };
    }
    match transition.level {
        Level::Info => line!(INFO),
        Level::Warn => line!(WARN),
        Level::Error => line!(ERROR),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests;

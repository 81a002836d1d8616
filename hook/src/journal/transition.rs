//! What an event of the pool means in a message's life, in words.

use gantry_protocol::id::{Fence, MessageId};
use gantry_protocol::pool::{Ending, Event, ReleaseResult, StoredState};
use gantry_protocol::text::discreet;
use gantry_protocol::verdict::Finding;

use crate::admin::{finding, result_word};

/// Findings told in one step; all of them are stored with the message.
const FINDINGS_TOLD_MAX: usize = 8;
/// The state of a message that has left.
const GONE: &str = "gone";

/// One step of a message's life.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Transition<'a> {
    /// What happened, in a word or two.
    pub(super) what: &'static str,
    pub(super) level: Level,
    pub(super) doer: Doer<'a>,
    /// The states before and after it, where it changes the state; a message that came in has none before.
    pub(super) change: Option<(&'static str, &'static str)>,
    pub(super) fence: Option<Fence>,
    /// The rest in words.
    pub(super) detail: String,
    /// How the log puts it above DEBUG, where that is not simply [`discreet`].
    pub(super) logged: Option<String>,
}

/// What an operator decided about a message that was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decided {
    /// To be processed again.
    Released,
    /// It leaves without.
    ReleasedAsIs,
    Deleted,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Level {
    Info,
    Warn,
    Error,
}

/// Whose doing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Doer<'a> {
    Host,
    Worker(&'a str),
    Operator(&'a str),
}

impl Doer<'_> {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Host => "",
            Self::Worker(name) | Self::Operator(name) => name,
        }
    }
}

impl<'a> Transition<'a> {
    fn new(what: &'static str, doer: Doer<'a>) -> Self {
        Self {
            what,
            level: Level::Info,
            doer,
            change: None,
            fence: None,
            detail: String::new(),
            logged: None,
        }
    }

    fn change(self, from: &'static str, to: &'static str) -> Self {
        Self { change: Some((from, to)), ..self }
    }

    fn detail(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    fn level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// An operator's decision.
    pub(super) fn operator(who: &'a str, words: String, decided: Decided) -> Self {
        let (level, to) = match decided {
            Decided::Released => (Level::Info, "waiting"),
            Decided::ReleasedAsIs => (Level::Warn, "releasing"),
            Decided::Deleted => (Level::Info, GONE),
        };
        Self::new("operator", Doer::Operator(who)).change("", to).level(level).detail(words)
    }

    /// The other side of [`Event::Originated`]: the life of each of the two names the other.
    pub(super) fn originates(message: MessageId) -> Self {
        Self::new("originates", Doer::Host).detail(message.to_string())
    }

    /// Whether the message has left with it.
    pub(super) fn is_end(&self) -> bool {
        self.change.is_some_and(|(_, to)| to == GONE)
    }

    /// `None` for what is about no message.
    pub(super) fn of(event: &'a Event) -> Option<Self> {
        let host = |what| Self::new(what, Doer::Host);
        let by = |what, grabber: &'a String| Self::new(what, Doer::Worker(grabber));
        Some(match event {
            Event::Marked { .. } => host("marked").change("", "waiting"),
            Event::Reserved { grabber, fence, attempt, .. } => Self {
                fence: Some(*fence),
                ..by("dispatched", grabber)
                    .change("waiting", "reserved")
                    .detail(format!("attempt {attempt}, fence {fence}"))
            },
            Event::TakenOver { from, to, reason, after, .. } => by("taken over", to)
                .level(Level::Warn)
                .change("reserved", "waiting")
                .detail(format!("from {from}, {reason} for {} ms", after.as_millis())),
            Event::Verdict { grabber, findings, .. } => by("verdict", grabber)
                .change("reserved", "settling")
                .detail(findings_in_words(findings)),
            Event::Settled { grabber, next, .. } => by("settled", grabber).change("settling", next),
            Event::Part { grabber, findings, remaining, .. } => {
                let words = findings_in_words(findings);
                by("part", grabber)
                    .change("reserved", "waiting")
                    .detail(format!("{words}; left to be done: {}", remaining.join(", ")))
            }
            Event::Originated { from, .. } => host("originated")
                .change("", "releasing")
                .detail(format!("by the verdict on {from}")),
            Event::Returned { grabber, reason, .. } => {
                by("returned", grabber).change("reserved", "waiting").detail(reason)
            }
            Event::VerdictRefused { grabber, reason, .. } => {
                by("verdict refused", grabber).level(Level::Warn).detail(reason)
            }
            Event::Released { accepted, deferred, possible_duplicates, replies, .. } => {
                let again = *deferred + *possible_duplicates;
                let what = match (*accepted, again, replies.len()) {
                    (0, 0, _) => "refused",
                    (0, _, _) => "deferred",
                    (_, _, 1) => "released",
                    _ if replies.iter().all(|(r, _, _)| *r == ReleaseResult::Accepted) => {
                        "released"
                    }
                    _ => "released in part",
                };
                let logged = Some(in_words(replies, code));
                Self { logged, ..host(what).detail(in_words(replies, str::to_owned)) }
            }
            Event::Done { ending, .. } => done(*ending),
            Event::SetAside { state, reason, .. } => {
                let state = aside(*state);
                host(state).change("settling", state).detail(reason)
            }
            Event::Answered { accepted, .. } => host("answered").detail(if *accepted {
                "the sender was told yes"
            } else {
                "the sender was told no"
            }),
            Event::ReleasedUnprocessed { .. } => host("unprocessed")
                .level(Level::Warn)
                .change("waiting", "releasing")
                .detail("it leaves so by the configuration"),
            Event::Aged { age, .. } => host("waits for long")
                .level(Level::Warn)
                .detail(format!("the oldest in its mailbox, after {} s", age.as_secs())),
            Event::StoreFailed { reason, .. } => {
                host("store failed").level(Level::Error).detail(reason)
            }
            Event::Corrupted { reason, .. } => Self {
                change: Some(("", GONE)),
                ..host("corrupted").level(Level::Error).detail(reason)
            },
            Event::Linked { .. }
            | Event::LinkLost { .. }
            | Event::Misbehaved { .. }
            | Event::Rests { .. } => return None,
        })
    }
}

fn done<'a>(ending: Ending) -> Transition<'a> {
    let (what, from) = match ending {
        Ending::Released => ("done", "releasing"),
        Ending::Discarded => ("discarded", "settling"),
        Ending::Refused => ("refused", "settling"),
        Ending::LeftToSender => ("left to its sender", ""),
        Ending::Deleted { from } => ("deleted", aside(from)),
    };
    Transition::new(what, Doer::Host).change(from, GONE)
}

/// What happens to links is no message's life, and stands in the log alone.
pub(super) fn log_link(event: &Event) {
    match event {
        Event::Linked { grabber } => tracing::info!(worker = grabber, "linked"),
        Event::LinkLost { grabber } => tracing::info!(worker = grabber, "link lost"),
        Event::Misbehaved { grabber, reason } => {
            tracing::warn!(worker = grabber, reason, "misbehaved");
        }
        Event::Rests { grabber, reason } => {
            tracing::warn!(worker = grabber, reason, "a worker rests");
        }
        _ => {}
    }
}

fn aside(state: StoredState) -> &'static str {
    if state == StoredState::Quarantined { "quarantined" } else { "held" }
}

fn findings_in_words(findings: &[Finding]) -> String {
    let mut words: Vec<String> = findings.iter().take(FINDINGS_TOLD_MAX).map(finding).collect();
    if findings.len() > FINDINGS_TOLD_MAX {
        words.push(format!("and {} more", findings.len() - FINDINGS_TOLD_MAX));
    }
    if words.is_empty() { "nothing was asked for".to_owned() } else { words.join("; ") }
}

fn in_words(replies: &[(ReleaseResult, String, u16)], put: impl Fn(&str) -> String) -> String {
    let words = replies.iter().map(|(result, reply, recipients)| {
        let of = if *recipients == 1 { String::new() } else { format!(" for {recipients}") };
        format!("{}{of}: {}", result_word(*result), put(reply))
    });
    words.collect::<Vec<_>>().join("; ")
}

/// A reply as it may stand in the log: of the next hop's words, which may name a recipient, its codes alone (RFC 5321
/// section 4.2, RFC 2034).
fn code(reply: &str) -> String {
    let is_code = |word: &&str| {
        word.starts_with(|c: char| c.is_ascii_digit())
            && word.chars().all(|c| c.is_ascii_digit() || c == '.')
    };
    let codes: Vec<&str> = reply.split([' ', '-']).take_while(is_code).take(2).collect();
    if codes.is_empty() { discreet(reply) } else { codes.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_reply_the_log_has_the_codes() {
        assert_eq!(code("550 5.1.1 <bob@example.com>: unknown here"), "550 5.1.1");
        assert_eq!(code("250-2.0.0 ok 17"), "250 2.0.0");
        assert_eq!(code("421 mx.example.com is busy"), "421");
        assert_eq!(
            code("connect to [192.0.2.1]:25: refused"),
            "connect to [192.0.2.1]:25: refused"
        );
        assert_eq!(code("write /var/mail/bob@example.com"), "write <…>");
    }
}

//! What people see.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Pool;
use super::effect::{MailboxIndex, Marked, Recovered, StoredState};
use super::entry::{Entry, State};
use super::shelf::Shelf;
use crate::id::MessageId;
use crate::profile::{Profile, Readiness};
use crate::text::bounded;
use crate::time::{Moment, millis};

/// Counted since the hook's start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Counters {
    pub marked: u64,
    pub settled: u64,
    /// Workers that did some of what a message needs, and left the rest to others.
    pub parts: u64,
    pub returned: u64,
    /// Messages handed on to all their recipients.
    pub released: u64,
    pub recipients_accepted: u64,
    /// Messages whose waiting sender was told no.
    pub refused: u64,
    pub quarantined: u64,
    pub held: u64,
    pub taken_over: u64,
    pub takeover_ms_max: u64,
    pub possible_duplicates: u64,
    /// Late or wrong verdicts that were not applied.
    pub verdicts_refused: u64,
    pub released_unprocessed: u64,
    /// Messages that an operator handed on as they are.
    pub released_as_is: u64,
    pub corrupted: u64,
    /// Notices of non-delivery.
    pub notices: u64,
    /// Messages that verdicts asked for.
    pub originated: u64,
}

impl Counters {
    pub(super) fn taken_over(&mut self, after: Duration) {
        self.taken_over += 1;
        self.takeover_ms_max = self.takeover_ms_max.max(millis(after));
    }
}

/// One hook's state, for the `status` command.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    pub backlog: BacklogStatus,
    /// Messages in each state.
    pub waiting: u64,
    pub reserved: u64,
    pub settling: u64,
    pub releasing: u64,
    pub held: u64,
    pub quarantined: u64,
    pub counters: Counters,
    pub workers: Vec<WorkerStatus>,
    /// The oldest ones, up to the bound asked for.
    pub messages: Vec<MessageStatus>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BacklogStatus {
    pub messages: u64,
    pub bytes: u64,
    pub oldest_s: u64,
}

/// What a hook that empties itself still has on its way. What is set aside stays and does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Remaining {
    pub waiting: u64,
    pub reserved: u64,
    pub settling: u64,
    pub releasing: u64,
    /// Tried at the way out and to be tried again later; they stay in the spool.
    pub deferred: u64,
}

impl Remaining {
    /// Whether nothing is left that could be finished soon.
    pub fn is_empty(&self) -> bool {
        self.waiting + self.reserved + self.settling + self.releasing == 0
    }

    /// Messages in all.
    pub fn messages(&self) -> u64 {
        self.waiting + self.reserved + self.settling + self.releasing + self.deferred
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    pub name: String,
    /// Program and version.
    #[serde(default)]
    pub software: String,
    pub linked: bool,
    pub incarnation: String,
    /// Capabilities granted and provided.
    pub provides: Vec<String>,
    /// `ready`, `busy`, `draining`, or `not ready: REASON`; `unknown` before its first profile.
    pub readiness: String,
    /// The digest of its policy.
    #[serde(default)]
    pub policy: String,
    /// Why it is given nothing, if so.
    pub barred: Option<String>,
    /// Why an operator made it not ready, if so.
    #[serde(default)]
    pub ordered: Option<String>,
    /// It has missed three beats while holding something.
    pub silent: bool,
    pub draining: bool,
    /// How often it broke the protocol since the hook's start, and how it did last.
    #[serde(default)]
    pub faults: u32,
    #[serde(default)]
    pub last_fault: Option<String>,
    pub heard_ago_ms: u64,
    pub free: u64,
    pub holding: Vec<String>,
    pub profile: Option<Profile>,
}

/// How many messages of one mailbox are where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MailboxStatus {
    pub name: String,
    /// In the pool; the oldest of them has waited for `oldest_s` seconds.
    pub waiting: u64,
    pub waiting_bytes: u64,
    pub oldest_s: u64,
    pub reserved: u64,
    pub settling: u64,
    pub releasing: u64,
    pub held: u64,
    pub quarantined: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageStatus {
    pub id: String,
    pub mailbox: String,
    /// `waiting`, `dispatched for NAME`, `settling`, `releasing`, `held` or `quarantined`.
    pub state: String,
    pub age_s: u64,
    pub attempts: u8,
    pub length: u64,
    pub reasons: Vec<String>,
    /// Where some workers have done their part: what is left to be done.
    #[serde(default)]
    pub remaining: Vec<String>,
}

impl Pool {
    /// What is on its way, counted anew.
    pub fn remaining(&self) -> Remaining {
        let mut remaining = Remaining::default();
        for entry in self.messages.values() {
            *(match &entry.state {
                State::Marked => &mut remaining.waiting,
                State::Reserved(_) => &mut remaining.reserved,
                State::Settling(_) => &mut remaining.settling,
                State::Releasing(releasing) if releasing.tries > 0 => &mut remaining.deferred,
                State::Releasing(_) => &mut remaining.releasing,
            }) += 1;
        }
        for (_, shelf, count) in self.all_shelved() {
            *(match shelf {
                Shelf::Waiting | Shelf::Suspects | Shelf::Parts => &mut remaining.waiting,
                // Nearly all of them: there is no room for what is to be tried again.
                Shelf::Releasing => &mut remaining.deferred,
                Shelf::Held | Shelf::Quarantined => continue,
            }) += count.messages;
        }
        remaining
    }

    /// A picture of the pool and of what lies on the shelf; at most `messages_max` messages, oldest first. `shelved` has the
    /// oldest of those on the shelf, as many.
    pub fn status(&self, messages_max: usize, shelved: &[Recovered], now: Moment) -> Status {
        let mut status = Status { counters: self.counters.clone(), ..Status::default() };
        for entry in self.messages.values() {
            *(match entry.state {
                State::Marked => &mut status.waiting,
                State::Reserved(_) => &mut status.reserved,
                State::Settling(_) => &mut status.settling,
                State::Releasing(_) => &mut status.releasing,
            }) += 1;
            let age_s = now.since(entry.since).as_secs();
            if matches!(entry.state, State::Marked) {
                status.backlog.messages += 1;
                status.backlog.bytes += entry.length;
                status.backlog.oldest_s = status.backlog.oldest_s.max(age_s);
            }
        }
        for (_, shelf, count) in self.all_shelved() {
            *(match shelf {
                Shelf::Waiting | Shelf::Suspects | Shelf::Parts => {
                    status.backlog.messages += count.messages;
                    status.backlog.bytes = status.backlog.bytes.saturating_add(count.bytes);
                    &mut status.waiting
                }
                Shelf::Releasing => &mut status.releasing,
                Shelf::Held => &mut status.held,
                Shelf::Quarantined => &mut status.quarantined,
            }) += count.messages;
        }
        (status.messages, _) = self.messages(|_| true, messages_max, shelved, now);
        status.workers = self.workers(now);
        status
    }

    /// Each worker that has linked since the start.
    pub fn workers(&self, now: Moment) -> Vec<WorkerStatus> {
        self.grabbers
            .iter()
            .map(|(_, grabber)| WorkerStatus {
                name: grabber.name.clone(),
                software: grabber.software.clone(),
                linked: grabber.session.is_some(),
                incarnation: grabber.incarnation.to_string(),
                provides: grabber.capabilities.iter().cloned().collect(),
                readiness: readiness(grabber.profile.as_ref().map(|(profile, _)| profile)),
                policy: grabber.policy.to_string(),
                barred: grabber
                    .barred
                    .clone()
                    .or_else(|| grabber.failing.reason().map(str::to_owned)),
                ordered: grabber.ordered.clone(),
                silent: grabber.silent,
                draining: grabber.draining,
                faults: grabber.faults,
                last_fault: grabber.last_fault.clone(),
                heard_ago_ms: millis(now.since(grabber.last_heard)),
                free: grabber.free(),
                holding: grabber.holding.iter().map(ToString::to_string).collect(),
                profile: grabber.profile.as_ref().map(|(profile, _)| profile.clone()),
            })
            .collect()
    }

    /// Each mailbox, in the order of the configuration. Looks at every message in memory once.
    pub fn mailboxes(&self, now: Moment) -> Vec<MailboxStatus> {
        let names = self.config.mailboxes.iter().map(|mailbox| mailbox.name.clone());
        let mut all: Vec<MailboxStatus> =
            names.map(|name| MailboxStatus { name, ..MailboxStatus::default() }).collect();
        for entry in self.messages.values() {
            let Some(mailbox) = all.get_mut(usize::from(entry.mailbox.0)) else { continue };
            *(match entry.state {
                State::Marked => &mut mailbox.waiting,
                State::Reserved(_) => &mut mailbox.reserved,
                State::Settling(_) => &mut mailbox.settling,
                State::Releasing(_) => &mut mailbox.releasing,
            }) += 1;
            if matches!(entry.state, State::Marked) {
                mailbox.waiting_bytes += entry.length;
                mailbox.oldest_s = mailbox.oldest_s.max(now.since(entry.since).as_secs());
            }
        }
        for (mailbox, shelf, count) in self.all_shelved() {
            let Some(mailbox) = all.get_mut(usize::from(mailbox.0)) else { continue };
            *(match shelf {
                Shelf::Waiting | Shelf::Suspects | Shelf::Parts => {
                    mailbox.waiting_bytes = mailbox.waiting_bytes.saturating_add(count.bytes);
                    &mut mailbox.waiting
                }
                Shelf::Releasing => &mut mailbox.releasing,
                Shelf::Held => &mut mailbox.held,
                Shelf::Quarantined => &mut mailbox.quarantined,
            }) += count.messages;
        }
        all
    }

    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The first `max` messages whose state `wanted` accepts by its word (`reserved` for those that are dispatched), oldest
    /// first, and how many more there are. `shelved` has the first `max` such ones on the shelf.
    pub fn messages(
        &self,
        wanted: impl Fn(&str) -> bool,
        max: usize,
        shelved: &[Recovered],
        now: Moment,
    ) -> (Vec<MessageStatus>, u64) {
        let here = || self.messages.iter().filter(|(_, entry)| wanted(entry.state_name()));
        let on_shelf = |found: &&Recovered| {
            wanted(Shelf::of(found.state).word()) && !self.messages.contains_key(&found.marked.id)
        };
        let mut messages: Vec<(MessageId, MessageStatus)> = here()
            .take(max)
            .map(|(id, entry)| (*id, self.message_status(*id, entry, now)))
            .chain(
                shelved
                    .iter()
                    .filter(on_shelf)
                    .map(|found| (found.marked.id, self.shelved_status(found, now))),
            )
            .collect();
        messages.sort_unstable_by_key(|(id, _)| *id);
        messages.truncate(max);
        let counts = self.all_shelved().filter(|(_, shelf, _)| wanted(shelf.word()));
        let all = here().count() as u64 + counts.map(|(_, _, count)| count.messages).sum::<u64>();
        let more = all.saturating_sub(messages.len() as u64);
        (messages.into_iter().map(|(_, message)| message).collect(), more)
    }

    /// One message that the pool has in its hands.
    pub fn message(&self, id: MessageId, now: Moment) -> Option<MessageStatus> {
        self.messages.get(&id).map(|entry| self.message_status(id, entry, now))
    }

    /// One message from the shelf. Its reasons are in its file.
    pub fn shelved_status(&self, found: &Recovered, now: Moment) -> MessageStatus {
        let Marked { id, mailbox, length, since, .. } = found.marked;
        let attempts = match found.state {
            StoredState::Marked { attempts } | StoredState::Part { attempts } => attempts,
            _ => 0,
        };
        MessageStatus {
            id: id.to_string(),
            mailbox: self.mailbox_name(mailbox),
            state: Shelf::of(found.state).word().to_owned(),
            age_s: now.since(since).as_secs(),
            attempts,
            length,
            reasons: Vec::new(),
            remaining: Vec::new(),
        }
    }

    fn message_status(&self, id: MessageId, entry: &Entry, now: Moment) -> MessageStatus {
        MessageStatus {
            id: id.to_string(),
            mailbox: self.mailbox_name(entry.mailbox),
            state: match entry.reservation() {
                Some(reservation) => {
                    format!("dispatched for {}", self.grabbers.name(reservation.grabber))
                }
                None => entry.state_name().to_owned(),
            },
            age_s: now.since(entry.since).as_secs(),
            attempts: entry.attempts,
            length: entry.length,
            reasons: reasons(entry),
            remaining: match &entry.found {
                Some(found) if found.read => self.open_needs(entry),
                _ => Vec::new(),
            },
        }
    }

    fn mailbox_name(&self, mailbox: MailboxIndex) -> String {
        let mailbox = self.config.mailboxes.get(usize::from(mailbox.0));
        mailbox.map(|mailbox| mailbox.name.clone()).unwrap_or_default()
    }
}

/// Why an entry is where it is; at last what the next hop said, where it is asked again.
fn reasons(entry: &Entry) -> Vec<String> {
    let mut reasons = entry.reasons();
    if let State::Releasing(releasing) = &entry.state {
        let said = releasing.last_reply.as_ref();
        reasons.extend(said.map(|reply| bounded(format!("deferred: {reply}"))));
    }
    reasons
}

fn readiness(profile: Option<&Profile>) -> String {
    match profile.map(|profile| &profile.readiness) {
        None => "unknown".to_owned(),
        Some(Readiness::Ready) => "ready".to_owned(),
        Some(Readiness::Busy) => "busy".to_owned(),
        Some(Readiness::Draining) => "draining".to_owned(),
        Some(Readiness::NotReady { reason }) => format!("not ready: {reason}"),
    }
}

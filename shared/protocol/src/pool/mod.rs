//! The host's side: marks, reservations, fences, attempts, takeover, custody and release, as a state machine.
//!
//! A message is `marked -> reserved -> settling -> releasing -> done | held | quarantined`.
//!
//! # How to drive it
//! - `handle_*` takes what happened and `now`; received input comes before `handle_timeout`.
//! - after each of them [`Pool::poll_effect`] gives, until it is empty, what is to be done, in order. The queue is
//!   bounded by what one input can cause, and a driver that takes no input before it is empty bounds the whole.
//! - [`Pool::next_timeout`] tells when to call [`Pool::handle_timeout`].
//!
//! Effects that take time carry a token; each is answered once, and what no longer matters is known by its token.
//! Most of what is stored has no entry here: see `shelf.rs`.
//! The same code runs in the hook, under the simulation and in the model tests.

mod assign;
mod config;
mod effect;
mod entry;
mod grabbers;
mod link;
mod needs;
mod operator;
mod originated;
mod part;
mod release;
mod reserve;
mod rest;
mod settle;
mod shelf;
mod status;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

pub use config::{Config, MailboxConfig, OriginatedAllowed, RejectLate, WhenUnprocessed};
pub use effect::{
    About, Answer, Assigned, Assignment, Change, Custody, Effect, Ending, Event, MailboxIndex,
    Marked, REPLIES_TOLD_MAX, RecipientResult, Recovered, ReleaseResult, Stored, StoredLog,
    StoredState,
};
pub use link::LinkPeer;
pub use operator::{Operation, OperatorError};
pub use shelf::{Note, Shelf, Shelved};
pub use status::{Counters, MailboxStatus, MessageStatus, Remaining, Status, WorkerStatus};

use crate::id::{Epoch, Fence, MessageId, Session, Token};
use crate::limits::PROFILE_EVERY;
use crate::time::Moment;
use crate::timer::Timers;
use entry::{Entry, State};
use grabbers::{GrabberKey, Grabbers};
use needs::Needs;
use shelf::OnShelf;

/// Returns after which a message is in the pool again at once; after each further one it waits twice as long.
const RETURNS_AT_ONCE: u16 = 3;
const RETURN_PAUSE: Duration = Duration::from_millis(250);
const RETURN_PAUSE_MAX: Duration = Duration::from_secs(60);
/// What workers get after the hook's start to link, before the rule for unprocessed messages counts for those found
/// on disk.
const LINKING_TIME: Duration = Duration::from_secs(60);
/// Shortest time between two warnings about a mailbox: the log is read by people.
const WARN_AFTER_MIN: Duration = Duration::from_secs(1);

/// What the pool waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// When three beats of a grabber that holds something have been missed.
    Silent(GrabberKey),
    /// When a reservation's module has been silent too long or its time is over.
    Reservation(MessageId),
    /// When the waiting sender must be told, or an administrator's `after` has passed.
    Unprocessed(MessageId),
    /// When a deferred release is due again.
    Release(MessageId),
    /// When a message whose store failed is free again.
    Repool(MessageId),
    /// When a worker that fails on everything is tried again.
    Rested(GrabberKey),
    /// When profiles and backlog go to the grabbers.
    Tell,
    /// When those who have asked for nothing more are told that something waits.
    Backlog,
    /// When a mailbox's oldest waiting message is looked at for its age.
    Aged(MailboxIndex),
    /// When releases that lie on the shelf may be due.
    Shelf(MailboxIndex),
}

/// Messages that wait for the same grabbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Queue {
    mailbox: MailboxIndex,
    /// They are retried one at a time, apart, so that nobody waits behind them.
    suspects: bool,
    /// Earlier workers have done some of what they need, and what that is.
    parts: bool,
    met: Needs,
}

/// The messages of one host.
#[derive(Clone, Debug)]
pub struct Pool {
    config: Config,
    epoch: Epoch,
    messages: BTreeMap<MessageId, Entry>,
    /// In the pool and free, oldest first. No queue is empty.
    waiting: BTreeMap<Queue, BTreeSet<(Moment, MessageId)>>,
    /// Due to be released, by mailbox, and how many are under way.
    release_due: BTreeMap<MailboxIndex, BTreeSet<MessageId>>,
    releasing: BTreeMap<MailboxIndex, usize>,
    /// Whose release waits for its next try.
    deferred: BTreeMap<MailboxIndex, BTreeSet<MessageId>>,
    /// What is known of no more than its number.
    shelves: BTreeMap<(MailboxIndex, Shelf), OnShelf>,
    started: Moment,
    grabbers: Grabbers,
    /// Workers that an operator made not ready, with the reason, whether they are linked or not.
    orders: BTreeMap<String, String>,
    /// Reserved messages whose module has been silent too long.
    stalled: BTreeSet<MessageId>,
    /// Suspects that are reserved.
    suspects_out: BTreeSet<MessageId>,
    /// Messages in the pool whose stored findings are being read.
    reading: BTreeSet<MessageId>,
    timers: Timers<Timer>,
    effects: VecDeque<Effect>,
    /// Effects under way that a message waits for.
    tokens: BTreeMap<Token, MessageId>,
    counters: Counters,
    last_fence: u64,
    last_token: u64,
    /// The grabbers know that something waits.
    told_waiting: bool,
    draining: bool,
}

impl Pool {
    /// An empty pool of a hook's start. The epoch must be on disk already, synced, and higher than all before.
    pub fn new(config: Config, epoch: Epoch) -> Self {
        Self {
            config,
            epoch,
            messages: BTreeMap::new(),
            waiting: BTreeMap::new(),
            release_due: BTreeMap::new(),
            releasing: BTreeMap::new(),
            deferred: BTreeMap::new(),
            shelves: BTreeMap::new(),
            started: Moment::default(),
            grabbers: Grabbers::default(),
            orders: BTreeMap::new(),
            stalled: BTreeSet::new(),
            suspects_out: BTreeSet::new(),
            reading: BTreeSet::new(),
            timers: Timers::default(),
            effects: VecDeque::new(),
            tokens: BTreeMap::new(),
            counters: Counters::default(),
            last_fence: 0,
            last_token: 0,
            told_waiting: false,
            draining: false,
        }
    }

    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The number of the newest revocation list, for the next welcome.
    pub fn set_revocations(&mut self, number: u64) {
        self.config.revocations = number;
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    pub fn next_timeout(&self) -> Option<Moment> {
        self.timers.next_timeout()
    }

    /// A message came in: in the hook's custody it is durable by now, in upstream custody its sender waits.
    pub fn handle_marked(&mut self, marked: Marked, now: Moment) {
        let id = marked.id;
        if self.messages.contains_key(&id) {
            return;
        }
        if self.draining && matches!(marked.custody, Custody::Upstream { .. }) {
            self.answer_try_again(id, "shutting down, try again");
            self.effects.push_back(Effect::Forget {
                message: id,
                mailbox: marked.mailbox,
                attempts: marked.attempts,
            });
            return;
        }
        self.counters.marked += 1;
        self.insert(marked, State::Marked);
        self.event(Event::Marked { message: id });
        self.enter_pool(id, now);
        self.assign(now);
    }

    /// A message that must not be processed, such as one that has come round in a loop: it is held at once.
    pub fn handle_marked_held(&mut self, marked: Marked, reason: &str, now: Moment) {
        let id = marked.id;
        if self.messages.contains_key(&id) {
            return;
        }
        self.counters.marked += 1;
        self.insert(marked, State::Marked);
        self.event(Event::Marked { message: id });
        self.hold(id, reason.to_owned(), now);
    }

    /// The sender of a message in upstream custody is gone without an answer: it keeps the message, so nothing of
    /// it stays here. What is already on its way to the next hop goes on, and may be seen twice there.
    pub fn handle_sender_gone(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.messages.get(&id).filter(|entry| entry.is_upstream()) else {
            return;
        };
        match entry.state {
            State::Marked | State::Reserved(_) => {
                self.end_for_sender(id, "the sender has gone", now);
                self.drop_message(id);
                self.assign(now);
            }
            _ => {}
        }
    }

    /// No new work: senders who wait are told to try again, and nothing more is assigned.
    pub fn handle_drain(&mut self, now: Moment) {
        self.draining = true;
        let waiting: Vec<MessageId> = self
            .messages
            .iter()
            .filter(|(_, entry)| entry.is_upstream())
            .map(|(id, _)| *id)
            .collect();
        for id in waiting {
            let in_hand = self
                .messages
                .get(&id)
                .is_some_and(|e| matches!(e.state, State::Marked | State::Reserved(_)));
            if in_hand {
                self.end_for_sender(id, "the host shuts down", now);
                self.answer_try_again(id, "shutting down, try again");
                self.drop_message(id);
            }
        }
    }

    /// Whether nothing is being stored or released, so that a draining hook can stop.
    pub fn is_quiet(&self) -> bool {
        self.tokens.is_empty()
            && self.effects.is_empty()
            && self.releasing.values().all(|count| *count == 0)
    }

    /// Fires what is due. To be called after the input that has arrived was handled.
    pub fn handle_timeout(&mut self, now: Moment) {
        self.restart_beats_after_own_absence(now);
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Silent(grabber) => self.on_silent(grabber, now),
                Timer::Reservation(message) => self.on_reservation_timeout(message, now),
                Timer::Unprocessed(message) => self.on_unprocessed(message, now),
                Timer::Release(message) => self.on_release_due(message, now),
                Timer::Rested(grabber) => self.on_rested(grabber),
                Timer::Repool(message) => self.return_to_pool(message, now),
                Timer::Tell => self.on_tell(now),
                Timer::Backlog => self.on_backlog(now),
                Timer::Aged(mailbox) => self.on_aged(mailbox, now),
                Timer::Shelf(mailbox) => self.refill(mailbox, Shelf::Releasing, now),
            }
        }
        self.assign(now);
    }

    fn insert(&mut self, marked: Marked, state: State) {
        let entry = Entry {
            mailbox: marked.mailbox,
            custody: marked.custody,
            length: marked.length,
            recipients: marked.recipients,
            since: marked.since,
            attempts: marked.attempts,
            returns: 0,
            suspect: marked.attempts > 0,
            recovered: false,
            requeued: false,
            stores_failed: 0,
            storing: None,
            state,
            history: None,
            found: None,
        };
        self.messages.insert(marked.id, entry);
    }

    /// Puts a message back into the pool. One of too many suspects goes onto the shelf.
    fn return_to_pool(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.messages.get(&id) else { return };
        if !matches!(entry.state, State::Marked) || entry.storing.is_some() {
            return; // `handle_stored` puts it there.
        }
        if !(entry.suspect && self.shelve_beyond_window(id)) {
            self.enqueue(id, now);
        }
    }

    /// Makes a message free for whoever wants it.
    fn enqueue(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.messages.get(&id) else { return };
        let (since, mailbox, requeued) = (entry.since, entry.mailbox, entry.requeued);
        self.waiting.entry(entry.queue()).or_default().insert((since, id));
        let deadline = match entry.custody {
            Custody::Upstream { answer_by } => Some(answer_by),
            Custody::Hook => self.mailbox(id).and_then(|config| match config.when_unprocessed {
                // Without `after` the rule is for the sender's custody; and what an operator put back waits.
                WhenUnprocessed::Hold { after } | WhenUnprocessed::ReleaseUnscanned { after } => {
                    (!requeued && !after.is_zero()).then(|| (since + after).max(now))
                }
                WhenUnprocessed::Wait | WhenUnprocessed::TempFail => None,
            }),
        };
        if let Some(at) = deadline {
            self.timers.set(Timer::Unprocessed(id), at);
        }
        self.watch_age(mailbox, since, now);
    }

    /// Puts a message that was given back into the pool: at once the first times, so that others take it, and then
    /// ever later, so that a worker that cannot but keeps asking does not use up its returns within a moment.
    fn return_later(&mut self, id: MessageId, now: Moment) {
        let returns = self.messages.get(&id).map_or(0, |entry| entry.returns);
        match returns.checked_sub(RETURNS_AT_ONCE + 1) {
            None => self.return_to_pool(id, now),
            Some(more) => {
                let pause = (RETURN_PAUSE * (1 << more.min(16))).min(RETURN_PAUSE_MAX);
                self.timers.set(Timer::Repool(id), now + pause);
            }
        }
    }

    /// Looks at a mailbox's age when this message will have waited too long, unless that is to happen sooner anyway.
    fn watch_age(&mut self, mailbox: MailboxIndex, since: Moment, now: Moment) {
        let timer = Timer::Aged(mailbox);
        if let Some(config) = self.config.mailboxes.get(usize::from(mailbox.0))
            && self.timers.get(timer).is_none()
        {
            self.timers.set(timer, (since + config.warn_after).max(now));
        }
    }

    /// One warning for each mailbox in each `warn_after`, whether any worker is linked or not.
    fn on_aged(&mut self, mailbox: MailboxIndex, now: Moment) {
        let Some(config) = self.config.mailboxes.get(usize::from(mailbox.0)) else { return };
        let warn_after = config.warn_after.max(WARN_AFTER_MIN);
        let Some((since, id)) = self.oldest_waiting(mailbox) else { return };
        let age = now.since(since);
        let next = if age >= warn_after {
            self.event(Event::Aged { message: id, age });
            now + warn_after
        } else {
            since + warn_after
        };
        self.timers.set(Timer::Aged(mailbox), next);
    }

    fn oldest_waiting(&self, mailbox: MailboxIndex) -> Option<(Moment, MessageId)> {
        let queues = self.waiting.iter().filter(|(queue, _)| queue.mailbox == mailbox);
        queues.filter_map(|(_, queue)| queue.first().copied()).min()
    }

    /// Takes a message out of the pool's queue, for something that is about to happen to it.
    fn take_from_pool(&mut self, id: MessageId) {
        if let Some(entry) = self.messages.get(&id) {
            let (queue, since) = (entry.queue(), entry.since);
            self.take_from_queue(queue, (since, id));
        }
    }

    /// Whether it was there.
    fn take_from_queue(&mut self, queue: Queue, place: (Moment, MessageId)) -> bool {
        let Some(waiting) = self.waiting.get_mut(&queue) else { return false };
        let was_there = waiting.remove(&place);
        if waiting.is_empty() {
            self.waiting.remove(&queue);
        }
        was_there
    }

    /// Forgets a message that was not processed; in upstream custody its sender keeps it.
    fn drop_message(&mut self, id: MessageId) {
        if self.messages.get(&id).is_some_and(Entry::is_upstream) {
            self.event(Event::Done { message: id, ending: Ending::LeftToSender });
        }
        let attempts =
            self.messages.get(&id).filter(|entry| entry.suspect).map_or(0, |entry| entry.attempts);
        self.drop_message_with(id, attempts);
    }

    /// Forgets a message that was processed: nothing stays counted against its content.
    fn drop_processed(&mut self, id: MessageId, ending: Ending) {
        self.event(Event::Done { message: id, ending });
        self.drop_message_with(id, 0);
    }

    fn drop_message_with(&mut self, id: MessageId, attempts: u8) {
        self.take_from_pool(id);
        self.timers.clear(Timer::Unprocessed(id));
        self.timers.clear(Timer::Reservation(id));
        self.timers.clear(Timer::Release(id));
        self.timers.clear(Timer::Repool(id));
        self.stalled.remove(&id);
        self.suspects_out.remove(&id);
        self.reading.remove(&id);
        if let Some(entry) = self.messages.remove(&id) {
            if entry.is_upstream() {
                self.effects.push_back(Effect::Forget {
                    message: id,
                    mailbox: entry.mailbox,
                    attempts,
                });
            }
            if let Some(token) = entry.storing {
                self.tokens.remove(&token);
            }
            for releases in [&mut self.release_due, &mut self.deferred] {
                if let Some(releases) = releases.get_mut(&entry.mailbox) {
                    releases.remove(&id);
                }
            }
            for charge in entry.history.iter().flat_map(|history| &history.charges) {
                if let Some(grabber) = self.grabbers.get_mut(charge.grabber) {
                    grabber.charged.remove(&id);
                }
            }
        }
    }

    fn mailbox(&self, id: MessageId) -> Option<&MailboxConfig> {
        let entry = self.messages.get(&id)?;
        self.config.mailboxes.get(usize::from(entry.mailbox.0))
    }

    fn store(&mut self, id: MessageId, change: Change) {
        let token = self.token();
        let Some(entry) = self.messages.get_mut(&id) else { return };
        entry.storing = Some(token);
        self.tokens.insert(token, id);
        self.effects.push_back(Effect::Store {
            token,
            message: id,
            mailbox: entry.mailbox,
            change,
        });
    }

    fn answer_try_again(&mut self, id: MessageId, text: &str) {
        self.event(Event::Answered { message: id, accepted: false });
        self.effects.push_back(Effect::Answer {
            message: id,
            answer: Answer::TryAgain { text: text.to_owned() },
        });
    }

    fn answer_accepted(&mut self, id: MessageId) {
        self.event(Event::Answered { message: id, accepted: true });
        let text = format!("taken by {}", self.config.host);
        self.effects.push_back(Effect::Answer { message: id, answer: Answer::Accepted { text } });
    }

    fn event(&mut self, event: Event) {
        let entry = event.message().and_then(|id| self.messages.get(&id));
        let about = entry.map(|entry| About {
            mailbox: entry.mailbox,
            attempts: entry.attempts,
            since: entry.since,
        });
        self.effects.push_back(Effect::Event(event, about));
    }

    fn reply(
        &mut self,
        session: Session,
        message: MessageId,
        fence: Fence,
        frame: crate::frame::HostReservation,
    ) {
        let finish = !matches!(frame, crate::frame::HostReservation::Assign(_));
        self.effects.push_back(Effect::Reply { session, message, fence, frame, finish });
    }

    fn token(&mut self) -> Token {
        self.last_token += 1;
        Token(self.last_token)
    }

    fn fence(&mut self) -> Fence {
        self.last_fence += 1;
        Fence { epoch: self.epoch, counter: self.last_fence }
    }

    fn set_tell_timer(&mut self, now: Moment) {
        if self.timers.get(Timer::Tell).is_none() {
            self.timers.set(Timer::Tell, now + PROFILE_EVERY);
        }
    }
}

//! Messages that the pool keeps no entry of. They lie on the *shelf*: on disk, known to the spool, and only counted here.
//!
//! Of the messages that wait for a worker, and of those whose release waits, a mailbox has a bounded *window* in memory.
//! What comes in while something lies on the shelf joins it behind, and when the window is half empty it is refilled with
//! the oldest. What was set aside lies on its shelf until an operator asks for it.
//!
//! A message is in the pool's hands (and the spool gives it to nobody) or on the shelf (and the pool does nothing with it):
//! [`Effect::Shelve`] and [`Effect::Refill`] are the only ways from one to the other.

use super::effect::{Custody, Effect, MailboxIndex, Recovered, StoredState};
use super::entry::{Entry, Releasing, State};
use super::{LINKING_TIME, Pool, Queue, Timer};
use crate::id::MessageId;
use crate::time::Moment;

/// The shortest pause between two looks at the shelf for releases that are due.
const LOOK_EVERY_MIN: std::time::Duration = std::time::Duration::from_secs(1);
const HOUR_MS: u64 = 3_600_000;

/// Which of a mailbox's shelves a message lies on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shelf {
    /// Waiting for a worker.
    Waiting,
    /// Waiting for a worker, with attempts counted against it: apart, so that nobody waits behind it.
    Suspects,
    /// Waiting for further workers, when earlier ones have done some of what it needs.
    Parts,
    Releasing,
    Held,
    Quarantined,
}

impl Shelf {
    pub fn of(state: StoredState) -> Self {
        match state {
            StoredState::Marked { attempts: 0 } => Shelf::Waiting,
            StoredState::Part { attempts: 0 } => Shelf::Parts,
            StoredState::Marked { .. } | StoredState::Part { .. } => Shelf::Suspects,
            StoredState::Releasing => Shelf::Releasing,
            StoredState::Held => Shelf::Held,
            StoredState::Quarantined => Shelf::Quarantined,
        }
    }

    /// The state as people see it, see [`super::MessageStatus`].
    pub fn word(self) -> &'static str {
        match self {
            Shelf::Waiting | Shelf::Suspects | Shelf::Parts => "waiting",
            Shelf::Releasing => "releasing",
            Shelf::Held => "held",
            Shelf::Quarantined => "quarantined",
        }
    }
}

/// How much lies on a shelf.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shelved {
    pub messages: u64,
    pub bytes: u64,
}

/// What is remembered of a message on the shelf beside what its file's name says. A restart forgets it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Note {
    /// An operator put it back: it leaves by a verdict only.
    pub requeued: bool,
    /// A worker has had it since the hook's start.
    pub tried: bool,
    /// Tries of its release.
    pub tries: u8,
    /// Hours from its coming in to the first try of its release.
    pub waited_h: u8,
    /// When the next one is due, in seconds of the driver's clock.
    pub due_s: u32,
}

/// One shelf as the pool knows it.
#[derive(Clone, Debug, Default)]
pub(super) struct OnShelf {
    count: Shelved,
    /// The refill under way.
    refilling: Option<Refilling>,
}

#[derive(Clone, Debug)]
struct Refilling {
    asked: usize,
    /// What has been put there since it was asked for.
    meanwhile: Shelved,
}

impl Queue {
    /// Which shelf its messages come from.
    pub(super) fn shelf(&self) -> Shelf {
        match (self.suspects, self.parts) {
            (true, _) => Shelf::Suspects,
            (false, true) => Shelf::Parts,
            (false, false) => Shelf::Waiting,
        }
    }
}

impl Shelved {
    pub fn add(&mut self, length: u64) {
        self.messages += 1;
        self.bytes = self.bytes.saturating_add(length);
    }

    fn take(&mut self, length: u64) {
        self.messages = self.messages.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(length);
    }
}

impl Pool {
    /// What the spool found at the start: all of it lies on the shelf. To be called once, before any worker links, and
    /// followed by the effects that it causes: what has attempts must be here when a worker asks about it.
    pub fn handle_opened(
        &mut self,
        found: impl IntoIterator<Item = ((MailboxIndex, Shelf), Shelved)>,
        now: Moment,
    ) {
        self.started = now;
        for (place, count) in found {
            self.shelves.insert(place, OnShelf { count, refilling: None });
        }
        self.refill_all(now);
    }

    /// The answer to [`Effect::Refill`]: from now on these are in the pool's hands.
    pub fn handle_refilled(
        &mut self,
        mailbox: MailboxIndex,
        shelf: Shelf,
        found: Vec<Recovered>,
        now: Moment,
    ) {
        let place = (mailbox, shelf);
        let Some(on_shelf) = self.shelves.get_mut(&place) else { return };
        let Some(Refilling { asked, meanwhile }) = on_shelf.refilling.take() else { return };
        for recovered in &found {
            on_shelf.count.take(recovered.marked.length);
        }
        if found.is_empty() && shelf != Shelf::Releasing {
            // Whatever was counted is not there.
            on_shelf.count = meanwhile;
        }
        if on_shelf.count.messages == 0 {
            self.shelves.remove(&place);
        }
        let fewer = found.len() < asked;
        for recovered in found {
            self.take_from_shelf(recovered, now);
        }
        if shelf == Shelf::Releasing {
            if fewer && self.shelved(place).messages > 0 {
                self.look_later(mailbox, now);
            }
            self.release_next(mailbox, now);
        }
        self.assign(now);
    }

    /// One message as the spool found it, into the window.
    pub(super) fn take_from_shelf(&mut self, recovered: Recovered, now: Moment) {
        let Recovered { marked, state, note } = recovered;
        let (id, mailbox, since) = (marked.id, marked.mailbox, marked.since);
        if self.messages.contains_key(&id) {
            return;
        }
        match state {
            StoredState::Marked { attempts } | StoredState::Part { attempts } => {
                self.insert(super::Marked { attempts, ..marked }, State::Marked);
                if matches!(state, StoredState::Part { .. }) {
                    self.on_part_recovered(id);
                }
                if let Some(entry) = self.messages.get_mut(&id) {
                    entry.recovered = attempts > 0 && !note.tried;
                    entry.requeued = note.requeued;
                }
                self.enqueue(id, now);
                if id.epoch < self.epoch {
                    self.give_workers_time(id);
                }
            }
            StoredState::Releasing => {
                let releasing = Releasing {
                    tries: note.tries.into(),
                    started: Some(Moment(since.0 + u64::from(note.waited_h) * HOUR_MS)),
                    ..Releasing::default()
                };
                self.insert(marked, State::Releasing(Box::new(releasing)));
                self.release_due.entry(mailbox).or_default().insert(id);
            }
            // They are asked for one by one.
            StoredState::Held | StoredState::Quarantined => {
                self.effects.push_back(Effect::Shelve { message: id, note });
            }
        }
    }

    /// A hook that starts must not take its own absence for that of its workers.
    fn give_workers_time(&mut self, id: MessageId) {
        if let Some(at) = self.timers.get(Timer::Unprocessed(id)) {
            self.timers.set(Timer::Unprocessed(id), at.max(self.started + LINKING_TIME));
        }
    }

    /// Puts a message that nobody has had yet into the pool: into the window if there is room, else onto the shelf, behind
    /// all that lies there.
    pub(super) fn enter_pool(&mut self, id: MessageId, now: Moment) {
        if !self.shelve_beyond_window(id) {
            self.return_to_pool(id, now);
        }
    }

    /// Puts a waiting message onto the shelf if the window has no room for it. `false`: it stays here.
    pub(super) fn shelve_beyond_window(&mut self, id: MessageId) -> bool {
        let Some(entry) = self.messages.get(&id) else { return false };
        let waits = matches!((&entry.state, entry.custody), (State::Marked, Custody::Hook))
            && entry.storing.is_none();
        // Whom attempts are to be given back to must be here for that.
        let charged = entry.history.as_ref().is_some_and(|history| !history.charges.is_empty());
        let (mailbox, requeued) = (entry.mailbox, entry.requeued);
        let shelf = Shelf::of(entry.stored_state());
        let has_room = self.in_window(mailbox, shelf) < self.config.window
            && self.shelved((mailbox, shelf)).messages == 0;
        if !waits || charged || has_room {
            return false;
        }
        let tried = entry.suspect;
        self.shelve(id, shelf, Note { requeued, tried, ..Note::default() });
        true
    }

    /// Puts a message that is to be released onto the shelf until `due`, if the window has no room for it. All that is
    /// known of it must be stored. `false`: it stays here.
    pub(super) fn shelve_release(&mut self, id: MessageId, due: Moment, now: Moment) -> bool {
        let Some(entry) = self.messages.get(&id) else { return false };
        let State::Releasing(releasing) = &entry.state else { return false };
        if entry.is_upstream() || entry.storing.is_some() {
            return false;
        }
        let mailbox = entry.mailbox;
        let is_due = due <= now;
        // What is deferred takes turns with all that lies there; what is new need not.
        let has_room = if is_due {
            self.release_due.get(&mailbox).map_or(0, |due| due.len()) < self.config.window
        } else {
            self.deferred.get(&mailbox).map_or(0, |deferred| deferred.len()) < self.config.window
                && self.shelved((mailbox, Shelf::Releasing)).messages == 0
        };
        if has_room {
            return false;
        }
        let waited = releasing.started.map_or(0, |at| at.0.saturating_sub(entry.since.0));
        let note = Note {
            tries: u8::try_from(releasing.tries).unwrap_or(u8::MAX),
            waited_h: u8::try_from(waited / HOUR_MS).unwrap_or(u8::MAX),
            due_s: u32::try_from(due.0.div_ceil(1_000)).unwrap_or(u32::MAX),
            ..Note::default()
        };
        self.shelve(id, Shelf::Releasing, note);
        if is_due {
            self.timers.clear(Timer::Shelf(mailbox));
        }
        true
    }

    /// Forgets all but the number and bytes of a message in the hook's custody.
    pub(super) fn shelve(&mut self, id: MessageId, shelf: Shelf, note: Note) {
        let Some(Entry { mailbox, length, .. }) = self.messages.get(&id) else { return };
        let (mailbox, length) = (*mailbox, *length);
        self.drop_message_with(id, 0);
        self.put_on_shelf((mailbox, shelf), length);
        self.effects.push_back(Effect::Shelve { message: id, note });
    }

    fn put_on_shelf(&mut self, place: (MailboxIndex, Shelf), length: u64) {
        let on_shelf = self.shelves.entry(place).or_default();
        on_shelf.count.add(length);
        if let Some(refilling) = &mut on_shelf.refilling {
            refilling.meanwhile.add(length);
        }
    }

    /// A message that an operator has asked for is no longer on its shelf.
    pub(super) fn took(&mut self, mailbox: MailboxIndex, shelf: Shelf, length: u64) {
        if let Some(on_shelf) = self.shelves.get_mut(&(mailbox, shelf)) {
            on_shelf.count.take(length);
        }
    }

    /// Asks for more where the window is half empty.
    pub(super) fn refill_all(&mut self, now: Moment) {
        if self.draining {
            return;
        }
        let places: Vec<(MailboxIndex, Shelf)> = self
            .shelves
            .iter()
            .filter(|(_, on_shelf)| on_shelf.refilling.is_none() && on_shelf.count.messages > 0)
            .map(|(place, _)| *place)
            .collect();
        for (mailbox, shelf) in places {
            self.refill(mailbox, shelf, now);
        }
    }

    /// As [`Pool::refill_all`], for one shelf.
    pub(super) fn refill(&mut self, mailbox: MailboxIndex, shelf: Shelf, now: Moment) {
        let here = self.in_window(mailbox, shelf);
        let aside = matches!(shelf, Shelf::Held | Shelf::Quarantined);
        // What is not due is looked for when the timer fires.
        let later = shelf == Shelf::Releasing && self.timers.get(Timer::Shelf(mailbox)).is_some();
        if aside || later || self.draining || here > self.config.window / 2 {
            return;
        }
        let Some(on_shelf) = self.shelves.get_mut(&(mailbox, shelf)) else { return };
        if on_shelf.refilling.is_some() || on_shelf.count.messages == 0 {
            return;
        }
        let count = self.config.window.saturating_sub(here).max(1);
        on_shelf.refilling = Some(Refilling { asked: count, meanwhile: Shelved::default() });
        self.effects.push_back(Effect::Refill { mailbox, shelf, count, due: now });
    }

    /// When releases on the shelf are looked at again.
    fn look_later(&mut self, mailbox: MailboxIndex, now: Moment) {
        let config = self.config.mailboxes.get(usize::from(mailbox.0));
        let pause = config.map_or(LOOK_EVERY_MIN, |config| config.retry_min.max(LOOK_EVERY_MIN));
        self.timers.set(Timer::Shelf(mailbox), now + pause);
    }

    /// Messages in memory that a refill of this shelf adds to.
    fn in_window(&self, mailbox: MailboxIndex, shelf: Shelf) -> usize {
        match shelf {
            Shelf::Waiting | Shelf::Suspects | Shelf::Parts => {
                let queues = self.waiting.iter();
                let of = queues.filter(|(q, _)| q.mailbox == mailbox && q.shelf() == shelf);
                of.map(|(_, queue)| queue.len()).sum()
            }
            Shelf::Releasing => self.release_due.get(&mailbox).map_or(0, |due| due.len()),
            Shelf::Held | Shelf::Quarantined => 0,
        }
    }

    pub(super) fn shelved(&self, place: (MailboxIndex, Shelf)) -> Shelved {
        self.shelves.get(&place).map(|on_shelf| on_shelf.count).unwrap_or_default()
    }

    /// All that lies on shelves.
    pub(super) fn all_shelved(&self) -> impl Iterator<Item = (MailboxIndex, Shelf, Shelved)> {
        self.shelves.iter().map(|((mailbox, shelf), on_shelf)| (*mailbox, *shelf, on_shelf.count))
    }
}

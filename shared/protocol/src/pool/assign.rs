//! Who gets what: wants are matched with waiting messages, and with those whose owner is silent or stalled.

use std::collections::BTreeSet;
use std::time::Duration;

use super::effect::{Assignment, Change, Custody, Effect, Event};
use super::entry::{Blame, Charge, Entry, Phase, Reservation, State};
use super::grabbers::{Grabber, GrabberKey};
use super::{Pool, Queue, Timer};
use crate::frame::{Cancel, HostReservation};
use crate::id::{Fence, Incarnation, MessageId, Session};
use crate::limits::SILENCE_DEFAULT;
use crate::text::bounded;
use crate::time::Moment;

/// How far into a mailbox's queue a grabber looks for something it may have. Beyond it stand messages that can wait
/// until those in front, which are too long for this grabber or better elsewhere, have moved.
const LOOK_AHEAD: usize = 64;
/// How long a message that is too long for the room that grabbers have may be overtaken by shorter ones. Then the
/// idlest grabber takes in nothing more until it has room.
const OVERTAKEN_MAX: Duration = Duration::from_secs(5);

/// How much longer each further pause after a failed attempt is, and the longest.
const FAILED_PAUSE_FACTOR: u32 = 5;
const FAILED_PAUSE_MAX: Duration = Duration::from_secs(60);

/// What may be done with a message for a grabber that wants one.
enum Choice {
    Reserve(MessageId),
    /// What earlier workers have found is not known yet.
    Read(MessageId),
    /// Its attempts are used up.
    Hold(MessageId),
}

/// Grabbers that may be given something, in the order in which they are asked.
type Ready<'a> = Vec<(GrabberKey, &'a Grabber)>;

impl Pool {
    /// Matches wants with messages until nothing fits any more.
    ///
    /// Called on each input, so it must not look at more than what is reserved and the heads of the queues.
    pub(super) fn assign(&mut self, now: Moment) {
        if self.draining {
            return;
        }
        self.assign_all(now);
        self.refill_all(now);
        self.mention_backlog(now);
    }

    fn assign_all(&mut self, now: Moment) {
        while let Some((key, choice)) = self.next_match(now) {
            match choice {
                Choice::Read(id) => self.read_part(id),
                Choice::Hold(id) => {
                    self.end_former(id, None, now);
                    self.hold_used_up(id, now);
                }
                Choice::Reserve(id) => {
                    self.end_former(id, Some(key), now);
                    self.reserve(id, key, now);
                }
            }
        }
    }

    fn next_match(&self, now: Moment) -> Option<(GrabberKey, Choice)> {
        let mut ready: Ready<'_> = self.grabbers.iter().filter(|(_, g)| g.is_available()).collect();
        if ready.is_empty() {
            return None;
        }
        let contested = self.contested();
        if contested.is_empty() && self.waiting.is_empty() {
            return None;
        }
        // The most idle first: what it wants tells what it can start at once.
        ready.sort_by_key(|(key, g)| (g.tier, g.holding.len(), u64::MAX - g.free(), *key));
        ready.iter().find_map(|(key, grabber)| {
            let has_suspect = self.suspects_out.iter().any(|id| grabber.holding.contains(id));
            let id = self
                .contested_for(*key, grabber, has_suspect, &contested, now)
                .or_else(|| self.waiting_for(*key, grabber, has_suspect, &ready, now))?;
            Some((*key, self.choice(id)))
        })
    }

    /// What silent or stalled owners hold, oldest first.
    fn contested(&self) -> Vec<MessageId> {
        let silent = self
            .grabbers
            .iter()
            .filter(|(_, owner)| owner.silent)
            .flat_map(|(_, owner)| owner.holding.iter());
        let mut contested: Vec<MessageId> = silent
            .chain(&self.stalled)
            .copied()
            .filter(|id| {
                self.messages.get(id).is_some_and(|entry| {
                    entry.storing.is_none()
                        && entry.reservation().is_some_and(Reservation::is_working)
                })
            })
            .collect();
        contested.sort_unstable();
        contested
    }

    /// The oldest message of a silent or stalled owner that this grabber may take over.
    fn contested_for(
        &self,
        key: GrabberKey,
        grabber: &Grabber,
        has_suspect: bool,
        contested: &[MessageId],
        now: Moment,
    ) -> Option<MessageId> {
        // What is taken over is a suspect from then on.
        let mut contested = contested.iter().filter(|_| !has_suspect).copied();
        contested.find(|id| {
            self.messages.get(id).is_some_and(|entry| {
                entry.reservation().is_some_and(|r| {
                    r.grabber != key && self.may_have(key, grabber, &entry.queue(), Some(r.grabber))
                }) && grabber.has_room_for(entry.length)
                    && !self.better_elsewhere(entry, key, now)
            })
        })
    }

    /// The oldest message in the pool, over all mailboxes, that this grabber may have.
    fn waiting_for(
        &self,
        key: GrabberKey,
        grabber: &Grabber,
        has_suspect: bool,
        ready: &Ready<'_>,
        now: Moment,
    ) -> Option<MessageId> {
        let first_of = |place: &Queue, queue: &BTreeSet<(Moment, MessageId)>| {
            if (place.suspects && has_suspect) || !self.may_have(key, grabber, place, None) {
                return None;
            }
            let idlest = || {
                let may = |(key, other): &&(GrabberKey, &Grabber)| {
                    self.may_have(*key, other, place, None)
                };
                ready.iter().find(may).is_some_and(|(idlest, _)| *idlest == key)
            };
            for (since, id) in queue.iter().take(LOOK_AHEAD).copied() {
                let Some(entry) = self.messages.get(&id) else { continue };
                if !grabber.has_room_for(entry.length) {
                    if now.since(since) >= OVERTAKEN_MAX && idlest() {
                        return None;
                    }
                } else if !self.better_elsewhere(entry, key, now)
                    && !self.must_wait_for_reading(entry)
                {
                    return Some((since, id));
                }
            }
            None
        };
        let firsts = self.waiting.iter().filter_map(|(place, queue)| first_of(place, queue));
        firsts.min().map(|(_, id)| id)
    }

    fn choice(&self, id: MessageId) -> Choice {
        match self.messages.get(&id) {
            Some(entry) if self.is_used_up(entry) => Choice::Hold(id),
            Some(entry) if !entry.is_read() => Choice::Read(id),
            _ => Choice::Reserve(id),
        }
    }

    /// Whether no further attempt may be made.
    pub(super) fn is_used_up(&self, entry: &Entry) -> bool {
        entry.attempts >= self.config.attempts_max || entry.returns >= self.config.returns_max
    }

    /// A suspect goes to a grabber that has not failed with it yet, where there is one, also if that one is busy now:
    /// a worker whose scanner fails at once is always idle, and would use up every message's attempts while the others
    /// work. Whatever keeps the other busy has ended when a reservation's time is over; and one whose attempts are used
    /// up waits for nobody.
    fn better_elsewhere(&self, entry: &Entry, key: GrabberKey, now: Moment) -> bool {
        let Some(history) = &entry.history else { return false };
        let worth_waiting = now.since(history.failed_at) < self.config.reservation_time_max;
        !self.is_used_up(entry)
            && history.failed_with.contains(&key)
            && self.grabbers.iter().any(|(other, grabber)| {
                !history.failed_with.contains(&other)
                    && ((grabber.is_available() && grabber.has_room_for(entry.length))
                        || (worth_waiting && grabber.is_at_work()))
                    && self.may_have(other, grabber, &entry.queue(), None)
            })
    }

    /// Ends the reservation of a silent or stalled owner, in favour of another grabber if there is one.
    fn end_former(&mut self, id: MessageId, to: Option<GrabberKey>, now: Moment) {
        let Some(former) = self.messages.get(&id).and_then(|entry| entry.reservation()) else {
            return;
        };
        let (owner, stalled) = (former.grabber, former.stalled);
        let (reason, since) = if stalled {
            ("stalled", former.progressed)
        } else {
            // An idle owner beats slowly: its silence cannot be older than its reservation.
            let heard = self.grabbers.get(owner).map(|grabber| grabber.last_heard);
            ("not heard from", heard.unwrap_or(former.started).max(former.started))
        };
        let after = now.since(since);
        let from = self.grabbers.name(owner);
        let words = format!("{from} was {reason} for {} ms", after.as_millis());
        // A stalled module hangs on this message, whatever its link does; only silence may have been the link's.
        self.fail_reservation(id, &words, !stalled, now);
        if stalled {
            self.count_failure(owner, now);
        }
        if let Some(to) = to {
            self.counters.taken_over(after);
            let to = self.grabbers.name(to);
            self.event(Event::TakenOver { message: id, from, to, reason, after });
        }
    }

    fn reserve(&mut self, id: MessageId, key: GrabberKey, now: Moment) {
        self.take_from_pool(id);
        let fence = self.fence();
        let Some(grabber) = self.grabbers.get_mut(key) else { return };
        let (Some(session), incarnation) = (grabber.session, grabber.incarnation) else { return };
        let policy = grabber.policy;
        let Some(entry) = self.messages.get_mut(&id) else { return };
        grabber.given.messages += 1;
        grabber.given.bytes = grabber.given.bytes.saturating_add(entry.length);
        grabber.holding.insert(id);
        let name = grabber.name.clone();
        entry.attempts = entry.attempts.saturating_add(1);
        entry.recovered = false;
        let attempt = entry.attempts;
        // In upstream custody a crash of ours leaves the message with the sender: only suspects need a durable count.
        let charge = matches!(entry.custody, Custody::Hook) || entry.suspect;
        if entry.suspect {
            self.suspects_out.insert(id);
        }
        entry.state = State::Reserved(Box::new(Reservation {
            fence,
            grabber: key,
            incarnation,
            policy,
            session,
            phase: if charge { Phase::Charging } else { Phase::Assigning },
            started: now,
            progressed: now,
            work: 0,
            silence: SILENCE_DEFAULT.min(self.config.silence_max),
            stalled: false,
        }));
        self.event(Event::Reserved { message: id, grabber: name, fence, attempt });
        if charge {
            self.store(id, Change::Charge { attempts: attempt });
        } else {
            self.send_assignment(id, now);
        }
    }

    /// The attempt is counted: the first byte may leave.
    pub(super) fn on_charged(&mut self, id: MessageId, now: Moment) {
        let charging = self
            .messages
            .get_mut(&id)
            .and_then(Entry::reservation_mut)
            .filter(|reservation| reservation.phase == Phase::Charging);
        match charging {
            Some(reservation) => {
                reservation.phase = Phase::Assigning;
                (reservation.started, reservation.progressed) = (now, now);
                self.send_assignment(id, now);
            }
            // The reservation ended meanwhile.
            None => self.return_to_pool(id, now),
        }
    }

    fn send_assignment(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.messages.get(&id) else { return };
        let Some(r) = entry.reservation() else { return };
        // A worker that grants no stream must not keep the message.
        self.timers.set(Timer::Reservation(id), now + r.silence);
        self.effects.push_back(Effect::Assign(Assignment {
            session: r.session,
            message: id,
            mailbox: entry.mailbox,
            fence: r.fence,
            attempt: entry.attempts,
            asked: self.asked(entry, r.grabber),
            findings: entry.findings().to_vec(),
            time_max: self.config.reservation_time_max,
            silence_max: self.config.silence_max,
        }));
    }

    /// Ends a reservation without a verdict and tells its owner to stop. The message is then in no queue: the caller
    /// puts it where it belongs.
    pub(super) fn end_reservation(&mut self, id: MessageId, reason: &str, blame: Blame) {
        let Some((session, fence, told)) = self.take_back(id, blame) else { return };
        if told {
            let frame = HostReservation::Cancel(Cancel { reason: bounded(reason) });
            self.reply(session, id, fence, frame);
        }
    }

    /// As [`Pool::end_reservation`], for an owner that needs no cancel. Gives session, fence, and whether the owner may
    /// know of the reservation.
    pub(super) fn take_back(
        &mut self,
        id: MessageId,
        blame: Blame,
    ) -> Option<(Session, Fence, bool)> {
        let entry = self.messages.get_mut(&id)?;
        let State::Reserved(reservation) = &entry.state else { return None };
        let (session, fence, grabber) =
            (reservation.session, reservation.fence, reservation.grabber);
        let told = reservation.phase != Phase::Charging;
        let length = entry.length;
        entry.state = State::Marked;
        if blame != Blame::Message {
            entry.attempts = entry.attempts.saturating_sub(1);
        }
        if blame == Blame::Worker {
            entry.returns = entry.returns.saturating_add(1);
        }
        self.forget_reservation(id, grabber);
        if !told {
            self.take_back_credit(session, length);
        }
        Some((session, fence, told))
    }

    /// An assignment never left, so the worker cannot know that its credit was used.
    pub(super) fn take_back_credit(&mut self, session: Session, length: u64) {
        let Some(key) = self.grabbers.by_session(session) else { return };
        if let Some(grabber) = self.grabbers.get_mut(key) {
            grabber.given.messages = grabber.given.messages.saturating_sub(1);
            grabber.given.bytes = grabber.given.bytes.saturating_sub(length);
        }
    }

    /// Ends a reservation whose message may be to blame: the attempt counts and the message is a suspect. With
    /// `until_return` it is given back when the same incarnation is heard of again.
    pub(super) fn fail_reservation(
        &mut self,
        id: MessageId,
        reason: &str,
        until_return: bool,
        now: Moment,
    ) {
        self.note_failure(id, reason, until_return, now);
        self.end_reservation(id, reason, Blame::Message);
        self.return_to_pool(id, now);
    }

    /// As [`Pool::fail_reservation`], for an owner that needs no cancel since it gave the message back itself. The next
    /// attempt waits a little: an engine that answers nothing useful for some seconds must not use up all of them.
    pub(super) fn fail_reservation_quietly(&mut self, id: MessageId, reason: &str, now: Moment) {
        self.note_failure(id, reason, false, now);
        self.take_back(id, Blame::Message);
        let attempts = self.messages.get(&id).map_or(0, |entry| entry.attempts);
        let factor = FAILED_PAUSE_FACTOR.saturating_pow(u32::from(attempts.saturating_sub(1)));
        let pause = (self.config.failed_pause * factor).min(FAILED_PAUSE_MAX);
        if pause.is_zero() || attempts >= self.config.attempts_max {
            return self.return_to_pool(id, now);
        }
        self.timers.set(Timer::Repool(id), now + pause);
    }

    /// Notes against a reserved message that its owner came to nothing with it.
    pub(super) fn note_failure(
        &mut self,
        id: MessageId,
        reason: &str,
        until_return: bool,
        now: Moment,
    ) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let State::Reserved(reservation) = &entry.state else { return };
        let (grabber, incarnation) = (reservation.grabber, reservation.incarnation);
        entry.suspect = true;
        let attempt = entry.attempts;
        entry.add_reason(bounded(format!("attempt {attempt}: {reason}")));
        let history = entry.history();
        history.failed_at = now;
        if !history.failed_with.contains(&grabber) {
            history.failed_with.push(grabber);
        }
        if until_return {
            history.charges.push(Charge { grabber, incarnation });
            if let Some(owner) = self.grabbers.get_mut(grabber) {
                owner.charged.insert(id);
            }
        }
    }

    /// Takes a reservation out of every table but the message's own.
    pub(super) fn forget_reservation(&mut self, id: MessageId, grabber: GrabberKey) {
        self.timers.clear(Timer::Reservation(id));
        self.stalled.remove(&id);
        self.suspects_out.remove(&id);
        if let Some(owner) = self.grabbers.get_mut(grabber) {
            owner.holding.remove(&id);
            // One that is silent stays so until it is heard: it would only lose the next message too.
            if owner.holding.is_empty() {
                self.timers.clear(Timer::Silent(grabber));
            }
        }
    }

    /// The clock of a reservation starts at its assignment.
    pub(super) fn start_clocks(&mut self, id: MessageId, now: Moment) {
        let Some(r) = self.messages.get_mut(&id).and_then(Entry::reservation_mut) else { return };
        (r.started, r.progressed) = (now, now);
        let grabber = r.grabber;
        self.set_reservation_timer(id);
        // Until now it beat slowly, if at all.
        if !self.works_on(grabber, Some(id)) {
            self.await_beats(grabber, now);
        }
    }

    /// Whether a grabber has any message, but for one, that it knows of.
    pub(super) fn works_on(&self, key: GrabberKey, but: Option<MessageId>) -> bool {
        self.held_by(key).filter(|id| Some(*id) != but).any(|id| {
            let reservation = self.messages.get(&id).and_then(|entry| entry.reservation());
            reservation.is_some_and(Reservation::is_working)
        })
    }

    pub(super) fn set_reservation_timer(&mut self, id: MessageId) {
        let time_max = self.config.reservation_time_max;
        if let Some(r) = self.messages.get(&id).and_then(|entry| entry.reservation()) {
            let over = r.started + time_max;
            let at = if r.stalled { over } else { over.min(r.progressed + r.silence) };
            self.timers.set(Timer::Reservation(id), at);
        }
    }

    pub(super) fn on_reservation_timeout(&mut self, id: MessageId, now: Moment) {
        let time_max = self.config.reservation_time_max;
        let Some(r) = self.messages.get_mut(&id).and_then(Entry::reservation_mut) else { return };
        if !r.is_working() {
            self.end_reservation(id, "it could not be sent in time", Blame::Worker);
            self.return_later(id, now);
        } else if now >= r.started + time_max {
            let reason = format!("not processed within {} s", time_max.as_secs());
            self.fail_reservation(id, &reason, false, now);
        } else if now >= r.progressed + r.silence {
            r.stalled = true;
            self.stalled.insert(id);
            self.set_reservation_timer(id);
        } else {
            self.set_reservation_timer(id);
        }
    }
}

impl Reservation {
    pub(super) fn is_working(&self) -> bool {
        matches!(self.phase, Phase::Working { .. })
    }

    /// Whether what arrives on this session under this incarnation belongs to it.
    pub(super) fn is_bound_to(
        &self,
        session: Session,
        grabber: GrabberKey,
        incarnation: Incarnation,
    ) -> bool {
        self.session == session && self.grabber == grabber && self.incarnation == incarnation
    }
}

//! Who gets what: wants are matched with waiting messages, and with those whose owner is silent or stalled.

use std::collections::BTreeSet;

use super::effect::{Assignment, Change, Custody, Effect, Event};
use super::entry::{Charge, Entry, Phase, Reservation, State};
use super::grabbers::{Grabber, GrabberKey};
use super::{Pool, Timer};
use crate::frame::{Cancel, HostReservation};
use crate::id::{Incarnation, MessageId, Session};
use crate::limits::{BEATS_MISSED_MAX, SILENCE_DEFAULT};
use crate::text::bounded;
use crate::time::Moment;

/// How far into a mailbox's queue a grabber looks for something it may have. Beyond it stand messages that can wait
/// until those in front, which are suspects or too long for this grabber, have moved.
const LOOK_AHEAD: usize = 64;

/// What may be done with a message for a grabber that wants one.
enum Choice {
    Reserve(MessageId),
    /// Its attempts are used up.
    Hold(MessageId),
}

impl Pool {
    /// Matches wants with messages until nothing fits any more.
    pub(super) fn assign(&mut self, now: Moment) {
        if self.draining {
            return;
        }
        while let Some((key, choice)) = self.next_match() {
            match choice {
                Choice::Hold(id) => self.hold(id, None, now),
                Choice::Reserve(id) => {
                    self.end_former(id, key, now);
                    self.reserve(id, key, now);
                }
            }
        }
    }

    fn next_match(&self) -> Option<(GrabberKey, Choice)> {
        let mut ready: Vec<(GrabberKey, &Grabber)> =
            self.grabbers.iter().filter(|(_, g)| g.is_available()).collect();
        // The most idle first: what it wants tells what it can start at once.
        ready.sort_by_key(|(key, g)| (g.tier, g.holding.len(), u64::MAX - g.free(), *key));
        ready.iter().find_map(|(key, grabber)| {
            let has_suspect = grabber.holding.iter().any(|id| self.suspects_out.contains(id));
            let choice = self.contested_for(*key, grabber, has_suspect);
            Some((*key, choice.or_else(|| self.waiting_for(*key, grabber, has_suspect))?))
        })
    }

    /// The oldest message of a silent or stalled owner that this grabber may take over.
    fn contested_for(
        &self,
        key: GrabberKey,
        grabber: &Grabber,
        has_suspect: bool,
    ) -> Option<Choice> {
        if has_suspect {
            return None;
        }
        let silent = self
            .grabbers
            .iter()
            .filter(|(_, owner)| owner.silent)
            .flat_map(|(_, owner)| owner.holding.iter());
        let id = silent
            .chain(&self.stalled)
            .copied()
            .filter(|id| {
                self.messages.get(id).is_some_and(|entry| {
                    entry.reservation().is_some_and(|r| r.grabber != key && r.is_working())
                        && entry.storing.is_none()
                        && self.fits(entry, grabber)
                })
            })
            .min()?;
        Some(self.choice(id))
    }

    /// The oldest message in the pool, over all mailboxes, that this grabber may have.
    fn waiting_for(&self, key: GrabberKey, grabber: &Grabber, has_suspect: bool) -> Option<Choice> {
        let first_of = |waiting: &BTreeSet<MessageId>| {
            waiting.iter().take(LOOK_AHEAD).copied().find_map(|id| {
                let entry = self.messages.get(&id)?;
                let may = self.fits(entry, grabber)
                    && (!entry.suspect || (!has_suspect && !self.better_elsewhere(entry, key)));
                may.then_some((entry.since, id))
            })
        };
        let (_, id) = self.waiting.values().filter_map(first_of).min()?;
        Some(self.choice(id))
    }

    fn choice(&self, id: MessageId) -> Choice {
        let used_up = self.messages.get(&id).is_some_and(|entry| {
            entry.attempts >= self.config.attempts_max || entry.returns >= self.config.returns_max
        });
        if used_up { Choice::Hold(id) } else { Choice::Reserve(id) }
    }

    fn fits(&self, entry: &Entry, grabber: &Grabber) -> bool {
        let needs =
            self.config.mailboxes.get(usize::from(entry.mailbox.0)).map(|mailbox| &mailbox.needs);
        needs.is_some_and(|needs| grabber.provides(needs)) && grabber.has_room_for(entry.length)
    }

    /// A suspect goes to a grabber that has not failed with it yet, where there is one.
    fn better_elsewhere(&self, entry: &Entry, key: GrabberKey) -> bool {
        let Some(history) = &entry.history else { return false };
        history.failed_with.contains(&key)
            && self.grabbers.iter().any(|(other, grabber)| {
                !history.failed_with.contains(&other)
                    && grabber.is_available()
                    && self.fits(entry, grabber)
            })
    }

    /// Ends the reservation of a silent or stalled owner in favour of another grabber.
    fn end_former(&mut self, id: MessageId, to: GrabberKey, now: Moment) {
        let Some(former) = self.messages.get(&id).and_then(|entry| entry.reservation()) else {
            return;
        };
        let (owner, stalled, progressed) = (former.grabber, former.stalled, former.progressed);
        let silent_since =
            self.grabbers.get(owner).map(|grabber| grabber.last_heard).unwrap_or(progressed);
        let (reason, since) =
            if stalled { ("stalled", progressed) } else { ("not heard from", silent_since) };
        let after = now.since(since);
        self.counters.taken_over(after);
        let (from, to) = (self.grabbers.name(owner), self.grabbers.name(to));
        self.fail_reservation(
            id,
            &format!("{from} was {reason} for {} ms", after.as_millis()),
            true,
            now,
        );
        self.event(Event::TakenOver { message: id, from, to, reason, after });
    }

    fn reserve(&mut self, id: MessageId, key: GrabberKey, now: Moment) {
        self.take_from_pool(id);
        let fence = self.fence();
        let Some(grabber) = self.grabbers.get_mut(key) else { return };
        let (Some(session), incarnation) = (grabber.session, grabber.incarnation) else { return };
        let Some(entry) = self.messages.get_mut(&id) else { return };
        grabber.given.messages += 1;
        grabber.given.bytes = grabber.given.bytes.saturating_add(entry.length);
        grabber.holding.insert(id);
        let name = grabber.name.clone();
        entry.attempts = entry.attempts.saturating_add(1);
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
            self.send_assignment(id);
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
                self.send_assignment(id);
            }
            // The reservation ended meanwhile.
            None => self.return_to_pool(id, now),
        }
    }

    fn send_assignment(&mut self, id: MessageId) {
        let Some(entry) = self.messages.get(&id) else { return };
        let Some(r) = entry.reservation() else { return };
        self.effects.push_back(Effect::Assign(Assignment {
            session: r.session,
            message: id,
            mailbox: entry.mailbox,
            fence: r.fence,
            attempt: entry.attempts,
            time_max: self.config.reservation_time_max,
            silence_max: self.config.silence_max,
        }));
    }

    /// Ends a reservation without a verdict and tells its owner to stop. With `give_back` the attempt does not count.
    /// The message is then in no queue: the caller puts it where it belongs.
    pub(super) fn end_reservation(&mut self, id: MessageId, reason: &str, give_back: bool) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let State::Reserved(reservation) = &entry.state else { return };
        let (session, fence, grabber) =
            (reservation.session, reservation.fence, reservation.grabber);
        let told = reservation.phase != Phase::Charging;
        entry.state = State::Marked;
        if give_back {
            entry.attempts = entry.attempts.saturating_sub(1);
            entry.returns = entry.returns.saturating_add(1);
        }
        self.forget_reservation(id, grabber);
        if told {
            let frame = HostReservation::Cancel(Cancel { reason: bounded(reason) });
            self.reply(session, id, fence, frame);
        }
    }

    /// Ends a reservation whose message may be to blame: the attempt counts and the message is a suspect. With
    /// `until_return` it is given back when the same incarnation links again.
    pub(super) fn fail_reservation(
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
        entry.add_reason(format!("attempt {attempt}: {reason}"));
        let history = entry.history();
        if !history.failed_with.contains(&grabber) {
            history.failed_with.push(grabber);
        }
        if until_return {
            history.charges.push(Charge { grabber, incarnation });
            if let Some(owner) = self.grabbers.get_mut(grabber) {
                owner.charged.insert(id);
            }
        }
        self.end_reservation(id, reason, false);
        self.return_to_pool(id, now);
    }

    /// Takes a reservation out of every table but the message's own.
    pub(super) fn forget_reservation(&mut self, id: MessageId, grabber: GrabberKey) {
        self.timers.clear(Timer::Reservation(id));
        self.stalled.remove(&id);
        self.suspects_out.remove(&id);
        if let Some(owner) = self.grabbers.get_mut(grabber) {
            owner.holding.remove(&id);
            if owner.holding.is_empty() {
                owner.silent = false;
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
        let alone = self.held_by(grabber).filter(|held| *held != id).all(|held| {
            !self
                .messages
                .get(&held)
                .and_then(|entry| entry.reservation())
                .is_some_and(Reservation::is_working)
        });
        // Until now it beat slowly, if at all.
        if alone {
            self.timers.set(Timer::Silent(grabber), now + self.config.beat * BEATS_MISSED_MAX);
        }
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
        if now >= r.started + time_max {
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

//! What arrives on a reservation's stream.

use super::Pool;
use super::effect::{Assigned, Event};
use super::entry::{Acknowledge, Arrived, Blame, Entry, Phase, Reservation, State, refused};
use super::grabbers::GrabberKey;
use crate::frame::{HostReservation, Progress, Return, ReturnKind, Settled, WorkerReservation};
use crate::id::{Fence, MessageId, Session};
use crate::text::bounded;
use crate::time::Moment;

/// What a grabber's fence for a message is worth.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Current,
    /// Its verdict is being stored.
    Settling,
    /// Its verdict counts.
    Applied,
    /// Nothing any more, and why.
    Past(String),
}

impl Pool {
    /// What the driver learned when it began to send an assignment, or, where a body cannot be read to its end, later.
    pub fn handle_assigned(
        &mut self,
        session: Session,
        id: MessageId,
        fence: Fence,
        outcome: Assigned,
        now: Moment,
    ) {
        let current =
            self.messages.get_mut(&id).and_then(Entry::reservation_mut).filter(|r| {
                r.fence == fence && r.session == session && r.phase == Phase::Assigning
            });
        if let (Some(reservation), Assigned::Sent { digest }) = (current, &outcome) {
            reservation.phase = Phase::Working { digest: *digest };
            self.start_clocks(id, now);
        } else {
            self.on_not_assigned(session, id, fence, outcome, now);
        }
        self.assign(now);
    }

    /// An assignment that did not go out, or for a reservation that has ended meanwhile.
    fn on_not_assigned(
        &mut self,
        session: Session,
        id: MessageId,
        fence: Fence,
        outcome: Assigned,
        now: Moment,
    ) {
        let Some(entry) = self.messages.get(&id) else { return };
        let length = entry.length;
        let unread = matches!(outcome, Assigned::Corrupted { .. } | Assigned::Unreadable { .. });
        let current = entry.reservation().filter(|r| r.fence == fence && r.session == session);
        let (sent, current) = (
            current.is_some_and(Reservation::is_working),
            current.is_some_and(|r| r.phase == Phase::Assigning || (unread && r.is_working())),
        );
        if unread && !sent {
            self.take_back_credit(session, length);
        }
        match outcome {
            // Whoever has the message by now: its file is gone.
            Assigned::Corrupted { reason } => self.lose(id, reason),
            _ if !current => {}
            Assigned::Sent { .. } => {}
            Assigned::LinkLost => {
                self.end_reservation(id, "the link was lost", Blame::Worker);
                self.return_later(id, now);
            }
            Assigned::Unreadable { reason } => {
                self.end_reservation(id, "the message cannot be read now", Blame::Host);
                self.event(Event::StoreFailed { message: id, reason });
                self.retry_later(id, now);
            }
        }
    }

    /// A frame on a reservation's stream. The driver names the stream by the session and what it was opened for.
    pub fn handle_reservation(
        &mut self,
        session: Session,
        id: MessageId,
        fence: Fence,
        frame: WorkerReservation,
        now: Moment,
    ) {
        let Some(key) = self.grabbers.by_session(session) else { return };
        self.heard(key, now);
        match frame {
            WorkerReservation::Resume(_) => {
                self.misbehaved(session, key, "a resume inside of a reservation's stream")
            }
            WorkerReservation::Progress(progress) => {
                self.on_progress(session, key, id, fence, progress, now)
            }
            WorkerReservation::Return(returned) => {
                self.on_return(session, key, id, fence, returned, now)
            }
            WorkerReservation::Part(part) => {
                if self.may_answer(session, key, id, fence) {
                    self.on_part(id, Acknowledge { session, grabber: key, fence }, *part, now);
                }
            }
            WorkerReservation::Verdict(verdict) => {
                if self.may_answer(session, key, id, fence) {
                    let acknowledge = Acknowledge { session, grabber: key, fence };
                    self.on_verdict(Arrived { message: id, acknowledge, verdict }, now);
                }
            }
        }
        self.assign(now);
    }

    /// A stream broke while its link lives: a reset, a body that did not end, garbage. The attempt is lost.
    pub fn handle_stream_lost(
        &mut self,
        session: Session,
        id: MessageId,
        fence: Fence,
        reason: &str,
        now: Moment,
    ) {
        let Some(key) = self.grabbers.by_session(session) else { return };
        if self.standing(session, key, id, fence) == Standing::Current {
            let reason = bounded(reason);
            let grabber = self.grabbers.name(key);
            self.fail_reservation(id, &format!("{grabber}: {reason}"), false, now);
            self.count_failure(key, now);
            self.event(Event::Returned { message: id, grabber, reason });
            self.assign(now);
        }
    }

    /// Whether what a grabber says of a message is to be acted on. If not, it has its answer, or gets it when the store
    /// under way completes.
    fn may_answer(
        &mut self,
        session: Session,
        key: GrabberKey,
        id: MessageId,
        fence: Fence,
    ) -> bool {
        match self.standing(session, key, id, fence) {
            Standing::Current => return true,
            Standing::Settling => {}
            Standing::Applied => {
                self.reply(session, id, fence, HostReservation::Settled(Settled::Applied));
            }
            Standing::Past(reason) => self.refuse_verdict(session, key, id, fence, reason),
        }
        false
    }

    /// What a fence is worth by now, for this session of this grabber.
    fn standing(&self, session: Session, key: GrabberKey, id: MessageId, fence: Fence) -> Standing {
        let Some(grabber) = self.grabbers.get(key) else {
            return Standing::Past("no such grabber".to_owned());
        };
        if grabber.remembers(id, fence) {
            return Standing::Applied;
        }
        let Some(entry) = self.messages.get(&id) else {
            return Standing::Past(format!("no message {id} is here"));
        };
        match &entry.state {
            State::Reserved(r) if r.fence != fence => {
                Standing::Past(format!("the fence is {} by now, not {fence}", r.fence))
            }
            State::Reserved(r) if !r.is_bound_to(session, key, grabber.incarnation) => {
                Standing::Past("the reservation is another grabber's or another link's".to_owned())
            }
            State::Reserved(r) if !r.is_working() => {
                Standing::Past("the message has not been sent yet".to_owned())
            }
            State::Reserved(_) => Standing::Current,
            State::Settling(s)
                if s.acknowledge.as_ref().is_some_and(|a| {
                    a.fence == fence && a.grabber == key && a.session == session
                }) =>
            {
                Standing::Settling
            }
            _ => Standing::Past("the message is not reserved".to_owned()),
        }
    }

    fn on_progress(
        &mut self,
        session: Session,
        key: GrabberKey,
        id: MessageId,
        fence: Fence,
        progress: Progress,
        now: Moment,
    ) {
        if self.standing(session, key, id, fence) != Standing::Current {
            return;
        }
        let silence_max = self.config.silence_max;
        let Some(r) = self.messages.get_mut(&id).and_then(Entry::reservation_mut) else { return };
        if progress.work > r.work {
            r.work = progress.work;
            r.progressed = now;
            r.stalled = false;
            r.silence = std::time::Duration::from_millis(progress.silence_ms).min(silence_max);
            self.stalled.remove(&id);
            self.set_reservation_timer(id);
        }
    }

    fn on_return(
        &mut self,
        session: Session,
        key: GrabberKey,
        id: MessageId,
        fence: Fence,
        returned: Return,
        now: Moment,
    ) {
        if !self.may_answer(session, key, id, fence) {
            return;
        }
        let grabber = self.grabbers.name(key);
        let reason = bounded(returned.reason);
        match returned.kind {
            ReturnKind::Failed => {
                self.fail_reservation_quietly(id, &format!("{grabber}: {reason}"), now);
                self.count_failure(key, now);
            }
            ReturnKind::HandBack | ReturnKind::Unavailable => {
                self.take_back(id, Blame::Worker);
                if let Some(entry) = self.messages.get_mut(&id)
                    && entry.returns >= self.config.returns_max
                {
                    entry.add_reason(bounded(format!("last given back by {grabber}: {reason}")));
                }
                self.return_later(id, now);
            }
        }
        self.counters.returned += 1;
        self.event(Event::Returned { message: id, grabber, reason });
        self.reply(session, id, fence, HostReservation::Settled(Settled::Applied));
    }

    pub(super) fn refuse_verdict(
        &mut self,
        session: Session,
        key: GrabberKey,
        id: MessageId,
        fence: Fence,
        reason: String,
    ) {
        let grabber = self.grabbers.name(key);
        self.counters.verdicts_refused += 1;
        self.event(Event::VerdictRefused { message: id, grabber, reason: reason.clone() });
        self.reply(session, id, fence, HostReservation::Settled(refused(reason)));
    }
}

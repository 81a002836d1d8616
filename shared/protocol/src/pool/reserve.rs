//! What arrives on a reservation's stream.

use super::Pool;
use super::effect::{Assigned, Event};
use super::entry::{Acknowledge, Arrived, Entry, Phase, State, refused};
use super::grabbers::GrabberKey;
use crate::frame::{HostReservation, Progress, Return, ReturnKind, Settled, WorkerReservation};
use crate::id::{Fence, MessageId, Session};
use crate::text::bounded;
use crate::time::Moment;

impl Pool {
    /// What the driver learned when it began to send an assignment.
    pub fn handle_assigned(
        &mut self,
        session: Session,
        id: MessageId,
        fence: Fence,
        outcome: Assigned,
        now: Moment,
    ) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let upstream = entry.is_upstream();
        let current = entry
            .reservation_mut()
            .filter(|r| r.fence == fence && r.session == session && r.phase == Phase::Assigning);
        let Some(reservation) = current else { return };
        match outcome {
            Assigned::Sent { digest } => {
                reservation.phase = Phase::Working { digest };
                self.start_clocks(id, now);
            }
            Assigned::LinkLost => {
                self.end_reservation(id, "the link was lost before the message was sent", true);
                self.return_to_pool(id, now);
            }
            Assigned::Corrupted { reason } => {
                self.end_reservation(id, "the message's file cannot be read", true);
                self.event(Event::Corrupted { message: id, reason });
                self.counters.corrupted += 1;
                if upstream {
                    self.answer_try_again(
                        id,
                        "the message was lost here before it was processed, try again",
                    );
                }
                self.drop_message(id);
            }
        }
        self.assign(now);
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
            WorkerReservation::Verdict(verdict) => match self.current(session, key, id, fence) {
                Ok(()) => {
                    let acknowledge = Acknowledge { session, grabber: key, fence };
                    self.on_verdict(Arrived { message: id, acknowledge, verdict }, now);
                }
                Err(None) => {
                    self.reply(session, id, fence, HostReservation::Settled(Settled::Applied))
                }
                Err(Some(reason)) => self.refuse_verdict(session, key, id, fence, reason),
            },
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
        if self.current(session, key, id, fence).is_ok() {
            let reason = bounded(reason);
            let grabber = self.grabbers.name(key);
            self.fail_reservation(id, &format!("{grabber}: {reason}"), false, now);
            self.event(Event::Returned { message: id, grabber, reason });
            self.assign(now);
        }
    }

    /// Whether the fence is the current one and the reservation this session's. `Err(None)`: it has been settled
    /// under this very fence.
    fn current(
        &self,
        session: Session,
        key: GrabberKey,
        id: MessageId,
        fence: Fence,
    ) -> Result<(), Option<String>> {
        let Some(grabber) = self.grabbers.get(key) else {
            return Err(Some("no such grabber".to_owned()));
        };
        if grabber.remembers(id, fence) {
            return Err(None);
        }
        let Some(entry) = self.messages.get(&id) else {
            return Err(Some(format!("no message {id} is here")));
        };
        match &entry.state {
            State::Reserved(r) if r.fence != fence => {
                Err(Some(format!("the fence is {} by now, not {fence}", r.fence)))
            }
            State::Reserved(r) if !r.is_bound_to(session, key, grabber.incarnation) => {
                Err(Some("the reservation is another grabber's or another link's".to_owned()))
            }
            State::Reserved(r) if !r.is_working() => {
                Err(Some("the message has not been sent yet".to_owned()))
            }
            State::Reserved(_) => Ok(()),
            State::Settling(s)
                if s.acknowledge.as_ref().is_some_and(|a| a.fence == fence && a.grabber == key) =>
            {
                Err(None)
            }
            _ => Err(Some("the message is not reserved".to_owned())),
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
        if self.current(session, key, id, fence).is_err() {
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
        match self.current(session, key, id, fence) {
            Ok(()) => {}
            Err(None) => {
                return self.reply(session, id, fence, HostReservation::Settled(Settled::Applied));
            }
            Err(Some(reason)) => return self.refuse_verdict(session, key, id, fence, reason),
        }
        let grabber = self.grabbers.name(key);
        let reason = bounded(returned.reason);
        match returned.kind {
            ReturnKind::Failed => {
                self.fail_reservation_quietly(id, &format!("{grabber}: {reason}"), now)
            }
            ReturnKind::HandBack | ReturnKind::Unavailable | ReturnKind::Partial => {
                if let Some(entry) = self.messages.get_mut(&id) {
                    entry.attempts = entry.attempts.saturating_sub(1);
                    entry.returns = entry.returns.saturating_add(1);
                    if entry.returns >= self.config.returns_max {
                        entry.add_reason(format!(
                            "given back {} times, last by {grabber}: {reason}",
                            entry.returns
                        ));
                    }
                    entry.state = State::Marked;
                }
                self.forget_reservation(id, key);
                self.return_to_pool(id, now);
            }
        }
        self.counters.returned += 1;
        self.event(Event::Returned { message: id, grabber, reason });
        self.reply(session, id, fence, HostReservation::Settled(Settled::Applied));
    }

    /// As [`Pool::fail_reservation`], for an owner that needs no cancel since it gave the message back itself.
    pub(super) fn fail_reservation_quietly(&mut self, id: MessageId, reason: &str, now: Moment) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let State::Reserved(reservation) = &entry.state else { return };
        let grabber = reservation.grabber;
        entry.suspect = true;
        let attempt = entry.attempts;
        entry.add_reason(format!("attempt {attempt}: {reason}"));
        entry.history().failed_with.push(grabber);
        entry.state = State::Marked;
        self.forget_reservation(id, grabber);
        self.return_to_pool(id, now);
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

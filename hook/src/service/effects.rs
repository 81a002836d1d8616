//! Doing what the pool asks for.

use std::sync::Arc;
use std::time::Duration;

use gantry_daemon::crash;
use gantry_link::CloseCode;
use gantry_protocol::frame::{HostControl, HostReservation};
use gantry_protocol::id::{MessageId, Session, Token};
use gantry_protocol::pool::{
    Answer, Assignment, Change, Effect, MailboxIndex, ReleaseResult, Stored,
};
use tokio::sync::mpsc;

use super::action::{Action, StreamKey};
use super::link::{self, ControlOut, STREAM_QUEUE_MAX, StreamOut};
use super::{Service, set_aside};
use crate::disk::Disk;
use crate::intake::unix_ms;

/// The pause before a disk that could not read is asked again.
const LOAD_RETRY: Duration = Duration::from_secs(5);

impl<D: Disk> Service<D> {
    /// Everything that the last input caused.
    pub(super) fn perform_effects(&mut self) {
        while let Some(effect) = self.pool.poll_effect() {
            match effect {
                Effect::Control { session, frame } => self.control(session, frame),
                Effect::CloseLink { session, reason } => self.close(session, reason),
                Effect::Assign(assignment) => self.assign(assignment),
                Effect::Reply { session, message, fence, frame, finish } => {
                    self.reply((session, message, fence), frame, finish);
                }
                Effect::Store { token, message, mailbox, change } => {
                    self.store(token, message, mailbox, change)
                }
                Effect::Load { token, message, .. } => self.load(token, message),
                Effect::Release { token, message, mailbox, recipients } => {
                    self.release(token, message, mailbox, recipients);
                }
                Effect::Answer { message, answer } => self.answer(message, answer),
                Effect::Forget { message, mailbox, attempts } => {
                    self.forget(message, mailbox, attempts)
                }
                Effect::Shelve { message, note } => self.spool.shelve(message, note),
                Effect::Refill { mailbox, shelf, count, due } => {
                    let found = self.spool.take_from_shelf(mailbox, shelf, count, due);
                    self.pool.handle_refilled(mailbox, shelf, found, self.clock.now());
                }
                Effect::StopIntake { reason } => self.gate.stop(reason),
                Effect::Event(event, about) => {
                    let now = self.clock.now();
                    self.journal.handle_event(&event, about.as_ref(), now, unix_ms());
                }
            }
        }
    }

    /// A queue that is full belongs to a worker that does not read.
    fn control(&mut self, session: Session, frame: HostControl) {
        let Some(linked) = self.links.get(&session) else { return };
        if linked.control.try_send(ControlOut::Frame(Box::new(frame))).is_err() {
            let worker = &linked.connection.identity().name;
            tracing::warn!(session = session.0, worker, "link closed: the worker does not read");
            linked
                .connection
                .close(CloseCode::Misbehaved, "the worker does not read its control stream");
        }
    }

    fn close(&mut self, session: Session, reason: String) {
        let Some(linked) = self.links.get(&session) else { return };
        tracing::warn!(
            session = session.0,
            worker = linked.connection.identity().name,
            reason,
            "link refused"
        );
        let code = CloseCode::Misbehaved;
        if linked.control.try_send(ControlOut::Close(code, reason.clone())).is_err() {
            linked.connection.close(code, &reason);
        }
    }

    fn assign(&mut self, assignment: Assignment) {
        let (session, message, fence) = (assignment.session, assignment.message, assignment.fence);
        let Some(linked) = self.links.get(&session) else {
            // Its loss is on its way to the pool.
            return;
        };
        let Some(mailbox) = self.mailboxes.get(usize::from(assignment.mailbox.0)) else { return };
        let (out, queue) = mpsc::channel(STREAM_QUEUE_MAX);
        self.streams.insert((session, message, fence), out);
        tokio::spawn(link::send_assignment(link::Sending {
            assignment,
            mailbox: mailbox.name.clone(),
            needs: mailbox.needs.clone(),
            spool: Arc::clone(&self.spool),
            connection: linked.connection.clone(),
            pace: linked.pace.clone(),
            queue,
            actions: self.actions.clone(),
        }));
    }

    fn reply(&mut self, key: StreamKey, frame: HostReservation, finish: bool) {
        let Some(out) = self.streams.get(&key) else { return };
        if out.try_send(StreamOut { frame, finish }).is_err() {
            tracing::debug!(id = %key.1, "the reservation's stream is gone");
        }
        if finish {
            self.streams.remove(&key);
        }
    }

    fn store(&mut self, token: Token, id: MessageId, mailbox: MailboxIndex, change: Change) {
        if matches!(change, Change::Settle { .. }) && self.spool.settles_in_memory(id) {
            // Only remembered: no disk is asked, and a blocking thread would cost more than the change.
            let stored = self.spool.apply(id, mailbox, &change);
            return self.pool.handle_stored(token, stored, self.clock.now());
        }
        let (spool, actions) = (Arc::clone(&self.spool), self.actions.clone());
        tokio::task::spawn_blocking(move || {
            let stored = spool.apply(id, mailbox, &change);
            if matches!(change, Change::Settle { .. }) {
                crash::at("verdict-stored");
            }
            let _ = actions.blocking_send(Action::Stored(token, stored));
        });
    }

    /// What stays counted against the content is written down before the content is gone.
    fn forget(&mut self, id: MessageId, mailbox: MailboxIndex, attempts: u8) {
        // Nearly always nothing is counted, and nothing has to be written.
        if attempts == 0 && !self.spool.is_suspect(id) {
            return self.spool.forget(id);
        }
        let spool = Arc::clone(&self.spool);
        tokio::task::spawn_blocking(move || {
            let charged = spool.apply(id, mailbox, &Change::Charge { attempts });
            if let Stored::Failed { reason } | Stored::Damaged { reason } = charged {
                tracing::error!(id = %id, reason, "count attempts against a content");
            }
            spool.forget(id);
        });
    }

    /// A file that is damaged is set aside; a disk that cannot read at the moment is asked again.
    fn load(&mut self, token: Token, id: MessageId) {
        let (spool, actions) = (Arc::clone(&self.spool), self.actions.clone());
        tokio::spawn(async move {
            loop {
                let reader = Arc::clone(&spool);
                let read = tokio::task::spawn_blocking(move || reader.load(id));
                match read.await {
                    Ok(Err(error)) if !error.is_lost() => {
                        tracing::error!(id = %id, "read what is stored with it: {error}");
                        tokio::time::sleep(LOAD_RETRY).await;
                    }
                    Ok(log) => {
                        let log = log.map_err(|error| set_aside(&spool, id, &error));
                        let _ = actions.send(Action::Loaded(token, log)).await;
                        return;
                    }
                    Err(_) => return,
                }
            }
        });
    }

    fn release(
        &mut self,
        token: Token,
        id: MessageId,
        mailbox: MailboxIndex,
        recipients: Vec<u16>,
    ) {
        let Some(mailbox) = self.mailboxes.get(usize::from(mailbox.0)) else { return };
        let (spool, actions) = (Arc::clone(&self.spool), self.actions.clone());
        let (way, trace) = (Arc::clone(&mailbox.way), Arc::clone(&self.trace));
        tokio::spawn(async move {
            let results = way.release(Arc::clone(&spool), id, recipients, &trace).await;
            let deferred = results.iter().any(|result| result.result == ReleaseResult::Deferred);
            crash::at("result-received");
            let _ = actions.send(Action::Released(token, results)).await;
            // A damaged file is deferred, too, and would be tried for days. What waits is read seldom enough to look.
            if deferred
                && let Err(error) = link::check_message(&spool, id).await
                && error.is_lost()
            {
                let reason = set_aside(&spool, id, &error);
                let _ = actions.send(Action::Damaged(id, reason)).await;
            }
        });
    }

    fn answer(&mut self, id: MessageId, answer: Answer) {
        if let Some(waiting) = self.answers.remove(&id) {
            // A sender that has just gone says so itself.
            let _ = waiting.send(answer);
        }
    }
}

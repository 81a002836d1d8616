//! Doing what the grabbers ask for.

use gantry_protocol::frame::{WorkerControl, WorkerReservation};
use gantry_protocol::grabber::{Effect, Event};
use tokio::sync::mpsc;

use super::action::{HostIndex, Key};
use super::link::{self, STREAM_QUEUE_MAX, StreamOut};
use super::{Host, Service};

impl Service {
    /// Everything that the last input caused, host by host.
    pub(super) fn perform_effects(&mut self) {
        for index in (0..self.hosts.len()).map(HostIndex) {
            while let Some(effect) =
                self.hosts.get_mut(index.0).and_then(|host| host.grabber.poll_effect())
            {
                match effect {
                    Effect::Control(frame) => self.control(index, frame),
                    Effect::Send { message, fence, frame, finish } => {
                        self.send((index, message, fence), frame, finish);
                    }
                    Effect::OpenResume { message, fence } => self.resume((index, message, fence)),
                    Effect::Start { .. } => {} // It was started when its body came.
                    Effect::Stop { message, fence, reason } => {
                        self.stop((index, message, fence), &reason)
                    }
                    Effect::Event(event) => self.log(index, &event),
                }
            }
        }
    }

    fn control(&mut self, index: HostIndex, frame: WorkerControl) {
        let Some(linked) = self.hosts.get(index.0).and_then(|host| host.linked.as_ref()) else {
            return;
        };
        if linked.control.try_send(frame).is_err() {
            linked.connection.close(
                gantry_link::CloseCode::Misbehaved,
                "the host does not read its control stream",
            );
        }
    }

    fn send(&mut self, key: Key, frame: WorkerReservation, finish: bool) {
        let Some(stream) = self.held.get(&key).and_then(|held| held.stream.as_ref()) else {
            return;
        };
        let progress = matches!(frame, WorkerReservation::Progress(_));
        if stream.try_send(StreamOut { frame: Box::new(frame), finish }).is_err() && !progress {
            tracing::debug!(id = %key.1, "the reservation's stream is gone");
        }
    }

    /// What is sent while the stream is being opened waits in its queue.
    fn resume(&mut self, key: Key) {
        let Some(linked) = self.hosts.get(key.0.0).and_then(|host| host.linked.as_ref()) else {
            return;
        };
        let Some(held) = self.held.get_mut(&key) else { return };
        let (out, queue) = mpsc::channel(STREAM_QUEUE_MAX);
        held.stream = Some(out);
        tokio::spawn(link::resume(key, linked.connection.clone(), queue, self.actions.clone()));
    }

    /// Dropping what is held aborts its modules and lets its body go.
    fn stop(&mut self, key: Key, reason: &str) {
        tracing::debug!(id = %key.1, reason, "let go");
        if self.hosts.get(key.0.0).is_some_and(|host| host.grabber.holds(key.1, key.2)) {
            // Handed back: the answer is still to come, only the work ends.
            if let Some(held) = self.held.get_mut(&key) {
                if let Some(running) = held.running.take() {
                    running.abort();
                }
                held.work = None;
            }
            return;
        }
        self.held.remove(&key);
    }

    fn log(&self, index: HostIndex, event: &Event) {
        let address = self.hosts.get(index.0).map(Host::label).unwrap_or_default();
        match event {
            Event::Linked { host, session } => {
                tracing::info!(host, address, session = session.0, "linked")
            }
            Event::LinkLost { .. } => {}
            Event::Reserved { message, fence, attempt } => {
                tracing::debug!(id = %message, %fence, attempt, "reserved")
            }
            Event::Applied { message } => tracing::debug!(id = %message, "returned"),
            Event::Refused { message, reason } => {
                tracing::warn!(id = %message, reason, "the host did not apply a verdict")
            }
            Event::Cancelled { message, reason } => {
                tracing::info!(id = %message, reason, "cancelled")
            }
            Event::Superseded { message } => tracing::info!(id = %message, "another worker has it"),
            Event::Notice { text } => tracing::warn!(address, "the host says: {text}"),
        }
    }
}

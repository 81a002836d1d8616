//! Doing what the grabbers ask for.

use std::sync::Arc;
use std::time::Duration;

use gantry_link::{ConnectOptions, LinkError};
use gantry_protocol::frame::{WorkerControl, WorkerReservation};
use gantry_protocol::grabber::{Effect, Event};
use tokio::sync::mpsc;

use super::Service;
use super::action::{Action, HostIndex, Key};
use super::link::{self, STREAM_QUEUE_MAX, StreamOut};

/// From the first packet to the welcome.
const LINK_TIME_MAX: Duration = Duration::from_secs(5);

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

    /// Tries to link after a pause.
    pub(super) fn dial(&mut self, index: HostIndex, pause: Duration) {
        let Some(host) = self.hosts.get(index.0) else { return };
        if self.drain_until.is_some() || host.linked.is_some() {
            return;
        }
        self.last_link += 1;
        let (number, actions, identity) =
            (self.last_link, self.actions.clone(), Arc::clone(&self.identity));
        if pause > Duration::ZERO {
            tokio::spawn(async move {
                tokio::time::sleep(pause).await;
                let _ = actions.send(Action::Dial(index)).await;
            });
            return;
        }
        // The hello says what is held now; until the welcome nothing of it changes but by ending.
        let (address, mut hello, scratch) =
            (host.address.clone(), host.grabber.hello(), self.scratch.clone());
        hello.revocations = identity.trust().number();
        tokio::spawn(async move {
            let options =
                ConnectOptions { clock: gantry_link::system_clock(), time_max: LINK_TIME_MAX };
            let action = match gantry_link::connect(&address, &identity, &hello, &options).await {
                Ok((welcome, link)) => {
                    let linked = link::spawn(index, number, link, scratch, actions.clone());
                    Action::Linked(index, Box::new((welcome, linked)))
                }
                Err(error) => Action::NotLinked(index, error),
            };
            let _ = actions.send(action).await;
        });
    }

    pub(super) fn dial_later(&mut self, index: HostIndex) {
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        let pause = host.backoff.next_wait(fastrand::u64(..)).max(Duration::from_millis(1));
        self.dial(index, pause);
    }

    /// The same sentence is said once, however often the try is made.
    pub(super) fn on_not_linked(&mut self, index: HostIndex, error: &LinkError) {
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        let text = error.to_string();
        if host.last_refusal.as_ref() != Some(&text) {
            tracing::warn!(host = host.address, "{text}");
            host.last_refusal = Some(text);
        }
        self.look_after_refusal(index, error);
        self.dial_later(index);
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
        let address = self.hosts.get(index.0).map(|host| host.address.as_str()).unwrap_or_default();
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

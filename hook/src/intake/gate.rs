//! The gate between the intakes and the pool.

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Answer, Marked};
use tokio::sync::{mpsc, oneshot, watch};

/// Events on their way to the service before intakes wait: one for every connection that an intake may have,
/// several times over.
pub const EVENTS_MAX: usize = 1_024;

/// Something that an intake tells the service.
#[derive(Debug)]
pub enum IntakeEvent {
    Marked {
        marked: Marked,
        /// The message carries a trace token of this host: it has been here before and is to be held.
        looped: bool,
        /// Upstream custody: where the waiting sender's answer goes. `None` in the hook's custody.
        answer: Option<oneshot::Sender<Answer>>,
    },
    /// Upstream custody: the sender has gone without waiting for its answer, so the message is still its own.
    SenderGone(MessageId),
    /// The same before the message was marked: nobody but the spool knows of it.
    NeverMarked(MessageId),
}

/// Whether new mail is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    Open,
    /// Something is wrong with the spool: clients are told 4xx until an operator has looked.
    Stopped {
        reason: String,
    },
    /// The hook empties itself: clients are told 421 until it ends or an operator takes that back.
    Emptying,
    /// The hook is about to end: clients are told 421. Senders that wait for an answer still get it.
    Draining,
}

/// What intakes hold of the service. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Gate {
    events: mpsc::Sender<IntakeEvent>,
    admission: watch::Sender<Admission>,
}

impl Gate {
    /// An open gate, and the end at which the service receives.
    pub fn new() -> (Self, mpsc::Receiver<IntakeEvent>) {
        let (events, receiver) = mpsc::channel(EVENTS_MAX);
        (Self { events, admission: watch::Sender::new(Admission::Open) }, receiver)
    }

    /// Marks a message in the hook's custody. Waits only while [`EVENTS_MAX`] events are queued.
    ///
    /// A service that has ended is no error: the message is on disk, and the next start finds it.
    pub async fn mark(&self, marked: Marked, looped: bool) {
        let event = IntakeEvent::Marked { marked, looped, answer: None };
        if self.events.send(event).await.is_err() {
            tracing::debug!("marked after the service has ended");
        }
    }

    /// Marks a message in upstream custody and waits for what its sender is to be told.
    ///
    /// Dropping the future before it is done tells the service that the sender is gone.
    pub async fn mark_and_wait(&self, marked: Marked, looped: bool) -> Answer {
        let (sender, receiver) = oneshot::channel();
        let id = marked.id;
        let event = IntakeEvent::Marked { marked, looped, answer: Some(sender) };
        let mut waiting =
            Waiting { events: &self.events, if_dropped: Some(IntakeEvent::NeverMarked(id)) };
        // In two steps, so that it is known whether the service has heard of the message.
        let Ok(place) = self.events.reserve().await else { return ended() };
        place.send(event);
        waiting.if_dropped = Some(IntakeEvent::SenderGone(id));
        let answer = receiver.await;
        waiting.if_dropped = None;
        answer.unwrap_or_else(|_| ended())
    }

    /// Stops all intakes: new mail is answered 4xx. The first reason stays; draining goes over it.
    pub fn stop(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.admission.send_if_modified(|admission| {
            let open = *admission == Admission::Open;
            if open {
                tracing::error!(reason, "intake stopped");
                *admission = Admission::Stopped { reason };
            }
            open
        });
    }

    /// Takes new mail again after [`Gate::stop`].
    pub fn reopen(&self) {
        self.admission.send_if_modified(|admission| {
            let stopped = matches!(admission, Admission::Stopped { .. });
            if stopped {
                *admission = Admission::Open;
            }
            stopped
        });
    }

    /// Takes nothing more, for now. A stop is over with it: whatever was wrong, nothing is taken.
    pub fn empty(&self) {
        self.admission.send_if_modified(|admission| {
            let ending = *admission == Admission::Draining;
            if !ending {
                *admission = Admission::Emptying;
            }
            !ending
        });
    }

    /// Takes new mail again after [`Gate::empty`].
    pub fn refill(&self) {
        self.admission.send_if_modified(|admission| {
            let emptying = *admission == Admission::Emptying;
            if emptying {
                *admission = Admission::Open;
            }
            emptying
        });
    }

    /// Takes nothing more, for good. Each intake ends once its last session has ended.
    pub fn drain(&self) {
        self.admission.send_replace(Admission::Draining);
    }

    pub fn admission(&self) -> Admission {
        self.admission.borrow().clone()
    }

    /// Waits until clients are to be sent away: the gate drains, or the hook empties itself.
    pub async fn closing(&self) {
        let mut admission = self.admission.subscribe();
        let closes = |is: &Admission| matches!(is, Admission::Draining | Admission::Emptying);
        let _ = admission.wait_for(closes).await;
    }

    /// Waits until the gate drains.
    pub async fn draining(&self) {
        let mut admission = self.admission.subscribe();
        // The sender lives in `self`, so waiting can only end well.
        let _ = admission.wait_for(|admission| *admission == Admission::Draining).await;
    }
}

/// What the sender is told when nobody is left to decide.
fn ended() -> Answer {
    Answer::TryAgain { text: "the service is ending".into() }
}

/// Tells, when it is dropped while a message waits, that its sender is gone.
struct Waiting<'a> {
    events: &'a mpsc::Sender<IntakeEvent>,
    if_dropped: Option<IntakeEvent>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Some(event) = self.if_dropped.take() else { return };
        let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) else {
            return;
        };
        // A full queue must not swallow it: a message whose sender has gone would be processed for nobody.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let events = self.events.clone();
            runtime.spawn(async move { events.send(event).await });
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use gantry_protocol::pool::{Custody, MailboxIndex};
    use gantry_protocol::time::Moment;

    use super::*;

    fn marked(counter: u64) -> Marked {
        Marked {
            id: MessageId { epoch: 1, counter },
            mailbox: MailboxIndex(0),
            custody: Custody::Upstream { answer_by: Moment(1) },
            length: 1,
            recipients: 1,
            since: Moment(0),
            attempts: 0,
        }
    }

    #[tokio::test]
    async fn a_waiting_sender_gets_its_answer() {
        let (gate, mut events) = Gate::new();
        let wait = tokio::spawn(async move { gate.mark_and_wait(marked(1), true).await });
        let Some(IntakeEvent::Marked { looped: true, answer: Some(answer), .. }) =
            events.recv().await
        else {
            panic!("no mark");
        };
        answer.send(Answer::Accepted { text: "yes".into() }).unwrap();
        assert_eq!(wait.await.unwrap(), Answer::Accepted { text: "yes".into() });
        assert!(events.recv().await.is_none(), "a sender that was answered has not gone");
    }

    #[tokio::test]
    async fn a_sender_that_goes_is_told_of_even_through_a_full_queue() {
        let (gate, mut events) = Gate::new();
        let wait = tokio::spawn({
            let gate = gate.clone();
            async move { gate.mark_and_wait(marked(1), false).await }
        });
        let Some(IntakeEvent::Marked { answer: Some(_answer), .. }) = events.recv().await else {
            panic!("no mark");
        };
        for counter in 0..EVENTS_MAX {
            gate.mark(marked(counter as u64 + 2), false).await;
        }
        wait.abort();
        assert!(wait.await.is_err());
        for _ in 0..EVENTS_MAX {
            assert!(matches!(events.recv().await, Some(IntakeEvent::Marked { .. })));
        }
        let Some(IntakeEvent::SenderGone(id)) = events.recv().await else { panic!("not told") };
        assert_eq!(id, marked(1).id);
    }

    /// Else its bytes would stay in memory for as long as the hook runs.
    #[tokio::test]
    async fn a_sender_that_goes_before_its_message_is_marked_is_told_of() {
        let (gate, mut events) = Gate::new();
        for counter in 0..EVENTS_MAX {
            gate.mark(marked(counter as u64 + 2), false).await;
        }
        tokio::select! {
            biased;
            answer = gate.mark_and_wait(marked(1), false) => panic!("{answer:?}"),
            () = std::future::ready(()) => {} // The first was asked once, and is dropped now.
        }
        for _ in 0..EVENTS_MAX {
            assert!(matches!(events.recv().await, Some(IntakeEvent::Marked { .. })));
        }
        let Some(IntakeEvent::NeverMarked(id)) = events.recv().await else { panic!("not told") };
        assert_eq!(id, marked(1).id);
    }

    #[tokio::test]
    async fn a_service_that_ends_leaves_the_message_with_its_sender() {
        let (gate, events) = Gate::new();
        drop(events);
        assert!(matches!(gate.mark_and_wait(marked(1), false).await, Answer::TryAgain { .. }));
    }

    #[test]
    fn a_stopped_gate_keeps_its_first_reason_and_draining_goes_over_it() {
        let (gate, _events) = Gate::new();
        gate.stop("disk");
        gate.stop("other");
        assert_eq!(gate.admission(), Admission::Stopped { reason: "disk".into() });
        gate.reopen();
        assert_eq!(gate.admission(), Admission::Open);
        gate.empty();
        gate.stop("while it empties itself");
        gate.reopen();
        assert_eq!(gate.admission(), Admission::Emptying);
        gate.refill();
        assert_eq!(gate.admission(), Admission::Open);
        gate.drain();
        gate.empty();
        gate.refill();
        gate.stop("late");
        gate.reopen();
        assert_eq!(gate.admission(), Admission::Draining);
    }
}

//! Operators' decisions: about messages that were set aside, and about workers. Conditional on what they are about, and
//! safe to repeat.

use gantry_mail::HeaderEdit;

use super::Pool;
use super::effect::{Change, Effect, Recovered, StoredState};
use super::entry::{Entry, Next, Releasing, State};
use super::shelf::Shelf;
use crate::frame::{HostControl, Manage, Order};
use crate::id::{Digest, MessageId, Token};
use crate::limits::GRABBERS_MAX;
use crate::text::bounded;
use crate::time::Moment;
use crate::verdict::{Body, Disposition, Finding, Group, Outcome, Verdict};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Back into the pool: it is processed again, and leaves only by a new verdict.
    Release,
    /// Handed on to everybody who has not had it, as it came in, on the word of this operator.
    ReleaseAsIs { by: String },
    /// Gone for good.
    Delete,
}

/// Why an operator's wish was not followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OperatorError {
    #[error("no message {id} is here; `list` shows those that are")]
    Unknown { id: MessageId },
    #[error("message {id} is {actual}, not {wanted}; nothing was changed")]
    WrongState { id: MessageId, actual: &'static str, wanted: &'static str },
    #[error(
        "no worker {name:?} has linked to this host since it started; `status` shows those that have"
    )]
    UnknownWorker { name: String },
    #[error("worker {name} is not linked to this host now, so it cannot be told to leave")]
    NotLinked { name: String },
    #[error(
        "{GRABBERS_MAX} workers are not ready by order already, which is the most; make some ready again"
    )]
    TooManyOrders,
}

impl Pool {
    /// Releases or deletes a message that is held or quarantined, as `wanted` says. It is done when the store with the
    /// token that is returned completes; where that fails, the message is where it was. `take` takes it from the shelf, and
    /// is called for what the pool has not in its hands.
    ///
    /// # Errors
    /// [`OperatorError::Unknown`] and [`OperatorError::WrongState`]: the decision was about something else.
    pub fn handle_operator(
        &mut self,
        id: MessageId,
        wanted: StoredState,
        operation: Operation,
        take: impl FnOnce() -> Option<Recovered>,
        now: Moment,
    ) -> Result<Token, OperatorError> {
        let wrong = |actual| {
            let wanted = Shelf::of(wanted).word();
            Err(OperatorError::WrongState { id, actual, wanted })
        };
        if let Some(entry) = self.messages.get(&id) {
            return wrong(entry.state_name());
        }
        let Recovered { marked, state, note } = take().ok_or(OperatorError::Unknown { id })?;
        let shelf = Shelf::of(state);
        if state != wanted || !matches!(shelf, Shelf::Held | Shelf::Quarantined) {
            self.effects.push_back(Effect::Shelve { message: id, note });
            return wrong(shelf.word());
        }
        self.took(marked.mailbox, shelf, marked.length);
        let (recipients, length) = (marked.recipients, marked.length);
        self.insert(marked, State::Marked);
        let (next, change) = match operation {
            Operation::Release => (Next::Requeued { prior: wanted }, Change::Requeue),
            Operation::ReleaseAsIs { by } => {
                let pending: Vec<u16> = (0..recipients).collect();
                let verdict = Box::new(as_is(pending.clone(), length, &by));
                let releasing = Releasing { loaded: true, pending, ..Releasing::default() };
                let next = Next::ReleasedAsIs { releasing: Box::new(releasing), prior: wanted };
                (next, Change::ReleaseAsIs { verdict })
            }
            Operation::Delete => (Next::Removed { prior: Some(wanted) }, Change::Remove),
        };
        self.settle(id, next, None, change);
        self.assign(now);
        self.messages.get(&id).and_then(|entry| entry.storing).ok_or(OperatorError::Unknown { id })
    }

    /// Tells a worker what an operator wants of it. One that is made not ready gets nothing until it is made ready again,
    /// however often it links anew.
    ///
    /// # Errors
    /// [`OperatorError::UnknownWorker`] for a name that nobody has linked with, [`OperatorError::NotLinked`] for one that
    /// cannot be told to leave.
    pub fn handle_order(
        &mut self,
        name: &str,
        order: Order,
        now: Moment,
    ) -> Result<(), OperatorError> {
        let unknown = || OperatorError::UnknownWorker { name: bounded(name) };
        let key = self.grabbers.by_name(name);
        let session = key.and_then(|key| self.grabbers.get(key)).and_then(|g| g.session);
        match &order {
            Order::Ready => {
                if let Some(key) = key {
                    // Somebody has looked.
                    self.count_success(key);
                }
                if self.orders.remove(name).is_none() && key.is_none() {
                    return Err(unknown());
                }
            }
            Order::NotReady { reason } => {
                if key.is_none() && !self.orders.contains_key(name) {
                    return Err(unknown());
                }
                if self.orders.len() >= GRABBERS_MAX && !self.orders.contains_key(name) {
                    return Err(OperatorError::TooManyOrders);
                }
                self.orders.insert(name.to_owned(), bounded(reason.as_str()));
            }
            Order::Drain { .. } if key.is_none() => return Err(unknown()),
            Order::Drain { .. } if session.is_none() => {
                return Err(OperatorError::NotLinked { name: name.to_owned() });
            }
            Order::Drain { .. } => {}
        }
        if let Some(grabber) = key.and_then(|key| self.grabbers.get_mut(key)) {
            grabber.ordered = self.orders.get(name).cloned();
        }
        if let Some(session) = session {
            self.control(session, HostControl::Manage(Manage { order }));
        }
        self.assign(now);
        Ok(())
    }

    /// Workers that are not ready by order, each with the reason: what a driver keeps over its restarts.
    pub fn orders(&self) -> impl Iterator<Item = (&str, &str)> {
        self.orders.iter().map(|(name, reason)| (name.as_str(), reason.as_str()))
    }

    /// What [`Pool::orders`] gave before the restart. To be called before any worker links.
    pub fn restore_orders(&mut self, orders: impl IntoIterator<Item = (String, String)>) {
        self.orders = orders.into_iter().take(GRABBERS_MAX).collect();
    }
}

/// The verdict of an operator. What the modules found is in the message's life, and in the log before this.
fn as_is(recipients: Vec<u16>, length: u64, by: &str) -> Verdict {
    let field = format!("X-Gantry: released as it is by the operator {}", bounded(by));
    let disposition =
        Disposition::Deliver { edits: vec![HeaderEdit::Prepend { field }], body: Body::Original };
    let reason = format!("released as it is by the operator {}", bounded(by));
    Verdict {
        length,
        digest: Digest([0; 32]),
        groups: vec![Group { recipients, disposition }],
        findings: vec![Finding {
            need: String::new(),
            module: "operator".to_owned(),
            engine: String::new(),
            signatures: String::new(),
            outcome: Outcome::Unscanned { reason },
            duration_ms: 0,
        }],
        originated: Vec::new(),
    }
}

impl Entry {
    pub(super) fn state_name(&self) -> &'static str {
        match &self.state {
            State::Marked => "waiting",
            State::Reserved(_) => "reserved",
            State::Settling(_) => "settling",
            State::Releasing(_) => "releasing",
        }
    }
}

//! Operators' decisions about messages that were set aside: conditional on their state, and safe to repeat.

use super::Pool;
use super::effect::{Change, StoredState};
use super::entry::{Entry, Next, State};
use crate::id::MessageId;
use crate::time::Moment;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Back into the pool: it is processed again, and leaves only by a new verdict.
    Release,
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
}

impl Pool {
    /// Releases or deletes a message that is held or quarantined, as `wanted` says.
    pub fn handle_operator(
        &mut self,
        id: MessageId,
        wanted: StoredState,
        operation: Operation,
        now: Moment,
    ) -> Result<(), OperatorError> {
        let entry = self.messages.get(&id).ok_or(OperatorError::Unknown { id })?;
        let fits = matches!(
            (&entry.state, wanted),
            (State::Held, StoredState::Held) | (State::Quarantined, StoredState::Quarantined)
        );
        if !fits || entry.storing.is_some() {
            let wanted = if wanted == StoredState::Held { "held" } else { "quarantined" };
            return Err(OperatorError::WrongState { id, actual: entry.state_name(), wanted });
        }
        match operation {
            Operation::Release => {
                self.settle(id, Next::Requeued { prior: wanted }, None, Change::Requeue)
            }
            Operation::Delete => {
                self.settle(id, Next::Removed { prior: Some(wanted) }, None, Change::Remove)
            }
        }
        self.assign(now);
        Ok(())
    }
}

impl Entry {
    pub(super) fn state_name(&self) -> &'static str {
        match &self.state {
            State::Marked => "waiting",
            State::Reserved(_) => "reserved",
            State::Settling(_) => "settling",
            State::Releasing(_) => "releasing",
            State::Held => "held",
            State::Quarantined => "quarantined",
        }
    }
}

//! The host's side: marks, reservations, fences, attempts, takeover, custody and release, as a state machine.

mod effect;

pub use effect::{
    Answer, Assigned, Assignment, Change, Custody, Effect, Event, MailboxIndex, Marked,
    RecipientResult, Recovered, ReleaseResult, Stored, StoredState,
};

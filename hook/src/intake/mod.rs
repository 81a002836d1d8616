//! Ways in: what takes messages from the mail host, puts them where custody says, and marks them.
//!
//! An intake knows nothing of the pool. It tells a [`Gate`] what it has marked; the service receives
//! [`IntakeEvent`]s from the other end and answers the senders that wait.

mod clock;
mod gate;
pub mod smtp;

pub use clock::{Clock, unix_ms};
pub use gate::{Admission, EVENTS_MAX, Gate, IntakeEvent};

//! Ways in: what takes messages from the mail host, puts them where custody says, and marks them.
//!
//! An intake knows nothing of the pool. It tells a [`Gate`] what it has marked; the service receives
//! [`IntakeEvent`]s from the other end and answers the senders that wait.

pub mod arrival;
mod clock;
mod gate;
pub mod mark;
pub mod pickup;
pub mod smtp;

pub use clock::{Clock, unix_ms};
pub use gate::{Admission, EVENTS_MAX, Gate, IntakeEvent};

/// More `Received` fields than this are a loop. RFC 5321, 6.3 asks for at least 100.
const RECEIVED_MAX: usize = 100;

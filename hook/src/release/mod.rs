//! Ways out: what hands a processed message on.

mod capabilities;
mod letter;
mod order;
mod smtp;
mod trace;

pub use capabilities::{Capabilities, Offered};
pub use letter::Identity;
pub use smtp::{ProbeError, SmtpRelease, SmtpReleaseConfig, SmtpTimeouts, probe, release};
pub use trace::TraceKey;

//! Ways out: what hands a processed message on.

mod capabilities;
mod command;
mod directory;
mod letter;
mod lines;
mod order;
mod smtp;
#[cfg(test)]
mod testing;
mod trace;
mod way;

pub use capabilities::{Capabilities, Offered};
pub use command::{Argument, CommandRelease, CommandReleaseConfig};
pub use directory::{DirectoryRelease, DirectoryReleaseConfig, EnvelopeForm, FolderFormat};
pub use letter::{ADDED_BYTES_MAX, Identity};
pub use lines::LineEnds;
#[cfg(feature = "testkit")]
pub use smtp::testkit;
pub use smtp::{
    Credentials, PasswordError, ProbeError, Protocol, SmtpRelease, SmtpReleaseConfig, SmtpTimeouts,
    probe,
};
pub use trace::TraceKey;
pub use way::Way;

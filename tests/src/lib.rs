//! What Gantry's tests share: a cluster of real processes, an SMTP client that can misbehave, a private Postfix and
//! Dovecot, and a corpus of real mail. The sink, the status and the processes are the demo's.
//!
//! Everything fails by panicking with what it was doing, ends its processes when dropped, and listens on loopback.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they skip"
)]

pub mod bench;
pub mod binary;
pub mod certificate;
pub mod clock;
pub mod cluster;
pub mod corpus;
pub mod crashes;
pub mod dovecot;
pub mod heap;
pub mod lan;
pub mod pages;
pub mod postfix;
pub mod simulation;
pub mod site;
pub mod smtp;
pub mod weather;

pub use binary::{binary, project};
pub use certificate::Certificate;
pub use clock::FakeClock;
pub use cluster::{Cluster, Setup};
pub use dovecot::Dovecot;
pub use gantry::demo::process::{Running, free_port, until};
pub use gantry::demo::sink::{Received, Sink};
pub use gantry::demo::status::Status;
pub use lan::Lan;
pub use site::{Place, Site};
pub use weather::Weather;

use std::io::Write as _;
use std::time::Duration;

/// The patience of every wait in the tests: far beyond what a busy machine needs, so that it only ends what hangs.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits for a condition and panics with its name where it does not come.
pub fn await_that<T>(what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until(PATIENCE, ask).unwrap_or_else(|| panic!("waited {PATIENCE:?} in vain until {what}"))
}

/// What decides a test's mail, another one in each run; printed, so that a failure can be played again.
pub fn seed() -> u64 {
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    seed
}

/// Says on the test's output that something was left out, and why; and in the file that `GANTRY_SKIPPED` names, since
/// the output of a test that succeeds is often not shown.
pub fn skip(what: &str, why: &str) {
    let line = format!("skipped {what}: {why}\n");
    print!("{line}");
    if let Some(path) = std::env::var_os("GANTRY_SKIPPED") {
        let file = std::fs::File::options().create(true).append(true).open(path);
        file.and_then(|mut file| file.write_all(line.as_bytes())).expect("note what was skipped");
    }
}

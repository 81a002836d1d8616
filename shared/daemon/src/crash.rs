//! Places at which a test can have a process die, as by a power button: no destructor runs, nothing is flushed.
//!
//! They are there only with the feature `crash-points`, which nothing that is shipped has. `GANTRY_CRASH_AT=NAME:COUNT` then
//! kills the process (SIGKILL) when it passes the point of that name for the COUNTth time.

/// The points of `gantry-hook`, in the order in which a message passes them. Those of writing a file are passed by every new one:
/// a message that comes in, one that becomes the hook's own, a notice.
pub const HOOK: &[&str] = &[
    "file-written",
    "file-synced",
    "file-renamed",
    "message-stored",
    "message-marked",
    "attempt-counted",
    "assigned",
    "body-sent",
    "verdict-received",
    "verdict-appended",
    "verdict-stored",
    "originated-written",
    "connecting",
    "connected",
    "final-dot-sent",
    "final-dot-answered",
    "result-received",
    "result-appended",
    "bounce-written",
    "adopted",
    "aside-appended",
    "removing",
    "removed",
    "answering",
];

/// The points of the worker, in the same order.
pub const WORKER: &[&str] =
    &["assigned", "body-received", "processed", "verdict-sent", "acknowledged"];

/// Dies here, if `GANTRY_CRASH_AT` says so.
#[cfg(feature = "crash-points")]
pub fn at(name: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    static CHOSEN: OnceLock<Option<(String, u64)>> = OnceLock::new();
    static PASSED: AtomicU64 = AtomicU64::new(0);

    let chosen = CHOSEN.get_or_init(|| {
        let text = std::env::var("GANTRY_CRASH_AT").ok()?;
        let (name, count) = text.split_once(':').unwrap_or((&text, "1"));
        Some((name.to_owned(), count.parse().ok()?))
    });
    let Some((chosen, count)) = chosen else { return };
    if chosen == name && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == *count {
        #[cfg(unix)]
        let _ =
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // Where there is no such signal.
        std::process::abort();
    }
}

/// Nothing, without the feature `crash-points`.
#[cfg(not(feature = "crash-points"))]
#[inline(always)]
pub const fn at(_name: &str) {}

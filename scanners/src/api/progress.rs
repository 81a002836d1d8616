//! Progress of one module on one message: what tells slow from hung.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_protocol::limits::SILENCE_DEFAULT;
use gantry_protocol::time::millis;

/// A module writes it and the worker reads it; clones share.
#[derive(Clone, Debug)]
pub struct Progress {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    silence_max_ms: u64,
    work: AtomicU64,
    silence_ms: AtomicU64,
}

/// What the worker tells the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgressState {
    /// Work done, in whatever unit the module counts; only a rise is progress.
    pub work: u64,
    /// The longest silence that is to be expected from here on.
    pub silence: Duration,
}

impl Progress {
    /// `silence_max` is the host's bound on what a module may announce.
    pub fn new(silence_max: Duration) -> Self {
        let silence_max_ms = millis(silence_max);
        let silence_ms = AtomicU64::new(millis(SILENCE_DEFAULT).min(silence_max_ms));
        Self { shared: Arc::new(Shared { silence_max_ms, work: AtomicU64::new(0), silence_ms }) }
    }

    /// Some work has been done: bytes taken by an engine, a piece looked at. Never called because time has passed.
    pub fn advance(&self, work: u64) {
        self.shared.work.fetch_add(work, Ordering::Relaxed);
    }

    /// Announces the longest silence that the module needs from here on, and returns what the host grants of it:
    /// the module arranges its own time limits within that.
    pub fn expect_silence(&self, silence: Duration) -> Duration {
        let granted = millis(silence).min(self.shared.silence_max_ms);
        self.shared.silence_ms.store(granted, Ordering::Relaxed);
        Duration::from_millis(granted)
    }

    pub fn state(&self) -> ProgressState {
        ProgressState {
            work: self.shared.work.load(Ordering::Relaxed),
            silence: Duration::from_millis(self.shared.silence_ms.load(Ordering::Relaxed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_bounds_the_announced_silence() {
        let progress = Progress::new(Duration::from_secs(5));
        assert_eq!(progress.state(), ProgressState { work: 0, silence: Duration::from_secs(5) });
        assert_eq!(progress.expect_silence(Duration::from_secs(9)), Duration::from_secs(5));
        assert_eq!(progress.expect_silence(Duration::from_secs(2)), Duration::from_secs(2));
        progress.clone().advance(3);
        assert_eq!(progress.state(), ProgressState { work: 3, silence: Duration::from_secs(2) });
    }
}

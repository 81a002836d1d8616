//! Scans that clamd has not answered yet.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Which scans are under way; their number is bounded by the module's permits.
#[derive(Default)]
pub(super) struct Scans {
    under_way: Mutex<UnderWay>,
}

#[derive(Default)]
struct UnderWay {
    next: u64,
    /// In the order in which they began.
    began: BTreeMap<u64, Instant>,
}

/// A scan is under way until this is dropped.
pub(super) struct ScanGuard<'a> {
    scans: &'a Scans,
    number: u64,
}

impl Scans {
    pub(super) fn begin(&self) -> ScanGuard<'_> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        let number = under_way.next;
        under_way.next += 1;
        under_way.began.insert(number, Instant::now());
        ScanGuard { scans: self, number }
    }

    /// How long the oldest has taken so far.
    pub(super) fn oldest(&self) -> Option<Duration> {
        let under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.began.values().next().map(|began| began.elapsed())
    }
}

impl Drop for ScanGuard<'_> {
    fn drop(&mut self) {
        let mut under_way = self.scans.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.began.remove(&self.number);
    }
}

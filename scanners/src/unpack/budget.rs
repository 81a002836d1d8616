//! What a message has used of its limits.

use std::time::Instant;

use super::Limits;

/// Growth that needs no ratio: small things compress well without being bombs.
const GROWTH_FREE_BYTES: u64 = 1 << 20;

/// The one budget of a message.
#[derive(Debug)]
pub(super) struct Budget {
    limits: Limits,
    started: Instant,
    bytes: u64,
    entries: u32,
}

impl Budget {
    pub(super) fn new(limits: &Limits) -> Self {
        Self { limits: *limits, started: Instant::now(), bytes: 0, entries: 0 }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that may still be made.
    pub(super) fn bytes_left(&self) -> usize {
        let left = self.limits.bytes_max.saturating_sub(self.bytes);
        usize::try_from(left).unwrap_or(usize::MAX)
    }

    pub(super) fn spend(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(bytes as u64);
    }

    pub(super) fn entries_left(&self) -> u32 {
        self.limits.entries_max.saturating_sub(self.entries)
    }

    /// Counts a part or entry; false if there was none left.
    pub(super) fn take_entry(&mut self) -> bool {
        let any = self.entries_left() > 0;
        self.entries += u32::from(any);
        any
    }

    /// Levels that may still be entered below `depth`.
    pub(super) fn levels_left(&self, depth: u16) -> u16 {
        self.limits.depth_max.saturating_sub(depth)
    }

    pub(super) fn out_of_time(&self) -> bool {
        self.started.elapsed() >= self.limits.time_max
    }

    /// Bytes that an archive of this length may give altogether.
    pub(super) fn growth(&self, length: usize) -> u64 {
        u64::from(self.limits.ratio_max).saturating_mul(length as u64).max(GROWTH_FREE_BYTES)
    }
}

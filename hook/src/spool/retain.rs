//! Which of the messages that were set aside have been kept for long enough, or are too many.

use std::time::Duration;

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::StoredState;

use super::{Spool, SpoolError};
use crate::disk::Disk;

/// Messages that one look considers, the oldest: a bound on the work of a look, and what is left is due at the next.
pub const LOOK_MAX: usize = 1_000;

impl<D: Disk> Spool<D> {
    /// Messages that have been held or quarantined for `keep` at least, by the spool's own time *and* by the wall
    /// clock since they came in: whichever of the two is wrong, nothing goes too soon. Blocks.
    pub fn kept_for(&self, state: StoredState, keep: Duration) -> Vec<MessageId> {
        if self.aside_bytes(state) == 0 {
            return Vec::new();
        }
        let now = (self.options.clock)();
        let (now_s, unix_s) = (self.calendar.seconds(now.moment), now.unix_ms / 1_000);
        let keep_s = keep.as_secs().max(1);
        let came_in_before = |received: u64| unix_s.saturating_sub(received) >= keep_s;
        let listed = self.list(|listed| listed == state, LOOK_MAX).into_iter();
        let old = listed.filter(|listed| came_in_before(listed.received_unix_s));
        let due = old.filter(|listed| match self.log(listed.id) {
            Ok(log) => log.aside_since_s.is_some_and(|since| now_s.saturating_sub(since) >= keep_s),
            Err(error) => {
                tracing::debug!(id = %listed.id, "look for how long it has been kept: {error}");
                false
            }
        });
        due.map(|listed| listed.id).collect()
    }

    /// The oldest messages in a state without which the others take up at most `bytes_max`. Blocks.
    pub fn beyond(&self, state: StoredState, bytes_max: u64) -> Vec<MessageId> {
        let mut excess = self.aside_bytes(state).saturating_sub(bytes_max);
        if excess == 0 {
            return Vec::new();
        }
        let listed = self.list(|listed| listed == state, LOOK_MAX).into_iter();
        let oldest = listed.take_while(|listed| {
            let wanted = excess > 0;
            excess = excess.saturating_sub(listed.length.max(1));
            wanted
        });
        oldest.map(|listed| listed.id).collect()
    }

    fn aside_bytes(&self, state: StoredState) -> u64 {
        let usage = self.usage();
        if state == StoredState::Held { usage.held } else { usage.quarantined }
    }

    /// Keeps the spool's own time over a restart. Blocks.
    ///
    /// # Errors
    /// The disk.
    pub fn save_calendar(&self) -> Result<(), SpoolError> {
        self.health.check()?;
        let saved = self.calendar.save(&self.disk, &self.root, (self.options.clock)().moment);
        self.health.watch(saved)
    }
}

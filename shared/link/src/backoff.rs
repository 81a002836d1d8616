//! How long to wait before the next try to link.

use std::time::Duration;

/// The first wait at the most.
const BASE: Duration = Duration::from_millis(100);
/// The longest wait: a host that comes back is found within this, and five hundred workers that look for one that
/// does not cost it fifty packets a second.
const MAX: Duration = Duration::from_secs(10);

/// Waits that double from 100 ms to 10 s. Each is spread over its upper half by the caller's random number, so that
/// workers which lost their host at one moment do not come back at one moment.
#[derive(Clone, Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    pub fn new() -> Self {
        Self::default()
    }

    /// The wait after one more failure. `random` is any number, evenly drawn.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let whole = BASE.saturating_mul(1 << self.failures.min(16)).min(MAX);
        self.failures = self.failures.saturating_add(1);
        let half = whole / 2;
        let spread = u64::try_from(half.as_micros()).unwrap_or(u64::MAX).saturating_add(1);
        half + Duration::from_micros(random % spread)
    }

    /// After a link that was welcomed: the next failure waits the shortest time again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_ten_seconds_and_start_anew() {
        let mut backoff = Backoff::new();
        // With 0 the wait is the lower half alone.
        let waits: Vec<u128> = (0..9).map(|_| backoff.next_wait(0).as_millis() * 2).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000]);
        for random in [1, u64::MAX / 3, u64::MAX] {
            let wait = backoff.next_wait(random);
            assert!(wait >= MAX / 2 && wait <= MAX, "{wait:?}");
        }
        assert_eq!(backoff.next_wait(5_000_000), MAX, "5,000,000 microseconds are the upper half");
        backoff.reset();
        assert!(backoff.next_wait(u64::MAX) <= BASE);
    }
}

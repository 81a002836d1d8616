//! How fast a worker may talk. Who talks faster is read more slowly, and QUIC's flow control does the rest; who does so for long has its
//! link closed.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Control frames of one link in a second. A worker asks once for each message and beats five times; a host does some 1,500 messages a
/// second with all its workers together, and this is more than twice that. Without a bound a flood costs the others their time.
pub(super) const CONTROL_PER_SECOND: u32 = 4_000;
/// The same for all reservations of a link together: a verdict for each message, and progress ten times a second for each of
/// a few hundred.
pub(super) const RESERVATIONS_PER_SECOND: u32 = 4_000;
/// And for one reservation, which needs progress ten times a second and one verdict.
pub(super) const RESERVATION_PER_SECOND: u32 = 50;
/// What may come at once, in seconds of the pace: what has queued up while a link stood still.
const BURST_SECONDS: u32 = 1;
/// How long without a break a worker may be ahead of its pace. Nothing that a worker has to say takes that long.
const AHEAD_MAX: Duration = Duration::from_secs(10);

/// Counts what comes against a number in a second.
#[derive(Debug)]
pub(super) struct Pace {
    gap: Duration,
    burst: Duration,
    /// When all that has come would have come at exactly this pace.
    due: Instant,
    /// Since when frames have come too early, without half a burst's rest.
    ahead_since: Option<Instant>,
}

impl Pace {
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        let gap = Duration::from_secs(1) / per_second.max(1);
        let burst = gap * per_second * BURST_SECONDS;
        Self { gap, burst, due: now, ahead_since: None }
    }

    /// Counts one, and tells how long to wait before it is looked at.
    fn count(&mut self, now: Instant) -> Duration {
        self.due = self.due.max(now) + self.gap;
        let ahead = self.due.saturating_duration_since(now);
        let wait = ahead.saturating_sub(self.burst);
        if !wait.is_zero() {
            self.ahead_since.get_or_insert(now);
        } else if ahead < self.burst / 2 {
            // Not sooner: timers are coarse, and after a wait that was too long some frames need none.
            self.ahead_since = None;
        }
        wait
    }

    fn is_absurd(&self, now: Instant) -> bool {
        self.ahead_since.is_some_and(|since| now.saturating_duration_since(since) >= AHEAD_MAX)
    }

    /// Counts one and waits until it may be looked at; false when that has gone on for too long.
    pub(super) async fn keep(&mut self) -> bool {
        let now = Instant::now();
        let wait = self.count(now);
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
        !self.is_absurd(now)
    }
}

/// One pace for many streams, which are only slowed down: a worker may have a thousand of them.
#[derive(Clone, Debug)]
pub(super) struct SharedPace(Arc<Mutex<Pace>>);

impl SharedPace {
    pub(super) fn new(per_second: u32) -> Self {
        Self(Arc::new(Mutex::new(Pace::new(per_second, Instant::now()))))
    }

    pub(super) async fn keep(&self) {
        let wait = self.0.lock().unwrap_or_else(PoisonError::into_inner).count(Instant::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_the_pace_never_waits() {
        let mut now = Instant::now();
        let mut pace = Pace::new(100, now);
        for _ in 0..10_000 {
            now += Duration::from_millis(10);
            assert_eq!(pace.count(now), Duration::ZERO);
        }
    }

    #[test]
    fn a_burst_passes_and_what_follows_waits_for_its_turn() {
        let now = Instant::now();
        let mut pace = Pace::new(100, now);
        for _ in 0..100 {
            assert_eq!(pace.count(now), Duration::ZERO);
        }
        assert_eq!(pace.count(now), Duration::from_millis(10));
        assert_eq!(pace.count(now), Duration::from_millis(20));
        assert_eq!(pace.count(now + Duration::from_secs(5)), Duration::ZERO, "rested");
    }

    #[test]
    fn a_flood_is_read_at_the_pace_and_absurd_after_a_while() {
        let mut now = Instant::now();
        let start = now;
        let mut pace = Pace::new(4_000, now);
        let mut read = 0;
        while !pace.is_absurd(now) {
            // The next frame is always there, and a timer that is set waits for a millisecond at least.
            let wait = pace.count(now);
            if !wait.is_zero() {
                now += wait.max(Duration::from_millis(1));
            }
            read += 1;
        }
        assert!(now - start >= AHEAD_MAX && now - start < AHEAD_MAX * 2);
        assert!((40_000..50_000).contains(&read), "{read}");
    }
}

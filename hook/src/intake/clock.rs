//! The process's monotonic clock, as moments.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_protocol::time::Moment;
use tokio::time::Instant;

/// What a new clock reads: far enough from zero for every age that a message can bring along from before a restart.
const START: Duration = Duration::from_secs(366 * 24 * 3600);

/// Tells the time as milliseconds from an origin a year before it was made. Copies tell the same time.
///
/// It reads tokio's clock, so a test that pauses that clock moves this one too.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that reads a year now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    pub fn now(&self) -> Moment {
        Moment::default() + START + self.origin.elapsed()
    }

    /// When, on tokio's clock, this one reads `moment`.
    pub fn instant(&self, moment: Moment) -> Instant {
        self.origin + moment.since(Moment::default() + START)
    }
}

/// Wall time in milliseconds since 1970, for what is written down for people; zero on a host whose clock stands
/// before that.
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

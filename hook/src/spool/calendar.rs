//! The spool's own time, by which it is told for how long a message has been set aside.
//!
//! It goes on only while a hook runs, by the monotonic clock, and is kept in the file `calendar`. So no wall clock that
//! is set wrong, and no time for which a host was off, makes a message older than it is: see
//! `docs/decisions/0029-kept-by-running-time.md`. It begins with the wall clock's seconds, so that messages that are
//! moved to another spool are no strangers there.

use std::path::Path;

use gantry_protocol::time::Moment;

use super::open::{read_line, replace_file};
use super::{CALENDAR_FILE, Now, Report, SpoolError};
use crate::disk::Disk;

/// A reading of the spool's time: seconds that rise, and never jump.
#[derive(Clone, Copy, Debug)]
pub(super) struct Calendar {
    base_s: u64,
    began: Moment,
}

impl Calendar {
    /// Goes on where the file says, and makes it where it is missing. A file that cannot be understood is reported, and
    /// replaced.
    pub(super) fn open<D: Disk>(
        disk: &D,
        root: &Path,
        now: Now,
        reports: &mut Vec<Report>,
    ) -> Result<Self, SpoolError> {
        let path = root.join(CALENDAR_FILE);
        let kept = match read_line(disk, root, &path) {
            Ok(line) => line.map(|line| line.parse::<u64>().ok()),
            Err(SpoolError::Damaged { .. }) => Some(None),
            Err(error) => return Err(error),
        };
        if kept == Some(None) {
            let what = "is no number of seconds; it was set to the clock of this host".to_owned();
            reports.push(Report { path: path.clone(), what });
        }
        let calendar =
            Self { base_s: kept.flatten().unwrap_or(now.unix_ms / 1_000), began: now.moment };
        if kept.flatten().is_none() {
            calendar.save(disk, root, now.moment)?;
        }
        Ok(calendar)
    }

    pub(super) fn seconds(&self, now: Moment) -> u64 {
        self.base_s.saturating_add(now.since(self.began).as_secs())
    }

    /// What is not saved is forgotten by a restart: messages are kept that much longer.
    pub(super) fn save<D: Disk>(
        &self,
        disk: &D,
        root: &Path,
        now: Moment,
    ) -> Result<(), SpoolError> {
        let line = format!("{}\n", self.seconds(now));
        replace_file(disk, &root.join(CALENDAR_FILE), line.as_bytes())
    }
}

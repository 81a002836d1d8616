//! Room for messages: what those in the spool take up, and when no more are taken in.

use std::sync::{Mutex, MutexGuard, PoisonError};

use gantry_protocol::pool::StoredState;

use super::{Spool, SpoolError};
use crate::disk::Disk;

/// When new mail is refused. What has been accepted finds its place whatever stands here, as long as the disk has any.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RoomLimits {
    /// Bytes of all messages in the hook's custody.
    pub spool_bytes_max: Option<u64>,
    /// Bytes of the file system that new mail leaves free: for verdicts, results, notices and the audit log.
    pub free_bytes_min: u64,
    /// Bytes of the messages that are held, and of those in quarantine.
    pub held_bytes_max: Option<u64>,
    pub quarantined_bytes_max: Option<u64>,
}

/// What stored messages take up, in bytes of the messages themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub all: u64,
    pub held: u64,
    pub quarantined: u64,
}

/// Counts as messages come, change their states and go.
#[derive(Debug, Default)]
pub(super) struct Room {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    usage: Usage,
    /// What the file system had free, and what was stored by then; nothing before it was looked at.
    free: Option<(u64, u64)>,
}

impl<D: Disk> Spool<D> {
    /// Whether a message of this size may be taken in. Reads counters alone.
    ///
    /// # Errors
    /// [`SpoolError::NoRoom`], with what is full.
    pub fn room(&self, bytes: u64) -> Result<(), SpoolError> {
        let limits = self.options.room;
        let state = self.room.lock();
        let Usage { all, held, quarantined } = state.usage;
        let full = |what: &str, used: u64, max: u64, key: &str| {
            let what = format!("{what} has {used} bytes of the {max} that {key} allows");
            Err(SpoolError::NoRoom { what })
        };
        if let Some(max) = limits.spool_bytes_max.filter(|max| all.saturating_add(bytes) > *max) {
            return full("the spool", all, max, "[limits] spool_max");
        }
        if let Some(max) = limits.held_bytes_max.filter(|max| held >= *max) {
            return full("what is held", held, max, "[held] max_bytes");
        }
        if let Some(max) = limits.quarantined_bytes_max.filter(|max| quarantined >= *max) {
            return full("the quarantine", quarantined, max, "[quarantine] max_bytes");
        }
        let Some((free, by_then)) = state.free else { return Ok(()) };
        let free = free.saturating_sub(all.saturating_sub(by_then));
        if free < limits.free_bytes_min.saturating_add(bytes) {
            let min = limits.free_bytes_min;
            let what = format!(
                "the spool's file system has {free} bytes free, of which [limits] spool_free_min keeps {min}"
            );
            return Err(SpoolError::NoRoom { what });
        }
        Ok(())
    }

    /// Asks the file system how much is free. Blocks.
    ///
    /// # Errors
    /// Where it does not say.
    pub fn look_for_room(&self) -> Result<(), SpoolError> {
        let free = self.disk.free_bytes(&self.root);
        let free = free.map_err(SpoolError::io("ask for the free space of", &self.root))?;
        let mut state = self.room.lock();
        state.free = Some((free, state.usage.all));
        Ok(())
    }

    /// What the file system had free at the last look; `None` before the first.
    pub fn free_bytes(&self) -> Option<u64> {
        self.room.lock().free.map(|(free, _)| free)
    }

    /// What the stored messages take up now.
    pub fn usage(&self) -> Usage {
        self.room.lock().usage
    }
}

impl Room {
    /// A message came into this state, new or from another one.
    pub(super) fn add(&self, state: StoredState, bytes: u64) {
        for counter in self.lock().usage.of(state).into_iter().flatten() {
            *counter = counter.saturating_add(bytes);
        }
    }

    /// A message left this state.
    pub(super) fn remove(&self, state: StoredState, bytes: u64) {
        for counter in self.lock().usage.of(state).into_iter().flatten() {
            *counter = counter.saturating_sub(bytes);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Usage {
    /// The counters of a state.
    fn of(&mut self, state: StoredState) -> [Option<&mut u64>; 2] {
        let own = match state {
            StoredState::Held => Some(&mut self.held),
            StoredState::Quarantined => Some(&mut self.quarantined),
            StoredState::Marked { .. } | StoredState::Part { .. } | StoredState::Releasing => None,
        };
        [Some(&mut self.all), own]
    }
}

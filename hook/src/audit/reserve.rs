//! Room for the audit log on a disk that is full otherwise, so that what fills it can be deleted.

use std::io;
use std::path::PathBuf;

use crate::disk::{Disk, DiskFile};

/// Some hundred decisions, one of which is enough to make room.
pub(super) const RESERVE_BYTES: u64 = 256 * 1024;
/// Given up at once: a line or two of the longest, in the blocks of any file system.
const STEP_BYTES: u64 = PIECE.len() as u64;
const PIECE: [u8; 16 * 1024] = [0x55; 16 * 1024];

/// A file of [`RESERVE_BYTES`] that is there to become smaller.
#[derive(Debug)]
pub(super) struct Reserve {
    path: PathBuf,
}

impl Reserve {
    pub(super) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Fills it up, as far as there is room. It may be lost, so nothing is made durable.
    pub(super) fn fill<D: Disk>(&self, disk: &D) {
        let fill = || -> io::Result<()> {
            let file = match disk.open_for_write(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    disk.create_new(&self.path)?
                }
                opened => opened?,
            };
            let length = file.length()?;
            // Written, since a file of the same length without content would take up no room.
            let mut offset = length;
            while offset < RESERVE_BYTES {
                file.write_all_at(&PIECE, offset)?;
                offset += STEP_BYTES;
            }
            Ok(())
        };
        if let Err(error) = fill() {
            tracing::debug!(path = %self.path.display(), "reserve room for the audit log: {error}");
        }
    }

    /// Makes room; `false` where there is nothing left to give up.
    pub(super) fn give_way<D: Disk>(&self, disk: &D) -> io::Result<bool> {
        let file = match disk.open_for_write(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            opened => opened?,
        };
        let length = file.length()?;
        file.set_length(length.saturating_sub(STEP_BYTES))?;
        // Some file systems give nothing back before.
        file.sync()?;
        Ok(length > 0)
    }
}

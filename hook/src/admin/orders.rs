//! Which workers operators made not ready, kept over restarts of the hook in `SPOOL/orders`: a JSON object with the
//! reason for each name.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gantry_protocol::limits::GRABBERS_MAX;

use crate::disk::{Disk, DiskFile};
use crate::spool::{ORDERS_FILE, replace_file};

/// Names and reasons of as many workers as there can be, twice over.
const FILE_BYTES_MAX: u64 = 2 * 1024 * GRABBERS_MAX as u64;

/// The file. The spool's lock must be held.
#[derive(Debug)]
pub struct Orders<D: Disk> {
    disk: D,
    path: PathBuf,
    /// The number of the picture that was written last.
    written: Mutex<u64>,
}

impl<D: Disk> Orders<D> {
    pub fn new(disk: D, spool: &Path) -> Self {
        Self { disk, path: spool.join(ORDERS_FILE), written: Mutex::new(0) }
    }

    /// What was kept; nothing where there is no file.
    ///
    /// # Errors
    /// Where the file cannot be read: what an operator ordered is then not known, and the sentence says so.
    pub fn load(&self) -> Result<BTreeMap<String, String>, String> {
        let read = || -> io::Result<BTreeMap<String, String>> {
            let file = match self.disk.open(&self.path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
                opened => opened?,
            };
            let length = file.length()?.min(FILE_BYTES_MAX);
            let mut bytes = vec![0; usize::try_from(length).unwrap_or(0)];
            file.read_full_at(&mut bytes, 0)?;
            serde_json::from_slice(&bytes).map_err(io::Error::other)
        };
        read().map_err(|error| {
            let path = self.path.display();
            format!("read {path}: {error}; workers that were made not ready are ready again")
        })
    }

    /// Keeps a picture durably. `number` rises with each one, so that of two under way the older is not written last.
    /// Blocks.
    ///
    /// # Errors
    /// Where the disk does not take it, in a sentence.
    pub fn save(&self, number: u64, orders: &BTreeMap<String, String>) -> Result<(), String> {
        let mut written = self.written.lock().unwrap_or_else(PoisonError::into_inner);
        if *written > number {
            return Ok(());
        }
        let text = serde_json::to_vec(orders).map_err(|error| error.to_string())?;
        replace_file(&self.disk, &self.path, &text).map_err(|error| error.to_string())?;
        *written = number;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn orders_outlive_the_process_and_an_older_picture_is_not_written_last() {
        let folder = tempfile::tempdir().unwrap();
        let orders = Orders::new(RealDisk, folder.path());
        assert!(orders.load().unwrap().is_empty());
        let one = BTreeMap::from([("pc-1".to_owned(), "new disk".to_owned())]);
        orders.save(2, &one).unwrap();
        orders.save(1, &BTreeMap::new()).unwrap();
        assert_eq!(Orders::new(RealDisk, folder.path()).load().unwrap(), one);
        std::fs::write(folder.path().join(ORDERS_FILE), "no").unwrap();
        assert!(orders.load().unwrap_err().contains("ready again"));
    }
}

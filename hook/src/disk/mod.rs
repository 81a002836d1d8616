//! The disk as the spool sees it: a seam of few blocking operations, so that the same spool runs on a real disk and
//! on [`sim::SimDisk`], which crashes at any of them.
//!
//! What a caller may rely on after a crash, and no more: a file's bytes once [`DiskFile::sync`] has returned, and the
//! names in a folder (made, renamed, removed) once [`Disk::sync_dir`] of that folder has returned. A rename within one
//! folder is atomic: afterwards the file has the old name or the new one, never both or neither.

mod real;
pub mod sim;

use std::io;
use std::path::Path;

pub use real::{RealDisk, RealFile, RealLock};

/// A file system. Every operation blocks.
pub trait Disk: Send + Sync + 'static {
    type File: DiskFile;
    /// Held for as long as the lock is wanted.
    type Lock: Send + Sync + 'static;

    /// Makes a file that must not be there yet, for reading and writing. Only its owner may read it.
    fn create_new(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file for reading.
    fn open(&self, path: &Path) -> io::Result<Self::File>;
    /// Opens a file for reading and writing.
    fn open_for_write(&self, path: &Path) -> io::Result<Self::File>;
    /// Renames within one folder; what has the new name already is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes a folder that must not be there yet. Only its owner may look into it.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Everything in a folder, in no order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Bytes that are free for us on the file system of this folder.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;
    /// Takes the lock that this file stands for, making the file where it is missing. Does not wait: another's lock
    /// is [`io::ErrorKind::WouldBlock`].
    fn lock(&self, path: &Path) -> io::Result<Self::Lock>;
}

/// An open file. Positions are arguments, so that several readers share one.
pub trait DiskFile: Send + Sync + 'static {
    /// Reads into `buffer` from `offset`; fewer bytes than asked for are possible, none means the file's end.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of it. After an error any part of it may be there.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// Cuts the file, or fills it with zeros, to this length.
    fn set_length(&self, length: u64) -> io::Result<()>;
    fn length(&self) -> io::Result<u64>;
    /// Makes the bytes durable. After an error nobody knows what is on the disk, and a second call that succeeds
    /// does not change that.
    fn sync(&self) -> io::Result<()>;

    /// Reads from `offset` until `buffer` is full or the file ends; returns how much it was.
    fn read_full_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.read_at(rest, offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }
}

/// One name in a folder.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    /// With what is no UTF-8 replaced: such a name is none of ours.
    pub name: String,
    pub is_dir: bool,
}

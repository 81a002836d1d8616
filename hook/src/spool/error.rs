//! What can go wrong in the spool, as sentences for the log and for those who wait.

use std::io;
use std::path::{Path, PathBuf};

use gantry_protocol::id::MessageId;

/// Why the spool did not do what it was asked for. Nothing that an error speaks of counts as stored.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk said no: full, read-only, broken, or not ours.
    #[error("{doing} {}: {source}", path.display())]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// What was written may or may not be on the disk.
    #[error("make {} durable: {source}", path.display())]
    Sync { path: PathBuf, source: io::Error },
    #[error(
        "open spool {}: another hook is using it; stop that one first, or give this one a spool of its own",
        root.display()
    )]
    Locked { root: PathBuf },
    #[error(
        "open spool {}: {} is of format {found}, this build knows formats up to {known}; nothing was touched, \
         start a hook of the newer version",
        root.display(), path.display()
    )]
    NewerFormat { root: PathBuf, path: PathBuf, found: u32, known: u32 },
    /// A small file of the spool itself that cannot be read.
    #[error("open spool {}: {} is damaged: {reason}", root.display(), path.display())]
    Damaged { root: PathBuf, path: PathBuf, reason: String },
    #[error("open spool: {name:?} cannot be the name of a mailbox's folder: {reason}")]
    MailboxName { name: String, reason: &'static str },
    /// A message's file is not what its name or its checksums say.
    /// [`set_aside_corrupted`](super::Spool::set_aside_corrupted) is what it needs.
    #[error("read message {id} from {}: {reason}", path.display())]
    Corrupted { id: MessageId, path: PathBuf, reason: String },
    #[error("look for message {id}: the spool has no such message")]
    Unknown { id: MessageId },
    #[error("change message {id}: it is {state}, and {wanted} does not apply to that")]
    WrongState { id: MessageId, state: &'static str, wanted: &'static str },
    /// After a failed sync nobody knows what is on the disk, so nothing more is promised until the next start.
    #[error("the spool stores nothing more until the hook is started again, after: {reason}")]
    Broken { reason: String },
    #[error(
        "take message in: messages whose senders wait fill the {max} bytes of disk that they may use"
    )]
    VolatileFull { max: u64 },
    /// An administrator's bound is reached, or the file system is nearly full.
    #[error("take message in: there is no room: {what}")]
    NoRoom { what: String },
    #[error("take message in: {what} is larger than the {max} bytes of the spool's format")]
    TooLarge { what: &'static str, max: u64 },
    #[error("store message: there is no mailbox of index {index}")]
    NoMailbox { index: u16 },
    #[error("store message: mailbox {} has all its {max} folders full", mailbox.display())]
    FoldersFull { mailbox: PathBuf, max: u32 },
}

impl SpoolError {
    /// Whether the message's file is damaged, so that it has to be set aside.
    pub fn is_corrupted(&self) -> bool {
        matches!(self, SpoolError::Corrupted { .. })
    }

    /// Whether the message is damaged or gone: asking again brings nothing back.
    pub fn is_lost(&self) -> bool {
        self.is_corrupted() || matches!(self, SpoolError::Unknown { .. })
    }

    /// For `map_err`: what was being done, and to which file.
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| SpoolError::Io { doing, path: path.to_owned(), source }
    }

    /// For `map_err`: a sync that failed.
    pub(super) fn sync(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| SpoolError::Sync { path: path.to_owned(), source }
    }
}

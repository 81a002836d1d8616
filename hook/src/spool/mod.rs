//! The spool: one file a message, and the directory is the truth.
//!
//! A message in the hook's custody is one file in `SPOOL/MAILBOX/NNNN/`. Its state is a suffix of its name, so a start
//! reads directories and opens no message. What changes the state is one rename within one folder; what is learned
//! about the message is appended to its file before. Durable means: written, file synced, renamed, folder synced.
//! `docs/spool.md` has every byte.
//!
//! A message in the sender's custody ([`Spool::begin_volatile`]) leaves nothing durable: its first bytes are in memory,
//! the rest is in a file without a name. [`Adopt`](gantry_protocol::pool::Change::Adopt) makes a stored message of it.
//!
//! All methods block and may be called from any number of threads; no lock that two messages share is held while the
//! disk works.

mod body;
mod bounce;
mod calendar;
mod change;
mod error;
mod folders;
mod incoming;
mod index;
mod left;
mod name;
mod open;
mod originate;
mod record;
mod retain;
mod room;
mod shelf;
mod slots;
mod stored;
mod suspects;
#[cfg(feature = "testkit")]
pub mod testkit;
#[cfg(test)]
mod tests;
mod volatile;

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use gantry_mail::Envelope;
use gantry_protocol::id::{Digest, Epoch, MessageId};
use gantry_protocol::pool::{MailboxIndex, RecipientResult, Shelf, Shelved, StoredState};
use gantry_protocol::time::Moment;
use gantry_protocol::verdict::{Finding, Verdict};
use serde::{Deserialize, Serialize};

pub use body::Body;
pub use error::SpoolError;
pub use incoming::Incoming;
pub use left::left;
pub(crate) use open::is_own;
pub(crate) use open::replace_file;
pub use retain::LOOK_MAX;
pub use room::{RoomLimits, Usage};
pub use suspects::{SUSPECTS_MAX, Suspect, Suspects};
pub use volatile::Volatile;

use crate::disk::{Disk, DiskFile};
use calendar::Calendar;
use folders::Folders;
use index::Index;
use room::Room;
use volatile::VolatileStore;

/// The socket of the operator's commands lies in the spool.
pub const CONTROL_SOCKET: &str = "control";
/// What operators did; see [`crate::audit`]. Older parts have a number behind the name.
pub const AUDIT_FILE: &str = "audit.log";
/// What befell messages, and its former part; see [`crate::journal`].
pub const HISTORY_FILE: &str = "history";
pub const HISTORY_FORMER_FILE: &str = "history.1";
/// Workers that operators made not ready; see [`crate::admin`].
pub const ORDERS_FILE: &str = "orders";
/// The spool's own time.
const CALENDAR_FILE: &str = "calendar";
const LOCK_FILE: &str = "lock";
const FORMAT_FILE: &str = "format";
const EPOCH_FILE: &str = "epoch";
const SUSPECTS_FILE: &str = "suspects";
const VOLATILE_FOLDER: &str = "volatile";
/// In the folder that a start empties.
const PROBE_FILE: &str = "probe";
/// With room for this much, some messages and verdicts can be stored before the disk is full again.
const PROBE_BYTES: u64 = 1024 * 1024;
const PROBE_PIECE_BYTES: usize = 64 * 1024;

/// What the spool may use, and what it has to know of the world.
#[derive(Clone)]
pub struct Options {
    /// Memory for all messages in their senders' custody, in bytes. What does not fit goes to disk at once.
    pub volatile_memory_bytes_max: u64,
    /// Disk for all messages in their senders' custody, in bytes. Beyond it intake says "try again later".
    pub volatile_disk_bytes_max: u64,
    /// When no more mail is taken in.
    pub room: RoomLimits,
    /// The host's name, as the reporting MTA of notices.
    pub host: String,
    pub clock: Clock,
}

/// The time, as the driver of the pool sees it.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// One reading of the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// On the clock that the pool is driven with. Its origin must lie as far back as ages across restarts shall be
    /// told: what is older counts as that old.
    pub moment: Moment,
    /// Milliseconds since 1970, for people.
    pub unix_ms: u64,
}

/// A spool that is ready, and what was in it.
pub struct Opened<D: Disk> {
    pub spool: Arc<Spool<D>>,
    /// How much is there in the hook's custody. All of it lies on the shelf.
    pub found: BTreeMap<(MailboxIndex, Shelf), Shelved>,
    /// What is in the spool and could not be used: files set aside earlier, unknown names. Left alone, for the log.
    pub reports: Vec<Report>,
    /// The number of this start: higher than any before, and durable.
    pub epoch: Epoch,
}

/// A message as the operator's lists show it. Its envelope and reasons are in its header and log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    pub id: MessageId,
    pub mailbox: MailboxIndex,
    pub state: StoredState,
    /// Seconds since 1970.
    pub received_unix_s: u64,
    pub length: u64,
    pub recipients: u16,
}

/// What the header of a message's file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub id: MessageId,
    pub mailbox: MailboxIndex,
    pub envelope: Envelope,
    /// Bytes of the message.
    pub length: u64,
    /// SHA-256 of the message.
    pub digest: Digest,
    /// Milliseconds since 1970.
    pub received_unix_ms: u64,
}

/// What has been learned about a message since it came in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Log {
    /// The verdict that counts: none while the message is marked, whatever an earlier attempt came to.
    pub verdict: Option<Verdict>,
    /// What workers have found while the message needs others still.
    pub findings: Vec<Finding>,
    /// The newest of each recipient that has one, in the order of writing.
    pub results: Vec<RecipientResult>,
    /// Why it was set aside, oldest first.
    pub reasons: Vec<String>,
    /// Since when it has been set aside, in seconds of the spool's own time.
    pub aside_since_s: Option<u64>,
    /// Notices written to the sender, and the recipients that each speaks of.
    pub notices: Vec<Notice>,
    /// Under which ids the verdict's originated messages are written, in their order.
    pub originates: Vec<MessageId>,
    /// Whether all of those are written.
    pub originated: bool,
    /// The message whose verdict originated this one.
    pub origin: Option<MessageId>,
    /// Bytes at the end that are no record: an append that a crash cut short. They were never promised.
    pub torn_bytes: u64,
}

/// A message that was completely taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// Bytes of the message.
    pub length: u64,
    /// SHA-256 of the message.
    pub digest: Digest,
}

/// Something in the spool that an administrator should look at. It was left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub path: PathBuf,
    pub what: String,
}

/// A notice that was written to a message's sender.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub notice: MessageId,
    /// Those it tells of, by their index in the envelope, rising.
    pub recipients: Vec<u16>,
}

/// The messages of one host. See the [module](self).
pub struct Spool<D: Disk> {
    disk: D,
    root: PathBuf,
    options: Options,
    epoch: Epoch,
    /// Messages since this start.
    counter: AtomicU64,
    folders: Folders,
    index: Index,
    volatile: VolatileStore<D>,
    suspects: Suspects,
    room: Room,
    calendar: Calendar,
    health: Health,
    _lock: D::Lock,
}

impl<D: Disk> Spool<D> {
    /// An id that no message of this spool has had.
    pub fn allocate(&self) -> MessageId {
        MessageId { epoch: self.epoch, counter: self.counter.fetch_add(1, Ordering::Relaxed) + 1 }
    }

    /// The header of a message in either custody.
    ///
    /// # Errors
    /// [`SpoolError::Corrupted`] where it is damaged or does not fit the file's name or length.
    pub fn header(&self, id: MessageId) -> Result<Header, SpoolError> {
        match self.volatile.get(id) {
            Some(message) => Ok(message.header.clone()),
            None => Ok(self.open_stored(id, false)?.header),
        }
    }

    /// The log of a message in either custody.
    ///
    /// # Errors
    /// [`SpoolError::Corrupted`] where the header is damaged, or the verdict of a message that is being released.
    pub fn log(&self, id: MessageId) -> Result<Log, SpoolError> {
        match self.volatile.get(id) {
            Some(message) => Ok(message.log().clone()),
            None => self.open_stored(id, false)?.log(),
        }
    }

    /// Tries whether the disk stores anything now: writes a file, makes it durable and removes it. After a failed sync
    /// it tries no more.
    ///
    /// # Errors
    /// The disk's, or [`SpoolError::Broken`].
    pub fn probe(&self) -> Result<(), SpoolError> {
        self.health.check()?;
        let path = self.volatile_folder().join(PROBE_FILE);
        let written = || {
            let io = || SpoolError::io("try to write", &path);
            match self.disk.remove(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io()(error)),
                _ => {}
            }
            let file = self.disk.create_new(&path).map_err(io())?;
            let piece = vec![0x55; PROBE_PIECE_BYTES];
            for offset in (0..PROBE_BYTES).step_by(PROBE_PIECE_BYTES) {
                file.write_all_at(&piece, offset).map_err(io())?;
            }
            file.sync().map_err(SpoolError::sync(&path))
        };
        let tried = self.health.watch(written());
        let removed = self.disk.remove(&path).map_err(SpoolError::io("remove", &path));
        tried.and(removed)
    }

    /// Attempts by content, for messages that their senders keep.
    pub fn suspects(&self) -> &Suspects {
        &self.suspects
    }

    fn volatile_folder(&self) -> PathBuf {
        self.root.join(VOLATILE_FOLDER)
    }
}

/// Whether promises can still be kept.
#[derive(Default)]
struct Health {
    broken: OnceLock<String>,
}

impl Health {
    fn check(&self) -> Result<(), SpoolError> {
        match self.broken.get() {
            Some(reason) => Err(SpoolError::Broken { reason: reason.clone() }),
            None => Ok(()),
        }
    }

    /// After a failed sync nobody knows what is on the disk, and a later one that succeeds would hide it.
    fn watch<T>(&self, result: Result<T, SpoolError>) -> Result<T, SpoolError> {
        if let Err(error @ SpoolError::Sync { .. }) = &result {
            let reason = error.to_string();
            if self.broken.set(reason.clone()).is_ok() {
                tracing::error!(
                    reason,
                    "the spool stores nothing more until the hook is started again"
                );
            }
        }
        result
    }
}

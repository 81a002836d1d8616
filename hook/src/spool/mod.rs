//! The spool: one file a message, and the directory is the truth.
//!
//! A message in the hook's custody is one file in `SPOOL/MAILBOX/NNNN/`. Its state is a suffix of its name, so a start
//! reads directories and opens no message. What changes the state is one rename within one folder; what is learned
//! about the message is appended to its file before. Durable means: written, file synced, renamed, folder synced.
//! `docs/spool.md` has every byte.
//!
//! A message in the sender's custody ([`Spool::begin_volatile`]) leaves nothing durable: its first bytes are in memory,
//! the rest is in a file without a name. [`Change::Adopt`] makes a stored message of it.
//!
//! All methods block and may be called from any number of threads; no lock that two messages share is held while the
//! disk works.

mod error;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_mail::Envelope;
use gantry_protocol::id::{Digest, Epoch, MessageId};
use gantry_protocol::pool::{
    Change, MailboxIndex, RecipientResult, Recovered, Stored, StoredState,
};
use gantry_protocol::time::Moment;
use gantry_protocol::verdict::Verdict;

use crate::disk::Disk;

pub use error::SpoolError;

/// What the spool may use, and what it has to know of the world.
#[derive(Clone)]
pub struct Options {
    /// Memory for all messages in their senders' custody, in bytes. What does not fit goes to disk at once.
    pub volatile_memory_bytes_max: u64,
    /// Disk for all messages in their senders' custody, in bytes. Beyond it intake says "try again later".
    pub volatile_disk_bytes_max: u64,
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
    /// Every message in the hook's custody, in the order of their ids.
    pub recovered: Vec<Recovered>,
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
    /// In the order of writing: of two for one recipient the later counts.
    pub results: Vec<RecipientResult>,
    /// Why it was set aside, oldest first.
    pub reasons: Vec<String>,
    /// Notices written to the sender, and the recipients that each speaks of.
    pub notices: Vec<Notice>,
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

/// The messages of one host. See the [module](self).
pub struct Spool<D: Disk> {
    disk: D,
}

impl<D: Disk> Spool<D> {
    /// Opens the spool in the folder `root`, making it where it is missing: takes the lock, raises the epoch durably,
    /// removes what was never answered yes, and reads the names of all messages.
    ///
    /// `mailboxes` are the mailboxes' names; [`MailboxIndex`] is their place in it.
    ///
    /// # Errors
    /// A second hook on the spool, a newer format (left untouched), a damaged epoch file, or the disk.
    pub fn open(
        disk: D,
        root: &Path,
        mailboxes: &[String],
        options: Options,
    ) -> Result<Opened<D>, SpoolError> {
        todo!()
    }

    /// An id that no message of this spool has had.
    pub fn allocate(&self) -> MessageId {
        todo!()
    }

    /// Begins a message in the hook's custody. Nothing is visible before [`Incoming::finish`]; dropping it leaves nothing.
    pub fn begin(
        self: &Arc<Self>,
        id: MessageId,
        mailbox: MailboxIndex,
        envelope: &Envelope,
        received_unix_ms: u64,
    ) -> Result<Incoming<D>, SpoolError> {
        todo!()
    }

    /// Begins a message in its sender's custody. Other methods know it after [`Volatile::finish`], until [`Self::forget`].
    pub fn begin_volatile(
        self: &Arc<Self>,
        id: MessageId,
        mailbox: MailboxIndex,
        envelope: Envelope,
        received_unix_ms: u64,
    ) -> Volatile<D> {
        todo!()
    }

    /// The header of a message in either custody.
    pub fn header(&self, id: MessageId) -> Result<Header, SpoolError> {
        todo!()
    }

    /// The bytes of a message in either custody, exactly as they were written.
    pub fn body(&self, id: MessageId) -> Result<Body<D>, SpoolError> {
        todo!()
    }

    /// The log of a message in either custody.
    pub fn log(&self, id: MessageId) -> Result<Log, SpoolError> {
        todo!()
    }

    /// Makes a change, durable as its description says when it is [`Stored::Done`] or [`Stored::Bounced`].
    pub fn apply(
        self: &Arc<Self>,
        id: MessageId,
        mailbox: MailboxIndex,
        change: &Change,
    ) -> Stored {
        todo!()
    }

    /// Drops a message in its sender's custody. One that the spool does not have is no mistake.
    pub fn forget(&self, id: MessageId) {
        todo!()
    }

    /// Puts a message whose file is damaged out of the way, under its name with the state `bad`, and returns where. The
    /// file is kept for people; no later start takes it for a message.
    pub fn set_aside_corrupted(&self, id: MessageId, reason: &str) -> Result<PathBuf, SpoolError> {
        todo!()
    }

    /// Attempts by content, for messages that their senders keep.
    pub fn suspects(&self) -> &Suspects {
        todo!()
    }

    /// The stored messages in a state that `wanted` accepts, in the order of their ids; at most `max`.
    pub fn list(&self, wanted: impl Fn(StoredState) -> bool, max: usize) -> Vec<Listed> {
        todo!()
    }
}

/// A message in the hook's custody while it comes in.
pub struct Incoming<D: Disk> {
    x: std::marker::PhantomData<D>,
}

impl<D: Disk> Incoming<D> {
    /// Takes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        todo!()
    }
    /// Makes the message durable, marked with no attempts. After an error nothing of it is left.
    pub fn finish(self) -> Result<Finished, SpoolError> {
        todo!()
    }
}

/// A message in its sender's custody while it comes in.
pub struct Volatile<D: Disk> {
    x: std::marker::PhantomData<D>,
}

impl<D: Disk> Volatile<D> {
    /// Takes the next bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        todo!()
    }
    /// From now on the spool knows the message by its id.
    pub fn finish(self) -> Result<Finished, SpoolError> {
        todo!()
    }
}

/// The bytes of a message. Reading to the end compares them with the digest: damage is an error of kind
/// [`std::io::ErrorKind::InvalidData`] instead of the end, so what was read before must not be acted on as a whole message.
pub struct Body<D: Disk> {
    x: std::marker::PhantomData<D>,
}

impl<D: Disk> Body<D> {
    /// Bytes of the message.
    pub fn length(&self) -> u64 {
        todo!()
    }
}

impl<D: Disk> std::io::Read for Body<D> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        todo!()
    }
}

/// See [`Spool::suspects`].
pub struct Suspects {}

/// What is remembered of a content that was on a worker when the worker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspect {
    pub attempts: u8,
    /// A message with this content has been held.
    pub held: bool,
}

impl Suspects {
    pub fn lookup(&self, digest: Digest) -> Option<Suspect> {
        todo!()
    }
}

/// A notice that was written.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Notice {
    pub notice: MessageId,
    /// Indexes in the envelope, rising.
    pub recipients: Vec<u16>,
}

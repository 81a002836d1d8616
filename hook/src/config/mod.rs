//! The hook's configuration, resolved: what these types can say is valid.

mod keys;
mod local;
mod mailbox;
mod policy;
mod read;
mod retention;
mod tls;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_config::{ConfigError, Document, Endpoint, Network};
use gantry_link::NameMask;
use gantry_protocol::id::Digest;
use gantry_protocol::limits;
use gantry_protocol::pool::{OriginatedAllowed, RejectLate};

use crate::intake::smtp::{IntakeTimeouts, SmtpLimits, StrayCrLf};
use crate::release::{
    Argument, Credentials, EnvelopeForm, FolderFormat, LineEnds, Protocol, SmtpTimeouts,
};
use crate::tls::{CertificateFiles, Demand};

pub use keys::KEYS;

/// Everything that `hook.toml` says, defaults filled in and paths made absolute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The host's name in the cluster.
    pub name: String,
    /// The folder that holds the messages.
    pub spool: PathBuf,
    /// The folder that holds keys, certificates and tokens: the file's own unless it says otherwise.
    pub identity_dir: PathBuf,
    /// The UDP address for QUIC.
    pub listen: SocketAddr,
    /// The address that workers are told to dial (in tokens), where it is not `listen`.
    pub advertise: Option<Endpoint>,
    /// Stands for the policy that workers must have; the built-in one unless the file says otherwise.
    pub policy: Digest,
    /// A second one that they may have while the first is being rolled out.
    pub policy_also: Option<Digest>,
    /// Workers that this host dials, since they cannot reach it.
    pub workers: Vec<DialledWorker>,
    /// At least one.
    pub mailboxes: Vec<Mailbox>,
    pub reservation: Reservation,
    pub limits: Limits,
    pub quarantine: Retention,
    pub held: Retention,
    /// How the lines of the log are written.
    pub log: gantry_daemon::log::Format,
    /// What the history of messages may take up on disk, in bytes; none is kept with 0.
    pub history_bytes_max: u64,
    /// The address on which metrics are shown, if they are.
    pub metrics: Option<SocketAddr>,
}

/// A worker that is dialled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DialledWorker {
    /// Where it listens (UDP).
    pub address: Endpoint,
    /// The name, or a mask for it, that its certificate must have.
    pub name: NameMask,
}

/// A named way in with its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Also the name of its folder in the spool.
    pub name: String,
    pub intake: Intake,
    pub release: Release,
    /// What must have been done with a message before it may leave; empty when nothing is asked.
    pub needs: Vec<String>,
    pub custody: Custody,
    /// The age at which a message that is stored here and waits is reported.
    pub warn_after: Duration,
    pub reject_late: RejectLate,
    /// Whether who waits for our answer has said yes to the sender itself.
    pub behind_queue: bool,
    /// Messages that verdicts may originate; none, where nothing is said.
    pub originated: Option<OriginatedAllowed>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intake {
    Smtp(SmtpIntake),
    Pickup(PickupIntake),
    /// Only `gantry-hook mark` brings messages.
    Mark {
        message_bytes_max: u64,
    },
}

/// A folder that messages are taken out of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickupIntake {
    pub directory: PathBuf,
    pub format: FolderFormat,
    pub envelope: EnvelopeForm,
    /// For how long a plain file must not have changed.
    pub settle: Duration,
    /// How often the folder is looked at in any case.
    pub poll: Duration,
    pub message_bytes_max: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpIntake {
    pub protocol: Protocol,
    pub listen: SocketAddr,
    /// What we call ourselves in the greeting and in `Received:`.
    pub host_name: String,
    /// Who may send mail here; never empty.
    pub peers: Vec<Network>,
    /// Whose XFORWARD counts.
    pub xforward_from: Vec<Network>,
    pub stray_cr_lf: StrayCrLf,
    /// STARTTLS, where it is offered.
    pub tls: Option<IntakeTls>,
    pub limits: SmtpLimits,
    pub timeouts: IntakeTimeouts,
}

/// What an intake shows in STARTTLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeTls {
    pub files: CertificateFiles,
    /// Whether mail is taken over TLS alone.
    pub required: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Release {
    Smtp(SmtpRelease),
    Directory(DirectoryRelease),
    Command(CommandRelease),
}

/// A folder that messages are written into.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryRelease {
    pub path: PathBuf,
    pub format: FolderFormat,
    pub envelope: EnvelopeForm,
    pub line_ends: LineEnds,
    pub names: Names,
    pub queue: Queue,
}

/// A program that messages are given to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandRelease {
    pub program: PathBuf,
    /// With exactly one of the recipients' placeholders.
    pub arguments: Vec<Argument>,
    pub line_ends: LineEnds,
    pub time_max: Duration,
    /// Runs at once.
    pub processes_max: usize,
    pub names: Names,
    pub queue: Queue,
}

/// As whom a way out speaks in the header block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// What we call ourselves in `Received:`.
    pub host_name: String,
    /// Authentication results under this name are ours (RFC 8601), so they are removed from incoming mail.
    pub authserv_id: String,
}

/// How deferred recipients are tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// How long a deferred recipient is tried before its mail is returned.
    pub lifetime: Duration,
    /// The wait before the second try; it doubles with every try up to `retry_max`.
    pub retry_first: Duration,
    pub retry_max: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SmtpRelease {
    pub protocol: Protocol,
    pub address: Endpoint,
    pub tls: Demand,
    /// As whom it logs in, if it does; never without TLS but on loopback.
    pub credentials: Option<Credentials>,
    /// What we call ourselves in EHLO.
    pub host_name: String,
    /// Authentication results under this name are ours (RFC 8601), so they are removed from incoming mail.
    pub authserv_id: String,
    /// Whether the original client is told by XFORWARD where the next hop offers it.
    pub xforward: bool,
    pub connections_max: usize,
    pub timeouts: SmtpTimeouts,
    pub queue: Queue,
}

/// Files written at once into one folder: a disk gains little by more.
const WRITERS_MAX: usize = 8;

impl Intake {
    /// The largest message, in bytes.
    pub fn message_bytes_max(&self) -> u64 {
        match self {
            Self::Smtp(intake) => intake.limits.message_bytes_max,
            Self::Pickup(intake) => intake.message_bytes_max,
            Self::Mark { message_bytes_max } => *message_bytes_max,
        }
    }
}

impl Release {
    pub fn queue(&self) -> Queue {
        match self {
            Self::Smtp(release) => release.queue,
            Self::Directory(release) => release.queue,
            Self::Command(release) => release.queue,
        }
    }

    /// Messages handed on at once.
    pub fn at_once_max(&self) -> usize {
        match self {
            Self::Smtp(release) => release.connections_max,
            Self::Directory(_) => WRITERS_MAX,
            Self::Command(release) => release.processes_max,
        }
    }
}

/// Who holds the durable copy until the end, and what happens to a message that no worker processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The sender waits for our answer and keeps the message until then.
    Upstream {
        answer_within: Duration,
        /// The sender's own limit, where the file names it; longer than `answer_within`.
        upstream_timeout: Option<Duration>,
        when_unprocessed: UpstreamUnprocessed,
    },
    /// We say yes once it is on our disk.
    Hook { when_unprocessed: HookUnprocessed },
}

/// What happens at the end of `answer_within`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamUnprocessed {
    /// 4xx: the sender keeps it.
    TempFail,
    /// It becomes durable here and waits for a worker.
    Wait,
    /// It becomes durable here and waits for an operator.
    Hold,
    /// It leaves as it is.
    ReleaseUnscanned,
}

/// What happens to a message of ours that no worker processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HookUnprocessed {
    /// It stays in the pool for as long as it takes.
    Wait,
    /// It is held for an operator after this time.
    Hold { after: Duration },
    /// It leaves as it is after this time.
    ReleaseUnscanned { after: Duration },
}

/// How reservations are timed and counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// How often a grabber beats while it holds a reservation, and while it holds none.
    pub beat: Duration,
    pub beat_idle: Duration,
    /// Everything about one reservation ends after this.
    pub time_max: Duration,
    /// The longest silence that a module may announce; at most `time_max`.
    pub silence_max: Duration,
    /// Attempts before a message is held: 1 to 9.
    pub attempts_max: u8,
    /// Attempts given back before a message is held.
    pub returns_max: u16,
}

impl Default for Reservation {
    fn default() -> Self {
        Self {
            beat: limits::BEAT,
            beat_idle: limits::BEAT_IDLE,
            time_max: limits::RESERVATION_TIME_MAX,
            silence_max: limits::SILENCE_MAX,
            attempts_max: limits::ATTEMPTS_MAX,
            returns_max: limits::RETURNS_MAX,
        }
    }
}

/// For how long what was set aside is kept, and how much of it. Without a rule nothing is ever removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Removed when it has been set aside for so long.
    pub keep: Option<Duration>,
    /// Bytes of all of it together.
    pub bytes_max: Option<u64>,
    /// Beyond `bytes_max` the oldest go; else no more mail is taken in.
    pub removes_oldest: bool,
}

/// What messages may take up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For messages that their senders still keep, all together: memory, in bytes; what does not fit goes to disk at once.
    pub upstream_memory_bytes_max: u64,
    /// Disk, in bytes; new mail is answered 4xx beyond it.
    pub upstream_disk_bytes_max: u64,
    /// Bytes of all messages that are stored here; the disk's own bound where there is none.
    pub spool_bytes_max: Option<u64>,
    /// Bytes of the spool's file system that new mail leaves free.
    pub spool_free_bytes_min: u64,
}

impl Config {
    /// Reads and resolves a file. Starts, binds and locks nothing.
    ///
    /// # Errors
    /// Every mistake found, in the order of the file; at most [`gantry_config::MISTAKES_MAX`].
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let document = Document::load(path).map_err(|error| vec![error])?;
        document.resolve(read::config)
    }

    /// Which keys of `newer` differ and count only after the hook was started anew: ports, folders, mailboxes, and what workers were
    /// told when they linked.
    pub fn needs_restart(&self, newer: &Self) -> Vec<String> {
        let changed = [
            ("name", self.name != newer.name),
            ("spool", self.spool != newer.spool),
            ("identity", self.identity_dir != newer.identity_dir),
            ("listen", self.listen != newer.listen),
            ("mailbox", self.mailboxes != newer.mailboxes),
            ("reservation", self.reservation != newer.reservation),
            ("limits", self.limits != newer.limits),
            ("quarantine", self.quarantine != newer.quarantine),
            ("held", self.held != newer.held),
            ("log", self.log != newer.log),
            ("history", self.history_bytes_max != newer.history_bytes_max),
            ("metrics", self.metrics != newer.metrics),
        ];
        changed.into_iter().filter(|(_, is)| *is).map(|(key, _)| key.to_owned()).collect()
    }

    /// As [`Config::load`], for text that would stand in the file `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, Vec<ConfigError>> {
        Document::new(path, text).resolve(read::config)
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]
mod tests;

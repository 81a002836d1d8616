//! What is said on a link: four small languages, one for each kind of stream and direction.
//!
//! A frame on the wire is its number (u16, big-endian), the length of its payload in bytes (u32, big-endian) and the
//! payload in postcard. Numbers are never reused, a payload never changes within a version, and what is unknown
//! is refused. `docs/protocol.md` lists them all.

mod codec;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
mod tests;

use gantry_mail::Envelope;
use serde::{Deserialize, Serialize};

pub use codec::{FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader, decode, encode};

use crate::id::{Digest, Fence, Incarnation, MessageId, Session};
use crate::profile::{PeerProfile, Profile};
use crate::verdict::{Body, Finding, Verdict};

/// Control stream, worker to host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerControl {
    Hello(Hello),
    Want(Credit),
    /// Asks for credit back that was not used yet: the new, lower totals.
    Recall(Credit),
    /// "I live." Counted within the session.
    Beat(Beat),
    Profile(Profile),
    /// A peer's reservation looks stalled or dead; the host decides.
    Hint(Hint),
    /// No more wants; what is held will be finished or handed back.
    Draining(Draining),
}

/// Control stream, host to worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostControl {
    Welcome(Welcome),
    /// Why the link ends; the last frame on it.
    Refused(Refused),
    /// The credit totals that count after a recall.
    Recalled(Credit),
    Backlog(Backlog),
    Peers(Peers),
    /// A sentence for the worker's operator: why it gets nothing.
    Notice(Notice),
    /// What an operator tells this worker.
    Manage(Manage),
}

/// A reservation's stream, host to worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostReservation {
    /// Followed by `length` bytes of message.
    Assign(Box<Assign>),
    /// The reservation is no longer this worker's: stop working on it.
    Cancel(Cancel),
    /// The answer to a verdict or a return; the last frame of a reservation.
    Settled(Settled),
}

/// A reservation's stream, worker to host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WorkerReservation {
    /// First frame on a stream that a worker opens after a new link, for what the host called live.
    Resume(Resume),
    Progress(Progress),
    /// Gives the message back unprocessed.
    Return(Return),
    Verdict(Box<Verdict>),
    /// Some of what the message needs has been done; the rest is for others.
    Part(Box<Part>),
}

/// Frozen for all versions: it must be readable by a host of any age.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version_min: u16,
    pub version_max: u16,
    /// Program and version, for people.
    pub software: String,
    /// Must be the name in the certificate.
    pub name: String,
    pub incarnation: Incarnation,
    pub tier: u8,
    pub policy: Digest,
    /// The needs that its modules provide.
    pub provides: Vec<String>,
    /// The number of the newest revocation list it knows.
    pub revocations: u64,
    /// What it still holds from an earlier session, complete and worth going on with.
    pub resume: Vec<Resume>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    pub version: u16,
    pub software: String,
    pub host: String,
    pub session: Session,
    pub policy: Digest,
    /// The number of the newest revocation list that the host knows.
    pub revocations: u64,
    pub beat_ms: u32,
    pub beat_idle_ms: u32,
    /// One answer for each item of the hello's resume list, in its order.
    pub resumed: Vec<Resumed>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resumed {
    pub message: MessageId,
    pub fence: Fence,
    pub answer: ResumeAnswer,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ResumeAnswer {
    /// Go on; it is yours under the same fence.
    Live,
    /// Your verdict has arrived and counts.
    Applied,
    /// Somebody else has it under a newer fence, or it is done with.
    Superseded,
    /// Nothing is known of it.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refused {
    pub code: RefusedCode,
    pub text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum RefusedCode {
    NoCommonVersion,
    NameMismatch,
    WrongRole,
    Revoked,
    Clone,
    Limit,
    Misbehaved,
    ShuttingDown,
    Replaced,
}

/// Totals since the session began; they only rise, except by a recall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    pub messages: u64,
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    pub count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hint {
    pub grabber: String,
    pub message: MessageId,
    pub fence: Fence,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Draining {
    pub reason: String,
}

/// What waits at the host that this worker could take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backlog {
    pub messages: u64,
    pub bytes: u64,
    pub oldest_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peers {
    pub peers: Vec<PeerProfile>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    pub text: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manage {
    pub order: Order,
}

/// What an operator tells a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Order {
    /// Takes `NotReady` back.
    Ready,
    /// Want nothing more; what is held is finished. Said again after each welcome, until `Ready`.
    NotReady { reason: String },
    /// Leave, as after SIGTERM.
    Drain { reason: String },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assign {
    pub message: MessageId,
    pub fence: Fence,
    /// 1 for the first.
    pub attempt: u8,
    pub mailbox: String,
    /// All that its mailbox asks for.
    pub needs: Vec<String>,
    /// Which of them this worker is to meet. Where others are still open, it returns a [`Part`] and no verdict.
    pub asked: Vec<String>,
    /// What earlier workers found, where a message needs more than one worker.
    pub findings: Vec<Finding>,
    pub envelope: Envelope,
    pub length: u64,
    pub digest: Digest,
    /// How long the whole may take and how long a module may be silent at the most.
    pub time_max_ms: u64,
    pub silence_max_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    pub reason: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settled {
    /// It is stored and counts.
    Applied,
    /// It does not count, and why.
    Refused { reason: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resume {
    pub message: MessageId,
    pub fence: Fence,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// Rises with work done, in whatever unit the module counts; only a rise is progress.
    pub work: u64,
    /// The longest silence until the next one.
    pub silence_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Return {
    pub kind: ReturnKind,
    pub reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReturnKind {
    /// The worker leaves or has recalled its want: the message is not to blame.
    HandBack,
    /// A module is not available: the message is not to blame.
    Unavailable,
    /// No answer could be had about this message: it may be to blame.
    Failed,
}

/// What a worker has done that could do only some of what a message needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Length in bytes and SHA-256 of the message that was processed, as in a [`Verdict`].
    pub length: u64,
    pub digest: Digest,
    /// What this worker found, for needs that it was asked to meet; each of them with an answer.
    pub findings: Vec<Finding>,
    /// The message as it goes on.
    pub body: Body,
}

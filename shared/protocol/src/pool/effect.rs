//! What the pool asks its driver to do, and what the driver answers.

use std::time::Duration;

use crate::frame::{HostControl, HostReservation};
use crate::id::{Digest, Fence, MessageId, Session, Token};
use crate::time::Moment;
use crate::verdict::{Body, Finding, Verdict};

use super::shelf::{Note, Shelf};

/// Different replies of the next hop in one event: more would not be read.
pub const REPLIES_TOLD_MAX: usize = 8;

/// A mailbox's place in the pool's configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MailboxIndex(pub u16);

/// Who holds the durable copy of a message until the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Custody {
    /// The sender waits for [`Effect::Answer`] and keeps the message until then; nothing is durable. The bytes live
    /// in memory or an unlinked file until [`Effect::Forget`].
    Upstream { answer_by: Moment },
    /// It is on our disk.
    Hook,
}

/// A message that has come in, or that the spool found at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marked {
    pub id: MessageId,
    pub mailbox: MailboxIndex,
    pub custody: Custody,
    /// Length in bytes.
    pub length: u64,
    pub recipients: u16,
    /// When it came in, on the driver's clock; for those found at the start, by their age.
    pub since: Moment,
    /// Attempts already counted (from the file's name, or for upstream custody from the digests of suspects).
    pub attempts: u8,
}

/// A message from the shelf, in the state that its file's name tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recovered {
    pub marked: Marked,
    pub state: StoredState,
    /// What was noted when it was put there; the default for what a start has found.
    pub note: Note,
}

/// The state of a stored message, which is a suffix of its file's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoredState {
    /// In the pool, with the attempts counted so far.
    Marked {
        attempts: u8,
    },
    /// The same, and what some workers have found is stored with it.
    Part {
        attempts: u8,
    },
    /// A verdict is stored with it and recipients are being served.
    Releasing,
    Held,
    Quarantined,
}

/// Something to do. Each with a token is answered by exactly one completion with the same token.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Send a frame on a link's control stream.
    Control { session: Session, frame: HostControl },
    /// Close a link after what was queued for it.
    CloseLink { session: Session, reason: String },
    /// Open a stream: read the message's header, send [`crate::frame::Assign`] and then the body. Answer with
    /// [`super::Pool::handle_assigned`], and at any later fault with `handle_stream_lost`.
    Assign(Assignment),
    /// Send a frame on a reservation's stream; `finish` ends our side of it.
    Reply {
        session: Session,
        message: MessageId,
        fence: Fence,
        frame: HostReservation,
        finish: bool,
    },
    /// Change what is stored. Nothing of it counts before its completion (`handle_stored`).
    Store { token: Token, message: MessageId, mailbox: MailboxIndex, change: Change },
    /// Read what is stored with a message that was found `Releasing` or `Part` at the start (`handle_loaded`).
    Load { token: Token, message: MessageId, mailbox: MailboxIndex },
    /// Hand the message on to these recipients by the stored verdict (`handle_released`).
    Release { token: Token, message: MessageId, mailbox: MailboxIndex, recipients: Vec<u16> },
    /// Upstream custody: tell the waiting sender.
    Answer { message: MessageId, answer: Answer },
    /// Upstream custody: the bytes in memory are no longer needed. `attempts` is what stays counted against their
    /// digest, durably, should the sender bring them again; zero clears it.
    Forget { message: MessageId, mailbox: MailboxIndex, attempts: u8 },
    /// Put this message onto the shelf with this note: the pool keeps no entry of it.
    Shelve { message: MessageId, note: Note },
    /// Take the oldest of a mailbox's messages from this shelf, at most so many, and of [`Shelf::Releasing`] only those
    /// that are due by then. Answer with [`super::Pool::handle_refilled`]; from the look at the shelf on nobody else may
    /// be given them.
    Refill { mailbox: MailboxIndex, shelf: Shelf, count: usize, due: Moment },
    /// A store failed: take in nothing more until an operator has looked.
    StopIntake { reason: String },
    /// Something for the log and a message's history.
    Event(Event, Option<About>),
}

/// One assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub session: Session,
    pub message: MessageId,
    pub mailbox: MailboxIndex,
    pub fence: Fence,
    pub attempt: u8,
    /// Needs that the grabber is to meet, and what was found for others before.
    pub asked: Vec<String>,
    pub findings: Vec<Finding>,
    pub time_max: Duration,
    pub silence_max: Duration,
}

/// What a driver learned when it began to send an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// The header was read; the message has this digest and the frame is on its way.
    Sent { digest: Digest },
    /// The message's file cannot be read: it was set aside as corrupted and is no longer the pool's.
    Corrupted { reason: String },
    /// The disk did not give the message this time; it is where it was, and nothing was sent.
    Unreadable { reason: String },
    /// The link is gone.
    LinkLost,
}

/// A change to a stored message. All are durable when they complete, unless said otherwise.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Hook's custody: count an attempt in the file's name; the folder is synced from the second on.
    /// Upstream custody: keep the digest of this suspect with its attempts.
    Charge { attempts: u8 },
    /// `Marked` or `Part` -> `Part` with no attempts: append all that was found so far, and rename; in upstream custody
    /// remember it in memory.
    Part { findings: Vec<Finding>, body: Body },
    /// `Marked` or `Part` -> `Releasing`: append the verdict and rename; in upstream custody remember it in memory.
    Settle { verdict: Box<Verdict> },
    /// Append what recipients got.
    Results { results: Vec<RecipientResult> },
    /// `Marked`, `Part` or `Releasing` -> `Held` or `Quarantined`, with the reasons (and the verdict if it is new).
    SetAside { state: StoredState, verdict: Option<Box<Verdict>>, reasons: Vec<String> },
    /// Upstream custody -> the hook's: write all of it durably in this state, with the verdict that an earlier
    /// `Settle` left in memory where none is given.
    Adopt {
        state: StoredState,
        verdict: Option<Box<Verdict>>,
        results: Vec<RecipientResult>,
        reasons: Vec<String>,
    },
    /// Write a non-delivery notice (RFC 3464) to the sender as a new message in `Releasing`, and tell its id and
    /// size with `handle_stored`. Idempotent: the same message never has two notices for the same recipients.
    Bounce { results: Vec<RecipientResult> },
    /// Write the messages that the verdict originates as new messages in `Releasing`, each of them once whatever comes
    /// in between, and tell those that are new with `handle_stored`. The verdict is the stored one where none is given:
    /// in upstream custody, a message that ends here has none.
    Originate { verdict: Option<Box<Verdict>> },
    /// The end: remove the file and sync the folder.
    Remove,
    /// An operator's wish: `Held` or `Quarantined` -> `Marked` with no attempts counted.
    Requeue,
    /// An operator's wish: `Held` or `Quarantined` -> `Releasing` by this verdict, for those who have not had it.
    ReleaseAsIs { verdict: Box<Verdict> },
}

/// What is stored with a message in [`StoredState::Releasing`] or [`StoredState::Part`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StoredLog {
    pub verdict: Option<Verdict>,
    /// In the order of writing: of two for one recipient the later counts.
    pub results: Vec<RecipientResult>,
    /// What workers have found before a verdict.
    pub findings: Vec<Finding>,
    pub recipients: u16,
    /// Whether the verdict originates messages and [`Change::Originate`] is not done.
    pub originates: bool,
    /// Where this message was itself originated: those beside it that were still missing and were written now.
    pub beside: Vec<Marked>,
}

/// How a store ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    Done,
    /// [`Change::Settle`] or [`Change::ReleaseAsIs`] is done, and some recipients have been served already: an operator
    /// gave the message back since. They are not served again.
    ServedBefore {
        results: Vec<RecipientResult>,
    },
    /// A notice was written (or there was nothing to write: `None`).
    Bounced {
        notice: Option<Marked>,
    },
    /// [`Change::Originate`] is done, and these are new.
    Originated {
        messages: Vec<Marked>,
    },
    /// No notice can be written, since the sender is null, or the message was originated here.
    Unreturnable,
    /// The message's file is damaged or gone: it was set aside where there is one, and the pool loses the message. The
    /// disk is not to blame.
    Damaged {
        reason: String,
    },
    /// It did not become durable. The driver reports it once and the pool decides.
    Failed {
        reason: String,
    },
}

/// What one recipient got from the next hop.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct RecipientResult {
    /// Index in the envelope.
    pub recipient: u16,
    pub result: ReleaseResult,
    /// The next hop's reply, or our own words; at most [`crate::limits::TEXT_BYTES_MAX`] bytes.
    pub reply: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Serialize, serde::Deserialize)]
pub enum ReleaseResult {
    /// The next hop has it.
    Accepted,
    /// 4xx, no connection, or no time: try again later.
    Deferred,
    /// The connection was lost after the final dot was sent: the next hop may have it. To be tried again, and
    /// counted as a possible duplicate.
    Unknown,
    /// 5xx.
    Refused,
}

/// What the waiting sender is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 250: released, quarantined, discarded or durable.
    Accepted { text: String },
    /// 4xx: keep it and try again.
    TryAgain { text: String },
    /// 5xx.
    Refused { code: u16, enhanced: String, text: String },
}

/// Something that happened, for people and counters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Linked {
        grabber: String,
    },
    LinkLost {
        grabber: String,
    },
    Marked {
        message: MessageId,
    },
    Reserved {
        message: MessageId,
        grabber: String,
        fence: Fence,
        attempt: u8,
    },
    /// `after` is the time since the former owner was last heard of or advanced.
    TakenOver {
        message: MessageId,
        from: String,
        to: String,
        reason: &'static str,
        after: Duration,
    },
    /// A verdict that fits has arrived; once it is stored, [`Event::Settled`] follows.
    Verdict {
        message: MessageId,
        grabber: String,
        findings: Vec<Finding>,
    },
    Settled {
        message: MessageId,
        grabber: String,
        /// The state that it is in now.
        next: &'static str,
    },
    /// A message that the verdict on another one asks for is durable, and is going out.
    Originated {
        message: MessageId,
        from: MessageId,
    },
    /// A worker has done some of what the message needs, which is stored; others are to do the rest.
    Part {
        message: MessageId,
        grabber: String,
        findings: Vec<Finding>,
        remaining: Vec<String>,
    },
    Returned {
        message: MessageId,
        grabber: String,
        reason: String,
    },
    /// A late or wrong verdict, which was not applied.
    VerdictRefused {
        message: MessageId,
        grabber: String,
        reason: String,
    },
    Released {
        message: MessageId,
        accepted: u16,
        deferred: u16,
        refused: u16,
        possible_duplicates: u16,
        /// What the next hop said, each different reply once, and to how many recipients; at most
        /// [`REPLIES_TOLD_MAX`].
        replies: Vec<(ReleaseResult, String, u16)>,
    },
    Done {
        message: MessageId,
        ending: Ending,
    },
    SetAside {
        message: MessageId,
        state: StoredState,
        reason: String,
    },
    Answered {
        message: MessageId,
        accepted: bool,
    },
    /// By a rule that the administrator wrote out: `when_unprocessed = "release-unscanned"`.
    ReleasedUnprocessed {
        message: MessageId,
    },
    /// The oldest message that waits in a mailbox has waited for longer than `warn_after`; told once in that time.
    Aged {
        message: MessageId,
        age: Duration,
    },
    /// A grabber that fails on everything gets nothing for a while.
    Rests {
        grabber: String,
        reason: String,
    },
    /// A grabber broke the protocol.
    Misbehaved {
        grabber: String,
        reason: String,
    },
    StoreFailed {
        message: MessageId,
        reason: String,
    },
    /// The message's file cannot be read; it was set aside.
    Corrupted {
        message: MessageId,
        reason: String,
    },
}

/// How a message left the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// All its recipients were served, or their sender was told.
    Released,
    /// By its verdict.
    Discarded,
    /// Upstream custody: the sender was told no.
    Refused,
    /// Upstream custody: the sender keeps it, and was told to try again or has gone.
    LeftToSender,
    /// By an operator.
    Deleted { from: StoredState },
}

/// What the pool knows of the message of an [`Event`], at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    pub mailbox: MailboxIndex,
    /// Attempts counted, the one under way included.
    pub attempts: u8,
    /// When it came in.
    pub since: Moment,
}

impl Event {
    /// The message that it is about.
    pub fn message(&self) -> Option<MessageId> {
        match self {
            Event::Marked { message }
            | Event::Reserved { message, .. }
            | Event::TakenOver { message, .. }
            | Event::Verdict { message, .. }
            | Event::Settled { message, .. }
            | Event::Part { message, .. }
            | Event::Returned { message, .. }
            | Event::VerdictRefused { message, .. }
            | Event::Released { message, .. }
            | Event::Done { message, .. }
            | Event::SetAside { message, .. }
            | Event::Answered { message, .. }
            | Event::ReleasedUnprocessed { message }
            | Event::Aged { message, .. }
            | Event::Originated { message, .. }
            | Event::StoreFailed { message, .. }
            | Event::Corrupted { message, .. } => Some(*message),
            Event::Linked { .. }
            | Event::LinkLost { .. }
            | Event::Misbehaved { .. }
            | Event::Rests { .. } => None,
        }
    }
}

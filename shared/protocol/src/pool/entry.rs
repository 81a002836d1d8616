//! One message as the pool knows it.

use std::time::Duration;

use super::effect::{Answer, Custody, MailboxIndex, RecipientResult, StoredState};
use super::grabbers::GrabberKey;
use super::needs::Needs;
use crate::frame::Settled;
use crate::id::{Digest, Fence, Incarnation, MessageId, Session, Token};
use crate::limits::REASONS_MAX;
use crate::time::Moment;
use crate::verdict::{Finding, Verdict};

/// Kept small. What only few messages have is boxed.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) mailbox: MailboxIndex,
    pub(super) custody: Custody,
    pub(super) length: u64,
    pub(super) recipients: u16,
    pub(super) since: Moment,
    /// Attempts counted against the message; the one under way included.
    pub(super) attempts: u8,
    pub(super) returns: u16,
    /// A worker was lost or gave no answer while it had this message.
    pub(super) suspect: bool,
    /// Found on disk with attempts, the last of which a former run of the hook may have cut short itself.
    pub(super) recovered: bool,
    /// An operator put it back: it leaves by a verdict only, however long that takes.
    pub(super) requeued: bool,
    /// Stores that failed one after the other.
    pub(super) stores_failed: u8,
    /// The store under way: at most one, so that changes to one file never overtake each other.
    pub(super) storing: Option<Token>,
    pub(super) state: State,
    pub(super) history: Option<Box<History>>,
    /// What earlier workers have done, where it needs more than one.
    pub(super) found: Option<Box<Found>>,
}

/// What the workers before the next one have found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) findings: Vec<Finding>,
    /// Needs that they answer.
    pub(super) met: Needs,
    /// `false` where a start found that there is something, and it has not been read yet.
    pub(super) read: bool,
}

/// Where a message is on its way.
#[derive(Clone, Debug)]
pub(super) enum State {
    /// In the pool.
    Marked,
    Reserved(Box<Reservation>),
    /// A store decides what comes next; no timer takes the message away.
    Settling(Box<Settling>),
    Releasing(Box<Releasing>),
}

/// One grabber's exclusive, timed right to the message.
#[derive(Clone, Debug)]
pub(super) struct Reservation {
    pub(super) fence: Fence,
    pub(super) grabber: GrabberKey,
    pub(super) incarnation: Incarnation,
    /// By which the grabber processes it, also if it links anew with another one meanwhile.
    pub(super) policy: Digest,
    /// The link it is bound to; a resume rebinds it.
    pub(super) session: Session,
    pub(super) phase: Phase,
    pub(super) started: Moment,
    pub(super) progressed: Moment,
    pub(super) work: u64,
    pub(super) silence: Duration,
    /// Silent for longer than its module announced.
    pub(super) stalled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The attempt is being counted on disk.
    Charging,
    /// The driver reads the header and opens the stream.
    Assigning,
    /// The grabber has it; what is compared with its verdict.
    Working { digest: Digest },
}

/// What happens when the store under way completes.
#[derive(Clone, Debug)]
pub(super) struct Settling {
    pub(super) next: Next,
    /// Who is told that the verdict counts.
    pub(super) acknowledge: Option<Acknowledge>,
    /// What is gone on with should the store fail, for a message whose recipients have been served.
    pub(super) prior: Option<Box<Releasing>>,
}

#[derive(Clone, Debug)]
pub(super) struct Acknowledge {
    pub(super) session: Session,
    pub(super) grabber: GrabberKey,
    pub(super) fence: Fence,
}

#[derive(Clone, Debug)]
pub(super) enum Next {
    /// Hand it on; `unprocessed` by the administrator's rule.
    Release { releasing: Box<Releasing>, unprocessed: bool },
    /// What the verdict originates is written, and nothing else is left to do: the waiting sender is told no, or yes.
    Originated { refusal: Option<Answer> },
    /// Back to the pool with what remains; `news` is what the last worker has found.
    Part { found: Box<Found>, news: Vec<Finding> },
    /// Upstream custody has become the hook's: say yes, and back to the pool.
    AdoptedMarked,
    /// Set aside durably; say yes if somebody waits.
    SetAside { quarantined: bool, reason: String },
    /// Gone for good; `prior` is where an operator took it from.
    Removed { prior: Option<StoredState> },
    /// An operator put it back into the pool.
    Requeued { prior: StoredState },
    /// An operator hands it on as it is.
    ReleasedAsIs { releasing: Box<Releasing>, prior: StoredState },
}

impl Next {
    /// The state that the message is in when the store has completed.
    pub(super) fn state_name(&self) -> &'static str {
        match self {
            Next::Release { .. } | Next::ReleasedAsIs { .. } => "releasing",
            Next::Part { .. } | Next::AdoptedMarked | Next::Requeued { .. } => "waiting",
            Next::SetAside { quarantined: true, .. } => "quarantined",
            Next::SetAside { .. } => "held",
            Next::Removed { .. } | Next::Originated { .. } => "gone",
        }
    }
}

/// Serving the recipients.
#[derive(Clone, Debug, Default)]
pub(super) struct Releasing {
    /// Whether the verdict and results are known; not so for what a start found on disk.
    pub(super) loaded: bool,
    /// The verdict originates messages that are not written yet. In the hook's custody they are before any recipient is
    /// served, in upstream custody before the sender is told yes.
    pub(super) originating: bool,
    /// Why the verdict sets the message aside once all recipients are served.
    pub(super) reasons: Vec<String>,
    /// To be served still.
    pub(super) pending: Vec<u16>,
    /// What the others got, in the order of its coming; how many of that are stored, and how many will be when the
    /// store under way completes.
    pub(super) results: Vec<RecipientResult>,
    pub(super) recorded: usize,
    pub(super) recording: usize,
    /// How many of the refused the sender has been told of.
    pub(super) bounced: usize,
    /// Since when the way out is tried; unknown for a notice.
    pub(super) started: Option<Moment>,
    /// The next hop's last words to those who are still pending.
    pub(super) last_reply: Option<String>,
    pub(super) end: End,
    pub(super) tries: u32,
    pub(super) step: Step,
}

/// Where a releasing message ends once all recipients are served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum End {
    #[default]
    Done,
    Quarantined,
    Held,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Step {
    /// Waits for its turn or its next try.
    #[default]
    Due,
    Loading(Token),
    Sending(Token),
    /// Results are being stored.
    Recording,
    /// The notice to the sender is being stored; with it so many of the refused are told of.
    Bouncing(usize),
    /// The messages that the verdict originates are being written.
    Originating,
    /// The file is being removed.
    Removing,
}

impl Step {
    /// Whether the driver is at it and will say what came of it.
    pub(super) fn is_under_way(&self) -> bool {
        matches!(self, Step::Loading(_) | Step::Sending(_))
    }
}

/// What befell a message before.
#[derive(Clone, Debug, Default)]
pub(super) struct History {
    pub(super) reasons: Vec<String>,
    /// Attempts that are given back when the same incarnation links again.
    pub(super) charges: Vec<Charge>,
    /// Grabbers that failed with it, each once, to be avoided where there is a choice.
    pub(super) failed_with: Vec<GrabberKey>,
    /// When the last one failed.
    pub(super) failed_at: Moment,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) grabber: GrabberKey,
    pub(super) incarnation: Incarnation,
}

impl Entry {
    pub(super) fn history(&mut self) -> &mut History {
        self.history.get_or_insert_default()
    }

    /// Notes why an attempt came to nothing; of more than the bound the last is replaced.
    pub(super) fn add_reason(&mut self, reason: String) {
        let reasons = &mut self.history().reasons;
        if reasons.len() >= REASONS_MAX {
            reasons.pop();
        }
        reasons.push(reason);
    }

    pub(super) fn reasons(&self) -> Vec<String> {
        self.history.as_ref().map(|history| history.reasons.clone()).unwrap_or_default()
    }

    pub(super) fn is_upstream(&self) -> bool {
        matches!(self.custody, Custody::Upstream { .. })
    }

    pub(super) fn reservation(&self) -> Option<&Reservation> {
        match &self.state {
            State::Reserved(reservation) => Some(reservation),
            _ => None,
        }
    }

    pub(super) fn reservation_mut(&mut self) -> Option<&mut Reservation> {
        match &mut self.state {
            State::Reserved(reservation) => Some(reservation),
            _ => None,
        }
    }

    pub(super) fn releasing_mut(&mut self) -> Option<&mut Releasing> {
        match &mut self.state {
            State::Releasing(releasing) => Some(releasing),
            _ => None,
        }
    }
}

/// Whose fault it is that a reservation ended without a verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// Perhaps the message's: the attempt counts.
    Message,
    /// The worker's or the link's: the attempt is given back, up to the bound of returns.
    Worker,
    /// Ours, or nobody's: it is as if it had not been.
    Host,
}

/// A verdict that has arrived whole, under the current fence.
#[derive(Clone, Debug)]
pub(super) struct Arrived {
    pub(super) message: MessageId,
    pub(super) acknowledge: Acknowledge,
    pub(super) verdict: Box<Verdict>,
}

/// The last frame of a reservation.
pub(super) fn refused(reason: impl Into<String>) -> Settled {
    Settled::Refused { reason: crate::text::bounded(reason) }
}

//! What a worker says of a message it has reserved.

use gantry_mail::HeaderEdit;
use serde::{Deserialize, Serialize};

use crate::id::Digest;

/// What becomes of a message, for which recipients, and why. Names every recipient of the envelope exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Length in bytes and SHA-256 of the message that was processed: the host compares them with its own.
    pub length: u64,
    pub digest: Digest,
    pub groups: Vec<Group>,
    /// What each module found; at most [`crate::limits::FINDINGS_MAX`].
    pub findings: Vec<Finding>,
    /// Messages that the hook is to send beside this one, once the verdict counts; at most
    /// [`crate::limits::ORIGINATED_MAX`].
    pub originated: Vec<Originated>,
}

/// Recipients, by their index in the envelope, that share a disposition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Group {
    pub recipients: Vec<u16>,
    pub disposition: Disposition,
}

/// What becomes of the message for a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Disposition {
    /// Hand it on, with these changes to the header block.
    Deliver { edits: Vec<HeaderEdit>, body: Body },
    /// Say no to the sender, where somebody still waits for our answer; otherwise it becomes a late rejection.
    Refuse { code: u16, enhanced: String, text: String },
    /// Neither hand it on nor tell anybody.
    Discard,
    /// Keep it from its recipients.
    Quarantine { reason: String },
    /// Set it aside for an operator.
    Hold { reason: String },
}

/// Which bytes are delivered below the edited header block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Those that came in, untouched.
    Original,
    /// A whole new message, sent on the reservation's stream behind the verdict.
    Replaced { length: u64, digest: Digest },
}

/// A message that the worker asks the hook to send: a notice, a copy for a journal. The hook has to have been told whom
/// it may come from and go to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Originated {
    /// The envelope's; empty is the null sender.
    pub sender: String,
    pub recipients: Vec<OriginatedTo>,
    /// At most [`crate::limits::ORIGINATED_BYTES_MAX`] bytes.
    pub message: Vec<u8>,
    /// How many bytes into `message` the hook puts the message that the verdict is about, as it came in, so that it need
    /// not travel back.
    pub original_at: Option<u32>,
}

/// Who gets an originated message. Whom the hook knows from the envelope is not named again, so that nobody can pass for
/// them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OriginatedTo {
    Address(String),
    /// The message's sender; nobody, where that is the null sender.
    Sender,
    /// The message's recipient, by its index in the envelope.
    Recipient(u16),
}

/// What one module found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// The need that it was run for.
    pub need: String,
    pub module: String,
    /// Engine and version, as the engine says it.
    pub engine: String,
    /// Version or date of its signatures; empty where there are none.
    pub signatures: String,
    pub outcome: Outcome,
    pub duration_ms: u32,
}

/// No answer is never "clean": what could not be looked at has an outcome of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// Everything was looked at and nothing was found.
    Clean,
    /// Something was found: its names, at least one.
    Found {
        names: Vec<String>,
    },
    Unscanned {
        reason: String,
    },
    Encrypted {
        reason: String,
    },
    Malformed {
        reason: String,
    },
    OverBudget {
        reason: String,
    },
}

impl Outcome {
    /// Whether the module gave an answer about the message at all.
    pub fn is_answer(&self) -> bool {
        !matches!(self, Outcome::Unscanned { .. })
    }
}

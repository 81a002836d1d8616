//! Profiles: what a grabber last did, when, and how it is.

use serde::{Deserialize, Serialize};

use crate::id::{Fence, Incarnation, MessageId};

/// What a grabber says of itself. Durations, never wall time: clocks of two machines do not agree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub grabber: String,
    pub incarnation: Incarnation,
    pub readiness: Readiness,
    /// Tier 0 works always, higher ones when the lower are dead, not ready or too slow.
    pub tier: u8,
    /// What it last did, and how long ago, in milliseconds.
    pub last_action: Action,
    pub last_action_ago_ms: u64,
    pub modules: Vec<ModuleProfile>,
    pub holding: Vec<Holding>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Readiness {
    Ready,
    Busy,
    Draining,
    NotReady { reason: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    Started,
    Linked,
    Reserved,
    Processing,
    Returned,
    HandedBack,
    Drained,
}

/// One module of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModuleProfile {
    pub name: String,
    pub provides: String,
    pub engine: String,
    pub signatures: String,
    /// `None` when it is ready, else why it is not.
    pub not_ready: Option<String>,
}

/// A reservation as its owner sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holding {
    pub message: MessageId,
    pub fence: Fence,
    /// How long ago work last advanced (as the host passes it on: by the time of passing on), and how long it may be silent, in milliseconds.
    pub progress_ago_ms: u64,
    pub silence_ms: u64,
}

/// A peer's profile as its host passes it on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerProfile {
    pub profile: Profile,
    /// It has a link, and has not missed three beats while it held something.
    pub linked: bool,
    /// How long ago the host last heard from the grabber, in milliseconds.
    pub heard_ago_ms: u64,
}

//! One reservation as its owner keeps it.

use std::time::Duration;

use crate::frame::{Assign, WorkerReservation};
use crate::id::Fence;
use crate::limits::SILENCE_DEFAULT;
use crate::time::Moment;

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) fence: Fence,
    pub(super) length: u64,
    pub(super) stage: Stage,
    /// When everything about it ends.
    pub(super) over: Moment,
    pub(super) work: u64,
    pub(super) progressed: Moment,
    pub(super) silence: Duration,
    /// When the host was last told of progress, and of what silence.
    pub(super) told: Option<(Moment, Duration)>,
}

#[derive(Clone, Debug)]
pub(super) enum Stage {
    /// The body is on its way.
    Receiving,
    Processing,
    /// This was sent, and is sent again after a new link until the host has answered.
    Answered(WorkerReservation),
}

impl Held {
    pub(super) fn new(assign: &Assign, now: Moment) -> Self {
        Self {
            fence: assign.fence,
            length: assign.length,
            stage: Stage::Receiving,
            over: now + Duration::from_millis(assign.time_max_ms),
            work: 0,
            progressed: now,
            silence: SILENCE_DEFAULT.min(Duration::from_millis(assign.silence_max_ms)),
            told: None,
        }
    }
}

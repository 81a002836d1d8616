//! What can happen to the service: the only thing its loop waits for.

use gantry_config::ConfigError;
use gantry_link::{HostReservationStream, Incoming};
use gantry_protocol::frame::{WorkerControl, WorkerReservation};
use gantry_protocol::id::{Fence, MessageId, Session, Token};
use gantry_protocol::pool::{Assigned, RecipientResult, Stored, StoredLog};

use crate::admin::Asked;
use crate::config::Config;
use crate::intake::IntakeEvent;

/// Actions on their way to the loop before their senders wait. Every link, stream and store has at most one under
/// way, so this is a bound on memory, not on what works.
pub(super) const ACTIONS_MAX: usize = 1_024;

/// Names a reservation's stream: what arrives on it counts only for this session and fence.
pub(super) type StreamKey = (Session, MessageId, Fence);

/// What reading the configuration gave, and who asked for it.
pub(super) struct Reloaded {
    pub(super) read: Result<Config, Vec<ConfigError>>,
    pub(super) asked: Option<Asked>,
}

pub(super) enum Action {
    Intake(IntakeEvent),
    Incoming(Box<Incoming>),
    Control(Session, Box<WorkerControl>),
    /// A worker did on its link what no worker does.
    Misbehaved(Session, String),
    LinkLost(Session, String),
    Assigned(StreamKey, Assigned),
    /// A worker opened a stream to go on with a reservation of an earlier session.
    Resumed(StreamKey, Box<HostReservationStream>),
    Reservation(StreamKey, Box<WorkerReservation>),
    /// The stream broke while its link lives.
    StreamLost(StreamKey, String),
    /// Both sides of the stream have ended.
    StreamDone(StreamKey),
    Stored(Token, Stored),
    Loaded(Token, Result<StoredLog, String>),
    Released(Token, Vec<RecipientResult>),
    /// A message's file turned out damaged or gone; it was set aside.
    Damaged(MessageId, String),
    Admin(Box<Asked>),
    /// Somebody wants the metrics.
    Metrics(gantry_daemon::metrics::Asked),
    /// It stands in the audit log now.
    Audited(Box<Asked>),
    /// Time to look which links carry anything.
    Listen,
    Timeout,
    /// Whether the disk stores anything, after it did not.
    Probed(Result<(), String>),
    /// The revocation list may have changed.
    Housekeeping,
    /// SIGHUP.
    Hangup,
    /// The configuration was read again, for whoever asked.
    Reloaded(Box<Reloaded>),
    /// SIGTERM or SIGINT.
    Stop,
}

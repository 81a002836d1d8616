//! What can happen to the worker: the only thing its loop waits for.

use std::sync::Arc;

use gantry_link::{Call, LinkError, NodeIdentity, ReachedHost};
use gantry_protocol::frame::{HostControl, HostReservation, Welcome};
use gantry_protocol::grabber::Processed;
use gantry_protocol::id::{Fence, MessageId};
use gantry_protocol::profile::ModuleProfile;
use gantry_scanners::api::Source;

use super::link::{Assigned, Linked};
use crate::policy::Policy;

/// Actions on their way to the loop before their senders wait.
pub(super) const ACTIONS_MAX: usize = 1_024;

/// A host's place in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct HostIndex(pub(super) usize);

/// Names a reservation: at this host, of this message, under this fence.
pub(super) type Key = (HostIndex, MessageId, Fence);

pub(super) enum Action {
    /// A host that was dialled is there.
    Reached(HostIndex, Box<ReachedHost>),
    /// A host has dialled this worker.
    Called(Box<Call>),
    Linked(HostIndex, Box<(Welcome, Linked)>),
    /// A try to link came to nothing.
    NotLinked(HostIndex, LinkError),
    /// It is time to try again.
    Dial(HostIndex),
    LinkLost(HostIndex, u64, String),
    Control(HostIndex, u64, Box<HostControl>),
    /// The host opened a stream for a message, whose body follows.
    Assigned(HostIndex, u64, Box<Assigned>),
    /// The host opened a stream and gave it up before its assignment was here.
    AssignmentLost(HostIndex, u64),
    /// The whole body has arrived.
    Received(Key, Source),
    Reservation(Key, Box<HostReservation>),
    StreamLost(Key, String),
    Processed(Key, Box<Processed>),
    Probed(Vec<ModuleProfile>),
    /// Somebody wants the metrics.
    Metrics(gantry_daemon::metrics::Asked),
    /// The policy file has changed and has no mistake.
    Policy(Arc<Policy>),
    /// The worker's own certificate was renewed, or its trust list is newer.
    Renewed(Arc<NodeIdentity>),
    /// The reason, from the last host that was asked.
    RenewalFailed(String),
    /// Time to look at the progress of what is being processed.
    Progress,
    Timeout,
    Stop,
}

//! The hook at work: one loop, in which only [`select`](Service::select) waits and [`apply`](Service::apply) acts.
//!
//! The decisions are the pool's ([`gantry_protocol::pool`]). What it asks for runs in tasks (links, streams, releases)
//! and on blocking threads (everything that touches the disk); what they find comes back as an [`Action`].

mod action;
pub(crate) mod certificates;
mod dial;
mod drain;
mod effects;
mod link;
mod member;
mod metrics;
mod operate;
mod pace;
mod reload;
mod retention;
mod start;
mod ways;

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_link::{HostConnection, Incoming, Server};
use gantry_protocol::id::{MessageId, Session};
use gantry_protocol::limits::CARRIED_EVERY;
use gantry_protocol::pool::{Answer, LinkPeer, Pool};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Interval};

pub(crate) use start::trace_key;
pub use start::{RunError, pool_of, run, spool_options};

use crate::admin::{self, Asked, Orders};
use crate::audit::Audit;
use crate::config::Config;
use crate::disk::Disk;
use crate::intake::{Admission, Clock, Gate, IntakeEvent};
use crate::journal::Journal;
use crate::release::{TraceKey, Way};
use crate::spool::{Spool, SpoolError};
use action::{Action, StreamKey};
use certificates::Certificates;
use dial::Dialling;
use link::{ControlOut, StreamOut};
use operate::{Decision, outcome_of};
use pace::SharedPace;

/// How long a draining hook waits for what is being stored and released.
const DRAIN_MAX: Duration = Duration::from_secs(30);
/// How often a disk that could not store something is tried.
const PROBE_EVERY: Duration = Duration::from_secs(5);

/// Everything that the loop owns.
struct Service<D: Disk> {
    name: String,
    certificates: Certificates,
    pool: Pool,
    clock: Clock,
    spool: Arc<Spool<D>>,
    gate: Gate,
    server: Server,
    dialling: Dialling,
    /// As last read, and from where.
    config: Config,
    config_path: PathBuf,
    trace: Arc<TraceKey>,
    mailboxes: Vec<Mailbox>,
    links: HashMap<Session, Linked>,
    streams: HashMap<StreamKey, mpsc::Sender<StreamOut>>,
    answers: HashMap<MessageId, oneshot::Sender<Answer>>,
    journal: Journal,
    audit: Arc<Audit<D>>,
    orders: Arc<Orders<D>>,
    orders_number: u64,
    /// Operators' decisions that are being stored, by message.
    decisions: BTreeMap<MessageId, Decision>,
    /// For operators who ask over the network.
    requests: mpsc::Sender<Asked>,
    actions: mpsc::Sender<Action>,
    last_session: u64,
    started: Instant,
    epoch: u32,
    /// When the links are looked at next, whether they carry anything.
    listen_at: Option<Instant>,
    /// An operator lets the hook finish what it has, and end.
    emptying: Option<drain::Emptying>,
    /// When the drain ends at the latest.
    drain_until: Option<Instant>,
    /// When a disk that failed may be tried again; `None` while it is being tried.
    probe_after: Option<Instant>,
    /// Signals so far: the second one ends the hook at once.
    stops: u32,
}

/// A mailbox's names and its way out.
struct Mailbox {
    name: String,
    needs: Vec<String>,
    way: Arc<Way>,
}

/// A link as the loop knows it.
struct Linked {
    connection: HostConnection,
    control: mpsc::Sender<ControlOut>,
    /// Of all its reservations together.
    pace: SharedPace,
    /// What had arrived when it was last looked at.
    frames_arrived: u64,
}

/// What the loop waits for.
struct Inputs {
    actions: mpsc::Receiver<Action>,
    intake: mpsc::Receiver<IntakeEvent>,
    admin: mpsc::Receiver<Asked>,
    metrics: mpsc::Receiver<gantry_daemon::metrics::Asked>,
    signals: mpsc::Receiver<()>,
    hangups: mpsc::Receiver<()>,
    housekeeping: Interval,
}

impl<D: Disk> Service<D> {
    /// Runs until a signal, and what it started has ended.
    async fn run(mut self, mut inputs: Inputs) {
        // What a start has found with attempts must be in the pool's hands before any worker asks about it.
        self.perform_effects();
        while !self.is_over() {
            let action = self.select(&mut inputs).await;
            self.apply(action);
        }
        self.server.shutdown(gantry_link::CloseCode::ShuttingDown, "the host shuts down").await;
    }

    /// The only wait. What has arrived comes before timers, so that a hook that was away does not take the silence of
    /// its own absence for its workers'.
    async fn select(&mut self, inputs: &mut Inputs) -> Action {
        let timeout = self.pool.next_timeout().map(|at| self.clock.instant(at));
        let (drain, listen) = (self.drain_until, self.listen_at);
        tokio::select! {
            biased;
            Some(()) = inputs.signals.recv() => Action::Stop,
            Some(()) = inputs.hangups.recv() => Action::Hangup,
            Some(action) = inputs.actions.recv() => action,
            Some(incoming) = self.server.accept() => Action::Incoming(Box::new(incoming)),
            Some(asked) = inputs.admin.recv() => Action::Admin(Box::new(asked)),
            Some(reply) = inputs.metrics.recv() => Action::Metrics(reply),
            Some(event) = inputs.intake.recv() => Action::Intake(event),
            () = until(listen) => Action::Listen,
            () = until(timeout) => Action::Timeout,
            () = until(drain) => Action::Timeout,
            _ = inputs.housekeeping.tick() => Action::Housekeeping,
        }
    }

    /// Tells the pool what happened, then does all that it asks for. Never waits.
    fn apply(&mut self, action: Action) {
        let now = self.clock.now();
        match action {
            Action::Intake(event) => self.on_intake(event),
            Action::Incoming(incoming) => self.on_incoming(*incoming),
            Action::Control(session, frame) => self.pool.handle_control(session, *frame, now),
            Action::Misbehaved(session, reason) => self.pool.handle_misbehaved(session, &reason),
            Action::LinkLost(session, reason) => {
                tracing::info!(session = session.0, reason, "link ended");
                self.links.remove(&session);
                self.streams.retain(|key, _| key.0 != session);
                self.pool.handle_link_lost(session, now);
            }
            Action::Assigned((session, id, fence), outcome) => {
                self.pool.handle_assigned(session, id, fence, outcome, now);
            }
            Action::Resumed(key, stream) => self.on_resumed(key, *stream),
            Action::Reservation((session, id, fence), frame) => {
                self.pool.handle_reservation(session, id, fence, *frame, now);
            }
            Action::StreamLost((session, id, fence), reason) => {
                self.pool.handle_stream_lost(session, id, fence, &reason, now);
            }
            Action::StreamDone(key) => {
                self.streams.remove(&key);
            }
            Action::Stored(token, stored) => {
                let decided = self.take_decision(token);
                let outcome = decided.as_ref().map(|_| outcome_of(&stored));
                self.pool.handle_stored(token, stored, now);
                if let (Some(decided), Some(outcome)) = (decided, outcome) {
                    self.on_decided(decided, outcome);
                }
            }
            Action::Loaded(token, log) => self.pool.handle_loaded(token, log, now),
            Action::Released(token, results) => self.pool.handle_released(token, results, now),
            Action::Damaged(id, reason) => self.pool.handle_damaged(id, reason, now),
            Action::Admin(asked) => self.on_admin(*asked),
            // Whoever asked may have gone.
            Action::Metrics(reply) => drop(reply.send(self.metrics())),
            Action::Audited(asked) => self.on_audited(*asked),
            Action::Listen => self.listen(),
            Action::Timeout => self.pool.handle_timeout(now),
            Action::Probed(tried) => self.on_probed(tried),
            Action::Housekeeping => self.on_housekeeping(),
            Action::Hangup => self.reload(None),
            Action::Reloaded(reloaded) => self.on_reloaded(*reloaded),
            Action::Stop => self.on_stop(),
        }
        self.perform_effects();
        if self.listen_at.is_none() && self.pool.awaits_beats() {
            self.listen_at = Some(Instant::now() + CARRIED_EVERY);
        }
    }

    fn on_intake(&mut self, event: IntakeEvent) {
        let now = self.clock.now();
        match event {
            IntakeEvent::Marked { marked, looped, answer } => {
                if let Some(answer) = answer {
                    self.answers.insert(marked.id, answer);
                }
                if looped {
                    let reason = "it has passed this mailbox before: a mail loop";
                    self.pool.handle_marked_held(marked, reason, now);
                } else {
                    self.pool.handle_marked(marked, now);
                }
            }
            IntakeEvent::SenderGone(id) => {
                self.answers.remove(&id);
                self.pool.handle_sender_gone(id, now);
            }
            IntakeEvent::NeverMarked(id) => self.spool.forget(id),
        }
    }

    fn on_incoming(&mut self, incoming: Incoming) {
        let accepted = match incoming {
            Incoming::Link(accepted) => accepted,
            Incoming::Operator(link) => {
                let (operator, remote) = (&link.identity().name, link.remote_address());
                tracing::debug!(operator, %remote, "an operator asks");
                tokio::spawn(admin::serve(*link, self.requests.clone()));
                return;
            }
            Incoming::Joined { remote, identity } => {
                return tracing::info!(%remote, name = identity.name, role = %identity.role, "joined");
            }
            Incoming::Refused { .. } => return, // Logged where it was refused.
        };
        let gantry_link::Accepted { identity, hello, link, .. } = *accepted;
        self.last_session += 1;
        let session = Session(self.last_session);
        tracing::info!(
            session = session.0,
            worker = identity.name,
            software = hello.software,
            "link"
        );
        let (connection, control, pace) = link::spawn(session, link, self.actions.clone());
        let linked = Linked { connection, control, pace, frames_arrived: 0 };
        self.links.insert(session, linked);
        let peer = LinkPeer { name: identity.name, grants: identity.provides };
        self.pool.handle_link_up(session, peer, hello, self.clock.now());
    }

    fn on_resumed(&mut self, key: StreamKey, stream: gantry_link::HostReservationStream) {
        let Some(linked) = self.links.get(&key.0) else { return };
        let (out, queue) = mpsc::channel(link::STREAM_QUEUE_MAX);
        self.streams.insert(key, out);
        tokio::spawn(link::go_on(
            key,
            stream,
            queue,
            linked.connection.clone(),
            linked.pace.clone(),
            self.actions.clone(),
        ));
    }

    /// Tells the pool which links carry something, while anybody holds a message.
    fn listen(&mut self) {
        let now = self.clock.now();
        for (session, linked) in &mut self.links {
            let arrived = linked.connection.frames_arrived();
            if linked.frames_arrived != arrived {
                linked.frames_arrived = arrived;
                self.pool.handle_carried(*session, now);
            }
        }
        self.listen_at = None;
    }

    fn on_housekeeping(&mut self) {
        self.look_after_certificates();
        self.look_whether_empty();
        self.probe();
    }

    /// While intake is stopped, tries whether the disk stores again. After a failed sync the spool tries nothing.
    fn probe(&mut self) {
        let stopped = matches!(self.gate.admission(), Admission::Stopped { .. });
        if !stopped || self.probe_after.is_none_or(|after| Instant::now() < after) {
            return;
        }
        self.probe_after = None; // One at a time: a disk may hang.
        let (spool, actions) = (Arc::clone(&self.spool), self.actions.clone());
        tokio::task::spawn_blocking(move || {
            let tried = spool.probe().map_err(|error| error.to_string());
            let _ = actions.blocking_send(Action::Probed(tried));
        });
    }

    fn on_probed(&mut self, tried: Result<(), String>) {
        self.probe_after = Some(Instant::now() + PROBE_EVERY);
        match tried {
            Ok(()) => {
                tracing::info!("the disk stores again: intake is open");
                self.gate.reopen();
            }
            Err(reason) => tracing::debug!(reason, "intake stays stopped"),
        }
    }

    fn on_stop(&mut self) {
        self.stops += 1;
        self.end();
    }

    /// Takes nothing more on, and ends when what it has begun is done.
    fn end(&mut self) {
        if self.drain_until.is_none() {
            tracing::info!("stopping: finishing what is being stored and released");
            self.drain_until = Some(Instant::now() + DRAIN_MAX);
            self.gate.drain();
            self.pool.handle_drain(self.clock.now());
        }
    }

    fn is_over(&self) -> bool {
        let Some(until) = self.drain_until else { return false };
        self.pool.is_quiet() || self.stops > 1 || Instant::now() >= until
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Puts a message whose file cannot be read out of the way, and says so once. An error that is the disk's and not the
/// file's leaves it where it is.
fn set_aside<D: Disk>(spool: &Spool<D>, id: MessageId, error: &SpoolError) -> String {
    let reason = error.to_string();
    if error.is_corrupted() {
        match spool.set_aside_corrupted(id, &reason) {
            Ok(path) => {
                tracing::error!(id = %id, path = %path.display(), reason, "set aside: its file is damaged")
            }
            Err(error) => {
                tracing::error!(id = %id, reason, "set aside a damaged file: {error}")
            }
        }
    }
    reason
}

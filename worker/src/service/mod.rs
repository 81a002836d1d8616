//! The worker at work: one loop, in which only [`select`](Service::select) waits and [`apply`](Service::apply) acts.
//!
//! What is reserved, wanted and said to each host is its grabber's decision ([`gantry_protocol::grabber`]). Links,
//! streams and the pipeline run in tasks; what they find comes back as an [`Action`].

mod action;
mod capacity;
mod certificates;
mod effects;
mod figures;
mod link;
mod links;
mod probe;
mod start;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_daemon::crash;
use gantry_link::{Backoff, Call, Listener, NodeIdentity};
use gantry_protocol::frame::{Assign, Backlog, Order, ReturnKind};
use gantry_protocol::grabber::{self, Grabber, Processed};
use gantry_protocol::limits::SILENCE_DEFAULT;
use gantry_protocol::monitor::Monitor;
use gantry_protocol::profile::{ModuleProfile, Readiness};
use gantry_protocol::time::Moment;
use tokio::sync::mpsc;
use tokio::task::AbortHandle;
use tokio::time::{Instant, Interval};

pub use start::{RunError, run, run_modules};

use crate::config;
use crate::pipeline::{Pipeline, Work};
use crate::policy::Policy;
use action::{Action, HostIndex, Key};
use certificates::Certificates;
use figures::Figures;
use link::{Arrived, Assigned, Linked, Scratch, StreamOut};

/// How often progress is looked at while something is processed.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Everything that the loop owns.
struct Service {
    identity: Arc<NodeIdentity>,
    identity_dir: PathBuf,
    certificates: Certificates,
    /// Those that are dialled, and those that have dialled since the start.
    hosts: Vec<Host>,
    /// The configuration's entries of hosts that may dial this worker.
    callers: Vec<config::Host>,
    /// For hosts that dial.
    listener: Option<Listener>,
    /// Desks that hosts have brought.
    desks: u32,
    /// What a new host's grabber begins with, but for tier and policy.
    grabber: grabber::Config,
    /// How the modules were when they were last asked.
    readiness: Option<(Readiness, Vec<ModuleProfile>)>,
    pipeline: Pipeline,
    /// Messages processed at once, over all hosts.
    concurrency: u64,
    /// Bytes of messages held at once, over all hosts, in memory and temporary files.
    bytes_max: u64,
    scratch: Scratch,
    held: HashMap<Key, Held>,
    figures: Figures,
    actions: mpsc::Sender<Action>,
    /// Asks the probe to look now.
    probe: Arc<tokio::sync::Notify>,
    origin: Instant,
    last_link: u64,
    drain_timeout: Duration,
    drain_until: Option<Instant>,
    stops: u32,
}

/// A host to serve.
struct Host {
    /// Where it is dialled, if it is.
    address: Option<String>,
    /// The name that it must have, if the configuration says one.
    expected: Option<String>,
    /// The name in its certificate, once that is known.
    name: Option<String>,
    grabber: Grabber,
    monitor: Monitor,
    linked: Option<Linked>,
    /// A hello is under way.
    greeting: bool,
    /// A try to reach it is under way, or due after a pause.
    dialling: bool,
    backoff: Backoff,
    /// What is said in the log once and not with every try.
    last_refusal: Option<String>,
    /// Tier 0 works always, higher ones when the lower are dead, not ready or too slow.
    tier: u8,
    /// How long the oldest message may wait there before a higher tier helps the lower ones.
    standby_after: Option<Duration>,
    /// What waits there, as the host last said.
    backlog: Backlog,
    /// The last message came from there.
    served_last: bool,
}

/// What the worker keeps of a reservation beside what its grabber knows.
struct Held {
    assign: Arc<Assign>,
    /// Of the link on which it was assigned.
    pipeline: Pipeline,
    stream: Option<mpsc::Sender<StreamOut>>,
    arrived: Arrived,
    work: Option<Work>,
    running: Option<AbortHandle>,
    /// When its modules were started.
    began: Option<Instant>,
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.abort();
        }
    }
}

/// What the loop waits for.
struct Inputs {
    actions: mpsc::Receiver<Action>,
    signals: mpsc::Receiver<()>,
    metrics: mpsc::Receiver<gantry_daemon::metrics::Asked>,
    progress: Interval,
}

impl Service {
    /// Runs until a signal, and what was being processed is returned.
    async fn run(mut self, mut inputs: Inputs) {
        for index in 0..self.hosts.len() {
            self.dial(HostIndex(index));
        }
        while !self.is_over() {
            let action = self.select(&mut inputs).await;
            self.apply(action);
        }
        for host in &self.hosts {
            if let Some(linked) = &host.linked {
                linked.connection.close(gantry_link::CloseCode::Done, "the worker leaves");
            }
        }
    }

    /// The only wait. What has arrived comes before timers.
    async fn select(&mut self, inputs: &mut Inputs) -> Action {
        let timeout = self.hosts.iter().filter_map(|host| host.grabber.next_timeout()).min();
        let timeout = timeout.map(|at| self.origin + at.since(Moment::default()));
        let busy = !self.held.is_empty();
        tokio::select! {
            biased;
            Some(()) = inputs.signals.recv() => Action::Stop,
            Some(action) = inputs.actions.recv() => action,
            Some(reply) = inputs.metrics.recv() => Action::Metrics(reply),
            Some(call) = called(&mut self.listener) => Action::Called(Box::new(call)),
            () = until(timeout) => Action::Timeout,
            () = until(self.drain_until) => Action::Timeout,
            _ = inputs.progress.tick(), if busy => Action::Progress,
        }
    }

    /// Tells the grabbers what happened, then does all that they ask for. Never waits.
    fn apply(&mut self, action: Action) {
        let now = self.now();
        match action {
            Action::Reached(index, reached) => self.on_reached(index, *reached),
            Action::Called(call) => self.on_called(*call),
            Action::Linked(index, linked) => self.on_linked(index, &linked.0, linked.1),
            Action::NotLinked(index, error) => self.on_not_linked(index, &error),
            Action::Dial(index) => self.dial(index),
            Action::LinkLost(index, number, reason) => self.on_link_lost(index, number, &reason),
            Action::Control(index, number, frame) => self.on_control(index, number, *frame),
            Action::Assigned(index, number, assigned) => self.on_assigned(index, number, *assigned),
            Action::AssignmentLost(index, number) => {
                let current = self.hosts.get_mut(index.0).filter(|host| {
                    host.linked.as_ref().is_some_and(|linked| linked.number == number)
                });
                if let Some(host) = current {
                    host.grabber.handle_assignment_lost();
                }
            }
            Action::Received(key, source) => self.on_received(key, source),
            Action::Reservation((index, message, fence), frame) => {
                self.with(index, |grabber| grabber.handle_reservation(message, fence, *frame));
            }
            Action::StreamLost((index, message, fence), reason) => {
                tracing::debug!(id = %message, reason, "reservation's stream ended");
                self.with(index, |grabber| grabber.handle_stream_lost(message, fence));
            }
            Action::Processed(key, processed) => self.on_processed(key, *processed),
            Action::Probed(modules) => self.on_probed(modules),
            // Whoever asked may have gone.
            Action::Metrics(reply) => drop(reply.send(self.metrics())),
            Action::Policy(policy) => self.on_policy(policy),
            Action::Renewed(identity) => self.on_renewed(identity),
            Action::RenewalFailed(told) => self.on_renewal_failed(told),
            Action::Progress => self.on_progress(),
            Action::Timeout => {
                self.hosts.iter_mut().for_each(|host| host.grabber.handle_timeout(now))
            }
            Action::Stop => self.on_stop(),
        }
        self.share_capacity();
        self.perform_effects();
    }

    fn now(&self) -> Moment {
        Moment::default() + self.origin.elapsed()
    }

    fn with(&mut self, index: HostIndex, act: impl FnOnce(&mut Grabber)) {
        if let Some(host) = self.hosts.get_mut(index.0) {
            act(&mut host.grabber);
        }
    }

    fn on_control(
        &mut self,
        index: HostIndex,
        number: u64,
        frame: gantry_protocol::frame::HostControl,
    ) {
        use gantry_protocol::frame::HostControl;
        let now = self.now();
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        if host.linked.as_ref().is_none_or(|linked| linked.number != number) {
            return;
        }
        match frame {
            HostControl::Peers(peers) => {
                for hint in host.monitor.handle_peers(peers.peers, now) {
                    host.grabber.handle_hint(hint);
                }
            }
            HostControl::Backlog(backlog) => {
                host.backlog = backlog;
                host.monitor.handle_backlog(backlog);
            }
            HostControl::Manage(manage) => self.on_order(index, manage.order),
            other => host.grabber.handle_control(other),
        }
    }

    /// An operator's wish, passed on by a host. Not ready counts at that host; to drain is to leave all of them.
    fn on_order(&mut self, index: HostIndex, order: Order) {
        let now = self.now();
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        tracing::info!(host = host.label(), ?order, "an operator's order");
        match order {
            Order::Ready => host.grabber.handle_order(None, now),
            Order::NotReady { reason } => host.grabber.handle_order(Some(reason), now),
            // A second stop would leave at once.
            Order::Drain { .. } if self.drain_until.is_none() => self.on_stop(),
            Order::Drain { .. } => {}
        }
    }

    fn on_assigned(&mut self, index: HostIndex, number: u64, assigned: Assigned) {
        let now = self.now();
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        let linked = host.linked.as_ref().filter(|linked| linked.number == number);
        let Some(pipeline) = linked.map(|linked| linked.pipeline.clone()) else { return };
        crash::at("assigned");
        let Assigned { assign, stream, arrived } = assigned;
        let key = (index, assign.message, assign.fence);
        host.grabber.handle_assigned(&assign, now);
        for (other, host) in self.hosts.iter_mut().enumerate() {
            host.served_last = other == index.0;
        }
        let assign = Arc::new(assign);
        let held = Held {
            assign,
            pipeline,
            stream: Some(stream),
            arrived,
            work: None,
            running: None,
            began: None,
        };
        self.held.insert(key, held);
    }

    fn on_received(&mut self, key: Key, source: gantry_scanners::api::Source) {
        crash::at("body-received");
        let now = self.now();
        let Some(held) = self.held.get(&key) else { return };
        let (prepared, work) = held.pipeline.prepare(Arc::clone(&held.assign), source);
        if let Some(held) = self.held.get_mut(&key) {
            held.work = Some(work);
            let actions = self.actions.clone();
            let running = tokio::spawn(prepared.run());
            (held.running, held.began) = (Some(running.abort_handle()), Some(Instant::now()));
            tokio::spawn(async move {
                // Stopped ones have nobody who waits for them.
                if let Ok(processed) = running.await {
                    let _ = actions.send(Action::Processed(key, Box::new(processed))).await;
                }
            });
        }
        self.with(key.0, |grabber| grabber.handle_received(key.1, key.2, now));
    }

    fn on_processed(&mut self, key: Key, processed: Processed) {
        crash::at("processed");
        let now = self.now();
        let Some(held) = self.held.get_mut(&key) else { return };
        (held.running, held.work) = (None, None);
        if let Some(host) = self.hosts.get(key.0.0) {
            self.figures.handle_processed(host.label(), &held.assign, &processed, held.began);
        }
        if let Processed::Return(returned) = &processed
            && returned.kind == ReturnKind::Unavailable
        {
            // Nothing more is wanted until the modules have been asked again; else it would come right back.
            let reason = returned.reason.clone();
            self.set_readiness(Readiness::NotReady { reason }, None);
            self.probe.notify_one();
        }
        self.with(key.0, |grabber| grabber.handle_processed(key.1, key.2, processed, now));
    }

    fn on_probed(&mut self, modules: Vec<ModuleProfile>) {
        self.look_after_certificates_in_turn();
        self.figures.handle_probed(&modules);
        let missing = self.pipeline.lacking(&modules);
        let readiness = missing.map_or(Readiness::Ready, |reason| Readiness::NotReady { reason });
        self.set_readiness(readiness, Some(modules));
    }

    /// What has begun ends under the policy with which it began. Hosts learn of the new one by a new link, which goes on
    /// with what is held.
    fn on_policy(&mut self, policy: Arc<Policy>) {
        if self.drain_until.is_some() {
            // Nothing new begins, and no new link would be made to return what is held.
            return;
        }
        let digest = policy.digest();
        tracing::info!(policy = %digest, "a new policy is in force");
        self.pipeline = self.pipeline.clone().with_policy(policy);
        for host in &mut self.hosts {
            host.grabber.handle_policy(digest);
            if let Some(linked) = &host.linked {
                linked.connection.close(gantry_link::CloseCode::Done, links::NEW_POLICY);
            }
        }
    }

    fn set_readiness(&mut self, readiness: Readiness, modules: Option<Vec<ModuleProfile>>) {
        let now = self.now();
        if self.drain_until.is_some() {
            return;
        }
        let last = self.readiness.take().map(|(_, modules)| modules);
        let modules = modules.or(last).unwrap_or_default();
        self.readiness = Some((readiness.clone(), modules.clone()));
        for host in &mut self.hosts {
            let modules = modules.clone();
            host.grabber.handle_readiness(readiness.clone(), modules, now);
        }
    }

    fn on_progress(&mut self) {
        let now = self.now();
        let progress = |(key, held): (&Key, &Held)| {
            let (work, silence) =
                held.work.as_ref().map_or((0, SILENCE_DEFAULT), |work| work.state());
            (*key, work + held.arrived.pieces(), silence)
        };
        let states: Vec<(Key, u64, Duration)> = self.held.iter().map(progress).collect();
        for ((index, message, fence), work, silence) in states {
            self.with(index, |grabber| grabber.handle_progress(message, fence, work, silence, now));
        }
    }

    fn on_stop(&mut self) {
        self.stops += 1;
        if self.drain_until.is_some() {
            return;
        }
        tracing::info!("leaving: finishing what is being processed, handing back the rest");
        let now = self.now();
        self.drain_until = Some(Instant::now() + self.drain_timeout);
        for host in &mut self.hosts {
            host.grabber.handle_drain(now);
        }
    }

    fn is_over(&self) -> bool {
        let Some(until) = self.drain_until else { return false };
        let empty = self.hosts.iter().all(|host| host.grabber.may_leave());
        empty || self.stops > 1 || Instant::now() >= until
    }
}

/// The next host that dials; never where this worker does not listen.
async fn called(listener: &mut Option<Listener>) -> Option<Call> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

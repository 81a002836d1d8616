//! Starting the worker: identity and modules first, then the links.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_link::{IdentityError, Listener, NodeIdentity, Role, ServerError};
use gantry_protocol::grabber::{self, Grabber};
use gantry_protocol::id::Incarnation;
use gantry_protocol::time::Moment;
use gantry_scanners::api::Module;
use gantry_scanners::registry::{self, BuildError};
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, MissedTickBehavior};

use super::action::{ACTIONS_MAX, Action};
use super::certificates::Certificates;
use super::link::Scratch;
use super::links::Place;
use super::{Host, Inputs, PROGRESS_EVERY, Service, probe};
use crate::config::{self, Config};
use crate::pipeline::Pipeline;
use crate::policy::{Policy, watch};

/// Bytes held at once, as a multiple of those held in memory: the rest lies in temporary files.
const BYTES_PER_MEMORY: u64 = 8;

/// Why a worker could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The address for hosts that dial cannot be had.
    #[error(transparent)]
    Listen(#[from] ServerError),
    #[error(transparent)]
    Modules(#[from] BuildError),
    /// The mistakes in the policy file, a line each.
    #[error("{0}")]
    Policy(String),
    #[error("show metrics on {address}: {source}")]
    Metrics { address: SocketAddr, source: std::io::Error },
    #[error("take signals: {0}")]
    Signals(std::io::Error),
}

/// Runs the worker until it is told to stop.
///
/// # Errors
/// What keeps it from starting. Once it runs, faults are logged and links tried again.
pub async fn run(mut config: Config) -> Result<(), RunError> {
    let modules = registry::build(std::mem::take(&mut config.modules))?;
    run_modules(config, modules).await
}

/// The same with these modules instead of the configured ones.
///
/// # Errors
/// As [`run`].
pub async fn run_modules(config: Config, modules: Vec<Arc<dyn Module>>) -> Result<(), RunError> {
    for remark in &config.remarks {
        tracing::warn!("{remark}");
    }
    let clock = gantry_link::system_clock();
    let identity =
        Arc::new(NodeIdentity::open(&config.identity_dir, &config.name, Role::Worker, &clock)?);
    let pipeline = Pipeline::new(modules, &config.name);
    let (pipeline, policy) = with_policy(pipeline, config.policy)?;
    let concurrency = pipeline.concurrency(config.concurrency);
    let incarnation = Incarnation(fastrand::u64(..));
    // The first hello already tells what the modules provide.
    let modules = probe::probe(pipeline.modules()).await;
    let grabber = grabber::Config {
        name: config.name.clone(),
        incarnation,
        tier: 0,
        policy: pipeline.policy_digest(),
        software: concat!("gantry ", env!("CARGO_PKG_VERSION")).to_owned(),
    };
    let (hosts, callers) = places(&config.hosts, &grabber);
    let listener = match config.listen {
        Some(listen) => Some(Listener::bind(listen, Arc::clone(&identity), clock)?),
        None => None,
    };
    let (actions, receiver) = mpsc::channel(ACTIONS_MAX);
    let wake = Arc::new(Notify::new());
    let mut progress = tokio::time::interval(PROGRESS_EVERY);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (asked, metrics) = mpsc::channel(1);
    if let Some(address) = config.metrics {
        gantry_daemon::metrics::open(address, asked)
            .await
            .map_err(|source| RunError::Metrics { address, source })?;
    }
    let inputs = Inputs {
        actions: receiver,
        metrics,
        signals: gantry_daemon::signals::listen().map_err(RunError::Signals)?,
        progress,
    };
    let per_message = config.memory_bytes_max / u64::try_from(concurrency).unwrap_or(1).max(1);
    let mut service = Service {
        identity,
        identity_dir: config.identity_dir,
        certificates: Certificates::default(),
        hosts,
        callers,
        listener,
        desks: 0,
        grabber,
        readiness: None,
        pipeline: pipeline.clone(),
        concurrency: concurrency as u64,
        bytes_max: config.memory_bytes_max.saturating_mul(BYTES_PER_MEMORY),
        scratch: Scratch {
            memory_bytes_max: usize::try_from(per_message).unwrap_or(usize::MAX),
            folder: Arc::new(config.scratch_dir),
        },
        held: Default::default(),
        figures: Default::default(),
        actions: actions.clone(),
        probe: Arc::clone(&wake),
        origin: Instant::now(),
        last_link: 0,
        drain_timeout: config.drain_timeout,
        drain_until: None,
        stops: 0,
    };
    tracing::info!(worker = config.name, %incarnation, concurrency, "ready");
    if let Some(listener) = &service.listener {
        tracing::info!(quic = %listener.local_addr(), "hosts may dial");
    }
    service.on_probed(modules);
    tokio::spawn(probe::run(pipeline, wake, actions.clone()));
    read_again(policy, actions)?;
    service.run(inputs).await;
    // What was told last still has to leave.
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

/// The pipeline with the policy of the file, if there is one, and what notices that it changes.
fn with_policy(
    pipeline: Pipeline,
    path: Option<PathBuf>,
) -> Result<(Pipeline, Option<watch::Watch>), RunError> {
    let Some(path) = path else { return Ok((pipeline, None)) };
    let policy = Policy::load_for(&path, &pipeline.provides());
    let current = Arc::new(policy.map_err(|told| RunError::Policy(told.join("\n")))?);
    let pipeline = pipeline.with_policy(Arc::clone(&current));
    let provides = pipeline.provides().into_iter().map(str::to_owned).collect();
    Ok((pipeline, Some(watch::Watch { path, current, provides })))
}

/// Places for the hosts that are dialled, and the entries of those that may dial.
fn places(entries: &[config::Host], grabber: &grabber::Config) -> (Vec<Host>, Vec<config::Host>) {
    let callers = entries.iter().filter(|entry| entry.name.is_some()).cloned().collect();
    let dialled = entries.iter().filter(|entry| entry.address.is_some()).map(|entry| {
        let grabber = grabber::Config { tier: entry.tier, ..grabber.clone() };
        let name = entry.name.as_ref().map(ToString::to_string);
        let place = Place { entry: entry.clone(), name };
        Host::unlinked(place, Grabber::new(grabber, Moment::default()))
    });
    (dialled.collect(), callers)
}

/// From now on, being told to read again reads the policy.
fn read_again(policy: Option<watch::Watch>, actions: mpsc::Sender<Action>) -> Result<(), RunError> {
    let mut told = gantry_daemon::signals::hangups().map_err(RunError::Signals)?;
    match policy {
        Some(policy) => drop(tokio::spawn(watch::run(policy, told, actions, Action::Policy))),
        None => drop(tokio::spawn(async move {
            while told.recv().await.is_some() {
                tracing::info!(
                    "told to read again: there is no policy file; the rest needs a restart"
                );
            }
        })),
    }
    Ok(())
}

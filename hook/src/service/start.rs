//! Starting the hook: the spool first, then the port for workers, and only then the ports for mail.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_daemon::lines::Draining;
use gantry_daemon::metrics::{self, Asked};
use gantry_link::{
    Authority, AuthorityError, IdentityError, NodeIdentity, Role, Server, ServerError,
    ServerOptions,
};
use gantry_operator::Aside;
use gantry_protocol::id::Epoch;
use gantry_protocol::pool::{self, MailboxIndex, Pool, Shelf, Shelved, WhenUnprocessed};
use gantry_protocol::time::Moment;
use tokio::sync::mpsc;
use tokio::task::JoinError;
use tokio::time::Instant;

use super::action::ACTIONS_MAX;
use super::certificates::Certificates;
use super::dial::Dialling;
use super::ways::{self, Ways};
use super::{Inputs, Service, member, retention};
use crate::admin::{self, AdminError, Orders};
use crate::audit::Audit;
use crate::config::{self, Config, Custody, HookUnprocessed, UpstreamUnprocessed};
use crate::disk::RealDisk;
use crate::intake::mark::{self, Marker, SocketError};
use crate::intake::{Clock, Gate, unix_ms};
use crate::journal::{History, Journal};
use crate::release::TraceKey;
use crate::spool::{self, Opened, Spool, SpoolError};
use crate::tls::TlsError;

/// How often the revocation list and the certificates of live links are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// Why a hook could not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("mailbox {mailbox}: listen on {address}: {source}")]
    Listen { mailbox: String, address: SocketAddr, source: io::Error },
    #[error("mailbox {mailbox}: {source}")]
    Tls { mailbox: String, source: TlsError },
    #[error("mailbox {mailbox}: make folder {path}: {source}", path = path.display())]
    Folder { mailbox: String, path: PathBuf, source: io::Error },
    #[error("mailbox {mailbox}: {reason}")]
    Pickup { mailbox: String, reason: String },
    #[error(transparent)]
    Mark(#[from] SocketError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("read {path}: {source}", path = path.display())]
    Secret { path: PathBuf, source: io::Error },
    #[error("show metrics on {address}: {source}")]
    Metrics { address: SocketAddr, source: io::Error },
    #[error("take signals: {0}")]
    Signals(io::Error),
    /// A defect, of ours.
    #[error("open spool {root}: {source}; this is a defect of Gantry's: please report it with what stands above it", root = root.display())]
    SpoolPanicked { root: PathBuf, source: JoinError },
}

/// Runs the hook until it is told to stop. `config_path` is where `config` was read, and is read again when the hook is told to.
///
/// # Errors
/// What keeps it from starting. Once it runs, faults are logged and mail is answered accordingly.
pub async fn run(config: Config, config_path: PathBuf) -> Result<(), RunError> {
    let clock = Clock::start();
    let authority = open_authority(&config)?;
    let identity = NodeIdentity::open(
        &config.identity_dir,
        &config.name,
        Role::Hook,
        &gantry_link::system_clock(),
    )?;
    let Opened { spool, found, epoch, .. } = open_spool(&config, clock).await?;
    let options = ServerOptions { clock: gantry_link::system_clock() };
    let server = Server::bind(config.listen, &identity, authority.clone(), options)?;
    let trace = Arc::new(trace_key(&config)?);
    let recovered: u64 = found.values().map(|found| found.messages).sum();
    tracing::info!(host = config.name, epoch, recovered, "spool open");
    let mut pool = pool_of(&config, found, epoch, clock.now());
    pool.set_revocations(server.trust_number());
    let (gate, intake) = Gate::new();
    let (requests, admin) = mpsc::channel(admin::REQUESTS_MAX);
    admin::listen(&config.spool, requests.clone())?;
    let orders = restore_orders(&config, &mut pool);
    // Dropped last, after what the loop said at its end.
    let (journal, _writing) = open_journal(&config);
    let ways = Ways { host: &config.name, clock, spool: &spool, gate: &gate, trace: &trace };
    let (mailboxes, marked_into) = ways::open(&config.mailboxes, &ways).await?;
    mark::listen(&config.spool, Marker::new(marked_into, gate.clone()))?;
    tracing::info!(quic = %server.local_addr(), "ready");
    let (actions, receiver) = mpsc::channel(ACTIONS_MAX);
    let metrics = show_metrics(config.metrics).await?;
    let inputs = Inputs {
        actions: receiver,
        intake,
        admin,
        metrics,
        signals: gantry_daemon::signals::listen().map_err(RunError::Signals)?,
        hangups: gantry_daemon::signals::hangups().map_err(RunError::Signals)?,
        housekeeping: tokio::time::interval(HOUSEKEEPING),
    };
    let folder = config.identity_dir.clone();
    let certificates = Certificates::new(
        folder.clone(),
        authority.clone(),
        &identity,
        gantry_link::system_clock(),
    );
    if authority.is_none() {
        tracing::info!("the authority is elsewhere: nobody can join at this host");
    }
    if authority.is_none()
        && let Some(target) = NodeIdentity::authority_host(&folder)
    {
        tokio::spawn(member::follow(target, folder, identity));
    }
    let audit = Arc::new(Audit::new(RealDisk, &config.spool));
    tokio::spawn(retention::watch_room(Arc::clone(&spool), Arc::clone(&audit)));
    let rules = [(Aside::Quarantined, config.quarantine), (Aside::Held, config.held)];
    tokio::spawn(retention::sweep(Arc::clone(&spool), rules, requests.clone()));
    let mut dialling = Dialling::default();
    dialling.set(&server.dialler(), &config.workers);
    let service = Service {
        certificates,
        dialling,
        config: config.clone(),
        config_path,
        name: config.name.clone(),
        pool,
        clock,
        spool,
        gate,
        server,
        trace,
        mailboxes,
        links: Default::default(),
        streams: Default::default(),
        answers: Default::default(),
        journal,
        audit,
        orders: Arc::new(orders),
        orders_number: 0,
        decisions: Default::default(),
        requests,
        actions,
        last_session: 0,
        started: Instant::now(),
        epoch,
        listen_at: None,
        emptying: None,
        drain_until: None,
        probe_after: Some(Instant::now()),
        stops: 0,
    };
    let spool = Arc::clone(&service.spool);
    service.run(inputs).await;
    retention::save_time(&spool).await;
    Ok(())
}

/// What the spool needs to know of the configuration; also for the commands that open it while no hook runs.
pub fn spool_options(config: &Config, clock: Clock) -> spool::Options {
    spool::Options {
        volatile_memory_bytes_max: config.limits.upstream_memory_bytes_max,
        volatile_disk_bytes_max: config.limits.upstream_disk_bytes_max,
        room: room_limits(config),
        host: config.name.clone(),
        clock: Arc::new(move || spool::Now { moment: clock.now(), unix_ms: unix_ms() }),
    }
}

/// What is over `max_bytes` and to be removed does not stop the intake.
fn room_limits(config: &Config) -> spool::RoomLimits {
    let refused_beyond = |rule: config::Retention| rule.bytes_max.filter(|_| !rule.removes_oldest);
    spool::RoomLimits {
        spool_bytes_max: config.limits.spool_bytes_max,
        free_bytes_min: config.limits.spool_free_bytes_min,
        held_bytes_max: refused_beyond(config.held),
        quarantined_bytes_max: refused_beyond(config.quarantine),
    }
}

/// A pool over what the spool holds.
pub fn pool_of(
    config: &Config,
    found: BTreeMap<(MailboxIndex, Shelf), Shelved>,
    epoch: Epoch,
    now: Moment,
) -> Pool {
    let mut pool = Pool::new(pool_config(config), epoch);
    pool.handle_opened(found, now);
    pool
}

/// Opens the spool and says what was found wrong in it.
async fn open_spool(config: &Config, clock: Clock) -> Result<Opened<RealDisk>, RunError> {
    let names: Vec<String> = config.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
    let (root, options) = (config.spool.clone(), spool_options(config, clock));
    let opened = tokio::task::spawn_blocking(move || Spool::open(RealDisk, &root, &names, options));
    let panicked = |source| RunError::SpoolPanicked { root: config.spool.clone(), source };
    let opened = opened.await.map_err(panicked)??;
    for report in &opened.reports {
        tracing::warn!(path = %report.path.display(), "spool: {}", report.what);
    }
    Ok(opened)
}

/// What operators ordered of workers outlives the hook.
fn restore_orders(config: &Config, pool: &mut Pool) -> Orders<RealDisk> {
    let orders = Orders::new(RealDisk, &config.spool);
    match orders.load() {
        Ok(kept) => pool.restore_orders(kept),
        Err(problem) => tracing::error!("{problem}"),
    }
    orders
}

/// What asks for metrics, on the address that shows them. Without one nothing ever asks.
async fn show_metrics(address: Option<SocketAddr>) -> Result<mpsc::Receiver<Asked>, RunError> {
    let (asked, asks) = mpsc::channel(1);
    if let Some(address) = address {
        metrics::open(address, asked)
            .await
            .map_err(|source| RunError::Metrics { address, source })?;
    }
    Ok(asks)
}

/// Where what befalls messages is noted, and what writes it as long as it is kept.
fn open_journal(config: &Config) -> (Journal, Option<Draining>) {
    let names = config.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
    let started = match config.history_bytes_max {
        0 => None,
        bytes_max => match History::start(&config.spool, bytes_max) {
            Ok(started) => Some(started),
            Err(error) => {
                tracing::error!("start the history: {error}; what befalls messages is not kept");
                None
            }
        },
    };
    let (history, writing) = started.unzip();
    (Journal::new(names, history), writing)
}

/// A host without the authority's key serves those who have joined already.
fn open_authority(config: &Config) -> Result<Option<Arc<Authority>>, RunError> {
    if !Authority::is_at(&config.identity_dir) {
        return Ok(None);
    }
    let authority = Authority::open(&config.identity_dir, gantry_link::system_clock())?;
    match authority.renew_host(&config.name) {
        // The certificate may still do; if not, it is refused with its reason.
        Err(AuthorityError::Offline { ended }) => {
            tracing::error!("renew this host's certificate: {}", AuthorityError::Offline { ended });
        }
        renewed => drop(renewed?),
    }
    Ok(Some(Arc::new(authority)))
}

/// The secret of the trace tokens follows from the host's private key: one secret less to keep.
pub(crate) fn trace_key(config: &Config) -> Result<TraceKey, RunError> {
    let path = config.identity_dir.join(format!("{}.key", config.name));
    let key = std::fs::read(&path).map_err(|source| RunError::Secret { path, source })?;
    let secret =
        ring::digest::digest(&ring::digest::SHA256, &[b"gantry trace\0", key.as_slice()].concat());
    Ok(TraceKey::new(config.name.clone(), secret.as_ref()))
}

fn pool_config(config: &Config) -> pool::Config {
    let mailboxes = config.mailboxes.iter().map(mailbox_config).collect();
    let reservation = config.reservation;
    pool::Config {
        beat: reservation.beat,
        beat_idle: reservation.beat_idle,
        reservation_time_max: reservation.time_max,
        silence_max: reservation.silence_max,
        attempts_max: reservation.attempts_max,
        returns_max: reservation.returns_max,
        policy_also: config.policy_also,
        ..pool::Config::new(config.name.clone(), config.policy, mailboxes)
    }
}

fn mailbox_config(mailbox: &config::Mailbox) -> pool::MailboxConfig {
    let when = match &mailbox.custody {
        Custody::Upstream { when_unprocessed, .. } => match when_unprocessed {
            UpstreamUnprocessed::TempFail => WhenUnprocessed::TempFail,
            UpstreamUnprocessed::Wait => WhenUnprocessed::Wait,
            UpstreamUnprocessed::Hold => WhenUnprocessed::Hold { after: Duration::ZERO },
            UpstreamUnprocessed::ReleaseUnscanned => {
                WhenUnprocessed::ReleaseUnscanned { after: Duration::ZERO }
            }
        },
        Custody::Hook { when_unprocessed } => match when_unprocessed {
            HookUnprocessed::Wait => WhenUnprocessed::Wait,
            HookUnprocessed::Hold { after } => WhenUnprocessed::Hold { after: *after },
            HookUnprocessed::ReleaseUnscanned { after } => {
                WhenUnprocessed::ReleaseUnscanned { after: *after }
            }
        },
    };
    let queue = mailbox.release.queue();
    pool::MailboxConfig {
        warn_after: mailbox.warn_after,
        reject_late: mailbox.reject_late,
        behind_queue: mailbox.behind_queue,
        originated: mailbox.originated.clone(),
        queue_lifetime: queue.lifetime,
        retry_min: queue.retry_first,
        retry_max: queue.retry_max,
        releases_max: mailbox.release.at_once_max(),
        ..pool::MailboxConfig::new(mailbox.name.clone(), mailbox.needs.clone(), when)
    }
}

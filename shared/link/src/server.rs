//! The host's side: one UDP port, on which workers link and nodes join.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use gantry_protocol::frame::{Hello, WorkerControl};
use gantry_protocol::limits::{
    GRABBERS_MAX, NAME_BYTES_MAX, NEEDS_MAX, RESERVATIONS_PER_GRABBER_MAX, TEXT_BYTES_MAX, VERSIONS,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::authority::Authority;
use crate::certificate;
use crate::desk::{self, JoinDesk};
use crate::identity::{Clock, Identity, NodeIdentity, Role};
use crate::link::{CONTROL_PRIORITY, Closed, HostConnection, HostLink, Wire, close};
use crate::operator::{OPERATORS_MAX, OperatorLink};
use crate::refusal::{CloseCode, Refusal};
use crate::stream::StreamError;
use crate::transport::{self, ALPN_JOIN, ALPN_OPERATOR, TlsError};
use crate::trust::{AuthorityState, Trust, TrustError};

/// Connections that are between their first packet and their hello (or the end of a join) at once. Each costs a
/// signature, so a flood of them must not fill the host.
const GREETINGS_MAX: usize = 64;
/// Beyond this many, a peer's address must be proved by a round trip before it costs anything.
const GREETINGS_UNPROVED_MAX: usize = GREETINGS_MAX / 2;
/// For the handshake, and again for the hello (or a joining node's request).
pub(crate) const GREETING_TIME_MAX: Duration = Duration::from_secs(5);
/// How long closing links are given to tell their peers.
const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(1);

/// What a server needs besides its identity.
#[derive(Clone)]
pub struct ServerOptions {
    /// For the validity of certificates.
    pub clock: Clock,
}

/// Listens for links and joins. Dropped, it closes them all.
#[derive(Debug)]
pub struct Server {
    endpoint: quinn::Endpoint,
    local: SocketAddr,
    gate: Arc<Gate>,
    incoming: mpsc::Receiver<Incoming>,
    driver: tokio::task::JoinHandle<()>,
}

/// What happened at the port.
#[derive(Debug)]
pub enum Incoming {
    /// A verified worker whose hello fits. The host answers with [`gantry_protocol::frame::Welcome`] or closes the link.
    Link(Box<Accepted>),
    /// A verified operator, who asks.
    Operator(Box<OperatorLink>),
    /// A node got a certificate, for a token or in place of the one that it has.
    Joined { remote: SocketAddr, identity: Identity },
    /// Somebody was sent away, with this sentence. Already logged; some are left out when there are too many.
    Refused { remote: SocketAddr, refusal: Refusal },
}

/// A link that waits for the host's welcome.
#[derive(Debug)]
pub struct Accepted {
    pub identity: Identity,
    pub hello: Hello,
    /// The newest version that both speak.
    pub version: u16,
    pub link: HostLink,
}

/// How a server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error("listen on {address}/udp: {source}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl Server {
    /// Binds the port; when this returns, workers can link. With an authority nodes can join, too. To be called within a tokio
    /// runtime, which then drives the port.
    ///
    /// # Errors
    /// [`ServerError::Bind`] where the address cannot be had.
    pub fn bind(
        listen: SocketAddr,
        identity: &NodeIdentity,
        authority: Option<Arc<Authority>>,
        options: ServerOptions,
    ) -> Result<Self, ServerError> {
        let config = host_config(identity)?;
        let bound = |source| ServerError::Bind { address: listen, source };
        let endpoint = quinn::Endpoint::server(config, listen).map_err(bound)?;
        let local = endpoint.local_addr().map_err(bound)?;
        let (sender, incoming) = mpsc::channel(GREETINGS_MAX);
        let gate = Arc::new(Gate {
            trust: RwLock::new(identity.trust.clone()),
            trust_path: identity.trust_path.clone(),
            stamp: Mutex::new(stamp(&identity.trust_path)),
            clock: options.clock,
            places: Arc::new(Semaphore::new(GRABBERS_MAX)),
            operators: Arc::new(Semaphore::new(OPERATORS_MAX)),
            desk: JoinDesk::new(authority, identity.trust_path.clone()),
        });
        let driver = tokio::spawn(drive(endpoint.clone(), Arc::clone(&gate), sender));
        Ok(Self { endpoint, local, gate, incoming, driver })
    }

    /// The address that was bound, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next thing that happened at the port; `None` after [`Self::shutdown`]. May be cancelled.
    pub async fn accept(&mut self) -> Option<Incoming> {
        loop {
            let incoming = self.incoming.recv().await?;
            // It may have waited here while its certificate was revoked.
            let refused = match &incoming {
                Incoming::Link(accepted) => self.check(&accepted.identity).map_err(|refusal| {
                    accepted.link.connection.close(refusal.code, &refusal.text);
                }),
                Incoming::Operator(link) => self.check(link.identity()).map_err(|refusal| {
                    link.close(&refusal);
                }),
                Incoming::Joined { .. } | Incoming::Refused { .. } => Ok(()),
            };
            if refused.is_ok() {
                return Some(incoming);
            }
        }
    }

    /// How much [`Self::accept`] would give out at once.
    #[cfg(test)]
    pub(crate) fn waiting(&self) -> usize {
        self.incoming.len()
    }

    /// Whether a peer's certificate still counts: not revoked, not expired, of an authority that is trusted. For live links, after each reload and now and then.
    ///
    /// # Errors
    /// The reason, to close the link with.
    pub fn check(&self, identity: &Identity) -> Result<(), Refusal> {
        self.gate.trust().check(identity)?;
        if identity.expires < (self.gate.clock)() {
            let text = format!("the certificate of {} has expired; join again", identity.name);
            return Err(Refusal::new(CloseCode::Expired, text));
        }
        Ok(())
    }

    /// The authorities that are trusted, oldest first.
    pub fn authorities(&self) -> Vec<AuthorityState> {
        self.gate.trust().state()
    }

    /// The number of the trust list in use.
    pub fn trust_number(&self) -> u64 {
        self.gate.trust().number()
    }

    /// Reads the trust list again where its file has changed, and says whether it has. Two system calls where not.
    ///
    /// # Errors
    /// [`Self::reload`]'s.
    pub fn reload_if_changed(&self) -> Result<bool, TrustError> {
        let now = stamp(&self.gate.trust_path);
        if *self.gate.stamp.lock().unwrap_or_else(PoisonError::into_inner) == now {
            return Ok(false);
        }
        self.reload()?;
        Ok(true)
    }

    /// Reads the trust list again.
    ///
    /// # Errors
    /// Where it is not signed by an authority, older than the one in use, or unreadable; the one in use stays.
    pub fn reload(&self) -> Result<(), TrustError> {
        let gate = &self.gate;
        // Taken before reading: a change in between is then seen next time.
        let now = stamp(&gate.trust_path);
        *gate.stamp.lock().unwrap_or_else(PoisonError::into_inner) = now;
        let newer = Trust::load(&gate.trust_path)?;
        gate.trust.write().unwrap_or_else(PoisonError::into_inner).replace(newer)
    }

    /// Shows new peers a renewed certificate of this host (see [`Authority::renew_host`]). Links that stand are not touched.
    ///
    /// # Errors
    /// Where TLS does not take it; the one in use stays.
    pub fn use_identity(&self, identity: &NodeIdentity) -> Result<(), TlsError> {
        self.endpoint.set_server_config(Some(host_config(identity)?));
        Ok(())
    }

    /// Closes every link with this sentence. The port is free when the last part of a link is dropped, too.
    pub async fn shutdown(self, code: CloseCode, text: &str) {
        let refusal = Refusal::new(code, text);
        self.endpoint.close(refusal.code.number(), refusal.text.as_bytes());
        // Peers that do not answer are not waited for.
        let _ = timeout(SHUTDOWN_TIME_MAX, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let refusal = Refusal::new(CloseCode::ShuttingDown, "the host is shutting down");
        // A second close changes nothing.
        self.endpoint.close(refusal.code.number(), refusal.text.as_bytes());
        self.driver.abort();
    }
}

fn host_config(identity: &NodeIdentity) -> Result<quinn::ServerConfig, TlsError> {
    // Its authority's certificate goes along, so that who joins can compare it with its token.
    let authority = identity.trust.authority(identity.identity.authority);
    let authority = authority.map(|authority| authority.certificate.clone());
    let chain = [identity.certificate.clone()].into_iter().chain(authority).collect();
    transport::server_config(chain, identity.key.clone_key())
}

/// The newest version that a peer and we speak.
pub fn common_version(peer_min: u16, peer_max: u16) -> Option<u16> {
    let version = peer_max.min(VERSIONS.1);
    (version >= peer_min.max(VERSIONS.0)).then_some(version)
}

/// What every greeting looks at.
struct Gate {
    trust: RwLock<Trust>,
    trust_path: PathBuf,
    /// The list's file as last read.
    stamp: Mutex<Stamp>,
    clock: Clock,
    /// One for each link.
    places: Arc<Semaphore>,
    /// One for each operator's connection.
    operators: Arc<Semaphore>,
    desk: JoinDesk,
}

/// Changes when a file is replaced: time of its last change, and length.
type Stamp = Option<(Option<SystemTime>, u64)>;

fn stamp(path: &std::path::Path) -> Stamp {
    std::fs::metadata(path).ok().map(|file| (file.modified().ok(), file.len()))
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate").finish_non_exhaustive()
    }
}

impl Gate {
    fn trust(&self) -> std::sync::RwLockReadGuard<'_, Trust> {
        self.trust.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn verify(&self, quic: &quinn::Connection, role: Role) -> Result<Identity, Refusal> {
        let chain = transport::peer_chain(quic);
        let now = (self.clock)();
        certificate::verify(&chain, &self.trust(), role, now)
    }

    /// A node of the cluster, in whatever role.
    fn verify_member(&self, quic: &quinn::Connection) -> Result<Identity, Refusal> {
        let chain = transport::peer_chain(quic);
        let now = (self.clock)();
        certificate::verify_any_role(&chain, &self.trust(), now)
    }
}

/// Takes connections; each is greeted by a task of its own, so that a slow one keeps nobody waiting.
async fn drive(endpoint: quinn::Endpoint, gate: Arc<Gate>, sender: mpsc::Sender<Incoming>) {
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    while let Some(incoming) = endpoint.accept().await {
        let Ok(permit) = Arc::clone(&greetings).try_acquire_owned() else {
            incoming.refuse();
            continue;
        };
        let busy = GREETINGS_MAX - greetings.available_permits() > GREETINGS_UNPROVED_MAX;
        if busy && !incoming.remote_address_validated() && incoming.may_retry() {
            // It fails only where `may_retry` is false.
            let _ = incoming.retry();
            continue;
        }
        let (gate, sender) = (Arc::clone(&gate), sender.clone());
        tokio::spawn(async move {
            greet(incoming, &gate, &sender).await;
            drop(permit);
        });
    }
}

/// One connection from its first packet to what [`Server::accept`] gives out.
async fn greet(incoming: quinn::Incoming, gate: &Gate, sender: &mpsc::Sender<Incoming>) {
    let remote = incoming.remote_address();
    let connecting = async { incoming.accept()?.await };
    let quic = match timeout(GREETING_TIME_MAX, connecting).await {
        Ok(Ok(quic)) => quic,
        Ok(Err(error)) => return debug!(%remote, "handshake failed: {error}"),
        Err(_) => return debug!(%remote, "handshake took too long"),
    };
    let outcome = match transport::alpn(&quic).as_deref() {
        Some(ALPN_JOIN) => {
            match desk::serve(&quic, &gate.desk, || gate.verify_member(&quic)).await {
                Ok(Some(identity)) => Ok(Incoming::Joined { remote, identity }),
                Ok(None) => return debug!(%remote, "exchanged trust lists"),
                Err(refusal) => Err(refusal),
            }
        }
        Some(ALPN_OPERATOR) => operator(&quic, gate).map(Box::new).map(Incoming::Operator),
        _ => {
            let linked = timeout(GREETING_TIME_MAX, link(&quic, gate)).await;
            linked.unwrap_or_else(|_| Err(said_nothing())).map(Box::new).map(Incoming::Link)
        }
    };
    match outcome {
        Ok(incoming) => {
            if let Incoming::Joined { identity, .. } = &incoming {
                info!(%remote, name = identity.name, role = %identity.role, "certified");
            }
            // It fails only when the server is gone.
            let _ = sender.send(incoming).await;
        }
        Err(refusal) => {
            warn!(%remote, "refused: {refusal}");
            close(&quic, &refusal);
            // A flood of refusals must not keep links waiting: what does not fit has been logged.
            let _ = sender.try_send(Incoming::Refused { remote, refusal });
        }
    }
}

/// For a peer that does not say in time what it must say first.
pub(crate) fn said_nothing() -> Refusal {
    let text = format!("nothing was said for {} seconds", GREETING_TIME_MAX.as_secs());
    Refusal::new(CloseCode::Limit, text)
}

/// Verifies an operator; what is asked is read later.
fn operator(quic: &quinn::Connection, gate: &Gate) -> Result<OperatorLink, Refusal> {
    let identity = gate.verify(quic, Role::Operator)?;
    let place = Arc::clone(&gate.operators).try_acquire_owned().map_err(|_| {
        let text = format!("{OPERATORS_MAX} operators are connected already, which is the most");
        Refusal::new(CloseCode::Limit, text)
    })?;
    let wire = Wire { quic: quic.clone(), peer: Arc::new(identity) };
    Ok(OperatorLink::new(wire, place))
}

/// Verifies the peer, and only then reads its hello.
async fn link(quic: &quinn::Connection, gate: &Gate) -> Result<Accepted, Refusal> {
    let identity = gate.verify(quic, Role::Worker)?;
    let place = Arc::clone(&gate.places).try_acquire_owned().map_err(|_| {
        let text = format!("{GRABBERS_MAX} workers are linked already, which is the most");
        Refusal::new(CloseCode::Limit, text)
    })?;
    let wire = Wire { quic: quic.clone(), peer: Arc::new(identity.clone()) };
    let (sender, mut receiver) = wire.accept().await.map_err(|error| misbehaved(&error))?;
    sender.set_priority(CONTROL_PRIORITY);
    let hello = match receiver.recv().await {
        Ok(Some(WorkerControl::Hello(hello))) => hello,
        Ok(_) => {
            let text = "the first frame was no hello";
            return Err(Refusal::new(CloseCode::Misbehaved, text));
        }
        Err(error) => return Err(misbehaved(&error)),
    };
    let identity = certificate::check_name(identity, &hello.name)?;
    check_bounds(&hello)?;
    let Some(version) = common_version(hello.version_min, hello.version_max) else {
        let text = format!(
            "no common version: the worker speaks {} to {}, the host {} to {}",
            hello.version_min, hello.version_max, VERSIONS.0, VERSIONS.1
        );
        return Err(Refusal::new(CloseCode::NoCommonVersion, text));
    };
    let connection = HostConnection { wire, _place: Arc::new(place) };
    let link = HostLink { sender, receiver, connection };
    Ok(Accepted { identity, hello, version, link })
}

/// A hello's lists and texts against the protocol's bounds.
fn check_bounds(hello: &Hello) -> Result<(), Refusal> {
    let what = if hello.resume.len() > RESERVATIONS_PER_GRABBER_MAX {
        "reservations to resume"
    } else if hello.provides.len() > NEEDS_MAX
        || hello.provides.iter().any(|need| need.len() > NAME_BYTES_MAX)
    {
        "needs"
    } else if hello.software.len() > TEXT_BYTES_MAX {
        "name of its software"
    } else {
        return Ok(());
    };
    let text = format!("the hello is over the protocol's bounds: {what}");
    Err(Refusal::new(CloseCode::Misbehaved, text))
}

/// For the peer's mistakes a sentence; what it closed itself is repeated.
fn misbehaved(error: &StreamError) -> Refusal {
    match error {
        StreamError::LinkLost(Closed::ByPeer { code, text }) => {
            Refusal::new(*code, format!("the worker closed the link: {text}"))
        }
        error => Refusal::new(CloseCode::Misbehaved, format!("read the hello: {error}")),
    }
}

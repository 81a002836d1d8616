//! The host's side: one UDP port, on which workers link and nodes join. Links to workers that it dials itself
//! ([`Dialler`]) come out at the same place.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use gantry_protocol::frame::{Hello, HostControl, WorkerControl};
use gantry_protocol::limits::{
    GRABBERS_MAX, NAME_BYTES_MAX, NEEDS_MAX, RESERVATIONS_PER_GRABBER_MAX, TEXT_BYTES_MAX, VERSIONS,
};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use crate::accept::{GREETING_TIME_MAX, GREETINGS_MAX, drive, said_nothing};
use crate::authority::Authority;
use crate::certificate;
use crate::desk::{self, JoinDesk};
use crate::dialler::Dialler;
use crate::identity::{Clock, Identity, NodeIdentity, Role};
use crate::link::{CONTROL_PRIORITY, Closed, HostConnection, HostLink, Wire, close};
use crate::name::NameMask;
use crate::operator::{OPERATORS_MAX, OperatorLink};
use crate::refusal::{CloseCode, Refusal};
use crate::stream::{FrameReceiver, FrameSender, StreamError};
use crate::transport::{
    self, ALPN_JOIN, ALPN_LINK, ALPN_OPERATOR, Shown, TlsError, host_transport,
};
use crate::trust::{AuthorityState, Trust, TrustError};

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
    sender: mpsc::Sender<Incoming>,
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
        let shown = Mutex::new(shown_by(identity));
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
            shown,
            linked: Mutex::default(),
        });
        let (greeting, given) = (Arc::clone(&gate), sender.clone());
        let driver = tokio::spawn(drive(endpoint.clone(), move |quic| {
            let (gate, sender) = (Arc::clone(&greeting), given.clone());
            async move { greet(&quic, &gate, &sender).await }
        }));
        Ok(Self { endpoint, local, gate, incoming, sender, driver })
    }

    /// The address that was bound, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// Dials workers, for a host that they cannot reach. Their links come out of [`Self::accept`].
    pub fn dialler(&self) -> Dialler {
        Dialler::new(Arc::clone(&self.gate), self.sender.clone())
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
        *self.gate.shown.lock().unwrap_or_else(PoisonError::into_inner) = shown_by(identity);
        Ok(())
    }

    /// Closes every link with this sentence. The port is free when the last part of a link is dropped, too.
    pub async fn shutdown(self, code: CloseCode, text: &str) {
        let refusal = Refusal::new(code, text);
        self.endpoint.close(refusal.code.number(), refusal.text.as_bytes());
        self.gate.hang_up(&refusal);
        // Peers that do not answer are not waited for.
        let _ = timeout(SHUTDOWN_TIME_MAX, self.endpoint.wait_idle()).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let refusal = Refusal::new(CloseCode::ShuttingDown, "the host is shutting down");
        // A second close changes nothing.
        self.endpoint.close(refusal.code.number(), refusal.text.as_bytes());
        self.gate.hang_up(&refusal);
        self.driver.abort();
    }
}

fn host_config(identity: &NodeIdentity) -> Result<quinn::ServerConfig, TlsError> {
    let alpns = [ALPN_LINK, ALPN_JOIN, ALPN_OPERATOR];
    transport::server_config(shown_by(identity), &alpns, host_transport())
}

/// Its authority's certificate goes along, so that who joins can compare it with its token.
pub(crate) fn shown_by(identity: &NodeIdentity) -> Shown {
    let authority = identity.trust.authority(identity.identity.authority);
    let authority = authority.map(|authority| authority.certificate.clone());
    let chain = [identity.certificate.clone()].into_iter().chain(authority).collect();
    (chain, identity.key.clone_key())
}

/// The newest version that a peer and we speak.
pub fn common_version(peer_min: u16, peer_max: u16) -> Option<u16> {
    let version = peer_max.min(VERSIONS.1);
    (version >= peer_min.max(VERSIONS.0)).then_some(version)
}

/// What every greeting looks at, whoever dialled.
pub(crate) struct Gate {
    trust: RwLock<Trust>,
    trust_path: PathBuf,
    /// The list's file as last read.
    stamp: Mutex<Stamp>,
    clock: Clock,
    /// One for each link.
    places: Arc<Semaphore>,
    /// One for each operator's connection.
    operators: Arc<Semaphore>,
    pub(crate) desk: JoinDesk,
    /// What is shown to those who are dialled.
    pub(crate) shown: Mutex<Shown>,
    /// Links that stand, for the dialler: a worker that is linked is not dialled.
    linked: Mutex<Vec<(String, quinn::Connection)>>,
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

    /// Whether a worker has a link that stands.
    pub(crate) fn is_linked(&self, expected: &NameMask) -> bool {
        let linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.iter().any(|(name, quic)| quic.close_reason().is_none() && expected.covers(name))
    }

    fn note_linked(&self, wire: &Wire) {
        let mut linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.retain(|(_, quic)| quic.close_reason().is_none());
        linked.push((wire.peer.name.clone(), wire.quic.clone()));
    }

    /// Those that were dialled are not the port's, and do not end with it.
    fn hang_up(&self, refusal: &Refusal) {
        let linked = self.linked.lock().unwrap_or_else(PoisonError::into_inner);
        linked.iter().for_each(|(_, quic)| close(quic, refusal));
    }

    /// A node of the cluster, in whatever role.
    pub(crate) fn verify_member(&self, quic: &quinn::Connection) -> Result<Identity, Refusal> {
        let chain = transport::peer_chain(quic);
        let now = (self.clock)();
        certificate::verify_any_role(&chain, &self.trust(), now)
    }
}

/// One connection from its handshake to what [`Server::accept`] gives out.
async fn greet(quic: &quinn::Connection, gate: &Gate, sender: &mpsc::Sender<Incoming>) {
    let remote = quic.remote_address();
    let outcome = match transport::alpn(quic).as_deref() {
        Some(ALPN_JOIN) => match desk::serve(quic, &gate.desk, || gate.verify_member(quic)).await {
            Ok(Some(identity)) => Ok(Incoming::Joined { remote, identity }),
            Ok(None) => return debug!(%remote, "exchanged trust lists"),
            Err(refusal) => Err(refusal),
        },
        Some(ALPN_OPERATOR) => operator(quic, gate).map(Box::new).map(Incoming::Operator),
        _ => link(quic, gate, None).await.map(Box::new).map(Incoming::Link),
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
            close(quic, &refusal);
            // A flood of refusals must not keep links waiting: what does not fit has been logged.
            let _ = sender.try_send(Incoming::Refused { remote, refusal });
        }
    }
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

/// Verifies the peer, and only then reads its hello. One that was dialled must have a name that is `expected`.
pub(crate) async fn link(
    quic: &quinn::Connection,
    gate: &Gate,
    expected: Option<&NameMask>,
) -> Result<Accepted, Refusal> {
    let identity = gate.verify(quic, Role::Worker)?;
    if let Some(mask) = expected.filter(|mask| !mask.covers(&identity.name)) {
        let text = format!("{mask} was looked for at this address, and {} is here", identity.name);
        return Err(Refusal::new(CloseCode::NameMismatch, text));
    }
    let place = Arc::clone(&gate.places).try_acquire_owned().map_err(|_| {
        let text = format!("{GRABBERS_MAX} workers are linked already, which is the most");
        Refusal::new(CloseCode::Limit, text)
    })?;
    let wire = Wire { quic: quic.clone(), peer: Arc::new(identity.clone()) };
    let greeting = timeout(GREETING_TIME_MAX, read_hello(&wire)).await;
    let (sender, receiver, hello) = greeting.unwrap_or_else(|_| Err(said_nothing()))?;
    let identity = certificate::check_name(identity, &hello.name)?;
    check_bounds(&hello)?;
    let Some(version) = common_version(hello.version_min, hello.version_max) else {
        let text = format!(
            "no common version: the worker speaks {} to {}, the host {} to {}",
            hello.version_min, hello.version_max, VERSIONS.0, VERSIONS.1
        );
        return Err(Refusal::new(CloseCode::NoCommonVersion, text));
    };
    gate.note_linked(&wire);
    let connection = HostConnection { wire, _place: Arc::new(place) };
    let link = HostLink { sender, receiver, connection };
    Ok(Accepted { identity, hello, version, link })
}

/// The worker opens the control stream, whoever dialled, and its first frame is the hello.
async fn read_hello(
    wire: &Wire,
) -> Result<(FrameSender<HostControl>, FrameReceiver<WorkerControl>, Hello), Refusal> {
    let (sender, mut receiver) = wire.accept().await.map_err(|error| misbehaved(&error))?;
    sender.set_priority(CONTROL_PRIORITY);
    match receiver.recv().await {
        Ok(Some(WorkerControl::Hello(hello))) => Ok((sender, receiver, hello)),
        Ok(_) => Err(Refusal::new(CloseCode::Misbehaved, "the first frame was no hello")),
        Err(error) => Err(misbehaved(&error)),
    }
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

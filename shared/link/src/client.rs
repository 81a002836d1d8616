//! The worker's side of a link: to a host that it has dialled, or that has dialled it.
//!
//! Whoever dialled, the worker says hello on a stream that it opens, and the host welcomes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::frame::{Hello, HostControl, Welcome, WorkerControl};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

use crate::certificate;
use crate::identity::{Clock, Identity, NodeIdentity, Role};
use crate::link::{CONTROL_PRIORITY, Closed, Wire, WorkerConnection, WorkerLink, close};
use crate::refusal::{CloseCode, Refusal};
use crate::stream::StreamError;
use crate::transport::{self, ALPN_LINK, SERVER_NAME, Shown, TlsError, worker_transport};

/// Addresses of one name that are tried, in the resolver's order.
const ADDRESSES_MAX: usize = 8;

/// How a link is made.
#[derive(Clone)]
pub struct ConnectOptions {
    /// For the validity of the peer's certificate.
    pub clock: Clock,
    /// For each address of the peer, from the first packet to its verification; and again for the greeting.
    pub time_max: Duration,
}

/// How a link was not made. The same for both sides: who dials may be the worker or the host.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer said no. Both sides have the sentence.
    #[error("link to {target}: it refuses: {refusal}")]
    Refused { target: String, refusal: Refusal },
    /// We said no. Both sides have the sentence.
    #[error("link to {target}: it is not to be trusted: {refusal}")]
    PeerRefused { target: String, refusal: Refusal },
    /// Nobody answered, or the link broke before the welcome. Worth another try.
    #[error("link to {target}: {reason}")]
    Unreachable { target: String, reason: String },
}

impl LinkError {
    /// Whether another try without somebody's doing can succeed: nobody answered, or the peer is going down or full. What is
    /// refused is tried again, too, since somebody may act at the other side, but slowly.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { refusal, .. } => {
                matches!(refusal.code, CloseCode::ShuttingDown | CloseCode::Limit)
            }
            Self::PeerRefused { .. } => false,
        }
    }
}

/// A verified host, to which nothing has been said yet. Dropped, it is hung up on.
#[derive(Debug)]
pub struct ReachedHost {
    target: String,
    wire: Wire,
    greeted: bool,
}

/// Links to the host at `target` (`name:port` or `address:port`): verifies it, says hello, waits for its welcome.
///
/// # Errors
/// [`LinkError`], with the host's sentence where it said no.
pub async fn connect(
    target: &str,
    identity: &NodeIdentity,
    hello: &Hello,
    options: &ConnectOptions,
) -> Result<(Welcome, WorkerLink), LinkError> {
    reach(target, identity, options).await?.greet(hello, options.time_max).await
}

/// Dials the host at `target` (`name:port` or `address:port`) and verifies it.
///
/// # Errors
/// [`LinkError::Unreachable`] where nobody answers, [`LinkError::PeerRefused`] where it is no host of the cluster.
pub async fn reach(
    target: &str,
    identity: &NodeIdentity,
    options: &ConnectOptions,
) -> Result<ReachedHost, LinkError> {
    let own = (vec![identity.certificate.clone()], identity.key.clone_key());
    let quic = dial_any(target, &own, ALPN_LINK, worker_transport, options.time_max).await?;
    ReachedHost::verified(quic, target.to_owned(), identity, &options.clock)
}

impl ReachedHost {
    /// Whoever it is, it is a host of the cluster, or is hung up on with the reason.
    pub(crate) fn verified(
        quic: quinn::Connection,
        target: String,
        identity: &NodeIdentity,
        clock: &Clock,
    ) -> Result<Self, LinkError> {
        let chain = transport::peer_chain(&quic);
        match certificate::verify(&chain, &identity.trust, Role::Hook, clock()) {
            Ok(host) => {
                let wire = Wire { quic, peer: Arc::new(host) };
                Ok(Self { target, wire, greeted: false })
            }
            Err(refusal) => {
                close(&quic, &refusal);
                Err(LinkError::PeerRefused { target, refusal })
            }
        }
    }

    /// Who it is, by its verified certificate.
    pub fn identity(&self) -> &Identity {
        &self.wire.peer
    }

    pub(crate) fn quic(&self) -> &quinn::Connection {
        &self.wire.quic
    }

    /// Hangs up. The host sees code and sentence.
    pub fn refuse(self, refusal: &Refusal) {
        close(&self.wire.quic, refusal);
    }

    /// Says hello and waits for the welcome, for at most `time_max`.
    ///
    /// # Errors
    /// [`LinkError`], with the host's sentence where it said no.
    pub async fn greet(
        mut self,
        hello: &Hello,
        time_max: Duration,
    ) -> Result<(Welcome, WorkerLink), LinkError> {
        let failure = match timeout(time_max, greet(&self.wire, hello)).await {
            Ok(Ok(linked)) => {
                self.greeted = true;
                return Ok(linked);
            }
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Unreachable("it does not answer the hello".to_owned()),
        };
        if let Failure::PeerRefused(refusal) = &failure {
            close(&self.wire.quic, refusal);
        }
        Err(failure.at(&self.target))
    }
}

impl Drop for ReachedHost {
    fn drop(&mut self) {
        if !self.greeted {
            // A second close changes nothing.
            close(&self.wire.quic, &Refusal::new(CloseCode::Done, "nothing is to be said"));
        }
    }
}

/// Dials the addresses of `target` until one answers; nobody is verified yet.
pub(crate) async fn dial_any(
    target: &str,
    own: &Shown,
    alpn: &[u8],
    transport: fn() -> quinn::TransportConfig,
    time_max: Duration,
) -> Result<quinn::Connection, LinkError> {
    let mut last = "the name has no address".to_owned();
    for address in resolve(target).await? {
        let own = (own.0.clone(), own.1.clone_key());
        match timeout(time_max, dial_as(address, Some(own), alpn, transport())).await {
            Ok(Ok((_, quic))) => return Ok(quic),
            Ok(Err(error)) => last = error.to_string(),
            Err(_) => last = format!("{address} does not answer"),
        }
    }
    Err(LinkError::Unreachable { target: target.to_owned(), reason: last })
}

/// The addresses of `target`.
pub(crate) async fn resolve(target: &str) -> Result<Vec<SocketAddr>, LinkError> {
    let addresses =
        tokio::net::lookup_host(target).await.map_err(|error| LinkError::Unreachable {
            target: target.to_owned(),
            reason: format!("look up the address: {error}"),
        })?;
    Ok(addresses.take(ADDRESSES_MAX).collect())
}

/// A worker's or operator's one certificate, which the other end can read without the authority's, and its key.
type Own = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// A QUIC connection to `address`, whose other end is not verified yet.
pub(crate) async fn dial(
    address: SocketAddr,
    own: Option<Own>,
    alpn: &[u8],
) -> Result<quinn::Connection, DialError> {
    dial_from(address, own, alpn).await.map(|(_, quic)| quic)
}

/// As [`dial`], with the endpoint that the connection is of, for who wants to wait until its end has left.
pub(crate) async fn dial_from(
    address: SocketAddr,
    own: Option<Own>,
    alpn: &[u8],
) -> Result<(quinn::Endpoint, quinn::Connection), DialError> {
    let own = own.map(|(certificate, key)| (vec![certificate], key));
    dial_as(address, own, alpn, worker_transport()).await
}

async fn dial_as(
    address: SocketAddr,
    own: Option<Shown>,
    alpn: &[u8],
    transport: quinn::TransportConfig,
) -> Result<(quinn::Endpoint, quinn::Connection), DialError> {
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let endpoint = quinn::Endpoint::client(SocketAddr::new(any, 0))?;
    let config = transport::client_config(own, alpn, transport)?;
    let quic = endpoint.connect_with(config, address, SERVER_NAME)?.await?;
    Ok((endpoint, quic))
}

/// How not even a connection was made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DialError {
    #[error("open a UDP socket: {0}")]
    Socket(#[from] std::io::Error),
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Connect(#[from] quinn::ConnectError),
    #[error(transparent)]
    Connection(#[from] quinn::ConnectionError),
}

enum Failure {
    Refused(Refusal),
    PeerRefused(Refusal),
    Unreachable(String),
}

impl Failure {
    fn at(self, target: &str) -> LinkError {
        let target = target.to_owned();
        match self {
            Self::Refused(refusal) => LinkError::Refused { target, refusal },
            Self::PeerRefused(refusal) => LinkError::PeerRefused { target, refusal },
            Self::Unreachable(reason) => LinkError::Unreachable { target, reason },
        }
    }
}

impl From<StreamError> for Failure {
    fn from(error: StreamError) -> Self {
        match error {
            StreamError::LinkLost(Closed::ByPeer { code, text }) => {
                Self::Refused(Refusal::new(code, text))
            }
            error if error.is_misbehaviour() => {
                Self::PeerRefused(Refusal::new(CloseCode::Misbehaved, error.to_string()))
            }
            error => Self::Unreachable(error.to_string()),
        }
    }
}

/// What a worker says to a verified host, and hears.
async fn greet(wire: &Wire, hello: &Hello) -> Result<(Welcome, WorkerLink), Failure> {
    let (mut sender, mut receiver) = wire.open().await?;
    sender.set_priority(CONTROL_PRIORITY);
    // The refusal says more than the write that fails with it, so it is looked for even then.
    let sent = sender.send(&WorkerControl::Hello(hello.clone())).await;
    let welcome = match receiver.recv().await? {
        Some(HostControl::Welcome(welcome)) => welcome,
        Some(HostControl::Refused(refused)) => {
            return Err(Failure::Refused(Refusal::new(refused.code.into(), refused.text)));
        }
        Some(_) => {
            let text = "the host's first frame was no welcome";
            return Err(Failure::PeerRefused(Refusal::new(CloseCode::Misbehaved, text)));
        }
        None => return Err(Failure::Unreachable("the host ended the link silently".to_owned())),
    };
    sent?;
    if welcome.host != wire.peer.name {
        let peer = Identity::clone(&wire.peer);
        let refused = certificate::check_name(peer, &welcome.host);
        return Err(Failure::PeerRefused(refused.err().unwrap_or_else(|| {
            Refusal::new(CloseCode::NameMismatch, "the host's name does not fit")
        })));
    }
    let connection = WorkerConnection { wire: wire.clone() };
    Ok((welcome, WorkerLink { sender, receiver, connection }))
}

//! The worker's side: making a link to a host.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::frame::{Hello, HostControl, Welcome, WorkerControl};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::time::timeout;

use crate::certificate;
use crate::identity::{Clock, NodeIdentity, Role};
use crate::link::{CONTROL_PRIORITY, Closed, Wire, WorkerConnection, WorkerLink, close};
use crate::refusal::{CloseCode, Refusal};
use crate::stream::StreamError;
use crate::transport::{self, ALPN_LINK, SERVER_NAME, TlsError};

/// Addresses of one host name that are tried, in the resolver's order.
const ADDRESSES_MAX: usize = 8;

/// How a link is made.
#[derive(Clone)]
pub struct ConnectOptions {
    /// For the validity of the host's certificate.
    pub clock: Clock,
    /// For each address of the host, from the first packet to the welcome.
    pub time_max: Duration,
}

/// How a link was not made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The host said no. Both sides have the sentence.
    #[error("link to {target}: the host refuses it: {refusal}")]
    Refused { target: String, refusal: Refusal },
    /// We said no. Both sides have the sentence.
    #[error("link to {target}: the host is not to be trusted: {refusal}")]
    HostRefused { target: String, refusal: Refusal },
    /// Nobody answered, or the link broke before the welcome. Worth another try.
    #[error("link to {target}: {reason}")]
    Unreachable { target: String, reason: String },
}

impl LinkError {
    /// Whether another try without somebody's doing can succeed: nobody answered, or the host is going down or full. What is
    /// refused is tried again, too, since somebody may act at the other side, but slowly.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { refusal, .. } => {
                matches!(refusal.code, CloseCode::ShuttingDown | CloseCode::Limit)
            }
            Self::HostRefused { .. } => false,
        }
    }
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
    let own = (identity.certificate.clone(), identity.key.clone_key());
    let mut last = None;
    for address in resolve(target).await? {
        let attempt = async {
            let quic =
                dial(address, Some(own_clone(&own)), ALPN_LINK).await.map_err(Failure::passing)?;
            let outcome = greet(&quic, identity, hello, options).await;
            if let Err(Failure::HostRefused(refusal)) = &outcome {
                close(&quic, refusal);
            }
            outcome
        };
        let failure = match timeout(options.time_max, attempt).await {
            Ok(Ok(linked)) => return Ok(linked),
            Ok(Err(failure)) => failure,
            Err(_) => Failure::Unreachable(format!("{address} does not answer")),
        };
        let passing = matches!(failure, Failure::Unreachable(_));
        last = Some(failure.at(target));
        if !passing {
            break;
        }
    }
    Err(last
        .unwrap_or_else(|| Failure::Unreachable("the name has no address".to_owned()).at(target)))
}

type Own = (CertificateDer<'static>, PrivateKeyDer<'static>);

fn own_clone(own: &Own) -> Own {
    (own.0.clone(), own.1.clone_key())
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
    let any = match address {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let endpoint = quinn::Endpoint::client(SocketAddr::new(any, 0))?;
    let config = transport::client_config(own, alpn)?;
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
    HostRefused(Refusal),
    Unreachable(String),
}

impl Failure {
    fn passing(error: impl std::fmt::Display) -> Self {
        Self::Unreachable(error.to_string())
    }

    fn at(self, target: &str) -> LinkError {
        let target = target.to_owned();
        match self {
            Self::Refused(refusal) => LinkError::Refused { target, refusal },
            Self::HostRefused(refusal) => LinkError::HostRefused { target, refusal },
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
                Self::HostRefused(Refusal::new(CloseCode::Misbehaved, error.to_string()))
            }
            error => Self::Unreachable(error.to_string()),
        }
    }
}

async fn greet(
    quic: &quinn::Connection,
    identity: &NodeIdentity,
    hello: &Hello,
    options: &ConnectOptions,
) -> Result<(Welcome, WorkerLink), Failure> {
    let chain = transport::peer_chain(quic);
    let host = certificate::verify(&chain, &identity.trust, Role::Hook, (options.clock)())
        .map_err(Failure::HostRefused)?;
    let wire = Wire { quic: quic.clone(), peer: Arc::new(host) };
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
            return Err(Failure::HostRefused(Refusal::new(CloseCode::Misbehaved, text)));
        }
        None => return Err(Failure::Unreachable("the host ended the link silently".to_owned())),
    };
    sent?;
    if welcome.host != wire.peer.name {
        let peer = Arc::unwrap_or_clone(wire.peer);
        let refused = certificate::check_name(peer, &welcome.host);
        return Err(Failure::HostRefused(refused.err().unwrap_or_else(|| {
            Refusal::new(CloseCode::NameMismatch, "the host's name does not fit")
        })));
    }
    let connection = WorkerConnection { wire };
    Ok((welcome, WorkerLink { sender, receiver, connection }))
}

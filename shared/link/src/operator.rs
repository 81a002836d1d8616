//! Operators at a host: a connection of their own (`gantry-op/1`) on the same port, verified by certificates of the role
//! operator, with one bidirectional stream for each request and its reply.
//!
//! What is said on the streams is not this crate's to know: bytes within a bound, ended by the stream's own end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use crate::certificate;
use crate::client::{ConnectOptions, LinkError, dial_from, resolve};
use crate::identity::{Identity, NodeIdentity, Role};
use crate::link::{Closed, Wire, close};
use crate::refusal::{CloseCode, Refusal};
use crate::transport::{self, ALPN_OPERATOR};

/// Operators connected to one host at once. Each is a person, or a program that looks for one.
pub(crate) const OPERATORS_MAX: usize = 32;
/// How long a request may take to arrive once its stream is open, and a reply to be taken.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the end of a connection may take to leave.
const END_TIME_MAX: Duration = Duration::from_millis(500);

/// The host's end of an operator's connection.
#[derive(Debug)]
pub struct OperatorLink {
    wire: Wire,
    _place: OwnedSemaphorePermit,
}

impl OperatorLink {
    pub(crate) fn new(wire: Wire, place: OwnedSemaphorePermit) -> Self {
        Self { wire, _place: place }
    }

    /// Who asks, by the verified certificate.
    pub fn identity(&self) -> &Identity {
        &self.wire.peer
    }

    pub fn remote_address(&self) -> SocketAddr {
        self.wire.quic.remote_address()
    }

    /// Waits for the next request of at most `bytes_max` bytes; `None` when the connection is over. One that is longer,
    /// or does not arrive in time, ends the connection with a sentence. To be called again once the reply was sent: so an
    /// operator has one request under way, and the rest waits on its side.
    pub async fn next(&mut self, bytes_max: usize) -> Option<(Vec<u8>, Asked)> {
        let (send, mut receive) = self.wire.quic.accept_bi().await.ok()?;
        let read = timeout(REQUEST_TIME_MAX, receive.read_to_end(bytes_max)).await;
        let text = match read {
            Ok(Ok(request)) => return Some((request, Asked { send })),
            Ok(Err(quinn::ReadToEndError::TooLong)) => {
                format!("a request has at most {bytes_max} bytes")
            }
            Ok(Err(quinn::ReadToEndError::Read(error))) => format!("read the request: {error}"),
            Err(_) => "the request did not arrive in time".to_owned(),
        };
        self.close(&Refusal::new(CloseCode::Misbehaved, text));
        None
    }

    /// Ends the connection; the operator sees code and sentence.
    pub fn close(&self, refusal: &Refusal) {
        close(&self.wire.quic, refusal);
    }
}

/// Where the reply to a request goes.
#[derive(Debug)]
pub struct Asked {
    send: quinn::SendStream,
}

impl Asked {
    /// Sends the reply. Whether it arrives is the operator's to see.
    pub async fn reply(mut self, reply: &[u8]) {
        let sent = async {
            // These fail only where the operator has gone.
            let _ = self.send.write_all(reply).await;
            let _ = self.send.finish();
            let _ = self.send.stopped().await;
        };
        let _ = timeout(REQUEST_TIME_MAX, sent).await;
    }
}

/// An operator's end of the connection to one host.
#[derive(Debug)]
pub struct OperatorConnection {
    endpoint: quinn::Endpoint,
    wire: Wire,
    target: String,
    time_max: Duration,
}

/// Connects to the host at `target` (`name:port` or `address:port`) and verifies it. Whether the host takes us shows with the
/// first request.
///
/// # Errors
/// [`LinkError::Unreachable`] where nobody answers, [`LinkError::PeerRefused`] where it is no host of the cluster.
pub async fn connect_operator(
    target: &str,
    identity: &NodeIdentity,
    options: &ConnectOptions,
) -> Result<OperatorConnection, LinkError> {
    let unreachable = |reason| LinkError::Unreachable { target: target.to_owned(), reason };
    let mut last = unreachable("the name has no address".to_owned());
    for address in resolve(target).await? {
        let own = (identity.certificate.clone(), identity.key.clone_key());
        let dialled = timeout(options.time_max, dial_from(address, Some(own), ALPN_OPERATOR)).await;
        let (endpoint, quic) = match dialled {
            Ok(Ok(dialled)) => dialled,
            Ok(Err(error)) => {
                last = unreachable(error.to_string());
                continue;
            }
            Err(_) => {
                last = unreachable(format!("{address} does not answer"));
                continue;
            }
        };
        let chain = transport::peer_chain(&quic);
        let now = (options.clock)();
        let host = certificate::verify(&chain, &identity.trust, Role::Hook, now);
        let host = host.map_err(|refusal| {
            close(&quic, &refusal);
            LinkError::PeerRefused { target: target.to_owned(), refusal }
        })?;
        let wire = Wire { quic, peer: Arc::new(host) };
        let (target, time_max) = (target.to_owned(), options.time_max);
        return Ok(OperatorConnection { endpoint, wire, target, time_max });
    }
    Err(last)
}

impl OperatorConnection {
    /// The host's name, by its verified certificate.
    pub fn host(&self) -> &str {
        &self.wire.peer.name
    }

    /// Asks and waits for the whole reply, of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`LinkError::Refused`] with the host's sentence, [`LinkError::Unreachable`] where the reply did not come whole.
    pub async fn ask(&self, request: &[u8], bytes_max: usize) -> Result<Vec<u8>, LinkError> {
        match timeout(self.time_max, self.exchange(request, bytes_max)).await {
            Ok(outcome) => outcome,
            Err(_) => Err(self.unreachable("the host did not reply in time".to_owned())),
        }
    }

    /// Says that nothing more will be asked, and waits until that has left: a process that ends before keeps its place at the
    /// host until that gives the connection up.
    pub async fn end(self) {
        close(&self.wire.quic, &Refusal::new(CloseCode::Done, ""));
        let _ = timeout(END_TIME_MAX, self.endpoint.wait_idle()).await;
    }

    async fn exchange(&self, request: &[u8], bytes_max: usize) -> Result<Vec<u8>, LinkError> {
        let opened = self.wire.quic.open_bi().await;
        let (mut send, mut receive) = opened.map_err(|error| self.lost(error))?;
        // Where these fail, the reply or the end of the connection says more.
        let _ = send.write_all(request).await;
        let _ = send.finish();
        receive.read_to_end(bytes_max).await.map_err(|error| match error {
            quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error)) => {
                self.lost(error)
            }
            error => self.unreachable(format!("read the reply: {error}")),
        })
    }

    fn lost(&self, error: quinn::ConnectionError) -> LinkError {
        match Closed::from(error) {
            Closed::ByPeer { code, text } => LinkError::Refused {
                target: self.target.clone(),
                refusal: Refusal::new(code, text),
            },
            other => self.unreachable(other.to_string()),
        }
    }

    fn unreachable(&self, reason: String) -> LinkError {
        LinkError::Unreachable { target: self.target.clone(), reason }
    }
}

impl Drop for OperatorConnection {
    fn drop(&mut self) {
        // A second close changes nothing.
        close(&self.wire.quic, &Refusal::new(CloseCode::Done, ""));
    }
}

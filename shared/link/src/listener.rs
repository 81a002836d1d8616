//! A worker's port, for hosts that it cannot reach and that dial it instead.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc;
use tracing::{debug, warn};

use crate::accept::{GREETINGS_MAX, drive};
use crate::client::{LinkError, ReachedHost};
use crate::identity::{Clock, Identity, NodeIdentity};
use crate::join::{JoinError, renew_over, take_trust_over};
use crate::server::ServerError;
use crate::transport::{self, ALPN_JOIN, ALPN_LINK, TlsError, worker_transport};

/// Listens for hosts. Dropped, it ends all that came in.
#[derive(Debug)]
pub struct Listener {
    endpoint: quinn::Endpoint,
    local: SocketAddr,
    identity: Arc<RwLock<Arc<NodeIdentity>>>,
    calls: mpsc::Receiver<Call>,
    driver: tokio::task::JoinHandle<()>,
}

/// A verified host that has dialled this worker.
#[derive(Debug)]
pub enum Call {
    /// It wants a link. Whether it may have one is the worker's to say: greet it or refuse it.
    Link(ReachedHost),
    /// It offers what a host's port is for besides links.
    Desk(Desk),
}

/// A host's desk that was brought here. One question, and it is gone.
#[derive(Debug)]
pub struct Desk {
    host: ReachedHost,
}

impl Listener {
    /// Binds the port; when this returns, hosts can dial it. To be called within a tokio runtime.
    ///
    /// # Errors
    /// [`ServerError::Bind`] where the address cannot be had.
    pub fn bind(
        listen: SocketAddr,
        identity: Arc<NodeIdentity>,
        clock: Clock,
    ) -> Result<Self, ServerError> {
        let config = config(&identity)?;
        let bound = |source| ServerError::Bind { address: listen, source };
        let endpoint = quinn::Endpoint::server(config, listen).map_err(bound)?;
        let local = endpoint.local_addr().map_err(bound)?;
        let (sender, calls) = mpsc::channel(GREETINGS_MAX);
        let identity = Arc::new(RwLock::new(identity));
        let known = Arc::clone(&identity);
        let driver = tokio::spawn(drive(endpoint.clone(), move |quic| {
            let (sender, clock) = (sender.clone(), clock.clone());
            let identity = Arc::clone(&known.read().unwrap_or_else(PoisonError::into_inner));
            async move { verify(quic, &identity, &clock, &sender).await }
        }));
        Ok(Self { endpoint, local, identity, calls, driver })
    }

    /// The address that was bound, with its port.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// The next host that has dialled. May be cancelled.
    pub async fn accept(&mut self) -> Option<Call> {
        self.calls.recv().await
    }

    /// Shows the next hosts a renewed certificate, and holds them against its trust list.
    ///
    /// # Errors
    /// Where TLS does not take it; the one in use stays.
    pub fn use_identity(&self, identity: Arc<NodeIdentity>) -> Result<(), TlsError> {
        self.endpoint.set_server_config(Some(config(&identity)?));
        *self.identity.write().unwrap_or_else(PoisonError::into_inner) = identity;
        Ok(())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.endpoint.close(quinn::VarInt::from_u32(0), b"the worker leaves");
        self.driver.abort();
    }
}

impl Desk {
    /// Whose it is.
    pub fn host(&self) -> &Identity {
        self.host.identity()
    }

    /// As [`crate::renew`], at a host that cannot be dialled.
    ///
    /// # Errors
    /// [`JoinError`]. The old certificate stands then.
    pub async fn renew(
        self,
        folder: &Path,
        identity: &NodeIdentity,
        clock: &Clock,
    ) -> Result<NodeIdentity, JoinError> {
        renew_over(self.host.quic(), &self.host().name, folder, identity, clock).await
    }

    /// Takes the host's trust list where it is newer than what `folder` has, as [`crate::exchange_trust`] does.
    ///
    /// # Errors
    /// [`JoinError`].
    pub async fn take_trust(
        self,
        folder: &Path,
        identity: &NodeIdentity,
        clock: &Clock,
    ) -> Result<Option<NodeIdentity>, JoinError> {
        take_trust_over(self.host.quic(), &self.host().name, folder, identity, clock).await
    }
}

fn config(identity: &NodeIdentity) -> Result<quinn::ServerConfig, TlsError> {
    let shown = (vec![identity.certificate.clone()], identity.key.clone_key());
    transport::server_config(shown, &[ALPN_LINK, ALPN_JOIN], worker_transport())
}

async fn verify(
    quic: quinn::Connection,
    identity: &NodeIdentity,
    clock: &Clock,
    sender: &mpsc::Sender<Call>,
) {
    let (remote, alpn) = (quic.remote_address(), transport::alpn(&quic));
    let host = match ReachedHost::verified(quic, remote.to_string(), identity, clock) {
        Ok(host) => host,
        Err(LinkError::PeerRefused { refusal, .. }) => {
            return warn!(%remote, "refused: {refusal}");
        }
        Err(error) => return debug!(%remote, "{error}"),
    };
    let call = match alpn.as_deref() {
        Some(ALPN_JOIN) => Call::Desk(Desk { host }),
        _ => Call::Link(host),
    };
    // It fails only when the listener is gone.
    let _ = sender.send(call).await;
}

//! A host that dials out to its workers, since they cannot reach it. Only the first packet goes the other way: the worker says
//! hello, is verified and welcomed as if it had dialled.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::authority::Authority;
use crate::client::{LinkError, dial_any};
use crate::desk::{self, JoinDesk};
use crate::identity::{Identity, NodeIdentity};
use crate::link::{Closed, HostConnection, close};
use crate::name::NameMask;
use crate::refusal::{CloseCode, Refusal};
use crate::server::{Gate, Incoming, link, shown_by};
use crate::transport::{ALPN_JOIN, ALPN_LINK, Shown, host_transport};

/// For the first packet to the end of the handshake, for each address.
const DIAL_TIME_MAX: Duration = Duration::from_secs(5);
/// For all that a node may ask at a desk that was brought to it: a renewal syncs files.
const DESK_TIME_MAX: Duration = Duration::from_secs(30);

/// Dials workers for a [`crate::Server`]; clones share it.
#[derive(Clone)]
pub struct Dialler {
    gate: Arc<Gate>,
    incoming: mpsc::Sender<Incoming>,
}

impl std::fmt::Debug for Dialler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Dialler").finish_non_exhaustive()
    }
}

impl Dialler {
    pub(crate) fn new(gate: Arc<Gate>, incoming: mpsc::Sender<Incoming>) -> Self {
        Self { gate, incoming }
    }

    /// Whether a worker of such a name has a link that stands, whoever dialled. It is not to be dialled then: the new link
    /// would take the old one's place.
    pub fn is_linked(&self, expected: &NameMask) -> bool {
        self.gate.is_linked(expected)
    }

    /// Dials the worker at `target` (`name:port` or `address:port`), which must have a name that is `expected`. Its link
    /// comes out of [`crate::Server::accept`]; what is returned is to see when it ends.
    ///
    /// # Errors
    /// [`LinkError`], with the worker's sentence where it said no.
    pub async fn dial(
        &self,
        target: &str,
        expected: &NameMask,
    ) -> Result<HostConnection, LinkError> {
        let quic =
            dial_any(target, &self.shown(), ALPN_LINK, host_transport, DIAL_TIME_MAX).await?;
        match link(&quic, &self.gate, Some(expected)).await {
            Ok(accepted) => {
                let connection = accepted.link.connection.clone();
                // It fails only when the server is gone.
                let _ = self.incoming.send(Incoming::Link(Box::new(accepted))).await;
                Ok(connection)
            }
            Err(refusal) => Err(refused(&quic, target, refusal)),
        }
    }

    /// Brings the desk to a worker that cannot come to it: it may renew its certificate, if this host has the authority, or take
    /// the trust list. Gives who was certified.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn bring_desk(&self, target: &str) -> Result<Option<Identity>, LinkError> {
        let quic =
            dial_any(target, &self.shown(), ALPN_JOIN, host_transport, DIAL_TIME_MAX).await?;
        serve(&quic, target, &self.gate.desk, || self.gate.verify_member(&quic)).await
    }

    fn shown(&self) -> Shown {
        let shown = self.gate.shown.lock().unwrap_or_else(PoisonError::into_inner);
        (shown.0.clone(), shown.1.clone_key())
    }
}

/// Dials the node at `target`, which waits there with a token ([`crate::join_called`]), and gives it its certificate.
///
/// # Errors
/// [`LinkError`]: [`LinkError::Unreachable`] while nobody waits there.
pub async fn certify_at(
    target: &str,
    identity: &NodeIdentity,
    authority: Arc<Authority>,
) -> Result<Option<Identity>, LinkError> {
    let desk = JoinDesk::new(Some(authority), identity.trust_path.clone());
    let own = shown_by(identity);
    let quic = dial_any(target, &own, ALPN_JOIN, host_transport, DIAL_TIME_MAX).await?;
    let nobody = || {
        let text = "only who has a token is served here; wait for the running hook";
        Err(Refusal::new(CloseCode::TokenRefused, text))
    };
    serve(&quic, target, &desk, nobody).await
}

async fn serve(
    quic: &quinn::Connection,
    target: &str,
    desk: &JoinDesk,
    member: impl FnOnce() -> Result<Identity, Refusal>,
) -> Result<Option<Identity>, LinkError> {
    let served = timeout(DESK_TIME_MAX, desk::serve(quic, desk, member)).await;
    match served {
        Ok(Ok(identity)) => {
            close(quic, &Refusal::new(CloseCode::Done, ""));
            Ok(identity)
        }
        Ok(Err(refusal)) => Err(refused(quic, target, refusal)),
        Err(_) => {
            let reason = "it did not take its answer in time".to_owned();
            Err(LinkError::Unreachable { target: target.to_owned(), reason })
        }
    }
}

/// Hangs up with our reason, unless the other side was first.
fn refused(quic: &quinn::Connection, target: &str, refusal: Refusal) -> LinkError {
    let target = target.to_owned();
    match quic.close_reason().map(Closed::from) {
        Some(Closed::ByPeer { code, text }) => {
            LinkError::Refused { target, refusal: Refusal::new(code, text) }
        }
        Some(Closed::TimedOut | Closed::Lost { .. }) => {
            LinkError::Unreachable { target, reason: refusal.text }
        }
        Some(Closed::ByUs) | None => {
            close(quic, &refusal);
            LinkError::PeerRefused { target, refusal }
        }
    }
}

//! Taking connections at a port, for hosts and for workers that are dialled.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::debug;

use crate::refusal::{CloseCode, Refusal};

/// Connections that are between their first packet and their hello (or the end of a join) at once. Each costs a
/// signature, so a flood of them must not fill the port.
pub(crate) const GREETINGS_MAX: usize = 64;
/// Beyond this many, a peer's address must be proved by a round trip before it costs anything.
const GREETINGS_UNPROVED_MAX: usize = GREETINGS_MAX / 2;
/// For the handshake, and again for the hello (or a joining node's request).
pub(crate) const GREETING_TIME_MAX: Duration = Duration::from_secs(5);

/// Takes connections for ever; each is greeted by a task of its own, so that a slow one keeps nobody waiting.
pub(crate) async fn drive<G, F>(endpoint: quinn::Endpoint, greet: G)
where
    G: Fn(quinn::Connection) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send,
{
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
        let greet = greet.clone();
        tokio::spawn(async move {
            if let Some(quic) = handshake(incoming).await {
                greet(quic).await;
            }
            drop(permit);
        });
    }
}

/// The connection, once both ends have proved that they have their keys.
async fn handshake(incoming: quinn::Incoming) -> Option<quinn::Connection> {
    let remote = incoming.remote_address();
    let connecting = async { incoming.accept()?.await };
    match timeout(GREETING_TIME_MAX, connecting).await {
        Ok(Ok(quic)) => Some(quic),
        Ok(Err(error)) => {
            debug!(%remote, "handshake failed: {error}");
            None
        }
        Err(_) => {
            debug!(%remote, "handshake took too long");
            None
        }
    }
}

/// For a peer that does not say in time what it must say first.
pub(crate) fn said_nothing() -> Refusal {
    let text = format!("nothing was said for {} seconds", GREETING_TIME_MAX.as_secs());
    Refusal::new(CloseCode::Limit, text)
}

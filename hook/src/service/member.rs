//! What a further host of a cluster has from the one with the authority: revocations, and its own certificate's renewal.
//!
//! It only keeps files; the loop takes them up as it does on the host that wrote them first.

use std::path::PathBuf;
use std::time::Duration;

use gantry_link::{JoinError, NodeIdentity, exchange_trust, renew, system_clock};

/// How often the authority's host is asked: a revocation counts everywhere within this. A handshake each time.
const ASK_EVERY: Duration = Duration::from_secs(10);

/// Asks the authority's host at `target` for ever.
pub(super) async fn follow(target: String, folder: PathBuf, mut identity: NodeIdentity) {
    let clock = system_clock();
    let mut trouble: Option<String> = None;
    loop {
        let asked = if identity.is_due(&clock) {
            renew(&target, &folder, &identity, &clock).await.map(Some)
        } else {
            exchange_trust(&target, &folder, &identity, &clock).await
        };
        let told = match asked {
            Ok(newer) => {
                if let Some(newer) = newer {
                    let trust = newer.trust().number();
                    tracing::info!(trust, "took over what the authority's host says");
                    identity = newer;
                }
                None
            }
            Err(error) => Some(error),
        };
        let text = told.as_ref().map(ToString::to_string);
        // The same sentence is said once, however often the try is made.
        if text != trouble {
            match &told {
                None => tracing::info!(target, "the authority's host answers again"),
                Some(error @ (JoinError::Refused { .. } | JoinError::Identity(_))) => {
                    tracing::error!("{error}");
                }
                Some(error) => tracing::warn!(
                    "{error}; this host goes on with the trust list that it knows (number {})",
                    identity.trust().number()
                ),
            }
            trouble = text;
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

//! What a further host of a cluster has from the one with the authority: the trust list, and its own certificate's renewal.
//!
//! It only keeps files; the loop takes them up as it does on the host that wrote them first.

use std::path::PathBuf;
use std::time::Duration;

use gantry_link::{JoinError, NodeIdentity, exchange_trust, renew, system_clock};
use tokio::time::Instant;

/// How often the authority's host is asked: a revocation counts everywhere within this. A handshake each time.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How long a renewal that failed is left alone. There are weeks for it, and the loop reminds of it.
const RENEW_AGAIN: Duration = Duration::from_secs(600);

/// Asks the authority's host at `target` for ever.
pub(super) async fn follow(target: String, folder: PathBuf, mut identity: NodeIdentity) {
    let clock = system_clock();
    let (mut exchanging, mut renewing) = (Trouble::default(), Trouble::default());
    let mut tried: Option<Instant> = None;
    loop {
        match exchange_trust(&target, &folder, &identity, &clock).await {
            Ok(newer) => {
                exchanging.is_over(&target);
                if let Some(newer) = newer {
                    let trust = newer.trust().number();
                    tracing::info!(trust, "took over the trust list of the authority's host");
                    identity = newer;
                    tried = None;
                }
            }
            Err(error) => exchanging.tell(&error, identity.trust().number()),
        }
        if identity.is_due(&clock) && tried.is_none_or(|at| at.elapsed() >= RENEW_AGAIN) {
            tried = Some(Instant::now());
            match renew(&target, &folder, &identity, &clock).await {
                Ok(renewed) => {
                    renewing.is_over(&target);
                    (identity, tried) = (renewed, None);
                }
                Err(error) => renewing.tell(&error, identity.trust().number()),
            }
        }
        tokio::time::sleep(ASK_EVERY).await;
    }
}

/// Says the same sentence once, however often the try is made.
#[derive(Default)]
struct Trouble {
    told: Option<String>,
}

impl Trouble {
    fn is_over(&mut self, target: &str) {
        if self.told.take().is_some() {
            tracing::info!(target, "the authority's host answers again");
        }
    }

    fn tell(&mut self, error: &JoinError, number: u64) {
        let text = error.to_string();
        if self.told.as_ref() == Some(&text) {
            return;
        }
        match error {
            JoinError::Refused { .. } | JoinError::Identity(_) => tracing::error!("{text}"),
            _ => tracing::warn!(
                "{text}; this host goes on with the trust list that it knows (number {number})"
            ),
        }
        self.told = Some(text);
    }
}

//! Peers watch each other: their profiles in, hints about stalled or dead reservations out, and whether this tier
//! is needed.

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::frame::{Backlog, Hint};
use crate::id::{Fence, MessageId};
use crate::limits::{BEAT, BEAT_IDLE, BEATS_MISSED_MAX, PEERS_MAX, PROFILE_EVERY};
use crate::profile::{PeerProfile, Readiness};
use crate::time::{Moment, millis};

/// Hints given and remembered, so that each is given once; beyond it the oldest ids are forgotten.
const HINTS_REMEMBERED_MAX: usize = 4_096;

/// What one grabber knows of the others at its host.
#[derive(Clone, Debug, Default)]
pub struct Monitor {
    peers: BTreeMap<String, (PeerProfile, Moment)>,
    hinted: BTreeSet<(MessageId, Fence)>,
    /// The host has said on this link who else is there.
    is_told: bool,
    /// What waits at the host.
    backlog: Backlog,
}

impl Monitor {
    /// Takes in the host's list, which replaces the former one, and returns what the host should look at now.
    pub fn handle_peers(&mut self, peers: Vec<PeerProfile>, now: Moment) -> Vec<Hint> {
        self.is_told = true;
        self.peers = peers
            .into_iter()
            .take(PEERS_MAX)
            .map(|peer| (peer.profile.grabber.clone(), (peer, now)))
            .collect();
        let mut hints = Vec::new();
        for (name, (peer, _)) in &self.peers {
            for holding in &peer.profile.holding {
                let stalled = holding.progress_ago_ms > holding.silence_ms;
                if (stalled || is_silent(peer))
                    && self.hinted.insert((holding.message, holding.fence))
                {
                    hints.push(Hint {
                        grabber: name.clone(),
                        message: holding.message,
                        fence: holding.fence,
                    });
                }
            }
        }
        while self.hinted.len() > HINTS_REMEMBERED_MAX {
            self.hinted.pop_first();
        }
        hints
    }

    /// What waits at the host.
    pub fn handle_backlog(&mut self, backlog: Backlog) {
        self.backlog = backlog;
    }

    /// A new link, or none: whoever was there may have gone. What was pointed at stays so.
    pub fn handle_link_changed(&mut self) {
        self.peers.clear();
        (self.is_told, self.backlog) = (false, Backlog::default());
    }

    /// The peers as last heard of, and when.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerProfile, Moment)> {
        self.peers.values().map(|(peer, at)| (peer, *at))
    }

    /// Whether a grabber of this tier is to work: always in tier 0; in a higher one when no peer of a lower tier
    /// lives and is ready, or when the oldest message that waits has waited for longer than `patience`. Not before the host
    /// has said who is there. Where nothing newer is heard of a peer, its last profile counts, for as long as it is linked.
    pub fn is_needed(&self, tier: u8, patience: Option<Duration>) -> bool {
        if tier == 0 {
            return true;
        }
        if !self.is_told {
            return false;
        }
        if patience.is_some_and(|patience| self.backlog.oldest_ms > millis(patience)) {
            return true;
        }
        !self.peers.values().any(|(peer, _)| {
            peer.profile.tier < tier
                && peer.linked
                && peer.heard_ago_ms <= millis(PROFILE_EVERY * BEATS_MISSED_MAX)
                && matches!(peer.profile.readiness, Readiness::Ready | Readiness::Busy)
        })
    }
}

/// Whether a peer has missed so many beats that it may be dead.
fn is_silent(peer: &PeerProfile) -> bool {
    let beat = if peer.profile.holding.is_empty() { BEAT_IDLE } else { BEAT };
    peer.heard_ago_ms > millis(beat * BEATS_MISSED_MAX)
}

//! Peers watch each other: their profiles in, hints about stalled or dead reservations out, and whether this tier
//! is needed.

use std::collections::{BTreeMap, BTreeSet};

use crate::frame::Hint;
use crate::id::{Fence, MessageId};
use crate::limits::{BEAT, BEATS_MISSED_MAX, PEERS_MAX};
use crate::profile::{PeerProfile, Readiness};
use crate::time::{Moment, millis};

/// Hints given and remembered, so that each is given once; beyond it the oldest ids are forgotten.
const HINTS_REMEMBERED_MAX: usize = 4_096;

/// What one grabber knows of the others at its host.
#[derive(Debug, Default)]
pub struct Monitor {
    peers: BTreeMap<String, (PeerProfile, Moment)>,
    hinted: BTreeSet<(MessageId, Fence)>,
}

impl Monitor {
    /// Takes in the host's list, which replaces the former one, and returns what the host should look at now.
    pub fn handle_peers(&mut self, peers: Vec<PeerProfile>, now: Moment) -> Vec<Hint> {
        self.peers = peers
            .into_iter()
            .take(PEERS_MAX)
            .map(|peer| (peer.profile.grabber.clone(), (peer, now)))
            .collect();
        let silent_after = millis(BEAT * BEATS_MISSED_MAX);
        let mut hints = Vec::new();
        for (name, (peer, _)) in &self.peers {
            for holding in &peer.profile.holding {
                let quiet = holding.progress_ago_ms.saturating_add(peer.heard_ago_ms);
                let suspicious = quiet > holding.silence_ms || peer.heard_ago_ms > silent_after;
                if suspicious && self.hinted.insert((holding.message, holding.fence)) {
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

    /// The peers as last heard of, and when.
    pub fn peers(&self) -> impl Iterator<Item = (&PeerProfile, Moment)> {
        self.peers.values().map(|(peer, at)| (peer, *at))
    }

    /// Whether a grabber of this tier is to work: always in tier 0; in a higher one when no peer of a lower tier
    /// lives and is ready. With no profile found, the last one read counts as current.
    pub fn is_needed(&self, tier: u8) -> bool {
        !self.peers.values().any(|(peer, _)| {
            peer.profile.tier < tier
                && peer.linked
                && matches!(peer.profile.readiness, Readiness::Ready | Readiness::Busy)
        })
    }
}

//! The worker's own certificate, which is renewed at two thirds of its life, and the revocation list, by which it knows a host
//! that counts no more.

use std::sync::Arc;
use std::time::Duration;

use gantry_link::{CloseCode, NodeIdentity, exchange_trust, renew};
use tokio::time::Instant;

use super::Service;
use super::action::{Action, HostIndex};

/// How often one of the hosts is asked for its revocation list, and the certificate's age is looked at, beside every new
/// link: a revoked host is left when all have had their turn. A handshake each time.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// When it was last looked after them, and whose turn it is.
#[derive(Debug)]
pub(super) struct Certificates {
    looked: Instant,
    turn: usize,
}

impl Default for Certificates {
    fn default() -> Self {
        Self { looked: Instant::now(), turn: 0 }
    }
}

impl Service {
    /// A host has welcomed us and said the number of its revocation list.
    pub(super) fn look_after_certificates(&self, index: HostIndex, trust: u64) {
        if self.identity.is_due(&gantry_link::system_clock()) {
            self.renew_at(index);
        } else if trust != self.identity.trust().number() {
            self.fetch_at(index);
        }
    }

    /// Asks the linked hosts one after the other.
    pub(super) fn look_after_certificates_in_turn(&mut self) {
        if self.certificates.looked.elapsed() < LOOK_EVERY {
            return;
        }
        self.certificates.looked = Instant::now();
        let count = self.hosts.len().max(1);
        let turn = self.certificates.turn;
        let is_linked =
            |index: &usize| self.hosts.get(*index).is_some_and(|host| host.linked.is_some());
        let next = (1..=count).map(|step| (turn + step) % count).find(is_linked);
        if let Some(index) = next {
            self.certificates.turn = index;
            self.look_after_certificates(HostIndex(index), u64::MAX);
        }
    }

    /// The next links show the new certificate; those that stand are held against the new list.
    pub(super) fn on_renewed(&mut self, identity: NodeIdentity) {
        let known = &self.identity;
        if identity.identity().serial != known.identity().serial {
            tracing::info!("this worker's certificate was renewed");
        }
        if identity.trust().number() < known.trust().number() {
            return; // Overtaken by a newer answer.
        }
        for linked in self.hosts.iter().filter_map(|host| host.linked.as_ref()) {
            if let Err(refusal) = identity.check(linked.connection.identity()) {
                tracing::error!("link ended: {refusal}");
                linked.connection.close(CloseCode::Revoked, &refusal.text);
            }
        }
        self.identity = Arc::new(identity);
    }

    fn fetch_at(&self, index: HostIndex) {
        let Some(host) = self.hosts.get(index.0) else { return };
        let (address, folder) = (host.address.clone(), self.identity_dir.clone());
        let (identity, actions) = (Arc::clone(&self.identity), self.actions.clone());
        tokio::spawn(async move {
            let clock = gantry_link::system_clock();
            match exchange_trust(&address, &folder, &identity, &clock).await {
                Ok(None) => {}
                Ok(Some(newer)) => {
                    let trust = newer.trust().number();
                    tracing::info!(trust, "took over a newer trust list");
                    let _ = actions.send(Action::Renewed(Box::new(newer))).await;
                }
                Err(error) => tracing::warn!("exchange trust lists: {error}"),
            }
        });
    }

    /// Where the host has no authority's key, at the one that has it.
    fn renew_at(&self, index: HostIndex) {
        let Some(host) = self.hosts.get(index.0) else { return };
        let folder = self.identity_dir.clone();
        let mut targets = vec![host.address.clone()];
        targets.extend(NodeIdentity::authority_host(&folder));
        targets.dedup();
        let (identity, actions) = (Arc::clone(&self.identity), self.actions.clone());
        tokio::spawn(async move {
            let clock = gantry_link::system_clock();
            let mut told = String::new();
            for target in targets {
                match renew(&target, &folder, &identity, &clock).await {
                    Ok(renewed) => {
                        let _ = actions.send(Action::Renewed(Box::new(renewed))).await;
                        return;
                    }
                    Err(error) => told = error.to_string(),
                }
            }
            tracing::error!("renew this worker's certificate: {told}");
        });
    }
}

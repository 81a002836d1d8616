//! The worker's own certificate, which is renewed at two thirds of its life, and the trust list, by which it knows a host that
//! counts no more, and an authority that is new.

use std::sync::Arc;
use std::time::Duration;

use gantry_link::{
    CloseCode, LinkError, NodeIdentity, Reminder, Role, Standing, exchange_trust, renew,
    system_clock,
};
use gantry_operator::table::span;
use tokio::time::Instant;

use super::Service;
use super::action::{Action, HostIndex};

/// How often lists are exchanged with one of the hosts, and the certificate's age is looked at, beside every new link: a
/// revoked host is left when all have had their turn. A handshake each time.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// How long a renewal that failed is left alone. There are weeks for it.
const RENEW_AGAIN: Duration = Duration::from_secs(600);

/// What was done for them last.
#[derive(Debug)]
pub(super) struct Certificates {
    looked: Instant,
    turn: usize,
    /// When a renewal was begun that has not succeeded.
    renewing: Option<Instant>,
    /// Why the last renewal failed, if it did.
    trouble: Option<String>,
    reminder: Reminder,
}

impl Default for Certificates {
    fn default() -> Self {
        Self {
            looked: Instant::now(),
            turn: 0,
            renewing: None,
            trouble: None,
            reminder: Reminder::default(),
        }
    }
}

impl Service {
    /// A host has welcomed us and said the number of its trust list.
    pub(super) fn look_after_certificates(&mut self, index: HostIndex, trust: u64) {
        let again = self.certificates.renewing.is_none_or(|begun| begun.elapsed() >= RENEW_AGAIN);
        let renews = again && self.identity.is_due(&system_clock());
        if renews {
            self.certificates.renewing = Some(Instant::now());
        }
        if renews || trust != self.identity.trust().number() {
            self.look_at(index, renews);
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
        let is_linked = |index: &usize| {
            let host = self.hosts.get(*index);
            host.is_some_and(|host| host.linked.is_some() && host.address.is_some())
        };
        let next = (1..=count).map(|step| (turn + step) % count).find(is_linked);
        if let Some(index) = next {
            self.certificates.turn = index;
            self.look_after_certificates(HostIndex(index), u64::MAX);
        } else if self.hosts.iter().all(|host| host.linked.is_none()) {
            self.certificates.trouble.get_or_insert_with(|| "no host is linked".to_owned());
        }
        self.remind();
    }

    /// Where one side does not know the other's authority, perhaps one has not heard of the newer one. Where our certificate
    /// counts no more, somebody may have joined again in the meantime.
    pub(super) fn look_after_refusal(&mut self, index: HostIndex, error: &LinkError) {
        let (LinkError::Refused { refusal, .. } | LinkError::PeerRefused { refusal, .. }) = error
        else {
            return;
        };
        match refusal.code {
            CloseCode::UnknownAuthority => self.look_at(index, false),
            CloseCode::Revoked | CloseCode::Expired => self.take_up_joined(),
            _ => {}
        }
    }

    /// Reads the folder again, where `gantry join` may have put another certificate.
    fn take_up_joined(&mut self) {
        let known = self.identity.identity();
        let found =
            NodeIdentity::open(&self.identity_dir, &known.name, Role::Worker, &system_clock());
        if let Ok(found) = found
            && found.identity().serial != known.serial
        {
            tracing::info!("this worker has joined again");
            self.on_renewed(Arc::new(found));
        }
    }

    /// The next links show the new certificate; those that stand are held against the new list, and made anew where they show
    /// the former certificate, so that hosts see which one counts.
    pub(super) fn on_renewed(&mut self, identity: Arc<NodeIdentity>) {
        let known = std::mem::replace(&mut self.identity, identity);
        if self.identity.trust().number() < known.trust().number() {
            self.identity = known; // Overtaken by a newer answer.
            return;
        }
        if let Some(listener) = &self.listener
            && let Err(error) = listener.use_identity(Arc::clone(&self.identity))
        {
            tracing::error!("show hosts the renewed certificate: {error}");
        }
        let renewed = self.identity.identity().serial != known.identity().serial;
        if renewed {
            tracing::info!("this worker's certificate was renewed");
            (self.certificates.renewing, self.certificates.trouble) = (None, None);
        }
        for linked in self.hosts.iter().filter_map(|host| host.linked.as_ref()) {
            if let Err(refusal) = self.identity.check(linked.connection.identity()) {
                tracing::error!("link ended: {refusal}");
                linked.connection.close(refusal.code, &refusal.text);
            } else if renewed {
                linked.connection.close(CloseCode::Done, "the worker has a new certificate");
            }
        }
        if self.identity.trust().number() > known.trust().number() {
            // The others may not be able to ask the authority's host.
            (0..self.hosts.len()).for_each(|index| self.look_at(HostIndex(index), false));
        }
    }

    pub(super) fn on_renewal_failed(&mut self, told: String) {
        self.certificates.trouble = Some(told);
        self.remind();
    }

    /// Says once a day that the certificate nears its end and why it was not renewed, and louder as it comes nearer.
    fn remind(&mut self) {
        let (now, own) = (system_clock()(), self.identity.identity());
        if !self.identity.is_due(&system_clock()) {
            self.certificates.trouble = None;
        }
        let standing = Standing::of_node(own.expires, now).max(Standing::Due);
        let Some(trouble) = &self.certificates.trouble else { return };
        if !self.certificates.reminder.is_time(standing, now) {
            return;
        }
        let left = span(own.expires.saturating_sub(now));
        let text = format!(
            "renew this worker's certificate: {trouble}; it expires in {left}, and from then on no host takes it"
        );
        match standing {
            Standing::Good | Standing::Due => tracing::warn!("{text}"),
            Standing::Urgent | Standing::Expired => tracing::error!("{text}"),
        }
    }

    /// Exchanges trust lists with a host, and then renews, where the host has no authority at the one that has it.
    fn look_at(&self, index: HostIndex, renews: bool) {
        let Some(host) = self.hosts.get(index.0) else { return };
        // One that only dials brings its desk.
        let (Some(address), folder) = (host.address.clone(), self.identity_dir.clone()) else {
            return;
        };
        let (mut identity, actions) = (Arc::clone(&self.identity), self.actions.clone());
        let linked = host.linked.is_some();
        tokio::spawn(async move {
            let clock = system_clock();
            match exchange_trust(&address, &folder, &identity, &clock).await {
                Ok(None) => {}
                Ok(Some(newer)) => {
                    let trust = newer.trust().number();
                    tracing::info!(trust, "took over a newer trust list");
                    identity = Arc::new(newer);
                    let _ = actions.send(Action::Renewed(Arc::clone(&identity))).await;
                }
                Err(error) if linked => tracing::warn!("exchange trust lists: {error}"),
                Err(error) => tracing::debug!("exchange trust lists: {error}"),
            }
            if !renews {
                return;
            }
            let mut targets = vec![address];
            targets.extend(NodeIdentity::authority_host(&folder));
            targets.dedup();
            let mut told = String::new();
            for target in targets {
                match renew(&target, &folder, &identity, &clock).await {
                    Ok(renewed) => {
                        let _ = actions.send(Action::Renewed(Arc::new(renewed))).await;
                        return;
                    }
                    Err(error) => told = error.to_string(),
                }
            }
            let _ = actions.send(Action::RenewalFailed(told)).await;
        });
    }
}

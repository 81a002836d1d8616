//! Links to hosts: those that this worker dials, and those that dial it. At most one to each host, whoever dialled.

use std::sync::Arc;
use std::time::Duration;

use gantry_link::{
    Backoff, Call, CloseCode, ConnectOptions, Desk, LinkError, ReachedHost, Refusal, system_clock,
};
use gantry_protocol::frame::{Backlog, Welcome};
use gantry_protocol::grabber::{self, Grabber};
use gantry_protocol::monitor::Monitor;

use super::action::{Action, HostIndex};
use super::link::{self, Linked};
use super::{Host, Service};
use crate::config::{self, HOSTS_MAX};

/// From the first packet to the verified host, and again to the welcome.
const LINK_TIME_MAX: Duration = Duration::from_secs(5);

/// A call may have begun before a link that is younger than this, when the host had none; it is no news then.
const YOUNG: Duration = LINK_TIME_MAX;

/// With which links end whose hello named a policy that is no longer in force.
pub(super) const NEW_POLICY: &str = "the worker has a new policy";

/// What a host's place in the table begins with.
pub(super) struct Place {
    /// Its entry in the configuration.
    pub(super) entry: config::Host,
    /// Its name, where that is known before the first link.
    pub(super) name: Option<String>,
}

impl Host {
    /// A host that is not linked.
    pub(super) fn unlinked(place: Place, grabber: Grabber) -> Self {
        let Place { entry, name } = place;
        Self {
            address: entry.address.map(|address| address.to_string()),
            expected: entry.name.map(|mask| mask.to_string()),
            name,
            grabber,
            monitor: Monitor::default(),
            linked: None,
            greeting: false,
            dialling: false,
            backoff: Backoff::new(),
            last_refusal: None,
            tier: entry.tier,
            standby_after: entry.standby_after,
            backlog: Backlog::default(),
            served_last: false,
        }
    }

    /// What it is called in the log.
    pub(super) fn label(&self) -> &str {
        self.address.as_deref().or(self.name.as_deref()).unwrap_or_default()
    }
}

impl Service {
    /// Tries to reach the host. One try at a time, and none while a link stands or is being made.
    pub(super) fn dial(&mut self, index: HostIndex) {
        let draining = self.drain_until.is_some();
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        let Some(address) = host.address.clone() else { return };
        host.dialling = false;
        if draining || host.linked.is_some() || host.greeting {
            return;
        }
        host.dialling = true;
        let (actions, identity) = (self.actions.clone(), Arc::clone(&self.identity));
        tokio::spawn(async move {
            let options = ConnectOptions { clock: system_clock(), time_max: LINK_TIME_MAX };
            let action = match gantry_link::reach(&address, &identity, &options).await {
                Ok(reached) => Action::Reached(index, Box::new(reached)),
                Err(error) => Action::NotLinked(index, error),
            };
            let _ = actions.send(action).await;
        });
    }

    /// Dials after a pause, unless that is about to happen anyway.
    fn dial_later(&mut self, index: HostIndex) {
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        if host.dialling || host.address.is_none() {
            return;
        }
        host.dialling = true;
        let pause = host.backoff.next_wait(fastrand::u64(..)).max(Duration::from_millis(1));
        let actions = self.actions.clone();
        tokio::spawn(async move {
            tokio::time::sleep(pause).await;
            let _ = actions.send(Action::Dial(index)).await;
        });
    }

    /// The host that was dialled is there, and has heard nothing yet.
    pub(super) fn on_reached(&mut self, index: HostIndex, reached: ReachedHost) {
        let name = reached.identity().name.clone();
        let elsewhere = self.place_named(&name).filter(|other| *other != index);
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        host.dialling = false;
        if host.linked.is_some() || host.greeting {
            // It has dialled us meanwhile.
            return reached.refuse(&Refusal::new(CloseCode::Done, "it is linked already"));
        }
        let problem = match &host.expected {
            Some(expected) if *expected != name => {
                Some(format!("{expected} was looked for at this address, and {name} is here"))
            }
            _ if elsewhere.is_some() => {
                Some(format!("{name} is here, which is another [[host]] of this worker, too"))
            }
            _ => None,
        };
        if let Some(text) = problem {
            let refusal = Refusal::new(CloseCode::NameMismatch, text);
            let target = host.label().to_owned();
            reached.refuse(&refusal);
            return self.on_not_linked(index, &LinkError::PeerRefused { target, refusal });
        }
        host.name = Some(name);
        self.greet(index, reached);
    }

    /// A host has dialled us, for a link or with its desk.
    pub(super) fn on_called(&mut self, call: Call) {
        let reached = match call {
            Call::Link(reached) => reached,
            Call::Desk(desk) => return self.on_desk(desk),
        };
        let name = reached.identity().name.clone();
        let refused = if self.drain_until.is_some() {
            Err((CloseCode::ShuttingDown, "the worker leaves".to_owned()))
        } else {
            self.place_for(&name)
        };
        let index = match refused {
            Ok(index) => index,
            Err((code, text)) => {
                tracing::warn!(host = name, "refused: {text}");
                return reached.refuse(&Refusal::new(code, text));
            }
        };
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        if host.greeting {
            let text = "a link to this host is being made already";
            return reached.refuse(&Refusal::new(CloseCode::Limit, text));
        }
        if let Some(linked) = &host.linked {
            if linked.since.elapsed() < YOUNG {
                let text = "a link to this host has just been made";
                return reached.refuse(&Refusal::new(CloseCode::Limit, text));
            }
            // A host dials only where it has no link: what we have is dead, and we do not know it yet.
            let text = "a newer link of this host took this one's place";
            linked.connection.close(CloseCode::Replaced, text);
            self.unlink(index, text);
        }
        self.greet(index, reached);
    }

    /// Asks what a worker asks at a host's port. Every other time for the trust list, since a host may have no authority.
    fn on_desk(&mut self, desk: Desk) {
        let clock = system_clock();
        self.desks = self.desks.wrapping_add(1);
        let renewing = self.desks % 2 == 1 && self.identity.is_due(&clock);
        let (folder, identity) = (self.identity_dir.clone(), Arc::clone(&self.identity));
        let actions = self.actions.clone();
        tokio::spawn(async move {
            let asked = if renewing {
                desk.renew(&folder, &identity, &clock).await.map(Some)
            } else {
                desk.take_trust(&folder, &identity, &clock).await
            };
            match asked {
                Ok(None) => {}
                Ok(Some(newer)) => {
                    if !renewing {
                        let trust = newer.trust().number();
                        tracing::info!(trust, "took over a newer trust list");
                    }
                    let _ = actions.send(Action::Renewed(Arc::new(newer))).await;
                }
                Err(error) if renewing => {
                    let _ = actions.send(Action::RenewalFailed(error.to_string())).await;
                }
                Err(error) => tracing::warn!("ask a host that has dialled: {error}"),
            }
        });
    }

    /// Where a host that has dialled belongs; a new place if it was not known.
    fn place_for(&mut self, name: &str) -> Result<HostIndex, (CloseCode, String)> {
        let entry = self
            .callers
            .iter()
            .find(|entry| entry.name.as_ref().is_some_and(|mask| mask.covers(name)));
        let Some(entry) = entry.cloned() else {
            let text = format!(
                "this worker takes no link from {name}: no [[host]] of its file has this name"
            );
            return Err((CloseCode::NameMismatch, text));
        };
        if let Some(index) = self.place_named(name) {
            return Ok(index);
        }
        if self.hosts.len() >= HOSTS_MAX {
            let text = format!("this worker has {HOSTS_MAX} hosts already, which is the most");
            return Err((CloseCode::Limit, text));
        }
        let (mut grabber, now) = (self.grabber(entry.tier), self.now());
        if let Some((readiness, modules)) = self.readiness.clone() {
            grabber.handle_readiness(readiness, modules, now);
        }
        let place =
            Place { entry: config::Host { address: None, ..entry }, name: Some(name.to_owned()) };
        self.hosts.push(Host::unlinked(place, grabber));
        Ok(HostIndex(self.hosts.len() - 1))
    }

    fn place_named(&self, name: &str) -> Option<HostIndex> {
        let is_it = |host: &Host| host.name.as_deref() == Some(name);
        self.hosts.iter().position(is_it).map(HostIndex)
    }

    /// A grabber for one more host.
    pub(super) fn grabber(&self, tier: u8) -> Grabber {
        let policy = self.pipeline.policy_digest();
        Grabber::new(grabber::Config { tier, policy, ..self.grabber.clone() }, self.now())
    }

    /// Says hello, whoever dialled. It says what is held now; until the welcome nothing of it changes but by ending.
    fn greet(&mut self, index: HostIndex, reached: ReachedHost) {
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        host.greeting = true;
        self.last_link += 1;
        let number = self.last_link;
        let mut hello = host.grabber.hello();
        hello.revocations = self.identity.trust().number();
        let (with, actions) = ((self.scratch.clone(), self.pipeline.clone()), self.actions.clone());
        tokio::spawn(async move {
            let action = match reached.greet(&hello, LINK_TIME_MAX).await {
                Ok((welcome, link)) => {
                    let linked = link::spawn(index, number, link, with, actions.clone());
                    Action::Linked(index, Box::new((welcome, linked)))
                }
                Err(error) => Action::NotLinked(index, error),
            };
            let _ = actions.send(action).await;
        });
    }

    pub(super) fn on_linked(&mut self, index: HostIndex, welcome: &Welcome, linked: Linked) {
        let now = self.now();
        self.look_after_certificates(index, welcome.revocations);
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        host.backoff.reset();
        host.last_refusal = None;
        host.greeting = false;
        if linked.pipeline.policy_digest() != self.pipeline.policy_digest() {
            // It changed between the hello and the welcome.
            linked.connection.close(CloseCode::Done, NEW_POLICY);
        }
        host.linked = Some(linked);
        host.monitor.handle_link_changed();
        host.backlog = Backlog::default();
        host.grabber.handle_linked(welcome, now);
    }

    /// The same sentence is said once, however often the try is made.
    pub(super) fn on_not_linked(&mut self, index: HostIndex, error: &LinkError) {
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        (host.greeting, host.dialling) = (false, false);
        let text = error.to_string();
        if host.last_refusal.as_ref() != Some(&text) {
            tracing::warn!(host = host.label(), "{text}");
            host.last_refusal = Some(text);
        }
        self.look_after_refusal(index, error);
        self.dial_later(index);
    }

    pub(super) fn on_link_lost(&mut self, index: HostIndex, number: u64, reason: &str) {
        let linked = self.hosts.get(index.0).and_then(|host| host.linked.as_ref());
        if linked.is_none_or(|linked| linked.number != number) {
            return;
        }
        self.unlink(index, reason);
        self.dial_later(index);
    }

    fn unlink(&mut self, index: HostIndex, reason: &str) {
        let now = self.now();
        let Some(host) = self.hosts.get_mut(index.0) else { return };
        tracing::warn!(host = host.label(), reason, "link lost");
        host.linked = None;
        host.monitor.handle_link_changed();
        host.grabber.handle_link_lost(now);
        for (key, held) in &mut self.held {
            if key.0 == index {
                held.stream = None;
            }
        }
    }
}

//! Links: ordered streams that are late, fall silent or break. QUIC resends what is lost, so loss is delay until the
//! link itself is given up.

use std::collections::BTreeMap;

use super::event::{Event, HostEvent, Key, LinkId, ToHost, ToWorker, WorkerEvent};
use super::world::World;

/// After this long without a sign of life, a side gives its link up.
const IDLE_TIMEOUT: u64 = 3_000;

/// One link between the hook's and a worker's present lives.
pub(super) struct Link {
    pub(super) worker: usize,
    worker_life: u64,
    host_life: u64,
    /// Whether each side still believes in it.
    host_believes: bool,
    worker_believes: bool,
    /// What would arrive after this is lost.
    cut_at: Option<u64>,
    to_host: Lane,
    to_worker: Lane,
}

/// One direction.
#[derive(Default)]
struct Lane {
    silent_until: u64,
    late_until: u64,
    /// The arrival of the newest frame on each stream; the control stream has no key.
    arrivals: BTreeMap<Option<Key>, u64>,
}

impl Lane {
    fn arrival(&mut self, stream: Option<Key>, now: u64, latency: u64, lateness: u64) -> u64 {
        let late = if now < self.late_until { lateness } else { 0 };
        let last = self.arrivals.entry(stream).or_default();
        *last = (now.max(self.silent_until) + latency + late).max(*last);
        *last
    }
}

impl World {
    pub(super) fn open_link(&mut self, worker: usize) -> LinkId {
        self.last_link += 1;
        let link = Link {
            worker,
            worker_life: self.workers[worker].life,
            host_life: self.host.life,
            host_believes: true,
            worker_believes: true,
            cut_at: None,
            to_host: Lane::default(),
            to_worker: Lane::default(),
        };
        self.links.insert(self.last_link, link);
        self.last_link
    }

    pub(super) fn send_to_host(&mut self, id: LinkId, stream: Option<Key>, what: ToHost) {
        let (latency, lateness) = self.latency();
        let now = self.queue.now;
        let Some(link) = self.links.get_mut(&id).filter(|link| link.cut_at.is_none()) else {
            return;
        };
        let at = link.to_host.arrival(stream, now, latency, lateness);
        let life = link.host_life;
        self.queue.at(at, Event::Host { life, event: HostEvent::Arrived(id, what) });
    }

    pub(super) fn send_to_worker(
        &mut self,
        id: LinkId,
        stream: Option<Key>,
        takes: u64,
        what: ToWorker,
    ) {
        let (latency, lateness) = self.latency();
        let now = self.queue.now;
        let Some(link) = self.links.get_mut(&id).filter(|link| link.cut_at.is_none()) else {
            return;
        };
        let at = link.to_worker.arrival(stream, now + takes, latency, lateness);
        let (worker, life) = (link.worker, link.worker_life);
        self.queue.at(at, Event::Worker { worker, life, event: WorkerEvent::Arrived(id, what) });
    }

    fn latency(&mut self) -> (u64, u64) {
        (self.random.between(1, 12), self.random.between(100, 1_500))
    }

    /// Whether something may still arrive on a link, at the host or at the worker.
    pub(super) fn link_delivers(&self, id: LinkId, to_host: bool) -> bool {
        self.links.get(&id).is_some_and(|link| {
            let believes = if to_host { link.host_believes } else { link.worker_believes };
            believes && link.cut_at.is_none_or(|at| self.queue.now <= at)
        })
    }

    /// A side notices the loss; `false` if it has before.
    pub(super) fn gives_up(&mut self, id: LinkId, host: bool) -> bool {
        let Some(link) = self.links.get_mut(&id) else { return false };
        let believes = if host { &mut link.host_believes } else { &mut link.worker_believes };
        let did = std::mem::take(believes);
        link.cut_at.get_or_insert(self.queue.now);
        if !link.host_believes && !link.worker_believes {
            self.links.remove(&id);
        }
        did
    }

    /// Breaks a link; the sides notice after these delays.
    pub(super) fn cut(&mut self, id: LinkId, host_notices: u64, worker_notices: u64) {
        let drained = self.random.between(0, 15);
        let now = self.queue.now;
        let Some(link) = self.links.get_mut(&id) else { return };
        if link.cut_at.is_none() {
            link.cut_at = Some(now + drained);
        }
        let (worker, host_life, worker_life) = (link.worker, link.host_life, link.worker_life);
        let event = HostEvent::LinkLost(id);
        self.queue.after(host_notices, Event::Host { life: host_life, event });
        let event = WorkerEvent::LinkLost(id);
        self.queue.after(worker_notices, Event::Worker { worker, life: worker_life, event });
    }

    /// The hook closes a link: what it said before still arrives.
    pub(super) fn close(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let said = link.to_worker.arrivals.get(&None).copied().unwrap_or_default();
        link.cut_at.get_or_insert(said.max(self.queue.now));
        let (worker, host_life, life) = (link.worker, link.host_life, link.worker_life);
        self.queue.after(2, Event::Host { life: host_life, event: HostEvent::LinkLost(id) });
        let event = WorkerEvent::LinkLost(id);
        self.queue.at(said + 1, Event::Worker { worker, life, event });
    }

    pub(super) fn lose_link(&mut self, worker: usize) -> bool {
        let Some(id) = self.workers[worker].link else { return false };
        let (host, worker) =
            (self.random.between(0, IDLE_TIMEOUT), self.random.between(0, IDLE_TIMEOUT));
        self.cut(id, host, worker);
        true
    }

    /// One side is gone without a word; the other notices in its time.
    pub(super) fn abandon_links(&mut self, of: impl Fn(&Link) -> bool) {
        let gone: Vec<LinkId> =
            self.links.iter().filter(|(_, link)| of(link)).map(|(id, _)| *id).collect();
        for id in gone {
            let notices = self.random.between(0, IDLE_TIMEOUT);
            self.cut(id, notices, notices);
        }
    }

    pub(super) fn abandon_links_of_worker(&mut self, worker: usize) {
        self.abandon_links(|link| link.worker == worker);
    }

    pub(super) fn silence(&mut self, worker: usize, to_host: bool) -> bool {
        let lasts = self.random.between(200, 6_000);
        let now = self.queue.now;
        let Some(id) = self.workers[worker].link else { return false };
        let Some(link) = self.links.get_mut(&id) else { return false };
        let lane = if to_host { &mut link.to_host } else { &mut link.to_worker };
        lane.silent_until = now + lasts;
        if lasts > IDLE_TIMEOUT {
            // The deaf side gives up first; then nobody speaks to the other one any more.
            let second = IDLE_TIMEOUT + self.random.between(0, IDLE_TIMEOUT);
            let (host, worker) =
                if to_host { (IDLE_TIMEOUT, second) } else { (second, IDLE_TIMEOUT) };
            let (worker_index, host_life, life) = (link.worker, link.host_life, link.worker_life);
            let lost = HostEvent::LinkLost(id);
            self.queue.after(host, Event::Host { life: host_life, event: lost });
            let event = WorkerEvent::LinkLost(id);
            self.queue.after(worker, Event::Worker { worker: worker_index, life, event });
        }
        true
    }

    pub(super) fn delay(&mut self, worker: usize) -> bool {
        let until = self.queue.now + self.random.between(200, 4_000);
        let both = self.random.percent(50);
        let Some(link) = self.workers[worker].link.and_then(|id| self.links.get_mut(&id)) else {
            return false;
        };
        link.to_host.late_until = until;
        if both {
            link.to_worker.late_until = until;
        }
        true
    }

    /// One reservation's stream breaks, for both sides, while its link lives.
    pub(super) fn reset_stream(&mut self, worker: usize) -> bool {
        let Some(id) = self.workers[worker].link else { return false };
        let keys: Vec<Key> = self.workers[worker].streams.iter().copied().collect();
        if keys.is_empty() {
            return false;
        }
        let key = self.random.pick(&keys);
        self.workers[worker].streams.remove(&key);
        self.cut_stream_at_host(id, key);
        self.send_to_host(id, Some(key), ToHost::Reset(key));
        self.send_to_worker(id, Some(key), 0, ToWorker::Reset(key));
        true
    }
}

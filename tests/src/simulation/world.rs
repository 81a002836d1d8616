//! One schedule: everything that takes part, and the loop that lets things happen in the order of virtual time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use gantry_hook::disk::sim::SimDisk;
use gantry_protocol::time::Moment;

use super::counts::Counts;
use super::event::{Event, LinkId};
use super::host::Host;
use super::ledger::Ledger;
use super::network::Link;
use super::plan::{BEGIN, Plan, WORKERS};
use super::queue::Queue;
use super::random::Random;
use super::worker::Worker;
use super::{Mutant, Outcome, Settings};

/// After the faults everything must end within this time. The longest way is a mail that is refused by nobody in time,
/// tried three times, queued for its lifetime and bounced.
const FAIR_PERIOD: u64 = 400_000;
/// More events than this are a livelock; a schedule has some hundreds to some thousands.
const EVENTS_MAX: u64 = 60_000;

pub(super) struct World {
    pub(super) plan: Plan,
    pub(super) random: Random,
    pub(super) queue: Queue,
    /// Virtual time for the spool.
    pub(super) clock: Arc<AtomicU64>,
    pub(super) disk: SimDisk,
    pub(super) host: Host,
    pub(super) workers: Vec<Worker>,
    pub(super) links: BTreeMap<LinkId, Link>,
    pub(super) last_link: LinkId,
    pub(super) hop_away_until: u64,
    pub(super) ledger: Ledger,
    pub(super) counts: Counts,
    pub(super) mutant: Option<Mutant>,
    /// The faults are over.
    pub(super) calm: bool,
    seed: u64,
    trace: Option<Vec<String>>,
    events: u64,
}

/// Whose turn it is.
enum Turn {
    Event,
    HostTimer,
    WorkerTimer(usize),
}

impl World {
    pub(super) fn new(seed: u64, settings: Settings) -> Self {
        let mut random = Random::new(seed);
        let plan = Plan::draw(&mut random);
        let ledger = Ledger::new(Arc::clone(&plan.mails));
        Self {
            disk: SimDisk::new(random.next()),
            random,
            queue: Queue::from(BEGIN),
            clock: Arc::new(AtomicU64::new(BEGIN)),
            host: Host::new(),
            workers: (0..WORKERS).map(|_| Worker::new()).collect(),
            links: BTreeMap::new(),
            last_link: 0,
            hop_away_until: 0,
            ledger,
            counts: Counts::default(),
            mutant: settings.mutant,
            calm: false,
            seed,
            trace: settings.trace.then(Vec::new),
            events: 0,
            plan,
        }
    }

    pub(super) fn run(mut self) -> Outcome {
        self.begin();
        while self.ledger.violation.is_none() && !self.is_over() {
            self.step();
        }
        if let Some(up) = self.host.up.as_ref().filter(|_| self.ledger.violation.is_none()) {
            let status = up.pool.status(0, &[], self.moment());
            self.ledger.counted(&status, &up.spool.list(|_| true, usize::MAX));
        }
        if self.ledger.violation.is_none() {
            let found = self.found_at_the_end();
            self.ledger.close(found);
        }
        self.counts.merge(&self.ledger.counts);
        Outcome {
            seed: self.seed,
            violation: self.ledger.violation,
            counts: self.counts,
            events: self.events,
            trace: self.trace.unwrap_or_default(),
        }
    }

    /// What happened, for who looks at one seed.
    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>7}  {}", self.queue.now - BEGIN, what()));
        }
    }

    pub(super) fn moment(&self) -> Moment {
        Moment(self.queue.now)
    }

    fn begin(&mut self) {
        self.queue.at(BEGIN, Event::HostStart);
        for worker in 0..WORKERS {
            let at = BEGIN + self.random.between(0, 300);
            self.queue.at(at, Event::WorkerStart { worker, same_incarnation: false });
        }
        for (mail, planned) in self.plan.mails.iter().enumerate() {
            self.queue.at(planned.at, Event::Submit { mail });
        }
        for (at, fault) in self.plan.faults.clone() {
            self.queue.at(at, Event::Fault(fault));
        }
        self.queue.at(self.plan.faults_end, Event::Calm);
    }

    fn step(&mut self) {
        self.events += 1;
        if self.events > EVENTS_MAX || self.queue.now > self.plan.faults_end + FAIR_PERIOD {
            let status =
                self.host.up.as_ref().map(|up| {
                    up.pool.status(8, &up.spool.list_shelved(|_| true, 8), self.moment())
                });
            let left = status.map(|status| status.messages);
            let waiting = self.ledger.pending();
            return self.ledger.violated(format!(
                "it does not come to an end after {} events: {left:?}; senders that wait: {waiting:?}",
                self.events
            ));
        }
        match self.turn() {
            Some(Turn::Event) => {
                let Some((place, event)) = self.queue.pop() else { return };
                self.clock.store(self.queue.now, Ordering::Relaxed);
                match self.hangs(&event) {
                    Some(until) => self.queue.put_off(until, place, event),
                    None => self.happen(event),
                }
            }
            Some(Turn::HostTimer) => self.on_host_timeout(),
            Some(Turn::WorkerTimer(worker)) => self.on_worker_timeout(worker),
            None => {
                self.ledger.violated("nothing is left to happen, and it has not ended".to_owned())
            }
        }
    }

    /// What comes next; what has arrived comes before timers.
    fn turn(&mut self) -> Option<Turn> {
        let host = self.host.up.as_ref().and_then(|up| up.pool.next_timeout());
        let host = host.map(|at| (at.0.max(self.host.hangs_until), Turn::HostTimer));
        let workers = self.workers.iter().enumerate();
        let workers = workers.filter_map(|(n, w)| Some((w.next_timeout()?, Turn::WorkerTimer(n))));
        let event = self.queue.next_at().map(|at| (at, Turn::Event));
        let (at, turn) = event.into_iter().chain(host).chain(workers).min_by_key(|(at, _)| *at)?;
        if !matches!(turn, Turn::Event) {
            self.queue.now = self.queue.now.max(at);
            self.clock.store(self.queue.now, Ordering::Relaxed);
        }
        Some(turn)
    }

    /// Whoever hangs does nothing until then.
    fn hangs(&self, event: &Event) -> Option<u64> {
        let until = match event {
            Event::Host { .. } => self.host.hangs_until,
            Event::Worker { worker, .. } => self.workers[*worker].hangs_until,
            _ => 0,
        };
        (until > self.queue.now).then_some(until)
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Submit { mail } => self.on_submit(mail),
            Event::Reply { mail, submission, reply } => self.on_reply(mail, submission, reply),
            Event::ConnectionLost { mail, submission } => self.on_connection_lost(mail, submission),
            Event::Leave { mail, submission } => self.on_leave(mail, submission),
            Event::Host { life, event } if life == self.host.life => self.on_host(event),
            Event::Worker { worker, life, event } if life == self.workers[worker].life => {
                self.on_worker(worker, event);
            }
            Event::Host { .. } | Event::Worker { .. } => {}
            Event::HostStart => self.start_host(),
            Event::WorkerStart { worker, same_incarnation } => {
                self.start_worker(worker, same_incarnation);
            }
            Event::Fault(fault) => self.on_fault(fault),
            Event::DiskHeals => self.disk.fail_from_now(None),
            Event::Calm => self.on_calm(),
        }
    }

    /// The faults are over, every sender has its answer, and no message is on its way.
    fn is_over(&self) -> bool {
        if !self.calm || !self.ledger.all_answered() {
            return false;
        }
        let Some(up) = &self.host.up else { return false };
        let status = up.pool.status(0, &[], self.moment());
        up.pool.is_quiet()
            && status.waiting + status.reserved + status.settling + status.releasing == 0
    }
}

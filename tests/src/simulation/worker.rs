//! Three workers: production grabbers and monitors, driven as a worker's service does, with modules that play what
//! the mail's nature asks for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use gantry_mail::HeaderEdit;
use gantry_protocol::frame::{Assign, HostControl, Part, RefusedCode, Return, ReturnKind};
use gantry_protocol::grabber::{Capacity, Config, Effect, Grabber, Processed};
use gantry_protocol::id::Incarnation;
use gantry_protocol::monitor::Monitor;
use gantry_protocol::policy;
use gantry_protocol::profile::{ModuleProfile, Readiness};
use gantry_protocol::time::millis;
use gantry_protocol::verdict::{Body, Disposition, Finding, Group, Outcome, Verdict};

use super::event::{Event, Key, LinkId, ToHost, ToWorker, WorkerEvent};
use super::ledger::provenance;
use super::originated;
use super::plan::{Mail, Nature, VIRUS, number_of};
use super::random::Random;
use super::world::World;

pub(super) struct Worker {
    /// Counts its processes: what was meant for an earlier one is nothing to this one.
    pub(super) life: u64,
    pub(super) grabber: Option<Grabber>,
    pub(super) link: Option<LinkId>,
    pub(super) hangs_until: u64,
    pub(super) drains: bool,
    pub(super) streams: BTreeSet<Key>,
    incarnation: u64,
    monitor: Monitor,
    jobs: BTreeMap<Key, Job>,
}

/// A message that it has.
struct Job {
    assign: Box<Assign>,
    bytes: Option<Arc<Vec<u8>>>,
}

/// How the modules behave with one message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Script {
    step_ms: u64,
    steps: u64,
    end: End,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Verdict,
    Failed,
    Unavailable,
    WorkerDies,
}

impl Worker {
    pub(super) fn new() -> Self {
        Self {
            life: 0,
            grabber: None,
            link: None,
            hangs_until: 0,
            drains: false,
            streams: BTreeSet::new(),
            incarnation: 0,
            monitor: Monitor::default(),
            jobs: BTreeMap::new(),
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.grabber.is_some()
    }

    pub(super) fn next_timeout(&self) -> Option<u64> {
        let at = self.grabber.as_ref()?.next_timeout()?;
        Some(at.0.max(self.hangs_until))
    }
}

impl World {
    pub(super) fn start_worker(&mut self, index: usize, same_incarnation: bool) {
        let now = self.moment();
        let worker = &mut self.workers[index];
        worker.life += 1;
        worker.incarnation += u64::from(!same_incarnation || worker.incarnation == 0);
        worker.drains = false;
        worker.monitor = Monitor::default();
        let config = Config {
            name: format!("pc-{index}"),
            incarnation: Incarnation(worker.incarnation),
            tier: self.plan.tiers[index],
            policy: policy::BUILT_IN,
            software: "gantry simulated".to_owned(),
        };
        worker.grabber = Some(Grabber::new(config, now));
        self.set_readiness(index, true);
        self.set_capacity(index);
        self.connect_soon(index);
    }

    pub(super) fn crash_worker(&mut self, index: usize, same_incarnation: bool) -> bool {
        if !self.workers[index].is_up() {
            return false;
        }
        let held: Vec<Key> = self.workers[index].jobs.keys().copied().collect();
        if same_incarnation {
            // Such a worker is believed to have lost its link only, so what it held is not counted against the message.
            held.iter().for_each(|(message, _)| self.ledger.excuse_kill(*message));
        }
        self.end_worker(index, same_incarnation);
        true
    }

    fn end_worker(&mut self, index: usize, same_incarnation: bool) {
        let worker = &mut self.workers[index];
        worker.life += 1;
        worker.grabber = None;
        worker.link = None;
        worker.jobs.clear();
        worker.streams.clear();
        self.abandon_links_of_worker(index);
        let back = self.random.between(200, 5_000);
        self.queue.after(back, Event::WorkerStart { worker: index, same_incarnation });
    }

    pub(super) fn drain_worker(&mut self, index: usize) -> bool {
        let now = self.moment();
        let worker = &mut self.workers[index];
        let Some(grabber) = &mut worker.grabber else { return false };
        worker.drains = true;
        grabber.handle_drain(now);
        self.perform_worker(index);
        true
    }

    pub(super) fn on_worker(&mut self, index: usize, event: WorkerEvent) {
        let now = self.moment();
        match event {
            WorkerEvent::Connect => self.connect(index),
            WorkerEvent::Arrived(link, what) if self.link_delivers(link, false) => {
                self.arrived_at_worker(index, what);
            }
            WorkerEvent::Arrived(..) => {}
            WorkerEvent::LinkLost(link) => {
                if self.gives_up(link, false) && self.workers[index].link == Some(link) {
                    self.workers[index].link = None;
                    self.workers[index].streams.clear();
                    self.grabber(index, |grabber| grabber.handle_link_lost(now));
                    self.connect_soon(index);
                }
            }
            WorkerEvent::Work { key, script, work } => self.work(index, key, script, work),
            WorkerEvent::Ready => self.set_readiness(index, true),
        }
        self.perform_worker(index);
    }

    pub(super) fn on_worker_timeout(&mut self, index: usize) {
        let now = self.moment();
        self.grabber(index, |grabber| grabber.handle_timeout(now));
        self.perform_worker(index);
    }

    pub(super) fn set_readiness(&mut self, index: usize, ready: bool) {
        let now = self.moment();
        let reason = "signatures are being loaded".to_owned();
        let module = |skill: &String| ModuleProfile {
            name: format!("simulated-{skill}"),
            provides: skill.clone(),
            engine: "simulated 1".to_owned(),
            signatures: String::new(),
            not_ready: (!ready).then(|| reason.clone()),
        };
        let modules: Vec<_> = self.plan.skills[index].iter().map(module).collect();
        let readiness = if ready { Readiness::Ready } else { Readiness::NotReady { reason } };
        if !self.workers[index].drains {
            self.grabber(index, |grabber| grabber.handle_readiness(readiness, modules, now));
        }
        self.perform_worker(index);
    }

    /// A worker of a higher tier takes nothing while a lower one works.
    fn set_capacity(&mut self, index: usize) {
        let needed = self.workers[index].monitor.is_needed(self.plan.tiers[index], None);
        let messages = if needed { self.plan.slots[index] } else { 0 };
        let capacity = Capacity { messages, bytes: messages * 1_500 };
        self.grabber(index, |grabber| grabber.handle_capacity(capacity));
    }

    fn connect_soon(&mut self, worker: usize) {
        let (life, pause) = (self.workers[worker].life, self.random.between(20, 1_000));
        self.queue.after(pause, Event::Worker { worker, life, event: WorkerEvent::Connect });
    }

    fn connect(&mut self, index: usize) {
        if self.workers[index].link.is_some() {
            return;
        }
        let Some(grabber) = &self.workers[index].grabber else { return };
        let hello = grabber.hello();
        if self.host.up.is_none() {
            return self.connect_soon(index);
        }
        let link = self.open_link(index);
        self.workers[index].link = Some(link);
        self.send_to_host(link, None, ToHost::Hello(hello));
    }

    fn arrived_at_worker(&mut self, index: usize, what: ToWorker) {
        let now = self.moment();
        match what {
            ToWorker::Control(HostControl::Welcome(welcome)) => {
                self.workers[index].monitor.handle_link_changed();
                self.set_capacity(index);
                self.grabber(index, |grabber| grabber.handle_linked(&welcome, now));
            }
            ToWorker::Control(HostControl::Peers(peers)) => {
                let hints = self.workers[index].monitor.handle_peers(peers.peers, now);
                for hint in hints {
                    self.counts.add("hints");
                    self.grabber(index, |grabber| grabber.handle_hint(hint));
                }
                self.set_capacity(index);
            }
            ToWorker::Control(HostControl::Backlog(backlog)) => {
                self.workers[index].monitor.handle_backlog(backlog);
                self.set_capacity(index);
            }
            ToWorker::Control(HostControl::Refused(refused)) => {
                if refused.code != RefusedCode::Replaced {
                    self.ledger.violated(format!("an honest worker was refused: {refused:?}"));
                }
            }
            ToWorker::Control(frame) => {
                self.grabber(index, |grabber| grabber.handle_control(frame))
            }
            ToWorker::Assign(assign) => {
                let key = (assign.message, assign.fence);
                self.workers[index].streams.insert(key);
                self.grabber(index, |grabber| grabber.handle_assigned(&assign, now));
                // What is handed back at once was stopped before; only what is held is worth receiving.
                self.workers[index].jobs.insert(key, Job { assign, bytes: None });
                self.ledger.assigned_to_worker(key, index);
            }
            ToWorker::Body(key, bytes) => {
                if let Some(job) = self.workers[index].jobs.get_mut(&key) {
                    job.bytes = Some(bytes);
                    self.grabber(index, |grabber| grabber.handle_received(key.0, key.1, now));
                }
            }
            ToWorker::Frame(key, frame) => {
                self.workers[index].streams.remove(&key);
                self.grabber(index, |grabber| grabber.handle_reservation(key.0, key.1, frame));
            }
            ToWorker::Reset(key) => {
                self.workers[index].streams.remove(&key);
                self.grabber(index, |grabber| grabber.handle_stream_lost(key.0, key.1));
            }
        }
    }

    fn grabber(&mut self, index: usize, tell: impl FnOnce(&mut Grabber)) {
        if let Some(grabber) = &mut self.workers[index].grabber {
            tell(grabber);
        }
    }

    fn perform_worker(&mut self, index: usize) {
        while let Some(effect) = self.workers[index].grabber.as_mut().and_then(Grabber::poll_effect)
        {
            let link = self.workers[index].link;
            self.note(|| format!("worker {index}: {effect:?}"));
            match (effect, link) {
                (Effect::Control(frame), Some(link)) => {
                    self.send_to_host(link, None, ToHost::Control(frame));
                }
                (Effect::Send { message, fence, frame, .. }, Some(link)) => {
                    let key = (message, fence);
                    if self.workers[index].streams.contains(&key) {
                        self.send_to_host(link, Some(key), ToHost::Frame(key, frame));
                    }
                }
                (Effect::OpenResume { message, fence }, Some(link)) => {
                    let key = (message, fence);
                    self.workers[index].streams.insert(key);
                    self.counts.add("reservations resumed");
                    self.send_to_host(link, Some(key), ToHost::Resume(key));
                }
                (Effect::Start { message, fence }, _) => self.start_job(index, (message, fence)),
                (Effect::Stop { message, fence, .. }, _) => {
                    self.workers[index].jobs.remove(&(message, fence));
                }
                (_, None) | (Effect::Event(_), _) => {}
            }
        }
        let worker = &self.workers[index];
        if worker.drains && worker.grabber.as_ref().is_some_and(|grabber| grabber.holding() == 0) {
            self.note(|| format!("worker {index} has drained"));
            self.end_worker(index, false);
        }
    }

    fn start_job(&mut self, index: usize, key: Key) {
        let Some(job) = self.workers[index].jobs.get(&key) else { return };
        let bytes = job.bytes.as_deref().map(Vec::as_slice).unwrap_or_default();
        let number = number_of(bytes).filter(|number| *number < self.plan.mails.len());
        let Some(mail) = number.map(|number| &self.plan.mails[number]) else {
            return self.ledger.violated(format!("a worker got bytes of no mail for {key:?}"));
        };
        if *mail.bytes != bytes || mail.envelope != job.assign.envelope {
            return self
                .ledger
                .violated(format!("a worker got other bytes or another envelope: {key:?}"));
        }
        let silence = millis(self.plan.config.silence_max);
        let script = script(mail.nature, silence, self.calm, &mut self.random);
        self.note(|| format!("worker {index} starts {key:?}: {script:?}"));
        self.next_step(index, key, script, 0);
    }

    fn next_step(&mut self, worker: usize, key: Key, script: Script, work: u64) {
        let life = self.workers[worker].life;
        let event = WorkerEvent::Work { key, script, work: work + 1 };
        self.queue.after(script.step_ms, Event::Worker { worker, life, event });
    }

    fn work(&mut self, index: usize, key: Key, script: Script, work: u64) {
        let now = self.moment();
        let Some(job) = self.workers[index].jobs.get(&key) else { return };
        if work < script.steps {
            let silence = Duration::from_millis(script.step_ms * 3 + 500);
            self.grabber(index, |g| g.handle_progress(key.0, key.1, work, silence, now));
            return self.next_step(index, key, script, work);
        }
        let (assign, number) =
            (job.assign.clone(), number_of(job.bytes.as_deref().unwrap()).unwrap());
        let Mail { nature, notified, .. } = self.plan.mails[number];
        let give_back =
            |kind, reason: &str| Processed::Return(Return { kind, reason: reason.to_owned() });
        let processed = match script.end {
            End::WorkerDies => {
                self.counts.add("workers killed by a message");
                self.ledger.killed(key, number);
                self.note(|| format!("worker {index} is killed by {key:?}"));
                return self.end_worker(index, false);
            }
            End::Failed => give_back(ReturnKind::Failed, "no module can say anything"),
            End::Unavailable => give_back(ReturnKind::Unavailable, "the module is away"),
            End::Verdict => {
                self.ledger.did(key, &assign.asked);
                let mut verdict = verdict(&assign, nature, index);
                if !ends(&assign, nature) {
                    verdict.findings.retain(|finding| finding.outcome.is_answer());
                    let Verdict { length, digest, findings, .. } = verdict;
                    let part = Part { length, digest, findings, body: Body::Original };
                    let processed = Processed::Part(Box::new(part));
                    self.note(|| format!("worker {index} did its part of {key:?}"));
                    return self.grabber(index, |grabber| {
                        grabber.handle_processed(key.0, key.1, processed, now)
                    });
                }
                self.ledger.ran(key, number);
                if notified {
                    let stamp = provenance(assign.fence);
                    verdict.originated = originated::notices(assign.message, &stamp, number);
                }
                Processed::Verdict(Box::new(verdict))
            }
        };
        self.note(|| format!("worker {index} ends {key:?}: {:?}", script.end));
        self.grabber(index, |grabber| grabber.handle_processed(key.0, key.1, processed, now));
    }
}

fn script(nature: Nature, silence_max: u64, calm: bool, random: &mut Random) -> Script {
    let quick =
        Script { step_ms: random.between(1, 150), steps: random.between(1, 3), end: End::Verdict };
    match nature {
        Nature::Poison => Script { end: End::WorkerDies, ..quick },
        Nature::Broken => Script { end: End::Failed, ..quick },
        Nature::Slow => Script {
            step_ms: random.between(100, silence_max / 3),
            steps: random.between(2, 8),
            ..quick
        },
        Nature::Flaky if !calm => match random.between(0, 4) {
            0 => Script { end: End::Failed, ..quick },
            1 => Script { end: End::Unavailable, ..quick },
            2 => Script { end: End::WorkerDies, ..quick },
            // Silent for longer than it may be.
            3 => Script { step_ms: silence_max + random.between(500, 6_000), steps: 1, ..quick },
            _ => quick,
        },
        _ => quick,
    }
}

/// Whether this worker comes to a verdict: it was asked for all that remains, or needs nobody else's word.
fn ends(assign: &Assign, nature: Nature) -> bool {
    let done = |need: &String| assign.findings.iter().any(|finding| finding.need == *need);
    let alone = matches!(nature, Nature::Infected | Nature::Spam | Nature::Discarded);
    let asked = |need: &str| assign.asked.iter().any(|asked| asked == need);
    assign.needs.iter().all(|need| done(need) || asked(need)) || (alone && asked(VIRUS))
}

fn verdict(assign: &Assign, nature: Nature, worker: usize) -> Verdict {
    let stamp = provenance(assign.fence);
    let field = format!("X-Gantry: clean; by=pc-{worker}; fence={stamp}");
    let deliver = || Disposition::Deliver {
        edits: vec![HeaderEdit::Prepend { field: field.clone() }],
        body: Body::Original,
    };
    let quarantine = || Disposition::Quarantine { reason: "Simulated.Virus".to_owned() };
    let all: Vec<u16> = (0..=u16::MAX).take(assign.envelope.recipients.len()).collect();
    let one = |disposition| vec![Group { recipients: all.clone(), disposition }];
    let groups = match nature {
        Nature::Infected => one(quarantine()),
        Nature::Spam => one(Disposition::Refuse {
            code: 550,
            enhanced: "5.7.1".to_owned(),
            text: "spam".to_owned(),
        }),
        Nature::Discarded => one(Disposition::Discard),
        Nature::Part if all.len() > 1 => vec![
            Group { recipients: vec![0], disposition: deliver() },
            Group { recipients: all[1..].to_vec(), disposition: quarantine() },
        ],
        _ => one(deliver()),
    };
    let outcome = match nature {
        Nature::Infected | Nature::Part => {
            Outcome::Found { names: vec!["Simulated.Virus".to_owned()] }
        }
        _ => Outcome::Clean,
    };
    let finding = |need: &String| Finding {
        need: need.clone(),
        module: "simulated".to_owned(),
        engine: stamp.clone(),
        signatures: String::new(),
        outcome: match assign.asked.contains(need) {
            true if need == VIRUS => outcome.clone(),
            true => Outcome::Clean,
            false => Outcome::Unscanned { reason: "nobody was asked".to_owned() },
        },
        duration_ms: 1,
    };
    let done = |need: &&String| !assign.findings.iter().any(|finding| finding.need == **need);
    let findings = assign.needs.iter().filter(done).map(finding).collect();
    Verdict {
        length: assign.length,
        digest: assign.digest,
        groups,
        findings,
        originated: Vec::new(),
    }
}

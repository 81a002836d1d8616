//! A worker as its driver runs it: the grabber, its link's queues, its jobs.

use std::collections::{BTreeMap, VecDeque};

use gantry_protocol::frame::{
    Credit, Hello, HostControl, HostReservation, Resume, Return, ReturnKind, WorkerControl,
    WorkerReservation,
};
use gantry_protocol::grabber::{Capacity, Config, Effect, Grabber, Processed};
use gantry_protocol::id::{Digest, Fence, Incarnation, MessageId, Session};
use gantry_protocol::profile::{ModuleProfile, Readiness};
use gantry_protocol::time::Moment;
use gantry_protocol::verdict::{Body, Disposition, Finding, Group, Outcome, Verdict};

pub(crate) const POLICY: Digest = Digest([1; 32]);
pub(crate) type Key = (MessageId, Fence);

/// What the host says on a reservation's stream.
#[derive(Clone, Debug)]
pub(crate) enum Down {
    Frame(HostReservation),
    Body,
    Reset,
}

/// What the worker says on one.
#[derive(Clone, Debug)]
pub(crate) enum Up {
    Frame(WorkerReservation),
    Reset,
}

#[derive(Clone, Debug)]
pub(crate) struct Link {
    pub(crate) session: Session,
    pub(crate) control_up: VecDeque<WorkerControl>,
    pub(crate) control_down: VecDeque<HostControl>,
    pub(crate) up: BTreeMap<Key, VecDeque<Up>>,
    pub(crate) down: BTreeMap<Key, VecDeque<Down>>,
    /// Assignments that the worker knows to have used its credit.
    pub(crate) seen: u64,
    /// What the host had given when it answered a recall.
    pub(crate) recalled: u64,
    /// Streams on which the worker has ended its side.
    ended: Vec<Key>,
}

impl Link {
    pub(crate) fn new(session: Session) -> Self {
        Self {
            session,
            control_up: VecDeque::new(),
            control_down: VecDeque::new(),
            up: BTreeMap::new(),
            down: BTreeMap::new(),
            seen: 0,
            recalled: 0,
            ended: Vec::new(),
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) grabber: Grabber,
    pub(crate) link: Option<Link>,
    pub(crate) jobs: Vec<Key>,
    pub(crate) hung: bool,
    pub(crate) capacity: u64,
    work: u64,
}

impl Node {
    pub(crate) fn new(name: &str, incarnation: u64, now: Moment) -> Self {
        let config = Config {
            name: name.to_owned(),
            incarnation: Incarnation(incarnation),
            tier: 0,
            policy: POLICY,
            software: String::new(),
        };
        let mut node = Self {
            name: name.to_owned(),
            grabber: Grabber::new(config, now),
            link: None,
            jobs: Vec::new(),
            hung: false,
            capacity: 0,
            work: 0,
        };
        node.set_ready(true, now);
        node.set_capacity(2);
        node
    }

    pub(crate) fn set_ready(&mut self, ready: bool, now: Moment) {
        let readiness = match ready {
            true => Readiness::Ready,
            false => Readiness::NotReady { reason: "away".to_owned() },
        };
        let module = ModuleProfile {
            name: "rules".to_owned(),
            provides: "virus".to_owned(),
            engine: String::new(),
            signatures: String::new(),
            not_ready: None,
        };
        self.grabber.handle_readiness(readiness, vec![module], now);
        self.run();
    }

    pub(crate) fn set_capacity(&mut self, messages: u64) {
        self.capacity = messages;
        self.grabber.handle_capacity(Capacity { messages, bytes: messages * 1_000 });
        self.run();
    }

    pub(crate) fn hello(&self) -> Hello {
        self.grabber.hello()
    }

    pub(crate) fn lose(&mut self, now: Moment) -> Option<Session> {
        let link = self.link.take()?;
        self.grabber.handle_link_lost(now);
        self.run();
        Some(link.session)
    }

    /// Takes in what the host says next on a control stream.
    pub(crate) fn hear(&mut self, now: Moment) {
        let Some(frame) = self.link.as_mut().and_then(|link| link.control_down.pop_front()) else {
            return;
        };
        match frame {
            HostControl::Welcome(welcome) => self.grabber.handle_linked(&welcome, now),
            HostControl::Recalled(credit) => {
                self.link.as_mut().unwrap().recalled = credit.messages;
                self.grabber.handle_control(HostControl::Recalled(credit));
            }
            frame => self.grabber.handle_control(frame),
        }
        self.run();
    }

    /// Takes in what the host says next on a reservation's stream.
    pub(crate) fn hear_stream(&mut self, key: Key, now: Moment) {
        let Some(link) = &mut self.link else { return };
        let Some(next) = link.down.get_mut(&key).and_then(VecDeque::pop_front) else { return };
        match next {
            Down::Frame(HostReservation::Assign(assign)) => {
                link.seen += 1;
                self.grabber.handle_assigned(&assign, now);
            }
            Down::Frame(frame) => self.grabber.handle_reservation(key.0, key.1, frame),
            Down::Body => self.grabber.handle_received(key.0, key.1, now),
            Down::Reset if self.grabber.holds(key.0, key.1) => {
                self.grabber.handle_stream_lost(key.0, key.1)
            }
            Down::Reset => {}
        }
        self.run();
    }

    /// A stream broke before its assignment was read.
    pub(crate) fn miss(&mut self) {
        self.link.as_mut().unwrap().seen += 1;
        self.grabber.handle_assignment_lost();
        self.run();
    }

    pub(crate) fn work(&mut self, which: usize, word: u8, now: Moment) {
        if self.jobs.is_empty() {
            return;
        }
        let key = self.jobs[which % self.jobs.len()];
        let give = |kind| Processed::Return(Return { kind, reason: "a reason".to_owned() });
        let processed = match word {
            0 => give(ReturnKind::Failed),
            1 => give(ReturnKind::Unavailable),
            2..4 => {
                self.work += 1;
                let silence = std::time::Duration::from_secs(20);
                self.grabber.handle_progress(key.0, key.1, self.work, silence, now);
                return self.run();
            }
            _ => Processed::Verdict(Box::new(verdict(key, &self.name))),
        };
        self.jobs.retain(|job| *job != key);
        self.grabber.handle_processed(key.0, key.1, processed, now);
        self.run();
    }

    pub(crate) fn run(&mut self) {
        while let Some(effect) = self.grabber.poll_effect() {
            match effect {
                Effect::Control(frame) => {
                    if let WorkerControl::Want(credit) = &frame {
                        self.check_want(*credit);
                    }
                    if let Some(link) = &mut self.link {
                        link.control_up.push_back(frame);
                    }
                }
                Effect::Send { message, fence, frame, finish } => {
                    self.up((message, fence), Up::Frame(frame));
                    if finish && let Some(link) = &mut self.link {
                        link.ended.push((message, fence));
                    }
                }
                Effect::OpenResume { message, fence } => {
                    let resume = Resume { message, fence };
                    self.up((message, fence), Up::Frame(WorkerReservation::Resume(resume)));
                }
                Effect::Start { message, fence } => self.jobs.push((message, fence)),
                Effect::Stop { message, fence, .. } => {
                    let key = (message, fence);
                    self.jobs.retain(|job| *job != key);
                    if self.link.as_ref().is_some_and(|link| !link.ended.contains(&key)) {
                        self.up(key, Up::Reset);
                    }
                }
                Effect::Event(_) => {}
            }
        }
    }

    fn up(&mut self, key: Key, what: Up) {
        if let Some(link) = &mut self.link {
            link.up.entry(key).or_default().push_back(what);
        }
    }

    /// No more is asked for than can be started beside what is held; what the host said it had given already is on its
    /// way and cannot be helped.
    fn check_want(&self, credit: Credit) {
        let Some(link) = &self.link else { return };
        let room = self.capacity.saturating_sub(self.grabber.holding() as u64);
        let most = (link.seen + room).max(link.recalled);
        assert!(
            credit.messages <= most,
            "{} wants {}, and {most} is what it can start",
            self.name,
            credit.messages
        );
    }
}

pub(crate) fn digest(id: MessageId) -> Digest {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&id.counter.to_be_bytes());
    Digest(digest)
}

/// Under which fence this verdict was given and by whom, as its finding says.
pub(crate) fn author_of(verdict: &Verdict) -> (String, String) {
    let finding = &verdict.findings[0];
    (finding.engine.clone(), finding.signatures.clone())
}

fn verdict((id, fence): Key, worker: &str) -> Verdict {
    let disposition = Disposition::Deliver { edits: Vec::new(), body: Body::Original };
    let finding = Finding {
        need: "virus".to_owned(),
        module: "rules".to_owned(),
        engine: fence.to_string(),
        signatures: worker.to_owned(),
        outcome: Outcome::Clean,
        duration_ms: 1,
    };
    Verdict {
        length: 100,
        digest: digest(id),
        groups: vec![Group { recipients: vec![0], disposition }],
        findings: vec![finding],
        originated: Vec::new(),
    }
}

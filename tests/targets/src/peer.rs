//! An authenticated peer that says anything: a worker to the pool, a host to a grabber.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_mail::Mask;
use gantry_protocol::frame::{
    Beat, Credit, Hello, HostControl, HostReservation, Resume, WorkerControl, WorkerReservation,
    encode,
};
use gantry_protocol::grabber::{self, Capacity, Grabber, Processed};
use gantry_protocol::id::{Digest, Fence, Incarnation, MessageId, Session};
use gantry_protocol::limits::VERSIONS;
use gantry_protocol::monitor::Monitor;
use gantry_protocol::pool::{
    Assigned, Assignment, Change, Config, Custody, Effect, LinkPeer, MailboxConfig, MailboxIndex,
    Marked, OriginatedAllowed, Pool, RecipientResult, ReleaseResult, Stored, WhenUnprocessed,
};
use gantry_protocol::time::Moment;
use gantry_protocol::verdict::{Body, Disposition, Finding, Group, Outcome, Verdict};

use crate::frames::frame;

const POLICY: Digest = Digest([1; 32]);
const DIGEST: Digest = Digest([7; 32]);
const LENGTH: u64 = 1_000;
const RECIPIENTS: u16 = 2;
const MESSAGES: u64 = 3;
/// Effects of one step: far more than any should have with three messages and two workers.
const EFFECTS_MAX: usize = 1_000;

/// What stands in an input: `kind, length, length bytes`.
fn steps(mut bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let [kind, length, rest @ ..] = bytes else { return None };
        let (payload, behind) = rest.split_at(usize::from(*length).min(rest.len()));
        bytes = behind;
        Some((*kind, payload))
    })
}

/// A worker that says anything in any order. The pool does not panic, says nothing that does not fit a frame, stores
/// only verdicts that name each recipient once, and once a fair worker comes, every message reaches its end.
pub(super) fn frames_from_a_worker(bytes: &[u8]) {
    let mut host = Host::new();
    host.link(hello("pc-0"));
    for (kind, payload) in steps(bytes) {
        host.step(kind, payload);
    }
    host.be_kind();
}

fn hello(name: &str) -> Hello {
    Hello {
        version_min: VERSIONS.0,
        version_max: VERSIONS.1,
        software: String::new(),
        name: name.to_owned(),
        incarnation: Incarnation(1),
        tier: 0,
        policy: POLICY,
        provides: vec!["virus".to_owned()],
        revocations: 0,
        resume: Vec::new(),
    }
}

/// The pool with a driver for which everything succeeds at once.
struct Host {
    pool: Pool,
    now: Moment,
    /// That spoke last.
    session: Session,
    /// Those that are not closed: a link that is refused leaves the one before it alone.
    links: BTreeSet<Session>,
    sessions: u64,
    /// Every assignment there was, and whether it is to the present link.
    assigned: Vec<Assignment>,
    /// What was held or quarantined.
    aside: BTreeSet<MessageId>,
}

impl Host {
    fn new() -> Self {
        let everybody = || vec![Mask::new("*")];
        let originated = OriginatedAllowed {
            senders: everybody(),
            recipients: everybody(),
            ..OriginatedAllowed::default()
        };
        let needs = vec!["virus".to_owned()];
        let mailbox = MailboxConfig {
            originated: Some(originated),
            ..MailboxConfig::new("in", needs, WhenUnprocessed::Wait)
        };
        let pool = Pool::new(Config::new("mx1", POLICY, vec![mailbox]), 1);
        let (now, session) = (Moment(1_000_000), Session(0));
        let mut host = Self {
            pool,
            now,
            session,
            links: BTreeSet::new(),
            sessions: 0,
            assigned: Vec::new(),
            aside: BTreeSet::new(),
        };
        for counter in 1..=MESSAGES {
            let marked = Marked {
                id: MessageId { epoch: 1, counter },
                mailbox: MailboxIndex(0),
                custody: Custody::Hook,
                length: LENGTH,
                recipients: RECIPIENTS,
                since: now,
                attempts: 0,
            };
            host.pool.handle_marked(marked, now);
        }
        host.run();
        host
    }

    fn link(&mut self, hello: Hello) {
        self.sessions += 1;
        self.session = Session(self.sessions);
        self.links.insert(self.session);
        let peer =
            LinkPeer { name: hello.name.clone(), grants: vec!["virus".to_owned(), "x".to_owned()] };
        self.pool.handle_link_up(self.session, peer, hello, self.now);
        self.run();
    }

    fn lose(&mut self) {
        while let Some(session) = self.links.pop_last() {
            self.pool.handle_link_lost(session, self.now);
            self.run();
        }
    }

    fn step(&mut self, kind: u8, payload: &[u8]) {
        let number = kind >> 3;
        match kind & 7 {
            0 | 1 => {
                if let Some(frame) = frame::<WorkerControl>(number, payload) {
                    self.pool.handle_control(self.session, frame, self.now);
                }
            }
            2 | 3 => self.say(number, payload),
            4 => self.pass(payload),
            5 => {
                let Some(WorkerControl::Hello(mut said)) = frame(0, payload) else { return };
                // The driver has compared the name with the certificate.
                "pc-0".clone_into(&mut said.name);
                self.link(said);
            }
            6 => {
                let held = self.assigned.last();
                let held = held.map(|a| Resume { message: a.message, fence: a.fence });
                self.link(Hello { resume: held.into_iter().collect(), ..hello("pc-0") });
            }
            _ => self.lose(),
        }
        self.run();
    }

    /// About an assignment of its own, or about anything.
    fn say(&mut self, number: u8, payload: &[u8]) {
        let [which, payload @ ..] = payload else { return };
        let Some(mut said) = frame::<WorkerReservation>(number, payload) else { return };
        let mine = self.assigned.len().checked_sub(1 + usize::from(which % 8));
        let (message, fence) = match mine.and_then(|index| self.assigned.get(index)) {
            Some(assignment) => (assignment.message, assignment.fence),
            None => {
                let counter = u64::from(*which);
                (MessageId { epoch: 1, counter }, Fence { epoch: 1, counter })
            }
        };
        // Length and digest, which a fuzzer would have to guess.
        if which & 8 == 0 {
            match &mut said {
                WorkerReservation::Verdict(said) => (said.length, said.digest) = (LENGTH, DIGEST),
                WorkerReservation::Part(said) => (said.length, said.digest) = (LENGTH, DIGEST),
                _ => {}
            }
        }
        if which & 16 == 0 {
            self.pool.handle_reservation(self.session, message, fence, said, self.now);
        } else {
            self.pool.handle_stream_lost(self.session, message, fence, "reset", self.now);
        }
    }

    fn pass(&mut self, payload: &[u8]) {
        let ms = payload.iter().fold(0_u64, |ms, byte| ms << 8 | u64::from(*byte));
        self.now = self.now + Duration::from_millis(ms.min(1 << 24));
        self.pool.handle_timeout(self.now);
        self.run();
    }

    fn run(&mut self) {
        let mut effects = 0;
        while let Some(effect) = self.pool.poll_effect() {
            effects += 1;
            assert!(effects < EFFECTS_MAX, "one step has no end: {effect:?}");
            self.effect(effect);
        }
    }

    fn effect(&mut self, effect: Effect) {
        match effect {
            Effect::Control { frame, .. } => assert!(encode(&frame).is_ok(), "{frame:?}"),
            Effect::Reply { frame, .. } => assert!(encode(&frame).is_ok(), "{frame:?}"),
            Effect::CloseLink { session, .. } => {
                self.links.remove(&session);
                self.pool.handle_link_lost(session, self.now);
                self.session = self.links.last().copied().unwrap_or(self.session);
            }
            Effect::Assign(a) => {
                assert!(self.links.contains(&a.session), "{a:?} goes to a link that is closed");
                let sent = Assigned::Sent { digest: DIGEST };
                self.pool.handle_assigned(a.session, a.message, a.fence, sent, self.now);
                self.assigned.push(a);
            }
            Effect::Store { token, message, change, .. } => {
                let stored = match &change {
                    Change::SetAside { .. } => {
                        self.aside.insert(message);
                        Stored::Done
                    }
                    Change::Settle { verdict } => {
                        check(verdict);
                        Stored::Done
                    }
                    Change::Bounce { .. } => Stored::Bounced { notice: None },
                    Change::Originate { .. } => Stored::Originated { messages: Vec::new() },
                    _ => Stored::Done,
                };
                self.pool.handle_stored(token, stored, self.now);
            }
            Effect::Release { token, recipients, .. } => {
                let accepted = |recipient| RecipientResult {
                    recipient,
                    result: ReleaseResult::Accepted,
                    reply: String::new(),
                };
                let results = recipients.into_iter().map(accepted).collect();
                self.pool.handle_released(token, results, self.now);
            }
            Effect::Shelve { message, .. } => {
                assert!(self.aside.contains(&message), "there is room for all that is in the pool");
            }
            Effect::Refill { mailbox, shelf, .. } => {
                self.pool.handle_refilled(mailbox, shelf, Vec::new(), self.now);
            }
            Effect::Load { .. } | Effect::Answer { .. } | Effect::Forget { .. } => {
                panic!("nothing was found at the start, and nobody waits: {effect:?}")
            }
            Effect::StopIntake { reason } => panic!("every store succeeds: {reason}"),
            Effect::Event(..) => {}
        }
    }

    /// A fair worker, for long enough.
    fn be_kind(&mut self) {
        self.lose();
        self.assigned.clear();
        self.link(Hello { incarnation: Incarnation(u64::MAX), ..hello("pc-1") });
        let mut given = 0;
        for round in 1..=10_000 {
            let statuses = self.pool.status(usize::MAX, &[], self.now).messages;
            let aside = |state: &str| matches!(state, "held" | "quarantined");
            if statuses.iter().all(|message| aside(&message.state)) {
                return;
            }
            assert!(round < 10_000, "{statuses:#?} never end");
            let credit = Credit { messages: given + 1, bytes: (given + 1) * LENGTH };
            self.control(WorkerControl::Beat(Beat { count: round }));
            self.control(WorkerControl::Want(credit));
            for assignment in std::mem::take(&mut self.assigned) {
                given += 1;
                let Assignment { message, fence, session, .. } = assignment;
                let clean = WorkerReservation::Verdict(Box::new(clean()));
                self.pool.handle_reservation(session, message, fence, clean, self.now);
                self.run();
            }
            self.pass(&[100]);
        }
    }

    fn control(&mut self, frame: WorkerControl) {
        self.pool.handle_control(self.session, frame, self.now);
        self.run();
    }
}

fn clean() -> Verdict {
    let finding = Finding {
        need: "virus".to_owned(),
        module: "rules".to_owned(),
        engine: String::new(),
        signatures: String::new(),
        outcome: Outcome::Clean,
        duration_ms: 1,
    };
    let deliver = Disposition::Deliver { edits: Vec::new(), body: Body::Original };
    Verdict {
        length: LENGTH,
        digest: DIGEST,
        groups: vec![Group { recipients: (0..RECIPIENTS).collect(), disposition: deliver }],
        findings: vec![finding],
        originated: Vec::new(),
    }
}

/// A verdict that is about to count.
fn check(verdict: &Verdict) {
    let mut named: Vec<u16> = verdict.groups.iter().flat_map(|g| g.recipients.clone()).collect();
    named.sort_unstable();
    assert!(named.into_iter().eq(0..RECIPIENTS), "each recipient once: {verdict:?}");
    assert_eq!((verdict.length, verdict.digest), (LENGTH, DIGEST));
    let delivers =
        verdict.groups.iter().any(|group| matches!(group.disposition, Disposition::Deliver { .. }));
    let met = verdict.findings.iter().any(|f| f.need == "virus" && f.outcome.is_answer());
    assert!(met || !delivers, "delivered with a need unmet: {verdict:?}");
}

/// A host that says anything in any order. The grabber does not panic, says nothing that does not fit a frame, and holds
/// no more than it wanted.
pub(super) fn frames_from_a_host(bytes: &[u8]) {
    let now = Moment(1_000_000);
    let config = grabber::Config {
        name: "pc-0".to_owned(),
        incarnation: Incarnation(1),
        tier: 0,
        policy: POLICY,
        software: String::new(),
    };
    let mut grabber = Grabber::new(config, now);
    let mut monitor = Monitor::default();
    grabber.handle_capacity(Capacity { messages: 4, bytes: 4 * LENGTH });
    let mut worker = Worker { grabber, now, held: Vec::new() };
    for (kind, payload) in steps(bytes) {
        worker.step(kind, payload, &mut monitor);
        worker.run();
    }
    worker.grabber.handle_link_lost(worker.now);
    worker.grabber.handle_drain(worker.now);
    worker.run();
}

struct Worker {
    grabber: Grabber,
    now: Moment,
    held: Vec<(MessageId, Fence)>,
}

impl Worker {
    fn step(&mut self, kind: u8, payload: &[u8], monitor: &mut Monitor) {
        let number = kind >> 3;
        match kind & 7 {
            0 | 1 => match frame(number, payload) {
                Some(HostControl::Welcome(welcome)) => {
                    self.grabber.handle_link_lost(self.now);
                    self.grabber.handle_linked(&welcome, self.now);
                }
                Some(HostControl::Peers(peers)) => {
                    for hint in monitor.handle_peers(peers.peers, self.now) {
                        self.grabber.handle_hint(hint);
                    }
                }
                Some(HostControl::Backlog(backlog)) => monitor.handle_backlog(backlog),
                Some(frame) => self.grabber.handle_control(frame),
                None => {}
            },
            2 => {
                let Some(HostReservation::Assign(assign)) = frame(0, payload) else { return };
                self.held.push((assign.message, assign.fence));
                self.grabber.handle_assigned(&assign, self.now);
            }
            3 => {
                let (Some((message, fence)), Some(frame)) =
                    (self.held.last().copied(), frame(number, payload))
                else {
                    return;
                };
                self.grabber.handle_reservation(message, fence, frame);
            }
            4 => {
                let ms = payload.iter().fold(0_u64, |ms, byte| ms << 8 | u64::from(*byte));
                self.now = self.now + Duration::from_millis(ms.min(1 << 24));
                self.grabber.handle_timeout(self.now);
            }
            5 => {
                let Some((message, fence)) = self.held.last().copied() else { return };
                self.grabber.handle_received(message, fence, self.now);
                self.grabber.handle_progress(
                    message,
                    fence,
                    u64::from(number),
                    Duration::from_secs(1),
                    self.now,
                );
            }
            6 => {
                let Some((message, fence)) = self.held.pop() else { return };
                let verdict = Processed::Verdict(Box::new(clean()));
                self.grabber.handle_processed(message, fence, verdict, self.now);
            }
            _ => self.grabber.handle_assignment_lost(),
        }
    }

    fn run(&mut self) {
        let mut effects = 0;
        while let Some(effect) = self.grabber.poll_effect() {
            effects += 1;
            assert!(effects < EFFECTS_MAX, "one step has no end: {effect:?}");
            match effect {
                grabber::Effect::Control(frame) => assert!(encode(&frame).is_ok(), "{frame:?}"),
                grabber::Effect::Send { frame, .. } => assert!(encode(&frame).is_ok(), "{frame:?}"),
                _ => {}
            }
        }
        assert!(self.grabber.holding() <= 4, "more than it has room for");
        assert!(encode(&WorkerControl::Hello(self.grabber.hello())).is_ok());
        let profile = self.grabber.profile(self.now);
        assert!(encode(&WorkerControl::Profile(profile)).is_ok());
    }
}

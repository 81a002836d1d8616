//! The host's driver and everything between it and the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_mail::Envelope;
use gantry_protocol::frame::{Assign, HostReservation, WorkerReservation};
use gantry_protocol::id::{MessageId, Session, Token};
use gantry_protocol::pool::*;
use gantry_protocol::time::Moment;

use super::Op;
use super::node::*;

pub(crate) const WORKERS: usize = 3;

#[derive(Debug)]
pub(crate) struct Net {
    pool: Pool,
    now: Moment,
    nodes: Vec<Node>,
    stores: Vec<(Token, MessageId, Change)>,
    assigns: Vec<Assignment>,
    releases: Vec<(Token, MessageId)>,
    /// Streams that the host's driver has.
    streams: BTreeSet<(Session, Key)>,
    settled: BTreeMap<MessageId, u32>,
    released: BTreeMap<MessageId, u32>,
    done: BTreeSet<MessageId>,
    messages: u64,
    sessions: u64,
    incarnations: u64,
}

/// Something that can move.
enum Motion {
    ControlUp(usize),
    ControlDown(usize),
    Up(usize, Key),
    Down(usize, Key),
    Assign(usize),
    Release(usize),
}

impl Net {
    pub(crate) fn new() -> Self {
        let mailbox =
            MailboxConfig::new("mail.box", vec!["virus".to_owned()], WhenUnprocessed::Wait);
        let config = Config {
            attempts_max: 200,
            returns_max: 2_000,
            ..Config::new("mx1", POLICY, vec![mailbox])
        };
        let now = Moment(1_000_000);
        Self {
            pool: Pool::new(config, 1),
            now,
            nodes: (0..WORKERS).map(|n| Node::new(&format!("pc-{n}"), n as u64 + 1, now)).collect(),
            stores: Vec::new(),
            assigns: Vec::new(),
            releases: Vec::new(),
            streams: BTreeSet::new(),
            settled: BTreeMap::new(),
            released: BTreeMap::new(),
            done: BTreeSet::new(),
            messages: 0,
            sessions: 0,
            incarnations: WORKERS as u64,
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Mark => self.mark(),
            Op::Move { which } => self.advance(*which),
            Op::Store { which, fails } => self.store(*which, *fails),
            Op::Work { worker, which, word } => {
                if !self.nodes[*worker].hung {
                    self.nodes[*worker].work(*which, *word, self.now);
                }
            }
            Op::Lose { worker } => self.lose(*worker),
            Op::Link { worker } => self.link(*worker),
            Op::Restart { worker } => {
                self.lose(*worker);
                self.incarnations += 1;
                let name = self.nodes[*worker].name.clone();
                self.nodes[*worker] = Node::new(&name, self.incarnations, self.now);
            }
            Op::Hang { worker, hung } => self.nodes[*worker].hung = *hung,
            Op::Ready { worker, ready } => self.nodes[*worker].set_ready(*ready, self.now),
            Op::Capacity { worker, messages } => self.nodes[*worker].set_capacity(*messages),
            Op::Pass { ms } => self.pass(*ms),
        }
        self.run();
    }

    fn mark(&mut self) {
        self.messages += 1;
        let marked = Marked {
            id: MessageId { epoch: 1, counter: self.messages },
            mailbox: MailboxIndex(0),
            custody: Custody::Hook,
            length: 100,
            recipients: 1,
            since: self.now,
            attempts: 0,
        };
        self.pool.handle_marked(marked, self.now);
    }

    fn link(&mut self, worker: usize) {
        if self.nodes[worker].link.is_some() || self.nodes[worker].hung {
            return;
        }
        self.sessions += 1;
        let session = Session(self.sessions);
        let node = &mut self.nodes[worker];
        let hello = node.hello();
        node.link = Some(Link::new(session));
        let peer = LinkPeer { name: node.name.clone(), grants: vec!["virus".to_owned()] };
        self.pool.handle_link_up(session, peer, hello, self.now);
    }

    fn lose(&mut self, worker: usize) {
        if let Some(session) = self.nodes[worker].lose(self.now) {
            self.streams.retain(|(of, _)| *of != session);
            self.pool.handle_link_lost(session, self.now);
            self.run();
        }
    }

    fn store(&mut self, which: usize, fails: bool) {
        if self.stores.is_empty() {
            return;
        }
        let (token, id, change) = self.stores.remove(which % self.stores.len());
        let stored = match (fails, &change) {
            (true, _) => Stored::Failed { reason: "disk full".to_owned() },
            (false, Change::Remove) => {
                assert!(self.done.insert(id), "{id} is removed twice");
                Stored::Done
            }
            (false, Change::Settle { .. }) => {
                *self.settled.entry(id).or_default() += 1;
                assert_eq!(self.settled[&id], 1, "{id} is settled twice");
                Stored::Done
            }
            (false, _) => Stored::Done,
        };
        self.pool.handle_stored(token, stored, self.now);
        self.run();
    }

    fn motions(&self) -> Vec<Motion> {
        let mut motions = Vec::new();
        for (number, node) in self.nodes.iter().enumerate() {
            let Some(link) = &node.link else { continue };
            // What was sent before a worker hung arrives all the same.
            if !link.control_up.is_empty() {
                motions.push(Motion::ControlUp(number));
            }
            let full = link.up.iter().filter(|(_, queue)| !queue.is_empty());
            motions.extend(full.map(|(key, _)| Motion::Up(number, *key)));
            if node.hung {
                continue;
            }
            if !link.control_down.is_empty() {
                motions.push(Motion::ControlDown(number));
            }
            // Streams wait for the welcome.
            if node.grabber.is_linked() {
                let full = link.down.iter().filter(|(_, queue)| !queue.is_empty());
                motions.extend(full.map(|(key, _)| Motion::Down(number, *key)));
            }
        }
        motions.extend((0..self.assigns.len()).map(Motion::Assign));
        motions.extend((0..self.releases.len()).map(Motion::Release));
        motions
    }

    fn advance(&mut self, which: usize) {
        let mut motions = self.motions();
        if motions.is_empty() {
            return;
        }
        match motions.swap_remove(which % motions.len()) {
            Motion::ControlUp(number) => {
                let link = self.nodes[number].link.as_mut().unwrap();
                let (session, frame) = (link.session, link.control_up.pop_front().unwrap());
                self.pool.handle_control(session, frame, self.now);
            }
            Motion::ControlDown(number) => self.nodes[number].hear(self.now),
            Motion::Up(number, key) => self.hear_up(number, key),
            Motion::Down(number, key) => self.nodes[number].hear_stream(key, self.now),
            Motion::Assign(number) => self.send(number),
            Motion::Release(number) => {
                let (token, id) = self.releases.remove(number);
                *self.released.entry(id).or_default() += 1;
                assert_eq!(self.released[&id], 1, "{id} is released twice");
                let (recipient, result, reply) = (0, ReleaseResult::Accepted, String::new());
                let results = vec![RecipientResult { recipient, result, reply }];
                self.pool.handle_released(token, results, self.now);
            }
        }
        self.run();
    }

    fn hear_up(&mut self, number: usize, key: Key) {
        let link = self.nodes[number].link.as_mut().unwrap();
        let session = link.session;
        match link.up.get_mut(&key).and_then(|queue| queue.pop_front()) {
            Some(Up::Frame(WorkerReservation::Resume(_))) => {
                self.streams.insert((session, key));
            }
            Some(Up::Frame(frame)) => {
                self.pool.handle_reservation(session, key.0, key.1, frame, self.now)
            }
            Some(Up::Reset) => {
                self.pool.handle_stream_lost(session, key.0, key.1, "reset", self.now)
            }
            None => {}
        }
    }

    /// The driver has read the header: assignment and body are on their way.
    fn send(&mut self, number: usize) {
        let a = self.assigns.remove(number);
        let key = (a.message, a.fence);
        let linked =
            |node: &&mut Node| node.link.as_ref().is_some_and(|link| link.session == a.session);
        let Some(node) = self.nodes.iter_mut().find(linked) else {
            return self.pool.handle_assigned(
                a.session,
                a.message,
                a.fence,
                Assigned::LinkLost,
                self.now,
            );
        };
        // Cancelled before it began: the driver resets what it has just opened, and the worker may miss all of it.
        if !self.streams.contains(&(a.session, key)) {
            node.miss();
        } else {
            let assign = Assign {
                message: a.message,
                fence: a.fence,
                attempt: a.attempt,
                mailbox: String::new(),
                needs: Vec::new(),
                findings: Vec::new(),
                envelope: Envelope::default(),
                length: 100,
                digest: digest(a.message),
                time_max_ms: 900_000,
                silence_max_ms: 600_000,
            };
            let frame = Down::Frame(HostReservation::Assign(Box::new(assign)));
            let queue = node.link.as_mut().unwrap().down.entry(key).or_default();
            queue.extend([frame, Down::Body]);
        }
        let sent = Assigned::Sent { digest: digest(a.message) };
        self.pool.handle_assigned(a.session, a.message, a.fence, sent, self.now);
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        for node in self.nodes.iter_mut().filter(|node| !node.hung) {
            node.grabber.handle_timeout(self.now);
            node.run();
        }
        self.pool.handle_timeout(self.now);
        self.run();
    }

    fn run(&mut self) {
        while let Some(effect) = self.pool.poll_effect() {
            match effect {
                Effect::Store { token, message, change, .. } => {
                    self.stores.push((token, message, change))
                }
                Effect::Assign(assignment) => {
                    self.streams
                        .insert((assignment.session, (assignment.message, assignment.fence)));
                    self.assigns.push(assignment);
                }
                Effect::Release { token, message, .. } => self.releases.push((token, message)),
                Effect::Control { session, frame } => {
                    if let Some(link) = self.link_of(session) {
                        link.control_down.push_back(frame);
                    }
                }
                Effect::Reply { session, message, fence, frame, .. } => {
                    self.reply(session, (message, fence), frame);
                }
                Effect::CloseLink { session, reason } => panic!("{session:?} is closed: {reason}"),
                _ => {}
            }
        }
    }

    fn link_of(&mut self, session: Session) -> Option<&mut Link> {
        let mut links = self.nodes.iter_mut().filter_map(|node| node.link.as_mut());
        links.find(|link| link.session == session)
    }

    fn reply(&mut self, session: Session, key: Key, frame: HostReservation) {
        if !self.streams.remove(&(session, key)) {
            return;
        }
        let sending = self.assigns.iter().any(|a| (a.message, a.fence) == key);
        let Some(link) = self.link_of(session) else { return };
        let queue = link.down.entry(key).or_default();
        match queue.back() {
            // The body has not been sent to its end: the stream is reset, and what was not read is gone.
            Some(Down::Body) => {
                let unread =
                    queue.iter().any(|d| matches!(d, Down::Frame(HostReservation::Assign(_))));
                queue.clear();
                queue.push_back(Down::Reset);
                if unread {
                    let mut nodes = self.nodes.iter_mut();
                    let of = nodes.find(|n| n.link.as_ref().is_some_and(|l| l.session == session));
                    of.unwrap().miss();
                }
            }
            _ if sending => {} // `send` finds it cancelled.
            _ => queue.push_back(Down::Frame(frame)),
        }
    }

    /// Everybody lives, is ready and works; nothing fails.
    pub(crate) fn be_kind(&mut self) {
        for number in 0..WORKERS {
            self.nodes[number].hung = false;
            self.nodes[number].set_ready(true, self.now);
            self.nodes[number].set_capacity(2);
        }
        for _ in 0..20_000 {
            for number in 0..WORKERS {
                self.link(number);
            }
            self.run();
            let mut moved = true;
            while moved {
                moved = !self.motions().is_empty() || !self.stores.is_empty();
                self.advance(0);
                self.store(0, false);
                for number in 0..WORKERS {
                    moved |= !self.nodes[number].jobs.is_empty();
                    self.nodes[number].work(0, 9, self.now);
                }
            }
            if self.done.len() as u64 == self.messages {
                return self.check_rest();
            }
            self.pass(100);
        }
        panic!("messages that never end: {:#?}", self.pool.status(99, self.now));
    }

    /// With nothing to do, nobody holds anything, and each worker may be given as much as it can start.
    fn check_rest(&mut self) {
        let status = self.pool.status(99, self.now);
        assert_eq!(status.workers.len(), WORKERS);
        for worker in &status.workers {
            assert_eq!(worker.free, 2, "{} has lost or won credit", worker.name);
        }
        for node in &self.nodes {
            assert_eq!(node.grabber.holding(), 0, "{}", node.name);
        }
        for counter in 1..=self.messages {
            let id = MessageId { epoch: 1, counter };
            assert_eq!((self.settled.get(&id), self.released.get(&id)), (Some(&1), Some(&1)));
        }
    }
}

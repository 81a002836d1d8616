//! The host's driver and everything between it and the workers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gantry_mail::Envelope;
use gantry_protocol::frame::{Assign, HostReservation, WorkerReservation};
use gantry_protocol::id::{Fence, MessageId, Session, Token};
use gantry_protocol::pool::*;
use gantry_protocol::time::Moment;

use super::node::*;

/// What may happen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Op {
    Mark,
    /// Moves something that is under way, whichever it is.
    Move {
        which: usize,
    },
    /// A store under way completes or fails.
    Store {
        which: usize,
        fails: bool,
    },
    /// A worker's job: done, given up, or a step further.
    Work {
        worker: usize,
        which: usize,
        word: u8,
    },
    Lose {
        worker: usize,
    },
    Link {
        worker: usize,
    },
    /// The process dies and starts anew.
    Restart {
        worker: usize,
    },
    /// Neither reads nor writes nor works, until it does again.
    Hang {
        worker: usize,
        hung: bool,
    },
    Ready {
        worker: usize,
        ready: bool,
    },
    Capacity {
        worker: usize,
        messages: u64,
    },
    Pass {
        ms: u64,
    },
    /// The hook dies and starts anew with what is on its disk.
    RestartHost,
}

/// One mailbox whose mail waits for workers.
pub(crate) fn config() -> Config {
    let mailbox = MailboxConfig::new("mail.box", vec!["virus".to_owned()], WhenUnprocessed::Wait);
    Config::new("mx1", POLICY, vec![mailbox])
}

/// What is on the hook's disk of one message.
#[derive(Clone, Debug)]
struct OnDisk {
    marked: Marked,
    state: StoredState,
    log: StoredLog,
}

#[derive(Clone, Debug)]
pub(crate) struct Net {
    pub(crate) config: Config,
    pub(crate) pool: Pool,
    pub(crate) now: Moment,
    /// The driver takes whatever comes for a message as said under its newest fence: a defect, which whoever checks has
    /// to find.
    pub(crate) forgets_fences: bool,
    epoch: u32,
    disk: BTreeMap<MessageId, OnDisk>,
    /// Those that are not in the pool's hands.
    shelf: BTreeSet<MessageId>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) stores: Vec<(Token, MessageId, Change)>,
    assigns: Vec<Assignment>,
    releases: Vec<(Token, MessageId)>,
    /// Streams that the host's driver has.
    streams: BTreeSet<(Session, Key)>,
    /// Under which fence each message was last given away and to whom, and the same of its stored verdict.
    pub(crate) given: BTreeMap<MessageId, (Session, Fence, String)>,
    pub(crate) settled_by: BTreeMap<MessageId, (String, String)>,
    settled: BTreeMap<MessageId, u32>,
    released: BTreeMap<MessageId, u32>,
    done: BTreeSet<MessageId>,
    pub(crate) held: BTreeSet<MessageId>,
    pub(crate) messages: u64,
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
    pub(crate) fn new(workers: usize, config: Config) -> Self {
        let now = Moment(1_000_000);
        Self {
            pool: Pool::new(config.clone(), 1),
            config,
            now,
            forgets_fences: false,
            epoch: 1,
            disk: BTreeMap::new(),
            shelf: BTreeSet::new(),
            given: BTreeMap::new(),
            settled_by: BTreeMap::new(),
            held: BTreeSet::new(),
            nodes: (0..workers).map(|n| Node::new(&format!("pc-{n}"), n as u64 + 1, now)).collect(),
            stores: Vec::new(),
            assigns: Vec::new(),
            releases: Vec::new(),
            streams: BTreeSet::new(),
            settled: BTreeMap::new(),
            released: BTreeMap::new(),
            done: BTreeSet::new(),
            messages: 0,
            sessions: 0,
            incarnations: workers as u64,
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
            Op::RestartHost => self.restart_host(),
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
        let log = StoredLog { recipients: 1, ..StoredLog::default() };
        let state = StoredState::Marked { attempts: 0 };
        self.disk.insert(marked.id, OnDisk { marked: marked.clone(), state, log });
        self.pool.handle_marked(marked, self.now);
    }

    /// All links break, what is under way is gone, and the pool starts with what was stored.
    fn restart_host(&mut self) {
        for worker in 0..self.nodes.len() {
            self.nodes[worker].lose(self.now);
        }
        self.streams.clear();
        self.stores.clear();
        self.assigns.clear();
        self.releases.clear();
        self.epoch += 1;
        self.pool = Pool::new(self.config.clone(), self.epoch);
        let mut found = BTreeMap::<_, Shelved>::new();
        for OnDisk { marked, state, .. } in self.disk.values() {
            found.entry((marked.mailbox, Shelf::of(*state))).or_default().add(marked.length);
        }
        self.shelf = self.disk.keys().copied().collect();
        self.pool.handle_opened(found, self.now);
        self.run();
    }

    fn take_from_shelf(&mut self, shelf: Shelf, count: usize) -> Vec<Recovered> {
        let on_shelf = self.shelf.iter().filter(|id| Shelf::of(self.disk[id].state) == shelf);
        let taken: Vec<MessageId> = on_shelf.take(count).copied().collect();
        let take = |id: &MessageId| {
            self.shelf.remove(id);
            let OnDisk { marked, state, .. } = self.disk[id].clone();
            Recovered { marked, state, note: Note::default() }
        };
        taken.iter().map(take).collect()
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
            (false, Change::Settle { verdict }) => {
                *self.settled.entry(id).or_default() += 1;
                assert_eq!(self.settled[&id], 1, "{id} is settled twice");
                self.settled_by.insert(id, author_of(verdict));
                Stored::Done
            }
            (false, _) => Stored::Done,
        };
        if !fails {
            self.write(id, change);
        }
        self.pool.handle_stored(token, stored, self.now);
        self.run();
    }

    fn write(&mut self, id: MessageId, change: Change) {
        let Some(file) = self.disk.get_mut(&id) else { return };
        match change {
            Change::Charge { attempts } => file.state = StoredState::Marked { attempts },
            Change::Settle { verdict } => {
                (file.state, file.log.verdict) = (StoredState::Releasing, Some(*verdict));
            }
            Change::Results { results } => file.log.results.extend(results),
            Change::SetAside { state, .. } => {
                file.state = state;
                self.held.insert(id);
            }
            Change::Remove => drop(self.disk.remove(&id)),
            _ => {}
        }
    }

    /// Lets all that can move do so, and everything be stored.
    pub(crate) fn settle_down(&mut self) {
        while self.moves() + self.stores.len() > 0 {
            self.advance(0);
            self.store(0, false);
        }
    }

    /// How many things can move.
    pub(crate) fn moves(&self) -> usize {
        self.motions().len()
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
                // A crash between the next hop's yes and its record is the one reason to send a message again.
                let crashes = self.epoch - 1;
                assert!(self.released[&id] <= 1 + crashes, "{id} is released twice");
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
                let (mut session, mut fence) = (session, key.1);
                if self.forgets_fences
                    && let Some(newest) = self.given.get(&key.0)
                {
                    (session, fence) = (newest.0, newest.1);
                }
                self.pool.handle_reservation(session, key.0, fence, frame, self.now)
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
                asked: a.asked,
                findings: a.findings,
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
                    let of = |node: &&Node| {
                        node.link.as_ref().is_some_and(|link| link.session == assignment.session)
                    };
                    let worker = self.nodes.iter().find(of).map(|node| node.name.clone());
                    let given = (assignment.session, assignment.fence, worker.unwrap_or_default());
                    self.given.insert(assignment.message, given);
                    self.streams
                        .insert((assignment.session, (assignment.message, assignment.fence)));
                    self.assigns.push(assignment);
                }
                Effect::Release { token, message, .. } => self.releases.push((token, message)),
                Effect::Load { token, message, .. } => {
                    let log = self.disk[&message].log.clone();
                    self.pool.handle_loaded(token, Ok(log), self.now);
                }
                Effect::Shelve { message, .. } => {
                    assert!(self.shelf.insert(message), "{message} is on the shelf already");
                }
                Effect::Refill { mailbox, shelf, count, .. } => {
                    let found = self.take_from_shelf(shelf, count);
                    self.pool.handle_refilled(mailbox, shelf, found, self.now);
                }
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
        for number in 0..self.nodes.len() {
            self.nodes[number].hung = false;
            self.nodes[number].set_ready(true, self.now);
            self.nodes[number].set_capacity(2);
        }
        for _ in 0..20_000 {
            for number in 0..self.nodes.len() {
                self.link(number);
            }
            self.run();
            let mut moved = true;
            while moved {
                moved = !self.motions().is_empty() || !self.stores.is_empty();
                self.advance(0);
                self.store(0, false);
                for number in 0..self.nodes.len() {
                    moved |= !self.nodes[number].jobs.is_empty();
                    self.nodes[number].work(0, 9, self.now);
                }
            }
            if (self.done.len() + self.held.len()) as u64 == self.messages {
                return self.check_rest();
            }
            self.pass(100);
        }
        panic!("messages that never end: {:#?}", self.pool.status(99, &[], self.now));
    }

    /// With nothing to do, nobody holds anything, and each worker may be given as much as it can start.
    fn check_rest(&mut self) {
        let status = self.pool.status(99, &[], self.now);
        assert!(status.workers.len() <= self.nodes.len());
        for worker in &status.workers {
            assert_eq!(worker.free, 2, "{} has lost or won credit", worker.name);
        }
        for node in &self.nodes {
            assert_eq!(node.grabber.holding(), 0, "{}", node.name);
        }
        for counter in 1..=self.messages {
            let id = MessageId { epoch: 1, counter };
            if self.held.contains(&id) {
                continue;
            }
            assert_eq!(self.settled.get(&id), Some(&1));
            assert!(self.released.get(&id) >= Some(&1));
        }
    }
}

//! A driver of the pool that answers what it asks for in any order, well or badly, and tells the reference. The fuzz
//! targets include this file, too.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_protocol::frame::{
    Beat, Credit, Hello, HostControl, HostReservation, Part, Progress, Resume, ResumeAnswer,
    Return, ReturnKind, WorkerControl, WorkerReservation,
};
use gantry_protocol::id::{Digest, Fence, Incarnation, MessageId, Session, Token};
use gantry_protocol::limits::VERSIONS;
use gantry_protocol::pool::*;
use gantry_protocol::time::Moment;
use gantry_protocol::verdict::{Body, Verdict};

use super::ops::*;
use super::reference::*;

const POLICY: Digest = Digest([1; 32]);
const LENGTH: u64 = 1_000;

/// A worker as far as the test plays it: what it would list in a hello.
#[derive(Debug, Default)]
struct Worker {
    incarnation: u64,
    session: Option<Session>,
    holds: BTreeMap<MessageId, Fence>,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) pool: Pool,
    pub(crate) now: Moment,
    pub(crate) reference: Reference,
    workers: Vec<Worker>,
    stores: Vec<(Token, MessageId, Change)>,
    assigns: Vec<Assignment>,
    releases: Vec<(Token, MessageId, Vec<u16>)>,
    loads: Vec<(Token, MessageId)>,
    /// What of the disk is not in the pool's hands.
    shelf: BTreeMap<MessageId, Note>,
    /// Refills asked for, and what was found for those that the driver has looked for.
    refills: Vec<Refill>,
    found: Vec<(MailboxIndex, Shelf, Vec<Recovered>)>,
    /// Every assignment that was ever sent: of others a worker cannot speak.
    history: Vec<Assignment>,
    epoch: u32,
    messages: u64,
    sessions: u64,
    incarnations: u64,
    serial: u32,
    drained: bool,
}

/// Mailbox, shelf, how many at most, and due by then.
type Refill = (MailboxIndex, Shelf, usize, Moment);

fn rules() -> Vec<WhenUnprocessed> {
    let after = Duration::from_secs(100);
    vec![
        WhenUnprocessed::Wait,
        WhenUnprocessed::TempFail,
        WhenUnprocessed::ReleaseUnscanned { after },
        WhenUnprocessed::Hold { after },
    ]
}

fn config() -> Config {
    let mailboxes = rules()
        .into_iter()
        .enumerate()
        .map(|(number, rule)| MailboxConfig {
            releases_max: 2,
            queue_lifetime: Duration::from_secs(3_600),
            ..MailboxConfig::new(
                format!("box-{number}"),
                needs(u16::try_from(number).unwrap()),
                rule,
            )
        })
        .collect();
    Config { returns_max: 5, window: 3, ..Config::new("mx1", POLICY, mailboxes) }
}

fn pick<T>(which: usize, from: &mut Vec<T>) -> Option<T> {
    (!from.is_empty()).then(|| from.remove(which % from.len()))
}

impl World {
    pub(crate) fn new() -> Self {
        let reference = Reference { rules: rules(), ..Reference::default() };
        Self {
            pool: Pool::new(config(), 1),
            now: Moment(1_000_000),
            reference,
            workers: (0..WORKERS).map(|_| Worker::default()).collect(),
            stores: Vec::new(),
            assigns: Vec::new(),
            releases: Vec::new(),
            loads: Vec::new(),
            shelf: BTreeMap::new(),
            refills: Vec::new(),
            found: Vec::new(),
            history: Vec::new(),
            epoch: 1,
            messages: 0,
            sessions: 0,
            incarnations: 0,
            serial: 0,
            drained: false,
        }
    }

    pub(crate) fn apply(&mut self, op: &Op) {
        match op {
            Op::Mark { mailbox, upstream, recipients } => {
                self.mark(*mailbox, *upstream, *recipients)
            }
            Op::Link { worker, anew, resume } => self.link(*worker, *anew, *resume),
            Op::Lose { worker } => self.lose(*worker),
            Op::Want { worker, more } => self.want(*worker, *more),
            Op::Recall { worker } => self.recall(*worker),
            Op::Beat { worker } => self.control(*worker, WorkerControl::Beat(Beat { count: 1 })),
            Op::Say { which, over, stale, word } => self.say(*which, *over, *stale, *word),
            Op::StreamLost { which } => self.stream_lost(*which),
            Op::Stored { which, fails } => self.stored(*which, *fails),
            Op::Assigned { which, outcome } => self.assigned(*which, *outcome),
            Op::Released { which, results } => self.released(*which, results),
            Op::Loaded { which, fails } => self.loaded(*which, *fails),
            Op::Refill { which, look: true } => self.look(*which),
            Op::Refill { which, look: false } => self.refilled(*which),
            Op::SenderGone { which } => self.sender_gone(*which),
            Op::Operate { which, decision, quarantined } => {
                self.operate(*which, *decision, *quarantined)
            }
            Op::Pass { ms } => self.pass(*ms),
            Op::Crash { durable } => self.crash(durable),
            Op::Drain => {
                self.drained = true;
                self.pool.handle_drain(self.now);
                self.run();
            }
        }
        self.check();
    }

    /// The pool knows exactly what is on disk or waited for: nothing is forgotten, nothing made up.
    fn check(&self) {
        let status = self.status();
        let on_their_way = self.found.iter().flat_map(|(.., found)| found);
        let mut known: Vec<String> = status.messages.iter().map(|m| m.id.clone()).collect();
        known.extend(on_their_way.map(|found| found.marked.id.to_string()));
        let counted = status.waiting + status.reserved + status.settling + status.releasing;
        let counted = counted + status.held + status.quarantined;
        assert_eq!(counted, known.len() as u64, "what is counted, and what is known");
        let reference = &self.reference;
        let mut wanted: Vec<String> = reference
            .disk
            .keys()
            .chain(reference.senders.keys())
            .map(ToString::to_string)
            .collect();
        known.sort_unstable();
        wanted.sort_unstable();
        wanted.dedup();
        assert_eq!(known, wanted, "what the pool knows, and what there is");
        for message in &status.messages {
            let id: MessageId = message.id.parse().unwrap();
            let Some(file) = self.reference.disk.get(&id) else { continue };
            let aside = matches!(file.state, StoredState::Held | StoredState::Quarantined);
            let busy = self.stores.iter().any(|(_, stored, _)| *stored == id);
            let told = matches!(message.state.as_str(), "held" | "quarantined");
            assert!(
                busy || aside == told,
                "{id} is {:?} on disk and {} here",
                file.state,
                message.state
            );
        }
    }

    fn mark(&mut self, mailbox: u16, upstream: bool, recipients: u16) {
        self.messages += 1;
        let id = MessageId { epoch: self.epoch, counter: self.messages };
        let upstream = upstream || mailbox == 1;
        let custody = if upstream {
            Custody::Upstream { answer_by: self.now + Duration::from_secs(60) }
        } else {
            Custody::Hook
        };
        let (mailbox, since, attempts) = (MailboxIndex(mailbox), self.now, 0);
        let marked = Marked { id, mailbox, custody, length: LENGTH, recipients, since, attempts };
        if upstream {
            let waiting = Waiting {
                marked: marked.clone(),
                verdict: None,
                findings: Vec::new(),
                answered: false,
                gone: false,
            };
            self.reference.senders.insert(id, waiting);
        } else {
            let state = StoredState::Marked { attempts: 0 };
            self.file(marked.clone(), state, None);
        }
        self.pool.handle_marked(marked, self.now);
        self.run();
    }

    fn file(
        &mut self,
        marked: Marked,
        state: StoredState,
        verdict: Option<gantry_protocol::verdict::Verdict>,
    ) {
        let (results, bounced) = (Vec::new(), Default::default());
        let id = marked.id;
        self.reference
            .disk
            .insert(id, File { marked, state, verdict, findings: Vec::new(), results, bounced });
    }

    fn link(&mut self, index: usize, anew: bool, resume: bool) {
        self.sessions += 1;
        let session = Session(self.sessions);
        let worker = &mut self.workers[index];
        let former = worker.session.replace(session);
        if anew || worker.incarnation == 0 {
            self.incarnations += 1;
            worker.incarnation = self.incarnations;
            worker.holds.clear();
        }
        if !resume {
            worker.holds.clear();
        }
        let list =
            worker.holds.iter().map(|(message, fence)| Resume { message: *message, fence: *fence });
        let hello = Hello {
            version_min: VERSIONS.0,
            version_max: VERSIONS.1,
            software: String::new(),
            name: format!("pc-{index}"),
            incarnation: Incarnation(worker.incarnation),
            tier: 0,
            policy: POLICY,
            provides: vec![VIRUS.to_owned(), SIGN.to_owned()],
            revocations: 0,
            resume: list.collect(),
        };
        let peer = LinkPeer { name: hello.name.clone(), grants: grants(index) };
        if let Some(former) = former {
            self.reference.link_ended(former);
        }
        self.reference.accounts.insert(session, Account { worker: index, wanted: 0, given: 0 });
        self.pool.handle_link_up(session, peer, hello, self.now);
        self.run();
    }

    /// The welcome's answers: what is live is this session's from now on, and the rest is not this worker's.
    fn welcomed(&mut self, session: Session, answers: &[(MessageId, Fence, ResumeAnswer)]) {
        let index = self.reference.accounts[&session].worker;
        for (message, fence, answer) in answers {
            if *answer == ResumeAnswer::Live {
                let owner = self.reference.owners.insert(*message, (session, *fence));
                assert_eq!(owner, None, "{message} is live for two");
            } else {
                self.workers[index].holds.remove(message);
            }
        }
    }

    fn lose(&mut self, index: usize) {
        if let Some(session) = self.workers[index].session.take() {
            self.reference.link_ended(session);
            self.pool.handle_link_lost(session, self.now);
            self.run();
        }
    }

    fn control(&mut self, index: usize, frame: WorkerControl) {
        if let Some(session) = self.workers[index].session {
            self.pool.handle_control(session, frame, self.now);
            self.run();
        }
    }

    fn want(&mut self, index: usize, more: u64) {
        let Some(session) = self.workers[index].session else { return };
        let account = self.reference.accounts.get_mut(&session).unwrap();
        account.wanted = account.wanted.max(account.given) + more;
        let credit = Credit { messages: account.wanted, bytes: account.wanted * LENGTH };
        self.control(index, WorkerControl::Want(credit));
    }

    fn recall(&mut self, index: usize) {
        let credit = Credit { messages: 0, bytes: 0 };
        self.control(index, WorkerControl::Recall(credit));
    }

    fn say(&mut self, which: usize, over: Option<usize>, stale: bool, word: Word) {
        if self.history.is_empty() {
            return;
        }
        let live: Vec<Assignment> =
            self.history.iter().filter(|a| self.is_owned(a)).cloned().collect();
        let from = if !stale && !live.is_empty() { &live } else { &self.history };
        let Assignment { session, message, fence, asked, .. } = from[which % from.len()].clone();
        let bound = self.reference.owners.get(&message).map(|(session, _)| *session);
        let session =
            over.and_then(|index| self.workers[index].session).or(bound).unwrap_or(session);
        let reason = "a reason".to_owned();
        let returned = |kind| WorkerReservation::Return(Return { kind, reason });
        let frame = match word {
            Word::Progress(work) => {
                WorkerReservation::Progress(Progress { work: work.into(), silence_ms: 20_000 })
            }
            Word::Failed => returned(ReturnKind::Failed),
            Word::HandBack => returned(ReturnKind::HandBack),
            Word::Unavailable => returned(ReturnKind::Unavailable),
            word => {
                let marked = self.reference.disk.get(&message).map(|file| &file.marked);
                let sender = self.reference.senders.get(&message).map(|sender| &sender.marked);
                let recipients = marked.or(sender).map_or(1, |marked| marked.recipients);
                self.serial += 1;
                self.reference.say(self.serial, message, session, fence);
                let digest = digest(message.counter);
                let verdict = verdict(word, recipients, LENGTH, digest, &asked, self.serial);
                match (word, verdict) {
                    (Word::Part, Verdict { length, digest, findings, .. }) => {
                        let body = Body::Original;
                        WorkerReservation::Part(Box::new(Part { length, digest, findings, body }))
                    }
                    (_, verdict) => WorkerReservation::Verdict(Box::new(verdict)),
                }
            }
        };
        self.pool.handle_reservation(session, message, fence, frame, self.now);
        self.run();
    }

    fn is_owned(&self, assignment: &Assignment) -> bool {
        let owner = self.reference.owners.get(&assignment.message);
        owner.is_some_and(|(_, fence)| *fence == assignment.fence)
    }

    fn stream_lost(&mut self, which: usize) {
        if self.history.is_empty() {
            return;
        }
        let Assignment { session, message, fence, .. } =
            self.history[which % self.history.len()].clone();
        self.pool.handle_stream_lost(session, message, fence, "reset", self.now);
        self.run();
    }

    fn stored(&mut self, which: usize, fails: bool) {
        let Some((token, id, change)) = pick(which, &mut self.stores) else { return };
        let stored = if fails {
            Stored::Failed { reason: "disk full".to_owned() }
        } else {
            self.make_durable(id, &change)
        };
        self.pool.handle_stored(token, stored, self.now);
        self.run();
    }

    fn make_durable(&mut self, id: MessageId, change: &Change) -> Stored {
        if !self.reference.disk.contains_key(&id) && !self.reference.senders.contains_key(&id) {
            return Stored::Done; // Its sender has gone meanwhile.
        }
        let Change::Bounce { results } = change else {
            self.reference.stored(id, change);
            return Stored::Done;
        };
        // Every third sender is the null sender, every third message brings a notice.
        match id.counter % 3 {
            0 => {
                self.reference.stored(id, change);
                Stored::Unreturnable
            }
            1 => {
                self.reference.stored(id, change);
                Stored::Bounced { notice: None }
            }
            _ => {
                self.reference.stored(id, change);
                assert!(!results.is_empty());
                self.messages += 1;
                let id =
                    MessageId { epoch: self.epoch, counter: self.messages.next_multiple_of(3) };
                self.messages = id.counter;
                let verdict = verdict(Word::Clean, 1, LENGTH, digest(id.counter), &[], 0);
                let notice = Marked {
                    id,
                    mailbox: MailboxIndex(0),
                    custody: Custody::Hook,
                    length: LENGTH,
                    recipients: 1,
                    since: self.now,
                    attempts: 0,
                };
                self.file(notice.clone(), StoredState::Releasing, Some(verdict));
                Stored::Bounced { notice: Some(notice) }
            }
        }
    }

    fn assigned(&mut self, which: usize, outcome: Outgoing) {
        let Some(a) = pick(which, &mut self.assigns) else { return };
        let outcome = match outcome {
            Outgoing::Sent => Assigned::Sent { digest: digest(a.message.counter) },
            Outgoing::LinkLost => Assigned::LinkLost,
            Outgoing::Unreadable => {
                if let Some(account) = self.reference.accounts.get_mut(&a.session) {
                    account.given -= 1;
                }
                Assigned::Unreadable { reason: "EIO".to_owned() }
            }
        };
        let sent = matches!(outcome, Assigned::Sent { .. });
        if sent && let Some(account) = self.reference.accounts.get(&a.session) {
            self.workers[account.worker].holds.insert(a.message, a.fence);
        }
        self.pool.handle_assigned(a.session, a.message, a.fence, outcome, self.now);
        if sent {
            self.history.push(a);
        }
        self.run();
    }

    fn released(&mut self, which: usize, kinds: &[u8]) {
        let Some((token, id, recipients)) = pick(which, &mut self.releases) else { return };
        use ReleaseResult::{Accepted, Deferred, Refused, Unknown};
        let results: Vec<RecipientResult> = recipients
            .iter()
            .zip(kinds)
            .filter_map(|(recipient, kind)| {
                let result = *[Accepted, Deferred, Refused, Unknown].get(usize::from(*kind))?;
                Some(RecipientResult { recipient: *recipient, result, reply: "reply".to_owned() })
            })
            .collect();
        self.reference.released(id, &results);
        self.pool.handle_released(token, results, self.now);
        self.run();
    }

    fn loaded(&mut self, which: usize, fails: bool) {
        let Some((token, id)) = pick(which, &mut self.loads) else { return };
        let file = &self.reference.disk[&id];
        if fails {
            self.pool.handle_load_failed(token, "EIO".to_owned(), self.now);
        } else {
            let (verdict, results) = (file.verdict.clone(), file.results.clone());
            let (findings, recipients) = (file.findings.clone(), file.marked.recipients);
            let log = StoredLog { verdict, results, findings, recipients, ..StoredLog::default() };
            self.pool.handle_loaded(token, Ok(log), self.now);
        }
        self.run();
    }

    /// From here on what is found is in the pool's hands, though it does not know yet.
    fn look(&mut self, which: usize) {
        let Some((mailbox, shelf, count, due)) = pick(which, &mut self.refills) else { return };
        let fits = |found: &Recovered| {
            found.marked.mailbox == mailbox
                && Shelf::of(found.state) == shelf
                && u64::from(found.note.due_s) * 1_000 <= due.0
        };
        let shelved = self.shelved();
        let found: Vec<Recovered> = shelved.into_iter().filter(fits).take(count).collect();
        for found in &found {
            self.shelf.remove(&found.marked.id);
        }
        self.found.push((mailbox, shelf, found));
    }

    fn refilled(&mut self, which: usize) {
        let Some((mailbox, shelf, found)) = pick(which, &mut self.found) else { return };
        self.pool.handle_refilled(mailbox, shelf, found, self.now);
        self.run();
    }

    fn recovered(&self, id: MessageId, note: Note) -> Recovered {
        let File { marked, state, .. } = self.reference.disk[&id].clone();
        Recovered { marked, state, note }
    }

    fn shelved(&self) -> Vec<Recovered> {
        self.shelf.iter().map(|(id, note)| self.recovered(*id, *note)).collect()
    }

    fn status(&self) -> Status {
        self.pool.status(usize::MAX, &self.shelved(), self.now)
    }

    fn sender_gone(&mut self, which: usize) {
        let ids: Vec<MessageId> = self.reference.senders.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[which % ids.len()];
        self.reference.senders.get_mut(&id).unwrap().gone = true;
        self.pool.handle_sender_gone(id, self.now);
        self.run();
    }

    fn operate(&mut self, which: usize, decision: Decision, quarantined: bool) {
        let ids: Vec<MessageId> = self.reference.disk.keys().copied().collect();
        if ids.is_empty() {
            return;
        }
        let id = ids[which % ids.len()];
        let wanted = if quarantined { StoredState::Quarantined } else { StoredState::Held };
        let operation = match decision {
            Decision::Release => Operation::Release,
            Decision::AsIs => Operation::ReleaseAsIs { by: "alice".to_owned() },
            Decision::Delete => Operation::Delete,
        };
        let found = self.shelf.remove(&id).map(|note| self.recovered(id, note));
        let mut untouched = found.clone();
        let take = || untouched.take();
        let decided = self.pool.handle_operator(id, wanted, operation, take, self.now);
        if let Some(found) = untouched {
            self.shelf.insert(id, found.note);
        }
        if decided.is_ok() {
            assert_eq!(self.reference.disk[&id].state, wanted);
            if decision == Decision::Delete {
                self.reference.deleting.insert(id);
            }
        }
        self.run();
    }

    fn pass(&mut self, ms: u64) {
        self.now = self.now + Duration::from_millis(ms);
        self.pool.handle_timeout(self.now);
        self.run();
    }

    fn crash(&mut self, durable: &[bool]) {
        let stores = std::mem::take(&mut self.stores);
        for (number, (_, id, change)) in stores.into_iter().enumerate() {
            if durable[number % durable.len()] {
                self.make_durable(id, &change);
            }
        }
        self.reference.crash();
        self.assigns.clear();
        self.releases.clear();
        self.loads.clear();
        self.refills.clear();
        self.found.clear();
        self.workers.iter_mut().for_each(|worker| worker.session = None);
        (self.epoch, self.messages) = (self.epoch + 1, 0);
        self.drained = false;
        self.pool = Pool::new(config(), self.epoch);
        let mut counts = BTreeMap::<_, Shelved>::new();
        for File { marked, state, .. } in self.reference.disk.values() {
            counts.entry((marked.mailbox, Shelf::of(*state))).or_default().add(marked.length);
        }
        self.shelf = self.reference.disk.keys().map(|id| (*id, Note::default())).collect();
        self.pool.handle_opened(counts, self.now);
        self.run();
    }

    fn run(&mut self) {
        while let Some(effect) = self.pool.poll_effect() {
            match effect {
                Effect::Store { token, message, change, .. } => {
                    let busy = self.stores.iter().any(|(_, stored, _)| *stored == message);
                    assert!(!busy, "two stores of {message} at once");
                    self.reference.store_asked(message, &change);
                    self.stores.push((token, message, change));
                }
                Effect::Assign(assignment) => {
                    self.reference.assigned(&assignment);
                    self.assigns.push(assignment);
                }
                Effect::Release { token, message, recipients, .. } => {
                    self.reference.releasing(message, &recipients);
                    self.releases.push((token, message, recipients));
                }
                Effect::Load { token, message, .. } => self.loads.push((token, message)),
                Effect::Reply { session, message, fence, frame, finish } => {
                    assert!(finish && !matches!(frame, HostReservation::Assign(_)));
                    self.reference.released_by(message, session, fence);
                    self.no_longer_holds(session, message, fence);
                }
                Effect::Control { session, frame: HostControl::Welcome(welcome) } => {
                    let answers: Vec<_> =
                        welcome.resumed.iter().map(|r| (r.message, r.fence, r.answer)).collect();
                    self.welcomed(session, &answers);
                }
                Effect::Control { session, frame: HostControl::Recalled(credit) } => {
                    if let Some(account) = self.reference.accounts.get_mut(&session) {
                        account.wanted = credit.messages;
                    }
                }
                Effect::Shelve { message, note } => {
                    assert!(self.reference.disk.contains_key(&message), "{message} is not stored");
                    let twice = self.shelf.insert(message, note).is_some();
                    assert!(!twice, "{message} is on the shelf already");
                }
                Effect::Refill { mailbox, shelf, count, due } => {
                    self.refills.push((mailbox, shelf, count, due));
                }
                Effect::Answer { message, answer } => self.reference.answered(message, &answer),
                Effect::Forget { message, .. } => self.reference.forgotten(message),
                Effect::Control { .. }
                | Effect::CloseLink { .. }
                | Effect::StopIntake { .. }
                | Effect::Event(..) => {}
            }
        }
    }

    fn no_longer_holds(&mut self, session: Session, message: MessageId, fence: Fence) {
        if let Some(account) = self.reference.accounts.get(&session) {
            let holds = &mut self.workers[account.worker].holds;
            if holds.get(&message) == Some(&fence) {
                holds.remove(&message);
            }
        }
    }

    /// A fair worker, a disk that works, a next hop that takes everything: for long enough, and every message is done,
    /// aside or answered.
    pub(crate) fn be_kind(&mut self) {
        if self.drained {
            self.crash(&[true]);
        }
        (0..WORKERS).for_each(|index| self.lose(index));
        self.link(0, true, false);
        for _ in 0..20_000 {
            self.control(0, WorkerControl::Beat(Beat { count: 1 }));
            self.want_up_to(0, 2);
            while !self.stores.is_empty()
                || !self.assigns.is_empty()
                || !self.releases.is_empty()
                || !self.loads.is_empty()
                || !self.refills.is_empty()
                || !self.found.is_empty()
            {
                self.look(0);
                self.refilled(0);
                self.stored(0, false);
                self.assigned(0, Outgoing::Sent);
                self.released(0, &[0, 0, 0]);
                self.loaded(0, false);
            }
            for assignment in self.history.clone() {
                if self.is_owned(&assignment) {
                    self.say_clean(assignment.message, &assignment.asked);
                }
            }
            self.history.retain(|_| false);
            if self.is_over() {
                self.check();
                return;
            }
            // Beats come, and time passes from one event to the next.
            let next = self
                .pool
                .next_timeout()
                .map_or(200, |at| at.0.saturating_sub(self.now.0).clamp(1, 200));
            self.pass(next);
        }
        let status = self.status();
        panic!("{} messages never end: {:#?}", status.messages.len(), status);
    }

    fn want_up_to(&mut self, index: usize, free: u64) {
        let Some(session) = self.workers[index].session else { return };
        let Some(account) = self.reference.accounts.get(&session) else { return };
        let left = account.wanted.saturating_sub(account.given);
        if left < free {
            self.want(index, free - left);
        }
    }

    fn say_clean(&mut self, message: MessageId, asked: &[String]) {
        let Some((session, fence)) = self.reference.owners.get(&message).copied() else { return };
        let file = self.reference.disk.get(&message).map(|file| &file.marked);
        let sender = self.reference.senders.get(&message).map(|sender| &sender.marked);
        let Some(recipients) = file.or(sender).map(|marked| marked.recipients) else { return };
        self.serial += 1;
        self.reference.say(self.serial, message, session, fence);
        let verdict =
            verdict(Word::Clean, recipients, LENGTH, digest(message.counter), asked, self.serial);
        let frame = WorkerReservation::Verdict(Box::new(verdict));
        self.pool.handle_reservation(session, message, fence, frame, self.now);
        self.run();
    }

    fn is_over(&self) -> bool {
        let aside =
            |file: &File| matches!(file.state, StoredState::Held | StoredState::Quarantined);
        self.stores.is_empty()
            && self.reference.senders.is_empty()
            && self.reference.disk.values().all(aside)
    }
}

//! A driver for tests: nothing in it waits, and nothing happens that the test did not ask for.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use gantry_mail::HeaderEdit;

use super::super::*;
use crate::frame::{
    Beat, Cancel, Credit, Hello, HostControl, HostReservation, Progress, Resume, Return,
    ReturnKind, Settled, WorkerControl, WorkerReservation,
};
use crate::id::{Digest, Incarnation};
use crate::limits::VERSIONS;
use crate::profile::{Action, Profile, Readiness};
use crate::verdict::{Body, Disposition, Finding, Group, Outcome, Verdict};

pub(super) const POLICY: Digest = Digest([7; 32]);
pub(super) const VIRUS: &str = "virus";
pub(super) const MAILBOX: MailboxIndex = MailboxIndex(0);
pub(super) const START: Moment = Moment(1_000_000);

pub(super) fn mailbox() -> MailboxConfig {
    MailboxConfig::new("mail.box", vec![VIRUS.to_owned()], WhenUnprocessed::Wait)
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) struct Host {
    pub(super) pool: Pool,
    pub(super) now: Moment,
    /// Whether stores succeed and assignments are sent as soon as they are asked for.
    pub(super) prompt: bool,
    /// Everything that the pool asked for, but for what is answered by completions below.
    pub(super) seen: Vec<Effect>,
    pub(super) stores: VecDeque<(Token, MessageId, Change)>,
    pub(super) assigns: VecDeque<Assignment>,
    pub(super) releases: VecDeque<(Token, MessageId, Vec<u16>)>,
    pub(super) loads: VecDeque<(Token, MessageId)>,
    /// The last assignment of each message.
    pub(super) assigned: BTreeMap<MessageId, Assignment>,
    /// What is stored of messages in the hook's custody.
    pub(super) files: BTreeMap<MessageId, Recovered>,
    /// Those of them that are not in the pool's hands.
    pub(super) shelf: BTreeSet<MessageId>,
    messages: u64,
    sessions: u64,
}

impl Host {
    pub(super) fn new() -> Self {
        Self::with(mailbox())
    }

    pub(super) fn with(mailbox: MailboxConfig) -> Self {
        Self {
            // Most tests are not about the pause between attempts.
            pool: Pool::new(
                Config {
                    failed_pause: Duration::ZERO,
                    ..Config::new("mx1", POLICY, vec![mailbox])
                },
                5,
            ),
            now: START,
            prompt: true,
            seen: Vec::new(),
            stores: VecDeque::new(),
            assigns: VecDeque::new(),
            releases: VecDeque::new(),
            loads: VecDeque::new(),
            assigned: BTreeMap::new(),
            files: BTreeMap::new(),
            shelf: BTreeSet::new(),
            messages: 0,
            sessions: 0,
        }
    }

    pub(super) fn marked(&mut self, custody: Custody) -> Marked {
        self.messages += 1;
        Marked {
            id: MessageId { epoch: 5, counter: self.messages },
            mailbox: MAILBOX,
            custody,
            length: 1_000,
            recipients: 1,
            since: self.now,
            attempts: 0,
        }
    }

    /// A message of one recipient in the hook's custody.
    pub(super) fn mark(&mut self) -> MessageId {
        self.mark_for(1)
    }

    pub(super) fn mark_for(&mut self, recipients: u16) -> MessageId {
        let marked = Marked { recipients, ..self.marked(Custody::Hook) };
        self.take(marked)
    }

    /// A message whose sender waits for two minutes.
    pub(super) fn mark_upstream(&mut self, recipients: u16) -> MessageId {
        let custody = Custody::Upstream { answer_by: self.now + secs(120) };
        let marked = Marked { recipients, ..self.marked(custody) };
        self.take(marked)
    }

    pub(super) fn take(&mut self, marked: Marked) -> MessageId {
        let id = marked.id;
        self.file(marked.clone(), StoredState::Marked { attempts: marked.attempts });
        self.pool.handle_marked(marked, self.now);
        self.run();
        id
    }

    /// What the driver made durable before it tells the pool.
    pub(super) fn file(&mut self, marked: Marked, state: StoredState) {
        self.files.insert(marked.id, Recovered { marked, state, note: Note::default() });
    }

    /// What a start finds on disk. To be called once.
    pub(super) fn open(&mut self, found: Vec<(Marked, StoredState)>) {
        let mut counts = BTreeMap::<_, Shelved>::new();
        for (marked, state) in found {
            counts.entry((marked.mailbox, Shelf::of(state))).or_default().add(marked.length);
            self.shelf.insert(marked.id);
            self.file(marked, state);
        }
        self.pool.handle_opened(counts, self.now);
        self.run();
    }

    pub(super) fn recover(&mut self, state: StoredState) -> MessageId {
        let marked = self.marked(Custody::Hook);
        let id = marked.id;
        self.open(vec![(marked, state)]);
        id
    }

    /// A linked worker that may and can do `virus`, and wants nothing yet.
    pub(super) fn link(&mut self, name: &str, incarnation: u64) -> Session {
        self.link_with(name, &[VIRUS], hello(name, incarnation))
    }

    pub(super) fn link_with(&mut self, name: &str, grants: &[&str], hello: Hello) -> Session {
        self.sessions += 1;
        let session = Session(self.sessions);
        let grants = grants.iter().map(|&grant| grant.to_owned()).collect();
        let peer = LinkPeer { name: name.to_owned(), grants };
        self.pool.handle_link_up(session, peer, hello, self.now);
        self.run();
        session
    }

    /// A linked worker that wants this many.
    pub(super) fn worker(&mut self, name: &str, wants: u64) -> Session {
        let session = self.link(name, 1);
        self.want(session, wants);
        session
    }

    pub(super) fn want(&mut self, session: Session, messages: u64) {
        let credit = Credit { messages, bytes: messages * 1_000_000 };
        self.control(session, WorkerControl::Want(credit));
    }

    pub(super) fn beat(&mut self, session: Session) {
        self.control(session, WorkerControl::Beat(Beat { count: 1 }));
    }

    /// A profile of a first incarnation that holds nothing.
    pub(super) fn says(&mut self, session: Session, name: &str, readiness: Readiness) {
        let profile = Profile {
            grabber: name.to_owned(),
            incarnation: Incarnation(1),
            readiness,
            tier: 0,
            last_action: Action::Linked,
            last_action_ago_ms: 0,
            modules: Vec::new(),
            holding: Vec::new(),
        };
        self.control(session, WorkerControl::Profile(profile));
    }

    pub(super) fn control(&mut self, session: Session, frame: WorkerControl) {
        self.pool.handle_control(session, frame, self.now);
        self.run();
    }

    pub(super) fn lose(&mut self, session: Session) {
        self.pool.handle_link_lost(session, self.now);
        self.run();
    }

    /// Says something on the stream of the message's last assignment.
    pub(super) fn say(&mut self, id: MessageId, frame: WorkerReservation) {
        let Assignment { session, fence, .. } = self.assigned[&id];
        self.say_as(session, id, fence, frame);
    }

    pub(super) fn say_as(
        &mut self,
        session: Session,
        id: MessageId,
        fence: Fence,
        frame: WorkerReservation,
    ) {
        self.pool.handle_reservation(session, id, fence, frame, self.now);
        self.run();
    }

    pub(super) fn returns(&mut self, id: MessageId, kind: ReturnKind, reason: &str) {
        let reason = reason.to_owned();
        self.say(id, WorkerReservation::Return(Return { kind, reason }));
    }

    pub(super) fn fails(&mut self, id: MessageId, reason: &str) {
        self.returns(id, ReturnKind::Failed, reason);
    }

    pub(super) fn progress(&mut self, id: MessageId, work: u64, silence: Duration) {
        let silence_ms = crate::time::millis(silence);
        self.say(id, WorkerReservation::Progress(Progress { work, silence_ms }));
    }

    pub(super) fn verdict(&mut self, id: MessageId, verdict: Verdict) {
        self.say(id, WorkerReservation::Verdict(Box::new(verdict)));
    }

    /// A clean verdict that delivers to the only recipient.
    pub(super) fn clean(&mut self, id: MessageId) {
        self.verdict(id, deliver(id, 1));
    }

    pub(super) fn operate(
        &mut self,
        id: MessageId,
        wanted: StoredState,
        operation: Operation,
    ) -> Result<(), OperatorError> {
        let take = || self.shelf.take(&id).map(|id| self.files[&id].clone());
        let result = self.pool.handle_operator(id, wanted, operation, take, self.now);
        self.run();
        result.map(drop)
    }

    /// Lets time pass, and everything fire that is due in it.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.pool.next_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.pool.handle_timeout(self.now);
            self.run();
        }
        self.now = end;
    }

    /// Lets time pass while these workers beat.
    pub(super) fn pass_beating(&mut self, time: Duration, sessions: &[Session]) {
        let end = self.now + time;
        while self.now < end {
            sessions.iter().for_each(|session| self.beat(*session));
            self.pass(ms(200).min(end.since(self.now)));
        }
    }

    /// Completes the oldest store.
    pub(super) fn stored(&mut self, stored: Stored) {
        let (token, id, change) = self.stores.pop_front().expect("a store is under way");
        if !matches!(stored, Stored::Failed { .. } | Stored::Damaged { .. }) {
            self.change(id, &change);
        }
        self.pool.handle_stored(token, stored, self.now);
        self.run();
    }

    pub(super) fn store_fails(&mut self) {
        self.stored(Stored::Failed { reason: "no space left".to_owned() });
    }

    /// Answers the oldest assignment.
    pub(super) fn sent(&mut self, outcome: Assigned) {
        let a = self.assigns.pop_front().expect("an assignment is under way");
        self.pool.handle_assigned(a.session, a.message, a.fence, outcome, self.now);
        self.run();
    }

    /// Completes the oldest release.
    pub(super) fn released(&mut self, results: &[(u16, ReleaseResult)]) {
        let (token, ..) = self.releases.pop_front().expect("a release is under way");
        let results = results
            .iter()
            .map(|&(recipient, result)| RecipientResult {
                recipient,
                result,
                reply: format!("says {result:?}"),
            })
            .collect();
        self.pool.handle_released(token, results, self.now);
        self.run();
    }

    pub(super) fn run(&mut self) {
        while let Some(effect) = self.pool.poll_effect() {
            match effect {
                Effect::Store { token, message, change, .. } => {
                    let busy = self.stores.iter().any(|(_, stored, _)| *stored == message);
                    assert!(!busy, "two stores of {message} at once");
                    self.seen.push(Effect::Store {
                        token,
                        message,
                        mailbox: MAILBOX,
                        change: change.clone(),
                    });
                    if self.prompt {
                        self.change(message, &change);
                        self.pool.handle_stored(token, done(&change), self.now);
                    } else {
                        self.stores.push_back((token, message, change));
                    }
                }
                Effect::Assign(assignment) => {
                    self.assigned.insert(assignment.message, assignment.clone());
                    self.seen.push(Effect::Assign(assignment.clone()));
                    if self.prompt {
                        let Assignment { session, message, fence, .. } = assignment;
                        let sent = Assigned::Sent { digest: digest(message) };
                        self.pool.handle_assigned(session, message, fence, sent, self.now);
                    } else {
                        self.assigns.push_back(assignment);
                    }
                }
                Effect::Release { token, message, recipients, .. } => {
                    self.releases.push_back((token, message, recipients));
                }
                Effect::Load { token, message, .. } => self.loads.push_back((token, message)),
                Effect::Shelve { message, note } => {
                    assert!(self.shelf.insert(message), "{message} is on the shelf already");
                    self.files.get_mut(&message).expect("it is on disk").note = note;
                }
                Effect::Refill { mailbox, shelf, count, due } => {
                    let found = self.take_from_shelf(mailbox, shelf, count, due);
                    self.pool.handle_refilled(mailbox, shelf, found, self.now);
                }
                other => self.seen.push(other),
            }
        }
    }

    pub(super) fn take_from_shelf(
        &mut self,
        mailbox: MailboxIndex,
        shelf: Shelf,
        count: usize,
        due: Moment,
    ) -> Vec<Recovered> {
        let fits = |file: &&Recovered| {
            file.marked.mailbox == mailbox
                && Shelf::of(file.state) == shelf
                && u64::from(file.note.due_s) * 1_000 <= due.0
        };
        let shelved = self.shelf.iter().map(|id| &self.files[id]);
        let found: Vec<Recovered> = shelved.filter(fits).take(count).cloned().collect();
        found.iter().for_each(|found| {
            self.shelf.remove(&found.marked.id);
        });
        found
    }

    /// What a store that succeeds does to the file.
    fn change(&mut self, id: MessageId, change: &Change) {
        let state = match change {
            Change::Remove => {
                self.files.remove(&id);
                return;
            }
            Change::Charge { attempts } => match self.files.get(&id).map(|file| file.state) {
                Some(StoredState::Part { .. }) => StoredState::Part { attempts: *attempts },
                _ => StoredState::Marked { attempts: *attempts },
            },
            Change::Part { .. } => StoredState::Part { attempts: 0 },
            Change::Settle { .. } | Change::ReleaseAsIs { .. } => StoredState::Releasing,
            Change::SetAside { state, .. } | Change::Adopt { state, .. } => *state,
            Change::Requeue => StoredState::Marked { attempts: 0 },
            Change::Results { .. } | Change::Bounce { .. } | Change::Originate { .. } => return,
        };
        if let Some(file) = self.files.get_mut(&id) {
            file.state = state;
        }
    }

    fn on_shelf(&self) -> Vec<Recovered> {
        self.shelf.iter().map(|id| self.files[id].clone()).collect()
    }

    pub(super) fn picture(&self) -> Status {
        self.pool.status(usize::MAX, &self.on_shelf(), self.now)
    }

    pub(super) fn forget_seen(&mut self) {
        self.seen.clear();
    }

    /// The message's state as `status` shows it; `None` when it is gone.
    pub(super) fn state(&self, id: MessageId) -> Option<String> {
        self.picture().messages.into_iter().find(|m| m.id == id.to_string()).map(|m| m.state)
    }

    pub(super) fn is(&self, id: MessageId, state: &str) -> bool {
        self.state(id).as_deref() == Some(state)
    }

    pub(super) fn status(&self, id: MessageId) -> MessageStatus {
        self.picture()
            .messages
            .into_iter()
            .find(|m| m.id == id.to_string())
            .expect("it is in the pool")
    }

    pub(super) fn counters(&self) -> Counters {
        self.picture().counters
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &Event> {
        self.seen.iter().filter_map(|effect| match effect {
            Effect::Event(event, _) => Some(event),
            _ => None,
        })
    }

    pub(super) fn changes(&self) -> Vec<Change> {
        let stores = self.seen.iter().filter_map(|effect| match effect {
            Effect::Store { change, .. } => Some(change.clone()),
            _ => None,
        });
        stores.collect()
    }

    pub(super) fn answers(&self) -> Vec<Answer> {
        let answers = self.seen.iter().filter_map(|effect| match effect {
            Effect::Answer { answer, .. } => Some(answer.clone()),
            _ => None,
        });
        answers.collect()
    }

    pub(super) fn controls(&self, session: Session) -> Vec<HostControl> {
        let frames = self.seen.iter().filter_map(|effect| match effect {
            Effect::Control { session: to, frame } if *to == session => Some(frame.clone()),
            _ => None,
        });
        frames.collect()
    }

    /// What was said on reservations' streams of a session.
    pub(super) fn replies(&self, session: Session) -> Vec<HostReservation> {
        let frames = self.seen.iter().filter_map(|effect| match effect {
            Effect::Reply { session: to, frame, .. } if *to == session => Some(frame.clone()),
            _ => None,
        });
        frames.collect()
    }

    pub(super) fn was_cancelled(&self, session: Session) -> bool {
        self.replies(session)
            .iter()
            .any(|frame| matches!(frame, HostReservation::Cancel(Cancel { .. })))
    }

    pub(super) fn settled(&self, session: Session) -> Vec<Settled> {
        let settled = self.replies(session).into_iter().filter_map(|frame| match frame {
            HostReservation::Settled(settled) => Some(settled),
            _ => None,
        });
        settled.collect()
    }

    pub(super) fn forgets(&self) -> Vec<u8> {
        let forgets = self.seen.iter().filter_map(|effect| match effect {
            Effect::Forget { attempts, .. } => Some(*attempts),
            _ => None,
        });
        forgets.collect()
    }
}

fn done(change: &Change) -> Stored {
    match change {
        Change::Bounce { .. } => Stored::Bounced { notice: None },
        Change::Originate { .. } => Stored::Originated { messages: Vec::new() },
        _ => Stored::Done,
    }
}

pub(super) fn digest(id: MessageId) -> Digest {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&id.counter.to_be_bytes());
    Digest(digest)
}

pub(super) fn hello(name: &str, incarnation: u64) -> Hello {
    Hello {
        version_min: VERSIONS.0,
        version_max: VERSIONS.1,
        software: "test".to_owned(),
        name: name.to_owned(),
        incarnation: Incarnation(incarnation),
        tier: 0,
        policy: POLICY,
        provides: vec![VIRUS.to_owned()],
        revocations: 0,
        resume: Vec::new(),
    }
}

pub(super) fn resuming(name: &str, incarnation: u64, held: &[&Assignment]) -> Hello {
    let resume = held.iter().map(|a| Resume { message: a.message, fence: a.fence }).collect();
    Hello { resume, ..hello(name, incarnation) }
}

pub(super) fn finding(outcome: Outcome) -> Finding {
    Finding {
        need: VIRUS.to_owned(),
        module: "rules".to_owned(),
        engine: "test 1".to_owned(),
        signatures: "1".to_owned(),
        outcome,
        duration_ms: 1,
    }
}

pub(super) fn verdict(id: MessageId, groups: Vec<(Vec<u16>, Disposition)>) -> Verdict {
    let groups = groups
        .into_iter()
        .map(|(recipients, disposition)| Group { recipients, disposition })
        .collect();
    Verdict {
        length: 1_000,
        digest: digest(id),
        groups,
        findings: vec![finding(Outcome::Clean)],
        originated: Vec::new(),
    }
}

pub(super) fn delivery() -> Disposition {
    let field = "X-Gantry: clean".to_owned();
    Disposition::Deliver { edits: vec![HeaderEdit::Prepend { field }], body: Body::Original }
}

pub(super) fn quarantine() -> Disposition {
    Disposition::Quarantine { reason: "EICAR".to_owned() }
}

pub(super) fn refusal() -> Disposition {
    let (enhanced, text) = ("5.7.1".to_owned(), "no".to_owned());
    Disposition::Refuse { code: 554, enhanced, text }
}

/// Clean, for all of so many recipients.
pub(super) fn deliver(id: MessageId, recipients: u16) -> Verdict {
    verdict(id, vec![((0..recipients).collect(), delivery())])
}

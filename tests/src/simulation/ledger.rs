//! Who was promised what, and what became of it: the judge of a schedule. It sees what crosses the seams (effects,
//! frames, replies, deliveries, files), and asks none of Gantry's own counters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gantry_hook::spool::Listed;
use gantry_protocol::frame::{HostControl, HostReservation, ResumeAnswer, Settled};
use gantry_protocol::id::{Epoch, Fence, MessageId};
use gantry_protocol::pool::{
    Answer, Assignment, Change, Effect, Event, Operation, Status, StoredState,
};
use gantry_protocol::verdict::Verdict;

use super::counts::Counts;
use super::event::Key;
use super::originated::{Book, is_originated};
use super::plan::{ATTEMPTS_MAX, Mail, Nature, number_of};

/// What a sender is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reply {
    Yes,
    TryAgain,
    No,
}

/// How a submission ended for its sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Pending,
    Told(Reply),
    /// The connection was lost before an answer came.
    Lost,
    /// The sender went away before an answer came.
    Left,
}

struct Submission {
    id: MessageId,
    outcome: Outcome,
    /// A store of it failed, so that nobody knows what is on the disk.
    store_failed: bool,
}

#[derive(Default)]
struct MailRecord {
    submissions: Vec<Submission>,
    deliveries: BTreeMap<u16, Vec<Delivery>>,
    /// Recipients that a notice to the sender told of.
    bounced: BTreeSet<u16>,
    kills: u64,
    /// An operator deleted a copy of it.
    deleted: bool,
    /// Kills that need not count against the message, and why they may not is said where this is raised.
    excused: u64,
}

#[derive(Clone, Copy)]
struct Delivery {
    id: MessageId,
    life: u64,
    answered: bool,
}

/// One message of the host.
struct MessageRecord {
    mail: usize,
    fence: Option<Fence>,
    /// Nobody has ended the reservation under `fence`.
    live: bool,
    /// Fences under which an answer arrived while they were current.
    answered: BTreeSet<Fence>,
    delivered: bool,
    /// An operator put it back into the pool.
    requeued: bool,
    /// An operator said that it is to leave as it is.
    as_is: bool,
}

/// A message that is in the spool when everything is over.
pub(super) struct Found {
    pub(super) id: MessageId,
    pub(super) state: StoredState,
    pub(super) bytes: Vec<u8>,
}

pub(super) struct Ledger {
    pub(super) violation: Option<String>,
    pub(super) counts: Counts,
    facts: Arc<Vec<Mail>>,
    mails: Vec<MailRecord>,
    messages: BTreeMap<MessageId, MessageRecord>,
    notices: BTreeMap<MessageId, Vec<Delivery>>,
    originated: Book,
    /// Verdicts that modules really came to.
    runs: BTreeMap<Key, usize>,
    /// Which need was met for which message, and under which fence.
    did: BTreeSet<(MessageId, String, String)>,
    /// The highest fence of this start and of those before.
    highest: Option<Fence>,
    former_highest: Option<Fence>,
    last_epoch: Epoch,
    starts: u64,
}

/// Who decides about what was set aside.
pub(super) const OPERATOR: &str = "alice";

/// What a finding says of the reservation that it was made under, so that every verdict can be traced.
pub(super) fn provenance(fence: Fence) -> String {
    format!("{}.{}", fence.epoch, fence.counter)
}

impl Ledger {
    pub(super) fn new(facts: Arc<Vec<Mail>>) -> Self {
        Self {
            violation: None,
            counts: Counts::default(),
            mails: facts.iter().map(|_| MailRecord::default()).collect(),
            facts,
            messages: BTreeMap::new(),
            notices: BTreeMap::new(),
            originated: Book::default(),
            runs: BTreeMap::new(),
            did: BTreeSet::new(),
            highest: None,
            former_highest: None,
            last_epoch: 0,
            starts: 0,
        }
    }

    /// The first counts: what follows a broken promise is only its echo.
    pub(super) fn violated(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.violated(what());
        }
    }

    // ---- the sender's side

    pub(super) fn submitted(&mut self, mail: usize, id: MessageId) -> usize {
        let record = MessageRecord {
            mail,
            fence: None,
            live: false,
            answered: BTreeSet::new(),
            delivered: false,
            requeued: false,
            as_is: false,
        };
        let known = self.messages.insert(id, record).is_some();
        self.expect(!known, || format!("{id} is the id of two messages"));
        let submissions = &mut self.mails[mail].submissions;
        submissions.push(Submission { id, outcome: Outcome::Pending, store_failed: false });
        submissions.len() - 1
    }

    pub(super) fn is_pending(&self, mail: usize, submission: usize) -> bool {
        self.mails[mail].submissions[submission].outcome == Outcome::Pending
    }

    pub(super) fn lost(&mut self, mail: usize, submission: usize) {
        self.mails[mail].submissions[submission].outcome = Outcome::Lost;
    }

    pub(super) fn left(&mut self, mail: usize, submission: usize) -> MessageId {
        let submission = &mut self.mails[mail].submissions[submission];
        submission.outcome = Outcome::Left;
        submission.id
    }

    /// Every submission that waits for its answer.
    pub(super) fn pending(&self) -> Vec<(usize, usize)> {
        let of = |(mail, record): (usize, &MailRecord)| {
            let last = record.submissions.len().checked_sub(1)?;
            self.is_pending(mail, last).then_some((mail, last))
        };
        self.mails.iter().enumerate().filter_map(of).collect()
    }

    pub(super) fn store_failed(&mut self, id: MessageId) {
        for mail in &mut self.mails {
            mail.submissions.iter_mut().filter(|s| s.id == id).for_each(|s| s.store_failed = true);
        }
    }

    /// A reply arrived at a sender that still waited for it.
    pub(super) fn replied(&mut self, mail: usize, submission: usize, reply: Reply) {
        let submitted = &mut self.mails[mail].submissions[submission];
        submitted.outcome = Outcome::Told(reply);
        let (id, uncertain) = (submitted.id, submitted.store_failed);
        let delivered = self.mails[mail]
            .deliveries
            .values()
            .flatten()
            .any(|delivery| delivery.id == id && delivery.answered);
        self.expect(reply == Reply::Yes || !delivered || uncertain, || {
            format!("mail {mail} was delivered as {id}, and its sender was told {reply:?}")
        });
    }

    // ---- the host's side

    pub(super) fn opened(&mut self, epoch: Epoch, found: &[Listed]) {
        self.starts += 1;
        self.expect(epoch > self.last_epoch, || format!("epoch {epoch} is not higher than before"));
        self.last_epoch = epoch;
        self.former_highest = self.highest;
        for found in found {
            let id = found.id;
            let Some(record) = self.messages.get(&id) else { continue };
            let unsettled = matches!(found.state, StoredState::Marked { .. });
            self.expect(!record.delivered || record.requeued || !unsettled, || {
                format!(
                    "{id} was delivered before its verdict was durable: a start found it marked"
                )
            });
        }
        for record in self.messages.values_mut() {
            record.live = false;
        }
    }

    pub(super) fn current_fence(&self, id: MessageId) -> Option<Fence> {
        self.messages.get(&id)?.fence
    }

    /// What an operator decides is no broken promise. A message that is given back is new in every way but one: whoever
    /// has got it does not get it again.
    pub(super) fn operator_decided(&mut self, id: MessageId, operation: Operation) {
        let Some(record) = self.messages.get_mut(&id) else { return };
        let mail = &mut self.mails[record.mail];
        match operation {
            Operation::Release => {
                record.requeued = true;
                mail.excused += u64::from(ATTEMPTS_MAX);
            }
            Operation::ReleaseAsIs { .. } => record.as_is = true,
            Operation::Delete => mail.deleted = true,
        }
    }

    /// An answer arrives from a worker; `true` if it comes too late.
    pub(super) fn answer_arrives(&mut self, key: Key) -> bool {
        let Some(record) = self.messages.get_mut(&key.0) else { return true };
        if record.live && record.fence == Some(key.1) {
            record.answered.insert(key.1);
            return false;
        }
        let late = !record.answered.contains(&key.1);
        if late {
            self.counts.add("late answers of workers");
        }
        late
    }

    pub(super) fn on_effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Assign(assignment) => self.assigned(assignment),
            Effect::Reply { message, fence, frame, .. } => self.on_reply((*message, *fence), frame),
            Effect::Store { message, change, .. } => self.on_change(*message, change),
            Effect::Control { frame: HostControl::Welcome(welcome), .. } => {
                for resumed in &welcome.resumed {
                    let record = self.messages.get(&resumed.message);
                    let holds = record.is_some_and(|record| match resumed.answer {
                        ResumeAnswer::Live => record.live && record.fence == Some(resumed.fence),
                        ResumeAnswer::Applied => record.answered.contains(&resumed.fence),
                        ResumeAnswer::Superseded | ResumeAnswer::Unknown => true,
                    });
                    self.counts
                        .add(&format!("resume answered {:?}", resumed.answer).to_lowercase());
                    self.expect(holds, || format!("a resume was answered wrongly: {resumed:?}"));
                }
            }
            Effect::Answer { answer, .. } => self.counts.add(match answer {
                Answer::Accepted { .. } => "answered yes to a waiting sender",
                Answer::TryAgain { .. } => "answered try again to a waiting sender",
                Answer::Refused { .. } => "answered no to a waiting sender",
            }),
            Effect::StopIntake { .. } => self.counts.add("intake stopped"),
            Effect::Event(event, _) => self.on_event(event),
            _ => {}
        }
    }

    fn on_event(&mut self, event: &Event) {
        match event {
            Event::TakenOver { reason, .. } => self.counts.add(&format!("takeover: {reason}")),
            Event::VerdictRefused { .. } => self.counts.add("late or wrong answers refused"),
            Event::StoreFailed { message, .. } => {
                self.counts.add("stores failed");
                self.store_failed(*message);
            }
            Event::Misbehaved { reason, .. } => {
                self.violated(format!("an honest worker is said to misbehave: {reason}"));
            }
            Event::Corrupted { message, reason } => {
                self.violated(format!("{message} is said to be corrupted: {reason}"));
            }
            _ => {}
        }
    }

    fn assigned(&mut self, assignment: &Assignment) {
        let Assignment { message, fence, attempt, .. } = *assignment;
        let former = self.former_highest;
        self.highest = self.highest.max(Some(fence));
        self.expect(Some(fence) > former, || {
            format!("fence {fence} is not higher than {former:?} of an earlier start")
        });
        self.expect(attempt <= ATTEMPTS_MAX, || {
            format!("{message} is tried for the {attempt}th time")
        });
        self.counts.add("reservations");
        let Some(record) = self.messages.get_mut(&message) else {
            return self.violated(format!("{message} is assigned, and nobody sent it"));
        };
        let (was_live, before) = (record.live, record.fence);
        (record.fence, record.live) = (Some(fence), true);
        self.expect(!was_live, || {
            format!("{message} is reserved under {before:?} and {fence} at once")
        });
        self.expect(Some(fence) > before, || {
            format!("{message} is reserved under {fence} after {before:?}")
        });
    }

    /// The host's last word in a reservation.
    fn on_reply(&mut self, key: Key, frame: &HostReservation) {
        let Some(record) = self.messages.get_mut(&key.0) else { return };
        if record.fence == Some(key.1) {
            record.live = false;
        }
        let applied = matches!(frame, HostReservation::Settled(Settled::Applied));
        let in_time = record.answered.contains(&key.1);
        self.expect(!applied || in_time, || format!("a late answer counts: {key:?}"));
    }

    fn on_change(&mut self, id: MessageId, change: &Change) {
        match change {
            Change::Settle { verdict } => self.settled(id, verdict),
            Change::SetAside { verdict, .. } | Change::Adopt { verdict, .. } => {
                if let Some(verdict) = verdict {
                    self.settled(id, verdict);
                }
            }
            Change::Originate { verdict: Some(verdict) } => self.settled(id, verdict),
            Change::ReleaseAsIs { .. } => self.originated.overruled(id),
            _ => {}
        }
        let name = match change {
            Change::Adopt { .. } => {
                // The reservation of a worker that is dying was given back when the sender's time was over.
                self.excuse_kill(id);
                "custody taken"
            }
            Change::SetAside { state: StoredState::Held, .. } => "held",
            Change::SetAside { .. } => "quarantined",
            Change::Bounce { .. } => "notices asked for",
            Change::Settle { .. } => "settled",
            Change::ReleaseAsIs { .. } => "released as it is",
            Change::Originate { .. } => "originated messages asked for",
            Change::Part { .. } => "parts",
            Change::Charge { .. } | Change::Results { .. } | Change::Remove | Change::Requeue => {
                return;
            }
        };
        self.counts.add(name);
    }

    /// A verdict is about to count.
    fn settled(&mut self, id: MessageId, verdict: &Verdict) {
        // Those of earlier workers come first.
        let stamp = verdict.findings.last().map(|finding| finding.engine.clone());
        self.all_needs_are_met(id, verdict);
        let Some(record) = self.messages.get_mut(&id) else { return };
        self.originated.settled(id, verdict, &self.facts[record.mail].envelope);
        let fence = record.fence;
        let current = fence.is_some_and(|fence| {
            Some(provenance(fence)) == stamp && record.answered.contains(&fence)
        });
        record.live = false;
        let ran = fence.is_some_and(|fence| self.runs.contains_key(&(id, fence)));
        self.expect(current && ran, || {
            format!("{id} is settled by the verdict of {stamp:?}; its fence is {fence:?}")
        });
    }

    /// Whoever gets the message gets it with an answer for each need, of a worker that was asked for it and did it.
    fn all_needs_are_met(&mut self, id: MessageId, verdict: &Verdict) {
        let Some(mail) = self.messages.get(&id).map(|record| record.mail) else { return };
        let answers = verdict.findings.iter().filter(|finding| finding.outcome.is_answer());
        let mut met: Vec<String> = Vec::new();
        for finding in answers {
            let did = (id, finding.need.clone(), finding.engine.clone());
            if !self.did.contains(&did) {
                return self.violated(format!("{id} has a finding that nobody made: {finding:?}"));
            }
            met.push(finding.need.clone());
        }
        let delivers = verdict.groups.iter().any(|group| {
            matches!(group.disposition, gantry_protocol::verdict::Disposition::Deliver { .. })
        });
        let open = self.facts[mail].needs().into_iter().find(|need| !met.contains(need));
        if let Some(open) = open.filter(|_| delivers) {
            self.violated(format!("{id} is delivered without {open}"));
        }
        let stamps: BTreeSet<&String> = verdict.findings.iter().map(|one| &one.engine).collect();
        if stamps.len() > 1 {
            self.counts.add("processed by several workers in turn");
        }
    }

    // ---- the workers' side

    pub(super) fn assigned_to_worker(&mut self, key: Key, worker: usize) {
        let known = self.messages.contains_key(&key.0);
        self.expect(known, || format!("worker {worker} was given {key:?}, which nobody sent"));
    }

    pub(super) fn ran(&mut self, key: Key, mail: usize) {
        self.runs.insert(key, mail);
    }

    /// A worker's modules met these needs.
    pub(super) fn did(&mut self, key: Key, needs: &[String]) {
        let stamp = provenance(key.1);
        self.did.extend(needs.iter().map(|need| (key.0, need.clone(), stamp.clone())));
    }

    pub(super) fn excuse_kill(&mut self, id: MessageId) {
        if let Some(record) = self.messages.get(&id) {
            self.mails[record.mail].excused += 1;
        }
    }

    /// A message killed a worker. Each counts, but for what a restart forgets (the first attempt is not synced), what a
    /// sender that is answered or gone takes back, and what happens under an old fence.
    pub(super) fn killed(&mut self, key: Key, mail: usize) {
        let current = self.messages.get(&key.0).is_some_and(|r| r.live && r.fence == Some(key.1));
        let upstream = self.facts[mail].is_upstream();
        let record = &mut self.mails[mail];
        record.kills += u64::from(current);
        let sent = record.submissions.len() as u64;
        // What does not always kill may have done a part in between, and its attempts begin anew.
        let parts = if self.facts[mail].nature == Nature::Flaky {
            self.facts[mail].needs().len()
        } else {
            1
        };
        let max = u64::from(ATTEMPTS_MAX) * parts as u64;
        // In upstream custody attempts follow the content, until it has passed once: what does not always kill may have done
        // so, and been left to its sender by the next hop. In the hook's, each copy that a sender left here has its own.
        let always = self.facts[mail].nature != Nature::Flaky;
        let most = if upstream && always { max + sent - 1 } else { max * sent };
        let most = most + record.excused + self.starts - 1;
        let kills = record.kills;
        self.expect(kills <= most, || format!("mail {mail} has killed {kills} workers"));
    }

    // ---- the next hop's side

    pub(super) fn delivered(
        &mut self,
        id: MessageId,
        life: u64,
        answered: bool,
        recipients: &[u16],
        bytes: &[u8],
    ) {
        let delivery = Delivery { id, life, answered };
        let Some(record) = self.messages.get_mut(&id) else {
            return self.notice_delivered(delivery, bytes);
        };
        record.delivered = true;
        let number = record.mail;
        let mail = &self.facts[number];
        let stamp = bytes.strip_prefix(b"X-Gantry: ").and_then(|rest| {
            let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
            Some((String::from_utf8_lossy(&rest[..end]).into_owned(), &rest[end + 2..]))
        });
        let Some((stamp, rest)) = stamp else {
            return self.violated(format!("{id} was delivered unprocessed: mail {number}"));
        };
        let whole = rest == mail.bytes.as_slice();
        let processed = self.runs.keys().any(|(message, fence)| {
            *message == id && stamp.ends_with(&format!("fence={}", provenance(*fence)))
        });
        let nature = mail.nature;
        // By an operator's word alone, and only where one was given.
        let as_is = record.as_is && stamp.ends_with(&format!("by the operator {OPERATOR}"));
        self.expect(whole, || format!("{id} was delivered with other bytes than it came with"));
        self.expect(processed || as_is, || {
            format!("{id} was delivered by a verdict that nobody gave: {stamp}")
        });
        for recipient in recipients {
            let may = match nature {
                Nature::Clean | Nature::Slow | Nature::Flaky => true,
                Nature::Part => *recipient == 0 || as_is,
                _ => as_is,
            };
            self.expect(may, || {
                format!("{id}, {nature:?}, was delivered to recipient {recipient}")
            });
            self.delivered_to(number, *recipient, delivery);
        }
    }

    fn delivered_to(&mut self, mail: usize, recipient: u16, delivery: Delivery) {
        let former = self.mails[mail].deliveries.entry(recipient).or_default().clone();
        self.mails[mail].deliveries.entry(recipient).or_default().push(delivery);
        self.counts.add("delivered to a recipient");
        let Some(former) = former.last() else { return };
        match self.why_twice(mail, former, &delivery) {
            Some(reason) => self.counts.add(&format!("duplicate: {reason}")),
            None => self.violated(format!(
                "mail {mail} was delivered twice to recipient {recipient} without need: as {} and as {}",
                former.id, delivery.id
            )),
        }
    }

    /// Why a recipient may have got a message a second time.
    fn why_twice(
        &self,
        mail: usize,
        former: &Delivery,
        delivery: &Delivery,
    ) -> Option<&'static str> {
        if !former.answered {
            return Some("the next hop's answer was lost");
        }
        if former.id == delivery.id {
            return (former.life != delivery.life)
                .then_some("the hook crashed before it was recorded");
        }
        let submissions = &self.mails[mail].submissions;
        let older = submissions.iter().find(|s| s.id == former.id || s.id == delivery.id)?;
        match older.outcome {
            Outcome::Lost => Some("the sender's connection was lost"),
            Outcome::Left => Some("the sender went before its answer came"),
            Outcome::Told(Reply::TryAgain) if older.store_failed => Some("a store failed"),
            _ => None,
        }
    }

    fn notice_delivered(&mut self, delivery: Delivery, bytes: &[u8]) {
        let originated = is_originated(bytes);
        self.counts.add(if originated {
            "originated messages delivered"
        } else {
            "notices delivered"
        });
        let former = self.notices.entry(delivery.id).or_default();
        let without_need =
            former.last().is_some_and(|former| former.answered && former.life == delivery.life);
        if !former.is_empty() {
            self.counts.add("duplicate: notice, after a lost answer or a crash");
        }
        self.notices.entry(delivery.id).or_default().push(delivery);
        self.expect(!without_need, || format!("notice {} was delivered twice", delivery.id));
        if originated {
            self.told_beside(delivery.id, bytes);
        } else {
            self.told_of_bounce(delivery.id, bytes);
        }
    }

    /// What a verdict asked for is there.
    fn told_beside(&mut self, id: MessageId, bytes: &[u8]) {
        let seen = self.originated.seen(id, bytes);
        seen.unwrap_or_else(|violation| self.violated(violation));
        // RFC 3834: put on top by the hook.
        let automatic = bytes.starts_with(b"Auto-Submitted: auto-generated\r\n")
            || bytes.starts_with(b"Subject: told\r\n");
        self.expect(automatic, || format!("{id} does not say that no person wrote it"));
    }

    fn told_of_bounce(&mut self, id: MessageId, bytes: &[u8]) {
        let number = number_of(bytes).filter(|number| *number < self.facts.len());
        let Some(number) = number else {
            return self.violated(format!("notice {id} is about no mail"));
        };
        let text = String::from_utf8_lossy(bytes);
        for (index, recipient) in (0..).zip(&self.facts[number].envelope.recipients) {
            if text.contains(&recipient.address) {
                self.mails[number].bounced.insert(index);
            }
        }
    }

    // ---- the end

    /// Whether every sender has been told yes or no.
    pub(super) fn all_answered(&self) -> bool {
        self.mails.iter().all(|mail| {
            mail.submissions
                .last()
                .is_some_and(|last| matches!(last.outcome, Outcome::Told(Reply::Yes | Reply::No)))
        })
    }

    /// What the host says of itself when everything has ended is what is stored.
    pub(super) fn counted(&mut self, status: &Status, stored: &[Listed]) {
        let count = |state| stored.iter().filter(|listed| listed.state == state).count() as u64;
        let there = (count(StoredState::Held), count(StoredState::Quarantined));
        let told = (status.held, status.quarantined);
        self.expect(told == there, || {
            format!("held and quarantined are {there:?} and counted as {told:?}")
        });
    }

    /// What is in the spool after everything has ended, and the power was cut once more.
    pub(super) fn close(&mut self, found: Vec<Found>) {
        let mut aside: BTreeSet<usize> = BTreeSet::new();
        let mut held: BTreeSet<MessageId> = BTreeSet::new();
        for Found { id, state, bytes } in found {
            self.expect(matches!(state, StoredState::Held | StoredState::Quarantined), || {
                format!("{id} is {state:?} after everything has ended")
            });
            self.counts.add(if state == StoredState::Held {
                "end: held"
            } else {
                "end: quarantined"
            });
            let Some(record) = self.messages.get(&id) else {
                if is_originated(&bytes) {
                    self.told_beside(id, &bytes);
                } else {
                    self.told_of_bounce(id, &bytes);
                }
                continue;
            };
            let mail = record.mail;
            held.extend((state == StoredState::Held).then_some(id));
            let whole = *self.facts[mail].bytes == bytes;
            self.expect(whole, || format!("{id} was set aside with other bytes than it came with"));
            aside.insert(mail);
        }
        for mail in 0..self.mails.len() {
            if let Some(recipient) = self.lost_recipient(mail, aside.contains(&mail)) {
                let nature = self.facts[mail].nature;
                self.violated(format!(
                    "mail {mail}, {nature:?}, was answered yes and is lost for recipient {recipient}"
                ));
            }
        }
        if let Some(id) = self.silent(&held) {
            let mail = self.messages[&id].mail;
            self.violated(format!(
                "{id}, mail {mail}, has settled, and what its verdict asks for is lost"
            ));
        }
    }

    /// A message whose verdict counted, and of which not all is there that the verdict asked for. Of one that ended held
    /// nobody can say here whether it did.
    fn silent(&self, held: &BTreeSet<MessageId>) -> Option<MessageId> {
        let counted = |id: &MessageId, record: &MessageRecord| {
            let mail = &self.facts[record.mail];
            let mut submissions = self.mails[record.mail].submissions.iter();
            let outcome = submissions.find(|s| s.id == *id).map(|s| s.outcome);
            match outcome {
                Some(Outcome::Told(Reply::Yes)) => true,
                Some(Outcome::Told(Reply::No)) => mail.nature == Nature::Spam,
                // The hook's custody does not end with its sender's connection.
                _ => !mail.is_upstream() && record.delivered,
            }
        };
        let lacks = |(id, record): &(&MessageId, &MessageRecord)| {
            !held.contains(id)
                && !self.mails[record.mail].deleted
                && counted(id, record)
                && self.originated.lacks(**id)
        };
        self.messages.iter().find(lacks).map(|(id, _)| *id)
    }

    /// A recipient of a mail that was answered yes, of whom nothing can be said.
    fn lost_recipient(&self, mail: usize, aside: bool) -> Option<u16> {
        let (record, facts) = (&self.mails[mail], &self.facts[mail]);
        let yes = Outcome::Told(Reply::Yes);
        if aside
            || record.deleted
            || !record.submissions.iter().any(|submission| submission.outcome == yes)
        {
            return None;
        }
        let discarded =
            facts.nature == Nature::Discarded && self.runs.values().any(|ran| *ran == mail);
        let served = |recipient: &u16| {
            discarded
                || record.deliveries.contains_key(recipient)
                || record.bounced.contains(recipient)
        };
        (0..facts.recipients()).find(|recipient| !served(recipient))
    }
}

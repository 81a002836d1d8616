//! Messages that several workers process in turn: who may have which, and what each of them has found.
//!
//! A message goes to a grabber that can do all that remains. Only where nobody who is there can, it goes to one that can
//! do some of it. That one returns a part, which is stored before it is acknowledged, and the message is in the pool
//! again with fewer needs. Each part meets at least one more, so there are no more parts than needs.

use super::effect::{Change, Effect, Event, StoredLog, StoredState};
use super::entry::{Acknowledge, Entry, Found, Next, State};
use super::grabbers::{Grabber, GrabberKey};
use super::needs::Needs;
use super::{Pool, Queue};
use crate::frame::Part;
use crate::id::{MessageId, Token};
use crate::limits::{FINDINGS_MAX, PART_BYTES_MAX};
use crate::time::Moment;
use crate::verdict::{Body, Finding, Outcome};

/// Messages whose stored findings are being read at once. A start knows of them by their names alone.
const READING_MAX: usize = 16;

impl Pool {
    /// Whether a grabber may have what waits in this queue. `owner` has such a message and is to lose it.
    pub(super) fn may_have(
        &self,
        key: GrabberKey,
        grabber: &Grabber,
        queue: &Queue,
        owner: Option<GrabberKey>,
    ) -> bool {
        let Some(mailbox) = self.config.mailboxes.get(usize::from(queue.mailbox.0)) else {
            return false;
        };
        let remaining = Needs::all_of(mailbox).without(queue.met);
        let can = grabber.can(queue.mailbox);
        if remaining.within(can) {
            return true;
        }
        let better = |(other, grabber): (GrabberKey, &Grabber)| {
            other != key
                && Some(other) != owner
                && remaining.within(grabber.can(queue.mailbox))
                && (grabber.is_available() || grabber.is_at_work())
        };
        !remaining.and(can).is_empty() && !self.grabbers.iter().any(better)
    }

    /// What of a message's needs no worker has met.
    pub(super) fn open_needs(&self, entry: &Entry) -> Vec<String> {
        let mailbox = self.config.mailboxes.get(usize::from(entry.mailbox.0));
        mailbox
            .map(|mailbox| Needs::all_of(mailbox).without(entry.met()).names(mailbox))
            .unwrap_or_default()
    }

    /// What of it a grabber is to meet.
    pub(super) fn asked(&self, entry: &Entry, key: GrabberKey) -> Vec<String> {
        let mailbox = self.config.mailboxes.get(usize::from(entry.mailbox.0));
        let can = self.grabbers.get(key).map(|grabber| grabber.can(entry.mailbox));
        let (Some(mailbox), Some(can)) = (mailbox, can) else { return Vec::new() };
        Needs::all_of(mailbox).without(entry.met()).and(can).names(mailbox)
    }

    /// A part that has arrived whole, under the current fence.
    pub(super) fn on_part(
        &mut self,
        id: MessageId,
        acknowledge: Acknowledge,
        part: Part,
        now: Moment,
    ) {
        let key = acknowledge.grabber;
        let found = match self.check_part(id, key, &part) {
            Ok(found) => found,
            Err(reason) => return self.on_wrong_answer(id, acknowledge, "part", reason, now),
        };
        self.forget_reservation(id, key);
        let Some(entry) = self.messages.get_mut(&id) else { return };
        entry.state = State::Marked;
        let change = Change::Part { findings: found.findings.clone(), body: part.body };
        let next = Next::Part { found: Box::new(found), news: part.findings };
        self.settle(id, next, Some(acknowledge), change);
    }

    /// What is known of a message with this part; or why the part may not be applied.
    fn check_part(&self, id: MessageId, key: GrabberKey, part: &Part) -> Result<Found, String> {
        let entry = self.check_sent(id, part.length, part.digest)?;
        let mailbox = self.mailbox(id).ok_or("its mailbox is gone")?;
        if part.body != Body::Original {
            return Err("this host takes no replaced messages".to_owned());
        }
        let (met, remaining) = (entry.met(), Needs::all_of(mailbox).without(entry.met()));
        let granted = self.grabbers.get(key).map(|grabber| grabber.granted(entry.mailbox));
        let may = remaining.and(granted.unwrap_or_default()).names(mailbox);
        if let Some(other) = part.findings.iter().find(|finding| !may.contains(&finding.need)) {
            return Err(format!(
                "a finding for {:?}, which is not among what this worker was asked for ({})",
                crate::text::bounded(other.need.as_str()),
                may.join(", ")
            ));
        }
        let news = answered(mailbox, &part.findings);
        if let Some(unanswered) =
            part.findings.iter().find(|f| !Needs::of(mailbox, |need| need == f.need).within(news))
        {
            return Err(format!("no finding of any module answers the need {:?}", unanswered.need));
        }
        if news.is_empty() || remaining.within(news) {
            let what = if news.is_empty() { "meets nothing" } else { "leaves nothing to be done" };
            return Err(format!("a part that {what}; a part meets some of what remains"));
        }
        let earlier = entry.findings().iter().cloned();
        let findings: Vec<Finding> = earlier.chain(part.findings.iter().cloned()).collect();
        if findings.len() > FINDINGS_MAX || bytes_of(&findings) > PART_BYTES_MAX {
            return Err(format!(
                "more than {FINDINGS_MAX} findings or {PART_BYTES_MAX} bytes of them with those of earlier workers"
            ));
        }
        Ok(Found { findings, met: met.with(news), read: true })
    }

    /// An answer for one of the mailbox's needs counts only from a worker whose certificate was granted that need.
    pub(super) fn check_granted(
        &self,
        entry: &Entry,
        key: GrabberKey,
        findings: &[Finding],
    ) -> Result<(), String> {
        let Some(mailbox) = self.config.mailboxes.get(usize::from(entry.mailbox.0)) else {
            return Err("its mailbox is gone".to_owned());
        };
        let granted = self.grabbers.get(key).map(|grabber| grabber.granted(entry.mailbox));
        let others = answered(mailbox, findings).without(granted.unwrap_or_default());
        match others.names(mailbox).first() {
            Some(need) => Err(format!("a finding for {need:?}, which this worker was not granted")),
            None => Ok(()),
        }
    }

    /// A part is stored: the message is in the pool with what remains, and nothing is held against it.
    pub(super) fn on_part_stored(
        &mut self,
        id: MessageId,
        acknowledge: Option<Acknowledge>,
        found: Box<Found>,
        news: Vec<Finding>,
        now: Moment,
    ) {
        let Some(acknowledge) = acknowledge else { return };
        self.answer_applied(&acknowledge, id);
        let grabber = self.grabbers.name(acknowledge.grabber);
        let Some(entry) = self.messages.get_mut(&id) else { return };
        entry.found = Some(found);
        (entry.attempts, entry.returns, entry.suspect, entry.recovered) = (0, 0, false, false);
        let charges = entry.history.as_mut().map(|history| {
            history.failed_with.clear();
            std::mem::take(&mut history.charges)
        });
        for charge in charges.unwrap_or_default() {
            if let Some(owner) = self.grabbers.get_mut(charge.grabber) {
                owner.charged.remove(&id);
            }
        }
        let remaining = self.messages.get(&id).map(|entry| self.open_needs(entry));
        let remaining = remaining.unwrap_or_default();
        self.counters.parts += 1;
        self.event(Event::Part { message: id, grabber, findings: news, remaining });
        self.enter_pool(id, now);
    }

    /// A message with parts that the spool found at the start: what they are is read when somebody wants it.
    pub(super) fn on_part_recovered(&mut self, id: MessageId) {
        if let Some(entry) = self.messages.get_mut(&id) {
            let found = Found { findings: Vec::new(), met: Needs::default(), read: false };
            entry.found = Some(Box::new(found));
        }
    }

    /// Whether an assignment has to wait until the message's stored findings are read, and no more of them can be
    /// read now.
    pub(super) fn must_wait_for_reading(&self, entry: &Entry) -> bool {
        !entry.is_read() && self.reading.len() >= READING_MAX
    }

    /// Asks for the findings that are stored with a message in the pool.
    pub(super) fn read_part(&mut self, id: MessageId) {
        self.take_from_pool(id);
        let token = self.token();
        let Some(entry) = self.messages.get_mut(&id) else { return };
        entry.storing = Some(token);
        self.tokens.insert(token, id);
        self.reading.insert(id);
        let mailbox = entry.mailbox;
        self.effects.push_back(Effect::Load { token, message: id, mailbox });
    }

    /// Whether this load is for [`Pool::read_part`].
    pub(super) fn reads_part(&self, token: Token) -> bool {
        self.tokens.get(&token).is_some_and(|id| self.reading.contains(id))
    }

    /// What was asked for by [`Pool::read_part`]; an error is a file that the driver has set aside.
    pub(super) fn on_part_read(
        &mut self,
        token: Token,
        log: Result<StoredLog, String>,
        now: Moment,
    ) {
        let Some(id) = self.end_reading(token) else { return };
        let Some(mailbox) = self.mailbox(id).cloned() else { return };
        match log {
            Err(reason) => self.lose(id, reason),
            Ok(log) => {
                let met = answered(&mailbox, &log.findings);
                if let Some(entry) = self.messages.get_mut(&id) {
                    let found = Found { findings: log.findings, met, read: true };
                    (entry.found, entry.recipients) = (Some(Box::new(found)), log.recipients);
                }
                self.enqueue(id, now);
            }
        }
        self.assign(now);
    }

    pub(super) fn on_part_not_read(&mut self, token: Token, reason: String, now: Moment) {
        let Some(id) = self.end_reading(token) else { return };
        self.event(Event::StoreFailed { message: id, reason });
        self.retry_later(id, now);
    }

    fn end_reading(&mut self, token: Token) -> Option<MessageId> {
        let id = self.tokens.remove(&token)?;
        self.reading.remove(&id);
        let entry = self.messages.get_mut(&id).filter(|entry| entry.storing == Some(token))?;
        entry.storing = None;
        Some(id)
    }
}

impl Entry {
    /// What earlier workers have found.
    pub(super) fn findings(&self) -> &[Finding] {
        self.found.as_ref().map(|found| found.findings.as_slice()).unwrap_or_default()
    }

    /// Needs that earlier workers have met.
    pub(super) fn met(&self) -> Needs {
        self.found.as_ref().map(|found| found.met).unwrap_or_default()
    }

    /// Whether it is known what earlier workers have found.
    pub(super) fn is_read(&self) -> bool {
        self.found.as_ref().is_none_or(|found| found.read)
    }

    /// Where it waits while it is in the pool.
    pub(super) fn queue(&self) -> Queue {
        let (suspects, parts) = (self.suspect, self.found.is_some());
        Queue { mailbox: self.mailbox, suspects, parts, met: self.met() }
    }

    /// Its state on disk while it is in the pool.
    pub(super) fn stored_state(&self) -> StoredState {
        match &self.found {
            Some(_) => StoredState::Part { attempts: self.attempts },
            None => StoredState::Marked { attempts: self.attempts },
        }
    }

    /// What an earlier worker said of it that is not clean, if anything.
    pub(super) fn objection(&self) -> Option<&Finding> {
        self.findings().iter().find(|finding| finding.outcome != Outcome::Clean)
    }
}

/// Needs that a module has answered.
fn answered(mailbox: &super::MailboxConfig, findings: &[Finding]) -> Needs {
    Needs::of(mailbox, |need| {
        findings.iter().any(|finding| finding.need == need && finding.outcome.is_answer())
    })
}

/// As they are in a frame; none that can be written is larger than this build's numbers.
fn bytes_of(findings: &[Finding]) -> usize {
    postcard::to_stdvec(findings).map_or(usize::MAX, |bytes| bytes.len())
}

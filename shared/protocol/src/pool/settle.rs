//! From a verdict, or from the lack of one, to what is stored.

use std::collections::BTreeSet;
use std::time::Duration;

use gantry_mail::check_edits;

use super::effect::{Answer, Change, Custody, Effect, Ending, Event, Stored, StoredState};
use super::entry::{
    Acknowledge, Arrived, Blame, End, Entry, Next, Phase, Releasing, Settling, State, Step, refused,
};
use super::grabbers::GrabberKey;
use super::originated::check_originated;
use super::shelf::{Note, Shelf};
use super::{Pool, RejectLate, Timer, WhenUnprocessed};
use crate::frame::{HostReservation, Settled};
use crate::id::{Digest, MessageId, Token};
use crate::limits::FINDINGS_MAX;
use crate::text::bounded;
use crate::time::Moment;
use crate::verdict::{Body, Disposition, Group, Outcome, Verdict};

/// How long a message whose store failed stays out of the queue, twice as long after each further failure: the disk
/// needs somebody's help, not our haste.
const STORE_RETRY: Duration = Duration::from_secs(1);
const STORE_RETRY_MAX: Duration = Duration::from_secs(60);
/// How soon a deadline that meets a store under way looks again.
const BUSY_RETRY: Duration = Duration::from_millis(50);

/// What a verdict means for the recipients.
pub(super) struct Plan {
    pub(super) deliver: Vec<u16>,
    pub(super) end: End,
    /// The answer to a sender who still waits, when every recipient was refused.
    refusal: Option<Answer>,
}

impl Plan {
    /// Somebody who no longer waits is not told no: after yes a refusal becomes what `reject_late` says, so that mail
    /// that has been accepted is not bounced to strangers.
    pub(super) fn of(verdict: &Verdict, sender_waits: bool, reject_late: RejectLate) -> Plan {
        let mut plan = Plan { deliver: Vec::new(), end: End::Done, refusal: None };
        let all_refused =
            verdict.groups.iter().all(|g| matches!(g.disposition, Disposition::Refuse { .. }));
        for group in &verdict.groups {
            let end = match &group.disposition {
                Disposition::Deliver { .. } => {
                    plan.deliver.extend(&group.recipients);
                    End::Done
                }
                Disposition::Refuse { code, enhanced, text } if sender_waits && all_refused => {
                    let (code, enhanced, text) = (*code, enhanced.clone(), bounded(text.as_str()));
                    plan.refusal.get_or_insert(Answer::Refused { code, enhanced, text });
                    End::Done
                }
                Disposition::Refuse { .. } => match reject_late {
                    RejectLate::Quarantine => End::Quarantined,
                    RejectLate::Hold => End::Held,
                    RejectLate::Discard => End::Done,
                },
                Disposition::Quarantine { .. } => End::Quarantined,
                Disposition::Hold { .. } => End::Held,
                Disposition::Discard => End::Done,
            };
            plan.end = plan.end.max(end);
        }
        plan.deliver.sort_unstable();
        plan
    }
}

impl Pool {
    /// A whole verdict under the current fence.
    pub(super) fn on_verdict(&mut self, arrived: Arrived, now: Moment) {
        let Arrived { message: id, acknowledge, verdict } = arrived;
        let key = acknowledge.grabber;
        let news = verdict.findings.clone();
        let verdict = match self.check(id, key, verdict) {
            Ok(verdict) => verdict,
            Err(reason) => return self.on_wrong_answer(id, acknowledge, "verdict", reason, now),
        };
        self.count_success(key);
        let grabber = self.grabbers.name(key);
        self.event(Event::Verdict { message: id, grabber, findings: news });
        self.forget_reservation(id, key);
        let (behind_queue, reject_late) = self
            .mailbox(id)
            .map(|mailbox| (mailbox.behind_queue, mailbox.reject_late))
            .unwrap_or_default();
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let upstream = entry.is_upstream();
        entry.state = State::Marked;
        let plan = Plan::of(&verdict, upstream && !behind_queue, reject_late);
        let originates = !verdict.originated.is_empty();
        let nobody = plan.deliver.is_empty();
        if let Some(answer) = plan.refusal {
            if originates {
                return self.originate_and_end(id, verdict, Some(answer), acknowledge);
            }
            self.acknowledge_applied(&acknowledge, id, "gone");
            return self.tell_no(id, answer);
        }
        if !nobody || originates && (!upstream || plan.end != End::Done) {
            let releasing = Releasing {
                loaded: true,
                originating: originates,
                reasons: reasons_of(&verdict),
                pending: plan.deliver,
                end: plan.end,
                ..Releasing::default()
            };
            let change = if upstream && nobody {
                // Ours from here on: it is set aside as soon as what it originates is written.
                let (state, verdict) = (StoredState::Releasing, Some(verdict));
                Change::Adopt { state, verdict, results: Vec::new(), reasons: Vec::new() }
            } else {
                Change::Settle { verdict }
            };
            let next = Next::Release { releasing: Box::new(releasing), unprocessed: false };
            return self.settle(id, next, Some(acknowledge), change);
        }
        if let Some(state) = plan.end.stored() {
            let reasons = reasons_of(&verdict);
            return self.set_aside(id, state, Some(verdict), reasons, Some(acknowledge));
        }
        if upstream && originates {
            return self.originate_and_end(id, verdict, None, acknowledge);
        }
        if upstream {
            self.acknowledge_applied(&acknowledge, id, "gone");
            self.answer_accepted(id);
            return self.drop_processed(id, Ending::Discarded);
        }
        self.settle(id, Next::Removed { prior: None }, Some(acknowledge), Change::Remove);
    }

    /// A message that ends with its verdict, while its sender waits: what the verdict originates is durable before the
    /// answer.
    fn originate_and_end(
        &mut self,
        id: MessageId,
        verdict: Box<Verdict>,
        refusal: Option<Answer>,
        acknowledge: Acknowledge,
    ) {
        let change = Change::Originate { verdict: Some(verdict) };
        self.settle(id, Next::Originated { refusal }, Some(acknowledge), change);
    }

    /// Tells the waiting sender no.
    fn tell_no(&mut self, id: MessageId, answer: Answer) {
        self.event(Event::Answered { message: id, accepted: false });
        self.counters.refused += 1;
        self.effects.push_back(Effect::Answer { message: id, answer });
        self.drop_processed(id, Ending::Refused);
    }

    /// A verdict or part that breaks the rules: the attempt is lost, and the worker learns why.
    pub(super) fn on_wrong_answer(
        &mut self,
        id: MessageId,
        acknowledge: Acknowledge,
        what: &str,
        reason: String,
        now: Moment,
    ) {
        let Acknowledge { session, grabber: key, fence } = acknowledge;
        let grabber = self.grabbers.name(key);
        self.note_fault(key, &format!("a wrong {what}: {reason}"));
        let words = format!("{grabber} sent a wrong {what}: {reason}");
        self.fail_reservation_quietly(id, &words, now);
        self.count_failure(key, now);
        self.refuse_verdict(session, key, id, fence, reason);
    }

    /// Sets a message aside whose attempts are used up.
    pub(super) fn hold_used_up(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.messages.get(&id) else { return };
        let reason = if entry.attempts >= self.config.attempts_max {
            // What people see of it in a list: the last reason, so it says what befell the message, too.
            let last = entry.history.as_ref().and_then(|history| history.reasons.last());
            let last = last.map(|reason| format!("; {reason}")).unwrap_or_default();
            format!("{} attempts came to nothing{last}", entry.attempts)
        } else {
            format!("it was given back {} times", entry.returns)
        };
        self.hold(id, reason, now);
    }

    /// Sets a message aside that is in the pool.
    pub(super) fn hold(&mut self, id: MessageId, reason: String, _now: Moment) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        entry.add_reason(bounded(reason));
        let reasons = entry.reasons();
        self.set_aside(id, StoredState::Held, None, reasons, None);
    }

    /// Durably out of the way, whoever has custody.
    pub(super) fn set_aside(
        &mut self,
        id: MessageId,
        state: StoredState,
        verdict: Option<Box<Verdict>>,
        reasons: Vec<String>,
        acknowledge: Option<Acknowledge>,
    ) {
        let upstream = self.messages.get(&id).is_some_and(Entry::is_upstream);
        let reason = reasons.last().cloned().unwrap_or_default();
        let change = if upstream {
            Change::Adopt { state, verdict, results: Vec::new(), reasons }
        } else {
            Change::SetAside { state, verdict, reasons }
        };
        let next = Next::SetAside { quarantined: state == StoredState::Quarantined, reason };
        self.settle(id, next, acknowledge, change);
    }

    pub(super) fn settle(
        &mut self,
        id: MessageId,
        next: Next,
        acknowledge: Option<Acknowledge>,
        change: Change,
    ) {
        self.take_from_pool(id);
        if let Some(entry) = self.messages.get_mut(&id) {
            let prior = match std::mem::replace(&mut entry.state, State::Marked) {
                State::Releasing(releasing) => Some(releasing),
                _ => None,
            };
            entry.state = State::Settling(Box::new(Settling { next, acknowledge, prior }));
        }
        self.store(id, change);
    }

    /// A store completed.
    pub fn handle_stored(&mut self, token: Token, stored: Stored, now: Moment) {
        let Some(id) = self.tokens.remove(&token) else { return };
        let Some(entry) = self.messages.get_mut(&id).filter(|entry| entry.storing == Some(token))
        else {
            return;
        };
        entry.storing = None;
        if let Stored::Failed { reason } = stored {
            self.on_store_failed(id, reason, now);
        } else if let Stored::Damaged { reason } = stored {
            self.lose(id, reason);
        } else {
            entry.stores_failed = 0;
            match &entry.state {
                State::Marked | State::Reserved(_) => self.on_charged(id, now),
                State::Settling(_) => self.on_settled(id, stored, now),
                State::Releasing(_) => self.on_recorded(id, stored, now),
            }
        }
        self.assign(now);
    }

    fn on_settled(&mut self, id: MessageId, stored: Stored, now: Moment) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let State::Settling(settling) = std::mem::replace(&mut entry.state, State::Marked) else {
            return;
        };
        let Settling { next, acknowledge, .. } = *settling;
        let was_upstream = entry.is_upstream();
        let settled = acknowledge.as_ref().filter(|_| !matches!(next, Next::Part { .. }));
        if let Some(acknowledge) = settled {
            self.acknowledge_applied(acknowledge, id, next.state_name());
        }
        match next {
            Next::Part { found, news } => self.on_part_stored(id, acknowledge, found, news, now),
            Next::Release { mut releasing, unprocessed } => {
                if let Stored::ServedBefore { results } = stored {
                    releasing.take_served(results);
                }
                if unprocessed {
                    self.counters.released_unprocessed += 1;
                    self.event(Event::ReleasedUnprocessed { message: id });
                }
                if was_upstream && releasing.pending.is_empty() {
                    self.adopt(id);
                }
                self.start_releasing(id, releasing, now);
            }
            Next::Originated { refusal } => {
                if let Stored::Originated { messages } = stored {
                    self.start_originated(id, messages, now);
                }
                if let Some(answer) = refusal {
                    return self.tell_no(id, answer);
                }
                self.answer_accepted(id);
                self.drop_processed(id, Ending::Discarded);
            }
            Next::AdoptedMarked => {
                self.adopt(id);
                self.enter_pool(id, now);
            }
            Next::SetAside { quarantined, reason } => {
                if was_upstream {
                    self.adopt(id);
                }
                let state = if quarantined { StoredState::Quarantined } else { StoredState::Held };
                *(if quarantined {
                    &mut self.counters.quarantined
                } else {
                    &mut self.counters.held
                }) += 1;
                self.event(Event::SetAside { message: id, state, reason });
                self.shelve(id, Shelf::of(state), Note::default());
            }
            Next::Removed { prior: None } => self.drop_processed(id, Ending::Discarded),
            Next::Removed { prior: Some(from) } => {
                self.drop_processed(id, Ending::Deleted { from });
            }
            Next::ReleasedAsIs { mut releasing, .. } => {
                if let Stored::ServedBefore { results } = stored {
                    releasing.take_served(results);
                }
                self.counters.released_as_is += 1;
                self.start_releasing(id, releasing, now);
            }
            Next::Requeued { .. } => {
                if let Some(entry) = self.messages.get_mut(&id) {
                    (entry.attempts, entry.returns, entry.suspect) = (0, 0, false);
                    (entry.history, entry.found) = (None, None);
                    // It begins anew, and its age counts from here.
                    (entry.requeued, entry.since) = (true, now);
                }
                self.enter_pool(id, now);
            }
        }
    }

    /// The message is durable: its sender gets its yes, and the hook has custody.
    pub(super) fn adopt(&mut self, id: MessageId) {
        self.answer_accepted(id);
        self.timers.clear(Timer::Unprocessed(id));
        if let Some(entry) = self.messages.get_mut(&id) {
            entry.custody = Custody::Hook;
        }
    }

    /// The driver found that a message's file is damaged or gone, and has set aside what there is of it.
    pub fn handle_damaged(&mut self, id: MessageId, reason: String, now: Moment) {
        self.lose(id, reason);
        self.assign(now);
    }

    /// Whatever was being done with the message ends: the spool has it no more. Its sender is asked to send it again,
    /// where it still waits.
    pub(super) fn lose(&mut self, id: MessageId, reason: String) {
        self.end_reservation(id, "the message's file cannot be read", Blame::Host);
        let Some(entry) = self.messages.get_mut(&id) else { return };
        if entry.releasing_mut().is_some_and(|releasing| releasing.step.is_under_way()) {
            return; // It finds out itself, and its place is given back then.
        }
        let upstream = entry.is_upstream();
        if let State::Settling(settling) = &mut entry.state
            && let Some(acknowledge) = settling.acknowledge.take()
        {
            let answer = refused("the message's file is damaged".to_owned());
            self.acknowledge(&acknowledge, id, answer);
        }
        self.event(Event::Corrupted { message: id, reason });
        self.counters.corrupted += 1;
        if upstream {
            let text = "the message was lost here before it was processed, try again";
            self.answer_try_again(id, text);
        }
        self.drop_message(id);
    }

    fn on_store_failed(&mut self, id: MessageId, reason: String, now: Moment) {
        self.event(Event::StoreFailed { message: id, reason: reason.clone() });
        self.effects
            .push_back(Effect::StopIntake { reason: bounded(format!("a store failed: {reason}")) });
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let upstream = entry.is_upstream();
        match std::mem::replace(&mut entry.state, State::Marked) {
            State::Reserved(reservation) => {
                entry.state = State::Reserved(reservation);
                self.end_reservation(id, "the attempt could not be counted on disk", Blame::Host);
            }
            State::Settling(settling) => {
                let Settling { next, acknowledge, prior } = *settling;
                if let Some(acknowledge) = &acknowledge {
                    let answer = refused(format!("the host could not store it: {reason}"));
                    self.acknowledge(acknowledge, id, answer);
                    // It was processed well: the disk is to blame.
                    if let Some(entry) = self.messages.get_mut(&id) {
                        entry.attempts = entry.attempts.saturating_sub(1);
                    }
                }
                if let Some(releasing) = prior {
                    return self.release_again(id, releasing, now);
                }
                if let Next::Requeued { prior }
                | Next::ReleasedAsIs { prior, .. }
                | Next::Removed { prior: Some(prior) } = next
                {
                    return self.shelve(id, Shelf::of(prior), Note::default());
                }
            }
            State::Releasing(releasing) if upstream => {
                let under_way = releasing.step.is_under_way();
                entry.state = State::Releasing(releasing);
                if under_way {
                    return; // Its results may spare us the store.
                }
            }
            State::Releasing(releasing) => return self.release_again(id, releasing, now),
            State::Marked => {}
        }
        if upstream {
            // Its sender has it still.
            self.answer_try_again(id, "the message could not be stored, try again");
            return self.drop_message(id);
        }
        self.retry_later(id, now);
    }

    /// Back to the pool when the disk has had some time.
    pub(super) fn retry_later(&mut self, id: MessageId, now: Moment) {
        let pause = self.store_pause(id);
        self.timers.set(Timer::Repool(id), now + pause);
    }

    /// A store of a message whose recipients are being served failed: what it was to say is said again later.
    fn release_again(&mut self, id: MessageId, mut releasing: Box<Releasing>, now: Moment) {
        (releasing.step, releasing.recording) = (Step::Due, 0);
        if let Some(entry) = self.messages.get_mut(&id) {
            entry.state = State::Releasing(releasing);
        }
        let pause = self.store_pause(id);
        self.release_later(id, pause, now);
    }

    pub(super) fn store_pause(&mut self, id: MessageId) -> Duration {
        let Some(entry) = self.messages.get_mut(&id) else { return STORE_RETRY };
        let pause = STORE_RETRY * (1 << entry.stores_failed.min(8));
        entry.stores_failed = entry.stores_failed.saturating_add(1);
        pause.min(STORE_RETRY_MAX)
    }

    /// Ends what a message in upstream custody is reserved for, since its sender waits no longer. If its owner was silent
    /// or stalled, the message may have been to blame, and its content is remembered for that.
    pub(super) fn end_for_sender(&mut self, id: MessageId, reason: &str, now: Moment) {
        let reservation = self.messages.get(&id).and_then(|entry| entry.reservation());
        let doubtful = reservation.filter(|r| r.is_working()).is_some_and(|r| {
            let owner = self.grabbers.get(r.grabber);
            r.stalled || owner.is_none_or(|owner| owner.silent || owner.session.is_none())
        });
        if doubtful {
            self.note_failure(id, &format!("{reason} while its worker was silent"), false, now);
            self.end_reservation(id, reason, Blame::Message);
        } else {
            self.end_reservation(id, reason, Blame::Host);
        }
    }

    /// `answer_within` has passed for a sender who waits, or an administrator's `after` for a message of ours.
    pub(super) fn on_unprocessed(&mut self, id: MessageId, now: Moment) {
        let Some(when) = self.mailbox(id).map(|mailbox| mailbox.when_unprocessed) else { return };
        let Some(entry) = self.messages.get(&id) else { return };
        let upstream = entry.is_upstream();
        let waited = now.since(entry.since).as_secs();
        match entry.state {
            State::Settling(_) => return,
            State::Releasing(_) => return self.adopt_while_releasing(id, now),
            State::Reserved(_) if !upstream => return,
            State::Marked | State::Reserved(_) => {}
        }
        if entry.storing.is_some() {
            return self.timers.set(Timer::Unprocessed(id), now + BUSY_RETRY);
        }
        self.end_for_sender(id, "no verdict came in time", now);
        self.take_from_pool(id);
        let Some(entry) = self.messages.get(&id) else { return };
        if matches!(when, WhenUnprocessed::ReleaseUnscanned { .. }) && self.is_used_up(entry) {
            // Workers were there, and came to nothing with it: that is another case than the rule's.
            return self.hold_used_up(id, now);
        }
        if matches!(when, WhenUnprocessed::ReleaseUnscanned { .. })
            && let Some(objection) = entry.objection()
        {
            // One was there and spoke against it: nobody wrote that such mail may leave.
            let module = bounded(objection.module.as_str());
            let reason = format!("{module} did not say clean, and no worker could do the rest");
            return self.hold(id, reason, now);
        }
        let Some(entry) = self.messages.get_mut(&id) else { return };
        match when {
            WhenUnprocessed::TempFail => {
                self.answer_try_again(id, "no worker could process the message in time, try again");
                self.drop_message(id);
            }
            WhenUnprocessed::Wait if upstream => {
                let state = entry.stored_state();
                let change = Change::Adopt {
                    state,
                    verdict: None,
                    results: Vec::new(),
                    reasons: Vec::new(),
                };
                self.settle(id, Next::AdoptedMarked, None, change);
            }
            WhenUnprocessed::Wait => self.return_to_pool(id, now),
            WhenUnprocessed::Hold { .. } => {
                entry.add_reason(format!("no worker could process it within {waited} s"));
                let reasons = entry.reasons();
                self.set_aside(id, StoredState::Held, None, reasons, None);
            }
            WhenUnprocessed::ReleaseUnscanned { .. } => {
                let recipients: Vec<u16> = (0..entry.recipients).collect();
                let verdict = unprocessed(recipients.clone(), entry.length);
                let releasing =
                    Releasing { loaded: true, pending: recipients, ..Releasing::default() };
                self.settle(
                    id,
                    Next::Release { releasing: Box::new(releasing), unprocessed: true },
                    None,
                    Change::Settle { verdict: Box::new(verdict) },
                );
            }
        }
    }

    fn acknowledge_applied(
        &mut self,
        acknowledge: &Acknowledge,
        id: MessageId,
        next: &'static str,
    ) {
        self.counters.settled += 1;
        let grabber = self.grabbers.name(acknowledge.grabber);
        self.event(Event::Settled { message: id, grabber, next });
        self.answer_applied(acknowledge, id);
    }

    /// Tells a grabber that its answer counts, and remembers that, should it be asked about again.
    pub(super) fn answer_applied(&mut self, acknowledge: &Acknowledge, id: MessageId) {
        if let Some(grabber) = self.grabbers.get_mut(acknowledge.grabber) {
            grabber.remember(id, acknowledge.fence);
        }
        self.acknowledge(acknowledge, id, Settled::Applied);
    }

    fn acknowledge(&mut self, acknowledge: &Acknowledge, id: MessageId, settled: Settled) {
        self.reply(acknowledge.session, id, acknowledge.fence, HostReservation::Settled(settled));
    }

    /// A message that a worker may answer about, if it speaks of these bytes.
    pub(super) fn check_sent(
        &self,
        id: MessageId,
        length: u64,
        digest: Digest,
    ) -> Result<&Entry, String> {
        let Some(entry) = self.messages.get(&id) else {
            return Err("the message is gone".to_owned());
        };
        let Some(Phase::Working { digest: sent }) = entry.reservation().map(|r| r.phase) else {
            return Err("the message has not been sent yet".to_owned());
        };
        if length != entry.length || digest != sent {
            return Err(format!(
                "the answer is for {length} bytes with digest {digest}; the message has {} bytes with digest {sent}",
                entry.length
            ));
        }
        Ok(entry)
    }

    /// A verdict with all that was found for the message, or why it may not be applied; rules 4, 6 and 15.
    fn check(
        &self,
        id: MessageId,
        key: GrabberKey,
        mut verdict: Box<Verdict>,
    ) -> Result<Box<Verdict>, String> {
        let entry = self.check_sent(id, verdict.length, verdict.digest)?;
        self.check_granted(entry, key, &verdict.findings)?;
        verdict.findings.splice(0..0, entry.findings().iter().cloned());
        check_recipients(&verdict.groups, entry.recipients)?;
        if verdict.findings.len() > FINDINGS_MAX {
            return Err(format!(
                "{} findings; at most {FINDINGS_MAX} are allowed",
                verdict.findings.len()
            ));
        }
        check_originated(&verdict.originated, entry.recipients, self.mailbox(id))?;
        if verdict.groups.iter().any(|g| {
            matches!(&g.disposition, Disposition::Deliver { body: Body::Replaced { .. }, .. })
        }) {
            return Err("this host takes no replaced messages".to_owned());
        }
        verdict.groups.iter().try_for_each(|group| check_disposition(&group.disposition))?;
        let needs = self.mailbox(id).map(|mailbox| mailbox.needs.as_slice()).unwrap_or_default();
        check_needs(&verdict, needs)?;
        Ok(verdict)
    }
}

impl End {
    fn stored(self) -> Option<StoredState> {
        match self {
            End::Done => None,
            End::Quarantined => Some(StoredState::Quarantined),
            End::Held => Some(StoredState::Held),
        }
    }
}

fn check_recipients(groups: &[Group], recipients: u16) -> Result<(), String> {
    if groups.iter().any(|group| group.recipients.is_empty()) {
        return Err("a group names no recipient".to_owned());
    }
    let mut named = BTreeSet::new();
    for recipient in groups.iter().flat_map(|group| &group.recipients) {
        if *recipient >= recipients {
            return Err(format!("recipient {recipient} is named; the message has {recipients}"));
        }
        if !named.insert(*recipient) {
            return Err(format!("recipient {recipient} is named twice"));
        }
    }
    match (0..recipients).find(|recipient| !named.contains(recipient)) {
        Some(missing) => Err(format!("recipient {missing} is not named")),
        None => Ok(()),
    }
}

/// What a worker writes into a header block or into our reply must fit there.
fn check_disposition(disposition: &Disposition) -> Result<(), String> {
    match disposition {
        Disposition::Deliver { edits, .. } => check_edits(edits).map_err(|e| e.to_string()),
        Disposition::Refuse { code, enhanced, .. } => {
            // RFC 3463, 2: class, subject and detail, of one, three and three digits at the most.
            let mut parts = enhanced.split('.');
            let class = parts.next() == Some("5");
            let digits = |part: &str| {
                (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit())
            };
            let rest: Vec<&str> = parts.collect();
            let fits = class && rest.len() == 2 && rest.iter().all(|part| digits(part));
            if (500..=599).contains(code) && fits {
                Ok(())
            } else {
                Err(format!(
                    "a refusal with {code} {:?}; only 5xx 5.x.y refuse",
                    bounded(enhanced.as_str())
                ))
            }
        }
        Disposition::Discard | Disposition::Quarantine { .. } | Disposition::Hold { .. } => Ok(()),
    }
}

/// Every need must have a module's answer before anybody gets the message.
fn check_needs(verdict: &Verdict, needs: &[String]) -> Result<(), String> {
    let delivers =
        verdict.groups.iter().any(|g| matches!(g.disposition, Disposition::Deliver { .. }))
            || verdict.originated.iter().any(|originated| originated.original_at.is_some());
    let met = |need: &String| {
        verdict.findings.iter().any(|finding| {
            finding.need == *need && if delivers { finding.outcome.is_answer() } else { true }
        })
    };
    match needs.iter().find(|need| !met(need)) {
        Some(need) => Err(format!("no finding of any module meets the need {need:?}")),
        None => Ok(()),
    }
}

/// Why the verdict sets the message aside, in words.
pub(super) fn reasons_of(verdict: &Verdict) -> Vec<String> {
    let said = verdict.groups.iter().filter_map(|group| match &group.disposition {
        Disposition::Quarantine { reason } | Disposition::Hold { reason } => {
            Some(bounded(reason.as_str()))
        }
        Disposition::Refuse { text, .. } => Some(bounded(format!("late rejection: {text}"))),
        Disposition::Deliver { .. } | Disposition::Discard => None,
    });
    said.collect::<BTreeSet<_>>().into_iter().take(crate::limits::REASONS_MAX).collect()
}

/// The verdict of nobody: the administrator wrote that mail leaves unprocessed when no worker is there.
fn unprocessed(recipients: Vec<u16>, length: u64) -> Verdict {
    use gantry_mail::HeaderEdit;
    let field = "X-Gantry: unprocessed; no worker was available".to_owned();
    let disposition =
        Disposition::Deliver { edits: vec![HeaderEdit::Prepend { field }], body: Body::Original };
    Verdict {
        length,
        digest: Digest([0; 32]),
        groups: vec![Group { recipients, disposition }],
        findings: vec![crate::verdict::Finding {
            need: String::new(),
            module: "none".to_owned(),
            engine: String::new(),
            signatures: String::new(),
            outcome: Outcome::Unscanned { reason: "no worker was available".to_owned() },
            duration_ms: 0,
        }],
        originated: Vec::new(),
    }
}

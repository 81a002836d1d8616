//! Handing processed messages on: one result a recipient, durable before the next step.

use std::time::Duration;

use super::effect::{
    Answer, Change, Effect, Ending, Event, MailboxIndex, Marked, REPLIES_TOLD_MAX, RecipientResult,
    ReleaseResult, Stored, StoredLog, StoredState,
};
use super::entry::{End, Entry, Releasing, State, Step};
use super::settle::{Plan, reasons_of};
use super::shelf::Shelf;
use super::{Pool, Timer};
use crate::id::{MessageId, Token};
use crate::text::bounded;
use crate::time::Moment;

impl Pool {
    pub(super) fn start_releasing(
        &mut self,
        id: MessageId,
        mut releasing: Box<Releasing>,
        now: Moment,
    ) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let mailbox = entry.mailbox;
        if let super::Custody::Upstream { answer_by } = entry.custody {
            self.timers.set(Timer::Unprocessed(id), answer_by);
        } else {
            self.timers.clear(Timer::Unprocessed(id));
        }
        releasing.started = Some(now);
        entry.state = State::Releasing(releasing);
        if self.shelve_release(id, now, now) {
            return;
        }
        self.release_due.entry(mailbox).or_default().insert(id);
        self.release_next(mailbox, now);
    }

    /// Starts what is due, within the mailbox's bound.
    pub(super) fn release_next(&mut self, mailbox: MailboxIndex, now: Moment) {
        let most = self
            .config
            .mailboxes
            .get(usize::from(mailbox.0))
            .map_or(1, |config| config.releases_max.max(1));
        while self.releasing.get(&mailbox).copied().unwrap_or(0) < most {
            let Some(id) =
                self.release_due.get_mut(&mailbox).and_then(std::collections::BTreeSet::pop_first)
            else {
                break;
            };
            self.release_one(id, mailbox, now);
        }
        self.refill(mailbox, Shelf::Releasing, now);
    }

    fn release_one(&mut self, id: MessageId, mailbox: MailboxIndex, now: Moment) {
        let token = self.token();
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let (storing, upstream) = (entry.storing.is_some(), entry.is_upstream());
        let Some(releasing) = entry.releasing_mut().filter(|releasing| releasing.step == Step::Due)
        else {
            return;
        };
        if storing {
            return; // `on_recorded` goes on.
        }
        if releasing.loaded && releasing.pending.is_empty() {
            return self.advance_release(id, now);
        }
        if releasing.originating && !upstream {
            return self.originate(id);
        }
        let effect = if releasing.loaded {
            releasing.step = Step::Sending(token);
            Effect::Release { token, message: id, mailbox, recipients: releasing.pending.clone() }
        } else {
            releasing.step = Step::Loading(token);
            Effect::Load { token, message: id, mailbox }
        };
        self.tokens.insert(token, id);
        *self.releasing.entry(mailbox).or_default() += 1;
        self.effects.push_back(effect);
    }

    /// What is stored with a message that a start found `Releasing`. `Err`: its file cannot be read; the driver has
    /// set it aside.
    pub fn handle_loaded(&mut self, token: Token, mut log: Result<StoredLog, String>, now: Moment) {
        if self.reads_part(token) {
            return self.on_part_read(token, log, now);
        }
        if let Ok(StoredLog { beside, .. }) = &mut log {
            let beside = std::mem::take(beside);
            beside.into_iter().for_each(|message| self.start_own(message, now));
        }
        let Some((id, mailbox)) = self.finish_step(token, Step::Loading(token)) else { return };
        let reject_late = self.mailbox(id).map(|mailbox| mailbox.reject_late).unwrap_or_default();
        let Some(entry) = self.messages.get_mut(&id) else { return };
        match log {
            Err(reason) => {
                self.counters.corrupted += 1;
                self.event(Event::Corrupted { message: id, reason });
                self.drop_message(id);
            }
            Ok(StoredLog { verdict: None, .. }) => {
                // Without a verdict nobody knows that it was processed, so it must not leave.
                let reasons =
                    vec!["no verdict is stored with a message that was to be released".to_owned()];
                self.set_aside(id, StoredState::Held, None, reasons, None);
            }
            Ok(StoredLog { verdict: Some(verdict), results, recipients, originates, .. }) => {
                entry.recipients = recipients;
                if let Some(releasing) = entry.releasing_mut() {
                    let plan = Plan::of(&verdict, false, reject_late);
                    (releasing.originating, releasing.reasons) = (originates, reasons_of(&verdict));
                    (releasing.loaded, releasing.step, releasing.end) = (true, Step::Due, plan.end);
                    releasing.pending = plan.deliver;
                    releasing.take_served(results);
                }
                self.release_due.entry(mailbox).or_default().insert(id);
            }
        }
        self.release_next(mailbox, now);
    }

    /// As [`Pool::handle_loaded`], where the disk did not give the file this time: it is where it was.
    pub fn handle_load_failed(&mut self, token: Token, reason: String, now: Moment) {
        if self.reads_part(token) {
            return self.on_part_not_read(token, reason, now);
        }
        let Some((id, mailbox)) = self.finish_step(token, Step::Loading(token)) else { return };
        self.event(Event::StoreFailed { message: id, reason });
        if let Some(releasing) = self.messages.get_mut(&id).and_then(Entry::releasing_mut) {
            releasing.step = Step::Due;
        }
        let pause = self.store_pause(id);
        self.release_later(id, pause, now);
        self.release_next(mailbox, now);
    }

    /// What recipients got. Those of whom nothing is said are tried again.
    pub fn handle_released(&mut self, token: Token, results: Vec<RecipientResult>, now: Moment) {
        let Some((id, mailbox)) = self.finish_step(token, Step::Sending(token)) else { return };
        let count = |wanted| {
            u16::try_from(results.iter().filter(|result| result.result == wanted).count())
                .unwrap_or(u16::MAX)
        };
        let (accepted, unknown) = (count(ReleaseResult::Accepted), count(ReleaseResult::Unknown));
        let (deferred, refused) = (count(ReleaseResult::Deferred), count(ReleaseResult::Refused));
        self.counters.recipients_accepted += u64::from(accepted);
        self.counters.possible_duplicates += u64::from(unknown);
        self.event(Event::Released {
            message: id,
            accepted,
            deferred,
            refused,
            possible_duplicates: unknown,
            replies: replies(&results),
        });
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let (upstream, storing) = (entry.is_upstream(), entry.storing.is_some());
        if let Some(releasing) = entry.releasing_mut() {
            releasing.step = Step::Due;
            for result in &results {
                releasing.merge(result.clone());
            }
        }
        if storing {
            // Its custody is changing hands at this moment; `on_recorded` goes on.
        } else if upstream {
            self.answer_released(id, &results, now);
        } else {
            self.advance_release(id, now);
        }
        self.release_next(mailbox, now);
    }

    /// Upstream custody: one answer for all recipients. Once any of them was accepted, the rest becomes durable
    /// before we say yes.
    fn answer_released(&mut self, id: MessageId, results: &[RecipientResult], _now: Moment) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let Some(releasing) = entry.releasing_mut() else { return };
        let accepted =
            releasing.results.iter().any(|result| result.result == ReleaseResult::Accepted);
        let all = releasing.pending.is_empty() && releasing.end == End::Done;
        let refused =
            releasing.results.iter().all(|result| result.result == ReleaseResult::Refused);
        if accepted && all && releasing.refused().next().is_none() {
            if releasing.originating {
                return self.originate(id);
            }
            self.counters.released += 1;
            self.answer_accepted(id);
            return self.drop_processed(id, Ending::Released);
        }
        if accepted || releasing.end != End::Done {
            return self.adopt_releasing(id);
        }
        let first = |wanted: ReleaseResult| {
            results.iter().find(|r| r.result == wanted).map(|r| r.reply.clone())
        };
        let (answer, ending) = if all && refused {
            let text = first(ReleaseResult::Refused).unwrap_or_default();
            self.counters.refused += 1;
            let answer = Answer::Refused {
                code: 554,
                enhanced: "5.0.0".to_owned(),
                text: bounded(format!("the next hop says: {text}")),
            };
            (answer, Ending::Refused)
        } else {
            let reply = first(ReleaseResult::Deferred).or_else(|| first(ReleaseResult::Unknown));
            let text = format!("the next hop did not take it: {}", reply.unwrap_or_default());
            (Answer::TryAgain { text: bounded(text) }, Ending::LeftToSender)
        };
        self.event(Event::Answered { message: id, accepted: false });
        self.effects.push_back(Effect::Answer { message: id, answer });
        self.drop_processed(id, ending);
    }

    /// The sender's patience ends while the next hop is being talked to: the message becomes ours.
    pub(super) fn adopt_while_releasing(&mut self, id: MessageId, _now: Moment) {
        let ours_already = self
            .messages
            .get(&id)
            .is_none_or(|entry| !entry.is_upstream() || entry.storing.is_some());
        if !ours_already {
            self.adopt_releasing(id);
        }
    }

    fn adopt_releasing(&mut self, id: MessageId) {
        let Some(releasing) = self.messages.get_mut(&id).and_then(Entry::releasing_mut) else {
            return;
        };
        releasing.recording = releasing.results.len();
        let results = releasing.results.clone();
        let state = StoredState::Releasing;
        self.store(id, Change::Adopt { state, verdict: None, results, reasons: Vec::new() });
    }

    /// A store of a releasing message completed: an adoption, results, a notice, the removal.
    pub(super) fn on_recorded(&mut self, id: MessageId, stored: Stored, now: Moment) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let was_upstream = entry.is_upstream();
        let Some(releasing) = entry.releasing_mut() else { return };
        releasing.recorded = releasing.recorded.max(releasing.recording);
        if let Stored::Originated { messages } = stored {
            releasing.originating = false;
            self.start_originated(id, messages, now);
            return self.on_originated(id, now);
        }
        if was_upstream {
            let idle = releasing.step == Step::Due;
            self.adopt(id);
            if idle {
                self.advance_release(id, now);
            }
            return;
        }
        let step = std::mem::take(&mut releasing.step);
        match step {
            Step::Removing => {
                if releasing.refused().next().is_none() {
                    self.counters.released += 1;
                }
                return self.drop_processed(id, Ending::Released);
            }
            Step::Bouncing(told) => {
                releasing.bounced = told;
                if stored == Stored::Unreturnable {
                    releasing.end = End::Held;
                }
            }
            _ => {}
        }
        if let Stored::Bounced { notice: Some(notice) } = stored {
            self.counters.notices += 1;
            self.start_own(notice, now);
        }
        self.advance_release(id, now);
    }

    fn originate(&mut self, id: MessageId) {
        if let Some(releasing) = self.messages.get_mut(&id).and_then(Entry::releasing_mut) {
            releasing.step = Step::Originating;
        }
        self.store(id, Change::Originate { verdict: None });
    }

    /// What the verdict on `from` originates is durable.
    pub(super) fn start_originated(&mut self, from: MessageId, messages: Vec<Marked>, now: Moment) {
        for marked in messages {
            let message = marked.id;
            self.counters.originated += 1;
            self.start_own(marked, now);
            self.event(Event::Originated { message, from });
        }
    }

    /// Goes on with a message after what its verdict originates was written.
    fn on_originated(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let (mailbox, upstream) = (entry.mailbox, entry.is_upstream());
        if upstream {
            // All its recipients have it.
            self.counters.released += 1;
            self.answer_accepted(id);
            return self.drop_processed(id, Ending::Released);
        }
        if let Some(releasing) = entry.releasing_mut() {
            releasing.step = Step::Due;
        }
        self.release_due.entry(mailbox).or_default().insert(id);
        self.release_next(mailbox, now);
    }

    /// Takes up a message that the hook itself has written, in `Releasing`.
    fn start_own(&mut self, own: Marked, now: Moment) {
        let (id, mailbox) = (own.id, own.mailbox);
        if self.messages.contains_key(&id) {
            return;
        }
        self.insert(own, State::Releasing(Box::default()));
        if self.shelve_release(id, now, now) {
            return;
        }
        self.release_due.entry(mailbox).or_default().insert(id);
        self.release_next(mailbox, now);
    }

    /// The hook's custody: what comes after the results so far.
    fn advance_release(&mut self, id: MessageId, now: Moment) {
        let lifetime = self.mailbox(id).map(|mailbox| mailbox.queue_lifetime).unwrap_or_default();
        let Some(entry) = self.messages.get_mut(&id) else { return };
        let since = entry.since;
        let Some(releasing) = entry.releasing_mut() else { return };
        let unrecorded = releasing.results.len() > releasing.recorded;
        if releasing.originating && !unrecorded {
            return self.originate(id);
        }
        let expired = now.since(releasing.started.unwrap_or(since)) >= lifetime;
        if expired && releasing.tries > 0 {
            releasing.give_up(lifetime);
        }
        let served = releasing.pending.is_empty();
        let refused = releasing.refused().count();
        if served && refused == 0 && releasing.end == End::Done && !releasing.originating {
            releasing.step = Step::Removing;
            return self.store(id, Change::Remove);
        }
        if let Some(results) = releasing.results.get(releasing.recorded..).filter(|r| !r.is_empty())
        {
            let results = results.to_vec();
            (releasing.step, releasing.recording) = (Step::Recording, releasing.results.len());
            return self.store(id, Change::Results { results });
        }
        if releasing.bounced < refused {
            // Its sender is told now, whatever becomes of the others.
            let results = releasing.refused().skip(releasing.bounced).cloned().collect();
            releasing.step = Step::Bouncing(refused);
            return self.store(id, Change::Bounce { results });
        }
        if !served {
            releasing.tries += 1;
            let tries = releasing.tries;
            let pause = self.pause(id, tries);
            if !self.shelve_release(id, now + pause, now) {
                self.release_later(id, pause, now);
            }
            return;
        }
        match releasing.end {
            End::Done => {
                releasing.step = Step::Removing;
                self.store(id, Change::Remove);
            }
            End::Quarantined => self.end_aside(
                id,
                StoredState::Quarantined,
                "quarantined for part of its recipients",
            ),
            End::Held if refused == 0 => {
                self.end_aside(id, StoredState::Held, "held for part of its recipients");
            }
            End::Held => self.end_aside(
                id,
                StoredState::Held,
                "undeliverable, and its sender cannot be told",
            ),
        }
    }

    /// Set aside after those who get it have got it; `in_part` says so, where there were any.
    fn end_aside(&mut self, id: MessageId, state: StoredState, in_part: &str) {
        let Some(releasing) = self.messages.get_mut(&id).and_then(Entry::releasing_mut) else {
            return;
        };
        let mut reasons: Vec<String> = releasing
            .refused()
            .map(|r| bounded(format!("recipient {}: {}", r.recipient, r.reply)))
            .collect();
        reasons.append(&mut releasing.reasons);
        let nobody = releasing.results.is_empty() && !reasons.is_empty();
        reasons.truncate(crate::limits::REASONS_MAX - 1);
        if !nobody {
            reasons.push(in_part.to_owned());
        }
        self.set_aside(id, state, None, reasons, None);
    }

    /// Back-off: doubled with each try, within the mailbox's bounds.
    fn pause(&self, id: MessageId, tries: u32) -> Duration {
        let Some(mailbox) = self.mailbox(id) else { return Duration::from_secs(60) };
        let doublings = tries.saturating_sub(1).min(16);
        (mailbox.retry_min * (1 << doublings)).min(mailbox.retry_max)
    }

    pub(super) fn release_later(&mut self, id: MessageId, pause: Duration, now: Moment) {
        let Some(entry) = self.messages.get(&id) else { return };
        self.deferred.entry(entry.mailbox).or_default().insert(id);
        self.timers.set(Timer::Release(id), now + pause);
    }

    pub(super) fn on_release_due(&mut self, id: MessageId, now: Moment) {
        let Some(entry) = self.messages.get(&id) else { return };
        let mailbox = entry.mailbox;
        if let Some(deferred) = self.deferred.get_mut(&mailbox) {
            deferred.remove(&id);
        }
        if matches!(entry.state, State::Releasing(_)) {
            self.release_due.entry(mailbox).or_default().insert(id);
            self.release_next(mailbox, now);
        }
    }

    /// Ends a step outside of the store and frees its place.
    fn finish_step(&mut self, token: Token, step: Step) -> Option<(MessageId, MailboxIndex)> {
        let id = self.tokens.remove(&token)?;
        let entry = self.messages.get_mut(&id)?;
        let mailbox = entry.mailbox;
        if let Some(under_way) = self.releasing.get_mut(&mailbox) {
            *under_way = under_way.saturating_sub(1);
        }
        entry.releasing_mut().filter(|releasing| releasing.step == step)?;
        Some((id, mailbox))
    }
}

/// Each different reply once, in the order of their coming.
fn replies(results: &[RecipientResult]) -> Vec<(ReleaseResult, String, u16)> {
    let mut replies: Vec<(ReleaseResult, String, u16)> = Vec::new();
    for RecipientResult { result, reply, .. } in results {
        let known = replies.iter_mut().find(|(kind, said, _)| kind == result && said == reply);
        if let Some((_, _, count)) = known {
            *count = count.saturating_add(1);
        } else if replies.len() < REPLIES_TOLD_MAX {
            replies.push((*result, reply.clone(), 1));
        }
    }
    replies
}

impl Releasing {
    /// What recipients got before, as it is on disk.
    pub(super) fn take_served(&mut self, results: Vec<RecipientResult>) {
        for result in results {
            self.merge(result);
        }
        self.recorded = self.results.len();
    }

    /// Takes in one recipient's result; of what is final, nothing later changes it.
    fn merge(&mut self, result: RecipientResult) {
        let is_final = matches!(result.result, ReleaseResult::Accepted | ReleaseResult::Refused);
        let Some(at) = self.pending.iter().position(|pending| *pending == result.recipient) else {
            return;
        };
        if is_final {
            self.pending.remove(at);
            self.results.push(result);
        } else {
            self.last_reply = Some(result.reply);
        }
    }

    fn refused(&self) -> impl Iterator<Item = &RecipientResult> {
        self.results.iter().filter(|result| result.result == ReleaseResult::Refused)
    }

    /// The queue's lifetime is over for those who are left.
    fn give_up(&mut self, lifetime: Duration) {
        let mut reply = format!("4.4.7 could not be handed on within {} s", lifetime.as_secs());
        if let Some(last) = self.last_reply.take() {
            reply.push_str(&format!("; the last answer was: {last}"));
        }
        let reply = bounded(reply);
        for recipient in std::mem::take(&mut self.pending) {
            let reply = reply.clone();
            self.results.push(RecipientResult { recipient, result: ReleaseResult::Refused, reply });
        }
    }
}

//! What must be true of each message, kept in the plainest way: the disk, the senders who wait, who was told what.

use std::collections::{BTreeMap, BTreeSet};

use gantry_protocol::id::{Fence, MessageId, Session};
use gantry_protocol::pool::{
    Answer, Assignment, Change, Custody, Marked, RecipientResult, ReleaseResult, StoredState,
    WhenUnprocessed,
};
use gantry_protocol::verdict::{Disposition, Finding, Verdict};

use super::ops::{grants, needs};

/// What a crash leaves of a message.
#[derive(Clone, Debug)]
pub(crate) struct File {
    pub(crate) marked: Marked,
    pub(crate) state: StoredState,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) results: Vec<RecipientResult>,
    pub(crate) bounced: BTreeSet<u16>,
}

/// A message whose sender waits.
#[derive(Clone, Debug)]
pub(crate) struct Waiting {
    pub(crate) marked: Marked,
    pub(crate) verdict: Option<Verdict>,
    pub(crate) findings: Vec<Finding>,
    pub(crate) answered: bool,
    pub(crate) gone: bool,
}

/// What a worker was given on a link, and what it asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Account {
    pub(crate) worker: usize,
    pub(crate) wanted: u64,
    pub(crate) given: u64,
}

#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) rules: Vec<WhenUnprocessed>,
    pub(crate) disk: BTreeMap<MessageId, File>,
    pub(crate) senders: BTreeMap<MessageId, Waiting>,
    pub(crate) accounts: BTreeMap<Session, Account>,
    /// Who has a message by what it was told last.
    pub(crate) owners: BTreeMap<MessageId, (Session, Fence)>,
    pub(crate) fences: BTreeMap<MessageId, Fence>,
    /// Verdicts that were said by the owner at that time, by their serial number.
    pub(crate) said: BTreeMap<u32, (MessageId, Fence, bool)>,
    /// Final results that the pool was told of.
    pub(crate) served: BTreeMap<MessageId, BTreeMap<u16, ReleaseResult>>,
    pub(crate) deleting: BTreeSet<MessageId>,
}

impl Reference {
    pub(crate) fn assigned(&mut self, assignment: &Assignment) {
        let Assignment { message, session, fence, .. } = assignment;
        let account = self.accounts.get_mut(session).expect("it is assigned over a live link");
        account.given += 1;
        assert!(account.given <= account.wanted, "{message} goes to {session:?} beyond its credit");
        let may = grants(account.worker);
        assert!(
            !assignment.asked.is_empty() && assignment.asked.iter().all(|need| may.contains(need)),
            "{message} goes to one who may not have it"
        );
        if let Some(former) = self.fences.insert(*message, *fence) {
            assert!(former < *fence, "{message} has {fence} after {former}");
        }
        let owner = self.owners.insert(*message, (*session, *fence));
        assert_eq!(owner, None, "{message} has two owners");
    }

    /// A reservation's last frame went to its owner, or its link ended.
    pub(crate) fn released_by(&mut self, message: MessageId, session: Session, fence: Fence) {
        if self.owners.get(&message) == Some(&(session, fence)) {
            self.owners.remove(&message);
        }
    }

    pub(crate) fn link_ended(&mut self, session: Session) {
        self.accounts.remove(&session);
        self.owners.retain(|_, (owner, _)| *owner != session);
    }

    pub(crate) fn say(&mut self, serial: u32, message: MessageId, session: Session, fence: Fence) {
        let current = self.owners.get(&message) == Some(&(session, fence));
        self.said.insert(serial, (message, fence, current));
    }

    /// A verdict that is about to be stored: the current owner's, whole, with all needs met; or the written rule's.
    fn check_verdict(&self, id: MessageId, verdict: &Verdict) {
        let marked = self.marked(id);
        let mut named: Vec<u16> =
            verdict.groups.iter().flat_map(|g| g.recipients.clone()).collect();
        named.sort_unstable();
        assert_eq!(named, (0..marked.recipients).collect::<Vec<_>>(), "recipients of {id}");
        if verdict.findings.iter().any(|finding| finding.module == "none") {
            let rule = self.rules[usize::from(marked.mailbox.0)];
            assert!(
                matches!(rule, WhenUnprocessed::ReleaseUnscanned { .. }),
                "{id} leaves by no rule"
            );
            return;
        }
        self.check_said(id, verdict.findings.last());
        let delivers =
            verdict.groups.iter().any(|g| matches!(g.disposition, Disposition::Deliver { .. }));
        let met = needs(marked.mailbox.0)
            .iter()
            .all(|need| verdict.findings.iter().any(|f| f.need == *need && f.outcome.is_answer()));
        assert!(met || !delivers, "{id} is delivered with a need unmet");
    }

    /// The last finding tells whose answer it was: that of the owner at that time.
    fn check_said(&self, id: MessageId, finding: Option<&Finding>) {
        let serial = finding.expect("an answer has findings").duration_ms;
        let (message, fence, current) = self.said[&serial];
        assert_eq!(message, id);
        assert!(current, "{id} is settled by one who did not own it");
        assert_eq!(self.fences.get(&id), Some(&fence), "{id} is settled by an old fence");
    }

    /// A part that is about to be stored adds to what is stored, and leaves something to be done.
    fn check_part(&self, id: MessageId, findings: &[Finding]) {
        self.check_said(id, findings.last());
        let stored = self.findings(id);
        assert!(findings.starts_with(&stored) && findings.len() > stored.len(), "a part of {id}");
        let open = needs(self.marked(id).mailbox.0);
        let open: Vec<_> =
            open.iter().filter(|need| !findings.iter().any(|f| f.need == **need)).collect();
        assert!(!open.is_empty(), "a part of {id} leaves nothing");
    }

    fn findings(&self, id: MessageId) -> Vec<Finding> {
        let file = self.disk.get(&id).map(|file| &file.findings);
        let findings = file.or_else(|| self.senders.get(&id).map(|sender| &sender.findings));
        findings.cloned().unwrap_or_default()
    }

    pub(crate) fn store_asked(&self, id: MessageId, change: &Change) {
        match change {
            Change::Settle { verdict } => self.check_verdict(id, verdict),
            Change::Part { findings, .. } => self.check_part(id, findings),
            Change::SetAside { verdict: Some(verdict), .. } => self.check_verdict(id, verdict),
            Change::Adopt { verdict: Some(verdict), .. } => self.check_verdict(id, verdict),
            _ => {}
        }
    }

    fn marked(&self, id: MessageId) -> &Marked {
        let file = self.disk.get(&id).map(|file| &file.marked);
        file.or_else(|| self.senders.get(&id).map(|sender| &sender.marked)).expect("it is known")
    }

    /// A store that became durable.
    pub(crate) fn stored(&mut self, id: MessageId, change: &Change) {
        if let Some(waiting) = self.senders.get_mut(&id) {
            match change {
                Change::Charge { .. } => {}
                Change::Part { findings, .. } => waiting.findings.clone_from(findings),
                Change::Settle { verdict } => waiting.verdict = Some((**verdict).clone()),
                Change::Adopt { state, verdict, results, .. } => {
                    let verdict = verdict.as_deref().cloned().or_else(|| waiting.verdict.clone());
                    let marked = Marked { custody: Custody::Hook, ..waiting.marked.clone() };
                    let (results, bounced) = (results.clone(), BTreeSet::new());
                    let findings = waiting.findings.clone();
                    let parted = matches!(state, StoredState::Part { .. });
                    let whole = matches!(state, StoredState::Marked { .. }) && !findings.is_empty();
                    assert!(
                        !whole && (!parted || !findings.is_empty()),
                        "{id} is adopted as {state:?}"
                    );
                    let file = File { marked, state: *state, verdict, findings, results, bounced };
                    self.disk.insert(id, file);
                }
                other => panic!("{other:?} of {id} in its sender's custody"),
            }
            return;
        }
        let file = self.disk.get_mut(&id).expect("it is on disk");
        let aside = matches!(file.state, StoredState::Held | StoredState::Quarantined);
        let in_pool = matches!(file.state, StoredState::Marked { .. } | StoredState::Part { .. });
        match change {
            Change::Charge { attempts } => {
                file.state = match file.state {
                    StoredState::Marked { .. } => StoredState::Marked { attempts: *attempts },
                    StoredState::Part { .. } => StoredState::Part { attempts: *attempts },
                    other => panic!("{id} is {other:?}"),
                };
            }
            Change::Part { findings, .. } => {
                assert!(in_pool, "{id} is {:?}", file.state);
                file.state = StoredState::Part { attempts: 0 };
                file.findings.clone_from(findings);
            }
            Change::Settle { verdict } => {
                assert!(in_pool, "{id} is {:?}", file.state);
                (file.state, file.verdict) = (StoredState::Releasing, Some((**verdict).clone()));
            }
            Change::Results { results } => {
                assert_eq!(file.state, StoredState::Releasing);
                file.results.extend(results.iter().cloned());
            }
            Change::SetAside { state, verdict, .. } => {
                assert!(!aside, "{id} is aside already");
                file.state = *state;
                file.verdict = verdict.as_deref().cloned().or_else(|| file.verdict.take());
            }
            Change::Bounce { results } => {
                file.bounced.extend(results.iter().map(|result| result.recipient));
            }
            Change::Requeue => {
                assert!(aside, "{id} is {:?}", file.state);
                file.state = StoredState::Marked { attempts: 0 };
                (file.verdict, file.results) = (None, Vec::new());
                file.findings.clear();
                self.served.remove(&id);
            }
            Change::ReleaseAsIs { verdict } => {
                assert!(aside, "{id} is {:?}", file.state);
                (file.state, file.results) = (StoredState::Releasing, Vec::new());
                file.verdict = Some((**verdict).clone());
                self.served.remove(&id);
            }
            Change::Remove => {
                let file = self.disk.remove(&id).expect("it is on disk");
                assert!(self.may_go(id, &file), "{id} is removed: {file:?}");
            }
            Change::Adopt { .. } => panic!("{id} is adopted twice"),
            // Theirs is the simulation, with the real spool.
            Change::Originate { .. } => panic!("the model's workers originate nothing"),
        }
    }

    /// Whether every recipient was served or its sender told, or an operator said so.
    fn may_go(&self, id: MessageId, file: &File) -> bool {
        if matches!(file.state, StoredState::Held | StoredState::Quarantined) {
            return self.deleting.contains(&id);
        }
        let Some(verdict) = &file.verdict else { return false };
        let mut groups = verdict.groups.iter();
        let served = self.served.get(&id);
        let done = |recipient: &u16| {
            let told = served.and_then(|served| served.get(recipient)).copied();
            let stored = file.results.iter().find(|result| result.recipient == *recipient);
            match stored.map(|result| result.result).or(told) {
                Some(ReleaseResult::Accepted) => true,
                Some(ReleaseResult::Refused) => file.bounced.contains(recipient),
                _ => false,
            }
        };
        file.state == StoredState::Releasing
            && groups.all(|group| match &group.disposition {
                Disposition::Deliver { .. } => group.recipients.iter().all(done),
                Disposition::Discard => true,
                _ => false,
            })
    }

    /// A release is asked for: by a stored verdict, to those it delivers to, who have nothing yet.
    pub(crate) fn releasing(&self, id: MessageId, recipients: &[u16]) {
        let verdict = match (self.senders.get(&id), self.disk.get(&id)) {
            (Some(waiting), _) => waiting.verdict.as_ref(),
            (None, Some(file)) => {
                assert_eq!(file.state, StoredState::Releasing, "{id} leaves before it is stored");
                file.verdict.as_ref()
            }
            (None, None) => None,
        };
        let verdict = verdict.unwrap_or_else(|| panic!("{id} leaves without a verdict"));
        for recipient in recipients {
            let delivered = verdict.groups.iter().any(|group| {
                matches!(group.disposition, Disposition::Deliver { .. })
                    && group.recipients.contains(recipient)
            });
            assert!(delivered, "{id} goes to {recipient}, whom no verdict gives it");
            let served = self.served.get(&id).and_then(|served| served.get(recipient));
            assert_eq!(served, None, "{id} goes to {recipient} again");
        }
        assert!(!recipients.is_empty(), "{id} goes to nobody");
    }

    pub(crate) fn released(&mut self, id: MessageId, results: &[RecipientResult]) {
        let served = self.served.entry(id).or_default();
        for result in results {
            if matches!(result.result, ReleaseResult::Accepted | ReleaseResult::Refused) {
                served.entry(result.recipient).or_insert(result.result);
            }
        }
    }

    pub(crate) fn answered(&mut self, id: MessageId, answer: &Answer) {
        let waiting = self.senders.get_mut(&id).expect("somebody waits for this answer");
        assert!(!waiting.answered, "{id} is answered twice");
        waiting.answered = true;
        let ours = self.disk.contains_key(&id);
        match answer {
            Answer::Accepted { .. } if ours => {
                self.senders.remove(&id);
            }
            Answer::Accepted { .. } => {
                let served = self.served.get(&id);
                let all = (0..waiting.marked.recipients).all(|recipient| {
                    served.and_then(|s| s.get(&recipient)) == Some(&ReleaseResult::Accepted)
                });
                assert!(all, "{id} was answered yes and is neither durable nor delivered");
            }
            Answer::TryAgain { .. } | Answer::Refused { .. } => {
                assert!(!ours, "{id} is ours, and its sender is told no");
            }
        }
    }

    pub(crate) fn forgotten(&mut self, id: MessageId) {
        let waiting = self.senders.remove(&id).expect("it was in its sender's custody");
        assert!(waiting.answered || waiting.gone, "{id} is forgotten without an answer");
    }

    /// Only what is on disk remains; what has been answered yes must be there.
    pub(crate) fn crash(&mut self) {
        self.senders.clear();
        self.accounts.clear();
        self.owners.clear();
        self.deleting.clear();
        let stored = |id: &MessageId| {
            let results = self.disk.get(id).map(|file| file.results.clone()).unwrap_or_default();
            results.into_iter().map(|result| (result.recipient, result.result)).collect()
        };
        self.served = self.disk.keys().map(|id| (*id, stored(id))).collect();
    }
}

//! The grabbers that a host knows, linked or not.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::MailboxConfig;
use super::effect::MailboxIndex;
use super::needs::Needs;
use super::rest::Failing;
use crate::frame::Credit;
use crate::id::{Digest, Fence, Incarnation, MessageId, Session};
use crate::limits::{
    GRABBERS_MAX, REPLACED_INCARNATIONS_MAX, RESERVATIONS_PER_GRABBER_MAX, SETTLED_REMEMBERED_MAX,
};
use crate::profile::{Profile, Readiness};
use crate::time::Moment;

/// A grabber's place in the table, for as long as the hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct GrabberKey(pub(super) u16);

#[derive(Clone, Debug)]
pub(super) struct Grabber {
    pub(super) name: String,
    /// Program and version, as its last hello said.
    pub(super) software: String,
    pub(super) incarnation: Incarnation,
    pub(super) session: Option<Session>,
    /// Capabilities that its certificate was granted *and* its modules provide.
    pub(super) capabilities: BTreeSet<String>,
    /// Needs that they meet, by mailbox, and those for which its certificate alone would do.
    can: Vec<Needs>,
    granted: Vec<Needs>,
    /// The policy by which it processes what it is given on this link.
    pub(super) policy: Digest,
    /// Why it gets nothing: another policy.
    pub(super) barred: Option<String>,
    /// How often it came to nothing, and whether it rests for it.
    pub(super) failing: Failing,
    /// Why an operator made it not ready: it gets nothing until it is made ready again.
    pub(super) ordered: Option<String>,
    pub(super) tier: u8,
    /// What it asked for and what it was given since the session began.
    pub(super) wanted: Credit,
    pub(super) given: Credit,
    pub(super) draining: bool,
    pub(super) last_heard: Moment,
    /// Messages that it was last told wait for it.
    pub(super) told_backlog: u64,
    /// When its beats began to be awaited: when it was last heard, or later for one that held nothing.
    pub(super) awaited: Moment,
    /// When its link last carried anything at all.
    pub(super) carried: Moment,
    /// Three beats were missed while it held something.
    pub(super) silent: bool,
    pub(super) holding: BTreeSet<MessageId>,
    /// Messages whose attempts are given back when this incarnation links again.
    pub(super) charged: BTreeSet<MessageId>,
    replaced: VecDeque<Incarnation>,
    /// By fence, which rises: the first one is the oldest.
    settled: BTreeMap<Fence, MessageId>,
    /// The last one, and when it came.
    /// How often it broke the protocol, and how it did last.
    pub(super) faults: u32,
    pub(super) last_fault: Option<String>,
    pub(super) profile: Option<(Profile, Moment)>,
}

impl Grabber {
    /// Messages that it may be given now.
    pub(super) fn free(&self) -> u64 {
        self.wanted.messages.saturating_sub(self.given.messages)
    }

    /// Whether a message of this length fits its credit. One that holds nothing may be given a message of any
    /// length, or the largest would never be processed.
    pub(super) fn has_room_for(&self, length: u64) -> bool {
        self.holding.len() < RESERVATIONS_PER_GRABBER_MAX
            && self.free() > 0
            && (self.holding.is_empty()
                || length <= self.wanted.bytes.saturating_sub(self.given.bytes))
    }

    pub(super) fn is_available(&self) -> bool {
        self.session.is_some()
            && self.barred.is_none()
            && self.ordered.is_none()
            && self.failing.reason().is_none()
            && !self.draining
            && !self.silent
            && self.free() > 0
    }

    /// Whether it will want something again as soon as it has done what it has; goes by its last profile. One of a
    /// higher tier that has nothing stands by, and may do so for ever.
    pub(super) fn is_at_work(&self) -> bool {
        let says_so = |(profile, _): &(Profile, Moment)| {
            matches!(profile.readiness, Readiness::Ready | Readiness::Busy)
        };
        self.session.is_some()
            && self.barred.is_none()
            && self.ordered.is_none()
            && self.failing.reason().is_none()
            && !self.draining
            && !self.silent
            && (self.tier == 0 || !self.holding.is_empty())
            && self.profile.as_ref().is_some_and(says_so)
    }

    /// What it can do of a mailbox's needs: its certificate was granted them, and its modules provide them.
    pub(super) fn can(&self, mailbox: MailboxIndex) -> Needs {
        self.can.get(usize::from(mailbox.0)).copied().unwrap_or_default()
    }

    /// What its certificate was granted of a mailbox's needs.
    pub(super) fn granted(&self, mailbox: MailboxIndex) -> Needs {
        self.granted.get(usize::from(mailbox.0)).copied().unwrap_or_default()
    }

    /// Whether it can do all that another one can, for every mailbox.
    pub(super) fn can_all_of(&self, other: &Self) -> bool {
        self.can.len() >= other.can.len()
            && self.can.iter().zip(&other.can).all(|(own, theirs)| theirs.within(*own))
    }

    /// What it may and can do from now on, for these mailboxes.
    pub(super) fn set_capabilities(
        &mut self,
        capabilities: BTreeSet<String>,
        granted: &BTreeSet<String>,
        mailboxes: &[MailboxConfig],
    ) {
        let of = |capabilities: &BTreeSet<String>| {
            let needs = |mailbox| Needs::of(mailbox, |need| capabilities.contains(need));
            mailboxes.iter().map(needs).collect()
        };
        (self.can, self.granted) = (of(&capabilities), of(granted));
        self.capabilities = capabilities;
    }

    pub(super) fn was_replaced(&self, incarnation: Incarnation) -> bool {
        self.replaced.contains(&incarnation)
    }

    /// A new incarnation takes the former one's place.
    pub(super) fn replace(&mut self, incarnation: Incarnation) {
        self.replaced.push_back(self.incarnation);
        if self.replaced.len() > REPLACED_INCARNATIONS_MAX {
            self.replaced.pop_front();
        }
        self.incarnation = incarnation;
        self.settled.clear();
        self.charged.clear();
        self.profile = None;
    }

    /// Remembers that a verdict counts, so that the same one arriving again is answered and not applied.
    pub(super) fn remember(&mut self, message: MessageId, fence: Fence) {
        self.settled.insert(fence, message);
        if self.settled.len() > SETTLED_REMEMBERED_MAX {
            self.settled.pop_first();
        }
    }

    pub(super) fn remembers(&self, message: MessageId, fence: Fence) -> bool {
        self.settled.get(&fence) == Some(&message)
    }

    /// A hello that no longer asks about a settled message has acknowledged it.
    pub(super) fn keep_remembered(&mut self, asked: &BTreeSet<(MessageId, Fence)>) {
        self.settled.retain(|fence, message| asked.contains(&(*message, *fence)));
    }
}

#[derive(Clone, Debug, Default)]
pub(super) struct Grabbers {
    table: BTreeMap<GrabberKey, Grabber>,
    by_name: BTreeMap<String, GrabberKey>,
    by_session: BTreeMap<Session, GrabberKey>,
    next: u16,
}

impl Grabbers {
    pub(super) fn get(&self, key: GrabberKey) -> Option<&Grabber> {
        self.table.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: GrabberKey) -> Option<&mut Grabber> {
        self.table.get_mut(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (GrabberKey, &Grabber)> {
        self.table.iter().map(|(key, grabber)| (*key, grabber))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (GrabberKey, &mut Grabber)> {
        self.table.iter_mut().map(|(key, grabber)| (*key, grabber))
    }

    pub(super) fn by_name(&self, name: &str) -> Option<GrabberKey> {
        self.by_name.get(name).copied()
    }

    pub(super) fn by_session(&self, session: Session) -> Option<GrabberKey> {
        self.by_session.get(&session).copied()
    }

    pub(super) fn name(&self, key: GrabberKey) -> String {
        self.get(key).map(|grabber| grabber.name.clone()).unwrap_or_default()
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = (Session, GrabberKey)> {
        self.by_session.iter().map(|(session, key)| (*session, *key))
    }

    /// A place for a grabber that was not known; `None` at the bound when all known ones are linked or hold something.
    pub(super) fn insert(
        &mut self,
        name: &str,
        incarnation: Incarnation,
        now: Moment,
    ) -> Option<GrabberKey> {
        if self.table.len() >= GRABBERS_MAX {
            let idle = self
                .iter()
                .find(|(_, g)| g.session.is_none() && g.holding.is_empty())
                .map(|(key, _)| key)?;
            if let Some(gone) = self.table.remove(&idle) {
                self.by_name.remove(&gone.name);
            }
        }
        while self.table.contains_key(&GrabberKey(self.next)) {
            self.next = self.next.wrapping_add(1);
        }
        let key = GrabberKey(self.next);
        self.next = self.next.wrapping_add(1);
        self.by_name.insert(name.to_owned(), key);
        self.table.insert(
            key,
            Grabber {
                name: name.to_owned(),
                software: String::new(),
                incarnation,
                session: None,
                capabilities: BTreeSet::new(),
                can: Vec::new(),
                granted: Vec::new(),
                policy: Digest([0; 32]),
                barred: None,
                failing: Failing::default(),
                ordered: None,
                tier: 0,
                wanted: Credit::default(),
                given: Credit::default(),
                draining: false,
                last_heard: now,
                told_backlog: 0,
                awaited: now,
                carried: now,
                silent: false,
                holding: BTreeSet::new(),
                charged: BTreeSet::new(),
                replaced: VecDeque::new(),
                settled: BTreeMap::new(),
                faults: 0,
                last_fault: None,
                profile: None,
            },
        );
        Some(key)
    }

    pub(super) fn bind(&mut self, key: GrabberKey, session: Session) {
        if let Some(grabber) = self.table.get_mut(&key) {
            grabber.session = Some(session);
            self.by_session.insert(session, key);
        }
    }

    /// Ends a session; the grabber stays known.
    pub(super) fn unbind(&mut self, session: Session) -> Option<GrabberKey> {
        let key = self.by_session.remove(&session)?;
        if let Some(grabber) = self.table.get_mut(&key)
            && grabber.session == Some(session)
        {
            grabber.session = None;
        }
        Some(key)
    }
}

//! Links: who is there, who is silent, who came back.

use std::collections::BTreeSet;
use std::time::Duration;

use super::effect::{Effect, Event};
use super::entry::{Blame, Charge, State};
use super::grabbers::{Grabber, GrabberKey};
use super::{Config, Pool, Timer};
use crate::frame::{
    Backlog, Credit, Hello, Hint, HostControl, Manage, Notice, Order, Peers, Refused, RefusedCode,
    Resume, ResumeAnswer, Resumed, Welcome, WorkerControl,
};
use crate::id::{Digest, Incarnation, MessageId, Session};
use crate::limits::{
    self, BEATS_MISSED_CARRIED_MAX, BEATS_MISSED_MAX, CARRIED_BEATS, PEERS_MAX,
    RESERVATIONS_PER_GRABBER_MAX,
};
use crate::profile::{PeerProfile, Profile, Readiness};
use crate::text::bounded;
use crate::time::{Moment, millis};

/// A [`crate::profile::Holding`] in a frame: four numbers of at most 10 bytes and two of at most 5.
const HOLDING_BYTES_MAX: usize = 50;
/// How soon grabbers learn that something has begun to wait, or that nothing does any more: a worker of several hosts then
/// asks for more here and less elsewhere, or the other way round. A moment, so that what comes together is told together.
const BACKLOG_SOON: Duration = Duration::from_millis(10);

/// Who is on the other end of a link, by its certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkPeer {
    pub name: String,
    /// Capabilities that the certificate was granted; a worker's own claim never suffices.
    pub grants: Vec<String>,
}

impl Pool {
    /// A link whose peer's certificate was verified and whose first frame is this hello. The driver assigns sessions
    /// in rising order and has checked that name and version fit.
    pub fn handle_link_up(&mut self, session: Session, peer: LinkPeer, hello: Hello, now: Moment) {
        let (version, key) = match self.admit(&peer, &hello, now) {
            Ok(admitted) => admitted,
            Err((code, text)) => return self.refuse(session, code, text),
        };
        self.end_former_link(key, hello.incarnation, now);
        let resumed = self.resume_all(key, session, &hello.resume, now);
        self.grabbers.bind(key, session);
        let barred = policy_problem(&self.config, &hello.policy);
        if let Some(grabber) = self.grabbers.get_mut(key) {
            let granted: BTreeSet<String> = peer.grants.into_iter().collect();
            let both =
                hello.provides.iter().filter(|need| granted.contains(*need)).cloned().collect();
            grabber.set_capabilities(both, &granted, &self.config.mailboxes);
            grabber.policy = hello.policy;
            grabber.barred.clone_from(&barred);
            grabber.ordered = self.orders.get(&peer.name).cloned();
            grabber.tier = hello.tier;
            grabber.software = bounded(hello.software);
            (grabber.wanted, grabber.given) = (Credit::default(), Credit::default());
            grabber.draining = false;
        }
        let welcome = self.welcome(version, session, resumed);
        self.control(session, HostControl::Welcome(welcome));
        if let Some(text) = barred {
            self.control(session, HostControl::Notice(Notice { text }));
        }
        if let Some(reason) = self.orders.get(&peer.name).cloned() {
            self.control(
                session,
                HostControl::Manage(Manage { order: Order::NotReady { reason } }),
            );
        }
        if hello.tier > 0 {
            // It waits for this list, even an empty one, before it does anything.
            let peers = others(&self.peer_profiles(now), key);
            self.control(session, HostControl::Peers(Peers { peers }));
        }
        self.event(Event::Linked { grabber: peer.name });
        self.heard(key, now);
        self.set_tell_timer(now);
        self.assign(now);
    }

    /// From now on these policies count. Workers with another one get nothing more, and what they have is taken back from them:
    /// what a message leaves by is a policy that counts when its verdict comes.
    pub fn handle_policies(&mut self, policy: Digest, also: Option<Digest>, now: Moment) {
        (self.config.policy, self.config.policy_also) = (policy, also);
        let mut told = Vec::new();
        for (_, grabber) in self.grabbers.iter_mut() {
            let barred = policy_problem(&self.config, &grabber.policy);
            if let Some(session) = grabber.session.filter(|_| grabber.barred != barred) {
                grabber.barred.clone_from(&barred);
                told.push((
                    session,
                    barred.unwrap_or_else(|| "your policy counts here".to_owned()),
                ));
            }
        }
        for (session, text) in told {
            self.control(session, HostControl::Notice(Notice { text }));
        }
        let held: Vec<MessageId> =
            self.grabbers.iter().flat_map(|(_, grabber)| grabber.holding.iter().copied()).collect();
        for id in held {
            let reservation = self.messages.get(&id).and_then(|entry| entry.reservation());
            if reservation.is_some_and(|r| !self.config.accepts(&r.policy)) {
                let reason = "the policy that it is processed by counts no more";
                self.end_reservation(id, reason, Blame::Host);
                self.return_to_pool(id, now);
            }
        }
        self.assign(now);
    }

    /// A frame on a link's control stream.
    pub fn handle_control(&mut self, session: Session, frame: WorkerControl, now: Moment) {
        let Some(key) = self.grabbers.by_session(session) else { return };
        self.heard(key, now);
        match frame {
            WorkerControl::Hello(_) => self.misbehaved(session, key, "a second hello on one link"),
            WorkerControl::Want(credit) => self.on_want(session, key, credit, now),
            WorkerControl::Recall(credit) => self.on_recall(session, key, credit),
            WorkerControl::Beat(_) => self.assign(now),
            WorkerControl::Profile(profile) => self.on_profile(session, key, profile, now),
            WorkerControl::Hint(hint) => self.on_hint(&hint, now),
            WorkerControl::Draining(_) => {
                if let Some(grabber) = self.grabbers.get_mut(key) {
                    grabber.draining = true;
                    grabber.wanted = grabber.given;
                    // Only now does it know that nothing more is on its way.
                    let given = grabber.given;
                    self.control(session, HostControl::Recalled(given));
                }
            }
        }
    }

    /// The driver found what is against the protocol: the link ends, and its worker is named.
    pub fn handle_misbehaved(&mut self, session: Session, reason: &str) {
        if let Some(key) = self.grabbers.by_session(session) {
            self.misbehaved(session, key, reason);
        }
    }

    /// A link is gone. What it held may be resumed by the same incarnation until somebody else takes it over.
    pub fn handle_link_lost(&mut self, session: Session, now: Moment) {
        let Some(key) = self.grabbers.unbind(session) else { return };
        let grabber = self.grabbers.name(key);
        self.event(Event::LinkLost { grabber });
        self.tell_standby(key, now);
        // A reservation that is still on its way to the driver has nobody to go to.
        let unsent: Vec<MessageId> = self
            .held_by(key)
            .filter(|id| {
                self.messages
                    .get(id)
                    .and_then(|e| e.reservation())
                    .is_some_and(|r| r.session == session && !r.is_working())
            })
            .collect();
        for id in unsent {
            let reason = "the link was lost before the message was sent";
            self.end_reservation(id, reason, Blame::Worker);
            self.return_later(id, now);
        }
        self.assign(now);
    }

    /// Everything from a grabber says that it lives.
    pub(super) fn heard(&mut self, key: GrabberKey, now: Moment) {
        let Some(grabber) = self.grabbers.get_mut(key) else { return };
        grabber.last_heard = now;
        let (was_silent, incarnation) = (grabber.silent, grabber.incarnation);
        grabber.silent = false;
        if grabber.holding.is_empty() {
            self.timers.clear(Timer::Silent(key));
        } else {
            self.await_beats(key, now);
        }
        if was_silent {
            self.give_back(key, incarnation);
        }
    }

    /// Something of a link arrived, whole frame or not: the worker's process lives, even if its beats are stuck behind
    /// what the network lost. To be called every [`limits::CARRIED_EVERY`] for the
    /// links on which something came since the last time, while [`Pool::awaits_beats`].
    pub fn handle_carried(&mut self, session: Session, now: Moment) {
        let key = self.grabbers.by_session(session);
        if let Some(grabber) = key.and_then(|key| self.grabbers.get_mut(key)) {
            grabber.carried = now;
        }
    }

    /// Whether anybody holds something, so that it matters who is silent.
    pub fn awaits_beats(&self) -> bool {
        self.grabbers.iter().any(|(_, grabber)| !grabber.holding.is_empty())
    }

    /// A grabber's beats count from now on.
    pub(super) fn await_beats(&mut self, key: GrabberKey, now: Moment) {
        let Some(grabber) = self.grabbers.get_mut(key) else { return };
        grabber.awaited = now;
        self.timers.set(Timer::Silent(key), now + self.config.beat * BEATS_MISSED_MAX);
    }

    /// Three beats were missed: what it holds is contestable, unless its link still carries something.
    pub(super) fn on_silent(&mut self, key: GrabberKey, now: Moment) {
        let beat = self.config.beat;
        if let Some(grabber) = self.grabbers.get(key).filter(|one| one.session.is_some()) {
            let carried = grabber.carried + beat * CARRIED_BEATS;
            let until = carried.min(grabber.awaited + beat * BEATS_MISSED_CARRIED_MAX);
            if until > now {
                return self.timers.set(Timer::Silent(key), until);
            }
        }
        // Of a message that has not been sent yet it cannot know, so it need not beat for it.
        if self.works_on(key, None)
            && let Some(grabber) = self.grabbers.get_mut(key)
        {
            grabber.silent = true;
            self.tell_standby(key, now);
        }
    }

    /// Who stands by for a grabber learns at once how it is.
    fn tell_standby(&mut self, key: GrabberKey, now: Moment) {
        let Some(tier) = self.grabbers.get(key).map(|grabber| grabber.tier) else { return };
        if self.grabbers.iter().any(|(_, other)| other.session.is_some() && other.tier > tier) {
            self.on_tell(now);
        }
    }

    /// Something waits that nobody has asked for, or nothing does any more: who thinks otherwise is to know, once.
    pub(super) fn mention_backlog(&mut self, now: Moment) {
        if self.waiting.is_empty() != self.told_waiting {
            self.timers.clear(Timer::Backlog);
        } else if self.timers.get(Timer::Backlog).is_none() {
            self.timers.set(Timer::Backlog, now + BACKLOG_SOON);
        }
    }

    /// Between two rounds of [`Self::on_tell`].
    pub(super) fn on_backlog(&mut self, now: Moment) {
        self.told_waiting = !self.waiting.is_empty();
        let sessions: Vec<(Session, GrabberKey)> = self.grabbers.sessions().collect();
        for (session, key) in sessions {
            let backlog = self.backlog_for(key, now);
            let thinks = self.grabbers.get(key).is_some_and(|grabber| grabber.told_backlog > 0);
            if thinks != (backlog.messages > 0) {
                self.tell_backlog(session, key, backlog);
            }
        }
    }

    fn tell_backlog(&mut self, session: Session, key: GrabberKey, backlog: Backlog) {
        if let Some(grabber) = self.grabbers.get_mut(key) {
            grabber.told_backlog = backlog.messages;
        }
        self.control(session, HostControl::Backlog(backlog));
    }

    /// A hook that was itself away cannot tell who missed beats: everybody starts anew.
    pub(super) fn restart_beats_after_own_absence(&mut self, now: Moment) {
        let away = self.timers.next_timeout().is_some_and(|due| now.since(due) > self.config.beat);
        if !away {
            return;
        }
        let mut holding = Vec::new();
        for (key, grabber) in self.grabbers.iter_mut() {
            if !grabber.holding.is_empty() && !grabber.silent {
                grabber.last_heard = now;
                holding.push(key);
            }
        }
        for key in holding {
            self.await_beats(key, now);
        }
    }

    /// Backlog and the peers' profiles go to everybody who is linked.
    pub(super) fn on_tell(&mut self, now: Moment) {
        let sessions: Vec<(Session, GrabberKey)> = self.grabbers.sessions().collect();
        if sessions.is_empty() {
            return;
        }
        let all = self.peer_profiles(now);
        for (session, key) in sessions {
            let peers = others(&all, key);
            if !peers.is_empty() {
                self.control(session, HostControl::Peers(Peers { peers }));
            }
            let backlog = self.backlog_for(key, now);
            self.tell_backlog(session, key, backlog);
        }
        self.set_tell_timer(now);
    }

    /// What is known of all grabbers, in as many bytes as one frame may have.
    fn peer_profiles(&self, now: Moment) -> Vec<(GrabberKey, PeerProfile)> {
        let mut peers: Vec<(GrabberKey, PeerProfile)> = self
            .grabbers
            .iter()
            .filter_map(|(key, grabber)| Some((key, peer_profile(grabber, now)?)))
            .take(PEERS_MAX)
            .collect();
        shorten(&mut peers);
        peers
    }

    pub(super) fn held_by(&self, key: GrabberKey) -> impl Iterator<Item = MessageId> + '_ {
        self.grabbers.get(key).into_iter().flat_map(|grabber| grabber.holding.iter().copied())
    }

    pub(super) fn control(&mut self, session: Session, frame: HostControl) {
        self.effects.push_back(Effect::Control { session, frame });
    }

    pub(super) fn misbehaved(&mut self, session: Session, key: GrabberKey, reason: &str) {
        if let Some(grabber) = self.grabbers.get_mut(key) {
            // Its link is about to be closed.
            grabber.draining = true;
        }
        self.note_fault(key, reason);
        self.refuse(session, RefusedCode::Misbehaved, reason.to_owned());
    }

    /// What a grabber did against the protocol stays with its name, for the status.
    pub(super) fn note_fault(&mut self, key: GrabberKey, reason: &str) {
        if let Some(grabber) = self.grabbers.get_mut(key) {
            grabber.faults = grabber.faults.saturating_add(1);
            grabber.last_fault = Some(reason.to_owned());
        }
        let grabber = self.grabbers.name(key);
        self.event(Event::Misbehaved { grabber, reason: reason.to_owned() });
    }

    /// Which version a link speaks and whose it is, or why it is refused.
    fn admit(
        &mut self,
        peer: &LinkPeer,
        hello: &Hello,
        now: Moment,
    ) -> Result<(u16, GrabberKey), (RefusedCode, String)> {
        let name = &peer.name;
        if hello.name != *name {
            let text = format!("the certificate is for {name}, the hello says {}", hello.name);
            return Err((RefusedCode::NameMismatch, text));
        }
        let version = common_version(hello).ok_or_else(|| {
            let (min, max) = limits::VERSIONS;
            let text = format!(
                "no common version: this host speaks {min} to {max}, the worker {} to {}",
                hello.version_min, hello.version_max
            );
            (RefusedCode::NoCommonVersion, text)
        })?;
        let known = self.grabbers.by_name(name);
        let key = known.or_else(|| self.grabbers.insert(name, hello.incarnation, now)).ok_or_else(
            || {
                let text = format!("{} grabbers are linked already", limits::GRABBERS_MAX);
                (RefusedCode::Limit, text)
            },
        )?;
        if self.grabbers.get(key).is_some_and(|grabber| grabber.was_replaced(hello.incarnation)) {
            let text = format!(
                "another process has linked as {name} since: two processes use one certificate; join one of them anew"
            );
            self.note_fault(key, "two processes use one certificate");
            return Err((RefusedCode::Clone, text));
        }
        Ok((version, key))
    }

    fn welcome(&self, version: u16, session: Session, resumed: Vec<Resumed>) -> Welcome {
        Welcome {
            version,
            software: self.config.software.clone(),
            host: self.config.host.clone(),
            session,
            policy: self.config.policy,
            revocations: self.config.revocations,
            beat_ms: u32::try_from(millis(self.config.beat)).unwrap_or(u32::MAX),
            beat_idle_ms: u32::try_from(millis(self.config.beat_idle)).unwrap_or(u32::MAX),
            resumed,
        }
    }

    fn refuse(&mut self, session: Session, code: RefusedCode, text: String) {
        let text = bounded(text);
        self.control(session, HostControl::Refused(Refused { code, text: text.clone() }));
        self.effects.push_back(Effect::CloseLink { session, reason: text });
    }

    /// A new link of a known grabber ends the old one; a new incarnation also ends what the old one held.
    fn end_former_link(&mut self, key: GrabberKey, incarnation: Incarnation, now: Moment) {
        let Some(grabber) = self.grabbers.get(key) else { return };
        let (former, anew) = (grabber.session, grabber.incarnation != incarnation);
        if let Some(former) = former {
            self.grabbers.unbind(former);
            self.refuse(
                former,
                RefusedCode::Replaced,
                "a newer link of this worker took this one's place".to_owned(),
            );
        }
        if anew {
            let held: Vec<MessageId> = self.held_by(key).collect();
            if !held.is_empty() {
                // One failure, however much it held: it may have been one message.
                self.count_failure(key, now);
            }
            for id in held {
                let reservation = self.messages.get(&id).and_then(|entry| entry.reservation());
                if reservation.is_some_and(|r| r.is_working()) {
                    self.fail_reservation(id, "the worker started anew", false, now);
                } else {
                    self.end_reservation(id, "the worker started anew", Blame::Host);
                    self.return_to_pool(id, now);
                }
            }
            // Whom an ended incarnation was charged for is not given back any more.
            if let Some(grabber) = self.grabbers.get_mut(key) {
                grabber.replace(incarnation);
            }
        } else {
            self.give_back(key, incarnation);
        }
    }

    /// The same incarnation is back: it was the link, not the message.
    fn give_back(&mut self, key: GrabberKey, incarnation: Incarnation) {
        let charge = Charge { grabber: key, incarnation };
        let charged = self
            .grabbers
            .get_mut(key)
            .map(|grabber| std::mem::take(&mut grabber.charged))
            .unwrap_or_default();
        for id in charged {
            let Some(entry) = self.messages.get_mut(&id) else { continue };
            let Some(history) = entry.history.as_mut() else { continue };
            let before = history.charges.len();
            history.charges.retain(|c| *c != charge);
            let given = u8::try_from(before - history.charges.len()).unwrap_or(u8::MAX);
            self.give_back_attempts(id, given);
        }
    }

    /// The message was not to blame after all. With no attempt left but the one under way it is no suspect either.
    fn give_back_attempts(&mut self, id: MessageId, given: u8) {
        let Some(entry) = self.messages.get_mut(&id) else { return };
        entry.attempts = entry.attempts.saturating_sub(given);
        entry.returns = entry.returns.saturating_add(u16::from(given));
        let under_way = u8::from(entry.reservation().is_some());
        if !entry.suspect || entry.attempts > under_way {
            return;
        }
        let (former, place) = (entry.queue(), (entry.since, id));
        entry.suspect = false;
        let queue = entry.queue();
        self.suspects_out.remove(&id);
        if self.take_from_queue(former, place) {
            self.waiting.entry(queue).or_default().insert(place);
        }
    }

    /// Answers the resume list item by item, and ends what the incarnation holds but did not list.
    fn resume_all(
        &mut self,
        key: GrabberKey,
        session: Session,
        list: &[Resume],
        now: Moment,
    ) -> Vec<Resumed> {
        let asked: BTreeSet<_> = list.iter().map(|item| (item.message, item.fence)).collect();
        if let Some(grabber) = self.grabbers.get_mut(key) {
            grabber.keep_remembered(&asked);
        }
        let resumed = list
            .iter()
            .take(RESERVATIONS_PER_GRABBER_MAX)
            .map(|item| Resumed {
                message: item.message,
                fence: item.fence,
                answer: self.resume(key, session, item),
            })
            .collect();
        let held: Vec<MessageId> = self.held_by(key).collect();
        for id in held {
            let listed = self
                .messages
                .get(&id)
                .and_then(|entry| entry.reservation())
                .is_some_and(|r| r.session == session);
            if !listed {
                self.end_reservation(id, "the worker no longer has it", Blame::Worker);
                self.return_later(id, now);
            }
        }
        resumed
    }

    fn resume(&mut self, key: GrabberKey, session: Session, item: &Resume) -> ResumeAnswer {
        let Some(grabber) = self.grabbers.get(key) else { return ResumeAnswer::Unknown };
        if grabber.remembers(item.message, item.fence) {
            return ResumeAnswer::Applied;
        }
        let incarnation = grabber.incarnation;
        let Some(entry) = self.messages.get_mut(&item.message) else {
            return ResumeAnswer::Unknown;
        };
        match &mut entry.state {
            State::Reserved(r)
                if r.grabber == key
                    && r.incarnation == incarnation
                    && r.fence == item.fence
                    && r.is_working() =>
            {
                r.session = session;
                ResumeAnswer::Live
            }
            // Its answer comes on the stream of the new link, once the verdict is stored or the store has failed.
            State::Settling(s) => match &mut s.acknowledge {
                Some(a) if a.grabber == key && a.fence == item.fence => {
                    a.session = session;
                    ResumeAnswer::Live
                }
                _ => ResumeAnswer::Superseded,
            },
            // The hook was away, not the worker: the message is not to blame.
            State::Marked if entry.recovered && item.fence.epoch < self.epoch => {
                entry.recovered = false;
                self.give_back_attempts(item.message, 1);
                ResumeAnswer::Superseded
            }
            _ => ResumeAnswer::Superseded,
        }
    }

    fn on_want(&mut self, session: Session, key: GrabberKey, credit: Credit, now: Moment) {
        let Some(grabber) = self.grabbers.get_mut(key) else { return };
        let rises =
            credit.messages >= grabber.wanted.messages && credit.bytes >= grabber.wanted.bytes;
        let most = grabber.given.messages.saturating_add(RESERVATIONS_PER_GRABBER_MAX as u64);
        if !rises || credit.messages > most {
            return self.misbehaved(
                session,
                key,
                "a want that falls or exceeds what one grabber may hold",
            );
        }
        if grabber.draining {
            return;
        }
        grabber.wanted = credit;
        self.assign(now);
    }

    fn on_recall(&mut self, session: Session, key: GrabberKey, credit: Credit) {
        let Some(grabber) = self.grabbers.get_mut(key) else { return };
        grabber.wanted = Credit {
            messages: credit
                .messages
                .clamp(grabber.given.messages, grabber.wanted.messages.max(grabber.given.messages)),
            bytes: credit
                .bytes
                .clamp(grabber.given.bytes, grabber.wanted.bytes.max(grabber.given.bytes)),
        };
        let wanted = grabber.wanted;
        self.control(session, HostControl::Recalled(wanted));
    }

    fn on_profile(&mut self, session: Session, key: GrabberKey, mut profile: Profile, now: Moment) {
        let Some(grabber) = self.grabbers.get_mut(key) else { return };
        let own = profile.grabber == grabber.name && profile.incarnation == grabber.incarnation;
        let fits = profile.modules.len() <= limits::NEEDS_MAX
            && profile.holding.len() <= RESERVATIONS_PER_GRABBER_MAX;
        if !own || !fits {
            return self.misbehaved(
                session,
                key,
                "a profile of somebody else or beyond the bounds",
            );
        }
        if let Readiness::NotReady { reason } = &mut profile.readiness {
            *reason = bounded(std::mem::take(reason));
        }
        let could =
            |profile: &Profile| matches!(profile.readiness, Readiness::Ready | Readiness::Busy);
        let changed =
            grabber.profile.as_ref().is_some_and(|(former, _)| could(former) != could(&profile));
        grabber.profile = Some((profile, now));
        if changed {
            self.tell_standby(key, now);
        }
    }

    /// A peer points at a reservation. The host goes by its own clock: a hint only makes it look now.
    fn on_hint(&mut self, hint: &Hint, now: Moment) {
        let fits =
            self.messages.get(&hint.message).and_then(|entry| entry.reservation()).is_some_and(
                |r| {
                    r.fence == hint.fence && self.grabbers.by_name(&hint.grabber) == Some(r.grabber)
                },
            );
        if fits {
            self.assign(now);
        }
    }

    fn backlog_for(&self, key: GrabberKey, now: Moment) -> Backlog {
        let mut backlog = Backlog::default();
        // What it would not be given is none of its business.
        let Some(grabber) = self.grabbers.get(key).filter(|grabber| {
            !self.draining
                && grabber.barred.is_none()
                && grabber.ordered.is_none()
                && grabber.failing.reason().is_none()
        }) else {
            return backlog;
        };
        let mut shelves = Vec::new();
        for (queue, waiting) in &self.waiting {
            if !self.may_have(key, grabber, queue, None) {
                continue;
            }
            backlog.messages += waiting.len() as u64;
            // What lies on the shelf is behind what waits here.
            let place = (queue.mailbox, queue.shelf());
            if !shelves.contains(&place) {
                shelves.push(place);
                let shelved = self.shelved(place);
                backlog.messages += shelved.messages;
                backlog.bytes = backlog.bytes.saturating_add(shelved.bytes);
            }
            if let Some(oldest) = waiting.first().and_then(|(_, id)| self.messages.get(id)) {
                backlog.oldest_ms = backlog.oldest_ms.max(millis(now.since(oldest.since)));
                // Counting every message's bytes would cost more than the answer is worth.
                let here = oldest.length.saturating_mul(waiting.len() as u64);
                backlog.bytes = backlog.bytes.saturating_add(here);
            }
        }
        backlog
    }
}

/// Why a worker with this policy gets nothing, if so.
fn policy_problem(config: &Config, policy: &Digest) -> Option<String> {
    if config.accepts(policy) {
        return None;
    }
    let also = config.policy_also.map(|also| format!(" or {also}")).unwrap_or_default();
    let own = config.policy;
    Some(format!(
        "your policy's digest is {policy}, this host's is {own}{also}: nothing is assigned"
    ))
}

fn common_version(hello: &Hello) -> Option<u16> {
    let (min, max) = limits::VERSIONS;
    let newest = hello.version_max.min(max);
    (newest >= hello.version_min.max(min)).then_some(newest)
}

fn peer_profile(grabber: &Grabber, now: Moment) -> Option<PeerProfile> {
    let (mut profile, at) = grabber.profile.clone()?;
    let age = millis(now.since(at));
    profile.last_action_ago_ms = profile.last_action_ago_ms.saturating_add(age);
    for holding in &mut profile.holding {
        holding.progress_ago_ms = holding.progress_ago_ms.saturating_add(age);
    }
    let heard_ago_ms = millis(now.since(grabber.last_heard));
    // A silent one may be dead: whoever stands by for it need not wait until its link is given up.
    let linked = grabber.session.is_some() && !grabber.silent;
    Some(PeerProfile { profile, linked, heard_ago_ms })
}

/// All but one.
fn others(all: &[(GrabberKey, PeerProfile)], one: GrabberKey) -> Vec<PeerProfile> {
    all.iter().filter(|(peer, _)| *peer != one).map(|(_, profile)| profile.clone()).collect()
}

/// Keeps a list of peers within one frame: who takes more than its share of half of it is told of without its modules,
/// and with only as many of its messages, those longest without progress, as have room. Name and reason have bounds of
/// their own, for which the other half is.
fn shorten(peers: &mut [(GrabberKey, PeerProfile)]) {
    let share = limits::CONTROL_FRAME_BYTES_MAX / 2 / peers.len().max(1);
    for (_, PeerProfile { profile, .. }) in peers {
        if postcard::to_stdvec(profile).is_ok_and(|bytes| bytes.len() > share) {
            profile.modules.clear();
            profile.holding.sort_by_key(|held| std::cmp::Reverse(held.progress_ago_ms));
            profile.holding.truncate(share / HOLDING_BYTES_MAX);
        }
    }
}

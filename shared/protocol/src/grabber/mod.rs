//! The worker's side at one host: what it wants, what it holds, how it beats, and how it goes on after a lost link.
//!
//! Driven like the pool: `handle_*` takes what happened and `now`, [`Grabber::poll_effect`] gives what is to be done,
//! [`Grabber::next_timeout`] tells when to call [`Grabber::handle_timeout`]. Nothing here waits for an answer: a
//! reservation is known by its message and fence, and what comes late for one that is gone is ignored.

mod hold;
#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]
mod tests;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::frame::{
    Assign, Beat, Credit, Draining, Hello, Hint, HostControl, HostReservation, Part, Progress,
    Resume, ResumeAnswer, Return, ReturnKind, Settled, Welcome, WorkerControl, WorkerReservation,
};
use crate::id::{Digest, Fence, Incarnation, MessageId, Session};
use crate::limits::{BEAT, BEAT_IDLE, PROFILE_EVERY, RESERVATIONS_PER_GRABBER_MAX, VERSIONS};
use crate::profile::{Action, Holding, ModuleProfile, Profile, Readiness};
use crate::text::bounded;
use crate::time::{Moment, millis};
use crate::timer::Timers;
use crate::verdict::Verdict;
use hold::{Held, Stage};

/// Progress goes to the host at most this often; more would tell it nothing.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

/// Who this grabber is.
#[derive(Clone, Debug)]
pub struct Config {
    /// The name in its certificate.
    pub name: String,
    pub incarnation: Incarnation,
    pub tier: u8,
    pub policy: Digest,
    pub software: String,
}

/// What the worker can start now for this host, held messages included: its wants never exceed it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capacity {
    pub messages: u64,
    pub bytes: u64,
}

/// What came of processing a message.
#[derive(Clone, Debug, PartialEq)]
pub enum Processed {
    Verdict(Box<Verdict>),
    /// Some of what the message needs is done.
    Part(Box<Part>),
    Return(Return),
}

/// Something to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Control(WorkerControl),
    /// Send a frame on a reservation's stream; `finish` ends our side of it.
    Send {
        message: MessageId,
        fence: Fence,
        frame: WorkerReservation,
        finish: bool,
    },
    /// Open a stream for a reservation that goes on after a new link; its first frame is the resume.
    OpenResume {
        message: MessageId,
        fence: Fence,
    },
    /// The whole message is here: run the pipeline.
    Start {
        message: MessageId,
        fence: Fence,
    },
    /// Stop what is being done for it and forget its body.
    Stop {
        message: MessageId,
        fence: Fence,
        reason: String,
    },
    Event(Event),
}

/// Something that happened, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Linked {
        host: String,
        session: Session,
    },
    LinkLost {
        host: String,
    },
    Reserved {
        message: MessageId,
        fence: Fence,
        attempt: u8,
    },
    Applied {
        message: MessageId,
    },
    /// The host did not apply what was sent.
    Refused {
        message: MessageId,
        reason: String,
    },
    Cancelled {
        message: MessageId,
        reason: String,
    },
    Superseded {
        message: MessageId,
    },
    /// A sentence from the host.
    Notice {
        text: String,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Beat,
    Profile,
    /// A reservation's own time is over.
    Over(MessageId),
}

/// The part of a worker that reserves messages at one host.
#[derive(Clone, Debug)]
pub struct Grabber {
    config: Config,
    host: String,
    link: Option<Link>,
    held: BTreeMap<MessageId, Held>,
    capacity: Capacity,
    readiness: Readiness,
    modules: Vec<ModuleProfile>,
    /// Why an operator made it not ready at this host, if so.
    ordered: Option<String>,
    draining: bool,
    beats: u64,
    last_action: (Action, Moment),
    timers: Timers<Timer>,
    effects: VecDeque<Effect>,
}

/// What is counted within one link.
#[derive(Clone, Debug)]
struct Link {
    beat: Duration,
    beat_idle: Duration,
    wanted: Credit,
    given: Credit,
    /// A recall is on its way: no new want until its answer tells what counts.
    recalling: Option<Credit>,
    /// Fewer than these the host cannot take back: it had given them when it was last asked.
    given_by_host: u64,
    /// How many the host had given when it knew that we leave: nothing more is on its way once they are all here.
    given_at_last: Option<u64>,
    /// What it wants may have changed: it is worked out when effects are asked for, so that what changes at several hosts at
    /// once comes together first.
    reconsider: bool,
}

impl Grabber {
    pub fn new(config: Config, now: Moment) -> Self {
        Self {
            config,
            host: String::new(),
            link: None,
            held: BTreeMap::new(),
            capacity: Capacity::default(),
            readiness: Readiness::NotReady {
                reason: "its modules have not been asked yet".to_owned(),
            },
            modules: Vec::new(),
            ordered: None,
            draining: false,
            beats: 0,
            last_action: (Action::Started, now),
            timers: Timers::default(),
            effects: VecDeque::new(),
        }
    }

    /// The first frame of the next link, with what is worth going on with.
    pub fn hello(&self) -> Hello {
        let mut provides: Vec<String> =
            self.modules.iter().map(|module| module.provides.clone()).collect();
        provides.sort();
        provides.dedup();
        Hello {
            version_min: VERSIONS.0,
            version_max: VERSIONS.1,
            software: self.config.software.clone(),
            name: self.config.name.clone(),
            incarnation: self.config.incarnation,
            tier: self.config.tier,
            policy: self.config.policy,
            provides,
            revocations: 0,
            resume: self
                .held
                .iter()
                .map(|(message, held)| Resume { message: *message, fence: held.fence })
                .collect(),
        }
    }

    /// The policy has changed: the next hello says so.
    pub fn handle_policy(&mut self, policy: Digest) {
        self.config.policy = policy;
    }

    /// Messages that it holds.
    pub fn holding(&self) -> usize {
        self.held.len()
    }

    /// Whether it holds a message under this fence.
    pub fn holds(&self, message: MessageId, fence: Fence) -> bool {
        self.held.get(&message).is_some_and(|held| held.fence == fence)
    }

    /// Whether a draining grabber can go: it holds nothing, and nothing is on its way to it.
    pub fn may_leave(&self) -> bool {
        let all_here =
            |link: &Link| link.given_at_last.is_some_and(|total| link.given.messages >= total);
        self.held.is_empty() && self.link.as_ref().is_none_or(all_here)
    }

    /// Bytes of the messages that it holds.
    pub fn holding_bytes(&self) -> u64 {
        self.held.values().map(|held| held.length).sum()
    }

    pub fn is_linked(&self) -> bool {
        self.link.is_some()
    }

    /// Whether it may be given messages at this host: linked, ready, not told to leave.
    pub fn is_open(&self) -> bool {
        self.link.is_some() && self.is_ready()
    }

    /// What it takes up of the worker. Of what is held for a host that cannot be reached, only what is still being worked on.
    pub fn occupied(&self) -> Capacity {
        let linked = self.link.is_some();
        let working = |held: &&Held| linked || !matches!(held.stage, Stage::Answered(_));
        let lengths = self.held.values().filter(working).map(|held| held.length);
        lengths.fold(Capacity::default(), |sum, length| Capacity {
            messages: sum.messages + 1,
            bytes: sum.bytes.saturating_add(length),
        })
    }

    /// What the host may still assign by what it was last told; what is being recalled counts until the host has answered.
    pub fn outstanding(&self) -> Capacity {
        self.link.as_ref().map_or_else(Capacity::default, |link| Capacity {
            messages: link.wanted.messages.saturating_sub(link.given.messages),
            bytes: link.wanted.bytes.saturating_sub(link.given.bytes),
        })
    }

    pub fn poll_effect(&mut self) -> Option<Effect> {
        if self.effects.is_empty() {
            self.ask();
        }
        self.effects.pop_front()
    }

    pub fn next_timeout(&self) -> Option<Moment> {
        self.timers.next_timeout()
    }

    /// The host welcomed us. The list answers what the hello asked, item by item, before any new stream.
    pub fn handle_linked(&mut self, welcome: &Welcome, now: Moment) {
        self.host.clone_from(&welcome.host);
        let beat = |ms: u32, default: Duration| {
            if ms == 0 { default } else { Duration::from_millis(u64::from(ms)) }
        };
        self.link = Some(Link {
            beat: beat(welcome.beat_ms, BEAT),
            beat_idle: beat(welcome.beat_idle_ms, BEAT_IDLE),
            wanted: Credit::default(),
            given: Credit::default(),
            recalling: None,
            given_by_host: 0,
            given_at_last: None,
            reconsider: true,
        });
        self.effects.push_back(Effect::Event(Event::Linked {
            host: self.host.clone(),
            session: welcome.session,
        }));
        let mut unanswered: BTreeMap<MessageId, Fence> =
            self.held.iter().map(|(message, held)| (*message, held.fence)).collect();
        for resumed in &welcome.resumed {
            let (message, fence) = (resumed.message, resumed.fence);
            if unanswered.get(&message) != Some(&fence) {
                continue;
            }
            unanswered.remove(&message);
            match resumed.answer {
                ResumeAnswer::Live => self.go_on(message, fence, now),
                ResumeAnswer::Applied => {
                    self.effects.push_back(Effect::Event(Event::Applied { message }));
                    self.stop(message, fence, "the verdict counts already");
                }
                ResumeAnswer::Superseded | ResumeAnswer::Unknown => {
                    self.effects.push_back(Effect::Event(Event::Superseded { message }));
                    self.stop(message, fence, "another worker has it");
                }
            }
        }
        for (message, fence) in unanswered {
            self.effects.push_back(Effect::Event(Event::Superseded { message }));
            self.stop(message, fence, "the host said nothing of it");
        }
        // A host says it again after its welcome, if it still stands.
        self.ordered = None;
        self.acted(Action::Linked, now);
        self.beat(now);
        self.tell_profile(now);
        if self.draining {
            self.say_draining();
        }
        self.want();
    }

    /// The link is gone. What is complete goes on, for the host may still count it, until its time is over; what was still
    /// arriving is lost.
    pub fn handle_link_lost(&mut self, _now: Moment) {
        if self.link.take().is_none() {
            return;
        }
        self.timers.clear(Timer::Beat);
        self.timers.clear(Timer::Profile);
        let partial: Vec<(MessageId, Fence)> = self
            .held
            .iter()
            .filter(|(_, held)| matches!(held.stage, Stage::Receiving))
            .map(|(message, held)| (*message, held.fence))
            .collect();
        for (message, fence) in partial {
            self.stop(message, fence, "the link was lost before the message had arrived");
        }
        for (message, held) in &self.held {
            self.timers.set(Timer::Over(*message), held.over);
        }
        self.effects.push_back(Effect::Event(Event::LinkLost { host: self.host.clone() }));
    }

    /// A frame on the control stream.
    pub fn handle_control(&mut self, frame: HostControl) {
        match frame {
            HostControl::Recalled(credit) => {
                if let Some(link) = &mut self.link {
                    link.wanted = credit;
                    let asked = link.recalling.take().map_or(0, |asked| asked.messages);
                    if credit.messages > asked {
                        link.given_by_host = credit.messages;
                    }
                    if self.draining {
                        link.given_at_last = Some(credit.messages);
                    }
                }
                self.want();
            }
            HostControl::Notice(notice) => {
                self.effects.push_back(Effect::Event(Event::Notice { text: bounded(notice.text) }));
            }
            // The driver reads refusals and orders, and the monitor peers; backlog evens out the wants over several hosts.
            HostControl::Welcome(_)
            | HostControl::Refused(_)
            | HostControl::Manage(_)
            | HostControl::Backlog(_)
            | HostControl::Peers(_) => {}
        }
    }

    /// The host opened a stream with this assignment; the body follows.
    pub fn handle_assigned(&mut self, assign: &Assign, now: Moment) {
        let (message, fence) = (assign.message, assign.fence);
        let Some(link) = &mut self.link else { return };
        link.given.messages += 1;
        link.given.bytes = link.given.bytes.saturating_add(assign.length);
        // An older reservation of the same message is over, or the host would not assign it.
        if let Some(old) = self.held.get(&message).map(|held| held.fence) {
            self.stop(message, old, "assigned again under a newer fence");
        }
        let was_idle = self.held.is_empty();
        let held = Held::new(assign, now);
        self.timers.set(Timer::Over(message), held.over);
        self.held.insert(message, held);
        let attempt = assign.attempt;
        self.effects.push_back(Effect::Event(Event::Reserved { message, fence, attempt }));
        self.acted(Action::Reserved, now);
        if was_idle {
            self.beat(now);
        }
        let full = self.held.len() > RESERVATIONS_PER_GRABBER_MAX;
        if full || self.draining || matches!(self.readiness, Readiness::NotReady { .. }) {
            self.hand_back(
                message,
                fence,
                ReturnKind::HandBack,
                "it was on its way when wants were recalled",
            );
        }
    }

    /// A stream that the host opened broke before its assignment could be read: the credit is used all the same.
    pub fn handle_assignment_lost(&mut self) {
        if let Some(link) = &mut self.link {
            link.given.messages += 1;
        }
        self.want();
    }

    /// The whole body is here and matches its length and digest.
    pub fn handle_received(&mut self, message: MessageId, fence: Fence, now: Moment) {
        let Some(held) = self.of(message, fence) else { return };
        if matches!(held.stage, Stage::Receiving) {
            held.stage = Stage::Processing;
            held.progressed = now;
            self.acted(Action::Processing, now);
            self.effects.push_back(Effect::Start { message, fence });
        }
    }

    /// The reservation's stream broke while the link lives.
    pub fn handle_stream_lost(&mut self, message: MessageId, fence: Fence) {
        if self.of(message, fence).is_some() {
            self.stop(message, fence, "its stream was lost");
            self.want();
        }
    }

    /// A frame on a reservation's stream. An assignment is given to [`Grabber::handle_assigned`] instead.
    pub fn handle_reservation(&mut self, message: MessageId, fence: Fence, frame: HostReservation) {
        if self.of(message, fence).is_none() {
            return;
        }
        let event = match frame {
            HostReservation::Assign(_) => return,
            HostReservation::Cancel(cancel) => {
                Event::Cancelled { message, reason: bounded(cancel.reason) }
            }
            HostReservation::Settled(Settled::Applied) => Event::Applied { message },
            HostReservation::Settled(Settled::Refused { reason }) => {
                Event::Refused { message, reason: bounded(reason) }
            }
        };
        self.effects.push_back(Effect::Event(event));
        self.stop(message, fence, "it is over");
        self.want();
    }

    /// A module did some work. `work` counts what was done for this message; only a rise is progress.
    pub fn handle_progress(
        &mut self,
        message: MessageId,
        fence: Fence,
        work: u64,
        silence: Duration,
        now: Moment,
    ) {
        let Some(held) = self.of(message, fence) else { return };
        if work <= held.work || matches!(held.stage, Stage::Answered(_)) {
            return;
        }
        (held.work, held.progressed, held.silence) = (work, now, silence);
        // A longer silence that the host does not hear of would look like a stall.
        let due = held
            .told
            .is_none_or(|(told, said)| silence > said || now.since(told) >= PROGRESS_EVERY);
        if due {
            held.told = Some((now, silence));
            let frame = WorkerReservation::Progress(Progress { work, silence_ms: millis(silence) });
            self.send(message, fence, frame, false);
        }
    }

    /// The pipeline is through with a message. It stays held until the host has answered.
    pub fn handle_processed(
        &mut self,
        message: MessageId,
        fence: Fence,
        processed: Processed,
        now: Moment,
    ) {
        let Some(held) = self.of(message, fence) else { return };
        if matches!(held.stage, Stage::Answered(_)) {
            return; // It was given back meanwhile.
        }
        let frame = match processed {
            Processed::Verdict(verdict) => WorkerReservation::Verdict(verdict),
            Processed::Part(part) => WorkerReservation::Part(part),
            Processed::Return(returned) => WorkerReservation::Return(returned),
        };
        held.stage = Stage::Answered(frame.clone());
        if self.link.is_some() {
            self.timers.clear(Timer::Over(message));
        }
        self.acted(Action::Returned, now);
        self.send(message, fence, frame, true);
    }

    /// How the modules are. Not ready: nothing more is wanted, and what has not been started is handed back.
    pub fn handle_readiness(
        &mut self,
        readiness: Readiness,
        modules: Vec<ModuleProfile>,
        now: Moment,
    ) {
        let readiness = if self.draining { Readiness::Draining } else { readiness };
        if self.readiness == readiness && self.modules == modules {
            return;
        }
        (self.readiness, self.modules) = (readiness, modules);
        if let Readiness::NotReady { reason } = &self.readiness {
            let reason = reason.clone();
            self.hand_back_unstarted(ReturnKind::Unavailable, &reason);
        }
        self.tell_profile(now);
        self.want();
    }

    /// What the worker can start for this host from now on.
    pub fn handle_capacity(&mut self, capacity: Capacity) {
        self.capacity = capacity;
        self.want();
    }

    /// Finish what has been started, hand back the rest, want nothing.
    pub fn handle_drain(&mut self, now: Moment) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.readiness = Readiness::Draining;
        self.say_draining();
        self.hand_back_unstarted(ReturnKind::HandBack, "the worker leaves");
        self.acted(Action::Drained, now);
        self.tell_profile(now);
    }

    /// An operator made it not ready at this host, with this reason, or ready again. Nothing more is wanted then; what is
    /// held is finished.
    pub fn handle_order(&mut self, not_ready: Option<String>, now: Moment) {
        let not_ready = not_ready.map(bounded);
        if self.ordered != not_ready {
            self.ordered = not_ready;
            self.tell_profile(now);
            self.want();
        }
    }

    /// Points the host at a peer's reservation that looks stalled or dead.
    pub fn handle_hint(&mut self, hint: Hint) {
        if self.link.is_some() {
            self.effects.push_back(Effect::Control(WorkerControl::Hint(hint)));
        }
    }

    /// Fires what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        while let Some(timer) = self.timers.pop_due(now) {
            match timer {
                Timer::Beat => self.beat(now),
                Timer::Profile => self.tell_profile(now),
                Timer::Over(message) => {
                    let Some(fence) = self.held.get(&message).map(|held| held.fence) else {
                        continue;
                    };
                    let reason = "the time for one reservation is over";
                    self.effects.push_back(Effect::Event(Event::Cancelled {
                        message,
                        reason: reason.to_owned(),
                    }));
                    if self.link.is_some() {
                        self.hand_back(message, fence, ReturnKind::Failed, reason);
                    } else {
                        // The host has ended it by its own clock.
                        self.stop(message, fence, reason);
                    }
                }
            }
        }
    }

    /// What the host's other grabbers are told of this one.
    pub fn profile(&self, now: Moment) -> Profile {
        let busy =
            self.readiness == Readiness::Ready && self.held.len() as u64 >= self.capacity.messages;
        Profile {
            grabber: self.config.name.clone(),
            incarnation: self.config.incarnation,
            readiness: match (&self.ordered, &self.readiness) {
                (Some(reason), Readiness::Ready) => {
                    Readiness::NotReady { reason: bounded(format!("by order: {reason}")) }
                }
                _ if busy => Readiness::Busy,
                (_, readiness) => readiness.clone(),
            },
            tier: self.config.tier,
            last_action: self.last_action.0,
            last_action_ago_ms: millis(now.since(self.last_action.1)),
            modules: self.modules.clone(),
            holding: self
                .held
                .iter()
                .map(|(message, held)| Holding {
                    message: *message,
                    fence: held.fence,
                    progress_ago_ms: millis(now.since(held.progressed)),
                    silence_ms: millis(held.silence),
                })
                .collect(),
        }
    }

    fn of(&mut self, message: MessageId, fence: Fence) -> Option<&mut Held> {
        self.held.get_mut(&message).filter(|held| held.fence == fence)
    }

    /// After a new link: the stream is opened anew, and what may have been lost is sent again.
    fn go_on(&mut self, message: MessageId, fence: Fence, now: Moment) {
        self.effects.push_back(Effect::OpenResume { message, fence });
        let Some(held) = self.of(message, fence) else { return };
        if let Stage::Answered(frame) = &held.stage {
            let frame = frame.clone();
            self.timers.clear(Timer::Over(message));
            self.send(message, fence, frame, true);
        } else if held.work > 0 {
            let (work, silence) = (held.work, held.silence);
            held.told = Some((now, silence));
            let frame = WorkerReservation::Progress(Progress { work, silence_ms: millis(silence) });
            self.send(message, fence, frame, false);
        }
    }

    fn send(&mut self, message: MessageId, fence: Fence, frame: WorkerReservation, finish: bool) {
        if self.link.is_some() {
            self.effects.push_back(Effect::Send { message, fence, frame, finish });
        }
    }

    fn stop(&mut self, message: MessageId, fence: Fence, reason: &str) {
        self.held.remove(&message);
        self.timers.clear(Timer::Over(message));
        self.effects.push_back(Effect::Stop { message, fence, reason: reason.to_owned() });
    }

    fn hand_back(&mut self, message: MessageId, fence: Fence, kind: ReturnKind, reason: &str) {
        let frame = WorkerReservation::Return(Return { kind, reason: bounded(reason) });
        if let Some(held) = self.of(message, fence) {
            held.stage = Stage::Answered(frame.clone());
        }
        self.timers.clear(Timer::Over(message));
        self.effects.push_back(Effect::Stop { message, fence, reason: reason.to_owned() });
        self.send(message, fence, frame, true);
    }

    fn hand_back_unstarted(&mut self, kind: ReturnKind, reason: &str) {
        let unstarted: Vec<(MessageId, Fence)> = self
            .held
            .iter()
            .filter(|(_, held)| matches!(held.stage, Stage::Receiving))
            .map(|(message, held)| (*message, held.fence))
            .collect();
        for (message, fence) in unstarted {
            self.hand_back(message, fence, kind, reason);
        }
    }

    fn say_draining(&mut self) {
        if let Some(link) = &mut self.link {
            link.wanted = link.given;
            let reason = "the worker was asked to leave".to_owned();
            self.effects.push_back(Effect::Control(WorkerControl::Draining(Draining { reason })));
        }
    }

    fn is_ready(&self) -> bool {
        matches!(self.readiness, Readiness::Ready) && self.ordered.is_none() && !self.draining
    }

    /// What it wants is to be worked out anew.
    fn want(&mut self) {
        if let Some(link) = &mut self.link {
            link.reconsider = true;
        }
    }

    /// Asks for as much as can be started now: no more, so that nothing waits here while others are idle.
    fn ask(&mut self) {
        let (held, held_bytes) = (self.held.len() as u64, self.holding_bytes());
        let ready = self.is_ready();
        let Some(link) = self.link.as_mut().filter(|link| link.reconsider) else { return };
        link.reconsider = false;
        if link.recalling.is_some() || self.draining {
            return;
        }
        let most = (RESERVATIONS_PER_GRABBER_MAX as u64).min(self.capacity.messages);
        let free = if ready { most.saturating_sub(held) } else { 0 };
        let free_bytes = if free == 0 { 0 } else { self.capacity.bytes.saturating_sub(held_bytes) };
        let target = Credit {
            messages: (link.given.messages + free).max(link.given_by_host),
            bytes: link.given.bytes.saturating_add(free_bytes),
        };
        if target.messages < link.wanted.messages {
            link.recalling = Some(target);
            self.effects.push_back(Effect::Control(WorkerControl::Recall(target)));
        } else if target.messages > link.wanted.messages || target.bytes > link.wanted.bytes {
            link.wanted =
                Credit { messages: target.messages, bytes: target.bytes.max(link.wanted.bytes) };
            self.effects.push_back(Effect::Control(WorkerControl::Want(link.wanted)));
        }
    }

    fn beat(&mut self, now: Moment) {
        let Some(link) = &self.link else { return };
        let pause = if self.held.is_empty() { link.beat_idle } else { link.beat };
        self.beats += 1;
        self.effects.push_back(Effect::Control(WorkerControl::Beat(Beat { count: self.beats })));
        self.timers.set(Timer::Beat, now + pause);
    }

    fn tell_profile(&mut self, now: Moment) {
        if self.link.is_some() {
            let profile = self.profile(now);
            self.effects.push_back(Effect::Control(WorkerControl::Profile(profile)));
            self.timers.set(Timer::Profile, now + PROFILE_EVERY);
        }
    }

    fn acted(&mut self, action: Action, now: Moment) {
        self.last_action = (action, now);
    }
}

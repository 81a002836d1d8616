//! The hook: the production pool over the production spool on a simulated disk, driven as the hook's service does.
//! What the service gives to other tasks happens here a little later too, so that a crash can come in between.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use gantry_hook::disk::sim::SimDisk;
use gantry_hook::spool::{Now, Opened, Options, Spool, SpoolError};
use gantry_protocol::frame::{Assign, HostReservation, WorkerReservation};
use gantry_protocol::id::{Digest, MessageId, Session, Token};
use gantry_protocol::pool::{
    Answer, Assigned, Assignment, Change, Effect, LinkPeer, MailboxIndex, Note, Pool, Shelf,
    Stored, StoredState,
};
use gantry_protocol::time::{Moment, millis};

use super::Mutant;
use super::event::{Event, HostEvent, Key, LinkId, ToHost, ToWorker};
use super::ledger::{Found, Reply};
use super::plan::Plan;
use super::world::World;

const ROOT: &str = "/spool";

pub(super) struct Host {
    /// Counts its processes: what was meant for an earlier one is nothing to this one.
    pub(super) life: u64,
    pub(super) up: Option<Up>,
    pub(super) hangs_until: u64,
    /// The next start follows a loss of power.
    power_lost: bool,
    first_epoch: Option<u32>,
    /// Milliseconds since 1970 when virtual time was zero, as this machine believes.
    pub(super) wall_clock: u64,
}

/// What a running hook has in memory.
pub(super) struct Up {
    pub(super) spool: Arc<Spool<SimDisk>>,
    pub(super) pool: Pool,
    links: BTreeMap<Session, LinkId>,
    sessions: BTreeMap<LinkId, Session>,
    streams: BTreeMap<(Session, Key), Stream>,
    pub(super) answers: BTreeMap<MessageId, (usize, usize)>,
    last_session: u64,
    pub(super) stopped: bool,
    pub(super) draining: bool,
}

/// A reservation's stream, as its writer knows it.
struct Stream {
    link: LinkId,
    /// When the last byte of the message has been sent. A word that comes before breaks the body off.
    body_until: u64,
    /// The word came before the stream was open.
    cut: bool,
}

impl Host {
    pub(super) fn new() -> Self {
        Self {
            life: 0,
            up: None,
            hangs_until: 0,
            power_lost: false,
            first_epoch: None,
            wall_clock: 1_700_000_000_000,
        }
    }
}

impl World {
    pub(super) fn start_host(&mut self) {
        if self.host.up.is_some() {
            return;
        }
        if std::mem::take(&mut self.host.power_lost) {
            self.disk.restart();
        }
        if !self.calm && self.random.percent(self.plan.crash_in_recovery) {
            self.disk.crash_at(self.disk.operations() + self.random.between(1, 20));
        }
        self.set_wall_clock();
        let (clock, wall_clock) = (Arc::clone(&self.clock), self.host.wall_clock);
        let options = Options {
            volatile_memory_bytes_max: 600,
            volatile_disk_bytes_max: 1 << 20,
            room: Default::default(),
            host: "mx1".to_owned(),
            clock: Arc::new(move || {
                let now = clock.load(Ordering::Relaxed);
                Now { moment: Moment(now), unix_ms: wall_clock + now }
            }),
        };
        let names = Plan::mailbox_names();
        match Spool::open(self.disk.clone(), Path::new(ROOT), &names, options) {
            Ok(opened) => self.host_started(opened),
            Err(_) if self.disk.is_crashed() => {
                self.counts.add("crash in recovery");
                self.host.power_lost = true;
                self.queue.after(300, Event::HostStart);
            }
            Err(error) => {
                self.counts.add("start failed");
                self.note(|| format!("start: {error}"));
                self.queue.after(500, Event::HostStart);
            }
        }
    }

    /// Somebody sets the machine's clock, forward or back.
    fn set_wall_clock(&mut self) {
        if !self.calm && self.host.first_epoch.is_some() && self.random.percent(8) {
            let by = self.random.between(1_000, 90_000);
            let forward = self.random.percent(50);
            let clock = &mut self.host.wall_clock;
            *clock = if forward { *clock + by } else { *clock - by };
            self.counts.add("fault: wall clock set");
        }
    }

    fn host_started(&mut self, opened: Opened<SimDisk>) {
        let now = self.moment();
        let Opened { spool, found, epoch, .. } = opened;
        let listed = spool.list(|_| true, usize::MAX);
        self.note(|| format!("hook starts with epoch {epoch}: {listed:?}"));
        self.ledger.opened(epoch, &listed);
        self.counts.add_many("messages recovered", listed.len() as u64);
        let first = *self.host.first_epoch.get_or_insert(epoch);
        let epoch = if self.mutant == Some(Mutant::SameEpoch) { first } else { epoch };
        let mut pool = Pool::new(self.plan.config.clone(), epoch);
        pool.handle_opened(found, now);
        self.host.up = Some(Up {
            spool,
            pool,
            links: BTreeMap::new(),
            sessions: BTreeMap::new(),
            streams: BTreeMap::new(),
            answers: BTreeMap::new(),
            last_session: 0,
            stopped: false,
            draining: false,
        });
        self.perform();
    }

    /// The hook's process ends, and with a loss of power also what was not durable.
    pub(super) fn host_down(&mut self, why: &str, power: bool) -> bool {
        if self.host.up.is_none() {
            return false;
        }
        self.note(|| format!("hook ends: {why}"));
        if power {
            self.disk.crash();
        }
        self.host.up = None;
        self.host.life += 1;
        self.host.power_lost = power;
        self.abandon_links(|_| true);
        self.lose_connections();
        let back = self.random.between(100, 3_000);
        self.queue.after(back, Event::HostStart);
        true
    }

    /// After everything that used the disk. `true`: the machine crashed in it.
    pub(super) fn crashed(&mut self, doing: &str) -> bool {
        if !self.disk.is_crashed() {
            return false;
        }
        self.counts.add(&format!("crash in a disk operation: {doing}"));
        self.host_down("crash in a disk operation", true);
        true
    }

    /// Tells the pool what happened, then does what it asks for.
    fn pool(&mut self, tell: impl FnOnce(&mut Pool)) {
        if let Some(up) = &mut self.host.up {
            tell(&mut up.pool);
        }
        self.perform();
    }

    pub(super) fn perform(&mut self) {
        while let Some(effect) = self.host.up.as_mut().and_then(|up| up.pool.poll_effect()) {
            self.note(|| format!("host: {effect:?}"));
            self.ledger.on_effect(&effect);
            self.perform_one(effect);
        }
        if self.host.up.as_ref().is_some_and(|up| up.draining && up.pool.is_quiet()) {
            self.host_down("drained", false);
        }
    }

    fn perform_one(&mut self, effect: Effect) {
        match effect {
            Effect::Control { session, frame } => {
                if let Some(link) = self.link_of(session) {
                    self.send_to_worker(link, None, 0, ToWorker::Control(frame));
                }
            }
            Effect::CloseLink { session, .. } => {
                if let Some(link) = self.link_of(session) {
                    self.close(link);
                }
            }
            Effect::Assign(assignment) => self.assign_soon(assignment),
            Effect::Reply { session, message, fence, frame, .. } => {
                self.reply_on_stream(session, (message, fence), frame);
            }
            Effect::Store { token, message, mailbox, change } => {
                self.store(token, message, mailbox, change);
            }
            Effect::Load { token, message, .. } => {
                self.host_soon(10, HostEvent::Load(token, message))
            }
            Effect::Release { token, message, recipients, .. } => {
                if self.mutant == Some(Mutant::ReleasesTwice) {
                    let recipients = recipients.clone();
                    self.host_soon(10, HostEvent::Release { token, message, recipients });
                }
                self.host_soon(10, HostEvent::Release { token, message, recipients });
            }
            Effect::Answer { message, answer } => self.answer(message, &answer),
            Effect::Forget { message, mailbox, attempts } => {
                self.forget(message, mailbox, attempts)
            }
            Effect::Shelve { message, note } => self.shelve(message, note),
            Effect::Refill { mailbox, shelf, count, due } => {
                // A start has this done before anything else happens.
                let event = HostEvent::Refill { mailbox, shelf, count, due };
                if shelf == Shelf::Suspects {
                    self.on_host(event)
                } else {
                    self.host_soon(30, event)
                }
            }
            Effect::StopIntake { .. } => self.stop_intake(),
            Effect::Event(..) => {}
        }
    }

    pub(super) fn host_soon(&mut self, most: u64, event: HostEvent) {
        let (life, delay) = (self.host.life, self.random.between(0, most));
        self.queue.after(delay, Event::Host { life, event });
    }

    fn link_of(&self, session: Session) -> Option<LinkId> {
        self.host.up.as_ref()?.links.get(&session).copied()
    }

    fn assign_soon(&mut self, assignment: Assignment) {
        let Some(link) = self.link_of(assignment.session) else { return };
        let Some(up) = &mut self.host.up else { return };
        let key = (assignment.message, assignment.fence);
        let stream = Stream { link, body_until: 0, cut: false };
        up.streams.insert((assignment.session, key), stream);
        self.host_soon(5, HostEvent::Assign(assignment));
    }

    fn reply_on_stream(&mut self, session: Session, key: Key, frame: HostReservation) {
        let now = self.queue.now;
        let Some(up) = &mut self.host.up else { return };
        let Some(stream) = up.streams.get_mut(&(session, key)) else { return };
        let link = stream.link;
        if stream.body_until == 0 {
            stream.cut = true;
            return;
        }
        let cut = now < stream.body_until;
        up.streams.remove(&(session, key));
        let what = if cut { ToWorker::Reset(key) } else { ToWorker::Frame(key, frame) };
        if cut {
            self.counts.add("bodies broken off");
        }
        // A broken stream overtakes the rest of its body.
        self.send_to_worker(link, (!cut).then_some(Some(key)).flatten(), 0, what);
    }

    fn store(&mut self, token: Token, message: MessageId, mailbox: MailboxIndex, change: Change) {
        if self.mutant == Some(Mutant::StoreLies) && self.random.percent(10) {
            return self.host_soon(10, HostEvent::Stored(token, Stored::Done));
        }
        if self.mutant == Some(Mutant::OriginatesNothing)
            && matches!(change, Change::Originate { .. })
        {
            let stored = Stored::Originated { messages: Vec::new() };
            return self.host_soon(10, HostEvent::Stored(token, stored));
        }
        if self.mutant == Some(Mutant::SettleNotAwaited) && matches!(change, Change::Settle { .. })
        {
            self.host_soon(0, HostEvent::Stored(token, Stored::Done));
        }
        self.host_soon(10, HostEvent::Store { token, message, mailbox, change });
    }

    fn answer(&mut self, message: MessageId, answer: &Answer) {
        let Some(up) = &mut self.host.up else { return };
        let Some((mail, submission)) = up.answers.remove(&message) else { return };
        let reply = match answer {
            Answer::Accepted { .. } => Reply::Yes,
            Answer::TryAgain { .. } => Reply::TryAgain,
            Answer::Refused { .. } => Reply::No,
        };
        self.host_soon(3, HostEvent::Say { mail, submission, reply });
    }

    fn forget(&mut self, message: MessageId, mailbox: MailboxIndex, attempts: u8) {
        let Some(up) = &self.host.up else { return };
        if attempts > 0 {
            let _ = up.spool.apply(message, mailbox, &Change::Charge { attempts });
        }
        up.spool.forget(message);
        self.crashed("charge");
    }

    fn stop_intake(&mut self) {
        if let Some(up) = self.host.up.as_mut().filter(|up| !up.stopped) {
            up.stopped = true;
            let (life, looks) = (self.host.life, self.random.between(1_000, 5_000));
            self.queue.after(looks, Event::Host { life, event: HostEvent::Operator });
        }
    }

    pub(super) fn on_host(&mut self, event: HostEvent) {
        let now = self.moment();
        match event {
            HostEvent::Marked { marked, waiting } => {
                if let (Some(up), Some(waiting)) = (&mut self.host.up, waiting) {
                    up.answers.insert(marked.id, waiting);
                }
                self.pool(|pool| pool.handle_marked(marked, now));
            }
            HostEvent::SenderGone(id) => {
                if let Some(up) = &mut self.host.up {
                    up.answers.remove(&id);
                }
                self.pool(|pool| pool.handle_sender_gone(id, now));
            }
            HostEvent::Say { mail, submission, reply } => self.say(mail, submission, reply),
            HostEvent::LateFinish { mail, marked } => self.late_finish(mail, marked),
            HostEvent::Store { token, message, mailbox, change } => {
                self.on_store(token, message, mailbox, &change);
            }
            HostEvent::Stored(token, stored) => self.pool(|p| p.handle_stored(token, stored, now)),
            HostEvent::Load(token, message) => self.on_load(token, message),
            HostEvent::Loaded(token, log) => self.pool(|p| p.handle_loaded(token, Ok(log), now)),
            HostEvent::Release { token, message, recipients } => {
                self.on_release(token, message, recipients);
            }
            HostEvent::Dot { token, message, letters, results } => {
                self.on_dot(token, message, &letters, results);
            }
            HostEvent::Released(token, got) => self.pool(|p| p.handle_released(token, got, now)),
            HostEvent::Refill { mailbox, shelf, count, due } => {
                self.on_refill(mailbox, shelf, count, due);
            }
            HostEvent::Refilled(mailbox, shelf, found) => {
                self.pool(|p| p.handle_refilled(mailbox, shelf, found, now));
            }
            HostEvent::Assign(assignment) => self.on_assign(&assignment),
            HostEvent::Arrived(link, what) if self.link_delivers(link, true) => {
                self.arrived_at_host(link, what);
            }
            HostEvent::Arrived(..) => {}
            HostEvent::LinkLost(link) => self.host_loses_link(link),
            HostEvent::Operator => self.operator_restarts(),
            HostEvent::DrainOver => {
                self.host_down("drained for long enough", false);
            }
        }
    }

    pub(super) fn on_host_timeout(&mut self) {
        let now = self.moment();
        self.pool(|pool| pool.handle_timeout(now));
    }

    fn on_store(&mut self, token: Token, id: MessageId, mailbox: MailboxIndex, change: &Change) {
        let Some(up) = &self.host.up else { return };
        let stored = up.spool.apply(id, mailbox, change);
        self.note(|| format!("stored {id}: {stored:?}"));
        if self.crashed(name_of(change)) {
            return;
        }
        self.host_soon(10, HostEvent::Stored(token, stored));
    }

    fn shelve(&mut self, id: MessageId, note: Note) {
        let Some(up) = &self.host.up else { return };
        self.counts.add("messages put onto the shelf");
        if self.mutant != Some(Mutant::ShelveIgnored) {
            up.spool.shelve(id, note);
        }
    }

    fn on_refill(&mut self, mailbox: MailboxIndex, shelf: Shelf, count: usize, due: Moment) {
        let Some(up) = &self.host.up else { return };
        let mut found = up.spool.take_from_shelf(mailbox, shelf, count, due);
        self.counts.add_many("messages taken from the shelf", found.len() as u64);
        match self.mutant {
            Some(Mutant::ForgetsReleasing) => found.retain(|f| f.state != StoredState::Releasing),
            Some(Mutant::ForgetsAttempts) => {
                for found in &mut found {
                    if let StoredState::Marked { attempts } | StoredState::Part { attempts } =
                        &mut found.state
                    {
                        *attempts = 0;
                    }
                }
            }
            Some(Mutant::RefillLoses) => {
                found.pop();
            }
            Some(Mutant::RefillTwice) => {
                found.iter().for_each(|found| up.spool.shelve(found.marked.id, found.note));
            }
            _ => {}
        }
        self.note(|| format!("from the shelf: {found:?}"));
        let refilled = HostEvent::Refilled(mailbox, shelf, found);
        if shelf == Shelf::Suspects { self.on_host(refilled) } else { self.host_soon(30, refilled) }
    }

    fn on_load(&mut self, token: Token, id: MessageId) {
        let Some(up) = &self.host.up else { return };
        match up.spool.load(id) {
            // What is missing beside it was written, if it had to be.
            _ if self.disk.is_crashed() => _ = self.crashed("loading"),
            Ok(log) => self.host_soon(5, HostEvent::Loaded(token, log)),
            Err(error) if error.is_lost() => self.unreadable(id, &error),
            Err(_) => self.host_soon(200, HostEvent::Load(token, id)),
        }
    }

    /// Nothing damages files here, so everything can be read unless the machine has crashed.
    pub(super) fn unreadable(&mut self, id: MessageId, error: &SpoolError) {
        if !self.crashed("reading") {
            self.ledger.violated(format!("{id} cannot be read: {error}"));
        }
    }

    fn on_assign(&mut self, assignment: &Assignment) {
        let now = self.moment();
        let Assignment { session, message: id, fence, .. } = *assignment;
        let key = (id, fence);
        let Some(up) = &mut self.host.up else { return };
        let read = up.spool.header(id).and_then(|header| {
            let mut bytes = Vec::new();
            let read = up.spool.body(id)?.read_to_end(&mut bytes);
            Ok((header, read.map(|_| bytes)))
        });
        let Some(stream) = up.streams.get_mut(&(session, key)) else { return };
        let (link, cut) = (stream.link, stream.cut);
        stream.body_until = self.queue.now + 1;
        let (header, bytes) = match read {
            Ok((header, Ok(bytes))) => (header, bytes),
            // It was cancelled and is gone meanwhile; or the disk is.
            Ok((_, Err(_))) | Err(_) if cut => return,
            Ok((_, Err(error))) => return self.ledger.violated(format!("{id}: {error}")),
            Err(error) => return self.unreadable(id, &error),
        };
        if !self.link_delivers(link, true) {
            return self.pool(|p| p.handle_assigned(session, id, fence, Assigned::LinkLost, now));
        }
        let digest = header.digest;
        let mailbox = usize::from(assignment.mailbox.0);
        let needs = self.plan.config.mailboxes[mailbox].needs.clone();
        let frame = assign_frame(assignment, header, digest, needs);
        self.send_to_worker(link, Some(key), 0, ToWorker::Assign(Box::new(frame)));
        let takes = if cut { 0 } else { self.random.between(1, 60) };
        if cut {
            self.send_to_worker(link, Some(key), 0, ToWorker::Reset(key));
        } else {
            let body = ToWorker::Body(key, Arc::new(bytes));
            self.send_to_worker(link, Some(key), takes, body);
        }
        if let Some(up) = &mut self.host.up {
            if cut {
                up.streams.remove(&(session, key));
            } else if let Some(stream) = up.streams.get_mut(&(session, key)) {
                stream.body_until = self.queue.now + takes;
            }
        }
        self.pool(|p| p.handle_assigned(session, id, fence, Assigned::Sent { digest }, now));
    }

    fn arrived_at_host(&mut self, link: LinkId, what: ToHost) {
        let now = self.moment();
        if let ToHost::Hello(hello) = what {
            let Some(up) = &mut self.host.up else { return };
            up.last_session += 1;
            let session = Session(up.last_session);
            up.links.insert(session, link);
            up.sessions.insert(link, session);
            // An honest worker says what it was granted.
            let peer = LinkPeer { name: hello.name.clone(), grants: hello.provides.clone() };
            return self.pool(|pool| pool.handle_link_up(session, peer, hello, now));
        }
        let Some(session) = self.host.up.as_ref().and_then(|up| up.sessions.get(&link).copied())
        else {
            return;
        };
        self.note(|| format!("arrives on {session:?}: {what:?}"));
        match what {
            ToHost::Hello(_) => {}
            ToHost::Control(frame) => self.pool(|p| p.handle_control(session, frame, now)),
            ToHost::Resume(key) => {
                if let Some(up) = &mut self.host.up {
                    let stream = Stream { link, body_until: 1, cut: false };
                    up.streams.insert((session, key), stream);
                }
            }
            ToHost::Frame(key, frame) => self.reservation_frame(session, key, frame),
            ToHost::Reset((id, fence)) => {
                self.pool(|p| {
                    p.handle_stream_lost(session, id, fence, "the stream was reset", now)
                });
            }
        }
    }

    fn reservation_frame(&mut self, session: Session, key: Key, mut frame: WorkerReservation) {
        let now = self.moment();
        let (id, mut fence) = key;
        if matches!(
            frame,
            WorkerReservation::Verdict(_)
                | WorkerReservation::Part(_)
                | WorkerReservation::Return(_)
        ) {
            let late = self.ledger.answer_arrives(key);
            if late && self.mutant == Some(Mutant::FenceIgnored) {
                fence = self.ledger.current_fence(id).unwrap_or(fence);
            }
            if self.mutant == Some(Mutant::InfectedDelivered) {
                release_all(&mut frame);
            }
        }
        self.pool(|pool| pool.handle_reservation(session, id, fence, frame, now));
    }

    fn host_loses_link(&mut self, link: LinkId) {
        let now = self.moment();
        if !self.gives_up(link, true) {
            return;
        }
        let Some(up) = &mut self.host.up else { return };
        let Some(session) = up.sessions.remove(&link) else { return };
        up.links.remove(&session);
        up.streams.retain(|(of, _), _| *of != session);
        self.pool(|pool| pool.handle_link_lost(session, now));
    }

    pub(super) fn cut_stream_at_host(&mut self, link: LinkId, key: Key) {
        if let Some(up) = &mut self.host.up
            && let Some(session) = up.sessions.get(&link)
        {
            up.streams.remove(&(*session, key));
        }
    }

    /// The power is cut once more, and the spool opened: what is in it now stays.
    pub(super) fn found_at_the_end(&mut self) -> Vec<Found> {
        self.host_down("end", true);
        self.calm = true;
        self.start_host();
        let Some(up) = &self.host.up else {
            self.ledger.violated("the hook does not start at the end".to_owned());
            return Vec::new();
        };
        let listed = up.spool.list(|_| true, usize::MAX);
        let mut found = Vec::new();
        for listed in listed {
            let mut bytes = Vec::new();
            let read = up.spool.body(listed.id).map(|mut body| body.read_to_end(&mut bytes));
            if !matches!(read, Ok(Ok(_))) {
                self.ledger.violated(format!("{} cannot be read at the end", listed.id));
            }
            found.push(Found { id: listed.id, state: listed.state, bytes });
        }
        found
    }
}

fn assign_frame(
    assignment: &Assignment,
    header: gantry_hook::spool::Header,
    digest: Digest,
    needs: Vec<String>,
) -> Assign {
    Assign {
        message: assignment.message,
        fence: assignment.fence,
        attempt: assignment.attempt,
        mailbox: "simulated".to_owned(),
        needs,
        asked: assignment.asked.clone(),
        findings: assignment.findings.clone(),
        envelope: header.envelope,
        length: header.length,
        digest,
        time_max_ms: millis(assignment.time_max),
        silence_max_ms: millis(assignment.silence_max),
    }
}

fn name_of(change: &Change) -> &'static str {
    match change {
        Change::Charge { .. } => "charge",
        Change::Part { .. } => "part",
        Change::Settle { .. } => "settle",
        Change::Results { .. } => "results",
        Change::SetAside { .. } => "set aside",
        Change::Adopt { .. } => "adopt",
        Change::Bounce { .. } => "bounce",
        Change::Originate { .. } => "originate",
        Change::Remove => "remove",
        Change::Requeue => "requeue",
        Change::ReleaseAsIs { .. } => "release as it is",
    }
}

/// A mutant's verdict: everybody gets it, whatever was found.
fn release_all(frame: &mut WorkerReservation) {
    use gantry_mail::HeaderEdit;
    use gantry_protocol::verdict::{Body, Disposition};
    let WorkerReservation::Verdict(verdict) = frame else { return };
    let stamp = verdict.findings.first().map(|f| f.engine.clone()).unwrap_or_default();
    for group in &mut verdict.groups {
        let field = format!("X-Gantry: clean; fence={stamp}");
        let edits = vec![HeaderEdit::Prepend { field }];
        group.disposition = Disposition::Deliver { edits, body: Body::Original };
    }
}

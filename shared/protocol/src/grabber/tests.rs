//! The worker's side on its own: wants, holds, beats, resume, drain.

use gantry_mail::Envelope;

use super::*;
use crate::frame::{Cancel, Notice, Resumed};
use crate::verdict::{Disposition, Group};

const POLICY: Digest = Digest([1; 32]);

fn config() -> Config {
    Config {
        name: "a".to_owned(),
        incarnation: Incarnation(1),
        tier: 0,
        policy: POLICY,
        software: "test".to_owned(),
    }
}

struct Worker {
    grabber: Grabber,
    now: Moment,
    session: u64,
    fences: u64,
    seen: Vec<Effect>,
}

impl Worker {
    /// Ready, with room for so many, and not linked yet.
    fn new(messages: u64) -> Self {
        let now = Moment(1_000);
        let mut grabber = Grabber::new(config(), now);
        grabber.handle_readiness(Readiness::Ready, vec![module()], now);
        grabber.handle_capacity(Capacity { messages, bytes: messages * 1_000 });
        Self { grabber, now, session: 0, fences: 0, seen: Vec::new() }
    }

    fn linked(messages: u64) -> Self {
        let mut worker = Self::new(messages);
        worker.link(&[]);
        worker
    }

    fn link(&mut self, answers: &[(MessageId, Fence, ResumeAnswer)]) {
        self.session += 1;
        let resumed =
            answers.iter().map(|&(message, fence, answer)| Resumed { message, fence, answer });
        let welcome = Welcome {
            version: 1,
            software: "host".to_owned(),
            host: "mx1".to_owned(),
            session: Session(self.session),
            policy: POLICY,
            revocations: 0,
            beat_ms: 200,
            beat_idle_ms: 5_000,
            resumed: resumed.collect(),
        };
        self.grabber.handle_linked(&welcome, self.now);
        self.run();
    }

    fn lose(&mut self) {
        self.grabber.handle_link_lost(self.now);
        self.run();
    }

    fn assign(&mut self, counter: u64) -> (MessageId, Fence) {
        self.fences += 1;
        let message = MessageId { epoch: 1, counter };
        let fence = Fence { epoch: 1, counter: self.fences };
        let assign = Assign {
            message,
            fence,
            attempt: 1,
            mailbox: "mail.box".to_owned(),
            asked: vec!["virus".to_owned()],
            needs: Vec::new(),
            findings: Vec::new(),
            envelope: Envelope::default(),
            length: 100,
            digest: Digest([0; 32]),
            time_max_ms: 900_000,
            silence_max_ms: 600_000,
        };
        self.grabber.handle_assigned(&assign, self.now);
        self.run();
        (message, fence)
    }

    /// Assigned, received and started.
    fn start(&mut self, counter: u64) -> (MessageId, Fence) {
        let (message, fence) = self.assign(counter);
        self.grabber.handle_received(message, fence, self.now);
        self.run();
        (message, fence)
    }

    fn process(&mut self, (message, fence): (MessageId, Fence)) {
        let processed = Processed::Verdict(Box::new(verdict()));
        self.grabber.handle_processed(message, fence, processed, self.now);
        self.run();
    }

    fn hears(&mut self, (message, fence): (MessageId, Fence), frame: HostReservation) {
        self.grabber.handle_reservation(message, fence, frame);
        self.run();
    }

    fn pass(&mut self, ms: u64) {
        let end = Moment(self.now.0 + ms);
        while let Some(at) = self.grabber.next_timeout().filter(|at| *at <= end) {
            self.now = at;
            self.grabber.handle_timeout(self.now);
            self.run();
        }
        self.now = end;
    }

    fn run(&mut self) {
        while let Some(effect) = self.grabber.poll_effect() {
            self.seen.push(effect);
        }
    }

    fn controls(&mut self) -> Vec<WorkerControl> {
        let seen = std::mem::take(&mut self.seen).into_iter();
        seen.filter_map(|e| if let Effect::Control(frame) = e { Some(frame) } else { None })
            .collect()
    }

    /// Wants and recalls since the last look.
    fn credits(&mut self) -> Vec<(&'static str, u64)> {
        let frames = self.controls().into_iter();
        frames
            .filter_map(|frame| match frame {
                WorkerControl::Want(credit) => Some(("want", credit.messages)),
                WorkerControl::Recall(credit) => Some(("recall", credit.messages)),
                _ => None,
            })
            .collect()
    }

    fn sent(&self) -> Vec<&WorkerReservation> {
        let sent = self.seen.iter();
        sent.filter_map(|e| if let Effect::Send { frame, .. } = e { Some(frame) } else { None })
            .collect()
    }

    fn stopped(&self) -> usize {
        self.seen.iter().filter(|effect| matches!(effect, Effect::Stop { .. })).count()
    }

    fn readiness(&mut self, readiness: Readiness) {
        self.grabber.handle_readiness(readiness, vec![module()], self.now);
        self.run();
    }

    fn recalled(&mut self, messages: u64) {
        let credit = Credit { messages, bytes: 0 };
        self.grabber.handle_control(HostControl::Recalled(credit));
        self.run();
    }
}

fn module() -> ModuleProfile {
    ModuleProfile {
        name: "rules".to_owned(),
        provides: "virus".to_owned(),
        engine: String::new(),
        signatures: String::new(),
        not_ready: None,
    }
}

fn verdict() -> Verdict {
    let disposition = Disposition::Quarantine { reason: "found".to_owned() };
    let groups = vec![Group { recipients: vec![0], disposition }];
    let (findings, originated) = (Vec::new(), Vec::new());
    Verdict { length: 100, digest: Digest([0; 32]), groups, findings, originated }
}

fn away() -> Readiness {
    Readiness::NotReady { reason: "clamd is away".to_owned() }
}

#[test]
fn it_wants_what_it_can_start_and_no_more() {
    let mut worker = Worker::linked(3);
    assert_eq!(worker.credits(), [("want", 3)]);
    let first = worker.start(1);
    worker.start(2);
    assert_eq!(worker.credits(), [], "two held and one asked for are three");
    worker.process(first);
    assert_eq!(worker.credits(), [], "it is held until the host has answered");
    worker.hears(first, HostReservation::Settled(Settled::Applied));
    assert_eq!(worker.credits(), [("want", 4)]);
    worker.grabber.handle_capacity(Capacity { messages: 5, bytes: 5_000 });
    worker.run();
    assert_eq!(worker.credits(), [("want", 6)]);
}

#[test]
fn nothing_is_wanted_before_the_modules_are_ready() {
    let mut grabber = Grabber::new(config(), Moment(0));
    grabber.handle_capacity(Capacity { messages: 3, bytes: 3_000 });
    let mut worker = Worker { grabber, now: Moment(0), session: 0, fences: 0, seen: Vec::new() };
    worker.link(&[]);
    assert_eq!(worker.credits(), []);
    worker.readiness(Readiness::Ready);
    assert_eq!(worker.credits(), [("want", 3)]);
}

#[test]
fn less_room_is_a_recall_and_its_answer_is_what_counts() {
    let mut worker = Worker::linked(4);
    worker.credits();
    worker.grabber.handle_capacity(Capacity { messages: 1, bytes: 1_000 });
    worker.run();
    assert_eq!(worker.credits(), [("recall", 1)]);
    worker.grabber.handle_capacity(Capacity { messages: 9, bytes: 9_000 });
    worker.run();
    assert_eq!(worker.credits(), [], "no want before the answer");
    worker.recalled(1);
    assert_eq!(worker.credits(), [("want", 9)]);
}

#[test]
fn what_the_host_cannot_take_back_is_not_asked_for_again_and_again() {
    let mut worker = Worker::linked(2);
    worker.credits();
    worker.readiness(away());
    assert_eq!(worker.credits(), [("recall", 0)]);
    worker.recalled(2);
    assert_eq!(worker.credits(), [], "two are on their way");
    let (one, two) = (worker.assign(1), worker.assign(2));
    worker.readiness(Readiness::Ready);
    worker.hears(one, HostReservation::Settled(Settled::Applied));
    worker.hears(two, HostReservation::Settled(Settled::Applied));
    assert_eq!(worker.credits().last(), Some(&("want", 4)));
}

#[test]
fn an_assignment_that_broke_before_it_was_read_is_wanted_again() {
    let mut worker = Worker::linked(2);
    worker.credits();
    worker.grabber.handle_assignment_lost();
    worker.run();
    assert_eq!(worker.credits(), [("want", 3)]);
}

#[test]
fn not_ready_hands_back_what_waits_and_finishes_what_has_begun() {
    let mut worker = Worker::linked(3);
    let begun = worker.start(1);
    worker.assign(2);
    worker.seen.clear();
    worker.readiness(away());
    let [WorkerReservation::Return(returned)] = worker.sent()[..] else {
        panic!("{:?}", worker.seen)
    };
    assert_eq!(returned.kind, ReturnKind::Unavailable);
    worker.process(begun);
    assert!(matches!(worker.sent()[1], WorkerReservation::Verdict(_)));
    worker.seen.clear();
    worker.assign(3);
    let [WorkerReservation::Return(returned)] = worker.sent()[..] else { panic!() };
    assert_eq!(returned.kind, ReturnKind::HandBack, "it was on its way");
}

/// Unlike modules that are away: what is held is finished, and what is on its way, too.
#[test]
fn an_order_recalls_the_wants_and_lets_what_is_held_be_finished() {
    let mut worker = Worker::linked(3);
    let begun = worker.start(1);
    worker.controls();
    worker.grabber.handle_order(Some("new disk".to_owned()), worker.now);
    worker.run();
    assert_eq!(worker.credits(), [("recall", 1)]);
    let said = worker.grabber.profile(worker.now).readiness;
    assert_eq!(said, Readiness::NotReady { reason: "by order: new disk".to_owned() });
    worker.assign(2);
    assert_eq!((worker.sent().len(), worker.stopped()), (0, 0));
    worker.process(begun);
    assert!(matches!(worker.sent()[0], WorkerReservation::Verdict(_)));
    worker.recalled(2);
    assert!(worker.credits().iter().all(|(_, messages)| *messages <= 2), "no more than was given");
    worker.grabber.handle_order(None, worker.now);
    worker.run();
    assert_eq!(worker.credits(), [("want", 3)]);
}

/// The host says it again behind its welcome, so what an earlier link said is over.
#[test]
fn an_order_ends_with_its_link() {
    let mut worker = Worker::linked(3);
    worker.grabber.handle_order(Some("new disk".to_owned()), worker.now);
    worker.lose();
    worker.controls();
    worker.link(&[]);
    assert_eq!(worker.grabber.profile(worker.now).readiness, Readiness::Ready);
}

#[test]
fn it_beats_fast_while_it_holds_something_and_slowly_otherwise() {
    let mut worker = Worker::linked(3);
    let beats = |worker: &mut Worker| {
        worker.controls().iter().filter(|frame| matches!(frame, WorkerControl::Beat(_))).count()
    };
    assert_eq!(beats(&mut worker), 1, "at once");
    worker.pass(10_000);
    assert_eq!(beats(&mut worker), 2);
    let held = worker.start(1);
    worker.pass(1_000);
    assert_eq!(beats(&mut worker), 6, "at once, and five times a second");
    worker.hears(held, HostReservation::Cancel(Cancel { reason: String::new() }));
    worker.pass(10_000);
    assert!(beats(&mut worker) <= 4);
}

#[test]
fn only_a_rise_is_told_and_not_too_often() {
    let mut worker = Worker::linked(1);
    let (message, fence) = worker.start(1);
    worker.seen.clear();
    let (short, long) = (Duration::from_secs(1), Duration::from_secs(60));
    for (work, silence, ms) in
        [(1, short, 0), (1, short, 200), (2, short, 200), (3, short, 10), (4, long, 10)]
    {
        worker.pass(ms);
        worker.grabber.handle_progress(message, fence, work, silence, worker.now);
    }
    worker.run();
    let told: Vec<(u64, u64)> = worker
        .sent()
        .into_iter()
        .filter_map(|f| {
            if let WorkerReservation::Progress(p) = f { Some((p.work, p.silence_ms)) } else { None }
        })
        .collect();
    assert_eq!(told, [(1, 1_000), (2, 1_000), (4, 60_000)], "a longer silence cannot wait");
}

#[test]
fn a_lost_link_keeps_what_is_whole_and_drops_what_was_arriving() {
    let mut worker = Worker::linked(3);
    let (whole, arriving) = (worker.start(1), worker.assign(2));
    worker.seen.clear();
    worker.lose();
    assert_eq!(worker.stopped(), 1);
    let resume = worker.grabber.hello().resume;
    assert_eq!(resume, [Resume { message: whole.0, fence: whole.1 }]);
    assert!(!worker.grabber.holds(arriving.0, arriving.1));
}

#[test]
fn what_was_answered_without_an_answer_is_sent_again_after_a_resume() {
    let mut worker = Worker::linked(3);
    let held = worker.start(1);
    worker.lose();
    worker.seen.clear();
    worker.process(held);
    assert!(worker.sent().is_empty(), "there is no link");
    worker.link(&[(held.0, held.1, ResumeAnswer::Live)]);
    let resumed = worker.seen.iter().position(|e| matches!(e, Effect::OpenResume { .. })).unwrap();
    let sent =
        worker.seen.iter().position(|e| matches!(e, Effect::Send { finish: true, .. })).unwrap();
    assert!(resumed < sent);
    worker.lose();
    worker.seen.clear();
    worker.link(&[(held.0, held.1, ResumeAnswer::Live)]);
    assert_eq!(worker.sent().len(), 1, "and again, until the host has answered");
}

#[test]
fn progress_is_said_again_after_a_resume() {
    let mut worker = Worker::linked(1);
    let (message, fence) = worker.start(1);
    worker.lose();
    worker.grabber.handle_progress(message, fence, 7, Duration::from_secs(5), worker.now);
    worker.seen.clear();
    worker.link(&[(message, fence, ResumeAnswer::Live)]);
    let told = WorkerReservation::Progress(Progress { work: 7, silence_ms: 5_000 });
    assert_eq!(worker.sent(), [&told]);
}

#[test]
fn work_stops_on_all_that_is_not_live() {
    use ResumeAnswer::{Applied, Live, Superseded, Unknown};
    let mut worker = Worker::linked(5);
    let held: Vec<_> = (1..=5).map(|counter| worker.start(counter)).collect();
    worker.lose();
    worker.seen.clear();
    let answers: Vec<_> =
        held.iter().zip([Live, Applied, Superseded, Unknown]).map(|(h, a)| (h.0, h.1, a)).collect();
    worker.link(&answers);
    assert_eq!(worker.stopped(), 4, "also on what the host said nothing of");
    assert_eq!(worker.grabber.holding(), 1);
    assert_eq!(worker.credits(), [("want", 4)]);
}

#[test]
fn a_newer_assignment_of_the_same_message_ends_the_older() {
    let mut worker = Worker::linked(3);
    let old = worker.start(1);
    let new = worker.start(1);
    assert_eq!(worker.stopped(), 1);
    assert!(!worker.grabber.holds(old.0, old.1) && worker.grabber.holds(new.0, new.1));
    worker.seen.clear();
    worker.process(old);
    worker.hears(old, HostReservation::Cancel(Cancel { reason: String::new() }));
    assert!(worker.seen.is_empty(), "what comes late for the older one is ignored");
}

#[test]
fn a_cancelled_message_is_stopped_and_its_place_wanted_again() {
    let mut worker = Worker::linked(1);
    let held = worker.start(1);
    worker.credits();
    worker.hears(held, HostReservation::Cancel(Cancel { reason: "taken over".to_owned() }));
    assert_eq!(worker.stopped(), 1);
    assert_eq!(worker.credits(), [("want", 2)]);
}

#[test]
fn what_is_over_its_time_is_given_back_as_failed() {
    let mut worker = Worker::linked(1);
    let held = worker.start(1);
    worker.pass(900_000);
    let returned = worker.sent().into_iter().find_map(|frame| match frame {
        WorkerReservation::Return(returned) => Some(returned.kind),
        _ => None,
    });
    assert_eq!(returned, Some(ReturnKind::Failed));
    worker.seen.clear();
    worker.process(held);
    assert!(worker.sent().is_empty(), "one answer is enough");
}

#[test]
fn what_is_held_for_a_host_out_of_reach_takes_up_only_what_is_worked_on_and_ends_with_its_time() {
    let mut worker = Worker::linked(3);
    let (processed, working) = (worker.start(1), worker.start(2));
    assert_eq!(worker.grabber.occupied(), Capacity { messages: 2, bytes: 200 });
    worker.lose();
    assert_eq!(worker.grabber.outstanding(), Capacity::default(), "nobody can assign anything");
    worker.process(processed);
    assert_eq!(worker.grabber.occupied(), Capacity { messages: 1, bytes: 100 });
    assert!(worker.grabber.holds(processed.0, processed.1), "the host may still count it");
    worker.seen.clear();
    worker.pass(900_000);
    assert_eq!((worker.grabber.holding(), worker.stopped()), (0, 2));
    assert!(!worker.grabber.holds(working.0, working.1));
    worker.link(&[]);
    assert!(worker.sent().is_empty(), "its host has ended it, too");
}

#[test]
fn what_was_resumed_and_answered_waits_for_the_host() {
    let mut worker = Worker::linked(1);
    let held = worker.start(1);
    worker.lose();
    worker.process(held);
    worker.link(&[(held.0, held.1, ResumeAnswer::Live)]);
    worker.pass(1_000_000);
    assert!(worker.grabber.holds(held.0, held.1));
}

#[test]
fn room_that_comes_back_is_wanted_only_where_the_worker_gives_it() {
    let mut worker = Worker::linked(1);
    let held = worker.start(1);
    worker.seen.clear();
    worker.grabber.handle_reservation(held.0, held.1, HostReservation::Settled(Settled::Applied));
    // Before it asks what to do, the worker gives the place to another host.
    worker.grabber.handle_capacity(Capacity::default());
    worker.run();
    assert_eq!(worker.credits(), []);
    assert_eq!(worker.grabber.outstanding().messages, 0);
}

#[test]
fn what_is_being_recalled_is_outstanding_until_the_answer() {
    let mut worker = Worker::linked(4);
    assert_eq!(worker.grabber.outstanding().messages, 4);
    worker.grabber.handle_capacity(Capacity { messages: 1, bytes: 1_000 });
    worker.run();
    assert_eq!(worker.grabber.outstanding().messages, 4);
    worker.recalled(1);
    assert_eq!(worker.grabber.outstanding().messages, 1);
}

#[test]
fn a_drained_worker_finishes_what_it_has_and_wants_nothing() {
    let mut worker = Worker::linked(3);
    let begun = worker.start(1);
    worker.assign(2);
    worker.seen.clear();
    worker.grabber.handle_drain(worker.now);
    worker.grabber.handle_drain(worker.now);
    worker.run();
    let draining = worker
        .seen
        .iter()
        .filter(|e| matches!(e, Effect::Control(WorkerControl::Draining(_))))
        .count();
    assert_eq!(draining, 1);
    let [WorkerReservation::Return(returned)] = worker.sent()[..] else { panic!() };
    assert_eq!(returned.kind, ReturnKind::HandBack);
    worker.readiness(Readiness::Ready);
    assert_eq!(worker.grabber.profile(worker.now).readiness, Readiness::Draining);
    worker.seen.clear();
    worker.process(begun);
    worker.hears(begun, HostReservation::Settled(Settled::Applied));
    assert_eq!(worker.credits(), []);
    worker.lose();
    worker.link(&[]);
    let said = worker.controls();
    assert!(
        said.iter().any(|frame| matches!(frame, WorkerControl::Draining(_))),
        "a new link hears it too"
    );
    assert!(!said.iter().any(|frame| matches!(frame, WorkerControl::Want(_))));
}

#[test]
fn a_drained_worker_goes_only_when_nothing_is_on_its_way_to_it() {
    let mut worker = Worker::linked(2);
    worker.grabber.handle_drain(worker.now);
    worker.run();
    assert!(!worker.grabber.may_leave(), "the host has not said what it gave");
    let given = Credit { messages: 1, bytes: 10 };
    worker.grabber.handle_control(HostControl::Recalled(given));
    assert!(!worker.grabber.may_leave(), "one is on its way");
    let (message, fence) = worker.assign(1);
    assert!(!worker.grabber.may_leave(), "it has to be handed back first");
    worker.grabber.handle_reservation(message, fence, HostReservation::Settled(Settled::Applied));
    assert!(worker.grabber.may_leave());
}

#[test]
fn a_broken_stream_ends_the_reservation() {
    let mut worker = Worker::linked(1);
    let (message, fence) = worker.start(1);
    worker.credits();
    worker.grabber.handle_stream_lost(message, fence);
    worker.run();
    assert_eq!(worker.stopped(), 1);
    assert_eq!(worker.credits(), [("want", 2)]);
}

#[test]
fn a_profile_says_what_was_done_last_and_how_long_ago() {
    let mut worker = Worker::linked(1);
    let (message, fence) = worker.start(1);
    worker.pass(300);
    let profile = worker.grabber.profile(worker.now);
    assert_eq!(profile.readiness, Readiness::Busy);
    assert_eq!((profile.last_action, profile.last_action_ago_ms), (Action::Processing, 300));
    let held = &profile.holding[0];
    assert_eq!((held.message, held.fence, held.progress_ago_ms), (message, fence, 300));
    assert_eq!(worker.grabber.hello().provides, ["virus"]);
}

#[test]
fn a_hosts_sentence_reaches_the_operator_as_one_line() {
    let mut worker = Worker::linked(1);
    let notice = Notice { text: "a\nb".to_owned() };
    worker.grabber.handle_control(HostControl::Notice(notice));
    worker.run();
    let said = Effect::Event(Event::Notice { text: "a b".to_owned() });
    assert!(worker.seen.contains(&said));
}

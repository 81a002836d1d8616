//! Rule 6: messages that several workers process in turn.

use super::super::*;
use super::host::*;
use crate::frame::{
    Draining, Hello, HostControl, HostReservation, Part, ResumeAnswer, Settled, WorkerControl,
    WorkerReservation,
};
use crate::id::Digest;
use crate::profile::Readiness;
use crate::verdict::{Body, Disposition, Finding, Outcome, Verdict};

const SIGN: &str = "sign";

fn both() -> MailboxConfig {
    MailboxConfig { needs: vec![VIRUS.to_owned(), SIGN.to_owned()], ..mailbox() }
}

/// A linked worker that may and can do these, and wants this many.
fn worker(host: &mut Host, name: &str, can: &[&str], wants: u64) -> Session {
    let provides = can.iter().map(|&need| need.to_owned()).collect();
    let session = host.link_with(name, can, Hello { provides, ..hello(name, 1) });
    host.want(session, wants);
    session
}

fn clean(need: &str) -> Finding {
    Finding { need: need.to_owned(), ..finding(Outcome::Clean) }
}

fn part(id: MessageId, findings: Vec<Finding>) -> WorkerReservation {
    let (length, digest, body) = (1_000, digest(id), Body::Original);
    WorkerReservation::Part(Box::new(Part { length, digest, findings, body }))
}

fn verdict_with(id: MessageId, findings: Vec<Finding>) -> Verdict {
    Verdict { findings, ..deliver(id, 1) }
}

fn needs_of(findings: &[Finding]) -> Vec<&str> {
    findings.iter().map(|finding| finding.need.as_str()).collect()
}

/// How a part fares, of a message of which `virus` is done and `sign` and `spam` are left for one who may only sign.
fn fares(change: impl FnOnce(&mut Part)) -> Result<(), String> {
    let mut mailbox = both();
    mailbox.needs.push("spam".to_owned());
    let mut host = Host::with(mailbox);
    let id = host.mark();
    worker(&mut host, "a", &[VIRUS], 1);
    host.say(id, part(id, vec![clean(VIRUS)]));
    let session = worker(&mut host, "b", &[SIGN], 1);
    let WorkerReservation::Part(mut said) = part(id, vec![clean(SIGN)]) else { panic!() };
    change(&mut said);
    host.say(id, WorkerReservation::Part(said));
    match host.settled(session).pop().unwrap() {
        Settled::Applied => Ok(()),
        Settled::Refused { reason } => {
            assert_eq!(host.status(id).remaining, [SIGN, "spam"], "nothing of it counts");
            Err(reason)
        }
    }
}

#[track_caller]
fn refused(word: &str, change: impl FnOnce(&mut Part)) {
    let reason = fares(change).unwrap_err();
    assert!(reason.contains(word), "{reason:?} should speak of {word:?}");
}

#[test]
fn two_workers_do_in_turn_what_neither_can_alone() {
    let mut host = Host::with(both());
    let a = worker(&mut host, "a", &[VIRUS], 1);
    let b = worker(&mut host, "b", &[SIGN], 1);
    let id = host.mark();
    let first = host.assigned[&id].clone();
    assert_eq!(
        (first.session, &*first.asked, first.findings.len()),
        (a, &[VIRUS.to_owned()][..], 0)
    );
    host.say(id, part(id, vec![clean(VIRUS)]));
    assert_eq!(host.settled(a), [Settled::Applied]);
    let second = host.assigned[&id].clone();
    assert_eq!((second.session, &*second.asked), (b, &[SIGN.to_owned()][..]));
    assert_eq!(needs_of(&second.findings), [VIRUS], "the next worker knows what was found");
    assert_eq!(second.attempt, 1);
    host.verdict(id, verdict_with(id, vec![clean(SIGN)]));
    let Some(Change::Settle { verdict }) = host.changes().pop() else { panic!() };
    assert_eq!(needs_of(&verdict.findings), [VIRUS, SIGN], "both stand in the verdict");
    assert_eq!(host.releases.len(), 1);
    assert_eq!((host.counters().parts, host.counters().settled), (1, 1));
}

#[test]
fn a_part_is_durable_before_it_is_acknowledged_and_the_message_goes_on() {
    let mut host = Host::with(both());
    let a = worker(&mut host, "a", &[VIRUS], 1);
    worker(&mut host, "b", &[SIGN], 1);
    let id = host.mark();
    host.prompt = false;
    host.say(id, part(id, vec![clean(VIRUS)]));
    assert_eq!((host.settled(a).len(), host.is(id, "settling")), (0, true));
    host.store_fails();
    let [Settled::Refused { reason }] = &host.settled(a)[..] else { panic!() };
    assert!(reason.contains("could not store"), "{reason}");
    host.forget_seen();
    host.prompt = true;
    host.pass(secs(2));
    assert_eq!(host.assigned[&id].asked, [SIGN], "the other one begins, since nothing is done yet");
    assert_eq!(host.assigned[&id].findings, []);
}

#[test]
fn who_can_do_all_is_preferred_also_while_busy() {
    let mut host = Host::with(both());
    let whole = worker(&mut host, "whole", &[VIRUS, SIGN], 1);
    host.says(whole, "whole", Readiness::Ready);
    let half = worker(&mut host, "half", &[VIRUS], 9);
    let (one, two) = (host.mark(), host.mark());
    assert_eq!(host.assigned[&one].session, whole);
    assert!(host.is(two, "waiting"), "it waits for one who can do all of it");
    let backlog = |host: &Host, session| {
        host.controls(session).into_iter().rev().find_map(|frame| match frame {
            HostControl::Backlog(backlog) => Some(backlog.messages),
            _ => None,
        })
    };
    host.pass_beating(secs(2), &[whole, half]);
    assert_eq!((backlog(&host, whole), backlog(&host, half)), (Some(1), Some(0)));
    host.control(whole, WorkerControl::Draining(Draining { reason: "an update".to_owned() }));
    host.beat(half);
    let assigned = &host.assigned[&two];
    assert_eq!((assigned.session, &*assigned.asked), (half, &[VIRUS.to_owned()][..]));
}

#[test]
fn one_who_can_do_nothing_of_what_remains_gets_nothing() {
    let mut host = Host::with(both());
    let id = host.mark();
    worker(&mut host, "spam", &["spam"], 1);
    assert!(host.assigned.is_empty());
    let a = worker(&mut host, "a", &[VIRUS], 9);
    host.say(id, part(id, vec![clean(VIRUS)]));
    assert!(host.is(id, "waiting"), "the rest is not for the same one");
    assert_eq!(host.status(id).remaining, [SIGN]);
    // Those in front that wait for others do not stand in its way.
    let many: Vec<MessageId> = (0..100).map(|_| host.mark()).collect();
    for other in many {
        if host.assigned.get(&other).is_some_and(|assigned| assigned.session == a) {
            host.say(other, part(other, vec![clean(VIRUS)]));
        }
        host.want(a, 200);
    }
    assert_eq!(host.picture().reserved, 0);
    assert_eq!(host.counters().parts, 101);
}

#[test]
fn a_part_says_no_more_than_it_was_asked_for_and_no_less() {
    assert_eq!(fares(|_| {}), Ok(()));
    refused("bytes", |part| part.length = 999);
    refused("digest", |part| part.digest = Digest([1; 32]));
    refused("\"virus\"", |part| part.findings.push(clean(VIRUS)));
    refused("\"spam\"", |part| part.findings.push(clean("spam")));
    refused("\"other\"", |part| part.findings.push(clean("other")));
    refused("meets nothing", |part| part.findings.clear());
    refused("answers", |part| {
        part.findings[0].outcome = Outcome::Unscanned { reason: "no answer".to_owned() };
    });
    refused("findings", |part| {
        part.findings = vec![clean(SIGN); crate::limits::FINDINGS_MAX];
    });
    refused("bytes of them", |part| part.findings[0].engine = "x".repeat(100_000));
    refused("replaced", |part| {
        part.body = Body::Replaced { length: 1, digest: Digest([0; 32]) };
    });
}

#[test]
fn the_last_one_returns_a_verdict() {
    let mut host = Host::with(both());
    let id = host.mark();
    let session = worker(&mut host, "whole", &[VIRUS, SIGN], 1);
    host.say(id, part(id, vec![clean(VIRUS), clean(SIGN)]));
    let [Settled::Refused { reason }] = &host.settled(session)[..] else { panic!() };
    assert!(reason.contains("leaves nothing"), "{reason}");
}

#[test]
fn a_verdict_does_not_speak_for_what_its_worker_was_not_granted() {
    let mut host = Host::with(both());
    let id = host.mark();
    let session = worker(&mut host, "half", &[VIRUS], 1);
    host.verdict(id, verdict_with(id, vec![clean(VIRUS), clean(SIGN)]));
    let [Settled::Refused { reason }] = &host.settled(session)[..] else { panic!() };
    assert!(reason.contains("sign") && reason.contains("granted"), "{reason}");
    host.want(session, 2);
    host.verdict(id, verdict_with(id, vec![clean(VIRUS)]));
    let [_, Settled::Refused { reason }] = &host.settled(session)[..] else { panic!() };
    assert!(reason.contains("sign"), "{reason}");
    assert!(host.releases.is_empty());
}

#[test]
fn what_keeps_it_from_everybody_needs_nobody_elses_word() {
    let mut host = Host::with(both());
    let id = host.mark();
    worker(&mut host, "half", &[VIRUS], 1);
    let found =
        Finding { outcome: Outcome::Found { names: vec!["Eicar".to_owned()] }, ..clean(VIRUS) };
    let open = Outcome::Unscanned { reason: "the policy decided without it".to_owned() };
    let open = Finding { outcome: open, ..clean(SIGN) };
    let aside = verdict(id, vec![(vec![0], quarantine())]);
    host.verdict(id, Verdict { findings: vec![found, open], ..aside });
    assert!(host.is(id, "quarantined"));
}

#[test]
fn attempts_count_for_each_part_anew() {
    let mut host = Host::with(both());
    let a = worker(&mut host, "a", &[VIRUS], 9);
    let id = host.mark();
    host.fails(id, "no answer");
    host.fails(id, "no answer");
    assert_eq!(host.assigned[&id].attempt, 3);
    host.say(id, part(id, vec![clean(VIRUS)]));
    assert_eq!(host.status(id).attempts, 0);
    let b = worker(&mut host, "b", &[SIGN], 9);
    assert_eq!(host.assigned[&id].attempt, 1);
    // The one who is lost in between costs nothing but its part.
    host.lose(b);
    host.pass_beating(secs(2), &[a]);
    let c = worker(&mut host, "c", &[SIGN], 9);
    host.pass_beating(secs(2), &[a, c]);
    assert_eq!((host.assigned[&id].session, host.assigned[&id].attempt), (c, 2));
    assert_eq!(needs_of(&host.assigned[&id].findings), [VIRUS]);
}

#[test]
fn a_part_that_is_said_again_is_answered_and_not_applied_twice() {
    let mut host = Host::with(both());
    let a = worker(&mut host, "a", &[VIRUS], 1);
    let id = host.mark();
    let first = host.assigned[&id].clone();
    host.say(id, part(id, vec![clean(VIRUS)]));
    host.say_as(a, id, first.fence, part(id, vec![clean(VIRUS)]));
    assert_eq!(host.settled(a), [Settled::Applied, Settled::Applied]);
    assert_eq!(host.counters().parts, 1);
    let again = host.link_with("a", &[VIRUS], resuming("a", 1, &[&first]));
    let frames = host.controls(again);
    let Some(HostControl::Welcome(welcome)) = frames.first() else { panic!() };
    assert_eq!(welcome.resumed[0].answer, ResumeAnswer::Applied);
}

#[test]
fn what_a_start_finds_is_read_when_somebody_wants_it() {
    let mut host = Host::with(both());
    let id = host.recover(StoredState::Part { attempts: 1 });
    assert!(host.loads.is_empty(), "a start opens nothing");
    assert_eq!(host.status(id).remaining, [""; 0], "nobody knows yet");
    worker(&mut host, "a", &[VIRUS], 1);
    let (token, _) = host.loads.pop_front().unwrap();
    host.pool.handle_load_failed(token, "EIO".to_owned(), host.now);
    host.run();
    host.pass(secs(2));
    let (token, _) = host.loads.pop_front().unwrap();
    let findings = vec![clean(VIRUS)];
    let log = StoredLog { findings, recipients: 1, ..StoredLog::default() };
    host.pool.handle_loaded(token, Ok(log), host.now);
    host.run();
    assert!(host.assigned.is_empty() && host.is(id, "waiting"));
    assert_eq!(host.status(id).remaining, [SIGN]);
    worker(&mut host, "b", &[SIGN], 1);
    assert_eq!(
        (host.assigned[&id].attempt, &*host.assigned[&id].asked),
        (2, &[SIGN.to_owned()][..])
    );
}

#[test]
fn one_whose_file_is_damaged_is_lost_to_the_pool_alone() {
    let mut host = Host::with(both());
    let id = host.recover(StoredState::Part { attempts: 0 });
    worker(&mut host, "a", &[VIRUS], 1);
    let (token, _) = host.loads.pop_front().unwrap();
    host.pool.handle_loaded(token, Err("damaged".to_owned()), host.now);
    host.run();
    assert_eq!((host.state(id), host.counters().corrupted), (None, 1));
}

#[test]
fn what_waits_for_its_sender_becomes_ours_with_its_parts() {
    let mut host = Host::with(both());
    let id = host.mark_upstream(1);
    worker(&mut host, "a", &[VIRUS], 1);
    host.say(id, part(id, vec![clean(VIRUS)]));
    assert!(matches!(host.changes()[..], [Change::Part { .. }]));
    host.pass(secs(121));
    let Some(Change::Adopt { state, .. }) = host.changes().pop() else { panic!() };
    assert_eq!(state, StoredState::Part { attempts: 0 });
    worker(&mut host, "b", &[SIGN], 1);
    host.verdict(id, verdict_with(id, vec![clean(SIGN)]));
    assert_eq!(host.releases.len(), 1);
}

#[test]
fn no_rule_lets_out_what_somebody_spoke_against() {
    for (outcome, state) in [
        (Outcome::Clean, "releasing"),
        (Outcome::Encrypted { reason: "no key".to_owned() }, "held"),
    ] {
        let rule = WhenUnprocessed::ReleaseUnscanned { after: secs(60) };
        let mut host = Host::with(MailboxConfig { when_unprocessed: rule, ..both() });
        let id = host.mark();
        worker(&mut host, "a", &[VIRUS], 1);
        host.say(id, part(id, vec![Finding { outcome, ..clean(VIRUS) }]));
        host.pass(secs(61));
        assert!(host.is(id, state), "{:?}", host.state(id));
    }
}

#[test]
fn what_an_operator_puts_back_is_processed_as_a_whole() {
    let mut host = Host::with(both());
    let a = worker(&mut host, "a", &[VIRUS], 9);
    let id = host.mark();
    host.say(id, part(id, vec![clean(VIRUS)]));
    let b = worker(&mut host, "b", &[SIGN], 9);
    let hold = Disposition::Hold { reason: "odd".to_owned() };
    let aside = verdict(id, vec![(vec![0], hold)]);
    host.verdict(id, Verdict { findings: vec![clean(SIGN)], ..aside });
    assert!(host.is(id, "held"));
    host.lose(b);
    host.operate(id, StoredState::Held, Operation::Release).unwrap();
    assert_eq!((host.assigned[&id].session, host.assigned[&id].findings.len()), (a, 0));
    assert!(!host.replies(a).iter().any(|frame| matches!(frame, HostReservation::Cancel(_))));
}

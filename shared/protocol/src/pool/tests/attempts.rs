//! Rule 10: what counts against a message, what is given back, suspects, held.

use super::super::*;
use super::host::*;
use crate::frame::ReturnKind;
use crate::profile::Readiness;

fn held_reasons(host: &Host) -> Vec<String> {
    let reasons = host.changes().into_iter().find_map(|change| match change {
        Change::SetAside { state: StoredState::Held, reasons, .. }
        | Change::Adopt { state: StoredState::Held, reasons, .. } => Some(reasons),
        _ => None,
    });
    reasons.expect("it is held")
}

#[test]
fn after_three_attempts_a_message_is_held_with_every_reason() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 9);
    for reason in ["first", "second", "third"] {
        assert!(host.is(id, "dispatched for a"));
        host.fails(id, reason);
    }
    assert!(host.is(id, "held"));
    let reasons = held_reasons(&host);
    for (at, word) in ["first", "second", "third", "3 attempts"].into_iter().enumerate() {
        assert!(reasons[at].contains(word), "{reasons:?}");
    }
    assert_eq!(host.counters().held, 1);
}

#[test]
fn an_engine_that_fails_for_some_seconds_does_not_use_up_all_attempts() {
    let mut host = Host::new();
    host.pool.config.failed_pause = Duration::from_secs(1);
    let id = host.mark();
    host.worker("a", 9);
    host.fails(id, "ERROR");
    assert!(host.is(id, "waiting"));
    host.pass(Duration::from_secs(1));
    assert!(host.is(id, "dispatched for a"));
    host.fails(id, "ERROR");
    host.pass(Duration::from_secs(4));
    assert!(host.is(id, "waiting"), "the second pause is longer");
    host.pass(Duration::from_secs(1));
    assert!(host.is(id, "dispatched for a"));
}

#[test]
fn the_limit_is_looked_at_only_when_somebody_would_take_it() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 3);
    (0..3).for_each(|_| host.fails(id, "no answer"));
    assert!(host.is(id, "waiting"));
    host.worker("b", 1);
    assert!(host.is(id, "held"));
}

#[test]
fn hand_backs_and_unavailable_modules_do_not_count() {
    for kind in [ReturnKind::HandBack, ReturnKind::Unavailable] {
        let mut host = Host::new();
        let id = host.mark();
        host.worker("a", 1);
        host.returns(id, kind, "clamd is away");
        assert_eq!(host.status(id).attempts, 0, "{kind:?}");
        host.worker("b", 1);
        assert!(host.is(id, "dispatched for b"));
        assert_eq!(host.assigned[&id].attempt, 1);
    }
}

#[test]
fn what_is_given_back_again_and_again_waits_longer_and_is_held_at_its_own_bound() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1_000);
    for _ in 0..4 {
        host.returns(id, ReturnKind::Unavailable, "clamd is away");
    }
    assert!(host.is(id, "waiting"), "a worker that keeps asking does not get it at once for ever");
    let start = host.now;
    while !host.is(id, "held") {
        host.pass_beating(secs(61), &[a]);
        if host.is(id, "dispatched for a") {
            host.returns(id, ReturnKind::Unavailable, "clamd is away");
        }
        assert!(host.now.since(start) < secs(3 * 3_600));
    }
    assert!(host.now.since(start) > secs(3_600), "an hour's outage holds nothing");
    let reasons = held_reasons(&host);
    assert!(reasons.iter().any(|r| r.contains("clamd is away")), "{reasons:?}");
    assert!(reasons.last().unwrap().contains("100 times"), "{reasons:?}");
}

#[test]
fn an_attempt_is_given_back_when_the_same_incarnation_is_heard_again() {
    for relinks in [true, false] {
        let mut host = Host::new();
        let id = host.mark();
        let a = host.worker("a", 1);
        let b = host.worker("b", 1);
        host.pass_beating(secs(1), &[b]);
        assert_eq!(host.status(id).attempts, 2, "b took it over");
        if relinks {
            host.lose(a);
            host.link("a", 1);
        } else {
            host.beat(a);
        }
        assert_eq!(host.status(id).attempts, 1, "it was the link");
    }
}

#[test]
fn an_attempt_of_a_worker_that_started_anew_is_not_given_back() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    let b = host.worker("b", 1);
    host.pass_beating(secs(1), &[b]);
    host.lose(a);
    host.link("a", 2);
    assert_eq!(host.status(id).attempts, 2);
}

#[test]
fn a_stall_is_not_forgiven_by_a_new_link() {
    let mut host = Host::new();
    let id = host.mark();
    let (a, b) = (host.worker("a", 1), host.worker("b", 1));
    host.pass_beating(secs(31), &[a, b]);
    assert!(host.is(id, "dispatched for b"));
    host.lose(a);
    host.link("a", 1);
    assert_eq!(host.status(id).attempts, 2);
}

#[test]
fn suspects_are_retried_one_at_a_time_and_elsewhere() {
    let mut host = Host::new();
    let ids: Vec<MessageId> = (0..3).map(|_| host.mark()).collect();
    let innocent = host.mark();
    host.worker("a", 3);
    let b = host.worker("b", 5);
    let c = host.link("c", 1);
    assert!(host.is(innocent, "dispatched for b"));
    host.pass_beating(secs(1), &[b, c]);
    let with_b = |host: &Host| ids.iter().filter(|id| host.is(**id, "dispatched for b")).count();
    assert_eq!(with_b(&host), 1, "one of three suspects");
    let more = host.mark();
    assert!(host.is(more, "dispatched for b"), "and nobody waits behind them");
    let first = *ids.iter().find(|id| host.is(**id, "dispatched for b")).unwrap();
    host.clean(first);
    assert_eq!(with_b(&host), 1, "then the next one");
    host.want(c, 5);
    let next = *ids.iter().find(|id| host.is(**id, "dispatched for b")).unwrap();
    host.fails(next, "no answer");
    assert!(!host.is(next, "dispatched for b"), "c has not failed with it yet");
}

#[test]
fn a_suspect_goes_to_the_same_worker_where_there_is_no_other() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 2);
    host.fails(id, "no answer");
    assert!(host.is(id, "dispatched for a"));
}

#[test]
fn a_worker_that_fails_at_once_does_not_use_up_the_attempts_while_the_others_are_busy() {
    let mut host = Host::new();
    let id = host.mark();
    let broken = host.worker("a", 9);
    let other = host.link("b", 1);
    host.says(other, "b", Readiness::Busy);
    host.fails(id, "no scanner");
    assert!(host.is(id, "waiting"), "b has not failed with it, and will want something");
    host.pass_beating(secs(60), &[broken, other]);
    assert!(host.is(id, "waiting"));
    host.want(other, 1);
    assert!(host.is(id, "dispatched for b"));
}

#[test]
fn nobody_waits_for_a_worker_that_is_not_ready_or_stays_busy_for_ever() {
    for (readiness, patience) in [
        (Readiness::NotReady { reason: "clamd is away".to_owned() }, secs(0)),
        (Readiness::Draining, secs(0)),
        (Readiness::Busy, crate::limits::RESERVATION_TIME_MAX),
    ] {
        let mut host = Host::new();
        let id = host.mark();
        let a = host.worker("a", 9);
        let b = host.link("b", 1);
        host.says(b, "b", readiness);
        host.fails(id, "no answer");
        assert_eq!(host.is(id, "waiting"), patience > secs(0));
        host.pass_beating(patience, &[a, b]);
        host.beat(a);
        assert!(host.is(id, "dispatched for a"));
    }
}

#[test]
fn a_broken_stream_is_a_lost_attempt() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    let fence = host.assigned[&id].fence;
    host.pool.handle_stream_lost(a, id, fence, "reset by the worker", host.now);
    host.run();
    assert!(host.is(id, "waiting"));
    assert_eq!(host.status(id).attempts, 1);
    assert!(host.status(id).reasons[0].contains("reset"));
}

#[test]
fn a_wrong_verdict_is_a_lost_attempt_too() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 1);
    host.verdict(id, deliver(id, 2));
    assert!(host.is(id, "waiting"));
    assert_eq!(host.status(id).attempts, 1);
}

#[test]
fn attempts_found_on_disk_count() {
    let mut host = Host::new();
    let id = host.recover(StoredState::Marked { attempts: 3 });
    host.worker("a", 1);
    assert!(host.is(id, "held"));
    assert!(held_reasons(&host)[0].contains("3 attempts"));
}

#[test]
fn an_attempt_that_our_own_restart_cut_short_is_given_back_to_its_worker() {
    let mut host = Host::new();
    let id = host.recover(StoredState::Marked { attempts: 1 });
    let mut back = hello("a", 1);
    let fence = Fence { epoch: 4, counter: 17 };
    back.resume.push(crate::frame::Resume { message: id, fence });
    let a = host.link_with("a", &[VIRUS], back.clone());
    assert_eq!(host.status(id).attempts, 0);
    host.lose(a);
    host.link_with("a", &[VIRUS], back);
    assert_eq!(host.status(id).attempts, 0);
    let other = host.recover(StoredState::Marked { attempts: 1 });
    assert_eq!(host.status(other).attempts, 1, "nobody else had it");
}

#[test]
fn in_upstream_custody_only_suspects_are_stored() {
    let mut host = Host::new();
    let id = host.mark_upstream(1);
    host.worker("a", 9);
    assert_eq!(host.changes(), [], "nothing is durable before a verdict");
    host.fails(id, "no answer");
    assert_eq!(host.changes(), [Change::Charge { attempts: 2 }]);
    host.fails(id, "no answer");
    host.fails(id, "no answer");
    assert!(host.is(id, "held"));
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]), "held durably, so it is ours");
    assert_eq!(held_reasons(&host).len(), 4);
}

#[test]
fn what_is_forgotten_leaves_its_attempts_with_its_content() {
    let mut host = Host::new();
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.fails(id, "no answer");
    host.pool.handle_sender_gone(id, host.now);
    host.run();
    assert_eq!(host.forgets(), [1]);
    let known = host.marked(Custody::Upstream { answer_by: host.now + secs(9) });
    let again = host.take(Marked { attempts: 3, ..known });
    host.worker("b", 1);
    assert!(host.is(again, "held"));
}

#[test]
fn a_sender_that_leaves_while_the_worker_is_dead_does_not_wipe_the_attempt() {
    let mut host = Host::new();
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.pass(secs(1));
    host.pool.handle_sender_gone(id, host.now);
    host.run();
    assert_eq!(host.forgets(), [1]);
    let alive = host.mark_upstream(1);
    let b = host.worker("b", 1);
    host.pass_beating(secs(1), &[b]);
    host.pool.handle_sender_gone(alive, host.now);
    host.run();
    assert_eq!(host.forgets(), [1, 0], "of a living worker's message nothing is known");
}

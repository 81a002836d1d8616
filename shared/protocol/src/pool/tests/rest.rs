//! Workers that fail on everything, and policies that change.

use super::host::*;
use crate::frame::{HostControl, ReturnKind};
use crate::id::{Digest, Session};
use crate::limits::RESERVATION_TIME_MAX;
use crate::pool::rest::{FAILURES_MAX, REST_MAX, REST_MIN};
use crate::profile::Readiness;

/// A worker that asks for more than there is, beside one that is at work and asks for nothing.
fn beside_another() -> (Host, Session, Session) {
    let mut host = Host::new();
    let broken = host.worker("a", 900);
    let other = host.link("b", 1);
    host.says(other, "b", Readiness::Busy);
    (host, broken, other)
}

/// The next message goes to `a`, which fails with it.
fn fail_once(host: &mut Host) {
    let id = host.mark();
    assert!(host.is(id, "dispatched for a"), "{:?}", host.state(id));
    host.fails(id, "no scanner");
}

fn barred(host: &Host) -> Option<String> {
    let status = host.picture();
    status.workers.into_iter().find(|worker| worker.name == "a").unwrap().barred
}

#[test]
fn a_worker_that_alone_fails_on_everything_rests_ever_longer() {
    let (mut host, broken, other) = beside_another();
    for _ in 0..FAILURES_MAX {
        assert_eq!(barred(&host), None);
        fail_once(&mut host);
    }
    let mut rest = REST_MIN;
    // Longer than that, and what failed before would have waited for the other long enough.
    for _ in 0..7 {
        let reason = barred(&host).unwrap();
        assert!(reason.contains(&format!("nothing for {} s", rest.as_secs())), "{reason}");
        let told = host.controls(broken);
        assert!(told.iter().any(|f| matches!(f, HostControl::Notice(n) if n.text == reason)));
        let waits = host.mark();
        host.pass_beating(rest - ms(1), &[broken, other]);
        assert!(host.is(waits, "waiting"), "it rests");
        host.says(other, "b", Readiness::Busy);
        host.pass_beating(ms(1), &[broken, other]);
        assert!(host.is(waits, "dispatched for a"), "it is tried again: {:?}", host.state(waits));
        host.fails(waits, "no scanner");
        rest = (rest * 2).min(REST_MAX);
    }
}

#[test]
fn one_success_and_all_is_forgotten() {
    let (mut host, broken, other) = beside_another();
    for _ in 1..FAILURES_MAX {
        fail_once(&mut host);
    }
    let id = host.mark();
    host.clean(id);
    for _ in 1..FAILURES_MAX {
        fail_once(&mut host);
    }
    assert_eq!(barred(&host), None);
    fail_once(&mut host);
    assert!(barred(&host).is_some());
    host.pass_beating(REST_MIN, &[broken, other]);
    let id = host.mark();
    host.clean(id);
    for _ in 1..FAILURES_MAX {
        fail_once(&mut host);
    }
    assert_eq!(barred(&host), None);
}

/// Where nobody does better, the messages may be to blame.
#[test]
fn a_worker_that_is_alone_or_fails_like_the_others_goes_on() {
    let mut host = Host::new();
    host.worker("a", 900);
    for _ in 0..3 * FAILURES_MAX {
        fail_once(&mut host);
    }
    assert_eq!(barred(&host), None);

    // Not ready, not able to do the same, or gone: nobody does better.
    for readiness in [Readiness::NotReady { reason: "reloads".to_owned() }, Readiness::Draining] {
        let other = host.link("b", 1);
        host.says(other, "b", readiness);
        fail_once(&mut host);
        assert_eq!(barred(&host), None);
        host.lose(other);
    }
    let other = host.link("b", 1);
    host.says(other, "b", Readiness::Busy);
    fail_once(&mut host);
    assert!(barred(&host).is_some());
}

/// Hand-backs and modules that are away are no failures.
#[test]
fn what_is_handed_back_is_no_failure() {
    let (mut host, ..) = beside_another();
    for kind in [ReturnKind::HandBack, ReturnKind::Unavailable] {
        for _ in 0..FAILURES_MAX {
            let id = host.mark();
            host.returns(id, kind, "away");
        }
    }
    assert_eq!(barred(&host), None);
}

/// Starting anew does not help a worker that crashes on everything; an operator's word does.
#[test]
fn a_rest_outlasts_the_workers_start_and_ends_with_an_operators_word() {
    let (mut host, ..) = beside_another();
    for _ in 0..FAILURES_MAX {
        fail_once(&mut host);
    }
    let anew = host.link("a", 2);
    host.want(anew, 900);
    let id = host.mark();
    assert!(host.is(id, "waiting"));
    let now = host.now;
    host.pool.handle_order("a", crate::frame::Order::Ready, now).unwrap();
    host.run();
    assert_eq!(barred(&host), None);
    let id = host.mark();
    assert!(host.is(id, "dispatched for a"));
}

/// A second policy counts for as long as it is named, and what is worked on by one that counts no more is taken back.
#[test]
fn policies_change_while_messages_are_worked_on() {
    let (former, newer) = (hello("a", 1).policy, Digest([8; 32]));
    let mut host = Host::new();
    let a = host.worker("a", 9);
    let mut other = hello("b", 1);
    other.policy = newer;
    let b = host.link_with("b", &[VIRUS], other);
    host.want(b, 9);
    let (first, second) = (host.mark(), host.mark());
    assert!(host.is(first, "dispatched for a") && host.is(second, "dispatched for a"));

    let change = |host: &mut Host, policy, also| {
        let now = host.now;
        host.pool.handle_policies(policy, also, now);
        host.run();
    };
    change(&mut host, newer, Some(former));
    let told = host.controls(b);
    assert!(
        told.iter().any(|f| matches!(f, HostControl::Notice(n) if n.text.contains("counts here")))
    );
    host.clean(first);
    assert_eq!(host.counters().settled, 1, "what was begun by the former one still counts");
    let third = host.mark();
    assert!(host.is(third, "dispatched for b"), "the idlest: both are served");

    change(&mut host, newer, None);
    assert!(host.was_cancelled(a));
    assert!(host.is(second, "dispatched for b"), "taken back: {:?}", host.state(second));
    assert_eq!(host.status(second).attempts, 1, "it was not the message's fault");
    host.clean(second);
    host.clean(third);
    assert_eq!(host.counters().settled, 3);
    host.want(a, 20);
    host.lose(b);
    host.pass(RESERVATION_TIME_MAX);
    let fourth = host.mark();
    assert!(host.is(fourth, "waiting"), "a has the former policy");
}

//! Rules 1 to 6: fences, verdicts that come once, late or from elsewhere, wants, needs.

use super::super::*;
use super::host::*;
use crate::frame::{Credit, HostControl, Settled, WorkerControl, WorkerReservation};
use crate::id::Digest;

#[test]
fn a_fence_rises_with_each_reservation() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 9);
    let first = host.assigned[&id].fence;
    host.fails(id, "no answer");
    let second = host.assigned[&id].fence;
    assert!(second > first, "{second} after {first}");
    assert_eq!(first.epoch, 5, "it begins with the hook's start");
}

#[test]
fn an_old_fence_is_refused_and_counted() {
    let mut host = Host::new();
    let id = host.mark();
    let session = host.worker("a", 9);
    let old = host.assigned[&id].fence;
    host.fails(id, "no answer");
    host.forget_seen();
    let late = WorkerReservation::Verdict(Box::new(deliver(id, 1)));
    host.say_as(session, id, old, late);
    assert!(
        matches!(&host.settled(session)[..], [Settled::Refused { reason }] if reason.contains("fence"))
    );
    assert_eq!(host.counters().verdicts_refused, 1);
    assert!(host.is(id, "dispatched for a"), "the newer reservation goes on");
    assert!(host.releases.is_empty());
}

#[test]
fn a_verdict_from_another_worker_is_refused() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 1);
    let other = host.worker("b", 1);
    let fence = host.assigned[&id].fence;
    host.say_as(other, id, fence, WorkerReservation::Verdict(Box::new(deliver(id, 1))));
    assert!(matches!(&host.settled(other)[..], [Settled::Refused { .. }]));
    assert!(host.is(id, "dispatched for a"));
}

#[test]
fn a_verdict_on_a_former_link_counts_for_nothing() {
    let mut host = Host::new();
    let id = host.mark();
    let former = host.worker("a", 1);
    let held = host.assigned[&id].clone();
    host.link_with("a", &[VIRUS], resuming("a", 1, &[&held]));
    let verdict = WorkerReservation::Verdict(Box::new(deliver(id, 1)));
    host.say_as(former, id, held.fence, verdict);
    assert!(host.is(id, "dispatched for a"));
    assert!(host.releases.is_empty());
}

#[test]
fn a_verdict_of_a_former_incarnation_is_refused() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 1);
    let fence = host.assigned[&id].fence;
    let anew = host.link("a", 2);
    host.say_as(anew, id, fence, WorkerReservation::Verdict(Box::new(deliver(id, 1))));
    assert!(matches!(&host.settled(anew)[..], [Settled::Refused { .. }]));
    assert!(host.is(id, "waiting"));
}

#[test]
fn a_second_copy_of_a_verdict_is_answered_and_not_applied_again() {
    let mut host = Host::new();
    let id = host.mark();
    let session = host.worker("a", 1);
    host.clean(id);
    host.clean(id);
    assert_eq!(host.settled(session), [Settled::Applied, Settled::Applied]);
    assert_eq!(host.releases.len(), 1);
    assert_eq!(host.counters().settled, 1);
    host.released(&[(0, ReleaseResult::Accepted)]);
    assert_eq!(host.state(id), None);
    host.clean(id);
    assert_eq!(host.settled(session).len(), 3, "also when the message is gone");
    assert_eq!(host.counters().verdicts_refused, 0);
}

#[test]
fn a_verdict_is_acknowledged_when_it_is_stored_and_not_before() {
    let mut host = Host::new();
    let id = host.mark();
    let session = host.worker("a", 1);
    host.prompt = false;
    host.clean(id);
    host.clean(id);
    assert_eq!(host.settled(session), []);
    assert!(host.releases.is_empty(), "nothing leaves before it is stored");
    host.stored(Stored::Done);
    assert_eq!(host.settled(session), [Settled::Applied]);
    assert_eq!(host.releases.len(), 1);
}

#[test]
fn a_verdict_that_cannot_be_stored_returns_the_message_to_the_pool() {
    let mut host = Host::new();
    let id = host.mark();
    let session = host.worker("a", 9);
    host.prompt = false;
    host.clean(id);
    host.store_fails();
    assert!(
        matches!(&host.settled(session)[..], [Settled::Refused { reason }] if reason.contains("store"))
    );
    assert!(host.is(id, "waiting"));
    assert!(host.seen.iter().any(|effect| matches!(effect, Effect::StopIntake { .. })));
    assert_eq!(host.counters().settled, 0);
    host.prompt = true;
    host.forget_seen();
    host.pass_beating(secs(3), &[session]);
    assert!(host.is(id, "dispatched for a"), "and it is processed anew");
}

#[test]
fn no_timer_takes_a_message_away_while_its_verdict_is_stored() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 1);
    host.worker("b", 1);
    host.prompt = false;
    host.clean(id);
    host.pass(secs(3_600));
    assert!(host.is(id, "settling"));
    assert!(host.assigns.is_empty());
}

#[test]
fn a_worker_gets_no_more_than_it_wants() {
    let mut host = Host::new();
    for _ in 0..5 {
        host.mark();
    }
    let session = host.worker("a", 2);
    assert_eq!(host.assigned.len(), 2);
    host.want(session, 3);
    assert_eq!(host.assigned.len(), 3, "wants are totals");
    let first = *host.assigned.keys().next().unwrap();
    host.clean(first);
    assert_eq!(host.assigned.len(), 3, "a verdict is no want");
}

#[test]
fn bytes_are_credits_too_but_the_longest_message_finds_a_worker() {
    let mut host = Host::new();
    let (short, long) = (host.marked(Custody::Hook), host.marked(Custody::Hook));
    let session = host.link("a", 1);
    host.control(session, WorkerControl::Want(Credit { messages: 2, bytes: 1_500 }));
    let short = host.take(short);
    let long = host.take(Marked { length: 600, ..long });
    assert!(host.is(short, "dispatched for a"));
    assert!(host.is(long, "waiting"), "1600 bytes are more than 1500");
    let b = host.link("b", 1);
    host.control(b, WorkerControl::Want(Credit { messages: 1, bytes: 10 }));
    assert!(host.is(long, "dispatched for b"), "it holds nothing, so the length does not matter");
}

#[test]
fn short_messages_do_not_overtake_a_long_one_for_ever() {
    let mut host = Host::new();
    let session = host.link("a", 1);
    host.control(session, WorkerControl::Want(Credit { messages: 2, bytes: 2_000 }));
    let first = host.mark();
    let long = Marked { length: 5_000, ..host.marked(Custody::Hook) };
    let long = host.take(long);
    let second = host.mark();
    assert!(host.is(second, "dispatched for a"), "for a while it is overtaken");
    host.pass_beating(secs(6), &[session]);
    host.clean(first);
    host.control(session, WorkerControl::Want(Credit { messages: 3, bytes: 3_000 }));
    let third = host.mark();
    assert!(host.is(third, "waiting"), "then the worker is emptied for it");
    host.clean(second);
    assert!(host.is(long, "dispatched for a"));
}

#[test]
fn a_recall_takes_back_what_was_not_used_and_says_what_counts() {
    let mut host = Host::new();
    let session = host.worker("a", 4);
    host.mark();
    host.control(session, WorkerControl::Recall(Credit { messages: 0, bytes: 0 }));
    let counts = host.controls(session).into_iter().find_map(|frame| match frame {
        HostControl::Recalled(credit) => Some(credit),
        _ => None,
    });
    assert_eq!(counts.unwrap().messages, 1, "one was given already");
    let later = host.mark();
    assert!(host.is(later, "waiting"));
}

#[test]
fn a_want_that_falls_or_exceeds_the_bound_ends_the_link() {
    for wrong in [1, 5_000] {
        let mut host = Host::new();
        let session = host.worker("a", 2);
        host.want(session, wrong);
        assert!(host.seen.iter().any(|effect| matches!(effect, Effect::CloseLink { .. })));
        let id = host.mark();
        assert!(host.is(id, "waiting"), "nothing more is given to it");
    }
}

#[test]
fn an_assignment_that_never_left_costs_no_credit() {
    let mut host = Host::new();
    let session = host.worker("a", 1);
    host.prompt = false;
    let first = host.mark();
    host.store_fails();
    assert!(host.is(first, "waiting"));
    let second = host.mark();
    assert_eq!(host.stores.len(), 1, "the credit is there still");
    host.stored(Stored::Done);
    host.sent(Assigned::Unreadable { reason: "EIO".to_owned() });
    assert!(host.is(second, "waiting"), "nor is it forgotten");
    host.prompt = true;
    host.pass_beating(secs(5), &[session]);
    assert_eq!(host.picture().reserved, 1);
}

#[test]
fn a_message_that_no_stream_is_granted_for_goes_elsewhere() {
    let mut host = Host::new();
    let a = host.worker("a", 1);
    host.prompt = false;
    let id = host.mark();
    host.stored(Stored::Done);
    host.pass_beating(secs(29), &[a]);
    assert!(host.is(id, "dispatched for a"));
    host.pass_beating(secs(2), &[a]);
    assert!(host.is(id, "waiting"));
    assert!(host.was_cancelled(a));
    let late = Assigned::Sent { digest: digest(id) };
    host.sent(late);
    assert!(host.is(id, "waiting"));
}

#[test]
fn needs_are_met_by_what_is_granted_and_claimed_both() {
    let mut host = Host::new();
    let id = host.mark();
    let claims = host.link_with("a", &["spam"], hello("a", 1));
    host.want(claims, 5);
    assert!(host.is(id, "waiting"), "a claim without a grant");
    let mut without = hello("b", 1);
    without.provides = vec!["spam".to_owned()];
    let granted = host.link_with("b", &[VIRUS], without);
    host.want(granted, 5);
    assert!(host.is(id, "waiting"), "a grant without a module");
    host.worker("c", 1);
    assert!(host.is(id, "dispatched for c"));
}

#[test]
fn a_worker_with_another_policy_gets_nothing_and_is_told() {
    let mut host = Host::new();
    let id = host.mark();
    let mut other = hello("a", 1);
    other.policy = Digest([8; 32]);
    let session = host.link_with("a", &[VIRUS], other);
    host.want(session, 5);
    assert!(host.is(id, "waiting"));
    assert!(
        host.controls(session)
            .iter()
            .any(|f| matches!(f, HostControl::Notice(n) if n.text.contains("policy")))
    );
}

#[test]
fn the_attempt_is_counted_before_the_first_byte_leaves() {
    let mut host = Host::new();
    host.worker("a", 1);
    host.prompt = false;
    let id = host.mark();
    assert!(host.assigns.is_empty());
    assert!(matches!(host.stores[0].2, Change::Charge { attempts: 1 }));
    host.stored(Stored::Done);
    assert_eq!(host.assigns[0].message, id);
}

#[test]
fn the_idlest_worker_is_asked_first() {
    let mut host = Host::new();
    host.worker("a", 3);
    host.worker("b", 3);
    let mut by = BTreeMap::<String, u32>::new();
    for _ in 0..4 {
        let id = host.mark();
        *by.entry(host.state(id).unwrap()).or_default() += 1;
    }
    assert_eq!(by.into_values().collect::<Vec<_>>(), [2, 2]);
}

//! Rules 8 and 9: beats, progress, takeover.

use super::super::*;
use super::host::*;
use crate::frame::{Hint, WorkerControl};

fn holder(host: &Host, id: MessageId) -> String {
    host.state(id).unwrap_or_else(|| "gone".to_owned())
}

#[test]
fn three_missed_beats_hand_the_message_to_whoever_wants_it() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    let first = host.assigned[&id].fence;
    let b = host.worker("b", 1);
    host.pass_beating(ms(599), &[b]);
    assert_eq!(holder(&host, id), "dispatched for a");
    host.pass(ms(2));
    assert_eq!(holder(&host, id), "dispatched for b");
    assert!(host.assigned[&id].fence > first);
    assert!(host.was_cancelled(a), "the former owner is told");
    let after = host.events().find_map(|event| match event {
        Event::TakenOver { from, to, after, .. } if from == "a" && to == "b" => Some(*after),
        _ => None,
    });
    assert_eq!(after, Some(ms(600)));
    assert_eq!(host.counters().takeover_ms_max, 600);
}

#[test]
fn a_link_that_carries_something_excuses_late_beats_for_a_while() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    let b = host.worker("b", 1);
    let carried = |host: &mut Host, times: u32| {
        for _ in 0..times {
            host.pass_beating(ms(100), &[b]);
            host.pool.handle_carried(a, host.now);
        }
    };
    carried(&mut host, 10);
    assert_eq!(holder(&host, id), "dispatched for a", "beats are late, and the link carries");
    host.beat(a);
    carried(&mut host, 19);
    assert_eq!(holder(&host, id), "dispatched for a", "a beat counts anew");
    carried(&mut host, 1);
    assert_eq!(holder(&host, id), "dispatched for b", "but not for ever");
}

#[test]
fn a_link_that_carries_nothing_any_more_is_given_up_no_later() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    let b = host.worker("b", 1);
    host.pass_beating(ms(100), &[b]);
    host.pool.handle_carried(a, host.now);
    host.pass_beating(ms(499), &[b]);
    assert_eq!(holder(&host, id), "dispatched for a");
    host.pass(ms(1));
    assert_eq!(holder(&host, id), "dispatched for b");
}

#[test]
fn an_owner_that_comes_back_before_anybody_wants_it_keeps_it() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    let held = host.assigned[&id].clone();
    host.pass(secs(5));
    host.lose(a);
    host.pass(secs(5));
    let back = host.link_with("a", &[VIRUS], resuming("a", 1, &[&held]));
    host.worker("b", 1);
    assert_eq!(holder(&host, id), "dispatched for a");
    host.say_as(
        back,
        id,
        held.fence,
        crate::frame::WorkerReservation::Verdict(Box::new(deliver(id, 1))),
    );
    assert_eq!(host.counters().settled, 1);
    assert_eq!(host.counters().taken_over, 0);
}

#[test]
fn beats_keep_a_reservation_for_as_long_as_its_module_may_be_silent() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    let b = host.worker("b", 1);
    host.progress(id, 1, secs(60));
    host.pass_beating(secs(59), &[a, b]);
    assert_eq!(holder(&host, id), "dispatched for a");
    host.pass_beating(secs(2), &[a, b]);
    assert_eq!(holder(&host, id), "dispatched for b", "beats are no progress");
    let stalled = |event: &Event| matches!(event, Event::TakenOver { reason: "stalled", .. });
    assert!(host.events().any(stalled));
}

#[test]
fn only_a_rise_is_progress() {
    for (work, owner) in [(5, "dispatched for b"), (6, "dispatched for a")] {
        let mut host = Host::new();
        let id = host.mark();
        let (a, b) = (host.worker("a", 1), host.worker("b", 1));
        host.progress(id, 5, secs(10));
        host.pass_beating(secs(8), &[a, b]);
        host.progress(id, work, secs(10));
        host.pass_beating(secs(4), &[a, b]);
        assert_eq!(holder(&host, id), owner, "after {work}");
    }
}

#[test]
fn a_stalled_owner_that_goes_on_before_anybody_wants_it_keeps_it() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    host.progress(id, 1, secs(10));
    host.pass_beating(secs(20), &[a]);
    host.progress(id, 2, secs(10));
    let b = host.worker("b", 1);
    host.pass_beating(secs(5), &[a, b]);
    assert_eq!(holder(&host, id), "dispatched for a");
}

#[test]
fn the_silence_that_is_announced_has_a_bound() {
    let mut host = Host::new();
    let id = host.mark();
    let (a, b) = (host.worker("a", 1), host.worker("b", 1));
    host.progress(id, 1, secs(3_600));
    host.pass_beating(secs(601), &[a, b]);
    assert_eq!(holder(&host, id), "dispatched for b");
}

#[test]
fn fifteen_minutes_bound_everything() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    for work in 0..90 {
        host.progress(id, work + 1, secs(60));
        host.pass_beating(secs(10), &[a]);
    }
    assert_eq!(holder(&host, id), "waiting");
    assert!(host.was_cancelled(a));
    assert!(host.status(id).reasons[0].contains("900 s"));
    assert_eq!(host.status(id).attempts, 1);
}

#[test]
fn a_hook_that_was_itself_away_restarts_the_beats() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    let b = host.worker("b", 1);
    host.now = host.now + secs(5);
    host.beat(b);
    host.pool.handle_timeout(host.now);
    host.run();
    assert_eq!(holder(&host, id), "dispatched for a", "it could not have been heard");
    host.pass_beating(ms(500), &[b]);
    host.beat(a);
    host.pass_beating(secs(5), &[a, b]);
    assert_eq!(holder(&host, id), "dispatched for a");
    host.pass_beating(secs(1), &[b]);
    assert_eq!(holder(&host, id), "dispatched for b", "a real silence counts as ever");
}

#[test]
fn what_has_arrived_counts_before_a_timer() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    host.worker("b", 1);
    host.now = host.now + ms(600);
    host.beat(a);
    host.pool.handle_timeout(host.now);
    host.run();
    assert_eq!(holder(&host, id), "dispatched for a");
}

#[test]
fn the_clock_starts_when_the_message_is_sent() {
    let mut host = Host::new();
    let a = host.worker("a", 1);
    let b = host.worker("b", 1);
    host.prompt = false;
    let id = host.mark();
    // The disk is slow, the worker idle: it beats every five seconds and cannot know.
    host.beat(a);
    host.pass_beating(secs(4), &[b]);
    host.stored(Stored::Done);
    host.pass_beating(secs(1), &[b]);
    host.sent(Assigned::Sent { digest: digest(id) });
    host.pass_beating(ms(500), &[b]);
    assert_eq!(holder(&host, id), "dispatched for a");
    host.pass_beating(ms(200), &[b]);
    host.stored(Stored::Done);
    assert_eq!(holder(&host, id), "dispatched for b");
    assert_eq!(host.counters().takeover_ms_max, 600, "the idle time before does not count");
}

#[test]
fn a_silent_worker_gets_nothing_until_it_is_heard_again() {
    let mut host = Host::new();
    let first = host.mark();
    let a = host.worker("a", 5);
    let b = host.worker("b", 1);
    host.pass_beating(secs(1), &[b]);
    assert_eq!(holder(&host, first), "dispatched for b");
    let second = host.mark();
    assert_eq!(holder(&host, second), "waiting", "the dead would only lose it");
    host.beat(a);
    assert_eq!(holder(&host, second), "dispatched for a");
}

#[test]
fn a_hint_makes_the_host_look_and_decides_nothing() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 1);
    let b = host.worker("b", 1);
    let fence = host.assigned[&id].fence;
    let hint = Hint { grabber: "a".to_owned(), message: id, fence };
    host.control(b, WorkerControl::Hint(hint));
    assert_eq!(holder(&host, id), "dispatched for a");
}

#[test]
fn takeover_needs_a_worker_that_may_do_it() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 1);
    let b = host.link_with("b", &["spam"], hello("b", 1));
    host.want(b, 5);
    host.pass_beating(secs(2), &[b]);
    assert_eq!(holder(&host, id), "dispatched for a");
}

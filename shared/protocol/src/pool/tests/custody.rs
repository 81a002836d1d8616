//! Rule 13: upstream custody, and the rule for what nobody could process in time.

use super::super::*;
use super::host::*;

fn upstream(when: WhenUnprocessed) -> Host {
    Host::with(MailboxConfig { when_unprocessed: when, ..mailbox() })
}

const AT_ONCE: Duration = Duration::ZERO;

#[test]
fn tempfail_tells_the_sender_to_try_again() {
    let mut host = upstream(WhenUnprocessed::TempFail);
    let id = host.mark_upstream(1);
    host.pass(secs(119));
    assert_eq!(host.answers(), []);
    host.pass(secs(1));
    assert!(matches!(host.answers()[..], [Answer::TryAgain { .. }]));
    assert_eq!(host.state(id), None);
    assert_eq!(host.changes(), []);
}

#[test]
fn at_the_end_the_reservation_is_cancelled() {
    let mut host = upstream(WhenUnprocessed::TempFail);
    host.mark_upstream(1);
    let a = host.worker("a", 1);
    host.pass_beating(secs(25), &[a]);
    host.progress(MessageId { epoch: 5, counter: 1 }, 1, secs(600));
    host.pass_beating(secs(96), &[a]);
    assert!(host.was_cancelled(a));
    assert_eq!(host.answers().len(), 1);
    assert_eq!(host.forgets(), [0], "a worker at work has not failed with it");
}

#[test]
fn wait_takes_custody_and_then_says_yes() {
    let mut host = upstream(WhenUnprocessed::Wait);
    let id = host.mark_upstream(1);
    host.prompt = false;
    host.pass(secs(120));
    assert!(matches!(
        host.stores[0].2,
        Change::Adopt { state: StoredState::Marked { attempts: 0 }, .. }
    ));
    assert_eq!(host.answers(), [], "not before it is durable");
    host.stored(Stored::Done);
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    assert!(host.is(id, "waiting"));
    host.pass(secs(86_400));
    assert!(host.is(id, "waiting"), "for as long as it takes");
    host.prompt = true;
    host.worker("a", 1);
    host.clean(id);
    assert_eq!(host.releases.len(), 1);
}

#[test]
fn hold_sets_it_aside_and_says_yes() {
    let mut host = upstream(WhenUnprocessed::Hold { after: AT_ONCE });
    let id = host.mark_upstream(1);
    host.pass(secs(120));
    assert!(host.is(id, "held"));
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
}

#[test]
fn release_unscanned_is_stored_said_and_counted() {
    let mut host = upstream(WhenUnprocessed::ReleaseUnscanned { after: AT_ONCE });
    let id = host.mark_upstream(2);
    host.pass(secs(120));
    assert_eq!(host.releases[0].2, [0, 1]);
    assert_eq!(host.counters().released_unprocessed, 1);
    let Change::Settle { verdict } = &host.changes()[0] else { panic!() };
    assert!(
        verdict.findings.iter().all(|finding| !finding.outcome.is_answer()),
        "and never called clean"
    );
    host.released(&[(0, ReleaseResult::Accepted), (1, ReleaseResult::Accepted)]);
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    assert_eq!(host.state(id), None);
}

#[test]
fn what_could_not_be_stored_is_not_counted_as_released() {
    let mut host = Host::with(MailboxConfig {
        when_unprocessed: WhenUnprocessed::ReleaseUnscanned { after: secs(60) },
        ..mailbox()
    });
    host.mark();
    host.prompt = false;
    host.pass(secs(60));
    host.store_fails();
    assert_eq!(host.counters().released_unprocessed, 0);
    assert!(host.releases.is_empty());
}

#[test]
fn a_message_that_workers_came_to_nothing_with_is_held_and_not_released_unscanned() {
    let mut host = upstream(WhenUnprocessed::ReleaseUnscanned { after: AT_ONCE });
    let id = host.mark_upstream(1);
    host.worker("a", 3);
    (0..3).for_each(|_| host.fails(id, "no answer"));
    host.pass(secs(120));
    assert!(host.is(id, "held"));
    assert_eq!(host.counters().released_unprocessed, 0);
}

#[test]
fn in_the_hooks_custody_the_rules_come_after_their_time() {
    let after = secs(4 * 3_600);
    let mut host = Host::with(MailboxConfig {
        when_unprocessed: WhenUnprocessed::Hold { after },
        ..mailbox()
    });
    let id = host.mark();
    host.pass(after - secs(1));
    assert!(host.is(id, "waiting"));
    host.pass(secs(1));
    assert!(host.is(id, "held"));
}

#[test]
fn a_hook_that_starts_late_gives_its_workers_time_to_link() {
    let after = secs(60);
    let rule = WhenUnprocessed::ReleaseUnscanned { after };
    let mut host = Host::with(MailboxConfig { when_unprocessed: rule, ..mailbox() });
    let id = MessageId { epoch: 4, counter: 1 };
    let old = Marked { id, since: host.now - secs(900), ..host.marked(Custody::Hook) };
    let state = StoredState::Marked { attempts: 0 };
    host.open(vec![(old, state)]);
    host.run();
    host.pass(secs(30));
    host.worker("a", 1);
    assert!(host.is(id, "dispatched for a"));
    assert_eq!(host.counters().released_unprocessed, 0);
}

#[test]
fn a_sender_that_goes_takes_its_message_along() {
    let mut host = Host::new();
    let id = host.mark_upstream(1);
    let a = host.worker("a", 1);
    host.pool.handle_sender_gone(id, host.now);
    host.run();
    assert_eq!(host.state(id), None);
    assert!(host.was_cancelled(a));
    assert_eq!(host.answers(), []);
    let ours = host.mark();
    host.pool.handle_sender_gone(ours, host.now);
    assert!(host.state(ours).is_some(), "what is ours stays");
}

#[test]
fn one_answer_when_all_recipients_are_served() {
    let mut host = Host::new();
    let id = host.mark_upstream(2);
    host.worker("a", 1);
    host.verdict(id, deliver(id, 2));
    host.released(&[(0, ReleaseResult::Accepted), (1, ReleaseResult::Accepted)]);
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    assert!(matches!(host.changes()[..], [Change::Settle { .. }]), "nothing becomes durable");
    assert_eq!(host.forgets(), [0]);
}

#[test]
fn once_one_was_accepted_the_rest_is_durable_before_yes() {
    let mut host = Host::new();
    let id = host.mark_upstream(3);
    host.worker("a", 1);
    host.verdict(id, deliver(id, 3));
    host.prompt = false;
    host.released(&[(0, ReleaseResult::Accepted), (1, ReleaseResult::Deferred)]);
    let Change::Adopt { state: StoredState::Releasing, results, .. } = &host.stores[0].2 else {
        panic!()
    };
    assert_eq!(results.len(), 1);
    assert_eq!(host.answers(), []);
    host.stored(Stored::Done);
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    host.pass(secs(10));
    assert_eq!(host.releases[0].2, [1, 2], "only the others are tried again");
}

#[test]
fn a_partly_served_message_that_cannot_be_stored_stays_with_its_sender() {
    let mut host = Host::new();
    let id = host.mark_upstream(2);
    host.worker("a", 1);
    host.verdict(id, deliver(id, 2));
    host.prompt = false;
    host.released(&[(0, ReleaseResult::Accepted), (1, ReleaseResult::Deferred)]);
    host.store_fails();
    assert!(matches!(host.answers()[..], [Answer::TryAgain { .. }]));
    assert_eq!(host.state(id), None);
}

#[test]
fn the_next_hops_no_and_not_now_are_passed_on() {
    let mut host = Host::new();
    host.worker("a", 9);
    let refused = host.mark_upstream(1);
    host.verdict(refused, deliver(refused, 1));
    host.released(&[(0, ReleaseResult::Refused)]);
    assert!(
        matches!(&host.answers()[0], Answer::Refused { code: 554, text, .. } if text.contains("says Refused"))
    );
    let deferred = host.mark_upstream(2);
    host.verdict(deferred, deliver(deferred, 2));
    host.released(&[(0, ReleaseResult::Refused), (1, ReleaseResult::Deferred)]);
    assert!(
        matches!(&host.answers()[1], Answer::TryAgain { .. }),
        "one of them may still be served"
    );
    let unknown = host.mark_upstream(1);
    host.verdict(unknown, deliver(unknown, 1));
    host.released(&[(0, ReleaseResult::Unknown)]);
    assert!(matches!(&host.answers()[2], Answer::TryAgain { .. }));
    assert_eq!(host.counters().possible_duplicates, 1);
}

#[test]
fn a_slow_next_hop_makes_the_message_ours_in_time() {
    let mut host = Host::new();
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.clean(id);
    host.pass(secs(120));
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    host.released(&[(0, ReleaseResult::Accepted)]);
    assert_eq!(host.state(id), None);
    assert_eq!(host.changes().last(), Some(&Change::Remove));
}

#[test]
fn results_that_come_while_it_becomes_ours_are_kept() {
    for store_works in [true, false] {
        let mut host = Host::new();
        let id = host.mark_upstream(2);
        host.worker("a", 1);
        host.verdict(id, deliver(id, 2));
        host.prompt = false;
        host.pass(secs(120));
        host.released(&[(0, ReleaseResult::Accepted), (1, ReleaseResult::Deferred)]);
        if store_works {
            host.stored(Stored::Done);
            let Change::Results { results } = &host.stores[0].2 else { panic!() };
            assert_eq!(results[0].recipient, 0, "it came after the adoption was written");
            host.stored(Stored::Done);
            host.pass(secs(10));
            assert_eq!(host.releases[0].2, [1]);
        } else {
            host.store_fails();
            assert!(matches!(host.answers()[..], [Answer::TryAgain { .. }]));
            assert_eq!(host.state(id), None);
        }
    }
}

#[test]
fn an_adoption_that_fails_while_sending_waits_for_the_results() {
    let mut host = Host::new();
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.clean(id);
    host.prompt = false;
    host.pass(secs(120));
    host.store_fails();
    assert_eq!(host.answers(), []);
    host.released(&[(0, ReleaseResult::Accepted)]);
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    assert_eq!(host.state(id), None);
}

#[test]
fn what_cannot_be_stored_stays_with_its_sender() {
    let mut host = upstream(WhenUnprocessed::Wait);
    let id = host.mark_upstream(1);
    host.prompt = false;
    host.pass(secs(120));
    host.store_fails();
    assert!(matches!(host.answers()[..], [Answer::TryAgain { .. }]));
    assert_eq!(host.state(id), None);
    assert!(host.seen.iter().any(|effect| matches!(effect, Effect::StopIntake { .. })));
}

#[test]
fn a_damaged_file_is_told_and_does_not_stop_the_rest() {
    let mut host = Host::new();
    let (damaged, theirs) = (host.mark(), host.mark_upstream(1));
    host.prompt = false;
    host.worker("a", 3);
    host.stored(Stored::Done);
    let upstream = host.assigns.iter().position(|a| a.message == theirs).unwrap();
    let ours = host.assigns.remove(1 - upstream).unwrap();
    let bad = || Assigned::Corrupted { reason: "checksum".to_owned() };
    host.pool.handle_assigned(ours.session, damaged, ours.fence, bad(), host.now);
    host.run();
    assert_eq!(host.state(damaged), None);
    assert_eq!(host.counters().corrupted, 1);
    host.sent(bad());
    assert!(matches!(host.answers()[..], [Answer::TryAgain { .. }]));
    host.prompt = true;
    host.mark();
    host.mark();
    assert_eq!(host.picture().reserved, 2, "its credits are free again");
}

#[test]
fn a_damaged_message_is_lost_wherever_it_is_and_stops_nothing() {
    let bad = || "checksum".to_owned();
    // Found by a store.
    let mut host = Host::new();
    host.prompt = false;
    let id = host.mark();
    host.worker("a", 1);
    host.stored(Stored::Damaged { reason: bad() });
    assert_eq!(host.state(id), None);
    // Found by the stream of a reservation that has ended by then.
    let id = host.mark();
    host.stored(Stored::Done);
    host.sent(Assigned::Sent { digest: digest(id) });
    let former = host.assigned[&id].clone();
    host.fails(id, "cut short");
    assert!(host.state(id).is_some());
    let found = Assigned::Corrupted { reason: bad() };
    host.pool.handle_assigned(former.session, id, former.fence, found, host.now);
    host.run();
    assert_eq!(host.state(id), None);
    // Found while its recipients are being served, and after.
    host.prompt = true;
    let id = host.mark();
    host.link("a", 2);
    host.worker("b", 1);
    host.clean(id);
    host.pool.handle_damaged(id, bad(), host.now);
    host.run();
    assert!(host.is(id, "releasing"), "whoever serves them says so");
    host.released(&[(0, ReleaseResult::Deferred)]);
    host.pool.handle_damaged(id, bad(), host.now);
    host.run();
    assert_eq!(host.state(id), None);
    assert_eq!(host.counters().corrupted, 3);
    assert!(!host.seen.iter().any(|effect| matches!(effect, Effect::StopIntake { .. })));
}

#[test]
fn a_draining_host_sends_its_senders_away_and_keeps_what_is_its_own() {
    let mut host = Host::new();
    let theirs = host.mark_upstream(1);
    let ours = host.mark();
    let a = host.worker("a", 2);
    host.pool.handle_drain(host.now);
    host.run();
    assert!(matches!(host.answers()[..], [Answer::TryAgain { .. }]));
    assert_eq!(host.state(theirs), None);
    host.mark_upstream(1);
    assert_eq!(host.answers().len(), 2, "nothing new is taken");
    assert_eq!(host.forgets(), [0, 0], "and none of it stays in memory");
    host.clean(ours);
    assert!(!host.pool.is_quiet(), "what was processed is still handed on");
    host.released(&[(0, ReleaseResult::Accepted)]);
    assert!(host.pool.is_quiet());
    host.want(a, 9);
    let later = host.mark();
    assert!(host.is(later, "waiting"));
}

#[test]
fn a_message_that_goes_round_is_held_at_once() {
    let mut host = Host::new();
    host.worker("a", 1);
    let marked = host.marked(Custody::Hook);
    let id = marked.id;
    host.file(marked.clone(), StoredState::Marked { attempts: 0 });
    host.pool.handle_marked_held(marked, "a mail loop", host.now);
    host.run();
    assert!(host.is(id, "held"));
    assert!(host.assigned.is_empty());
}

//! Rule 14: releasing from the hook's custody.

use super::super::*;
use super::host::*;
use crate::verdict::Disposition;
use ReleaseResult::{Accepted, Deferred, Refused, Unknown};

/// A message whose clean verdict is stored and which is on its way out.
fn releasing(recipients: u16) -> (Host, MessageId) {
    let mut host = Host::new();
    let id = host.mark_for(recipients);
    host.worker("a", 9);
    host.verdict(id, deliver(id, recipients));
    host.forget_seen();
    (host, id)
}

fn bounced(host: &Host) -> Vec<Vec<u16>> {
    let bounces = host.changes().into_iter().filter_map(|change| match change {
        Change::Bounce { results } => Some(results.iter().map(|result| result.recipient).collect()),
        _ => None,
    });
    bounces.collect()
}

#[test]
fn results_are_durable_before_the_next_step() {
    let (mut host, id) = releasing(2);
    host.prompt = false;
    host.released(&[(0, Accepted), (1, Deferred)]);
    assert!(matches!(&host.stores[0].2, Change::Results { results } if results.len() == 1));
    host.pass(secs(3_600));
    assert!(host.releases.is_empty(), "nothing goes on before");
    host.stored(Stored::Done);
    host.pass(secs(10));
    assert_eq!(host.releases[0].2, [1]);
    host.released(&[(1, Accepted)]);
    assert_eq!(host.stores[0].2, Change::Remove);
    assert!(host.is(id, "releasing"));
    host.stored(Stored::Done);
    assert_eq!(host.state(id), None);
    assert_eq!(host.counters().released, 1);
}

#[test]
fn results_that_could_not_be_recorded_are_recorded_later() {
    let (mut host, _) = releasing(2);
    host.prompt = false;
    host.released(&[(0, Accepted), (1, Deferred)]);
    host.store_fails();
    host.pass(secs(5));
    assert_eq!(host.releases[0].2, [1], "what was accepted is not sent again");
    host.released(&[(1, Deferred)]);
    let Change::Results { results } = &host.stores[0].2 else { panic!() };
    assert_eq!(results[0].recipient, 0);
}

#[test]
fn deferrals_back_off_until_the_queue_lifetime_is_over() {
    let mut host = Host::with(MailboxConfig { queue_lifetime: secs(3_600), ..mailbox() });
    let id = host.mark();
    host.worker("a", 1);
    host.clean(id);
    let (mut pauses, mut last) = (Vec::new(), host.now);
    for _ in 0..100 {
        if host.releases.is_empty() {
            break;
        }
        host.released(&[(0, Deferred)]);
        if let Some(message) = host.pool.message(id, host.now).filter(|m| m.state == "releasing") {
            assert_eq!(message.reasons, ["deferred: says Deferred"]);
        }
        while host.releases.is_empty() && host.state(id).is_some() {
            host.pass(secs(1));
        }
        pauses.push(host.now.since(last).as_secs());
        last = host.now;
    }
    assert_eq!(pauses[..5], [10, 20, 40, 80, 160]);
    assert!(pauses.iter().all(|pause| *pause <= 900));
    let Some(Change::Bounce { results }) =
        host.changes().into_iter().find(|change| matches!(change, Change::Bounce { .. }))
    else {
        panic!("its sender is told");
    };
    assert!(results[0].reply.contains("3600 s") && results[0].reply.contains("says Deferred"));
    assert_eq!(host.state(id), None);
    assert_eq!(host.counters().released, 0);
}

#[test]
fn time_in_the_pool_is_not_time_on_the_way_out() {
    let mut host = Host::with(MailboxConfig { queue_lifetime: secs(3_600), ..mailbox() });
    let id = host.mark();
    host.pass(secs(86_400));
    host.worker("a", 1);
    host.clean(id);
    (0..4).for_each(|_| {
        host.released(&[(0, Deferred)]);
        host.pass(secs(200));
    });
    assert!(host.is(id, "releasing"));
}

#[test]
fn a_refusal_is_told_to_the_sender_at_once_and_each_one_once() {
    let (mut host, id) = releasing(3);
    host.released(&[(0, Refused), (1, Accepted), (2, Deferred)]);
    assert_eq!(bounced(&host), [[0]]);
    host.pass(secs(10));
    host.released(&[(2, Refused)]);
    assert_eq!(bounced(&host), [[0], [2]]);
    assert_eq!(host.state(id), None);
}

#[test]
fn a_bounce_that_could_not_be_written_is_written_later() {
    let (mut host, id) = releasing(1);
    host.prompt = false;
    host.released(&[(0, Refused)]);
    host.stored(Stored::Done);
    host.store_fails();
    host.pass(secs(5));
    assert!(matches!(host.stores[0].2, Change::Bounce { .. }));
    host.stored(Stored::Bounced { notice: None });
    host.stored(Stored::Done);
    assert_eq!(host.state(id), None);
}

#[test]
fn a_notice_is_a_message_of_its_own() {
    let (mut host, id) = releasing(1);
    host.prompt = false;
    host.released(&[(0, Refused)]);
    host.stored(Stored::Done);
    let notice = host.marked(Custody::Hook);
    host.file(notice.clone(), StoredState::Releasing);
    host.stored(Stored::Bounced { notice: Some(notice.clone()) });
    assert_eq!(host.counters().notices, 1);
    host.stored(Stored::Done);
    assert_eq!(host.state(id), None);
    let (token, loading) = host.loads.pop_front().unwrap();
    assert_eq!(loading, notice.id);
    let verdict = Some(deliver(notice.id, 1));
    let log = StoredLog { verdict, recipients: 1, ..StoredLog::default() };
    host.pool.handle_loaded(token, Ok(log), host.now);
    host.run();
    host.released(&[(0, Refused)]);
    host.stored(Stored::Done);
    host.stored(Stored::Unreturnable);
    assert!(matches!(&host.stores[0].2, Change::SetAside { state: StoredState::Held, .. }));
    host.stored(Stored::Done);
    assert!(host.is(notice.id, "held"), "nobody is bounced a bounce");
}

#[test]
fn what_was_served_is_not_served_again_because_it_could_not_be_set_aside() {
    let mut host = Host::new();
    let id = host.mark_for(2);
    let a = host.worker("a", 9);
    host.verdict(id, verdict(id, vec![(vec![0], delivery()), (vec![1], quarantine())]));
    host.released(&[(0, Accepted)]);
    assert!(host.is(id, "quarantined"));

    let id = host.mark_for(2);
    host.verdict(id, verdict(id, vec![(vec![0], delivery()), (vec![1], quarantine())]));
    host.prompt = false;
    host.released(&[(0, Accepted)]);
    host.stored(Stored::Done);
    host.store_fails();
    host.prompt = true;
    host.pass_beating(secs(5), &[a]);
    assert!(host.is(id, "quarantined"));
    assert!(host.releases.is_empty(), "and nobody got it twice");
}

#[test]
fn held_for_some_comes_before_quarantined_for_others() {
    let mut host = Host::new();
    let id = host.mark_for(2);
    host.worker("a", 1);
    let hold = Disposition::Hold { reason: "encrypted".to_owned() };
    host.verdict(id, verdict(id, vec![(vec![0], quarantine()), (vec![1], hold)]));
    assert!(host.is(id, "held"));
}

#[test]
fn a_lost_answer_is_tried_again_and_counted() {
    let (mut host, _) = releasing(1);
    host.released(&[(0, Unknown)]);
    assert_eq!(host.counters().possible_duplicates, 1);
    host.pass(secs(10));
    assert_eq!(host.releases[0].2, [0]);
}

#[test]
fn results_for_strangers_and_second_results_are_ignored() {
    let (mut host, _) = releasing(2);
    host.released(&[(0, Accepted), (0, Refused), (9, Refused)]);
    host.pass(secs(10));
    assert_eq!(host.releases[0].2, [1]);
    assert_eq!(bounced(&host), [[0_u16; 0]; 0]);
}

#[test]
fn no_more_releases_at_once_than_the_mailbox_allows() {
    let mut host = Host::with(MailboxConfig { releases_max: 2, ..mailbox() });
    host.worker("a", 9);
    for _ in 0..3 {
        let id = host.mark();
        host.clean(id);
    }
    assert_eq!(host.releases.len(), 2);
    host.released(&[(0, Accepted)]);
    assert_eq!(host.releases.len(), 2);
}

#[test]
fn after_a_restart_only_the_unrecorded_are_served() {
    let mut host = Host::new();
    let id = host.recover(StoredState::Releasing);
    let (token, _) = host.loads.pop_front().unwrap();
    let served = RecipientResult { recipient: 1, result: Accepted, reply: String::new() };
    let log = StoredLog {
        verdict: Some(deliver(id, 3)),
        results: vec![served],
        recipients: 3,
        ..StoredLog::default()
    };
    host.pool.handle_loaded(token, Ok(log), host.now);
    host.run();
    assert_eq!(host.releases[0].2, [0, 2]);
    assert_eq!(host.changes(), [], "what is stored is not stored again");
}

#[test]
fn without_a_stored_verdict_nothing_leaves() {
    for store_works in [true, false] {
        let mut host = Host::new();
        let id = host.recover(StoredState::Releasing);
        let (token, _) = host.loads.pop_front().unwrap();
        host.prompt = false;
        let log = StoredLog { recipients: 1, ..StoredLog::default() };
        host.pool.handle_loaded(token, Ok(log), host.now);
        host.run();
        if store_works {
            host.stored(Stored::Done);
            assert!(host.is(id, "held"));
        } else {
            host.store_fails();
            host.pass(secs(5));
            assert_eq!(host.loads.len(), 1, "it is read again");
        }
        assert!(host.releases.is_empty());
    }
}

#[test]
fn a_file_that_cannot_be_read_now_is_read_later_and_a_damaged_one_is_told() {
    let mut host = Host::new();
    let id = host.recover(StoredState::Releasing);
    let (token, _) = host.loads.pop_front().unwrap();
    host.pool.handle_load_failed(token, "EIO".to_owned(), host.now);
    host.run();
    assert!(host.is(id, "releasing"));
    host.pass(secs(5));
    let (token, _) = host.loads.pop_front().unwrap();
    host.pool.handle_loaded(token, Err("checksum".to_owned()), host.now);
    host.run();
    assert_eq!(host.state(id), None);
    assert_eq!(host.counters().corrupted, 1);
}

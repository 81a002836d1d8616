//! What lies on the shelf, and how it comes back: with a window of four messages.

use super::super::*;
use super::host::*;
use crate::frame::HostControl;
use ReleaseResult::{Accepted, Deferred};

const WINDOW: usize = 4;

fn host() -> Host {
    with(mailbox())
}

fn with(mailbox: MailboxConfig) -> Host {
    let mut host = Host::with(mailbox);
    host.pool.config.window = WINDOW;
    host
}

fn old(counter: u64) -> Marked {
    Marked {
        id: MessageId { epoch: 4, counter },
        mailbox: MAILBOX,
        custody: Custody::Hook,
        length: 1_000,
        recipients: 1,
        since: START - secs(900 - counter),
        attempts: 0,
    }
}

fn found(count: u64, state: StoredState) -> Vec<(Marked, StoredState)> {
    (1..=count).map(|counter| (old(counter), state)).collect()
}

const FRESH: StoredState = StoredState::Marked { attempts: 0 };

#[test]
fn memory_holds_a_window_and_the_counts_are_whole() {
    let mut host = host();
    host.open(found(100, FRESH));
    let new: Vec<MessageId> = (0..50).map(|_| host.mark()).collect();
    assert_eq!(host.pool.messages.len(), WINDOW);
    assert_eq!(host.shelf.len(), 146);
    assert!(new.iter().all(|id| host.shelf.contains(id)), "they join it behind");
    let picture = host.picture();
    assert_eq!((picture.waiting, picture.backlog.messages), (150, 150));
    assert_eq!((picture.backlog.bytes, picture.messages.len()), (150_000, 150));
    let (first, more) = host.pool.messages(|word| word == "waiting", 3, &[], host.now);
    assert_eq!((first.len(), more), (3, 147));
    let a = host.worker("a", 0);
    host.pass(secs(2));
    let told = host.controls(a).into_iter().rev().find_map(|frame| match frame {
        HostControl::Backlog(backlog) => Some(backlog),
        _ => None,
    });
    let told = told.expect("it was told of what waits");
    assert_eq!((told.messages, told.bytes), (150, 150_000));
    assert!(told.oldest_ms >= 899_000, "the oldest is in the window: {told:?}");
}

#[test]
fn all_of_them_come_oldest_first() {
    let mut host = host();
    host.open(found(20, FRESH));
    let new: Vec<MessageId> = (0..5).map(|_| host.mark()).collect();
    host.worker("a", 100);
    let given: Vec<MessageId> = host.assigned.keys().copied().collect();
    let wanted = (1..=20).map(|counter| old(counter).id).chain(new).collect::<Vec<_>>();
    assert_eq!(given, wanted);
    assert!(host.shelf.is_empty() && host.pool.shelves.is_empty());
    let fences: Vec<Fence> = wanted.iter().map(|id| host.assigned[id].fence).collect();
    assert!(fences.is_sorted(), "in their order");
}

#[test]
fn what_has_attempts_is_here_when_its_worker_asks_about_it() {
    let mut host = host();
    let mut all = found(50, FRESH);
    all.push((old(60), StoredState::Marked { attempts: 1 }));
    host.open(all);
    let fence = Fence { epoch: 4, counter: 9 };
    let id = old(60).id;
    let held = Assignment {
        session: Session(1),
        message: id,
        mailbox: MAILBOX,
        fence,
        attempt: 1,
        asked: Vec::new(),
        findings: Vec::new(),
        time_max: secs(1),
        silence_max: secs(1),
    };
    host.link_with("a", &[VIRUS], resuming("a", 1, &[&held]));
    assert_eq!(host.status(id).attempts, 0, "the host was away, not the worker");
}

#[test]
fn a_refill_that_brings_nothing_is_not_asked_for_again_and_again() {
    let mut host = host();
    let count = Shelved { messages: 7, bytes: 7_000 };
    host.pool.handle_opened([((MAILBOX, Shelf::Waiting), count)], host.now);
    host.run();
    assert_eq!(host.picture().waiting, 0);
    let id = host.mark();
    assert!(host.is(id, "waiting") && host.shelf.is_empty());
}

#[test]
fn too_many_suspects_lie_on_a_shelf_of_their_own() {
    let mut host = host();
    let a = host.worker("a", 30);
    let ids: Vec<MessageId> = (0..10).map(|_| host.mark()).collect();
    host.pool.handle_drain(host.now);
    for id in &ids {
        host.fails(*id, "nothing came of it");
    }
    assert_eq!(host.pool.messages.len(), WINDOW);
    assert_eq!(host.shelf.len(), 6);
    assert_eq!(host.picture().waiting, 10);
    host.pool.draining = false;
    let fresh = host.mark();
    assert!(host.is(fresh, "dispatched for a"), "it does not wait behind them");
    host.clean(fresh);
    // They are tried one at a time, and all of them come.
    for _ in 0..20 {
        let given: Vec<MessageId> =
            ids.iter().filter(|id| host.is(**id, "dispatched for a")).copied().collect();
        assert!(given.len() <= 1);
        for id in given {
            assert_eq!(host.assigned[&id].attempt, 2);
            host.clean(id);
        }
        host.beat(a);
    }
    assert_eq!(host.picture().waiting, 0);
}

#[test]
fn what_is_set_aside_costs_no_entry() {
    let mut host = host();
    host.worker("a", 10);
    let id = host.mark();
    host.verdict(id, verdict(id, vec![(vec![0], quarantine())]));
    assert!(host.pool.messages.is_empty() && host.shelf.contains(&id));
    assert_eq!(host.picture().quarantined, 1);
    host.operate(id, StoredState::Quarantined, Operation::Release).unwrap();
    assert_eq!(host.picture().quarantined, 0);
    assert!(host.is(id, "dispatched for a"));
}

#[test]
fn what_an_operator_put_back_onto_a_full_shelf_still_leaves_by_a_verdict_only() {
    let rule = WhenUnprocessed::ReleaseUnscanned { after: secs(100) };
    let mut host = with(MailboxConfig { when_unprocessed: rule, ..mailbox() });
    let mut all = vec![(old(99), StoredState::Held)];
    all.extend(found(10, FRESH));
    host.open(all);
    let id = old(99).id;
    host.operate(id, StoredState::Held, Operation::Release).unwrap();
    assert!(host.shelf.contains(&id) && host.files[&id].note.requeued);
    host.pass(secs(86_400));
    assert_eq!(host.picture().waiting, 1, "the others left by the rule");
    assert!(host.is(id, "waiting"));
}

/// A rule with a time reaches what lies on the shelf as its turn comes.
#[test]
fn the_rule_for_unprocessed_mail_reaches_all() {
    let rule = WhenUnprocessed::Hold { after: secs(100) };
    let mut host = with(MailboxConfig { when_unprocessed: rule, ..mailbox() });
    for _ in 0..30 {
        host.mark();
    }
    host.pass(secs(99));
    assert_eq!(host.picture().held, 0);
    host.pass(secs(1));
    assert_eq!(host.picture().held, 30);
    assert!(host.pool.messages.is_empty());
}

fn releasing(count: u64) -> Host {
    let mailbox = MailboxConfig { releases_max: 2, ..mailbox() };
    let mut host = with(mailbox);
    host.open(found(count, StoredState::Releasing));
    host
}

/// Answers whatever is asked for of releases; returns who was tried.
fn serve(host: &mut Host, result: ReleaseResult) -> Vec<MessageId> {
    let mut tried = Vec::new();
    loop {
        if let Some((token, id)) = host.loads.pop_front() {
            let log =
                StoredLog { verdict: Some(deliver(id, 1)), recipients: 1, ..StoredLog::default() };
            host.pool.handle_loaded(token, Ok(log), host.now);
            host.run();
        } else if let Some((_, id, _)) = host.releases.front() {
            tried.push(*id);
            host.released(&[(0, result)]);
        } else {
            return tried;
        }
    }
}

#[test]
fn deferred_releases_take_turns_and_wait_ever_longer() {
    let mut host = releasing(30);
    let first = serve(&mut host, Deferred);
    assert_eq!(first.len(), 30, "each is tried once before any is tried again");
    assert!(host.pool.messages.len() <= WINDOW, "{}", host.pool.messages.len());
    assert_eq!(host.picture().releasing, 30);
    let mut tries: BTreeMap<MessageId, u32> = BTreeMap::new();
    for _ in 0..120 {
        host.pass(secs(5));
        for id in serve(&mut host, Deferred) {
            *tries.entry(id).or_default() += 1;
        }
    }
    // Ten minutes, with pauses of 10, 20, 40, 80, 160 and 320 seconds and a look at the shelf every ten.
    assert_eq!(tries.len(), 30);
    assert!(tries.values().all(|tries| (4..=6).contains(tries)), "{tries:?}");
    for _ in 0..200 {
        host.pass(secs(5));
        serve(&mut host, Accepted);
    }
    assert_eq!(host.picture().releasing, 0);
    assert!(host.files.is_empty() && host.shelf.is_empty());
}

#[test]
fn one_deferred_release_on_the_shelf_holds_up_no_new_one() {
    let mut host = releasing(30);
    serve(&mut host, Deferred);
    host.worker("a", 10);
    let id = host.mark();
    host.clean(id);
    assert_eq!(serve(&mut host, Accepted), [id]);
    assert!(!host.files.contains_key(&id));
}

#[test]
fn a_next_hop_that_takes_its_time_fills_no_memory() {
    let mut host = releasing(0);
    host.worker("a", 100);
    let ids: Vec<MessageId> = (0..50).map(|_| host.mark()).collect();
    ids.iter().for_each(|id| host.clean(*id));
    assert!(host.pool.messages.len() <= WINDOW + 2, "{}", host.pool.messages.len());
    assert_eq!(host.picture().releasing, 50);
    assert_eq!(serve(&mut host, Accepted).len(), 50);
    assert!(host.files.is_empty());
}

#[test]
fn the_queues_lifetime_counts_from_the_first_try_on_the_shelf_too() {
    let mut host = with(MailboxConfig {
        queue_lifetime: secs(3_600),
        retry_max: secs(600),
        releases_max: 2,
        ..mailbox()
    });
    host.open(found(20, FRESH));
    host.pass(secs(10 * 3_600));
    host.worker("a", 100);
    let ids: Vec<MessageId> = host.assigned.keys().copied().collect();
    ids.iter().for_each(|id| host.clean(*id));
    serve(&mut host, Deferred);
    for _ in 0..60 {
        host.pass(secs(30));
        serve(&mut host, Deferred);
    }
    assert_eq!(
        host.picture().releasing,
        20,
        "they waited ten hours for a worker, not for the way out"
    );
    for _ in 0..300 {
        host.pass(secs(30));
        serve(&mut host, Deferred);
    }
    assert_eq!(host.picture().releasing, 0);
}

//! Warnings by age: one for each mailbox in each `warn_after`, with or without links.

use super::super::*;
use super::host::*;

fn warned(host: &Host) -> Vec<(MessageId, u64)> {
    let aged = host.events().filter_map(|event| match event {
        Event::Aged { message, age } => Some((*message, age.as_secs())),
        _ => None,
    });
    aged.collect()
}

fn host() -> Host {
    Host::with(MailboxConfig { warn_after: secs(100), ..mailbox() })
}

#[test]
fn the_oldest_is_told_of_once_in_each_interval() {
    let mut host = host();
    let first = host.mark();
    host.pass(secs(10));
    host.mark();
    host.pass(secs(89));
    assert_eq!(warned(&host), []);
    host.pass(secs(1));
    assert_eq!(warned(&host), [(first, 100)]);
    host.pass(secs(99));
    assert_eq!(warned(&host).len(), 1);
    host.pass(secs(1));
    assert_eq!(warned(&host), [(first, 100), (first, 200)]);
}

#[test]
fn what_goes_in_time_is_not_told_of() {
    let mut host = host();
    let first = host.mark();
    host.pass(secs(50));
    let second = host.mark();
    let a = host.worker("a", 1);
    assert!(host.is(first, "dispatched for a"));
    host.clean(first);
    host.lose(a);
    host.pass(secs(99));
    assert_eq!(warned(&host), []);
    host.pass(secs(1));
    assert_eq!(warned(&host), [(second, 100)]);
}

#[test]
fn an_empty_mailbox_sets_no_timer_for_ever() {
    let mut host = host();
    let id = host.mark();
    host.worker("a", 1);
    host.clean(id);
    host.released(&[(0, ReleaseResult::Accepted)]);
    host.lose(Session(1));
    host.pass(secs(1_000));
    assert_eq!(host.pool.next_timeout(), None);
    assert_eq!(warned(&host), []);
}

#[test]
fn what_a_start_finds_too_old_is_told_of_at_once() {
    let mut host = host();
    let old = Marked { since: host.now - secs(500), ..host.marked(Custody::Hook) };
    let id = old.id;
    let state = StoredState::Marked { attempts: 2 };
    host.open(vec![(old, state)]);
    host.pass(secs(0));
    assert_eq!(warned(&host), [(id, 500)], "suspects are waiting too");
}

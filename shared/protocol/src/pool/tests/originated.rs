//! Rules 15, 16 and 17: messages that a verdict originates, and what a rejection becomes when it comes too late.

use gantry_mail::Mask;

use super::super::*;
use super::host::*;
use crate::frame::Settled;
use crate::limits::{ORIGINATED_BYTES_MAX, ORIGINATED_MAX};
use crate::verdict::{Disposition, Originated, OriginatedTo, Outcome, Verdict};

fn allowing() -> MailboxConfig {
    let originated = OriginatedAllowed {
        senders: vec![Mask::new("")],
        recipients: vec![Mask::new("postmaster@*.example")],
        to_sender: true,
        to_recipients: true,
    };
    MailboxConfig { originated: Some(originated), ..mailbox() }
}

fn notice() -> Originated {
    Originated {
        sender: String::new(),
        recipients: vec![OriginatedTo::Address("Postmaster@mx.example".to_owned())],
        message: b"Subject: found\r\n\r\n".to_vec(),
        original_at: None,
    }
}

fn with_notice(verdict: Verdict) -> Verdict {
    Verdict { originated: vec![notice()], ..verdict }
}

/// How a verdict that originates this fares in this mailbox: the refusal's reason, if it is refused.
fn refusal_of(mailbox: MailboxConfig, change: impl FnOnce(&mut Vec<Originated>)) -> Option<String> {
    let mut host = Host::with(mailbox);
    let id = host.mark();
    let session = host.worker("a", 1);
    let mut verdict = deliver(id, 1);
    change(&mut verdict.originated);
    host.verdict(id, verdict);
    match host.settled(session).pop().unwrap() {
        Settled::Applied => None,
        Settled::Refused { reason } => {
            assert!(host.is(id, "waiting") && host.releases.is_empty());
            Some(reason)
        }
    }
}

#[track_caller]
fn refused(word: &str, change: impl FnOnce(&mut Originated)) {
    let reason = refusal_of(allowing(), |all| {
        all.push(notice());
        change(&mut all[0]);
    });
    let reason = reason.expect("it is refused");
    assert!(reason.contains(word), "{reason:?} should speak of {word:?}");
}

/// A message that the spool has just written.
fn child(host: &mut Host) -> Marked {
    host.marked(Custody::Hook)
}

#[test]
fn a_host_that_was_not_told_refuses_and_names_the_key() {
    let reason = refusal_of(mailbox(), |all| all.push(notice())).unwrap();
    assert!(reason.contains("[mailbox.originated]") && reason.contains("mail.box"), "{reason}");
    let none = MailboxConfig { originated: Some(OriginatedAllowed::default()), ..mailbox() };
    let reason = refusal_of(none, |all| all.push(notice())).unwrap();
    assert!(reason.contains("senders"), "{reason}");
}

#[test]
fn only_whom_the_mailbox_allows() {
    assert_eq!(refusal_of(allowing(), |all| all.push(notice())), None);
    let to = |to| move |one: &mut Originated| one.recipients = vec![to];
    let address = |text: &str| OriginatedTo::Address(text.to_owned());
    refused("senders", |one| one.sender = "boss@mx.example".to_owned());
    refused("recipients", to(address("victim@elsewhere.test")));
    refused("recipients", to(address("postmaster@x.example>\r\nRCPT TO:<v@elsewhere.example")));
    refused("recipients", to(address("postmaster@a b.example")));
    refused("recipient 1", to(OriginatedTo::Recipient(1)));
    for role in [OriginatedTo::Sender, OriginatedTo::Recipient(0)] {
        let with = |mailbox| {
            refusal_of(mailbox, |all| {
                all.push(Originated { recipients: vec![role.clone()], ..notice() });
            })
        };
        assert_eq!(with(allowing()), None);
        let mut stricter = allowing();
        let allowed = stricter.originated.as_mut().unwrap();
        (allowed.to_sender, allowed.to_recipients) = (false, false);
        assert!(with(stricter).unwrap().contains("recipients"));
    }
}

#[test]
fn what_a_verdict_originates_is_bounded() {
    refused("0 recipients", |one| one.recipients.clear());
    refused("bytes", |one| one.message = vec![b'x'; ORIGINATED_BYTES_MAX + 1]);
    refused("behind the end", |one| one.original_at = Some(1_000));
    let reason = refusal_of(allowing(), |all| all.extend(vec![notice(); ORIGINATED_MAX + 1]));
    assert!(reason.unwrap().contains("at most"));
    // The original leaves in a copy no more unscanned than by itself.
    let mut host = Host::with(allowing());
    let id = host.mark();
    let session = host.worker("a", 1);
    let mut verdict = with_notice(verdict(id, vec![(vec![0], quarantine())]));
    verdict.originated[0].original_at = Some(0);
    verdict.findings[0].outcome = Outcome::Unscanned { reason: "clamd said ERROR".to_owned() };
    host.verdict(id, verdict);
    assert!(matches!(host.settled(session)[..], [Settled::Refused { .. }]));
}

#[test]
fn it_is_written_before_anybody_is_served_and_goes_out_by_itself() {
    let mut host = Host::with(allowing());
    let id = host.mark();
    let session = host.worker("a", 1);
    host.prompt = false;
    host.verdict(id, with_notice(deliver(id, 1)));
    host.stored(Stored::Done);
    assert!(matches!(host.settled(session)[..], [Settled::Applied]));
    assert!(host.releases.is_empty() && host.loads.is_empty());
    assert!(matches!(host.stores[0].2, Change::Originate { verdict: None }));

    // The disk is full for a while: it is asked again, and nothing leaves before.
    host.store_fails();
    assert!(host.releases.is_empty());
    host.pass_beating(secs(5), &[session]);
    assert!(matches!(host.stores[0].2, Change::Originate { verdict: None }));

    let notice = child(&mut host);
    host.stored(Stored::Originated { messages: vec![notice.clone()] });
    assert_eq!(host.releases.len(), 1, "the message itself");
    assert_eq!(host.loads[0].1, notice.id, "and the other one");
    let told = Event::Originated { message: notice.id, from: id };
    assert!(host.events().any(|event| *event == told));
    assert_eq!(host.counters().originated, 1);
    host.released(&[(0, ReleaseResult::Accepted)]);
    host.stored(Stored::Done);
    assert_eq!(host.state(id), None);
    assert!(host.is(notice.id, "releasing"), "it lives on alone");
}

#[test]
fn quarantine_comes_after_the_notice_and_keeps_its_reason() {
    let mut host = Host::with(allowing());
    let id = host.mark();
    host.worker("a", 1);
    host.forget_seen();
    host.verdict(id, with_notice(verdict(id, vec![(vec![0], quarantine())])));
    let changes = host.changes();
    let [Change::Settle { .. }, Change::Originate { .. }, Change::SetAside { state, reasons, .. }] =
        &changes[..]
    else {
        panic!("{changes:?}");
    };
    assert_eq!((*state, &reasons[..]), (StoredState::Quarantined, &["EICAR".to_owned()][..]));
    assert!(host.is(id, "quarantined"));
}

#[test]
fn discarded_for_all_and_yet_announced() {
    let mut host = Host::with(allowing());
    let id = host.mark();
    host.worker("a", 1);
    host.forget_seen();
    host.verdict(id, with_notice(verdict(id, vec![(vec![0], Disposition::Discard)])));
    let changes = host.changes();
    let expected =
        matches!(changes[..], [Change::Settle { .. }, Change::Originate { .. }, Change::Remove]);
    assert!(expected, "{changes:?}");
    assert_eq!(host.state(id), None);
}

#[test]
fn after_a_start_what_is_missing_is_written_first() {
    let mut host = Host::with(allowing());
    host.prompt = false;
    let id = host.recover(StoredState::Releasing);
    let (token, _) = host.loads.pop_front().unwrap();
    let verdict = Some(with_notice(deliver(id, 1)));
    let log = StoredLog { verdict, recipients: 1, originates: true, ..StoredLog::default() };
    host.pool.handle_loaded(token, Ok(log), host.now);
    host.run();
    assert!(host.releases.is_empty());
    assert!(matches!(host.stores[0].2, Change::Originate { verdict: None }));
    host.stored(Stored::Originated { messages: Vec::new() });
    assert_eq!(host.releases.len(), 1);
}

#[test]
fn a_message_found_beside_missing_ones_brings_them_along() {
    let mut host = Host::with(allowing());
    let id = host.recover(StoredState::Releasing);
    let (token, _) = host.loads.pop_front().unwrap();
    let other = child(&mut host);
    let (verdict, beside) = (Some(deliver(id, 1)), vec![other.clone()]);
    let log = StoredLog { verdict, recipients: 1, beside, ..StoredLog::default() };
    host.pool.handle_loaded(token, Ok(log), host.now);
    host.run();
    assert_eq!(host.loads[0].1, other.id);
    assert_eq!(host.releases.len(), 1);
}

#[test]
fn a_waiting_sender_is_answered_after_it_is_durable() {
    let mut host = Host::with(allowing());
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.verdict(id, with_notice(deliver(id, 1)));
    host.prompt = false;
    host.released(&[(0, ReleaseResult::Accepted)]);
    assert_eq!(host.answers(), []);
    assert!(matches!(host.stores[0].2, Change::Originate { verdict: None }));
    host.stored(Stored::Originated { messages: Vec::new() });
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    assert_eq!(host.state(id), None);
}

#[test]
fn a_sender_that_keeps_its_message_causes_no_notice() {
    let mut host = Host::with(allowing());
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.forget_seen();
    host.verdict(id, with_notice(deliver(id, 1)));
    host.released(&[(0, ReleaseResult::Deferred)]);
    assert!(matches!(host.answers()[..], [Answer::TryAgain { .. }]));
    assert!(!host.changes().iter().any(|change| matches!(change, Change::Originate { .. })));
}

#[test]
fn a_waiting_sender_is_told_no_after_it_is_durable() {
    let mut host = Host::with(allowing());
    let (first, second) = (host.mark_upstream(1), host.mark_upstream(1));
    host.worker("a", 9);
    host.prompt = false;
    for id in [first, second] {
        host.verdict(id, with_notice(verdict(id, vec![(vec![0], refusal())])));
    }
    assert_eq!(host.answers(), []);
    assert!(matches!(host.stores[0].2, Change::Originate { verdict: Some(_) }));
    host.stored(Stored::Originated { messages: Vec::new() });
    host.store_fails();
    let answers = host.answers();
    assert!(
        matches!(answers[..], [Answer::Refused { code: 554, .. }, Answer::TryAgain { .. }]),
        "{answers:?}"
    );
}

#[test]
fn a_full_disk_after_the_release_asks_the_sender_to_try_again() {
    let mut host = Host::with(allowing());
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.verdict(id, with_notice(deliver(id, 1)));
    host.prompt = false;
    host.released(&[(0, ReleaseResult::Accepted)]);
    host.store_fails();
    assert!(matches!(host.answers()[..], [Answer::TryAgain { .. }]));
    assert_eq!(host.state(id), None);
}

#[test]
fn a_waiting_senders_quarantine_is_taken_into_custody_first() {
    let mut host = Host::with(allowing());
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.prompt = false;
    host.verdict(id, with_notice(verdict(id, vec![(vec![0], quarantine())])));
    let adopts = |change: &Change| {
        let state = StoredState::Releasing;
        matches!(change, Change::Adopt { state: to, verdict: Some(_), .. } if *to == state)
    };
    assert!(adopts(&host.stores[0].2) && host.answers().is_empty());
    host.stored(Stored::Done);
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    assert!(matches!(host.stores[0].2, Change::Originate { verdict: None }));
    host.stored(Stored::Originated { messages: Vec::new() });
    assert!(matches!(host.stores[0].2, Change::SetAside { .. }));
    host.stored(Stored::Done);
    assert!(host.is(id, "quarantined"));
}

#[test]
fn a_late_rejection_becomes_what_the_mailbox_says() {
    for (reject_late, state) in [
        (RejectLate::Quarantine, Some("quarantined")),
        (RejectLate::Hold, Some("held")),
        (RejectLate::Discard, None),
    ] {
        let mut host = Host::with(MailboxConfig { reject_late, ..mailbox() });
        let id = host.mark();
        host.worker("a", 1);
        host.verdict(id, verdict(id, vec![(vec![0], refusal())]));
        assert_eq!(host.state(id).as_deref(), state, "{reject_late:?}");
    }
}

#[test]
fn behind_a_queue_nobody_is_told_no() {
    let mut host = Host::with(MailboxConfig { behind_queue: true, ..mailbox() });
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.verdict(id, verdict(id, vec![(vec![0], refusal())]));
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    assert!(host.is(id, "quarantined"));
}

//! Rules 4, 6, 15, 17 and 20: what a verdict must say, and what becomes of what it says.

use gantry_mail::HeaderEdit;

use super::super::*;
use super::host::*;
use crate::frame::Settled;
use crate::id::Digest;
use crate::verdict::{Body, Disposition, Outcome, Verdict};

/// How a verdict for two recipients fares: the refusal's reason, or what was stored.
fn fares(change: impl FnOnce(&mut Verdict)) -> Result<Vec<Change>, String> {
    let mut host = Host::new();
    let id = host.mark_for(2);
    let session = host.worker("a", 1);
    let mut verdict = deliver(id, 2);
    change(&mut verdict);
    host.forget_seen();
    host.verdict(id, verdict);
    match host.settled(session).pop().unwrap() {
        Settled::Applied => Ok(host.changes()),
        Settled::Refused { reason } => {
            assert!(host.is(id, "waiting"), "it is processed again");
            assert!(host.releases.is_empty());
            assert_eq!(host.counters().verdicts_refused, 1);
            assert!(host.events().any(|event| matches!(event, Event::Misbehaved { .. })));
            Err(reason)
        }
    }
}

#[track_caller]
fn refused(word: &str, change: impl FnOnce(&mut Verdict)) {
    let reason = fares(change).unwrap_err();
    assert!(reason.contains(word), "{reason:?} should speak of {word:?}");
}

#[test]
fn a_good_verdict_is_stored_and_released() {
    let changes = fares(|_| {}).unwrap();
    assert!(matches!(changes[..], [Change::Settle { .. }]));
}

#[test]
fn length_and_digest_must_be_those_of_the_message() {
    refused("bytes", |verdict| verdict.length = 999);
    refused("digest", |verdict| verdict.digest = Digest([1; 32]));
}

#[test]
fn every_recipient_is_named_exactly_once() {
    refused("not named", |verdict| verdict.groups[0].recipients = vec![0]);
    refused("twice", |verdict| verdict.groups[0].recipients = vec![0, 1, 0]);
    refused("recipient 2", |verdict| verdict.groups[0].recipients = vec![0, 1, 2]);
    refused("not named", |verdict| verdict.groups.clear());
    refused("no recipient", |verdict| {
        let empty = crate::verdict::Group { recipients: Vec::new(), disposition: quarantine() };
        verdict.groups.push(empty);
    });
}

#[test]
fn every_need_has_an_answer_before_anybody_gets_the_message() {
    refused("virus", |verdict| verdict.findings.clear());
    refused("virus", |verdict| verdict.findings[0].need = "spam".to_owned());
    let unscanned = Outcome::Unscanned { reason: "clamd said ERROR".to_owned() };
    refused("virus", |verdict| verdict.findings[0].outcome = unscanned.clone());
    let fine = fares(|verdict| {
        verdict.findings[0].outcome = unscanned;
        verdict.groups[0].disposition = Disposition::Hold { reason: "unscanned".to_owned() };
    });
    assert!(matches!(fine.unwrap()[..], [Change::SetAside { state: StoredState::Held, .. }]));
}

#[test]
fn lists_have_bounds_and_what_this_host_does_not_do_is_refused() {
    refused("findings", |verdict| {
        verdict.findings = vec![finding(Outcome::Clean); crate::limits::FINDINGS_MAX + 1];
    });
    refused("replaced", |verdict| {
        let body = Body::Replaced { length: 1, digest: Digest([0; 32]) };
        verdict.groups[0].disposition = Disposition::Deliver { edits: Vec::new(), body };
    });
}

#[test]
fn nothing_is_smuggled_into_a_header_block_or_a_reply() {
    refused("edit", |verdict| {
        let field = "X-A: b\r\n\r\nbody".to_owned();
        let edits = vec![HeaderEdit::Prepend { field }];
        verdict.groups[0].disposition = Disposition::Deliver { edits, body: Body::Original };
    });
    for (code, enhanced) in [
        (250, "5.0.0"),
        (451, "5.0.0"),
        (600, "5.0.0"),
        (550, "2.0.0"),
        (550, "5.7"),
        (550, "5.7.1 x"),
    ] {
        refused("5xx", |verdict| {
            let (enhanced, text) = (enhanced.to_owned(), String::new());
            verdict.groups[0].disposition = Disposition::Refuse { code, enhanced, text };
        });
    }
}

#[test]
fn after_our_yes_a_refusal_becomes_quarantine() {
    let changes = fares(|verdict| verdict.groups[0].disposition = refusal()).unwrap();
    let [Change::SetAside { state: StoredState::Quarantined, reasons, verdict: Some(_) }] =
        &changes[..]
    else {
        panic!("{changes:?}");
    };
    assert!(reasons[0].contains("late rejection"));
}

#[test]
fn a_waiting_sender_is_told_no() {
    let mut host = Host::new();
    let id = host.mark_upstream(2);
    host.worker("a", 1);
    let (code, enhanced, text) = (554, "5.7.1".to_owned(), "infected\r\n250 fine".to_owned());
    let no = Disposition::Refuse { code, enhanced, text };
    host.verdict(id, verdict(id, vec![(vec![0, 1], no)]));
    let [Answer::Refused { code: 554, text, .. }] = &host.answers()[..] else { panic!() };
    assert_eq!(text, "infected  250 fine", "a reply stays one line");
    assert_eq!(host.state(id), None);
    assert_eq!(host.changes(), []);
    assert_eq!(host.forgets(), [0]);
}

#[test]
fn a_refusal_of_some_recipients_is_quarantined_for_them() {
    let mut host = Host::new();
    let id = host.mark_upstream(2);
    host.worker("a", 1);
    host.verdict(id, verdict(id, vec![(vec![0], refusal()), (vec![1], delivery())]));
    assert_eq!(host.releases[0].2, [1]);
    host.released(&[(1, ReleaseResult::Accepted)]);
    assert!(host.is(id, "quarantined"));
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
}

#[test]
fn quarantine_is_durable_before_the_sender_hears_yes() {
    let mut host = Host::new();
    let id = host.mark_upstream(1);
    host.worker("a", 1);
    host.prompt = false;
    host.verdict(id, verdict(id, vec![(vec![0], quarantine())]));
    assert_eq!(host.answers(), []);
    assert!(matches!(host.stores[0].2, Change::Adopt { state: StoredState::Quarantined, .. }));
    host.stored(Stored::Done);
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    assert!(host.is(id, "quarantined"));
    assert_eq!(host.counters().quarantined, 1);
}

#[test]
fn discarded_is_gone_in_both_custodies() {
    let mut host = Host::new();
    host.worker("a", 9);
    let ours = host.mark();
    host.verdict(ours, verdict(ours, vec![(vec![0], Disposition::Discard)]));
    assert_eq!(host.changes().last(), Some(&Change::Remove));
    let theirs = host.mark_upstream(1);
    host.verdict(theirs, verdict(theirs, vec![(vec![0], Disposition::Discard)]));
    assert!(matches!(host.answers()[..], [Answer::Accepted { .. }]));
    assert_eq!((host.state(ours), host.state(theirs)), (None, None));
}

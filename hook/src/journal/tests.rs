//! Lives are kept, found again, and bounded.

use std::fs;
use std::path::Path;

use gantry_protocol::id::Fence;
use gantry_protocol::pool::{Ending, MailboxIndex, ReleaseResult, StoredState};
use gantry_protocol::verdict::{Finding, Outcome};
use tempfile::tempdir;

use super::*;
use crate::spool::HISTORY_FILE;

const ABOUT: About = About { mailbox: MailboxIndex(0), attempts: 1, since: Moment(0) };

fn id(counter: u64) -> MessageId {
    MessageId { epoch: 3, counter }
}

/// A journal in a folder; its thread ends with the second value.
fn journal(folder: &Path, bytes_max: u64) -> (Journal, gantry_daemon::lines::Draining) {
    let (history, draining) = History::start(folder, bytes_max).unwrap();
    (Journal::new(vec!["mail.box".to_owned()], Some(history)), draining)
}

fn find(journal: &Journal, id: MessageId) -> Kept {
    journal.history().unwrap().find(id).unwrap()
}

fn note(journal: &mut Journal, event: &Event, unix_ms: u64) {
    journal.handle_event(event, Some(&ABOUT), Moment(unix_ms), unix_ms);
}

#[test]
fn a_life_has_node_module_engine_signatures_and_the_next_hops_reply() {
    let folder = tempdir().unwrap();
    let (mut kept, _draining) = journal(folder.path(), 1 << 20);
    let message = id(1);
    let grabber = "pc-1".to_owned();
    let finding = Finding {
        need: "virus".to_owned(),
        module: "clamav".to_owned(),
        engine: "ClamAV 1.4.3".to_owned(),
        signatures: "27800".to_owned(),
        outcome: Outcome::Clean,
        duration_ms: 12,
    };
    let fence = Fence { epoch: 3, counter: 9 };
    let replies = vec![(ReleaseResult::Accepted, "250 2.0.0 queued as 7".to_owned(), 2)];
    for (unix_ms, event) in [
        Event::Marked { message },
        Event::Reserved { message, grabber: grabber.clone(), fence, attempt: 1 },
        Event::Verdict { message, grabber, findings: vec![finding] },
        Event::Released {
            message,
            accepted: 2,
            deferred: 0,
            refused: 0,
            possible_duplicates: 0,
            replies,
        },
        Event::Done { message, ending: Ending::Released },
    ]
    .into_iter()
    .enumerate()
    {
        note(&mut kept, &event, unix_ms as u64);
    }
    let Kept { mailbox, steps } = find(&kept, message);
    assert_eq!(mailbox, "mail.box");
    let words: Vec<&str> = steps.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(words, ["marked", "dispatched", "verdict", "released", "done"]);
    assert_eq!(steps[2].node.as_deref(), Some("pc-1"));
    assert_eq!(steps[2].detail, "virus: clean (clamav, ClamAV 1.4.3, 27800, 12 ms)");
    assert_eq!(steps[3].detail, "accepted for 2: 250 2.0.0 queued as 7");
    assert!(kept.latest.is_empty(), "a message that has left costs nothing");
    // Ids that begin alike are others.
    assert_eq!(find(&kept, id(2)), Kept::default());
    assert_eq!(find(&kept, MessageId { epoch: 0x33, counter: 1 }), Kept::default());
}

#[test]
fn a_life_goes_on_after_a_restart_and_after_a_line_that_was_cut_short() {
    let folder = tempdir().unwrap();
    let message = id(1);
    let (mut first, draining) = journal(folder.path(), 1 << 20);
    note(&mut first, &Event::Marked { message }, 1);
    drop(draining);
    let path = folder.path().join(HISTORY_FILE);
    let mut torn = fs::read(&path).unwrap();
    torn.extend_from_slice(b"{\"id\":\"3-1\",\"unix_ms\":2,\"wh");
    fs::write(&path, torn).unwrap();
    let (mut second, _draining) = journal(folder.path(), 1 << 20);
    second.handle_operator(
        message,
        "alice",
        "deleted it".to_owned(),
        Decided::Deleted,
        Moment(3),
        3,
    );
    let steps = find(&second, message).steps;
    let told: Vec<_> = steps.iter().map(|step| (step.unix_ms, step.what.as_str())).collect();
    assert_eq!(told, [(1, "marked"), (3, "operator")]);
}

/// Neither one message that is tried for ever nor any number of messages can fill memory or disk.
#[test]
fn lives_are_bounded() {
    const BYTES_MAX: u64 = BYTES_MAX_MIN;
    let folder = tempdir().unwrap();
    let (mut kept, draining) = journal(folder.path(), BYTES_MAX);
    for count in 0..200_u64 {
        let reason = format!("time {count}");
        let event = Event::Returned { message: id(1), grabber: "pc-1".to_owned(), reason };
        note(&mut kept, &event, count);
    }
    let steps = find(&kept, id(1)).steps;
    assert_eq!(steps.len(), 128);
    assert_eq!((steps[0].unix_ms, steps[127].unix_ms), (0, 199));
    let reason = "\u{1}".repeat(10_000);
    for counter in 2..20_000 {
        let state = StoredState::Held;
        note(
            &mut kept,
            &Event::SetAside { message: id(counter), state, reason: reason.clone() },
            0,
        );
        if counter % 300 == 0 {
            kept.history().unwrap().find(id(0)).unwrap();
        }
    }
    assert_eq!(kept.latest.len(), LATEST_MAX);
    assert!(find(&kept, id(1)).steps.is_empty() && !find(&kept, id(19_999)).steps.is_empty());
    drop(draining);
    let bytes: u64 = fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().metadata().unwrap().len())
        .sum();
    assert!(bytes <= BYTES_MAX, "{bytes}");
}

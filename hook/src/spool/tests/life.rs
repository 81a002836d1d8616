//! The life of stored messages, and what becomes of damaged ones.

use std::io::ErrorKind;

use super::*;
use crate::disk::sim::Fault;

#[test]
fn a_message_comes_back_as_it_was() {
    for length in [0, 30, 65_440, 65_536, 200_000] {
        let (disk, spool) = new_spool();
        let body = message(1, length);
        let id = take_in(&spool, &body).unwrap();
        drop(spool);
        disk.restart();
        let opened = open_sim(&disk);
        let [recovered] = &opened.recovered()[..] else { panic!("{length}") };
        assert_eq!(recovered.marked.id, id);
        assert_eq!(recovered.state, StoredState::Marked { attempts: 0 });
        assert_eq!(recovered.marked.length, body.len() as u64);
        assert_eq!(recovered.marked.recipients, 2);
        assert_eq!(
            recovered.marked.since,
            Moment(RECEIVED - 123),
            "5.123 seconds ago, told in seconds"
        );
        let header = opened.spool.header(id).unwrap();
        assert_eq!((header.envelope, header.received_unix_ms), (envelope(2), RECEIVED));
        assert_eq!(read_body(&opened.spool, id).unwrap(), body);
        assert_eq!(opened.spool.log(id).unwrap(), Log::default());
    }
}

#[test]
fn the_log_tells_what_counts() {
    let (disk, spool) = new_spool();
    let id = take_in(&spool, b"body").unwrap();
    settle(&spool, id);
    let first = vec![result(0, ReleaseResult::Accepted), result(1, ReleaseResult::Deferred)];
    done(&spool, id, &Change::Results { results: first });
    done(&spool, id, &Change::Results { results: vec![result(1, ReleaseResult::Refused)] });
    let held = StoredState::Held;
    let reasons = vec!["nobody to tell".to_owned()];
    done(&spool, id, &Change::SetAside { state: held, verdict: None, reasons: reasons.clone() });
    drop(spool);
    disk.restart();

    let spool = open_sim(&disk).spool;
    let log = spool.log(id).unwrap();
    assert_eq!(log.verdict, Some(*verdict(&spool.header(id).unwrap())));
    assert_eq!(
        log.results,
        [result(0, ReleaseResult::Accepted), result(1, ReleaseResult::Refused)]
    );
    assert_eq!((log.reasons, log.torn_bytes, state(&spool, id)), (reasons, 0, Some(held)));

    done(&spool, id, &Change::Requeue);
    let log = spool.log(id).unwrap();
    assert_eq!(log.verdict, None, "what an earlier attempt came to does not count");
    assert_eq!(
        log.results,
        [result(0, ReleaseResult::Accepted)],
        "who has it gets it no second time"
    );
    done(&spool, id, &Change::Remove);
    assert!(matches!(spool.header(id), Err(SpoolError::Unknown { .. })));
    disk.restart();
    assert!(open_sim(&disk).recovered().is_empty());
}

#[test]
fn attempts_are_in_the_name() {
    let (disk, spool) = new_spool();
    let id = take_in(&spool, b"body").unwrap();
    for attempts in [1, 2, 1, 3, 200] {
        done(&spool, id, &Change::Charge { attempts });
        let attempts = attempts.min(9);
        assert_eq!(state(&spool, id), Some(StoredState::Marked { attempts }));
    }
    disk.restart();
    assert_eq!(open_sim(&disk).recovered()[0].marked.attempts, 9);
}

#[test]
fn what_does_not_fit_the_state_is_refused() {
    let (_disk, spool) = new_spool();
    let id = take_in(&spool, b"body").unwrap();
    let verdict = verdict(&spool.header(id).unwrap());
    assert!(failed(&spool, id, &Change::Requeue).contains("it is marked"));
    settle(&spool, id);
    for change in [Change::Charge { attempts: 1 }, Change::Settle { verdict }, Change::Requeue] {
        let reason = failed(&spool, id, &change);
        assert!(reason.contains("it is being released"), "{reason}");
    }
    let unknown = MessageId { epoch: 9, counter: 9 };
    let stored = spool.apply(unknown, MAILBOX, &Change::Remove);
    assert!(matches!(stored, Stored::Damaged { reason } if reason.contains("no such message")));
}

#[test]
fn a_damaged_file_that_is_to_be_changed_is_set_aside_and_stops_nothing_else() {
    let (disk, spool) = new_spool();
    let id = take_in(&spool, &message(1, 100)).unwrap();
    let settle = Change::Settle { verdict: verdict(&spool.header(id).unwrap()) };
    disk.damage(&path(&spool, id), |bytes| bytes[60] ^= 1).unwrap();
    let stored = spool.apply(id, MAILBOX, &settle);
    assert!(matches!(stored, Stored::Damaged { reason } if reason.contains("checksum")));
    assert!(matches!(spool.header(id), Err(SpoolError::Unknown { .. })));
    let innocent = take_in(&spool, &message(7, 100)).unwrap();
    assert_eq!(spool.apply(innocent, MAILBOX, &settle), Stored::Done);
}

#[test]
fn damaged_files_are_set_aside_and_the_rest_goes_on() {
    let (disk, spool) = new_spool();
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 4] = [
        ("checksum differs", |bytes| bytes[60] ^= 1),
        ("ends within its header", |bytes| bytes.truncate(70)),
        ("ends within the message", |bytes| bytes.truncate(bytes.len() - 1)),
        ("does not begin as", |bytes| bytes.fill(0)),
    ];
    let innocent = take_in(&spool, &message(7, 100)).unwrap();
    let mut bad = Vec::new();
    for (expected, damage) in damages {
        let id = take_in(&spool, &message(1, 100)).unwrap();
        disk.damage(&path(&spool, id), damage).unwrap();
        let error = spool.header(id).unwrap_err();
        assert!(error.is_corrupted() && error.to_string().contains(expected), "{error}");
        assert!(spool.body(id).is_err() && spool.log(id).is_err());
        let moved = spool.set_aside_corrupted(id, &error.to_string()).unwrap();
        assert!(moved.to_string_lossy().ends_with(".bad"));
        assert!(matches!(spool.header(id), Err(SpoolError::Unknown { .. })));
        bad.push(moved);
    }
    drop(spool);
    disk.restart();
    let opened = open_sim(&disk);
    assert_eq!(opened.recovered().len(), 1);
    assert_eq!(read_body(&opened.spool, innocent).unwrap(), message(7, 100));
    let reported: Vec<_> = opened.reports.iter().map(|report| report.path.clone()).collect();
    assert_eq!(reported, bad);
}

#[test]
fn a_changed_body_never_reads_as_a_whole_one() {
    let (disk, spool) = new_spool();
    let id = take_in(&spool, &message(1, 100_000)).unwrap();
    disk.damage(&path(&spool, id), |bytes| bytes[50_000] ^= 4).unwrap();
    assert_eq!(read_body(&spool, id).unwrap_err().kind(), ErrorKind::InvalidData);
}

#[test]
fn a_file_under_another_ones_name_is_damaged() {
    let (disk, spool) = new_spool();
    let (one, other) = (take_in(&spool, b"one").unwrap(), take_in(&spool, b"two").unwrap());
    disk.rename(&path(&spool, one), &path(&spool, other)).unwrap();
    assert!(spool.header(other).unwrap_err().to_string().contains("different messages"));
    assert!(spool.header(one).unwrap_err().to_string().contains("the file is gone"));
}

#[test]
fn a_torn_end_of_the_log_is_ignored_and_then_removed() {
    let (disk, spool) = new_spool();
    let id = take_in(&spool, b"body").unwrap();
    settle(&spool, id);
    disk.damage(&path(&spool, id), |bytes| bytes.extend_from_slice(&[0; 70])).unwrap();
    assert_eq!(spool.log(id).unwrap().torn_bytes, 70);
    done(&spool, id, &Change::Results { results: vec![result(1, ReleaseResult::Accepted)] });
    let log = spool.log(id).unwrap();
    assert_eq!((log.torn_bytes, log.results.len()), (0, 1));

    disk.damage(&path(&spool, id), |bytes| bytes[130] ^= 1).unwrap();
    let error = spool.log(id).unwrap_err();
    assert!(error.is_corrupted(), "being released without a verdict: {error}");
}

#[test]
fn a_full_or_read_only_disk_leaves_nothing_half_done() {
    for (fault, words) in [(Fault::Full, "no storage space"), (Fault::ReadOnly, "read-only")] {
        let (disk, spool) = new_spool();
        let kept = take_in(&spool, b"kept").unwrap();
        disk.fail_from_now(Some(fault));
        let error = take_in(&spool, &message(1, 100_000)).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
        let verdict = verdict(&spool.header(kept).unwrap());
        let reason = failed(&spool, kept, &Change::Settle { verdict });
        assert!(reason.contains(words), "{reason}");
        assert!(spool.probe().unwrap_err().to_string().contains(words));
        disk.fail_from_now(None);
        spool.probe().unwrap();
        assert!(
            disk.read_dir(&spool.volatile_folder()).unwrap().is_empty(),
            "nothing is left of it"
        );

        assert_eq!(state(&spool, kept), Some(StoredState::Marked { attempts: 0 }));
        settle(&spool, kept);
        let other = take_in(&spool, b"other").unwrap();
        drop(spool);
        disk.restart();
        let opened = open_sim(&disk);
        assert_eq!(opened.recovered().len(), 2, "{fault:?}");
        assert_eq!(read_body(&opened.spool, other).unwrap(), b"other");
        assert_eq!(opened.spool.log(kept).unwrap().torn_bytes, 0);
    }
}

#[test]
fn after_a_failed_sync_nothing_more_is_promised() {
    let (disk, spool) = new_spool();
    let kept = take_in(&spool, b"kept").unwrap();
    // Made, written, then synced.
    disk.fail_at(disk.operations() + 3, Fault::Io);
    let error = take_in(&spool, b"lost").unwrap_err();
    assert!(matches!(error, SpoolError::Sync { .. }), "{error}");
    assert!(matches!(take_in(&spool, b"no"), Err(SpoolError::Broken { .. })));
    assert!(matches!(spool.probe(), Err(SpoolError::Broken { .. })), "nor is it tried again");
    assert!(failed(&spool, kept, &Change::Remove).contains("until the hook is started again"));
    assert_eq!(read_body(&spool, kept).unwrap(), b"kept", "what is there can be read");
    drop(spool);
    disk.restart();
    let opened = open_sim(&disk);
    assert_eq!(opened.recovered().len(), 1);
    take_in(&opened.spool, b"again").unwrap();
}

#[test]
fn a_reader_keeps_its_message_while_it_changes() {
    let (_disk, spool) = new_spool();
    let id = take_in(&spool, &message(3, 5_000)).unwrap();
    let mut body = spool.body(id).unwrap();
    let mut start = [0; 10];
    body.read_exact(&mut start).unwrap();
    settle(&spool, id);
    done(&spool, id, &Change::Remove);
    let mut rest = Vec::new();
    body.read_to_end(&mut rest).unwrap();
    assert_eq!([&start[..], &rest].concat(), message(3, 5_000));
}

#[test]
fn lists_are_ordered_and_bounded() {
    let (_disk, spool) = new_spool();
    let ids: Vec<_> = (0..5).map(|number| take_in(&spool, &message(number, 50)).unwrap()).collect();
    for id in [ids[3], ids[1]] {
        let reasons = vec!["because".to_owned()];
        done(&spool, id, &Change::SetAside { state: StoredState::Held, verdict: None, reasons });
    }
    let held = spool.list(|state| state == StoredState::Held, 10);
    assert_eq!(held.iter().map(|listed| listed.id).collect::<Vec<_>>(), [ids[1], ids[3]]);
    assert_eq!((held[0].received_unix_s, held[0].recipients), (RECEIVED / 1000, 2));
    assert_eq!(spool.list(|_| true, 2).len(), 2);
}

#[test]
fn whoever_was_served_before_a_message_leaves_as_it_is_gets_it_no_second_time() {
    let (disk, spool) = new_spool();
    let id = take_in(&spool, b"Subject: part\r\n\r\nof it\r\n").unwrap();
    let verdict = verdict(&spool.header(id).unwrap());
    let as_is = Change::ReleaseAsIs { verdict: verdict.clone() };
    assert!(failed(&spool, id, &as_is).contains("it is marked"));
    settle(&spool, id);
    let results = vec![result(0, ReleaseResult::Accepted), result(1, ReleaseResult::Refused)];
    done(&spool, id, &Change::Results { results });
    let reasons = vec!["undeliverable".to_owned()];
    done(&spool, id, &Change::SetAside { state: StoredState::Held, verdict: None, reasons });
    let results = vec![result(0, ReleaseResult::Accepted)];
    assert_eq!(spool.apply(id, MAILBOX, &as_is), Stored::ServedBefore { results: results.clone() });
    drop(spool);
    disk.restart();
    let spool = open_sim(&disk).spool;
    assert_eq!(state(&spool, id), Some(StoredState::Releasing));
    let log = spool.log(id).unwrap();
    assert_eq!((log.verdict, log.results), (Some(*verdict), results));
}

#[test]
fn whoever_was_served_before_a_message_was_given_back_is_known_when_it_settles_again() {
    let (_disk, spool) = new_spool();
    let id = take_in(&spool, b"Subject: part\r\n\r\nof it\r\n").unwrap();
    settle(&spool, id);
    let results = vec![result(0, ReleaseResult::Accepted), result(1, ReleaseResult::Refused)];
    done(&spool, id, &Change::Results { results });
    let reasons = vec!["undeliverable".to_owned()];
    done(&spool, id, &Change::SetAside { state: StoredState::Held, verdict: None, reasons });
    done(&spool, id, &Change::Requeue);
    let settle = Change::Settle { verdict: verdict(&spool.header(id).unwrap()) };
    // The refused one is tried anew.
    let results = vec![result(0, ReleaseResult::Accepted)];
    assert_eq!(spool.apply(id, MAILBOX, &settle), Stored::ServedBefore { results });
}

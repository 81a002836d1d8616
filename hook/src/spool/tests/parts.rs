//! What some workers have found of a message that needs more than one.

use super::*;

#[test]
fn parts_survive_a_restart_with_the_attempts_at_the_rest() {
    let (disk, spool) = new_spool();
    let id = take_in(&spool, b"Subject: 1\r\n\r\nbody").unwrap();
    done(&spool, id, &Change::Charge { attempts: 2 });
    part(&spool, id, &[finding("virus")]);
    assert_eq!(state(&spool, id), Some(StoredState::Part { attempts: 0 }));
    part(&spool, id, &[finding("virus"), finding("sign")]);
    done(&spool, id, &Change::Charge { attempts: 2 });
    drop(spool);
    disk.restart();
    let opened = open_sim(&disk);
    let [recovered] = &opened.recovered()[..] else { panic!("{:?}", opened.recovered()) };
    assert_eq!(recovered.state, StoredState::Part { attempts: 2 });
    assert_eq!(recovered.marked.attempts, 2);
    let log = opened.spool.log(id).unwrap();
    assert_eq!(log.findings, [finding("virus"), finding("sign")], "the last record counts");
    settle(&opened.spool, id);
    assert!(opened.spool.log(id).unwrap().verdict.is_some());
}

#[test]
fn what_is_put_back_begins_anew() {
    let (_disk, spool) = new_spool();
    let id = take_in(&spool, b"Subject: 1\r\n\r\nbody").unwrap();
    part(&spool, id, &[finding("virus")]);
    let aside = StoredState::Held;
    let reasons = vec!["odd".to_owned()];
    done(&spool, id, &Change::SetAside { state: aside, verdict: None, reasons });
    assert_eq!(spool.log(id).unwrap().findings, [finding("virus")], "operators see it");
    done(&spool, id, &Change::Requeue);
    assert_eq!(state(&spool, id), Some(StoredState::Marked { attempts: 0 }));
    assert_eq!(spool.log(id).unwrap().findings, []);
}

#[test]
fn what_was_found_for_a_waiting_sender_is_adopted_with_the_message() {
    let (_disk, spool) = new_spool();
    let id = take_in_volatile(&spool, b"Subject: 1\r\n\r\nbody").unwrap();
    part(&spool, id, &[finding("virus")]);
    assert_eq!(spool.log(id).unwrap().findings, [finding("virus")]);
    let (wanted, results, reasons) = (StoredState::Part { attempts: 1 }, Vec::new(), Vec::new());
    done(&spool, id, &Change::Adopt { state: wanted, verdict: None, results, reasons });
    assert_eq!(state(&spool, id), Some(wanted));
    assert_eq!(spool.log(id).unwrap().findings, [finding("virus")]);
}

//! Messages in their senders' custody.

use super::*;
use crate::disk::sim::Fault;

#[test]
fn nothing_of_it_is_durable_and_all_of_it_can_be_read() {
    for length in [10, 64 * 1024, 128 * 1024, 128 * 1024 + 1, 200_000] {
        let (disk, spool) = new_spool();
        let body = message(1, length);
        let id = take_in_volatile(&spool, &body).unwrap();
        assert_eq!(spool.header(id).unwrap().length, length.max(body.len()) as u64);
        assert_eq!(read_body(&spool, id).unwrap(), body);
        assert!(disk.read_dir(&spool.volatile_folder()).unwrap().is_empty(), "no names");
        assert!(spool.list(|_| true, 10).is_empty());
        let reader = spool.body(id).unwrap();
        spool.forget(id);
        assert!(matches!(spool.header(id), Err(SpoolError::Unknown { .. })));
        assert_eq!(reader.length(), body.len() as u64);
        drop((reader, spool));
        disk.restart();
        assert!(open_sim(&disk).recovered().is_empty());
    }
}

#[test]
fn memory_and_disk_have_their_bounds() {
    let (_disk, spool) = new_spool();
    let mut ids = Vec::new();
    let error = loop {
        match take_in_volatile(&spool, &message(1, 60_000)) {
            Ok(id) => ids.push(id),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SpoolError::VolatileFull { .. }), "{error}");
    // 256 KiB of memory have room for four and 20,000 bytes of the fifth, 512 KiB of disk for the rest of it and eight.
    assert_eq!(ids.len(), 13);
    for id in &ids {
        assert_eq!(read_body(&spool, *id).unwrap(), message(1, 60_000));
    }
    ids.iter().for_each(|id| spool.forget(*id));
    for _ in 0..13 {
        take_in_volatile(&spool, &message(1, 60_000)).unwrap();
    }
}

#[test]
fn its_log_is_in_memory_until_it_is_adopted() {
    let (disk, spool) = new_spool();
    let body = message(2, 150_000);
    let id = take_in_volatile(&spool, &body).unwrap();
    settle(&spool, id);
    let accepted = vec![result(0, ReleaseResult::Accepted)];
    done(&spool, id, &Change::Results { results: accepted.clone() });
    assert_eq!(spool.log(id).unwrap().results, accepted);
    assert!(failed(&spool, id, &Change::Requeue).contains("sender's custody"));
    let adopt = Change::Adopt {
        state: StoredState::Releasing,
        verdict: None,
        results: vec![result(1, ReleaseResult::Deferred)],
        reasons: Vec::new(),
    };
    disk.fail_from_now(Some(Fault::Full));
    assert!(failed(&spool, id, &adopt).contains("no storage space"));
    disk.fail_from_now(None);
    assert_eq!(spool.log(id).unwrap().results, accepted, "it is still its sender's");
    done(&spool, id, &adopt);
    assert!(failed(&spool, id, &adopt).contains("it is being released"));
    drop(spool);
    disk.restart();

    let opened = open_sim(&disk);
    assert_eq!(opened.recovered()[0].state, StoredState::Releasing);
    assert_eq!(read_body(&opened.spool, id).unwrap(), body);
    let log = opened.spool.log(id).unwrap();
    assert_eq!(log.verdict, Some(*verdict(&opened.spool.header(id).unwrap())));
    assert_eq!(
        log.results,
        [result(0, ReleaseResult::Accepted), result(1, ReleaseResult::Deferred)]
    );
}

#[test]
fn a_poison_that_comes_again_is_known() {
    let (disk, spool) = new_spool();
    let digest = |spool: &Spool<_>, id| spool.header(id).unwrap().digest;
    let innocent = take_in_volatile(&spool, b"innocent").unwrap();
    let poison = take_in_volatile(&spool, b"poison").unwrap();
    let (innocent_digest, poison_digest) = (digest(&spool, innocent), digest(&spool, poison));
    let before = disk.operations();
    settle(&spool, take_in_volatile(&spool, b"never suspected").unwrap());
    done(&spool, innocent, &Change::Charge { attempts: 0 });
    assert_eq!(disk.operations(), before, "who is no suspect costs no disk");
    done(&spool, innocent, &Change::Charge { attempts: 1 });
    assert_eq!(spool.suspects().lookup(innocent_digest).unwrap().attempts, 1);
    settle(&spool, innocent);
    assert_eq!(spool.suspects().lookup(innocent_digest), None);

    done(&spool, poison, &Change::Charge { attempts: 1 });
    done(&spool, poison, &Change::Charge { attempts: 2 });
    done(&spool, poison, &Change::Charge { attempts: 3 });
    let (state, reasons) = (StoredState::Held, vec!["kills workers".to_owned()]);
    done(&spool, poison, &Change::Adopt { state, verdict: None, results: Vec::new(), reasons });
    drop(spool);
    disk.restart();
    let spool = open_sim(&disk).spool;
    let known = spool.suspects().lookup(poison_digest);
    assert_eq!(known, Some(Suspect { attempts: 3, held: true }));
    assert_eq!(spool.suspects().lookup(innocent_digest), None);
}

#[test]
fn suspects_are_bounded_and_damage_costs_one() {
    let (disk, spool) = new_spool();
    let digest = |number: usize| {
        let mut digest = Digest([0; 32]);
        digest.0[..8].copy_from_slice(&number.to_be_bytes());
        digest
    };
    disk.fail_from_now(Some(Fault::Full));
    assert!(spool.suspects.charge(&disk, digest(0), 2).is_err());
    disk.fail_from_now(None);
    assert_eq!(spool.suspects().lookup(digest(0)), None, "memory does not run ahead of the disk");
    let mut released = digest(1);
    released.0[31] = 1;
    spool.suspects.charge(&disk, released, 3).unwrap();
    spool.suspects.charge(&disk, released, 0).unwrap();
    assert_eq!(spool.suspects().lookup(released), None);
    // Twice the journal's length, so that it is written anew in between.
    for number in 0..2 * SUSPECTS_MAX + 500 {
        spool.suspects.charge(&disk, digest(number), 2).unwrap();
    }
    assert_eq!(spool.suspects().lookup(digest(SUSPECTS_MAX + 499)), None, "the oldest have gone");
    drop(spool);
    disk.restart();
    drop(open_sim(&disk));
    disk.damage(&Path::new(ROOT).join(SUSPECTS_FILE), |bytes| bytes[480] ^= 1).unwrap();
    let spool = open_sim(&disk).spool;
    let known = |number| spool.suspects().lookup(digest(number)).is_some();
    let count = (0..2 * SUSPECTS_MAX + 500).filter(|number| known(*number)).count();
    assert_eq!(count, SUSPECTS_MAX - 1);
    assert!(known(2 * SUSPECTS_MAX + 499));
}

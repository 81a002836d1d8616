//! The spool on the machine's own disk.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::disk::RealDisk;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn open(folder: &TempDir) -> Opened<RealDisk> {
    try_open(RealDisk, &folder.path().join("spool")).unwrap()
}

fn refused(folder: &TempDir) -> SpoolError {
    try_open(RealDisk, &folder.path().join("spool")).map(|_| ()).unwrap_err()
}

#[test]
fn a_life_on_disk() {
    let folder = folder();
    let opened = open(&folder);
    assert_eq!(opened.epoch, 1);
    let spool = opened.spool;
    let body = message(1, 300_000);
    let id = take_in(&spool, &body).unwrap();
    let file = fs::metadata(path(&spool, id)).unwrap();
    assert_eq!(file.permissions().mode() & 0o777, 0o600, "nobody else reads mail");
    settle(&spool, id);
    let volatile = take_in_volatile(&spool, &body).unwrap();
    assert_eq!(read_body(&spool, volatile).unwrap(), body);
    assert_eq!(fs::read_dir(spool.volatile_folder()).unwrap().count(), 0);
    // As a hook leaves it that dies while a message comes in.
    fs::write(folder.path().join("spool/mail.box/0000/1-ff.tmp"), b"half").unwrap();
    fs::write(folder.path().join("spool/volatile/1-fe.tmp"), b"half").unwrap();
    drop(spool);

    let opened = open(&folder);
    assert_eq!((opened.epoch, opened.recovered().len(), opened.reports.len()), (2, 1, 0));
    assert_eq!(opened.recovered()[0].state, StoredState::Releasing);
    assert_eq!(read_body(&opened.spool, id).unwrap(), body);
    assert!(!folder.path().join("spool/mail.box/0000/1-ff.tmp").exists());
    assert!(!folder.path().join("spool/volatile/1-fe.tmp").exists());
    assert_eq!(opened.spool.allocate(), MessageId { epoch: 2, counter: 1 });
    done(&opened.spool, id, &Change::Remove);
    assert_eq!(fs::read_dir(folder.path().join("spool/mail.box/0000")).unwrap().count(), 0);
}

#[test]
fn a_second_hook_is_refused() {
    let folder = folder();
    let first = open(&folder);
    let error = refused(&folder);
    assert!(matches!(error, SpoolError::Locked { .. }), "{error}");
    assert!(error.to_string().contains("another hook is using it"));
    take_in(&first.spool, b"the first goes on").unwrap();
    drop(first);
    assert_eq!(open(&folder).epoch, 2, "the one that was refused counted nothing");
}

#[test]
fn a_newer_format_is_left_untouched() {
    let folder = folder();
    let root = folder.path().join("spool");
    fs::create_dir(&root).unwrap();
    fs::write(root.join("format"), "gantry-spool 2\n").unwrap();
    let error = refused(&folder).to_string();
    assert!(error.contains("of format 2") && error.contains("nothing was touched"), "{error}");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    fs::write(root.join("format"), "something else\n").unwrap();
    assert!(matches!(refused(&folder), SpoolError::Damaged { .. }));
}

#[test]
fn epochs_rise_whatever_became_of_their_file() {
    let folder = folder();
    let spool = open(&folder).spool;
    let id = take_in(&spool, b"body").unwrap();
    assert_eq!(id.epoch, 1);
    drop(spool);
    let file = folder.path().join("spool/epoch");
    fs::remove_file(&file).unwrap();
    assert_eq!(open(&folder).epoch, 2, "above that of any message");
    fs::write(&file, "7\n").unwrap();
    assert_eq!(open(&folder).epoch, 8);
    for damaged in ["", "x\n", "8", "-1\n", "99999999999\n"] {
        fs::write(&file, damaged).unwrap();
        assert!(matches!(refused(&folder), SpoolError::Damaged { .. }), "{damaged:?}");
    }
    fs::write(&file, format!("{}\n", u32::MAX)).unwrap();
    assert!(refused(&folder).to_string().contains("no higher number"));
}

#[test]
fn foreign_names_are_reported_and_left_alone() {
    let folder = folder();
    let spool = open(&folder).spool;
    let id = take_in(&spool, b"body").unwrap();
    let copy = path(&spool, id).with_extension("h");
    fs::copy(path(&spool, id), &copy).unwrap();
    drop(spool);
    let root = folder.path().join("spool");
    fs::create_dir(root.join("mail.box/lost+found")).unwrap();
    fs::create_dir(root.join("gone-mailbox")).unwrap();
    fs::write(root.join("mail.box/0000/README"), "?").unwrap();
    fs::write(root.join("control"), "").unwrap();
    let opened = open(&folder);
    let reported: BTreeSet<_> = opened
        .reports
        .iter()
        .map(|report| report.path.strip_prefix(&root).unwrap().to_owned())
        .collect();
    let second = path(&opened.spool, id);
    let unused = if second == copy { copy.with_extension("m0") } else { copy };
    let expected = ["gone-mailbox", "mail.box/0000/README", "mail.box/lost+found"];
    let mut expected: BTreeSet<PathBuf> = expected.iter().map(PathBuf::from).collect();
    expected.insert(unused.strip_prefix(&root).unwrap().to_owned());
    assert_eq!(reported, expected, "and of two files with one id, one is used");
    assert_eq!(opened.recovered().len(), 1);
    assert!(opened.reports.iter().all(|report| report.path.exists()));
}

#[test]
fn names_that_no_folder_can_have_are_refused() {
    let folder = folder();
    for name in ["", ".", "..", "a/b", "lock", "epoch", "epoch.new", "volatile", "control"] {
        let opened = Spool::open(RealDisk, folder.path(), &[name.to_owned()], options());
        assert!(matches!(opened, Err(SpoolError::MailboxName { .. })), "{name}");
    }
}

#[test]
fn folders_are_filled_in_order() {
    let folder = folder();
    drop(open(&folder));
    let first = folder.path().join("spool/mail.box/0000");
    fs::create_dir(&first).unwrap();
    for counter in 1..folders::FILES_PER_FOLDER_MAX {
        fs::write(first.join(format!("1-{counter:x}.6553f100.0.1.m0")), b"").unwrap();
    }
    let opened = open(&folder);
    assert_eq!(opened.recovered().len(), 4_095);
    let spool = opened.spool;
    let folder_of = |id| path(&spool, id).parent().unwrap().file_name().unwrap().to_owned();
    let last = take_in(&spool, b"last of the first").unwrap();
    let next = take_in(&spool, b"first of the second").unwrap();
    assert_eq!((folder_of(last), folder_of(next)), ("0000".into(), "0001".into()));
    done(&spool, last, &Change::Remove);
    assert_eq!(folder_of(take_in(&spool, b"room again").unwrap()), "0000");
    let other = spool.allocate();
    spool.begin(other, MailboxIndex(1), &envelope(1), RECEIVED).unwrap().finish().unwrap();
    assert!(path(&spool, other).starts_with(folder.path().join("spool/second/0000")));
}

#[test]
fn many_threads_at_once() {
    let folder = folder();
    let spool = open(&folder).spool;
    let kept: BTreeSet<MessageId> = thread::scope(|scope| {
        let threads: Vec<_> = (0..8u8)
            .map(|number| {
                let spool = &spool;
                scope.spawn(move || {
                    let ids = (0..20).map(|_| take_in(spool, &message(number, 3_000)).unwrap());
                    let ids: Vec<_> = ids.collect();
                    for id in &ids {
                        settle(spool, *id);
                        assert_eq!(read_body(spool, *id).unwrap(), message(number, 3_000));
                    }
                    ids[10..].iter().for_each(|id| done(spool, *id, &Change::Remove));
                    ids[..10].to_vec()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    drop(spool);
    let opened = open(&folder);
    let found: BTreeSet<_> = opened.recovered().iter().map(|found| found.marked.id).collect();
    assert_eq!(found, kept);
    assert!(opened.recovered().iter().all(|found| found.state == StoredState::Releasing));
    assert!(opened.reports.is_empty());
}

#[test]
fn changes_of_one_message_wait_for_each_other() {
    let folder = folder();
    let spool = open(&folder).spool;
    let id = take_in(&spool, &message(1, 100)).unwrap();
    settle(&spool, id);
    thread::scope(|scope| {
        for recipient in 0..16u16 {
            let spool = &spool;
            scope.spawn(move || {
                let results = vec![result(recipient, ReleaseResult::Accepted)];
                done(spool, id, &Change::Results { results });
                assert!(
                    spool
                        .log(id)
                        .unwrap()
                        .results
                        .iter()
                        .any(|result| result.recipient == recipient)
                );
            });
        }
    });
    assert_eq!(spool.log(id).unwrap().results.len(), 16);
}

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use gantry_operator::{Aside, Order};
use serde_json::Value;

use super::reserve::RESERVE_BYTES;
use super::*;
use crate::disk::RealDisk;
use crate::disk::sim::{Fault, SimDisk};

fn release(reason: Option<&str>) -> Request {
    Request::Release {
        as_is: false,
        aside: Aside::Quarantined,
        id: "3-1a7".to_owned(),
        reason: reason.map(str::to_owned),
    }
}

#[test]
fn a_line_says_who_when_what_and_why() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::new(RealDisk, folder.path());
    let alice = Who { name: "alice".to_owned(), from: Some("192.0.2.1:5".to_owned()) };
    audit.append(0, &alice, &release(Some("false\nalarm")), Outcome::Begun).unwrap();
    audit.append(1, &alice, &release(None), Outcome::Refused("it is gone")).unwrap();
    let manage = Request::Manage { node: "pc-1".to_owned(), order: Order::Drain, reason: None };
    audit.append(2, &Who::local(), &manage, Outcome::Done).unwrap();
    let text = std::fs::read_to_string(folder.path().join(AUDIT_FILE)).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 3);
    assert_eq!(lines[0]["time"], "1970-01-01T00:00:00.000Z");
    assert_eq!((&lines[0]["who"], &lines[0]["from"]), (&"alice".into(), &"192.0.2.1:5".into()));
    assert_eq!((&lines[0]["ask"], &lines[0]["id"]), (&"release".into(), &"3-1a7".into()));
    assert_eq!(
        (&lines[0]["reason"], &lines[0]["outcome"]),
        (&"false\nalarm".into(), &"begun".into())
    );
    assert_eq!(lines[1]["outcome"], "refused: it is gone");
    assert_eq!((&lines[2]["who"], &lines[2]["order"]), (&LOCAL.into(), &"drain".into()));
}

/// The newest lines are in the file without a number, and no more than so many parts are kept.
#[test]
fn a_full_log_is_rotated_and_bounded() {
    let folder = tempfile::tempdir().unwrap();
    let audit = Audit::new(RealDisk, folder.path());
    let current = folder.path().join(AUDIT_FILE);
    for part in 0..u64::from(FILES_MAX) + 2 {
        audit.append(part, &Who::local(), &release(None), Outcome::Done).unwrap();
        let file = std::fs::File::options().write(true).open(&current).unwrap();
        file.set_len(FILE_BYTES_MAX).unwrap();
    }
    let mut names: Vec<String> = std::fs::read_dir(folder.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let expected: Vec<String> = std::iter::once(AUDIT_FILE.to_owned())
        .chain((1..FILES_MAX).map(|number| format!("{AUDIT_FILE}.{number}")))
        .collect();
    assert_eq!(names, expected);
    let newest = std::fs::read(&current).unwrap();
    assert!(newest.starts_with(br#"{"time":"1970-01-01T00:00:00.009Z""#));
}

/// What was cut short by a crash does not swallow the next line, and what was appended survives one.
#[test]
fn a_line_is_durable_once_it_is_appended() {
    let disk = SimDisk::new(7);
    disk.create_dir(Path::new("spool")).unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    let audit = Audit::new(disk.clone(), Path::new("spool"));
    audit.append(0, &Who::local(), &release(None), Outcome::Begun).unwrap();
    disk.crash();
    disk.restart();
    let file = disk.open_for_write(&Path::new("spool").join(AUDIT_FILE)).unwrap();
    let length = file.length().unwrap();
    file.write_all_at(b"{\"time\":\"torn", length).unwrap();
    audit.append(1, &Who::local(), &release(None), Outcome::Done).unwrap();
    let mut bytes = vec![0; usize::try_from(file.length().unwrap()).unwrap()];
    file.read_full_at(&mut bytes, 0).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].contains("begun") && lines[2].contains("done"), "{text}");
}

#[test]
fn a_disk_that_does_not_take_the_line_is_an_error() {
    let disk = SimDisk::new(7);
    disk.create_dir(Path::new("spool")).unwrap();
    let audit = Audit::new(disk.clone(), Path::new("spool"));
    disk.fail_from_now(Some(Fault::ReadOnly));
    let error = audit.append(0, &Who::local(), &release(None), Outcome::Begun).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("audit.log") && text.contains("nothing was changed"), "{text}");
}

/// What fills a disk can be deleted, since there is room to write down who does it.
#[test]
fn there_is_room_for_lines_on_a_full_disk() {
    let disk = SimDisk::new(7);
    disk.create_dir(Path::new("spool")).unwrap();
    let audit = Audit::new(disk.clone(), Path::new("spool"));
    let append = || audit.append(0, &Who::local(), &release(None), Outcome::Begun);
    audit.keep_room();
    append().unwrap();
    disk.set_free_bytes(Some(10));
    for _ in 0..200 {
        append().unwrap();
    }
    let log = disk.open(&Path::new("spool").join(AUDIT_FILE)).unwrap();
    let mut bytes = vec![0; usize::try_from(log.length().unwrap()).unwrap()];
    log.read_full_at(&mut bytes, 0).unwrap();
    let text = String::from_utf8(bytes).unwrap();
    assert_eq!(text.lines().count(), 201);
    assert!(text.lines().all(|line| line.starts_with('{') && line.ends_with('}')), "{text}");
    let end = (0..100_000).find_map(|_| append().err());
    assert!(end.is_some_and(|error| error.to_string().contains("nothing was changed")));

    // When there is room again, it is kept for the next time.
    disk.set_free_bytes(Some(10 * RESERVE_BYTES));
    audit.keep_room();
    disk.set_free_bytes(Some(0));
    append().unwrap();
}

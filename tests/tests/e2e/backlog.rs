//! More messages than a mailbox's window in memory has room for.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_tests::{Cluster, Setup, heap};

/// A window and some.
const WAITING: usize = 5_000;

#[test]
fn what_lies_beyond_the_window_is_counted_and_goes_out_once() {
    let setup = Setup { needs: Some("[]".to_owned()), ..Setup::default() };
    let mut cluster = Cluster::prepare(&setup);
    let number = AtomicUsize::new(0);
    heap::fill(&cluster.path().join("spool"), "hook.box", WAITING, |letter| {
        let number = number.fetch_add(1, Ordering::Relaxed);
        letter.clear();
        letter.extend_from_slice(format!("Subject: {number}\r\n\r\nOld mail.\r\n").as_bytes());
    });
    cluster.start_hook();
    let waiting = u64::try_from(WAITING).unwrap();
    let status = cluster.status().unwrap();
    assert_eq!(status.backlog(), waiting, "all of them are counted");
    assert_eq!(status.messages().len(), 1_000, "and some are listed");

    cluster.add_worker("pc-1", "");
    let out = cluster.await_released(WAITING);
    let subject = |text: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
        line.and_then(|line| line.parse::<usize>().ok()).expect("an old mail")
    };
    let text = |path: &Path| fs::read_to_string(path).expect("read a mail");
    let subjects: BTreeSet<usize> = out.iter().map(|one| subject(&text(&one.path))).collect();
    assert_eq!((subjects.len(), out.len()), (WAITING, WAITING), "each went out once");
    gantry_tests::await_that("nothing is left", || {
        cluster.status().filter(|status| status.backlog() == 0)
    });
    assert!(cluster.stored_at_all().is_empty());
}

//! Disks and quarantines that are full, and what is removed from them.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use gantry_tests::cluster::{RULES, said};
use gantry_tests::smtp::{Client, Reply, deliver, note, offer};
use gantry_tests::{Cluster, Setup, await_that, skip};
use serde_json::Value;

const TO: &str = "b@recipient.example";

/// A small file system of its own, for as long as this lives.
struct Mounted(PathBuf);

impl Mounted {
    /// `None` where only root may, and this is somebody else.
    fn new(path: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=0700"), "gantry-test"]);
        let mounted = mount.arg(path).output().ok()?;
        mounted.status.success().then(|| Self(path.to_owned()))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // The hook may still be in it.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn tables(tables: &str) -> Setup {
    Setup { tables: tables.to_owned(), ..Setup::default() }
}

/// A message of so many bytes at least, infected or not.
fn large(subject: &str, infected: bool, bytes: usize) -> Vec<u8> {
    let start = if infected { gantry::demo::mail::eicar() } else { String::new() };
    note(subject, &(start + &"\r\nsome line of a text that is long\r\n".repeat(bytes / 36 + 1)))
}

/// The answer to MAIL with this parameter.
fn mail(cluster: &Cluster, parameter: &str) -> Reply {
    let mut client = Client::greet(cluster.intake);
    client.command(&format!("MAIL FROM:<sender@client.example>{parameter}"))
}

fn await_taking(cluster: &Cluster) {
    await_that("mail is taken", || (mail(cluster, "").code == 250).then_some(()));
}

fn audit(cluster: &Cluster) -> Vec<Value> {
    let text = fs::read_to_string(cluster.path().join("spool/audit.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn id_of(file: &Path) -> String {
    file.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned()
}

/// Writes until not a byte more fits.
fn fill_up(path: &Path) {
    let mut file = File::create(path).unwrap();
    for piece in [64 * 1024, 4_096, 512, 1] {
        while file.write_all(&vec![b'x'; piece]).is_ok() {}
    }
}

/// A file system that is really full: 452 before the message, nothing accepted is lost, what fills it can be deleted by an
/// operator, who is written down, and mail is taken again by itself.
#[test]
fn a_full_disk_says_452_and_mail_is_taken_again_when_there_is_room() {
    let mut cluster = Cluster::prepare(&tables("[limits]\nspool_free_min = \"1MiB\"\n"));
    let spool = cluster.path().join("spool");
    let Some(_mounted) = Mounted::new(&spool, "6M") else {
        return skip("a disk that is really full", "only root can mount one");
    };
    cluster.start_hook();
    cluster.add_worker("pc-1", RULES);
    cluster.await_ready(1);
    deliver(cluster.intake, TO, &large("infected", true, 10_000));
    await_that("it is quarantined", || (cluster.stored("q").len() == 1).then_some(()));
    cluster.workers.clear();

    assert_eq!(mail(&cluster, " SIZE=1000").code, 250);
    let too_large = mail(&cluster, " SIZE=20000000");
    assert_eq!(too_large.code, 452, "{}", too_large.text());
    let clean = large("clean", false, 300_000);
    let mut taken = 0;
    let refused = loop {
        let reply = offer(cluster.intake, TO, &clean);
        match reply.code {
            250 => taken += 1,
            _ => break reply,
        }
        assert!(taken < 20, "it is full at some time");
    };
    assert_eq!(refused.code, 452, "{}", refused.text());
    assert!(refused.text().starts_with("4.3.1") && taken > 3, "{taken}: {}", refused.text());
    let full = await_that("the status says so", || {
        let status = cluster.status()?.0;
        status["intake_stopped"].as_str().map(str::to_owned)
    });
    assert!(full.contains("spool_free_min"), "{full}");

    let reserve = || fs::metadata(spool.join("audit.log.reserve")).map_or(0, |file| file.len());
    await_that("there is a reserve", || (reserve() == 256 * 1024).then_some(()));

    // Not a byte more: who deletes something is written down all the same.
    let filler = spool.join("filler");
    fill_up(&filler);
    let id = id_of(&cluster.stored("q")[0]);
    let deleted = cluster.hook_command(&["quarantine", "delete", &id, "--reason", "it is full"]);
    assert!(deleted.status.success(), "{}", said(&deleted));
    assert!(cluster.stored("q").is_empty());
    let lines = audit(&cluster);
    let outcomes: Vec<_> = lines.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["begun", "done"], "{lines:?}");
    assert!(reserve() < 256 * 1024, "it was needed");

    fs::remove_file(filler).unwrap();
    cluster.start_worker("pc-1", &[]);
    cluster.await_released(taken);
    await_taking(&cluster);
    deliver(cluster.intake, TO, &clean);
    cluster.await_released(taken + 1);
    await_that("nothing is left", || cluster.stored_at_all().is_empty().then_some(()));
    assert_eq!(cluster.sink.count(), taken + 1, "nothing is lost, nothing is there twice");
    assert_eq!(cluster.status().unwrap().0["intake_stopped"], Value::Null);
}

/// The rule acts like an operator: in the audit log with its reason.
#[test]
fn what_was_kept_for_long_enough_is_removed_and_written_down() {
    let cluster = Cluster::with_workers(&tables("[quarantine]\nkeep = \"1s\"\n"), &["pc-1"]);
    deliver(cluster.intake, TO, &large("infected", true, 1_000));
    await_that("it was quarantined", || (cluster.counter("quarantined") == 1).then_some(()));
    await_that("it is gone", || cluster.stored_at_all().is_empty().then_some(()));
    let lines = await_that("it is written down", || Some(audit(&cluster)).filter(|l| l.len() == 2));
    assert_eq!((&lines[0]["ask"], &lines[0]["aside"]), (&"delete".into(), &"quarantined".into()));
    for (line, outcome) in lines.iter().zip(["begun", "done"]) {
        assert_eq!((&line["who"], &line["outcome"]), (&"retention@local".into(), &outcome.into()));
        assert_eq!(line["reason"], "it has been quarantined for 1s");
    }
}

/// Nothing is lost for want of room unless the file says so.
#[test]
fn a_full_quarantine_takes_no_mail_until_somebody_makes_room() {
    let setup = tables("[quarantine]\nmax_bytes = \"1MiB\"\n");
    let cluster = Cluster::with_workers(&setup, &["pc-1"]);
    for subject in ["1", "2"] {
        deliver(cluster.intake, TO, &large(subject, true, 600_000));
    }
    let both = || (cluster.stored("q").len() == 2).then_some(());
    await_that("both are quarantined, the second beyond the bound", both);
    let refused = mail(&cluster, "");
    assert_eq!(refused.code, 452, "{}", refused.text());
    let upstream = offer(cluster.upstream, TO, &note("clean", "x"));
    assert_eq!(upstream.code, 452, "{}", upstream.text());
    let mark = ["mark", "--mailbox", "hook.box", "-f", "a@client.example", "--", TO];
    let marked = cluster.hook_command(&mark);
    assert_eq!(marked.status.code(), Some(75), "{}", said(&marked));
    let status = cluster.status().unwrap().0;
    assert!(status["room"]["quarantined"].as_u64().unwrap() > 1_200_000, "{}", status["room"]);
    let words = status["intake_stopped"].as_str().unwrap();
    assert!(words.contains("[quarantine] max_bytes"), "{words}");
    let id = id_of(&cluster.stored("q")[0]);
    let deleted = cluster.hook_command(&["quarantine", "delete", &id]);
    assert!(deleted.status.success(), "{}", said(&deleted));
    await_taking(&cluster);
    assert_eq!(cluster.stored("q").len(), 1, "nothing else was removed");
}

#[test]
fn a_quarantine_that_may_do_so_loses_its_oldest() {
    let setup = tables("[quarantine]\nmax_bytes = \"1MiB\"\nwhen_full = \"remove-oldest\"\n");
    let cluster = Cluster::with_workers(&setup, &["pc-1"]);
    deliver(cluster.intake, TO, &large("1", true, 600_000));
    await_that("the first is quarantined", || (cluster.stored("q").len() == 1).then_some(()));
    let oldest = id_of(&cluster.stored("q")[0]);
    deliver(cluster.intake, TO, &large("2", true, 600_000));
    await_that("both were quarantined", || (cluster.counter("quarantined") == 2).then_some(()));
    await_that("one is gone", || (cluster.stored("q").len() == 1).then_some(()));
    assert_ne!(id_of(&cluster.stored("q")[0]), oldest);
    let lines = await_that("it is written down", || Some(audit(&cluster)).filter(|l| l.len() == 2));
    assert_eq!((&lines[0]["id"], &lines[0]["who"]), (&oldest.into(), &"retention@local".into()));
    assert_eq!(mail(&cluster, "").code, 250);
}

//! Workers that live and get nowhere, and one that is slow and does: who is taken over from, and who is not.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gantry_tests::cluster::RULES;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Cluster, Running, Setup, await_that};

/// The longest silence that the host grants: short, so that a stall shows soon.
const SILENCE: Duration = Duration::from_secs(1);

fn cluster() -> Cluster {
    let tables = "[reservation]\nsilence_max = \"1s\"\nattempts_max = 9\n".to_owned();
    Cluster::start(&Setup { tables, ..Setup::default() })
}

/// Starts `stalling-worker` as `pc-1`, gives it a message, and waits until it holds it.
fn stall(cluster: &mut Cluster, how: &[&str]) {
    cluster.join_worker("pc-1", "concurrency = 1\n", "", "virus");
    let config = cluster.path().join("pc-1").join("worker.toml");
    let mut command = Command::new(env!("CARGO_BIN_EXE_stalling-worker"));
    command.arg(config).args(how);
    let log = cluster.path().join("pc-1.log");
    let worker = Running::start("pc-1", &mut command, &log).unwrap();
    cluster.workers.insert("pc-1".to_owned(), worker);
    cluster.await_ready(1);
    deliver(cluster.intake, "b@recipient.example", &note("one", "text"));
    await_that("pc-1 holds the message", || holds(cluster).then_some(()));
}

fn holds(cluster: &Cluster) -> bool {
    let status = cluster.status();
    status.and_then(|status| status.worker("pc-1")).is_some_and(|one| one.holding.len() == 1)
}

/// Another worker comes, gets the message, and is the only one to return it; further mail flows.
fn is_taken_over(cluster: &mut Cluster, reasons: &[&str]) {
    cluster.add_worker("pc-2", RULES);
    cluster.await_released(1);
    assert_eq!(cluster.counter("taken_over"), 1, "{}", cluster.logs());
    let log = cluster.hook.as_ref().unwrap().log();
    let says =
        |line: &str| reasons.iter().any(|reason| line.contains(reason)) && line.contains("pc-1");
    assert!(log.lines().any(says), "the log does not say that pc-1 was {reasons:?}:\n{log}");
    await_that("the spool is empty", || cluster.stored_at_all().is_empty().then_some(()));
    assert_eq!(cluster.sink.count(), 1);
}

/// It beats all the time: only that nothing of the message gets done tells.
#[test]
fn a_worker_that_beats_without_progress_is_taken_over_from() {
    let mut cluster = cluster();
    stall(&mut cluster, &["waits"]);
    is_taken_over(&mut cluster, &["stalled"]);
    // It let go of the message, and would take the next.
    await_that("pc-1 holds nothing", || (!holds(&cluster)).then_some(()));
}

#[test]
fn a_module_that_blocks_its_thread_is_taken_over_from() {
    let mut cluster = cluster();
    stall(&mut cluster, &["blocks-a-thread"]);
    // What else waited for that thread may be stuck with it, even the beats.
    is_taken_over(&mut cluster, &["stalled", "not heard from"]);
}

/// No beat leaves it any more, though the process lives and its link is not closed.
#[test]
fn a_worker_whose_runtime_is_blocked_is_taken_over_from() {
    let mut cluster = cluster();
    stall(&mut cluster, &["blocks-all"]);
    is_taken_over(&mut cluster, &["not heard from"]);
}

/// Beyond several silences, with an idle worker beside it that would take the message at once.
#[test]
fn a_slow_worker_that_makes_progress_keeps_its_message() {
    let mut cluster = cluster();
    let done = cluster.path().join("done");
    stall(&mut cluster, &["works", done.to_str().unwrap()]);
    cluster.add_worker("pc-2", RULES);
    cluster.await_ready(2);
    let (begin, long) = (Instant::now(), 3 * SILENCE);
    await_that("several silences are over", || {
        assert!(holds(&cluster), "it was taken away\n{}", cluster.logs());
        (begin.elapsed() > long).then_some(())
    });
    assert_eq!((cluster.counter("taken_over"), cluster.sink.count()), (0, 0));
    fs::write(done, "").unwrap();
    cluster.await_released(1);
    assert_eq!(cluster.counter("taken_over"), 0, "{}", cluster.logs());
    let top = &cluster.sink.received()[0].path;
    assert!(fs::read_to_string(top).unwrap().contains("stalling"), "it was pc-1's verdict");
}

/// A real scanner that reads the message and never says anything. It is killed with its children, its message goes to another
/// worker, and the worker itself goes on.
#[test]
fn a_scanner_that_never_answers_is_killed_and_its_mail_goes_elsewhere() {
    let mut cluster = cluster();
    let pids = cluster.path().join("pids");
    let hangs = format!(
        "[[module]]\nname = \"hangs\"\ntype = \"command\"\nprovides = \"virus\"\nprogram = \"/bin/sh\"\nclean = [0]\n\
         arguments = [\"-c\", \"/bin/cat > /dev/null; echo $$ >> {0}; /bin/sleep 600 & echo $! >> {0}; wait\"]\n",
        pids.display()
    );
    // Several, so that the attempts of none are used up before there is another worker.
    let sent = 10;
    for number in 0..sent {
        let text = note(&format!("hangs-{number}"), "text");
        deliver(cluster.intake, "b@recipient.example", &text);
    }
    cluster.add_worker_with("pc-1", "concurrency = 1\n", &hangs);
    await_that("the scanner has a message", || {
        (fs::read_to_string(&pids).unwrap_or_default().lines().count() >= 2).then_some(())
    });
    cluster.add_worker("pc-2", RULES);
    cluster.await_released(sent);
    await_that("the spool is empty", || cluster.stored_at_all().is_empty().then_some(()));
    assert_eq!(cluster.sink.count(), sent, "each is out once");
    let ended = || {
        let pids = fs::read_to_string(&pids).unwrap();
        pids.lines().all(|pid| !Path::new("/proc").join(pid).exists()).then_some(())
    };
    if Path::new("/proc/self").exists() {
        await_that("the scanner and its child are gone", ended);
    }
    cluster.await_ready(2);
}

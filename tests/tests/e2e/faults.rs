//! Workers and hooks that die, hang and come back.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Instant;

use gantry::demo::mail::Mail;
use gantry::demo::process::freeze_holding;
use gantry::demo::source::{Fate, Source};
use gantry_tests::cluster::RULES;
use gantry_tests::smtp::{Client, deliver, note};
use gantry_tests::{Cluster, PATIENCE, Setup, await_that, free_port, skip, until};

/// One file that the disk has damaged is set aside and reported; the others go out.
#[test]
fn a_damaged_message_is_set_aside_at_its_release_and_the_others_go_out() {
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let retry = ", retry_first = \"1s\", retry_max = \"1s\"".to_owned();
    let setup = Setup { release: Some(nobody), out: retry, ..Setup::default() };
    let mut cluster = Cluster::with_workers(&setup, &["pc-1"]);
    for subject in ["1", "2", "3"] {
        deliver(
            cluster.intake,
            "b@recipient.example",
            &note(subject, "a text that is long enough"),
        );
    }
    let waiting = || Some(cluster.stored("r")).filter(|waiting| waiting.len() == 3);
    let waiting = await_that("all wait for the next hop", waiting);
    cluster.kill_hook();
    let mut bytes = fs::read(&waiting[1]).unwrap();
    let text = b"long enough";
    let at = bytes.windows(text.len()).position(|window| window == text).unwrap();
    bytes[at] ^= 1;
    fs::write(&waiting[1], bytes).unwrap();
    let config = fs::read_to_string(cluster.config()).unwrap();
    let sink = cluster.sink.address().to_string();
    fs::write(cluster.config(), config.replace(&nobody.to_string(), &sink)).unwrap();
    cluster.start_hook();

    cluster.await_released(2);
    let set_aside = || (cluster.stored("bad").len() == 1).then_some(());
    await_that("the damaged one is set aside", set_aside);
    await_that("it is counted", || (cluster.counter("corrupted") == 1).then_some(()));
    let others = || (cluster.stored_at_all() == cluster.stored("bad")).then_some(());
    await_that("nothing else is left", others);
    let subjects: Vec<String> = cluster
        .sink
        .received()
        .iter()
        .map(|received| fs::read_to_string(&received.path).unwrap())
        .filter_map(|text| {
            text.lines().find(|line| line.starts_with("Subject:")).map(str::to_owned)
        })
        .collect();
    assert_eq!(subjects.len(), 2, "{subjects:?}");
    assert!(!subjects.contains(&"Subject: 2".to_owned()), "{subjects:?}");
    // It goes on as if nothing had been.
    deliver(cluster.intake, "b@recipient.example", &note("4", "x"));
    cluster.await_released(3);
}

/// Stopped while it holds a reservation, killed, and taken over from; in both custodies.
#[test]
fn others_take_over_from_a_killed_worker() {
    let mut cluster = Cluster::with_workers(&Setup::default(), &["pc-1", "pc-2", "pc-3"]);
    let source = Source {
        addresses: vec![cluster.upstream, cluster.intake],
        connections: 8,
        give_up: Instant::now() + PATIENCE,
    };
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&Mail::generated(5, 300), &|_| {}).unwrap());
        await_that("mail flows", || (cluster.sink.count() >= 10).then_some(()));
        let holding = || Some(cluster.status()?.worker("pc-2")?.holding);
        let held = freeze_holding(&cluster.workers["pc-2"], PATIENCE, holding);
        assert!(held.is_some(), "the stopped worker holds a reservation");
        drop(cluster.workers.remove("pc-2"));
        sending.join().unwrap()
    });
    assert!(sent.iter().all(|sent| sent.fate == Fate::Accepted));
    let infected = sent.iter().filter(|sent| sent.infected).count();
    let received = cluster.await_released(sent.len() - infected);
    await_that("all are where they belong", || {
        (cluster.stored_at_all().len() == infected && cluster.stored("q").len() == infected)
            .then_some(())
    });
    assert!(cluster.counter("taken_over") >= 1);
    let clean = sent.iter().filter(|sent| !sent.infected);
    for sent in clean {
        let copies = received.iter().filter(|one| one.id.as_ref() == Some(&sent.id));
        assert!(copies.count() >= 1, "{} is lost", sent.id);
    }
}

/// A worker that was stopped and goes on when others have long had its messages: what it brings is refused.
#[test]
fn a_worker_that_wakes_up_late_changes_nothing() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1", "pc-2"]);
    let sleeper = &cluster.workers["pc-1"];
    assert!(sleeper.freeze());
    for number in 0..20 {
        deliver(cluster.intake, "b@recipient.example", &note(&format!("late-{number}"), "text"));
    }
    cluster.await_released(20);
    assert!(sleeper.thaw());
    cluster.await_ready(2);
    deliver(cluster.intake, "b@recipient.example", &note("late-20", "text"));
    cluster.await_released(21);
    await_that("the spool is empty", || cluster.stored_at_all().is_empty().then_some(()));
    assert_eq!(cluster.sink.count(), 21, "each message is out once");
}

/// A message that crashes every worker that takes it is held after three of them; the innocent beside it arrive.
#[test]
fn poison_is_held_and_the_innocent_go_on() {
    if !cfg!(debug_assertions) {
        return skip("poison", "only workers of the debug profile can be told to crash");
    }
    let mut cluster = Cluster::start(&Setup::default());
    const POISON: &str = "gantry-poison-1f3c";
    for number in 0..20 {
        let text = if number == 7 { POISON } else { "text" };
        deliver(cluster.intake, "b@recipient.example", &note(&format!("poison-{number}"), text));
    }
    let names = ["pc-1", "pc-2", "pc-3", "pc-4"];
    for name in names {
        cluster.write_worker(name, RULES);
        let joined = cluster.worker_command(name, &["join", &cluster.token(name)]);
        assert!(joined.status.success(), "{}", gantry_tests::cluster::said(&joined));
    }
    for name in names {
        cluster.start_worker(name, &[("GANTRY_CRASH_ON", POISON)]);
    }
    cluster.await_released(19);
    await_that("the poison is held", || (cluster.stored("h").len() == 1).then_some(()));
    let held = std::fs::read(&cluster.stored("h")[0]).unwrap();
    assert!(String::from_utf8_lossy(&held).contains(POISON), "the wrong message is held");
    let crashed = cluster.workers.values_mut().filter_map(|worker| worker.ended()).count();
    assert_eq!(crashed, 3, "{}", cluster.logs());
    await_that("nothing else is left", || (cluster.stored_at_all().len() == 1).then_some(()));
    assert_eq!(cluster.sink.count(), 19);
}

/// The hook is killed with mail in both custodies. What it had said yes to goes on; what it had not is sent again.
#[test]
fn a_killed_hook_loses_nothing() {
    let mut cluster = Cluster::start(&Setup::default());
    for number in 0..10 {
        deliver(cluster.intake, "b@recipient.example", &note(&format!("stored-{number}"), "text"));
    }
    let mut waiting = Client::greet(cluster.upstream);
    let kept = note("kept-upstream", "text");
    waiting.open("a@client.example", &["b@recipient.example"]).unwrap();
    for code in [250, 250, 354] {
        assert_eq!(waiting.try_reply().unwrap().code, code);
    }
    waiting.send(&[&kept, b".\r\n".as_slice()].concat()).unwrap();
    await_that("both are in the pool", || cluster.status().filter(|status| status.backlog() == 11));
    cluster.kill_hook();
    assert!(waiting.try_reply().is_err(), "it must not have been answered");

    cluster.start_hook();
    cluster.add_worker("pc-1", RULES);
    cluster.await_released(10);
    deliver(cluster.upstream, "b@recipient.example", &kept);
    cluster.await_released(11);
    await_that("the spool is empty", || cluster.stored_at_all().is_empty().then_some(()));
    assert_eq!(cluster.sink.count(), 11);
}

/// Again and again, while mail flows: what was accepted comes out at least once, with nothing left behind.
#[test]
fn a_hook_that_is_killed_under_load_loses_nothing() {
    let mut cluster = Cluster::with_workers(&Setup::default(), &["pc-1", "pc-2"]);
    let source = Source {
        addresses: vec![cluster.intake, cluster.upstream],
        connections: 6,
        give_up: Instant::now() + 2 * PATIENCE,
    };
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&Mail::generated(9, 120), &|_| {}).unwrap());
        for round in 1..=3 {
            await_that("some mail is out", || (cluster.sink.count() >= 15 * round).then_some(()));
            cluster.kill_hook();
            cluster.start_hook();
        }
        sending.join().unwrap()
    });
    let lost = || {
        let received = cluster.sink.received();
        let out = |id: &String| received.iter().any(|one| one.id.as_ref() == Some(id));
        let clean = sent.iter().filter(|sent| sent.fate == Fate::Accepted && !sent.infected);
        clean.filter(|sent| !out(&sent.id)).map(|sent| sent.id.clone()).collect::<Vec<_>>()
    };
    let none = || lost().is_empty().then_some(());
    assert!(until(PATIENCE, none).is_some(), "lost: {:?}\n{}", lost(), cluster.logs());
    await_that("only quarantined mail is left", || {
        (cluster.stored_at_all().len() == cluster.stored("q").len()).then_some(())
    });
    for one in cluster.sink.received() {
        let infected = sent.iter().any(|sent| sent.infected && one.id.as_ref() == Some(&sent.id));
        assert!(!infected && one.has_result(), "{:?} came out unprocessed", one.id);
    }
}

/// SIGTERM: what a worker has is finished or handed back, and it goes by itself.
#[test]
fn a_worker_that_is_told_to_stop_leaves_nothing_behind() {
    let mut cluster = Cluster::with_workers(&Setup::default(), &["pc-1", "pc-2"]);
    for number in 0..30 {
        deliver(cluster.intake, "b@recipient.example", &note(&format!("term-{number}"), "text"));
        if number == 10 {
            assert!(cluster.workers["pc-1"].terminate());
        }
    }
    let status = cluster.workers.get_mut("pc-1").unwrap().wait(PATIENCE);
    assert!(status.is_some_and(|status| status.success()), "{}", cluster.logs());
    cluster.await_released(30);
    await_that("the spool is empty", || cluster.stored_at_all().is_empty().then_some(()));
    assert_eq!((cluster.sink.count(), cluster.counter("taken_over")), (30, 0));
}

//! Mail in, clean mail out, infected mail in quarantine.

use std::process::Command;
use std::time::{Duration, Instant};

use gantry::demo::ledger::Ledger;
use gantry::demo::mail::{Mail, eicar, zipped};
use gantry::demo::source::Source;
use gantry_tests::smtp::{Client, deliver, note, put_on_top};
use gantry_tests::{Cluster, PATIENCE, Setup, await_that, skip};

/// Both custodies at once, all kinds of messages, and books that balance.
#[test]
fn clean_mail_comes_out_and_infected_mail_does_not() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1", "pc-2"]);
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let source = Source {
        addresses: vec![cluster.upstream, cluster.intake],
        connections: 6,
        give_up: Instant::now() + PATIENCE,
    };
    let sent = source.send(&Mail::generated(seed, 60), &|_| {}).unwrap();
    let infected = sent.iter().filter(|sent| sent.infected).count();
    let received = cluster.await_released(sent.len() - infected);
    await_that("the infected lie in quarantine", || {
        (cluster.stored("q").len() == infected).then_some(())
    });
    let ids = sent.iter().filter(|sent| sent.infected).map(|sent| sent.id.clone()).collect();
    let ledger = Ledger::balance(&sent, &received, &ids, &Default::default());
    assert!(ledger.is_clean() && ledger.duplicates == 0, "{ledger:?}\n{}", cluster.logs());
    await_that("nothing else is left in the spool", || {
        (cluster.stored_at_all().len() == infected).then_some(())
    });
}

#[test]
fn the_envelope_comes_out_as_it_went_in() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    for address in [cluster.upstream, cluster.intake] {
        let mut client = Client::greet(address);
        let size = note("envelope", "text").len();
        client.expect(
            &format!(
                "MAIL FROM:<a@client.example> SIZE={size} BODY=8BITMIME RET=HDRS ENVID=QQ314159"
            ),
            250,
        );
        client.expect(
            "RCPT TO:<b@recipient.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;c@x.example",
            250,
        );
        client.expect("RCPT TO:<d@recipient.example> NOTIFY=NEVER", 250);
        client.expect("DATA", 354);
        let message = note("envelope", "text");
        client.send(&[&message, b".\r\n".as_slice()].concat()).unwrap();
        assert_eq!(client.try_reply().unwrap().code, 250);
    }
    // NOTIFY differs, and a release may take one transaction for both recipients or two.
    await_that("both recipients of both messages are served", || {
        let rcpt: usize = cluster.sink.received().iter().map(|one| one.rcpt.len()).sum();
        (rcpt == 4).then_some(())
    });
    for received in cluster.sink.received() {
        for part in ["<a@client.example>", "BODY=8BITMIME", "RET=HDRS", "ENVID=QQ314159"] {
            assert!(received.mail.contains(part), "{} lacks {part}", received.mail);
        }
        for rcpt in &received.rcpt {
            let parameters = if rcpt.contains("<b@") {
                ["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;c@x.example"]
            } else {
                ["<d@recipient.example>", "NOTIFY=NEVER"]
            };
            assert!(parameters.iter().all(|part| rcpt.contains(part)), "{rcpt}");
        }
        let out = std::fs::read(&received.path).unwrap();
        let top = put_on_top(&out, &note("envelope", "text")).unwrap();
        let fields = |name: &str| top.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!((fields("X-Gantry:"), fields("Received:")), (1, 1), "{top}");
    }
}

/// A client that nobody here wrote.
#[test]
fn swaks_gets_its_mail_through() {
    if Command::new("swaks").arg("--version").output().is_err() {
        return skip("swaks", "it is not installed (Debian: swaks)");
    }
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    for (address, attach) in [(cluster.upstream, false), (cluster.intake, true)] {
        let archive = cluster.path().join("invoice.zip");
        std::fs::write(&archive, zipped("eicar.com", eicar().as_bytes()).unwrap()).unwrap();
        let mut swaks = Command::new("swaks");
        swaks.args([
            "--from",
            "a@client.example",
            "--to",
            "b@recipient.example,c@recipient.example",
        ]);
        swaks.args(["--server", &address.to_string(), "--pipeline", "--timeout", "120s"]);
        if attach {
            swaks
                .arg("--attach-type")
                .arg("application/zip")
                .arg("--attach")
                .arg(format!("@{}", archive.display()));
        }
        let output = swaks.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    }
    cluster.await_released(1);
    await_that("the archive lies in quarantine", || (cluster.stored("q").len() == 1).then_some(()));
    assert_eq!(cluster.sink.count(), 1);
}

#[test]
fn without_a_worker_the_sender_keeps_the_message() {
    let setup = Setup { upstream: "answer_within = \"1s\"".to_owned(), ..Setup::default() };
    let cluster = Cluster::start(&setup);
    let reply = gantry_tests::smtp::offer(cluster.upstream, "b@recipient.example", &note("1", "x"));
    assert_eq!(reply.code / 100, 4, "{}", reply.text());
    assert_eq!(cluster.stored_at_all().len(), 0, "the sender has it, so the hook must not");
    assert_eq!(cluster.sink.count(), 0);
}

#[test]
fn without_a_worker_the_hooks_mail_waits_and_then_goes_on() {
    let mut cluster = Cluster::start(&Setup::default());
    for number in 0..5 {
        let message = note(&format!("waits-{number}"), "text");
        deliver(cluster.intake, "b@recipient.example", &message);
    }
    assert_eq!(cluster.stored_at_all().len(), 5, "what was answered yes is on disk");
    assert_eq!(cluster.status().unwrap().backlog(), 5);
    assert_eq!(cluster.sink.count(), 0);
    cluster.add_worker("pc-1", gantry_tests::cluster::RULES);
    cluster.await_released(5);
    await_that("the spool is empty", || cluster.stored_at_all().is_empty().then_some(()));
}

/// With `wait` the hook takes custody at the end of `answer_within`, and the worker that comes later finds the mail.
#[test]
fn upstream_custody_turns_into_the_hooks() {
    let upstream = "answer_within = \"1s\"\nwhen_unprocessed = \"wait\"".to_owned();
    let mut cluster = Cluster::start(&Setup { upstream, ..Setup::default() });
    let begin = Instant::now();
    deliver(cluster.upstream, "b@recipient.example", &note("waits", "x"));
    assert!(begin.elapsed() >= Duration::from_secs(1), "it must have waited for a worker first");
    assert_eq!(cluster.stored_at_all().len(), 1);
    cluster.add_worker("pc-1", gantry_tests::cluster::RULES);
    cluster.await_released(1);
}

//! Workers with a real ClamAV daemon.

use gantry::demo::mail::{eicar, zipped};
use gantry_scanners::testkit::{Clamd, ClamdOptions};
use gantry_tests::smtp::{deliver, note, offer};
use gantry_tests::{Cluster, Setup, await_that};

fn module(address: &str) -> String {
    format!(
        "[[module]]\nname = \"clamav\"\ntype = \"clamd\"\nprovides = \"virus\"\naddress = \"{address}\"\n"
    )
}

/// A cluster with a worker on the Unix socket and one on TCP, or nothing where there is no clamd.
fn start() -> Option<(Clamd, Cluster)> {
    let clamd = Clamd::start(&ClamdOptions::default()).expect("start clamd")?;
    let mut cluster = Cluster::start(&Setup::default());
    cluster.add_worker("pc-unix", &module(&format!("unix:{}", clamd.socket().display())));
    cluster.add_worker("pc-tcp", &module(&format!("tcp:{}", clamd.address())));
    cluster.await_ready(2);
    Some((clamd, cluster))
}

#[test]
fn clamd_finds_what_it_should_and_nothing_else() {
    let Some((_clamd, cluster)) = start() else { return };
    let virus = eicar();
    let archive = zipped("eicar.com", virus.as_bytes()).unwrap();
    let attached = |name: &str, content: &[u8]| {
        use base64::Engine as _;
        let text = base64::engine::general_purpose::STANDARD.encode(content);
        format!(
            "From: a@client.example\r\nSubject: {name}\r\nMIME-Version: 1.0\r\n\
             Content-Type: application/octet-stream; name=\"{name}\"\r\n\
             Content-Transfer-Encoding: base64\r\n\r\n{text}\r\n"
        )
    };
    // Several of each, so that both workers see some.
    for number in 0..6 {
        for address in [cluster.upstream, cluster.intake] {
            deliver(address, "b@recipient.example", &note(&format!("clean-{number}"), "text"));
        }
        deliver(cluster.intake, "b@recipient.example", &note(&format!("plain-{number}"), &virus));
        let file = format!("eicar-{number}.com");
        let mail = attached(&file, virus.as_bytes());
        deliver(cluster.upstream, "b@recipient.example", mail.as_bytes());
        let file = format!("eicar-{number}.zip");
        deliver(cluster.intake, "b@recipient.example", attached(&file, &archive).as_bytes());
    }
    cluster.await_released(12);
    await_that("the infected lie in quarantine", || {
        (cluster.stored("q").len() == 18).then_some(())
    });
    assert_eq!((cluster.sink.count(), cluster.stored_at_all().len()), (12, 18));
    for received in cluster.sink.received() {
        let out = String::from_utf8(std::fs::read(&received.path).unwrap()).unwrap();
        let head = out.split("\r\n\r\n").next().unwrap_or_default();
        assert!(head.lines().any(|line| line.starts_with("X-Gantry:")), "{out}");
    }
}

/// Stopped and started again in the middle: while it is away nothing is reserved, and nothing is lost.
#[test]
fn nothing_is_reserved_while_clamd_is_away() {
    let Some((mut clamd, cluster)) = start() else { return };
    let send = |from: usize| {
        for number in from..from + 10 {
            let text = if number % 5 == 0 { eicar() } else { "text".to_owned() };
            let message = note(&format!("away-{number}"), &text);
            deliver(cluster.intake, "b@recipient.example", &message);
        }
    };
    send(0);
    clamd.stop().unwrap();
    await_that("both workers are not ready", || {
        cluster.status().filter(|status| status.ready() == 0)
    });
    send(10);
    await_that("what they held is back in the pool", || {
        let status = cluster.status()?;
        status.workers().iter().all(|worker| worker.holding.is_empty()).then_some(())
    });
    assert!(cluster.stored("h").is_empty(), "clamd's absence is not the messages' fault");
    assert!(cluster.status().unwrap().backlog() >= 10);

    clamd.resume_service().unwrap();
    send(20);
    cluster.await_released(24);
    await_that("the infected lie in quarantine", || (cluster.stored("q").len() == 6).then_some(()));
    assert_eq!((cluster.sink.count(), cluster.stored_at_all().len()), (24, 6));
}

/// Killed, as by a crash, with a sender waiting.
#[test]
fn a_waiting_sender_gets_its_answer_when_clamd_is_back() {
    let Some((mut clamd, cluster)) = start() else { return };
    clamd.kill().unwrap();
    let reply = std::thread::scope(|scope| {
        let waiting =
            scope.spawn(|| offer(cluster.upstream, "b@recipient.example", &note("waits", "text")));
        await_that("the message is there and nobody is ready", || {
            cluster.status().filter(|status| status.backlog() == 1 && status.ready() == 0)
        });
        clamd.resume_service().unwrap();
        waiting.join().unwrap()
    });
    assert_eq!(reply.code, 250, "{}", reply.text());
    assert_eq!(cluster.sink.count(), 1);
}

//! A real Postfix before and behind the hook, set up as `docs/mta/postfix.md` says.

use std::net::{Ipv4Addr, SocketAddr};

use gantry::demo::mail::eicar;
use gantry_tests::postfix::Postfix;
use gantry_tests::smtp::{Client, deliver, note};
use gantry_tests::{Cluster, Setup, await_that, free_port};

fn start(workers: &[&str]) -> Option<(Postfix, Cluster)> {
    let back = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let setup = Setup {
        release: Some(back),
        intake: ", xforward_from = [\"127.0.0.1\"]".to_owned(),
        upstream: "answer_within = \"60s\"\nupstream_timeout = \"600s\"".to_owned(),
        ..Setup::default()
    };
    let cluster = Cluster::with_workers(&setup, workers);
    let postfix = Postfix::start(cluster.upstream, back, cluster.sink.address())?;
    Some((postfix, cluster))
}

#[test]
fn mail_passes_postfix_hook_and_postfix_again() {
    let Some((postfix, cluster)) = start(&["pc-1", "pc-2"]) else { return };
    let mut client = Client::connect(postfix.front);
    let offers = client.expect("EHLO relay.example", 250);
    assert!(offers.offers("XFORWARD"), "{}", offers.text());
    client
        .expect("XFORWARD NAME=far.example ADDR=192.0.2.77 HELO=far-helo.example PROTO=ESMTP", 250);
    let long_line = "x".repeat(3_000);
    let text = format!("gr\u{fc}\u{df}e\r\n.\r\n{long_line}");
    let message = note("through-postfix", &text);
    let reply = client.transact(
        "a@client.example",
        &["b@recipient.example", "c@recipient.example"],
        &message,
    );
    assert_eq!(reply.unwrap().code, 250);
    for number in 0..10 {
        deliver(postfix.front, "d@recipient.example", &note(&format!("more-{number}"), "text"));
    }
    deliver(postfix.front, "e@recipient.example", &note("infected", &eicar()));

    await_that("all clean mail is out for its recipients", || {
        let served: usize = cluster.sink.received().iter().map(|one| one.rcpt.len()).sum();
        (served >= 12).then_some(())
    });
    await_that("the infected one lies in quarantine", || {
        (cluster.stored("q").len() == 1).then_some(())
    });
    await_that("postfix has nothing left", || (postfix.queued() == 0).then_some(()));
    let received = cluster.sink.received();
    let served: usize = received.iter().map(|one| one.rcpt.len()).sum();
    assert_eq!(served, 12, "each recipient is served once");
    for one in &received {
        let data = std::fs::read(&one.path).unwrap();
        let data = String::from_utf8(data).unwrap();
        assert!(data.contains("X-Gantry:"), "{data}");
        assert!(!one.recipients().any(|to| to.starts_with("e@")), "infected mail came out");
    }
    let first =
        received.iter().find(|one| one.recipients().any(|to| to.starts_with("b@"))).unwrap();
    let data = std::fs::read(&first.path).unwrap();
    let body = |bytes: &[u8]| {
        let at = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
        bytes[at..].to_vec()
    };
    assert_eq!(body(&data), body(&message), "the body is untouched, long line and all");
    // The client told the first smtpd, Postfix the hook, and the hook the second smtpd: both log it.
    let log = postfix.log();
    let forwarded = |line: &&str| line.contains("orig_client=far.example[192.0.2.77]");
    assert_eq!(log.lines().filter(forwarded).count(), 2, "{log}");
}

/// With no worker Postfix keeps its mail and tries again.
#[test]
fn postfix_keeps_what_nobody_processes() {
    let back = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let setup = Setup {
        release: Some(back),
        upstream: "answer_within = \"1s\"".to_owned(),
        ..Setup::default()
    };
    let mut cluster = Cluster::start(&setup);
    let Some(postfix) = Postfix::start(cluster.upstream, back, cluster.sink.address()) else {
        return;
    };
    deliver(postfix.front, "b@recipient.example", &note("kept", "text"));
    await_that("the hook has put Postfix off", || {
        postfix.log().contains("status=deferred").then_some(())
    });
    assert_eq!((postfix.queued(), cluster.stored_at_all().len(), cluster.sink.count()), (1, 0, 0));
    cluster.add_worker("pc-1", gantry_tests::cluster::RULES);
    cluster.await_ready(1);
    postfix.flush();
    cluster.await_released(1);
    await_that("postfix has nothing left", || (postfix.queued() == 0).then_some(()));
    assert_eq!(cluster.sink.count(), 1);
}

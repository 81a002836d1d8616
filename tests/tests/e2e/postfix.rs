//! A real Postfix before and behind the hook, set up as `docs/mta/postfix.md` says.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;

use gantry::demo::mail::eicar;
use gantry_tests::cluster::RULES;
use gantry_tests::postfix::Postfix;
use gantry_tests::smtp::{Client, deliver, note};
use gantry_tests::{Certificate, Cluster, Dovecot, Setup, await_that, free_port};
use tempfile::TempDir;

use crate::operators::{join_operator, json};

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

/// Both ways are encrypted, and each side insists on it.
#[test]
fn mail_passes_postfix_hook_and_postfix_again_over_tls() {
    let folder = TempDir::with_prefix("gantry-certificates-").unwrap();
    let make = |name| Certificate::make(folder.path(), name);
    let (hooks, postfixs) = (make("hook"), make("postfix"));
    let back = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().unwrap()));
    let setup = Setup {
        release: Some(back),
        intake: format!(
            ", tls = {{ certificate = {:?}, key = {:?}, required = true }}",
            hooks.certificate, hooks.key
        ),
        out: format!(", tls = \"required\", tls_ca = {:?}", postfixs.certificate),
        ..Setup::default()
    };
    let cluster = Cluster::with_workers(&setup, &["pc-1"]);
    let next = cluster.sink.address();
    let Some(postfix) = Postfix::over_tls(cluster.upstream, back, next, &postfixs) else { return };
    let refused = Client::connect(cluster.upstream).command("MAIL FROM:<a@client.example>");
    assert_eq!(refused.code, 530, "{}", refused.text());

    deliver(postfix.front, "b@recipient.example", &note("encrypted", "text"));
    deliver(postfix.front, "b@recipient.example", &note("infected", &eicar()));
    let received = cluster.await_released(1);
    await_that("the infected one lies in quarantine", || {
        (cluster.stored("q").len() == 1).then_some(())
    });
    await_that("postfix has nothing left", || (postfix.queued() == 0).then_some(()));
    let data = std::fs::read_to_string(&received[0].path).unwrap();
    assert!(data.contains("with ESMTPS"), "the hook says how it came: {data}");
    let log = postfix.log();
    let (to, from) = (
        format!("established to 127.0.0.1[127.0.0.1]:{}", cluster.upstream.port()),
        "established from",
    );
    assert!(log.contains(&to) && log.contains(from), "{log}");
}

/// A relay that wants a login: mail waits while the password is wrong, and goes when it is right.
#[test]
fn mail_goes_out_through_a_relay_that_wants_a_login() {
    let Some(dovecot) = Dovecot::start("gantry", "correct horse") else { return };
    let folder = TempDir::with_prefix("gantry-certificates-").unwrap();
    let own = Certificate::make(folder.path(), "relay");
    let password = folder.path().join("password");
    let write = |text: &str| {
        std::fs::write(&password, text).unwrap();
        std::fs::set_permissions(&password, std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    write("wrong\n");
    let mut cluster = Cluster::prepare(&Setup::default());
    let next = cluster.sink.address();
    let Some(relay) = Postfix::relay(next, &own, &dovecot) else { return };
    let config = std::fs::read_to_string(cluster.config()).unwrap();
    let out = format!(
        "address = \"{}\", tls = \"required\", tls_ca = {:?}, auth_user = \"gantry\", auth_password_file = {:?}, \
         retry_first = \"1s\", retry_max = \"1s\"",
        relay.front, own.certificate, password
    );
    std::fs::write(cluster.config(), config.replace(&format!("address = \"{next}\""), &out))
        .unwrap();
    cluster.start_hook();
    cluster.add_worker("pc-1", RULES);
    cluster.await_ready(1);

    let reply =
        gantry_tests::smtp::offer(cluster.upstream, "b@recipient.example", &note("no", "text"));
    assert_eq!(reply.code, 451, "its sender keeps it: {}", reply.text());
    deliver(cluster.intake, "b@recipient.example", &note("waits", "text"));
    join_operator(&cluster, "alice", "");
    let reason = await_that("the hook was refused", || {
        let queue = json(&cluster, &["queue", "--state", "releasing"]);
        queue["queue"]["messages"][0]["reasons"][0].as_str().map(str::to_owned)
    });
    assert!(reason.contains(": 535 "), "operators see the relay's words: {reason}");
    assert_eq!((cluster.stored("r").len(), cluster.sink.count()), (1, 0));

    write("correct horse\n");
    let received = cluster.await_released(1);
    await_that("nothing is left", || cluster.stored_at_all().is_empty().then_some(()));
    let data = std::fs::read_to_string(&received[0].path).unwrap();
    assert!(data.contains("with ESMTPSA"), "the relay says that somebody logged in: {data}");
    assert!(relay.log().contains("sasl_username=gantry"), "{}", relay.log());
}

//! STARTTLS (RFC 3207) and AUTH (RFC 4954) towards the next hop.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::tls::testing::TestCa;
use crate::tls::{Demand, ServerTls};

const OFFERS: &[&str] = &["PIPELINING", "SIZE 0", "STARTTLS", "AUTH PLAIN LOGIN"];

struct Bed {
    folder: tempfile::TempDir,
    ca: TestCa,
    server: ServerTls,
}

impl Bed {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ca = TestCa::new(folder.path());
        let server = ServerTls::open(ca.issue("hop.example", 4_000), false).unwrap();
        Self { folder, ca, server }
    }

    fn required(&self, name: &str) -> Demand {
        Demand::Required { ca: self.ca.file(), name: name.into() }
    }

    fn site(&self, sink: &Sink, demand: &Demand, credentials: Option<Credentials>) -> Site {
        let tls = ClientTls::open(demand, "127.0.0.1").unwrap();
        Site::new(SmtpReleaseConfig { tls, credentials, ..config(sink.address) })
    }

    fn credentials(&self, password: &str, mode: u32) -> Credentials {
        let path = self.folder.path().join("password");
        write_password(&path, password, mode);
        Credentials { user: "gantry".into(), password_file: path, without_tls: false }
    }
}

fn write_password(path: &Path, password: &str, mode: u32) {
    std::fs::write(path, password).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn usual(_: usize, _: &str) -> Do {
    Do::Usual
}

fn one_deferred(results: &[RecipientResult], why: &str) {
    assert_eq!(kinds(results), [ReleaseResult::Deferred]);
    assert!(results[0].reply.contains(why), "{results:?}");
}

#[tokio::test]
async fn required_tls_verifies_and_greets_again() {
    let bed = Bed::new();
    let sink = Sink::start_with(OFFERS, Some(bed.server.clone()), usual).await;
    let site = bed.site(&sink, &bed.required("hop.example"), None);
    for _ in 0..2 {
        let results = site.send(&envelope(&["a@example.com"]), MESSAGE).await;
        assert_eq!(kinds(&results), [ReleaseResult::Accepted], "{results:?}");
    }
    let commands = sink.commands();
    assert_eq!(commands[..3], ["EHLO mx1.example", "STARTTLS", "EHLO mx1.example"]);
    assert_eq!((sink.connections(), sink.taken().len()), (1, 2), "the connection is kept");
    assert!(!site.offered.get().unwrap().starttls, "it was greeted again");
}

#[tokio::test]
async fn required_tls_never_sends_in_the_clear() {
    let bed = Bed::new();
    let sink = Sink::start_with(OFFERS, Some(bed.server.clone()), usual).await;
    let other = tempfile::tempdir().unwrap();
    let stranger = TestCa::new(other.path());
    for (demand, why) in [
        (bed.required("other.example"), "not valid for name"),
        (
            Demand::Required { ca: stranger.file(), name: "hop.example".into() },
            "invalid peer certificate",
        ),
    ] {
        let results =
            bed.site(&sink, &demand, None).send(&envelope(&["a@example.com"]), MESSAGE).await;
        one_deferred(&results, why);
    }
    let expired = ServerTls::open(bed.ca.issue("old.example", 2_001), false).unwrap();
    let old = Sink::start_with(OFFERS, Some(expired), usual).await;
    let site = bed.site(&old, &bed.required("old.example"), None);
    one_deferred(&site.send(&envelope(&["a@example.com"]), MESSAGE).await, "expired");

    let without = Sink::start(EVERYTHING, usual).await;
    let refusing = Sink::start(OFFERS, |_, line| match line {
        "STARTTLS" => Do::Reply("454 4.7.0 not now"),
        _ => Do::Usual,
    })
    .await;
    let talkative = Sink::start(OFFERS, |_, line| match line {
        "STARTTLS" => Do::Reply("220 go\r\n250 injected"),
        _ => Do::Usual,
    })
    .await;
    for (sink, why) in [
        (&without, "does not offer it"),
        (&refusing, "454 4.7.0 not now"),
        (&talkative, "more than its reply"),
    ] {
        let site = bed.site(sink, &bed.required("hop.example"), None);
        one_deferred(&site.send(&envelope(&["a@example.com"]), MESSAGE).await, why);
    }
    for sink in [sink, old, without, refusing, talkative] {
        assert!(!sink.commands().iter().any(|line| line.starts_with("MAIL")), "in the clear");
    }
}

#[tokio::test]
async fn the_next_hops_own_certificate_may_be_named() {
    let bed = Bed::new();
    let files = bed.ca.issue("snakeoil", 2_001);
    let sink =
        Sink::start_with(OFFERS, Some(ServerTls::open(files.clone(), false).unwrap()), usual).await;
    let demand = Demand::Required { ca: files.certificate, name: "127.0.0.1".into() };
    let site = bed.site(&sink, &demand, None);
    let results = site.send(&envelope(&["a@example.com"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted], "{results:?}");
}

#[tokio::test]
async fn opportunistic_tls_takes_what_it_gets() {
    let bed = Bed::new();
    let encrypts = Sink::start_with(OFFERS, Some(bed.server.clone()), usual).await;
    let without = Sink::start(EVERYTHING, usual).await;
    // Offers it and has no certificate: the handshake fails, and another connection goes without.
    let broken = Sink::start_with(OFFERS, None, usual).await;
    let refusing = Sink::start(OFFERS, |_, line| match line {
        "STARTTLS" => Do::Reply("454 4.7.0 not now"),
        _ => Do::Usual,
    })
    .await;
    for (sink, hellos, connections) in
        [(encrypts, 2, 1), (without, 1, 1), (broken, 2, 2), (refusing, 1, 1)]
    {
        let site = bed.site(&sink, &Demand::Opportunistic, None);
        let results = site.send(&envelope(&["a@example.com"]), MESSAGE).await;
        assert_eq!(kinds(&results), [ReleaseResult::Accepted], "{results:?}");
        let commands = sink.commands();
        let said = commands.iter().filter(|line| line.starts_with("EHLO")).count();
        assert_eq!((said, sink.connections()), (hellos, connections), "{commands:?}");
    }
}

#[tokio::test]
async fn it_logs_in_under_tls_and_only_there() {
    let bed = Bed::new();
    let credentials = bed.credentials("s\u{e9}cret\n", 0o600);
    let sink = Sink::start_with(OFFERS, Some(bed.server.clone()), usual).await;
    let site = bed.site(&sink, &bed.required("hop.example"), Some(credentials.clone()));
    let results = site.send(&envelope(&["a@example.com"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted], "{results:?}");
    let expected = format!("AUTH PLAIN {}", STANDARD.encode("\0gantry\0s\u{e9}cret"));
    assert_eq!(sink.commands()[3], expected);

    // In the clear it says nothing, unless it may on loopback.
    let clear = Sink::start(OFFERS, usual).await;
    let site = bed.site(&clear, &Demand::Off, Some(credentials.clone()));
    let results = site.send(&envelope(&["a@example.com"]), MESSAGE).await;
    one_deferred(&results, "the password was not sent");
    assert!(!clear.commands().iter().any(|line| line.starts_with("AUTH")));
    let allowed = Credentials { without_tls: true, ..credentials };
    let site = bed.site(&clear, &Demand::Off, Some(allowed));
    let results = site.send(&envelope(&["a@example.com"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted], "{results:?}");
}

#[tokio::test]
async fn login_is_said_step_by_step() {
    let bed = Bed::new();
    const LOGIN: &[&str] = &["AUTH GSSAPI LOGIN", "STARTTLS"];
    let answer = |_: usize, line: &str| match line {
        "AUTH LOGIN" => Do::Reply("334 VXNlcm5hbWU6"),
        "Z2FudHJ5" => Do::Reply("334 UGFzc3dvcmQ6"),
        "c2VjcmV0" => Do::Reply("235 2.7.0 welcome"),
        _ => Do::Usual,
    };
    let sink = Sink::start_with(LOGIN, Some(bed.server.clone()), answer).await;
    let credentials = bed.credentials("secret", 0o400);
    let site = bed.site(&sink, &bed.required("hop.example"), Some(credentials));
    let results = site.send(&envelope(&["a@example.com"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted], "{results:?}");
}

#[tokio::test]
async fn a_refused_login_defers_and_tells_no_secret() {
    let bed = Bed::new();
    for (reply, offers) in [
        ("535 5.7.8 authentication failed", OFFERS),
        ("454 4.7.0 temporary", OFFERS),
        ("", &["STARTTLS", "AUTH GSSAPI"][..]),
    ] {
        let answer = move |_: usize, line: &str| match line.starts_with("AUTH") {
            true => Do::Reply(reply),
            false => Do::Usual,
        };
        let sink = Sink::start_with(offers, Some(bed.server.clone()), answer).await;
        let credentials = bed.credentials("hunter7", 0o600);
        let site = bed.site(&sink, &bed.required("hop.example"), Some(credentials));
        let results = site.send(&envelope(&["a@example.com"]), MESSAGE).await;
        let why = if reply.is_empty() { "neither AUTH PLAIN nor LOGIN" } else { reply };
        one_deferred(&results, why);
        let told = format!("{results:?} {:?}", site.way);
        assert!(!told.contains("hunter7") && !told.contains("aHVudGVyN"), "{told}");
        assert!(!sink.commands().iter().any(|line| line.starts_with("MAIL")));
    }
}

#[tokio::test]
async fn a_password_that_others_can_read_is_not_used() {
    let bed = Bed::new();
    let sink = Sink::start_with(OFFERS, Some(bed.server.clone()), usual).await;
    for (password, mode, why) in [
        ("secret", 0o640, "its mode is 640"),
        ("secret", 0o604, "its mode is 604"),
        ("", 0o600, "one line"),
        ("a\nb\n", 0o600, "one line"),
        ("a\0b", 0o600, "one line"),
    ] {
        let credentials = bed.credentials(password, mode);
        let site = bed.site(&sink, &bed.required("hop.example"), Some(credentials));
        one_deferred(&site.send(&envelope(&["a@example.com"]), MESSAGE).await, why);
    }
    let missing = Credentials {
        password_file: bed.folder.path().join("none"),
        ..bed.credentials("secret", 0o600)
    };
    let site = bed.site(&sink, &bed.required("hop.example"), Some(missing));
    one_deferred(&site.send(&envelope(&["a@example.com"]), MESSAGE).await, "No such file");
}

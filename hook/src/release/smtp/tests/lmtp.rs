//! LMTP (RFC 2033): what differs from SMTP.

use super::*;

fn site(sink: &Sink) -> Site {
    Site::new(SmtpReleaseConfig { protocol: Protocol::Lmtp, ..config(sink.address) })
}

#[tokio::test]
async fn each_recipient_gets_the_reply_that_is_its_own() {
    let sink = Sink::start(EVERYTHING, |_, line| match line {
        "RCPT TO:<b@example.com>" => Do::Reply("550 5.1.1 nobody"),
        // A reply each for a, c and d: none for b, and nothing more.
        "." => Do::Reply("250 2.0.0 for a\r\n452-4.2.2 for c\r\n452 4.2.2 full\r\n550 5.2.1 for d"),
        _ => Do::Usual,
    })
    .await;
    let site = site(&sink);
    let to = envelope(&["a@example.com", "b@example.com", "c@example.com", "d@example.com"]);
    let results = site.send(&to, MESSAGE).await;
    use ReleaseResult::{Accepted, Deferred, Refused};
    assert_eq!(kinds(&results), [Accepted, Refused, Deferred, Refused]);
    let replies: Vec<_> = results.iter().map(|result| result.reply.as_str()).collect();
    assert_eq!(
        replies,
        ["250 2.0.0 for a", "550 5.1.1 nobody", "452 4.2.2 for c full", "550 5.2.1 for d"]
    );
    assert_eq!(sink.commands()[0], "LHLO mx1.example");
    // The connection is in step: the next message finds its own replies.
    assert_eq!(kinds(&site.send(&envelope(&["a@example.com"]), MESSAGE).await), [Accepted]);
    assert_eq!(sink.connections(), 1);
}

#[tokio::test]
async fn a_reply_that_never_comes_leaves_only_its_own_recipient_unknown() {
    let sink = Sink::start(EVERYTHING, |_, line| match line {
        "." => Do::Reply("250 2.0.0 for a\r\n421 4.3.2 for b, and goodbye"),
        _ => Do::Usual,
    })
    .await;
    let mut config = config(sink.address);
    config.protocol = Protocol::Lmtp;
    config.timeouts.final_dot = Duration::from_millis(300);
    let site = Site::new(config);
    let results = site.send(&envelope(&["a@x", "b@x", "c@x"]), MESSAGE).await;
    use ReleaseResult::{Accepted, Deferred, Unknown};
    assert_eq!(kinds(&results), [Accepted, Deferred, Unknown]);
    site.send(&envelope(&["a@x"]), MESSAGE).await;
    assert_eq!(sink.connections(), 2, "a connection that is out of step is not used again");
}

#[tokio::test]
async fn a_next_hop_that_speaks_only_smtp_gets_nothing() {
    let sink = Sink::start(EVERYTHING, |_, line| match line.split(' ').next() {
        Some("LHLO") => Do::Reply("500 5.5.2 what"),
        _ => Do::Usual,
    })
    .await;
    let results = site(&sink).send(&envelope(&["a@x"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Deferred]);
    assert_eq!(sink.commands(), ["LHLO mx1.example"], "no HELO: it would mean another protocol");
}

//! Next hops that are slow, mad or dying.

use super::*;

/// A sink that does one thing otherwise.
async fn sink(at: &'static str, what: Do) -> Sink {
    Sink::start(EVERYTHING, move |_, line| {
        let meant = match at {
            "" => line.is_empty(),
            _ => line.starts_with(at),
        };
        if meant { what.clone() } else { Do::Usual }
    })
    .await
}

async fn results(sink: &Sink) -> Vec<RecipientResult> {
    Site::to(sink).send(&envelope(&["a@x", "b@x"]), MESSAGE).await
}

#[tokio::test]
async fn every_refusal_has_its_class() {
    use ReleaseResult::{Deferred, Refused};
    for (at, reply, expected) in [
        // A greeting that is none means trouble in our own house: mail is kept.
        ("", "554 5.3.2 not now", Deferred),
        ("", "421 4.3.2 later", Deferred),
        ("EHLO", "421 4.3.2 later", Deferred),
        ("EHLO", "450 4.3.2 later", Deferred),
        ("MAIL", "451 4.3.0 later", Deferred),
        ("MAIL", "550 5.7.1 never", Refused),
        ("MAIL", "421 4.3.2 later", Deferred),
        ("RCPT", "450 4.2.0 later", Deferred),
        ("RCPT", "550 5.1.1 never", Refused),
        ("DATA", "451 4.3.0 later", Deferred),
        ("DATA", "554 5.7.1 never", Refused),
        (".", "451 4.3.0 later", Deferred),
        (".", "421 4.3.2 later", Deferred),
        (".", "554 5.7.1 never", Refused),
        (".", "354 odd", Deferred),
    ] {
        let sink = sink(at, Do::Reply(reply)).await;
        let results = results(&sink).await;
        assert_eq!(kinds(&results), [expected; 2], "{at}: {reply}: {results:?}");
        assert!(results[0].reply.contains(reply), "{at}: {results:?}");
        assert!(sink.taken().is_empty());
    }
}

#[tokio::test]
async fn a_next_hop_that_dies_has_the_message_only_after_the_final_dot_perhaps() {
    for (at, expected) in [
        ("", ReleaseResult::Deferred),
        ("EHLO", ReleaseResult::Deferred),
        ("MAIL", ReleaseResult::Deferred),
        ("RCPT", ReleaseResult::Deferred),
        ("DATA", ReleaseResult::Deferred),
        (".", ReleaseResult::Unknown),
    ] {
        let sink = sink(at, Do::Close).await;
        let results = results(&sink).await;
        assert_eq!(kinds(&results), [expected; 2], "{at}: {results:?}");
        assert_eq!(sink.connections(), 1, "a new connection that dies is not tried again at once");
    }
}

#[tokio::test]
async fn a_next_hop_that_says_nothing_is_left() {
    let short = Duration::from_millis(50);
    let usual = SmtpTimeouts::default();
    let command = SmtpTimeouts { command: short, ..usual };
    let total = SmtpTimeouts { total: short, ..usual };
    for (at, timeouts, expected) in [
        ("", command, ReleaseResult::Deferred),
        ("EHLO", command, ReleaseResult::Deferred),
        ("MAIL", command, ReleaseResult::Deferred),
        ("RCPT", total, ReleaseResult::Deferred),
        ("DATA", SmtpTimeouts { data: short, ..usual }, ReleaseResult::Deferred),
        (".", SmtpTimeouts { final_dot: short, ..usual }, ReleaseResult::Unknown),
    ] {
        let sink = sink(at, Do::Silence).await;
        let site = Site::new(SmtpReleaseConfig { timeouts, ..config(sink.address) });
        let results = site.send(&envelope(&["a@x", "b@x"]), MESSAGE).await;
        assert_eq!(kinds(&results), [expected; 2], "{at}: {results:?}");
    }
}

#[tokio::test]
async fn a_next_hop_that_stops_reading_gets_no_message() {
    // It closes with the message half sent: far more than all buffers hold.
    let sink = sink("<data>", Do::Close).await;
    let site = Site::to(&sink);
    let message = format!("Subject: x\r\n\r\n{}", "line of text\r\n".repeat(1_000_000));
    let results = site.send(&envelope(&["a@x"]), message.as_bytes()).await;
    assert_eq!(kinds(&results), [ReleaseResult::Deferred], "{results:?}");
}

#[tokio::test]
async fn garbage_is_no_reply() {
    for garbage in ["HTTP/1.1 400 Bad Request", "25", "999 x", "250-a\r\n251 b"] {
        let sink = sink("MAIL", Do::Reply(garbage)).await;
        let results = results(&sink).await;
        assert_eq!(kinds(&results), [ReleaseResult::Deferred; 2], "{garbage}");
        let sink = self::sink(".", Do::Reply(garbage)).await;
        let results = self::results(&sink).await;
        assert_eq!(kinds(&results), [ReleaseResult::Unknown; 2], "{garbage}");
    }
}

#[tokio::test]
async fn nobody_there_is_no_reason_to_give_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let site = Site::new(config(address));
    let results = site.send(&envelope(&["a@x"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Deferred]);
    assert!(results[0].reply.starts_with("connect to the next hop"), "{results:?}");
    let error = soon(probe(&site.way)).await.unwrap_err().to_string();
    assert!(error.contains(&address.to_string()), "{error}");
    assert_eq!(site.offered.get(), None);
}

#[tokio::test]
async fn a_kept_connection_that_died_is_replaced_once() {
    // The first connection dies at its second MAIL, without a word or with one.
    for what in [Do::Close, Do::Reply("421 4.4.2 too long idle")] {
        let mails = std::sync::atomic::AtomicUsize::new(0);
        let sink = Sink::start(EVERYTHING, move |connection, line| {
            let second = line.starts_with("MAIL")
                && connection == 1
                && mails.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 1;
            if second { what.clone() } else { Do::Usual }
        })
        .await;
        let site = Site::to(&sink);
        for _ in 0..2 {
            let results = site.send(&envelope(&["a@x"]), MESSAGE).await;
            assert_eq!(kinds(&results), [ReleaseResult::Accepted], "{results:?}");
        }
        assert_eq!((sink.connections(), sink.taken().len()), (2, 2));
    }
}

#[tokio::test]
async fn a_refused_transaction_is_ended_before_the_next() {
    let sink = Sink::start(EVERYTHING, |_, line| match line {
        "RCPT TO:<never@x>" => Do::Reply("550 5.1.1 never"),
        _ => Do::Usual,
    })
    .await;
    let site = Site::to(&sink);
    site.send(&envelope(&["never@x"]), MESSAGE).await;
    let results = site.send(&envelope(&["a@x"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted]);
    assert_eq!(sink.connections(), 1);
    let commands = sink.commands();
    let reset = commands.iter().position(|line| line == "RSET").unwrap();
    let mails = commands.iter().enumerate().filter(|(_, line)| line.starts_with("MAIL"));
    let mails: Vec<usize> = mails.map(|(at, _)| at).collect();
    assert!(mails[0] < reset && reset < mails[1], "{commands:?}");
}

#[tokio::test]
async fn a_go_ahead_without_recipients_is_not_taken() {
    let sink = Sink::start(EVERYTHING, |_, line| match line {
        "DATA" => Do::Reply("354 go"),
        _ if line.starts_with("RCPT") => Do::Reply("550 5.1.1 never"),
        _ => Do::Usual,
    })
    .await;
    let site = Site::to(&sink);
    for _ in 0..2 {
        let results = site.send(&envelope(&["a@x"]), MESSAGE).await;
        assert_eq!(kinds(&results), [ReleaseResult::Refused]);
    }
    assert!(sink.taken().is_empty());
    assert_eq!(sink.connections(), 2, "such a connection is not kept");
}

#[tokio::test]
async fn a_damaged_message_never_gets_its_final_dot() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let site = Site::to(&sink);
    let text = b"a line that will be damaged\r\n";
    for lines in [1, 10_000] {
        let mut message = b"Subject: x\r\n\r\n".to_vec();
        message.extend(text.repeat(lines));
        let id = site.store(&envelope(&["a@x"]), &message);
        damage(&site, b"will be damaged");
        let results = site.release(id, vec![0]).await;
        assert_eq!(kinds(&results), [ReleaseResult::Deferred], "{results:?}");
        assert!(sink.taken().is_empty());
        site.spool.set_aside_corrupted(id, "damaged by the test").unwrap();
    }
    let results = site.send(&envelope(&["a@x"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted], "the rest goes on");
}

/// Changes the last place in any message's file where these bytes stand.
fn damage(site: &Site, what: &[u8]) {
    let entries = walkdir::WalkDir::new(site.folder.path()).into_iter().map(Result::unwrap);
    for entry in entries.filter(|entry| entry.file_type().is_file()) {
        if entry.path().to_string_lossy().ends_with(".bad") {
            continue;
        }
        let mut bytes = std::fs::read(entry.path()).unwrap();
        let Some(at) = bytes.windows(what.len()).rposition(|window| window == what) else {
            continue;
        };
        bytes[at] ^= 1;
        std::fs::write(entry.path(), bytes).unwrap();
        return;
    }
    panic!("nothing to damage");
}

#[tokio::test]
async fn no_more_connections_than_allowed() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let site = Site::new(SmtpReleaseConfig { connections_max: 2, ..config(sink.address) });
    let ids: Vec<MessageId> = (0..10).map(|_| site.store(&envelope(&["a@x"]), MESSAGE)).collect();
    let site = Arc::new(site);
    let mut releases = tokio::task::JoinSet::new();
    for id in ids {
        let site = site.clone();
        releases.spawn(async move { kinds(&site.release(id, vec![0]).await) });
    }
    while let Some(result) = releases.join_next().await {
        assert_eq!(result.unwrap(), [ReleaseResult::Accepted]);
    }
    assert_eq!(sink.taken().len(), 10);
    assert!(sink.connections() <= 2, "{} connections", sink.connections());
}

#[tokio::test]
async fn idle_connections_are_given_back() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let timeouts = SmtpTimeouts { idle: Duration::from_millis(50), ..SmtpTimeouts::default() };
    let site = Site::new(SmtpReleaseConfig { timeouts, ..config(sink.address) });
    site.send(&envelope(&["a@x"]), MESSAGE).await;
    soon(async {
        while !sink.commands().contains(&"QUIT".to_owned()) {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

//! What the next hop is told, and what it gets.

use gantry_mail::{BodyType, Notify, Ret, SenderParameters, header};

use super::*;

#[tokio::test]
async fn a_message_leaves_with_all_that_came_with_it() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let site = Site::to(&sink);
    let mut envelope = envelope(&["a@example.com", "b@example.com"]);
    envelope.parameters = SenderParameters {
        body: Some(BodyType::EightBitMime),
        smtputf8: false,
        ret: Some(Ret::Headers),
        envid: Some("q+2B1".into()),
    };
    envelope.recipients[0].notify = Some(Notify { success: true, failure: true, delay: false });
    envelope.recipients[0].orcpt = Some("rfc822;x@example.com".into());
    let message = "X-Gantry: forged\r\nx-gantry-trace: forged\r\nMessage-ID: <1@x>\r\n\
         Authentication-Results: mx1.example; spf=pass\r\nAuthentication-Results: other; spf=pass\r\n\
         Subject: x\r\n\r\n.\r\n..two\r\n\u{e9}\r\nX-Gantry: in the body\r\n";
    let id = site.store(&envelope, message.as_bytes());
    site.settle(id, vec![deliver(&[0, 1], &["X-Gantry: clean; rules"])]);
    let results = site.release(id, vec![0, 1]).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted; 2]);
    assert_eq!(results[0].reply, "250 2.0.0 queued as 7");

    let taken = sink.taken();
    assert_eq!(taken.len(), 1);
    let bytes = String::from_utf8(taken[0].bytes.clone()).unwrap();
    let ours = header::scan(bytes.as_bytes()).unwrap();
    let mut fields = header::fields(bytes.as_bytes());
    assert!(fields.next().unwrap().raw.starts_with(b"Received: from client.example ([192.0.2.7])"));
    assert!(bytes.contains(&id.to_string()), "{bytes}");
    assert!(fields.next().unwrap().is("X-Gantry-Trace"));
    let below = "X-Gantry: clean; rules\r\nMessage-ID: <1@x>\r\nAuthentication-Results: other; \
         spf=pass\r\nSubject: x\r\n\r\n.\r\n..two\r\n\u{e9}\r\nX-Gantry: in the body\r\n";
    assert!(bytes.ends_with(below), "{bytes}");
    let above = bytes.len() - below.len();
    assert_eq!(header::fields(&bytes.as_bytes()[..above]).count(), 2);
    // The way in knows it again.
    assert!(site.trace.is_ours("mail.box", &ours, &["b@example.com", "a@example.com"]));

    // What is announced is what is sent, before dots are added.
    let mail = format!(
        "MAIL FROM:<from@example.com> SIZE={} BODY=8BITMIME RET=HDRS ENVID=q+2B1",
        bytes.len()
    );
    let expected = [
        "EHLO mx1.example",
        "XFORWARD NAME=[UNAVAILABLE] ADDR=192.0.2.7 PROTO=ESMTP HELO=client.example",
        &mail,
        "RCPT TO:<a@example.com> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;x@example.com",
        "RCPT TO:<b@example.com>",
        "DATA",
    ];
    assert_eq!(sink.commands(), expected);
}

#[tokio::test]
async fn what_upstream_told_by_xforward_is_told_on() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let mut envelope = envelope(&["a@example.com"]);
    envelope.peer.xforward = vec![("NAME".into(), "a+b".into()), ("IDENT".into(), "Q1".into())];
    Site::to(&sink).send(&envelope, MESSAGE).await;
    let told = |sink: &Sink| {
        let commands = sink.commands();
        commands.into_iter().filter(|line| line.starts_with("XFORWARD")).collect::<Vec<_>>()
    };
    assert_eq!(told(&sink), ["XFORWARD NAME=a+2Bb"], "IDENT was not offered");

    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let site = Site::new(SmtpReleaseConfig { xforward: false, ..config(sink.address) });
    site.send(&envelope, MESSAGE).await;
    assert!(told(&sink).is_empty());

    let refuses = |_: usize, line: &str| match line.starts_with("XFORWARD") {
        true => Do::Reply("550 5.7.0 not you"),
        false => Do::Usual,
    };
    let sink = Sink::start(EVERYTHING, refuses).await;
    let results = Site::to(&sink).send(&envelope, MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted]);
}

#[tokio::test]
async fn an_old_next_hop_gets_plain_smtp() {
    let old = |_: usize, line: &str| match line.starts_with("EHLO") {
        true => Do::Reply("502 5.5.1 what"),
        false => Do::Usual,
    };
    let sink = Sink::start(&[], old).await;
    let site = Site::to(&sink);
    let mut envelope = envelope(&["a@example.com", "b@example.com"]);
    envelope.parameters.body = Some(BodyType::EightBitMime);
    envelope.parameters.ret = Some(Ret::Full);
    envelope.recipients[0].notify = Some(Notify::default());
    let results = site.send(&envelope, "Subject: \r\n\r\n\u{e9}\r\n".as_bytes()).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted; 2]);
    let expected = [
        "EHLO mx1.example",
        "HELO mx1.example",
        "MAIL FROM:<from@example.com>",
        "RCPT TO:<a@example.com>",
        "RCPT TO:<b@example.com>",
        "DATA",
    ];
    assert_eq!(sink.commands(), expected);
    assert!(sink.taken()[0].bytes.ends_with("\u{e9}\r\n".as_bytes()), "8 bits go as they are");
    assert_eq!(site.offered.get(), Some(Capabilities::default()));
}

#[tokio::test]
async fn recipients_with_other_edits_get_a_transaction_of_their_own() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let site = Site::to(&sink);
    let id = site.store(&envelope(&["a@x", "b@x", "c@x", "d@x"]), MESSAGE);
    let quarantine = verdict::Group {
        recipients: vec![3],
        disposition: Disposition::Quarantine { reason: "no".into() },
    };
    site.settle(id, vec![deliver(&[0, 2], &["X-Gantry: one"]), deliver(&[1], &[]), quarantine]);
    let results = site.release(id, vec![0, 1, 2]).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted; 3]);
    let taken = sink.taken();
    assert_eq!(taken.len(), 2);
    assert_eq!(taken[0].recipients, ["RCPT TO:<a@x>", "RCPT TO:<c@x>"]);
    assert_eq!(taken[1].recipients, ["RCPT TO:<b@x>"]);
    let has = |at: usize| String::from_utf8_lossy(&taken[at].bytes).contains("X-Gantry: one\r\n");
    assert!(has(0) && !has(1));
    // Only who was asked for is served again.
    let results = site.release(id, vec![1]).await;
    assert_eq!((results.len(), sink.taken()[2].recipients.len()), (1, 1));
}

#[tokio::test]
async fn a_replaced_body_that_is_not_there_never_means_the_original() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let site = Site::to(&sink);
    let id = site.store(&envelope(&["a@x"]), MESSAGE);
    let body = Body::Replaced { length: 1, digest: Digest([0; 32]) };
    let disposition = Disposition::Deliver { edits: Vec::new(), body };
    site.settle(id, vec![verdict::Group { recipients: vec![0], disposition }]);
    assert_eq!(kinds(&site.release(id, vec![0]).await), [ReleaseResult::Deferred]);
    assert_eq!(sink.connections(), 0);
}

#[tokio::test]
async fn each_recipient_gets_its_own_result() {
    let manners = |_: usize, line: &str| match line {
        "RCPT TO:<late@x>" => Do::Reply("450 4.2.0 later"),
        "RCPT TO:<never@x>" => Do::Reply("550-5.1.1 no such\r\n550 5.1.1 user"),
        "RCPT TO:<full@x>" => Do::Reply("452 4.2.2 mailbox full"),
        _ => Do::Usual,
    };
    let sink = Sink::start(EVERYTHING, manners).await;
    let site = Site::to(&sink);
    let to = envelope(&["a@x", "late@x", "never@x", "full@x", "b@x"]);
    let results = site.send(&to, MESSAGE).await;
    use ReleaseResult::{Accepted, Deferred, Refused};
    assert_eq!(kinds(&results), [Accepted, Deferred, Refused, Deferred, Accepted]);
    assert_eq!(results[2].reply, "550 5.1.1 no such user");
    let taken = sink.taken();
    assert_eq!(taken.len(), 1);
    let header = header::scan(&taken[0].bytes).unwrap();
    assert!(site.trace.is_ours("mail.box", &header, &["a@x", "b@x"]), "who gets it, is traced");
}

#[tokio::test]
async fn more_recipients_than_the_next_hop_takes_at_once_go_in_turns() {
    let count = Arc::new(std::sync::Mutex::new(0));
    let manners = move |_: usize, line: &str| {
        let mut count = count.lock().unwrap();
        match line {
            _ if line.starts_with("MAIL") => *count = 0,
            _ if line.starts_with("RCPT") => *count += 1,
            _ => {}
        }
        match line.starts_with("RCPT") && *count > 3 {
            true => Do::Reply("452 4.5.3 too many recipients"),
            false => Do::Usual,
        }
    };
    let sink = Sink::start(EVERYTHING, manners).await;
    let addresses: Vec<String> = (0..8).map(|number| format!("r{number}@x")).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let results = Site::to(&sink).send(&envelope(&addresses), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted; 8]);
    let taken = sink.taken();
    let each: Vec<usize> = taken.iter().map(|taken| taken.recipients.len()).collect();
    assert_eq!(each, [3, 3, 2]);
    let mut all: Vec<String> = taken.into_iter().flat_map(|taken| taken.recipients).collect();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), 8);
    assert_eq!(sink.connections(), 1);
}

#[tokio::test]
async fn a_thousand_recipients_are_pipelined_in_groups() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let addresses: Vec<String> =
        (0..1_000).map(|number| format!("{}{number}@x", "r".repeat(400))).collect();
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    let results = Site::to(&sink).send(&envelope(&addresses), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Accepted; 1_000]);
    assert_eq!(sink.taken()[0].recipients.len(), 1_000);
}

#[tokio::test]
async fn large_messages_leave_byte_by_byte() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let site = Site::to(&sink);
    for length in [0_usize, 1, 60_000, 65_536, 65_537, 131_072, 5_000_000] {
        let mut message = b"Subject: x\r\n\r\n".to_vec();
        while message.len() < length {
            message.extend_from_slice(b".dot\r\n..\r\n.\r\nmore text on a line\r\n");
        }
        message.truncate(length);
        let whole = message.strip_suffix(b"\r").unwrap_or(&message);
        let mut message = whole.to_vec();
        if !message.is_empty() && !message.ends_with(b"\r\n") {
            message.extend_from_slice(if message.ends_with(b"\r") { b"\n" } else { b"\r\n" });
        }
        let results = site.send(&envelope(&["a@x"]), &message).await;
        assert_eq!(kinds(&results), [ReleaseResult::Accepted]);
        let taken = sink.taken().pop().unwrap().bytes;
        assert!(taken.ends_with(&message), "{length}");
        let above = &taken[..taken.len() - message.len()];
        assert!(above.starts_with(b"Received: ") && above.len() < 1_000, "{length}");
    }
    assert_eq!(sink.connections(), 1, "one connection served them all");
}

#[tokio::test]
async fn what_others_smuggled_into_the_spool_stays_one_message() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let site = Site::to(&sink);
    let message = b"Subject: x\r\n\r\na\n.\nb\r.\rc\n.\r\nMAIL FROM:<evil@x>\r\n";
    site.send(&envelope(&["a@x"]), message).await;
    let bytes = sink.taken()[0].bytes.clone();
    assert!(bytes.ends_with(b"a\r\n.\r\nb\r\n.\r\nc\r\n.\r\nMAIL FROM:<evil@x>\r\n"));
}

#[tokio::test]
async fn utf8_goes_only_where_it_is_taken() {
    let without = Sink::start(&["8BITMIME"], |_, _| Do::Usual).await;
    let with = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let mut announced = envelope(&["a@x"]);
    announced.parameters.smtputf8 = true;
    let address = envelope(&["j\u{f6}@x"]);
    let header = "Subject: \u{e9}\r\n\r\n".as_bytes();
    for (envelope, message, refused) in
        [(&announced, MESSAGE, false), (&announced, header, true), (&address, MESSAGE, true)]
    {
        let results = Site::to(&without).send(envelope, message).await;
        assert_eq!(results[0].result == ReleaseResult::Refused, refused, "{results:?}");
        assert_eq!(results[0].reply.contains("5.6.7"), refused);
        let results = Site::to(&with).send(envelope, message).await;
        assert_eq!(kinds(&results), [ReleaseResult::Accepted]);
        let commands = with.commands();
        let mail = commands.iter().rfind(|line| line.starts_with("MAIL")).unwrap();
        assert!(mail.ends_with(" SMTPUTF8"), "{mail}");
    }
}

#[tokio::test]
async fn what_the_next_hop_says_is_too_large_is_not_sent() {
    let sink = Sink::start(&["SIZE 100"], |_, _| Do::Usual).await;
    let site = Site::to(&sink);
    let results = site.send(&envelope(&["a@x"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Refused]);
    assert!(results[0].reply.starts_with("552 5.3.4"), "{results:?}");
    assert_eq!(sink.commands(), ["EHLO mx1.example"]);
    assert_eq!(site.offered.get().unwrap().size, Some(100));
}

#[tokio::test]
async fn a_probe_learns_what_is_offered_and_its_connection_is_used() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let site = Site::to(&sink);
    let capabilities = soon(probe(&site.way)).await.unwrap();
    assert!(capabilities.dsn && capabilities.smtputf8);
    assert_eq!(site.offered.get(), Some(capabilities));
    site.send(&envelope(&["a@x"]), MESSAGE).await;
    assert_eq!(sink.connections(), 1);
}

#[tokio::test]
async fn addresses_with_controls_are_never_said() {
    let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
    let results = Site::to(&sink).send(&envelope(&["a@x>\r\nRSET\r\nx:<b@x"]), MESSAGE).await;
    assert_eq!(kinds(&results), [ReleaseResult::Refused]);
    assert_eq!(sink.commands(), ["EHLO mx1.example"]);
}

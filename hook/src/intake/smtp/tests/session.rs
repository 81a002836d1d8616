//! Who may speak, when, and how much.

use std::time::Duration;

use tokio::net::TcpListener;

use super::super::command::COMMAND_BYTES_MAX;
use super::*;
use crate::release::{ADDED_BYTES_MAX, Capabilities};

#[tokio::test]
async fn a_message_comes_in_with_all_that_was_said_of_it() {
    let mut site = Site::start(hook()).await;
    let mut client = site.client().await;
    let offers = client.expect("EHLO client.example", 250).await;
    for offer in
        ["PIPELINING", "SIZE 67108864", "8BITMIME", "SMTPUTF8", "DSN", "ENHANCEDSTATUSCODES"]
    {
        assert!(offers.contains(&format!("-{offer}")) || offers.ends_with(offer), "{offers}");
    }
    assert!(offers.contains("XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE"));
    assert!(!offers.contains("CHUNKING") && !offers.contains("BINARYMIME"));

    client.expect("XFORWARD NAME=far.example ADDR=192.0.2.9", 250).await;
    client.expect("XFORWARD IDENT=[UNAVAILABLE] NAME=a+2Bb", 250).await;
    let mail = "MAIL FROM:<from@example.com> SIZE=99 BODY=8BITMIME RET=FULL ENVID=q+2B1";
    client.expect(mail, 250).await;
    client.expect("XFORWARD NAME=late.example", 503).await;
    client.expect("RCPT TO:<a@example.com> NOTIFY=SUCCESS ORCPT=rfc822;x@example.com", 250).await;
    client.expect("RCPT TO:<b@example.com>", 250).await;
    client.expect("DATA", 354).await;
    client.send("Subject: x\r\n\r\n..dot\r\n\u{e9}\r\n.\r\n").await;
    let yes = client.expect_reply(250).await;

    let (marked, looped, answer) = site.marked().await;
    assert!(!looped && answer.is_none());
    assert!(yes.contains(&marked.id.to_string()), "{yes}");
    assert_eq!((marked.recipients, marked.attempts), (2, 0));
    let bytes = site.body(marked.id);
    assert_eq!(bytes, "Subject: x\r\n\r\n.dot\r\n\u{e9}\r\n".as_bytes());
    assert_eq!(marked.length, bytes.len() as u64);

    let envelope = site.spool.header(marked.id).unwrap().envelope;
    assert_eq!(envelope.sender, "from@example.com");
    assert_eq!(envelope.parameters.envid.as_deref(), Some("q+2B1"));
    assert_eq!(envelope.parameters.ret, Some(gantry_mail::Ret::Full));
    assert_eq!(envelope.recipients[0].orcpt.as_deref(), Some("rfc822;x@example.com"));
    assert!(envelope.recipients[0].notify.unwrap().success);
    assert_eq!(envelope.recipients[1].notify, None);
    assert_eq!(envelope.peer.helo, "client.example");
    assert_eq!(envelope.peer.address, "127.0.0.1".parse().ok());
    let told = [("NAME", "a+b"), ("ADDR", "192.0.2.9"), ("IDENT", "[UNAVAILABLE]")];
    assert_eq!(envelope.peer.xforward, told.map(|(n, v)| (n.to_owned(), v.to_owned())));

    // What was told of one message says nothing of the next.
    assert!(client.deliver(on_wire(MESSAGE)).await.starts_with("250"));
    let (marked, ..) = site.marked().await;
    let envelope = site.spool.header(marked.id).unwrap().envelope;
    assert!(envelope.peer.xforward.is_empty());
    assert_eq!(client.expect("QUIT", 221).await, "221 2.0.0 Bye");
    client.expect_end().await;
    site.ended().await;
}

#[tokio::test]
async fn only_what_the_way_out_takes_is_offered() {
    let intake = hook();
    intake
        .offered
        .set(Capabilities { size: Some(1_000 + ADDED_BYTES_MAX), ..Capabilities::default() });
    let offered = intake.offered.clone();
    let site = Site::start(intake).await;
    let mut client = site.client().await;
    let offers = client.expect("EHLO c", 250).await;
    assert!(offers.contains("SIZE 1000"), "{offers}");
    for missing in ["8BITMIME", "SMTPUTF8", "DSN"] {
        assert!(!offers.contains(missing), "{offers}");
    }
    client.expect("MAIL FROM:<a@b> BODY=8BITMIME", 555).await;
    client.expect("MAIL FROM:<a@b> SIZE=1001", 552).await;
    client.expect("MAIL FROM:<a@b> SIZE=1000", 250).await;
    offered.set(Capabilities { dsn: true, ..Capabilities::default() });
    let offers = client.expect("EHLO c", 250).await;
    assert!(offers.contains("DSN") && !offers.contains("SIZE"), "{offers}");
    client.expect("HELO c", 250).await;
    client.expect("MAIL FROM:<a@b> RET=FULL", 555).await;
}

#[tokio::test]
async fn commands_have_their_order() {
    let site = Site::start(hook()).await;
    let mut client = Client::connect(site.address).await;
    client.expect_reply(220).await;
    client.expect("MAIL FROM:<a@b>", 503).await;
    client.expect("HELO c", 250).await;
    client.expect("RCPT TO:<a@b>", 503).await;
    client.expect("DATA", 503).await;
    client.expect("MAIL FROM:<a@b>", 250).await;
    client.expect("MAIL FROM:<a@b>", 503).await;
    client.expect("DATA", 554).await;
    client.expect("RCPT TO:<j\u{f6}@b>", 553).await;
    client.expect("RSET", 250).await;
    client.expect("RCPT TO:<a@b>", 503).await;
    client.expect("VRFY a", 252).await;
    client.expect("HELP", 214).await;
    client.expect("BDAT 5 LAST", 500).await;
    client.expect("NOOP x", 250).await;
}

#[tokio::test]
async fn smtputf8_opens_addresses() {
    let mut site = Site::start(hook()).await;
    let mut client = site.client().await;
    client.expect("MAIL FROM:<j\u{f6}@example.com> SMTPUTF8", 250).await;
    client.expect("RCPT TO:<\u{4f60}@example.com>", 250).await;
    client.expect("DATA", 354).await;
    client.send(on_wire(MESSAGE)).await;
    client.expect_reply(250).await;
    let (marked, ..) = site.marked().await;
    let envelope = site.spool.header(marked.id).unwrap().envelope;
    assert!(envelope.parameters.smtputf8);
    assert_eq!(envelope.recipients[0].address, "\u{4f60}@example.com");
}

#[tokio::test]
async fn long_lines_and_lines_without_cr_are_refused_and_the_session_goes_on() {
    let site = Site::start(hook()).await;
    let mut client = site.client().await;
    let fits = "x".repeat(COMMAND_BYTES_MAX - "NOOP \r\n".len());
    client.expect(&format!("NOOP {fits}"), 250).await;
    assert!(client.expect(&format!("NOOP {fits}x"), 500).await.contains("too long"));
    // Far beyond every buffer.
    client.expect(&"y".repeat(300_000), 500).await;
    client.send("NOOP\nRSET\r\n").await;
    assert!(client.expect_reply(500).await.contains("CRLF"));
    client.expect_reply(250).await;
    client.expect("NO\rOP", 501).await;
    client.expect("NOOP", 250).await;
}

#[tokio::test]
async fn a_whole_session_may_be_pipelined() {
    let mut site = Site::start(hook()).await;
    let mut client = site.client().await;
    let group = "MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nRCPT TO:<bad\r\nRCPT TO:<e@f>\r\nDATA\r\n";
    client.send(group).await;
    for code in [250, 250, 501, 250, 354] {
        client.expect_reply(code).await;
    }
    // What stands behind the final dot are the next commands.
    client.send(format!("{}{group}", on_wire(MESSAGE))).await;
    for code in [250, 250, 250, 501, 250, 354] {
        client.expect_reply(code).await;
    }
    client.send(format!("{}QUIT\r\n", on_wire("Subject: y\r\n\r\n"))).await;
    client.expect_reply(250).await;
    client.expect_reply(221).await;
    assert_eq!(site.marked().await.0.recipients, 2);
    let (second, ..) = site.marked().await;
    assert_eq!(site.body(second.id), b"Subject: y\r\n\r\n");
}

#[tokio::test]
async fn data_is_the_last_of_its_group() {
    let mut site = Site::start(hook()).await;
    let mut client = site.client().await;
    client
        .send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nSubject: early\r\n\r\nx\r\n.\r\n")
        .await;
    client.expect_reply(250).await;
    client.expect_reply(250).await;
    client.expect_reply(554).await;
    client.expect_end().await;
    site.nothing_marked();
}

#[tokio::test]
async fn who_speaks_before_the_greeting_is_sent_away() {
    // The listener is there before anybody serves it, so the client has spoken for certain.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = Client::connect(address).await;
    client.send("EHLO early.example\r\n").await;
    let site = Site::start(hook()).await;
    let serve =
        tokio::spawn(serve(listener, Arc::new(hook()), site.spool.clone(), site.gate.clone()));
    client.expect_reply(554).await;
    client.expect_end().await;
    site.gate.drain();
    soon(serve).await.unwrap();
}

#[tokio::test]
async fn too_many_recipients_are_for_another_transaction() {
    let mut intake = hook();
    intake.limits.recipients_max = 3;
    let mut site = Site::start(intake).await;
    let mut client = site.client().await;
    client.expect("MAIL FROM:<a@b>", 250).await;
    for number in 0..3 {
        client.expect(&format!("RCPT TO:<r{number}@b>"), 250).await;
    }
    let reply = client.expect("RCPT TO:<r3@b>", 452).await;
    assert!(reply.starts_with("452 4.5.3"), "{reply}");
    client.expect("DATA", 354).await;
    client.send(on_wire(MESSAGE)).await;
    client.expect_reply(250).await;
    assert_eq!(site.marked().await.0.recipients, 3);
}

#[tokio::test]
async fn too_many_errors_end_the_session() {
    let mut intake = hook();
    intake.limits.errors_max = 3;
    let site = Site::start(intake).await;
    let mut client = site.client().await;
    client.send("GET / HTTP/1.1\r\nHost: x\r\nAccept: y\r\nNOOP\r\n").await;
    for code in [500, 500, 500, 421] {
        client.expect_reply(code).await;
    }
    client.expect_end().await;

    let mut idler = site.client().await;
    for _ in 0..99 {
        idler.expect("NOOP", 250).await;
    }
    for _ in 0..3 {
        idler.expect("NOOP", 250).await;
    }
    idler.expect_reply(421).await;
}

#[tokio::test]
async fn strangers_get_no_session() {
    let mut intake = hook();
    intake.peers = vec!["192.0.2.0/24".parse().unwrap()];
    let site = Site::start(intake).await;
    let mut client = Client::connect(site.address).await;
    client.expect_reply(554).await;
    client.expect_end().await;
}

#[tokio::test]
async fn xforward_is_for_those_who_may() {
    let mut intake = hook();
    intake.xforward_from = vec!["192.0.2.0/24".parse().unwrap()];
    let site = Site::start(intake).await;
    let mut client = site.client().await;
    assert!(!client.expect("EHLO c", 250).await.contains("XFORWARD"));
    client.expect("XFORWARD NAME=a", 500).await;
}

#[tokio::test]
async fn connections_are_limited_in_all_and_per_client() {
    for (total, per_client) in [(2, 9), (9, 2)] {
        let mut intake = hook();
        intake.limits.connections_max = total;
        intake.limits.connections_per_client_max = per_client;
        let site = Site::start(intake).await;
        let first = site.client().await;
        let _second = site.client().await;
        let mut third = Client::connect(site.address).await;
        third.expect_reply(421).await;
        third.expect_end().await;
        drop(first);
        soon(async {
            while !Client::connect(site.address).await.reply().await.starts_with("220") {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

#[tokio::test]
async fn silent_clients_are_ended() {
    let mut intake = hook();
    intake.timeouts.command = Duration::from_millis(50);
    let site = Site::start(intake).await;
    let mut client = Client::connect(site.address).await;
    client.expect_reply(220).await;
    // A command that never ends is silence too.
    client.send("NOO").await;
    assert!(client.expect_reply(421).await.contains("4.4.2"));
    client.expect_end().await;
}

#[tokio::test]
async fn a_stopped_gate_turns_mail_away_and_a_draining_one_ends() {
    let site = Site::start(hook()).await;
    let mut client = site.client().await;
    site.gate.stop("the disk is broken");
    let reply = client.expect("MAIL FROM:<a@b>", 451).await;
    assert!(!reply.contains("disk"), "our troubles are not the client's: {reply}");
    Client::connect(site.address).await.expect_reply(421).await;
    site.gate.reopen();
    client.expect("MAIL FROM:<a@b>", 250).await;
    site.gate.drain();
    client.expect_reply(421).await;
    client.expect_end().await;
    soon(site.serve).await.unwrap();
}

//! LMTP (RFC 2033): what differs from SMTP.

use super::*;

fn lmtp(custody: SmtpIntake) -> SmtpIntake {
    SmtpIntake { protocol: Protocol::Lmtp, ..custody }
}

async fn client(site: &Site) -> Client {
    let mut client = Client::connect(site.address).await;
    assert!(client.reply().await.starts_with("220 mx1.example LMTP"));
    let offers = client.expect("LHLO client.example", 250).await;
    assert!(offers.contains("PIPELINING") && offers.contains("ENHANCEDSTATUSCODES"), "{offers}");
    client
}

#[tokio::test]
async fn each_accepted_recipient_gets_a_reply() {
    let limits = SmtpLimits { recipients_max: 3, ..SmtpLimits::default() };
    let mut site = Site::start(SmtpIntake { limits, ..lmtp(hook()) }).await;
    let mut client = client(&site).await;
    for round in 0..2 {
        client.expect("MAIL FROM:<from@example.com>", 250).await;
        for name in ["a", "b", "a"] {
            client.expect(&format!("RCPT TO:<{name}@example.com>"), 250).await;
        }
        client.expect("RCPT TO:<d@example.com>", 452).await;
        client.expect("RCPT TO:not an address", 501).await;
        client.expect("DATA", 354).await;
        client.send(on_wire(MESSAGE)).await;
        let replies = [client.reply().await, client.reply().await, client.reply().await];
        assert!(replies[0].starts_with("250 2.0.0"), "{replies:?}");
        assert!(replies.iter().all(|reply| *reply == replies[0]), "{replies:?}");
        // Exactly three: the next reply is that of the next command.
        client.expect(&format!("VRFY {round}"), 252).await;
        let (marked, ..) = site.marked().await;
        assert_eq!(marked.recipients, 3);
    }
}

#[tokio::test]
async fn in_upstream_custody_all_get_the_one_answer_of_the_pool() {
    let mut site = Site::start(lmtp(upstream())).await;
    let mut client = client(&site).await;
    let answers = [
        (Answer::Accepted { text: "released".into() }, "250 "),
        (Answer::TryAgain { text: "nobody is there".into() }, "451 "),
        (Answer::Refused { code: 554, enhanced: "5.7.1".into(), text: "no".into() }, "554 5.7.1 "),
    ];
    for (answer, expected) in answers {
        client.expect("MAIL FROM:<from@example.com>", 250).await;
        client.expect("RCPT TO:<a@example.com>", 250).await;
        client.expect("RCPT TO:<b@example.com>", 250).await;
        client.expect("DATA", 354).await;
        client.send(on_wire(MESSAGE)).await;
        let (.., waiting) = site.marked().await;
        waiting.unwrap().send(answer).unwrap();
        for _ in 0..2 {
            let reply = client.reply().await;
            assert!(reply.starts_with(expected), "{reply}, not {expected}");
        }
        client.expect("NOOP", 250).await;
    }
}

#[tokio::test]
async fn a_refused_message_is_refused_for_each() {
    let mut site = Site::start(lmtp(hook())).await;
    let mut client = client(&site).await;
    client.expect("MAIL FROM:<from@example.com>", 250).await;
    client.expect("RCPT TO:<a@example.com>", 250).await;
    client.expect("RCPT TO:<b@example.com>", 250).await;
    client.expect("DATA", 354).await;
    client.send("Subject: x\n\r\n.\r\n").await;
    for _ in 0..2 {
        client.expect_reply(554).await;
    }
    client.expect("MAIL FROM:<from@example.com>", 250).await;
    // RFC 2033, 4.2: without a recipient there would be no reply at all.
    client.expect("DATA", 503).await;
    site.nothing_marked();
}

#[tokio::test]
async fn each_protocol_has_its_own_greeting() {
    let site = Site::start(lmtp(hook())).await;
    let mut client = Client::connect(site.address).await;
    client.expect_reply(220).await;
    client.expect("EHLO c", 500).await;
    client.expect("HELO c", 500).await;
    client.expect("MAIL FROM:<a@b>", 503).await;
    client.expect("LHLO c", 250).await;
    client.expect("MAIL FROM:<a@b>", 250).await;
    let site = Site::start(hook()).await;
    let mut client = site.client().await;
    client.expect("LHLO c", 500).await;
}

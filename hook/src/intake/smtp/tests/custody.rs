//! The sender waits, and the service answers.

use gantry_protocol::pool::{Change, Custody, StoredState};

use super::*;

#[tokio::test]
async fn the_sender_is_told_what_the_service_says() {
    let mut site = Site::start(upstream()).await;
    let mut client = site.client().await;
    let answers = [
        (Answer::Accepted { text: "released".into() }, "250 2.0.0 "),
        (Answer::TryAgain { text: "nobody is there".into() }, "451 4.3.0 "),
        (
            Answer::Refused { code: 554, enhanced: "5.7.1".into(), text: "a\r\nvirus".into() },
            "554 5.7.1 a??virus",
        ),
        (
            Answer::Refused { code: 250, enhanced: "2.0.0".into(), text: "odd".into() },
            "550 5.7.1 odd",
        ),
    ];
    for (answer, expected) in answers {
        client.begin_data().await;
        client.send(on_wire(MESSAGE)).await;
        let (marked, looped, waiting) = site.marked().await;
        assert!(!looped);
        let Custody::Upstream { answer_by } = marked.custody else { panic!("{marked:?}") };
        assert_eq!(answer_by, marked.since + Duration::from_secs(120));
        assert_eq!(site.body(marked.id), MESSAGE.as_bytes());
        assert_eq!(site.message_files(), [""; 0], "nothing is durable before a verdict");
        waiting.unwrap().send(answer).unwrap();
        let reply = client.reply().await;
        assert!(reply.starts_with(expected), "{reply}");
    }
    client.expect("QUIT", 221).await;
    site.nothing_marked();
}

#[tokio::test]
async fn a_large_message_waits_without_memory() {
    let mut site = Site::start(upstream()).await;
    let mut client = site.client().await;
    let message = format!("Subject: x\r\n\r\n{}", format!("{}\r\n", "y".repeat(998)).repeat(3_000));
    client.begin_data().await;
    client.send(on_wire(&message)).await;
    let (marked, _, waiting) = site.marked().await;
    assert!(site.body(marked.id) == message.as_bytes());
    waiting.unwrap().send(Answer::Accepted { text: "ok".into() }).unwrap();
    client.expect_reply(250).await;
}

#[tokio::test]
async fn the_service_hears_of_a_sender_that_goes() {
    let mut site = Site::start(upstream()).await;
    let mut client = site.client().await;
    client.begin_data().await;
    client.send(on_wire(MESSAGE)).await;
    let (marked, _, waiting) = site.marked().await;
    drop(client);
    let IntakeEvent::SenderGone(id) = site.event().await else { panic!("not told") };
    assert_eq!(id, marked.id);
    assert!(waiting.unwrap().send(Answer::Accepted { text: String::new() }).is_err());
}

#[tokio::test]
async fn what_a_waiting_sender_pipelines_comes_after_its_answer() {
    let mut site = Site::start(upstream()).await;
    let mut client = site.client().await;
    client.begin_data().await;
    client.send(format!("{}NOOP\r\nQUIT\r\n", on_wire(MESSAGE))).await;
    let (_, _, waiting) = site.marked().await;
    waiting.unwrap().send(Answer::Accepted { text: "ok".into() }).unwrap();
    assert!(client.expect_reply(250).await.contains("ok"));
    client.expect_reply(250).await;
    client.expect_reply(221).await;
}

#[tokio::test]
async fn a_service_that_ends_keeps_no_sender_waiting() {
    let mut site = Site::start(upstream()).await;
    let mut client = site.client().await;
    client.begin_data().await;
    client.send(on_wire(MESSAGE)).await;
    let (_, _, waiting) = site.marked().await;
    drop(waiting);
    client.expect_reply(451).await;
}

#[tokio::test]
async fn draining_lets_a_waiting_sender_have_its_answer() {
    let mut site = Site::start(upstream()).await;
    let mut client = site.client().await;
    client.begin_data().await;
    client.send(on_wire(MESSAGE)).await;
    let (_, _, waiting) = site.marked().await;
    site.gate.drain();
    Client::connect(site.address).await.expect_reply(421).await;
    waiting.unwrap().send(Answer::Accepted { text: "ok".into() }).unwrap();
    client.expect_reply(250).await;
    client.expect_reply(421).await;
    soon(site.serve).await.unwrap();
}

#[tokio::test]
async fn poison_is_known_again() {
    let mut site = Site::start(upstream()).await;
    let mut client = site.client().await;
    client.begin_data().await;
    client.send(on_wire(MESSAGE)).await;
    let (marked, _, waiting) = site.marked().await;
    assert_eq!(marked.attempts, 0);
    let (spool, id) = (site.spool.clone(), marked.id);
    tokio::task::spawn_blocking(move || {
        spool.apply(id, MailboxIndex(0), &Change::Charge { attempts: 2 });
    })
    .await
    .unwrap();
    waiting.unwrap().send(Answer::TryAgain { text: "later".into() }).unwrap();
    client.expect_reply(451).await;

    client.begin_data().await;
    client.send(on_wire(MESSAGE)).await;
    let (again, _, waiting) = site.marked().await;
    assert_eq!(again.attempts, 2, "the same content has tried twice");
    let (spool, id) = (site.spool.clone(), again.id);
    tokio::task::spawn_blocking(move || {
        let change = Change::Adopt {
            state: StoredState::Held,
            verdict: None,
            results: Vec::new(),
            reasons: vec!["it kills".into()],
        };
        spool.apply(id, MailboxIndex(0), &change)
    })
    .await
    .unwrap();
    waiting.unwrap().send(Answer::Accepted { text: "held".into() }).unwrap();
    client.expect_reply(250).await;

    assert!(client.deliver(on_wire(MESSAGE)).await.starts_with("550 5.7.0"));
    site.nothing_marked();
    client.begin_data().await;
    client.send(on_wire("Subject: innocent\r\n\r\n")).await;
    assert_eq!(site.marked().await.0.attempts, 0);
}

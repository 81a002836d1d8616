//! STARTTLS (RFC 3207).

use std::process::Stdio;

use super::*;
use crate::tls::testing::TestCa;
use crate::tls::{ClientTls, Demand, ServerTls};

/// An intake with a certificate, and what a client needs to verify it.
fn offering(intake: SmtpIntake, required: bool) -> (SmtpIntake, ClientTls) {
    let folder = tempfile::tempdir().unwrap();
    let ca = TestCa::new(folder.path());
    let files = ca.issue("mx1.example", 4_000);
    let demand = Demand::Required { ca: ca.file(), name: "mx1.example".into() };
    let client = ClientTls::open(&demand, "127.0.0.1").unwrap().unwrap();
    let tls = ServerTls::open(files, required).unwrap();
    (SmtpIntake { tls: Some(tls), ..intake }, client)
}

async fn encrypt(client: &mut Client, tls: &ClientTls) {
    client.expect("STARTTLS", 220).await;
    assert!(client.read.is_empty());
    let stream = client.stream.take_plain().unwrap();
    client.stream = soon(tls.connect(stream)).await.unwrap();
}

#[tokio::test]
async fn what_was_said_in_the_clear_is_forgotten() {
    let (intake, tls) = offering(hook(), false);
    let mut site = Site::start(intake).await;
    let mut client = site.client().await;
    assert!(client.expect("EHLO c", 250).await.contains("STARTTLS"));
    client.expect("STARTTLS now", 501).await;
    client.expect("XFORWARD NAME=clear.example", 250).await;
    client.expect("MAIL FROM:<clear@example.com>", 250).await;
    client.expect("RCPT TO:<clear@example.com>", 250).await;
    encrypt(&mut client, &tls).await;
    client.expect("DATA", 503).await;
    client.expect("MAIL FROM:<from@example.com>", 503).await;
    let offers = client.expect("EHLO secret.example", 250).await;
    assert!(offers.contains("PIPELINING") && !offers.contains("STARTTLS"), "{offers}");
    client.expect("STARTTLS", 503).await;
    assert!(client.deliver(on_wire(MESSAGE)).await.starts_with("250"));
    let (marked, ..) = site.marked().await;
    assert_eq!(site.body(marked.id), MESSAGE.as_bytes());
    let envelope = site.spool.header(marked.id).unwrap().envelope;
    assert_eq!(envelope.recipients.len(), 1);
    assert_eq!((envelope.peer.helo.as_str(), envelope.peer.tls), ("secret.example", true));
    assert!(envelope.peer.xforward.is_empty());
    // Larger than any record, and pipelined.
    let large = format!("Subject: x\r\n\r\n{}", "0123456789\r\n".repeat(100_000));
    client.send("MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n").await;
    for code in [250, 250, 354] {
        client.expect_reply(code).await;
    }
    client.send(on_wire(&large)).await;
    client.expect_reply(250).await;
    let (marked, ..) = site.marked().await;
    assert_eq!(site.body(marked.id), large.as_bytes());
    client.expect("QUIT", 221).await;
    client.expect_end().await;
    site.ended().await;
}

/// Commands that somebody in between puts behind STARTTLS must not pass for what the client says under TLS.
#[tokio::test]
async fn commands_injected_behind_starttls_are_never_carried_out() {
    let (intake, tls) = offering(hook(), false);
    let mut site = Site::start(intake).await;
    let injected = "MAIL FROM:<evil@example.com>\r\nRCPT TO:<evil@example.com>\r\n";
    let mut client = site.client().await;
    client.send(format!("STARTTLS\r\n{injected}")).await;
    client.expect_reply(554).await;
    client.expect_end().await;

    // A moment later they are no handshake.
    let mut client = site.client().await;
    client.expect("STARTTLS", 220).await;
    client.send(injected).await;
    let mut left = Vec::new();
    let _ = soon(client.stream.read_to_end(&mut left)).await;
    assert!(!left.starts_with(b"250"), "{left:?}");

    // Others go on as before.
    let mut client = site.client().await;
    encrypt(&mut client, &tls).await;
    client.expect("EHLO c", 250).await;
    site.nothing_marked();
    drop(client);
    site.ended().await;
}

#[tokio::test]
async fn where_it_is_required_nothing_about_mail_is_done_without() {
    for protocol in [Protocol::Smtp, Protocol::Lmtp] {
        let (intake, tls) = offering(SmtpIntake { protocol, ..hook() }, true);
        let hello = if protocol == Protocol::Smtp { "EHLO c" } else { "LHLO c" };
        let mut site = Site::start(intake).await;
        let mut client = Client::connect(site.address).await;
        client.expect_reply(220).await;
        client.expect(hello, 250).await;
        for command in ["MAIL FROM:<a@b>", "RCPT TO:<a@b>", "DATA", "VRFY x", "XFORWARD NAME=x"] {
            client.expect(command, 530).await;
        }
        client.expect("NOOP", 250).await;
        client.expect("RSET", 250).await;
        encrypt(&mut client, &tls).await;
        client.expect(hello, 250).await;
        assert!(client.deliver(on_wire(MESSAGE)).await.starts_with("250"));
        let (marked, ..) = site.marked().await;
        let peer = site.spool.header(marked.id).unwrap().envelope.peer;
        let lmtp = protocol == Protocol::Lmtp;
        assert_eq!((peer.came == gantry_mail::Came::Lmtp, peer.tls), (lmtp, true));
    }
}

#[tokio::test]
async fn without_a_certificate_it_is_not_offered() {
    let site = Site::start(hook()).await;
    let mut client = site.client().await;
    assert!(!client.expect("EHLO c", 250).await.contains("STARTTLS"));
    client.expect("STARTTLS", 502).await;
    client.expect("HELO c", 250).await;
    client.expect("MAIL FROM:<a@b>", 250).await;
}

/// What stands behind DATA is seen under TLS, too (RFC 2920, 3.1).
#[tokio::test]
async fn nothing_may_stand_behind_data_under_tls() {
    let (intake, tls) = offering(hook(), false);
    let mut site = Site::start(intake).await;
    let mut client = site.client().await;
    encrypt(&mut client, &tls).await;
    client.expect("EHLO c", 250).await;
    client.expect("MAIL FROM:<a@b>", 250).await;
    client.expect("RCPT TO:<a@b>", 250).await;
    client.send("DATA\r\nSubject: x\r\n\r\n.\r\n").await;
    client.expect_reply(554).await;
    client.expect_end().await;
    site.nothing_marked();
}

#[tokio::test]
async fn a_client_that_begins_no_handshake_is_sent_away() {
    let (mut intake, _) = offering(hook(), false);
    intake.timeouts.command = Duration::from_millis(200);
    let site = Site::start(intake).await;
    let mut client = site.client().await;
    client.expect("STARTTLS", 220).await;
    client.expect_end().await;
    site.ended().await;
}

#[tokio::test]
async fn swaks_delivers_over_tls() {
    let (intake, _) = offering(hook(), true);
    let mut site = Site::start(intake).await;
    for version in ["tlsv1_2", "tlsv1_3"] {
        let swaks = tokio::task::spawn_blocking({
            let port = site.address.port().to_string();
            move || {
                std::process::Command::new("swaks")
                    .args(["--server", "127.0.0.1", "--port", &port, "--tls"])
                    .args(["--tls-protocol", version, "--helo", "swaks.example"])
                    .args(["--from", "from@example.com", "--to", "a@example.com"])
                    .args(["--data", "Subject: from swaks\\n\\nlast"])
                    .stdin(Stdio::null())
                    .output()
            }
        });
        let output = match soon(swaks).await.unwrap() {
            Ok(output) => output,
            Err(error) => return eprintln!("skipped: swaks cannot be run: {error}"),
        };
        let said = String::from_utf8_lossy(&output.stdout);
        let lacks = String::from_utf8_lossy(&output.stderr).contains("Net::SSLeay")
            || said.contains("TLS not supported");
        if lacks {
            return eprintln!("skipped: swaks has no TLS (Debian: libnet-ssleay-perl)");
        }
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let (marked, ..) = site.marked().await;
        assert!(site.spool.header(marked.id).unwrap().envelope.peer.tls);
    }
}

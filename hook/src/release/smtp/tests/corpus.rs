//! Real mail that nobody on this project wrote, in by the way in and out by the way out.

use std::path::{Path, PathBuf};

use gantry_config::Network;
use gantry_protocol::pool::Answer;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::intake::smtp::{
    IntakeCustody, IntakeTimeouts, SmtpIntake, SmtpLimits, StrayCrLf, serve,
};
use crate::intake::{Clock, Gate, IntakeEvent};

#[tokio::test]
async fn every_message_comes_out_as_it_went_in() {
    let Some(corpus) = corpus() else {
        return eprintln!("skipped: there is no corpus beside the project");
    };
    for policy in [StrayCrLf::Reject, StrayCrLf::Normalise] {
        let sink = Sink::start(EVERYTHING, |_, _| Do::Usual).await;
        let site = Site::to(&sink);
        let (gate, mut events) = Gate::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let intake = Arc::new(intake(&site, policy));
        tokio::spawn(serve(listener, intake, site.spool.clone(), gate));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        say(&mut stream, b"", "220").await;
        say(&mut stream, b"EHLO c\r\n", "250").await;
        let mut rejected = 0;
        for (path, raw) in &corpus {
            let path = path.display();
            // With its strays for those who judge them; an end of line for those who lack it.
            let ended = if raw.ends_with(b"\r\n") || raw.is_empty() { "" } else { "\r\n" };
            let raw = [raw, ended.as_bytes()].concat();
            let clean = normalise(&raw);
            let group = "MAIL FROM:<a@x>\r\nRCPT TO:<b@x>\r\nDATA\r\n";
            assert_eq!(say(&mut stream, group.as_bytes(), "354").await, "354", "{path}");
            stream.write_all(&stuff(&raw)).await.unwrap();
            if policy == StrayCrLf::Reject && clean != raw {
                assert_eq!(say(&mut stream, b"", "").await, "554", "{path}");
                rejected += 1;
                continue;
            }
            let event = soon(events.recv()).await.unwrap();
            let IntakeEvent::Marked { marked, looped: false, answer: Some(answer) } = event else {
                panic!("{path}: {event:?}")
            };
            let results = site.release(marked.id, vec![0]).await;
            assert_eq!(kinds(&results), [ReleaseResult::Accepted], "{path}: {results:?}");
            answer.send(Answer::Accepted { text: "released".into() }).unwrap();
            assert_eq!(say(&mut stream, b"", "").await, "250", "{path}");
            site.spool.forget(marked.id);
            let bytes = sink.last_taken().bytes;
            assert!(bytes.ends_with(&clean), "{path} came out with other bytes");
            let above = String::from_utf8(bytes[..bytes.len() - clean.len()].to_vec()).unwrap();
            let names: Vec<&str> = above
                .lines()
                .filter_map(|line| line.split_once(':'))
                .map(|(name, _)| name)
                .collect();
            assert_eq!(names[0], "Received", "{path}");
            assert!(names.contains(&"X-Gantry-Trace"), "{path}: {above}");
        }
        assert!(rejected < corpus.len(), "nothing was compared");
        assert_eq!(
            rejected > 0,
            policy == StrayCrLf::Reject,
            "the corpus has messages with strays"
        );
    }
}

fn intake(site: &Site, stray_cr_lf: StrayCrLf) -> SmtpIntake {
    SmtpIntake {
        protocol: Protocol::Smtp,
        mailbox: "mail.box".into(),
        index: MailboxIndex(0),
        host_name: "mx1.example".into(),
        // Without the disk's syncs, of which a thousand messages need many.
        custody: IntakeCustody::Upstream { answer_within: PATIENCE },
        peers: Network::LOOPBACK.to_vec(),
        xforward_from: Vec::new(),
        stray_cr_lf,
        limits: SmtpLimits::default(),
        timeouts: IntakeTimeouts::default(),
        tls: None,
        offered: site.offered.clone(),
        clock: Clock::start(),
        trace: site.trace.clone(),
    }
}

/// Sends, and reads until a reply of this code (any, where it is empty) is complete; gives its code.
async fn say(stream: &mut TcpStream, bytes: &[u8], code: &str) -> String {
    stream.write_all(bytes).await.unwrap();
    let mut read = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&read);
        let last = text.lines().next_back().unwrap_or_default();
        if text.ends_with('\n') && last.starts_with(code) && last.get(3..4) == Some(" ") {
            return last[..3].to_owned();
        }
        let mut piece = [0; 1_024];
        let count = soon(stream.read(&mut piece)).await.unwrap();
        assert!(count > 0, "the connection ended after {text:?}");
        read.extend_from_slice(&piece[..count]);
    }
}

/// Dots behind CRLF doubled, and the final one.
fn stuff(message: &[u8]) -> Vec<u8> {
    let mut wire = Vec::new();
    for (at, &byte) in message.iter().enumerate() {
        let line_start = at == 0 || at >= 2 && &message[at - 2..at] == b"\r\n";
        if byte == b'.' && line_start {
            wire.push(b'.');
        }
        wire.push(byte);
    }
    wire.extend_from_slice(b".\r\n");
    wire
}

/// Every CRLF, CR and LF as CRLF.
fn normalise(message: &[u8]) -> Vec<u8> {
    let mut clean = Vec::new();
    let mut bytes = message.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if_eq(&b'\n');
                clean.extend_from_slice(b"\r\n");
            }
            b'\n' => clean.extend_from_slice(b"\r\n"),
            _ => clean.push(byte),
        }
    }
    clean
}

fn corpus() -> Option<Vec<(PathBuf, Vec<u8>)>> {
    let beside = |folder: &Path| folder.join("../shared/corpus");
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().map(beside).find(|p| p.is_dir())?;
    let files = walkdir::WalkDir::new(root).min_depth(2).sort_by_file_name();
    let files = files.into_iter().map(Result::unwrap).filter(|entry| entry.file_type().is_file());
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).unwrap();
        (path, bytes)
    };
    Some(files.map(|entry| read(entry.into_path())).collect())
}

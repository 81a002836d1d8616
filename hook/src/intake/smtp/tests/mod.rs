//! The intake on a real socket and a real spool, with a raw client and a service of the test's own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod custody;
mod data;
mod interop;
mod lmtp;
mod session;
mod tls;

use std::fmt::Write as _;
use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_config::Network;
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Answer, MailboxIndex, Marked};
use gantry_protocol::time::Moment;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::{IntakeCustody, IntakeTimeouts, SmtpIntake, SmtpLimits, StrayCrLf, serve};
use crate::disk::{Disk, RealDisk};
use crate::intake::{Clock, Gate, IntakeEvent, unix_ms};
use crate::release::{Offered, Protocol, TraceKey};
use crate::spool::{Now, Options, Spool};
use crate::tls::Stream;

/// Everything that a test waits for comes long before, or never.
const PATIENCE: Duration = Duration::from_secs(30);

const SECRET: &[u8] = b"a secret of the tests";

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have come long ago")
}

/// An intake on a port of its own.
struct Site<D: Disk = RealDisk> {
    folder: tempfile::TempDir,
    spool: Arc<Spool<D>>,
    gate: Gate,
    events: mpsc::Receiver<IntakeEvent>,
    address: std::net::SocketAddr,
    serve: JoinHandle<()>,
}

fn intake(custody: IntakeCustody) -> SmtpIntake {
    SmtpIntake {
        protocol: Protocol::Smtp,
        mailbox: "mail.box".into(),
        index: MailboxIndex(0),
        host_name: "mx1.example".into(),
        custody,
        peers: Network::LOOPBACK.to_vec(),
        xforward_from: Network::LOOPBACK.to_vec(),
        stray_cr_lf: StrayCrLf::Reject,
        tls: None,
        limits: SmtpLimits::default(),
        timeouts: IntakeTimeouts::default(),
        offered: Offered::default(),
        clock: Clock::start(),
        trace: TraceKey::new("mx1", SECRET),
    }
}

fn hook() -> SmtpIntake {
    intake(IntakeCustody::Hook)
}

fn upstream() -> SmtpIntake {
    intake(IntakeCustody::Upstream { answer_within: Duration::from_secs(120) })
}

impl Site {
    async fn start(intake: SmtpIntake) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("spool");
        Self::on(RealDisk, &root, intake, folder).await
    }
}

impl<D: Disk> Site<D> {
    async fn on(disk: D, root: &Path, intake: SmtpIntake, folder: tempfile::TempDir) -> Self {
        let options = Options {
            volatile_memory_bytes_max: 1 << 20,
            volatile_disk_bytes_max: 1 << 30,
            room: Default::default(),
            host: "mx1".into(),
            clock: Arc::new(|| Now { moment: Moment(0), unix_ms: unix_ms() }),
        };
        let mailboxes = [intake.mailbox.clone()];
        let spool = Spool::open(disk, root, &mailboxes, options).unwrap().spool;
        let (gate, events) = Gate::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serve =
            tokio::spawn(serve(listener, Arc::new(intake), Arc::clone(&spool), gate.clone()));
        Self { folder, spool, gate, events, address, serve }
    }

    /// A client that has read the greeting and said EHLO.
    async fn client(&self) -> Client {
        let mut client = Client::connect(self.address).await;
        assert!(client.reply().await.starts_with("220 mx1.example ESMTP"));
        client.expect("EHLO client.example", 250).await;
        client
    }

    async fn event(&mut self) -> IntakeEvent {
        soon(self.events.recv()).await.expect("an event")
    }

    async fn marked(&mut self) -> (Marked, bool, Option<oneshot::Sender<Answer>>) {
        match self.event().await {
            IntakeEvent::Marked { marked, looped, answer } => (marked, looped, answer),
            other => panic!("{other:?}"),
        }
    }

    fn nothing_marked(&mut self) {
        assert!(self.events.try_recv().is_err(), "something was marked");
    }

    fn body(&self, id: MessageId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.spool.body(id).unwrap().read_to_end(&mut bytes).unwrap();
        bytes
    }

    /// Files of messages, whole or not, in the spool's folder on disk.
    fn message_files(&self) -> Vec<String> {
        let mailbox = self.folder.path().join("spool/mail.box");
        let entries = walkdir::WalkDir::new(mailbox).into_iter().map(Result::unwrap);
        let files = entries.filter(|entry| entry.file_type().is_file());
        files.map(|entry| entry.path().display().to_string()).collect()
    }

    /// Waits until no session is left.
    async fn ended(self) {
        self.gate.drain();
        soon(self.serve).await.unwrap();
    }
}

/// Speaks bytes.
struct Client {
    stream: Stream,
    read: Vec<u8>,
}

impl Client {
    async fn connect(address: std::net::SocketAddr) -> Self {
        let stream = soon(TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream: Stream::Plain(stream), read: Vec::new() }
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon(self.stream.write_all(bytes.as_ref())).await.unwrap();
        soon(self.stream.flush()).await.unwrap();
    }

    /// The next whole reply, its lines joined with `|`; empty when the connection ends.
    async fn reply(&mut self) -> String {
        let mut reply = String::new();
        loop {
            let Some(line) = self.line().await else { return String::new() };
            if !reply.is_empty() {
                reply.push('|');
            }
            reply.push_str(&line);
            if line.as_bytes().get(3) != Some(&b'-') {
                return reply;
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.read.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.read.drain(..end + 2).collect();
                return Some(String::from_utf8(line[..end].to_vec()).unwrap());
            }
            let mut piece = [0; 4_096];
            match soon(self.stream.read(&mut piece)).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.read.extend_from_slice(&piece[..count]),
            }
        }
    }

    async fn say(&mut self, line: &str) -> String {
        self.send(format!("{line}\r\n")).await;
        self.reply().await
    }

    async fn expect(&mut self, line: &str, code: u16) -> String {
        let reply = self.say(line).await;
        assert!(reply.starts_with(&code.to_string()), "{line}: {reply}, not {code}");
        reply
    }

    async fn expect_reply(&mut self, code: u16) -> String {
        let reply = self.reply().await;
        assert!(reply.starts_with(&code.to_string()), "{reply}, not {code}");
        reply
    }

    async fn expect_end(&mut self) {
        assert_eq!(self.reply().await, "", "the connection should have ended");
    }

    /// Up to 354.
    async fn begin_data(&mut self) {
        self.expect("MAIL FROM:<from@example.com>", 250).await;
        self.expect("RCPT TO:<to@example.com>", 250).await;
        self.expect("DATA", 354).await;
    }

    /// A whole message as it stands on the wire, its dot included.
    async fn deliver(&mut self, wire: impl AsRef<[u8]>) -> String {
        self.begin_data().await;
        self.send(wire).await;
        self.reply().await
    }
}

const MESSAGE: &str = "Subject: x\r\n\r\nHello\r\n";

fn on_wire(message: &str) -> String {
    format!("{message}.\r\n")
}

fn received_fields(count: usize) -> String {
    (0..count).fold(String::new(), |mut fields, number| {
        write!(fields, "Received: from a by b{number}; now\r\n").unwrap();
        fields
    })
}

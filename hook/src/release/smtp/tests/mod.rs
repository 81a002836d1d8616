//! The way out against a next hop of the test's own, with a real spool.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod corpus;
mod faults;
mod lmtp;
mod sink;
mod tls;
mod transactions;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_mail::{Envelope, HeaderEdit, Peer, Recipient};
use gantry_protocol::id::{Digest, MessageId};
use gantry_protocol::pool::{Change, MailboxIndex, Stored};
use gantry_protocol::time::Moment;
use gantry_protocol::verdict::{self, Disposition, Verdict};

use self::sink::{Do, Sink};
use super::*;
use crate::disk::RealDisk;
use crate::spool::{Now, Options};

/// Everything that a test waits for comes long before, or never.
const PATIENCE: Duration = Duration::from_secs(30);

const EVERYTHING: &[&str] = &[
    "PIPELINING",
    "SIZE 0",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "XFORWARD NAME ADDR PROTO HELO",
];

async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it should have come long ago")
}

/// A spool and a way out to a sink.
struct Site {
    folder: tempfile::TempDir,
    spool: Arc<Spool<RealDisk>>,
    way: SmtpRelease,
    offered: Offered,
    trace: TraceKey,
}

fn config(address: SocketAddr) -> SmtpReleaseConfig {
    SmtpReleaseConfig {
        protocol: Protocol::Smtp,
        address: Endpoint { host: address.ip().to_string(), port: address.port() },
        tls: None,
        credentials: None,
        identity: Identity {
            mailbox: "mail.box".into(),
            host_name: "mx1.example".into(),
            authserv_id: "mx1.example".into(),
        },
        xforward: true,
        connections_max: 4,
        timeouts: SmtpTimeouts::default(),
    }
}

impl Site {
    fn new(config: SmtpReleaseConfig) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = Options {
            volatile_memory_bytes_max: 1 << 20,
            volatile_disk_bytes_max: 1 << 30,
            room: Default::default(),
            host: "mx1".into(),
            clock: Arc::new(|| Now { moment: Moment(0), unix_ms: 0 }),
        };
        let root = folder.path().join("spool");
        let spool = Spool::open(RealDisk, &root, &["mail.box".into()], options).unwrap().spool;
        let offered = Offered::default();
        let way = SmtpRelease::new(config, offered.clone());
        Self { folder, spool, way, offered, trace: TraceKey::new("mx1", b"a secret") }
    }

    fn to(sink: &Sink) -> Self {
        Self::new(config(sink.address))
    }

    fn store(&self, envelope: &Envelope, message: &[u8]) -> MessageId {
        let id = self.spool.allocate();
        let mut incoming =
            self.spool.begin(id, MailboxIndex(0), envelope, 1_234_567_890_000).unwrap();
        incoming.write(message).unwrap();
        incoming.finish().unwrap();
        id
    }

    fn settle(&self, id: MessageId, groups: Vec<verdict::Group>) {
        let header = self.spool.header(id).unwrap();
        let verdict = Box::new(Verdict {
            length: header.length,
            digest: header.digest,
            groups,
            findings: Vec::new(),
            originated: Vec::new(),
        });
        let stored = self.spool.apply(id, MailboxIndex(0), &Change::Settle { verdict });
        assert_eq!(stored, Stored::Done);
    }

    async fn release(&self, id: MessageId, recipients: Vec<u16>) -> Vec<RecipientResult> {
        let expected = recipients.len();
        let mut results =
            soon(release(self.spool.clone(), id, recipients, &self.way, &self.trace)).await;
        assert_eq!(results.len(), expected, "one result for each recipient: {results:?}");
        results.sort_by_key(|result| result.recipient);
        results
    }

    /// Stores a message and releases it to all its recipients.
    async fn send(&self, envelope: &Envelope, message: &[u8]) -> Vec<RecipientResult> {
        let id = self.store(envelope, message);
        let all = 0..u16::try_from(envelope.recipients.len()).unwrap();
        self.release(id, all.collect()).await
    }
}

fn envelope(recipients: &[&str]) -> Envelope {
    let recipient =
        |address: &&str| Recipient { address: (*address).to_owned(), ..Recipient::default() };
    Envelope {
        sender: "from@example.com".into(),
        recipients: recipients.iter().map(recipient).collect(),
        peer: Peer {
            address: "192.0.2.7".parse().ok(),
            helo: "client.example".into(),
            ..Peer::default()
        },
        ..Envelope::default()
    }
}

fn deliver(recipients: &[u16], fields: &[&str]) -> verdict::Group {
    let prepend = |field: &&str| HeaderEdit::Prepend { field: (*field).to_owned() };
    verdict::Group {
        recipients: recipients.to_vec(),
        disposition: Disposition::Deliver {
            edits: fields.iter().map(prepend).collect(),
            body: Body::Original,
        },
    }
}

fn kinds(results: &[RecipientResult]) -> Vec<ReleaseResult> {
    results.iter().map(|result| result.result).collect()
}

const MESSAGE: &[u8] = b"Message-ID: <1@x>\r\nSubject: x\r\n\r\nHello\r\n";

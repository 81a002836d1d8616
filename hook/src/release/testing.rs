//! What the tests of several ways out share: a real spool with messages in it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_mail::{Envelope, HeaderEdit, Recipient};
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Change, MailboxIndex, RecipientResult, ReleaseResult, Stored};
use gantry_protocol::time::Moment;
use gantry_protocol::verdict::{Body, Disposition, Group, Verdict};

use super::{Identity, TraceKey, Way};
use crate::disk::RealDisk;
use crate::spool::{Now, Options, Spool};

/// Everything that a test waits for comes long before, or never.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// When every message of the tests came in, in seconds since 1970.
pub(super) const RECEIVED: u64 = 1_234_567_890;

pub(super) const MESSAGE: &[u8] =
    b"Message-ID: <1@x>\r\nX-Receiver: stranger@x\r\nSubject: x\r\n\r\nHello\r\n.\r\n\r\nend\r\n";

pub(super) struct Store {
    pub(super) folder: tempfile::TempDir,
    pub(super) spool: Arc<Spool<RealDisk>>,
    trace: TraceKey,
}

impl Store {
    pub(super) fn new() -> Self {
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
        Self { folder, spool, trace: TraceKey::new("mx1", b"a secret") }
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(super) fn put(&self, sender: &str, recipients: &[&str], message: &[u8]) -> MessageId {
        let recipient =
            |address: &&str| Recipient { address: (*address).to_owned(), ..Recipient::default() };
        let envelope = Envelope {
            sender: sender.into(),
            recipients: recipients.iter().map(recipient).collect(),
            ..Envelope::default()
        };
        let id = self.spool.allocate();
        let mut incoming =
            self.spool.begin(id, MailboxIndex(0), &envelope, RECEIVED * 1_000).unwrap();
        incoming.write(message).unwrap();
        incoming.finish().unwrap();
        id
    }

    /// A verdict that gives each group of recipients a field of its own.
    pub(super) fn settle(&self, id: MessageId, groups: &[(&[u16], &str)]) {
        let header = self.spool.header(id).unwrap();
        let group = |(recipients, field): &(&[u16], &str)| Group {
            recipients: recipients.to_vec(),
            disposition: Disposition::Deliver {
                edits: vec![HeaderEdit::Prepend { field: (*field).to_owned() }],
                body: Body::Original,
            },
        };
        let verdict = Box::new(Verdict {
            length: header.length,
            digest: header.digest,
            groups: groups.iter().map(group).collect(),
            findings: Vec::new(),
            originated: Vec::new(),
        });
        let stored = self.spool.apply(id, MailboxIndex(0), &Change::Settle { verdict });
        assert_eq!(stored, Stored::Done);
    }

    /// Turns a bit of the message's last byte.
    pub(super) fn damage(&self, message: &[u8]) {
        for entry in walkdir::WalkDir::new(self.path().join("spool/mail.box")) {
            let entry = entry.unwrap();
            if !entry.file_type().is_file() {
                continue;
            }
            let bytes = std::fs::read(entry.path()).unwrap();
            let Some(at) = bytes.windows(message.len()).position(|part| part == message) else {
                continue;
            };
            let file = OpenOptions::new().write(true).open(entry.path()).unwrap();
            let last = at + message.len() - 1;
            return file.write_all_at(&[bytes[last] ^ 1], last as u64).unwrap();
        }
        panic!("the message is not in the spool");
    }

    pub(super) async fn release(
        &self,
        way: &Way,
        id: MessageId,
        recipients: &[u16],
    ) -> Vec<RecipientResult> {
        let release = way.release(self.spool.clone(), id, recipients.to_vec(), &self.trace);
        let mut results = tokio::time::timeout(PATIENCE, release).await.expect("it takes too long");
        results.sort_by_key(|result| result.recipient);
        let served: Vec<u16> = results.iter().map(|result| result.recipient).collect();
        assert_eq!(served, recipients, "one result for each");
        results
    }
}

pub(super) fn identity() -> Identity {
    Identity {
        mailbox: "mail.box".into(),
        host_name: "mx1.example".into(),
        authserv_id: "mx1.example".into(),
    }
}

pub(super) fn kinds(results: &[RecipientResult]) -> Vec<ReleaseResult> {
    results.iter().map(|result| result.result).collect()
}

//! What the spool promises, on a simulated disk that crashes and fails, and on a real one.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod bounce;
mod crash;
mod life;
mod originate;
mod parts;
mod real;
mod retain;
mod volatile;

use std::io::Read;
use std::path::Path;
use std::sync::Mutex;

use gantry_mail::Recipient;
use gantry_protocol::pool::{Change, Recovered, ReleaseResult, Stored};
use gantry_protocol::verdict::{Body as DeliveredBody, Disposition, Group, Outcome};

use super::*;
use crate::disk::sim::SimDisk;

const ROOT: &str = "/spool";
const MAILBOX: MailboxIndex = MailboxIndex(0);
/// Milliseconds since 1970 at which everything comes in.
const RECEIVED: u64 = 1_700_000_000_123;

fn options() -> Options {
    Options {
        volatile_memory_bytes_max: 256 * 1024,
        volatile_disk_bytes_max: 512 * 1024,
        room: Default::default(),
        host: "mx1.example".into(),
        clock: Arc::new(|| Now { moment: Moment(RECEIVED + 5_000), unix_ms: RECEIVED + 5_000 }),
    }
}

fn try_open<D: Disk>(disk: D, root: &Path) -> Result<Opened<D>, SpoolError> {
    Spool::open(disk, root, &["mail.box".to_owned(), "second".to_owned()], options())
}

fn open_sim(disk: &SimDisk) -> Opened<SimDisk> {
    try_open(disk.clone(), Path::new(ROOT)).unwrap()
}

fn new_spool() -> (SimDisk, Arc<Spool<SimDisk>>) {
    let disk = SimDisk::new(1);
    let spool = open_sim(&disk).spool;
    (disk, spool)
}

fn envelope(recipients: usize) -> Envelope {
    let recipient =
        |number| Recipient { address: format!("r{number}@example.net"), ..Recipient::default() };
    Envelope {
        sender: "sender@example.org".into(),
        recipients: (0..recipients).map(recipient).collect(),
        ..Envelope::default()
    }
}

/// A message of this many bytes, unlike any of another number.
fn message(number: u8, length: usize) -> Vec<u8> {
    let mut message = format!("Subject: {number}\r\nX-Number: {number}\r\n\r\n").into_bytes();
    let line = (0..length).map(|at| u8::try_from((at + usize::from(number)) % 251).unwrap());
    message.extend(line.take(length.saturating_sub(message.len())));
    message
}

fn take_in<D: Disk>(spool: &Arc<Spool<D>>, body: &[u8]) -> Result<MessageId, SpoolError> {
    let id = spool.allocate();
    let mut incoming = spool.begin(id, MAILBOX, &envelope(2), RECEIVED)?;
    for piece in body.chunks(10_000) {
        incoming.write(piece)?;
    }
    assert_eq!(incoming.finish()?.length, body.len() as u64);
    Ok(id)
}

fn take_in_volatile<D: Disk>(spool: &Arc<Spool<D>>, body: &[u8]) -> Result<MessageId, SpoolError> {
    let id = spool.allocate();
    let mut volatile = spool.begin_volatile(id, MAILBOX, envelope(2), RECEIVED);
    for piece in body.chunks(10_000) {
        volatile.write(piece)?;
    }
    volatile.finish()?;
    Ok(id)
}

fn read_body<D: Disk>(spool: &Spool<D>, id: MessageId) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    spool.body(id).unwrap().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn verdict(header: &Header) -> Box<Verdict> {
    Box::new(Verdict {
        length: header.length,
        digest: header.digest,
        groups: vec![Group {
            recipients: vec![0, 1],
            disposition: Disposition::Deliver { edits: Vec::new(), body: DeliveredBody::Original },
        }],
        findings: Vec::new(),
        originated: Vec::new(),
    })
}

fn finding(need: &str) -> Finding {
    Finding {
        need: need.to_owned(),
        module: "rules".to_owned(),
        engine: "YARA 1".to_owned(),
        signatures: "7".to_owned(),
        outcome: Outcome::Clean,
        duration_ms: 3,
    }
}

fn result(recipient: u16, result: ReleaseResult) -> RecipientResult {
    let reply = match result {
        ReleaseResult::Refused => "550 5.1.1 no such user",
        ReleaseResult::Accepted => "250 2.0.0 ok",
        _ => "451 4.3.0 later",
    };
    RecipientResult { recipient, result, reply: reply.into() }
}

fn done<D: Disk>(spool: &Arc<Spool<D>>, id: MessageId, change: &Change) {
    assert_eq!(spool.apply(id, MAILBOX, change), Stored::Done, "{change:?}");
}

fn part<D: Disk>(spool: &Arc<Spool<D>>, id: MessageId, findings: &[Finding]) {
    let body = DeliveredBody::Original;
    done(spool, id, &Change::Part { findings: findings.to_vec(), body });
}

fn settle<D: Disk>(spool: &Arc<Spool<D>>, id: MessageId) {
    let verdict = verdict(&spool.header(id).unwrap());
    done(spool, id, &Change::Settle { verdict });
}

fn failed<D: Disk>(spool: &Arc<Spool<D>>, id: MessageId, change: &Change) -> String {
    match spool.apply(id, MAILBOX, change) {
        Stored::Failed { reason } => reason,
        other => panic!("{change:?} ended in {other:?}"),
    }
}

/// The state in which the spool has the message.
fn state<D: Disk>(spool: &Spool<D>, id: MessageId) -> Option<StoredState> {
    spool
        .list(|_| true, usize::MAX)
        .iter()
        .find(|listed| listed.id == id)
        .map(|listed| listed.state)
}

/// Where the message's file is.
fn path<D: Disk>(spool: &Spool<D>, id: MessageId) -> PathBuf {
    let (name, folder) = spool.locate(id).unwrap();
    folder.path.join(name.to_string())
}

impl<D: Disk> Opened<D> {
    /// What the start has found, as long as nothing was done with it.
    fn recovered(&self) -> Vec<Recovered> {
        self.spool.list_shelved(|_| true, usize::MAX)
    }
}

//! What may lie in the spool's folder after a disk, an administrator or a stranger has been at it.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arbitrary::{Result, Unstructured};
use gantry_hook::disk::sim::SimDisk;
use gantry_hook::disk::{Disk, DiskFile};
use gantry_hook::spool::testkit::{
    respelled, rewritten_header, rewritten_log, sealed_header, sealed_record,
};
use gantry_hook::spool::{Now, Options, Spool, SpoolError};
use gantry_protocol::id::{Digest, MessageId};
use gantry_protocol::pool::{Change, MailboxIndex, Stored, StoredState};
use gantry_protocol::time::Moment;

const ROOT: &str = "/spool";
const FOLDER: &str = "/spool/in/0000";
const CHECKSUM: [u8; 16] = [9; 16];
/// Files in one spool; more only take longer.
const FILES_MAX: usize = 8;

/// A name: what is taken for a message is spelled as the spool spells it, so that one message has one name.
pub(super) fn names(bytes: &[u8]) {
    let Ok(name) = std::str::from_utf8(bytes) else { return };
    if let Some(spelled) = respelled(name) {
        assert_eq!(spelled, name);
    }
}

/// A header and records, as they are, and with their checksums right whatever is in them. What was read, written and
/// read again is the same.
pub(super) fn records(bytes: &[u8]) {
    let [kind, rest @ ..] = bytes else { return };
    header(rest);
    let id = MessageId { epoch: 1, counter: 1 };
    header(&sealed_header(id, u64::from(*kind), Digest([7; 32]), rest));
    log(rest);
    let mut records = Vec::new();
    for payload in rest.split(|byte| *byte == 0xfe) {
        let at = 96 + records.len() as u64;
        records.extend(sealed_record(&CHECKSUM, at, u32::from(kind % 12), payload));
    }
    log(&records);
    // Half a record is none, and those before it stay.
    if let Some(cut) = records.len().checked_sub(1) {
        let (whole, _) = rewritten_log(&CHECKSUM, 96, &records);
        let (fewer, taken) = rewritten_log(&CHECKSUM, 96, &records[..cut]);
        assert!(whole.starts_with(&fewer) && taken <= cut);
    }
}

fn header(bytes: &[u8]) {
    let Some(once) = rewritten_header(bytes) else { return };
    assert!(once.len() <= bytes.len());
    assert_eq!(rewritten_header(&once), Some(once.clone()));
}

fn log(bytes: &[u8]) {
    let (once, taken) = rewritten_log(&CHECKSUM, 96, bytes);
    assert!(taken <= bytes.len());
    let (again, length) = rewritten_log(&CHECKSUM, 96, &once);
    assert_eq!((&again, length), (&once, once.len()));
}

/// A spool with any files in it opens or says why not, and gives of each message what its file says, or says that it is
/// damaged. What it does not know stays.
pub(super) fn folder(bytes: &[u8]) {
    let disk = SimDisk::new(1);
    drop(open(&disk).expect("a new spool"));
    disk.create_dir(Path::new(FOLDER)).expect("a folder");
    let mut bytes = Unstructured::new(bytes);
    for _ in 0..FILES_MAX {
        if bytes.is_empty() || put(&disk, &mut bytes).is_err() {
            break;
        }
    }
    let before = disk.read_dir(Path::new(FOLDER)).expect("the folder");
    let opened = match open(&disk) {
        Ok(opened) => opened,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let gone =
        |name: &str| name.strip_suffix(".tmp").is_some_and(|id| id.parse::<MessageId>().is_ok());
    let kept = before.into_iter().filter(|entry| !gone(&entry.name)).collect::<Vec<_>>();
    assert_eq!(disk.read_dir(Path::new(FOLDER)).expect("the folder"), kept);
    for listed in opened.spool.list(|_| true, usize::MAX) {
        message(&opened.spool, listed.id, listed.length);
    }
    let epoch = opened.epoch;
    drop(opened.spool);
    let again = open(&disk).expect("what opened opens again");
    assert!(again.epoch > epoch);
}

fn open(disk: &SimDisk) -> std::result::Result<gantry_hook::spool::Opened<SimDisk>, SpoolError> {
    let options = Options {
        volatile_memory_bytes_max: 1_024,
        volatile_disk_bytes_max: 1_024,
        room: Default::default(),
        host: "mx1.example".into(),
        clock: Arc::new(|| Now { moment: Moment(1 << 40), unix_ms: 1_700_000_000_000 }),
    };
    Spool::open(disk.clone(), Path::new(ROOT), &["in".to_owned()], options)
}

/// Puts a file there: one of the spool's own, or one among the messages.
fn put(disk: &SimDisk, bytes: &mut Unstructured<'_>) -> Result<()> {
    if bytes.ratio(1, 6)? {
        let own = *bytes.choose(&["format", "epoch", "suspects", "calendar", "orders"])?;
        let length = bytes.int_in_range(0..=80)?;
        write(disk, &Path::new(ROOT).join(own), bytes.bytes(length)?);
        return Ok(());
    }
    let id = MessageId { epoch: bytes.int_in_range(0..=2)?, counter: bytes.int_in_range(0..=3)? };
    let state = *bytes.choose(&["m0", "m3", "p1", "r", "h", "q", "bad", "x"])?;
    let length: u16 = bytes.int_in_range(0..=300)?;
    let recipients: u8 = bytes.int_in_range(0..=3)?;
    let name = match bytes.int_in_range(0..=9_u8)? {
        0 => format!("{id}.tmp"),
        1 => {
            let length = bytes.int_in_range(1..=40)?;
            let name = String::from_utf8_lossy(bytes.bytes(length)?).replace(['/', '\0'], "_");
            if matches!(name.as_str(), "." | "..") { "dots".to_owned() } else { name }
        }
        _ => format!("{id}.6553f100.{length:x}.{recipients:x}.{state}"),
    };
    let envelope_bytes = bytes.int_in_range(0..=120)?;
    let envelope = bytes.bytes(envelope_bytes)?;
    let said = if bytes.ratio(1, 8)? { u64::from(length) + 1 } else { u64::from(length) };
    // The digest is that of no bytes at all, or none.
    let digest = Digest([0xe3; 32]);
    let mut content = sealed_header(id, said, digest, envelope);
    let checksum: [u8; 16] = content[16..32].try_into().expect("a header");
    content.resize(content.len() + usize::from(length), b'x');
    for _ in 0..bytes.int_in_range(0..=3_u8)? {
        let length = bytes.int_in_range(0..=100)?;
        let (kind, payload) = (bytes.int_in_range(0..=11)?, bytes.bytes(length)?);
        let at = content.len() as u64;
        content.extend(sealed_record(&checksum, at, kind, payload));
    }
    let cut = if bytes.ratio(1, 8)? { bytes.int_in_range(0..=64)? } else { 0 };
    content.truncate(content.len().saturating_sub(cut));
    write(disk, &Path::new(FOLDER).join(name), &content);
    Ok(())
}

fn write(disk: &SimDisk, path: &Path, content: &[u8]) {
    // A second file of a name is none.
    let file = match disk.create_new(path) {
        Ok(file) => file,
        Err(_) => disk.open_for_write(path).expect("the file"),
    };
    file.set_length(0).expect("the disk");
    file.write_all_at(content, 0).expect("the disk");
    file.sync().expect("the disk");
}

fn message(spool: &Arc<Spool<SimDisk>>, id: MessageId, length: u64) {
    let reasons = vec!["a reason".to_owned()];
    let aside =
        Change::SetAside { state: StoredState::Held, verdict: None, reasons: reasons.clone() };
    let header = match spool.header(id) {
        Ok(header) => header,
        Err(error) => {
            assert!(error.is_corrupted(), "{error}");
            assert!(spool.body(id).is_err() && spool.log(id).is_err());
            let stored = spool.apply(id, MailboxIndex(0), &aside);
            assert!(matches!(stored, Stored::Damaged { .. }), "{stored:?}");
            return assert!(spool.header(id).is_err(), "it was set aside");
        }
    };
    assert_eq!((header.id, header.length), (id, length));
    let mut read = Vec::new();
    let whole = spool.body(id).expect("its header was read").read_to_end(&mut read);
    assert!(whole.is_err() && (read.len() as u64) < length.max(1), "no bytes have that digest");
    let _ = spool.log(id);
    let _ = spool.load(id);
    if spool.apply(id, MailboxIndex(0), &aside) == Stored::Done {
        let log = spool.log(id).expect("what was written");
        assert_eq!(log.reasons.last(), reasons.last());
    }
}

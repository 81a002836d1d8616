//! The bytes of a message's file: the header record before the body, and the records of the log behind it. Pure.

use gantry_mail::Envelope;
use gantry_protocol::id::{Digest, MessageId};
use gantry_protocol::limits::{MESSAGE_BYTES_MAX, PART_BYTES_MAX, RESERVATION_FRAME_BYTES_MAX};
use gantry_protocol::pool::RecipientResult;
use gantry_protocol::verdict::{Finding, Verdict};
use ring::digest::{Context, SHA256};
use serde::de::DeserializeOwned;

use super::{Header, Notice};

/// The format that this build writes, and the newest that it reads.
pub(super) const FORMAT: u32 = 1;
/// Carriage return and line feed tell a file that went through a text-mode copy.
const MAGIC: [u8; 8] = *b"GANTRY\r\n";
/// Bytes of the header before the envelope.
pub(super) const PREAMBLE_BYTES: usize = 96;
/// Largest envelope: what a frame can carry, since it has to travel to a worker.
pub(super) const ENVELOPE_BYTES_MAX: usize = RESERVATION_FRAME_BYTES_MAX;
/// Bytes of a log record before its payload.
pub(super) const RECORD_HEADER_BYTES: usize = 16;
/// Largest payload of a log record: a verdict has come in a frame, with what earlier workers found added; the results of a thousand recipients with the
/// longest replies are a quarter of that.
pub(super) const RECORD_BYTES_MAX: usize = RESERVATION_FRAME_BYTES_MAX + PART_BYTES_MAX;

const HEADER_CHECKSUM_BYTES: usize = 16;
const RECORD_CHECKSUM_BYTES: usize = 8;

/// Why bytes are no header.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HeaderFault {
    #[error("the file ends within its header")]
    Truncated,
    #[error("it does not begin as a message's file does")]
    Magic,
    #[error("it is of format {0}, this build knows formats up to {FORMAT}")]
    Format(u32),
    #[error("its header is damaged: the checksum differs")]
    Checksum,
    #[error("its header cannot be read, though its checksum is right: {0}")]
    Content(&'static str),
}

/// The fixed part of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Preamble {
    pub(super) id: MessageId,
    pub(super) envelope_bytes: usize,
    pub(super) length: u64,
    pub(super) received_unix_ms: u64,
    pub(super) digest: Digest,
    /// Binds the log's records to this file.
    pub(super) checksum: [u8; HEADER_CHECKSUM_BYTES],
}

impl Preamble {
    /// Offset of the body.
    pub(super) fn body(&self) -> u64 {
        (PREAMBLE_BYTES + self.envelope_bytes) as u64
    }

    /// Offset of the log.
    pub(super) fn log(&self) -> u64 {
        self.body() + self.length
    }
}

/// The envelope as the header carries it; `None` if it is too large.
pub(super) fn encode_envelope(envelope: &Envelope) -> Option<Vec<u8>> {
    postcard::to_stdvec(envelope).ok().filter(|bytes| bytes.len() <= ENVELOPE_BYTES_MAX)
}

/// The fixed part, complete, for an envelope that [`encode_envelope`] gave.
pub(super) fn encode_preamble(
    id: MessageId,
    received_unix_ms: u64,
    envelope: &[u8],
    length: u64,
    digest: &Digest,
) -> Vec<u8> {
    let envelope_bytes = u32::try_from(envelope.len()).unwrap_or(u32::MAX);
    let mut start = Vec::with_capacity(PREAMBLE_BYTES);
    start.extend_from_slice(&MAGIC);
    start.extend_from_slice(&FORMAT.to_be_bytes());
    start.extend_from_slice(&envelope_bytes.to_be_bytes());
    let mut rest = Vec::with_capacity(PREAMBLE_BYTES);
    rest.extend_from_slice(&id.counter.to_be_bytes());
    rest.extend_from_slice(&length.to_be_bytes());
    rest.extend_from_slice(&received_unix_ms.to_be_bytes());
    rest.extend_from_slice(&id.epoch.to_be_bytes());
    rest.extend_from_slice(&[0; 4]);
    rest.extend_from_slice(&digest.0);
    let checksum: [u8; HEADER_CHECKSUM_BYTES] = checksum(&[&start, &rest, envelope]);
    start.extend_from_slice(&checksum);
    start.extend_from_slice(&rest);
    start
}

/// Reads the fixed part. It is to be believed only after [`decode_envelope`].
pub(super) fn decode_preamble(bytes: &[u8]) -> Result<Preamble, HeaderFault> {
    let mut bytes = Bytes(bytes);
    let mut read = || {
        Some((
            bytes.take::<8>()?,
            u32::from_be_bytes(bytes.take()?),
            u32::from_be_bytes(bytes.take()?),
            bytes.take::<HEADER_CHECKSUM_BYTES>()?,
            u64::from_be_bytes(bytes.take()?),
            u64::from_be_bytes(bytes.take()?),
            u64::from_be_bytes(bytes.take()?),
            u32::from_be_bytes(bytes.take()?),
            bytes.take::<4>()?,
            bytes.take::<32>()?,
        ))
    };
    let (magic, format, envelope, checksum, counter, length, received, epoch, _, digest) =
        read().ok_or(HeaderFault::Truncated)?;
    if magic != MAGIC {
        return Err(HeaderFault::Magic);
    }
    if format != FORMAT {
        return Err(HeaderFault::Format(format));
    }
    let envelope_bytes = usize::try_from(envelope).unwrap_or(usize::MAX);
    if envelope_bytes > ENVELOPE_BYTES_MAX || length > MESSAGE_BYTES_MAX {
        return Err(HeaderFault::Checksum);
    }
    Ok(Preamble {
        id: MessageId { epoch, counter },
        envelope_bytes,
        length,
        received_unix_ms: received,
        digest: Digest(digest),
        checksum,
    })
}

/// Checks the whole header and reads the envelope. `header` are the fixed part and the envelope, nothing behind.
pub(super) fn decode_envelope(preamble: &Preamble, header: &[u8]) -> Result<Envelope, HeaderFault> {
    let start = header.get(..16).ok_or(HeaderFault::Truncated)?;
    let rest = header.get(32..).ok_or(HeaderFault::Truncated)?;
    let envelope = header.get(PREAMBLE_BYTES..).ok_or(HeaderFault::Truncated)?;
    if envelope.len() != preamble.envelope_bytes {
        return Err(HeaderFault::Truncated);
    }
    if checksum(&[start, rest]) != preamble.checksum {
        return Err(HeaderFault::Checksum);
    }
    whole(envelope).ok_or(HeaderFault::Content("the envelope does not follow the format"))
}

/// One entry of a message's log.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    Verdict(Verdict),
    Results(Vec<RecipientResult>),
    Reasons(Vec<String>),
    Notice(Notice),
    /// An operator has put the message back into the pool.
    Requeued,
    /// Ids of the messages that the verdict before this record originates, in their order.
    Originates(Vec<MessageId>),
    /// All of them are written.
    Originated,
    /// The message whose verdict originated this one.
    Origin(MessageId),
    /// All that workers have found so far, where a message needs more than one.
    Findings(Vec<Finding>),
    /// It was set aside at this second of the spool's own time.
    AsideSince(u64),
}

/// An entry that is to be written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Entry<'a> {
    Verdict(&'a Verdict),
    Results(&'a [RecipientResult]),
    Reasons(&'a [String]),
    Notice(&'a Notice),
    Requeued,
    Originates(&'a [MessageId]),
    Originated,
    Origin(MessageId),
    Findings(&'a [Finding]),
    AsideSince(u64),
}

impl Entry<'_> {
    /// Appends the record to `log`, which begins at `offset` of the file. `None` if it is too large.
    pub(super) fn encode(
        self,
        header_checksum: &[u8; HEADER_CHECKSUM_BYTES],
        offset: u64,
        log: &mut Vec<u8>,
    ) -> Option<()> {
        let (kind, payload) = match self {
            Entry::Verdict(verdict) => (1, postcard::to_stdvec(verdict)),
            Entry::Results(results) => (2, postcard::to_stdvec(results)),
            Entry::Reasons(reasons) => (3, postcard::to_stdvec(reasons)),
            Entry::Notice(notice) => (4, postcard::to_stdvec(notice)),
            Entry::Requeued => (5, Ok(Vec::new())),
            Entry::Originates(ids) => (6, postcard::to_stdvec(ids)),
            Entry::Originated => (7, Ok(Vec::new())),
            Entry::Origin(origin) => (8, postcard::to_stdvec(&origin)),
            Entry::Findings(findings) => (9, postcard::to_stdvec(findings)),
            Entry::AsideSince(seconds) => (10, postcard::to_stdvec(&seconds)),
        };
        let at = offset + log.len() as u64;
        log.extend_from_slice(&sealed(header_checksum, at, kind, &payload.ok()?)?);
        Some(())
    }
}

/// A record with its checksum, at this offset of the file. `None` if it is too large.
pub(super) fn sealed(
    header_checksum: &[u8; HEADER_CHECKSUM_BYTES],
    offset: u64,
    kind: u32,
    payload: &[u8],
) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= RECORD_BYTES_MAX)?;
    let start = RecordHeader { length, kind, checksum: [0; RECORD_CHECKSUM_BYTES] }.start();
    let checksum = record_checksum(header_checksum, offset, &start, payload);
    Some([start.as_slice(), checksum.as_slice(), payload].concat())
}

/// The start of a log record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordHeader {
    length: u32,
    kind: u32,
    checksum: [u8; RECORD_CHECKSUM_BYTES],
}

impl RecordHeader {
    /// `None` where this is no record: the end of the log.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let mut bytes = Bytes(bytes);
        let length = u32::from_be_bytes(bytes.take()?);
        let kind = u32::from_be_bytes(bytes.take()?);
        let header = Self { length, kind, checksum: bytes.take()? };
        (header.payload_bytes() <= RECORD_BYTES_MAX).then_some(header)
    }

    pub(super) fn payload_bytes(&self) -> usize {
        usize::try_from(self.length).unwrap_or(usize::MAX)
    }

    /// The record, if the checksum says that its bytes, at this offset of this file, are whole.
    pub(super) fn record(
        &self,
        header_checksum: &[u8; HEADER_CHECKSUM_BYTES],
        offset: u64,
        payload: &[u8],
    ) -> Option<Record> {
        let expected = record_checksum(header_checksum, offset, &self.start(), payload);
        if payload.len() != self.payload_bytes() || expected != self.checksum {
            return None;
        }
        match self.kind {
            1 => whole(payload).map(Record::Verdict),
            2 => whole(payload).map(Record::Results),
            3 => whole(payload).map(Record::Reasons),
            4 => whole(payload).map(Record::Notice),
            5 => payload.is_empty().then_some(Record::Requeued),
            6 => whole(payload).map(Record::Originates),
            7 => payload.is_empty().then_some(Record::Originated),
            8 => whole(payload).map(Record::Origin),
            9 => whole(payload).map(Record::Findings),
            10 => whole(payload).map(Record::AsideSince),
            _ => None,
        }
    }

    fn start(&self) -> [u8; 8] {
        let mut start = [0; 8];
        let fields = self.length.to_be_bytes().into_iter().chain(self.kind.to_be_bytes());
        start.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
        start
    }
}

/// Checks what a file's name says against its header.
pub(super) fn agrees(header: &Header, name: &super::name::Name) -> bool {
    header.id == name.id
        && header.length == name.length
        && header.envelope.recipients.len() == usize::from(name.recipients)
}

/// The place in the file is part of it, so that an old record's bytes never count at another place.
fn record_checksum(
    header_checksum: &[u8; HEADER_CHECKSUM_BYTES],
    offset: u64,
    start: &[u8; 8],
    payload: &[u8],
) -> [u8; RECORD_CHECKSUM_BYTES] {
    checksum(&[header_checksum, &offset.to_be_bytes(), start, payload])
}

/// The first bytes of the SHA-256 of all the parts: the hook has SHA-256 anyway, and it is fast enough.
pub(super) fn checksum<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut context = Context::new(&SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut checksum = [0; N];
    checksum.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
    checksum
}

/// A value that takes up all the bytes.
fn whole<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    postcard::take_from_bytes(bytes)
        .ok()
        .filter(|(_, rest)| rest.is_empty())
        .map(|(value, _)| value)
}

/// Bytes that are read from the front.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests {
    use gantry_mail::Recipient;
    use gantry_protocol::pool::ReleaseResult;
    use proptest::prelude::*;

    use super::*;

    const ID: MessageId = MessageId { epoch: 3, counter: 0x1a7 };

    fn envelope() -> Envelope {
        let recipient =
            |address: &str| Recipient { address: address.into(), ..Recipient::default() };
        Envelope {
            sender: "a@x.example".into(),
            recipients: vec![recipient("b@y.example"), recipient("c@z.example")],
            ..Envelope::default()
        }
    }

    fn header() -> Vec<u8> {
        let envelope = encode_envelope(&envelope()).unwrap();
        let mut header = encode_preamble(ID, 1_700_000_000_123, &envelope, 5, &Digest([7; 32]));
        header.extend_from_slice(&envelope);
        header
    }

    fn decode(header: &[u8]) -> Result<(Preamble, Envelope), HeaderFault> {
        let preamble = decode_preamble(header)?;
        decode_envelope(&preamble, header).map(|envelope| (preamble, envelope))
    }

    fn log() -> (Vec<Record>, Vec<u8>) {
        let results = vec![RecipientResult {
            recipient: 1,
            result: ReleaseResult::Deferred,
            reply: "451 later".into(),
        }];
        let notice = Notice { notice: ID, recipients: vec![1] };
        let reasons = vec!["attempts used up".to_owned()];
        let findings = vec![gantry_protocol::verdict::Finding {
            need: "virus".into(),
            module: "rules".into(),
            engine: "YARA 1".into(),
            signatures: String::new(),
            outcome: gantry_protocol::verdict::Outcome::Clean,
            duration_ms: 3,
        }];
        let mut log = Vec::new();
        for entry in [
            Entry::Results(&results),
            Entry::Reasons(&reasons),
            Entry::Notice(&notice),
            Entry::Requeued,
            Entry::Findings(&findings),
        ] {
            entry.encode(&[9; 16], 1_000, &mut log).unwrap();
        }
        let records = vec![
            Record::Results(results),
            Record::Reasons(reasons),
            Record::Notice(notice),
            Record::Requeued,
            Record::Findings(findings),
        ];
        (records, log)
    }

    fn decode_log(mut bytes: &[u8], header_checksum: &[u8; 16]) -> Vec<Record> {
        let (mut records, mut offset) = (Vec::new(), 1_000);
        while let Some(header) = RecordHeader::decode(bytes) {
            let end = RECORD_HEADER_BYTES + header.payload_bytes();
            let Some(payload) = bytes.get(RECORD_HEADER_BYTES..end) else { break };
            let Some(record) = header.record(header_checksum, offset, payload) else { break };
            records.push(record);
            (bytes, offset) = (&bytes[end..], offset + end as u64);
        }
        records
    }

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_bytes_are_those_of_the_document() {
        assert_eq!(
            hex(&header()),
            "47414e5452590d0a\
             00000001\
             00000032\
             4f1f49220e0f45c2269dcdf6d23981ae\
             00000000000001a7\
             0000000000000005\
             0000018bcfe5687b\
             00000003\
             00000000\
             0707070707070707070707070707070707070707070707070707070707070707\
             0b6140782e6578616d706c6500000000020b6240792e6578616d706c6500000b63407a2e6578616d706c6500000000000000"
        );
    }

    #[test]
    fn a_record_of_the_log_has_the_bytes_of_the_document() {
        let mut log = Vec::new();
        Entry::Requeued.encode(&[9; 16], 1_000, &mut log).unwrap();
        assert_eq!(hex(&log), "0000000000000005ed9cb84d9c268ddb");
        let reasons = ["attempts used up".to_owned()];
        Entry::Reasons(&reasons).encode(&[9; 16], 1_000, &mut log).unwrap();
        assert_eq!(
            hex(&log[16..]),
            "00000012000000030969c2cd89f3a7160110617474656d7074732075736564207570"
        );
    }

    #[test]
    fn a_header_comes_back_and_no_truncated_one_does() {
        let header = header();
        let (preamble, read) = decode(&header).unwrap();
        assert_eq!((read, preamble.id, preamble.length), (envelope(), ID, 5));
        assert_eq!(preamble.body(), header.len() as u64);
        for end in 0..header.len() {
            assert!(decode(&header[..end]).is_err(), "{end}");
        }
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_seen() {
        for bit in 0..header().len() * 8 {
            let mut header = header();
            header[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&header).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_log_ends_where_it_was_cut() {
        let (records, log) = log();
        assert_eq!(decode_log(&log, &[9; 16]), records);
        for end in 0..log.len() {
            let read = decode_log(&log[..end], &[9; 16]);
            assert!(read.len() < records.len() && records.starts_with(&read), "{end}");
        }
        assert!(decode_log(&log, &[8; 16]).is_empty(), "another file's log");
    }

    #[test]
    fn every_flipped_bit_of_a_log_ends_it_there() {
        let (records, log) = log();
        for bit in 0..log.len() * 8 {
            let mut log = log.clone();
            log[bit / 8] ^= 1 << (bit % 8);
            let read = decode_log(&log, &[9; 16]);
            assert!(read.len() < records.len() && records.starts_with(&read), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn garbage_is_refused(bytes: Vec<u8>) {
            prop_assert!(decode(&bytes).is_err());
            prop_assert!(decode_log(&bytes, &[9; 16]).is_empty());
        }
    }
}

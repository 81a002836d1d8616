//! The bytes of the spool, for tests outside of this crate that put any bytes there. A checksum that has to be right
//! would keep random bytes from everything behind it, so what they say is sealed here.

use gantry_protocol::id::{Digest, MessageId};

use super::name::FileName;
use super::record::{
    Entry, RECORD_HEADER_BYTES, Record, RecordHeader, decode_envelope, decode_preamble,
    encode_envelope, encode_preamble, sealed,
};

/// How the spool spells a name of its own for a message's file; none where the name is foreign, or of a file that was set
/// aside or never completed.
pub fn respelled(name: &str) -> Option<String> {
    match name.parse() {
        Ok(FileName::Message(name)) => Some(name.to_string()),
        _ => None,
    }
}

/// A header, its checksum right, with any bytes as its envelope.
pub fn sealed_header(id: MessageId, length: u64, digest: Digest, envelope: &[u8]) -> Vec<u8> {
    let mut header = encode_preamble(id, 1_700_000_000_000, envelope, length, &digest);
    header.extend_from_slice(envelope);
    header
}

/// The header that these bytes are, written anew; none where they are none.
pub fn rewritten_header(bytes: &[u8]) -> Option<Vec<u8>> {
    let preamble = decode_preamble(bytes).ok()?;
    let envelope = encode_envelope(&decode_envelope(&preamble, bytes).ok()?)?;
    let (id, received) = (preamble.id, preamble.received_unix_ms);
    let mut header = encode_preamble(id, received, &envelope, preamble.length, &preamble.digest);
    header.extend_from_slice(&envelope);
    Some(header)
}

/// A record of the log at this offset of a file whose header has this checksum, with any bytes in it.
pub fn sealed_record(
    header_checksum: &[u8; 16],
    offset: u64,
    kind: u32,
    payload: &[u8],
) -> Vec<u8> {
    sealed(header_checksum, offset, kind, payload).unwrap_or_default()
}

/// The records up to the first that does not count, written anew, and the bytes that they took up.
pub fn rewritten_log(header_checksum: &[u8; 16], offset: u64, log: &[u8]) -> (Vec<u8>, usize) {
    let (mut written, mut taken) = (Vec::new(), 0);
    while let Some(bytes) = log.get(taken..)
        && let Some(header) = RecordHeader::decode(bytes)
        && let end = RECORD_HEADER_BYTES + header.payload_bytes()
        && let Some(payload) = bytes.get(RECORD_HEADER_BYTES..end)
        && let Some(record) = header.record(header_checksum, offset + taken as u64, payload)
        && entry(&record).encode(header_checksum, offset, &mut written).is_some()
    {
        taken += end;
    }
    (written, taken)
}

fn entry(record: &Record) -> Entry<'_> {
    match record {
        Record::Verdict(verdict) => Entry::Verdict(verdict),
        Record::Results(results) => Entry::Results(results),
        Record::Reasons(reasons) => Entry::Reasons(reasons),
        Record::Notice(notice) => Entry::Notice(notice),
        Record::Requeued => Entry::Requeued,
        Record::Originates(ids) => Entry::Originates(ids),
        Record::Originated => Entry::Originated,
        Record::Origin(id) => Entry::Origin(*id),
        Record::Findings(findings) => Entry::Findings(findings),
        Record::AsideSince(seconds) => Entry::AsideSince(*seconds),
    }
}

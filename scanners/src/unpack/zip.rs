//! The records of zip archives (APPNOTE 6.3.10), found by their signatures.
//!
//! Unpackers differ: some read the central directory, some the local headers from the start, some whatever they
//! find. A library gives one of these readings; a scanner needs all of them, so the records are read here.

use std::{collections::BTreeMap, ops::Range};

use memchr::memmem;

const LOCAL: &[u8; 4] = b"PK\x03\x04";
const LISTED: &[u8; 4] = b"PK\x01\x02";
const END: &[u8; 4] = b"PK\x05\x06";
const END_64: &[u8; 4] = b"PK\x06\x06";
const LOCATOR_64: &[u8; 4] = b"PK\x06\x07";

const LOCAL_BYTES: usize = 30;
const LISTED_BYTES: usize = 46;
const END_64_BYTES: usize = 56;
const LOCATOR_64_BYTES: usize = 20;

/// Records of one kind that are looked at in one archive: a zip without zip64 cannot list more.
const RECORDS_MAX: usize = 65_536;
/// Ends of central directories that are looked at, from the last one backwards. Real archives have one.
const ENDS_MAX: usize = 16;

/// The method of the data as it is.
pub(super) const STORED: u16 = 0;
/// Deflate.
pub(super) const DEFLATED: u16 = 8;
/// Encrypted with AES; the real method is in an extra field.
const AES: u16 = 99;

/// What a header says of an entry, and what need not be true.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Header {
    pub(super) method: u16,
    pub(super) encrypted: bool,
    /// Compressed size in bytes; none if it stands elsewhere.
    pub(super) length: Option<usize>,
    /// CRC-32 of the content; none if it stands behind the data.
    pub(super) sum: Option<u32>,
    pub(super) name: String,
}

/// A local header and where its data is.
#[derive(Clone, Debug)]
pub(super) struct Local {
    /// Where the data starts.
    pub(super) data: usize,
    pub(super) header: Header,
}

/// Everything in some bytes that looks like a part of an archive.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// Offsets of local headers, ascending.
    pub(super) locals: Vec<usize>,
    /// Offsets of ends of central directories, ascending.
    pub(super) ends: Vec<usize>,
    /// There were more than are looked at.
    pub(super) more: bool,
}

/// Whether bytes have an archive in them anywhere.
pub(super) fn is_in(bytes: &[u8]) -> bool {
    memmem::find_iter(bytes, LOCAL).any(|at| is_likely(bytes, at))
        || memmem::rfind(bytes, END)
            .is_some_and(|at| directory(bytes, at).is_some_and(|listed| !listed.is_empty()))
}

/// Looks for archives anywhere in some bytes: something may stand before them, as in self-extracting ones.
pub(super) fn find(bytes: &[u8]) -> Found {
    let mut found = Found::default();
    for at in memmem::find_iter(bytes, b"PK") {
        let here = bytes.get(at..).unwrap_or_default();
        if here.starts_with(LOCAL) && is_likely(bytes, at) {
            if found.locals.len() == RECORDS_MAX {
                found.more = true;
                break;
            }
            found.locals.push(at);
        } else if here.starts_with(END) {
            if found.ends.len() == ENDS_MAX {
                found.ends.remove(0);
            }
            found.ends.push(at);
        }
    }
    found
}

/// What stands at an offset as a local header (4.3.7), whatever it says.
pub(super) fn local(bytes: &[u8], at: usize) -> Option<Local> {
    let record = bytes.get(at..)?;
    if !record.starts_with(LOCAL) {
        return None;
    }
    let (flags, method) = (u16_at(record, 6)?, u16_at(record, 8)?);
    let (name, extra) = (usize::from(u16_at(record, 26)?), usize::from(u16_at(record, 28)?));
    let name_bytes = record.get(LOCAL_BYTES..LOCAL_BYTES + name)?;
    // What stands behind the data (bit 3) is zero here.
    let length = u32_at(record, 18)?;
    let (length, sum) = match (flags & 8 != 0, length, u32_at(record, 14)?) {
        (true, 0, 0) => (None, None),
        (_, length, sum) => (known(length), Some(sum)),
    };
    let data = at + LOCAL_BYTES + name + extra;
    (data <= bytes.len())
        .then(|| Local { data, header: header((flags, method), length, sum, name_bytes) })
}

/// Whether a local header that nothing points to can be one, going by the methods there are (4.4.5).
fn is_likely(bytes: &[u8], at: usize) -> bool {
    let method = local(bytes, at).map(|local| local.header.method);
    method.is_some_and(|method| method <= 20 || (93..=99).contains(&method))
}

/// The entries that the central directory with its end at an offset lists, with the offsets of their local headers.
/// None if there is no directory where the end says.
pub(super) fn directory(bytes: &[u8], end: usize) -> Option<Vec<(usize, Header)>> {
    let record = bytes.get(end..)?;
    let (mut size, mut offset) = (u64::from(u32_at(record, 12)?), u64::from(u32_at(record, 16)?));
    let mut after = end;
    if let Some(at) = end.checked_sub(LOCATOR_64_BYTES)
        && bytes.get(at..)?.starts_with(LOCATOR_64)
        && let Some(at) = at.checked_sub(END_64_BYTES)
        && let Some(record) = bytes.get(at..).filter(|record| record.starts_with(END_64))
    {
        (size, offset, after) = (u64_at(record, 40)?, u64_at(record, 48)?, at);
    }
    let (size, offset) = (usize::try_from(size).ok()?, usize::try_from(offset).ok()?);
    let is_empty = size == 0 && after == end && u16_at(record, 10)? == 0;
    if is_empty {
        return Some(Vec::new());
    }
    // The directory stands before its end; what its offset lacks stands before the archive.
    let starts = [after.checked_sub(size), Some(offset)];
    let start = starts.into_iter().flatten().find(|start| is_listed(bytes, *start))?;
    let base = start.saturating_sub(offset);
    let mut listed = Vec::new();
    let mut at = start;
    while is_listed(bytes, at) && listed.len() < RECORDS_MAX {
        let record = bytes.get(at..)?;
        let field = |offset| u16_at(record, offset).map(usize::from);
        let (name, extra, comment) = (field(28)?, field(30)?, field(32)?);
        let name_bytes = record.get(LISTED_BYTES..LISTED_BYTES + name)?;
        let length = known(u32_at(record, 20)?);
        let how = (u16_at(record, 8)?, u16_at(record, 10)?);
        let header = header(how, length, u32_at(record, 16), name_bytes);
        // An offset in a zip64 field is left to the search for local headers.
        if let Some(offset) = known(u32_at(record, 42)?) {
            listed.push((base + offset, header));
        }
        at += LISTED_BYTES + name + extra + comment;
    }
    Some(listed)
}

fn is_listed(bytes: &[u8], at: usize) -> bool {
    bytes.get(at..).is_some_and(|record| record.starts_with(LISTED))
}

/// Where the data of a stored entry ends whose size nobody says: at the next record.
pub(super) fn next_record(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    memmem::find_iter(rest, b"PK")
        .find(|at| {
            let kind = rest.get(at + 2..at + 4).unwrap_or_default();
            matches!(kind, b"\x01\x02" | b"\x03\x04" | b"\x05\x06" | b"\x07\x08")
        })
        .map_or(bytes.len(), |at| from + at)
}

fn header(
    (flags, method): (u16, u16),
    length: Option<usize>,
    sum: Option<u32>,
    name: &[u8],
) -> Header {
    Header {
        method,
        encrypted: flags & 1 != 0 || method == AES,
        length,
        sum,
        name: String::from_utf8_lossy(name).into_owned(),
    }
}

/// A 32-bit value, unless it only says that the real one stands in a zip64 field.
fn known(value: u32) -> Option<usize> {
    (value != u32::MAX).then(|| usize::try_from(value).ok()).flatten()
}

fn bytes_at<const N: usize>(record: &[u8], at: usize) -> Option<[u8; N]> {
    record.get(at..)?.first_chunk::<N>().copied()
}

fn u16_at(record: &[u8], at: usize) -> Option<u16> {
    bytes_at(record, at).map(u16::from_le_bytes)
}

fn u32_at(record: &[u8], at: usize) -> Option<u32> {
    bytes_at(record, at).map(u32::from_le_bytes)
}

fn u64_at(record: &[u8], at: usize) -> Option<u64> {
    bytes_at(record, at).map(u64::from_le_bytes)
}

/// What of an archive has been read as some entry's data.
#[derive(Debug, Default)]
pub(super) struct Covered(BTreeMap<usize, usize>);

impl Covered {
    pub(super) fn add(&mut self, range: Range<usize>) {
        let end = self.0.entry(range.start).or_default();
        *end = range.end.max(*end);
    }

    /// Whether an offset lies in a range. May say no for ranges that overlap, which only
    /// means looking twice.
    pub(super) fn contains(&self, at: usize) -> bool {
        self.0.range(..=at).next_back().is_some_and(|(_, end)| *end > at)
    }
}

//! Uuencoded files in the middle of text: how attachments travelled before MIME, and many readers still show them.

use std::ops::Range;

use memchr::memmem;

use crate::{decode::base64, slice};

/// A file found in a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UuBlock {
    /// The name on its `begin` line.
    pub name: String,
    /// Where it stands, from `begin` to the end of its `end` line.
    pub range: Range<usize>,
    /// The decoded bytes.
    pub bytes: Vec<u8>,
    /// False if there was more than `bytes_max`, or no end.
    pub whole: bool,
}

/// The next uuencoded file at or after offset `from`, decoded to at most `bytes_max` bytes.
///
/// Reads `begin 644 name` and `begin-base64 644 name`, with any line ends and lines of wrong lengths.
pub fn uuencode(text: &[u8], from: usize, bytes_max: usize) -> Option<UuBlock> {
    let mut at = from;
    loop {
        let start = at + memmem::find(text.get(at..)?, b"begin")?;
        at = start + b"begin".len();
        if start > 0 && !matches!(text.get(start - 1), Some(b'\n' | b'\r')) {
            continue;
        }
        let (line, body) = next_line(text, start);
        if let Some((name, is_base64)) = begin_line(line) {
            let mut block =
                UuBlock { name, range: start..text.len(), bytes: Vec::new(), whole: false };
            if is_base64 {
                read_base64(text, body, bytes_max, &mut block);
            } else {
                read_lines(text, body, bytes_max, &mut block);
            }
            return Some(block);
        }
    }
}

/// The name on a `begin` line, and whether its lines are base64.
fn begin_line(line: &[u8]) -> Option<(String, bool)> {
    let rest = line.strip_prefix(b"begin")?;
    let (rest, is_base64) = match rest.strip_prefix(b"-base64") {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let rest = rest.strip_prefix(b" ")?.trim_ascii();
    let digits = rest.iter().take_while(|byte| matches!(byte, b'0'..=b'7')).count();
    let (_, name) = rest.split_at_checked(digits)?;
    (3..=6)
        .contains(&digits)
        .then(|| (String::from_utf8_lossy(name.trim_ascii()).into_owned(), is_base64))
}

/// A line without its end, and where the next one starts. CRLF, LF and CR all end one.
fn next_line(text: &[u8], at: usize) -> (&[u8], usize) {
    let rest = slice(text, at..text.len());
    let Some(end) = memchr::memchr2(b'\r', b'\n', rest) else { return (rest, text.len()) };
    let length = if slice(rest, end..rest.len()).starts_with(b"\r\n") { 2 } else { 1 };
    (slice(rest, 0..end), at + end + length)
}

fn read_lines(text: &[u8], mut at: usize, bytes_max: usize, block: &mut UuBlock) {
    while at < text.len() {
        let (line, next) = next_line(text, at);
        if line == b"end" {
            block.range.end = next;
            block.whole = true;
            return;
        }
        // What cannot be a data line ends a block that lacks its end.
        let Some((count, digits)) = line.split_first() else {
            at = next;
            continue;
        };
        if !matches!(count, b' '..=b'`') {
            block.range.end = at;
            return;
        }
        let count = usize::from(digit(*count));
        let groups = digits.chunks(4).flat_map(|group| {
            let mut value = 0_u32;
            for index in 0..4 {
                value = value << 6 | u32::from(group.get(index).map_or(0, |byte| digit(*byte)));
            }
            value.to_be_bytes().into_iter().skip(1)
        });
        for byte in groups.take(count) {
            if block.bytes.len() == bytes_max {
                return;
            }
            block.bytes.push(byte);
        }
        at = next;
    }
}

fn digit(byte: u8) -> u8 {
    byte.wrapping_sub(b' ') & 0x3f
}

fn read_base64(text: &[u8], body: usize, bytes_max: usize, block: &mut UuBlock) {
    let rest = slice(text, body..text.len());
    let end = memmem::find(rest, b"====");
    let decoded = base64(slice(rest, 0..end.unwrap_or(rest.len())), bytes_max);
    block.range.end = end.map_or(text.len(), |end| body + end + 4);
    block.whole = decoded.whole && end.is_some();
    block.bytes = decoded.bytes;
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_in_text_is_found_and_decoded() {
        for end in ["\r\n", "\n", "\r"] {
            let text = "hello\n\nbegin 644 cat.txt\n#0V%T\n`\nend\nbye\n".replace('\n', end);
            let block = uuencode(text.as_bytes(), 0, 100).unwrap();
            assert_eq!((block.name.as_str(), &*block.bytes), ("cat.txt", &b"Cat"[..]));
            assert!(block.whole);
            assert_eq!(text.get(block.range.end..).unwrap(), format!("bye{end}"));
            assert_eq!(uuencode(text.as_bytes(), block.range.end, 100), None);
        }
    }

    #[test]
    fn base64_blocks_and_open_ends() {
        let block = uuencode(b"begin-base64 600 a b\nQ2F0\n====\n", 0, 100).unwrap();
        assert_eq!((block.name.as_str(), &*block.bytes, block.whole), ("a b", &b"Cat"[..], true));
        let block = uuencode(b"begin 644 x\n#0V%T", 0, 100).unwrap();
        assert_eq!((&*block.bytes, block.whole), (&b"Cat"[..], false));
        let block = uuencode(b"begin 644 x\n#0V%T\nend", 0, 2).unwrap();
        assert_eq!((&*block.bytes, block.whole), (&b"Ca"[..], false));
    }

    #[test]
    fn prose_is_no_block() {
        assert_eq!(uuencode(b"begin at the beginning\nbegin 12 x\n begin 644 x\n", 0, 9), None);
    }

    proptest! {
        #[test]
        fn garbage_is_survived(lines in proptest::collection::vec("(begin 644 x|end|[ -`]{0,70}|.{0,9})", 0..20)) {
            let text = lines.join("\n");
            let mut at = 0;
            while let Some(block) = uuencode(text.as_bytes(), at, 50) {
                prop_assert!(block.bytes.len() <= 50);
                prop_assert!(block.range.end > at);
                at = block.range.end;
            }
        }
    }
}

//! The mail of the benches: of a given size, and no two alike. clamd remembers what was clean, so a repeated message
//! would be scanned three to five times as fast; every text part and the attachment are therefore unique.

use std::sync::atomic::{AtomicU64, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Stands in the template wherever a letter is unique: as long as a mark, and valid base64 of 12 bytes.
const MARK: &str = "QQTOKENQQTOKENQQ";
/// Up to this size a letter is text alone; above it most is an attachment.
const TEXT_BYTES_MAX: usize = 20_000;
/// The text of a letter with an attachment.
const ALTERNATIVE_BYTES: usize = 4_000;
/// Digits of the number in a mark, behind six of salt.
const NUMBER_DIGITS: usize = 10;
/// Begins the field that holds the mark, by which the drain knows a letter again.
pub(super) const FIELD: &str = "X-Bench: ";

const WORDS: &[&str] = &[
    "invoice", "meeting", "please", "find", "attached", "the", "report", "for", "quarter", "and",
    "let", "me", "know", "whether", "any", "changes", "are", "needed", "before", "friday",
    "thanks", "regards", "delivery", "schedule",
];

/// Makes letters of one size. A letter has CRLF line ends and no dot at the start of a line, so that it travels as it
/// stands.
pub(super) struct Letters {
    pieces: Vec<Vec<u8>>,
    salt: String,
    next: AtomicU64,
}

impl Letters {
    /// Letters of about this size, in bytes.
    pub(super) fn of(size: usize) -> Self {
        let template = template(size);
        let pieces = template.split(MARK).map(|piece| piece.as_bytes().to_vec()).collect();
        // Differs from run to run, since a clamd may outlive one.
        Self { pieces, salt: format!("{:06x}", fastrand::u32(..1 << 24)), next: AtomicU64::new(0) }
    }

    /// The exact size of each, in bytes.
    pub(super) fn size(&self) -> usize {
        self.pieces.iter().map(Vec::len).sum::<usize>() + (self.pieces.len() - 1) * MARK.len()
    }

    /// Writes the next one into `letter` and gives its number.
    pub(super) fn write(&self, letter: &mut Vec<u8>) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}{number:0NUMBER_DIGITS$}", self.salt);
        letter.clear();
        for (place, piece) in self.pieces.iter().enumerate() {
            if place > 0 {
                letter.extend_from_slice(mark.as_bytes());
            }
            letter.extend_from_slice(piece);
        }
        number
    }

    /// The number in a letter whose header block begins in `bytes`.
    pub(super) fn number(bytes: &[u8]) -> Option<u64> {
        let at = bytes.windows(FIELD.len()).position(|window| window == FIELD.as_bytes())?;
        let mark = bytes.get(at + FIELD.len()..at + FIELD.len() + MARK.len())?;
        std::str::from_utf8(mark.get(MARK.len() - NUMBER_DIGITS..)?).ok()?.parse().ok()
    }
}

fn template(size: usize) -> String {
    let mut random = fastrand::Rng::with_seed(1);
    let head = format!(
        "{FIELD}{MARK}\r\nReceived: from client.example (client.example [192.0.2.7]) by mx.example with ESMTP id {MARK}\r\n\
         \tfor <somebody@recipient.example>; Fri, 20 Nov 2026 10:00:00 +0000\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\
         From: Bench <bench@sender.example>\r\nTo: <somebody@recipient.example>\r\nMessage-ID: <{MARK}@sender.example>\r\n\
         Subject: quarterly report {MARK}\r\nMIME-Version: 1.0\r\n"
    );
    let text_bytes = if size < TEXT_BYTES_MAX { size } else { ALTERNATIVE_BYTES };
    let half = (text_bytes.saturating_sub(700) / 2).max(100);
    let (plain, html) = (prose(&mut random, half), prose(&mut random, half));
    let alternative = format!(
        "--B0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{MARK}\r\n{plain}\r\n\
         --B0\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>{MARK}</p>\r\n<p>{html}</p></body></html>\r\n\
         --B0--\r\n"
    );
    let kind = "Content-Type: multipart/alternative; boundary=\"B0\"\r\n\r\n";
    if size < TEXT_BYTES_MAX {
        return head + kind + &alternative;
    }
    let raw: Vec<u8> = std::iter::repeat_with(|| random.u8(..))
        .take((size - ALTERNATIVE_BYTES) * 57 / 78)
        .collect();
    let mut attachment = STANDARD.encode(raw);
    attachment.replace_range(..MARK.len(), MARK);
    let mut text = head
        + "Content-Type: multipart/mixed; boundary=\"B1\"\r\n\r\n--B1\r\n"
        + kind
        + &alternative
        + "--B1\r\nContent-Type: application/octet-stream; name=\"data.bin\"\r\nContent-Transfer-Encoding: base64\r\n\
           Content-Disposition: attachment; filename=\"data.bin\"\r\n\r\n";
    let mut rest = attachment.as_str();
    while !rest.is_empty() {
        let (line, tail) = rest.split_at(rest.len().min(76));
        text.push_str(line);
        text.push_str("\r\n");
        rest = tail;
    }
    text + "--B1--\r\n"
}

/// Words in lines of about 70 characters.
fn prose(random: &mut fastrand::Rng, bytes: usize) -> String {
    let (mut text, mut line) = (String::with_capacity(bytes + 80), 0);
    while text.len() < bytes {
        let word = WORDS[random.usize(..WORDS.len())];
        let end = if line > 60 { "\r\n" } else { " " };
        line = if line > 60 { 0 } else { line + word.len() + 1 };
        text.push_str(word);
        text.push_str(end);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_have_their_size_and_are_unlike_each_other() {
        for size in [5_000, 100_000, 5_000_000] {
            let letters = Letters::of(size);
            assert!(
                letters.size().abs_diff(size) * 20 < size,
                "{} instead of {size}",
                letters.size()
            );
            let (mut one, mut other) = (Vec::new(), Vec::new());
            assert_eq!((letters.write(&mut one), letters.write(&mut other)), (0, 1));
            assert_eq!((one.len(), Letters::number(&one)), (letters.size(), Some(0)));
            assert_eq!(Letters::number(&other), Some(1));
            assert!(
                one != other && !one.windows(3).any(|three| three == b"\r\n." || three == b"\n\n.")
            );
            assert!(!one.windows(MARK.len()).any(|window| window == MARK.as_bytes()));
        }
    }
}

//! The mail that the demo sends: made up from a seed, the same every time, and no two messages alike.

use std::io::{Cursor, Write as _};

use anyhow::{Context, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fastrand::Rng;
use zip::write::SimpleFileOptions;

use super::own::OwnMail;

/// The field that the source puts on top of every message, so that the sink knows which one it has before it and
/// where the sender's bytes begin.
pub const ID_FIELD: &str = "X-Demo-Id";
/// Every how many-th message is infected.
const INFECTED_EVERY: usize = 9;
/// Smallest and largest attachment, in bytes before base64.
const ATTACHMENT_BYTES: (f64, f64) = (1024.0, 2.0 * 1024.0 * 1024.0);

/// One message as the source sends it.
#[derive(Clone, Debug)]
pub struct Letter {
    pub id: String,
    pub sender: String,
    pub recipients: Vec<String>,
    /// Whether it carries the EICAR test string in some wrapping.
    pub infected: bool,
    /// The message, with CRLF line ends and nothing after the last one.
    pub bytes: Vec<u8>,
}

/// Where the letters come from. A letter is made when it is sent, so memory does not grow with their number.
#[derive(Debug)]
pub struct Mail {
    seed: u64,
    count: usize,
    own: Option<OwnMail>,
}

impl Mail {
    /// `count` made-up letters; the same seed gives the same bytes.
    pub fn generated(seed: u64, count: usize) -> Self {
        Self { seed, count, own: None }
    }

    /// One's own mail instead of the made-up clean letters, over and over until `count` have been sent. The
    /// infected ones stay.
    pub fn with_own(seed: u64, count: usize, own: OwnMail) -> Self {
        Self { seed, count, own: Some(own) }
    }

    /// How many letters there are.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The letter of this number.
    ///
    /// # Errors
    /// Where one's own mail can no longer be read.
    pub fn letter(&self, number: usize) -> Result<Letter> {
        let salt = u64::try_from(number)?.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut pen =
            Pen { rng: Rng::with_seed(self.seed ^ salt), id: format!("demo-{number:06}") };
        let infected = number % INFECTED_EVERY == INFECTED_EVERY / 2;
        let recipients = pen.recipients();
        let message = match &self.own {
            _ if infected => pen.infected(number / INFECTED_EVERY)?,
            Some(own) => own.message(number)?,
            None => pen.clean(),
        };
        let mut bytes = format!("{ID_FIELD}: {}\r\n", pen.id).into_bytes();
        bytes.extend_from_slice(&message);
        let sender = format!("{}@sender.example", pen.word());
        Ok(Letter { id: pen.id, sender, recipients, infected, bytes })
    }
}

/// The EICAR test string. Its halves are kept apart, and one of them backwards, so that neither this file nor the
/// binary is taken for infected itself.
pub fn eicar() -> String {
    let back = "*H+H$!ELIF-TSET-SURIVITNA-DRAD";
    let back: String = back.chars().rev().collect();
    format!("{}{back}", r"X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STAN")
}

/// A zip archive with one deflated file.
///
/// # Errors
/// Never in practice: it is written to memory.
pub fn zipped(name: &str, content: &[u8]) -> Result<Vec<u8>> {
    let mut archive = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    archive.start_file(name, options).context("write a zip archive")?;
    archive.write_all(content).context("write a zip archive")?;
    Ok(archive.finish().context("write a zip archive")?.into_inner())
}

const WORDS: &[&str] = &[
    "account", "agenda", "attached", "before", "budget", "changes", "customer", "delivery",
    "draft", "estimate", "figures", "friday", "harbour", "invoice", "kindly", "ledger", "meeting",
    "monday", "notes", "office", "order", "please", "project", "quarter", "question", "receipt",
    "regards", "report", "review", "schedule", "shipment", "signed", "summary", "team", "thanks",
    "version",
];
const FOREIGN: &[&str] =
    &["Überweisung", "reçu", "żółty", "накладная", "請求書", "факту́ра", "çağrı"];

/// Writes one letter from its own random numbers.
struct Pen {
    rng: Rng,
    id: String,
}

impl Pen {
    fn clean(&mut self) -> Vec<u8> {
        match self.rng.u8(0..100) {
            0..=34 => self.plain(),
            35..=59 => self.alternative(),
            60..=77 => self.with_attachment(),
            78..=87 => self.nested(),
            88..=93 => self.utf8_header(),
            _ => self.latin1_header(),
        }
    }

    fn infected(&mut self, wrapping: usize) -> Result<Vec<u8>> {
        let virus = eicar();
        Ok(match wrapping % 4 {
            0 => {
                let head = self.head("text/plain; charset=us-ascii", "");
                format!("{head}\r\n{}\r\n{virus}\r\n", self.text(200)).into_bytes()
            }
            1 => self.mixed("application/octet-stream", "eicar.com", virus.as_bytes()),
            2 => {
                let archive = zipped("eicar.com", virus.as_bytes())?;
                self.mixed("application/zip", "invoice.zip", &archive)
            }
            _ => {
                let inner = self.mixed("application/octet-stream", "eicar.com", virus.as_bytes());
                self.forwarded(&inner)
            }
        })
    }

    fn plain(&mut self) -> Vec<u8> {
        let head = self.head("text/plain; charset=us-ascii", "");
        let length = self.rng.usize(200..8_000);
        // A line that begins with a dot has to be doubled on the wire and must come out single.
        format!("{head}\r\n{}\r\n.\r\n.. and so on\r\n", self.text(length)).into_bytes()
    }

    fn alternative(&mut self) -> Vec<u8> {
        let boundary = self.boundary();
        let kind = format!("multipart/alternative;\r\n\tboundary=\"{boundary}\"");
        let head = self.head(&kind, "");
        let length = self.rng.usize(400..6_000);
        let text = self.text(length);
        format!(
            "{head}\r\n--{boundary}\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n\
             --{boundary}\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html><body><p>{text}</p></body></html>\r\n\
             --{boundary}--\r\n"
        )
        .into_bytes()
    }

    fn with_attachment(&mut self) -> Vec<u8> {
        let (small, large) = ATTACHMENT_BYTES;
        // Evenly over the orders of magnitude, as sizes of real attachments roughly are.
        let length = small * (large / small).powf(self.rng.f64());
        let words = format!("{length:.0}").parse().unwrap_or(1024_usize) / 8;
        let content: Vec<u8> = (0..words).flat_map(|_| self.rng.u64(..).to_le_bytes()).collect();
        let name = format!("{}-{}.bin", self.word(), self.id);
        self.mixed("application/octet-stream", &name, &content)
    }

    fn nested(&mut self) -> Vec<u8> {
        let inner = if self.rng.bool() { self.alternative() } else { self.plain() };
        self.forwarded(&inner)
    }

    fn utf8_header(&mut self) -> Vec<u8> {
        let subject = self.foreign();
        let head = self.head("text/plain; charset=utf-8", &format!(" {subject}"));
        let transfer = "Content-Transfer-Encoding: 8bit";
        format!("{head}{transfer}\r\n\r\n{subject}\r\n{}\r\n", self.text(600)).into_bytes()
    }

    /// Raw ISO 8859-1 in a header: forbidden, and seen every day.
    fn latin1_header(&mut self) -> Vec<u8> {
        let head = self.head("text/plain; charset=iso-8859-1", "");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(
            b"X-Comment: gr\xfc\xdfe aus K\xf6ln\r\n\r\n\xc4rger \xfc\xdf\xf6\r\n",
        );
        bytes.extend_from_slice(self.text(500).as_bytes());
        bytes.extend_from_slice(b"\r\n");
        bytes
    }

    fn mixed(&mut self, kind: &str, name: &str, content: &[u8]) -> Vec<u8> {
        let boundary = self.boundary();
        let head = self.head(&format!("multipart/mixed; boundary=\"{boundary}\""), "");
        let text = self.text(300);
        let mut message = format!(
            "{head}\r\n--{boundary}\r\nContent-Type: text/plain\r\n\r\n{text}\r\n--{boundary}\r\n\
             Content-Type: {kind}; name=\"{name}\"\r\nContent-Transfer-Encoding: base64\r\n\
             Content-Disposition: attachment; filename=\"{name}\"\r\n\r\n"
        );
        // 57 bytes give the customary line of 76 characters.
        for line in content.chunks(57) {
            STANDARD.encode_string(line, &mut message);
            message.push_str("\r\n");
        }
        message.push_str(&format!("--{boundary}--\r\n"));
        message.into_bytes()
    }

    fn forwarded(&mut self, inner: &[u8]) -> Vec<u8> {
        let boundary = self.boundary();
        let head = self.head(&format!("multipart/mixed; boundary={boundary}"), " (forwarded)");
        let text = self.text(150);
        let mut message = format!(
            "{head}\r\n--{boundary}\r\n\r\n{text}\r\n--{boundary}\r\nContent-Type: message/rfc822\r\n\r\n"
        )
        .into_bytes();
        message.extend_from_slice(inner);
        message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
        message
    }

    /// The header block without the empty line.
    fn head(&mut self, kind: &str, subject_end: &str) -> String {
        let (from, to, subject) = (self.word(), self.word(), self.word());
        let (hour, minute, second) = (self.rng.u8(0..24), self.rng.u8(0..60), self.rng.u8(0..60));
        let stamp = format!("Fri, 20 Nov 2026 {hour:02}:{minute:02}:{second:02} +0000");
        let unique = self.rng.u64(..);
        format!(
            "Received: from mail.sender.example (mail.sender.example [192.0.2.7])\r\n\tby mx.example with ESMTPS id \
             {unique:016x};\r\n\t{stamp}\r\nDate: {stamp}\r\nFrom: {from} <{from}@sender.example>\r\n\
             To: <{to}@recipient.example>\r\nMessage-ID: <{}.{unique:016x}@sender.example>\r\n\
             Subject: {subject} {unique:08x}{subject_end}\r\nMIME-Version: 1.0\r\nContent-Type: {kind}\r\n",
            self.id
        )
    }

    fn recipients(&mut self) -> Vec<String> {
        let count = if self.rng.u8(0..5) == 0 { self.rng.usize(2..8) } else { 1 };
        (0..count).map(|n| format!("{}{n}@recipient.example", self.word())).collect()
    }

    /// About `length` characters in lines of some 70.
    fn text(&mut self, length: usize) -> String {
        let mut text = String::with_capacity(length + 80);
        let mut column = 0;
        while text.len() < length {
            let word = self.word();
            text.push_str(word);
            column += word.len() + 1;
            text.push_str(if column > 70 { "\r\n" } else { " " });
            column = if column > 70 { 0 } else { column };
        }
        text
    }

    fn boundary(&mut self) -> String {
        format!("=_{:016x}", self.rng.u64(..))
    }

    fn word(&mut self) -> &'static str {
        self.rng.choice(WORDS).copied().unwrap_or("word")
    }

    fn foreign(&mut self) -> &'static str {
        self.rng.choice(FOREIGN).copied().unwrap_or("Wort")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_letters_and_no_two_are_alike() {
        let (one, two) = (Mail::generated(7, 200), Mail::generated(7, 200));
        let mut seen = HashSet::new();
        for number in 0..one.count() {
            let letter = one.letter(number).unwrap();
            assert_eq!(letter.bytes, two.letter(number).unwrap().bytes);
            assert!(seen.insert(letter.bytes));
        }
    }

    #[test]
    fn line_ends_are_crlf_and_a_good_part_is_infected() {
        let mail = Mail::generated(1, 300);
        let letters: Vec<_> = (0..300).map(|number| mail.letter(number).unwrap()).collect();
        for letter in &letters {
            let text = &letter.bytes;
            assert!(text.ends_with(b"\r\n"), "{}", letter.id);
            let lone = text.iter().enumerate().any(|(at, byte)| match byte {
                b'\n' => at == 0 || text.get(at - 1) != Some(&b'\r'),
                b'\r' => text.get(at + 1) != Some(&b'\n'),
                _ => false,
            });
            assert!(!lone, "{} has a stray CR or LF", letter.id);
        }
        assert!(letters.iter().filter(|letter| letter.infected).count() >= 30);
        assert!(letters.iter().any(|letter| letter.recipients.len() > 1));
        assert!(letters.iter().any(|letter| letter.bytes.len() > 1_000_000));
    }

    #[test]
    fn the_test_string_is_whole() {
        assert_eq!(eicar().len(), 68);
        assert!(eicar().ends_with("TEST-FILE!$H+H*"));
    }
}

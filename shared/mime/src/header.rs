//! The fields of a header block that say what a part is.

use crate::parameter::{Value, without_comments};

/// Bytes kept of one field's value. Longer ones exist only to be hostile, and their parameters come early.
const FIELD_BYTES_MAX: usize = 64 * 1024;
/// Fields of one name kept in one header block; of more, the first ones and the last.
const FIELDS_MAX: usize = 8;
/// How far [`looks_like_message`] looks.
const SNIFF_BYTES_MAX: usize = 64 * 1024;

/// How a part's content has been encoded (RFC 2045, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// 7bit, 8bit and binary: it stands there as it is.
    Identity,
    /// See [`crate::base64`].
    Base64,
    /// See [`crate::quoted_printable`].
    QuotedPrintable,
}

/// What a line of a header block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineKind {
    Field,
    Continuation,
    /// White space only: a continuation to some readers, the end of the block to others.
    White,
    Blank,
    Other,
}

/// The kind of a line, given without its line end.
pub(crate) fn line_kind(line: &[u8]) -> LineKind {
    match line.first() {
        None => LineKind::Blank,
        Some(b' ' | b'\t') if line.trim_ascii().is_empty() => LineKind::White,
        Some(b' ' | b'\t') => LineKind::Continuation,
        Some(_) if field(line).is_some() => LineKind::Field,
        Some(_) => LineKind::Other,
    }
}

/// Name and value of a field's first line; white space before the colon is old (RFC 5322, 4.5) and allowed.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| !matches!(byte, b'!'..=b'9' | b';'..=b'~'))?;
    let (name, mut rest) = line.split_at(colon);
    rest = rest.trim_ascii_start();
    let value = rest.strip_prefix(b":")?;
    (!name.is_empty()).then_some((name, value))
}

/// Collects the fields of interest, line by line.
#[derive(Debug, Default)]
pub(crate) struct Fields {
    types: Vec<Vec<u8>>,
    encodings: Vec<Vec<u8>>,
    dispositions: Vec<Vec<u8>>,
    current: Option<Name>,
}

#[derive(Clone, Copy, Debug)]
enum Name {
    Type,
    Encoding,
    Disposition,
}

impl Fields {
    /// Takes the next line of the block, without its line end.
    pub(crate) fn push(&mut self, line: &[u8], kind: LineKind) {
        match kind {
            LineKind::Field => {
                let Some((name, value)) = field(line) else { return };
                self.current = Name::of(name);
                if let Some(name) = self.current {
                    let list = self.list(name);
                    if list.len() == FIELDS_MAX {
                        list.pop();
                    }
                    list.push(value.get(..FIELD_BYTES_MAX).unwrap_or(value).to_vec());
                }
            }
            LineKind::Continuation => {
                if let Some(name) = self.current
                    && let Some(value) = self.list(name).last_mut()
                    && value.len() + line.len() <= FIELD_BYTES_MAX
                {
                    value.extend_from_slice(line);
                }
            }
            LineKind::White | LineKind::Blank => {}
            LineKind::Other => self.current = None,
        }
    }

    fn list(&mut self, name: Name) -> &mut Vec<Vec<u8>> {
        match name {
            Name::Type => &mut self.types,
            Name::Encoding => &mut self.encodings,
            Name::Disposition => &mut self.dispositions,
        }
    }

    /// The Content-Type fields in order.
    pub(crate) fn types(&self) -> Vec<Value> {
        self.types.iter().map(|value| Value::parse(value)).collect()
    }

    /// Every encoding that a reader might assume, without doubles; never empty.
    pub(crate) fn encodings(&self) -> Vec<Encoding> {
        let mut found = Vec::new();
        for value in &self.encodings {
            for encoding in encodings_of(value) {
                if !found.contains(encoding) {
                    found.push(*encoding);
                }
            }
        }
        if found.is_empty() {
            found.push(Encoding::Identity);
        }
        found
    }

    /// The name that the sender gave the part, as he wrote it.
    pub(crate) fn file_name(&self, types: &[Value]) -> Option<String> {
        let dispositions = self.dispositions.iter().map(|value| Value::parse(value));
        let mut names = dispositions.flat_map(|value| value.candidates("filename"));
        let name = names.next().or_else(|| types.iter().flat_map(|t| t.candidates("name")).next());
        name.filter(|name| !name.is_empty()).map(|name| String::from_utf8_lossy(&name).into_owned())
    }
}

impl Name {
    fn of(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"content-type") {
            Some(Self::Type)
        } else if name.eq_ignore_ascii_case(b"content-transfer-encoding") {
            Some(Self::Encoding)
        } else if name.eq_ignore_ascii_case(b"content-disposition") {
            Some(Self::Disposition)
        } else {
            None
        }
    }
}

/// What one Content-Transfer-Encoding may mean: junk beside a known name leaves it open whether a reader sees it.
fn encodings_of(value: &[u8]) -> &'static [Encoding] {
    let value = without_comments(value);
    let value = String::from_utf8_lossy(&value).trim().to_ascii_lowercase();
    match value.as_str() {
        "" | "7bit" | "8bit" | "binary" => &[Encoding::Identity],
        "base64" => &[Encoding::Base64],
        "quoted-printable" => &[Encoding::QuotedPrintable],
        // Identity is enough: uuencoded blocks are looked for in every text.
        "x-uuencode" | "x-uue" | "uuencode" => &[Encoding::Identity],
        junk if junk.contains("64") => &[Encoding::Base64, Encoding::Identity],
        junk if junk.contains("quot") || junk.contains("print") => {
            &[Encoding::QuotedPrintable, Encoding::Identity]
        }
        junk if junk.contains("bit") => &[Encoding::Identity],
        _ => &[Encoding::Identity, Encoding::Base64, Encoding::QuotedPrintable],
    }
}

/// Whether bytes of unknown origin start like a message with MIME fields, or like one that has been relayed.
pub fn looks_like_message(bytes: &[u8]) -> bool {
    let start = bytes.get(..SNIFF_BYTES_MAX).unwrap_or(bytes);
    let mut telling = 0;
    for (number, line) in start.split(|byte| *byte == b'\n').enumerate() {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        match line_kind(line) {
            LineKind::Field => {
                let name = field(line).map(|(name, _)| name.to_ascii_lowercase());
                match name.as_deref() {
                    Some(b"content-type" | b"mime-version" | b"content-transfer-encoding") => {
                        telling += 2;
                    }
                    Some(b"from" | b"date" | b"received" | b"return-path" | b"subject") => {
                        telling += 1;
                    }
                    _ => {}
                }
            }
            LineKind::Other if number == 0 && line.starts_with(b"From ") => {}
            LineKind::Continuation if number > 0 => {}
            _ => break,
        }
    }
    telling >= 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_lines() {
        assert_eq!(line_kind(b""), LineKind::Blank);
        assert_eq!(line_kind(b" \t"), LineKind::White);
        assert_eq!(line_kind(b" x"), LineKind::Continuation);
        assert_eq!(line_kind(b"X-A: b"), LineKind::Field);
        assert_eq!(line_kind(b"X-A :b"), LineKind::Field);
        assert_eq!(line_kind(b"A:"), LineKind::Field);
        assert_eq!(line_kind(b"not a field: x"), LineKind::Other);
        assert_eq!(line_kind(b": x"), LineKind::Other);
        assert_eq!(line_kind(b"\xef\xbb\xbfA: x"), LineKind::Other);
    }

    #[test]
    fn encodings_with_junk_leave_it_open() {
        use Encoding::{Base64, Identity, QuotedPrintable};
        assert_eq!(encodings_of(b" BASE64 "), [Base64]);
        assert_eq!(encodings_of(b"base64 (really)"), [Base64]);
        assert_eq!(encodings_of(b"base64;"), [Base64, Identity]);
        assert_eq!(encodings_of(b"x-quoted-printable"), [QuotedPrintable, Identity]);
        assert_eq!(encodings_of(b"8Bit"), [Identity]);
        assert_eq!(encodings_of(b"whatever"), [Identity, Base64, QuotedPrintable]);
    }

    #[test]
    fn the_last_of_too_many_fields_is_kept() {
        let mut fields = Fields::default();
        for number in 0..20 {
            let line = format!("Content-Type: text/x{number}");
            fields.push(line.as_bytes(), LineKind::Field);
        }
        let types = fields.types();
        assert_eq!(types.first().map(|value| value.main.as_str()), Some("text/x0"));
        assert_eq!(types.last().map(|value| value.main.as_str()), Some("text/x19"));
    }

    #[test]
    fn messages_are_told_from_other_files() {
        assert!(looks_like_message(b"From: a\r\nSubject: b\r\n\r\nhello"));
        assert!(looks_like_message(b"From x Mon\nMIME-Version: 1.0\n\n"));
        assert!(!looks_like_message(b"hello\nMIME-Version: 1.0\n\n"));
        assert!(!looks_like_message(b"Note: this\n\n"));
        assert!(!looks_like_message(b""));
    }
}

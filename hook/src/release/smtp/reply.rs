//! Replies of the next hop (RFC 5321, 4.2), bounded and fit to be shown.

use gantry_protocol::text::bounded;

/// Text kept of one reply. RFC 5321, 4.5.3.1.5 allows lines of 512; eight of them say enough.
const TEXT_BYTES_MAX: usize = 4 * 1024;
/// Bytes read for one reply before the next hop counts as mad.
const REPLY_BYTES_MAX: usize = 64 * 1024;

/// A whole reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) code: u16,
    /// What follows the code on each line.
    pub(super) lines: Vec<String>,
}

/// What is no reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum NoReply {
    #[error("a line of the next hop's is no reply")]
    Malformed,
    #[error("a reply of the next hop's has more than {REPLY_BYTES_MAX} bytes")]
    TooLong,
}

/// A reply whose last line has not come yet.
#[derive(Debug, Default)]
pub(super) struct Partial {
    code: Option<u16>,
    lines: Vec<String>,
    read: usize,
    kept: usize,
}

impl Reply {
    /// 2yz.
    pub(super) fn is_positive(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// 5yz.
    pub(super) fn is_permanent(&self) -> bool {
        (500..600).contains(&self.code)
    }

    /// The enhanced code (RFC 2034) of the first line, where it has one that fits the reply's class.
    pub(super) fn enhanced(&self) -> Option<&str> {
        let (word, _) = split_enhanced(self.lines.first()?)?;
        (word.as_bytes().first().map(|digit| u16::from(digit - b'0')) == Some(self.code / 100))
            .then_some(word)
    }

    /// The reply in one line: code, enhanced code once, and the text of all its lines.
    pub(super) fn to_line(&self) -> String {
        let enhanced = self.enhanced();
        let mut line = self.code.to_string();
        if let Some(enhanced) = enhanced {
            line.push(' ');
            line.push_str(enhanced);
        }
        for text in &self.lines {
            let rest = match split_enhanced(text) {
                Some((word, rest)) if Some(word) == enhanced => rest,
                _ => text,
            };
            if !rest.is_empty() {
                line.push(' ');
                line.push_str(rest);
            }
        }
        bounded(line)
    }
}

impl Partial {
    /// Takes the next line, with its line end; gives the reply when that was the last.
    ///
    /// # Errors
    /// A line that is none of a reply, or a reply without end.
    pub(super) fn push(&mut self, line: &[u8]) -> Result<Option<Reply>, NoReply> {
        self.read += line.len();
        if self.read > REPLY_BYTES_MAX {
            return Err(NoReply::TooLong);
        }
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let (digits, rest) = line.split_at_checked(3).ok_or(NoReply::Malformed)?;
        let code = std::str::from_utf8(digits)
            .ok()
            .filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()))
            .and_then(|digits| digits.parse().ok())
            .filter(|code| {
                (200..600).contains(code) && self.code.is_none_or(|known| known == *code)
            })
            .ok_or(NoReply::Malformed)?;
        self.code = Some(code);
        let (last, text) = match rest.split_first() {
            None => (true, rest),
            Some((b' ', text)) => (true, text),
            Some((b'-', text)) => (false, text),
            Some(_) => return Err(NoReply::Malformed),
        };
        let room = TEXT_BYTES_MAX - self.kept;
        let text = text.get(..text.len().min(room)).unwrap_or_default();
        self.kept += text.len();
        if !text.is_empty() || self.lines.is_empty() {
            self.lines.push(bounded(String::from_utf8_lossy(text)));
        }
        Ok(last.then(|| Reply { code, lines: std::mem::take(&mut self.lines) }))
    }
}

/// `2.1.5 rest`. RFC 3463, 2.
fn split_enhanced(text: &str) -> Option<(&str, &str)> {
    let (word, rest) = text.split_once(' ').unwrap_or((text, ""));
    let mut numbers = word.split('.');
    let number = |text: Option<&str>, longest: usize| {
        text.is_some_and(|text| {
            (1..=longest).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        })
    };
    let fits = number(numbers.next(), 1)
        && number(numbers.next(), 3)
        && number(numbers.next(), 3)
        && numbers.next().is_none();
    fits.then_some((word, rest))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn read(lines: &[&str]) -> Result<Option<Reply>, NoReply> {
        let mut partial = Partial::default();
        let mut found = None;
        for line in lines {
            assert_eq!(found, None);
            found = partial.push(line.as_bytes())?;
        }
        Ok(found)
    }

    #[test]
    fn lines_become_one_reply() {
        let reply =
            read(&["550-5.1.1 No such\r\n", "550-\r\n", "550 5.1.1 user\n"]).unwrap().unwrap();
        assert_eq!(reply.enhanced(), Some("5.1.1"));
        assert_eq!(reply.to_line(), "550 5.1.1 No such user");
        assert!(reply.is_permanent() && !reply.is_positive());
        assert_eq!(read(&["250\r\n"]).unwrap().unwrap().to_line(), "250");
        let plain = read(&["250 4.0.0 odd\r\n"]).unwrap().unwrap();
        assert_eq!((plain.enhanced(), plain.to_line().as_str()), (None, "250 4.0.0 odd"));
        assert_eq!(read(&["250-a\r\n"]), Ok(None));
    }

    #[test]
    fn what_is_no_reply_is_told() {
        for wrong in ["", "25", "abc\r\n", "250x\r\n", "150 x\r\n", "600 x\r\n", "2 0 x\r\n"] {
            assert_eq!(read(&[wrong]), Err(NoReply::Malformed), "{wrong:?}");
        }
        assert_eq!(read(&["250-a\r\n", "251 b\r\n"]), Err(NoReply::Malformed));
    }

    #[test]
    fn text_is_cut_and_endless_replies_end() {
        let mut partial = Partial::default();
        let line = format!("250-{}\r\n", "x".repeat(500));
        let mut taken = 0;
        while taken + line.len() <= REPLY_BYTES_MAX {
            assert_eq!(partial.push(line.as_bytes()), Ok(None));
            taken += line.len();
        }
        assert!(partial.kept <= TEXT_BYTES_MAX);
        assert_eq!(partial.push(line.as_bytes()), Err(NoReply::TooLong));
    }

    #[test]
    fn controls_and_bad_utf8_are_made_harmless() {
        let reply = Partial::default().push(b"550 a\x1b[31m\xff\rb\r\n").unwrap().unwrap();
        assert!(!reply.to_line().chars().any(char::is_control));
    }
}

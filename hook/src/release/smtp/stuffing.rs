//! Dot-stuffing on the way out (RFC 5321, 4.5.2).

use crate::dots::unchanged;
use crate::release::letter::Encoding;

/// Turns a message's bytes into what stands between 354 and the reply, in pieces of any size.
///
/// A CR or LF that stands alone leaves as CRLF, with a dot behind it stuffed: whatever a message holds, nothing in it can end the data
/// early at a next hop that takes such characters for line ends. What the intake has taken has none, so its bytes leave
/// as they are.
#[derive(Debug, Default)]
pub(super) struct Stuffing {
    state: State,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    LineStart,
    Text,
    /// Behind a CR that is not written yet.
    Cr,
}

impl Encoding for Stuffing {
    fn push(&mut self, mut message: &[u8], wire: &mut Vec<u8>) {
        while let Some((&byte, rest)) = message.split_first() {
            let (length, line_start) = match self.state {
                State::LineStart | State::Text => {
                    unchanged(message, self.state == State::LineStart)
                }
                State::Cr => (0, false),
            };
            if length > 0 {
                let (plain, tail) = message.split_at_checked(length).unwrap_or((message, &[]));
                wire.extend_from_slice(plain);
                self.state = if line_start { State::LineStart } else { State::Text };
                message = tail;
                continue;
            }
            if self.state == State::Cr {
                wire.extend_from_slice(b"\r\n");
                self.state = State::LineStart;
                if byte == b'\n' {
                    message = rest;
                }
                continue;
            }
            self.state = match byte {
                b'\r' => State::Cr,
                b'\n' => {
                    wire.extend_from_slice(b"\r\n");
                    State::LineStart
                }
                b'.' if self.state == State::LineStart => {
                    wire.extend_from_slice(b"..");
                    State::Text
                }
                _ => {
                    wire.push(byte);
                    State::Text
                }
            };
            message = rest;
        }
    }

    /// The end of the data; a last line without its CRLF gets one.
    fn finish(self, wire: &mut Vec<u8>) {
        if self.state != State::LineStart {
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(b".\r\n");
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "tests fail by panicking")]

    use proptest::prelude::*;

    use super::*;

    fn stuff(message: &[u8]) -> Vec<u8> {
        let mut stuffing = Stuffing::default();
        let mut wire = Vec::new();
        stuffing.push(message, &mut wire);
        stuffing.finish(&mut wire);
        wire
    }

    #[test]
    fn known_messages() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"", b".\r\n"),
            (b"a\r\n.\r\n..b\r\n", b"a\r\n..\r\n...b\r\n.\r\n"),
            (b".", b"..\r\n.\r\n"),
            (b"a", b"a\r\n.\r\n"),
            (b"a\n.\nb", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r.\rb\r", b"a\r\n..\r\nb\r\n.\r\n"),
            (b"a\r\r\n.b", b"a\r\n\r\n..b\r\n.\r\n"),
            (b"a\n\r.\r\n", b"a\r\n\r\n..\r\n.\r\n"),
        ];
        for (message, wire) in cases {
            assert_eq!(stuff(message), wire, "{message:?}");
        }
    }

    proptest! {
        #[test]
        fn any_reader_finds_the_end_where_it_is_and_the_same_bytes(
            message in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'x')], 0..60),
            cut in 0_usize..60,
        ) {
            let wire = stuff(&message);
            let mut stuffing = Stuffing::default();
            let mut pieces = Vec::new();
            let (first, second) = message.split_at(cut.min(message.len()));
            stuffing.push(first, &mut pieces);
            stuffing.push(second, &mut pieces);
            stuffing.finish(&mut pieces);
            prop_assert_eq!(&pieces, &wire);

            // No CR or LF stands alone, and a line with nothing but a dot is the last.
            let text = String::from_utf8_lossy(&wire).into_owned();
            let lines: Vec<&str> = text.split("\r\n").collect();
            prop_assert!(lines.iter().all(|line| !line.contains(['\r', '\n'])));
            prop_assert_eq!(lines.iter().position(|line| *line == "."), Some(lines.len() - 2));

            let clean = text.strip_suffix(".\r\n").map(|body| {
                body.split("\r\n").map(|l| l.strip_prefix('.').unwrap_or(l)).collect::<Vec<_>>().join("\r\n")
            });
            let plain = String::from_utf8_lossy(&message).replace("\r\n", "\n").replace('\r', "\n");
            let mut plain = plain.replace('\n', "\r\n");
            if !plain.is_empty() && !plain.ends_with('\n') {
                plain.push_str("\r\n");
            }
            prop_assert_eq!(clean, Some(plain));
        }
    }
}

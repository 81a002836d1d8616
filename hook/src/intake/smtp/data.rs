//! What stands between DATA's 354 and the final dot: unstuffing, the end of the data, and CR or LF that stand alone.
//!
//! Only CRLF, dot, CRLF ends the data (RFC 5321, 4.1.1.4), and only a dot behind a real CRLF is a stuffed one. A CR
//! or LF that stands alone (2.3.8 forbids it) never counts as a line's end on the way in, so no form of it (`LF . LF`,
//! `CR . CR`, `LF . CRLF`, `CRLF . LF`, `CRLF . CR CRLF`) can end a message early. When such characters are normalised,
//! each becomes a CRLF of its own *after* unstuffing: a dot behind it is content, and gets its dot at release.

use crate::dots::unchanged;

/// Takes the bytes after 354 and gives the message. Ends every line it gives with CRLF.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    state: State,
    stray: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// Behind a real CRLF, or at the start of the data.
    #[default]
    LineStart,
    /// Behind a dot at a line's start, which is not given yet.
    Dot,
    /// Behind a dot at a line's start and a CR.
    DotCr,
    Text,
    /// Behind a CR that may belong to a CRLF.
    Cr,
    Ended,
}

impl Decoder {
    /// Takes `input` up to the end of the data and appends the message's bytes to `message`: at most twice as many as
    /// it took and two more. Returns how many bytes it took; fewer than all only at the end of the data.
    pub(super) fn push(&mut self, input: &[u8], message: &mut Vec<u8>) -> usize {
        let mut taken = 0;
        while self.state != State::Ended
            && let Some(rest) = input.get(taken..)
            && let Some(&byte) = rest.first()
        {
            let (length, line_start) = match self.state {
                State::LineStart | State::Text => unchanged(rest, self.state == State::LineStart),
                State::Dot | State::DotCr | State::Cr | State::Ended => (0, false),
            };
            if length == 0 {
                self.state = self.step(byte, message);
                taken += 1;
            } else {
                message.extend_from_slice(rest.get(..length).unwrap_or_default());
                self.state = if line_start { State::LineStart } else { State::Text };
                taken += length;
            }
        }
        taken
    }

    /// Whether the data has ended.
    pub(super) fn has_ended(&self) -> bool {
        self.state == State::Ended
    }

    /// Whether a CR or LF that stood alone was seen.
    pub(super) fn saw_stray(&self) -> bool {
        self.stray
    }

    fn step(&mut self, byte: u8, message: &mut Vec<u8>) -> State {
        match (self.state, byte) {
            (State::LineStart, b'.') => State::Dot,
            (State::Dot, b'\r') => State::DotCr,
            (State::DotCr, b'\n') => State::Ended,
            (State::DotCr, _) => {
                // The dot was a stuffed one, and the CR behind it stood alone.
                self.stray_break(message);
                self.text(byte, message)
            }
            (State::Cr, b'\n') => {
                message.extend_from_slice(b"\r\n");
                State::LineStart
            }
            (State::Cr, _) => {
                self.stray_break(message);
                self.text(byte, message)
            }
            (State::LineStart | State::Dot | State::Text, _) => self.text(byte, message),
            (State::Ended, _) => State::Ended,
        }
    }

    /// A byte behind which no CR is pending.
    fn text(&mut self, byte: u8, message: &mut Vec<u8>) -> State {
        match byte {
            b'\r' => State::Cr,
            b'\n' => {
                self.stray_break(message);
                State::Text
            }
            _ => {
                message.push(byte);
                State::Text
            }
        }
    }

    fn stray_break(&mut self, message: &mut Vec<u8>) {
        self.stray = true;
        message.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    #![allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::expect_used,
        reason = "tests fail by panicking"
    )]

    use proptest::prelude::*;

    use super::*;

    /// The message, whether it ended, whether there was a stray, and what was left over.
    fn decode(input: &[u8]) -> (Vec<u8>, bool, bool, Vec<u8>) {
        let mut decoder = Decoder::default();
        let mut message = Vec::new();
        let taken = decoder.push(input, &mut message);
        (message, decoder.has_ended(), decoder.saw_stray(), input[taken..].to_vec())
    }

    #[test]
    fn plain_data_ends_at_its_dot_and_leaves_the_rest() {
        let (message, ended, stray, rest) = decode(b"a: b\r\n\r\nx\r\n..y\r\n...\r\n.\r\nQUIT\r\n");
        assert_eq!(message, b"a: b\r\n\r\nx\r\n.y\r\n..\r\n");
        assert!(ended && !stray);
        assert_eq!(rest, b"QUIT\r\n");
        assert_eq!(decode(b".\r\n"), (vec![], true, false, vec![]));
    }

    #[test]
    fn no_form_of_smuggling_ends_the_data() {
        let forms: [&[u8]; 14] = [
            b"\n.\n",
            b"\r.\r",
            b"\r\n.\n",
            b"\r\n.\r",
            b"\n.\r\n",
            b"\r.\r\n",
            b"\n.\r",
            b"\r.\n",
            b"\r\n.\r\r\n",
            b"\r\n\r.\r\n",
            b"\r\r\n.\r\r\n",
            b"\n\n.\r\n",
            b"\r\n\0.\r\n",
            b"\n\r.\r\n",
        ];
        for form in forms {
            let mut input = b"one".to_vec();
            input.extend_from_slice(form);
            input.extend_from_slice(b"MAIL FROM:<evil@example.com>\r\n.\r\n");
            let (message, ended, stray, rest) = decode(&input);
            assert!(ended && rest.is_empty(), "{form:?} ended the data early");
            assert!(stray || form.contains(&0), "{form:?} was not seen");
            assert!(message.ends_with(b"MAIL FROM:<evil@example.com>\r\n"), "{form:?}");
            assert!(!has_stray(&message), "{form:?} left a stray CR or LF in {message:?}");
        }
    }

    #[test]
    fn normalising_is_exact() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"a\nb\r\n.\r\n", b"a\r\nb\r\n"),
            (b"a\rb\r\n.\r\n", b"a\r\nb\r\n"),
            (b"a\r\r\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
            (b"a\n\r\nb\r\n.\r\n", b"a\r\n\r\nb\r\n"),
            (b"a\n.\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
            (b"a\n..b\r\n.\r\n", b"a\r\n..b\r\n"),
            (b"a\r\n..\nb\r\n.\r\n", b"a\r\n.\r\nb\r\n"),
            (b"\n.\r\n\r\n.\r\n", b"\r\n.\r\n\r\n"),
        ];
        for (input, expected) in cases {
            assert_eq!(decode(input).0, expected, "{input:?}");
        }
    }

    fn has_stray(bytes: &[u8]) -> bool {
        let lone_lf =
            (0..bytes.len()).any(|i| bytes[i] == b'\n' && (i == 0 || bytes[i - 1] != b'\r'));
        let lone_cr =
            (0..bytes.len()).any(|i| bytes[i] == b'\r' && bytes.get(i + 1) != Some(&b'\n'));
        lone_lf || lone_cr
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference_and_the_end_is_the_first_true_one(
            input in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b'x')], 0..60),
            cut in 0_usize..60,
        ) {
            let whole = decode(&input);
            let (first, second) = input.split_at(cut.min(input.len()));
            let mut decoder = Decoder::default();
            let mut message = Vec::new();
            let mut taken = decoder.push(first, &mut message);
            if !decoder.has_ended() {
                taken += decoder.push(second, &mut message);
            }
            prop_assert_eq!(&message, &whole.0);
            prop_assert_eq!(decoder.has_ended(), whole.1);
            prop_assert_eq!(&input[taken..], &whole.3[..]);

            // Found the slow way: the data ends at its first CRLF . CRLF, the start counting as behind a CRLF.
            let mut framed = b"\r\n".to_vec();
            framed.extend_from_slice(&input);
            let end = framed.windows(5).position(|w| w == b"\r\n.\r\n");
            prop_assert_eq!(whole.1, end.is_some());
            if let Some(end) = end {
                prop_assert_eq!(whole.3.len(), input.len() - (end + 3));
                prop_assert!(!has_stray(&whole.0));
                prop_assert!(whole.0.is_empty() || whole.0.ends_with(b"\r\n"));
            }
        }
    }
}

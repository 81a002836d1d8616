//! Line ends. Inside the hook a line ends with CRLF, as in SMTP.

/// Turns a local message into one whose lines end with CRLF, in pieces of any size.
///
/// A CRLF stays as it is; every other CR or LF becomes a CRLF, and so does the missing end of the last line. This is
/// what SMTP's `stray_cr_lf = "normalise"` does too. Everything that policy does not change leaves as it is after
/// this step.
#[derive(Debug, Default)]
pub struct ToCrlf {
    /// Behind a CR whose CRLF is written already.
    behind_cr: bool,
    /// Whether the last line has begun and not ended.
    open: bool,
}

impl ToCrlf {
    /// Appends at most twice as many bytes to `message` as `input` has.
    pub fn push(&mut self, mut input: &[u8], message: &mut Vec<u8>) {
        while let Some((&byte, rest)) = input.split_first() {
            match byte {
                b'\n' if self.behind_cr => {
                    self.behind_cr = false;
                    input = rest;
                }
                b'\r' | b'\n' => {
                    message.extend_from_slice(b"\r\n");
                    (self.behind_cr, self.open) = (byte == b'\r', false);
                    input = rest;
                }
                _ => {
                    let end = input.iter().position(|&b| b == b'\r' || b == b'\n');
                    let (line, rest) = input.split_at(end.unwrap_or(input.len()));
                    message.extend_from_slice(line);
                    (self.behind_cr, self.open) = (false, true);
                    input = rest;
                }
            }
        }
    }

    /// The message has ended.
    pub fn finish(self, message: &mut Vec<u8>) {
        if self.open {
            message.extend_from_slice(b"\r\n");
        }
    }
}

/// Appends `message` with each CRLF as LF; all else stays. `pending_cr` carries a CR at the end of one piece to the
/// next; what it says behind the last piece is for the caller to write.
pub fn crlf_to_lf(message: &[u8], pending_cr: &mut bool, out: &mut Vec<u8>) {
    for &byte in message {
        if std::mem::replace(pending_cr, byte == b'\r') && byte != b'\n' {
            out.push(b'\r');
        }
        if byte != b'\r' {
            out.push(byte);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to_crlf(pieces: &[&[u8]]) -> Vec<u8> {
        let mut lines = ToCrlf::default();
        let mut message = Vec::new();
        pieces.iter().for_each(|piece| lines.push(piece, &mut message));
        lines.finish(&mut message);
        message
    }

    fn to_lf(pieces: &[&[u8]]) -> Vec<u8> {
        let (mut pending, mut out) = (false, Vec::new());
        pieces.iter().for_each(|piece| crlf_to_lf(piece, &mut pending, &mut out));
        if pending {
            out.push(b'\r');
        }
        out
    }

    #[test]
    fn every_line_end_becomes_one() {
        let cases: [(&[u8], &[u8]); 8] = [
            (b"", b""),
            (b"a", b"a\r\n"),
            (b"a\n\nb\n", b"a\r\n\r\nb\r\n"),
            (b"a\r\nb\r\n", b"a\r\nb\r\n"),
            (b"a\rb", b"a\r\nb\r\n"),
            (b"a\r\r\nb", b"a\r\n\r\nb\r\n"),
            (b"a\n\rb\n", b"a\r\n\r\nb\r\n"),
            (b"\n.\n", b"\r\n.\r\n"),
        ];
        for (input, expected) in cases {
            assert_eq!(to_crlf(&[input]), expected, "{input:?}");
        }
    }

    #[test]
    fn only_whole_line_ends_become_lf() {
        assert_eq!(to_lf(&[b"a\r\nb\r\r\nc\r"]), b"a\nb\r\nc\r");
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference_and_lf_leads_back(
            input in proptest::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'x')], 0..40),
            cut in 0_usize..40,
        ) {
            let (first, second) = input.split_at(cut.min(input.len()));
            let crlf = to_crlf(&[&input]);
            prop_assert_eq!(&to_crlf(&[first, second]), &crlf);
            prop_assert_eq!(&to_crlf(&[&crlf]), &crlf, "what is clean stays");

            let lf = to_lf(&[&crlf]);
            prop_assert!(!lf.contains(&b'\r'));
            let (first, second) = crlf.split_at(cut.min(crlf.len()));
            prop_assert_eq!(&to_lf(&[first, second]), &lf);
            prop_assert_eq!(to_crlf(&[&lf]), crlf);
        }
    }
}

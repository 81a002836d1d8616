//! Quoted-printable (RFC 2045, 6.7), only the way out.

/// Longest line, in bytes without CRLF (RFC 2045, 6.7, rule 5).
const LINE_BYTES_MAX: usize = 76;
/// Longest line that may go unencoded (RFC 5322, 2.1.1).
const PLAIN_LINE_BYTES_MAX: usize = 998;

/// Whether the text may go as it is: ASCII without NUL, lines that end with CRLF and are not too long.
pub(crate) fn is_plain(text: &[u8]) -> bool {
    lines(text).all(|line| {
        line.len() <= PLAIN_LINE_BYTES_MAX
            && line.iter().all(|byte| byte.is_ascii() && !b"\0\r\n".contains(byte))
    })
}

/// Appends the text in quoted-printable. Its CRLFs stay line ends; CR and LF by themselves are encoded.
pub(crate) fn encode(text: &[u8], encoded: &mut Vec<u8>) {
    for (number, line) in lines(text).enumerate() {
        if number > 0 {
            encoded.extend_from_slice(b"\r\n");
        }
        encode_line(line, encoded);
    }
}

fn encode_line(line: &[u8], encoded: &mut Vec<u8>) {
    let mut column = 0;
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        let last = bytes.peek().is_none();
        let blank = byte == b' ' || byte == b'\t';
        let literal = byte.is_ascii_graphic() && byte != b'=' || blank && !last;
        let width = if literal { 1 } else { 3 };
        // One column is for the `=` of a soft line break.
        if column + width >= LINE_BYTES_MAX {
            encoded.extend_from_slice(b"=\r\n");
            column = 0;
        }
        if literal {
            encoded.push(byte);
        } else {
            encoded.extend_from_slice(format!("={byte:02X}").as_bytes());
        }
        column += width;
    }
}

/// What stands between the CRLFs; the last one is empty where the text ends with CRLF.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let end = text.windows(2).position(|pair| pair == b"\r\n");
        let (line, tail) = match end {
            Some(end) => (text.get(..end)?, text.get(end + 2..)),
            None => (text, None),
        };
        rest = tail;
        Some(line)
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(text: &[u8]) -> Vec<u8> {
        let mut encoded = Vec::new();
        encode(text, &mut encoded);
        encoded
    }

    #[test]
    fn known_texts() {
        assert_eq!(encoded(b"a=b \r\n\tc\xfc\t\r\n"), b"a=3Db=20\r\n\tc=FC=09\r\n");
        assert_eq!(encoded(b"a\rb\nc\0"), b"a=0Db=0Ac=00");
        assert!(is_plain(b"a\r\nb\r\n") && is_plain(&[b'a'; 998]) && is_plain(b""));
        for wrong in [&b"a\rb"[..], b"a\nb", b"\0", b"\xfc", &[b'a'; 999]] {
            assert!(!is_plain(wrong), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn a_decoder_gets_the_text_back(pieces in prop::collection::vec(
            prop_oneof![any::<Vec<u8>>(), Just(b"\r\n".to_vec()), Just(b" ".to_vec()), Just(vec![b'x'; 80])], 0..40,
        )) {
            let text = pieces.concat();
            let encoded = encoded(&text);
            prop_assert!(is_plain(&encoded));
            prop_assert!(lines(&encoded).all(|line| line.len() <= LINE_BYTES_MAX));
            prop_assert!(!encoded.windows(2).any(|pair| pair == b"=_"));
            let part = [&b"Content-Transfer-Encoding: quoted-printable\r\n\r\n"[..], &encoded].concat();
            prop_assert_eq!(mailparse::parse_mail(&part).unwrap().get_body_raw().unwrap(), text);
        }
    }
}

//! What both ways through DATA leave as it is.

use memchr::memchr2;

/// How many bytes from the front are the same with and without the dots of RFC 5321, 4.5.2: lines that end with CRLF and do
/// not begin with a dot, and the start of a line of which more has to come. Ends before the first dot at a line's start and
/// before the first CR or LF that is no part of a CRLF here, so a CR at the very end too. Whether these bytes begin at a
/// line's start is said with them, and comes back for the byte behind.
pub(crate) fn unchanged(bytes: &[u8], mut line_start: bool) -> (usize, bool) {
    let mut length = 0;
    loop {
        let rest = bytes.get(length..).unwrap_or_default();
        if rest.is_empty() || line_start && rest.starts_with(b".") {
            return (length, line_start);
        }
        match memchr2(b'\r', b'\n', rest) {
            None => return (bytes.len(), false),
            Some(at) if rest.get(at..).is_some_and(|end| end.starts_with(b"\r\n")) => {
                length += at + 2;
                line_start = true;
            }
            Some(at) => return (length + at, line_start && at == 0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_before_what_changes() {
        let cases: [(&[u8], bool, (usize, bool)); 14] = [
            (b"", true, (0, true)),
            (b"", false, (0, false)),
            (b".a", true, (0, true)),
            (b".a", false, (2, false)),
            (b"a\r\nb", true, (4, false)),
            (b"a\r\n\r\n", true, (5, true)),
            (b"a\r\n.\r\n", true, (3, true)),
            (b"a.\r\nb.\r\n", true, (8, true)),
            (b"a\r\n\r", true, (3, true)),
            (b"a\r", true, (1, false)),
            (b"a\r\r\n", true, (1, false)),
            (b"a\nb", true, (1, false)),
            (b"\n.", true, (0, true)),
            (b"a\r\nb\r.\r\n", true, (4, false)),
        ];
        for (bytes, line_start, expected) in cases {
            assert_eq!(unchanged(bytes, line_start), expected, "{bytes:?}, {line_start}");
        }
    }
}

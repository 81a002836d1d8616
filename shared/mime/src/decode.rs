//! Content decoders that take anything and make no more than they are told to.

use crate::parameter::hex;

/// What a decoder made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// The decoded bytes.
    pub bytes: Vec<u8>,
    /// There was something that the encoding does not have, so other decoders may come to other bytes.
    pub doubtful: bool,
    /// False if the output would have been longer than allowed.
    pub whole: bool,
}

/// Marks bytes outside the alphabet.
const NONE: u8 = 0xff;

/// Value by byte (RFC 4648, 4).
const BASE64_VALUES: [u8; 256] = {
    let alphabet = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut values = [NONE; 256];
    let mut value = 0;
    while value < 64 {
        #[allow(
            clippy::indexing_slicing,
            clippy::cast_possible_truncation,
            reason = "evaluated when compiled, below 64"
        )]
        {
            values[alphabet[value] as usize] = value as u8;
        }
        value += 1;
    }
    values
};

/// Decodes base64 (RFC 2045, 6.8) to at most `bytes_max` bytes.
///
/// Passes over what is not in the alphabet, and goes on after padding, since several encodings put one after
/// another are what some programs send and others read. A last group that is too short gives what bytes it has.
pub fn base64(input: &[u8], bytes_max: usize) -> Decoded {
    let mut decoded = Decoded { whole: true, ..Decoded::default() };
    decoded.bytes.reserve((input.len() / 4 * 3 + 3).min(bytes_max));
    let (mut group, mut digits, mut pads, mut ended) = (0_u32, 0_u32, 0_u32, false);
    for byte in input {
        let value = BASE64_VALUES.get(usize::from(*byte)).copied().unwrap_or(NONE);
        if value != NONE {
            decoded.doubtful |= ended || pads > 0;
            (group, digits, pads, ended) = (group << 6 | u32::from(value), digits + 1, 0, false);
        } else if *byte == b'=' {
            pads += 1;
            // A pad that cannot be one is passed over; only a complete group of digits and pads ends here.
            if digits < 2 || digits + pads < 4 {
                decoded.doubtful |= digits < 2 && !ended;
                continue;
            }
            ended = true;
        } else {
            decoded.doubtful |= !byte.is_ascii_whitespace();
            continue;
        }
        if digits == 4 || ended {
            if !put(&mut decoded, group, digits, bytes_max) {
                return decoded;
            }
            (group, digits, pads) = (0, 0, 0);
        }
    }
    decoded.doubtful |= digits > 0;
    put(&mut decoded, group, digits, bytes_max);
    decoded
}

/// Writes out a group of up to four digits; false if that was too much.
fn put(decoded: &mut Decoded, group: u32, digits: u32, bytes_max: usize) -> bool {
    let count = match digits {
        2 => 1,
        3 => 2,
        4 => 3,
        _ => return true,
    };
    let aligned = group << (6 * (4 - digits));
    for byte in aligned.to_be_bytes().into_iter().skip(1).take(count) {
        if decoded.bytes.len() == bytes_max {
            decoded.whole = false;
            return false;
        }
        decoded.bytes.push(byte);
    }
    true
}

/// Decodes quoted-printable (RFC 2045, 6.7) to at most `bytes_max` bytes.
///
/// Escapes that are none stay as they are (note 2 there), lower-case digits are read, white space at the end of a
/// line goes, line ends stay as they are.
pub fn quoted_printable(input: &[u8], bytes_max: usize) -> Decoded {
    let mut decoded = Decoded { whole: true, ..Decoded::default() };
    decoded.bytes.reserve(input.len().min(bytes_max));
    for line in input.split_inclusive(|byte| *byte == b'\n') {
        let (text, end) = split_line_end(line);
        let trimmed = trim_blanks(text);
        let (text, soft) = match trimmed.strip_suffix(b"=") {
            Some(text) => (text, true),
            None => (trimmed, false),
        };
        let mut rest = text;
        while let Some((byte, after)) = rest.split_first() {
            rest = after;
            let mut value = *byte;
            if *byte == b'=' {
                let digits = rest.split_first_chunk::<2>();
                match digits.map(|([high, low], after)| (hex(*high), hex(*low), after)) {
                    Some((Some(high), Some(low), after)) => {
                        value = high << 4 | low;
                        rest = after;
                    }
                    _ => decoded.doubtful = true,
                }
            }
            if decoded.bytes.len() == bytes_max {
                decoded.whole = false;
                return decoded;
            }
            decoded.bytes.push(value);
        }
        if !soft {
            let room = bytes_max - decoded.bytes.len();
            decoded.bytes.extend(end.iter().take(room));
            decoded.whole &= end.len() <= room;
        }
    }
    decoded
}

fn split_line_end(line: &[u8]) -> (&[u8], &[u8]) {
    let text = line.strip_suffix(b"\n").unwrap_or(line);
    let text =
        if text.len() < line.len() { text.strip_suffix(b"\r").unwrap_or(text) } else { text };
    line.split_at(text.len())
}

fn trim_blanks(text: &[u8]) -> &[u8] {
    let end =
        text.iter().rposition(|byte| !matches!(byte, b' ' | b'\t')).map_or(0, |last| last + 1);
    crate::slice(text, 0..end)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn base64_gives(input: &str, expected: &str, doubtful: bool) {
        let decoded = base64(input.as_bytes(), usize::MAX);
        assert_eq!(String::from_utf8_lossy(&decoded.bytes), expected, "{input}");
        assert_eq!(decoded.doubtful, doubtful, "{input}");
    }

    #[test]
    fn base64_of_rfc_4648() {
        for (input, expected) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg==", "foob"),
            ("Zm9v\r\nYmE=\r\n", "fooba"),
            ("Zm9vYmFy", "foobar"),
        ] {
            base64_gives(input, expected, false);
        }
    }

    #[test]
    fn base64_with_junk_padding_and_rough_ends() {
        base64_gives("Zm!9v", "foo", true);
        base64_gives("Zg==Zm9v", "ffoo", true);
        base64_gives("Zm8", "fo", true);
        base64_gives("Z=m9v", "foo", true);
        base64_gives("Zm=9v", "foo", true);
        base64_gives("====", "", true);
        base64_gives("Z", "", true);
    }

    #[test]
    fn quoted_printable_of_every_sort() {
        for (input, expected, doubtful) in [
            ("a=3Db", "a=b", false),
            ("a=3db", "a=b", false),
            ("long =\r\nline", "long line", false),
            ("long=  \nline", "longline", false),
            ("end  \r\nnext", "end\r\nnext", false),
            ("a=ZZb", "a=ZZb", true),
            ("a==41", "a=A", true),
            ("cut=4", "cut=4", true),
            ("cut=", "cut", false),
        ] {
            let decoded = quoted_printable(input.as_bytes(), usize::MAX);
            assert_eq!(String::from_utf8_lossy(&decoded.bytes), expected, "{input}");
            assert_eq!(decoded.doubtful, doubtful, "{input}");
        }
    }

    #[test]
    fn output_is_bounded_and_says_so() {
        assert_eq!(base64(b"Zm9vYmFy", 4).bytes, b"foob");
        assert!(!base64(b"Zm9vYmFy", 4).whole);
        assert!(base64(b"Zm9vYmFy", 6).whole);
        assert!(!quoted_printable(b"abc", 2).whole);
        assert!(!quoted_printable(b"abc\r\n", 4).whole);
        assert!(quoted_printable(b"abc\r\n", 5).whole);
    }

    proptest! {
        #[test]
        fn garbage_never_grows_beyond_its_bound(input: Vec<u8>, max in 0_usize..64) {
            for decoded in [base64(&input, max), quoted_printable(&input, max)] {
                prop_assert!(decoded.bytes.len() <= max);
                prop_assert!(decoded.bytes.len() <= input.len());
            }
        }

        #[test]
        fn a_smaller_bound_gives_a_prefix(input: Vec<u8>, max in 0_usize..64) {
            let cut = base64(&input, max);
            let full = base64(&input, usize::MAX);
            prop_assert!(full.bytes.starts_with(&cut.bytes));
            prop_assert_eq!(cut.whole, full.bytes.len() <= max);
        }
    }
}

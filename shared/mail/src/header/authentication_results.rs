//! Whose `Authentication-Results` a field is (RFC 8601, 2.2).

/// Whether the field's value claims to come from `authserv_id`, or its id cannot be read: a reader more
/// lenient than this one might find ours there. ASCII case and a final dot do not matter.
pub(super) fn may_claim(value: &[u8], authserv_id: &str) -> bool {
    let ours = authserv_id.trim_end_matches('.').as_bytes();
    parse_id(value).is_none_or(|id| {
        let id = id.strip_suffix(b".").unwrap_or(&id);
        id.eq_ignore_ascii_case(ours)
    })
}

/// `[CFWS] authserv-id`, where the id is a token or a quoted string (RFC 2045, 5.1).
fn parse_id(value: &[u8]) -> Option<Vec<u8>> {
    let rest = skip_cfws(value)?;
    match rest.split_first()? {
        (b'"', quoted) => parse_quoted(quoted),
        _ => {
            let ends = |byte: &u8| byte.is_ascii_whitespace() || b";(\"/".contains(byte);
            let length = rest.iter().position(ends).unwrap_or(rest.len());
            rest.get(..length).filter(|id| !id.is_empty()).map(<[u8]>::to_vec)
        }
    }
}

fn parse_quoted(quoted: &[u8]) -> Option<Vec<u8>> {
    let mut id = Vec::new();
    let mut bytes = quoted.iter();
    loop {
        match bytes.next()? {
            b'"' => return Some(id),
            b'\\' => id.push(*bytes.next()?),
            b'\r' | b'\n' => {}
            byte => id.push(*byte),
        }
    }
}

/// Skips white space, folds and nested comments (RFC 5322, 3.2.2); `None` in a comment that does not end.
fn skip_cfws(value: &[u8]) -> Option<&[u8]> {
    let mut depth = 0_usize;
    let mut rest = value;
    while let Some((byte, tail)) = rest.split_first() {
        rest = match byte {
            b'(' => {
                depth += 1;
                tail
            }
            b')' if depth > 0 => {
                depth -= 1;
                tail
            }
            b'\\' if depth > 0 => tail.get(1..)?,
            _ if depth > 0 || byte.is_ascii_whitespace() => tail,
            _ => return Some(rest),
        };
    }
    (depth == 0).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ours_is_found_however_it_is_written() {
        for value in [
            " mx1.example.com; spf=pass",
            "mx1.example.com",
            " MX1.Example.COM;none",
            " mx1.example.com 1; none",
            "\r\n mx1.example.com\r\n\t; none",
            " (a (nested \\) comment)) mx1.example.com (more); none",
            " mx1.example.com(comment); none",
            " \"mx1.example.com\"; none",
            " \"mx1\\.example.com\"; none",
            " mx1.example.com.; none",
            " mx1.example.com/1; none",
        ] {
            assert!(may_claim(value.as_bytes(), "mx1.example.com"), "{value:?}");
        }
        assert!(may_claim(b" mx1; none", "mx1."));
    }

    #[test]
    fn what_cannot_be_read_may_be_ours() {
        for value in ["", "  ", "; spf=pass", " (open mx2; none", " \"mx2", " \"mx2\\", " (a\\"] {
            assert!(may_claim(value.as_bytes(), "mx1"), "{value:?}");
        }
    }

    #[test]
    fn others_stay() {
        for value in [
            " mx2.example.com; spf=pass",
            " mx1.example.com.evil.example; none",
            " xmx1.example.com; none",
            " (mx1.example.com) mx2; none",
            " example.com; auth=pass (mx1.example.com)",
            " \"mx1.example.com x\"; none",
            " m\u{fc}x; none",
        ] {
            assert!(!may_claim(value.as_bytes(), "mx1.example.com"), "{value:?}");
        }
    }
}

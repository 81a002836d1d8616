//! `X-Gantry-Trace`, by which a host recognises that a message has passed it before.
//!
//! The value is `HOST; MAC`, with the MAC in hexadecimal, keyed with a secret that never leaves the host. It
//! covers what makes a passage the same one again: host, mailbox, Message-ID and the recipients of the
//! transaction. So
//! - nobody else can make a token: what is forged or another host's says nothing;
//! - a token copied to other mail says nothing either, since that has another Message-ID or other recipients;
//!   who copies those as well has made his own message look like a loop, and at worst it is held. A token
//!   never makes a message skip anything;
//! - mail that comes again *lawfully* (forwarded to somebody else, sent on by a mailing list, or through another mailbox of the
//!   same host) is no loop. A loop in which the recipients change on each round is left to the limit on
//!   `Received` fields.

use crate::fold::fold;

/// The name of the field.
pub const NAME: &str = "X-Gantry-Trace";
/// Length of a MAC, in bytes: that of HMAC-SHA-256.
pub const MAC_BYTES: usize = 32;

/// One passage of a message through a host.
#[derive(Clone, Copy, Debug)]
pub struct Passage<'a> {
    /// This host's name.
    pub host: &'a str,
    /// The mailbox that the message came in by.
    pub mailbox: &'a str,
    /// Of [`crate::header::Header`]; `None` where there is none.
    pub message_id: Option<&'a [u8]>,
    /// The recipients of one transaction: at the intake those that came in, at the release those of the group
    /// that goes out, because these are what comes in again. Their order and ASCII case do not matter.
    pub recipients: &'a [&'a str],
}

/// The whole field for this passage, without its final CRLF, for [`crate::HeaderEdit::Prepend`]. `mac` is the
/// keyed MAC.
pub fn field(passage: &Passage<'_>, mac: impl FnOnce(&[u8]) -> [u8; MAC_BYTES]) -> String {
    let token = token(passage, mac);
    fold(&format!("{NAME}:"), token.split(' '))
}

/// The field's value for this passage: `HOST; MAC`.
pub fn token(passage: &Passage<'_>, mac: impl FnOnce(&[u8]) -> [u8; MAC_BYTES]) -> String {
    let hex: String = mac(&covered(passage)).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}; {hex}", passage.host)
}

/// Whether one of the values (of [`crate::header::Header::traces`]) says that the message has passed here just so
/// before. The MAC is compared in a time that does not depend on the values.
pub fn verify<'a>(
    values: impl IntoIterator<Item = &'a [u8]>,
    passage: &Passage<'_>,
    mac: impl FnOnce(&[u8]) -> [u8; MAC_BYTES],
) -> bool {
    let mut values = values.into_iter().peekable();
    if values.peek().is_none() {
        return false;
    }
    let expected = token(passage, mac);
    let expected = without_blanks(expected.as_bytes());
    values.any(|value| equal(&without_blanks(value), &expected))
}

/// What the MAC is computed over: each part with its length, so that no two passages give the same bytes.
fn covered(passage: &Passage<'_>) -> Vec<u8> {
    let mut recipients: Vec<String> =
        passage.recipients.iter().map(|address| address.to_ascii_lowercase()).collect();
    recipients.sort_unstable();
    recipients.dedup();
    let parts = [
        b"gantry-trace/1",
        passage.host.as_bytes(),
        passage.mailbox.as_bytes(),
        passage.message_id.unwrap_or_default(),
    ];
    let mut covered = Vec::new();
    for part in parts.into_iter().chain(recipients.iter().map(String::as_bytes)) {
        covered.extend_from_slice(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        covered.extend_from_slice(part);
    }
    covered
}

/// Hosts on the way may fold a field anew.
fn without_blanks(value: &[u8]) -> Vec<u8> {
    value.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect()
}

fn equal(left: &[u8], right: &[u8]) -> bool {
    let differences = left.iter().zip(right).fold(0, |sum, (left, right)| sum | (left ^ right));
    left.len() == right.len() && differences == 0
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::header::{edit, scan};
    use crate::{HeaderEdit, check_edits};

    /// Stands in for a MAC: every byte of the input and of the key changes the output.
    fn mac(key: u8) -> impl Fn(&[u8]) -> [u8; MAC_BYTES] {
        move |bytes| {
            let mut mac = [key; MAC_BYTES];
            for (index, byte) in bytes.iter().enumerate() {
                let place = index % MAC_BYTES;
                mac[place] = mac[place].rotate_left(3).wrapping_mul(31) ^ byte;
            }
            mac
        }
    }

    const HERE: Passage<'static> = Passage {
        host: "mx1",
        mailbox: "mail.box",
        message_id: Some(b"<1@example.com>"),
        recipients: &["joe@example.com", "ann@example.com"],
    };

    #[test]
    fn what_was_released_is_recognised_when_it_comes_back() {
        let block = b"Message-ID: <1@example.com>\r\nSubject: x\r\n\r\n";
        let prepend = HeaderEdit::Prepend { field: field(&HERE, mac(7)) };
        let released = edit(block, &[prepend]).unwrap();
        let header = scan(&released).unwrap();
        let again = Passage {
            message_id: header.message_id.as_deref(),
            recipients: &["ANN@example.com", "joe@example.com", "joe@example.com"],
            ..HERE
        };
        let traces = || header.traces.iter().map(Vec::as_slice);
        assert!(verify(traces(), &again, mac(7)));
        assert!(!verify(traces(), &again, mac(8)), "another host's secret");
        assert!(!verify([], &again, mac(7)));
    }

    #[test]
    fn every_part_counts() {
        let token = token(&HERE, mac(7));
        assert!(token.starts_with("mx1; "));
        for other in [
            Passage { host: "mx2", ..HERE },
            Passage { mailbox: "other.box", ..HERE },
            Passage { message_id: Some(b"<2@example.com>"), ..HERE },
            Passage { message_id: None, ..HERE },
            Passage { recipients: &["joe@example.com"], ..HERE },
            Passage { recipients: &["joe@example.comann@example.com"], ..HERE },
        ] {
            assert!(!verify([token.as_bytes()], &other, mac(7)), "{other:?}");
        }
        for (value, is) in [
            (token.clone(), true),
            (token.replace(' ', "\t  "), true),
            (format!("{token}0"), false),
            (token[..token.len() - 1].to_owned(), false),
            (String::new(), false),
        ] {
            assert_eq!(verify([value.as_bytes()], &HERE, mac(7)), is, "{value}");
        }
    }

    #[test]
    fn the_field_is_a_field_even_for_the_longest_name() {
        let host = "h".repeat(255);
        let passage = Passage { host: &host, ..HERE };
        let field = field(&passage, mac(7));
        assert_eq!(check_edits(&[HeaderEdit::Prepend { field: field.clone() }]), Ok(()));
        let header = scan(format!("{field}\r\n\r\n").as_bytes()).unwrap();
        assert!(verify(header.traces.iter().map(Vec::as_slice), &passage, mac(7)));
    }
}

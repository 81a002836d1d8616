//! Plain messages of our own: a text for people, and perhaps the message that it is about.

use crate::date;
use crate::fold::fold;
use crate::quoted_printable;

/// Longest encoded word (RFC 2047, 2).
const ENCODED_WORD_BYTES_MAX: usize = 75;
const ENCODED_WORD_START: &str = "=?utf-8?Q?";
const ENCODED_WORD_END: &str = "?=";

/// A message that is to be written. Nothing in it can add a field or end the header block.
#[derive(Clone, Copy, Debug)]
pub struct Letter<'a> {
    /// An address.
    pub from: &'a str,
    /// Addresses; none for `undisclosed-recipients`.
    pub to: &'a [&'a str],
    pub subject: &'a str,
    pub unix_seconds: u64,
    /// Without angle brackets; unlike any other.
    pub message_id: &'a str,
    /// Lines end with LF or CRLF.
    pub text: &'a str,
    pub attached: Option<Attached<'a>>,
}

/// A whole message as an attachment (RFC 2046, 5.2.1), which whoever sends the letter puts in its place.
#[derive(Clone, Copy, Debug)]
pub struct Attached<'a> {
    /// What its bytes cannot contain, such as their own digest: letters and digits, at most 64.
    pub unlike: &'a str,
    /// Whether it is no 7-bit text (RFC 6152).
    pub eight_bit: bool,
}

/// A letter, with CRLF line ends; ASCII, unless an address in it is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Composed {
    pub message: Vec<u8>,
    /// How many bytes into `message` the attached message belongs.
    pub attached_at: Option<usize>,
}

/// Writes a letter. It says that no person has (RFC 3834, 5.1).
pub fn compose(letter: &Letter<'_>) -> Composed {
    let boundary = letter.attached.map(|attached| format!("=_{}", word(attached.unlike)));
    let mut head = String::new();
    let addresses: Vec<String> = letter.to.iter().map(|to| format!("<{}>", address(to))).collect();
    let to = match addresses.as_slice() {
        [] => "undisclosed-recipients:;".to_owned(),
        addresses => addresses.join(", "),
    };
    for field in [
        format!("From: <{}>", address(letter.from)),
        fold("To:", to.split(' ')),
        fold("Subject:", encoded(letter.subject).iter().map(String::as_str)),
        format!("Date: {}", date::rfc5322(letter.unix_seconds)),
        format!("Message-ID: <{}>", address(letter.message_id)),
        "Auto-Submitted: auto-generated".to_owned(),
        "MIME-Version: 1.0".to_owned(),
    ] {
        head.push_str(&field);
        head.push_str("\r\n");
    }
    let text = lines(letter.text);
    let Some((boundary, attached)) = boundary.zip(letter.attached) else {
        let mut message = head.into_bytes();
        push_text(&text, &mut message);
        return Composed { message, attached_at: None };
    };
    let encoding = if attached.eight_bit { "8bit" } else { "7bit" };
    head.push_str(&format!(
        "Content-Type: multipart/mixed;\r\n boundary=\"{boundary}\"\r\n\
         Content-Transfer-Encoding: {encoding}\r\n\r\n--{boundary}\r\n"
    ));
    let mut message = head.into_bytes();
    push_text(&text, &mut message);
    let part = format!(
        "\r\n--{boundary}\r\nContent-Type: message/rfc822\r\nContent-Transfer-Encoding: {encoding}\r\n\
         Content-Disposition: attachment\r\n\r\n"
    );
    message.extend_from_slice(part.as_bytes());
    let attached_at = Some(message.len());
    message.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    Composed { message, attached_at }
}

/// The rest of a header block, and the text under it.
fn push_text(text: &str, message: &mut Vec<u8>) {
    message.extend_from_slice(b"Content-Type: text/plain; charset=utf-8\r\n");
    if quoted_printable::is_plain(text.as_bytes()) {
        message.extend_from_slice(b"\r\n");
        message.extend_from_slice(text.as_bytes());
    } else {
        message.extend_from_slice(b"Content-Transfer-Encoding: quoted-printable\r\n\r\n");
        quoted_printable::encode(text.as_bytes(), message);
    }
}

/// With CRLF at each line's end and at the last one, and no other control character but the tab.
fn lines(text: &str) -> String {
    let plain = |c: char| if c.is_control() && c != '\t' { ' ' } else { c };
    text.lines().flat_map(|line| line.chars().map(plain).chain(['\r', '\n'])).collect()
}

/// Words for a header field: as they are, where that is printable ASCII, else encoded (RFC 2047).
fn encoded(text: &str) -> Vec<String> {
    let plain = text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    // What looks like an encoded word and is none would be decoded.
    if plain && !text.contains("=?") {
        return text.split(' ').map(str::to_owned).collect();
    }
    let room = ENCODED_WORD_BYTES_MAX - ENCODED_WORD_START.len() - ENCODED_WORD_END.len();
    let (mut words, mut word) = (Vec::new(), String::new());
    for character in text.chars() {
        let character = if character.is_control() { ' ' } else { character };
        let mut bytes = [0; 4];
        let escaped: String = match character {
            ' ' => "_".to_owned(),
            c if c.is_ascii_alphanumeric() => c.to_string(),
            c => c.encode_utf8(&mut bytes).bytes().map(|byte| format!("={byte:02X}")).collect(),
        };
        // A character is never split (RFC 2047, 5).
        if word.len() + escaped.len() > room {
            words.push(std::mem::take(&mut word));
        }
        word.push_str(&escaped);
    }
    words.push(word);
    words.iter().map(|word| format!("{ENCODED_WORD_START}{word}{ENCODED_WORD_END}")).collect()
}

/// Nothing that ends an angle-bracketed address, or a line.
fn address(text: &str) -> String {
    let fits = |c: char| {
        if c.is_control() || c.is_whitespace() || "<>,\"".contains(c) { '?' } else { c }
    };
    text.chars().map(fits).collect()
}

fn word(text: &str) -> String {
    text.chars().filter(char::is_ascii_alphanumeric).take(64).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::header::{fields, scan};

    fn letter<'a>(subject: &'a str, text: &'a str) -> Letter<'a> {
        Letter {
            from: "gantry@example.com",
            to: &["postmaster@example.com"],
            subject,
            unix_seconds: 1_234_567_890,
            message_id: "3-1a7.1@example.com",
            text,
            attached: None,
        }
    }

    #[test]
    fn a_notice_as_it_leaves() {
        let composed = compose(&letter("Infected mail", "Hello\nworld"));
        let text = String::from_utf8(composed.message).unwrap();
        assert_eq!(
            text,
            "From: <gantry@example.com>\r\n\
             To: <postmaster@example.com>\r\n\
             Subject: Infected mail\r\n\
             Date: Fri, 13 Feb 2009 23:31:30 +0000\r\n\
             Message-ID: <3-1a7.1@example.com>\r\n\
             Auto-Submitted: auto-generated\r\n\
             MIME-Version: 1.0\r\n\
             Content-Type: text/plain; charset=utf-8\r\n\
             \r\n\
             Hello\r\nworld\r\n"
        );
    }

    #[test]
    fn other_letters_are_encoded() {
        let composed = compose(&letter("Über Größe =?x?=", "naïve"));
        let text = String::from_utf8(composed.message).unwrap();
        assert!(text.contains("Subject: =?utf-8?Q?=C3=9Cber_Gr=C3=B6=C3=9Fe_=3D=3Fx=3F=3D?=\r\n"));
        assert!(text.ends_with("quoted-printable\r\n\r\nna=C3=AFve\r\n"), "{text}");
    }

    #[test]
    fn an_attached_message_has_its_place() {
        let attached = Some(Attached { unlike: "abc123", eight_bit: true });
        let composed = compose(&Letter { attached, to: &[], ..letter("copy", "see below") });
        let at = composed.attached_at.unwrap();
        let (before, behind) = composed.message.split_at(at);
        let before = String::from_utf8_lossy(before);
        assert!(before.contains("To: undisclosed-recipients:;\r\n"));
        assert!(before.contains(
            "\r\n--=_abc123\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nsee below\r\n"
        ));
        assert!(before.ends_with("Content-Type: message/rfc822\r\nContent-Transfer-Encoding: 8bit\r\nContent-Disposition: attachment\r\n\r\n"));
        assert_eq!(behind, b"\r\n--=_abc123--\r\n");
    }

    proptest! {
        /// Whatever stands in the mail that a notice is about, no field is added and no line gets too long.
        #[test]
        fn nothing_is_injected(from: String, to: String, subject: String, id: String, text: String) {
            let letter = Letter {
                from: &from,
                to: &[&to],
                message_id: &id,
                ..letter(&subject, &text)
            };
            let composed = compose(&letter);
            let block = scan(&composed.message).unwrap().length;
            let names: Vec<String> = fields(&composed.message[..block])
                .map(|field| String::from_utf8_lossy(field.name).into_owned())
                .collect();
            let mut expected =
                vec!["From", "To", "Subject", "Date", "Message-ID", "Auto-Submitted", "MIME-Version", "Content-Type"];
            if names.len() > expected.len() {
                expected.push("Content-Transfer-Encoding");
            }
            prop_assert_eq!(names, expected);
            let body = &composed.message[block..];
            prop_assert!(body.is_ascii());
            prop_assert!(body.split(|byte| *byte == b'\n').all(|line| line.len() <= 999));
        }
    }
}

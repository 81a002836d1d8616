//! The envelope of a message that lies in a file.

use gantry_mail::header::{Field, fields};
use gantry_mail::{ADDRESS_BYTES_MAX, Envelope, RECIPIENTS_MAX, Recipient};
use serde::{Deserialize, Serialize};

/// The fields at the top of a message that are its envelope: one sender, one field a recipient.
pub const SENDER: &str = "X-Sender";
pub const RECEIVER: &str = "X-Receiver";
/// What the name of a message's file has behind it in that of its [`Sidecar`].
pub const SIDECAR_ENDING: &str = ".envelope";
/// Largest sidecar: a thousand of the longest addresses, and room for white space.
pub const SIDECAR_BYTES_MAX: u64 = 1024 * 1024;

/// The envelope as JSON, in a file beside the message: `{"sender": "a@b", "recipients": ["c@d"]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sidecar {
    /// Without angle brackets; empty is the null sender.
    pub sender: String,
    pub recipients: Vec<String>,
}

/// Why a file has no envelope that can be used.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    #[error(
        "the message does not begin with X-Sender and X-Receiver: the envelope is never taken from To and Cc"
    )]
    None,
    #[error("there is no {0} at the top of the message")]
    Missing(&'static str),
    #[error("there is more than one X-Sender")]
    SeveralSenders,
    #[error(
        "X-Sender or X-Receiver stands below other fields, where it may be a stranger's; the envelope stands at the top"
    )]
    Below,
    #[error("{recipients} recipients are more than {RECIPIENTS_MAX}")]
    TooMany { recipients: usize },
    #[error("there is no recipient")]
    Nobody,
    #[error("{field}: {source}")]
    Address { field: &'static str, source: AddressError },
    #[error("read its envelope: {0}")]
    Sidecar(#[from] serde_json::Error),
}

/// Why a text is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    #[error("an address is missing")]
    Empty,
    #[error("an address has more than {ADDRESS_BYTES_MAX} bytes")]
    TooLong,
    #[error("an address has control characters, or brackets or spaces outside of quotes")]
    Malformed,
}

/// Whether a text can stand between the angle brackets of MAIL or RCPT (RFC 5321, 4.1.2). Empty is well formed.
///
/// # Errors
/// What is wrong with it.
pub fn check_address(address: &str) -> Result<(), AddressError> {
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(AddressError::TooLong);
    }
    let (mut quoted, mut escaped) = (false, false);
    for c in address.chars() {
        match c {
            _ if c.is_control() => return Err(AddressError::Malformed),
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' | '<' | '>' | '\\' if !quoted => return Err(AddressError::Malformed),
            _ => {}
        }
    }
    if quoted { Err(AddressError::Malformed) } else { Ok(()) }
}

/// Makes an envelope of addresses.
///
/// # Errors
/// No recipient, too many, or an address that is none.
pub fn recipients(sender: &str, recipients: &[String]) -> Result<Envelope, EnvelopeError> {
    check_address(sender).map_err(|source| EnvelopeError::Address { field: SENDER, source })?;
    let recipient = |address: &String| match check_address(address) {
        Ok(()) if address.is_empty() => {
            Err(EnvelopeError::Address { field: RECEIVER, source: AddressError::Empty })
        }
        Ok(()) => Ok(Recipient { address: address.clone(), ..Recipient::default() }),
        Err(source) => Err(EnvelopeError::Address { field: RECEIVER, source }),
    };
    match recipients.len() {
        0 => return Err(EnvelopeError::Nobody),
        1..=RECIPIENTS_MAX => {}
        count => return Err(EnvelopeError::TooMany { recipients: count }),
    }
    let mut envelope = Envelope {
        sender: sender.to_owned(),
        recipients: recipients.iter().map(recipient).collect::<Result<_, _>>()?,
        ..Envelope::default()
    };
    // RFC 6531, 3.4: such addresses cannot be said otherwise.
    envelope.parameters.smtputf8 =
        !sender.is_ascii() || !recipients.iter().all(|address| address.is_ascii());
    Ok(envelope)
}

/// Reads the envelope at the top of a header block, whose lines end with CRLF. Gives the bytes that it takes up,
/// which are not part of the message.
///
/// Only the fields before any other count. Further down they may be a stranger's, who would name recipients of his
/// own; and since they may also be the rest of a list that was put together wrongly, the message is refused.
///
/// # Errors
/// No envelope, or one that cannot be used.
pub fn take_head_fields(block: &[u8]) -> Result<(Envelope, usize), EnvelopeError> {
    let ours = |field: &Field<'_>| field.is(SENDER) || field.is(RECEIVER);
    let mut length = 0;
    let (mut sender, mut receivers) = (None, Vec::new());
    for field in fields(block).take_while(ours) {
        length += field.raw.len();
        let is_sender = field.is(SENDER);
        let name = if is_sender { SENDER } else { RECEIVER };
        let address = address_in(field.value)
            .map_err(|source| EnvelopeError::Address { field: name, source })?;
        if !is_sender {
            receivers.push(address);
        } else if sender.replace(address).is_some() {
            return Err(EnvelopeError::SeveralSenders);
        }
    }
    let rest = block.get(length..).unwrap_or_default();
    if fields(rest).any(|field| ours(&field)) {
        return Err(EnvelopeError::Below);
    }
    match sender {
        Some(_) if receivers.is_empty() => Err(EnvelopeError::Missing(RECEIVER)),
        Some(sender) => Ok((recipients(&sender, &receivers)?, length)),
        None if receivers.is_empty() => Err(EnvelopeError::None),
        None => Err(EnvelopeError::Missing(SENDER)),
    }
}

/// The fields that say this envelope, with their CRLFs. The addresses have passed [`check_address`].
pub fn head_fields<'a>(sender: &str, recipients: impl IntoIterator<Item = &'a str>) -> Vec<u8> {
    let mut head = format!("{SENDER}: <{sender}>\r\n").into_bytes();
    for recipient in recipients {
        head.extend_from_slice(format!("{RECEIVER}: <{recipient}>\r\n").as_bytes());
    }
    head
}

/// `<a@b>` or `a@b`, on one line.
fn address_in(value: &[u8]) -> Result<String, AddressError> {
    let value = std::str::from_utf8(value).map_err(|_| AddressError::Malformed)?;
    let value = value.trim_matches([' ', '\t']);
    let address = value.strip_prefix('<').and_then(|rest| rest.strip_suffix('>'));
    match address {
        None if value.is_empty() => Err(AddressError::Empty),
        address => {
            let address = address.unwrap_or(value);
            check_address(address).map(|()| address.to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

    use super::*;

    const TOP: &str = "X-Sender: <a@x>\r\nx-receiver: b@y\r\nX-Receiver:\t<\"c d\"@z> \r\n";

    #[test]
    fn the_envelope_at_the_top_is_taken_and_all_else_left() {
        let block = format!("{TOP}To: nobody@x\r\n\r\n");
        let (envelope, length) = take_head_fields(block.as_bytes()).unwrap();
        assert_eq!(&block[length..], "To: nobody@x\r\n\r\n");
        assert_eq!(envelope.sender, "a@x");
        let to: Vec<_> = envelope.recipients.iter().map(|to| to.address.as_str()).collect();
        assert_eq!(to, ["b@y", "\"c d\"@z"]);
        assert!(!envelope.parameters.smtputf8);

        let head = head_fields("", ["jö@y"]);
        let (again, length) = take_head_fields(&head).unwrap();
        assert_eq!((again.sender.as_str(), length), ("", head.len()));
        assert!(again.parameters.smtputf8, "it can only be said so");
    }

    #[test]
    fn what_is_no_envelope_is_told() {
        let many = "X-Receiver: b@y\r\n".repeat(RECIPIENTS_MAX + 1);
        for (block, reason) in [
            ("To: b@y\r\nCc: c@y\r\n\r\n", "never taken from To"),
            ("X-Receiver: b@y\r\n\r\n", "no X-Sender"),
            ("X-Sender: a@x\r\n\r\n", "no X-Receiver"),
            ("X-Sender: a@x\r\nX-Sender: b@x\r\nX-Receiver: b@y\r\n", "more than one"),
            ("X-Sender: a@x\r\nX-Receiver: b@y\r\nSubject: x\r\nX-Receiver: evil@y\r\n", "below"),
            ("Subject: x\r\nX-Sender: a@x\r\nX-Receiver: b@y\r\n", "below"),
            ("X-Sender: a@x\r\nX-Receiver: <>\r\n", "missing"),
            ("X-Sender:\r\nX-Receiver: b@y\r\n", "missing"),
            ("X-Sender: a@x\r\nX-Receiver: b@y, c@y\r\n", "outside of quotes"),
            ("X-Sender: a@x\r\nX-Receiver: <b@y>\r\n <c@y>\r\n", "control"),
            ("X-Sender: a@x\r\nX-Receiver: b\0@y\r\n", "control"),
            ("", "never taken from To"),
            (&format!("X-Sender: a@x\r\n{many}"), "1001 recipients"),
        ] {
            let error = take_head_fields(block.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(reason), "{block:?}: {error}");
        }
    }

    #[test]
    fn a_sidecar_says_no_more_than_it_may() {
        let sidecar: Sidecar =
            serde_json::from_str(r#"{"sender": "", "recipients": ["b@y"]}"#).unwrap();
        assert_eq!(recipients(&sidecar.sender, &sidecar.recipients).unwrap().sender, "");
        for wrong in [
            r#"{"sender": "a", "recipients": ["b"], "to": []}"#,
            r#"{"recipients": ["b"]}"#,
            r#"{"sender": "a"}"#,
            "",
        ] {
            assert!(serde_json::from_str::<Sidecar>(wrong).is_err(), "{wrong}");
        }
        assert!(recipients("a", &[]).is_err() && recipients("a\n", &["b".into()]).is_err());
        assert!(check_address(&"a".repeat(ADDRESS_BYTES_MAX + 1)).is_err());
        assert!(check_address("\"open@x").is_err() && check_address("\"a\\\" >\"@x").is_ok());
    }
}

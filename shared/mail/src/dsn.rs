//! Non-delivery notices (RFC 3464, RFC 3461, RFC 6533).

use std::fmt::Write;

use crate::date;
use crate::envelope::{BodyType, Envelope, Notify, Recipient};
use crate::fold::{fold, one_line};
use crate::header::fields;
use crate::quoted_printable;
use crate::xtext;

/// Most of the failed message's header that goes back, in bytes of whole fields: enough to recognise any
/// message by, and a notice cannot be made much larger than what caused it.
pub const RETURNED_BYTES_MAX: usize = 64 * 1024;
/// Longest reply of a next hop that is shown, in bytes (RFC 5321, 4.5.3.1.5).
const REPLY_BYTES_MAX: usize = 512;

/// What a notice tells.
#[derive(Clone, Copy, Debug)]
pub struct Notice<'a> {
    /// This host's name.
    pub host: &'a str,
    /// The notice's own id, unlike any other of this host: Message-ID and boundary derive from it.
    pub id: &'a str,
    /// The failed message's.
    pub envelope: &'a Envelope,
    /// The failed message's; only fields are taken from it, so that it may be the start of the message too.
    pub header_block: &'a [u8],
    /// When the failed message came in.
    pub arrived_unix_seconds: u64,
    pub now_unix_seconds: u64,
    /// Those who will not get it. Whoever does not want to be told of is left out.
    pub failures: &'a [Failure<'a>],
}

/// One recipient that the message could not be handed on to.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    pub recipient: &'a Recipient,
    /// The next hop's last reply, its code first, or our own words.
    pub reply: &'a str,
    /// Who replied; `None` where the reply is our own.
    pub remote_mta: Option<&'a str>,
    /// Whether it failed by time: then a reply may be a temporary one, or none.
    pub expired: bool,
}

/// A notice, ready to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dsn {
    /// From the null sender to the failed message's sender.
    pub envelope: Envelope,
    /// With CRLF line ends. 7-bit, save for the address in `To` where the envelope says SMTPUTF8.
    pub message: Vec<u8>,
}

/// Whether the sender wants to hear that this recipient failed: by NOTIFY=FAILURE, or by having said nothing (RFC
/// 3461, 4.1).
pub fn wanted(recipient: &Recipient) -> bool {
    recipient.notify.is_none_or(|notify| notify.failure)
}

/// The notice, or `None` where there must be none: the failed message came from the null sender (RFC 5321,
/// 4.5.5), or none of the failures is [`wanted`].
///
/// It has three parts (RFC 6522): words for people, `message/delivery-status`, and the header of the failed
/// message. The body never goes back, also where RET=FULL requests it (RFC 3461, 4.3): what went astray
/// might be what the hook is there to stop.
pub fn build(notice: &Notice<'_>) -> Option<Dsn> {
    if notice.envelope.is_null_sender() {
        return None;
    }
    let failures: Vec<&Failure<'_>> =
        notice.failures.iter().filter(|failure| wanted(failure.recipient)).collect();
    if failures.is_empty() {
        return None;
    }
    // RFC 2046, 5.1.1 allows 70 characters.
    let boundary = format!("=_gantry-{:.48}", word(notice.id));
    let mut message = head(notice, &boundary).into_bytes();
    let mut add = |content_type: &str, content: &[u8]| {
        push_part(&mut message, &boundary, content_type, content);
    };
    add("text/plain; charset=utf-8", people_text(notice, &failures).as_bytes());
    add("message/delivery-status", delivery_status(notice, &failures).as_bytes());
    add("text/rfc822-headers", &returned_header(notice.header_block));
    message.extend_from_slice(format!("--{boundary}--\r\n").as_bytes());
    Some(Dsn { envelope: return_envelope(&notice.envelope.sender), message })
}

/// The enhanced status code (RFC 3463) that a failure is reported with: the reply's own, or what its first digit says.
pub fn status(reply: &str, expired: bool) -> String {
    let otherwise = if expired { "4.4.7" } else { "5.0.0" };
    let Some((code, text)) = split_code(reply) else { return otherwise.to_owned() };
    let class = code.get(..1).unwrap_or_default();
    let enhanced = text.split([' ', '\r', '\n']).next().unwrap_or_default();
    let mut numbers = enhanced.split('.');
    let is_number = |number: &str| {
        (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit())
    };
    let fits = numbers.next() == Some(class)
        && numbers.next().is_some_and(is_number)
        && numbers.next().is_some_and(is_number)
        && numbers.next().is_none();
    if fits { enhanced.to_owned() } else { format!("{class}.0.0") }
}

fn head(notice: &Notice<'_>, boundary: &str) -> String {
    let host = word(notice.host);
    let sender: String = notice.envelope.sender.chars().map(visible).collect();
    format!(
        "From: Mail delivery <MAILER-DAEMON@{host}>\r\n\
         To: <{sender}>\r\n\
         Subject: Your message was not delivered\r\n\
         Date: {date}\r\n\
         Message-ID: <{id}.notice@{host}>\r\n\
         Auto-Submitted: auto-replied\r\n\
         MIME-Version: 1.0\r\n\
         Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"{boundary}\"\r\n\
         \r\n",
        date = date::rfc5322(notice.now_unix_seconds),
        id = word(notice.id),
    )
}

fn people_text(notice: &Notice<'_>, failures: &[&Failure<'_>]) -> String {
    let mut text = format!(
        "This is the mail host {}.\r\n\r\n\
         Your message could not be delivered to the recipients below, and will not be\r\n\
         tried again.\r\n\r\n",
        word(notice.host)
    );
    for failure in failures {
        let address: String = failure.recipient.address.chars().map(visible).collect();
        text.push_str(&format!("<{address}>\r\n"));
        if failure.expired {
            text.push_str("  was tried until its time was up.\r\n");
        }
        let reply = one_line(failure.reply, REPLY_BYTES_MAX);
        if !reply.is_empty() {
            let said = if failure.remote_mta.is_some() { "  its mail host said:" } else { " " };
            text.push_str(&fold(said, reply.split(' ')));
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
    }
    text.push_str(
        "A report for programs and the header of your message are attached. Its body is\r\n\
         not sent back.\r\n",
    );
    text
}

/// RFC 3464, 2: a group of fields for the message, and one for each recipient.
fn delivery_status(notice: &Notice<'_>, failures: &[&Failure<'_>]) -> String {
    let mut fields = String::new();
    let envid = notice.envelope.parameters.envid.as_deref().and_then(decode_printable);
    if let Some(envid) = envid {
        push_field(&mut fields, "Original-Envelope-Id:", &envid);
    }
    push_field(&mut fields, "Reporting-MTA: dns;", &word(notice.host));
    push_field(&mut fields, "Arrival-Date:", &date::rfc5322(notice.arrived_unix_seconds));
    for Failure { recipient, reply, remote_mta, expired } in failures {
        fields.push_str("\r\n");
        if let Some((kind, address)) = recipient.orcpt.as_deref().and_then(original_recipient) {
            push_field(&mut fields, &format!("Original-Recipient: {kind};"), &address);
        }
        let (kind, address) = final_recipient(&recipient.address);
        push_field(&mut fields, &format!("Final-Recipient: {kind};"), &address);
        push_field(&mut fields, "Action:", "failed");
        push_field(&mut fields, "Status:", &status(reply, *expired));
        if let Some(remote_mta) = remote_mta {
            push_field(&mut fields, "Remote-MTA: dns;", &one_line(remote_mta, REPLY_BYTES_MAX));
        }
        let kind = if split_code(reply).is_some() { "smtp" } else { "X-Gantry" };
        let reply = one_line(reply, REPLY_BYTES_MAX);
        if !reply.is_empty() {
            push_field(&mut fields, &format!("Diagnostic-Code: {kind};"), &reply);
        }
    }
    fields
}

fn push_field(fields: &mut String, start: &str, text: &str) {
    fields.push_str(&fold(start, text.split(' ')));
    fields.push_str("\r\n");
}

/// ORCPT as the report shows it. Values that are no xtext, or not printable, are left out (RFC 3464, 2.3.1: optional).
fn original_recipient(orcpt: &str) -> Option<(String, String)> {
    let (kind, address) = orcpt.split_once(';')?;
    let atom = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    if kind.is_empty() || !kind.bytes().all(atom) {
        return None;
    }
    // RFC 6533, 3: this type has an encoding of its own, of which an xtext decoder would know nothing.
    let address = if kind.eq_ignore_ascii_case("utf-8") {
        address.chars().map(embed_unless_graphic).collect()
    } else {
        decode_printable(address)?
    };
    (!address.is_empty()).then(|| (kind.to_owned(), address))
}

/// The recipient's address and its type: `utf-8` for those with more than ASCII, in the 7-bit form of RFC 6533, 3.
fn final_recipient(address: &str) -> (&'static str, String) {
    if address.is_ascii() {
        return ("rfc822", address.chars().map(visible).collect());
    }
    let embed = |character: char| match character {
        '\\' | '+' | '=' => embedded(character),
        _ => embed_unless_graphic(character),
    };
    ("utf-8", address.chars().map(embed).collect())
}

fn embed_unless_graphic(character: char) -> String {
    if character.is_ascii_graphic() { character.to_string() } else { embedded(character) }
}

fn embedded(character: char) -> String {
    format!("\\x{{{:02X}}}", u32::from(character))
}

fn decode_printable(text: &str) -> Option<String> {
    let decoded = String::from_utf8(xtext::decode(text).ok()?).ok()?;
    let printable = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    decoded.bytes().all(printable).then_some(decoded)
}

/// The three digits of an SMTP reply and the text behind them.
fn split_code(reply: &str) -> Option<(&str, &str)> {
    let (code, text) = reply.split_at_checked(3)?;
    let digits =
        code.starts_with(['2', '4', '5']) && code.bytes().all(|byte| byte.is_ascii_digit());
    let text = match text.strip_prefix([' ', '-']) {
        None if !text.is_empty() => return None,
        text => text.unwrap_or_default(),
    };
    digits.then_some((code, text))
}

/// Whole fields from the top, up to the bound.
fn returned_header(block: &[u8]) -> Vec<u8> {
    let mut returned = Vec::new();
    for field in fields(block).filter(|field| !field.name.is_empty()) {
        if returned.len() + field.raw.len() > RETURNED_BYTES_MAX {
            break;
        }
        returned.extend_from_slice(field.raw);
    }
    returned
}

fn return_envelope(sender: &str) -> Envelope {
    let smtputf8 = !sender.is_ascii();
    // NOTIFY=NEVER: a notice must never cause another.
    let recipient =
        Recipient { address: sender.to_owned(), notify: Some(Notify::default()), orcpt: None };
    let mut envelope = Envelope { recipients: vec![recipient], ..Envelope::default() };
    envelope.parameters.smtputf8 = smtputf8;
    envelope.parameters.body = smtputf8.then_some(BodyType::EightBitMime);
    envelope
}

fn push_part(message: &mut Vec<u8>, boundary: &str, content_type: &str, content: &[u8]) {
    let mut head = format!("--{boundary}\r\nContent-Type: {content_type}\r\n");
    // The boundary has `=_` in it, which quoted-printable cannot have: no header can cut the report short.
    let plain = quoted_printable::is_plain(content)
        && !content.windows(boundary.len()).any(|window| window == boundary.as_bytes());
    if plain {
        head.push_str("\r\n");
        message.extend_from_slice(head.as_bytes());
        message.extend_from_slice(content);
    } else {
        head.push_str("Content-Transfer-Encoding: quoted-printable\r\n\r\n");
        message.extend_from_slice(head.as_bytes());
        quoted_printable::encode(content, message);
    }
    message.extend_from_slice(b"\r\n");
}

fn visible(character: char) -> char {
    if character.is_control() || "<>".contains(character) { '?' } else { character }
}

/// A host's name or an id, kept to what may stand anywhere in a header.
fn word(text: &str) -> String {
    let mut word = String::new();
    let fits = |character: &char| character.is_ascii_alphanumeric() || "-._".contains(*character);
    for character in text.chars().take(255) {
        let _ = word.write_char(Some(character).filter(fits).unwrap_or('-'));
    }
    word
}

#[cfg(test)]
mod tests;

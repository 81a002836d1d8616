//! The `Received` field that a hook adds (RFC 5321, 4.4).

use std::net::IpAddr;

use crate::date;
use crate::envelope::{ADDRESS_BYTES_MAX, Came, Recipient};
use crate::fold::fold;

/// Longest name that is written, in bytes (RFC 5321, 4.5.3.1.2); what a client said beyond that is cut.
const DOMAIN_BYTES_MAX: usize = 255;

/// What the field tells.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a> {
    /// What the client said in HELO or EHLO, as it came.
    pub helo: &'a str,
    /// Where it connected from.
    pub address: Option<IpAddr>,
    /// This host's name.
    pub by: &'a str,
    pub came: Came,
    /// Whether the client had said STARTTLS.
    pub tls: bool,
    /// Whether MAIL had SMTPUTF8.
    pub utf8: bool,
    /// The message's id on this host.
    pub id: &'a str,
    /// A single recipient is named; several are not, since one of them may be a secret from the others.
    pub recipients: &'a [Recipient],
    pub unix_seconds: u64,
}

/// The field without its final CRLF, folded under 78 columns where its words allow it. Whatever the client said, it is
/// one field; only with `utf8` it may have UTF-8 in it.
pub fn line(received: &Received<'_>) -> String {
    let utf8 = received.utf8;
    let literal = received.address.map(address_literal);
    let helo = match (domain(received.helo, utf8), &literal) {
        (helo, _) if !helo.is_empty() => helo,
        (_, Some(literal)) => literal.clone(),
        (_, None) => "unknown".to_owned(),
    };
    let mut clauses = vec![format!("from {helo}")];
    clauses.extend(literal.map(|literal| format!("({literal})")));
    clauses.push(format!("by {}", domain(received.by, utf8)));
    clauses.push(program(received.came).to_owned());
    clauses.extend(protocol(received.came, received.tls, utf8).map(|word| format!("with {word}")));
    clauses.push(format!("id {}", domain(received.id, utf8)));
    if let [recipient] = received.recipients
        && is_plain_address(&recipient.address, utf8)
    {
        clauses.push(format!("for <{}>", recipient.address));
    }
    if let Some(last) = clauses.last_mut() {
        last.push(';');
    }
    clauses.push(date::rfc5322(received.unix_seconds));
    fold("Received:", clauses.iter().map(String::as_str))
}

/// The word for how a message came (RFC 3848; RFC 6531, 4.3): the registered ones, which know of SMTP and LMTP alone. `None`
/// for other ways, since the clause may be left out.
pub fn protocol(came: Came, tls: bool, utf8: bool) -> Option<&'static str> {
    Some(match (came, utf8, tls) {
        (Came::Smtp, ..) => "SMTP",
        (Came::Esmtp, false, false) => "ESMTP",
        (Came::Esmtp, false, true) => "ESMTPS",
        (Came::Esmtp, true, false) => "UTF8SMTP",
        (Came::Esmtp, true, true) => "UTF8SMTPS",
        (Came::Lmtp, false, false) => "LMTP",
        (Came::Lmtp, false, true) => "LMTPS",
        (Came::Lmtp, true, false) => "UTF8LMTP",
        (Came::Lmtp, true, true) => "UTF8LMTPS",
        (Came::Pickup | Came::Mark, ..) => return None,
    })
}

fn program(came: Came) -> &'static str {
    match came {
        Came::Esmtp | Came::Smtp | Came::Lmtp => "(Gantry)",
        Came::Pickup => "(Gantry pickup)",
        Came::Mark => "(Gantry mark)",
    }
}

/// RFC 5321, 4.1.3.
fn address_literal(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => format!("[{address}]"),
        IpAddr::V6(address) => format!("[IPv6:{address}]"),
    }
}

/// The name or address literal with `?` for what neither can have.
fn domain(name: &str, utf8: bool) -> String {
    let fits = |character: &char| {
        character.is_ascii_alphanumeric()
            || "-._:[]".contains(*character)
            || utf8 && character.is_alphanumeric()
    };
    let mut domain = String::new();
    for character in name.chars() {
        let character = Some(character).filter(fits).unwrap_or('?');
        if domain.len() + character.len_utf8() > DOMAIN_BYTES_MAX {
            break;
        }
        domain.push(character);
    }
    domain
}

fn is_plain_address(address: &str, utf8: bool) -> bool {
    !address.is_empty()
        && address.len() <= ADDRESS_BYTES_MAX
        && (utf8 || address.is_ascii())
        && !address.contains(|character: char| character.is_control() || "<>".contains(character))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::header::{fields, scan};
    use crate::{HeaderEdit, check_edits};

    fn received<'a>(helo: &'a str, recipients: &'a [Recipient]) -> Received<'a> {
        Received {
            helo,
            address: Some("192.0.2.7".parse().unwrap()),
            by: "mx1.example.com",
            came: Came::Esmtp,
            tls: false,
            utf8: false,
            id: "3-1a7",
            recipients,
            unix_seconds: 1_234_567_890,
        }
    }

    fn recipient(address: &str) -> Recipient {
        Recipient { address: address.into(), ..Recipient::default() }
    }

    #[test]
    fn the_field_as_people_know_it() {
        let one = [recipient("joe@example.com")];
        assert_eq!(
            line(&received("mail.example.org", &one)),
            "Received: from mail.example.org ([192.0.2.7]) by mx1.example.com (Gantry)\r\n \
             with ESMTP id 3-1a7 for <joe@example.com>; Fri, 13 Feb 2009 23:31:30 +0000"
        );
        let several = [recipient("joe@example.com"), recipient("secret@example.com")];
        assert_eq!(
            line(&received("", &several)),
            "Received: from [192.0.2.7] ([192.0.2.7]) by mx1.example.com (Gantry)\r\n \
             with ESMTP id 3-1a7; Fri, 13 Feb 2009 23:31:30 +0000"
        );
    }

    #[test]
    fn addresses_and_protocols() {
        let mapped = Received {
            address: Some("::ffff:192.0.2.7".parse().unwrap()),
            came: Came::Smtp,
            ..received("x", &[])
        };
        assert!(
            line(&mapped).contains("from x ([192.0.2.7]) by mx1.example.com (Gantry) with SMTP")
        );
        let v6 = Received { address: Some("2001:db8::1".parse().unwrap()), ..mapped };
        assert!(line(&v6).contains("([IPv6:2001:db8::1])"));
        let odd = [recipient("joe> (x) <ann@example.com")];
        assert!(!line(&received("x", &odd)).contains(" for "));
        let nothing = Received { address: None, ..received("", &[]) };
        assert!(line(&nothing).contains("from unknown by "));
    }

    #[test]
    fn the_protocol_is_the_one_that_was_spoken() {
        let with = |came, tls, utf8| line(&Received { came, tls, utf8, ..received("x", &[]) });
        for (came, tls, utf8, expected) in [
            (Came::Smtp, false, false, "with SMTP id"),
            (Came::Esmtp, true, false, "with ESMTPS id"),
            (Came::Esmtp, true, true, "with UTF8SMTPS id"),
            (Came::Lmtp, false, false, "with LMTP id"),
            (Came::Lmtp, true, false, "with LMTPS id"),
            (Came::Lmtp, false, true, "with UTF8LMTP id"),
            (Came::Pickup, false, false, "(Gantry pickup) id"),
            (Came::Mark, false, true, "(Gantry mark) id"),
        ] {
            let field = with(came, tls, utf8).replace("\r\n ", " ");
            assert!(field.contains(expected), "{expected}: {field}");
        }
    }

    #[test]
    fn utf8_only_where_it_was_agreed() {
        let one = [recipient("j\u{f6}@example.com")];
        let plain = line(&received("gr\u{fc}n.example", &one));
        assert!(plain.is_ascii() && plain.contains("gr?n.example") && !plain.contains(" for "));
        let utf8 = line(&Received { utf8: true, ..received("gr\u{fc}n.example", &one) });
        assert!(utf8.contains("gr\u{fc}n.example") && utf8.contains("for <j\u{f6}@example.com>;"));
        assert!(utf8.contains("with UTF8SMTP"));
    }

    proptest! {
        #[test]
        fn whatever_a_client_says_it_is_one_field(
            helo in "[ -~\r\n\u{e0}-\u{ff}]{0,300}", address in "[ -~\r\n]{0,600}", utf8: bool,
        ) {
            let recipients = [recipient(&address)];
            let field = line(&Received { utf8, ..received(&helo, &recipients) });
            prop_assert_eq!(check_edits(&[HeaderEdit::Prepend { field: field.clone() }]), Ok(()));
            let block = format!("{field}\r\n\r\n");
            let header = scan(block.as_bytes()).unwrap();
            prop_assert_eq!((header.received, header.length), (1, block.len()));
            prop_assert_eq!(fields(block.as_bytes()).count(), 1);
        }
    }
}

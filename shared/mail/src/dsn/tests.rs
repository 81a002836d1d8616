#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use mailparse::{MailHeaderMap, ParsedMail, parse_mail};
use proptest::prelude::*;

use super::*;

fn recipient(address: &str) -> Recipient {
    Recipient { address: address.into(), ..Recipient::default() }
}

fn failure<'a>(recipient: &'a Recipient, reply: &'a str) -> Failure<'a> {
    Failure { recipient, reply, remote_mta: Some("mail.example.net"), expired: false }
}

fn envelope() -> Envelope {
    Envelope { sender: "ann@example.org".into(), ..Envelope::default() }
}

fn notice<'a>(
    envelope: &'a Envelope,
    header_block: &'a [u8],
    failures: &'a [Failure<'a>],
) -> Notice<'a> {
    Notice {
        host: "mx1.example.com",
        id: "3-1a7",
        envelope,
        header_block,
        arrived_unix_seconds: 1_234_567_890,
        now_unix_seconds: 1_234_571_490,
        failures,
    }
}

/// The parts' bodies, decoded.
fn parts(mail: &ParsedMail<'_>) -> [Vec<u8>; 3] {
    let parts: Vec<Vec<u8>> =
        mail.subparts.iter().map(|part| part.get_body_raw().unwrap()).collect();
    parts.try_into().unwrap()
}

#[test]
fn a_notice_as_it_goes_out() {
    let joe = Recipient {
        orcpt: Some("rfc822;joe+2Bx@example.com".into()),
        ..recipient("joe@b.example")
    };
    let mut envelope = envelope();
    envelope.parameters.envid = Some("QQ+2B314".into());
    let failures = [failure(&joe, "550 5.1.1 no such user")];
    let block = b"Subject: x\r\n folded\r\nFrom: ann@example.org\r\n\r\nbody";
    let dsn = build(&notice(&envelope, block, &failures)).unwrap();
    let expected = "From: Mail delivery <MAILER-DAEMON@mx1.example.com>\r\n\
        To: <ann@example.org>\r\n\
        Subject: Your message was not delivered\r\n\
        Date: Sat, 14 Feb 2009 00:31:30 +0000\r\n\
        Message-ID: <3-1a7.notice@mx1.example.com>\r\n\
        Auto-Submitted: auto-replied\r\n\
        MIME-Version: 1.0\r\n\
        Content-Type: multipart/report; report-type=delivery-status;\r\n boundary=\"=_gantry-3-1a7\"\r\n\
        \r\n\
        --=_gantry-3-1a7\r\n\
        Content-Type: text/plain; charset=utf-8\r\n\
        \r\n\
        This is the mail host mx1.example.com.\r\n\
        \r\n\
        Your message could not be delivered to the recipients below, and will not be\r\n\
        tried again.\r\n\
        \r\n\
        <joe@b.example>\r\n  its mail host said: 550 5.1.1 no such user\r\n\
        \r\n\
        A report for programs and the header of your message are attached. Its body is\r\n\
        not sent back.\r\n\
        \r\n\
        --=_gantry-3-1a7\r\n\
        Content-Type: message/delivery-status\r\n\
        \r\n\
        Original-Envelope-Id: QQ+314\r\n\
        Reporting-MTA: dns; mx1.example.com\r\n\
        Arrival-Date: Fri, 13 Feb 2009 23:31:30 +0000\r\n\
        \r\n\
        Original-Recipient: rfc822; joe+x@example.com\r\n\
        Final-Recipient: rfc822; joe@b.example\r\n\
        Action: failed\r\n\
        Status: 5.1.1\r\n\
        Remote-MTA: dns; mail.example.net\r\n\
        Diagnostic-Code: smtp; 550 5.1.1 no such user\r\n\
        \r\n\
        --=_gantry-3-1a7\r\n\
        Content-Type: text/rfc822-headers\r\n\
        \r\n\
        Subject: x\r\n folded\r\nFrom: ann@example.org\r\n\
        \r\n\
        --=_gantry-3-1a7--\r\n";
    assert_eq!(String::from_utf8(dsn.message).unwrap(), expected);
    assert!(dsn.envelope.is_null_sender() && !dsn.envelope.parameters.smtputf8);
    assert_eq!(dsn.envelope.recipients[0].address, "ann@example.org");
    assert_eq!(dsn.envelope.recipients[0].notify, Some(Notify::default()), "never again");
}

#[test]
fn nobody_is_told_who_must_not_be() {
    let silent = recipient("a@example.com");
    let notify = |failure: bool, success: bool| Recipient {
        notify: Some(Notify { success, failure, delay: false }),
        ..recipient("b@example.com")
    };
    let (yes, no, never) = (notify(true, true), notify(false, true), notify(false, false));
    assert!(wanted(&silent) && wanted(&yes) && !wanted(&no) && !wanted(&never));

    let unwanted = [failure(&no, "550 x"), failure(&never, "550 x")];
    assert_eq!(build(&notice(&envelope(), b"", &unwanted)), None);
    assert_eq!(build(&notice(&envelope(), b"", &[])), None);
    assert_eq!(build(&notice(&Envelope::default(), b"", &[failure(&silent, "550 x")])), None);

    let mixed = [failure(&silent, "550 x"), failure(&never, "550 x")];
    let text =
        String::from_utf8(build(&notice(&envelope(), b"", &mixed)).unwrap().message).unwrap();
    assert!(text.contains("a@example.com") && !text.contains("b@example.com"));
}

#[test]
fn the_status_comes_from_the_reply() {
    for (reply, expired, expected) in [
        ("550 5.1.1 no such user", false, "5.1.1"),
        ("550-5.7.26 first line\r\n550 5.7.26 second", false, "5.7.26"),
        ("552 too big", false, "5.0.0"),
        ("550 4.1.1 wrong class", false, "5.0.0"),
        ("550 5.1 short", false, "5.0.0"),
        ("550 5.1.1.1 long", false, "5.0.0"),
        ("550 5.1.1234 long", false, "5.0.0"),
        ("550 5.a.1 odd", false, "5.0.0"),
        ("550", false, "5.0.0"),
        ("5501 odd", false, "5.0.0"),
        ("451 4.3.0 later", true, "4.3.0"),
        ("451 later", true, "4.0.0"),
        ("connect to 127.0.0.1:10026: refused", true, "4.4.7"),
        ("gr\u{fc}n", false, "5.0.0"),
        ("", false, "5.0.0"),
    ] {
        assert_eq!(status(reply, expired), expected, "{reply:?}");
    }
}

#[test]
fn our_own_words_are_no_smtp_reply() {
    let joe = recipient("joe@example.com");
    let reply = "connect to 127.0.0.1:10026: refused";
    let failures = [Failure { remote_mta: None, expired: true, ..failure(&joe, reply) }];
    let dsn = build(&notice(&envelope(), b"", &failures)).unwrap();
    let mail = parse_mail(&dsn.message).unwrap();
    let [text, report, _] = parts(&mail).map(|part| String::from_utf8(part).unwrap());
    assert!(text.contains("  was tried until its time was up.\r\n  connect to"), "{text}");
    assert!(report.contains("Status: 4.4.7\r\nDiagnostic-Code: X-Gantry; connect to"), "{report}");
    assert!(!report.contains("Remote-MTA"));
}

#[test]
fn addresses_beyond_ascii() {
    let joe = Recipient {
        orcpt: Some("utf-8;j\u{f6}\\x{FC}@x".into()),
        ..recipient("j\u{f6}+\\@b\u{fc}.example")
    };
    let failures = [failure(&joe, "550 5.1.1 kein \u{fc}")];
    let envelope = Envelope { sender: "\u{e4}nn@example.org".into(), ..Envelope::default() };
    let dsn = build(&notice(&envelope, b"", &failures)).unwrap();
    assert!(dsn.envelope.parameters.smtputf8);
    let mail = parse_mail(&dsn.message).unwrap();
    assert_eq!(mail.headers.get_first_value("To").unwrap(), "<\u{e4}nn@example.org>");
    let [text, report, _] = parts(&mail).map(|part| String::from_utf8(part).unwrap());
    assert!(text.contains("<j\u{f6}+\\@b\u{fc}.example>"), "{text}");
    let original = r"Original-Recipient: utf-8; j\x{F6}\x{FC}@x";
    let last = r"Final-Recipient: utf-8; j\x{F6}\x{2B}\x{5C}@b\x{FC}.example";
    assert!(report.contains(original) && report.contains(last), "{report}");
    assert!(report.contains("Diagnostic-Code: smtp; 550 5.1.1 kein ?\r\n"), "{report}");
    let body = dsn.message.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    assert!(dsn.message[body..].is_ascii(), "only To may be 8-bit");
}

#[test]
fn odd_parameters_are_left_out() {
    for orcpt in
        ["", "rfc822", ";x", "rfc822;a b", "rfc822;+0D+0A", "r c;x", "rfc822;+FF", "rfc822;"]
    {
        let joe = Recipient { orcpt: Some(orcpt.into()), ..recipient("joe@example.com") };
        let mut envelope = envelope();
        envelope.parameters.envid = Some("a+0D+0Ab".into());
        let message = build(&notice(&envelope, b"", &[failure(&joe, "550 x")])).unwrap().message;
        assert!(!String::from_utf8(message).unwrap().contains("Original-"), "{orcpt:?}");
    }
}

#[test]
fn a_header_cannot_cut_the_report_short() {
    let joe = recipient("joe@example.com");
    let failures = [failure(&joe, "550 x")];
    let long = format!("X: {}\r\n\r\n", "a".repeat(2_000));
    for block in [
        &b"--=_gantry-3-1a7--: x\r\nSubject: y\r\n\r\n"[..],
        b"Subject: gr\xfcn\r\n\r\n",
        b"Subject: a\rb\nc\0\r\n\r\n",
        long.as_bytes(),
    ] {
        let dsn = build(&notice(&envelope(), block, &failures)).unwrap();
        let mail = parse_mail(&dsn.message).unwrap();
        let encoding = mail.subparts[2].headers.get_first_value("Content-Transfer-Encoding");
        assert_eq!(encoding.as_deref(), Some("quoted-printable"));
        let [_, _, header] = parts(&mail);
        assert!(header.starts_with(&block[..block.len() - 2]), "{header:?}");
    }
}

#[test]
fn what_goes_back_is_bounded() {
    let joe = recipient("joe@example.com");
    let mut block = b"From mx Thu\r\nSubject: x\r\n".to_vec();
    for _ in 0..1_000 {
        block.extend_from_slice(format!("X: {}\r\n", "a".repeat(500)).as_bytes());
    }
    let returned = returned_header(&block);
    assert!(returned.starts_with(b"Subject: x\r\n") && returned.ends_with(b"a\r\n"));
    assert!((RETURNED_BYTES_MAX - 506..=RETURNED_BYTES_MAX).contains(&returned.len()));
    let dsn = build(&notice(&envelope(), &block, &[failure(&joe, "550 x")])).unwrap();
    assert!(dsn.message.len() < RETURNED_BYTES_MAX + 4_096);
}

proptest! {
    #[test]
    fn whatever_is_said_the_report_has_three_parts(
        sender in "[ -~\r\n\u{e0}-\u{ff}]{1,200}",
        address in "[ -~\r\n\u{e0}-\u{ff}]{1,600}",
        reply in "([245][0-9]{2}[ -])?[ -~\r\n\u{e0}-\u{ff}]{0,900}",
        remote in prop::option::of("[ -~\r\n\u{e0}-\u{ff}]{0,300}"),
        orcpt in prop::option::of("[ -~\r\n\u{e0}-\u{ff}]{0,300}"),
        id in "[ -~\r\n]{0,100}",
        block: Vec<u8>,
        expired: bool,
    ) {
        let recipient = Recipient { orcpt, ..recipient(&address) };
        let failures = [Failure { recipient: &recipient, reply: &reply, remote_mta: remote.as_deref(), expired }];
        let envelope = Envelope { sender, ..Envelope::default() };
        let dsn = build(&Notice { id: &id, ..notice(&envelope, &block, &failures) }).unwrap();
        let mail = parse_mail(&dsn.message).unwrap();
        prop_assert_eq!(mail.headers.len(), 8);
        prop_assert_eq!(mail.subparts.len(), 3);
        let report = String::from_utf8(mail.subparts[1].get_body_raw().unwrap()).unwrap();
        prop_assert!(report.is_ascii());
        let groups: Vec<&str> = report.trim_end().split("\r\n\r\n").collect();
        prop_assert_eq!(groups.len(), 2, "{}", report);
        prop_assert_eq!(groups[1].matches("Action: failed").count(), 1);
        let lines = dsn.message.split(|byte| *byte == b'\n');
        prop_assert!(lines.clone().all(|line| line.len() <= 999));
        prop_assert!(lines.rev().skip(1).all(|line| line.ends_with(b"\r")));
    }
}

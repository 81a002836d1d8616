#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use proptest::prelude::*;

use super::*;

fn length(message: &[u8]) -> usize {
    scan(message).unwrap().length
}

fn prepend(field: &str) -> HeaderEdit {
    HeaderEdit::Prepend { field: field.into() }
}

fn remove(name: &str) -> HeaderEdit {
    HeaderEdit::Remove { name: name.into() }
}

/// Headers, and what only looks like headers, in every order.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let pieces = [
        "\r\n",
        "\r",
        "\n",
        " ",
        "\t",
        ":",
        "a",
        "\u{fc}",
        "From ",
        ">From ",
        "From mx Thu\r\n",
        "Subject: x\r\n",
        "SUBJECT : folded\r\n\ton\r\n more\r\n",
        "Received: from a\r\n by b; now\r\n",
        "received:\r\n",
        "X-Gantry: clean\r\n",
        "X-Gantry-Trace: mx1;\r\n abc\r\n",
        "X-Gantryx: y\r\n",
        "Message-ID: <1@x>\r\n",
        "Authentication-Results: mx1; none\r\n",
        "Authentication-Results: mx2; none\r\n",
        "no field\r\n",
        "\r\n\r\n",
    ];
    let piece = prop_oneof![
        9 => prop::sample::select(pieces.to_vec()).prop_map(|piece| piece.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

#[test]
fn where_the_block_ends() {
    for (block, body) in [
        ("", ""),
        ("\r\n", ""),
        ("\r\n", "body"),
        ("A: b\r\n\r\n", "body: x\r\n\r\n"),
        ("A: b\r\n", ""),
        ("A: b", ""),
        ("A:", ""),
        ("A: b\r\n c\r\n\r\n", "\r\n"),
        ("A: b\r\n \r\n\r\n", "body"),
        ("A : b\r\n\r\n", ""),
        ("A: b\rc\nd\r\r\n\r\n", "body"),
        ("A: b\n\nC: d\r\n", "no field"),
        // No field where one should be: the body begins.
        ("", "no field\r\nA: b\r\n"),
        ("", " A: b\r\n\r\n"),
        ("", ": b\r\n\r\n"),
        ("", "\nA: b\r\n"),
        ("A: b\r\n", "no field\r\nC: d\r\n\r\n"),
        ("A: b\r\n", "C"),
        ("A: b\r\n", "C "),
        ("A: b\r\n", "\r"),
        ("A: b\r\n", "\rC: d\r\n\r\n"),
        ("A: b\r\n", "C\u{fc}: d\r\n\r\n"),
        // A mailbox separator on top, and only there.
        ("From mx Thu\r\nA: b\r\n\r\n", "body"),
        (">From mx Thu\r\n on\r\nA: b\r\n\r\n", "body"),
        ("From : b\r\nA: b\r\n", "body"),
        ("", "From\r\nA: b\r\n\r\n"),
        ("", "From "),
        ("", "from mx\r\nA: b\r\n\r\n"),
        ("A: b\r\n", "From mx\r\nC: d\r\n\r\n"),
    ] {
        let message = format!("{block}{body}");
        assert_eq!(length(message.as_bytes()), block.len(), "{message:?}");
    }
}

#[test]
fn what_the_scanner_learns() {
    let message = b"X-Gantry-Trace: mx1;\r\n\tabc \r\nReceived: a\r\nRECEIVED : b\r\nReceived-SPF: c\r\n\
        x-gantry-trace:\r\nX-Gantry-Trace-2: no\r\nMessage-Id: <1@x>\r\nMessage-ID: <2@x>\r\n\r\nReceived: d\r\n";
    let header = scan(message).unwrap();
    assert_eq!(header.received, 2);
    assert_eq!(header.traces, [b"mx1;\tabc".to_vec(), Vec::new()]);
    assert_eq!(header.message_id.as_deref(), Some(&b"<1@x>"[..]));
    let unfinished = scan(b"Message-ID: <1@x>").unwrap();
    assert_eq!(unfinished.message_id.as_deref(), Some(&b"<1@x>"[..]));
}

#[test]
fn what_the_scanner_keeps_is_bounded() {
    let many = "X-Gantry-Trace: t\r\n".repeat(TRACES_MAX + 1);
    assert_eq!(scan(many.as_bytes()).unwrap().traces.len(), TRACES_MAX);

    for (bytes, kept) in [(VALUE_BYTES_MAX, true), (VALUE_BYTES_MAX + 1, false)] {
        let value = "t".repeat(bytes);
        let message = format!("X-Gantry-Trace:{value}\r\nMessage-ID:{value}\r\n\r\n");
        let header = scan(message.as_bytes()).unwrap();
        assert_eq!((header.traces.len(), header.message_id.is_some()), (usize::from(kept), kept));
    }
}

#[test]
fn the_block_is_bounded_and_the_body_is_not() {
    let mut message = b"A: ".to_vec();
    message.resize(HEADER_BLOCK_BYTES_MAX - 4, b'a');
    message.extend_from_slice(b"\r\n\r\n");
    let body_too = [&message[..], &[b'b'; 4_096]].concat();
    assert_eq!(length(&body_too), HEADER_BLOCK_BYTES_MAX);

    message.insert(3, b'a');
    assert_eq!(scan(&message), Err(HeaderTooLong));
    let mut scanner = HeaderScanner::new();
    assert_eq!(scanner.push(&message), Err(HeaderTooLong));
    assert_eq!(scanner.push(b"\r\n\r\n"), Err(HeaderTooLong), "and for ever");
}

#[test]
fn the_end_is_known_at_the_first_byte_that_shows_it() {
    for (message, known_at) in
        [(&b"A: b\r\n\r\nbody"[..], 8), (b"A: b\r\nno field\r\n", 10), (b"\xfcx", 1), (b" x", 1)]
    {
        let mut scanner = HeaderScanner::new();
        let first = message.iter().position(|byte| scanner.push(&[*byte]).unwrap().is_some());
        assert_eq!(first.map(|index| index + 1), Some(known_at), "{message:?}");
    }
}

#[test]
fn edits_change_what_they_name_and_nothing_else() {
    let block = b"A: 1\r\nSubject: x\r\n folded\r\nB: \xfc\r\nsubject : y\r\nC: 3\r\n\r\n";
    let edits = [prepend("X-1: a\r\n b"), remove("SUBJECT"), prepend("Subject: z")];
    let expected = b"X-1: a\r\n b\r\nSubject: z\r\nA: 1\r\nB: \xfc\r\nC: 3\r\n\r\n";
    assert_eq!(edit(block, &edits).unwrap(), expected);
    assert_eq!(edit(b"A: 1\r\n", &[remove("a")]).unwrap(), b"");
    assert!(edit(block, &[prepend("Subject: z\r\n\r\n")]).is_err());
}

#[test]
fn the_body_cannot_continue_what_was_added() {
    let message = b" ; outcome=clean\r\nX-Gantry: clean\r\n";
    let (block, body) = message.split_at(length(message));
    let mut edited = edit(block, &[prepend("X-Gantry: found")]).unwrap();
    assert_eq!(edited, b"X-Gantry: found\r\n\r\n");
    edited.extend_from_slice(body);
    assert_eq!(fields(&edited).count(), 1);
    assert_eq!(edit(b"", &[remove("A")]).unwrap(), b"", "nothing added, nothing changed");
    assert_eq!(edit(b"\r\n", &[prepend("A: b")]).unwrap(), b"A: b\r\n\r\n");
}

#[test]
fn only_what_we_alone_may_say_is_stripped() {
    let block = b"From mx Thu\r\nX-Gantry: a\r\n b\r\nX-Gantry-Foo: c\r\nx-gantry-TRACE : d\r\nX-Gantryfoo: e\r\n\
        X-Gantr: f\r\nAuthentication-Results: (x)\r\n MX1; none\r\nAuthentication-Results: mx2; none\r\n\
        ARC-Authentication-Results: i=1; mx1; none\r\nX: g\r\n\r\nX-Gantry: body\r\n";
    let expected =
        b"From mx Thu\r\nX-Gantryfoo: e\r\nX-Gantr: f\r\nAuthentication-Results: mx2; none\r\n\
        ARC-Authentication-Results: i=1; mx1; none\r\nX: g\r\n\r\nX-Gantry: body\r\n";
    assert_eq!(strip(block, "mx1"), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn pieces_do_not_matter(message in message(), cuts: Vec<prop::sample::Index>) {
        let whole = scan(&message).unwrap();
        let mut bytewise = HeaderScanner::new();
        for byte in &message {
            bytewise.push(&[*byte]).unwrap();
        }
        prop_assert_eq!(bytewise.finish(), whole.clone());

        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len() + 1)).collect();
        ends.push(message.len());
        ends.sort_unstable();
        let (mut scanner, mut start) = (HeaderScanner::new(), 0);
        for end in ends {
            let known = scanner.push(&message[start..end]).unwrap();
            prop_assert_eq!(known, scanner.end());
            prop_assert!(known.is_none_or(|length| length == whole.length));
            start = end;
        }
        prop_assert_eq!(scanner.finish(), whole);
    }

    /// The scanner and the iterator are two readers of one grammar.
    #[test]
    fn both_readers_agree(message in message()) {
        let header = scan(&message).unwrap();
        let found: Vec<Field<'_>> = fields(&message).collect();
        let joined: Vec<u8> = found.iter().flat_map(|field| field.raw).copied().collect();
        let behind = &message[joined.len()..];
        let empty_line = if behind.starts_with(b"\r\n") { 2 } else { 0 };
        prop_assert!(message.starts_with(&joined));
        prop_assert_eq!(header.length, joined.len() + empty_line);
        let received = found.iter().filter(|field| field.is("received")).count();
        prop_assert_eq!(header.received, received);
        let block = &message[..header.length];
        prop_assert!(fields(block).eq(found));
        prop_assert_eq!(scan(block).unwrap(), header);
    }

    #[test]
    fn what_stands_behind_the_block_does_not_matter(message in message(), other: Vec<u8>) {
        let header = scan(&message).unwrap();
        if message[..header.length].ends_with(b"\r\n\r\n") {
            let changed = [&message[..header.length], &other].concat();
            prop_assert_eq!(scan(&changed).unwrap(), header);
        }
    }

    #[test]
    fn without_edits_nothing_changes(message in message()) {
        prop_assert_eq!(edit(&message, &[]).unwrap(), message.clone());
        let block = &message[..length(&message)];
        prop_assert_eq!(edit(block, &[remove("No-Such-Field")]).unwrap(), block);
    }

    #[test]
    fn edits_never_touch_the_body(message in message()) {
        let end = length(&message);
        let (block, body) = message.split_at(end);
        let edits = [prepend("X-Gantry: a\r\n b"), remove("received"), remove("Subject")];
        let edited = edit(block, &edits).unwrap();
        let added = b"X-Gantry: a\r\n b\r\n";
        prop_assert!(edited.starts_with(added));
        let kept: Vec<u8> = fields(block)
            .filter(|field| !field.is("Received") && !field.is("Subject"))
            .flat_map(|field| field.raw)
            .copied()
            .collect();
        let fields_length = fields(block).map(|field| field.raw.len()).sum();
        let empty_line = if block.is_empty() { &b"\r\n"[..] } else { &block[fields_length..] };
        prop_assert_eq!(&edited[added.len()..], [&kept[..], empty_line].concat());

        // With the body behind it the block ends where it did, unless a mailbox separator is no longer on top.
        let separator = fields(block).any(|field| field.name.is_empty());
        let whole = [&edited[..], body].concat();
        prop_assert!(separator || length(&whole) == edited.len());
    }

    #[test]
    fn stripping_leaves_nothing_of_ours(message in message()) {
        let block = &message[..length(&message)];
        let stripped = strip(block, "mx1");
        for field in fields(&stripped) {
            let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
            prop_assert!(name != "x-gantry" && !name.starts_with("x-gantry-"), "{name}");
            prop_assert!(!(name == "authentication-results" && field.value == b" mx1; none"));
        }
        prop_assert_eq!(strip(&stripped, "mx1"), stripped.clone());
        prop_assert!(scan(&stripped).unwrap().traces.is_empty());
        let others = |block: &[u8]| fields(block).filter(|field| field.is("Subject")).count();
        prop_assert_eq!(others(&stripped), others(block));
    }
}

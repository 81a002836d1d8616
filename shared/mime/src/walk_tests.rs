#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use proptest::prelude::*;

use super::*;
use crate::{Parts, READINGS_MAX};

const LIMITS: Limits = Limits { depth_max: 32, parts_max: 1_000 };

/// `path kind body` of all parts in a reading, bodies with visible line ends.
fn seen(message: &str, reading: Reading) -> Vec<String> {
    shown(message, Walk::message(message.as_bytes(), reading, LIMITS))
}

/// The same for all readings together.
fn all(message: &str) -> Vec<String> {
    shown(message, Parts::of_message(message.as_bytes(), LIMITS))
}

fn shown(message: &str, parts: impl Iterator<Item = Part>) -> Vec<String> {
    parts
        .filter(|part| !matches!(part.kind, Kind::Multipart | Kind::Message))
        .map(|part| format!("{} {}", part.path, message[part.body].escape_debug()))
        .collect()
}

#[track_caller]
fn strict(message: &str, expected: &[&str]) {
    assert_eq!(seen(message, Reading::STRICT), expected);
}

/// Only the union of the readings has the part.
#[track_caller]
fn disputed(message: &str, part: &str) {
    let found = all(message);
    assert!(found.iter().any(|other| other == part), "{part} not in {found:#?}");
}

const MIXED: &str = "Content-Type: multipart/mixed; boundary=b\r\n\r\n";

#[test]
fn a_plain_message_is_one_leaf() {
    strict("From: a\r\n\r\nhello\r\n", &["1 hello\\r\\n"]);
    strict("From: a\n\nhello", &["1 hello"]);
    strict("", &["1 "]);
    strict("no header at all", &["1 no header at all"]);
    strict("From: a\r\n", &["1 "]);
}

#[test]
fn multiparts_with_margins() {
    let message = format!(
        "{MIXED}before\r\n--b\r\nA: x\r\n\r\none\r\n--b\r\n\r\ntwo\r\n\r\n--b--\r\nafter\r\n"
    );
    strict(&message, &["preamble before", "1 one", "2 two\\r\\n", "epilogue after\\r\\n"]);
    let whole = Walk::message(message.as_bytes(), Reading::STRICT, LIMITS).last().unwrap();
    assert_eq!((whole.kind, whole.path.as_str(), whole.depth), (Kind::Multipart, "", 0));
    assert_eq!(whole.body.start, MIXED.len());
    assert_eq!(whole.body.end, message.len());
}

#[test]
fn part_metadata() {
    let message = format!(
        "{MIXED}--b\nContent-Type: Application/ZIP;\n name=\"x.zip\"\nContent-Transfer-Encoding: BASE64 \n\
         Content-Disposition: attachment; filename*0=\"long \";\n\tfilename*1*=%41.zip\n\nUEs=\n--b--"
    );
    let part = Walk::message(message.as_bytes(), Reading::STRICT, LIMITS).next().unwrap();
    assert_eq!(part.content_type, "application/zip");
    assert_eq!(part.encodings, [Encoding::Base64]);
    assert_eq!(part.file_name.as_deref(), Some("long A.zip"));
    assert_eq!(part.depth, 1);
    assert!(message[part.header.clone()].ends_with(".zip\n\n"));
    assert_eq!(&message[part.body], "UEs=");
}

#[test]
fn boundaries_folded_quoted_and_in_pieces() {
    for field in [
        "multipart/mixed;\r\n boundary=b",
        "multipart/mixed;\r\n\tboundary\r\n =\r\n \"b\"",
        "MULTIPART/mixed; x=\"; boundary=no\"; Boundary=\"b\"",
        "multipart/mixed; boundary*0=\"\"; boundary*1=b",
        "multipart/mixed; boundary*=utf-8''%62",
        "multipart/mixed; boundary=\"b",
        "(comment)multipart/mixed (x) ; (y)boundary=b",
        "multipart/mixed boundary=b",
    ] {
        strict(&format!("Content-Type: {field}\r\n\r\n--b\r\n\r\none\r\n--b--\r\n"), &["1 one"]);
    }
}

#[test]
fn nested_messages_and_digests() {
    let inner = "Content-Type: multipart/alternative; boundary=i\n\n--i\n\nx\n--i\n\ny\n--i--\n";
    strict(
        &format!("{MIXED}--b\nContent-Type: message/rfc822\n\n{inner}\n--b\n\nlast\n--b--"),
        &["1/1 x", "1/2 y", "2 last"],
    );
    strict(
        "Content-Type: multipart/digest; boundary=b\n\n--b\n\nSubject: a\n\nx\n--b\nContent-Type: text/plain\n\ny\n--b--",
        &["1/1 x", "2 y"],
    );
    strict("Content-Type: message/rfc822\n\nContent-Type: message/rfc822\n\nA: b\n\nx", &["1 x"]);
}

#[test]
fn unclosed_and_crossed_boundaries() {
    let inner = "Content-Type: multipart/mixed; boundary=i\n\n--i\n\nx\n";
    strict(&format!("{MIXED}--b\n{inner}"), &["1/1 x\\n"]);
    strict(&format!("{MIXED}--b\n{inner}--b\n\ny\n--b--"), &["1/1 x", "2 y"]);
    // An inner boundary after its multipart was ended by the outer one belongs to nobody.
    strict(
        &format!("{MIXED}--b\n{inner}--b\n\ny\n--i\n\nz\n--b--"),
        &["1/1 x", "2 y\\n--i\\n\\nz"],
    );
}

#[test]
fn parts_after_the_end_are_parts() {
    strict(
        &format!("{MIXED}--b\n\nx\n--b--\nnoise\n--b\n\ny\n"),
        &["1 x", "epilogue noise", "2 y\\n"],
    );
    let same = "Content-Type: multipart/mixed; boundary=b\n\n--b\n\nx\n--b--\n";
    strict(&format!("{MIXED}--b\n{same}--b\n\ny\n--b--"), &["1/1 x", "2 y"]);
}

#[test]
fn a_boundary_ends_a_header_block_too() {
    strict(&format!("{MIXED}--b\nA: x\n--b\n--b\n\ny\n--b--"), &["1 ", "2 ", "3 y"]);
}

#[test]
fn prefixes_of_boundaries() {
    let inner = "Content-Type: multipart/mixed; boundary=bb\n\n--bb\n\nx\n--bb--\n";
    strict(&format!("{MIXED}--b\n{inner}\n--b\n\ny\n--b--"), &["1/1 x", "2 y"]);
    disputed(&format!("{MIXED}--b junk\n\nx\n--bjunk\n\ny\n--b--"), "2 y");
    disputed(&format!("{MIXED}--b\n\nx\n--b-- junk\n\ny\n"), "epilogue \\ny\\n");
}

#[test]
fn the_last_of_two_types_or_boundaries() {
    let body = "\n--a\n\nx\n--a--\n--c\n\ny\n--c--";
    for header in [
        "Content-Type: multipart/mixed; boundary=a\nContent-Type: multipart/mixed; boundary=c\n",
        "Content-Type: multipart/mixed; boundary=a; boundary=c\n",
        "Content-Type: multipart/mixed; boundary=a; boundary*=''c\n",
        "Content-Type: text/plain\nContent-Type: multipart/mixed; boundary=c\n",
    ] {
        disputed(&format!("{header}{body}"), "1 y");
    }
    disputed(&format!("Content-Type: multipart/mixed; boundary=a; boundary=c\n{body}"), "1 x");
}

#[test]
fn bare_carriage_returns() {
    let message = format!("{MIXED}--b\n\nx\n--b--").replace("\r\n", "\n").replace('\n', "\r");
    disputed(&message, "1 x");
    disputed(&format!("{MIXED}text\r--b\r\rx\r--b--"), "1 x");
    strict(
        &format!("{MIXED}--b\r\r\n\r\r\nx\r\n--b--"),
        &["1 x\\r\\n"].map(|s| s.trim_end_matches("\\r\\n")),
    );
}

#[test]
fn missing_and_doubtful_ends_of_header_blocks() {
    strict(&format!("{MIXED}--b\nA: x\nbody\n\nrest\n--b--"), &["1 body\\n\\nrest"]);
    disputed(&format!("{MIXED}--b\nA: x\nbody\n\nrest\n--b--"), "1 rest");
    disputed(&format!("junk line\n{MIXED}--b\n\nx\n--b--"), "1 x");
    disputed(&format!("\r\n\r\n{MIXED}--b\n\nx\n--b--"), "1 x");
    disputed(&format!("\u{feff}A: b\n{MIXED}--b\n\nx\n--b--"), "1 x");
    disputed("Content-Type: multipart/mixed;\n \n boundary=b\n\n--b\n\nx\n--b--", "1 x");
    strict(&format!("From a@b Mon\n{MIXED}--b\n\nx\n--b--"), &["1 x"]);
}

#[test]
fn boundaries_that_nobody_declared() {
    let body = "--z\nContent-Type: text/plain\n\nx\n--z\nContent-Type: text/plain\n\ny\n--z--\n";
    disputed(&format!("Subject: a\n\nsee:\n{body}"), "1/2 y");
    disputed(&format!("Content-Type: multipart/mixed\n\n{body}"), "1/2 y");
    disputed(&format!("{MIXED}{body}"), "preamble/2 y");
    disputed("Content-Type: text/plain; boundary=z\n\n--z\n\nx\n--z--", "1 x");
}

#[test]
fn a_thousand_containers_are_bounded() {
    let deep = deep(1_000);
    let parts: Vec<_> = Walk::message(&deep, Reading::STRICT, LIMITS).collect();
    assert!(parts.iter().any(|part| part.too_deep), "says that it is too deep");
    assert!(parts.iter().all(|part| part.depth <= 32));
    assert!(deep[parts.iter().find(|part| part.too_deep).unwrap().body.clone()].ends_with(b"core"));
    let huge = Limits { depth_max: u16::MAX, parts_max: u32::MAX };
    let parts = Walk::message(&deep, Reading::STRICT, huge);
    assert_eq!(parts.map(|part| part.depth).max(), Some(DEPTH_LIMIT));
    let messages = "Content-Type: message/rfc822\n\n".repeat(1_000);
    assert!(Parts::of_message(messages.as_bytes(), LIMITS).any(|part| part.too_deep));
}

fn deep(depth: usize) -> Vec<u8> {
    let mut message = String::new();
    for level in 0..depth {
        message += &format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n");
    }
    (message + "\ncore").into_bytes()
}

#[test]
fn too_many_parts_are_cut_and_reported() {
    let message = MIXED.to_owned() + &"--b\n\nx\n".repeat(2_000);
    let mut walk = Walk::message(message.as_bytes(), Reading::STRICT, LIMITS);
    assert_eq!(walk.by_ref().count(), 1_000);
    assert!(walk.too_many());
    let mut parts = Parts::of_message(message.as_bytes(), LIMITS);
    assert_eq!(parts.by_ref().count(), 1_000);
    assert!(parts.too_many());
}

#[test]
fn an_undisputed_message_is_walked_once() {
    let message = format!("{MIXED}pre\r\n--b\r\n\r\nx\r\n--b--\r\n");
    let mut parts = Parts::of_message(message.as_bytes(), LIMITS);
    assert_eq!(parts.by_ref().count(), 3);
    assert_eq!(parts.readings(), 1);
}

#[test]
fn multiparts_without_their_header() {
    let body = "--b\n\nx\n--b--";
    let parts = Parts::of_multipart(body.as_bytes(), b"b".to_vec(), LIMITS);
    assert_eq!(shown(body, parts), ["1 x"]);
}

/// Lines out of which hostile and broken messages are made.
fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        "--(a|b|ab|aa)?(--)?( |x)?",
        "Content-Type: (multipart/mixed|message/rfc822|text/plain|multipart/digest); ?boundary=\"?(a|b|ab)\"?",
        "Content-Transfer-Encoding: (base64|x|7bit)",
        " boundary=(a|b)(; boundary=ab)?",
        "[ -~]{0,20}",
        "\\PC{0,5}",
    ]
}

proptest! {
    #[test]
    fn hostile_messages_are_survived(lines in proptest::collection::vec((line(), "(\r\n|\n|\r|\r\r\n)"), 0..60), depth_max in 0_u16..6, parts_max in 0_u32..40) {
        let message: String = lines.into_iter().map(|(line, end)| line + &end).collect();
        let limits = Limits { depth_max, parts_max };
        let mut parts = Parts::of_message(message.as_bytes(), limits);
        let mut given = 0;
        for part in parts.by_ref() {
            given += 1;
            prop_assert!(part.depth <= depth_max);
            prop_assert!(part.header.start <= part.header.end && part.header.end <= part.body.start);
            prop_assert!(part.body.start <= part.body.end && part.body.end <= message.len());
            prop_assert!(!part.encodings.is_empty());
        }
        prop_assert!(given <= parts_max);
        prop_assert!(parts.readings() <= READINGS_MAX);
    }

    #[test]
    fn garbage_is_survived(bytes: Vec<u8>) {
        let covered: usize = Walk::message(&bytes, Reading::STRICT, LIMITS).map(|part| part.body.len()).sum();
        prop_assert!(covered <= bytes.len());
    }

    /// Every byte of a body lies in a leaf or a margin, or is a boundary line.
    #[test]
    fn well_formed_parts_come_out_as_they_went_in(bodies in proptest::collection::vec("([a-z ]|\r\n){0,40}", 1..6), end in "(\r\n|\n)") {
        let mut message = MIXED.to_owned();
        for body in &bodies {
            message += &format!("--b{end}{end}{body}{end}");
        }
        message += "--b--";
        let leaves: Vec<_> = Walk::message(message.as_bytes(), Reading::STRICT, LIMITS)
            .filter(|part| part.kind == Kind::Leaf)
            .map(|part| message[part.body].to_owned())
            .collect();
        prop_assert_eq!(leaves, bodies);
    }
}

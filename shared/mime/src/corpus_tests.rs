//! Real mail: nothing panics, and a second parser agrees where there is nothing to disagree about.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking")]

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{Encoding, Kind, Limits, Parts, Reading, Walk, base64, quoted_printable, uuencode};

const LIMITS: Limits = Limits { depth_max: 100, parts_max: 10_000 };

/// Messages that mailparse counts otherwise, where ours is meant: parts after a multipart's end are given, and a
/// multipart without any part has a preamble only.
const KNOWN: [&str; 3] = ["bsd-rhost-cox-01.eml", "dos-rhost-cox-01.eml", "multipartnopart.msg"];

/// The corpus beside the project, with the path of each message; none where it is absent.
fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let Some(root) = here.ancestors().skip(1).find_map(|above| {
        let corpus = above.join("../shared/corpus");
        corpus.is_dir().then_some(corpus)
    }) else {
        println!("skipped: no corpus of real mail beside the project");
        return Vec::new();
    };
    let mut messages = Vec::new();
    for set in fs::read_dir(root).unwrap().map(|entry| entry.unwrap().path()) {
        for path in fs::read_dir(set).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if path.extension().is_some_and(|extension| extension == "eml" || extension == "msg") {
                let bytes = fs::read(&path).unwrap();
                messages.push((path, bytes));
            }
        }
    }
    messages.sort();
    messages
}

/// Leaves according to mailparse, nested messages taken apart as well.
fn second_opinion(bytes: &[u8]) -> Option<usize> {
    let mail = mailparse::parse_mail(bytes).ok()?;
    let mut leaves = 0;
    let mut left = vec![mail];
    let mut nested = Vec::new();
    while let Some(mut part) = left.pop() {
        if part.ctype.mimetype.starts_with("multipart/")
            && part.ctype.params.contains_key("boundary")
        {
            // One without parts is no leaf here: what it holds is its preamble.
            left.append(&mut part.subparts);
        } else if matches!(part.ctype.mimetype.as_str(), "message/rfc822" | "message/global") {
            nested.push(part.get_body_raw().ok()?);
        } else {
            leaves += 1;
        }
    }
    for message in nested {
        leaves += second_opinion(&message)?;
    }
    Some(leaves)
}

#[test]
fn real_mail_is_walked_and_decoded_in_every_reading() {
    for (path, bytes) in corpus() {
        let mut parts = Parts::of_message(&bytes, LIMITS);
        for part in parts.by_ref() {
            let body = bytes.get(part.body).unwrap_or_else(|| panic!("range: {}", path.display()));
            for encoding in part.encodings {
                match encoding {
                    Encoding::Identity => drop(uuencode(body, 0, body.len())),
                    Encoding::Base64 => assert!(base64(body, body.len()).whole),
                    Encoding::QuotedPrintable => assert!(quoted_printable(body, body.len()).whole),
                }
            }
        }
        assert!(!parts.too_many(), "{}", path.display());
    }
}

#[test]
fn a_second_parser_agrees_about_undisputed_mail() {
    let (mut undisputed, mut disputed, mut differing) = (0, 0, Vec::new());
    let mut disputed_differing = 0;
    for (path, bytes) in corpus() {
        let mut walk = Walk::message(&bytes, Reading::STRICT, LIMITS);
        let leaves = walk.by_ref().filter(|part| part.kind == Kind::Leaf).count();
        let agrees = second_opinion(&bytes) == Some(leaves);
        if walk.points() == Reading::STRICT {
            undisputed += 1;
            if !agrees {
                differing.push((path, leaves, second_opinion(&bytes)));
            }
        } else {
            disputed += 1;
            disputed_differing += usize::from(!agrees);
        }
    }
    println!(
        "undisputed {undisputed}, of these {} counted otherwise by mailparse",
        differing.len()
    );
    println!("disputed {disputed}, of these {disputed_differing} counted otherwise by mailparse");
    for (path, ours, theirs) in &differing {
        println!("  {}: {ours}, mailparse {theirs:?}", path.display());
    }
    differing.retain(|(path, ..)| !KNOWN.iter().any(|known| path.ends_with(known)));
    assert!(differing.is_empty(), "beyond the known ones: {differing:?}");
}

//! The header block of a message, and edits to it.

use gantry_mail::HeaderEdit;
use gantry_mail::header::{Field, HeaderScanner, edit, fields, scan, strip};

use crate::{pieces, with_cuts};

const OURS: &str = "mx1.example";

/// Bytes that say how to cut, an edit, and a message.
pub(super) fn header(bytes: &[u8]) {
    let (cuts, message) = with_cuts(bytes);
    reading(message, cuts);
    let (text, message) = with_cuts(message);
    let text = String::from_utf8_lossy(text).into_owned();
    changing(message, &[HeaderEdit::Remove { name: text.clone() }]);
    changing(message, &[HeaderEdit::Prepend { field: text.clone() }]);
    let both = [
        HeaderEdit::Prepend { field: "X-Gantry: clean".to_owned() },
        HeaderEdit::Remove { name: text },
    ];
    changing(message, &both);
    stripping(message);
}

/// Both readers find the same block, in whatever pieces it comes.
fn reading(message: &[u8], cuts: &[u8]) {
    let Ok(whole) = scan(message) else { return };
    let mut scanner = HeaderScanner::new();
    for piece in pieces(message, cuts) {
        let known = scanner.push(piece).expect("no longer than the whole");
        assert!(known.is_none_or(|length| length == whole.length));
    }
    assert_eq!(scanner.finish(), whole);
    let found: Vec<Field<'_>> = fields(message).collect();
    let joined: Vec<u8> = found.iter().flat_map(|field| field.raw).copied().collect();
    assert!(message.starts_with(&joined));
    let empty_line = if message[joined.len()..].starts_with(b"\r\n") { 2 } else { 0 };
    assert_eq!(whole.length, joined.len() + empty_line);
    assert_eq!(whole.received, found.iter().filter(|field| field.is("Received")).count());
}

/// What an edit does not name comes out as it went in, and what it adds is one field, on top.
fn changing(message: &[u8], edits: &[HeaderEdit]) {
    let Ok(header) = scan(message) else { return };
    let (block, body) = message.split_at(header.length);
    let Ok(edited) = edit(block, edits) else { return };
    let removed = |field: &Field<'_>| {
        edits.iter().any(|edit| matches!(edit, HeaderEdit::Remove { name } if field.is(name)))
    };
    let mut expected = Vec::new();
    for edit in edits {
        if let HeaderEdit::Prepend { field } = edit {
            expected.extend_from_slice(field.as_bytes());
            expected.extend_from_slice(b"\r\n");
        }
    }
    let added = expected.len();
    if added > 0 && block.is_empty() {
        expected.extend_from_slice(b"\r\n");
    }
    let kept = fields(block).filter(|field| !removed(field));
    expected.extend(kept.flat_map(|field| field.raw));
    let in_fields: usize = fields(block).map(|field| field.raw.len()).sum();
    expected.extend_from_slice(&block[in_fields..]);
    assert_eq!(edited, expected);
    if added > 0 {
        let on_top = fields(&edited).next().expect("what was added is a field");
        assert_eq!(on_top.raw.len(), added, "it is one field and no more");
        let after = [&edited[..], body].concat();
        assert!(scan(&after).map_or(true, |header| header.length >= added));
    }
}

/// Nothing remains that only this host may say, and nothing else goes.
fn stripping(message: &[u8]) {
    let Ok(header) = scan(message) else { return };
    let block = &message[..header.length];
    let stripped = strip(block, OURS);
    let reserved = |field: &Field<'_>| {
        let name = field.name.to_ascii_lowercase();
        name == b"x-gantry" || name.starts_with(b"x-gantry-")
    };
    assert!(!fields(&stripped).any(|field| reserved(&field)));
    assert_eq!(strip(&stripped, OURS), stripped, "what remains, remains");
    let others = |block: &[u8]| -> Vec<u8> {
        let results = |field: &Field<'_>| field.is("Authentication-Results");
        let kept = fields(block).filter(|field| !reserved(field) && !results(field));
        kept.flat_map(|field| field.raw).copied().collect()
    };
    assert_eq!(others(block), others(&stripped));
}

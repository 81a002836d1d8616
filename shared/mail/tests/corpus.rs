//! Header blocks of real mail. The corpus lies beside the project; where it does not, the tests say so and pass.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use gantry_mail::HeaderEdit;
use gantry_mail::header::{self, HeaderScanner, edit, fields, scan};

/// Every message as an intake hands it over: each line ends with CRLF.
fn corpus() -> Vec<(PathBuf, Vec<u8>)> {
    let beside = |folder: &Path| Some(folder.parent()?.join("shared/corpus"));
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .filter(|folder| folder.join("Cargo.lock").is_file())
        .filter_map(beside)
        .find(|folder| folder.is_dir());
    let Some(root) = found else {
        eprintln!("skipped: there is no corpus of real mail beside the project");
        return Vec::new();
    };
    let mut messages = Vec::new();
    let mut folders = vec![root];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "eml" || end == "msg") {
                let message = crlf(&fs::read(&path).unwrap());
                messages.push((path, message));
            }
        }
    }
    assert!(!messages.is_empty(), "the corpus has no message");
    messages
}

fn crlf(raw: &[u8]) -> Vec<u8> {
    let mut message = Vec::with_capacity(raw.len());
    let mut bytes = raw.iter().peekable();
    while let Some(&byte) = bytes.next() {
        match byte {
            b'\r' => {
                bytes.next_if_eq(&&b'\n');
                message.extend_from_slice(b"\r\n");
            }
            b'\n' => message.extend_from_slice(b"\r\n"),
            _ => message.push(byte),
        }
    }
    message
}

#[test]
fn the_block_ends_where_it_should() {
    let messages = corpus();
    let mut with_fields = 0;
    for (path, message) in &messages {
        let header = scan(message).unwrap();
        for size in [1, 7, 4_096] {
            let mut scanner = HeaderScanner::new();
            for chunk in message.chunks(size) {
                scanner.push(chunk).unwrap();
            }
            assert_eq!(scanner.finish(), header, "{} in pieces of {size}", path.display());
        }
        // A second opinion, by lines: the block is over before the first that has neither a colon nor a fold.
        let mut length = 0;
        for line in message.split_inclusive(|byte| *byte == b'\n') {
            if line == b"\r\n" {
                length += 2;
                break;
            }
            let colon = line.iter().position(|byte| *byte == b':');
            let name = colon.map(|colon| line[..colon].trim_ascii_end()).unwrap_or_default();
            let field = !name.is_empty() && name.iter().all(u8::is_ascii_graphic);
            let fold = length > 0 && line.first().is_some_and(|byte| b" \t".contains(byte));
            let separator =
                length == 0 && (line.starts_with(b"From ") || line.starts_with(b">From "));
            if !(field || fold || separator) {
                break;
            }
            length += line.len();
        }
        assert_eq!(header.length, length, "{}", path.display());
        with_fields += usize::from(fields(message).count() > 3);
    }
    assert!(with_fields * 2 >= messages.len(), "{with_fields} of {} have fields", messages.len());
}

#[test]
fn no_edit_changes_no_byte() {
    for (path, message) in corpus() {
        assert!(edit(&message, &[]).unwrap() == message, "{}", path.display());
        let block = &message[..scan(&message).unwrap().length];
        assert!(edit(block, &[]).unwrap() == block, "{}", path.display());
    }
}

#[test]
fn stripping_takes_nothing_of_others() {
    // An Authentication-Results that cannot be read goes too, and real mail may well have one.
    let kept = |message: &[u8]| -> Vec<u8> {
        let others = fields(message).filter(|field| !field.is("Authentication-Results"));
        others.flat_map(|field| field.raw).copied().collect()
    };
    for (path, message) in corpus() {
        let stripped = header::strip(&message, "mx1.gantry.invalid");
        assert!(kept(&stripped) == kept(&message), "{}", path.display());
        let length = |message: &[u8]| scan(message).unwrap().length;
        let below = |message: &[u8]| message[length(message)..].to_vec();
        assert!(below(&stripped) == below(&message), "{}", path.display());
    }
}

#[test]
fn what_is_put_on_top_leaves_all_below_as_it_was() {
    for (path, message) in corpus() {
        let block = &message[..scan(&message).unwrap().length];
        let prepend = HeaderEdit::Prepend { field: "X-Gantry: clean".into() };
        let edited = edit(block, &[prepend]).unwrap();
        assert!(edited.starts_with(b"X-Gantry: clean\r\n"), "{}", path.display());
        assert!(edited.ends_with(block), "{}", path.display());
        // Only a message without a header gets a line more.
        let separator = if block.is_empty() { 2 } else { 0 };
        assert_eq!(edited.len(), block.len() + 17 + separator, "{}", path.display());
    }
}

#[test]
fn removing_a_name_removes_its_lines_and_no_others() {
    let messages = corpus();
    let mut removed = 0;
    for (path, message) in &messages {
        let end = scan(message).unwrap().length;
        let names: BTreeSet<String> = fields(message)
            .map(|field| String::from_utf8(field.name.to_ascii_lowercase()).unwrap())
            .filter(|name| !name.is_empty())
            .collect();
        for name in names {
            let edited = edit(message, &[HeaderEdit::Remove { name: name.clone() }]).unwrap();
            // By lines again: what goes is a line that begins with the name, and the folds below it.
            let (mut expected, mut going) = (Vec::new(), false);
            for line in message[..end].split_inclusive(|byte| *byte == b'\n') {
                if !(line.starts_with(b" ") || line.starts_with(b"\t")) {
                    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(0);
                    going = line[..colon].trim_ascii_end().eq_ignore_ascii_case(name.as_bytes());
                }
                if going {
                    removed += 1;
                } else {
                    expected.extend_from_slice(line);
                }
            }
            expected.extend_from_slice(&message[end..]);
            assert!(edited == expected, "{name} of {}", path.display());
        }
    }
    assert!(removed >= messages.len(), "{removed} lines removed");
}

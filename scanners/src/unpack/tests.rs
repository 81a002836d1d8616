#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "tests fail by panicking, and make small things"
)]

use std::io::{Cursor, Write};

use ::zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};
use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compress, Compression, FlushCompress, write::GzEncoder};
use proptest::prelude::*;

use super::*;

/// The EICAR test string, in two halves so that no scanner takes this file for it.
fn eicar() -> Vec<u8> {
    let halves = ["X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-", "ANTIVIRUS-TEST-FILE!$H+H*"];
    halves.concat().into_bytes()
}

fn limits() -> Limits {
    Limits { bytes_max: 8 << 20, entries_max: 2_000, ..Limits::default() }
}

#[derive(Debug)]
struct Seen {
    pieces: Vec<(String, Vec<u8>, Kind, bool)>,
    report: Report,
}

fn seen(message: &[u8], limits: &Limits) -> Seen {
    let mut pieces = Vec::new();
    let report = unpack(message, limits, &mut |piece| {
        pieces.push((piece.path.to_owned(), piece.bytes.to_vec(), piece.kind, piece.whole));
        ControlFlow::Continue(())
    });
    assert_eq!(report.pieces, pieces.len() as u64);
    let bytes: usize = pieces.iter().skip(1).map(|(_, bytes, ..)| bytes.len()).sum();
    assert_eq!(report.bytes, bytes as u64);
    Seen { pieces, report }
}

/// Kinds of the pieces beside the message itself that contain the EICAR string.
fn eicar_in(seen: &Seen) -> Vec<Kind> {
    let eicar = eicar();
    let pieces = seen.pieces.iter().skip(1);
    let found = pieces.filter(|(_, bytes, ..)| bytes.windows(eicar.len()).any(|at| at == eicar));
    found.map(|(_, _, kind, _)| *kind).collect()
}

/// The string is found in a piece of that kind, and nothing is remarked upon.
#[track_caller]
fn finds(message: &[u8], kind: Kind) {
    let seen = seen(message, &limits());
    assert!(eicar_in(&seen).contains(&kind), "{seen:?}");
    assert_eq!(seen.report.remarks, [], "{seen:?}");
}

/// The string is found, and there is such a remark.
#[track_caller]
fn finds_but(message: &[u8], remark: fn(String) -> Remark) {
    let seen = seen(message, &limits());
    assert!(!eicar_in(&seen).is_empty(), "{seen:?}");
    assert!(has(&seen.report, remark), "{seen:?}");
}

fn has(report: &Report, remark: fn(String) -> Remark) -> bool {
    let kind = std::mem::discriminant(&remark(String::new()));
    report.remarks.iter().any(|kept| std::mem::discriminant(kept) == kind)
}

fn attached(encoding: &str, body: &[u8]) -> Vec<u8> {
    let mut message = format!(
        "From: a\r\nContent-Type: multipart/mixed; boundary=\"b=\"\r\n\r\n--b=\r\n\r\nhello\r\n--b=\r\n\
         Content-Type: application/octet-stream; name=it\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n"
    )
    .into_bytes();
    message.extend_from_slice(body);
    message.extend_from_slice(b"\r\n--b=--\r\n");
    message
}

fn in_base64(bytes: &[u8]) -> Vec<u8> {
    let text = STANDARD.encode(bytes);
    let lines: Vec<_> = text.as_bytes().chunks(76).collect();
    attached("base64", &lines.join(&b"\r\n"[..]))
}

fn zipped_as(name: &str, bytes: &[u8], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(method);
    zip.start_file(name, options).unwrap();
    zip.write_all(bytes).unwrap();
    zip.finish().unwrap().into_inner()
}

fn zipped(name: &str, bytes: &[u8]) -> Vec<u8> {
    zipped_as(name, bytes, CompressionMethod::Deflated)
}

#[test]
fn the_message_itself_comes_first() {
    let message = attached("7bit", b"x");
    let seen = seen(&message, &limits());
    assert_eq!(seen.pieces[0], (String::new(), message, Kind::Message, true));
    let rest: Vec<_> =
        seen.pieces[1..].iter().map(|(path, bytes, ..)| (path.as_str(), &**bytes)).collect();
    assert_eq!(rest, [("1", &b"hello"[..]), ("2/it", b"x")]);
    assert_eq!(seen.report.readings, 1);
}

#[test]
fn eicar_in_every_encoding() {
    let body = eicar();
    finds(&[b"From: a\r\n\r\n", &body[..]].concat(), Kind::Part);
    finds(&attached("7bit", &body), Kind::Part);
    finds(&in_base64(&body), Kind::Part);
    let quoted: String = body.iter().map(|byte| format!("={byte:02X}")).collect();
    finds(&attached("quoted-printable", quoted.replace("=50", "=50=\r\n").as_bytes()), Kind::Part);
    for encoding in ["Base64 ", "base64;", "\tBASE64 (x)", "x-base64", "\"base64\"", "garbage"] {
        finds(&attached(encoding, STANDARD.encode(&body).as_bytes()), Kind::Part);
    }
    // Said to be base64, and is not.
    finds(&attached("base64", &body), Kind::Undecoded);
    let twice = "7bit\r\nContent-Transfer-Encoding: base64";
    finds(&attached(twice, STANDARD.encode(&body).as_bytes()), Kind::Part);
    let mut junk = STANDARD.encode(&body).into_bytes();
    junk.splice(20..20, *b"!*\r\n ");
    finds(&attached("base64", &junk), Kind::Part);
}

#[test]
fn eicar_in_margins_and_uuencode() {
    let coded = STANDARD.encode(eicar());
    let message = attached("7bit", b"x");
    let first = message.windows(6).position(|at| at == b"--b=\r\n").unwrap();
    for (at, kind) in [(first, Kind::Preamble), (message.len(), Kind::Epilogue)] {
        let mut message = message.clone();
        message.splice(at..at, [&eicar()[..], b"\r\n"].concat());
        finds(&message, kind);
    }
    let lines: Vec<String> = eicar().chunks(45).map(uu_line).collect();
    let block = format!("see:\r\nbegin 644 eicar.com\r\n{}`\r\nend\r\n", lines.concat());
    finds(&attached("7bit", block.as_bytes()), Kind::Uuencoded);
    finds(&in_base64(block.as_bytes()), Kind::Uuencoded);
    finds(
        &attached("7bit", format!("begin-base64 644 x\n{coded}\n====\n").as_bytes()),
        Kind::Uuencoded,
    );
}

fn uu_line(bytes: &[u8]) -> String {
    let mut line = vec![b' ' + bytes.len() as u8];
    for group in bytes.chunks(3) {
        let mut value = [0; 4];
        value[1..=group.len()].copy_from_slice(group);
        let value = u32::from_be_bytes(value);
        line.extend([18, 12, 6, 0].map(|shift| b' ' + (value >> shift & 0x3f) as u8));
    }
    String::from_utf8(line).unwrap() + "\r\n"
}

#[test]
fn eicar_in_nested_messages() {
    let inner = in_base64(&eicar());
    let nest = |kind: &str, encoding: &str, body: &[u8]| {
        let head = format!("Content-Type: {kind}\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n");
        [head.as_bytes(), body].concat()
    };
    finds(&nest("message/rfc822", "8bit", &inner), Kind::Part);
    finds(&nest("message/rfc822", "base64", STANDARD.encode(&inner).as_bytes()), Kind::Part);
    // An attached .eml that says it is something else, and a multipart that must not be encoded.
    finds(&in_base64(&inner), Kind::Part);
    finds(&in_base64(&zipped("a.eml", &inner)), Kind::Part);
    let body = inner.windows(4).position(|at| at == b"--b=").unwrap();
    let coded = STANDARD.encode(&inner[body..]);
    finds(&nest("multipart/mixed; boundary=\"b=\"", "base64", coded.as_bytes()), Kind::Part);
}

#[test]
fn eicar_in_archives() {
    let zip = zipped("eicar.com", &eicar());
    finds(&in_base64(&zip), Kind::Entry);
    finds(&attached("binary", &zip), Kind::Entry);
    finds(&in_base64(&zipped_as("e", &eicar(), CompressionMethod::Stored)), Kind::Entry);
    finds(&in_base64(&zipped("inner.zip", &zip)), Kind::Entry);
    finds(&in_base64(&zipped_as("inner.zip", &zip, CompressionMethod::Stored)), Kind::Entry);
    finds(&in_base64(&[b"MZ, or whatever stands before", &zip[..]].concat()), Kind::Entry);
    finds(&in_base64(&[&zip[..], b"something behind"].concat()), Kind::Entry);
    finds(&in_base64(&[zipped("clean", b"clean"), zip.clone()].concat()), Kind::Entry);
    finds(&in_base64(&[zip.clone(), zipped("clean", b"clean")].concat()), Kind::Entry);
    let mut gzip = GzEncoder::new(Vec::new(), Compression::default());
    gzip.write_all(&zip).unwrap();
    finds(&in_base64(&gzip.finish().unwrap()), Kind::Entry);
    let path = seen(&in_base64(&zip), &limits()).pieces.pop().unwrap().0;
    assert_eq!(path, "2/it/eicar.com");
}

#[test]
fn entries_of_a_nested_stored_zip_are_shown_once() {
    let zip = zipped("eicar.com", &eicar());
    let outer = zipped_as("inner.zip", &zip, CompressionMethod::Stored);
    let seen = seen(&in_base64(&outer), &limits());
    let paths: Vec<_> = seen.pieces[2..].iter().map(|(path, ..)| path.as_str()).collect();
    assert_eq!(paths, ["2/it", "2/it/inner.zip", "2/it/inner.zip/eicar.com"]);
}

#[test]
fn damaged_archives_are_read_as_far_as_they_go() {
    let zip = zipped("eicar.com", &eicar());
    let directory = zip.windows(4).position(|at| at == b"PK\x01\x02").unwrap();
    finds_but(&in_base64(&zip[..directory]), Remark::Malformed);
    let mut broken = zip.clone();
    broken[directory + 42] = 0x77;
    finds_but(&in_base64(&broken), Remark::Malformed);
    let long = [eicar(), (0..60_000_u32).flat_map(u32::to_le_bytes).collect()].concat();
    let cut = zipped("long", &long);
    finds_but(&in_base64(&cut[..cut.len() / 2]), Remark::Malformed);
    // Both headers know the method; each unpacker believes another one.
    let mut differing = zip.clone();
    differing[8] = 0;
    finds_but(&in_base64(&differing), Remark::Malformed);
    differing = zip;
    differing[directory + 10] = 0;
    finds_but(&in_base64(&differing), Remark::Malformed);
}

#[test]
fn encrypted_and_unknown_entries_are_remarked_upon() {
    let zip = zipped("secret", &eicar());
    let directory = zip.windows(4).position(|at| at == b"PK\x01\x02").unwrap();
    let mut encrypted = zip.clone();
    encrypted[6] |= 1;
    finds_but(&in_base64(&encrypted), Remark::Encrypted);
    encrypted[directory + 8] |= 1;
    let seen_encrypted = seen(&in_base64(&encrypted), &limits());
    assert_eq!(
        seen_encrypted.report.remarks,
        [Remark::Encrypted("‹2/it/secret›: encrypted".into())]
    );
    let mut unknown = zip;
    unknown[8] = 14;
    unknown[directory + 10] = 14;
    assert!(has(&seen(&in_base64(&unknown), &limits()).report, Remark::Unknown));
}

/// A raw deflate stream of `count` MiB of zeros, repeated rather than compressed.
fn zeros(count: usize) -> Vec<u8> {
    let mut compress = Compress::new(Compression::best(), false);
    let mut block = Vec::with_capacity(64 << 10);
    compress.compress_vec(&vec![0; 1 << 20], &mut block, FlushCompress::Full).unwrap();
    let mut stream = block.repeat(count);
    stream.extend_from_slice(b"\x03\x00");
    stream
}

/// An archive with one entry that claims `size` bytes.
fn claiming(stream: &[u8], size: u32) -> Vec<u8> {
    let mut header = Vec::new();
    for part in [0, 8, 0, 0] {
        header.extend_from_slice(&u16::to_le_bytes(part));
    }
    for part in [0, stream.len() as u32, size] {
        header.extend_from_slice(&part.to_le_bytes());
    }
    header.extend_from_slice(b"\x01\x00\x00\x00");
    let mut zip = [b"PK\x03\x04\x14\x00", &header[..], b"z", stream].concat();
    let directory = zip.len() as u32;
    zip.extend_from_slice(&[b"PK\x01\x02\x14\x00\x14\x00", &header[..], &[0; 14], b"z"].concat());
    let length = zip.len() as u32 - directory;
    zip.extend_from_slice(b"PK\x05\x06\x00\x00\x00\x00\x01\x00\x01\x00");
    zip.extend_from_slice(&[length.to_le_bytes(), directory.to_le_bytes()].concat());
    zip.extend_from_slice(b"\x00\x00");
    zip
}

#[test]
fn bombs_stop_at_the_budget_whatever_they_claim() {
    for claim in [u32::MAX, 10, 0] {
        let ten_gigabytes = claiming(&zeros(10_000), claim);
        let seen =
            seen(&attached("binary", &ten_gigabytes), &Limits { ratio_max: 2_000, ..limits() });
        assert!(has(&seen.report, Remark::OverBudget), "{:?}", seen.report);
        assert!(seen.report.bytes <= limits().bytes_max);
    }
    let small = claiming(&zeros(4), 4 << 20);
    let seen_small = seen(&in_base64(&small), &limits());
    assert!(has(&seen_small.report, Remark::OverBudget), "by its ratio: {:?}", seen_small.report);
    let (_, bytes, _, whole) = seen_small.pieces.last().unwrap();
    assert!((1 << 20..4 << 20).contains(&bytes.len()) && !whole, "what there was is shown");
    let allowed = seen(&in_base64(&small), &Limits { ratio_max: 2_000, ..limits() });
    assert!(!has(&allowed.report, Remark::OverBudget), "{:?}", allowed.report);
    assert_eq!(allowed.pieces.last().unwrap().1.len(), 4 << 20);
}

#[test]
fn a_claim_alone_is_no_bomb() {
    let mut zip = zipped("eicar.com", &eicar());
    zip[22..26].copy_from_slice(&u32::MAX.to_le_bytes());
    finds(&in_base64(&zip), Kind::Entry);
}

#[test]
fn what_stands_beside_a_bomb_is_seen() {
    let mut message = attached("binary", &claiming(&zeros(100), 0));
    message.truncate(message.len() - b"--b=--\r\n".len());
    message.extend_from_slice(b"--b=\r\n\r\n");
    message.extend_from_slice(&eicar());
    finds_but(&message, Remark::OverBudget);
}

#[test]
fn overlapping_entries_count_each_time() {
    let zip = zipped("z", &vec![b'a'; 100_000]);
    let directory = zip.windows(4).position(|at| at == b"PK\x01\x02").unwrap();
    let end = zip.windows(4).position(|at| at == b"PK\x05\x06").unwrap();
    let mut bomb = zip[..directory].to_vec();
    for number in 0..500_u16 {
        let mut listed = zip[directory..end].to_vec();
        listed[12..14].copy_from_slice(&number.to_le_bytes());
        *listed.get_mut(46).unwrap() = b'A' + (number % 50) as u8;
        bomb.extend_from_slice(&listed);
    }
    let length = (bomb.len() - directory) as u32;
    let mut record = zip[end..].to_vec();
    record[12..16].copy_from_slice(&length.to_le_bytes());
    bomb.extend_from_slice(&record);
    let limits = Limits { ratio_max: 20, ..limits() };
    let seen = seen(&in_base64(&bomb), &limits);
    assert!(has(&seen.report, Remark::OverBudget), "{:?}", seen.report);
}

#[test]
fn nesting_stops_at_the_depth() {
    let mut zip = zipped("eicar.com", &eicar());
    for _ in 0..40 {
        zip = zipped_as("z", &zip, CompressionMethod::Stored);
    }
    let seen_zip = seen(&in_base64(&zip), &limits());
    assert!(has(&seen_zip.report, Remark::OverBudget));
    let mut deep = String::new();
    for level in 0..1_000 {
        deep += &format!("Content-Type: multipart/mixed; boundary=b{level}\n\n--b{level}\n");
    }
    let deep = [deep.as_bytes(), b"\n", &eicar()].concat();
    finds_but(&deep, Remark::OverBudget);
    let messages = "Content-Type: message/rfc822\nContent-Transfer-Encoding: x\n\n".repeat(1_000);
    finds_but(&[messages.as_bytes(), b"\n", &eicar()].concat(), Remark::OverBudget);
}

#[test]
fn parts_and_entries_have_one_limit() {
    let limits = Limits { entries_max: 10, ..limits() };
    let parts =
        "Content-Type: multipart/mixed; boundary=b\n\n".to_owned() + &"--b\n\nx\n".repeat(20);
    let seen_parts = seen(parts.as_bytes(), &limits);
    assert!(has(&seen_parts.report, Remark::OverBudget));
    assert_eq!(seen_parts.pieces.len(), 11);
    let zips: Vec<u8> = (0..20).flat_map(|_| zipped("z", b"x")).collect();
    assert!(has(&seen(&in_base64(&zips), &limits).report, Remark::OverBudget));
}

#[test]
fn time_is_a_limit() {
    let limits = Limits { time_max: Duration::ZERO, ..limits() };
    let seen = seen(&in_base64(&zipped("x", &eicar())), &limits);
    assert_eq!(seen.pieces.len(), 1);
    assert!(has(&seen.report, Remark::OverBudget));
}

#[test]
fn a_visitor_that_has_seen_enough_ends_it() {
    let report = unpack(&in_base64(b"x"), &limits(), &mut |_| ControlFlow::Break(()));
    assert_eq!((report.pieces, report.stopped), (1, true));
    assert!(!seen(&in_base64(b"x"), &limits()).report.stopped);
}

#[test]
fn remarks_are_bounded_but_no_kind_is_lost() {
    let mut zips: Vec<u8> = (0..100).flat_map(|n| zipped(&format!("z{n}"), b"abcdef")).collect();
    // Another method in each local header than in the directory; the last entry is encrypted.
    let headers: Vec<usize> =
        (0..zips.len() - 4).filter(|at| zips[*at..].starts_with(b"PK\x03\x04")).collect();
    for at in &headers {
        zips[at + 8] = 97;
    }
    zips[headers[0] + 6] |= 1;
    let report = seen(&in_base64(&zips), &limits()).report;
    assert!(report.remarks.len() <= REMARKS_MAX + 3 && report.remarks_dropped > 0, "{report:?}");
    assert!(has(&report, Remark::Unknown) && has(&report, Remark::Encrypted), "{report:?}");
}

#[test]
fn names_are_made_harmless() {
    let message = in_base64(&zipped(&("a\n\x1b".to_owned() + &"x".repeat(5_000)), &eicar()));
    let seen = seen(&message, &limits());
    let path = &seen.pieces.last().unwrap().0;
    assert!(path.starts_with("2/it/a??xxx") && path.len() <= 1024, "{path}");
}

/// Fragments that hostile messages are made of.
fn fragment() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..30),
        Just(zipped("z", &eicar())),
        Just(zipped_as("z", &zipped("y", b"x"), CompressionMethod::Stored)),
        Just(claiming(&zeros(2), 5)),
        Just(b"\x1f\x8b\x08\x00".to_vec()),
        Just(STANDARD.encode(zipped("q", &[0; 9_000])).into_bytes()),
        Just(b"\r\n--b\r\n".to_vec()),
        Just(b"\r\n--b--\r\n".to_vec()),
        Just(b"\r\n\r\n".to_vec()),
        Just(b"\nbegin 644 x\n#0V%T\n".to_vec()),
        "(Content-Type: (multipart/mixed; boundary=b|message/rfc822)|Content-Transfer-Encoding: (base64|q))\r\n"
            .prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn hostile_messages_stay_within_the_budget(
        fragments in proptest::collection::vec(fragment(), 0..12),
        flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        bytes_max in 0_u64..100_000,
        depth_max in 0_u16..5,
        entries_max in 0_u32..30,
    ) {
        let mut message = fragments.concat();
        for (index, value) in flips {
            if !message.is_empty() {
                let at = index.index(message.len());
                message[at] = value;
            }
        }
        let limits = Limits { bytes_max, depth_max, entries_max, ..Limits::default() };
        let mut shown = 0;
        let report = unpack(&message, &limits, &mut |piece| {
            if piece.kind != Kind::Message {
                shown += piece.bytes.len() as u64;
            }
            assert!(!piece.bytes.is_empty());
            ControlFlow::Continue(())
        });
        prop_assert!(shown <= bytes_max);
        prop_assert_eq!(shown, report.bytes);
    }
}

/// Whatever byte of an archive is changed: what another library still reads we read as well, and what we
/// do not read is remarked upon.
#[test]
fn changed_bytes_hide_nothing() {
    let content = eicar().repeat(3);
    for method in [CompressionMethod::Stored, CompressionMethod::Deflated] {
        let zip = zipped_as("z", &content, method);
        for at in 0..zip.len() {
            for value in [0, 1, 2, 8, 9, 14, 50, 0x77, 0xff] {
                let mut changed = zip.clone();
                changed[at] = value;
                let seen = seen(&in_base64(&changed), &limits());
                let entries = seen.pieces.iter().filter(|(_, _, kind, _)| *kind == Kind::Entry);
                let found =
                    entries.map(|(_, bytes, ..)| bytes).any(|bytes| bytes.starts_with(&content));
                let what = format!("byte {at} is {value}: {:?}", seen.report);
                assert!(found || !seen.report.remarks.is_empty(), "{what}");
                assert!(found || library_reads(&changed).as_ref() != Some(&content), "{what}");
            }
        }
    }
}

fn library_reads(zip: &[u8]) -> Option<Vec<u8>> {
    let mut archive = ::zip::ZipArchive::new(Cursor::new(zip)).ok()?;
    let mut bytes = Vec::new();
    std::io::copy(&mut archive.by_index(0).ok()?, &mut bytes).ok()?;
    Some(bytes)
}

#[test]
fn real_mail_is_unpacked_within_the_default_budget() {
    let here = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let corpus = here.ancestors().skip(1).map(|above| above.join("../shared/corpus"));
    let Some(corpus) = corpus.into_iter().find(|corpus| corpus.is_dir()) else {
        println!("skipped: no corpus of real mail beside the project");
        return;
    };
    let (mut messages, mut remarks) = (0, Vec::new());
    for set in std::fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()) {
        for path in std::fs::read_dir(set).into_iter().flatten().map(|entry| entry.unwrap().path())
        {
            let report = seen(&std::fs::read(&path).unwrap(), &Limits::default()).report;
            assert!(!has(&report, Remark::OverBudget), "{}: {report:?}", path.display());
            messages += 1;
            remarks.extend(report.remarks);
        }
    }
    println!("{messages} messages, remarks: {remarks:?}");
}

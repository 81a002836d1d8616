//! Files in real folders.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use gantry_protocol::pool::ReleaseResult::{Accepted, Deferred, Refused};

use super::*;
use crate::local::take_head_fields;
use crate::release::Way;
use crate::release::testing::{MESSAGE, RECEIVED, Store, identity, kinds};

fn config(store: &Store) -> DirectoryReleaseConfig {
    DirectoryReleaseConfig {
        identity: identity(),
        host: "mx1".into(),
        path: store.path().join("out"),
        format: FolderFormat::Directory,
        envelope: EnvelopeForm::Headers,
        line_ends: LineEnds::Crlf,
    }
}

fn way(config: DirectoryReleaseConfig) -> Way {
    Way::Directory(DirectoryRelease::open(config).unwrap())
}

/// Names and contents, in the order of names.
fn files(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_file())
        .map(|entry| {
            let name = entry.file_name().into_string().unwrap();
            (name, std::fs::read(entry.path()).unwrap())
        })
        .collect();
    found.sort();
    found
}

#[tokio::test]
async fn each_group_is_a_file_with_its_envelope_on_top() {
    let store = Store::new();
    let way = way(config(&store));
    let id = store.put("from@x", &["a@x", "b@x", "c@x"], MESSAGE);
    store.settle(id, &[(&[0, 2], "X-Group: one"), (&[1], "X-Group: two")]);
    assert_eq!(kinds(&store.release(&way, id, &[0, 1, 2]).await), [Accepted; 3]);
    let files = files(&store.path().join("out"));
    let names: Vec<_> = files.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, [0, 1].map(|first| format!("{RECEIVED}.{id}-{first}.mx1.eml")));
    let told = [("X-Group: one", vec!["a@x", "c@x"]), ("X-Group: two", vec!["b@x"])];
    for ((_, bytes), (field, expected)) in files.iter().zip(told) {
        let (envelope, length) = take_head_fields(bytes).unwrap();
        let to: Vec<_> = envelope.recipients.iter().map(|to| to.address.as_str()).collect();
        assert_eq!((envelope.sender.as_str(), to), ("from@x", expected));
        let rest = String::from_utf8(bytes[length..].to_vec()).unwrap();
        assert!(rest.starts_with("Received: ") && rest.contains("X-Gantry-Trace: "), "{rest}");
        // A field of the stranger's would have been read as another recipient.
        let kept = "Message-ID: <1@x>\r\nSubject: x\r\n\r\nHello\r\n.\r\n\r\nend\r\n";
        assert!(rest.ends_with(&format!("{field}\r\n{kept}")), "{rest}");
    }
}

#[tokio::test]
async fn a_repeat_takes_the_place_of_what_was_there() {
    let store = Store::new();
    for format in [FolderFormat::Directory, FolderFormat::Maildir] {
        let config = DirectoryReleaseConfig { format, ..config(&store) };
        let way = way(config);
        let id = store.put("", &["a@x"], MESSAGE);
        assert_eq!(kinds(&store.release(&way, id, &[0]).await), [Accepted]);
        let folder = match format {
            FolderFormat::Directory => store.path().join("out"),
            FolderFormat::Maildir => store.path().join("out/new"),
        };
        let first = files(&folder);
        assert_eq!(first.len(), 1);
        // A crash in the middle of another write left this.
        let temporary = match format {
            FolderFormat::Directory => {
                store.path().join("out").join(format!(".{}.tmp", first[0].0))
            }
            FolderFormat::Maildir => store.path().join("out/tmp").join(&first[0].0),
        };
        std::fs::write(&temporary, "half").unwrap();
        assert_eq!(kinds(&store.release(&way, id, &[0]).await), [Accepted]);
        assert_eq!(files(&folder), first);
        assert!(!temporary.exists());
        std::fs::remove_file(folder.join(&first[0].0)).unwrap();
    }
}

#[tokio::test]
async fn a_maildir_has_lines_and_envelope_as_configured() {
    let store = Store::new();
    let config = DirectoryReleaseConfig {
        format: FolderFormat::Maildir,
        envelope: EnvelopeForm::Sidecar,
        line_ends: LineEnds::Lf,
        ..config(&store)
    };
    let way = way(config);
    let large: Vec<u8> = b"Subject: large\r\n\r\n".iter().copied().chain(large_body()).collect();
    let id = store.put("from@x", &["a@x"], &large);
    assert_eq!(kinds(&store.release(&way, id, &[0]).await), [Accepted]);
    let files = files(&store.path().join("out/new"));
    let [(name, bytes), (sidecar_name, sidecar)] = files.as_slice() else { panic!("{files:?}") };
    assert_eq!(*sidecar_name, format!("{name}.envelope"));
    let sidecar: Sidecar = serde_json::from_slice(sidecar).unwrap();
    assert_eq!(sidecar, Sidecar { sender: "from@x".into(), recipients: vec!["a@x".into()] });
    let expected = String::from_utf8(large).unwrap().replace("\r\n", "\n");
    assert!(bytes.ends_with(expected.as_bytes()) && !bytes.contains(&b'\r'));
    assert!(std::fs::read_dir(store.path().join("out/tmp")).unwrap().next().is_none());
}

/// Lines of every length around the pieces in which a message is read.
fn large_body() -> impl Iterator<Item = u8> {
    (0..3_000_usize)
        .flat_map(|number| std::iter::repeat_n(b'x', number % 97).chain(b"\r\n".iter().copied()))
}

#[tokio::test]
async fn what_cannot_be_written_is_kept_for_later() {
    let store = Store::new();
    let config = config(&store);
    let way = way(config.clone());
    let id = store.put("from@x", &["a@x"], MESSAGE);
    std::fs::remove_dir(&config.path).unwrap();
    let results = store.release(&way, id, &[0]).await;
    assert_eq!(kinds(&results), [Deferred]);
    assert!(results[0].reply.contains("out"), "{results:?}");

    std::fs::create_dir(&config.path).unwrap();
    let damaged = store.put("from@x", &["a@x"], MESSAGE);
    store.spool.apply(
        id,
        gantry_protocol::pool::MailboxIndex(0),
        &gantry_protocol::pool::Change::Remove,
    );
    store.damage(MESSAGE);
    assert_eq!(kinds(&store.release(&way, damaged, &[0]).await), [Deferred]);
    assert!(files(&config.path).is_empty(), "nothing of a damaged message is ever seen");
}

#[tokio::test]
async fn an_address_never_becomes_a_field() {
    let store = Store::new();
    let way = way(config(&store));
    let id = store.put("from@x", &["a@x>\r\nX-Receiver: <b@x", "c@x"], MESSAGE);
    store.settle(id, &[(&[0], "X-Group: one"), (&[1], "X-Group: two")]);
    assert_eq!(kinds(&store.release(&way, id, &[0, 1]).await), [Refused, Accepted]);
    assert_eq!(files(&store.path().join("out")).len(), 1);
}

//! Real folders, a real spool, and crashes between any two steps.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::MailboxIndex;
use gantry_protocol::time::Moment;

use super::*;
use crate::disk::RealDisk;
use crate::intake::{Clock, IntakeEvent, unix_ms};
use crate::release::TraceKey;
use crate::spool::{Now, Options, Spool};

const PATIENCE: Duration = Duration::from_secs(30);
const TOP: &str = "X-Sender: <from@x>\nX-Receiver: <a@y>\nX-Receiver: <b@y>\n";
const MESSAGE: &str = "To: nobody@x\nSubject: x\n\nHello\n.\nend";
const MESSAGE_CRLF: &str = "To: nobody@x\r\nSubject: x\r\n\r\nHello\r\n.\r\nend\r\n";

struct Site {
    folder: tempfile::TempDir,
    config: PickupConfig,
    intake: Arc<LocalIntake<RealDisk>>,
}

impl Site {
    /// Files count as finished at once.
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let directory = folder.path().join("in");
        fs::create_dir(&directory).unwrap();
        let config = PickupConfig {
            host: "mx1".into(),
            mailbox: "mail.box".into(),
            directory,
            format: FolderFormat::Directory,
            envelope: EnvelopeForm::Headers,
            settle: Duration::ZERO,
            poll: Duration::from_secs(3_600),
            sidecar_wait: PATIENCE,
        };
        let intake = intake(&folder.path().join("spool"));
        Self { folder, config, intake }
    }

    fn open(&self) -> Pickup<RealDisk> {
        Pickup::open(self.config.clone(), Arc::clone(&self.intake)).unwrap()
    }

    /// What a hook finds that starts after this one was killed.
    fn crash(self) -> Self {
        let Self { folder, config, intake: old } = self;
        assert_eq!(Arc::strong_count(&old), 1, "nothing else has the spool");
        drop(old);
        let intake = intake(&folder.path().join("spool"));
        Self { folder, config, intake }
    }

    fn put(&self, name: impl AsRef<Path>, text: impl AsRef<[u8]>) {
        fs::write(self.config.directory.join(name), text).unwrap();
    }

    fn body(&self, id: MessageId) -> String {
        let mut text = String::new();
        self.intake.spool.body(id).unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// The ids of all messages in the spool.
    fn stored(&self) -> Vec<MessageId> {
        self.intake.spool.list(|_| true, usize::MAX).into_iter().map(|listed| listed.id).collect()
    }

    /// All files below the folder, by their paths in it.
    fn files(&self) -> Vec<String> {
        let walk = walkdir::WalkDir::new(&self.config.directory).sort_by_file_name();
        let files =
            walk.into_iter().map(Result::unwrap).filter(|entry| !entry.file_type().is_dir());
        files
            .map(|entry| {
                let path = entry.path().strip_prefix(&self.config.directory).unwrap().to_owned();
                path.to_string_lossy().into_owned()
            })
            .collect()
    }

    /// The reason with which the only failed file was set aside.
    fn reason(&self) -> String {
        let files = self.files();
        let reasons: Vec<_> = files.iter().filter(|name| name.ends_with(".reason")).collect();
        let [name] = reasons.as_slice() else { panic!("{files:?}") };
        let kept = name.strip_suffix(".reason").unwrap();
        assert!(kept.starts_with("failed/") && files.iter().any(|name| name == kept), "{files:?}");
        fs::read_to_string(self.config.directory.join(name)).unwrap()
    }
}

fn intake(root: &Path) -> Arc<LocalIntake<RealDisk>> {
    let options = Options {
        volatile_memory_bytes_max: 1 << 20,
        volatile_disk_bytes_max: 1 << 20,
        room: Default::default(),
        host: "mx1".into(),
        clock: Arc::new(|| Now { moment: Moment(0), unix_ms: unix_ms() }),
    };
    let spool = Spool::open(RealDisk, root, &["mail.box".into()], options).unwrap().spool;
    Arc::new(LocalIntake {
        mailbox: "mail.box".into(),
        index: MailboxIndex(0),
        message_bytes_max: 1 << 20,
        spool,
        clock: Clock::start(),
        trace: TraceKey::new("mx1", b"a secret"),
    })
}

/// Rounds until there is something, which must not be long.
fn rounds(pickup: &mut Pickup<RealDisk>) -> Vec<Arrived> {
    let end = Instant::now() + PATIENCE;
    loop {
        let arrived = pickup.round().arrived;
        if !arrived.is_empty() {
            return arrived;
        }
        assert!(Instant::now() < end, "nothing arrived");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_file_becomes_a_message_without_its_envelope() {
    let site = Site::new();
    let mut pickup = site.open();
    site.put("one", format!("{TOP}{MESSAGE}"));
    let arrived = pickup.round().arrived;
    assert_eq!(arrived.len(), 1);
    let marked = &arrived[0].marked;
    assert_eq!((marked.recipients, arrived[0].looped), (2, false));
    let header = site.intake.spool.header(marked.id).unwrap();
    let to: Vec<_> = header.envelope.recipients.iter().map(|to| to.address.as_str()).collect();
    assert_eq!((header.envelope.sender.as_str(), to), ("from@x", vec!["a@y", "b@y"]));
    assert_eq!(site.body(marked.id), MESSAGE_CRLF);
    assert_eq!(marked.length, MESSAGE_CRLF.len() as u64);
    assert!(site.files().is_empty(), "{:?}", site.files());
    assert!(pickup.round().arrived.is_empty());
}

#[test]
fn a_large_file_comes_in_whole_and_one_too_large_is_set_aside() {
    let site = Site::new();
    let mut pickup = site.open();
    let body = "0123456789\n".repeat(50_000);
    site.put("one", format!("{TOP}Subject: x\n\n{body}"));
    let arrived = pickup.round().arrived;
    let expected = format!("Subject: x\r\n\r\n{}", body.replace('\n', "\r\n"));
    assert!(site.body(arrived[0].marked.id) == expected);

    site.put("two", format!("{TOP}Subject: x\n\n{}", body.repeat(3)));
    assert!(pickup.round().arrived.is_empty());
    assert!(site.reason().contains("larger than 1048576 bytes"), "{}", site.reason());
    assert_eq!(site.stored().len(), 1);
}

#[test]
fn what_is_wrong_is_set_aside_with_its_reason() {
    let loops = "Received: from a by b; now\n".repeat(101);
    for (text, reason) in [
        (MESSAGE.to_owned(), "never taken from To and Cc"),
        (format!("X-Sender: a@x\n{MESSAGE}"), "no X-Receiver"),
        (format!("{TOP}Subject: x\nX-Receiver: evil@x\n\nbody"), "below"),
        (format!("{TOP}{loops}\nbody"), "a mail loop"),
        (format!("{TOP}X: {}\n\nbody", "x".repeat(1 << 20)), "header block"),
        (String::new(), "never taken from To and Cc"),
    ] {
        let site = Site::new();
        let mut pickup = site.open();
        site.put("one", &text);
        assert!(pickup.round().arrived.is_empty());
        assert!(site.reason().contains(reason), "{reason}: {}", site.reason());
        assert!(site.stored().is_empty());
        let kept = site.files().into_iter().find(|name| !name.ends_with(".reason")).unwrap();
        assert!(fs::read_to_string(site.config.directory.join(kept)).unwrap() == text);
    }
}

#[test]
fn the_unfinished_is_left_alone() {
    let mut site = Site::new();
    site.config.settle = Duration::from_millis(100);
    let mut pickup = site.open();
    for name in [".hidden", "one.tmp", "one.part"] {
        site.put(name, format!("{TOP}{MESSAGE}"));
    }
    let mut file = fs::File::create(site.config.directory.join("written")).unwrap();
    let text = format!("{TOP}{MESSAGE}");
    for byte in text.as_bytes() {
        // Whoever looks in between sees a file that has just changed.
        file.write_all(&[*byte]).unwrap();
        let round = pickup.round();
        assert!(round.arrived.is_empty() && round.again.is_some());
    }
    drop(file);
    let arrived = rounds(&mut pickup);
    assert_eq!(site.body(arrived[0].marked.id), MESSAGE_CRLF);
    assert_eq!(site.files(), [".hidden", "one.part", "one.tmp"]);
}

/// Settled, claimed, and yet written to.
/// On a busy machine the writer may not run while the file is read, which is then not changing: that try says nothing.
#[test]
fn a_file_that_changes_while_it_is_read_is_read_again() {
    const TRIES: u32 = 20;
    assert!((0..TRIES).any(|_| is_read_again()), "what is being written is never left alone");
}

/// Whether a file that is written to throughout a round was left alone in it.
fn is_read_again() -> bool {
    let site = Site::new();
    let mut pickup = site.open();
    let path = site.config.directory.join("one");
    let start = format!("{TOP}Subject: x\n\n{}", "line\n".repeat(20_000));
    fs::write(&path, start).unwrap();
    let mut file = fs::OpenOptions::new().append(true).open(&path).unwrap();
    let (written, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let writer = std::thread::spawn({
        let (written, done) = (Arc::clone(&written), Arc::clone(&done));
        move || {
            while !done.load(Ordering::SeqCst) && written.load(Ordering::SeqCst) < 50_000 {
                file.write_all(b"x\n").unwrap();
                written.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    while written.load(Ordering::SeqCst) < 10 {
        std::thread::yield_now();
    }
    let round = pickup.round();
    let still_writing = written.load(Ordering::SeqCst) < 50_000;
    done.store(true, Ordering::SeqCst);
    writer.join().unwrap();
    if !still_writing || !round.arrived.is_empty() {
        return false;
    }
    let arrived = rounds(&mut pickup);
    let lines = written.load(Ordering::SeqCst);
    let body = site.body(arrived[0].marked.id);
    assert_eq!(body.matches("x\r\n").count() as u64, lines + 1, "all that was written is there");
    true
}

#[test]
fn hostile_names_and_things_that_are_no_files() {
    let site = Site::new();
    let mut pickup = site.open();
    let text = format!("{TOP}{MESSAGE}");
    let names: [&[u8]; 8] = [
        b"-rf",
        b"a b\nc",
        b"\xff\xfe",
        b"$(id);`id`",
        b"1-1.mail",
        b"x.envelope",
        b"x.reason",
        &[b'x'; 200],
    ];
    for name in names {
        site.put(std::ffi::OsStr::from_bytes(name), &text);
    }
    let secret = site.folder.path().join("secret");
    fs::write(&secret, &text).unwrap();
    std::os::unix::fs::symlink(&secret, site.config.directory.join("link")).unwrap();
    fs::create_dir(site.config.directory.join("sub")).unwrap();
    site.put("sub/file", &text);
    let fifo = site.config.directory.join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let mut arrived = 0;
    while arrived < names.len() {
        arrived += rounds(&mut pickup).len();
    }
    assert_eq!(arrived, names.len());
    assert_eq!(site.files(), ["fifo", "link", "sub/file"]);

    // Too long for the name of a claim.
    site.put(std::ffi::OsStr::from_bytes(&[b'y'; 250]), &text);
    assert!(pickup.round().arrived.is_empty());
    assert!(site.reason().contains("more than 200 bytes"));
}

/// A claimed name that has become something else is not followed.
#[test]
fn a_claim_that_was_swapped_for_a_link_is_not_read() {
    let site = Site::new();
    let mut pickup = site.open();
    let secret = site.folder.path().join("secret");
    fs::write(&secret, format!("{TOP}{MESSAGE}")).unwrap();
    site.put("one", "");
    let id = site.intake.spool.allocate();
    let claim = pickup.folder.claim("one".as_ref(), id).unwrap().unwrap();
    fs::remove_file(&claim.path).unwrap();
    std::os::unix::fs::symlink(&secret, &claim.path).unwrap();
    pickup.waiting.push(claim);
    assert!(pickup.round().arrived.is_empty());
    assert!(site.reason().contains("cannot be read"), "{}", site.reason());
}

#[test]
fn a_sidecar_is_waited_for_and_goes_with_its_message() {
    let mut site = Site::new();
    site.config.envelope = EnvelopeForm::Sidecar;
    site.config.sidecar_wait = Duration::from_millis(200);
    let mut pickup = site.open();
    // It begins with what would be an envelope elsewhere, and here is part of the message.
    site.put("one", format!("{TOP}{MESSAGE}"));
    let round = pickup.round();
    assert!(round.arrived.is_empty() && round.again.is_some());
    site.put("one.envelope", r#"{"sender": "", "recipients": ["c@y"]}"#);
    let arrived = rounds(&mut pickup);
    let header = site.intake.spool.header(arrived[0].marked.id).unwrap();
    assert_eq!((header.envelope.sender.as_str(), header.envelope.recipients.len()), ("", 1));
    assert_eq!(
        site.body(arrived[0].marked.id),
        format!("{}{MESSAGE_CRLF}", TOP.replace('\n', "\r\n"))
    );
    assert!(site.files().is_empty(), "{:?}", site.files());

    site.put("two", MESSAGE);
    let end = Instant::now() + PATIENCE;
    while site.files().iter().any(|name| name == "two") {
        assert!(pickup.round().arrived.is_empty() && Instant::now() < end);
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(site.reason().contains("envelope is missing"), "{}", site.reason());

    site.put("three.envelope", r#"{"sender": "", "recipients": ["c@y\r\n"]}"#);
    site.put("three", MESSAGE);
    assert!(pickup.round().arrived.is_empty());
    assert!(
        site.files().iter().any(|name| name.ends_with(".three.envelope")),
        "{:?}",
        site.files()
    );
}

#[test]
fn claimed_and_not_in_the_spool_is_taken_after_a_crash() {
    for with_sidecar in [false, true] {
        let mut site = Site::new();
        if with_sidecar {
            site.config.envelope = EnvelopeForm::Sidecar;
            site.put("one.envelope", r#"{"sender": "", "recipients": ["c@y"]}"#);
        }
        site.put("one", format!("{TOP}{MESSAGE}"));
        let pickup = site.open();
        let id = site.intake.spool.allocate();
        if with_sidecar {
            // Between the two renames of a claim.
            let to = pickup.folder.claimed().join(format!("{id}.one"));
            crate::disk::Disk::rename(&RealDisk, &site.config.directory.join("one"), &to).unwrap();
        } else {
            pickup.folder.claim("one".as_ref(), id).unwrap().unwrap();
        }
        drop(pickup);

        let site = site.crash();
        let mut pickup = site.open();
        let arrived = pickup.round().arrived;
        assert_eq!(arrived.len(), 1);
        assert_ne!(arrived[0].marked.id, id, "an id of an earlier start is never used again");
        assert_eq!(site.stored(), [arrived[0].marked.id]);
        assert!(site.files().is_empty(), "{:?}", site.files());
    }
}

#[test]
fn in_the_spool_and_not_removed_is_not_taken_twice() {
    let site = Site::new();
    site.put("one", format!("{TOP}{MESSAGE}"));
    let pickup = site.open();
    let id = site.intake.spool.allocate();
    let claim = pickup.folder.claim("one".as_ref(), id).unwrap().unwrap();
    assert!(matches!(take(&site.intake, &claim), Taken::Durable(_)));
    assert_eq!(site.files().len(), 1);
    drop(pickup);

    let site = site.crash();
    let mut pickup = site.open();
    assert!(site.files().is_empty(), "removed before anything is processed");
    assert!(pickup.round().arrived.is_empty());
    assert_eq!(site.stored(), [id]);
}

#[test]
fn a_message_is_marked_only_when_its_file_is_gone() {
    let site = Site::new();
    site.put("one", format!("{TOP}{MESSAGE}"));
    let mut pickup = site.open();
    let id = site.intake.spool.allocate();
    let claim = pickup.folder.claim("one".as_ref(), id).unwrap().unwrap();
    let path = claim.path.clone();
    let mut round = Round::default();
    pickup.take(claim, &mut round);
    // Nothing that can be removed as a file.
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(pickup.round().arrived.is_empty());
    fs::remove_dir(&path).unwrap();
    assert_eq!(pickup.round().arrived.len(), 1);
}

/// Two hooks on one folder, as on a file system that they share.
#[test]
fn two_hooks_never_take_one_file_both() {
    let one = Site::new();
    let mut two = Site::new();
    two.config = PickupConfig { host: "mx2".into(), ..one.config.clone() };
    const FILES: usize = 300;
    for number in 0..FILES {
        one.put(format!("{number}"), format!("{TOP}Subject: {number}\n\nbody\n"));
    }
    let subjects = |site: &Site| {
        let mut pickup = site.open();
        let mut found = Vec::new();
        while !site.files().is_empty() {
            for arrived in pickup.round().arrived {
                let body = site.body(arrived.marked.id);
                found.push(body.lines().next().unwrap().to_owned());
            }
        }
        found
    };
    let mut found = std::thread::scope(|scope| {
        let other = scope.spawn(|| subjects(&two));
        let mut found = subjects(&one);
        found.extend(other.join().unwrap());
        found
    });
    assert_eq!(found.len(), FILES);
    found.sort();
    found.dedup();
    assert_eq!(found.len(), FILES, "each once");
}

#[test]
fn a_folder_that_is_not_there_is_said() {
    let mut site = Site::new();
    site.config.directory = site.folder.path().join("none");
    let error = Pickup::open(site.config.clone(), Arc::clone(&site.intake)).err().unwrap();
    assert!(error.to_string().contains("none"), "{error}");
}

#[tokio::test]
async fn a_maildir_is_served_as_soon_as_something_is_there() {
    let mut site = Site::new();
    site.config.format = FolderFormat::Maildir;
    // So long that only being told can be what finds them; elsewhere it is polling.
    let told = cfg!(target_os = "linux");
    site.config.poll = if told { Duration::from_secs(3_600) } else { Duration::from_millis(50) };
    for name in ["tmp", "new", "cur"] {
        fs::create_dir(site.config.directory.join(name)).unwrap();
    }
    site.put("cur/read:2,S", format!("{TOP}{MESSAGE}"));
    let (gate, mut events) = Gate::new();
    let serving = tokio::spawn(serve(site.open(), gate.clone()));
    for number in 0..3 {
        let name = format!("{number}.P1.host");
        site.put(Path::new("tmp").join(&name), format!("{TOP}{MESSAGE}"));
        let from = site.config.directory.join("tmp").join(&name);
        let to = site.config.directory.join("new").join(&name);
        crate::disk::Disk::rename(&RealDisk, &from, &to).unwrap();
        let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap();
        assert!(matches!(event, Some(IntakeEvent::Marked { answer: None, .. })), "{event:?}");
    }
    assert_eq!(site.files(), ["cur/read:2,S"]);

    gate.stop("disk");
    site.put("new/later", format!("{TOP}{MESSAGE}"));
    gate.drain();
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
    assert!(events.try_recv().is_err(), "a stopped gate takes nothing");
    assert_eq!(site.files(), ["cur/read:2,S", "new/later"]);
}

#[tokio::test]
async fn files_are_served_once_they_have_settled() {
    let mut site = Site::new();
    site.config.settle = Duration::from_millis(100);
    let (gate, mut events) = Gate::new();
    site.put("one", format!("{TOP}{MESSAGE}"));
    let serving = tokio::spawn(serve(site.open(), gate.clone()));
    let event = tokio::time::timeout(PATIENCE, events.recv()).await.unwrap();
    assert!(matches!(event, Some(IntakeEvent::Marked { .. })));
    gate.drain();
    tokio::time::timeout(PATIENCE, serving).await.unwrap().unwrap();
}

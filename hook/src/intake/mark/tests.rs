//! The command against a hook's socket, and alone with the spool.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]

use std::io::{Cursor, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use gantry_protocol::pool::{MailboxIndex, StoredState};
use gantry_protocol::time::Moment;
use tokio::sync::mpsc;

use super::*;
use crate::disk::RealDisk;
use crate::intake::arrival::LocalIntake;
use crate::intake::{Clock, Gate, IntakeEvent, unix_ms};
use crate::release::TraceKey;
use crate::spool::{Now, Options, Spool, SpoolError};

const PATIENCE: Duration = Duration::from_secs(30);
const MESSAGE_MAX: u64 = 4 << 20;

fn intake(root: &Path) -> Result<Arc<LocalIntake<RealDisk>>, SpoolError> {
    let options = Options {
        volatile_memory_bytes_max: 1 << 20,
        volatile_disk_bytes_max: 1 << 20,
        room: Default::default(),
        host: "mx1".into(),
        clock: Arc::new(|| Now { moment: Moment(0), unix_ms: unix_ms() }),
    };
    let spool = Spool::open(RealDisk, root, &["mail.box".into()], options)?.spool;
    Ok(Arc::new(LocalIntake {
        mailbox: "mail.box".into(),
        index: MailboxIndex(0),
        message_bytes_max: MESSAGE_MAX,
        spool,
        clock: Clock::start(),
        trace: TraceKey::new("mx1", b"a secret"),
    }))
}

fn request(recipients: &[&str]) -> MarkRequest {
    MarkRequest {
        mailbox: "mail.box".into(),
        sender: "from@x".into(),
        recipients: recipients.iter().map(|&to| to.to_owned()).collect(),
    }
}

/// A hook, as far as the command sees it.
struct Hook {
    folder: tempfile::TempDir,
    intake: Arc<LocalIntake<RealDisk>>,
    gate: Gate,
    events: mpsc::Receiver<IntakeEvent>,
}

impl Hook {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let intake = intake(&folder.path().join("spool")).unwrap();
        let (gate, events) = Gate::new();
        let hook = Self { folder, intake, gate, events };
        listen(&hook.root(), Marker::new(vec![Arc::clone(&hook.intake)], hook.gate.clone()))
            .unwrap();
        hook
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("spool")
    }

    async fn mark(&self, request: MarkRequest, message: Vec<u8>) -> Result<String, Failed> {
        let root = self.root();
        let marking = tokio::task::spawn_blocking(move || {
            mark(&root, &request, &mut Cursor::new(message), || -> Result<_, SpoolError> {
                Ok(None::<Arc<LocalIntake<RealDisk>>>)
            })
        });
        tokio::time::timeout(PATIENCE, marking).await.unwrap().unwrap()
    }

    fn stored(&self) -> usize {
        self.intake.spool.list(|_| true, usize::MAX).len()
    }
}

fn body(intake: &LocalIntake<RealDisk>, id: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    intake.spool.body(id.parse().unwrap()).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[tokio::test]
async fn a_running_hook_takes_it_durably_and_marks_it() {
    use std::os::unix::fs::PermissionsExt;

    let mut hook = Hook::start();
    let mode = std::fs::metadata(hook.root().join("mark")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    for body_lines in [0, 1, 300_000] {
        let text = format!("Subject: x\n\n{}", "a line\n".repeat(body_lines));
        let id = hook.mark(request(&["a@y", "b@y"]), text.clone().into_bytes()).await.unwrap();
        assert!(body(&hook.intake, &id) == text.replace('\n', "\r\n").into_bytes());
        let event = tokio::time::timeout(PATIENCE, hook.events.recv()).await.unwrap();
        let Some(IntakeEvent::Marked { marked, looped: false, answer: None }) = event else {
            panic!("{event:?}")
        };
        assert_eq!((marked.id.to_string(), marked.recipients), (id, 2));
    }
}

#[tokio::test]
async fn what_is_refused_is_refused_for_now_or_for_ever() {
    let hook = Hook::start();
    let large = b"Subject: x\n\n".iter().chain(&[b'x'; 100]).copied().cycle();
    let large: Vec<u8> = large.take(usize::try_from(MESSAGE_MAX).unwrap() * 4).collect();
    let failed = hook.mark(request(&["a@y"]), large).await.unwrap_err();
    assert!(matches!(&failed, Failed::Never(text) if text.contains("larger")), "{failed}");

    let failed = hook.mark(request(&["a\n@y"]), Vec::new()).await.unwrap_err();
    assert!(matches!(failed, Failed::Never(_)), "{failed}");
    let failed = hook.mark(request(&[]), Vec::new()).await.unwrap_err();
    assert!(matches!(failed, Failed::Later(_)), "{failed}");

    let other = MarkRequest { mailbox: "other".into(), ..request(&["a@y"]) };
    let failed = hook.mark(other, b"x\n".repeat(1_000_000)).await.unwrap_err();
    assert!(matches!(&failed, Failed::Later(text) if text.contains("no mailbox")), "{failed}");

    hook.gate.stop("the disk is broken");
    let failed = hook.mark(request(&["a@y"]), Vec::new()).await.unwrap_err();
    assert!(matches!(&failed, Failed::Later(text) if text.contains("broken")), "{failed}");
    assert_eq!(hook.stored(), 0);
}

/// Also what a command that speaks wrongly does.
#[tokio::test]
async fn a_command_that_dies_leaves_nothing() {
    let hook = Hook::start();
    let line = serde_json::to_string(&request(&["a@y"])).unwrap();
    let beginnings: [Vec<u8>; 5] = [
        Vec::new(),
        line.clone().into_bytes(),
        format!("{line}\n").into_bytes(),
        [format!("{line}\n").as_bytes(), &5_u32.to_be_bytes(), b"whole"].concat(),
        [format!("{line}\n").as_bytes(), &500_u32.to_be_bytes(), b"half"].concat(),
    ];
    for beginning in beginnings {
        let mut stream = UnixStream::connect(hook.root().join("mark")).unwrap();
        stream.write_all(&beginning).unwrap();
    }
    for wrong in ["nonsense\n".to_owned(), format!("{line}\n\u{7f}\u{7f}\u{7f}\u{7f}")] {
        let path = hook.root().join("mark");
        let answer = tokio::task::spawn_blocking(move || {
            let mut stream = UnixStream::connect(path).unwrap();
            stream.write_all(wrong.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        });
        let answer = tokio::time::timeout(PATIENCE, answer).await.unwrap().unwrap();
        assert!(answer.contains("later"), "{answer}");
    }
    // They were served in the order in which they came, so all of them are over when this one is.
    hook.mark(request(&["a@y"]), b"x\n".to_vec()).await.unwrap();
    let end = std::time::Instant::now() + PATIENCE;
    while files(&hook.root().join("mail.box")) != 1 {
        assert!(std::time::Instant::now() < end, "something was left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(hook.stored(), 1);
}

fn files(folder: &Path) -> usize {
    let walk = walkdir::WalkDir::new(folder).into_iter();
    walk.filter(|entry| entry.as_ref().is_ok_and(|entry| entry.file_type().is_file())).count()
}

#[test]
fn without_a_hook_the_command_stores_it_itself() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("spool");
    let open = || intake(&root).map(Some);
    let id = mark(&root, &request(&["a@y"]), &mut Cursor::new("Subject: x\n\nbody"), open).unwrap();
    let found = intake(&root).unwrap();
    assert_eq!(body(&found, &id), b"Subject: x\r\n\r\nbody\r\n");
    let listed = found.spool.list(|_| true, usize::MAX);
    assert_eq!(listed[0].state, StoredState::Marked { attempts: 0 });
    drop(found);

    let large = [b"\n".as_slice(), &vec![b'x'; usize::try_from(MESSAGE_MAX).unwrap()]].concat();
    let failed = mark(&root, &request(&["a@y"]), &mut Cursor::new(large), open).unwrap_err();
    assert!(matches!(failed, Failed::Never(_)), "{failed}");
    let failed = mark(&root, &request(&["a@y"]), &mut Broken(3), open).unwrap_err();
    assert!(matches!(failed, Failed::Later(_)), "{failed}");
    assert_eq!(intake(&root).unwrap().spool.list(|_| true, usize::MAX).len(), 1);
}

/// A standard input that fails after some bytes.
struct Broken(usize);

impl Read for Broken {
    fn read(&mut self, piece: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the pipe broke"));
        }
        self.0 -= 1;
        piece[0] = b'x';
        Ok(1)
    }
}

/// A hook that starts has the lock before it has the socket.
#[tokio::test]
async fn a_hook_that_is_starting_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("spool");
    let intake = intake(&root).unwrap();
    let tries = Arc::new(AtomicU32::new(0));
    let marking = tokio::task::spawn_blocking({
        let (root, tries) = (root.clone(), Arc::clone(&tries));
        move || {
            mark(&root, &request(&["a@y"]), &mut Cursor::new("x\n"), || {
                tries.fetch_add(1, Ordering::SeqCst);
                super::tests::intake(&root).map(Some)
            })
        }
    });
    while tries.load(Ordering::SeqCst) == 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (gate, mut events) = Gate::new();
    listen(&root, Marker::new(vec![Arc::clone(&intake)], gate)).unwrap();
    let id = tokio::time::timeout(PATIENCE, marking).await.unwrap().unwrap().unwrap();
    assert_eq!(body(&intake, &id), b"x\r\n");
    assert!(events.recv().await.is_some());
}

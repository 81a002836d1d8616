//! One run of a program: fed, listened to, and ended.

use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStderr, ChildStdin, Command};
use tokio::time::{Instant, timeout, timeout_at};

use crate::disk::Disk;
use crate::release::letter::{Encoding, LetterError, Pieces};

/// What is kept of the program's standard error; the rest is read and dropped.
const SAID_BYTES_MAX: usize = 512;
/// How long the last words of a program that has ended may take. A child of its own may keep the pipe open for ever.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How a run ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// `None` where a signal ended it.
    pub(super) code: Option<i32>,
    /// Whether it was given all of the message, and its end.
    pub(super) complete: bool,
    pub(super) timed_out: bool,
    /// The start of its standard error.
    pub(super) said: Vec<u8>,
}

/// Why a program could not be run, or was stopped before it had the message.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotRun {
    #[error("run {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("wait for the program: {0}")]
    Wait(io::Error),
    #[error(transparent)]
    Letter(#[from] LetterError),
}

/// Runs a program with a message on its standard input, in a process group of its own, without any environment. Dropping
/// the future kills the group.
pub(super) async fn run<D: Disk, E: Encoding>(
    program: &Path,
    arguments: &[String],
    pieces: Pieces<D, E>,
    time_max: Duration,
) -> Result<Ended, NotRun> {
    let start = |source| NotRun::Start { program: program.display().to_string(), source };
    let mut command = Command::new(program);
    command.args(arguments).env_clear().current_dir("/").process_group(0).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let end = Instant::now() + time_max;
    let mut child = command.spawn().map_err(start)?;
    let (mut stdin, stderr) = (child.stdin.take(), child.stderr.take());
    // Dropped before the child, so that the group's number is still its own, and before the input, so that the end of
    // half a message never looks like the end of a whole one.
    let mut group = Group(child.id());
    let mut said = Vec::new();
    let mut fed = Fed::Going;
    let waited = {
        let mut feed = std::pin::pin!(feed(&mut stdin, pieces));
        let mut listen = std::pin::pin!(listen(stderr, &mut said));
        let mut listening = true;
        timeout_at(end, async {
            loop {
                tokio::select! {
                    biased;
                    result = &mut feed, if fed == Fed::Going => {
                        fed = if result? { Fed::All } else { Fed::Cut };
                    }
                    () = &mut listen, if listening => listening = false,
                    status = child.wait() => {
                        if listening {
                            // Silence here is no fault of the program's.
                            let _ = timeout(LAST_WORDS, &mut listen).await;
                        }
                        return status.map_err(NotRun::Wait);
                    }
                }
            }
        })
        .await
    };
    let timed_out = waited.is_err();
    let status: Option<ExitStatus> = match waited {
        Ok(status) => {
            let status = status?;
            group.0 = None;
            Some(status)
        }
        Err(_) => None,
    };
    drop(group);
    if timed_out {
        // The kill was delivered; this only takes the exit status off the system.
        let _ = child.wait().await;
    }
    let code = status.and_then(|status| status.code());
    Ok(Ended { code, complete: fed == Fed::All, timed_out, said })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Fed {
    Going,
    /// All of the message, and the end of the input.
    All,
    /// It closed its input early.
    Cut,
}

/// Writes the message and then closes the input; tells whether all was taken.
async fn feed<D: Disk, E: Encoding>(
    stdin: &mut Option<ChildStdin>,
    pieces: Pieces<D, E>,
) -> Result<bool, LetterError> {
    let Some(input) = stdin.as_mut() else { return Ok(false) };
    let mut rest = Some(pieces);
    while let Some(pieces) = rest {
        let piece = pieces.next().await?;
        if input.write_all(&piece.bytes).await.is_err() {
            return Ok(false);
        }
        rest = piece.rest;
    }
    *stdin = None;
    Ok(true)
}

async fn listen(stderr: Option<ChildStderr>, said: &mut Vec<u8>) {
    let Some(mut stderr) = stderr else { return };
    let mut piece = [0; SAID_BYTES_MAX];
    while let Ok(count @ 1..) = stderr.read(&mut piece).await {
        let room = SAID_BYTES_MAX - said.len();
        said.extend_from_slice(piece.get(..count.min(room)).unwrap_or_default());
    }
}

/// A program and its children, killed when this is dropped while it holds their number.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self.0.and_then(|pid| i32::try_from(pid).ok()).and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // A group that is gone needs no killing.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

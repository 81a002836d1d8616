//! One run of a program: fed, read, timed, and killed with its children when it is over or nobody waits any more.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{ChildStdin, Command};
use tokio_stream::StreamExt;

use super::platform;
use crate::api::{Progress, Source};

/// Output that is kept of one run, in bytes: the names that are looked for come early, or are too many to tell.
const OUTPUT_BYTES_MAX: usize = 64 * 1024;
/// What is read or written at once, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// What to run, and how.
pub(super) struct Run<'a> {
    pub(super) program: &'a Path,
    pub(super) arguments: Vec<OsString>,
    pub(super) environment: &'a [(String, String)],
    /// Its working and temporary folder.
    pub(super) folder: &'a Path,
    /// What it reads on standard input, if anything.
    pub(super) input: Option<&'a Source>,
    pub(super) time_max: Duration,
    /// Told of what is read and written.
    pub(super) progress: Option<&'a Progress>,
}

/// How it ended.
pub(super) struct Ended {
    pub(super) status: ExitStatus,
    /// The start of standard output and of standard error.
    pub(super) output: String,
    pub(super) complaint: String,
    /// Whether it took all of the input.
    pub(super) input_taken: bool,
}

/// Why there is no end to speak of.
#[derive(Debug, thiserror::Error)]
pub(super) enum RunError {
    #[error("start {program}: {source}")]
    Start { program: String, source: io::Error },
    #[error("read the message: {0}")]
    Input(io::Error),
    #[error("wait for it: {0}")]
    Wait(io::Error),
    #[error("it took longer than {} ms and was killed", .0.as_millis())]
    TooLong(Duration),
}

/// Kills the program and its children, once, at the latest when dropped.
struct Kill(Option<u32>);

impl Kill {
    fn now(&mut self) {
        if let Some(pid) = self.0.take() {
            platform::kill(pid);
        }
    }
}

impl Drop for Kill {
    fn drop(&mut self) {
        self.now();
    }
}

impl Run<'_> {
    /// Runs it to its end. Dropping the future kills it and its children.
    pub(super) async fn run(self) -> Result<Ended, RunError> {
        let mut command = Command::new(self.program);
        command
            .args(&self.arguments)
            .env_clear()
            .env("TMPDIR", self.folder)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(self.folder)
            .stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() })
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        platform::apart(&mut command);
        let mut child = command.spawn().map_err(|source| RunError::Start {
            program: self.program.display().to_string(),
            source,
        })?;
        let mut kill = Kill(child.id());
        let (input, output, complaint) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take());
        let all = async {
            let ended = async {
                let status = child.wait().await;
                // Children that it left behind hold the pipes open and would keep us waiting.
                kill.now();
                status
            };
            tokio::join!(
                ended,
                feed(input, self.input, self.progress),
                keep_start(output, self.progress),
                keep_start(complaint, None),
            )
        };
        let (status, fed, output, complaint) = tokio::time::timeout(self.time_max, all)
            .await
            .map_err(|_elapsed| RunError::TooLong(self.time_max))?;
        let input_taken = fed.map_err(RunError::Input)?;
        let status = status.map_err(RunError::Wait)?;
        Ok(Ended { status, output, complaint, input_taken })
    }
}

/// Writes the message. `false` when the program stopped reading before its end; an error is the message's own.
async fn feed(
    pipe: Option<ChildStdin>,
    source: Option<&Source>,
    progress: Option<&Progress>,
) -> io::Result<bool> {
    let (Some(mut pipe), Some(source)) = (pipe, source) else { return Ok(true) };
    let mut chunks = source.chunks(CHUNK_BYTES);
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk?;
        if pipe.write_all(&chunk).await.is_err() {
            return Ok(false);
        }
        advance(progress, chunk.len());
    }
    Ok(pipe.shutdown().await.is_ok())
}

/// Reads to the end and keeps the start: a program that is not read stops.
async fn keep_start(pipe: Option<impl AsyncRead + Unpin>, progress: Option<&Progress>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let (mut kept, mut chunk) = (Vec::new(), vec![0; CHUNK_BYTES]);
    while let Ok(length @ 1..) = pipe.read(&mut chunk).await {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len()).min(length);
        kept.extend_from_slice(chunk.get(..room).unwrap_or_default());
        advance(progress, length);
    }
    String::from_utf8_lossy(&kept).into_owned()
}

fn advance(progress: Option<&Progress>, bytes: usize) {
    if let Some(progress) = progress {
        progress.advance(u64::try_from(bytes).unwrap_or(u64::MAX));
    }
}

//! The lives of messages on disk: `SPOOL/history` and `history.1`, a line of JSON for each transition.
//!
//! Bounded in bytes: when the current part has half of them it becomes the former one. Written by a thread of its own and
//! not synced: what a crash of the hook loses of it are the last [`GATHER`], a power cut some more, and no mail.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_daemon::lines::{self, Draining, Lines, Sink};
use gantry_operator::Step;
use gantry_protocol::id::MessageId;
use serde::Deserialize;

use crate::disk::{Disk, RealDisk};
use crate::spool::{HISTORY_FILE, HISTORY_FORMER_FILE};

/// Lines gather for this long before they are written.
const GATHER: Duration = Duration::from_millis(200);
/// Steps of one life that are told: the first half and the latest.
const STEPS_MAX: usize = 128;
/// The longest line that is read: a step with every text at its longest, and each of its characters escaped.
const LINE_BYTES_MAX: u64 = 16 * 1024;
/// The least that its two parts can be bounded to: each takes in what gathers at once.
pub const BYTES_MAX_MIN: u64 = 4 << 20;
/// Envelopes and replies are nobody's business but the hook's.
const FILE_MODE: u32 = 0o600;

/// The history of one spool, whose lock must be held.
#[derive(Clone, Debug)]
pub struct History {
    folder: Arc<Path>,
    lines: Lines,
}

/// What the history has of one message.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kept {
    pub mailbox: String,
    /// Oldest first.
    pub steps: Vec<Step>,
}

/// A line as it is read.
#[derive(Deserialize)]
struct Found {
    #[serde(default)]
    mailbox: String,
    #[serde(flatten)]
    step: Step,
}

impl History {
    /// Starts the thread that writes. Dropping the second value ends it.
    ///
    /// # Errors
    /// Where the system gives no thread.
    pub fn start(spool: &Path, bytes_max: u64) -> io::Result<(Self, Draining)> {
        let file = Parts { folder: spool.to_owned(), bytes_max, open: None, failed: false };
        let (lines, draining) = lines::spawn("history", GATHER, file)?;
        Ok((Self { folder: spool.into(), lines }, draining))
    }

    pub(super) fn push(&self, line: &[u8]) {
        self.lines.push(line);
    }

    /// All that is kept of one message. Blocks, for as long as it takes to read the files once.
    ///
    /// # Errors
    /// A file that is there and cannot be read.
    pub fn find(&self, id: MessageId) -> io::Result<Kept> {
        self.lines.flush();
        let mut kept = Kept::default();
        for path in [former(&self.folder), current(&self.folder)] {
            match File::open(path) {
                Ok(file) => kept.read(file, id)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(kept)
    }
}

impl Kept {
    fn read(&mut self, file: File, id: MessageId) -> io::Result<()> {
        let wanted = format!("{{\"id\":\"{id}\",");
        let mut reader = BufReader::with_capacity(64 * 1024, file);
        let mut line = Vec::new();
        loop {
            line.clear();
            if (&mut reader).take(LINE_BYTES_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(());
            }
            // What a crash cut short is no line.
            if line.starts_with(wanted.as_bytes())
                && let Ok(Found { mailbox, step }) = serde_json::from_slice(&line)
            {
                if !mailbox.is_empty() {
                    self.mailbox = mailbox;
                }
                self.steps.push(step);
                if self.steps.len() > STEPS_MAX {
                    self.steps.remove(STEPS_MAX / 2);
                }
            }
        }
    }
}

fn current(folder: &Path) -> PathBuf {
    folder.join(HISTORY_FILE)
}

fn former(folder: &Path) -> PathBuf {
    folder.join(HISTORY_FORMER_FILE)
}

/// Where the lines go.
struct Parts {
    folder: PathBuf,
    bytes_max: u64,
    /// The current part and its length.
    open: Option<(File, u64)>,
    /// It has been told.
    failed: bool,
}

impl Sink for Parts {
    fn take(&mut self, lines: &[u8], lost: u64) {
        if lost > 0 {
            tracing::warn!(
                lost,
                "the disk is too slow for the history: steps of messages are not kept"
            );
        }
        match self.append(lines) {
            Ok(()) => self.failed = false,
            Err(error) => {
                self.open = None;
                if !std::mem::replace(&mut self.failed, true) {
                    let path = current(&self.folder);
                    tracing::error!(
                        "write the history {}: {error}; what befalls messages is not kept until it can be written",
                        path.display()
                    );
                }
            }
        }
    }
}

impl Parts {
    fn append(&mut self, lines: &[u8]) -> io::Result<()> {
        let bytes = lines.len() as u64;
        let (mut file, mut length) = match self.open.take() {
            Some(open) => open,
            None => open(&current(&self.folder))?,
        };
        if length > 0 && length + bytes > self.bytes_max / 2 {
            RealDisk.rename(&current(&self.folder), &former(&self.folder))?;
            (file, length) = open(&current(&self.folder))?;
        }
        file.write_all(lines)?;
        self.open = Some((file, length + bytes));
        Ok(())
    }
}

/// For appending; what a crash cut short stays a line of its own.
fn open(path: &Path) -> io::Result<(File, u64)> {
    let mut file =
        OpenOptions::new().read(true).append(true).create(true).mode(FILE_MODE).open(path)?;
    let length = file.metadata()?.len();
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    if last == *b"\n" {
        return Ok((file, length));
    }
    file.write_all(b"\n")?;
    Ok((file, length + 1))
}

//! What operators did: who, when, what and why, in `SPOOL/audit.log`, durable before it is done.
//!
//! A line of JSON for each action when it begins, and one for how it ended. The file is bounded: beyond
//! [`FILE_BYTES_MAX`] it becomes `audit.log.1`, and so on up to [`FILES_MAX`] parts. `audit.log.reserve` keeps room for it
//! on a disk that is full otherwise: see `docs/decisions/0028-room-for-the-audit-log.md`.

mod reserve;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gantry_mail::date;
use gantry_operator::Request;
use gantry_protocol::text::bounded;
use serde::Serialize;

use crate::disk::{Disk, DiskFile};
use crate::spool::AUDIT_FILE;
use reserve::Reserve;

/// Some forty thousand actions.
pub const FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// The current part included.
pub const FILES_MAX: u32 = 8;

/// Who asks for something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The name in an operator's certificate, or [`LOCAL`].
    pub name: String,
    /// The address that it came from, where it came over the network.
    pub from: Option<String>,
}

/// Whoever may open the control socket: that is the hook's own account, and root.
pub const LOCAL: &str = "root@local";

impl Who {
    /// Somebody on this host.
    pub fn local() -> Self {
        Self { name: LOCAL.to_owned(), from: None }
    }
}

/// How far an action has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// It is about to be done.
    Begun,
    Done,
    /// It was not done, and why.
    Refused(&'a str),
}

/// How the audit log could not be written: then nothing is done.
#[derive(Debug, thiserror::Error)]
#[error("write the audit log {}: {source}; nothing was changed", path.display())]
pub struct AuditError {
    path: PathBuf,
    source: io::Error,
}

/// The log of one spool. The spool's lock must be held.
#[derive(Debug)]
pub struct Audit<D: Disk> {
    disk: D,
    folder: PathBuf,
    reserve: Reserve,
    /// One line at a time.
    writing: Mutex<()>,
}

/// One line.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    who: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(flatten)]
    request: &'a Request,
    outcome: String,
}

impl<D: Disk> Audit<D> {
    pub fn new(disk: D, spool: &Path) -> Self {
        let reserve = Reserve::new(spool.join(format!("{AUDIT_FILE}.reserve")));
        Self { disk, folder: spool.to_owned(), reserve, writing: Mutex::new(()) }
    }

    /// Keeps room for lines on a disk that may be full one day. Blocks.
    pub fn keep_room(&self) {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.reserve.fill(&self.disk);
    }

    /// Appends a line and makes it durable. Blocks.
    ///
    /// # Errors
    /// Where the disk does not take it.
    pub fn append(
        &self,
        unix_ms: u64,
        who: &Who,
        request: &Request,
        outcome: Outcome<'_>,
    ) -> Result<(), AuditError> {
        let outcome = match outcome {
            Outcome::Begun => "begun".to_owned(),
            Outcome::Done => "done".to_owned(),
            Outcome::Refused(reason) => format!("refused: {}", bounded(reason)),
        };
        let line = Line {
            time: date::rfc3339(unix_ms),
            who: &who.name,
            from: who.from.as_deref(),
            request,
            outcome,
        };
        let path = self.folder.join(AUDIT_FILE);
        let text = serde_json::to_string(&line).map_err(io::Error::other);
        text.and_then(|text| self.write(&path, &format!("{text}\n")))
            .map_err(|source| AuditError { path, source })
    }

    fn write(&self, path: &Path, line: &str) -> io::Result<()> {
        let _one = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            match self.try_write(path, line) {
                Err(error) if is_full(&error) && self.reserve.give_way(&self.disk)? => {}
                written => return written,
            }
        }
    }

    fn try_write(&self, path: &Path, line: &str) -> io::Result<()> {
        let bytes = u64::try_from(line.len()).unwrap_or(u64::MAX);
        let existing = match self.disk.open_for_write(path) {
            Ok(file) => Some(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if let Some(file) = existing {
            let length = file.length()?;
            if length.saturating_add(bytes) <= FILE_BYTES_MAX {
                // What a crash cut short stays a line of its own.
                let mut last = [b'\n'];
                let torn =
                    length > 0 && file.read_at(&mut last, length - 1)? == 1 && last != *b"\n";
                let line = if torn { format!("\n{line}") } else { line.to_owned() };
                let written = file.write_all_at(line.as_bytes(), length).and_then(|()| file.sync());
                if written.is_err() {
                    // Else a part of it stays; the next line would still be one of its own.
                    let _ = file.set_length(length);
                }
                return written;
            }
            self.rotate(path)?;
        }
        let file = self.disk.create_new(path)?;
        let written = file.write_all_at(line.as_bytes(), 0).and_then(|()| file.sync());
        if written.is_err() {
            let _ = file.set_length(0);
        }
        written?;
        self.disk.sync_dir(&self.folder)
    }

    /// Each part gets the next number; the oldest is replaced.
    fn rotate(&self, path: &Path) -> io::Result<()> {
        let part = |number: u32| self.folder.join(format!("{AUDIT_FILE}.{number}"));
        for number in (1..FILES_MAX - 1).rev() {
            match self.disk.rename(&part(number), &part(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.disk.rename(path, &part(1))?;
        self.disk.sync_dir(&self.folder)
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

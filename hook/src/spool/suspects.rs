//! Attempts by content, for messages whose senders keep them: a poison that comes again is known.
//!
//! The file is a journal of 48-byte records, the last of a digest counts, and is written anew when it has grown to
//! twice what it has to say.

use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use gantry_protocol::id::Digest;

use super::open::replace_file;
use super::record::checksum;
use super::{SUSPECTS_FILE, SpoolError};
use crate::disk::{Disk, DiskFile};

/// Contents remembered; the oldest go first. A hook with more poison than this at once has other troubles.
pub const SUSPECTS_MAX: usize = 10_000;

const RECORD_BYTES: usize = 48;
const BODY_BYTES: usize = 40;

/// What is remembered of a content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Suspect {
    /// Attempts counted so far, over all messages with this content.
    pub attempts: u8,
    /// A message with this content is held, so another copy of it need not be tried.
    pub held: bool,
}

/// See [`Spool::suspects`](super::Spool::suspects).
pub struct Suspects {
    path: PathBuf,
    known: Mutex<Known>,
    /// Held while the file is written: nothing but suspects waits for it.
    journal: Mutex<Journal>,
}

struct Journal {
    records: usize,
}

#[derive(Default)]
struct Known {
    suspects: HashMap<Digest, Suspect>,
    /// Oldest first; each key of `suspects` once.
    order: VecDeque<Digest>,
}

impl Suspects {
    /// What is known of this content; most are unknown, and innocent.
    pub fn lookup(&self, digest: Digest) -> Option<Suspect> {
        self.known().suspects.get(&digest).copied()
    }

    /// Reads the journal, without what is damaged in it, and writes it anew.
    pub(super) fn open<D: Disk>(disk: &D, root: &Path) -> Result<Self, SpoolError> {
        let path = root.join(SUSPECTS_FILE);
        let mut known = Known::default();
        let mut bytes = Vec::new();
        match disk.open(&path) {
            Ok(file) => {
                let io = || SpoolError::io("read suspects", &path);
                let length = file.length().map_err(io())?.min(JOURNAL_BYTES_MAX);
                bytes.resize(usize::try_from(length).unwrap_or(0), 0);
                file.read_full_at(&mut bytes, 0).map_err(io())?;
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(SpoolError::io("read suspects", &path)(error)),
        }
        for (digest, suspect) in bytes.chunks_exact(RECORD_BYTES).filter_map(decode) {
            known.set(digest, suspect);
        }
        let known = Mutex::new(known);
        let suspects = Self { path, known, journal: Mutex::new(Journal { records: 0 }) };
        let records = suspects.rewrite(disk)?;
        suspects.journal.lock().unwrap_or_else(PoisonError::into_inner).records = records;
        Ok(suspects)
    }

    /// Counts attempts at a content, durably; none clears it. Only of suspects is this asked, so the sync is rare.
    pub(super) fn charge<D: Disk>(
        &self,
        disk: &D,
        digest: Digest,
        attempts: u8,
    ) -> Result<(), SpoolError> {
        let held = self.lookup(digest).is_some_and(|suspect| suspect.held);
        self.set(disk, digest, Suspect { attempts, held })
    }

    /// A message with this content is held, if it was a suspect.
    pub(super) fn hold<D: Disk>(&self, disk: &D, digest: Digest) -> Result<(), SpoolError> {
        match self.lookup(digest) {
            Some(suspect) => self.set(disk, digest, Suspect { held: true, ..suspect }),
            None => Ok(()),
        }
    }

    /// A worker lived through this content.
    pub(super) fn clear<D: Disk>(&self, disk: &D, digest: Digest) -> Result<(), SpoolError> {
        self.set(disk, digest, Suspect::default())
    }

    fn set<D: Disk>(&self, disk: &D, digest: Digest, suspect: Suspect) -> Result<(), SpoolError> {
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.lookup(digest).unwrap_or_default();
        if before == suspect {
            return Ok(());
        }
        self.known().set(digest, suspect);
        let written = self.write(disk, &mut journal, &encode(digest, suspect));
        if written.is_err() {
            // What is not on disk must not pass for known when it is set again.
            self.known().set(digest, before);
        }
        written
    }

    fn write<D: Disk>(
        &self,
        disk: &D,
        journal: &mut Journal,
        record: &[u8; RECORD_BYTES],
    ) -> Result<(), SpoolError> {
        if journal.records >= 2 * SUSPECTS_MAX {
            journal.records = self.rewrite(disk)?;
            return Ok(());
        }
        let io = || SpoolError::io("write suspects", &self.path);
        let file = disk.open_for_write(&self.path).map_err(io())?;
        file.write_all_at(record, (journal.records * RECORD_BYTES) as u64).map_err(io())?;
        file.sync().map_err(SpoolError::sync(&self.path))?;
        journal.records += 1;
        Ok(())
    }

    /// Writes the file anew, with what has to survive; returns its records.
    fn rewrite<D: Disk>(&self, disk: &D) -> Result<usize, SpoolError> {
        let mut bytes = Vec::new();
        let known = self.known();
        for digest in &known.order {
            if let Some(suspect) = known.suspects.get(digest) {
                bytes.extend_from_slice(&encode(*digest, *suspect));
            }
        }
        drop(known);
        replace_file(disk, &self.path, &bytes)?;
        Ok(bytes.len() / RECORD_BYTES)
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a journal can have grown to.
const JOURNAL_BYTES_MAX: u64 = (2 * SUSPECTS_MAX * RECORD_BYTES) as u64;

impl Known {
    fn set(&mut self, digest: Digest, suspect: Suspect) {
        if suspect == Suspect::default() {
            if self.suspects.remove(&digest).is_some() {
                self.order.retain(|other| *other != digest);
            }
        } else if self.suspects.insert(digest, suspect).is_none() {
            self.order.push_back(digest);
            if self.order.len() > SUSPECTS_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.suspects.remove(&oldest);
            }
        }
    }
}

fn encode(digest: Digest, suspect: Suspect) -> [u8; RECORD_BYTES] {
    let mut body = [0; BODY_BYTES];
    let fields = digest.0.into_iter().chain([suspect.attempts, u8::from(suspect.held)]);
    body.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    let mut record = [0; RECORD_BYTES];
    let bytes = body.into_iter().chain(checksum::<8>(&[&body]));
    record.iter_mut().zip(bytes).for_each(|(to, from)| *to = from);
    record
}

fn decode(record: &[u8]) -> Option<(Digest, Suspect)> {
    let (body, sum) = record.split_first_chunk::<BODY_BYTES>()?;
    if sum != checksum::<8>(&[body]) {
        return None;
    }
    let (digest, rest) = body.split_first_chunk::<32>()?;
    let [attempts, held, ..] = rest else { return None };
    Some((Digest(*digest), Suspect { attempts: *attempts, held: *held == 1 }))
}

//! The folder and its files: which are finished, whose they are, and where they go.
//!
//! A file is claimed by one rename into a folder of this mailbox of this host, under a name that begins with the id that
//! its message will have. Of two hooks only one rename succeeds. After a crash the id tells whether the spool has the
//! message already.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gantry_protocol::id::MessageId;
use walkdir::WalkDir;

use super::PickupConfig;
use crate::disk::{Disk, RealDisk};
use crate::local::SIDECAR_ENDING;
use crate::release::{EnvelopeForm, FolderFormat};

/// Longest name that is taken: with the id before it and `.envelope` behind it, it still is a name.
const NAME_BYTES_MAX: usize = 200;
/// Unfinished files that are remembered from one look to the next. The others wait until these are taken.
const SEEN_MAX: usize = 10_000;

/// A pickup folder with what was seen in it.
pub(super) struct Folder {
    config: PickupConfig,
    seen: HashMap<OsString, Seen>,
}

/// A file as it was when it last changed.
#[derive(Clone)]
struct Seen {
    fingerprint: Fingerprint,
    since: Instant,
}

/// What changes when a file is written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fingerprint {
    inode: u64,
    length: u64,
    modified: (i64, i64),
}

/// A file that is this mailbox's.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    pub(super) id: MessageId,
    /// As it was called in the folder.
    pub(super) name: OsString,
    pub(super) path: PathBuf,
    /// Where its envelope lies, if in a file.
    pub(super) sidecar: Option<PathBuf>,
}

/// What a look into the folder found.
pub(super) struct Look {
    pub(super) ready: Vec<OsString>,
    /// When the next file may be finished.
    pub(super) again: Option<Duration>,
}

/// What could not be done in the folder, and with what.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}: {source}", path.display())]
pub struct FolderError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

impl FolderError {
    pub(super) fn new(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { doing, path, source }
    }
}

impl Fingerprint {
    pub(super) fn of(metadata: &std::fs::Metadata) -> Self {
        Self {
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
        }
    }
}

impl Folder {
    /// Makes the folders for what is claimed and what has failed. The pickup folder itself must be there: who may
    /// write to it is the administrator's decision.
    pub(super) fn open(config: PickupConfig) -> Result<Self, FolderError> {
        let folder = Self { config, seen: HashMap::new() };
        for path in [folder.claimed(), folder.failed()] {
            std::fs::read_dir(folder.scanned())
                .map_err(FolderError::new("open", &folder.scanned()))?;
            std::fs::create_dir_all(&path).map_err(FolderError::new("make folder", &path))?;
        }
        Ok(folder)
    }

    /// Where new files appear.
    pub(super) fn scanned(&self) -> PathBuf {
        match self.config.format {
            FolderFormat::Directory => self.config.directory.clone(),
            FolderFormat::Maildir => self.config.directory.join("new"),
        }
    }

    /// Of this mailbox of this host alone: what lies there after a crash is nobody else's.
    pub(super) fn claimed(&self) -> PathBuf {
        let PickupConfig { host, mailbox, .. } = &self.config;
        self.config.directory.join("claimed").join(format!("{host}.{mailbox}"))
    }

    pub(super) fn failed(&self) -> PathBuf {
        self.config.directory.join("failed")
    }

    /// Finds files that are finished, at most `max`.
    pub(super) fn look(&mut self, max: usize) -> Look {
        let mut look = Look { ready: Vec::new(), again: None };
        let mut seen = HashMap::new();
        let now = Instant::now();
        for entry in WalkDir::new(self.scanned()).min_depth(1).max_depth(1) {
            if look.ready.len() == max {
                look.again = Some(Duration::ZERO);
                break;
            }
            // What vanishes while we look is another's.
            let Ok(entry) = entry else { continue };
            if !entry.file_type().is_file() || self.is_unfinished(entry.file_name()) {
                continue;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            let fingerprint = Fingerprint::of(&metadata);
            let known = self.seen.get(entry.file_name());
            let since = match known.filter(|known| known.fingerprint == fingerprint) {
                Some(known) => known.since,
                None => now,
            };
            let wait = self.wait(entry.file_name()).saturating_sub(now - since);
            if wait.is_zero() {
                look.ready.push(entry.file_name().to_owned());
            } else {
                look.again = Some(look.again.map_or(wait, |again| again.min(wait)));
            }
            if seen.len() < SEEN_MAX {
                seen.insert(entry.file_name().to_owned(), Seen { fingerprint, since });
            }
        }
        if look.ready.len() < max {
            self.seen = seen;
        }
        look
    }

    /// Claims a file; `None` where it is another's by now.
    pub(super) fn claim(&self, name: &OsStr, id: MessageId) -> Result<Option<Claim>, FolderError> {
        let from = self.scanned().join(name);
        let claim = self.claim_named(name, id);
        if !rename_if_there(&from, &claim.path)? {
            return Ok(None);
        }
        if let Some(sidecar) = &claim.sidecar {
            // Where it is missing the message is judged without it.
            rename_if_there(&self.sidecar_of(name), sidecar)?;
        }
        Ok(Some(claim))
    }

    /// Makes claims durable, also that the files are gone from where they were.
    pub(super) fn sync_claims(&self) -> Result<(), FolderError> {
        for path in [self.claimed(), self.scanned()] {
            RealDisk.sync_dir(&path).map_err(FolderError::new("sync folder", &path))?;
        }
        Ok(())
    }

    /// Whether a name is too long to be claimed.
    pub(super) fn is_too_long(name: &OsStr) -> bool {
        name.len() > NAME_BYTES_MAX
    }

    /// Sets a file with such a name aside, which only needs it to be renamed.
    pub(super) fn fail_long_name(&self, name: &OsStr, id: MessageId) -> Result<(), FolderError> {
        let start = OsStr::from_bytes(name.as_bytes().get(..NAME_BYTES_MAX).unwrap_or_default());
        let claim =
            Claim { id, name: start.to_owned(), path: self.scanned().join(name), sidecar: None };
        self.fail(&claim, &format!("its name has more than {NAME_BYTES_MAX} bytes"))
    }

    /// Sets a claimed file aside, with the reason beside it. The last rename is that of the message: until then it is
    /// claimed.
    pub(super) fn fail(&self, claim: &Claim, reason: &str) -> Result<(), FolderError> {
        let target = self.failed().join(claimed_name(claim.id, &claim.name));
        let reason_path = with_ending(&target, ".reason");
        let write = || {
            let mut file = File::create(&reason_path)?;
            writeln!(file, "{reason}")?;
            file.sync_all()
        };
        write().map_err(FolderError::new("write", &reason_path))?;
        if let Some(sidecar) = &claim.sidecar {
            rename_if_there(sidecar, &with_ending(&target, SIDECAR_ENDING))?;
        }
        rename_if_there(&claim.path, &target)?;
        RealDisk.sync_dir(&self.failed()).map_err(FolderError::new("sync folder", &self.failed()))
    }

    /// Removes what the spool has. The last to go is the message: until then its id tells.
    pub(super) fn remove(&self, claim: &Claim) -> Result<(), FolderError> {
        for path in claim.sidecar.iter().chain([&claim.path]) {
            match RealDisk.remove(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(FolderError::new("remove", path)(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(super) fn sync_removed(&self) -> Result<(), FolderError> {
        let path = self.claimed();
        RealDisk.sync_dir(&path).map_err(FolderError::new("sync folder", &path))
    }

    /// What an earlier run had claimed. Names that no claim of ours has are left alone and reported.
    pub(super) fn leftovers(&self) -> Result<Vec<Claim>, FolderError> {
        let mut found = Vec::new();
        for entry in WalkDir::new(self.claimed()).min_depth(1).max_depth(1).sort_by_file_name() {
            let entry = entry
                .map_err(|error| FolderError::new("read folder", &self.claimed())(error.into()))?;
            if self.is_sidecar(entry.file_name()) {
                continue;
            }
            match parse_claimed(entry.file_name()) {
                Some((id, name)) => found.push(self.claim_named(name, id)),
                None => tracing::warn!(
                    mailbox = self.config.mailbox,
                    "a file among the claimed ones is none of Gantry's and was left alone"
                ),
            }
        }
        Ok(found)
    }

    /// Gives a file that an earlier run had claimed the id of a message to be, and its sidecar where a crash had left
    /// that behind.
    pub(super) fn claim_again(&self, old: &Claim, id: MessageId) -> Result<Claim, FolderError> {
        let claim = self.claim_named(&old.name, id);
        if let (Some(from), Some(to)) = (&old.sidecar, &claim.sidecar)
            && !rename_if_there(from, to)?
        {
            rename_if_there(&self.sidecar_of(&old.name), to)?;
        }
        rename_if_there(&old.path, &claim.path)?;
        Ok(claim)
    }

    fn claim_named(&self, name: &OsStr, id: MessageId) -> Claim {
        let path = self.claimed().join(claimed_name(id, name));
        let has_sidecar = self.config.envelope == EnvelopeForm::Sidecar;
        let sidecar = has_sidecar.then(|| with_ending(&path, SIDECAR_ENDING));
        Claim { id, name: name.to_owned(), path, sidecar }
    }

    fn sidecar_of(&self, name: &OsStr) -> PathBuf {
        with_ending(&self.scanned().join(name), SIDECAR_ENDING)
    }

    fn is_sidecar(&self, name: &OsStr) -> bool {
        self.config.envelope == EnvelopeForm::Sidecar
            && name.as_bytes().ends_with(SIDECAR_ENDING.as_bytes())
    }

    /// Names that say so themselves.
    fn is_unfinished(&self, name: &OsStr) -> bool {
        let name_bytes = name.as_bytes();
        let ending = [b".tmp".as_slice(), b".part"].iter().any(|end| name_bytes.ends_with(end));
        let unfinished = match self.config.format {
            FolderFormat::Directory => ending,
            FolderFormat::Maildir => false,
        };
        name_bytes.starts_with(b".") || unfinished || self.is_sidecar(name)
    }

    /// For how long a file must have been as it is. What appears in a Maildir's `new` is finished; a message whose
    /// envelope is missing may be so because somebody writes them in that order.
    fn wait(&self, name: &OsStr) -> Duration {
        let settle = match self.config.format {
            FolderFormat::Directory => self.config.settle,
            FolderFormat::Maildir => Duration::ZERO,
        };
        let waits =
            self.config.envelope == EnvelopeForm::Sidecar && !self.sidecar_of(name).exists();
        if waits { settle.max(self.config.sidecar_wait) } else { settle }
    }
}

/// Renames; false where there is nothing of the old name.
fn rename_if_there(from: &Path, to: &Path) -> Result<bool, FolderError> {
    match RealDisk.rename(from, to) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FolderError::new("rename", from)(error)),
    }
}

fn claimed_name(id: MessageId, name: &OsStr) -> OsString {
    let mut claimed = OsString::from(format!("{id}."));
    claimed.push(name);
    claimed
}

fn parse_claimed(claimed: &OsStr) -> Option<(MessageId, &OsStr)> {
    let bytes = claimed.as_bytes();
    let dot = bytes.iter().position(|&byte| byte == b'.')?;
    let (id, name) = bytes.split_at_checked(dot)?;
    let id = std::str::from_utf8(id).ok()?.parse().ok()?;
    Some((id, OsStr::from_bytes(name.get(1..).filter(|name| !name.is_empty())?)))
}

fn with_ending(path: &Path, ending: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(ending);
    PathBuf::from(path)
}

//! Handing messages on as files in a folder, for a program that looks there.
//!
//! A file appears under its name only when it is whole: it is written under a temporary name, synced, renamed, and then
//! the folder is synced. The name follows from the message and its recipients, so what is written again after a crash
//! takes the place of what was written before.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_mail::HeaderEdit;
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{RecipientResult, ReleaseResult};

use super::TraceKey;
use super::letter::{Identity, Letter, LetterError, Stamp};
use super::lines::{LineEnds, Lines};
use super::order::{Group, Plan, all, envelope_recipients, plan};
use crate::disk::{Disk, RealDisk};
use crate::local::{self, AddressError, SIDECAR_ENDING, Sidecar};
use crate::spool::{Header, Spool};

/// Others may read what the process' umask and the folder let them: it is meant for another program.
const FILE_MODE: u32 = 0o660;

/// A way out into a folder, everything resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryReleaseConfig {
    pub identity: Identity,
    /// The host's name in the cluster, which keeps the names of two hosts' files apart.
    pub host: String,
    pub path: PathBuf,
    pub format: FolderFormat,
    pub envelope: EnvelopeForm,
    pub line_ends: LineEnds,
}

/// How a folder holds messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FolderFormat {
    /// Files in the folder itself. Those that begin with a dot or end with `.tmp` are not finished.
    Directory,
    /// `tmp`, `new` and `cur`.
    Maildir,
}

/// Where a file's envelope stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvelopeForm {
    /// In X-Sender and X-Receiver at the top of the message.
    Headers,
    /// In a file beside it.
    Sidecar,
}

/// A folder as a way out.
#[derive(Clone, Debug)]
pub struct DirectoryRelease {
    config: Arc<DirectoryReleaseConfig>,
}

/// Why a message could not be written.
#[derive(Debug, thiserror::Error)]
enum NotWritten {
    #[error("write {}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Letter(#[from] LetterError),
    #[error("write its envelope: {0}")]
    Address(#[from] AddressError),
}

impl DirectoryRelease {
    /// A way out into a folder; makes the folder, and a Maildir's own, where they are missing.
    ///
    /// # Errors
    /// The folder that cannot be made, and why.
    pub fn open(config: DirectoryReleaseConfig) -> Result<Self, (PathBuf, io::Error)> {
        let folders = match config.format {
            FolderFormat::Directory => vec![config.path.clone()],
            FolderFormat::Maildir => {
                ["tmp", "new", "cur"].map(|name| config.path.join(name)).into()
            }
        };
        for folder in folders {
            std::fs::create_dir_all(&folder).map_err(|error| (folder, error))?;
        }
        Ok(Self { config: Arc::new(config) })
    }

    pub(super) async fn release<D: Disk>(
        &self,
        spool: Arc<Spool<D>>,
        id: MessageId,
        recipients: Vec<u16>,
        trace: &TraceKey,
    ) -> Vec<RecipientResult> {
        let (config, trace) = (Arc::clone(&self.config), trace.clone());
        let Plan { header, groups, mut results } = match plan(&spool, id, recipients).await {
            Ok(plan) => plan,
            Err(results) => return results,
        };
        let whom: Vec<Vec<u16>> = groups.iter().map(|group| group.recipients.clone()).collect();
        let written = tokio::task::spawn_blocking(move || {
            let write = |group| write(&config, &spool, &header, group, &trace);
            groups.iter().map(write).collect::<Vec<_>>()
        });
        let written = written.await.unwrap_or_default();
        for (index, recipients) in whom.iter().enumerate() {
            let (result, reply) = match written.get(index) {
                Some(Ok(name)) => (ReleaseResult::Accepted, format!("written as {name}")),
                Some(Err(NotWritten::Address(error))) => {
                    (ReleaseResult::Refused, format!("553 5.1.3 {error}"))
                }
                Some(Err(error)) => (ReleaseResult::Deferred, error.to_string()),
                None => (ReleaseResult::Deferred, "write the message: it broke off".to_owned()),
            };
            results.extend(all(recipients, result, &reply));
        }
        results
    }
}

/// Writes one file, durably; gives its name. Blocks.
fn write<D: Disk>(
    config: &DirectoryReleaseConfig,
    spool: &Spool<D>,
    header: &Header,
    group: &Group,
    trace: &TraceKey,
) -> Result<String, NotWritten> {
    let envelope = &header.envelope;
    let recipients = envelope_recipients(envelope, &group.recipients);
    let addresses: Vec<&str> = recipients.iter().map(|to| to.address.as_str()).collect();
    std::iter::once(envelope.sender.as_str())
        .chain(addresses.iter().copied())
        .try_for_each(local::check_address)?;
    let letter = Letter::open(spool, header.id)?;
    let stamp = Stamp {
        identity: &config.identity,
        trace,
        envelope,
        received_unix_ms: header.received_unix_ms,
        edits: &group.edits,
    };
    let mut head = letter.head(&stamp, &recipients)?;
    if config.envelope == EnvelopeForm::Headers {
        // Fields of these names that came in would be read as more of the envelope.
        let remove = |name: &str| HeaderEdit::Remove { name: name.to_owned() };
        let theirs = [remove(local::SENDER), remove(local::RECEIVER)];
        let rest = gantry_mail::header::edit(&head, &theirs).map_err(LetterError::from)?;
        head = local::head_fields(&envelope.sender, addresses.iter().copied());
        head.extend_from_slice(&rest);
    }
    let place = Place::of(config, header, group);
    if config.envelope == EnvelopeForm::Sidecar {
        let sidecar = Sidecar {
            sender: envelope.sender.clone(),
            recipients: addresses.iter().map(|&address| address.to_owned()).collect(),
        };
        // A message without its envelope must never be seen, not even after a crash, so it is durable first.
        place.put(SIDECAR_ENDING, |file| {
            serde_json::to_writer(file, &sidecar).map_err(|error| NotWritten::Io {
                path: place.folder.clone(),
                source: error.into(),
            })
        })?;
    }
    place.put("", |file| {
        let mut rest = Some(letter.into_pieces(head, Lines::new(config.line_ends)));
        while let Some(pieces) = rest {
            let piece = pieces.read()?;
            file.write_all(&piece.bytes).map_err(place.io(&place.folder))?;
            rest = piece.rest;
        }
        Ok(())
    })?;
    Ok(place.name)
}

/// Where a file goes.
struct Place {
    folder: PathBuf,
    name: String,
    /// The temporary name's folder, and what it has before and behind the name.
    temporary: (PathBuf, &'static str, &'static str),
}

impl Place {
    /// The name tells when the message came in, too: a spool that was made anew starts over with its ids.
    fn of(config: &DirectoryReleaseConfig, header: &Header, group: &Group) -> Self {
        let first = group.recipients.iter().min().copied().unwrap_or_default();
        let (seconds, id, host) = (header.received_unix_ms / 1_000, header.id, &config.host);
        match config.format {
            FolderFormat::Directory => Self {
                folder: config.path.clone(),
                name: format!("{seconds}.{id}-{first}.{host}.eml"),
                temporary: (config.path.clone(), ".", ".tmp"),
            },
            FolderFormat::Maildir => Self {
                folder: config.path.join("new"),
                name: format!("{seconds}.{id}-{first}.{host}"),
                temporary: (config.path.join("tmp"), "", ""),
            },
        }
    }

    /// Writes a file under a temporary name, and gives it its own when it is whole and durable.
    fn put(
        &self,
        ending: &str,
        fill: impl FnOnce(&mut File) -> Result<(), NotWritten>,
    ) -> Result<(), NotWritten> {
        let (folder, before, behind) = &self.temporary;
        let name = format!("{}{ending}", self.name);
        let temporary = folder.join(format!("{before}{name}{behind}"));
        // One that a crash left.
        match RealDisk.remove(&temporary) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.io(&temporary)(error));
            }
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(FILE_MODE);
        let mut file = options.open(&temporary).map_err(self.io(&temporary))?;
        let target = self.folder.join(&name);
        let done = fill(&mut file)
            .and_then(|()| file.sync_all().map_err(self.io(&temporary)))
            .and_then(|()| RealDisk.rename(&temporary, &target).map_err(self.io(&target)));
        if let Err(error) = done {
            // The next try removes it, if this one cannot.
            let _ = RealDisk.remove(&temporary);
            return Err(error);
        }
        RealDisk.sync_dir(&self.folder).map_err(self.io(&self.folder))
    }

    fn io(&self, path: &Path) -> impl FnOnce(io::Error) -> NotWritten {
        let path = path.to_owned();
        move |source| NotWritten::Io { path, source }
    }
}

#[cfg(test)]
mod tests;

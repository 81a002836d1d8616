//! Messages on their way into the hook's custody.

use std::path::PathBuf;
use std::sync::Arc;

use gantry_daemon::crash;
use gantry_mail::Envelope;
use gantry_protocol::id::{Digest, MessageId};
use gantry_protocol::limits::MESSAGE_BYTES_MAX;
use gantry_protocol::pool::{MailboxIndex, StoredState};
use ring::digest::{Context, SHA256};

use super::folders::Folder;
use super::name::{Name, temporary};
use super::record::{self, Entry, PREAMBLE_BYTES};
use super::stored::TOO_LARGE;
use super::{Finished, Spool, SpoolError};
use crate::disk::{Disk, DiskFile};

/// Bytes gathered before a write: most messages are one write then, and no size of a message decides memory.
const BUFFER_BYTES: usize = 64 * 1024;

/// A message in the hook's custody while it comes in. Dropping it leaves nothing.
pub struct Incoming<D: Disk>(Draft<D>);

impl<D: Disk> Incoming<D> {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`SpoolError::NoRoom`], or the disk, mostly that it is full. The message cannot be finished then.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.0.spool.room(self.0.length + bytes.len() as u64)?;
        self.0.write(bytes)
    }

    /// Makes the message durable, marked and with no attempts.
    ///
    /// # Errors
    /// The disk. Nothing of the message is left, and it must not be answered yes.
    pub fn finish(self) -> Result<Finished, SpoolError> {
        self.0.store(StoredState::Marked { attempts: 0 }, &[])
    }
}

impl<D: Disk> Spool<D> {
    /// Begins a message in the hook's custody. Nothing of it is visible before [`Incoming::finish`].
    ///
    /// # Errors
    /// An envelope beyond the format's bounds, no room, or a spool that no longer stores.
    pub fn begin(
        self: &Arc<Self>,
        id: MessageId,
        mailbox: MailboxIndex,
        envelope: &Envelope,
        received_unix_ms: u64,
    ) -> Result<Incoming<D>, SpoolError> {
        self.room(0)?;
        self.draft(id, mailbox, envelope, received_unix_ms).map(Incoming)
    }

    /// Begins a file.
    pub(super) fn draft(
        self: &Arc<Self>,
        id: MessageId,
        mailbox: MailboxIndex,
        envelope: &Envelope,
        received_unix_ms: u64,
    ) -> Result<Draft<D>, SpoolError> {
        self.health.check()?;
        let max = record::ENVELOPE_BYTES_MAX as u64;
        let too_large = SpoolError::TooLarge { what: "the envelope", max };
        let Ok(recipients) = u16::try_from(envelope.recipients.len()) else {
            return Err(too_large);
        };
        let Some(envelope) = record::encode_envelope(envelope) else { return Err(too_large) };
        let place = self.folders.take_place(&self.disk, mailbox);
        let (place, folder) = self.health.watch(place)?;
        // The fixed part is not known yet; its bytes are kept free.
        let mut buffer = vec![0; PREAMBLE_BYTES];
        buffer.extend_from_slice(&envelope);
        let path = folder.path.join(temporary(id));
        Ok(Draft {
            spool: Arc::clone(self),
            id,
            received_unix_ms,
            recipients,
            envelope,
            place,
            folder,
            path,
            file: None,
            buffer,
            flushed: 0,
            length: 0,
            hash: Context::new(&SHA256),
            kept: false,
        })
    }
}

/// A file that is being written under a temporary name.
pub(super) struct Draft<D: Disk> {
    spool: Arc<Spool<D>>,
    id: MessageId,
    received_unix_ms: u64,
    recipients: u16,
    envelope: Vec<u8>,
    place: u32,
    folder: Arc<Folder>,
    /// Where the file is as long as it is not kept.
    path: PathBuf,
    /// Made when the first buffer is full, or at the end.
    file: Option<D::File>,
    buffer: Vec<u8>,
    /// Bytes of the file before those in the buffer.
    flushed: u64,
    length: u64,
    hash: Context,
    /// Whether the file is a message of the spool now.
    kept: bool,
}

impl<D: Disk> Draft<D> {
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.length += bytes.len() as u64;
        if self.length > MESSAGE_BYTES_MAX {
            return Err(SpoolError::TooLarge { what: "the message", max: MESSAGE_BYTES_MAX });
        }
        self.hash.update(bytes);
        for piece in bytes.chunks(BUFFER_BYTES) {
            self.buffer.extend_from_slice(piece);
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Length and digest of what has been written so far.
    pub(super) fn finished(&self) -> Finished {
        Finished { length: self.length, digest: digest(self.hash.clone()) }
    }

    /// Makes the file a durable message in this state, with these records in its log.
    pub(super) fn store(
        mut self,
        state: StoredState,
        entries: &[Entry<'_>],
    ) -> Result<Finished, SpoolError> {
        self.spool.health.check()?;
        let stored = self.try_store(state, entries);
        let spool = Arc::clone(&self.spool);
        spool.health.watch(stored)
    }

    fn try_store(
        &mut self,
        state: StoredState,
        entries: &[Entry<'_>],
    ) -> Result<Finished, SpoolError> {
        let finished = self.finished();
        let Self { id, received_unix_ms, length, recipients, .. } = *self;
        let preamble =
            record::encode_preamble(id, received_unix_ms, &self.envelope, length, &finished.digest);
        let decoded = record::decode_preamble(&preamble).map_err(|_| TOO_LARGE)?;
        for entry in entries {
            let mut bytes = Vec::new();
            let offset = self.flushed + self.buffer.len() as u64;
            entry.encode(&decoded.checksum, offset, &mut bytes).ok_or(TOO_LARGE)?;
            self.buffer.extend_from_slice(&bytes);
        }
        let in_one_piece = self.flushed == 0;
        if in_one_piece {
            self.buffer.iter_mut().zip(&preamble).for_each(|(to, from)| *to = *from);
        }
        self.flush()?;
        if let Some(file) = &self.file {
            if !in_one_piece {
                let written = file.write_all_at(&preamble, 0);
                written.map_err(SpoolError::io("write message", &self.path))?;
            }
            crash::at("file-written");
            file.sync().map_err(SpoolError::sync(&self.path))?;
            crash::at("file-synced");
        }

        let received_unix_s = u32::try_from(received_unix_ms / 1000).unwrap_or(u32::MAX);
        let name = Name { id, received_unix_s, length, recipients, state };
        let path = self.folder.path.join(name.to_string());
        let renamed = self.spool.disk.rename(&self.path, &path);
        renamed.map_err(SpoolError::io("rename message", &self.path))?;
        crash::at("file-renamed");
        self.path = path;
        self.folder.sync(&self.spool.disk)?;
        self.spool.index.insert(&name, self.place, false);
        self.spool.room.add(state, length);
        self.kept = true;
        Ok(finished)
    }

    fn flush(&mut self) -> Result<(), SpoolError> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let made = self.spool.disk.create_new(&self.path);
                made.map_err(SpoolError::io("make message", &self.path))?
            }
        };
        let written = self.file.insert(file).write_all_at(&self.buffer, self.flushed);
        written.map_err(SpoolError::io("write message", &self.path))?;
        self.flushed += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl<D: Disk> Drop for Draft<D> {
    /// Nobody was promised anything: what is left now would only be removed by the next start.
    fn drop(&mut self) {
        if self.kept {
            return;
        }
        self.spool.folders.give_back(self.place);
        if self.file.take().is_some()
            && let Err(error) = self.spool.disk.remove(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "could not remove an unfinished message");
        }
    }
}

pub(super) fn digest(hash: Context) -> Digest {
    let mut digest = Digest([0; 32]);
    digest.0.iter_mut().zip(hash.finish().as_ref()).for_each(|(to, from)| *to = *from);
    digest
}

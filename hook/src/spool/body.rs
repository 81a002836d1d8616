//! Reading the bytes of a message.

use std::io::{self, Read};
use std::sync::Arc;

use gantry_protocol::id::{Digest, MessageId};
use ring::digest::{Context, SHA256};

use super::incoming::digest;
use super::stored::StoredFile;
use super::volatile::VolatileMessage;
use super::{Spool, SpoolError};
use crate::disk::{Disk, DiskFile};

/// The bytes of a message, exactly as they came in.
///
/// Reading to the end compares them with the digest: damage is an error of kind [`io::ErrorKind::InvalidData`] in place
/// of the last bytes and the end, so what was read before is not to be taken for a whole message. What has never been
/// out of memory is not compared. The message's file may be renamed or removed meanwhile.
pub struct Body<D: Disk> {
    source: Source<D>,
    id: MessageId,
    length: u64,
    position: u64,
    /// What the bytes come to so far, and what they have to come to; `None` where no disk can have damaged them.
    verification: Option<(Context, Digest)>,
}

enum Source<D: Disk> {
    Stored { file: D::File, start: u64 },
    Volatile(Arc<VolatileMessage<D>>),
}

impl<D: Disk> Spool<D> {
    /// Reads a message to its end and compares its digest.
    ///
    /// # Errors
    /// [`SpoolError::Corrupted`] where the file is damaged; others where it cannot be read just now.
    pub fn check(&self, id: MessageId) -> Result<(), SpoolError> {
        let mut body = self.body(id)?;
        match io::copy(&mut body, &mut io::sink()) {
            Ok(_) => Ok(()),
            Err(source) => Err(self.unread(id, source)),
        }
    }

    /// What an error of [`Body`] means for its message.
    pub(super) fn unread(&self, id: MessageId, source: io::Error) -> SpoolError {
        let path = match self.locate(id) {
            Ok((name, folder)) => folder.path.join(name.to_string()),
            Err(_) if self.volatile.get(id).is_some() => self.volatile_folder(),
            Err(error) => return error,
        };
        match source.kind() {
            io::ErrorKind::InvalidData => {
                SpoolError::Corrupted { id, path, reason: source.to_string() }
            }
            _ => SpoolError::Io { doing: "read", path, source },
        }
    }
}

impl<D: Disk> Body<D> {
    /// Bytes of the message.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Appends the next `wanted` bytes to `piece`, fewer only where the message ends. Returns how many.
    ///
    /// # Errors
    /// As reading it; nothing is appended then.
    pub fn read_piece(&mut self, wanted: u64, piece: &mut Vec<u8>) -> io::Result<u64> {
        let wanted = wanted.min(self.length - self.position);
        let before = piece.len();
        piece.resize(before + usize::try_from(wanted).map_err(io::Error::other)?, 0);
        let read = self.read_exact(piece.get_mut(before..).unwrap_or_default());
        if read.is_err() {
            piece.truncate(before);
        }
        read.map(|()| wanted)
    }

    pub(super) fn stored(stored: StoredFile<D>) -> Self {
        let (start, header) = (stored.preamble.body(), &stored.header);
        let (id, length, digest) = (header.id, header.length, header.digest);
        let verification = Some((Context::new(&SHA256), digest));
        let source = Source::Stored { file: stored.file, start };
        Self { source, id, length, position: 0, verification }
    }

    pub(super) fn volatile(message: Arc<VolatileMessage<D>>) -> Self {
        let header = &message.header;
        let (id, length, digest) = (header.id, header.length, header.digest);
        let verification = (!message.is_in_memory()).then(|| (Context::new(&SHA256), digest));
        Self { source: Source::Volatile(message), id, length, position: 0, verification }
    }

    fn damaged(&self, what: &str) -> io::Error {
        let reason = format!("read message {}: {what}", self.id);
        io::Error::new(io::ErrorKind::InvalidData, reason)
    }
}

impl<D: Disk> Read for Body<D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.length - self.position).unwrap_or(usize::MAX);
        let wanted = buffer.len().min(left);
        let buffer = buffer.get_mut(..wanted).unwrap_or_default();
        let count = match &self.source {
            _ if wanted == 0 => 0,
            Source::Stored { file, start } => file.read_at(buffer, start + self.position)?,
            Source::Volatile(message) => message.read_at(buffer, self.position)?,
        };
        if count == 0 && wanted > 0 {
            return Err(self.damaged("the file ends within the message"));
        }
        self.position += count as u64;
        let ended = self.position == self.length;
        let damaged = self.verification.as_mut().is_some_and(|(hash, expected)| {
            hash.update(buffer.get(..count).unwrap_or_default());
            ended && digest(hash.clone()) != *expected
        });
        if damaged {
            return Err(self.damaged("its bytes are not those that came in: the digest differs"));
        }
        Ok(count)
    }
}

impl<D: Disk> Spool<D> {
    /// The bytes of a message in either custody.
    ///
    /// # Errors
    /// [`SpoolError::Corrupted`] where the header is damaged or the file too short.
    pub fn body(&self, id: MessageId) -> Result<Body<D>, SpoolError> {
        match self.volatile.get(id) {
            Some(message) => Ok(Body::volatile(message)),
            None => self.open_stored(id, false).map(Body::stored),
        }
    }
}

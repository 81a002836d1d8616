//! Messages in their senders' custody: nothing of them is durable, and a hook that stops forgets them.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use gantry_mail::Envelope;
use gantry_protocol::id::{Digest, MessageId};
use gantry_protocol::limits::MESSAGE_BYTES_MAX;
use gantry_protocol::pool::MailboxIndex;
use ring::digest::{Context, SHA256};

use super::incoming::digest;
use super::name::temporary;
use super::{Finished, Header, Log, Spool, SpoolError, VOLATILE_FOLDER};
use crate::disk::{Disk, DiskFile};

/// The first bytes of a message, which stay in memory: most messages never touch the disk.
const MEMORY_BYTES_MAX: usize = 128 * 1024;
/// Bytes gathered before a write to disk.
const BUFFER_BYTES: usize = 64 * 1024;

/// A message in its sender's custody while it comes in. Dropping it leaves nothing.
pub struct Volatile<D: Disk> {
    spool: Arc<Spool<D>>,
    header: Header,
    hash: Context,
    content: Content<D>,
    /// Bytes on their way to the file.
    buffer: Vec<u8>,
}

/// A message in its sender's custody that came in completely.
pub(super) struct VolatileMessage<D: Disk> {
    pub(super) header: Header,
    content: Content<D>,
    log: Mutex<Log>,
}

struct Content<D: Disk> {
    memory: Vec<u8>,
    memory_share: Share,
    /// What follows the bytes in memory: a file without a name.
    file: Option<D::File>,
    file_bytes: u64,
    file_share: Share,
}

/// All messages in their senders' custody, and what they use.
pub(super) struct VolatileStore<D: Disk> {
    messages: Mutex<HashMap<MessageId, Arc<VolatileMessage<D>>>>,
    memory: Arc<Budget>,
    disk: Arc<Budget>,
}

impl<D: Disk> Spool<D> {
    /// Begins a message in its sender's custody. The spool knows it from [`Volatile::finish`] on, until
    /// [`Self::forget`] or until it is adopted.
    pub fn begin_volatile(
        self: &Arc<Self>,
        id: MessageId,
        mailbox: MailboxIndex,
        envelope: Envelope,
        received_unix_ms: u64,
    ) -> Volatile<D> {
        Volatile {
            header: Header {
                id,
                mailbox,
                envelope,
                length: 0,
                digest: Digest([0; 32]),
                received_unix_ms,
            },
            hash: Context::new(&SHA256),
            content: Content {
                memory: Vec::new(),
                memory_share: Share::of(&self.volatile.memory),
                file: None,
                file_bytes: 0,
                file_share: Share::of(&self.volatile.disk),
            },
            buffer: Vec::new(),
            spool: Arc::clone(self),
        }
    }

    /// Drops a message in its sender's custody. One that the spool does not have is no mistake. Its bytes go when the
    /// last [`Body`](super::Body) of it does.
    pub fn forget(&self, id: MessageId) {
        lock(&self.volatile.messages).remove(&id);
    }
}

impl<D: Disk> Spool<D> {
    /// Whether nothing of a message lies on the disk, so that reading it takes no longer than memory does.
    pub fn in_memory(&self, id: MessageId) -> bool {
        let messages = lock(&self.volatile.messages);
        messages.get(&id).is_some_and(|message| message.is_in_memory())
    }

    /// Whether its verdict is only remembered: no disk is asked, not even to clear what is held against its content.
    pub fn settles_in_memory(&self, id: MessageId) -> bool {
        self.in_memory(id) && !self.is_suspect(id)
    }

    /// Whether something is held against the content of a message in its sender's custody.
    pub fn is_suspect(&self, id: MessageId) -> bool {
        let digest = lock(&self.volatile.messages).get(&id).map(|message| message.header.digest);
        digest.is_some_and(|digest| self.suspects().lookup(digest).is_some())
    }

    /// Runs what reads a message: in place where all of it is in memory, since the way to a blocking thread and back
    /// costs more than the reading; else on a blocking thread. `None` where that panicked.
    pub async fn ask<T: Send + 'static>(
        self: &Arc<Self>,
        id: MessageId,
        read: impl FnOnce(&Arc<Self>, MessageId) -> T + Send + 'static,
    ) -> Option<T> {
        if self.in_memory(id) {
            return Some(read(self, id));
        }
        let spool = Arc::clone(self);
        tokio::task::spawn_blocking(move || read(&spool, id)).await.ok()
    }
}

impl<D: Disk> Volatile<D> {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// The disk, or [`SpoolError::VolatileFull`]: the sender has to try again later.
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), SpoolError> {
        self.header.length += bytes.len() as u64;
        if self.header.length > MESSAGE_BYTES_MAX {
            return Err(SpoolError::TooLarge { what: "the message", max: MESSAGE_BYTES_MAX });
        }
        self.hash.update(bytes);
        let content = &mut self.content;
        let room = MEMORY_BYTES_MAX.saturating_sub(content.memory.len()).min(bytes.len());
        // Once a byte is on disk, all that follow are.
        let spilled = content.file_share.bytes > 0;
        let in_memory = if spilled || !content.memory_share.grow(room) { 0 } else { room };
        let (in_memory, on_disk) = bytes.split_at_checked(in_memory).unwrap_or((bytes, &[]));
        content.memory.extend_from_slice(in_memory);
        if on_disk.is_empty() {
            return Ok(());
        }
        if !content.file_share.grow(on_disk.len()) {
            return Err(SpoolError::VolatileFull { max: content.file_share.budget.max });
        }
        for piece in on_disk.chunks(BUFFER_BYTES) {
            self.buffer.extend_from_slice(piece);
            if self.buffer.len() >= BUFFER_BYTES {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// From now on the spool knows the message by its id.
    ///
    /// # Errors
    /// The disk.
    pub fn finish(mut self) -> Result<Finished, SpoolError> {
        if !self.buffer.is_empty() {
            self.flush()?;
        }
        let Self { spool, mut header, hash, mut content, .. } = self;
        content.memory.shrink_to_fit();
        header.digest = digest(hash);
        let finished = Finished { length: header.length, digest: header.digest };
        let id = header.id;
        let message = VolatileMessage { header, content, log: Mutex::default() };
        lock(&spool.volatile.messages).insert(id, Arc::new(message));
        Ok(finished)
    }

    fn flush(&mut self) -> Result<(), SpoolError> {
        let disk = &self.spool.disk;
        let path = self.spool.root.join(VOLATILE_FOLDER).join(temporary(self.header.id));
        let io = || SpoolError::io("write message", &path);
        let content = &mut self.content;
        let file = match content.file.take() {
            Some(file) => file,
            None => {
                let file = disk.create_new(&path).map_err(io())?;
                // Without a name it goes when the process does, however that ends.
                disk.remove(&path).map_err(io())?;
                file
            }
        };
        let written = file.write_all_at(&self.buffer, content.file_bytes);
        content.file = Some(file);
        written.map_err(io())?;
        content.file_bytes += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

impl<D: Disk> VolatileMessage<D> {
    /// Whether nothing of it lies on the disk.
    pub(super) fn is_in_memory(&self) -> bool {
        self.content.file.is_none()
    }

    pub(super) fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let Content { memory, file, .. } = &self.content;
        let in_memory = usize::try_from(offset).ok().and_then(|offset| memory.get(offset..));
        match (in_memory, file) {
            (Some(bytes), _) if !bytes.is_empty() => {
                let count = bytes.len().min(buffer.len());
                let (to, from) = (buffer.get_mut(..count), bytes.get(..count));
                to.zip(from).into_iter().for_each(|(to, from)| to.copy_from_slice(from));
                Ok(count)
            }
            (_, Some(file)) => file.read_at(buffer, offset - memory.len() as u64),
            (_, None) => Ok(0),
        }
    }

    pub(super) fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.log)
    }
}

impl<D: Disk> VolatileStore<D> {
    pub(super) fn new(memory_bytes_max: u64, disk_bytes_max: u64) -> Self {
        Self {
            messages: Mutex::default(),
            memory: Arc::new(Budget { used: AtomicU64::new(0), max: memory_bytes_max }),
            disk: Arc::new(Budget { used: AtomicU64::new(0), max: disk_bytes_max }),
        }
    }

    pub(super) fn get(&self, id: MessageId) -> Option<Arc<VolatileMessage<D>>> {
        lock(&self.messages).get(&id).cloned()
    }
}

/// Bytes that all messages share.
struct Budget {
    used: AtomicU64,
    max: u64,
}

/// What one message uses of a budget; given back when it goes.
struct Share {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Share {
    fn of(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// Takes all of it or nothing.
    fn grow(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        let max = self.budget.max;
        let grown = self.budget.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|used| *used <= max)
        });
        self.bytes += if grown.is_ok() { bytes } else { 0 };
        grown.is_ok()
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

//! A message on its way into the spool.

use std::io;
use std::sync::Arc;

use gantry_mail::Envelope;
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::MailboxIndex;

use crate::disk::Disk;
use crate::spool::{Finished, Incoming, Spool, SpoolError, Volatile};

/// Bytes of a message in memory before they go to the spool. Smaller messages cost one step on a blocking thread.
pub(super) const PIECE_BYTES_MAX: usize = 128 * 1024;

/// Begins in the spool only when there is something to write. Dropping it leaves nothing.
pub(super) struct Taking<D: Disk> {
    spool: Arc<Spool<D>>,
    pub(super) id: MessageId,
    mailbox: MailboxIndex,
    envelope: Envelope,
    received_unix_ms: u64,
    /// Whether the message is to be durable before its sender hears of it.
    durable: bool,
    begun: Option<Begun<D>>,
}

enum Begun<D: Disk> {
    Durable(Incoming<D>),
    Volatile(Volatile<D>),
}

impl<D: Disk> Taking<D> {
    pub(super) fn new(
        spool: Arc<Spool<D>>,
        mailbox: MailboxIndex,
        envelope: Envelope,
        received_unix_ms: u64,
        durable: bool,
    ) -> Self {
        let id = spool.allocate();
        Self { spool, id, mailbox, envelope, received_unix_ms, durable, begun: None }
    }

    pub(super) fn recipients(&self) -> Vec<&str> {
        self.envelope.recipients.iter().map(|recipient| recipient.address.as_str()).collect()
    }

    /// Writes a piece on a blocking thread; gives itself and the emptied piece back.
    pub(super) async fn write(mut self, mut piece: Vec<u8>) -> Result<(Self, Vec<u8>), SpoolError> {
        blocking(move || {
            self.write_now(&piece)?;
            piece.clear();
            Ok((self, piece))
        })
        .await
    }

    /// Writes the last piece and makes of it what custody says, on a blocking thread.
    pub(super) async fn finish(mut self, piece: Vec<u8>) -> Result<Finished, SpoolError> {
        if !self.durable && self.begun.is_none() && piece.len() < PIECE_BYTES_MAX {
            // It stays in memory: a blocking thread would cost more than the copy.
            return self.finish_now(&piece);
        }
        blocking(move || self.finish_now(&piece)).await
    }

    fn finish_now(&mut self, piece: &[u8]) -> Result<Finished, SpoolError> {
        self.write_now(piece)?;
        match self.begun.take() {
            Some(Begun::Durable(incoming)) => incoming.finish(),
            Some(Begun::Volatile(volatile)) => volatile.finish(),
            None => Err(SpoolError::Unknown { id: self.id }),
        }
    }

    /// Removes what was written, on a blocking thread.
    pub(super) async fn abandon(self) {
        if self.begun.is_some() {
            let _ = tokio::task::spawn_blocking(move || drop(self)).await;
        }
    }

    fn write_now(&mut self, piece: &[u8]) -> Result<(), SpoolError> {
        let begun = match self.begun.take() {
            Some(begun) => begun,
            None => self.begin()?,
        };
        match self.begun.insert(begun) {
            Begun::Durable(incoming) => incoming.write(piece),
            Begun::Volatile(volatile) => volatile.write(piece),
        }
    }

    fn begin(&self) -> Result<Begun<D>, SpoolError> {
        let (id, mailbox, received) = (self.id, self.mailbox, self.received_unix_ms);
        if self.durable {
            return self.spool.begin(id, mailbox, &self.envelope, received).map(Begun::Durable);
        }
        let envelope = self.envelope.clone();
        Ok(Begun::Volatile(self.spool.begin_volatile(id, mailbox, envelope, received)))
    }
}

/// Runs what blocks off the loop. A panic there is an error here.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SpoolError> + Send + 'static,
) -> Result<T, SpoolError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|panic| {
        Err(SpoolError::Io {
            doing: "take message into the",
            path: "spool".into(),
            source: io::Error::other(panic),
        })
    })
}

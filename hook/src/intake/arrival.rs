//! A message of this machine on its way into the spool, in the hook's custody. Everything here blocks.

use std::sync::Arc;

use gantry_mail::Envelope;
use gantry_mail::header::HeaderScanner;
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Custody, MailboxIndex, Marked};

use super::{Clock, RECEIVED_MAX, unix_ms};
use crate::disk::Disk;
use crate::release::TraceKey;
use crate::spool::{Incoming, Spool, SpoolError};

/// A mailbox as its local ways in see it.
pub struct LocalIntake<D: Disk> {
    pub mailbox: String,
    pub index: MailboxIndex,
    pub message_bytes_max: u64,
    pub spool: Arc<Spool<D>>,
    pub clock: Clock,
    /// Knows this host's own trace tokens.
    pub trace: TraceKey,
}

/// A message that is durable and waits to be marked.
#[derive(Debug)]
pub struct Arrived {
    pub marked: Marked,
    /// It has been here before and is to be held.
    pub looped: bool,
}

/// Why a message was not taken in.
#[derive(Debug, thiserror::Error)]
pub enum NotTaken {
    /// It never will be.
    #[error("{0}")]
    Never(String),
    /// The spool's fault, not the message's.
    #[error(transparent)]
    Later(SpoolError),
}

/// A message that comes in. Dropping it leaves nothing.
pub(crate) struct Arrival<D: Disk> {
    intake: Arc<LocalIntake<D>>,
    id: MessageId,
    recipients: Vec<String>,
    incoming: Incoming<D>,
    scanner: HeaderScanner,
    length: u64,
}

impl<D: Disk> Arrival<D> {
    /// Begins a message under an id that [`Spool::allocate`] gave.
    pub(crate) fn begin(
        intake: &Arc<LocalIntake<D>>,
        id: MessageId,
        envelope: &Envelope,
    ) -> Result<Self, NotTaken> {
        let incoming = intake.spool.begin(id, intake.index, envelope, unix_ms())?;
        let recipients = envelope.recipients.iter().map(|to| to.address.clone()).collect();
        Ok(Self {
            intake: Arc::clone(intake),
            id,
            recipients,
            incoming,
            scanner: HeaderScanner::new(),
            length: 0,
        })
    }

    /// Takes the next bytes, whose lines end with CRLF.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), NotTaken> {
        self.length += bytes.len() as u64;
        let max = self.intake.message_bytes_max;
        if self.length > max {
            return Err(NotTaken::Never(format!("it is larger than {max} bytes")));
        }
        self.scanner.push(bytes).map_err(|error| NotTaken::Never(error.to_string()))?;
        Ok(self.incoming.write(bytes)?)
    }

    /// Makes it durable.
    pub(crate) fn finish(self) -> Result<Arrived, NotTaken> {
        let Self { intake, id, recipients, incoming, scanner, .. } = self;
        let header = scanner.finish();
        if header.received > RECEIVED_MAX {
            let text = format!("it has more than {RECEIVED_MAX} Received fields: a mail loop");
            return Err(NotTaken::Never(text));
        }
        let addresses: Vec<&str> = recipients.iter().map(String::as_str).collect();
        let looped = intake.trace.is_ours(&intake.mailbox, &header, &addresses);
        let since = intake.clock.now();
        let finished = incoming.finish()?;
        let marked = Marked {
            id,
            mailbox: intake.index,
            custody: Custody::Hook,
            length: finished.length,
            recipients: u16::try_from(recipients.len()).unwrap_or(u16::MAX),
            since,
            attempts: 0,
        };
        Ok(Arrived { marked, looped })
    }
}

impl From<SpoolError> for NotTaken {
    fn from(error: SpoolError) -> Self {
        match error {
            SpoolError::TooLarge { .. } => Self::Never(error.to_string()),
            error => Self::Later(error),
        }
    }
}

impl NotTaken {
    /// Whether the spool stores nothing more, so that every intake has to stop.
    pub fn stops_intake(&self) -> bool {
        matches!(self, Self::Later(SpoolError::Broken { .. } | SpoolError::Sync { .. }))
    }
}

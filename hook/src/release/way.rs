//! The ways out behind one method.

use std::sync::Arc;

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::RecipientResult;

use super::{CommandRelease, DirectoryRelease, SmtpRelease, TraceKey, smtp};
use crate::disk::Disk;
use crate::spool::Spool;

/// A mailbox's way out.
#[derive(Debug)]
pub enum Way {
    Smtp(Box<SmtpRelease>),
    Directory(DirectoryRelease),
    Command(CommandRelease),
}

impl Way {
    /// Hands a message on to these recipients (indexes in its envelope), by the verdict stored with it. Gives exactly
    /// one result for each.
    pub async fn release<D: Disk>(
        &self,
        spool: Arc<Spool<D>>,
        id: MessageId,
        recipients: Vec<u16>,
        trace: &TraceKey,
    ) -> Vec<RecipientResult> {
        match self {
            Self::Smtp(way) => smtp::release(spool, id, recipients, way, trace).await,
            Self::Directory(way) => way.release(spool, id, recipients, trace).await,
            Self::Command(way) => way.release(spool, id, recipients, trace).await,
        }
    }
}

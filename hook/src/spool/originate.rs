//! Messages that a verdict originates, as new messages of the spool.
//!
//! Their ids stand in the log beside the verdict, so that writing them again writes the same ones. None of them goes out
//! before the log says that all are written, also after a crash: whoever loads one finishes the others first. So one
//! that is not in the spool was never written, as long as that record is missing.

use std::io::Read;
use std::sync::Arc;

use gantry_daemon::crash;
use gantry_mail::{BodyType, Envelope, HeaderEdit, Notify, Recipient, SenderParameters};
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Custody, Marked, Stored, StoredLog, StoredState};
use gantry_protocol::verdict::{Originated, OriginatedTo, Verdict};

use super::bounce::deliver_to_all;
use super::record::{Entry, Record};
use super::{Header, Log, Spool, SpoolError};
use crate::disk::Disk;

/// Bytes of the original that are copied at once.
const COPY_BYTES: usize = 64 * 1024;

impl<D: Disk> Spool<D> {
    /// What the pool has to know of a message in `Releasing` that a start found. Where it was originated by the verdict
    /// on another message, all that are beside it are there afterwards.
    ///
    /// # Errors
    /// As [`Self::log`], and what [`Change::Originate`](gantry_protocol::pool::Change::Originate) fails with.
    pub fn load(self: &Arc<Self>, id: MessageId) -> Result<StoredLog, SpoolError> {
        let recipients = self.header(id)?.envelope.recipients.len();
        let log = self.log(id)?;
        let beside = match log.origin {
            Some(origin) => self.health.watch(self.complete(origin))?,
            None => Vec::new(),
        };
        Ok(StoredLog {
            originates: !log.originates.is_empty() && !log.originated,
            verdict: log.verdict,
            results: log.results,
            findings: log.findings,
            recipients: u16::try_from(recipients).unwrap_or(u16::MAX),
            beside,
        })
    }

    /// An id for each message that a verdict originates.
    pub(super) fn ids_for(&self, verdict: &Verdict) -> Vec<MessageId> {
        verdict.originated.iter().map(|_| self.allocate()).collect()
    }

    /// Writes what the verdict of a message originates and is not there yet. The caller has the message's turn.
    pub(super) fn originate(
        self: &Arc<Self>,
        id: MessageId,
        given: Option<&Verdict>,
    ) -> Result<Stored, SpoolError> {
        if let Some(verdict) = given
            && let Some(message) = self.volatile.get(id)
        {
            let mut log = message.log();
            log.add(Record::Verdict(verdict.clone()));
            log.add(Record::Originates(self.ids_for(verdict)));
        }
        let (header, log) = (self.header(id)?, self.log(id)?);
        let messages = self.write_missing(&header, &log)?;
        Ok(Stored::Originated { messages })
    }

    /// Writes what is missing of a message's originated ones, if it is there and any are.
    fn complete(self: &Arc<Self>, id: MessageId) -> Result<Vec<Marked>, SpoolError> {
        let _turn = self.index.turn(id);
        if self.index.get(id).is_none() {
            return Ok(Vec::new()); // Nothing is removed before all is written.
        }
        let found = self.header(id).and_then(|header| Ok((header, self.log(id)?)));
        match found {
            Ok((header, log)) => self.write_missing(&header, &log),
            // Its own way to the operator is no business of those that it originated.
            Err(error) if error.is_lost() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// What was written is taken back where the rest fails, so that each is new to the pool exactly once.
    fn write_missing(
        self: &Arc<Self>,
        header: &Header,
        log: &Log,
    ) -> Result<Vec<Marked>, SpoolError> {
        let Some(verdict) = log.verdict.as_ref().filter(|_| !log.originated) else {
            return Ok(Vec::new());
        };
        let mut new = Vec::new();
        let mut write = || {
            for (id, originated) in log.originates.iter().zip(&verdict.originated) {
                if self.index.get(*id).is_none()
                    && let Some(marked) = self.write_one(header, *id, originated)?
                {
                    new.push(marked);
                }
            }
            match self.volatile.get(header.id) {
                Some(message) => message.log().add(Record::Originated),
                None => {
                    _ = self.append(&self.open_stored(header.id, true)?, &[Entry::Originated])?
                }
            }
            Ok(())
        };
        let written = write();
        if let Err(error) = written {
            // After a failed sync nobody knows what is there, and the next start finds out.
            let surely_unknown = !matches!(error, SpoolError::Sync { .. })
                && self.log(header.id).is_ok_and(|log| !log.originated);
            if surely_unknown {
                new.iter().for_each(|marked| self.take_back(marked.id));
            }
            return Err(error);
        }
        Ok(new)
    }

    /// `None` where nobody is left whom it could go to.
    fn write_one(
        self: &Arc<Self>,
        header: &Header,
        id: MessageId,
        originated: &Originated,
    ) -> Result<Option<Marked>, SpoolError> {
        let envelope = envelope(&header.envelope, originated);
        if envelope.recipients.is_empty() {
            return Ok(None);
        }
        let now = (self.options.clock)();
        let mut draft = self.draft(id, header.mailbox, &envelope, now.unix_ms)?;
        let at = originated.original_at.and_then(|at| usize::try_from(at).ok());
        match at.and_then(|at| originated.message.split_at_checked(at)) {
            None => draft.write(&originated.message)?,
            Some((before, behind)) => {
                draft.write(before)?;
                let mut original = self.body(header.id)?;
                let mut buffer = vec![0; COPY_BYTES];
                loop {
                    let count =
                        original.read(&mut buffer).map_err(|e| self.unread(header.id, e))?;
                    if count == 0 {
                        break;
                    }
                    draft.write(buffer.get(..count).unwrap_or_default())?;
                }
                draft.write(behind)?;
            }
        }
        let finished = draft.finished();
        // RFC 3834, 5.2: whatever the worker wrote.
        let name = "Auto-Submitted".to_owned();
        let field = format!("{name}: auto-generated");
        let edits = vec![HeaderEdit::Remove { name }, HeaderEdit::Prepend { field }];
        let verdict = deliver_to_all(&envelope, finished, edits);
        let entries = [Entry::Verdict(&verdict), Entry::Origin(header.id)];
        draft.store(StoredState::Releasing, &entries)?;
        crash::at("originated-written");
        Ok(Some(Marked {
            id,
            mailbox: header.mailbox,
            custody: Custody::Hook,
            length: finished.length,
            recipients: u16::try_from(envelope.recipients.len()).unwrap_or(u16::MAX),
            since: now.moment,
            attempts: 0,
        }))
    }

    fn take_back(&self, id: MessageId) {
        if let Err(error) = self.remove(id) {
            tracing::warn!(id = %id, %error, "could not take back an originated message; it goes out after the next start");
        }
    }
}

/// To whom an originated message goes. NOTIFY=NEVER: it must never cause another.
fn envelope(of: &Envelope, originated: &Originated) -> Envelope {
    let never = |address: &str| Recipient {
        address: address.to_owned(),
        notify: Some(Notify::default()),
        orcpt: None,
    };
    let address = |to: &OriginatedTo| match to {
        OriginatedTo::Address(address) => Some(never(address)),
        OriginatedTo::Sender if of.is_null_sender() => None,
        OriginatedTo::Sender => Some(never(&of.sender)),
        OriginatedTo::Recipient(index) => {
            of.recipients.get(usize::from(*index)).map(|to| never(&to.address))
        }
    };
    let recipients: Vec<Recipient> = originated.recipients.iter().filter_map(address).collect();
    let has_original = originated.original_at.is_some();
    let smtputf8 = !originated.sender.is_ascii()
        || recipients.iter().any(|to| !to.address.is_ascii())
        || has_original && of.parameters.smtputf8;
    let body = if has_original { of.parameters.body } else { None };
    let eight_bit = smtputf8 || !originated.message.is_ascii();
    Envelope {
        sender: originated.sender.clone(),
        parameters: SenderParameters {
            body: if eight_bit { Some(BodyType::EightBitMime) } else { body },
            smtputf8,
            ..SenderParameters::default()
        },
        recipients,
        ..Envelope::default()
    }
}

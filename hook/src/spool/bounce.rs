//! Non-delivery notices, as new messages of the spool.

use std::io::{self, Read};
use std::sync::Arc;

use gantry_daemon::crash;
use gantry_mail::dsn::{self, Failure, RETURNED_BYTES_MAX};
use gantry_mail::{Envelope, HeaderEdit};
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Custody, Marked, RecipientResult, ReleaseResult, Stored, StoredState};
use gantry_protocol::verdict::{Body as DeliveredBody, Disposition, Group, Verdict};

use super::record::{Entry, Record};
use super::{Finished, Header, Notice, Spool, SpoolError};
use crate::disk::Disk;

impl<D: Disk> Spool<D> {
    /// Writes a notice to the sender about those of `results` that no notice has told of yet and that the sender wants
    /// to hear of. The caller has the message's turn.
    ///
    /// The notice is durable first, then the original's log records it. A crash between the two leaves a notice that
    /// the original does not know of, and the next try writes a second one: a duplicate, never a loss. The other order
    /// could lose it. So could taking the notice back after a sync that failed, since the record may be there.
    pub(super) fn bounce(
        self: &Arc<Self>,
        id: MessageId,
        results: &[RecipientResult],
    ) -> Result<Stored, SpoolError> {
        let header = self.header(id)?;
        let log = self.log(id)?;
        // What was originated here is told of nowhere: whoever asked for it asked for no more.
        if header.envelope.is_null_sender() || log.origin.is_some() {
            return Ok(Stored::Unreturnable);
        }
        let told: Vec<u16> = log.notices.into_iter().flat_map(|notice| notice.recipients).collect();
        let news: Vec<&RecipientResult> =
            results.iter().filter(|result| !told.contains(&result.recipient)).collect();
        let notice_id = self.allocate();
        let Some(dsn) = self.notice(&header, notice_id, &news)? else {
            return Ok(Stored::Bounced { notice: None });
        };

        let now = (self.options.clock)();
        let mut draft = self.draft(notice_id, header.mailbox, &dsn.envelope, now.unix_ms)?;
        draft.write(&dsn.message)?;
        let finished = draft.finished();
        let verdict = deliver_to_all(&dsn.envelope, finished, Vec::new());
        draft.store(StoredState::Releasing, &[Entry::Verdict(&verdict)])?;
        crash::at("bounce-written");

        let mut recipients: Vec<u16> = news.iter().map(|result| result.recipient).collect();
        recipients.sort_unstable();
        if let Err(error) = self.record_notice(id, Notice { notice: notice_id, recipients }) {
            // The caller will be told that nothing was written, so nothing should be sent. But where the record may
            // be there, the next try writes no notice, and then this one has to go out.
            let surely_unknown = !matches!(error, SpoolError::Sync { .. })
                && self.log(id).is_ok_and(|log| log.notices.iter().all(|n| n.notice != notice_id));
            if surely_unknown && let Err(error) = self.remove(notice_id) {
                tracing::warn!(notice = %notice_id, %error, "could not take back a notice; it may go out twice");
            }
            return Err(error);
        }
        Ok(Stored::Bounced {
            notice: Some(Marked {
                id: notice_id,
                mailbox: header.mailbox,
                custody: Custody::Hook,
                length: finished.length,
                recipients: 1,
                since: now.moment,
                attempts: 0,
            }),
        })
    }

    fn notice(
        &self,
        header: &Header,
        notice_id: MessageId,
        results: &[&RecipientResult],
    ) -> Result<Option<dsn::Dsn>, SpoolError> {
        let failures: Vec<Failure<'_>> = results
            .iter()
            .filter_map(|result| {
                Some(Failure {
                    recipient: header.envelope.recipients.get(usize::from(result.recipient))?,
                    reply: &result.reply,
                    remote_mta: None,
                    expired: result.result != ReleaseResult::Refused,
                })
            })
            .collect();
        if !failures.iter().any(|failure| dsn::wanted(failure.recipient)) {
            return Ok(None);
        }
        Ok(dsn::build(&dsn::Notice {
            host: &self.options.host,
            id: &notice_id.to_string(),
            envelope: &header.envelope,
            header_block: &self.beginning(header.id)?,
            arrived_unix_seconds: header.received_unix_ms / 1000,
            now_unix_seconds: (self.options.clock)().unix_ms / 1000,
            failures: &failures,
        }))
    }

    /// As much of a message as a notice may show. Of a damaged one, what can be read: its sender is told all the same.
    fn beginning(&self, id: MessageId) -> Result<Vec<u8>, SpoolError> {
        let mut beginning = Vec::new();
        match self.body(id)?.take(RETURNED_BYTES_MAX as u64).read_to_end(&mut beginning) {
            Err(error) if error.kind() != io::ErrorKind::InvalidData => {
                let (name, folder) = self.locate(id)?;
                Err(SpoolError::io("read message", &folder.path.join(name.to_string()))(error))
            }
            _ => Ok(beginning),
        }
    }

    fn record_notice(&self, id: MessageId, notice: Notice) -> Result<(), SpoolError> {
        match self.volatile.get(id) {
            Some(message) => message.log().add(Record::Notice(notice)),
            None => {
                self.append(&self.open_stored(id, true)?, &[Entry::Notice(&notice)])?;
            }
        }
        Ok(())
    }
}

/// Nobody has to look at what the hook itself has written.
pub(super) fn deliver_to_all(
    envelope: &Envelope,
    finished: Finished,
    edits: Vec<HeaderEdit>,
) -> Verdict {
    let recipients = (0..=u16::MAX).take(envelope.recipients.len()).collect();
    let disposition = Disposition::Deliver { edits, body: DeliveredBody::Original };
    Verdict {
        length: finished.length,
        digest: finished.digest,
        groups: vec![Group { recipients, disposition }],
        findings: Vec::new(),
        originated: Vec::new(),
    }
}

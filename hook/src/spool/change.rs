//! Changes, as the pool asks for them.

use std::io::{self, Read};
use std::path::PathBuf;
use std::sync::Arc;

use gantry_daemon::crash;
use gantry_protocol::id::{Digest, MessageId};
use gantry_protocol::pool::{
    Change, MailboxIndex, RecipientResult, ReleaseResult, Stored, StoredState,
};
use gantry_protocol::verdict::Verdict;

use super::body::Body;
use super::name::ATTEMPTS_NAMED_MAX;
use super::record::{Entry, Record};
use super::volatile::VolatileMessage;
use super::{Log, Spool, SpoolError};
use crate::disk::Disk;

/// Bytes copied at once when a message is adopted.
const COPY_BYTES: usize = 64 * 1024;

impl<D: Disk> Spool<D> {
    /// Makes a change. It is durable, as its description says, when the answer is anything but [`Stored::Failed`] and
    /// [`Stored::Damaged`]; a file that is damaged is set aside.
    ///
    /// Changes of one message wait for each other; those of different messages do not.
    pub fn apply(
        self: &Arc<Self>,
        id: MessageId,
        mailbox: MailboxIndex,
        change: &Change,
    ) -> Stored {
        let turn = self.index.turn(id);
        let result = self.health.check().and_then(|()| match self.volatile.get(id) {
            Some(message) => self.apply_volatile(id, mailbox, &message, change),
            None => self.apply_stored(id, change),
        });
        match self.health.watch(result) {
            Ok(stored) => stored,
            Err(error @ SpoolError::Unknown { .. }) => {
                Stored::Damaged { reason: error.to_string() }
            }
            Err(error @ SpoolError::Corrupted { .. }) => {
                let reason = error.to_string();
                drop(turn); // Setting aside takes it, too.
                if let Err(error) = self.set_aside_corrupted(id, &reason) {
                    tracing::error!(id = %id, reason, "set aside a damaged file: {error}");
                }
                Stored::Damaged { reason }
            }
            Err(error) => Stored::Failed { reason: error.to_string() },
        }
    }

    /// Puts a message whose file is damaged out of the way, under its name with the state `bad`, and returns where. The
    /// file is kept for people; no later start takes it for a message.
    ///
    /// # Errors
    /// The disk. The spool has forgotten the message all the same.
    pub fn set_aside_corrupted(&self, id: MessageId, reason: &str) -> Result<PathBuf, SpoolError> {
        let _turn = self.index.turn(id);
        let (name, folder) = self.locate(id)?;
        self.index.remove(id);
        self.room.remove(name.state, name.length);
        let from = folder.path.join(name.to_string());
        let to = folder.path.join(name.bad());
        tracing::error!(id = %id, path = %to.display(), reason, "a damaged message was set aside");
        let renamed = self.disk.rename(&from, &to).map_err(SpoolError::io("set aside", &from));
        self.health.watch(renamed.and_then(|()| folder.sync(&self.disk)))?;
        Ok(to)
    }

    /// Removes a stored message, durably. The caller has its turn.
    pub(super) fn remove(&self, id: MessageId) -> Result<(), SpoolError> {
        let (_, place) = self.index.get(id).ok_or(SpoolError::Unknown { id })?;
        let (name, folder) = self.locate(id)?;
        let path = folder.path.join(name.to_string());
        crash::at("removing");
        match self.disk.remove(&path) {
            // What is gone already need not be removed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            result => result.map_err(SpoolError::io("remove message", &path))?,
        }
        crash::at("removed");
        self.index.remove(id);
        self.room.remove(name.state, name.length);
        self.folders.give_back(place);
        folder.sync(&self.disk)
    }

    fn apply_stored(
        self: &Arc<Self>,
        id: MessageId,
        change: &Change,
    ) -> Result<Stored, SpoolError> {
        let state = self.locate(id)?.0.state;
        let wrong = |wanted| Err(SpoolError::WrongState { id, state: state_name(state), wanted });
        let in_pool = matches!(state, StoredState::Marked { .. } | StoredState::Part { .. });
        match change {
            Change::Charge { attempts } if in_pool => {
                let attempts = (*attempts).min(ATTEMPTS_NAMED_MAX);
                let charged = match state {
                    StoredState::Part { .. } => StoredState::Part { attempts },
                    _ => StoredState::Marked { attempts },
                };
                // One worker's death in ten thousand messages is not worth a sync for each of them.
                self.change_state(id, charged, attempts >= 2)?;
                crash::at("attempt-counted");
            }
            Change::Part { findings, .. } if in_pool => {
                self.append(&self.open_stored(id, true)?, &[Entry::Findings(findings)])?;
                self.change_state(id, StoredState::Part { attempts: 0 }, true)?;
            }
            Change::Settle { verdict } if in_pool => {
                let file = self.open_stored(id, true)?;
                let ids = self.ids_for(verdict);
                let entries = entries(Some(verdict), &ids, &[], &[]);
                let Log { results, .. } = self.append(&file, &entries)?;
                crash::at("verdict-appended");
                self.change_state(id, StoredState::Releasing, true)?;
                if !results.is_empty() {
                    return Ok(Stored::ServedBefore { results });
                }
            }
            Change::Results { results } => {
                self.append(&self.open_stored(id, true)?, &[Entry::Results(results)])?;
                crash::at("result-appended");
            }
            Change::SetAside { state, verdict, reasons } if is_aside(*state) => {
                let mut entries = entries(verdict.as_deref(), &[], &[], reasons);
                entries.push(self.aside_now());
                self.append(&self.open_stored(id, true)?, &entries)?;
                crash::at("aside-appended");
                self.change_state(id, *state, true)?;
            }
            Change::Bounce { results } => return self.bounce(id, results),
            Change::Originate { verdict: None } if state == StoredState::Releasing => {
                return self.originate(id, None);
            }
            Change::Remove => self.remove(id)?,
            Change::Requeue if is_aside(state) => {
                self.append(&self.open_stored(id, true)?, &[Entry::Requeued])?;
                self.change_state(id, StoredState::Marked { attempts: 0 }, true)?;
            }
            Change::ReleaseAsIs { verdict } if is_aside(state) => {
                let file = self.open_stored(id, true)?;
                let entries = [Entry::Requeued, Entry::Verdict(verdict)];
                let Log { mut results, .. } = self.append(&file, &entries)?;
                self.change_state(id, StoredState::Releasing, true)?;
                // The others are to have it now, whatever they got before.
                results.retain(|result| result.result == ReleaseResult::Accepted);
                if !results.is_empty() {
                    return Ok(Stored::ServedBefore { results });
                }
            }
            Change::Charge { .. } => return wrong("counting an attempt"),
            Change::Part { .. } => return wrong("storing what a worker did of it"),
            Change::Settle { .. } => return wrong("settling"),
            Change::SetAside { .. } => return wrong("setting it aside in such a state"),
            Change::Adopt { .. } => return wrong("taking custody"),
            Change::Originate { .. } => return wrong("originating messages"),
            Change::Requeue => return wrong("putting it back into the pool"),
            Change::ReleaseAsIs { .. } => return wrong("releasing it as it is"),
        }
        Ok(Stored::Done)
    }

    fn apply_volatile(
        self: &Arc<Self>,
        id: MessageId,
        mailbox: MailboxIndex,
        message: &Arc<VolatileMessage<D>>,
        change: &Change,
    ) -> Result<Stored, SpoolError> {
        let digest = message.header.digest;
        let wrong =
            |wanted| Err(SpoolError::WrongState { id, state: "in its sender's custody", wanted });
        match change {
            Change::Charge { attempts } => self.suspects.charge(&self.disk, digest, *attempts)?,
            Change::Settle { verdict } => {
                let ids = self.ids_for(verdict);
                let mut log = message.log();
                log.add(Record::Verdict(verdict.as_ref().clone()));
                log.add(Record::Originates(ids));
                drop(log);
                self.judge(digest, StoredState::Releasing);
            }
            Change::Part { findings, .. } => {
                message.log().add(Record::Findings(findings.clone()));
            }
            Change::Results { results } => message.log().add(Record::Results(results.clone())),
            Change::Adopt { state, verdict, results, reasons } => {
                let ids = verdict.as_deref().map(|v| self.ids_for(v)).unwrap_or_default();
                let news = entries(verdict.as_deref(), &ids, results, reasons);
                self.adopt(id, mailbox, message, *state, news)?;
                crash::at("adopted");
                self.forget(id);
                self.judge(digest, *state);
            }
            Change::Bounce { results } => return self.bounce(id, results),
            Change::Originate { verdict } => return self.originate(id, verdict.as_deref()),
            Change::Remove => self.forget(id),
            Change::SetAside { .. } => return wrong("setting it aside"),
            Change::Requeue => return wrong("putting it back into the pool"),
            Change::ReleaseAsIs { .. } => return wrong("releasing it as it is"),
        }
        Ok(Stored::Done)
    }

    /// From here on its time to be kept counts.
    fn aside_now(&self) -> Entry<'static> {
        Entry::AsideSince(self.calendar.seconds((self.options.clock)().moment))
    }

    /// What the end of a message means for others with its content. The message itself is durable already, so a disk that
    /// fails here costs no more than another attempt at the next one.
    fn judge(&self, digest: Digest, state: StoredState) {
        let judged = match state {
            StoredState::Held => self.suspects.hold(&self.disk, digest),
            StoredState::Quarantined | StoredState::Releasing => {
                self.suspects.clear(&self.disk, digest)
            }
            StoredState::Marked { .. } | StoredState::Part { .. } => Ok(()),
        };
        if let Err(error) = self.health.watch(judged) {
            tracing::warn!(%error, "could not record what became of a suspect");
        }
    }

    /// Writes all of a message durably: what the change brings, after what was remembered of it.
    fn adopt(
        self: &Arc<Self>,
        id: MessageId,
        mailbox: MailboxIndex,
        message: &Arc<VolatileMessage<D>>,
        state: StoredState,
        news: Vec<Entry<'_>>,
    ) -> Result<(), SpoolError> {
        let header = &message.header;
        let mut draft = self.draft(id, mailbox, &header.envelope, header.received_unix_ms)?;
        let mut body = Body::volatile(Arc::clone(message));
        let mut buffer = vec![0; COPY_BYTES];
        loop {
            let count = body.read(&mut buffer);
            let count =
                count.map_err(SpoolError::io("read message from", &self.volatile_folder()))?;
            if count == 0 {
                break;
            }
            draft.write(buffer.get(..count).unwrap_or_default())?;
        }
        let log = message.log().clone();
        let mut all = entries(log.verdict.as_ref(), &log.originates, &log.results, &log.reasons);
        if !log.findings.is_empty() {
            all.push(Entry::Findings(&log.findings));
        }
        all.extend(log.notices.iter().map(Entry::Notice));
        all.extend(log.originated.then_some(Entry::Originated));
        all.extend(news);
        if is_aside(state) {
            all.push(self.aside_now());
        }
        draft.store(state, &all).map(|_| ())
    }
}

/// The records that say this much.
fn entries<'a>(
    verdict: Option<&'a Verdict>,
    originates: &'a [MessageId],
    results: &'a [RecipientResult],
    reasons: &'a [String],
) -> Vec<Entry<'a>> {
    let mut entries = Vec::new();
    entries.extend(verdict.map(Entry::Verdict));
    if !originates.is_empty() {
        entries.push(Entry::Originates(originates));
    }
    if !results.is_empty() {
        entries.push(Entry::Results(results));
    }
    if !reasons.is_empty() {
        entries.push(Entry::Reasons(reasons));
    }
    entries
}

fn is_aside(state: StoredState) -> bool {
    matches!(state, StoredState::Held | StoredState::Quarantined)
}

fn state_name(state: StoredState) -> &'static str {
    match state {
        StoredState::Marked { .. } => "marked",
        StoredState::Part { .. } => "marked, with parts done",
        StoredState::Releasing => "being released",
        StoredState::Held => "held",
        StoredState::Quarantined => "quarantined",
    }
}

//! Reading and changing the files of stored messages.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{RecipientResult, StoredState};

use super::folders::Folder;
use super::name::Name;
use super::record::{
    self, Entry, PREAMBLE_BYTES, Preamble, RECORD_HEADER_BYTES, Record, RecordHeader,
};
use super::{Header, Log, Spool, SpoolError};
use crate::disk::{Disk, DiskFile};

/// Read at once from a file's beginning: nearly every header is in it.
const FIRST_READ_BYTES: usize = 4_096;

/// A message's file, open, with its header read and checked.
pub(super) struct StoredFile<D: Disk> {
    pub(super) file: D::File,
    pub(super) path: PathBuf,
    pub(super) state: StoredState,
    pub(super) preamble: Preamble,
    pub(super) header: Header,
}

impl<D: Disk> Spool<D> {
    /// Where a message is.
    pub(super) fn locate(&self, id: MessageId) -> Result<(Name, Arc<Folder>), SpoolError> {
        let (name, folder) = self.index.get(id).ok_or(SpoolError::Unknown { id })?;
        let folder = self.folders.get(folder).ok_or(SpoolError::Unknown { id })?;
        Ok((name, folder))
    }

    /// Opens a message's file and reads its header.
    pub(super) fn open_stored(
        &self,
        id: MessageId,
        for_write: bool,
    ) -> Result<StoredFile<D>, SpoolError> {
        loop {
            let (name, folder) = self.locate(id)?;
            let path = folder.path.join(name.to_string());
            let opened =
                if for_write { self.disk.open_for_write(&path) } else { self.disk.open(&path) };
            match opened {
                Ok(file) => return read_header(file, path, &name, &folder),
                // Renamed by another thread between the look-up and the opening.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if self.locate(id)?.0 == name {
                        return Err(corrupted(id, &path)("the file is gone".to_owned()));
                    }
                }
                Err(error) => return Err(SpoolError::io("open message", &path)(error)),
            }
        }
    }

    /// Appends to a message's log, durably, and gives the log as it was. What a crash had cut short before goes.
    pub(super) fn append(
        &self,
        stored: &StoredFile<D>,
        entries: &[Entry<'_>],
    ) -> Result<Log, SpoolError> {
        let StoredFile { file, path, preamble, .. } = stored;
        let io = || SpoolError::io("write to message", path);
        let (before, end, length) = stored.read_log()?;
        let mut log = Vec::new();
        for entry in entries {
            entry.encode(&preamble.checksum, end, &mut log).ok_or(TOO_LARGE)?;
        }
        if length > end {
            file.set_length(end).map_err(io())?;
        }
        if let Err(error) = file.write_all_at(&log, end) {
            // A full disk may have taken some of it. If it stays, the next append removes it.
            if let Err(error) = file.set_length(end) {
                tracing::warn!(path = %path.display(), %error, "could not cut back what was written in part");
            }
            return Err(io()(error));
        }
        file.sync().map_err(SpoolError::sync(path))?;
        Ok(before)
    }

    /// Gives a message another state: one rename, and a sync of the folder if `durable`. The caller has the turn.
    pub(super) fn change_state(
        &self,
        id: MessageId,
        state: StoredState,
        durable: bool,
    ) -> Result<(), SpoolError> {
        let (name, folder) = self.locate(id)?;
        let to = Name { state, ..name };
        if to != name {
            let from = folder.path.join(name.to_string());
            let rename = self.disk.rename(&from, &folder.path.join(to.to_string()));
            rename.map_err(SpoolError::io("rename message", &from))?;
            self.index.set_state(id, state);
            self.room.remove(name.state, name.length);
            self.room.add(state, name.length);
        }
        if durable { folder.sync(&self.disk) } else { Ok(()) }
    }
}

impl<D: Disk> StoredFile<D> {
    /// The log as it counts in the message's state.
    pub(super) fn log(&self) -> Result<Log, SpoolError> {
        let (mut log, end, length) = self.read_log()?;
        log.torn_bytes = length.saturating_sub(end);
        match self.state {
            // There, where a crash came between the append and the rename.
            StoredState::Marked { .. } => {
                log.forget_verdict();
                log.findings = Vec::new();
            }
            StoredState::Part { .. } => log.forget_verdict(),
            StoredState::Releasing if log.verdict.is_none() => {
                let reason = "it is being released, and its verdict is damaged or missing";
                return Err(corrupted(self.header.id, &self.path)(reason.to_owned()));
            }
            _ => {}
        }
        Ok(log)
    }

    /// The log, where its last whole record ends, and the file's length.
    fn read_log(&self) -> Result<(Log, u64, u64), SpoolError> {
        let io = || SpoolError::io("read log of message", &self.path);
        let length = self.file.length().map_err(io())?;
        let (mut log, mut offset) = (Log::default(), self.preamble.log());
        let mut start = [0; RECORD_HEADER_BYTES];
        while self.file.read_full_at(&mut start, offset).map_err(io())? == start.len()
            && let Some(header) = RecordHeader::decode(&start)
            && offset + (start.len() + header.payload_bytes()) as u64 <= length
        {
            let mut payload = vec![0; header.payload_bytes()];
            self.file.read_full_at(&mut payload, offset + start.len() as u64).map_err(io())?;
            let Some(record) = header.record(&self.preamble.checksum, offset, &payload) else {
                break;
            };
            log.add(record);
            offset += (start.len() + payload.len()) as u64;
        }
        Ok((log, offset, length))
    }
}

impl Log {
    /// What the log says after one more record.
    pub(super) fn add(&mut self, record: Record) {
        match record {
            Record::Verdict(verdict) => {
                self.forget_verdict();
                self.verdict = Some(verdict);
            }
            Record::Results(results) => self.add_results(results),
            Record::Reasons(reasons) => self.reasons.extend(reasons),
            Record::Notice(notice) => self.notices.push(notice),
            Record::AsideSince(seconds) => self.aside_since_s = Some(seconds),
            Record::Originates(ids) => self.originates = ids,
            Record::Originated => self.originated = true,
            Record::Origin(origin) => self.origin = Some(origin),
            Record::Findings(findings) => self.findings = findings,
            Record::Requeued => {
                self.forget_verdict();
                self.findings = Vec::new();
                self.aside_since_s = None;
                self.results.retain(|result| {
                    result.result == gantry_protocol::pool::ReleaseResult::Accepted
                });
            }
        }
    }

    /// With what belongs to it alone.
    fn forget_verdict(&mut self) {
        (self.verdict, self.originated) = (None, false);
        self.originates.clear();
    }

    /// The newest result of each recipient is enough, and bounds what is kept.
    fn add_results(&mut self, results: Vec<RecipientResult>) {
        for result in results {
            self.results.retain(|old| old.recipient != result.recipient);
            self.results.push(result);
        }
    }
}

/// A record that the format has no room for: the caller's limits are wrong.
pub(super) const TOO_LARGE: SpoolError = SpoolError::TooLarge {
    what: "what is to be recorded with it",
    max: record::RECORD_BYTES_MAX as u64,
};

pub(super) fn corrupted(id: MessageId, path: &Path) -> impl FnOnce(String) -> SpoolError {
    move |reason| SpoolError::Corrupted { id, path: path.to_owned(), reason }
}

fn read_header<D: Disk>(
    file: D::File,
    path: PathBuf,
    name: &Name,
    folder: &Folder,
) -> Result<StoredFile<D>, SpoolError> {
    let id = name.id;
    let io = || SpoolError::io("read message", &path);
    let damaged = |reason: String| corrupted(id, &path)(reason);
    let mut bytes = vec![0; FIRST_READ_BYTES];
    let count = file.read_full_at(&mut bytes, 0).map_err(io())?;
    bytes.truncate(count);
    let preamble = record::decode_preamble(&bytes).map_err(|fault| damaged(fault.to_string()))?;
    bytes.resize(PREAMBLE_BYTES + preamble.envelope_bytes, 0);
    if let Some(rest) = bytes.get_mut(count..).filter(|rest| !rest.is_empty())
        && file.read_full_at(rest, count as u64).map_err(io())? < rest.len()
    {
        return Err(damaged("the file ends within its header".to_owned()));
    }
    let envelope =
        record::decode_envelope(&preamble, &bytes).map_err(|fault| damaged(fault.to_string()))?;
    let header = Header {
        id: preamble.id,
        mailbox: folder.mailbox,
        envelope,
        length: preamble.length,
        digest: preamble.digest,
        received_unix_ms: preamble.received_unix_ms,
    };
    if !record::agrees(&header, name) {
        return Err(damaged("its name and its header tell different messages".to_owned()));
    }
    if file.length().map_err(io())? < preamble.log() {
        return Err(damaged("the file ends within the message".to_owned()));
    }
    Ok(StoredFile { file, path, state: name.state, preamble, header })
}

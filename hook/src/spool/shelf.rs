//! What the pool has no entry of, for when it asks; and lists for people.

use std::time::Duration;

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Custody, MailboxIndex, Marked, Note, Recovered, Shelf, StoredState};
use gantry_protocol::time::Moment;

use super::index::Indexed;
use super::{Listed, Now, Spool};
use crate::disk::Disk;

impl<D: Disk> Spool<D> {
    /// The pool has this message in its hands no longer.
    pub fn shelve(&self, id: MessageId, note: Note) {
        self.index.shelve(id, note);
    }

    /// Takes the oldest of a mailbox's messages from this shelf, at most `max`, and only those that are due by then. No
    /// disk is asked: it takes some milliseconds where a million messages are stored.
    pub fn take_from_shelf(
        &self,
        mailbox: MailboxIndex,
        shelf: Shelf,
        max: usize,
        due: Moment,
    ) -> Vec<Recovered> {
        let folders = self.folders.of(mailbox);
        let wanted = |folder| folders.binary_search(&folder).is_ok();
        let due_s = u32::try_from(due.0 / 1_000).unwrap_or(u32::MAX);
        let found = self.index.take_first(wanted, shelf, due_s, max);
        let now = (self.options.clock)();
        found.iter().map(|indexed| recovered(indexed, mailbox, now)).collect()
    }

    /// Takes one message from its shelf; `None` where it lies on none.
    pub fn take(&self, id: MessageId) -> Option<Recovered> {
        self.recovered(&self.index.take(id)?)
    }

    /// One message that lies on a shelf, which it stays on.
    pub fn shelved(&self, id: MessageId) -> Option<Recovered> {
        self.recovered(&self.index.find(id).filter(|indexed| indexed.shelved)?)
    }

    /// The first `max` messages on shelves, by their ids, in a state that `wanted` accepts.
    pub fn list_shelved(&self, wanted: impl Fn(StoredState) -> bool, max: usize) -> Vec<Recovered> {
        let list = self.index.list(wanted, true, max);
        list.iter().filter_map(|indexed| self.recovered(indexed)).collect()
    }

    /// The first `max` stored messages, by their ids, in a state that `wanted` accepts.
    pub fn list(&self, wanted: impl Fn(StoredState) -> bool, max: usize) -> Vec<Listed> {
        let list = self.index.list(wanted, false, max);
        list.iter().filter_map(|indexed| self.listed(indexed)).collect()
    }

    /// One stored message.
    pub fn find(&self, id: MessageId) -> Option<Listed> {
        self.listed(&self.index.find(id)?)
    }

    fn listed(&self, indexed: &Indexed) -> Option<Listed> {
        let Indexed { name, folder, .. } = indexed;
        Some(Listed {
            id: name.id,
            mailbox: self.folders.get(*folder)?.mailbox,
            state: name.state,
            received_unix_s: u64::from(name.received_unix_s),
            length: name.length,
            recipients: name.recipients,
        })
    }

    fn recovered(&self, indexed: &Indexed) -> Option<Recovered> {
        let mailbox = self.folders.get(indexed.folder)?.mailbox;
        Some(recovered(indexed, mailbox, (self.options.clock)()))
    }
}

fn recovered(indexed: &Indexed, mailbox: MailboxIndex, now: Now) -> Recovered {
    let Indexed { name, note, .. } = *indexed;
    let attempts = match name.state {
        StoredState::Marked { attempts } | StoredState::Part { attempts } => attempts,
        _ => 0,
    };
    // A clock that was set back makes no message younger than new.
    let age_ms = now.unix_ms.saturating_sub(u64::from(name.received_unix_s) * 1000);
    let marked = Marked {
        id: name.id,
        mailbox,
        custody: Custody::Hook,
        length: name.length,
        recipients: name.recipients,
        since: now.moment - Duration::from_millis(age_ms),
        attempts,
    };
    Recovered { marked, state: name.state, note }
}

//! Where every stored message is, in memory: some forty bytes each, since a file's name can be made from numbers.

use std::collections::{HashMap, HashSet};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::StoredState;

use super::name::Name;

/// What is kept of one message beside its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    length: u64,
    received_unix_s: u32,
    folder: u32,
    recipients: u16,
    state: StoredState,
}

/// All stored messages.
#[derive(Default)]
pub(super) struct Index {
    places: Mutex<HashMap<MessageId, Place>>,
    /// Messages that somebody is changing.
    busy: Mutex<HashSet<MessageId>>,
    freed: Condvar,
}

/// The sole right to change one message.
pub(super) struct Turn<'a> {
    index: &'a Index,
    id: MessageId,
}

impl Index {
    /// Waits until nobody else changes this message.
    pub(super) fn turn(&self, id: MessageId) -> Turn<'_> {
        let mut busy = lock(&self.busy);
        while !busy.insert(id) {
            busy = self.freed.wait(busy).unwrap_or_else(PoisonError::into_inner);
        }
        Turn { index: self, id }
    }

    pub(super) fn insert(&self, name: &Name, folder: u32) {
        let Name { id, received_unix_s, length, recipients, state } = *name;
        lock(&self.places).insert(id, Place { length, received_unix_s, folder, recipients, state });
    }

    /// The file's name and its folder.
    pub(super) fn get(&self, id: MessageId) -> Option<(Name, u32)> {
        lock(&self.places).get(&id).map(|place| (name(id, place), place.folder))
    }

    pub(super) fn set_state(&self, id: MessageId, state: StoredState) {
        if let Some(place) = lock(&self.places).get_mut(&id) {
            place.state = state;
        }
    }

    pub(super) fn remove(&self, id: MessageId) {
        lock(&self.places).remove(&id);
    }

    /// Names and folders of the first `max` messages, by id, in a state that `wanted` accepts.
    pub(super) fn list(
        &self,
        wanted: impl Fn(StoredState) -> bool,
        max: usize,
    ) -> Vec<(Name, u32)> {
        let mut list: Vec<_> = lock(&self.places)
            .iter()
            .filter(|(_, place)| wanted(place.state))
            .map(|(id, place)| (name(*id, place), place.folder))
            .collect();
        list.sort_unstable_by_key(|(name, _)| name.id);
        list.truncate(max);
        list
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.index.busy).remove(&self.id);
        self.index.freed.notify_all();
    }
}

fn name(id: MessageId, place: &Place) -> Name {
    let Place { length, received_unix_s, recipients, state, .. } = *place;
    Name { id, received_unix_s, length, recipients, state }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_thousand_messages_cost_a_few_megabytes() {
        assert!(size_of::<(MessageId, Place)>() <= 40, "{}", size_of::<(MessageId, Place)>());
    }
}

//! Where every stored message is, in memory: 32 bytes each, since a file's name can be made from numbers. And whether
//! the pool has it in its hands, or it lies on the shelf until the pool asks for it.

use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Note, Shelf, StoredState};

use super::name::Name;
use super::slots::{Slot, Slots};

/// All stored messages.
#[derive(Default)]
pub(super) struct Index {
    slots: Mutex<Slots>,
    /// Messages that somebody is changing.
    busy: Mutex<HashSet<MessageId>>,
    freed: Condvar,
}

/// The sole right to change one message.
pub(super) struct Turn<'a> {
    index: &'a Index,
    id: MessageId,
}

/// One message as the index knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Indexed {
    pub(super) name: Name,
    pub(super) folder: u32,
    pub(super) note: Note,
    pub(super) shelved: bool,
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

    /// A message that is new is in the pool's hands, or on its way there; one that a start has found is `shelved`.
    /// `false`: one with its id is there.
    pub(super) fn insert(&self, name: &Name, folder: u32, shelved: bool) -> bool {
        lock(&self.slots).insert(name.id, Slot::new(name, folder, shelved))
    }

    /// The file's name and its folder.
    pub(super) fn get(&self, id: MessageId) -> Option<(Name, u32)> {
        lock(&self.slots).get(id).map(|slot| (slot.name(id.epoch), slot.folder))
    }

    pub(super) fn set_state(&self, id: MessageId, state: StoredState) {
        if let Some(slot) = lock(&self.slots).get_mut(id) {
            slot.set_state(state);
        }
    }

    pub(super) fn remove(&self, id: MessageId) {
        lock(&self.slots).remove(id);
    }

    pub(super) fn shelve(&self, id: MessageId, note: Note) {
        if let Some(slot) = lock(&self.slots).get_mut(id) {
            slot.shelve(note);
        }
    }

    pub(super) fn find(&self, id: MessageId) -> Option<Indexed> {
        lock(&self.slots).get(id).map(|slot| indexed(id, slot))
    }

    /// Takes one message from the shelf.
    pub(super) fn take(&self, id: MessageId) -> Option<Indexed> {
        let mut slots = lock(&self.slots);
        let slot = slots.get_mut(id).filter(|slot| slot.is_shelved())?;
        slot.take();
        Some(indexed(id, slot))
    }

    /// The first `max` messages, by id, on this shelf, in folders that `wanted` accepts, and due by then.
    pub(super) fn take_first(
        &self,
        wanted: impl Fn(u32) -> bool,
        shelf: Shelf,
        due_s: u32,
        max: usize,
    ) -> Vec<Indexed> {
        let mut slots = lock(&self.slots);
        let fits = |slot: &Slot| {
            slot.is_shelved()
                && Shelf::of(slot.state()) == shelf
                && slot.due_s() <= due_s
                && wanted(slot.folder)
        };
        let found = slots.iter_mut().filter(|(_, slot)| fits(slot)).take(max);
        found
            .map(|(id, slot)| {
                slot.take();
                indexed(id, slot)
            })
            .collect()
    }

    /// The first `max` messages, by id, in a state that `wanted` accepts; only those `shelved` if so.
    pub(super) fn list(
        &self,
        wanted: impl Fn(StoredState) -> bool,
        shelved: bool,
        max: usize,
    ) -> Vec<Indexed> {
        let slots = lock(&self.slots);
        let found = slots
            .iter()
            .filter(|(_, slot)| (slot.is_shelved() || !shelved) && wanted(slot.state()));
        found.take(max).map(|(id, slot)| indexed(id, slot)).collect()
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        lock(&self.index.busy).remove(&self.id);
        self.index.freed.notify_all();
    }
}

fn indexed(id: MessageId, slot: &Slot) -> Indexed {
    Indexed {
        name: slot.name(id.epoch),
        folder: slot.folder,
        note: slot.note(),
        shelved: slot.is_shelved(),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

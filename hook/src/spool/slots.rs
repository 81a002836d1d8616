//! Stored messages by id, packed: 32 bytes each, in order, and nearly nothing beside them.
//!
//! Ids rise as messages come in and the oldest go first, so pieces are filled at the end and emptied at the front, and
//! nearly all of them are full. What stays behind for long in pieces of its own is brought together.

use std::collections::BTreeMap;

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{Note, StoredState};

use super::name::{ATTEMPTS_NAMED_MAX, Name};

/// Messages in one piece: moving all of them takes less than a microsecond.
const PIECE_MAX: usize = 512;
/// A piece with fewer is joined with the one beside it, where both then leave some room.
const PIECE_SPARSE: usize = PIECE_MAX / 4;

/// What is kept of one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slot {
    /// Of the id; all in a piece have the same epoch.
    counter: u64,
    received_unix_s: u32,
    pub(super) folder: u32,
    due_s: u32,
    length_low: u32,
    length_high: u16,
    recipients: u16,
    /// `m0` to `m9` by their digit, and then the others.
    state: u8,
    flags: u8,
    tries: u8,
    waited_h: u8,
}

const RELEASING: u8 = 10;
const HELD: u8 = 11;
const QUARANTINED: u8 = 12;
/// `p0` to `p9` begin here.
const PARTS: u8 = 13;

/// On the shelf: not in the pool's hands.
const SHELVED: u8 = 1;
const REQUEUED: u8 = 2;
const TRIED: u8 = 4;

impl Slot {
    pub(super) fn new(name: &Name, folder: u32, shelved: bool) -> Self {
        let [b0, b1, b2, b3, b4, b5, ..] = name.length.to_le_bytes();
        let mut slot = Self {
            counter: name.id.counter,
            received_unix_s: name.received_unix_s,
            folder,
            due_s: 0,
            length_low: u32::from_le_bytes([b0, b1, b2, b3]),
            length_high: u16::from_le_bytes([b4, b5]),
            recipients: name.recipients,
            state: 0,
            flags: if shelved { SHELVED } else { 0 },
            tries: 0,
            waited_h: 0,
        };
        slot.set_state(name.state);
        slot
    }

    pub(super) fn state(&self) -> StoredState {
        match self.state {
            RELEASING => StoredState::Releasing,
            HELD => StoredState::Held,
            QUARANTINED => StoredState::Quarantined,
            parts @ PARTS.. => StoredState::Part { attempts: parts - PARTS },
            attempts => StoredState::Marked { attempts },
        }
    }

    pub(super) fn set_state(&mut self, state: StoredState) {
        self.state = match state {
            StoredState::Marked { attempts } => attempts.min(ATTEMPTS_NAMED_MAX),
            StoredState::Part { attempts } => PARTS + attempts.min(ATTEMPTS_NAMED_MAX),
            StoredState::Releasing => RELEASING,
            StoredState::Held => HELD,
            StoredState::Quarantined => QUARANTINED,
        };
    }

    pub(super) fn name(&self, epoch: u32) -> Name {
        Name {
            id: MessageId { epoch, counter: self.counter },
            received_unix_s: self.received_unix_s,
            length: u64::from(self.length_high) << 32 | u64::from(self.length_low),
            recipients: self.recipients,
            state: self.state(),
        }
    }

    pub(super) fn is_shelved(&self) -> bool {
        self.flags & SHELVED != 0
    }

    pub(super) fn shelve(&mut self, note: Note) {
        let Note { requeued, tried, tries, waited_h, due_s } = note;
        let flag = |set, flag| if set { flag } else { 0 };
        self.flags = SHELVED | flag(requeued, REQUEUED) | flag(tried, TRIED);
        (self.tries, self.waited_h, self.due_s) = (tries, waited_h, due_s);
    }

    pub(super) fn note(&self) -> Note {
        Note {
            requeued: self.flags & REQUEUED != 0,
            tried: self.flags & TRIED != 0,
            tries: self.tries,
            waited_h: self.waited_h,
            due_s: self.due_s,
        }
    }

    pub(super) fn due_s(&self) -> u32 {
        self.due_s
    }

    /// Takes it from the shelf.
    pub(super) fn take(&mut self) {
        self.flags &= !SHELVED;
    }
}

/// All of them.
#[derive(Default)]
pub(super) struct Slots {
    /// Sorted, each under an id that is not above any in it, and of their epoch.
    pieces: BTreeMap<MessageId, Vec<Slot>>,
}

impl Slots {
    /// `false`: there is one with this id, and it stays.
    pub(super) fn insert(&mut self, id: MessageId, slot: Slot) -> bool {
        let Some(key) = self.key_for(id) else {
            self.pieces.insert(id, vec![slot]);
            return true;
        };
        let Some(piece) = self.pieces.get_mut(&key) else { return false };
        let Err(at) = piece.binary_search_by_key(&id.counter, |slot| slot.counter) else {
            return false;
        };
        if piece.len() < PIECE_MAX {
            piece.insert(at, slot);
        } else if at == piece.len() {
            self.pieces.insert(id, vec![slot]);
        } else {
            let upper = piece.split_off(PIECE_MAX / 2);
            piece.shrink_to_fit();
            if let Some(first) = upper.first() {
                self.pieces.insert(MessageId { counter: first.counter, ..id }, upper);
            }
            return self.insert(id, slot);
        }
        true
    }

    pub(super) fn get(&self, id: MessageId) -> Option<&Slot> {
        let (_, piece) =
            self.pieces.range(..=id).next_back().filter(|(key, _)| key.epoch == id.epoch)?;
        let at = piece.binary_search_by_key(&id.counter, |slot| slot.counter).ok()?;
        piece.get(at)
    }

    pub(super) fn get_mut(&mut self, id: MessageId) -> Option<&mut Slot> {
        let (_, piece) =
            self.pieces.range_mut(..=id).next_back().filter(|(key, _)| key.epoch == id.epoch)?;
        let at = piece.binary_search_by_key(&id.counter, |slot| slot.counter).ok()?;
        piece.get_mut(at)
    }

    pub(super) fn remove(&mut self, id: MessageId) {
        let Some((key, piece)) =
            self.pieces.range_mut(..=id).next_back().filter(|(key, _)| key.epoch == id.epoch)
        else {
            return;
        };
        let Ok(at) = piece.binary_search_by_key(&id.counter, |slot| slot.counter) else { return };
        piece.remove(at);
        let (key, left) = (*key, piece.len());
        if left == 0 {
            self.pieces.remove(&key);
        } else if left < PIECE_SPARSE {
            self.join_neighbour(key);
        }
    }

    /// In the order of ids.
    pub(super) fn iter(&self) -> impl Iterator<Item = (MessageId, &Slot)> {
        self.pieces.iter().flat_map(|(key, piece)| {
            piece.iter().map(|slot| (MessageId { counter: slot.counter, ..*key }, slot))
        })
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (MessageId, &mut Slot)> {
        self.pieces.iter_mut().flat_map(|(key, piece)| {
            let epoch = key.epoch;
            piece.iter_mut().map(move |slot| (MessageId { epoch, counter: slot.counter }, slot))
        })
    }

    /// The piece that has or would have this id; one that begins behind it is made to begin there.
    fn key_for(&mut self, id: MessageId) -> Option<MessageId> {
        let same = |(key, _): (&MessageId, _)| (key.epoch == id.epoch).then_some(*key);
        if let Some(key) = self.pieces.range(..=id).next_back().and_then(same) {
            return Some(key);
        }
        let behind = self.pieces.range(id..).next().and_then(same)?;
        let piece = self.pieces.remove(&behind)?;
        self.pieces.insert(id, piece);
        Some(id)
    }

    /// Brings a sparse piece together with the one behind it or before it, where both then leave some room.
    fn join_neighbour(&mut self, key: MessageId) {
        let behind = self.pieces.range(key..).nth(1).map(|(behind, _)| (key, *behind));
        let before = self.pieces.range(..key).next_back().map(|(before, _)| (*before, key));
        let joined = behind.is_some_and(|pair| self.join(pair));
        if !joined
            && !before.is_some_and(|pair| self.join(pair))
            && let Some(piece) = self.pieces.get_mut(&key)
            && piece.capacity() > 2 * PIECE_SPARSE
        {
            piece.shrink_to(PIECE_SPARSE);
        }
    }

    fn join(&mut self, (first, second): (MessageId, MessageId)) -> bool {
        let length = |key| self.pieces.get(&key).map_or(PIECE_MAX, Vec::len);
        let fit = length(first) + length(second) <= PIECE_MAX - PIECE_SPARSE;
        if first.epoch != second.epoch || !fit {
            return false;
        }
        let Some(more) = self.pieces.remove(&second) else { return false };
        if let Some(piece) = self.pieces.get_mut(&first) {
            piece.extend_from_slice(&more);
        }
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(id: MessageId, state: StoredState) -> Name {
        Name { id, received_unix_s: 7, length: id.counter << 20, recipients: 3, state }
    }

    fn slot(id: MessageId) -> Slot {
        Slot::new(&name(id, StoredState::Held), 9, true)
    }

    #[test]
    fn a_message_takes_32_bytes() {
        assert_eq!(size_of::<Slot>(), 32);
        let mut slots = Slots::default();
        for counter in 0..100_000 {
            let id = MessageId { epoch: 1, counter };
            assert!(slots.insert(id, slot(id)));
        }
        let room: usize = slots.pieces.values().map(Vec::capacity).sum();
        assert!(room < 101_000, "{room}");
    }

    /// What is kept for years out of millions does not keep the others' room.
    #[test]
    fn few_that_stay_take_little() {
        let mut slots = Slots::default();
        let ids = || (0..200_000).map(|counter| MessageId { epoch: 1, counter });
        ids().for_each(|id| assert!(slots.insert(id, slot(id))));
        ids().filter(|id| id.counter % 100 != 7).for_each(|id| slots.remove(id));
        assert_eq!(slots.iter().count(), 2_000);
        let room: usize = slots.pieces.values().map(Vec::capacity).sum();
        assert!(room < 20_000, "{room}");
    }

    #[test]
    fn all_that_a_name_and_a_note_say_comes_back() {
        let id = MessageId { epoch: 3, counter: u64::MAX };
        for state in [
            StoredState::Marked { attempts: 0 },
            StoredState::Marked { attempts: 9 },
            StoredState::Part { attempts: 0 },
            StoredState::Part { attempts: 9 },
            StoredState::Releasing,
            StoredState::Held,
            StoredState::Quarantined,
        ] {
            let length = gantry_protocol::limits::MESSAGE_BYTES_MAX;
            let name = Name { length, ..name(id, state) };
            let mut slot = Slot::new(&name, 9, false);
            assert_eq!((slot.name(3), slot.folder, slot.is_shelved()), (name, 9, false));
            let note = Note { requeued: true, tried: false, tries: 5, waited_h: 6, due_s: 7 };
            slot.shelve(note);
            assert_eq!((slot.note(), slot.name(3), slot.is_shelved()), (note, name, true));
            slot.take();
            assert!(!slot.is_shelved());
        }
    }

    proptest! {
        #[test]
        fn it_is_a_map_in_the_order_of_ids(
            ops in proptest::collection::vec((0_u32..3, 0_u64..3_000, 0_u8..3), 0..6_000),
            rising in any::<bool>(),
        ) {
            let mut slots = Slots::default();
            let mut model = BTreeMap::new();
            for counter in 0..1_500 {
                let id = MessageId { epoch: 1, counter: if rising { counter } else { 3_000 - counter } };
                model.insert(id, ());
                prop_assert!(slots.insert(id, slot(id)));
            }
            for (epoch, counter, what) in ops {
                let id = MessageId { epoch, counter };
                match what {
                    0 => {
                        let new = model.insert(id, ()).is_none();
                        prop_assert_eq!(slots.insert(id, slot(id)), new);
                    }
                    1 => {
                        model.remove(&id);
                        slots.remove(id);
                    }
                    _ => {
                        prop_assert_eq!(slots.get(id).is_some(), model.contains_key(&id));
                        prop_assert_eq!(slots.get_mut(id).is_some(), model.contains_key(&id));
                    }
                }
            }
            prop_assert!(slots.iter().map(|(id, _)| id).eq(model.keys().copied()));
            prop_assert!(slots.iter().all(|(id, slot)| slot.name(id.epoch).id == id));
            prop_assert!(slots.pieces.values().all(|piece| (1..=PIECE_MAX).contains(&piece.len())));
        }
    }
}

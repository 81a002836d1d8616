//! What is going to happen, in the order of virtual time.

use std::collections::BTreeMap;

use super::event::Event;

/// When, and the how-manieth: what was queued first happens first.
pub(super) type Place = (u64, u64);

/// Virtual time in milliseconds, and all that is to come.
pub(super) struct Queue {
    events: BTreeMap<Place, Event>,
    queued: u64,
    pub(super) now: u64,
}

impl Queue {
    pub(super) fn from(now: u64) -> Self {
        Self { events: BTreeMap::new(), queued: 0, now }
    }

    pub(super) fn after(&mut self, delay: u64, event: Event) {
        self.at(self.now + delay, event);
    }

    pub(super) fn at(&mut self, at: u64, event: Event) {
        self.queued += 1;
        self.events.insert((at.max(self.now), self.queued), event);
    }

    /// Puts back what cannot happen yet, in its old order among others that are put back.
    pub(super) fn put_off(&mut self, until: u64, place: Place, event: Event) {
        self.events.insert((until, place.1), event);
    }

    pub(super) fn next_at(&self) -> Option<u64> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn pop(&mut self) -> Option<(Place, Event)> {
        let (place, event) = self.events.pop_first()?;
        self.now = self.now.max(place.0);
        Some((place, event))
    }
}

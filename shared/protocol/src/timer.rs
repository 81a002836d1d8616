//! Deadlines: one table for all of a state machine's timers.

use std::collections::{BTreeMap, BTreeSet};

use crate::time::Moment;

/// At most one deadline for each key. Equal deadlines fire in the order of their keys, so that runs can be replayed.
#[derive(Debug, Clone)]
pub struct Timers<K> {
    by_time: BTreeSet<(Moment, K)>,
    by_key: BTreeMap<K, Moment>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_time: BTreeSet::new(), by_key: BTreeMap::new() }
    }
}

impl<K: Ord + Copy> Timers<K> {
    /// Sets or moves a deadline.
    pub fn set(&mut self, key: K, at: Moment) {
        if let Some(old) = self.by_key.insert(key, at) {
            self.by_time.remove(&(old, key));
        }
        self.by_time.insert((at, key));
    }

    pub fn clear(&mut self, key: K) {
        if let Some(old) = self.by_key.remove(&key) {
            self.by_time.remove(&(old, key));
        }
    }

    pub fn get(&self, key: K) -> Option<Moment> {
        self.by_key.get(&key).copied()
    }

    pub fn next_timeout(&self) -> Option<Moment> {
        self.by_time.first().map(|(at, _)| *at)
    }

    /// The next key whose deadline is `now` or earlier; it is no longer set.
    pub fn pop_due(&mut self, now: Moment) -> Option<K> {
        let (at, key) = *self.by_time.first().filter(|(at, _)| *at <= now)?;
        self.by_time.remove(&(at, key));
        self.by_key.remove(&key);
        Some(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moved_deadline_fires_once() {
        let mut timers = Timers::default();
        timers.set('a', Moment(5));
        timers.set('b', Moment(5));
        timers.set('a', Moment(9));
        assert_eq!(timers.next_timeout(), Some(Moment(5)));
        assert_eq!(timers.pop_due(Moment(4)), None);
        assert_eq!(timers.pop_due(Moment(9)), Some('b'));
        assert_eq!(timers.pop_due(Moment(9)), Some('a'));
        assert_eq!(timers.pop_due(Moment(9)), None);
        timers.set('a', Moment(1));
        timers.clear('a');
        assert_eq!(timers.next_timeout(), None);
    }
}

//! What happened, in numbers.

use std::collections::BTreeMap;
use std::fmt;

/// How often each thing happened, by its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(transparent)]
pub struct Counts(BTreeMap<String, u64>);

impl Counts {
    pub(super) fn add(&mut self, name: &str) {
        self.add_many(name, 1);
    }

    pub(super) fn add_many(&mut self, name: &str, count: u64) {
        if let Some(counted) = self.0.get_mut(name) {
            *counted += count;
        } else {
            self.0.insert(name.to_owned(), count);
        }
    }

    /// How often it happened.
    pub fn get(&self, name: &str) -> u64 {
        self.0.get(name).copied().unwrap_or(0)
    }

    /// Adds those of another schedule.
    pub fn merge(&mut self, other: &Counts) {
        for (name, count) in &other.0 {
            self.add_many(name, *count);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(name, count)| writeln!(f, "{count:>10}  {name}"))
    }
}

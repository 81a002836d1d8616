//! Sets of a mailbox's needs: what a grabber can do, what has been done for a message.

use super::MailboxConfig;
use crate::limits::NEEDS_MAX;

/// Needs of one mailbox, by their place in its configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Needs(u64);

// A place for each need that a mailbox may have.
const _: () = assert!(NEEDS_MAX <= u64::BITS as usize, "more needs than a set has places for");

impl Needs {
    /// Those of a mailbox's needs for which `has` says yes.
    pub(super) fn of(mailbox: &MailboxConfig, has: impl Fn(&str) -> bool) -> Self {
        let places = (0..u64::BITS).zip(&mailbox.needs);
        Self(places.filter(|(_, need)| has(need)).fold(0, |set, (place, _)| set | 1 << place))
    }

    pub(super) fn all_of(mailbox: &MailboxConfig) -> Self {
        Self::of(mailbox, |_| true)
    }

    pub(super) fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub(super) fn with(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    pub(super) fn and(self, others: Self) -> Self {
        Self(self.0 & others.0)
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether all of these are among the others.
    pub(super) fn within(self, others: Self) -> bool {
        self.without(others).is_empty()
    }

    /// By their names, in the order of the configuration.
    pub(super) fn names(self, mailbox: &MailboxConfig) -> Vec<String> {
        let places = (0..u64::BITS).zip(&mailbox.needs);
        places
            .filter(|(place, _)| self.0 & (1 << place) != 0)
            .map(|(_, need)| need.clone())
            .collect()
    }
}

//! How near its end a certificate is, and when that is said again.

use crate::certificate::NODE_SECONDS;
use crate::trust::AuthorityKind;

const DAY: u64 = 86_400;
/// From here on a node's certificate is urgent, in seconds before its end.
const URGENT: u64 = 7 * DAY;
/// From here on a root is to be rotated, in seconds before its end: every node moves by itself within two of its lives.
const ROOT_DUE: u64 = 2 * NODE_SECONDS;
/// From here on a root's certificates are shorter than a node's life.
const ROOT_URGENT: u64 = NODE_SECONDS;
/// How often the same is said again, in seconds.
const AGAIN: u64 = DAY;

/// How near its end something is, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Good,
    /// To be renewed: for a node's certificate the last third of its life.
    Due,
    /// Somebody must act.
    Urgent,
    Expired,
}

impl Standing {
    /// A node's certificate with this last second; both in seconds since 1970.
    pub fn of_node(expires: u64, now: u64) -> Self {
        Self::of(expires, now, NODE_SECONDS / 3, URGENT)
    }

    /// An authority with this last second.
    pub fn of_authority(kind: AuthorityKind, expires: u64, now: u64) -> Self {
        match kind {
            AuthorityKind::Root => Self::of(expires, now, ROOT_DUE, ROOT_URGENT),
            // Its nodes' certificates end with it at the latest.
            AuthorityKind::Issuing => Self::of(expires, now, NODE_SECONDS / 3, URGENT),
        }
    }

    fn of(expires: u64, now: u64, due: u64, urgent: u64) -> Self {
        match expires.saturating_sub(now) {
            _ if expires < now => Self::Expired,
            left if left < urgent => Self::Urgent,
            left if left < due => Self::Due,
            _ => Self::Good,
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Due => "due",
            Self::Urgent => "urgent",
            Self::Expired => "expired",
        }
    }
}

/// Keeps a warning from being said more often than once a day while nothing gets worse.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reminder {
    said: Option<(Standing, u64)>,
}

impl Reminder {
    /// Whether it is time to say that something stands so at `now` (seconds since 1970); if so, it counts as said.
    pub fn is_time(&mut self, standing: Standing, now: u64) -> bool {
        if standing == Standing::Good {
            self.said = None;
            return false;
        }
        let again = self.said.is_none_or(|(said, at)| {
            // A clock that was set back must not silence it.
            standing > said || now >= at.saturating_add(AGAIN) || now < at
        });
        if again {
            self.said = Some((standing, now));
        }
        again
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gets_louder_as_the_end_comes_nearer() {
        let end = 1_000 * DAY;
        for (days, standing) in [
            (90, Standing::Good),
            (30, Standing::Good),
            (29, Standing::Due),
            (7, Standing::Due),
            (6, Standing::Urgent),
            (0, Standing::Urgent),
        ] {
            assert_eq!(Standing::of_node(end, end - days * DAY), standing, "{days}");
            let issuing = Standing::of_authority(AuthorityKind::Issuing, end, end - days * DAY);
            assert_eq!(issuing, standing, "{days}");
        }
        assert_eq!(Standing::of_node(end, end + 1), Standing::Expired);
        let root = |days| Standing::of_authority(AuthorityKind::Root, end, end - days * DAY);
        assert_eq!(
            [root(180), root(179), root(90), root(89)],
            [Standing::Good, Standing::Due, Standing::Due, Standing::Urgent]
        );
    }

    #[test]
    fn it_is_said_daily_and_at_once_when_it_gets_worse() {
        let mut reminder = Reminder::default();
        let start = 1_000 * DAY;
        assert!(!reminder.is_time(Standing::Good, start));
        assert!(reminder.is_time(Standing::Due, start));
        assert!(!reminder.is_time(Standing::Due, start + DAY - 1));
        assert!(reminder.is_time(Standing::Due, start + DAY));
        assert!(reminder.is_time(Standing::Urgent, start + DAY + 1));
        assert!(!reminder.is_time(Standing::Urgent, start + DAY + 2));
        assert!(reminder.is_time(Standing::Urgent, start), "the clock was set back");
        assert!(!reminder.is_time(Standing::Good, start + DAY));
        assert!(reminder.is_time(Standing::Due, start + DAY), "it had been good again");
    }
}

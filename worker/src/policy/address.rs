//! Sets of addresses.

use std::collections::BTreeSet;
use std::sync::Arc;

use gantry_mail::Mask;

/// Addresses by name, by domain, by mask, and by group. An empty set has nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Lower-case; empty is the null sender.
    exact: BTreeSet<String>,
    /// From `*@domain`, which is most of what long lists hold.
    domains: BTreeSet<String>,
    masks: Vec<Mask>,
    groups: Vec<Arc<Addresses>>,
}

impl Addresses {
    /// Takes `user@example.com`, `*@example.com`, any other mask, or `<>` for the null sender.
    ///
    /// # Errors
    /// What is wrong, as half a sentence.
    pub(super) fn add(&mut self, text: &str) -> Result<(), &'static str> {
        let lower = text.to_lowercase();
        if lower == "<>" {
            self.exact.insert(String::new());
        } else if lower.is_empty() || lower.contains(['<', '>', ',', ' ', '\t']) {
            return Err("it is no address and no mask");
        } else if let Some(domain) = lower.strip_prefix("*@")
            && !domain.contains('*')
        {
            self.domains.insert(domain.to_owned());
        } else if lower.contains('*') {
            self.masks.push(Mask::new(&lower));
        } else if lower.contains('@') {
            self.exact.insert(lower);
        } else {
            return Err("it has no @");
        }
        Ok(())
    }

    pub(super) fn add_group(&mut self, group: Arc<Addresses>) {
        self.groups.push(group);
    }

    /// Masks that have to be tried one by one.
    pub(super) fn masks(&self) -> usize {
        self.masks.len()
    }

    pub(super) fn contains(&self, address: &str) -> bool {
        let lower = address.to_lowercase();
        self.has(&lower)
    }

    fn has(&self, lower: &str) -> bool {
        let domain = lower.rsplit_once('@').map(|(_, domain)| domain);
        self.exact.contains(lower)
            || domain.is_some_and(|domain| self.domains.contains(domain))
            || self.masks.iter().any(|mask| mask.matches(lower))
            || self.groups.iter().any(|group| group.has(lower))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn sets_of_addresses() {
        let mut set = Addresses::default();
        for text in ["Boss@Example.com", "*@Example.org", "sales-*@example.net", "<>"] {
            set.add(text).unwrap();
        }
        for inside in ["boss@example.COM", "x@example.org", "sales-eu@example.net", ""] {
            assert!(set.contains(inside), "{inside}");
        }
        for outside in ["b@example.com", "x@sub.example.org", "sales@example.net", "example.org"] {
            assert!(!set.contains(outside), "{outside}");
        }
        let mut outer = Addresses::default();
        outer.add_group(Arc::new(set));
        assert!(outer.contains("x@example.org") && !outer.contains("x@example.edu"));
        for wrong in ["", "example.com", "a b@example.com", "<a@b>"] {
            assert!(outer.add(wrong).is_err(), "{wrong}");
        }
    }
}

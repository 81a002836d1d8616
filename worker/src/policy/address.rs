//! Masks, and sets of addresses made of them.

use std::collections::BTreeSet;
use std::sync::Arc;

/// Text in which `*` stands for any run of characters. Letters match without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mask {
    /// Lower-case.
    text: Vec<char>,
}

impl Mask {
    pub(super) fn new(text: &str) -> Self {
        let mut characters: Vec<char> = text.to_lowercase().chars().collect();
        characters.dedup_by(|one, other| *one == '*' && *other == '*');
        Self { text: characters }
    }

    /// Whether all of `text`, which is lower-case, is as the mask says. Looks back to the last `*` alone, so it takes
    /// at most length times length.
    pub(super) fn matches(&self, text: &str) -> bool {
        let mut rest = text.chars();
        let mut at = 0;
        // Where the last `*` stands in the mask, and the text that it has not yet taken.
        let mut star: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            let before = rest.clone();
            match (self.text.get(at), rest.next()) {
                (Some('*'), _) => {
                    rest = before.clone();
                    star = Some((at, before));
                    at += 1;
                }
                (Some(wanted), Some(character)) if *wanted == character => at += 1,
                (None, None) => return true,
                _ => {
                    let Some((place, taken)) = &mut star else { return false };
                    if taken.next().is_none() {
                        return false;
                    }
                    (at, rest) = (*place + 1, taken.clone());
                }
            }
        }
    }
}

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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks() {
        for (mask, text) in [
            ("*", ""),
            ("*", "anything"),
            ("A*", "abc"),
            ("*c", "abc"),
            ("a*c", "ac"),
            ("a**c", "abbc"),
            ("*ab*ab", "abxabab"),
            ("*@*.example.com", "u@mail.example.com"),
            ("", ""),
            ("ß", "ß"),
        ] {
            assert!(Mask::new(mask).matches(text), "{mask} {text}");
        }
        for (mask, text) in [
            ("", "a"),
            ("a", ""),
            ("a*c", "acb"),
            ("*@*.example.com", "u@example.com"),
            ("a*b*c", "acb"),
            ("abc", "ab"),
        ] {
            assert!(!Mask::new(mask).matches(text), "{mask} {text}");
        }
    }

    proptest! {
        /// As a plain recursion over the same two texts decides.
        #[test]
        fn masks_as_the_definition_says(mask in "[ab*]{0,8}", text in "[ab]{0,8}") {
            fn model(mask: &[u8], text: &[u8]) -> bool {
                match (mask.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) if model(rest, text) => true,
                    (Some((b'*', _)), Some((_, text))) => model(mask, text),
                    (Some((a, mask)), Some((b, text))) if a == b => model(mask, text),
                    _ => false,
                }
            }
            prop_assert_eq!(Mask::new(&mask).matches(&text), model(mask.as_bytes(), text.as_bytes()));
        }
    }

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

//! Names of nodes, and the masks that tokens are issued for.

use std::fmt;
use std::str::FromStr;

use gantry_protocol::limits::NAME_BYTES_MAX;

/// Whether `text` can name a host, worker or operator: labels of lower-case letters, digits and inner hyphens,
/// separated by dots, at most [`NAME_BYTES_MAX`] bytes (the shape of a DNS name, since it stands in certificates as one).
/// `ca` is not one, since the authority's own files have that name.
pub fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX && text != "ca" && text.split('.').all(is_label)
}

/// Whether `text` can name a need in a certificate: one label.
pub(crate) fn is_label(text: &str) -> bool {
    !text.is_empty()
        && text.len() < NAME_BYTES_MAX
        && text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'))
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// The names that a token is good for: a name in which each `*` stands for any characters, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameMask(String);

/// Text that is no mask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no name or mask; one looks like pc-1 or pc-* (lower-case letters, digits, hyphens, dots; at most 64 bytes)"
)]
pub struct NoMask {
    pub text: String,
}

impl NameMask {
    /// Whether the mask covers `name`.
    pub fn covers(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else { return self.0 == name };
        let Some(mut name) = name.strip_prefix(first) else { return false };
        let mut pieces: Vec<&str> = rest.split('*').collect();
        let last = pieces.pop().unwrap_or_default();
        // The leftmost place for each middle piece leaves the most for those behind it.
        for piece in pieces {
            let Some((_, behind)) = name.split_once(piece) else { return false };
            name = behind;
        }
        name.ends_with(last)
    }
}

impl FromStr for NameMask {
    type Err = NoMask;

    fn from_str(text: &str) -> Result<Self, NoMask> {
        // A mask is good when some name fits it: put a letter for each star.
        let fits = is_name(&text.replace('*', "x"));
        fits.then(|| Self(text.to_owned()))
            .ok_or_else(|| NoMask { text: text.chars().take(NAME_BYTES_MAX).collect() })
    }
}

impl fmt::Display for NameMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_mask_covers_whole_names() {
        let covers = |mask: &str, name: &str| mask.parse::<NameMask>().unwrap().covers(name);
        for (mask, name) in [
            ("pc-1", "pc-1"),
            ("pc-*", "pc-1"),
            ("pc-*", "pc-"),
            ("*", "anything.at.all"),
            ("*.example.com", "pc.example.com"),
            ("a*b*c", "axxbxxbc"),
            ("a*bc*bc", "abcbc"),
        ] {
            assert!(covers(mask, name), "{mask} {name}");
        }
        for (mask, name) in [
            ("pc-1", "pc-11"),
            ("pc-*", "xpc-1"),
            ("*.example.com", "example.com"),
            ("a*b*c", "ac"),
            ("a*bc*bc", "abc"),
            ("a*a", "a"),
        ] {
            assert!(!covers(mask, name), "{mask} {name}");
        }
    }

    #[test]
    fn names_have_the_shape_of_dns_names() {
        for good in ["pc-1", "mx1.example.com", "1", "a"] {
            assert!(is_name(good), "{good}");
        }
        let long = "a".repeat(65);
        for bad in ["", ".", "a.", "-a", "a-", "PC", "a b", "a/b", "..", "ä", "ca", "a*", &long] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!("pc 1".parse::<NameMask>().is_err());
    }
}

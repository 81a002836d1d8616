//! What the next hop offers, which is also the most that an intake before it may offer.

use std::sync::{Arc, PoisonError, RwLock};

/// The extensions in a reply to EHLO that Gantry knows what to do with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// RFC 2920.
    pub pipelining: bool,
    /// RFC 3207.
    pub starttls: bool,
    /// RFC 4954: the mechanisms of AUTH, in upper case.
    pub auth: Vec<String>,
    /// RFC 1870: the largest message in bytes; `Some(0)` is offered without a limit.
    pub size: Option<u64>,
    /// RFC 6152.
    pub eight_bit_mime: bool,
    /// RFC 6531.
    pub smtputf8: bool,
    /// RFC 3461.
    pub dsn: bool,
    /// The attributes that XFORWARD takes, in upper case; empty where it is not offered.
    pub xforward: Vec<String>,
}

impl Capabilities {
    /// Reads the lines of a reply to EHLO; the first, which greets, says nothing.
    pub fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Self {
        let mut found = Self::default();
        for line in lines.into_iter().skip(1) {
            let mut words = line.split_ascii_whitespace();
            match words.next().unwrap_or_default().to_ascii_uppercase().as_str() {
                "PIPELINING" => found.pipelining = true,
                "SIZE" => {
                    found.size = Some(words.next().and_then(|n| n.parse().ok()).unwrap_or(0));
                }
                "STARTTLS" => found.starttls = true,
                "AUTH" => found.auth = words.map(str::to_ascii_uppercase).collect(),
                "8BITMIME" => found.eight_bit_mime = true,
                "SMTPUTF8" => found.smtputf8 = true,
                "DSN" => found.dsn = true,
                "XFORWARD" => {
                    found.xforward = words.map(str::to_ascii_uppercase).collect();
                }
                _ => {}
            }
        }
        found
    }

    /// What may come in at a mailbox whose way out is a folder or a program: all but DSN, for which neither a file nor
    /// an argument has a place.
    pub fn local() -> Self {
        Self { size: Some(0), eight_bit_mime: true, smtputf8: true, ..Self::default() }
    }
}

/// What a next hop last offered, shared between the release that learns it and the intake that obeys it. Cheap to
/// clone; clones share.
#[derive(Clone, Debug, Default)]
pub struct Offered(Arc<RwLock<Option<Capabilities>>>);

impl Offered {
    /// `None` until a release has greeted its next hop.
    pub fn get(&self) -> Option<Capabilities> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn set(&self, capabilities: Capabilities) {
        let mut offered = self.0.write().unwrap_or_else(PoisonError::into_inner);
        *offered = Some(capabilities);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_to_ehlo_is_read_without_regard_to_case_and_order() {
        let lines = [
            "size.example PIPELINING",
            "xforward name Addr",
            "Size 1000",
            "8bitmime",
            "DSN",
            "StartTLS",
            "AUTH plain LOGIN",
            "X-WHAT",
            "",
        ];
        let expected = Capabilities {
            size: Some(1_000),
            eight_bit_mime: true,
            dsn: true,
            starttls: true,
            auth: vec!["PLAIN".into(), "LOGIN".into()],
            xforward: vec!["NAME".into(), "ADDR".into()],
            ..Capabilities::default()
        };
        assert_eq!(Capabilities::parse(lines), expected, "the greeting line offers nothing");
        assert_eq!(Capabilities::parse(["x", "SIZE"]).size, Some(0));
        assert_eq!(Capabilities::parse(["x", "SIZE lots"]).size, Some(0));
    }
}

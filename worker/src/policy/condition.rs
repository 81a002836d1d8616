//! What a rule asks of a message, of a recipient, and of what modules said.

use std::collections::BTreeMap;
use std::net::IpAddr;

use gantry_config::Network;
use gantry_mail::{Envelope, Mask, Peer, header};

use super::address::Addresses;
use super::outcome::{Kind, Said};

/// What the modules of each need said. A need that is not here has not been asked.
pub type Ran = BTreeMap<String, Said>;

/// A message as the policy sees it.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    pub mailbox: &'a str,
    /// What its mailbox asks for.
    pub needs: &'a [String],
    pub envelope: &'a Envelope,
    /// In bytes.
    pub size: u64,
    /// The start of the message; only its header block is looked at. May be empty if
    /// [`Policy::reads_headers`](super::Policy::reads_headers) says no.
    pub start: &'a [u8],
}

/// Where mail comes from and goes to, by the addresses in its envelope.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// From elsewhere to us.
    In,
    /// From us to elsewhere.
    Out,
    /// From us to us.
    Internal,
    /// From elsewhere to elsewhere.
    Through,
}

/// All that is asked must be so; where several values are listed, one of them suffices.
#[derive(Clone, Debug, Default)]
pub(super) struct Condition {
    pub(super) mailbox: Option<Vec<Mask>>,
    pub(super) direction: Option<Vec<Direction>>,
    pub(super) sender: Option<Addresses>,
    pub(super) recipient: Option<Addresses>,
    pub(super) client: Option<Vec<Network>>,
    /// In bytes.
    pub(super) larger_than: Option<u64>,
    pub(super) smaller_than: Option<u64>,
    /// Each of them must be there.
    pub(super) headers: Vec<HeaderCondition>,
    /// Needs that must be clean, one of them.
    pub(super) clean: Option<Vec<String>>,
    /// For each kind: needs of which one must have such a problem.
    pub(super) problems: Vec<(Kind, Vec<String>)>,
    /// Every name that was found is one of these.
    pub(super) names: Option<Vec<Mask>>,
}

#[derive(Clone, Debug)]
pub(super) struct HeaderCondition {
    pub(super) name: String,
    /// Empty: any value.
    pub(super) values: Vec<Mask>,
}

impl Condition {
    /// The part that is the same for all recipients and needs no module.
    pub(super) fn suits_message(&self, facts: &Facts<'_>) -> bool {
        let client = client(&facts.envelope.peer);
        all(&self.mailbox, |masks| masks.iter().any(|mask| mask.matches(facts.mailbox)))
            && all(&self.sender, |set| set.contains(&facts.envelope.sender))
            && all(&self.client, |networks| {
                client.is_some_and(|address| networks.iter().any(|one| one.contains(address)))
            })
            && self.larger_than.is_none_or(|limit| facts.size > limit)
            && self.smaller_than.is_none_or(|limit| facts.size < limit)
            && self.headers.iter().all(|header| header.suits(facts.start))
    }

    /// The part that differs from recipient to recipient.
    pub(super) fn suits_recipient(&self, facts: &Facts<'_>, local: &Addresses, to: &str) -> bool {
        let direction = || match (local.contains(&facts.envelope.sender), local.contains(to)) {
            (false, true) => Direction::In,
            (true, false) => Direction::Out,
            (true, true) => Direction::Internal,
            (false, false) => Direction::Through,
        };
        all(&self.recipient, |set| set.contains(to))
            && all(&self.direction, |directions| directions.contains(&direction()))
    }

    /// Whether it asks what modules said.
    pub(super) fn asks_modules(&self) -> bool {
        self.clean.is_some() || !self.problems.is_empty()
    }

    /// What is asked of a need that was not run is not so.
    pub(super) fn suits_outcomes(&self, ran: &Ran) -> bool {
        let said = |need: &String| ran.get(need);
        let is_clean = |need: &String| said(need).is_some_and(|said| said.problems.is_empty());
        let found_only = |need: &String| {
            said(need).is_some_and(|said| all(&self.names, |masks| said.found_only(masks)))
        };
        all(&self.clean, |needs| needs.iter().any(is_clean))
            && self.problems.iter().all(|(kind, needs)| {
                needs.iter().any(|need| {
                    said(need).is_some_and(|said| said.has(*kind))
                        && (*kind != Kind::Found || found_only(need))
                })
            })
    }

    /// Whether the condition names this problem of this need, so that a rule that releases means it.
    pub(super) fn names_problem(&self, need: &str, kind: Kind, ran: &Ran) -> bool {
        let listed = self
            .problems
            .iter()
            .any(|(asked, needs)| *asked == kind && needs.iter().any(|asked| asked == need));
        let meant = kind != Kind::Found
            || ran.get(need).is_some_and(|said| all(&self.names, |masks| said.found_only(masks)));
        listed && meant
    }
}

impl HeaderCondition {
    fn suits(&self, start: &[u8]) -> bool {
        header::fields(start).filter(|field| field.is(&self.name)).any(|field| {
            if self.values.is_empty() {
                return true;
            }
            let text = String::from_utf8_lossy(field.value).replace("\r\n", "").to_lowercase();
            self.values.iter().any(|mask| mask.matches(text.trim()))
        })
    }
}

/// The original client, as far as somebody trusted said who it is; else the one that connected.
pub(super) fn client(peer: &Peer) -> Option<IpAddr> {
    match peer.xforward.iter().find(|(name, _)| name.eq_ignore_ascii_case("ADDR")) {
        Some((_, address)) => {
            let plain = address.get(..5).filter(|start| start.eq_ignore_ascii_case("IPv6:"));
            address.get(plain.map_or(0, str::len)..)?.parse().ok()
        }
        None => peer.address,
    }
}

fn all<T>(asked: &Option<T>, suits: impl FnOnce(&T) -> bool) -> bool {
    asked.as_ref().is_none_or(suits)
}

//! Every key of the policy file: what the reader accepts, and what `docs/policy.md` must explain.

use super::FIELDS;

/// Each table, as the documentation names it, with its keys.
pub const KEYS: &[(&str, &[&str])] = &[
    ("policy.toml", TOP),
    ("[outcomes]", OUTCOMES),
    ("[[need]]", NEED),
    ("[[group]]", GROUP),
    ("[[notice]]", NOTICE),
    ("fields of a notice", FIELDS),
    ("[[rule]]", RULE),
    ("when and unless", CONDITION),
    ("header", HEADER),
];

pub(super) const TOP: &[&str] =
    &["local", "postmaster", "outcomes", "need", "group", "notice", "rule"];

pub(super) const OUTCOMES: &[&str] =
    &["found", "unscanned", "encrypted", "malformed", "over-budget"];

pub(super) const NEED: &[&str] = &["name", "engines", "quorum"];

pub(super) const GROUP: &[&str] = &["name", "addresses"];

pub(super) const NOTICE: &[&str] = &["name", "to", "from", "sender", "subject", "text", "attach"];

pub(super) const RULE: &[&str] = &[
    "name",
    "when",
    "unless",
    "run",
    "add_headers",
    "remove_headers",
    "notify",
    "then",
    "code",
    "enhanced",
    "text",
    "reason",
    "stop",
];

pub(super) const CONDITION: &[&str] = &[
    "mailbox",
    "direction",
    "sender",
    "recipient",
    "client",
    "larger_than",
    "smaller_than",
    "header",
    "clean",
    "found",
    "names",
    "unscanned",
    "encrypted",
    "malformed",
    "over-budget",
];

pub(super) const HEADER: &[&str] = &["name", "matches"];

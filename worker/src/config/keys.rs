//! Every key of `worker.toml`: what the reader accepts, and what `docs/configuration.md` must explain.

use gantry_config::METRICS;

/// Each table, as the documentation names it, with its keys.
pub const KEYS: &[(&str, &[&str])] = &[
    ("worker.toml", TOP),
    ("[[host]]", HOST),
    ("[metrics]", METRICS),
    ("[[module]] type yara", YARA),
    ("[[module]] type clamd", CLAMD),
    ("[[module]] type command", COMMAND),
];

pub(super) const TOP: &[&str] = &[
    "name",
    "identity",
    "listen",
    "scratch",
    "concurrency",
    "memory_max",
    "drain_timeout",
    "policy",
    "host",
    "module",
    "log",
    "metrics",
];

pub(super) const HOST: &[&str] = &["address", "name", "tier", "standby_after"];

pub(super) const YARA: &[&str] = &[
    "name",
    "type",
    "provides",
    "rules",
    "bundled",
    "concurrency",
    "unpacked_max",
    "ratio_max",
    "entries_max",
    "depth_max",
    "time_max",
];

pub(super) const CLAMD: &[&str] = &[
    "name",
    "type",
    "provides",
    "address",
    "connect_timeout",
    "scan_timeout",
    "stream_max",
    "scan_max",
    "signatures_age_max",
    "connections_max",
];

pub(super) const COMMAND: &[&str] = &[
    "name",
    "type",
    "provides",
    "program",
    "arguments",
    "environment",
    "clean",
    "found",
    "unscanned",
    "encrypted",
    "malformed",
    "over-budget",
    "failed",
    "unavailable",
    "name_prefix",
    "name_suffix",
    "probe",
    "time_max",
    "message_max",
    "concurrency",
];

//! Every key of `hook.toml`: what the reader accepts, and what `docs/configuration.md` must explain.

use gantry_config::METRICS;

/// Each table, as the documentation names it, with its keys.
pub const KEYS: &[(&str, &[&str])] = &[
    ("hook.toml", TOP),
    ("[[worker]]", WORKER),
    ("[[mailbox]]", MAILBOX),
    ("[mailbox.originated]", ORIGINATED),
    ("intake type smtp", SMTP_INTAKE),
    ("tls of an intake", INTAKE_TLS),
    ("intake type pickup", PICKUP_INTAKE),
    ("intake type mark", MARK_INTAKE),
    ("release type smtp", SMTP_RELEASE),
    ("release type directory", DIRECTORY_RELEASE),
    ("release type command", COMMAND_RELEASE),
    ("[reservation]", RESERVATION),
    ("[limits]", LIMITS),
    ("[quarantine]", QUARANTINE),
    ("[held]", HELD),
    ("[history]", HISTORY),
    ("[metrics]", METRICS),
];

pub(super) const TOP: &[&str] = &[
    "name",
    "spool",
    "identity",
    "listen",
    "advertise",
    "policy",
    "policy_also",
    "worker",
    "mailbox",
    "reservation",
    "limits",
    "quarantine",
    "held",
    "log",
    "history",
    "metrics",
];

pub(super) const WORKER: &[&str] = &["address", "name"];

pub(super) const MAILBOX: &[&str] = &[
    "name",
    "intake",
    "release",
    "needs",
    "custody",
    "answer_within",
    "upstream_timeout",
    "when_unprocessed",
    "after",
    "warn_after",
    "reject_late",
    "behind_queue",
    "originated",
];

pub(super) const ORIGINATED: &[&str] = &["senders", "recipients"];

pub(super) const SMTP_INTAKE: &[&str] = &[
    "type",
    "listen",
    "hostname",
    "peers",
    "xforward_from",
    "recipients_max",
    "message_size_max",
    "connections_max",
    "connections_per_client_max",
    "stray_cr_lf",
    "tls",
    "command_timeout",
    "data_timeout",
    "message_timeout",
];

pub(super) const INTAKE_TLS: &[&str] = &["certificate", "key", "required"];

pub(super) const PICKUP_INTAKE: &[&str] =
    &["type", "directory", "format", "envelope", "settle", "poll", "message_size_max"];

pub(super) const MARK_INTAKE: &[&str] = &["type", "message_size_max"];

pub(super) const DIRECTORY_RELEASE: &[&str] = &[
    "type",
    "path",
    "format",
    "envelope",
    "line_ends",
    "hostname",
    "authserv_id",
    "queue_lifetime",
    "retry_first",
    "retry_max",
];

pub(super) const COMMAND_RELEASE: &[&str] = &[
    "type",
    "program",
    "arguments",
    "line_ends",
    "time_max",
    "processes_max",
    "hostname",
    "authserv_id",
    "queue_lifetime",
    "retry_first",
    "retry_max",
];

pub(super) const SMTP_RELEASE: &[&str] = &[
    "type",
    "address",
    "tls",
    "tls_ca",
    "tls_name",
    "auth_user",
    "auth_password_file",
    "auth_without_tls",
    "hostname",
    "authserv_id",
    "xforward",
    "connect_timeout",
    "command_timeout",
    "data_timeout",
    "block_timeout",
    "final_dot_timeout",
    "total_timeout",
    "connections_max",
    "queue_lifetime",
    "retry_first",
    "retry_max",
];

pub(super) const RESERVATION: &[&str] =
    &["beat", "beat_idle", "time_max", "silence_max", "attempts_max", "returns_max"];

pub(super) const LIMITS: &[&str] =
    &["upstream_memory_max", "upstream_disk_max", "spool_max", "spool_free_min"];

pub(super) const QUARANTINE: &[&str] = &["keep", "max_bytes", "when_full"];

pub(super) const HELD: &[&str] = &["keep", "max_bytes"];

pub(super) const HISTORY: &[&str] = &["max_bytes"];

//! The running hook's own door for its administrator: a Unix socket in the spool, open to its owner alone.
//!
//! A request is one line of JSON and so is its reply. The commands of `gantry-hook` are its only users.

mod aside;
mod client;
mod socket;

use serde::{Deserialize, Serialize};

use gantry_protocol::pool::{Status, StoredState};

pub use aside::{change, list, show};
pub use client::{AdminError, ask};
pub use socket::listen;

/// The longest line in either direction. A status shows at most [`MESSAGES_MAX`] messages.
pub const LINE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Messages in one status or list.
pub const MESSAGES_MAX: usize = 1_000;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status,
    List {
        aside: Aside,
    },
    Show {
        aside: Aside,
        id: String,
    },
    Release {
        aside: Aside,
        id: String,
    },
    Delete {
        aside: Aside,
        id: String,
    },
    /// The revocation list has changed.
    Reload,
}

/// Where a message was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Aside {
    Held,
    Quarantined,
}

impl Aside {
    pub fn state(self) -> StoredState {
        match self {
            Self::Held => StoredState::Held,
            Self::Quarantined => StoredState::Quarantined,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Status(Box<HookStatus>),
    List(Vec<ListedMessage>),
    Show(Box<ShownMessage>),
    Done,
    Refused(String),
}

/// The hook's state as `status --json` prints it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HookStatus {
    pub host: String,
    pub version: String,
    /// Whether a hook runs; else the spool was read while none did.
    pub running: bool,
    pub epoch: u32,
    pub pid: u32,
    pub uptime_s: u64,
    /// Why no mail is taken, if so.
    pub intake_stopped: Option<String>,
    pub mailboxes: Vec<String>,
    #[serde(flatten)]
    pub pool: Status,
}

/// A message that was set aside, as the lists show it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedMessage {
    pub id: String,
    pub mailbox: String,
    /// RFC 5322.
    pub received: String,
    pub length: u64,
    pub sender: String,
    pub recipients: Vec<String>,
    pub reasons: Vec<String>,
}

/// One message that was set aside, with all that is known of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownMessage {
    #[serde(flatten)]
    pub listed: ListedMessage,
    pub digest: String,
    pub helo: String,
    pub address: Option<String>,
    /// Each module's finding, in words.
    pub findings: Vec<String>,
    /// What recipients got so far.
    pub results: Vec<String>,
    /// The header block, its unprintable bytes replaced; at most [`HEADER_SHOWN_BYTES_MAX`].
    pub header: String,
}

/// As much of a header block as `show` prints.
pub const HEADER_SHOWN_BYTES_MAX: usize = 64 * 1024;

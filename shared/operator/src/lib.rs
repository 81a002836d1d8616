//! What operators ask a host and what it answers, and how people see it.
//!
//! Pure: the same words travel through the hook's control socket, as one line of JSON each, and over QUIC, as one stream
//! each. `gantry-hook` and `gantry` show the answers alike ([`show`], [`table`]).

pub mod show;
pub mod table;

use std::fmt;

use gantry_protocol::pool::{MessageStatus, Remaining, Status, StoredState};
use serde::{Deserialize, Serialize};

/// The longest request, in bytes: ids, names and one reason.
pub const REQUEST_BYTES_MAX: usize = 16 * 1024;
/// The longest reply, in bytes. A status shows at most [`MESSAGES_MAX`] messages.
pub const REPLY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Messages in one status, queue or list.
pub const MESSAGES_MAX: usize = 1_000;
/// As much of a header block as `show` prints, in bytes.
pub const HEADER_SHOWN_BYTES_MAX: usize = 64 * 1024;
/// The longest reason for an action, in bytes: a sentence, as in the protocol.
pub const REASON_BYTES_MAX: usize = gantry_protocol::limits::TEXT_BYTES_MAX;

/// What an operator asks. What changes something is conditional on the message's state, can be repeated safely, and
/// stands in the host's audit log before it is done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    Status,
    /// Messages in these states, oldest first; all states where none is named.
    Queue {
        #[serde(default)]
        states: Vec<QueueState>,
    },
    /// One message's life.
    Message {
        id: String,
    },
    List {
        aside: Aside,
    },
    Show {
        aside: Aside,
        id: String,
    },
    /// Back into the pool, to be processed again.
    Release {
        aside: Aside,
        id: String,
        /// Handed on without that, as it came in. The reason is demanded then.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        as_is: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Delete {
        aside: Aside,
        id: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// What a worker is to do.
    Manage {
        node: String,
        order: Order,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// The host takes no more mail, lets its workers finish what it has, and ends.
    Drain {
        /// It ends after so many seconds whatever is left, which stays in its spool.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        within_s: Option<u64>,
        /// Takes it back instead.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        cancel: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    /// Read again what can change while the hook runs: revocations, certificates, policies, workers to dial.
    Reload,
}

impl Request {
    /// Why it is asked, where the operator said so.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Release { reason, .. }
            | Self::Delete { reason, .. }
            | Self::Manage { reason, .. }
            | Self::Drain { reason, .. } => reason.as_deref(),
            _ => None,
        }
    }

    /// What keeps it from being done whatever the host's state is, in a sentence.
    pub fn problem(&self) -> Option<String> {
        let reason = self.reason().unwrap_or_default();
        if reason.len() > REASON_BYTES_MAX {
            return Some(format!(
                "a reason has at most {REASON_BYTES_MAX} bytes; nothing was changed"
            ));
        }
        let as_is = matches!(self, Self::Release { as_is: true, .. });
        (as_is && reason.trim().is_empty()).then(|| {
            "a message leaves as it is for a reason only; say it with --reason; nothing was changed"
                .to_owned()
        })
    }
}

/// What an operator tells a worker, through its hosts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Order {
    /// Takes [`Order::NotReady`] back.
    Ready,
    /// Nothing more is assigned to it, also after it has linked anew, until it is told [`Order::Ready`]. What it holds
    /// it finishes.
    NotReady,
    /// It finishes what it has begun, hands back the rest, and ends, as after SIGTERM.
    Drain,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ready => "ready",
            Self::NotReady => "not-ready",
            Self::Drain => "drain",
        })
    }
}

/// Where a message is, in the words of `gantry queue --state`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QueueState {
    Waiting,
    Dispatched,
    Settling,
    Releasing,
    Held,
    Quarantined,
}

impl QueueState {
    /// Whether a message is in this state, by the state's words in a [`MessageStatus`].
    pub fn matches(self, words: &str) -> bool {
        match self {
            Self::Waiting => words == "waiting",
            Self::Dispatched => words.starts_with("dispatched") || words == "reserved",
            Self::Settling => words == "settling",
            Self::Releasing => words == "releasing",
            Self::Held => words == "held",
            Self::Quarantined => words == "quarantined",
        }
    }
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

    /// The word for a message that lies there.
    pub fn word(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Quarantined => "quarantined",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reply {
    Status(Box<HookStatus>),
    Queue(Box<Queue>),
    Message(Box<MessageLife>),
    List(Vec<ListedMessage>),
    Show(Box<ShownMessage>),
    Done,
    /// The configuration was read again; these keys have changed and count only after a restart.
    Reloaded(Vec<String>),
    /// Nothing was changed, and why, with what to do about it.
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
    /// Set while it empties itself to end then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub draining: Option<DrainStatus>,
    /// What the messages of the spool take up; absent while no hook runs.
    #[serde(default)]
    pub room: Option<RoomStatus>,
    pub mailboxes: Vec<String>,
    /// What somebody should look at, a sentence each; empty is what monitoring waits for.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The authorities that are trusted, this host's certificate, and those of the workers that are linked.
    #[serde(default)]
    pub certificates: Vec<CertificateStatus>,
    #[serde(flatten)]
    pub pool: Status,
}

/// A certificate and its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateStatus {
    /// The node's name; an authority's id.
    pub name: String,
    /// `hook`, `worker`, `operator`; `root` or `issuing` for an authority.
    pub role: String,
    /// Its last second, in seconds since 1970.
    pub expires_unix_s: u64,
    /// `good`, `due` (renewal or rotation is), `urgent`, `expired`.
    pub standing: String,
    /// The id of the authority that has issued it; its own for an authority.
    pub authority: String,
    /// Whether its authority is one that nodes keep; else it moves to the newer one.
    pub current: bool,
    /// What else there is to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// How far a host has emptied itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainStatus {
    /// Since when, in seconds.
    pub for_s: u64,
    /// In how many seconds it ends at the latest.
    pub ends_in_s: Option<u64>,
    #[serde(flatten)]
    pub remaining: Remaining,
}

/// What stored messages take up, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomStatus {
    /// All of them, whatever their state.
    pub stored: u64,
    pub held: u64,
    pub quarantined: u64,
    /// Free on the spool's file system, as far as it said.
    pub free: Option<u64>,
}

/// Messages of one host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Queue {
    /// The oldest ones, at most [`MESSAGES_MAX`].
    pub messages: Vec<MessageStatus>,
    /// How many more there are.
    pub more: u64,
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

/// One message's life at one host, as far as its hook's history goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MessageLife {
    pub id: String,
    pub host: String,
    /// Empty where it is not known any more.
    pub mailbox: String,
    /// As in a queue; `gone` when it is here no more.
    pub state: String,
    /// RFC 5322; what stands here and below is known only while the message is here.
    pub received: Option<String>,
    pub length: Option<u64>,
    pub attempts: u8,
    pub sender: Option<String>,
    pub recipients: Vec<String>,
    /// What the modules found, of the verdict that is stored with it, or of the workers before it.
    pub findings: Vec<String>,
    /// Needs that are left to be met, where some workers have done their part.
    #[serde(default)]
    pub remaining: Vec<String>,
    /// What recipients got so far, as stored with it.
    pub results: Vec<String>,
    pub reasons: Vec<String>,
    /// Oldest first.
    pub steps: Vec<Step>,
    /// Why there are no earlier steps, if so: the history is bounded.
    pub forgotten: Option<String>,
}

/// One transition in a message's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds since 1970, by the host's clock.
    pub unix_ms: u64,
    /// One word, such as `marked`, `dispatched`, `verdict`, `released`.
    pub what: String,
    /// The worker, where it is one's doing; the operator's name where it is an operator's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// In words: findings with module, engine and signatures; the next hop's replies; reasons.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    /// What an operator one version older or newer sends and reads.
    #[test]
    fn requests_have_the_words_that_the_protocol_document_shows() {
        for (text, request) in [
            (r#"{"ask":"status"}"#, Request::Status),
            (
                r#"{"ask":"queue","states":["held"]}"#,
                Request::Queue { states: vec![QueueState::Held] },
            ),
            (r#"{"ask":"queue"}"#, Request::Queue { states: vec![] }),
            (r#"{"ask":"message","id":"3-1a7"}"#, Request::Message { id: "3-1a7".to_owned() }),
            (
                r#"{"ask":"release","aside":"quarantined","id":"3-1a7"}"#,
                Request::Release {
                    aside: Aside::Quarantined,
                    id: "3-1a7".to_owned(),
                    as_is: false,
                    reason: None,
                },
            ),
            (
                r#"{"ask":"release","aside":"held","id":"3-1a7","as_is":true,"reason":"known"}"#,
                Request::Release {
                    aside: Aside::Held,
                    id: "3-1a7".to_owned(),
                    as_is: true,
                    reason: Some("known".to_owned()),
                },
            ),
            (
                r#"{"ask":"manage","node":"pc-1","order":"not-ready","reason":"new disk"}"#,
                Request::Manage {
                    node: "pc-1".to_owned(),
                    order: Order::NotReady,
                    reason: Some("new disk".to_owned()),
                },
            ),
        ] {
            assert_eq!(serde_json::from_str::<Request>(text).unwrap(), request);
            let again = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&again).unwrap(), request);
        }
        assert!(
            serde_json::from_str::<Request>(r#"{"ask":"message","id":"3-1","more":1}"#).is_err()
        );
        assert!(serde_json::from_str::<Request>(r#"{"ask":"explode"}"#).is_err());
    }

    #[test]
    fn nothing_leaves_as_it_is_without_a_reason() {
        let release = |as_is, reason: Option<&str>| Request::Release {
            aside: Aside::Held,
            id: "3-1".to_owned(),
            as_is,
            reason: reason.map(str::to_owned),
        };
        assert!(release(true, None).problem().is_some_and(|words| words.contains("--reason")));
        assert!(release(true, Some(" ")).problem().is_some());
        assert_eq!(release(true, Some("known")).problem(), None);
        assert_eq!(release(false, None).problem(), None);
        assert!(release(false, Some(&"x".repeat(REASON_BYTES_MAX + 1))).problem().is_some());
    }

    #[test]
    fn states_are_known_by_their_words() {
        assert!(QueueState::Dispatched.matches("dispatched for pc-1"));
        assert!(!QueueState::Waiting.matches("dispatched for pc-1"));
        assert!(QueueState::Held.matches("held"));
    }
}

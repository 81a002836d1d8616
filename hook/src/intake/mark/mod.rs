//! `gantry-hook mark`: a message on standard input becomes one in the hook's custody.
//!
//! While a hook runs, the command brings the message to the socket `mark` in the spool, piece by piece; while none runs,
//! it takes the spool's lock and stores the message itself. The socket is its owner's alone. A request is a line of JSON,
//! then come pieces, each behind its length as four bytes, and a piece without bytes as the end: a command that dies
//! in the middle never looks like one that has ended.

mod client;
#[cfg(unix)]
mod server;

use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

pub use client::{Failed, mark};
#[cfg(unix)]
pub use server::{Marker, listen};

/// The longest request: a thousand of the longest addresses, and room for their quotes.
const REQUEST_BYTES_MAX: u64 = 1024 * 1024;
/// The longest reply.
const REPLY_BYTES_MAX: u64 = 4 * 1024;
/// The longest piece.
const PIECE_BYTES_MAX: usize = 64 * 1024;
/// The socket in the spool.
pub const MARK_SOCKET: &str = "mark";

/// What is to be marked, before its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MarkRequest {
    pub mailbox: String,
    /// Empty is the null sender.
    pub sender: String,
    pub recipients: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Reply {
    /// It is durable, under this id.
    Marked(String),
    /// It will never be taken.
    Never(String),
    Later(String),
}

/// The socket could not be made.
#[derive(Debug, thiserror::Error)]
#[error("open socket {}: {source}", path.display())]
pub struct SocketError {
    path: PathBuf,
    source: io::Error,
}

fn socket(spool: &Path) -> PathBuf {
    spool.join(MARK_SOCKET)
}

#[cfg(test)]
mod tests;

//! Handing messages to the next hop by SMTP (RFC 5321), with what it offers of PIPELINING, SIZE, 8BITMIME, SMTPUTF8,
//! DSN and XFORWARD.
//!
//! A message in 8 bits goes to a next hop without 8BITMIME as it is: re-coding it would change bytes, and returning
//! it would lose mail that every MTA in use carries. One that needs SMTPUTF8 is refused with 5.6.7 where the next hop
//! cannot take it (RFC 6531, 3.6), since its addresses cannot be said without.

use std::sync::Arc;
use std::time::Duration;

use gantry_config::Endpoint;
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::RecipientResult;

use super::{Capabilities, Offered, TraceKey};
use crate::disk::Disk;
use crate::spool::Spool;

/// A way out by SMTP, everything resolved.
#[derive(Clone, Debug)]
pub struct SmtpReleaseConfig {
    pub address: Endpoint,
    /// What we call ourselves in EHLO and in `Received`.
    pub host_name: String,
    /// Our authentication service identifier (RFC 8601): results under this name are removed from incoming mail.
    pub authserv_id: String,
    /// Whether the original client is told by XFORWARD where the next hop offers it.
    pub xforward: bool,
    /// Connections to the next hop at once, idle ones not counted.
    pub connections_max: usize,
    pub timeouts: SmtpTimeouts,
}

/// How long each phase may take. RFC 5321, 4.5.3.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmtpTimeouts {
    pub connect: Duration,
    /// For the reply to a command: the greeting, EHLO, MAIL, RCPT, RSET.
    pub command: Duration,
    /// For the reply to DATA.
    pub data: Duration,
    /// For one piece of the message to be taken.
    pub block: Duration,
    /// For the reply to the final dot.
    pub final_dot: Duration,
    /// For everything about one call of [`release`].
    pub total: Duration,
    /// How long a connection is kept for the next message.
    pub idle: Duration,
}

impl Default for SmtpTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(30),
            command: Duration::from_secs(300),
            data: Duration::from_secs(120),
            block: Duration::from_secs(180),
            final_dot: Duration::from_secs(600),
            total: Duration::from_secs(3_600),
            idle: Duration::from_secs(10),
        }
    }
}

/// A way out with its connections. One for each mailbox; shared by all its releases.
#[derive(Debug)]
pub struct SmtpRelease {
    config: SmtpReleaseConfig,
    offered: Offered,
}

impl SmtpRelease {
    /// What the next hop offers is kept in `offered`.
    pub fn new(config: SmtpReleaseConfig, offered: Offered) -> Self {
        Self { config, offered }
    }
}

/// The next hop could not be asked what it offers.
#[derive(Debug, thiserror::Error)]
#[error("greet next hop {address}: {reason}")]
pub struct ProbeError {
    pub address: String,
    pub reason: String,
}

/// Greets the next hop and keeps what it offers, so that the intake knows before the first message.
///
/// # Errors
/// No connection, or no greeting.
pub async fn probe(way: &SmtpRelease) -> Result<Capabilities, ProbeError> {
    let _ = &way.offered;
    Err(ProbeError { address: way.config.address.to_string(), reason: "not yet".into() })
}

/// Hands a message to the next hop for these recipients (indexes in its envelope), by the verdict stored with it: one
/// transaction for each group of recipients that get the same edits. Gives exactly one result for each.
///
/// Dropping the future breaks the connection off; whether the next hop has the message is then unknown.
pub async fn release<D: Disk>(
    spool: Arc<Spool<D>>,
    id: MessageId,
    recipients: Vec<u16>,
    way: &SmtpRelease,
    trace: &TraceKey,
) -> Vec<RecipientResult> {
    let _ = (spool, id, recipients, way, trace);
    Vec::new()
}

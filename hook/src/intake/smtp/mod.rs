//! Taking mail in by ESMTP (RFC 5321) or LMTP (RFC 2033) with PIPELINING, SIZE, 8BITMIME, SMTPUTF8, DSN, ENHANCEDSTATUSCODES, XFORWARD and
//! STARTTLS (RFC 3207).
//!
//! EHLO offers of SIZE, 8BITMIME, SMTPUTF8 and DSN only what the way out offers too, as far as that is known. There is
//! no CHUNKING and no BINARYMIME: data has lines here.

mod command;
mod data;
mod receive;
mod serve;
mod session;
mod taking;
#[cfg(feature = "testkit")]
pub mod testkit;
mod wire;

use std::time::Duration;

use gantry_config::Network;
use gantry_protocol::pool::MailboxIndex;

use super::Clock;
use crate::release::{Offered, Protocol, TraceKey};
use crate::tls::ServerTls;

pub use serve::serve;

/// A mailbox's way in by SMTP or LMTP, everything resolved.
#[derive(Clone, Debug)]
pub struct SmtpIntake {
    pub protocol: Protocol,
    /// The mailbox, by its name in the spool and by its place in the pool.
    pub mailbox: String,
    pub index: MailboxIndex,
    /// What we call ourselves in the greeting.
    pub host_name: String,
    pub custody: IntakeCustody,
    /// Who may send mail here; nobody else gets further than the greeting.
    pub peers: Vec<Network>,
    /// Whose XFORWARD counts.
    pub xforward_from: Vec<Network>,
    pub stray_cr_lf: StrayCrLf,
    /// Offers STARTTLS.
    pub tls: Option<ServerTls>,
    pub limits: SmtpLimits,
    pub timeouts: IntakeTimeouts,
    /// What the way out offers, where it is known.
    pub offered: Offered,
    pub clock: Clock,
    /// Knows this host's own trace tokens.
    pub trace: TraceKey,
}

/// When the sender is told yes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntakeCustody {
    /// When the pool answers; at the latest this long after the final dot.
    Upstream { answer_within: Duration },
    /// When the message is durable.
    Hook,
}

/// What is done with a CR or LF that stands alone in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StrayCrLf {
    /// The message is read to its end and refused.
    Reject,
    /// Each becomes a CRLF, after which the message counts as it is.
    Normalise,
}

/// Bounds of an intake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SmtpLimits {
    /// Largest message, in bytes.
    pub message_bytes_max: u64,
    /// At most [`gantry_mail::RECIPIENTS_MAX`].
    pub recipients_max: u16,
    /// Sessions at once, in all and of one client address.
    pub connections_max: usize,
    pub connections_per_client_max: usize,
    /// Wrong or refused commands in one session before it is ended.
    pub errors_max: u32,
}

impl Default for SmtpLimits {
    fn default() -> Self {
        Self {
            message_bytes_max: 64 << 20,
            recipients_max: 1_000,
            connections_max: 256,
            connections_per_client_max: 256,
            errors_max: 20,
        }
    }
}

/// How long an intake waits for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IntakeTimeouts {
    /// For a command, complete, and for room to send a reply. RFC 5321, 4.5.3.2.7 says 5 minutes.
    pub command: Duration,
    /// For the next bytes of a message. RFC 5321, 4.5.3.2.5 says 3 minutes.
    pub data: Duration,
    /// For all of a message, from DATA to the final dot.
    pub message: Duration,
}

impl Default for IntakeTimeouts {
    fn default() -> Self {
        Self {
            command: Duration::from_secs(300),
            data: Duration::from_secs(180),
            message: Duration::from_secs(3_600),
        }
    }
}

#[cfg(test)]
mod tests;

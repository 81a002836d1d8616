//! Handing messages to the next hop by SMTP (RFC 5321) or LMTP (RFC 2033), with what it offers of PIPELINING, SIZE, 8BITMIME, SMTPUTF8,
//! DSN and XFORWARD, under TLS (RFC 3207) and with a password (RFC 4954) where that is configured.
//!
//! A message in 8 bits goes to a next hop without 8BITMIME as it is: re-coding it would change bytes, and returning
//! it would lose mail that every MTA in use carries. One with UTF-8 in its addresses or its header block is refused with
//! 5.6.7 where the next hop has no SMTPUTF8 (RFC 6531, 3.6); one that was only announced so goes on without.

mod auth;
mod commands;
mod connection;
mod idle;
mod reply;
mod stuffing;
#[cfg(feature = "testkit")]
pub mod testkit;
mod transaction;

use std::sync::Arc;
use std::time::Duration;

use gantry_config::Endpoint;
use gantry_daemon::crash;
use gantry_mail::RECIPIENTS_MAX;
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{RecipientResult, ReleaseResult};
use gantry_protocol::verdict::Body;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use self::connection::{Connection, Lost};
use self::idle::Idle;
use self::transaction::{NotSent, Order, Outcome};
use super::letter::{self, Identity, Stamp};
use super::order::{Group, all, groups, load};
use super::{Capabilities, Offered, TraceKey};
use crate::disk::Disk;
use crate::spool::{Header, Spool};
use crate::tls::ClientTls;

pub use self::auth::{Credentials, PasswordError};

/// How long the reply to RSET may take: the results wait for it, and a new connection costs less than that.
const RESET_TIMEOUT: Duration = Duration::from_secs(5);

/// Which of two protocols with the same commands is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    #[default]
    Smtp,
    /// RFC 2033: LHLO, and behind the message a reply for each recipient that was accepted.
    Lmtp,
}

/// A way out by SMTP or LMTP, everything resolved.
#[derive(Clone, Debug)]
pub struct SmtpReleaseConfig {
    pub protocol: Protocol,
    pub address: Endpoint,
    pub tls: Option<ClientTls>,
    pub credentials: Option<Credentials>,
    /// Its host name is also what we call ourselves in EHLO.
    pub identity: Identity,
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
    idle: Idle,
    connections: Semaphore,
}

impl SmtpRelease {
    /// What the next hop offers is kept in `offered`. `connections_max` counts as one where it is zero.
    pub fn new(config: SmtpReleaseConfig, offered: Offered) -> Self {
        let connections_max = config.connections_max.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            idle: Idle::new(connections_max, config.timeouts.idle),
            connections: Semaphore::new(connections_max),
            config,
            offered,
        }
    }

    /// An idle connection, or a new one.
    async fn connection(&self, fresh: bool, deadline: Instant) -> Result<Connection, Lost> {
        let idle = if fresh { None } else { self.idle.take() };
        if let Some(mut connection) = idle {
            connection.deadline = deadline;
            return Ok(connection);
        }
        let connection = Connection::open(&self.config, deadline).await?;
        self.offered.set(connection.capabilities.clone());
        Ok(connection)
    }

    /// Keeps a connection for the next message, after ending what may be open on it.
    async fn put_back(&self, mut connection: Connection, open: bool) {
        if open {
            match connection.command("RSET\r\n", "say RSET", RESET_TIMEOUT).await {
                Ok(reply) if reply.is_positive() => {}
                _ => return connection.quit(),
            }
        }
        self.idle.put(connection);
    }
}

/// The next hop could not be asked what it offers.
#[derive(Debug, thiserror::Error)]
#[error("ask next hop {address} what it offers: {reason}")]
pub struct ProbeError {
    pub address: String,
    pub reason: String,
}

/// Greets the next hop and keeps what it offers, so that the intake knows before the first message.
///
/// # Errors
/// No connection, or no greeting.
pub async fn probe(way: &SmtpRelease) -> Result<Capabilities, ProbeError> {
    let deadline = Instant::now() + way.config.timeouts.total;
    match way.connection(true, deadline).await {
        Ok(connection) => {
            let capabilities = connection.capabilities.clone();
            way.idle.put(connection);
            Ok(capabilities)
        }
        Err(lost) => {
            Err(ProbeError { address: way.config.address.to_string(), reason: lost.to_string() })
        }
    }
}

/// Hands a message to the next hop for these recipients (indexes in its envelope), by the verdict stored with it: one
/// transaction for each group of recipients that get the same edits, more where the next hop takes fewer recipients at
/// once. Gives exactly one result for each.
///
/// Without a verdict, and for recipients that the verdict does not deliver to, the message goes as it is: whom to serve is
/// the pool's to say.
///
/// Dropping the future breaks the connection off; whether the next hop has the message is then unknown.
pub(super) async fn release<D: Disk>(
    spool: Arc<Spool<D>>,
    id: MessageId,
    recipients: Vec<u16>,
    way: &SmtpRelease,
    trace: &TraceKey,
) -> Vec<RecipientResult> {
    let deadline = Instant::now() + way.config.timeouts.total;
    let (header, log) = match load(&spool, id).await {
        Ok(loaded) => loaded,
        Err(error) => return all(&recipients, ReleaseResult::Deferred, &error.to_string()),
    };
    let Ok(Ok(_place)) = timeout_at(deadline, way.connections.acquire()).await else {
        let reply = "wait for a connection to the next hop: all are in use";
        return all(&recipients, ReleaseResult::Deferred, reply);
    };
    let job = Job { spool, id, way, trace, header, deadline };
    let mut results = Vec::with_capacity(recipients.len());
    for group in groups(log.verdict.as_ref(), recipients) {
        match group.body {
            Body::Original => job.serve(&group, &mut results).await,
            // The original in its place might be just what the verdict wanted replaced.
            Body::Replaced { .. } => results.extend(all(
                &group.recipients,
                ReleaseResult::Deferred,
                "hand the message on: its body was to be replaced, and the spool has no other",
            )),
        }
    }
    results
}

/// One call of [`release`].
struct Job<'a, D: Disk> {
    spool: Arc<Spool<D>>,
    id: MessageId,
    way: &'a SmtpRelease,
    trace: &'a TraceKey,
    header: Header,
    deadline: Instant,
}

impl<D: Disk> Job<'_, D> {
    /// Serves recipients that get the same, in as many transactions as the next hop wants.
    async fn serve(&self, group: &Group, results: &mut Vec<RecipientResult>) {
        let envelope = &self.header.envelope;
        let (mut waiting, unknown): (Vec<u16>, Vec<u16>) = group
            .recipients
            .iter()
            .partition(|&&index| usize::from(index) < envelope.recipients.len());
        results.extend(all(&unknown, ReleaseResult::Refused, "the envelope has no such recipient"));
        let mut batch_max = RECIPIENTS_MAX;
        while !waiting.is_empty() {
            let later = waiting.split_off(batch_max.min(waiting.len()));
            let order = Order {
                config: &self.way.config,
                stamp: Stamp {
                    identity: &self.way.config.identity,
                    trace: self.trace,
                    envelope,
                    received_unix_ms: self.header.received_unix_ms,
                    edits: &group.edits,
                },
                recipients: &waiting,
            };
            let mut outcome = self.attempt(&order).await.unwrap_or_else(|reason| Outcome {
                results: all(&waiting, ReleaseResult::Deferred, &reason.to_string()),
                ..Outcome::default()
            });
            if !outcome.too_many.is_empty() {
                // At least one was accepted before the first was too many, so every round serves somebody.
                batch_max = (waiting.len() - outcome.too_many.len()).max(1);
            }
            results.append(&mut outcome.results);
            waiting = outcome.too_many.into_iter().map(|result| result.recipient).collect();
            waiting.extend(later);
        }
    }

    /// One transaction. Where a kept connection has died meanwhile, it is tried once more on a new one.
    async fn attempt(&self, order: &Order<'_>) -> Result<Outcome, NotSent> {
        let mut fresh = false;
        loop {
            crash::at("connecting");
            let mut connection = self.way.connection(fresh, self.deadline).await?;
            crash::at("connected");
            let reused = connection.transactions > 0;
            let letter = letter::open(&self.spool, self.id).await?;
            match transaction::run(&mut connection, letter, order).await {
                Ok(outcome) => {
                    if outcome.reusable {
                        self.way.put_back(connection, outcome.open).await;
                    }
                    return Ok(outcome);
                }
                Err(NotSent::Lost(lost)) if reused && !fresh => {
                    tracing::debug!("a kept connection has died: {lost}");
                    fresh = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests;

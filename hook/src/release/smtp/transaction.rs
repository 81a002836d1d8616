//! One transaction with the next hop: one message, the recipients that get the same of it.

use gantry_daemon::crash;
use gantry_mail::Recipient;
use gantry_protocol::pool::{RecipientResult, ReleaseResult};

use super::commands;
use super::connection::{Connection, Lost};
use super::reply::Reply;
use super::stuffing::Stuffing;
use super::{Protocol, SmtpReleaseConfig};
use crate::disk::Disk;
use crate::release::letter::{Letter, LetterError, Stamp};
use crate::release::order::{all, envelope_recipients};

/// What is to be sent, to whom.
pub(super) struct Order<'a> {
    pub(super) config: &'a SmtpReleaseConfig,
    pub(super) stamp: Stamp<'a>,
    /// Indexes in the envelope.
    pub(super) recipients: &'a [u16],
}

/// How a transaction ended.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) results: Vec<RecipientResult>,
    /// Recipients that were too many for one transaction (RFC 5321, 4.5.3.1.10), with what was said.
    pub(super) too_many: Vec<RecipientResult>,
    /// Whether the connection may be used again; a transaction may still be open on it.
    pub(super) reusable: bool,
    pub(super) open: bool,
}

/// Why there is no outcome: nothing of the message was sent.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotSent {
    #[error(transparent)]
    Lost(#[from] Lost),
    #[error(transparent)]
    Letter(#[from] LetterError),
}

/// The replies before the message itself.
struct Said {
    mail: Option<Reply>,
    /// In the order of the recipients; fewer where MAIL was refused.
    rcpt: Vec<Reply>,
    data: Option<Reply>,
}

/// Runs the transaction.
///
/// # Errors
/// The connection was lost, or the message could not be read, before any of it was sent.
pub(super) async fn run<D: Disk>(
    connection: &mut Connection,
    letter: Letter<D>,
    order: &Order<'_>,
) -> Result<Outcome, NotSent> {
    let stamp = &order.stamp;
    let to = envelope_recipients(stamp.envelope, order.recipients);
    let head = letter.head(stamp, &to)?;
    let size = letter.length_under(&head);
    if let Some(refusal) = refusal(connection, &letter, order, &to, size) {
        let results = all(order.recipients, ReleaseResult::Refused, &refusal);
        return Ok(Outcome { results, reusable: true, ..Outcome::default() });
    }
    connection.transactions += 1;
    let said = speak(connection, order, &to, size).await?;
    let mut outcome = Outcome { reusable: true, open: true, ..Outcome::default() };
    let accepted = sort_out(&said, order, &mut outcome);
    let Some(data) = said.data else { return Ok(outcome) };
    if accepted.is_empty() {
        // A next hop that says 354 although it took no recipient waits for a message that it will not get.
        outcome.reusable = data.code != 354;
        return Ok(outcome);
    }
    if data.code != 354 {
        let result =
            if data.is_permanent() { ReleaseResult::Refused } else { ReleaseResult::Deferred };
        outcome.results.extend(all(&accepted, result, &data.to_line()));
        return Ok(outcome);
    }
    let head = match accepted.len() == to.len() {
        true => head,
        // The trace token speaks of those who get the message.
        false => {
            let taken = envelope_recipients(stamp.envelope, &accepted);
            letter.head(stamp, &taken)?
        }
    };
    let (results, reusable) = send(connection, letter, head, &accepted, order.config).await;
    outcome.results.extend(results);
    outcome.reusable = reusable;
    outcome.open = false;
    Ok(outcome)
}

/// What the next hop cannot take, as it said itself.
fn refusal<D: Disk>(
    connection: &Connection,
    letter: &Letter<D>,
    order: &Order<'_>,
    to: &[Recipient],
    size: u64,
) -> Option<String> {
    let envelope = order.stamp.envelope;
    let offered = &connection.capabilities;
    if !commands::is_sayable(&envelope.sender)
        || !to.iter().all(|recipient| commands::is_sayable(&recipient.address))
    {
        return Some("553 5.1.3 an address has control characters in it".into());
    }
    if needs_utf8(letter, order, to) && !offered.smtputf8 {
        // RFC 6531, 3.6.
        return Some(
            "550 5.6.7 the message needs SMTPUTF8, which the next hop does not offer".into(),
        );
    }
    match offered.size {
        Some(limit @ 1..) if size > limit => Some(format!(
            "552 5.3.4 the message has {size} bytes, and the next hop takes at most {limit}"
        )),
        _ => None,
    }
}

/// Whether the message cannot be said without SMTPUTF8. A client that asked for it and then sent nothing but ASCII does not
/// need it.
fn needs_utf8<D: Disk>(letter: &Letter<D>, order: &Order<'_>, to: &[Recipient]) -> bool {
    let envelope = order.stamp.envelope;
    !envelope.sender.is_ascii()
        || to.iter().any(|recipient| !recipient.address.is_ascii())
        || envelope.parameters.smtputf8 && letter.has_utf8_header()
}

/// XFORWARD, MAIL, RCPT and DATA, in as few groups as the next hop allows.
async fn speak(
    connection: &mut Connection,
    order: &Order<'_>,
    to: &[Recipient],
    size: u64,
) -> Result<Said, Lost> {
    let Order { config, stamp: Stamp { envelope, .. }, .. } = order;
    let offered = connection.capabilities.clone();
    let utf8 = offered.smtputf8
        && (envelope.parameters.smtputf8
            || !envelope.sender.is_ascii()
            || to.iter().any(|recipient| !recipient.address.is_ascii()));
    let mut list = match config.xforward {
        true => commands::xforward(&envelope.peer, &offered.xforward),
        false => Vec::new(),
    };
    let mail_at = list.len();
    list.push(commands::mail(envelope, size, utf8, &offered));
    list.extend(to.iter().map(|recipient| commands::rcpt(recipient, &offered)));
    let data_at = list.len();
    list.push("DATA\r\n".to_owned());

    let mut said = Said { mail: None, rcpt: Vec::new(), data: None };
    let mut next = 0;
    while let Some(rest) = list.get(next..).filter(|rest| !rest.is_empty()) {
        let refused = said.mail.as_ref().is_some_and(|mail| !mail.is_positive());
        let nobody = next == data_at && !said.rcpt.iter().any(Reply::is_positive);
        if refused || nobody {
            break;
        }
        let end = next + connection.group_length(rest);
        let group = list.get(next..end).unwrap_or_default().concat();
        connection.write(group.as_bytes(), "send commands", config.timeouts.command).await?;
        for at in next..end {
            let (doing, limit) = match at {
                _ if at < mail_at => ("wait for the reply to XFORWARD", config.timeouts.command),
                _ if at == mail_at => ("wait for the reply to MAIL", config.timeouts.command),
                _ if at < data_at => ("wait for the reply to RCPT", config.timeouts.command),
                _ => ("wait for the reply to DATA", config.timeouts.data),
            };
            let reply = connection.reply(doing, limit).await?;
            match at {
                // Who does not trust us with it gets the message without it.
                _ if at < mail_at => tracing::debug!(reply = reply.code, "XFORWARD answered"),
                _ if at == mail_at => said.mail = Some(reply),
                _ if at < data_at => said.rcpt.push(reply),
                _ => said.data = Some(reply),
            }
        }
        next = end;
    }
    Ok(said)
}

/// Gives those whose RCPT was accepted; the results of the others go into the outcome.
fn sort_out(said: &Said, order: &Order<'_>, outcome: &mut Outcome) -> Vec<u16> {
    let refused = |reply: &Reply| match reply.is_permanent() {
        true => ReleaseResult::Refused,
        false => ReleaseResult::Deferred,
    };
    if let Some(mail) = said.mail.as_ref().filter(|mail| !mail.is_positive()) {
        outcome.results = all(order.recipients, refused(mail), &mail.to_line());
        return Vec::new();
    }
    let mut accepted = Vec::new();
    for (&recipient, reply) in order.recipients.iter().zip(&said.rcpt) {
        if reply.is_positive() {
            accepted.push(recipient);
            continue;
        }
        let result = RecipientResult { recipient, result: refused(reply), reply: reply.to_line() };
        // 452 also means a full mailbox, which has a code of its own (4.2.2).
        let too_many = reply.code == 452
            && reply.enhanced().is_none_or(|code| code.starts_with("4.5.3") || code == "4.3.1")
            && !accepted.is_empty();
        match too_many {
            true => outcome.too_many.push(result),
            false => outcome.results.push(result),
        }
    }
    accepted
}

/// The message and its final dot. Gives what the recipients got, and whether the connection may be used again.
async fn send<D: Disk>(
    connection: &mut Connection,
    letter: Letter<D>,
    head: Vec<u8>,
    recipients: &[u16],
    config: &SmtpReleaseConfig,
) -> (Vec<RecipientResult>, bool) {
    let timeouts = &config.timeouts;
    let mut rest = Some(letter.into_pieces(head, Stuffing::default()));
    while let Some(pieces) = rest {
        let piece = match pieces.next().await {
            Ok(piece) => piece,
            // Without its dot the next hop has no message.
            Err(error) => {
                return (all(recipients, ReleaseResult::Deferred, &error.to_string()), false);
            }
        };
        let with_dot = piece.rest.is_none();
        let written = connection.write(&piece.bytes, "send the message", timeouts.block).await;
        if let Err(lost) = written {
            return (on_write_failed(connection, with_dot, lost, recipients, config).await, false);
        }
        rest = piece.rest;
    }
    crash::at("final-dot-sent");
    // RFC 2033, 4.2: in LMTP each of them gets a reply of its own, in their order.
    let at_once = match config.protocol {
        Protocol::Smtp => recipients.len(),
        Protocol::Lmtp => 1,
    };
    let mut results = Vec::with_capacity(recipients.len());
    let mut reusable = true;
    for recipients in recipients.chunks(at_once.max(1)) {
        let doing = "wait for the reply to the final dot";
        match connection.any_reply(doing, timeouts.final_dot).await {
            Ok(reply) => {
                crash::at("final-dot-answered");
                reusable &= reply.code != 421;
                results.extend(all(recipients, class(&reply), &reply.to_line()));
            }
            Err(lost) => {
                // The next ones learn no more; each finds the connection closed, or waits as long as there is time.
                reusable = false;
                results.extend(all(recipients, ReleaseResult::Unknown, &lost.to_string()));
            }
        }
    }
    (results, reusable)
}

/// The next hop stopped reading; it may have said why. Where the final dot was in what failed, part of it may
/// have arrived.
async fn on_write_failed(
    connection: &mut Connection,
    with_dot: bool,
    lost: Lost,
    recipients: &[u16],
    config: &SmtpReleaseConfig,
) -> Vec<RecipientResult> {
    let unknown = if with_dot { ReleaseResult::Unknown } else { ReleaseResult::Deferred };
    let (result, text) = match connection.last_words().await {
        // What is said behind the dot is for the first recipient alone.
        _ if with_dot && config.protocol == Protocol::Lmtp => (unknown, lost.to_string()),
        Some(reply) if with_dot || !reply.is_positive() => (class(&reply), reply.to_line()),
        _ => (unknown, lost.to_string()),
    };
    all(recipients, result, &text)
}

fn class(reply: &Reply) -> ReleaseResult {
    match reply.code {
        200..300 => ReleaseResult::Accepted,
        500..600 => ReleaseResult::Refused,
        _ => ReleaseResult::Deferred,
    }
}

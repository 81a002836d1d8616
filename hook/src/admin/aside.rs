//! Messages that were set aside, as people see them. Read from the spool, whether a hook runs or not.

use std::io::Read;
use std::sync::Arc;

use gantry_mail::date;
use gantry_operator::{
    Aside, HEADER_SHOWN_BYTES_MAX, ListedMessage, MESSAGES_MAX, MessageLife, Reply, ShownMessage,
};
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{
    Change, MailboxIndex, MessageStatus, ReleaseResult, Shelf, Stored, StoredState,
};
use gantry_protocol::verdict::{Finding, Outcome};

use crate::disk::Disk;
use crate::journal::{History, Kept};
use crate::spool::{Header, Listed, Log, Spool, SpoolError};

/// Messages in one state, oldest first, at most [`MESSAGES_MAX`]. One whose file cannot be read is listed with that as its
/// reason.
pub fn list<D: Disk>(spool: &Spool<D>, mailboxes: &[String], aside: Aside) -> Vec<ListedMessage> {
    let listed = spool.list(|state| state == aside.state(), MESSAGES_MAX);
    listed
        .into_iter()
        .map(|listed| {
            describe(spool, mailboxes, &listed).unwrap_or_else(|error| ListedMessage {
                sender: String::new(),
                recipients: Vec::new(),
                reasons: vec![error.to_string()],
                ..outline(mailboxes, &listed)
            })
        })
        .collect()
}

/// All that is known of one message.
pub fn show<D: Disk>(spool: &Spool<D>, mailboxes: &[String], aside: Aside, id: &str) -> Reply {
    let shown = id.parse::<MessageId>().map_err(|error| error.to_string()).and_then(|id| {
        let listed = spool.find(id).filter(|listed| listed.state == aside.state());
        let listed = listed.ok_or_else(|| {
            format!("no such message {id} is set aside here; `list` shows those that are")
        })?;
        detail(spool, mailboxes, &listed).map_err(|error| error.to_string())
    });
    match shown {
        Ok(shown) => Reply::Show(Box::new(shown)),
        Err(reason) => Reply::Refused(reason),
    }
}

/// Releases or deletes one message while no hook runs.
pub fn change<D: Disk>(spool: &Arc<Spool<D>>, aside: Aside, id: &str, release: bool) -> Reply {
    let wanted = id.parse::<MessageId>().map_err(|error| error.to_string()).and_then(|id| {
        let found = spool.find(id).filter(|listed| listed.state == aside.state());
        found.ok_or_else(|| {
            format!("no such message {id} is set aside here; `list` shows those that are")
        })
    });
    let listed = match wanted {
        Ok(listed) => listed,
        Err(reason) => return Reply::Refused(reason),
    };
    let change = if release { Change::Requeue } else { Change::Remove };
    match spool.apply(listed.id, listed.mailbox, &change) {
        Stored::Failed { reason } | Stored::Damaged { reason } => Reply::Refused(reason),
        _ => Reply::Done,
    }
}

fn outline(mailboxes: &[String], listed: &Listed) -> ListedMessage {
    let MailboxIndex(index) = listed.mailbox;
    ListedMessage {
        id: listed.id.to_string(),
        mailbox: mailboxes.get(usize::from(index)).cloned().unwrap_or_default(),
        received: date::rfc5322(listed.received_unix_s),
        length: listed.length,
        sender: String::new(),
        recipients: Vec::new(),
        reasons: Vec::new(),
    }
}

fn describe<D: Disk>(
    spool: &Spool<D>,
    mailboxes: &[String],
    listed: &Listed,
) -> Result<ListedMessage, SpoolError> {
    let envelope = spool.header(listed.id)?.envelope;
    Ok(ListedMessage {
        sender: envelope.sender,
        recipients: envelope.recipients.into_iter().map(|recipient| recipient.address).collect(),
        reasons: spool.log(listed.id)?.reasons,
        ..outline(mailboxes, listed)
    })
}

fn detail<D: Disk>(
    spool: &Spool<D>,
    mailboxes: &[String],
    listed: &Listed,
) -> Result<ShownMessage, SpoolError> {
    let header = spool.header(listed.id)?;
    let log = spool.log(listed.id)?;
    let mut start = Vec::new();
    let limit = u64::try_from(HEADER_SHOWN_BYTES_MAX).unwrap_or(u64::MAX);
    // What cannot be read is not shown; the rest of what is known still is.
    let _ = spool.body(listed.id)?.take(limit).read_to_end(&mut start);
    let block = gantry_mail::header::scan(&start).map_or(0, |header| header.length);
    Ok(ShownMessage {
        listed: describe(spool, mailboxes, listed)?,
        digest: header.digest.to_string(),
        helo: header.envelope.peer.helo.clone(),
        address: header.envelope.peer.address.map(|address| address.to_string()),
        findings: found(&log),
        results: results(&header, &log),
        header: printable(start.get(..block.min(start.len())).unwrap_or_default()),
    })
}

/// What the modules found: of the verdict, or of the workers before it.
fn found(log: &Log) -> Vec<String> {
    let findings = log.verdict.as_ref().map_or(&log.findings, |verdict| &verdict.findings);
    findings.iter().map(finding).collect()
}

/// What recipients got so far.
fn results(header: &Header, log: &Log) -> Vec<String> {
    let words = log.results.iter().map(|result| {
        let recipient = header.envelope.recipients.get(usize::from(result.recipient));
        let address = recipient.map(|recipient| recipient.address.as_str()).unwrap_or_default();
        format!("{address}: {}: {}", result_word(result.result), result.reply)
    });
    words.collect()
}

/// Adds to a life what the spool knows of the message.
pub fn message<D: Disk>(spool: &Spool<D>, id: MessageId, life: &mut MessageLife) {
    let read = spool.header(id).and_then(|header| Ok((spool.log(id)?, header)));
    let (log, header) = match read {
        Ok(read) => read,
        // What cannot be read is said; the rest of what is known still is.
        Err(error) => return life.reasons.push(error.to_string()),
    };
    life.findings = found(&log);
    life.results = results(&header, &log);
    if life.reasons.is_empty() {
        life.reasons = log.reasons;
    }
    life.received = Some(date::rfc5322(header.received_unix_ms / 1_000));
    life.length = Some(header.length);
    life.sender = Some(header.envelope.sender);
    let recipients = header.envelope.recipients.into_iter();
    life.recipients = recipients.map(|recipient| recipient.address).collect();
}

/// Adds to a life what the history has of it. Blocks.
pub fn tell_steps(history: Option<&History>, id: MessageId, life: &mut MessageLife) {
    let kept = match history.map(|history| history.find(id)) {
        None => {
            Err("this hook keeps no history of messages: `history` in its configuration".to_owned())
        }
        Some(Ok(kept)) => Ok(kept),
        Some(Err(error)) => Err(format!("the history cannot be read: {error}")),
    };
    match kept {
        Ok(Kept { mailbox, steps }) => {
            let whole = steps.first().is_some_and(|step| step.what == "marked");
            let why = "the history has no room for earlier steps, or what wrote them was cut short";
            life.forgotten = (!whole).then(|| why.to_owned());
            (life.mailbox, life.steps) = (mailbox, steps);
        }
        Err(why) => life.forgotten = Some(why),
    }
}

/// Why those in a queue that were set aside were: that is in their files.
pub fn add_reasons<D: Disk>(spool: &Spool<D>, messages: &mut [MessageStatus]) {
    for message in messages.iter_mut().filter(|message| message.reasons.is_empty()) {
        let aside = [StoredState::Held, StoredState::Quarantined]
            .iter()
            .any(|state| Shelf::of(*state).word() == message.state);
        if let Some(log) = message.id.parse().ok().filter(|_| aside).map(|id| spool.log(id)) {
            message.reasons = log.map_or_else(|error| vec![error.to_string()], |log| log.reasons);
        }
    }
}

/// The word for what a recipient got.
pub(crate) fn result_word(result: ReleaseResult) -> &'static str {
    match result {
        ReleaseResult::Accepted => "accepted",
        ReleaseResult::Deferred => "deferred",
        ReleaseResult::Unknown => "unknown",
        ReleaseResult::Refused => "refused",
    }
}

/// A module's finding in words: what it is, and module, engine and signatures behind it.
pub(crate) fn finding(finding: &Finding) -> String {
    let outcome = match &finding.outcome {
        Outcome::Clean => "clean".to_owned(),
        Outcome::Found { names } => format!("found {}", names.join(", ")),
        Outcome::Unscanned { reason } => format!("unscanned: {reason}"),
        Outcome::Encrypted { reason } => format!("encrypted: {reason}"),
        Outcome::Malformed { reason } => format!("malformed: {reason}"),
        Outcome::OverBudget { reason } => format!("over budget: {reason}"),
    };
    let Finding { need, module, engine, signatures, duration_ms, .. } = finding;
    format!("{need}: {outcome} ({module}, {engine}, {signatures}, {duration_ms} ms)")
}

/// Hostile bytes never reach a terminal as they are.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .replace("\r\n", "\n")
        .chars()
        .map(|c| if c.is_control() && c != '\n' { '?' } else { c })
        .collect()
}

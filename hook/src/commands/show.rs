//! Tables for people.

use std::fmt::Write;

use gantry_protocol::pool::WorkerStatus;
use gantry_protocol::profile::Profile;

use crate::admin::{Aside, HookStatus, ListedMessage, ShownMessage};

/// Messages that the table of a status shows; `--json` shows more.
const MESSAGES_SHOWN: usize = 20;

/// The status of a hook.
pub(super) fn status(status: &HookStatus) -> String {
    let mut text = String::new();
    let state = if status.running {
        format!("running, pid {}, up {}", status.pid, span(status.uptime_s))
    } else {
        "not running".to_owned()
    };
    let _ = writeln!(
        text,
        "host      {} ({state}), version {}, epoch {}",
        status.host, status.version, status.epoch
    );
    if let Some(reason) = &status.intake_stopped {
        let _ = writeln!(text, "INTAKE    STOPPED: {reason}");
    }
    let pool = &status.pool;
    let _ = writeln!(text, "mailboxes {}", status.mailboxes.join(", "));
    let _ = writeln!(
        text,
        "backlog   {} waiting ({} bytes), oldest {}",
        pool.backlog.messages,
        pool.backlog.bytes,
        span(pool.backlog.oldest_s)
    );
    let _ = writeln!(
        text,
        "messages  {} reserved, {} settling, {} releasing, {} held, {} quarantined",
        pool.reserved, pool.settling, pool.releasing, pool.held, pool.quarantined
    );
    let c = &pool.counters;
    let _ = writeln!(
        text,
        "since start: {} marked, {} released, {} quarantined, {} held, {} taken over (slowest {} ms), {} late verdicts refused",
        c.marked,
        c.released,
        c.quarantined,
        c.held,
        c.taken_over,
        c.takeover_ms_max,
        c.verdicts_refused
    );
    let mut rows =
        vec![row(["WORKER", "STATE", "HOLDS", "FREE", "HEARD", "LAST ACTION", "MODULES"])];
    for worker in &pool.workers {
        let profile = worker.profile.as_ref();
        rows.push(row([
            &worker.name,
            &readiness(worker),
            &worker.holding.len().to_string(),
            &worker.free.to_string(),
            &format!("{} ms ago", worker.heard_ago_ms),
            &profile.map(last_action).unwrap_or_default(),
            &profile.map(modules).unwrap_or_default(),
        ]));
    }
    text.push('\n');
    table(&mut text, &rows);
    if !pool.messages.is_empty() {
        let mut rows = vec![row(["MESSAGE", "MAILBOX", "STATE", "AGE", "ATTEMPTS", "BYTES"])];
        for message in pool.messages.iter().take(MESSAGES_SHOWN) {
            rows.push(row([
                &message.id,
                &message.mailbox,
                &message.state,
                &span(message.age_s),
                &message.attempts.to_string(),
                &message.length.to_string(),
            ]));
        }
        text.push('\n');
        table(&mut text, &rows);
        let more = pool.messages.len().saturating_sub(MESSAGES_SHOWN);
        if more > 0 {
            let _ = writeln!(text, "and {more} more; --json shows them");
        }
    }
    text
}

/// Messages that were set aside.
pub(super) fn list(listed: &[ListedMessage], aside: Aside) -> String {
    if listed.is_empty() {
        return format!("nothing is {}", if aside == Aside::Held { "held" } else { "quarantined" });
    }
    let mut rows =
        vec![row(["MESSAGE", "MAILBOX", "RECEIVED", "BYTES", "SENDER", "RECIPIENTS", "WHY"])];
    for message in listed {
        let first = message.recipients.first().cloned().unwrap_or_default();
        let more = message.recipients.len().saturating_sub(1);
        let recipients = if more > 0 { format!("{first} and {more} more") } else { first };
        rows.push(row([
            &message.id,
            &message.mailbox,
            &message.received,
            &message.length.to_string(),
            &sender(&message.sender),
            &recipients,
            message.reasons.last().map(String::as_str).unwrap_or_default(),
        ]));
    }
    let mut text = String::new();
    table(&mut text, &rows);
    text
}

/// One message that was set aside.
pub(super) fn message(shown: &ShownMessage) -> String {
    let mut text = String::new();
    let listed = &shown.listed;
    let _ = writeln!(text, "message    {} in {}", listed.id, listed.mailbox);
    let _ = writeln!(
        text,
        "received   {} from {} [{}]",
        listed.received,
        shown.helo,
        shown.address.as_deref().unwrap_or("unknown")
    );
    let _ = writeln!(text, "size       {} bytes, SHA-256 {}", listed.length, shown.digest);
    let _ = writeln!(text, "sender     {}", sender(&listed.sender));
    for (title, lines) in [
        ("recipient", &listed.recipients),
        ("why", &listed.reasons),
        ("finding", &shown.findings),
        ("result", &shown.results),
    ] {
        for line in lines {
            let _ = writeln!(text, "{title:<10} {line}");
        }
    }
    let _ = writeln!(text, "\n{}", shown.header);
    text
}

fn sender(address: &str) -> String {
    if address.is_empty() { "<>".to_owned() } else { address.to_owned() }
}

fn readiness(worker: &WorkerStatus) -> String {
    match &worker.barred {
        _ if !worker.linked => "not linked".to_owned(),
        Some(reason) => format!("barred: {reason}"),
        None if worker.silent => format!("silent ({})", worker.readiness),
        None => worker.readiness.clone(),
    }
}

fn last_action(profile: &Profile) -> String {
    format!("{:?} {} ago", profile.last_action, span(profile.last_action_ago_ms / 1_000))
        .to_lowercase()
}

fn modules(profile: &Profile) -> String {
    let said = profile.modules.iter().map(|module| match &module.not_ready {
        None => format!("{} ({} {})", module.name, module.engine, module.signatures),
        Some(reason) => format!("{} (not ready: {reason})", module.name),
    });
    said.collect::<Vec<_>>().join("; ")
}

fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{} d", seconds / 86_400),
    }
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|cell| cell.to_string()).collect()
}

/// Columns as wide as their widest cell; the last is not padded.
fn table(text: &mut String, rows: &[Vec<String>]) {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells: Vec<String> =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  ").trim_end());
    }
}

//! Tables for people.

use std::fmt::Write;

use gantry_operator::HookStatus;
use gantry_operator::show::{
    admission, certificates, certificates_table, last_action, modules, readiness,
};
use gantry_operator::table::{Table, size, span};
use gantry_protocol::pool::{Counters, MessageStatus, WorkerStatus};

/// Messages that the table of a status shows; `--json` shows more.
const MESSAGES_SHOWN: usize = 20;

/// What to do where no worker has been here.
const NO_WORKER: &str = "no worker has linked since the start: `gantry-hook token` lets one join; where one has joined and \
    runs, its log says why it cannot link\n";

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
    if status.intake_stopped.is_some() || status.draining.is_some() {
        let _ = writeln!(text, "INTAKE    {}", admission(status).trim_start_matches("INTAKE "));
    }
    for warning in &status.warnings {
        let _ = writeln!(text, "WARNING   {warning}");
    }
    let pool = &status.pool;
    let _ = writeln!(text, "mailboxes {}", status.mailboxes.join(", "));
    let _ = writeln!(
        text,
        "backlog   {} waiting ({}), oldest {}",
        pool.backlog.messages,
        size(pool.backlog.bytes),
        span(pool.backlog.oldest_s)
    );
    let _ = writeln!(
        text,
        "messages  {} reserved, {} settling, {} releasing, {} held, {} quarantined",
        pool.reserved, pool.settling, pool.releasing, pool.held, pool.quarantined
    );
    if let Some(room) = status.room {
        let free = room.free.map(|free| format!(", {} free on the disk", size(free)));
        let _ = writeln!(
            text,
            "room      {} stored, {} held, {} quarantined{}",
            size(room.stored),
            size(room.held),
            size(room.quarantined),
            free.unwrap_or_default()
        );
    }
    if status.running {
        text.push_str(&counted(&pool.counters));
        text.push('\n');
        match pool.workers.is_empty() {
            true => text.push_str(NO_WORKER),
            false => text.push_str(&workers(&pool.workers).aligned()),
        }
    }
    if !status.certificates.is_empty() {
        let mut table = certificates_table();
        certificates(&mut table, &status.host, &status.certificates);
        text.push('\n');
        text.push_str(&table.aligned());
    }
    if !pool.messages.is_empty() {
        text.push('\n');
        text.push_str(&oldest(&pool.messages).aligned());
        let more = pool.messages.len().saturating_sub(MESSAGES_SHOWN);
        if more > 0 {
            let _ = writeln!(text, "and {more} more; --json shows them");
        }
    }
    text
}

fn counted(c: &Counters) -> String {
    format!(
        "since start: {} marked, {} released, {} quarantined, {} held, {} taken over (slowest {} ms), {} late verdicts refused\n",
        c.marked,
        c.released,
        c.quarantined,
        c.held,
        c.taken_over,
        c.takeover_ms_max,
        c.verdicts_refused
    )
}

fn workers(workers: &[WorkerStatus]) -> Table {
    let heading = ["WORKER", "STATE", "HOLDS", "FREE", "HEARD", "LAST ACTION", "MODULES"];
    let mut table = Table::new("worker", heading);
    for worker in workers {
        let profile = worker.profile.as_ref();
        table.push([
            &worker.name,
            &readiness(worker),
            &worker.holding.len().to_string(),
            &worker.free.to_string(),
            &format!("{} ms ago", worker.heard_ago_ms),
            &profile.map(last_action).unwrap_or_default(),
            &profile.map(modules).unwrap_or_default(),
        ]);
    }
    table
}

fn oldest(messages: &[MessageStatus]) -> Table {
    let heading = ["MESSAGE", "MAILBOX", "STATE", "AGE", "ATTEMPTS", "BYTES"];
    let mut table = Table::new("message", heading);
    for message in messages.iter().take(MESSAGES_SHOWN) {
        table.push([
            &message.id,
            &message.mailbox,
            &message.state,
            &span(message.age_s),
            &message.attempts.to_string(),
            &message.length.to_string(),
        ]);
    }
    table
}

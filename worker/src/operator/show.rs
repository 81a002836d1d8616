//! What the hosts said, for people and for other programs.

use std::fmt::Write;

use gantry_operator::show::{
    admission, certificates, certificates_table, last_action, readiness, sender, why,
};
use gantry_operator::table::{Table, printable, size, span};
use gantry_operator::{Aside, HookStatus, MessageLife, Reply};
use gantry_protocol::pool::WorkerStatus;

use super::hosts::Answer;

/// Hosts, workers, engines, certificates, and what somebody should look at.
pub(super) fn status(answers: &[Answer], terminal: bool) -> String {
    let tables =
        [hosts(answers), workers(answers), engines(answers), certified(answers), warned(answers)];
    sections(&tables, terminal)
}

fn certified(answers: &[Answer]) -> Table {
    let mut table = certificates_table();
    for status in answers.iter().filter_map(status_of) {
        certificates(&mut table, &status.host, &status.certificates);
    }
    table
}

fn warned(answers: &[Answer]) -> Table {
    let mut table = Table::new("warning", ["HOST", "WARNING"]);
    for status in answers.iter().filter_map(status_of) {
        status.warnings.iter().for_each(|warning| table.push([&status.host, warning]));
    }
    table
}

/// Tables below each other; a terminal gets an empty line between them, and none of the empty ones.
pub(super) fn sections(tables: &[Table], terminal: bool) -> String {
    let shown = tables.iter().filter(|table| !table.is_empty());
    let texts: Vec<String> = shown.map(|table| table.render(terminal)).collect();
    texts.join(if terminal { "\n" } else { "" })
}

/// A row for each host, whether it answers or not.
fn hosts(answers: &[Answer]) -> Table {
    let mut table = Table::new(
        "host",
        [
            "HOST",
            "ADDRESS",
            "VERSION",
            "UP",
            "WAITING",
            "BYTES",
            "OLDEST",
            "RESERVED",
            "RELEASING",
            "HELD",
            "QUARANTINED",
            "STATE",
        ],
    );
    for answer in answers {
        let Some(status) = status_of(answer) else {
            let mut row = ["-"; 12];
            let state = no_answer(answer);
            (row[0], row[1], row[11]) = (answer.name(), &answer.address, &state);
            table.push(row);
            continue;
        };
        let pool = &status.pool;
        table.push([
            &status.host,
            &answer.address,
            &status.version,
            &span(status.uptime_s),
            &pool.waiting.to_string(),
            &size(pool.backlog.bytes),
            &span(pool.backlog.oldest_s),
            &(pool.reserved + pool.settling).to_string(),
            &pool.releasing.to_string(),
            &pool.held.to_string(),
            &pool.quarantined.to_string(),
            &admission(status),
        ]);
    }
    table
}

/// A row for each worker at each host.
pub(super) fn workers(answers: &[Answer]) -> Table {
    let heading = ["HOST", "WORKER", "VERSION", "TIER", "HOLDS", "FREE", "HEARD", "DID", "STATE"];
    let mut table = Table::new("worker", heading);
    for (status, worker) in all_workers(answers) {
        let profile = worker.profile.as_ref();
        table.push([
            &status.host,
            &worker.name,
            &worker.software,
            &profile.map(|profile| profile.tier.to_string()).unwrap_or_default(),
            &worker.holding.len().to_string(),
            &worker.free.to_string(),
            &heard(worker.heard_ago_ms),
            &profile.map(last_action).unwrap_or_default(),
            &readiness(worker),
        ]);
    }
    table
}

/// A row for each module of each worker: a worker's modules are the same at all its hosts, so each is told once.
fn engines(answers: &[Answer]) -> Table {
    let heading = ["WORKER", "MODULE", "PROVIDES", "ENGINE", "SIGNATURES", "STATE"];
    let mut table = Table::new("engine", heading);
    let mut told: Vec<&str> = Vec::new();
    for (_, worker) in all_workers(answers).filter(|(_, worker)| worker.linked) {
        let Some(profile) = &worker.profile else { continue };
        if told.contains(&worker.name.as_str()) {
            continue;
        }
        told.push(&worker.name);
        for module in &profile.modules {
            table.push([
                &worker.name,
                &module.name,
                &module.provides,
                &module.engine,
                &module.signatures,
                &match &module.not_ready {
                    None => "ready".to_owned(),
                    Some(reason) => format!("not ready: {reason}"),
                },
            ]);
        }
    }
    table
}

/// Messages of all hosts.
pub(super) fn queue(answers: &[Answer], terminal: bool) -> String {
    let heading = ["MESSAGE", "MAILBOX", "STATE", "AGE", "ATTEMPTS", "SIZE", "WHY"];
    let mut table = Table::new("message", heading);
    let mut more = String::new();
    for answer in answers {
        let Ok(Reply::Queue(queue)) = &answer.reply else { continue };
        for message in &queue.messages {
            table.push([
                &format!("{}/{}", answer.name(), message.id),
                &message.mailbox,
                &message.state,
                &span(message.age_s),
                &message.attempts.to_string(),
                &size(message.length),
                &why(message),
            ]);
        }
        if queue.more > 0 {
            let _ = writeln!(more, "and {} more at {}", queue.more, answer.name());
        }
    }
    nothing_or(&table, terminal, "no message is there") + if terminal { &more } else { "" }
}

/// What was set aside at all hosts.
pub(super) fn list(answers: &[Answer], aside: Aside, terminal: bool) -> String {
    let mut all = Vec::new();
    for answer in answers {
        let Ok(Reply::List(listed)) = &answer.reply else { continue };
        for message in listed {
            let id = format!("{}/{}", answer.name(), message.id);
            all.push(gantry_operator::ListedMessage { id, ..message.clone() });
        }
    }
    let table = gantry_operator::show::list(&all, aside);
    nothing_or(&table, terminal, &format!("nothing is {}", aside.word()))
}

/// One message's life; elsewhere than on a terminal a line for each thing that is known.
pub(super) fn life(life: &MessageLife, terminal: bool) -> String {
    if terminal {
        return gantry_operator::show::life(life);
    }
    let mut text =
        format!("message\t{}/{}\t{}\t{}\n", life.host, life.id, life.mailbox, life.state);
    let length = life.length.map(|length| format!("{length}\t{}", life.attempts));
    let from = life.sender.as_deref().map(|address| printable(&sender(address)));
    for (kind, value) in [("received", &life.received), ("size", &length), ("sender", &from)] {
        if let Some(value) = value {
            let _ = writeln!(text, "{kind}\t{value}");
        }
    }
    for (kind, lines) in [
        ("recipient", &life.recipients),
        ("why", &life.reasons),
        ("finding", &life.findings),
        ("remaining", &life.remaining),
        ("result", &life.results),
    ] {
        for line in lines {
            let _ = writeln!(text, "{kind}\t{}", printable(line));
        }
    }
    text + &gantry_operator::show::steps(&life.steps).plain()
}

/// What the status of a host says, where it answered.
pub(super) fn status_of(answer: &Answer) -> Option<&HookStatus> {
    match &answer.reply {
        Ok(Reply::Status(status)) => Some(status),
        _ => None,
    }
}

/// The state of a host that gave no status, with the reason.
pub(super) fn no_answer(answer: &Answer) -> String {
    let reason = match &answer.reply {
        Ok(Reply::Refused(reason)) => reason,
        Ok(_) => "it answered something else",
        Err(problem) => &problem.text,
    };
    format!("NO ANSWER: {reason}")
}

fn all_workers(answers: &[Answer]) -> impl Iterator<Item = (&HookStatus, &WorkerStatus)> {
    let statuses = answers.iter().filter_map(status_of);
    statuses.flat_map(|status| status.pool.workers.iter().map(move |worker| (status, worker)))
}

/// An empty table says so to people; programs get no line.
fn nothing_or(table: &Table, terminal: bool, nothing: &str) -> String {
    match (table.is_empty(), terminal) {
        (true, true) => format!("{nothing}\n"),
        _ => table.render(terminal),
    }
}

fn heard(ago_ms: u64) -> String {
    if ago_ms < 10_000 {
        format!("{ago_ms} ms ago")
    } else {
        format!("{} ago", span(ago_ms / 1_000))
    }
}

//! Answers in words.

use std::fmt::Write;

use gantry_mail::date;
use gantry_protocol::pool::{MessageStatus, WorkerStatus};
use gantry_protocol::profile::Profile;

use crate::table::{Table, printable, span};
use crate::{Aside, CertificateStatus, HookStatus, ListedMessage, MessageLife, ShownMessage, Step};

/// Whether a host takes mail, and why not.
pub fn admission(status: &HookStatus) -> String {
    match (&status.draining, &status.intake_stopped) {
        (Some(drain), _) => {
            let left = drain.remaining.messages() - drain.remaining.deferred;
            let rest = drain.ends_in_s.map(|s| format!(", ends in {s} s at the latest"));
            format!("DRAINING: takes no mail, {left} left{}", rest.unwrap_or_default())
        }
        (None, Some(reason)) => format!("INTAKE STOPPED: {reason}"),
        (None, None) => "taking mail".to_owned(),
    }
}

/// How a worker is, in a few words.
pub fn readiness(worker: &WorkerStatus) -> String {
    match (&worker.barred, &worker.ordered) {
        _ if !worker.linked && worker.ordered.is_some() => {
            "not linked, not ready by order".to_owned()
        }
        _ if !worker.linked => match &worker.last_fault {
            Some(fault) => format!("not linked, at fault: {fault}"),
            None => "not linked".to_owned(),
        },
        (_, Some(reason)) => format!("not ready by order: {reason}"),
        (Some(reason), None) => format!("barred: {reason}"),
        (None, None) if worker.silent => format!("silent ({})", worker.readiness),
        (None, None) if stands_by(worker) => "stands by".to_owned(),
        (None, None) => worker.readiness.clone(),
    }
}

/// Of a higher tier, and not needed now: it says that it is busy, since it asks for nothing.
fn stands_by(worker: &WorkerStatus) -> bool {
    let higher = worker.profile.as_ref().is_some_and(|profile| profile.tier > 0);
    higher && worker.readiness == "busy" && worker.holding.is_empty()
}

/// What a worker did last, and when.
pub fn last_action(profile: &Profile) -> String {
    format!("{:?} {} ago", profile.last_action, span(profile.last_action_ago_ms / 1_000))
        .to_lowercase()
}

/// A worker's modules with their engines and signatures.
pub fn modules(profile: &Profile) -> String {
    let said = profile.modules.iter().map(|module| match &module.not_ready {
        None if module.signatures.is_empty() => format!("{} ({})", module.name, module.engine),
        None => format!("{} ({}, {})", module.name, module.engine, module.signatures),
        Some(reason) => format!("{} (not ready: {reason})", module.name),
    });
    said.collect::<Vec<_>>().join("; ")
}

/// The null sender has a name, too (RFC 5321 section 4.5.5).
pub fn sender(address: &str) -> String {
    if address.is_empty() { "<>".to_owned() } else { address.to_owned() }
}

/// Several recipients in one cell.
pub fn recipients(all: &[String]) -> String {
    let first = all.first().cloned().unwrap_or_default();
    let more = all.len().saturating_sub(1);
    if more > 0 { format!("{first} and {more} more") } else { first }
}

/// Why a message is where it is: what is left to be done where a part was, and the last reason.
pub fn why(message: &MessageStatus) -> String {
    let left = (!message.remaining.is_empty())
        .then(|| format!("left to be done: {}", message.remaining.join(", ")));
    let words = left.into_iter().chain(message.reasons.last().cloned());
    words.collect::<Vec<_>>().join("; ")
}

/// Authorities and certificates of one host, as rows of a table that [`certificates_table`] began.
pub fn certificates(table: &mut Table, host: &str, certificates: &[CertificateStatus]) {
    for one in certificates {
        table.push([
            host,
            &one.role,
            &one.name,
            &date::rfc3339(one.expires_unix_s.saturating_mul(1_000)),
            &one.standing,
            if one.current { "" } else { "former" },
            &one.note,
        ]);
    }
}

/// A table for [`certificates`].
pub fn certificates_table() -> Table {
    let heading = ["HOST", "CERTIFICATE", "NAME", "EXPIRES (UTC)", "STANDING", "AUTHORITY", "NOTE"];
    Table::new("certificate", heading)
}

/// Messages that were set aside, as a table.
pub fn list(listed: &[ListedMessage], aside: Aside) -> Table {
    let heading = ["MESSAGE", "MAILBOX", "RECEIVED", "BYTES", "SENDER", "RECIPIENTS", "WHY"];
    let mut table = Table::new(aside.word(), heading);
    for message in listed {
        table.push([
            &message.id,
            &message.mailbox,
            &message.received,
            &message.length.to_string(),
            &sender(&message.sender),
            &recipients(&message.recipients),
            message.reasons.last().map(String::as_str).unwrap_or_default(),
        ]);
    }
    table
}

/// One message that was set aside.
pub fn shown(shown: &ShownMessage) -> String {
    let mut text = String::new();
    let listed = &shown.listed;
    let _ = writeln!(text, "message    {} in {}", listed.id, listed.mailbox);
    let _ = writeln!(
        text,
        "received   {} from {} [{}]",
        listed.received,
        printable(&shown.helo),
        shown.address.as_deref().unwrap_or("unknown")
    );
    let _ = writeln!(text, "size       {} bytes, SHA-256 {}", listed.length, shown.digest);
    let _ = writeln!(text, "sender     {}", printable(&sender(&listed.sender)));
    titled(&mut text, "recipient", &listed.recipients);
    titled(&mut text, "why", &listed.reasons);
    titled(&mut text, "finding", &shown.findings);
    titled(&mut text, "result", &shown.results);
    let _ = writeln!(text, "\n{}", shown.header);
    text
}

/// One message's life.
pub fn life(life: &MessageLife) -> String {
    let mut text = String::new();
    let place =
        if life.mailbox.is_empty() { String::new() } else { format!(" in {}", life.mailbox) };
    let _ = writeln!(text, "message    {}/{}{place}: {}", life.host, life.id, life.state);
    if let Some(received) = &life.received {
        let _ = writeln!(text, "received   {received}");
    }
    if let Some(length) = life.length {
        let _ = writeln!(text, "size       {length} bytes, attempts {}", life.attempts);
    }
    if let Some(address) = &life.sender {
        let _ = writeln!(text, "sender     {}", printable(&sender(address)));
    }
    titled(&mut text, "recipient", &life.recipients);
    titled(&mut text, "why", &life.reasons);
    titled(&mut text, "finding", &life.findings);
    titled(&mut text, "remaining", &life.remaining);
    titled(&mut text, "result", &life.results);
    if let Some(why) = &life.forgotten {
        let _ = writeln!(text, "\n{}", printable(why));
    }
    if !life.steps.is_empty() {
        text.push('\n');
        text.push_str(&steps(&life.steps).aligned());
    }
    text
}

/// The transitions of a life, with the time that each took.
pub fn steps(steps: &[Step]) -> Table {
    let mut table = Table::new("step", ["TIME (UTC)", "AFTER", "WHAT", "WHO", "DETAIL"]);
    let first = steps.first().map_or(0, |step| step.unix_ms);
    for step in steps {
        let after = step.unix_ms.saturating_sub(first);
        table.push([
            &date::rfc3339(step.unix_ms),
            &format!("{}.{:03} s", after / 1_000, after % 1_000),
            &step.what,
            step.node.as_deref().unwrap_or_default(),
            &step.detail,
        ]);
    }
    table
}

fn titled(text: &mut String, title: &str, lines: &[String]) {
    for line in lines {
        let _ = writeln!(text, "{title:<10} {}", printable(line));
    }
}

#[cfg(test)]
mod tests {
    use gantry_protocol::id::Incarnation;
    use gantry_protocol::profile::{Action, Readiness};

    use super::*;

    #[test]
    fn a_worker_that_stands_by_is_not_called_busy() {
        let mut worker = worker();
        assert_eq!(readiness(&worker), "busy");
        let profile = Profile {
            grabber: "pc-1".to_owned(),
            incarnation: Incarnation(1),
            readiness: Readiness::Busy,
            tier: 1,
            last_action: Action::Linked,
            last_action_ago_ms: 0,
            modules: Vec::new(),
            holding: Vec::new(),
        };
        worker.profile = Some(profile);
        assert_eq!(readiness(&worker), "stands by");
        worker.holding.push("3-1".to_owned());
        assert_eq!(readiness(&worker), "busy");
    }

    fn worker() -> WorkerStatus {
        WorkerStatus {
            name: "pc-1".to_owned(),
            software: String::new(),
            linked: true,
            incarnation: String::new(),
            provides: Vec::new(),
            readiness: "busy".to_owned(),
            policy: String::new(),
            barred: None,
            ordered: None,
            silent: false,
            draining: false,
            faults: 0,
            last_fault: None,
            heard_ago_ms: 0,
            free: 0,
            holding: Vec::new(),
            profile: None,
        }
    }

    #[test]
    fn a_life_is_told_from_its_first_step() {
        let step = |unix_ms, what: &str, node: Option<&str>, detail: &str| Step {
            unix_ms,
            what: what.to_owned(),
            node: node.map(str::to_owned),
            detail: detail.to_owned(),
        };
        let told = life(&MessageLife {
            id: "3-1".to_owned(),
            host: "mx1".to_owned(),
            state: "gone".to_owned(),
            steps: vec![
                step(1_000, "marked", None, ""),
                step(1_250, "verdict", Some("pc-1"), "virus: clean (rules, yara 1, 2)"),
            ],
            ..MessageLife::default()
        });
        assert!(told.starts_with("message    mx1/3-1: gone\n"), "{told}");
        assert!(told.contains("0.250 s"), "{told}");
        assert!(told.contains("pc-1  virus: clean"), "{told}");
    }
}

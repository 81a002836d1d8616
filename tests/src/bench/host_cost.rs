//! What the hook costs its host: CPU for each message, and memory.

use std::fs;

use super::letters::Letters;
use super::load::{Target, Until, send};
use super::meter::{Memory, forget_peak, memory, quiet};
use super::offload;
use super::report::{Findings, Report, Row, median};
use super::rig::{Custody, Rig, round, round_alone};
use super::{Effort, progress};
use crate::{PATIENCE, await_that, binary, until};

const PEER: &str = "clamd, driven directly by INSTREAM over its Unix socket";
const PEER_RSS: &str = "the hook idle";
const CONNECTIONS: usize = 4;
/// What fills the queue: its syncs are shared by those who come at once.
const QUEUE_CONNECTIONS: usize = 64;
const SMALL: usize = 5_000;
const LARGE: usize = 50_000_000;
/// Most that a large message may add to the hook's memory, in MB.
const ADDED_MB_MAX: f64 = 4.0;

pub(super) fn run(effort: &Effort) -> Report {
    let mut findings = Findings::new("host-cost");
    let size = fs::metadata(binary("gantry-hook")).expect("look at gantry-hook").len();
    findings.add(Row::new("size of the program", mb(size), "MB"));
    if effort.wants("queued") {
        queue(&mut findings, effort);
    }
    let rig = Rig::with_worker("[]", "");
    if effort.wants("50 MB") {
        large(&mut findings, &rig);
    }
    if effort.wants("CPU") {
        cpu(&mut findings, &rig, effort);
    }
    findings.report()
}

fn cpu(findings: &mut Findings, rig: &Rig, effort: &Effort) {
    progress(format_args!("CPU, {CONNECTIONS} at once"));
    let letters = Letters::of(SMALL);
    let folder = tempfile::tempdir().expect("make a temporary folder");
    let clamd = offload::clamd(folder.path());
    let mut peer = Vec::new();
    let mut ours = [Vec::new(), Vec::new()];
    for _ in 0..effort.rounds {
        if let Some((clamd, pid)) = &clamd {
            quiet(effort.patience_ms);
            let target = Target::Clamd(clamd.socket());
            let round = round_alone(&target, &letters, CONNECTIONS, effort.round_ms, &[*pid]);
            findings.noise(round.noise);
            peer.push(round.cpu_ms(0));
        }
        for (custody, figures) in Custody::BOTH.into_iter().zip(&mut ours) {
            quiet(effort.patience_ms);
            let target = rig.target(custody);
            let round =
                round(&target, &rig.drain, &letters, CONNECTIONS, effort.round_ms, &[rig.hook()]);
            findings.noise(round.noise);
            figures.push(round.cpu_ms(0));
            rig.settle();
        }
    }
    for (custody, figures) in Custody::BOTH.into_iter().zip(&ours) {
        findings.spread(figures);
        // Milliseconds a message are seconds a thousand.
        let row = Row::new(
            format!("CPU for 1,000 messages of 5 KB, {}", custody.name()),
            median(figures),
            "s",
        );
        findings.add(if peer.is_empty() { row } else { row.beside(PEER, median(&peer)) });
    }
    let after = memory(rig.hook());
    findings.add(Row::new("memory after all of these", mb(after.now_bytes), "MB"));
    findings.add(Row::new("most memory in all of these", mb(after.peak_bytes), "MB"));
}

/// Memory idle, with a full queue and no worker, and after a start with that queue.
fn queue(findings: &mut Findings, effort: &Effort) {
    let count = effort.queued;
    progress(format_args!("memory with {count} messages queued"));
    let mut rig = Rig::hook_alone("[\"virus\"]");
    let idle = memory(rig.hook());
    findings.add(Row::new("memory idle", mb(idle.now_bytes), "MB"));
    let letters = Letters::of(SMALL);
    let sent = send(&rig.target(Custody::Hook), &letters, QUEUE_CONNECTIONS, Until::Sent(count));
    let begin = sent.iter().map(|one| one.began).min();
    let end = sent.iter().map(|one| one.answered).max();
    let seconds = begin.zip(end).map_or(0.0, |(begin, end)| (end - begin).as_secs_f64());
    let rate = u32::try_from(count).map(f64::from).unwrap_or(0.0) / seconds;
    findings.add(Row::new(
        format!("messages stored, {QUEUE_CONNECTIONS} at once, no worker"),
        rate,
        "1/s",
    ));
    let wanted = u64::try_from(count).unwrap_or(u64::MAX);
    let all_there = |rig: &Rig| {
        until(PATIENCE, || rig.cluster.status().filter(|status| status.backlog() >= wanted))
            .unwrap_or_else(|| panic!("the hook does not count {count} messages"));
    };
    all_there(&rig);
    let full = memory(rig.hook());
    beside_idle(findings, &format!("memory with {count} messages queued"), full.now_bytes, idle);
    beside_idle(
        findings,
        &format!("most memory while {count} messages came in"),
        full.peak_bytes,
        idle,
    );

    progress(format_args!("starting again with {count} messages"));
    rig.cluster.kill_hook();
    let begin = std::time::Instant::now();
    rig.cluster.start_hook();
    findings.add(Row::new(
        format!("start with {count} messages"),
        begin.elapsed().as_secs_f64(),
        "s",
    ));
    all_there(&rig);
    let again = memory(rig.hook());
    beside_idle(
        findings,
        &format!("memory after a start with {count} messages"),
        again.now_bytes,
        idle,
    );
}

/// The most memory while a large message passes, above what was used before.
fn large(findings: &mut Findings, rig: &Rig) {
    let small = Letters::of(SMALL);
    let letters = Letters::of(LARGE);
    for custody in Custody::BOTH {
        progress(format_args!("memory while 50 MB pass, {}", custody.name()));
        // What the first message of all costs is not the size's doing.
        let target = rig.target(custody);
        let _ = send(&target, &small, CONNECTIONS, Until::Sent(50));
        let _ = rig.drain.take(50);
        rig.settle();
        for connections in [1, CONNECTIONS] {
            forget_peak(rig.hook());
            let before = memory(rig.hook());
            let _ = send(&target, &letters, connections, Until::Sent(connections));
            let _ = rig.drain.take(connections);
            await_that("the hook is done", || {
                rig.cluster.status().filter(|status| status.backlog() == 0)
            });
            let added = memory(rig.hook()).peak_bytes.saturating_sub(before.now_bytes);
            let what = if connections == 1 {
                "50 MB pass".to_owned()
            } else {
                format!("{connections} x 50 MB pass")
            };
            let row =
                Row::new(format!("memory added while {what}, {}", custody.name()), mb(added), "MB");
            findings.add(if connections == 1 { row.at_most(ADDED_MB_MAX) } else { row });
        }
    }
}

fn beside_idle(findings: &mut Findings, case: &str, bytes: u64, idle: Memory) {
    findings.add(Row::new(case, mb(bytes), "MB").beside(PEER_RSS, mb(idle.now_bytes)));
}

fn mb(bytes: u64) -> f64 {
    u32::try_from(bytes / 1_000).map_or(f64::MAX, f64::from) / 1e3
}

//! One trial: a hook and two workers, mail, one fault, and waiting until all has ended.

use std::fs;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use gantry::demo::mail::Mail;
use gantry::demo::source::{Sent, Source};

use super::books::{Books, REFUSED, Stored};
use super::{Fault, Side};
use crate::cluster::RULES;
use crate::{Cluster, PATIENCE, Running, Setup, Sink, await_that, until};

/// Messages of a trial. One in nine is infected, one in five has several recipients.
const MESSAGES: usize = 40;
/// Connections of the source at once.
const CONNECTIONS: usize = 6;
/// How many messages are out before a process is killed or stopped: at most.
const OUT_MAX: usize = 20;
/// How much later it happens, and how long it stays stopped: at most, in milliseconds. The latter is longer than it takes the
/// others to take over.
const LATER_MAX_MS: u64 = 60;
const STOPPED_MAX_MS: u64 = 4_000;
/// Who gets the worker's fault.
const WORKERS: [&str; 2] = ["pc-1", "pc-2"];

const ALLOWED: &str = "originated = { senders = [\"<>\"], recipients = [\"*@host.example\"] }";
const POLICY: &str = r#"postmaster = "postmaster@host.example"
[outcomes]
found = "quarantine"
unscanned = "retry"
encrypted = "quarantine"
malformed = "quarantine"
over-budget = "hold"
[[notice]]
name = "infected"
to = ["postmaster"]
from = "gantry@host.example"
subject = "found"
text = "quarantined {id}\n"
[[rule]]
name = "tell"
when.found = ["virus"]
notify = ["infected"]
"#;

/// What a trial came to.
pub(super) struct Played {
    pub(super) books: Books,
    /// What is wrong, if anything, with the ends of the logs.
    pub(super) complaint: Option<String>,
}

/// Plays it to its end.
///
/// # Errors
/// It could not be played, which says nothing of the mail.
pub(super) fn play(fault: Fault, seed: u64) -> Result<Played, String> {
    let mut rng = Rng::with_seed(seed);
    let folder = tempfile::tempdir().expect("make a temporary folder");
    let refuse = |line: &str| {
        let refused = line.starts_with("RCPT ") && line.contains(&format!("{REFUSED}>"));
        refused.then(|| "550 5.1.1 nobody of that name".to_owned())
    };
    let sink = Sink::scripted(folder.path(), refuse).expect("start the sink");
    let mut cluster = prepare(&sink);
    let mut at = |side| match fault {
        Fault::At(hit, point) if hit == side => {
            Some(format!("{point}:{}", rng.u64(1..=passings(point))))
        }
        _ => None,
    };
    let (hook_at, worker_at) = (at(Side::Hook), at(Side::Worker));
    cluster.start_hook_with(&variable(&hook_at));
    for (place, name) in WORKERS.into_iter().enumerate() {
        cluster.join_worker(name, "policy = \"../policy.toml\"\n", RULES, "virus");
        let worker_at = if place == 0 { &worker_at } else { &None };
        cluster.start_worker(name, &variable(worker_at));
    }
    cluster.await_ready(WORKERS.len());
    let source = Source {
        addresses: vec![cluster.upstream, cluster.intake],
        connections: CONNECTIONS,
        give_up: Instant::now() + 2 * PATIENCE,
    };
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&Mail::generated(seed, MESSAGES), &|_| {}));
        let befallen = befall(fault, &mut cluster, &sink, &mut rng);
        let sent = sending.join().expect("the source does not panic").expect("letters can be made");
        befallen.map(|()| sent)
    })?;
    let books = settle(&sent, &sink, &cluster, fault);
    let complaint = books.complaint();
    let complaint = complaint.map(|complaint| format!("{complaint}\n{}", cluster.logs()));
    Ok(Played { books, complaint })
}

fn prepare(sink: &Sink) -> Cluster {
    let setup = Setup {
        release: Some(sink.address()),
        out: ", retry_first = \"1s\", retry_max = \"1s\"".to_owned(),
        upstream: ALLOWED.to_owned(),
        hook: ALLOWED.to_owned(),
        ..Setup::default()
    };
    let cluster = Cluster::prepare(&setup);
    fs::write(cluster.path().join("policy.toml"), POLICY).expect("write policy.toml");
    let config = fs::read_to_string(cluster.config()).expect("read hook.toml");
    fs::write(cluster.config(), format!("policy = \"policy.toml\"\n{config}"))
        .expect("write hook.toml");
    cluster
}

/// At which passing of a point the process dies, at most: the mail of nearly every seed comes there so often.
fn passings(point: &str) -> u64 {
    match point {
        // Of the messages in the hook's custody with several recipients, one of which is refused.
        "result-appended" => 1,
        "originated-written" | "bounce-written" | "adopted" | "aside-appended" => 2,
        _ => 8,
    }
}

fn variable(at: &Option<String>) -> Vec<(&'static str, &str)> {
    at.iter().map(|at| ("GANTRY_CRASH_AT", at.as_str())).collect()
}

/// Lets the fault happen while mail flows, and starts again what has died of it.
fn befall(fault: Fault, cluster: &mut Cluster, sink: &Sink, rng: &mut Rng) -> Result<(), String> {
    let (Fault::At(side, _) | Fault::Killed(side) | Fault::Stopped(side)) = fault;
    if !matches!(fault, Fault::At(..)) {
        let out = rng.usize(1..=OUT_MAX);
        await_that("mail flows", || (sink.count() >= out).then_some(()));
        // The moment itself is what is random here.
        thread::sleep(Duration::from_millis(rng.u64(0..=LATER_MAX_MS)));
    }
    let victim = match side {
        Side::Hook => cluster.hook.as_mut(),
        Side::Worker => cluster.workers.get_mut(WORKERS[0]),
    };
    let victim = victim.expect("it runs");
    match fault {
        Fault::At(..) => {
            let ended = victim.wait(PATIENCE).ok_or("the point was never passed so often")?;
            if !was_killed(ended) {
                return Err(format!("it ended otherwise: {ended}\n{}", victim.log_tail()));
            }
        }
        Fault::Killed(_) => victim.kill(),
        Fault::Stopped(_) => return stop_for(victim, rng.u64(1..=STOPPED_MAX_MS)),
    }
    match side {
        Side::Hook => cluster.start_hook(),
        Side::Worker => cluster.start_worker(WORKERS[0], &[]),
    }
    Ok(())
}

fn stop_for(victim: &Running, milliseconds: u64) -> Result<(), String> {
    if !victim.freeze() {
        return Err("processes cannot be stopped here".to_owned());
    }
    thread::sleep(Duration::from_millis(milliseconds));
    victim.thaw();
    Ok(())
}

/// Waits until nothing is missing, or there is no patience left.
fn settle(sent: &[Sent], sink: &Sink, cluster: &Cluster, fault: Fault) -> Books {
    let stored = || {
        let (quarantined, all) = (cluster.stored("q"), cluster.stored_at_all());
        Stored { left: all.len().saturating_sub(quarantined.len()), quarantined }
    };
    let balance = || Books::balance(sent, &sink.received(), &stored(), fault.kills_hook());
    until(PATIENCE, || Some(balance()).filter(Books::is_settled));
    // Whatever a worker that was stopped still had to say has been said when it is ready again.
    cluster.await_ready(WORKERS.len());
    balance()
}

#[cfg(unix)]
fn was_killed(ended: ExitStatus) -> bool {
    use std::os::unix::process::ExitStatusExt as _;
    ended.signal() == Some(9)
}

#[cfg(not(unix))]
fn was_killed(ended: ExitStatus) -> bool {
    !ended.success()
}

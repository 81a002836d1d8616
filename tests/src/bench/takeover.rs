//! From the end of a worker to the moment when another one works on what it held, and what the beats cost that buy it.
//!
//! The witness is the module of the workers: a script that writes down which message it was started on, where and when.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::meter::{cpu_s, measure, quiet};
use super::report::{Findings, Report, Row, median, quantile};
use super::{Effort, progress};
use crate::smtp::{deliver, note};
use crate::{Lan, PATIENCE, Place, Site, await_that, until};

const HOST: &str = "mx1";
const TO: &str = "b@recipient.example";
const WORKERS: [&str; 3] = ["pc-1", "pc-2", "pc-3"];
/// Longest that the 99th of a hundred may take, in milliseconds.
const GOAL_MS: f64 = 700.0;
const GOAL_HANG_MS: f64 = 1_000.0;
/// Of a hundred datagrams, each way.
const LOSS_PERCENT: u32 = 30;
const LARGE_BYTES: usize = 50_000_000;

#[derive(Clone, Copy)]
enum Fault {
    Kill,
    Stop,
    Cable,
}

impl Fault {
    const ALL: [Self; 3] = [Self::Kill, Self::Stop, Self::Cable];

    fn name(self) -> &'static str {
        match self {
            Self::Kill => "SIGKILL",
            Self::Stop => "SIGSTOP",
            Self::Cable => "cable pulled",
        }
    }

    fn goal_ms(self) -> f64 {
        match self {
            Self::Stop => GOAL_HANG_MS,
            Self::Kill | Self::Cable => GOAL_MS,
        }
    }
}

pub(super) fn run(effort: &Effort) -> Report {
    let mut findings = Findings::new("takeover");
    for fault in Fault::ALL {
        if effort.wants(fault.name()) {
            trials(&mut findings, effort, fault);
        }
    }
    if effort.wants("false takeovers") {
        false_takeovers(&mut findings, effort);
    }
    if effort.wants("beats") {
        beats(&mut findings, effort);
    }
    findings.report()
}

/// Three workers at default settings; again and again the one that holds a message ends.
fn trials(findings: &mut Findings, effort: &Effort, fault: Fault) {
    let Some(mut lan) = Lan::make("takeovers over a network of their own") else { return };
    let places = WORKERS.map(|name| lan.machine(name));
    let host = lan.machine("mx");
    let mut site = Site::new();
    site.add_host(HOST, &host, lan.own(), &lan.network());
    for (name, place) in WORKERS.iter().zip(&places) {
        site.add_worker(name, place, &[(HOST, "")], &witness(site.path(), name, "0.9"));
    }
    site.await_ready(HOST, WORKERS.len());
    progress(format_args!("{}, {} times", fault.name(), effort.trials));
    let mut times_ms = Vec::new();
    for number in 0..effort.trials {
        quiet(effort.patience_ms.min(1_000));
        let subject = format!("trial-{number}");
        let (spent, noise) = measure(&[], || trial(&mut site, &lan, &places, fault, &subject));
        findings.noise(noise.noise);
        times_ms.push(spent);
    }
    let out = await_that("all messages are out", || {
        let out = site.received().len();
        (out >= effort.trials).then_some(out)
    });
    assert_eq!(out, effort.trials, "each message came out once\n{}", site.logs());
    let name = fault.name();
    findings.add(Row::new(
        format!("{name} to reserved by another, median"),
        median(&times_ms),
        "ms",
    ));
    let p99 = quantile(&times_ms, 0.99);
    findings.add(
        Row::new(format!("{name} to reserved by another, p99"), p99, "ms").at_most(fault.goal_ms()),
    );
}

/// One message, whose worker meets its fault as soon as it works on it. Gives the time until another does, in
/// milliseconds.
fn trial(site: &mut Site, lan: &Lan, places: &[Place; 3], fault: Fault, subject: &str) -> f64 {
    deliver(site.hosts[HOST].intake, TO, &note(subject, "text"));
    let sees = |site: &Site, count: usize| {
        let seen = starts(site.path(), subject);
        (seen.len() >= count).then_some(seen)
    };
    let first = await_that("a worker begins", || sees(site, 1)).remove(0);
    let victim = WORKERS.iter().position(|name| *name == first.worker).expect("a known worker");
    let name = WORKERS[victim];
    let at_ms = now_ms();
    match fault {
        Fault::Kill => site.workers.get_mut(name).expect("the worker").kill(),
        Fault::Stop => assert!(site.workers[name].freeze(), "stop {name}"),
        Fault::Cable => lan.pull(&places[victim]),
    }
    let taken = await_that("another takes over", || sees(site, 2)).remove(1);
    assert_ne!(taken.worker, name, "another one");
    match fault {
        Fault::Kill => site.start_worker(name, &places[victim]),
        Fault::Stop => assert!(site.workers[name].thaw(), "let {name} go on"),
        Fault::Cable => lan.plug(&places[victim]),
    }
    site.await_ready(HOST, WORKERS.len());
    taken.at_ms - at_ms
}

/// Everything that delays a beat, at once: nothing may be taken from a worker that lives.
fn false_takeovers(findings: &mut Findings, effort: &Effort) {
    let (mut site, here) = (Site::new(), Place::here());
    site.add_host(HOST, &here, here.address, "127.0.0.0/8");
    let seed = fastrand::u64(..);
    let weather = site.send_through(HOST, seed);
    progress(format_args!(
        "false takeovers: {LOSS_PERCENT} % loss each way, full CPU, 50 MB under way, {} s, seed {seed}",
        effort.watch_s
    ));
    for name in WORKERS {
        site.add_worker(name, &here, &[(HOST, "")], &witness(site.path(), name, "1.5"));
    }
    site.await_ready(HOST, WORKERS.len());
    weather.up.lose(LOSS_PERCENT);
    weather.down.lose(LOSS_PERCENT);
    let hogs: Vec<Hog> = (0..2 * thread::available_parallelism().map_or(2, usize::from))
        .map(|_| Hog::start())
        .collect();
    let large = note(
        "large",
        &"0123456789 abcdefghijklmnopqrstuvwxyz 0123456789\r\n".repeat(LARGE_BYTES / 49),
    );
    let end = std::time::Instant::now() + Duration::from_secs(effort.watch_s);
    let mut sent = 0;
    while std::time::Instant::now() < end {
        // Always some small ones that are held, and a large one on its way.
        let status = site.status(HOST).unwrap_or_default();
        if status.backlog() < 6 {
            let message =
                if sent % 20 == 0 { large.clone() } else { note(&format!("small-{sent}"), "text") };
            deliver(site.hosts[HOST].intake, TO, &message);
            sent += 1;
        }
    }
    let status = site.status(HOST).expect("the hook answers");
    drop(hogs);
    for way in [&weather.up, &weather.down] {
        way.lose(0);
    }
    let out = until(PATIENCE, || (site.received().len() >= sent).then_some(()));
    assert!(
        out.is_some(),
        "{} of {sent} messages came out\n{}",
        site.received().len(),
        site.logs()
    );
    let taken = status.counter("taken_over");
    findings.add(
        Row::new("false takeovers under full CPU, loss and 50 MB", count(taken), "").at_most(0.0),
    );
    findings.add(Row::new("messages meanwhile, all out afterwards", count(sent as u64), ""));
}

/// What the hook spends on its workers' beats.
fn beats(findings: &mut Findings, effort: &Effort) {
    let (mut site, here) = (Site::new(), Place::here());
    site.add_host(HOST, &here, here.address, "127.0.0.0/8");
    let names: Vec<String> = (0..effort.linked).map(|number| format!("pc-{number}")).collect();
    progress(format_args!("beats of {} workers", names.len()));
    let hold_s = effort.watch_s + 20;
    for name in &names {
        let module = witness(site.path(), name, &hold_s.to_string());
        site.add_worker(name, &here, &[(HOST, "")], &format!("concurrency = 1\n{module}"));
    }
    site.await_ready(HOST, names.len());
    let hook = site.hosts[HOST].hook.pid();
    let watched = |findings: &mut Findings, case: String| {
        quiet(effort.patience_ms);
        let begin = cpu_s(hook);
        let ((), spent) = measure(&[hook], || thread::sleep(Duration::from_secs(effort.watch_s)));
        findings.noise(spent.noise);
        let seconds = u32::try_from(effort.watch_s).map_or(1.0, f64::from);
        findings.add(Row::new(case, 100.0 * (cpu_s(hook) - begin) / seconds, "% CPU"));
    };
    watched(findings, format!("CPU of the hook, {} workers linked and idle", names.len()));
    for number in 0..names.len() {
        deliver(site.hosts[HOST].intake, TO, &note(&format!("held-{number}"), "text"));
    }
    await_that("every worker holds one", || {
        let status = site.status(HOST)?;
        let holding = status.workers().iter().filter(|one| !one.holding.is_empty()).count();
        (holding == names.len()).then_some(())
    });
    watched(findings, format!("CPU of the hook, {} workers linked and busy", names.len()));
}

/// A module that writes down what it was started on, in `starts` below `folder`, and then takes its time.
fn witness(folder: &Path, worker: &str, seconds: &str) -> String {
    let log = folder.join("starts");
    format!(
        "[[module]]\nname = \"witness\"\ntype = \"command\"\nprovides = \"virus\"\nprogram = \"/bin/sh\"\n\
         environment = [\"PATH=/usr/bin:/bin\"]\nclean = [0]\ntime_max = \"10m\"\nmessage_max = \"64MiB\"\n\
         arguments = [\"-c\", \"echo \\\"$(sed -n 's/^Subject: //p' | tr -d '\\\\r') {worker} $(date +%s%3N)\\\" >> {}; sleep {seconds}\"]\n",
        log.display()
    )
}

/// One line of the witness.
struct Start {
    worker: String,
    /// Since 1970, in milliseconds.
    at_ms: f64,
}

fn starts(folder: &Path, subject: &str) -> Vec<Start> {
    let text = fs::read_to_string(folder.join("starts")).unwrap_or_default();
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let (said, worker, at) = (words.next()?, words.next()?, words.next()?);
        (said == subject)
            .then(|| Some(Start { worker: worker.to_owned(), at_ms: at.parse().ok()? }))
            .flatten()
    };
    text.lines().filter_map(read).collect()
}

fn now_ms() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64() * 1e3)
}

fn count(number: u64) -> f64 {
    u32::try_from(number).map_or(f64::MAX, f64::from)
}

/// A process that does nothing as fast as it can.
struct Hog(Child);

impl Hog {
    fn start() -> Self {
        let child = Command::new("/bin/sh")
            .args(["-c", "while :; do :; done"])
            .stdin(Stdio::null())
            .spawn();
        Self(child.expect("start a busy loop"))
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

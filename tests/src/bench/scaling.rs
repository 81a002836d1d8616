//! How what a cluster does grows with its workers, and that one busy host takes nothing from another.
//!
//! Each worker scans one message at a time, and a scan takes 50 ms of waiting: a clamd is played that answers after that.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use super::drain::Drain;
use super::letters::Letters;
use super::load::{Sent, Target, Until, send};
use super::meter::{measure, quiet};
use super::report::{Findings, Report, Row, median, quantile};
use super::{Effort, progress};
use crate::{Place, Site};

const SCAN: Duration = Duration::from_millis(50);
const HOSTS: [&str; 3] = ["mx1", "mx2", "mx3"];
const SMALL: usize = 1_000;
/// Messages on their way for each worker: there is always one more.
const CONNECTIONS_PER_WORKER: usize = 2;
const PEER: &str = "one worker at one host";
const PEER_FAIR: &str = "the same while the other host has nothing";
/// At least 0.95 of linear.
const RATIO_MAX: f64 = 1.0 / 0.95;
const FAIR_RATIO_MAX: f64 = 2.0;
/// Workers, and connections of the quiet host, where two hosts share them.
const FAIR_WORKERS: usize = 4;
const FAIR_CONNECTIONS: usize = 1;
const TIMES_AS_LOADED: usize = 10;

pub(super) fn run(effort: &Effort) -> Report {
    let mut findings = Findings::new("scaling");
    let clamd = slow_clamd();
    let mut single = None;
    for hosts in [1, 3] {
        if effort.wants(&format!("{hosts} hosts")) {
            growth(&mut findings, effort, hosts, clamd, &mut single);
        }
    }
    if effort.wants("fairness") {
        fairness(&mut findings, effort, clamd);
    }
    findings.report()
}

/// Workers come one after the other, and after each doubling the rate is measured.
fn growth(
    findings: &mut Findings,
    effort: &Effort,
    hosts: usize,
    clamd: SocketAddr,
    single: &mut Option<f64>,
) {
    let drain = Drain::start();
    let names = HOSTS.get(..hosts).unwrap_or(&HOSTS);
    let mut site = site(names, &drain);
    let letters = Letters::of(SMALL);
    let mut running = 0;
    for workers in effort.workers {
        while running < workers {
            running += 1;
            add_worker(&mut site, &format!("pc-{running}"), names, clamd);
        }
        names.iter().for_each(|name| site.await_ready(name, workers));
        progress(format_args!("{workers} workers, {hosts} hosts"));
        let mut rates = Vec::new();
        let mut costs = Vec::new();
        for _ in 0..effort.rounds {
            quiet(effort.patience_ms);
            let (rate, cpu) = rate(findings, &site, names, &drain, &letters, workers, effort);
            rates.push(rate);
            costs.push(cpu);
        }
        findings.spread(&rates);
        let (rate, workers_f) = (median(&rates), u32::try_from(workers).map_or(0.0, f64::from));
        let case = format!("a worker's time for a message, {workers} workers, {hosts} hosts");
        let time = 1e3 * workers_f / rate;
        let peer = *single.get_or_insert(time);
        findings.add(Row::new(case, time, "ms").beside(PEER, peer).at_most(RATIO_MAX));
        let case = format!("messages a second, {workers} workers, {hosts} hosts");
        findings.add(Row::new(case, rate, "1/s"));
        let case = format!("CPU of hosts and workers, {workers} workers, {hosts} hosts");
        findings.add(Row::new(case, median(&costs), "ms"));
    }
}

/// Letters a second over all hosts, and the CPU of all processes for each in milliseconds.
fn rate(
    findings: &mut Findings,
    site: &Site,
    names: &[&str],
    drain: &Drain,
    letters: &Letters,
    workers: usize,
    effort: &Effort,
) -> (f64, f64) {
    let connections = (CONNECTIONS_PER_WORKER * workers).div_ceil(names.len()).max(2);
    let until = Until::Elapsed(Duration::from_millis(effort.round_ms));
    let pids: Vec<u32> = site
        .hosts
        .values()
        .map(|host| host.hook.pid())
        .chain(site.workers.values().map(|worker| worker.pid()))
        .collect();
    let begin = Instant::now();
    let (sent, spent) = measure(&pids, || {
        let sent: Vec<Sent> = thread::scope(|scope| {
            let sources: Vec<_> = names
                .iter()
                .map(|name| {
                    let target = Target::Smtp(site.hosts[*name].upstream);
                    scope.spawn(move || send(&target, letters, connections, until))
                })
                .collect();
            sources.into_iter().flat_map(|one| one.join().expect("send letters")).collect()
        });
        drain.take(sent.len());
        sent
    });
    findings.noise(spent.noise);
    // What began in the round's time counts in it; the last ones end a little later.
    let count = u32::try_from(sent.len()).map_or(0.0, f64::from);
    let end = sent.iter().map(|one| one.answered).max().unwrap_or(begin);
    (count / (end - begin).as_secs_f64(), spent.cpu_s.iter().sum::<f64>() * 1e3 / count)
}

/// One host sends little, and the other nothing or ten times as much.
fn fairness(findings: &mut Findings, effort: &Effort, clamd: SocketAddr) {
    let drain = Drain::start();
    let names = &HOSTS[..2];
    let mut site = site(names, &drain);
    for number in 1..=FAIR_WORKERS {
        add_worker(&mut site, &format!("pc-{number}"), names, clamd);
    }
    names.iter().for_each(|name| site.await_ready(name, FAIR_WORKERS));
    let letters = Letters::of(SMALL);
    let (mut alone, mut beside) = (Vec::new(), Vec::new());
    for _ in 0..effort.rounds {
        for (busy, waits) in [(false, &mut alone), (true, &mut beside)] {
            quiet(effort.patience_ms);
            progress(format_args!(
                "fairness, the other host {}",
                if busy { "busy" } else { "idle" }
            ));
            let until = Until::Elapsed(Duration::from_millis(effort.round_ms));
            let (site, letters) = (&site, &letters);
            let (ours, spent) = measure(&[], || {
                thread::scope(|scope| {
                    let other = busy.then(|| {
                        let target = Target::Smtp(site.hosts["mx2"].upstream);
                        let connections = TIMES_AS_LOADED * FAIR_CONNECTIONS;
                        scope.spawn(move || send(&target, letters, connections, until).len())
                    });
                    let target = Target::Smtp(site.hosts["mx1"].upstream);
                    let ours = send(&target, letters, FAIR_CONNECTIONS, until);
                    let more = other.map_or(0, |other| other.join().expect("send letters"));
                    drain.take(ours.len() + more);
                    ours
                })
            });
            findings.noise(spent.noise);
            let wait = |one: &Sent| (one.answered - one.began).as_secs_f64() * 1e3;
            waits.extend(ours.iter().map(wait));
        }
    }
    for (share, words) in [(0.5, "median"), (0.99, "99 %"), (1.0, "oldest")] {
        let case = format!("fairness: a message's age at the quiet host, {words}");
        let row = Row::new(case, quantile(&beside, share), "ms");
        let row = row.beside(PEER_FAIR, quantile(&alone, share));
        findings.add(row.at_most(FAIR_RATIO_MAX));
    }
}

fn site(names: &[&str], drain: &Drain) -> Site {
    let mut site = Site::new();
    site.release = Some(drain.address());
    for name in names {
        site.add_host(name, &Place::here(), Ipv4Addr::LOCALHOST, "127.0.0.1");
    }
    site
}

fn add_worker(site: &mut Site, name: &str, hosts: &[&str], clamd: SocketAddr) {
    let hosts: Vec<(&str, &str)> = hosts.iter().map(|host| (*host, "")).collect();
    let module = format!(
        "concurrency = 1\n[[module]]\nname = \"clamd\"\ntype = \"clamd\"\nprovides = \"virus\"\naddress = \"tcp:{clamd}\"\n"
    );
    site.add_worker(name, &Place::here(), &hosts, &module);
}

/// Speaks clamd's protocol, and takes its time for each scan.
fn slow_clamd() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("find a port for clamd");
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            // A client that breaks off wants no answer.
            thread::spawn(move || drop(converse(stream)));
        }
    });
    address
}

fn converse(mut stream: TcpStream) -> std::io::Result<()> {
    let mut command = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 && byte != [0] {
        command.extend_from_slice(&byte);
    }
    match command.as_slice() {
        b"zPING" => stream.write_all(b"PONG\0"),
        b"zVERSION" => stream.write_all(b"ClamAV 0.0.1/7/today\0"),
        b"zINSTREAM" => {
            let begin = Instant::now();
            let mut length = [0; 4];
            loop {
                stream.read_exact(&mut length)?;
                let length = u32::from_be_bytes(length);
                if length == 0 {
                    break;
                }
                std::io::copy(&mut (&stream).take(length.into()), &mut std::io::sink())?;
            }
            thread::sleep(SCAN.saturating_sub(begin.elapsed()));
            stream.write_all(b"stream: OK\0")
        }
        _ => stream.write_all(b"UNKNOWN COMMAND\0"),
    }
}

//! What waiting messages cost: the others that come meanwhile, their own processing, a start, and memory.
//!
//! For each size of the backlog a hook of its own runs, and the rounds of all of them alternate, so that whatever else the
//! machine does meets them alike.

use std::time::{Duration, Instant};

use super::letters::Letters;
use super::load::{Until, send};
use super::meter::{forget_peak, measure, memory, quiet};
use super::report::{Findings, Report, Row, median};
use super::rig::{Custody, Rig};
use super::{Effort, progress};
use crate::PATIENCE;
use crate::cluster::RULES;
use crate::heap;

/// The mailbox of those that wait. Its need is met by no worker until one comes that is there for it.
const MAILBOX: &str = "old.box";
const WORKER: &str = "pc-old";
const SMALL: usize = 1_000;
const CONNECTIONS: usize = 4;
/// Messages of the backlog whose processing is measured.
const DRAINED: usize = 10_000;
const PEER: &str = "the same with the fewest waiting";
const PEER_DRAIN: &str = "the same with 10,000 waiting";
const PEER_WALK: &str = "a bare walk of the same folders";
/// By how much a message may take longer when a million wait.
const RATIO_MAX: f64 = 1.2;
const START_RATIO_MAX: f64 = 2.0;
const MEMORY_MB_MAX: f64 = 64.0;

/// One hook and what waits on its disk.
struct Heap {
    waiting: usize,
    rig: Rig,
}

/// Seconds of wall time and of the hook's CPU for a message, in milliseconds.
#[derive(Default)]
struct Figures {
    wall_ms: Vec<f64>,
    cpu_ms: Vec<f64>,
}

pub(super) fn run(effort: &Effort) -> Report {
    let mut findings = Findings::new("backlog");
    let letters = Letters::of(SMALL);
    let mut heaps: Vec<Heap> =
        effort.waiting.iter().map(|waiting| Heap::new(*waiting, &letters)).collect();
    for heap in &mut heaps {
        heap.start(&mut findings, effort);
    }
    if effort.wants("comes in") {
        new_ones(&mut findings, &heaps, &letters, effort);
    }
    if effort.wants("drained") {
        old_ones(&mut findings, &mut heaps);
    }
    for heap in &heaps {
        heap.memory(&mut findings, "after all of these");
    }
    progress(format_args!("removing what was made"));
    drop(heaps);
    findings.report()
}

impl Heap {
    fn new(waiting: usize, letters: &Letters) -> Self {
        progress(format_args!("{waiting} messages onto the disk"));
        let rig = Rig::prepared("[]", &old_box(), |spool| {
            heap::fill(spool, MAILBOX, waiting, |letter| {
                letters.write(letter);
            });
        });
        Self { waiting, rig }
    }

    /// Starts the hook several times; of each time a walk comes before, so that the system has all names in memory.
    fn start(&mut self, findings: &mut Findings, effort: &Effort) {
        progress(format_args!("starting with {} waiting", self.waiting));
        let (mut starts, mut walks) = (Vec::new(), Vec::new());
        for _ in 0..=effort.rounds {
            self.rig.cluster.kill_hook();
            quiet(effort.patience_ms);
            let begin = Instant::now();
            let found = walkdir::WalkDir::new(self.rig.cluster.path().join("spool"))
                .into_iter()
                .filter_map(Result::ok)
                .filter(|entry| entry.file_type().is_file())
                .count();
            walks.push(begin.elapsed().as_secs_f64());
            assert!(found >= self.waiting, "{found} files of {}", self.waiting);
            let begin = Instant::now();
            self.rig.cluster.start_hook();
            starts.push(begin.elapsed().as_secs_f64());
        }
        // The first of both may have waited for the disk.
        let (start, walk) = (median(&starts[1..]), median(&walks[1..]));
        findings.spread(&starts[1..]);
        let row = Row::new(format!("start with {} waiting", self.waiting), start, "s");
        let row = row.beside(PEER_WALK, walk);
        let million = self.waiting >= 100_000;
        findings.add(if million { row.at_most(START_RATIO_MAX) } else { row });
        self.rig.await_backlog(self.waiting);
        self.memory(findings, "after a start");
        self.rig.add_idle_worker();
        forget_peak(self.rig.hook());
    }

    fn memory(&self, findings: &mut Findings, when: &str) {
        let memory = memory(self.rig.hook());
        for (what, bytes) in [("memory", memory.now_bytes), ("most memory", memory.peak_bytes)] {
            let case = format!("{what} {when}, {} waiting", self.waiting);
            let mb = u32::try_from(bytes / 1_000).map_or(f64::MAX, f64::from) / 1e3;
            findings.add(Row::new(case, mb, "MB").at_most(MEMORY_MB_MAX));
        }
    }
}

/// Mail passes while the others wait.
fn new_ones(findings: &mut Findings, heaps: &[Heap], letters: &Letters, effort: &Effort) {
    for custody in Custody::BOTH {
        progress(format_args!("mail that comes in meanwhile, {}", custody.name()));
        let mut all: Vec<Figures> = heaps.iter().map(|_| Figures::default()).collect();
        for _ in 0..effort.rounds * 2 {
            for (heap, figures) in heaps.iter().zip(&mut all) {
                quiet(effort.patience_ms);
                let begin = Instant::now();
                let until = Until::Elapsed(Duration::from_millis(effort.round_ms));
                let (count, spent) = measure(&[heap.rig.hook()], || {
                    let sent = send(&heap.rig.target(custody), letters, CONNECTIONS, until);
                    heap.rig.drain.take(sent.len());
                    sent.len()
                });
                figures.add(begin.elapsed(), spent.cpu_s[0], count);
                findings.noise(spent.noise);
                heap.rig.await_backlog(heap.waiting);
            }
        }
        let fewest = all.first().map(|figures| (figures.wall(), figures.cpu())).unwrap_or_default();
        for (heap, figures) in heaps.iter().zip(&all) {
            findings.spread(&figures.wall_ms);
            let of =
                format!("a message that comes in, {}, {} waiting", custody.name(), heap.waiting);
            let row = Row::new(format!("time for {of}"), figures.wall(), "ms");
            findings.add(row.beside(PEER, fewest.0).at_most(RATIO_MAX));
            let row = Row::new(format!("the hook's CPU for {of}"), figures.cpu(), "ms");
            findings.add(row.beside(PEER, fewest.1).at_most(RATIO_MAX));
        }
    }
}

/// A worker comes for those that wait.
fn old_ones(findings: &mut Findings, heaps: &mut [Heap]) {
    let mut fewest = None;
    for heap in heaps.iter_mut().filter(|heap| heap.waiting >= DRAINED) {
        progress(format_args!("{DRAINED} of {} that wait are processed", heap.waiting));
        heap.rig.cluster.add_worker(WORKER, RULES);
        let mut figures = Figures::default();
        let _ = heap.rig.drain.take(DRAINED / 10); // The worker has its connection and its rhythm now.
        let begin = Instant::now();
        let count = DRAINED - 2 * (DRAINED / 10);
        let ((), spent) = measure(&[heap.rig.hook()], || drop(heap.rig.drain.take(count)));
        figures.add(begin.elapsed(), spent.cpu_s[0], count);
        findings.noise(spent.noise);
        heap.rig.cluster.workers.remove(WORKER);
        let peer = *fewest.get_or_insert((figures.wall(), figures.cpu()));
        let of = format!("a message that is drained, {} waiting", heap.waiting);
        let row = Row::new(format!("time for {of}"), figures.wall(), "ms");
        findings.add(row.beside(PEER_DRAIN, peer.0).at_most(RATIO_MAX));
        let row = Row::new(format!("the hook's CPU for {of}"), figures.cpu(), "ms");
        findings.add(row.beside(PEER_DRAIN, peer.1).at_most(RATIO_MAX));
    }
}

impl Figures {
    fn add(&mut self, elapsed: Duration, cpu_s: f64, count: usize) {
        assert!(elapsed < PATIENCE * 10, "a round took {elapsed:?}");
        let count = u32::try_from(count).map(f64::from).expect("a countable round");
        self.wall_ms.push(elapsed.as_secs_f64() * 1e3 / count);
        self.cpu_ms.push(cpu_s * 1e3 / count);
    }

    fn wall(&self) -> f64 {
        median(&self.wall_ms)
    }

    fn cpu(&self) -> f64 {
        median(&self.cpu_ms)
    }
}

fn old_box() -> String {
    let port = crate::free_port().expect("find a port");
    format!(
        "[[mailbox]]\nname = \"{MAILBOX}\"\nneeds = [\"virus\"]\ncustody = \"hook\"\nwhen_unprocessed = \"wait\"\n\
         intake = {{ type = \"smtp\", listen = \"127.0.0.1:{port}\" }}\nrelease = {{ type = \"smtp\", address = \"DRAIN\" }}\n"
    )
}

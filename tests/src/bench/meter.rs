//! What processes cost, and how much else went on meanwhile: from /proc.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use gantry::demo::process::Cost;

/// How long the machine must be quiet before a round.
const QUIET_FOR: Duration = Duration::from_millis(500);
/// Share of the machine that may be busy for it to count as quiet, in percent.
const QUIET_PERCENT: f64 = 12.0;

/// CPU seconds of a process so far, user and system, of all its threads. 0 where the system does not tell.
pub(super) fn cpu_s(pid: u32) -> f64 {
    Cost::of(pid).cpu_s.unwrap_or(0.0)
}

/// Resident memory of a process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Memory {
    pub(super) now_bytes: u64,
    /// The most since it began or since [`forget_peak`].
    pub(super) peak_bytes: u64,
}

pub(super) fn memory(pid: u32) -> Memory {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let bytes = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        line.split_whitespace().next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    Memory { now_bytes: bytes("VmRSS:"), peak_bytes: bytes("VmHWM:") }
}

/// Makes the peak of a process begin anew (proc(5), clear_refs).
pub(super) fn forget_peak(pid: u32) {
    // Where it is not allowed, the peak is that of the whole life, which is the worse figure.
    let _ = fs::write(format!("/proc/{pid}/clear_refs"), "5");
}

/// How noisy a measurement was, in percent of all processors.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Noise {
    /// Time that processes other than the measured ones took.
    pub(super) other: f64,
    /// Time that the machine below took away.
    pub(super) steal: f64,
}

/// A stretch of time with what some processes spent in it.
#[derive(Debug)]
pub(super) struct Spent {
    /// CPU seconds, in the order of the processes.
    pub(super) cpu_s: Vec<f64>,
    pub(super) noise: Noise,
}

/// Measures what these processes spend while `work` runs; this one's own time counts as load, not as noise.
pub(super) fn measure<T>(pids: &[u32], work: impl FnOnce() -> T) -> (T, Spent) {
    let own = std::process::id();
    let read = || -> Vec<f64> { pids.iter().chain([&own]).map(|pid| cpu_s(*pid)).collect() };
    let (cpu, machine, begin) = (read(), Machine::read(), Instant::now());
    let result = work();
    let wall = begin.elapsed().as_secs_f64();
    let mut cpu_s: Vec<f64> =
        read().iter().zip(&cpu).map(|(after, before)| after - before).collect();
    let (busy, steal) = Machine::read().since(&machine);
    let ours = 100.0 * cpu_s.iter().sum::<f64>() / (wall * processors());
    cpu_s.pop();
    (result, Spent { cpu_s, noise: Noise { other: (busy - ours).max(0.0), steal } })
}

/// Waits until the machine has nothing else to do, or the patience ends.
pub(super) fn quiet(patience_ms: u64) {
    let end = Instant::now() + Duration::from_millis(patience_ms);
    while Instant::now() < end {
        let before = Machine::read();
        thread::sleep(QUIET_FOR);
        if Machine::read().since(&before).0 < QUIET_PERCENT {
            return;
        }
    }
}

pub(super) fn processors() -> f64 {
    thread::available_parallelism()
        .ok()
        .and_then(|count| u32::try_from(count.get()).ok())
        .map_or(1.0, f64::from)
}

/// The first line of /proc/stat, in ticks of all processors.
#[derive(Clone, Copy, Debug, Default)]
struct Machine {
    total: f64,
    busy: f64,
    steal: f64,
}

impl Machine {
    fn read() -> Self {
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
        // user nice system idle iowait irq softirq steal; what follows is contained in user and nice.
        let ticks: Vec<f64> = fields.take(8).filter_map(|field| field.parse().ok()).collect();
        let at = |place: usize| ticks.get(place).copied().unwrap_or(0.0);
        let total = ticks.iter().sum();
        Self { total, busy: total - at(3) - at(4) - at(7), steal: at(7) }
    }

    /// Busy and stolen share since then, in percent.
    fn since(&self, before: &Self) -> (f64, f64) {
        let total = (self.total - before.total).max(1.0);
        (100.0 * (self.busy - before.busy) / total, 100.0 * (self.steal - before.steal) / total)
    }
}

//! The benches: real release binaries, unique messages, alternating with a peer, the median of several rounds.
//!
//! Nothing here judges by a clock in a test: the figures are printed, with how noisy the machine was meanwhile.

mod backlog;
mod bridge;
mod drain;
mod failover;
mod host_cost;
mod letters;
mod load;
mod meter;
mod offload;
mod report;
mod rig;
mod scaling;
mod takeover;

pub use report::Report;

/// Which figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Bench {
    /// SMTP in, hook, worker, clamd, SMTP out: beside the same clamd driven directly
    Offload,
    /// The same way without modules: beside the source talking straight to the sink
    Bridge,
    /// What the hook costs its host in CPU and memory
    HostCost,
    /// From a worker's death, hang or cut cable to the moment when another works on what it held
    Takeover,
    /// Messages a second, second by second, while one of three workers is killed and comes back
    Failover,
    /// What waiting messages cost: the others' time, a start, and memory
    Backlog,
    /// How the rate grows with the workers, and that a busy host takes nothing from another
    Scaling,
}

/// How thorough.
#[derive(Clone, Debug)]
pub struct Effort {
    /// Rounds of each case; the median counts. At least three.
    pub rounds: usize,
    /// How long each round sends, in milliseconds.
    pub round_ms: u64,
    /// Messages sent one at a time for the latency.
    pub singles: usize,
    /// Messages in the full queue.
    pub queued: usize,
    /// Workers, case by case.
    pub workers: [usize; 6],
    /// How many wait on disk, case by case.
    pub waiting: [usize; 3],
    /// Takeovers of each kind.
    pub trials: usize,
    /// Workers that are linked at once for what their beats cost.
    pub linked: usize,
    /// How long false takeovers are waited for, and how long beats are measured, in seconds.
    pub watch_s: u64,
    /// How long a round waits for a quiet machine, in milliseconds, before it begins anyway.
    pub patience_ms: u64,
    /// Cases without this text in their names are left out.
    pub only: String,
}

impl Effort {
    /// For the published figures.
    pub const FULL: Self = Self {
        rounds: 3,
        round_ms: 4_000,
        singles: 400,
        queued: 100_000,
        workers: [1, 2, 4, 8, 16, 64],
        waiting: [100, 10_000, 1_000_000],
        trials: 50,
        linked: 50,
        watch_s: 60,
        patience_ms: 4_000,
        only: String::new(),
    };
    /// To see that it works.
    pub const QUICK: Self = Self {
        rounds: 3,
        round_ms: 700,
        singles: 60,
        queued: 3_000,
        workers: [1, 2, 3, 4, 6, 8],
        waiting: [100, 10_000, 100_000],
        trials: 5,
        linked: 10,
        watch_s: 10,
        patience_ms: 0,
        only: String::new(),
    };

    fn wants(&self, case: &str) -> bool {
        case.contains(&self.only)
    }
}

/// Why there are no figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unavailable(pub &'static str);

impl Bench {
    /// Measures.
    ///
    /// # Errors
    /// What the bench needs and this machine has not.
    ///
    /// # Panics
    /// When Gantry fails: figures of a failing system would be lies.
    pub fn run(self, effort: &Effort) -> Result<Report, Unavailable> {
        match self {
            Self::Offload => offload::run(effort),
            Self::Bridge => Ok(bridge::run(effort)),
            Self::HostCost => Ok(host_cost::run(effort)),
            Self::Takeover => Ok(takeover::run(effort)),
            Self::Failover => Ok(failover::run(effort)),
            Self::Backlog => Ok(backlog::run(effort)),
            Self::Scaling => Ok(scaling::run(effort)),
        }
    }
}

/// Says on standard error what is being done.
fn progress(what: std::fmt::Arguments<'_>) {
    eprintln!("bench: {what}");
}

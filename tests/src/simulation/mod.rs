//! A seeded simulation: the production pool, spool, grabbers and monitors on a virtual clock, a simulated disk and a
//! simulated network, with senders and a next hop, while links, workers, the hook and its disk fail.
//!
//! A seed decides everything, so a schedule that breaks a promise can be played again alone:
//! `cargo run -p gantry-tests --bin campaign -- --from SEED --seeds 1 --trace`. The judge is the ledger, which knows what was
//! promised to whom and believes none of Gantry's own counters.

mod counts;
mod event;
mod faults;
mod host;
mod ledger;
mod network;
mod originated;
mod plan;
mod queue;
mod random;
mod sender;
mod worker;
mod world;

pub use counts::Counts;

/// How a schedule is run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Settings {
    /// A defect in the driver that the ledger has to find.
    pub mutant: Option<Mutant>,
    /// Keep a line of everything that happens.
    pub trace: bool,
}

/// Defects that a driver could have. None of them is in the hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The hook's custody is confirmed before the message is on disk.
    YesBeforeFinish,
    /// A sender that waits is told yes when its message is marked.
    YesToWaitingSender,
    /// One store in ten is reported done and never made.
    StoreLies,
    /// A verdict counts before it is durable.
    SettleNotAwaited,
    /// A restart goes on counting fences where the first start began.
    SameEpoch,
    /// A late answer is taken for one under the current fence.
    FenceIgnored,
    /// A quarantined message is delivered.
    InfectedDelivered,
    /// Every release is done twice.
    ReleasesTwice,
    /// A start overlooks messages that were being released.
    ForgetsReleasing,
    /// A start counts attempts from nothing.
    ForgetsAttempts,
    /// What a verdict originates is reported written and is not.
    OriginatesNothing,
    /// Some of what is taken from the shelf never reaches the pool.
    RefillLoses,
    /// The pool's word that it has a message no longer is not heard.
    ShelveIgnored,
    /// What is taken from the shelf is given again.
    RefillTwice,
}

/// All of them.
pub const MUTANTS: [Mutant; 14] = [
    Mutant::YesBeforeFinish,
    Mutant::YesToWaitingSender,
    Mutant::StoreLies,
    Mutant::SettleNotAwaited,
    Mutant::SameEpoch,
    Mutant::FenceIgnored,
    Mutant::InfectedDelivered,
    Mutant::ReleasesTwice,
    Mutant::ForgetsReleasing,
    Mutant::ForgetsAttempts,
    Mutant::OriginatesNothing,
    Mutant::RefillLoses,
    Mutant::ShelveIgnored,
    Mutant::RefillTwice,
];

/// What came of a schedule.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub seed: u64,
    /// The first promise that was broken.
    pub violation: Option<String>,
    pub counts: Counts,
    /// Things that happened.
    pub events: u64,
    /// A line of each, if that was asked for.
    pub trace: Vec<String>,
}

/// Plays the schedule of a seed.
pub fn run(seed: u64, settings: Settings) -> Outcome {
    world::World::new(seed, settings).run()
}

/// The kinds of fault that a campaign has to have had.
pub fn fault_kinds() -> Vec<&'static str> {
    let planned = faults::FAULTS.iter().map(|(_, name)| *name);
    let drawn = [
        "crash in recovery",
        "fault: client vanished in DATA",
        "fault: sender left",
        "fault: wall clock set",
        "fault: answer after the final dot lost",
    ];
    planned.chain(drawn).collect()
}

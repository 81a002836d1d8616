//! A thousand seeded schedules of Gantry's core, and the proof that the judge finds what is wrong.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they saw"
)]

use gantry_tests::simulation::{Counts, MUTANTS, Settings, fault_kinds, run};

/// Schedules in one run of the tests; `campaign` plays more.
const SEEDS: u64 = 1_000;
/// A defect that is found this late is not found.
const SEEDS_FOR_A_MUTANT: u64 = 200;

#[test]
fn a_thousand_schedules_break_no_promise() {
    let mut counts = Counts::default();
    let mut events = 0;
    let mut failed = Vec::new();
    for seed in 1..=SEEDS {
        let outcome = run(seed, Settings::default());
        events += outcome.events;
        counts.merge(&outcome.counts);
        failed.extend(outcome.violation.map(|violation| format!("seed {seed}: {violation}")));
    }
    println!("{counts}{events:>10}  events in {SEEDS} schedules");
    assert!(
        failed.is_empty(),
        "play one again with `cargo run -p gantry-tests --bin campaign -- --seeds 1 --from SEED --trace`:\n{}",
        failed.join("\n")
    );
    let kinds = fault_kinds().into_iter().chain(["processed by several workers in turn"]);
    let missing: Vec<&str> = kinds.filter(|kind| counts.get(kind) == 0).collect();
    assert!(missing.is_empty(), "these never happened: {missing:?}");
}

#[test]
fn every_defect_of_a_driver_is_found() {
    for mutant in MUTANTS {
        let settings = Settings { mutant: Some(mutant), trace: false };
        let found = (1..=SEEDS_FOR_A_MUTANT)
            .find_map(|seed| run(seed, settings).violation.map(|violation| (seed, violation)));
        let (seed, violation) = found.unwrap_or_else(|| {
            panic!("{mutant:?} was not found in {SEEDS_FOR_A_MUTANT} schedules")
        });
        println!("{mutant:?} is found by seed {seed}: {violation}");
    }
}

#[test]
fn a_seed_plays_the_same_again() {
    for seed in [3, 77, 1_234] {
        let settings = Settings { mutant: None, trace: true };
        let (one, other) = (run(seed, settings), run(seed, settings));
        assert_eq!((one.trace, one.counts), (other.trace, other.counts), "seed {seed}");
    }
}

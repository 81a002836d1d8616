//! Plays many schedules of the simulation, or one with everything that happens in it.

#![allow(clippy::print_stdout, reason = "what it finds is its output")]

use clap::Parser;
use gantry_tests::simulation::{Counts, Settings, run};

/// Plays seeded schedules of Gantry's core against a simulated disk, network, senders and next hop.
#[derive(Parser)]
struct Arguments {
    /// How many schedules.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 1)]
    from: u64,
    /// One JSON object instead of a table.
    #[arg(long)]
    json: bool,
    /// Everything that happens in each schedule.
    #[arg(long)]
    trace: bool,
}

#[derive(serde::Serialize)]
struct Report {
    seeds: u64,
    from: u64,
    events: u64,
    /// Each with the promise it broke.
    failed: Vec<(u64, String)>,
    counts: Counts,
}

fn main() -> anyhow::Result<()> {
    let Arguments { seeds, from, json, trace } = Arguments::parse();
    let mut report =
        Report { seeds, from, events: 0, failed: Vec::new(), counts: Counts::default() };
    for seed in from..from.saturating_add(seeds) {
        let outcome = run(seed, Settings { trace, mutant: None });
        report.events += outcome.events;
        report.counts.merge(&outcome.counts);
        outcome.trace.iter().for_each(|line| println!("{line}"));
        if let Some(violation) = outcome.violation {
            eprintln!("seed {seed}: {violation}");
            report.failed.push((seed, violation));
        }
    }
    if json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}{:>10}  events in {seeds} schedules", report.counts, report.events);
    }
    anyhow::ensure!(report.failed.is_empty(), "{} schedules broke a promise", report.failed.len());
    Ok(())
}

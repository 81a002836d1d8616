//! `crashes [--trials N] [--seed S] [--jobs N] [--only TEXT] [--json]`: real processes that crash, under load.
#![allow(clippy::print_stdout, reason = "what it finds is its output")]

use std::time::Instant;

use clap::Parser;
use gantry_tests::crashes::{Options, run};

/// Has hooks and workers crash at every named point and at random moments, and counts what became of the mail.
#[derive(Parser)]
struct Arguments {
    /// Trials of each fault
    #[arg(long, default_value_t = 1)]
    trials: u64,
    /// The first trial's seed; the others follow it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Trials at once
    #[arg(long, default_value_t = 3)]
    jobs: usize,
    /// Only the faults with this text in their names
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let Arguments { trials, seed, jobs, only, json } = Arguments::parse();
    eprintln!("crashes: building programs with crash points");
    gantry_tests::binary::use_crash_points();
    let begin = Instant::now();
    let report = run(&Options { trials, seed, jobs, only }, |fault, seed| {
        eprintln!("crashes: {fault}, seed {seed}")
    });
    println!("{}", if json { serde_json::to_string(&report)? } else { report.to_string() });
    eprintln!("crashes: {} s", begin.elapsed().as_secs());
    anyhow::ensure!(!report.rows.is_empty(), "no fault has that text in its name");
    anyhow::ensure!(report.is_clean(), "trials failed; their seeds stand above");
    Ok(())
}

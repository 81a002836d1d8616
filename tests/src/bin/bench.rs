//! `bench NAME [--json] [--quick]`: Gantry's figures beside those of a peer.
#![allow(clippy::print_stdout, reason = "figures are what it is for")]

use std::process::ExitCode;

use clap::Parser;
use gantry_tests::bench::{Bench, Effort, Unavailable};

/// sysexits.h: something that is needed is not there.
const EX_UNAVAILABLE: u8 = 69;

/// Measures Gantry on this machine, with real programs, beside a peer.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    /// What is measured
    #[arg(value_enum, value_name = "NAME")]
    bench: Bench,
    /// One JSON object instead of a table
    #[arg(long)]
    json: bool,
    /// A short run, to see that it works; its figures are rough
    #[arg(long)]
    quick: bool,
    /// Leave out the cases without this text in their names
    #[arg(long, value_name = "TEXT", default_value = "")]
    only: String,
}

fn main() -> ExitCode {
    let Arguments { bench, json, quick, only } = Arguments::parse();
    if cfg!(debug_assertions) {
        eprintln!(
            "bench: this is a debug build, whose figures mean little; use cargo run --release"
        );
    }
    let effort = Effort { only, ..if quick { Effort::QUICK } else { Effort::FULL } };
    match bench.run(&effort) {
        Ok(report) => {
            println!("{}", if json { report.json() } else { report.table() });
            ExitCode::SUCCESS
        }
        Err(Unavailable(reason)) => {
            eprintln!("bench: skipped: {reason}");
            ExitCode::from(EX_UNAVAILABLE)
        }
    }
}

//! `gantry-hook`: the command line.

use std::process::ExitCode;

use clap::Parser;
use gantry_hook::cli::Cli;
use gantry_hook::{commands, exit};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let asked = !error.use_stderr();
            // Nobody is left to tell where this fails.
            let _ = error.print();
            return ExitCode::from(if asked { exit::OK } else { exit::EX_USAGE });
        }
    };
    gantry_daemon::log::start();
    match commands::execute(cli, &mut std::io::stdout()) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            use std::io::Write;
            let _ = writeln!(std::io::stderr(), "gantry-hook: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

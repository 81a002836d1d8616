//! `gantry`: the command line.

use std::io::Write;
use std::process::ExitCode;

use gantry::cli::Cli;
use gantry::{commands, exit};

fn main() -> ExitCode {
    let cli = match Cli::from_command_line() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    gantry_daemon::log::start();
    match commands::execute(cli, &mut std::io::stdout()) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            if !failure.text.is_empty() {
                // Nobody is left to tell where this fails.
                let _ = writeln!(std::io::stderr(), "gantry: {}", failure.text);
            }
            ExitCode::from(failure.code)
        }
    }
}

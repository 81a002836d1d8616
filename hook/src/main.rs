//! `gantry-hook`: the command line.

use std::io::Write;
use std::process::ExitCode;

use gantry_hook::cli::Cli;
use gantry_hook::{commands, exit};

fn main() -> ExitCode {
    let cli = match Cli::from_command_line() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    gantry_daemon::log::start();
    match commands::execute(cli, &mut std::io::stdout()) {
        Ok(()) => ExitCode::from(exit::OK),
        Err(failure) => {
            // Nobody is left to tell where this fails.
            let _ = writeln!(std::io::stderr(), "gantry-hook: {}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

//! `gantry-hook`: the command line.

use std::process::ExitCode;

use gantry_hook::cli::Cli;
use gantry_hook::{commands, exit};

fn main() -> ExitCode {
    let cli = match Cli::from_command_line() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    exit::end("gantry-hook", commands::execute(cli, &mut std::io::stdout()))
}

//! `gantry`: the command line.

use std::process::ExitCode;

use gantry::cli::Cli;
use gantry::{commands, exit};

fn main() -> ExitCode {
    let cli = match Cli::from_command_line() {
        Ok(cli) => cli,
        Err(code) => return ExitCode::from(code),
    };
    exit::end("gantry", commands::execute(cli, &mut std::io::stdout()))
}

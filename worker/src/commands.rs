//! What the command line asks for, done.

mod policy;

use std::io::Write;
use std::path::Path;

use gantry_link::{JoinError, Role};
use gantry_scanners::registry;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::service::{self, RunError};
use crate::{demo, exit};

/// What went wrong, in a sentence, and the exit code that says so.
#[derive(Debug)]
pub struct Failure {
    pub code: u8,
    pub text: String,
}

/// Does what the command line says, writing results to `out`.
///
/// # Errors
/// Whatever kept it from being done.
pub fn execute(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    match cli.command {
        Command::Check => {
            let config = load(&cli.config)?;
            let modules =
                registry::build(config.modules).map_err(|error| failure(exit::EX_CONFIG, error))?;
            if let Some(file) = &config.policy {
                policy::load(file, &modules)?;
            }
            line(out, &format!("{}: no mistakes", cli.config.display()))
        }
        Command::Join { token } => join(&load(&cli.config)?, &token, out),
        Command::Run => run(load(&cli.config)?),
        Command::Policy { action } => policy::execute(&cli.config, action, out),
        Command::Demo(arguments) => {
            let code = demo::main(arguments);
            if code == exit::OK { Ok(()) } else { Err(Failure { code, text: String::new() }) }
        }
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(|mistakes| {
        let text = mistakes.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
        Failure { code: exit::EX_CONFIG, text }
    })
}

fn join(config: &Config, token: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let clock = gantry_link::system_clock();
    let joining =
        gantry_link::join(token, &config.identity_dir, &config.name, Role::Worker, &clock);
    let identity = runtime()?.block_on(joining).map_err(|error| {
        let code = match &error {
            JoinError::Refused { .. } => exit::EX_NOPERM,
            JoinError::Unreachable { .. } => exit::EX_UNAVAILABLE,
            JoinError::Store { .. } => exit::EX_CANTCREAT,
            _ => exit::EX_DATAERR,
        };
        failure(code, error)
    })?;
    let folder = config.identity_dir.display();
    let provides = identity.identity().provides.join(", ");
    line(
        out,
        &format!(
            "{} has joined and may provide: {provides}; its key and certificate are in {folder}",
            config.name
        ),
    )
}

fn run(config: Config) -> Result<(), Failure> {
    runtime()?.block_on(service::run(config)).map_err(|error| {
        let code = match &error {
            RunError::Identity(_) => exit::EX_NOPERM,
            RunError::Modules(_) | RunError::Policy(_) => exit::EX_CONFIG,
            RunError::Signals(_) => exit::EX_IOERR,
        };
        failure(code, error)
    })
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| failure(exit::EX_IOERR, error))
}

fn failure(code: u8, error: impl std::fmt::Display) -> Failure {
    Failure { code, text: error.to_string() }
}

fn line(out: &mut dyn Write, text: &str) -> Result<(), Failure> {
    writeln!(out, "{text}").map_err(|error| failure(exit::EX_IOERR, error))
}

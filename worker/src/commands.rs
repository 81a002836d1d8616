//! What the command line asks for, done.

mod policy;

use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;

use gantry_link::{JoinToken, NodeIdentity, Role};
use gantry_scanners::registry;

use crate::cli::{Cli, Command};
use crate::config::Config;
use crate::exit::{self, Failure, failure, line};
use crate::service::{self, RunError};
use crate::{demo, operator};

/// Does what the command line says, writing results to `out`.
///
/// # Errors
/// Whatever kept it from being done.
pub fn execute(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    let _log = match &cli.command {
        Command::Run => None, // The configuration says how.
        _ => gantry_daemon::log::start(Default::default()),
    };
    match cli.command {
        Command::Check => {
            let config = load(&cli.config)?;
            let modules =
                registry::build(config.modules).map_err(|error| failure(exit::EX_CONFIG, error))?;
            if let Some(file) = &config.policy {
                policy::load(file, &modules)?;
            }
            for remark in &config.remarks {
                line(out, &format!("{}: {remark}", cli.config.display()))?;
            }
            line(out, &format!("{}: no mistakes", cli.config.display()))
        }
        Command::Join { token, listen } => join(&load(&cli.config)?, &token, listen, out),
        Command::Run => {
            let config = load(&cli.config)?;
            let _log = gantry_daemon::log::start(config.log);
            run(config)
        }
        Command::Operator(command) => operator::execute(&load(&cli.config)?, &command, out),
        Command::Policy { action } => policy::execute(&cli.config, action, out),
        Command::Demo(arguments) => {
            let code = demo::main(arguments);
            if code == exit::OK { Ok(()) } else { Err(Failure { code, text: String::new() }) }
        }
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(exit::mistakes)
}

/// The token says what the node becomes.
fn join(
    config: &Config,
    token: &str,
    listen: Option<SocketAddr>,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let clock = gantry_link::system_clock();
    let (folder, name) = (&config.identity_dir, &config.name);
    let role = match token.parse::<JoinToken>() {
        Ok(token) if token.role == Role::Hook => {
            let text =
                "the token is for a further host: use it there, with `gantry-hook join TOKEN`";
            return Err(failure(exit::EX_USAGE, text));
        }
        Ok(token) => token.role,
        Err(error) => return Err(failure(exit::EX_DATAERR, error)),
    };
    let other = if role == Role::Operator { Role::Worker } else { Role::Operator };
    if NodeIdentity::open(folder, name, other, &clock).is_ok() {
        let text = format!(
            "{name} in {} has joined as {other} already, and the token is for the role {role}: use a file of its own \
             with another name or folder",
            folder.display()
        );
        return Err(failure(exit::EX_USAGE, text));
    }
    let joined = match listen {
        None => runtime()?.block_on(gantry_link::join(token, folder, name, role, &clock)),
        Some(listen) => {
            // On standard error: standard output has the result alone.
            let waiting = |at| eprintln!("gantry: waiting at {at}/udp until the host dials");
            let whom = (name.as_str(), role);
            let joining = gantry_link::join_called(token, listen, waiting, folder, whom, &clock);
            runtime()?.block_on(joining)
        }
    };
    let identity = joined.map_err(|error| failure(error.exit_code(), error))?;
    let what = if role == Role::Operator {
        "has joined as an operator".to_owned()
    } else {
        format!("has joined and may provide: {}", identity.identity().provides.join(", "))
    };
    let folder = folder.display();
    line(out, &format!("{name} {what}; its key and certificate are in {folder}"))
}

fn run(config: Config) -> Result<(), Failure> {
    runtime()?.block_on(service::run(config)).map_err(|error| {
        let code = match &error {
            RunError::Identity(_) => exit::EX_NOPERM,
            RunError::Modules(_) | RunError::Policy(_) => exit::EX_CONFIG,
            RunError::Listen(_) => exit::EX_UNAVAILABLE,
            RunError::Signals(_) => exit::EX_IOERR,
            RunError::Metrics { .. } => exit::EX_UNAVAILABLE,
        };
        failure(code, error)
    })
}

pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    runtime.map_err(|error| failure(exit::EX_IOERR, error))
}

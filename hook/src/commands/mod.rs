//! What the command line asks for, done.

mod authority;
mod check;
mod drain;
mod join;
mod mark;
mod show;

use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use gantry_link::{Authority, AuthorityError, Role, TokenRequest};
use gantry_operator::{Aside, HookStatus, MESSAGES_MAX, Reply, Request};

use crate::admin;
use crate::audit::{Audit, Outcome, Who};
use crate::cli::{self, AsideAction, Cli, Command, Output, TokenArgs};
use crate::config::Config;
use crate::disk::RealDisk;
use crate::exit::{self, Failure, failure, line};
use crate::intake::{Clock, unix_ms};
use crate::service::{self, RunError};
use crate::spool::{Opened, Spool, SpoolError};

/// Does what the command line says, writing results to `out`.
///
/// # Errors
/// Whatever kept it from being done.
pub fn execute(cli: Cli, out: &mut dyn Write) -> Result<(), Failure> {
    if let Command::Mark(arguments) = cli.command {
        // Who marks for an MTA reads the exit code alone; standard output stays empty, since MTAs report what is there.
        return mark::mark(&cli.config, arguments, &mut std::io::stdin().lock()).map(drop);
    }
    let config = load(&cli.config)?;
    let runs = matches!(cli.command, Command::Run);
    let _log = gantry_daemon::log::start(if runs { config.log } else { Default::default() });
    match cli.command {
        Command::Mark(_) => Ok(()),
        Command::Check => check::check(&config, &cli.config.display().to_string(), out),
        Command::Init => init(&config, out),
        Command::Join { token } => join::join(&config, &token, out),
        Command::Token(arguments) => token(&config, arguments, out),
        Command::Authority { action } => authority::authority(&config, action, out),
        Command::Revoke { name } => revoke(&config, &name, out),
        Command::Run => run(config, cli.config),
        Command::Reload => reload(&config, out),
        Command::Drain(arguments) => drain::drain(&config, arguments, out),
        Command::Status(Output { json }) => {
            let status = status(&config)?;
            if json {
                print_json(out, &status)
            } else {
                line(out, show::status(&status).trim_end())
            }
        }
        Command::Quarantine { action } => aside(&config, Aside::Quarantined, action, out),
        Command::Held { action } => aside(&config, Aside::Held, action, out),
    }
}

fn load(path: &Path) -> Result<Config, Failure> {
    Config::load(path).map_err(exit::mistakes)
}

fn init(config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    let folder = config.identity_dir.display();
    if let Some(host) = join::elsewhere(&config.identity_dir) {
        let text = format!(
            "{folder} is that of a node of the cluster at {host}; a cluster of its own needs a folder of its own"
        );
        return Err(Failure { code: exit::EX_USAGE, text });
    }
    match Authority::create(&config.identity_dir, &config.name, gantry_link::system_clock()) {
        Ok(_) => line(
            out,
            &format!(
                "made the cluster's authority and the identity of {} in {folder}",
                config.name
            ),
        ),
        Err(AuthorityError::Exists { .. }) => {
            line(out, &format!("{folder} has an authority already; nothing was changed"))
        }
        Err(error) => Err(failure(exit::EX_CANTCREAT, error)),
    }
}

fn token(config: &Config, arguments: TokenArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let TokenArgs { name, role, provides, expires, advertise, dial } = arguments;
    let role = match role {
        cli::Role::Worker => Role::Worker,
        cli::Role::Operator => Role::Operator,
        cli::Role::Hook => Role::Hook,
    };
    if role != Role::Worker && !provides.is_empty() {
        let text = format!("--provides is for workers, and the token is for the role {role}");
        return Err(Failure { code: exit::EX_USAGE, text });
    }
    let advertise = advertise
        .or_else(|| config.advertise.clone())
        .map_or_else(|| config.listen.to_string(), |endpoint| endpoint.to_string());
    if config.advertise.is_none()
        && config.listen.ip().is_unspecified()
        && advertise == config.listen.to_string()
    {
        let text = format!(
            "a worker cannot dial {advertise}: write advertise = \"HOST:PORT\" in the configuration, or give --advertise"
        );
        return Err(Failure { code: exit::EX_CONFIG, text });
    }
    if role == Role::Worker && provides.is_empty() {
        // On standard error, since the token stands alone on the last line of the output.
        let _ = writeln!(
            std::io::stderr(),
            "gantry-hook: without --provides the worker gets mail of mailboxes that need nothing, and no other"
        );
    }
    let request =
        TokenRequest { mask: name, role, provides, expires_in: expires.as_secs(), advertise };
    let authority = authority(config)?;
    let token =
        authority.issue_token(&request).map_err(|error| failure(exit::EX_CANTCREAT, error))?;
    line(out, &token)?;
    match dial {
        None => Ok(()),
        Some(address) => join::certify(config, authority, &address.to_string(), expires),
    }
}

fn revoke(config: &Config, name: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let count =
        authority(config)?.revoke(name).map_err(|error| failure(exit::EX_DATAERR, error))?;
    // A running hook looks once a second; asking makes it now.
    let told = admin::ask(&config.spool, &Request::Reload).ok().flatten().is_some();
    let effect = if told {
        "the running hook has ended its links"
    } else {
        "it counts from the next start on"
    };
    line(out, &format!("revoked {count} certificate(s) of {name}; {effect}"))
}

fn authority(config: &Config) -> Result<Authority, Failure> {
    let folder = &config.identity_dir;
    if let Some(host) = join::elsewhere(folder) {
        let text = format!(
            "{} has joined a cluster whose authority's key is on another host, to be reached at {host}: give the command there",
            config.name
        );
        return Err(Failure { code: exit::EX_NOINPUT, text });
    }
    let missing = !Authority::is_at(folder);
    Authority::open(folder, gantry_link::system_clock()).map_err(|error| {
        let hint = if missing { "; `gantry-hook init` makes it" } else { "" };
        Failure { code: exit::EX_NOINPUT, text: format!("{error}{hint}") }
    })
}

/// The file was read without mistakes to get here; the running hook reads it itself.
fn reload(config: &Config, out: &mut dyn Write) -> Result<(), Failure> {
    match ask(config, &Request::Reload)? {
        None => {
            let text = "no hook is running; it reads its file when it starts";
            Err(Failure { code: exit::EX_UNAVAILABLE, text: text.to_owned() })
        }
        Some(Reply::Reloaded(restart)) if restart.is_empty() => {
            line(out, "read again: all that has changed counts now")
        }
        Some(Reply::Reloaded(restart)) => {
            let keys = restart.join(", ");
            line(out, &format!("read again; what has changed under {keys} counts after a restart"))
        }
        Some(other) => Err(unexpected(other)),
    }
}

fn run(config: Config, path: std::path::PathBuf) -> Result<(), Failure> {
    let has_identity = config.identity_dir.join(format!("{}.pem", config.name)).exists();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .build()
        .map_err(|error| failure(exit::EX_IOERR, error))?;
    runtime.block_on(service::run(config, path)).map_err(|error| {
        let code = match &error {
            RunError::Spool(_)
            | RunError::Secret { .. }
            | RunError::Signals(_)
            | RunError::Folder { .. }
            | RunError::Pickup { .. } => exit::EX_IOERR,
            RunError::SpoolPanicked { .. } => exit::EX_SOFTWARE,
            RunError::Identity(_) | RunError::Authority(_) => exit::EX_NOPERM,
            RunError::Tls { .. } => exit::EX_CONFIG,
            RunError::Server(_)
            | RunError::Listen { .. }
            | RunError::Admin(_)
            | RunError::Metrics { .. }
            | RunError::Mark(_) => exit::EX_UNAVAILABLE,
        };
        let hint = match &error {
            RunError::Identity(_) if !has_identity => {
                "; run `gantry-hook init` first, or `gantry-hook join TOKEN` for a further host"
            }
            _ => "",
        };
        Failure { code, text: format!("{error}{hint}") }
    })
}

/// Threads that wait for the disk: as many as make syncs come together, and few enough for a small host.
const BLOCKING_THREADS_MAX: usize = 24;

fn status(config: &Config) -> Result<HookStatus, Failure> {
    if let Some(reply) = ask(config, &Request::Status)? {
        return match reply {
            Reply::Status(status) => Ok(*status),
            other => Err(unexpected(other)),
        };
    }
    let mut status = HookStatus {
        host: config.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        mailboxes: config.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect(),
        ..HookStatus::default()
    };
    (status.certificates, status.warnings) = authority::own_certificates(config);
    let Some(opened) = open(config)? else { return Ok(status) };
    status.epoch = opened.epoch;
    let now = Clock::start().now();
    let shelved = opened.spool.list_shelved(|_| true, MESSAGES_MAX);
    status.pool = service::pool_of(config, opened.found, opened.epoch, now).status(
        MESSAGES_MAX,
        &shelved,
        now,
    );
    Ok(status)
}

fn aside(
    config: &Config,
    aside: Aside,
    action: AsideAction,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let (request, json) = match &action {
        AsideAction::List(Output { json }) => (Request::List { aside }, *json),
        AsideAction::Show { id, output } => {
            (Request::Show { aside, id: id.to_string() }, output.json)
        }
        AsideAction::Release { id, as_is, reason } => {
            let (id, reason) = (id.to_string(), reason.clone());
            (Request::Release { aside, id, as_is: *as_is, reason }, false)
        }
        AsideAction::Delete { id, reason } => {
            (Request::Delete { aside, id: id.to_string(), reason: reason.clone() }, false)
        }
    };
    let reply = match ask(config, &request)? {
        Some(reply) => reply,
        None => offline(config, request)?,
    };
    match reply {
        Reply::List(listed) if json => print_json(out, &listed),
        Reply::List(listed) if listed.is_empty() => {
            line(out, &format!("nothing is {}", aside.word()))
        }
        Reply::List(listed) => {
            line(out, gantry_operator::show::list(&listed, aside).aligned().trim_end())
        }
        Reply::Show(shown) if json => print_json(out, &shown),
        Reply::Show(shown) => line(out, gantry_operator::show::shown(&shown).trim_end()),
        Reply::Done => match action {
            AsideAction::Delete { id, .. } => line(out, &format!("deleted {id}")),
            AsideAction::Release { id, as_is: true, .. } => {
                line(out, &format!("{id} is on its way as it is"))
            }
            AsideAction::Release { id, .. } => {
                line(out, &format!("{id} is back in the pool and will be processed again"))
            }
            _ => Ok(()),
        },
        other => Err(unexpected(other)),
    }
}

/// What an operator wants while no hook runs: the spool's lock is taken instead.
fn offline(config: &Config, request: Request) -> Result<Reply, Failure> {
    let Some(opened) = open(config)? else {
        return Ok(match request {
            Request::List { .. } => Reply::List(Vec::new()),
            _ => Reply::Refused("there is no spool yet, so no message is set aside".to_owned()),
        });
    };
    let mailboxes: Vec<String> =
        config.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
    Ok(match request {
        Request::List { aside } => Reply::List(admin::list(&opened.spool, &mailboxes, aside)),
        Request::Show { aside, id } => admin::show(&opened.spool, &mailboxes, aside, &id),
        Request::Release { as_is: true, .. } => Reply::Refused(
            "no hook is running that could hand it on; start it, and give the command again"
                .to_owned(),
        ),
        Request::Release { aside, ref id, .. } | Request::Delete { aside, ref id, .. } => {
            let release = matches!(request, Request::Release { .. });
            let audit = Audit::new(RealDisk, &config.spool);
            let note = |outcome: Outcome<'_>| {
                audit
                    .append(unix_ms(), &Who::local(), &request, outcome)
                    .map_err(|error| failure(exit::EX_IOERR, error))
            };
            note(Outcome::Begun)?;
            let reply = admin::change(&opened.spool, aside, id, release);
            note(match &reply {
                Reply::Refused(reason) => Outcome::Refused(reason),
                _ => Outcome::Done,
            })?;
            reply
        }
        Request::Status
        | Request::Reload
        | Request::Queue { .. }
        | Request::Message { .. }
        | Request::Manage { .. }
        | Request::Drain { .. } => Reply::Refused("no hook is running".to_owned()),
    })
}

fn ask(config: &Config, request: &Request) -> Result<Option<Reply>, Failure> {
    admin::ask(&config.spool, request).map_err(|error| failure(exit::EX_UNAVAILABLE, error))
}

/// Opens the spool for one command; `None` where no hook has made one yet.
fn open(config: &Config) -> Result<Option<Opened<RealDisk>>, Failure> {
    let spool = config.spool.display();
    let owner = match std::fs::metadata(&config.spool) {
        Ok(folder) => folder.uid(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(failure(exit::EX_IOERR, format!("look at spool {spool}: {error}")));
        }
    };
    if owner != rustix::process::geteuid().as_raw() {
        // What another user, root among them, writes here, the hook could not use afterwards.
        let text = format!(
            "open spool {spool}: it belongs to the user with the number {owner}; give this command as that user, \
             for instance with `sudo -u '#{owner}'`"
        );
        return Err(failure(exit::EX_NOPERM, text));
    }
    let names: Vec<String> = config.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
    let options = service::spool_options(config, Clock::start());
    Spool::open(RealDisk, &config.spool, &names, options)
        .map(Some)
        .map_err(|error: SpoolError| failure(exit::EX_IOERR, error))
}

fn unexpected(reply: Reply) -> Failure {
    match reply {
        Reply::Refused(reason) => Failure { code: exit::EX_DATAERR, text: reason },
        other => Failure {
            code: exit::EX_SOFTWARE,
            text: format!("the running hook answered {other:?}"),
        },
    }
}

fn print_json(out: &mut dyn Write, value: &impl serde::Serialize) -> Result<(), Failure> {
    let text = serde_json::to_string(value).map_err(|error| failure(exit::EX_SOFTWARE, error))?;
    line(out, &text)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use std::fs;

    use super::*;

    const CONFIG: &str = r#"
name = "mx1"
spool = "spool"
listen = "127.0.0.1:4733"
[[mailbox]]
name = "mail.box"
intake = { type = "smtp", listen = "127.0.0.1:10025" }
release = { type = "smtp", address = "127.0.0.1:10026" }
needs = []
custody = "hook"
when_unprocessed = "wait"
"#;

    #[test]
    fn commands_make_no_spool_and_leave_that_of_another_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (file, spool) = (folder.path().join("hook.toml"), folder.path().join("spool"));
        fs::write(&file, CONFIG).unwrap();
        let config = Config::load(&file).unwrap();
        let list = || offline(&config, Request::List { aside: Aside::Held });
        assert_eq!(status(&config).unwrap().epoch, 0);
        assert!(matches!(list(), Ok(Reply::List(listed)) if listed.is_empty()));
        assert!(!spool.exists());

        if !rustix::process::geteuid().is_root() {
            return println!("skipped for another user's spool: only root can make one");
        }
        fs::create_dir(&spool).unwrap();
        std::os::unix::fs::chown(&spool, Some(65_534), None).unwrap();
        for refused in [status(&config).map(drop), list().map(drop)] {
            let Failure { code, text } = refused.unwrap_err();
            assert!(code == exit::EX_NOPERM && text.contains("65534"), "{text}");
        }
        assert_eq!(fs::read_dir(&spool).unwrap().count(), 0);
        std::os::unix::fs::chown(&spool, Some(0), None).unwrap();
        assert!(list().is_ok() && spool.join("lock").exists());
    }
}

//! The cluster's authority in an administrator's hands: who has which certificate, rotation, the key offline.

use std::fs::File;
use std::io::{self, BufRead, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use gantry_link::{Authority, AuthorityError, NodeIdentity, Role, SealError, system_clock};
use gantry_operator::show::{certificates, certificates_table};
use gantry_operator::{CertificateStatus, Request};
use rustix::termios::{LocalModes, OptionalActions, isatty, tcgetattr, tcsetattr};

use crate::admin;
use crate::cli::{AuthorityAction, Output, PassphraseArgs};
use crate::config::Config;
use crate::exit::{self, Failure, failure, line};
use crate::service::certificates::{Looked, looked_at};

/// A passphrase is at most so long, in bytes: a line that somebody types.
const PASSPHRASE_BYTES_MAX: u64 = 1_024;
/// And at least so long: who has the file may guess as long as they like.
const PASSPHRASE_BYTES_MIN: usize = 8;

/// Does what is asked; a running hook takes it up at once.
///
/// # Errors
/// Whatever kept it from being done.
pub(super) fn authority(
    config: &Config,
    action: AuthorityAction,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let authority = super::authority(config)?;
    match action {
        AuthorityAction::Status(Output { json }) => return status(config, &authority, json, out),
        AuthorityAction::Rotate => {
            let id = authority.rotate().map_err(told)?;
            line(
                out,
                &format!(
                    "made the authority {id}; the former one stays trusted. Workers and hosts move to the new one by themselves, \
                     operators with their next command. Tokens that were not used are void. See `gantry-hook authority status`, \
                     and when all have moved give `gantry-hook authority retire`"
                ),
            )?;
        }
        AuthorityAction::Retire { force } => {
            // Its own certificate is the first that has to move.
            authority.renew_host(&config.name).map_err(told)?;
            let left = authority.retire(force).map_err(told)?;
            let left = match left {
                0 => String::new(),
                left => format!(
                    "; {left} certificates count no more, and their nodes join again with a token"
                ),
            };
            line(out, &format!("the former authority is trusted no more{left}"))?;
        }
        AuthorityAction::Export { file, issue_for, passphrase } => {
            let words = passphrase_of(&passphrase, true)?;
            let issuing = authority.export(&file, &words, issue_for.as_secs()).map_err(told)?;
            line(
                out,
                &format!(
                    "the authority's key is in {} and nowhere else: copy it to where it is safe, try the copy, and remove the file. \
                     Another key certifies in its place for {} days. What was on this disk may be recovered from it, \
                     from its snapshots and its backups",
                    file.display(),
                    issuing.expires.saturating_sub(system_clock()()) / 86_400
                ),
            )?;
        }
        AuthorityAction::Import { file, passphrase } => {
            let words = passphrase_of(&passphrase, false)?;
            let id = authority.import(&file, &words).map_err(told)?;
            line(out, &format!("the key of the authority {id} is back"))?;
        }
    }
    // A running hook looks once a second; asking makes it now. Where none runs, the next start takes it up.
    let _ = admin::ask(&config.spool, &Request::Reload);
    Ok(())
}

/// What the status shows while no hook runs: the authorities, and this host's own certificate.
pub(super) fn own_certificates(config: &Config) -> (Vec<CertificateStatus>, Vec<String>) {
    let (folder, clock) = (&config.identity_dir, system_clock());
    let Ok(identity) = NodeIdentity::open(folder, &config.name, Role::Hook, &clock) else {
        return Default::default(); // Starting the hook says why.
    };
    let at_home = Authority::is_at(folder);
    let state = Authority::open(folder, system_clock()).and_then(|authority| authority.state());
    let state = state.unwrap_or_else(|_| identity.trust().state());
    let own = Looked::node(identity.identity(), &state, clock());
    let all: Vec<Looked> = looked_at(&state, at_home, clock()).chain([own]).collect();
    let warnings = all.iter().filter_map(Looked::warning).collect();
    (all.into_iter().map(Looked::status).collect(), warnings)
}

/// The authorities, and the newest certificate of each node.
fn status(
    config: &Config,
    authority: &Authority,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let now = system_clock()();
    let nodes = authority.certificates().map_err(told)?;
    let state = authority.state().map_err(told)?;
    let nodes = nodes.iter().map(|node| Looked::issued(node, now));
    let all: Vec<CertificateStatus> =
        looked_at(&state, true, now).chain(nodes).map(Looked::status).collect();
    if json {
        return super::print_json(out, &all);
    }
    let mut table = certificates_table();
    certificates(&mut table, &config.name, &all);
    line(out, table.aligned().trim_end())
}

fn told(error: AuthorityError) -> Failure {
    let code = match &error {
        AuthorityError::Seal(SealError::Passphrase) => exit::EX_NOPERM,
        AuthorityError::Seal(_) | AuthorityError::ForeignKey { .. } => exit::EX_DATAERR,
        AuthorityError::FileExists { .. } => exit::EX_CANTCREAT,
        AuthorityError::File { .. } => exit::EX_IOERR,
        AuthorityError::Offline { .. } | AuthorityError::RootOffline { .. } => exit::EX_NOINPUT,
        AuthorityError::StillUsed { .. } => exit::EX_TEMPFAIL,
        _ => exit::EX_USAGE,
    };
    failure(code, error)
}

/// The first line of the file that was named, or what is typed on the terminal; twice for a `new` one.
fn passphrase_of(arguments: &PassphraseArgs, new: bool) -> Result<Vec<u8>, Failure> {
    let words = match &arguments.passphrase_file {
        Some(path) => read_line(path)?,
        None => {
            let typed = type_unseen("passphrase: ")?;
            if new && type_unseen("the same again: ")? != typed {
                return Err(failure(
                    exit::EX_USAGE,
                    "the two passphrases differ; nothing was changed",
                ));
            }
            typed
        }
    };
    if new && words.len() < PASSPHRASE_BYTES_MIN {
        let text = format!(
            "the passphrase is too short: at least {PASSPHRASE_BYTES_MIN} bytes, better five words; nothing was changed"
        );
        return Err(failure(exit::EX_USAGE, text));
    }
    Ok(words.into_bytes())
}

fn read_line(path: &Path) -> Result<String, Failure> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(PASSPHRASE_BYTES_MAX).read_to_string(&mut text))
        .map_err(|error| failure(exit::EX_NOINPUT, format!("read {}: {error}", path.display())))?;
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// A line from the terminal, which does not show it.
fn type_unseen(prompt: &str) -> Result<String, Failure> {
    let stdin = io::stdin();
    if !isatty(stdin.as_fd()) {
        let text =
            "there is no terminal to type the passphrase on: name a file with --passphrase-file";
        return Err(failure(exit::EX_USAGE, text));
    }
    let broken = |error: io::Error| failure(exit::EX_IOERR, format!("use the terminal: {error}"));
    let shown = tcgetattr(stdin.as_fd()).map_err(|error| broken(error.into()))?;
    let mut unseen = shown.clone();
    unseen.local_modes.remove(LocalModes::ECHO);
    let mut terminal = io::stderr();
    write!(terminal, "{prompt}").and_then(|()| terminal.flush()).map_err(broken)?;
    tcsetattr(stdin.as_fd(), OptionalActions::Flush, &unseen).map_err(|e| broken(e.into()))?;
    let mut typed = String::new();
    let read = stdin.lock().take(PASSPHRASE_BYTES_MAX).read_line(&mut typed);
    // Before anything else can fail; a terminal that does not echo is of no use to anybody.
    let _ = tcsetattr(stdin.as_fd(), OptionalActions::Flush, &shown);
    let _ = writeln!(terminal);
    read.map_err(broken)?;
    Ok(typed.trim_end_matches(['\r', '\n']).to_owned())
}

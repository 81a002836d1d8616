//! The command line of `gantry-hook`: what may be said, not what is done.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use gantry_link::NameMask;
use gantry_protocol::id::MessageId;

use crate::exit::{EX_TEMPFAIL, EX_USAGE, OK};

/// Takes mail in on a mail host, has it processed by workers, and hands it on.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "gantry-hook", version, after_help = EXAMPLES)]
pub struct Cli {
    /// The configuration file; keys and certificates lie beside it
    #[arg(long, short, value_name = "FILE", default_value = "hook.toml", global = true)]
    pub config: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples, from a fresh file to a running host with one worker:
  gantry-hook --config hook.toml check
  gantry-hook --config hook.toml init
  gantry-hook --config hook.toml run
  gantry-hook --config hook.toml token --name pc-1 --role worker --provides virus
  gantry-hook --config hook.toml status

Exit codes are those of sysexits.h: 0 done, 64 wrong command line, 69 no hook is
running, 75 try again later, 77 refused, 78 wrong configuration.";

impl Cli {
    /// Parses the command line of this process. Prints what there is to say instead: help, the version, a mistake.
    ///
    /// # Errors
    /// The code to exit with: [`OK`] after help and the version, [`EX_USAGE`] after a mistake, with `mark`
    /// [`EX_TEMPFAIL`].
    pub fn from_command_line() -> Result<Self, u8> {
        Self::try_parse().map_err(|said| {
            // There is nobody left to tell that the terminal is gone.
            let _ = said.print();
            // An MTA returns the message for any code but this, and a wrong command line is no fault of the message's.
            let marks = std::env::args_os().any(|argument| argument == "mark");
            match said.use_stderr() {
                true if marks => EX_TEMPFAIL,
                true => EX_USAGE,
                false => OK,
            }
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Make the cluster's certificate authority and this host's identity
    #[command(after_help = "Does nothing to what is already there.")]
    Init,
    /// Join the cluster of another host with a one-time token, instead of `init`
    #[command(after_help = JOIN_EXAMPLES)]
    Join {
        /// What `gantry-hook token --role hook` printed on its last line, on the first host
        token: String,
    },
    /// Tell every mistake in the configuration; start nothing
    Check,
    /// Print a one-time token with which a worker, operator or further host joins
    #[command(after_help = TOKEN_EXAMPLES)]
    Token(TokenArgs),
    /// Put the message on standard input into the pool
    #[command(after_help = MARK_EXAMPLES)]
    Mark(MarkArgs),
    /// Run the hook until it is told to stop (SIGTERM, SIGINT)
    Run,
    /// Take no more mail, let workers finish what is there, and end the running hook
    #[command(after_help = DRAIN_EXAMPLES)]
    Drain(DrainArgs),
    /// Let the running hook read its file again, as SIGHUP does: policies and workers to dial
    #[command(after_help = RELOAD_NOTE)]
    Reload,
    /// Show workers, profiles, backlog and messages of the running hook
    Status(Output),
    /// Take a certificate's rights away, at once and for ever
    #[command(after_help = "Example:\n  gantry-hook --config hook.toml revoke pc-1")]
    Revoke {
        /// The name of a worker, operator or further host
        #[arg(value_parser = name)]
        name: String,
    },
    /// The cluster's authority: who has which certificate, rotation, its key offline
    #[command(after_help = AUTHORITY_EXAMPLES)]
    Authority {
        #[command(subcommand)]
        action: AuthorityAction,
    },
    /// Messages kept from their recipients because something was found
    Quarantine {
        #[command(subcommand)]
        action: AsideAction,
    },
    /// Messages set aside because they could not be processed or delivered
    Held {
        #[command(subcommand)]
        action: AsideAction,
    },
}

const AUTHORITY_EXAMPLES: &str = "\
On the host that gave `init`, also while the hook runs. A new authority for all nodes:
  gantry-hook --config hook.toml authority rotate
  gantry-hook --config hook.toml authority status
  gantry-hook --config hook.toml authority retire

The authority's key in a safe, and back for a rotation or when its time is over:
  gantry-hook --config hook.toml authority export /media/safe/authority.key --issue-for 365d
  gantry-hook --config hook.toml authority import /media/safe/authority.key";

const RELOAD_NOTE: &str = "\
Takes up `policy`, `policy_also` and `[[worker]]`, certificates and revocations. Says which
other keys have changed: they count after a restart. A file with mistakes changes nothing.";

const JOIN_EXAMPLES: &str = "\
Example, on the first host and then on the second:
  gantry-hook --config hook.toml token --name mx2 --role hook
  gantry-hook --config hook2.toml join TOKEN

The host gets an identity of its own and serves the cluster's workers. The key of the
cluster's authority stays where it is: tokens are made and names revoked there.";

const TOKEN_EXAMPLES: &str = "\
Examples:
  gantry-hook --config hook.toml token --name pc-1 --role worker --provides virus --expires 1h
  gantry-hook --config hook.toml token --name 'pc-*' --role worker --provides virus --provides spam
  gantry-hook --config hook.toml token --name mx2 --role hook
  gantry-hook --config hook.toml token --name pc-1 --provides virus --dial pc-1.example.com:4734

The token is the last line of the output, alone. It works once. Also while the hook runs.";

const MARK_EXAMPLES: &str = "\
Example:
  gantry-hook --config hook.toml mark --mailbox mail.box -f a@example.com -- b@example.net < message

Works while the hook runs and while it does not. Exits with 0 only when the message is
stored durably, with 65 when this message can never be taken, and otherwise with 75:
try again later.";

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct MarkArgs {
    /// The mailbox; one in the hook's custody
    #[arg(long, value_name = "NAME")]
    pub mailbox: String,
    /// The sender's address; '' or '<>' for the null sender
    #[arg(short = 'f', long = "from", value_name = "SENDER", allow_hyphen_values = true)]
    pub sender: String,
    /// The recipients' addresses
    #[arg(value_name = "RCPT", required = true, last = true)]
    pub recipients: Vec<String>,
}

const DRAIN_EXAMPLES: &str = "\
Examples, before the program or the machine is changed:
  gantry-hook --config hook.toml drain --within 10m
  gantry-hook --config hook.toml drain --cancel

Senders are told 421 and come again; pickup folders fill up; `mark` exits with 75. Messages
that the next server defers do not keep the hook. What is left stays in the spool.
Exits with 0 when the hook has ended.";

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DrainArgs {
    /// End after this time whatever is left; without it, when nothing waits any more
    #[arg(long, value_name = "TIME", value_parser = within)]
    pub within: Option<Duration>,
    /// Take it back: mail is taken in again
    #[arg(long, conflicts_with = "within")]
    pub cancel: bool,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct TokenArgs {
    /// The name that may join, or a mask such as 'pc-*'
    #[arg(long, value_name = "NAME")]
    pub name: NameMask,
    /// What the certificate is for
    #[arg(long, value_enum, default_value = "worker")]
    pub role: Role,
    /// A need that the worker may meet; repeat it or separate several by commas
    #[arg(long, value_name = "NEED", value_parser = need, value_delimiter = ',')]
    pub provides: Vec<String>,
    /// How long the token can be used
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = expiry)]
    pub expires: Duration,
    /// The address that the worker shall dial, instead of the configuration's
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    pub advertise: Option<gantry_config::Endpoint>,
    /// Then dial the node at this address, where it waits with `gantry join --listen`, until it has joined
    #[arg(long, value_name = "HOST:PORT", value_parser = endpoint)]
    pub dial: Option<gantry_config::Endpoint>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Role {
    Worker,
    Operator,
    /// A further mail host
    Hook,
}

/// What to do with the authority.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AuthorityAction {
    /// Show the authorities, and the newest certificate of each node with its end
    Status(Output),
    /// Make a new authority; both are trusted while all nodes move to it
    Rotate,
    /// End the trust in the former authority
    Retire {
        /// Also while nodes have certificates of it; they join again then
        #[arg(long)]
        force: bool,
    },
    /// Move the authority's key into a file, sealed with a passphrase; another certifies for a time
    Export {
        /// A new file, which is to be kept where no network reaches it
        file: PathBuf,
        /// How long certificates can be made without the key
        #[arg(long, value_name = "TIME", default_value = "365d", value_parser = issue_for)]
        issue_for: Duration,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
    /// Bring the authority's key back
    Import {
        /// What `export` wrote
        file: PathBuf,
        #[command(flatten)]
        passphrase: PassphraseArgs,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct PassphraseArgs {
    /// Take the passphrase from the first line of a file instead of the terminal
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
}

/// What to do with messages that were set aside.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AsideAction {
    /// List them, oldest first
    List(Output),
    /// Show one: envelope, header block, reasons and findings
    Show {
        /// The message, such as 3-1a7
        id: MessageId,
        #[command(flatten)]
        output: Output,
    },
    /// Put one back into the pool, to be processed again
    Release {
        /// The message, such as 3-1a7
        id: MessageId,
        /// Hand it on without that, as it came in, whatever was found
        #[arg(long, requires = "reason")]
        as_is: bool,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
    },
    /// Delete one for ever
    Delete {
        /// The message, such as 3-1a7
        id: MessageId,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT", value_parser = reason)]
        reason: Option<String>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Args)]
pub struct Output {
    /// Print JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

fn name(text: &str) -> Result<String, String> {
    gantry_config::check_name(text).map(|()| text.to_owned()).map_err(str::to_owned)
}

fn need(text: &str) -> Result<String, String> {
    gantry_config::check_need(text).map(|()| text.to_owned()).map_err(str::to_owned)
}

fn reason(text: &str) -> Result<String, String> {
    let bytes_max = gantry_operator::REASON_BYTES_MAX;
    if text.len() > bytes_max {
        return Err(format!("a reason has at most {bytes_max} bytes"));
    }
    Ok(text.to_owned())
}

fn expiry(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 60 * 60);
    match gantry_config::duration(text) {
        Some(time) if time >= Duration::from_secs(1) && time <= 30 * day => Ok(time),
        Some(_) => Err("a token can be used for 1s to 30d".to_owned()),
        None => Err("a time is a whole number and s, m, h or d, such as 1h".to_owned()),
    }
}

fn within(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 60 * 60);
    match gantry_config::duration(text) {
        Some(time) if time >= Duration::from_secs(1) && time <= day => Ok(time),
        Some(_) => Err("a drain takes 1s to 1d".to_owned()),
        None => Err("a time is a whole number and s, m, h or d, such as 10m".to_owned()),
    }
}

fn issue_for(text: &str) -> Result<Duration, String> {
    let day = Duration::from_secs(24 * 60 * 60);
    match gantry_config::duration(text) {
        Some(time) if time >= day && time <= 3_650 * day => Ok(time),
        Some(_) => Err("certificates can be made without the key for 1d to 3650d".to_owned()),
        None => Err("a time is a whole number and s, m, h or d, such as 365d".to_owned()),
    }
}

fn endpoint(text: &str) -> Result<gantry_config::Endpoint, String> {
    text.parse().map_err(str::to_owned)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn a_token_as_the_documentation_writes_it() {
        let line = "gantry-hook --config h.toml token --name pc-1 --role worker --provides virus,spam --expires 1h";
        let cli = parse(line).unwrap();
        assert_eq!(cli.config, PathBuf::from("h.toml"));
        let Command::Token(token) = cli.command else { panic!("{cli:?}") };
        assert_eq!(token.name, "pc-1".parse().unwrap());
        assert_eq!(token.role, Role::Worker);
        assert_eq!(token.provides, ["virus", "spam"]);
        assert_eq!(token.expires, Duration::from_secs(3600));
        assert_eq!(token.advertise, None);
    }

    #[test]
    fn mark_takes_any_address_for_what_it_is() {
        let cli = parse("gantry-hook mark --mailbox m -f -x@a -- -y@b c@d").unwrap();
        let Command::Mark(mark) = cli.command else { panic!("{cli:?}") };
        assert_eq!((mark.mailbox.as_str(), mark.sender.as_str()), ("m", "-x@a"));
        assert_eq!(mark.recipients, ["-y@b", "c@d"]);
        let line = ["gantry-hook", "mark", "--mailbox", "m", "-f", "", "--", "a@b"];
        assert!(Cli::try_parse_from(line).is_ok(), "the null sender");
        assert!(parse("gantry-hook mark --mailbox m -f a@b --").is_err(), "nobody");
    }

    #[test]
    fn a_further_host_joins_with_a_token() {
        let cli = parse("gantry-hook --config hook2.toml join gantry-token-x").unwrap();
        assert_eq!(cli.command, Command::Join { token: "gantry-token-x".to_owned() });
        let cli = parse("gantry-hook token --name mx2 --role hook").unwrap();
        let Command::Token(token) = cli.command else { panic!("{cli:?}") };
        assert_eq!((token.role, token.provides.len()), (Role::Hook, 0));
    }

    #[test]
    fn messages_set_aside_are_named_by_their_id() {
        let id = MessageId { epoch: 3, counter: 0x1a7 };
        assert_eq!(
            parse("gantry-hook held release 3-1a7").unwrap().command,
            Command::Held { action: AsideAction::Release { id, as_is: false, reason: None } }
        );
        assert_eq!(
            parse("gantry-hook quarantine show 3-1a7 --json").unwrap().command,
            Command::Quarantine { action: AsideAction::Show { id, output: Output { json: true } } }
        );
    }

    #[test]
    fn the_authoritys_key_goes_for_a_year_unless_told_otherwise() {
        let cli = parse("gantry-hook authority export /safe/key").unwrap();
        let Command::Authority { action: AuthorityAction::Export { issue_for, .. } } = cli.command
        else {
            panic!("{cli:?}")
        };
        assert_eq!(issue_for, Duration::from_secs(365 * 86_400));
        assert!(parse("gantry-hook authority export /safe/key --issue-for 1h").is_err());
        let retire = Command::Authority { action: AuthorityAction::Retire { force: true } };
        assert_eq!(parse("gantry-hook authority retire --force").unwrap().command, retire);
    }

    #[test]
    fn wrong_lines_are_refused_with_the_reason() {
        for (line, reason) in [
            ("gantry-hook token", "--name"),
            ("gantry-hook token --name PC", "is no name or mask"),
            ("gantry-hook token --name a --provides a.b", "no dots"),
            ("gantry-hook token --name a --expires 10", "whole number"),
            ("gantry-hook token --name a --expires 31d", "1s to 30d"),
            ("gantry-hook token --name a --advertise mx1", "it has no port"),
            ("gantry-hook held release x", "is no message id"),
            ("gantry-hook held release 3-1 --as-is", "--reason <TEXT>"),
            ("gantry-hook revoke ..", "starts and ends"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.to_string().contains(reason), "{line}: {error}");
        }
        for mask in ["*", "*.lab", "pc-*", "pc-1"] {
            assert!(parse(&format!("gantry-hook token --name {mask}")).is_ok(), "{mask}");
        }
    }
}

//! The command line of `gantry`: what may be said, not what is done.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::exit::{EX_USAGE, OK};
use crate::operator::args::OperatorCommand;

/// Takes marked messages from mail hosts, processes them, and returns them.
#[derive(Clone, Debug, PartialEq, Eq, Parser)]
#[command(name = "gantry", version, after_help = EXAMPLES)]
pub struct Cli {
    /// The configuration file; the key and certificate lie beside it
    #[arg(long, short, value_name = "FILE", default_value = "worker.toml", global = true)]
    pub config: PathBuf,
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  gantry demo                               see it work, on this machine, in a minute
  gantry --config worker.toml check         tell every mistake in the configuration
  gantry --config worker.toml join TOKEN    join; `gantry-hook token` prints the TOKEN
  gantry --config worker.toml run           work until told to stop
  gantry --config operator.toml status      see all hosts and workers, as an operator

Exit codes are those of sysexits.h: 0 done, 64 wrong command line, 69 no host
answers, 70 a demo that lost mail, 77 refused, 78 wrong configuration.";

impl Cli {
    /// Parses the command line of this process. Prints what there is to say instead: help, the version, a mistake.
    ///
    /// # Errors
    /// The code to exit with: [`OK`] after help and the version, [`EX_USAGE`] after a mistake.
    pub fn from_command_line() -> Result<Self, u8> {
        Self::try_parse().map_err(|said| {
            // There is nobody left to tell that the terminal is gone.
            let _ = said.print();
            if said.use_stderr() { EX_USAGE } else { OK }
        })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Join a host with a one-time token
    #[command(after_help = JOIN_EXAMPLES)]
    Join {
        /// What `gantry-hook token` printed on its last line
        token: String,
        /// Wait at this UDP address until the host dials it, rather than dial the host
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<SocketAddr>,
    },
    /// Tell every mistake in the configuration; start and connect nothing
    Check,
    /// Work until told to stop: once finishes what it has, twice leaves at once
    Run,
    /// Check the policy file, or try it on a message
    Policy {
        #[command(subcommand)]
        action: PolicyAction,
    },
    /// Show a host, workers and a takeover with real mail, as processes of their own
    #[command(after_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    #[command(flatten)]
    Operator(OperatorCommand),
}

#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum PolicyAction {
    /// Tell every mistake in a policy file, and its digest
    Check {
        /// The policy file; without it the one that the configuration names
        file: Option<PathBuf>,
    },
    /// Run the modules on a message and show what the policy makes of it; nothing is sent
    #[command(after_help = POLICY_EXAMPLES)]
    Test(PolicyTestArgs),
}

const JOIN_EXAMPLES: &str = "\
Examples:
  gantry --config worker.toml join TOKEN
  gantry --config worker.toml join --listen 0.0.0.0:4734 TOKEN

With --listen it waits for a host that it cannot reach, which is to be told to dial it:
  gantry-hook --config hook.toml token --name pc-1 --provides virus --dial pc-1.example.com:4734";

const POLICY_EXAMPLES: &str = "\
Examples:
  gantry policy check policy.toml
  gantry policy test message.eml -f sender@example.org -t boss@example.com
  gantry policy test message.eml -f '' -t a@example.com b@example.com --json";

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct PolicyTestArgs {
    /// The message, as it would come by SMTP; LF at line ends is taken for CRLF
    pub message: PathBuf,
    /// The envelope's sender; '' is the null sender
    #[arg(long, short, value_name = "SENDER")]
    pub from: String,
    /// The envelope's recipients
    #[arg(long, short, value_name = "RECIPIENT", required = true, num_args = 1..)]
    pub to: Vec<String>,
    /// The mailbox through which it would come
    #[arg(long, value_name = "NAME", default_value = "test")]
    pub mailbox: String,
    /// What the mailbox needs; without it all that the modules provide
    #[arg(long, value_name = "NEED", value_delimiter = ',')]
    pub needs: Option<Vec<String>>,
    /// The client's address
    #[arg(long, value_name = "ADDRESS")]
    pub client: Option<std::net::IpAddr>,
    /// Try this policy file rather than the one that the configuration names
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

const DEMO_EXAMPLES: &str = "\
Examples:
  gantry demo
  gantry demo --mail ~/Maildir/cur --keep demo-run
  gantry demo --mail archive.mbox --json | tail -n 1

Exits 0 only if no message was lost, none left unprocessed, and a takeover happened.";

#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct DemoArgs {
    /// Send this mail, a folder of messages or an mbox file, instead of what the demo makes
    #[arg(long, value_name = "DIR-OR-MBOX")]
    pub mail: Option<PathBuf>,
    /// Print JSON; its last line is one object with the result
    #[arg(long)]
    pub json: bool,
    /// How many messages are sent
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub messages: u32,
    /// How many workers there are; one of them is killed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub workers: u8,
    /// Keep everything in this folder, which must be new or empty
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use crate::operator::args::MessageRef;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_sound() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn the_lines_that_the_documentation_shows() {
        let cli = parse("gantry --config w.toml join gantry-token").unwrap();
        assert_eq!(cli.config, PathBuf::from("w.toml"));
        assert_eq!(cli.command, Command::Join { token: "gantry-token".to_owned(), listen: None });
        let cli = parse("gantry join --listen 0.0.0.0:4734 gantry-token").unwrap();
        let listen = Some("0.0.0.0:4734".parse().unwrap());
        assert_eq!(cli.command, Command::Join { token: "gantry-token".to_owned(), listen });
        assert_eq!(parse("gantry run").unwrap().config, PathBuf::from("worker.toml"));
        let Command::Demo(demo) = parse("gantry demo").unwrap().command else { panic!() };
        let expected = DemoArgs { mail: None, json: false, messages: 300, workers: 3, keep: None };
        assert_eq!(demo, expected);
    }

    #[test]
    fn operators_name_messages_by_host_and_id() {
        let id = gantry_protocol::id::MessageId { epoch: 3, counter: 0x1a7 };
        for (text, host) in [("3-1a7", None), ("mx1/3-1a7", Some("mx1".to_owned()))] {
            let command = parse(&format!("gantry message {text}")).unwrap().command;
            let Command::Operator(OperatorCommand::Message { message, .. }) = command else {
                panic!("{command:?}")
            };
            assert_eq!(message, MessageRef { host, id });
        }
        for (line, reason) in [
            ("gantry message x", "is no message id"),
            ("gantry quarantine release mx1/", "is no message id"),
            ("gantry drain PC!", "a name"),
            ("gantry queue --state lost", "possible values"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.to_string().contains(reason), "{line}: {error}");
        }
    }

    #[test]
    fn a_demo_needs_somebody_to_take_over() {
        let error = parse("gantry demo --workers 1").unwrap_err();
        assert!(error.to_string().contains("2..=16"), "{error}");
        assert!(parse("gantry demo --messages 0").is_err());
        assert!(parse("gantry").is_err());
    }
}

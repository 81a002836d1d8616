//! What operators may say on the command line.

use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use gantry_operator::{Aside, Order, QueueState, REASON_BYTES_MAX};
use gantry_protocol::id::MessageId;

/// For operators: at all hosts of the file, with an operator's certificate.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum OperatorCommand {
    /// Show hosts, workers, engines and what waits
    Status {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        output: Output,
    },
    /// List messages and where each is
    #[command(after_help = "Example:\n  gantry --config operator.toml queue --state waiting,held")]
    Queue {
        /// Only those in this state; repeat it or separate several by commas
        #[arg(long, value_enum, value_delimiter = ',', value_name = "STATE")]
        state: Vec<State>,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        output: Output,
    },
    /// Tell a message's life, step by step
    Message {
        /// The message, such as 3-1a7 or mx1/3-1a7
        message: MessageRef,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        output: Output,
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
    /// Let a worker get messages again, or a host that is being drained take mail again
    Ready(Node),
    /// Give a worker nothing more until it is made ready; what it holds it finishes
    NotReady(Node),
    /// Let a worker, or a host, finish what it has and end
    #[command(after_help = DRAIN)]
    Drain(Node),
    /// Show hosts and workers live, once a second
    Top {
        /// Show one picture and end
        #[arg(long)]
        once: bool,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Args)]
pub struct At {
    /// Only this host of the file, by its name or address
    #[arg(long, value_name = "HOST")]
    pub host: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Args)]
pub struct Output {
    /// Print JSON; without it a table on a terminal, elsewhere plain lines with fields apart by tabs
    #[arg(long)]
    pub json: bool,
}

/// A state as `--state` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum State {
    Waiting,
    Dispatched,
    Settling,
    Releasing,
    Held,
    Quarantined,
}

impl From<State> for QueueState {
    fn from(state: State) -> Self {
        match state {
            State::Waiting => Self::Waiting,
            State::Dispatched => Self::Dispatched,
            State::Settling => Self::Settling,
            State::Releasing => Self::Releasing,
            State::Held => Self::Held,
            State::Quarantined => Self::Quarantined,
        }
    }
}

/// What to do with messages that were set aside.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum AsideAction {
    /// List them, oldest first
    List {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        output: Output,
    },
    /// Show one: envelope, header block, reasons and findings
    Show {
        /// The message, such as 3-1a7 or mx1/3-1a7
        message: MessageRef,
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        output: Output,
    },
    /// Put one back into the pool, to be processed again
    #[command(after_help = RELEASE_EXAMPLES)]
    Release {
        #[command(flatten)]
        decision: Decision,
        /// Hand it on without that, as it came in, whatever was found
        #[arg(long, requires = "reason")]
        as_is: bool,
    },
    /// Delete one for ever
    Delete(Decision),
}

const RELEASE_EXAMPLES: &str = "\
Examples:
  gantry --config operator.toml quarantine release mx1/3-1a7
  gantry --config operator.toml quarantine release mx1/3-1a7 --as-is --reason 'invoice of a known sender, ticket 17'

Without --as-is it is scanned again, with today's signatures, and leaves only if the policy lets it
out then. With it nobody looks at it again: reason and operator stand in the audit log, and the
operator's name in the message's X-Gantry field.";

/// About one message.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Decision {
    /// The message, such as 3-1a7 or mx1/3-1a7
    pub message: MessageRef,
    #[command(flatten)]
    pub at: At,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
}

const DRAIN: &str = "\
A worker finishes what it has begun, hands back the rest, and ends. A host takes no more mail, lets its
workers finish what is there, and ends; `gantry ready HOST` takes that back. Where both have the same
name, the worker is meant. Whatever starts them again (systemd) starts them again.

Examples:
  gantry --config operator.toml drain pc-1 --reason 'new disk'
  gantry --config operator.toml drain mx1";

/// About one worker or host.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Node {
    /// The worker's name; with `drain` and `ready` also a host's
    #[arg(value_name = "NODE", value_parser = node)]
    pub node: String,
    #[command(flatten)]
    pub at: At,
    /// Why, for the audit log and for the worker's own
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    pub reason: Option<String>,
}

/// `ID` or `HOST/ID`: ids count at each host on their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MessageRef {
    pub host: Option<String>,
    pub id: MessageId,
}

impl FromStr for MessageRef {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, id) = match text.split_once('/') {
            Some((host, id)) => (Some(host.to_owned()), id),
            None => (None, text),
        };
        let id = id.parse().map_err(|error| format!("{error}"))?;
        Ok(Self { host, id })
    }
}

impl OperatorCommand {
    /// The aside that a command is about, and what to do there.
    pub(super) fn aside(&self) -> Option<(Aside, &AsideAction)> {
        match self {
            Self::Quarantine { action } => Some((Aside::Quarantined, action)),
            Self::Held { action } => Some((Aside::Held, action)),
            _ => None,
        }
    }

    /// The order to a worker, and to whom.
    pub(super) fn order(&self) -> Option<(Order, &Node)> {
        match self {
            Self::Ready(node) => Some((Order::Ready, node)),
            Self::NotReady(node) => Some((Order::NotReady, node)),
            Self::Drain(node) => Some((Order::Drain, node)),
            _ => None,
        }
    }
}

fn node(text: &str) -> Result<String, String> {
    gantry_config::check_name(text).map(|()| text.to_owned()).map_err(str::to_owned)
}

fn reason(text: &str) -> Result<String, String> {
    if text.len() > REASON_BYTES_MAX {
        return Err(format!("a reason has at most {REASON_BYTES_MAX} bytes"));
    }
    Ok(text.to_owned())
}

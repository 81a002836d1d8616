//! Handing messages on to a program: the message on its standard input, the envelope in its arguments, the answer in its
//! exit code.
//!
//! No shell is involved, an address is never part of a larger argument, and the program gets no environment. Its exit
//! code says what becomes of the recipients, as `sysexits.h` has it.

mod process;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_mail::Recipient;
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{RecipientResult, ReleaseResult};

use self::process::Ended;
use super::TraceKey;
use super::letter::{self, Identity, LetterError, Stamp};
use super::lines::{LineEnds, Lines};
use super::order::{Group, Plan, all, envelope_recipients, plan};
use crate::disk::Disk;
use crate::exit;
use crate::local;
use crate::spool::{Header, Spool};

/// What stands for the null sender in an argument, as mail programs write it.
const NULL_SENDER: &str = "<>";

/// A way out through a program, everything resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandReleaseConfig {
    pub identity: Identity,
    pub program: PathBuf,
    /// With exactly one of [`Argument::Recipient`] and [`Argument::Recipients`].
    pub arguments: Vec<Argument>,
    pub line_ends: LineEnds,
    /// The longest time for one run. Then it is killed, with its children.
    pub time_max: Duration,
}

/// One argument of the program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Argument {
    Text(String),
    /// `{sender}`: the sender's address, `<>` for the null sender.
    Sender,
    /// `{recipient}`: one recipient's address; the program runs once for each.
    Recipient,
    /// `{recipients}`: one argument for each recipient; the program runs once for all that get the same.
    Recipients,
}

/// A program as a way out.
#[derive(Clone, Debug)]
pub struct CommandRelease {
    config: CommandReleaseConfig,
}

/// A message and those who get the same of it.
struct Order<'a, D: Disk> {
    spool: &'a Arc<Spool<D>>,
    header: &'a Header,
    trace: &'a TraceKey,
    group: &'a Group,
}

impl CommandRelease {
    pub fn new(config: CommandReleaseConfig) -> Self {
        Self { config }
    }

    pub(super) async fn release<D: Disk>(
        &self,
        spool: Arc<Spool<D>>,
        id: MessageId,
        recipients: Vec<u16>,
        trace: &TraceKey,
    ) -> Vec<RecipientResult> {
        let Plan { header, groups, mut results } = match plan(&spool, id, recipients).await {
            Ok(plan) => plan,
            Err(results) => return results,
        };
        let mut hung = false;
        for group in &groups {
            let order = Order { spool: &spool, header: &header, trace, group };
            let at_once = match self.config.arguments.contains(&Argument::Recipients) {
                true => group.recipients.len(),
                false => 1,
            };
            for indexes in group.recipients.chunks(at_once.max(1)) {
                if hung {
                    // A thousand recipients must not wait a thousand times.
                    let reply = "not tried: the program took too long for another recipient";
                    results.extend(all(indexes, ReleaseResult::Deferred, reply));
                    continue;
                }
                let (result, reply, timed_out) = self.serve(&order, indexes).await;
                hung = timed_out;
                results.extend(all(indexes, result, &reply));
            }
        }
        results
    }

    /// Runs the program once. Tells also whether it was killed for taking too long.
    async fn serve<D: Disk>(
        &self,
        order: &Order<'_, D>,
        indexes: &[u16],
    ) -> (ReleaseResult, String, bool) {
        let envelope = &order.header.envelope;
        let to = envelope_recipients(envelope, indexes);
        let arguments = match arguments(&self.config.arguments, &envelope.sender, &to) {
            Ok(arguments) => arguments,
            Err(reason) => return (ReleaseResult::Refused, reason.to_owned(), false),
        };
        let letter = async {
            let letter = letter::open(order.spool, order.header.id).await?;
            let stamp = Stamp {
                identity: &self.config.identity,
                trace: order.trace,
                envelope,
                received_unix_ms: order.header.received_unix_ms,
                edits: &order.group.edits,
            };
            let head = letter.head(&stamp, &to)?;
            Ok::<_, LetterError>(letter.into_pieces(head, Lines::new(self.config.line_ends)))
        };
        let pieces = match letter.await {
            Ok(pieces) => pieces,
            Err(error) => return (ReleaseResult::Deferred, error.to_string(), false),
        };
        let program = &self.config.program;
        match process::run(program, &arguments, pieces, self.config.time_max).await {
            Ok(ended) => {
                let (result, reply) = judge(&ended);
                (result, reply, ended.timed_out)
            }
            Err(error) => (ReleaseResult::Deferred, error.to_string(), false),
        }
    }
}

/// What a run says about its recipients.
fn judge(ended: &Ended) -> (ReleaseResult, String) {
    let result = match (ended.code, ended.complete) {
        // Only who has read all of it can have delivered all of it, and only that can be counted on.
        (Some(code), true) => of_code(code),
        (Some(code), false) => match of_code(code) {
            ReleaseResult::Accepted => ReleaseResult::Unknown,
            other => other,
        },
        // Killed, by us or by its own fault: what it did with a whole message before that nobody knows.
        (None, true) => ReleaseResult::Unknown,
        (None, false) => ReleaseResult::Deferred,
    };
    let mut reply = match (ended.code, ended.timed_out) {
        (_, true) => "the program took too long and was killed".to_owned(),
        (Some(code), _) => format!("the program ended with exit code {code}"),
        (None, _) => "the program was killed by a signal".to_owned(),
    };
    if !ended.complete {
        reply.push_str(" and had not read all of the message");
    }
    let said = String::from_utf8_lossy(&ended.said);
    let said = said.trim();
    if !said.is_empty() {
        reply.push_str(": ");
        reply.push_str(said);
    }
    (result, reply)
}

/// What an exit code says, in the sense of `sysexits.h`. What may be a mistake in our own house (a wrong command line,
/// a missing file, a defect) is tried again: mail is not returned for it.
fn of_code(code: i32) -> ReleaseResult {
    match u8::try_from(code) {
        Ok(exit::OK) => ReleaseResult::Accepted,
        Ok(
            exit::EX_DATAERR
            | exit::EX_NOUSER
            | exit::EX_NOHOST
            | exit::EX_UNAVAILABLE
            | exit::EX_NOPERM,
        ) => ReleaseResult::Refused,
        _ => ReleaseResult::Deferred,
    }
}

/// The arguments of one run.
///
/// # Errors
/// An address that cannot be an argument, with the reply for its recipients.
fn arguments(
    template: &[Argument],
    sender: &str,
    to: &[Recipient],
) -> Result<Vec<String>, &'static str> {
    const MALFORMED: &str = "553 5.1.3 an address is malformed";
    const OPTION: &str =
        "553 5.1.3 an address that begins with a hyphen would be read as an option";
    let mut arguments: Vec<String> = Vec::new();
    let add = |arguments: &mut Vec<String>, address: &str| {
        local::check_address(address).map_err(|_| MALFORMED)?;
        if address.starts_with('-') && !arguments.iter().any(|argument| argument == "--") {
            return Err(OPTION);
        }
        arguments.push(address.to_owned());
        Ok(())
    };
    for argument in template {
        match argument {
            Argument::Text(text) => arguments.push(text.clone()),
            Argument::Sender if sender.is_empty() => arguments.push(NULL_SENDER.to_owned()),
            Argument::Sender => add(&mut arguments, sender)?,
            Argument::Recipient | Argument::Recipients => {
                to.iter().try_for_each(|to| add(&mut arguments, &to.address))?;
            }
        }
    }
    Ok(arguments)
}

#[cfg(test)]
mod tests;

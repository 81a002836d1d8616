//! Ways in and out that are folders and programs of this machine.

use std::time::Duration;

use gantry_config::{Table, Value, duration_text};
use gantry_protocol::limits;

use super::mailbox::{duration, names, queue};
use super::read::{HOUR, MILLISECOND, MINUTE, SECOND};
use super::{CommandRelease, DirectoryRelease, Intake, PickupIntake, keys};
use crate::intake::smtp::SmtpLimits;
use crate::release::{Argument, EnvelopeForm, FolderFormat, LineEnds};

/// Arguments of one program, placeholders counted once.
const ARGUMENTS_MAX: usize = 64;
/// Programs that run at once for one mailbox.
const PROCESSES_MAX: usize = 1_000;

const FORMATS: &[(&str, FolderFormat)] =
    &[("directory", FolderFormat::Directory), ("maildir", FolderFormat::Maildir)];
const ENVELOPES: &[(&str, EnvelopeForm)] =
    &[("headers", EnvelopeForm::Headers), ("sidecar", EnvelopeForm::Sidecar)];
const LINE_ENDS: &[(&str, LineEnds)] = &[("crlf", LineEnds::Crlf), ("lf", LineEnds::Lf)];

const FORMAT: &str = "write \"directory\" (files in the folder itself) or \"maildir\"";
const ENVELOPE: &str = "write where a message has its envelope: \"headers\" (X-Sender and X-Receiver at its top) or \
                        \"sidecar\" (a file NAME.envelope beside it)";
const ARGUMENTS: &str =
    "write them as a list, such as [\"-f\", \"{sender}\", \"--\", \"{recipients}\"]";

pub(super) fn pickup(table: &Table<'_>) -> Option<PickupIntake> {
    table.allow(keys::PICKUP_INTAKE);
    let directory = table
        .required("directory", "write the folder, such as directory = \"/var/spool/outgoing\"")
        .and_then(|value| value.path());
    let format = table.required("format", FORMAT).and_then(|value| value.one_of(FORMATS));
    let envelope = table.required("envelope", ENVELOPE).and_then(|value| value.one_of(ENVELOPES));
    if format == Some(FolderFormat::Maildir) {
        let problem = "what stands in a Maildir's \"new\" is finished";
        table.refuse("settle", problem, "remove it");
    }
    Some(PickupIntake {
        directory: directory?,
        format: format?,
        envelope: envelope?,
        settle: duration(table, "settle", 2 * SECOND, 10 * MILLISECOND..=10 * MINUTE),
        poll: duration(table, "poll", 5 * SECOND, 10 * MILLISECOND..=HOUR),
        message_bytes_max: message_bytes_max(table),
    })
}

pub(super) fn mark(table: &Table<'_>) -> Intake {
    table.allow(keys::MARK_INTAKE);
    Intake::Mark { message_bytes_max: message_bytes_max(table) }
}

pub(super) fn directory(table: &Table<'_>, host: &str) -> Option<DirectoryRelease> {
    table.allow(keys::DIRECTORY_RELEASE);
    let path = table
        .required("path", "write the folder, such as path = \"/var/spool/incoming\"")
        .and_then(|value| value.path());
    let format = table.required("format", FORMAT).and_then(|value| value.one_of(FORMATS));
    let envelope = table.required("envelope", ENVELOPE).and_then(|value| value.one_of(ENVELOPES));
    // Readers of Maildirs are Unix programs; elsewhere every byte stays as it is.
    let line_ends = match format {
        Some(FolderFormat::Maildir) => LineEnds::Lf,
        _ => LineEnds::Crlf,
    };
    Some(DirectoryRelease {
        path: path?,
        format: format?,
        envelope: envelope?,
        line_ends: table.or("line_ends", line_ends, |value| value.one_of(LINE_ENDS)),
        names: names(table, host),
        queue: queue(table),
    })
}

pub(super) fn command(
    table: &Table<'_>,
    host: &str,
    answer_within: Option<Duration>,
) -> Option<CommandRelease> {
    table.allow(keys::COMMAND_RELEASE);
    let program = table
        .required("program", "write its path, such as program = \"/usr/sbin/sendmail\"")
        .and_then(|value| value.path());
    let arguments = table.required("arguments", ARGUMENTS).and_then(|value| arguments(&value));
    // A program that hangs must not use up what the sender waits for our answer.
    let patience = answer_within.unwrap_or(HOUR);
    let time_max = duration(table, "time_max", MINUTE.min(patience / 2), SECOND / 10..=HOUR);
    if time_max >= patience {
        let problem = format!(
            "the sender is answered within {:?} (answer_within), before the program is given up",
            duration_text(patience)
        );
        table.wrong("time_max", problem, "write a shorter one");
    }
    Some(CommandRelease {
        program: program?,
        arguments: arguments?,
        line_ends: table.or("line_ends", LineEnds::Lf, |value| value.one_of(LINE_ENDS)),
        time_max,
        processes_max: table.or("processes_max", 8, |value| value.integer(1..=PROCESSES_MAX)),
        names: names(table, host),
        queue: queue(table),
    })
}

fn arguments(value: &Value<'_>) -> Option<Vec<Argument>> {
    let arguments =
        value.list(ARGUMENTS_MAX, ARGUMENTS, |item| item.parsed(argument, ARGUMENTS))?;
    let recipients = arguments
        .iter()
        .filter(|argument| matches!(argument, Argument::Recipient | Argument::Recipients))
        .count();
    if recipients != 1 {
        value.wrong(
            format!("the recipients stand in {recipients} of them"),
            "write \"{recipient}\" (the program runs once for each) or \"{recipients}\" (once for all) as one of them",
        );
        return None;
    }
    Some(arguments)
}

fn argument(text: &str) -> Result<Argument, &'static str> {
    match text {
        "{sender}" => Ok(Argument::Sender),
        "{recipient}" => Ok(Argument::Recipient),
        "{recipients}" => Ok(Argument::Recipients),
        _ if text.contains('\0') => Err("an argument has no NUL"),
        _ if ["{sender}", "{recipient}", "{recipients}"].iter().any(|name| text.contains(name)) => {
            Err("an address is an argument of its own, never part of one")
        }
        _ if text.starts_with('{') && text.ends_with('}') => {
            Err("there are {sender}, {recipient} and {recipients}")
        }
        _ => Ok(Argument::Text(text.to_owned())),
    }
}

fn message_bytes_max(table: &Table<'_>) -> u64 {
    table.or("message_size_max", SmtpLimits::default().message_bytes_max, |value| {
        value.size(1 << 10..=limits::MESSAGE_BYTES_MAX)
    })
}

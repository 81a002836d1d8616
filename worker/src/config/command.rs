//! `[[module]]` of type `command`, from its table.

use std::collections::BTreeMap;
use std::path::PathBuf;

use gantry_config::{Table, Value};
use gantry_protocol::limits;
use gantry_scanners::command::{Argument, CommandConfig, Meaning, NameLine};

use super::keys;
use super::read::{MIB, SECOND, duration, identity};

/// Arguments, and variables of the environment: more than any command line that people write.
const WORDS_MAX: usize = 256;

/// The keys that give exit codes a meaning.
const MEANINGS: &[(&str, Meaning)] = &[
    ("clean", Meaning::Clean),
    ("found", Meaning::Found),
    ("unscanned", Meaning::Unscanned),
    ("encrypted", Meaning::Encrypted),
    ("malformed", Meaning::Malformed),
    ("over-budget", Meaning::OverBudget),
    ("failed", Meaning::Failed),
    ("unavailable", Meaning::Unavailable),
];

const ARGUMENTS: &str = "write a list such as [\"--no-summary\", \"{file}\"]";
const CODES: &str = "write a list of exit codes such as [0]";

pub(super) fn command(table: &Table<'_>) -> Option<CommandConfig> {
    table.allow(keys::COMMAND);
    let (name, provides) = identity(table);
    let remedy = "write the program's path, such as program = \"/usr/bin/clamscan\"";
    let program = table.required("program", remedy).and_then(|value| value.path());
    let arguments = list(table, "arguments", ARGUMENTS, argument);
    let environment = list(table, "environment", "write a list such as [\"LANG=C\"]", variable);
    let exit_codes = exit_codes(table);
    let default = CommandConfig::new("", "", "");
    let mark = |key| table.value(key).and_then(|value| value.text("write the text in quotes"));
    let (prefix, suffix) = (mark("name_prefix"), mark("name_suffix"));
    let names = (prefix.is_some() || suffix.is_some()).then(|| NameLine {
        prefix: prefix.unwrap_or_default().to_owned(),
        suffix: suffix.unwrap_or_default().to_owned(),
    });
    let probe = match table.value("probe") {
        Some(value) => probe(&value).map(Some),
        None => Some(None),
    };
    let silence = SECOND..=limits::SILENCE_MAX;
    let read = CommandConfig {
        time_max: duration(table, "time_max", default.time_max, silence),
        bytes_max: table.or("message_max", default.bytes_max, |value| value.size(1..=MIB << 20)),
        concurrency: table.or("concurrency", default.concurrency, |value| {
            value.integer(1..=limits::RESERVATIONS_PER_GRABBER_MAX)
        }),
        names,
        ..default
    };
    Some(CommandConfig {
        name: name?,
        provides: provides?,
        program: program?,
        arguments: arguments?,
        environment: environment?,
        exit_codes: exit_codes?,
        probe: probe?,
        ..read
    })
}

fn list<T>(
    table: &Table<'_>,
    key: &'static str,
    remedy: &str,
    read: impl Fn(&Value<'_>) -> Option<T>,
) -> Option<Vec<T>> {
    table.value(key).map_or_else(|| Some(Vec::new()), |value| value.list(WORDS_MAX, remedy, read))
}

fn argument(value: &Value<'_>) -> Option<Argument> {
    match value.text(ARGUMENTS)? {
        "{file}" => Some(Argument::File),
        text if text.contains("{file}") => {
            value.wrong(
                format!("{text:?}: {{file}} is only a whole argument"),
                "write \"{file}\" as an argument of its own, or leave it out for standard input",
            );
            None
        }
        text => Some(Argument::Text(text.to_owned())),
    }
}

fn variable(value: &Value<'_>) -> Option<(String, String)> {
    let parse = |text: &str| match text.split_once('=') {
        Some((name, content)) if !name.is_empty() && !text.contains('\0') => {
            Ok((name.to_owned(), content.to_owned()))
        }
        _ => Err("it is no NAME=value"),
    };
    value.parsed(parse, "write a variable such as \"LANG=C\"")
}

/// Every code has one meaning, and one of them has to be clean.
fn exit_codes(table: &Table<'_>) -> Option<BTreeMap<i32, Meaning>> {
    let mut codes = BTreeMap::new();
    let mut whole =
        table.required("clean", "write the exit codes that say so, such as [0]").is_some();
    for (key, meaning) in MEANINGS {
        let Some(value) = table.value(key) else { continue };
        let listed = value.list(WORDS_MAX, CODES, |code| code.integer(0..=255_u8));
        whole &= listed.is_some();
        for code in listed.into_iter().flatten().map(i32::from) {
            if codes.insert(code, *meaning).is_some_and(|former| former != *meaning) {
                value.wrong(format!("{code} has another meaning already"), "write it once");
                whole = false;
            }
        }
    }
    whole.then_some(codes)
}

/// A program, relative to the file, and its arguments.
fn probe(value: &Value<'_>) -> Option<(PathBuf, Vec<String>)> {
    let remedy =
        "write a program and its arguments, such as [\"/usr/bin/clamscan\", \"--version\"]";
    let words = value.list(WORDS_MAX, remedy, |word| word.text(remedy).map(str::to_owned))?;
    let mut words = words.into_iter();
    let Some(program) = words.next() else {
        value.wrong("it is empty", remedy);
        return None;
    };
    Some((value.folder().join(program), words.collect()))
}

//! From the file's tables to the resolved configuration.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_config::{Table, Value};
use gantry_daemon::log::{FORMATS, Format};
use gantry_link::NameMask;
use gantry_protocol::limits;
use gantry_scanners::clamd::{ClamdAddress, ClamdConfig};
use gantry_scanners::command::CommandConfig;
use gantry_scanners::registry::ModuleConfig;
use gantry_scanners::unpack::Limits;
use gantry_scanners::yara::YaraConfig;

use super::command::command;
use super::{Config, HOSTS_MAX, Host, keys};

/// Modules of one worker: each offers a need, and a hello carries no more of them.
const MODULES_MAX: usize = limits::NEEDS_MAX;
/// Patterns in one list of rules, and files that they match.
const RULES_MAX: usize = 1_024;

/// Beyond a day nobody means standby any more.
const STANDBY_AFTER_MAX: Duration = Duration::from_secs(86_400);

/// A day is what ClamAV takes for new signatures; a year old ones find nothing that is about.
const SIGNATURES_AGE_MAX: RangeInclusive<Duration> =
    Duration::from_secs(86_400)..=Duration::from_secs(365 * 86_400);

const MEMORY_DEFAULT: u64 = 256 << 20;
const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MIB: u64 = 1 << 20;

const MODULE_TYPES: &str = "write type = \"yara\" (rules, needs no server), type = \"clamd\" (a ClamAV daemon) or \
                            type = \"command\" (any program)";
const PROVIDES: &str = "write the need that it serves, such as provides = \"virus\"";
const RULES: &str = "write a list of files or patterns, such as [\"rules/*.yar\"]";

pub(super) fn config(top: &Table<'_>) -> Option<Config> {
    top.allow(keys::TOP);
    let name = top.required("name", "write the worker's name, such as name = \"pc-1\"");
    let name = name.and_then(|value| value.node_name());
    let identity_dir = top.or("identity", Some(top.folder()), |value| Some(value.path()));
    let listen = top.value("listen").and_then(|value| value.listen());
    let scratch_dir = top.or("scratch", Some(std::env::temp_dir()), |value| Some(value.path()));
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    let concurrency = top.or("concurrency", processors, |value| {
        value.integer(1..=limits::RESERVATIONS_PER_GRABBER_MAX)
    });
    let memory_bytes_max =
        top.or("memory_max", MEMORY_DEFAULT, |value| value.size(16 * MIB..=1 << 40));
    let drain_timeout = top.or("drain_timeout", DRAIN_TIMEOUT_DEFAULT, |value| {
        value.duration(SECOND..=limits::RESERVATION_TIME_MAX)
    });

    let policy = top.value("policy").and_then(|value| value.path());

    let log = top.or("log", Format::default(), |value| value.one_of(&FORMATS));
    let metrics = gantry_config::metrics(top);

    let hosts = hosts(top);
    let tables = top.tables("module", 0..=MODULES_MAX);
    let modules: Vec<_> = tables.iter().map(|table| module(table, &scratch_dir)).collect();
    let names: Vec<_> = modules.iter().map(|module| Some(module.as_ref()?.name())).collect();
    for (index, (table, name)) in tables.iter().zip(&names).enumerate() {
        if name.is_some() && names.iter().take(index).any(|before| before == name) {
            table.wrong("name", "another module has this name", "write a name of its own");
        }
    }
    let remarks = tables.iter().zip(&modules).filter_map(|(table, module)| match module {
        Some(ModuleConfig::Yara(yara)) if table.has("rules") && yara.rules.is_empty() => {
            Some(format!(
                "module {:?}: no file matches its rules yet: only the bundled ones are used",
                yara.name
            ))
        }
        _ => None,
    });
    Some(Config {
        remarks: remarks.collect(),
        name: name?,
        listen,
        identity_dir: identity_dir?,
        scratch_dir: scratch_dir?,
        concurrency,
        memory_bytes_max,
        policy,
        drain_timeout,
        log,
        metrics,
        hosts: hosts?,
        modules: modules.into_iter().collect::<Option<_>>()?,
    })
}

fn hosts(top: &Table<'_>) -> Option<Vec<Host>> {
    let tables = top.tables("host", 1..=HOSTS_MAX);
    let mut hosts: Vec<Option<Host>> = Vec::new();
    for table in &tables {
        table.allow(keys::HOST);
        let address = table.value("address").and_then(|value| value.endpoint());
        let name = host_name(table, top.has("listen"));
        let tier = table.or("tier", 0, |value| value.integer(0..=9));
        let patience = table.value("standby_after");
        let standby_after = patience.and_then(|value| value.duration(SECOND..=STANDBY_AFTER_MAX));
        if tier == 0 && table.has("standby_after") {
            let problem = "it is for standby alone, and tier 0 works always";
            table.wrong("standby_after", problem, "write tier = 1 too, or remove it");
        }
        if !table.has("address") && !table.has("name") {
            let remedy = "write where its hook listens, such as address = \"mx1.example.com:4733\"; or name = \"mx1\" \
                          for a host that dials this worker";
            table.wrong("address", "it is missing", remedy);
        }
        let same = |own: bool, other: bool, key: &'static str| {
            if own && other {
                let problem = format!("another [[host]] has this {key}");
                table.wrong(key, problem, "remove one of them");
            }
        };
        let of_others = |is: &dyn Fn(&Host) -> bool| hosts.iter().flatten().any(is);
        same(address.is_some(), of_others(&|before| before.address == address), "address");
        same(name.is_some(), of_others(&|before| before.name == name), "name");
        let wrong =
            (table.has("address") && address.is_none()) || (table.has("name") && name.is_none());
        hosts.push((!wrong).then_some(Host { address, name, tier, standby_after }));
    }
    hosts.into_iter().collect()
}

/// Which hosts may dial, and under which name the one at `address` must be known.
fn host_name(table: &Table<'_>, listens: bool) -> Option<NameMask> {
    let remedy = "write the host's name, such as name = \"mx1\", or without an address a mask such as \"mx-*\"";
    let mask: NameMask =
        table.value("name")?.parsed(|text: &str| text.parse::<NameMask>(), remedy)?;
    if table.has("address") && !gantry_link::is_name(&mask.to_string()) {
        let problem = "with an address it stands for one host";
        table.wrong("name", problem, "write its name without a *, or remove the address");
        return None;
    }
    if !listens && !table.has("address") {
        let problem = "no host can dial this worker: it listens nowhere";
        table.wrong(
            "name",
            problem,
            "write listen = \"0.0.0.0:4734\" at the top of the file, or an address here",
        );
    }
    Some(mask)
}

#[derive(Clone, Copy)]
enum Type {
    Yara,
    Clamd,
    Command,
}

fn module(table: &Table<'_>, scratch_dir: &Option<PathBuf>) -> Option<ModuleConfig> {
    let words = [("yara", Type::Yara), ("clamd", Type::Clamd), ("command", Type::Command)];
    let kind = table.required("type", MODULE_TYPES).and_then(|value| value.one_of(&words));
    // Which keys there are depends on the type.
    match kind? {
        Type::Yara => yara(table).map(ModuleConfig::Yara),
        Type::Clamd => clamd(table).map(ModuleConfig::Clamd),
        Type::Command => {
            let read = command(table)?;
            let scratch_dir = scratch_dir.clone()?;
            Some(ModuleConfig::Command(Box::new(CommandConfig { scratch_dir, ..read })))
        }
    }
}

/// What every module has: its name and the need that it serves.
pub(super) fn identity(table: &Table<'_>) -> (Option<String>, Option<String>) {
    let name = table.required("name", "write a name, such as name = \"rules\"");
    let provides = table.required("provides", PROVIDES);
    (name.and_then(|value| value.name()), provides.and_then(|value| value.need()))
}

pub(super) fn duration(
    table: &Table<'_>,
    key: &'static str,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Duration {
    table.or(key, default, |value| value.duration(range))
}

fn yara(table: &Table<'_>) -> Option<YaraConfig> {
    table.allow(keys::YARA);
    let (name, provides) = identity(table);
    let bundled = table.or("bundled", true, |value| value.flag());
    let rules =
        table.value("rules").map_or_else(|| Some(Vec::new()), |value| rules(&value, bundled));
    if !bundled && !table.has("rules") {
        let remedy = "write rules = [\"rules/*.yar\"], or bundled = true";
        table.wrong("bundled", "without bundled and other rules nothing would be found", remedy);
    }
    let default = Limits::default();
    let concurrency = YaraConfig::new("", "").concurrency;
    let limits = Limits {
        bytes_max: table.or("unpacked_max", default.bytes_max, |value| value.size(MIB..=1 << 40)),
        ratio_max: table.or("ratio_max", default.ratio_max, |value| value.integer(1..=100_000)),
        entries_max: table
            .or("entries_max", default.entries_max, |value| value.integer(1..=1_000_000)),
        depth_max: table.or("depth_max", default.depth_max, |value| value.integer(1..=1_000)),
        time_max: duration(table, "time_max", default.time_max, SECOND..=limits::SILENCE_MAX),
    };
    let concurrency = table.or("concurrency", concurrency, |value| {
        value.integer(1..=limits::RESERVATIONS_PER_GRABBER_MAX)
    });
    Some(YaraConfig {
        name: name?,
        provides: provides?,
        rules: rules?,
        bundled,
        limits,
        concurrency,
    })
}

fn clamd(table: &Table<'_>) -> Option<ClamdConfig> {
    table.allow(keys::CLAMD);
    let (name, provides) = identity(table);
    let address = table
        .required("address", "write where clamd listens, such as \"unix:/run/clamav/clamd.ctl\" or \"tcp:127.0.0.1:3310\"")
        .and_then(|value| clamd_address(&value, &table.folder()));
    let nowhere = ClamdAddress::Tcp(String::new());
    let default = ClamdConfig::new("", "", address.clone().unwrap_or(nowhere));
    let size = |key, default| table.or(key, default, |value| value.size(MIB..=1 << 40));
    let read = ClamdConfig {
        connect_timeout: duration(
            table,
            "connect_timeout",
            default.connect_timeout,
            SECOND / 10..=60 * SECOND,
        ),
        scan_timeout: duration(
            table,
            "scan_timeout",
            default.scan_timeout,
            SECOND..=limits::SILENCE_MAX,
        ),
        stream_bytes_max: size("stream_max", default.stream_bytes_max),
        scan_bytes_max: size("scan_max", default.scan_bytes_max),
        signatures_age_max: table
            .value("signatures_age_max")
            .and_then(|value| value.duration(SIGNATURES_AGE_MAX)),
        connections_max: table.or("connections_max", default.connections_max, |value| {
            value.integer(1..=limits::RESERVATIONS_PER_GRABBER_MAX)
        }),
        ..default
    };
    Some(ClamdConfig { name: name?, provides: provides?, address: address?, ..read })
}

fn clamd_address(value: &Value<'_>, folder: &Path) -> Option<ClamdAddress> {
    let remedy = "write \"unix:/run/clamav/clamd.ctl\" or \"tcp:127.0.0.1:3310\"";
    match value.text(remedy)?.strip_prefix("unix:") {
        Some(_) if !cfg!(unix) => {
            value.wrong("there are no Unix sockets here", "write \"tcp:127.0.0.1:3310\"");
            None
        }
        Some("") => {
            value.wrong("it names no socket", remedy);
            None
        }
        Some(path) => Some(ClamdAddress::Unix(folder.join(path))),
        None => {
            let parse = |text: &str| {
                text.strip_prefix("tcp:").unwrap_or(text).parse::<gantry_config::Endpoint>()
            };
            value.parsed(parse, remedy).map(|endpoint| ClamdAddress::Tcp(endpoint.to_string()))
        }
    }
}

/// The files that the patterns match, sorted, each once.
fn rules(value: &Value<'_>, bundled: bool) -> Option<Vec<PathBuf>> {
    let matched = value.list(RULES_MAX, RULES, |pattern| files(pattern, bundled))?;
    if matched.is_empty() {
        value.wrong(
            "the list is empty",
            "remove it to use the bundled rules alone, or write a pattern",
        );
        return None;
    }
    let mut files: Vec<PathBuf> = matched.into_iter().flatten().collect();
    files.sort();
    files.dedup();
    if files.len() > RULES_MAX {
        value.wrong(
            format!("it matches {} files", files.len()),
            format!("match at most {RULES_MAX}"),
        );
        return None;
    }
    Some(files)
}

/// What a pattern names. A folder may still be empty where the bundled rules are used beside it; a file that is named
/// must be there.
fn files(pattern: &Value<'_>, bundled: bool) -> Option<Vec<PathBuf>> {
    let text = pattern.text(RULES)?;
    let folder = glob::Pattern::escape(&pattern.folder().to_string_lossy());
    let whole = Path::new(&folder).join(text);
    let paths = match glob::glob(&whole.to_string_lossy()) {
        Ok(paths) => paths,
        Err(error) => {
            pattern.wrong(format!("{text:?} is no pattern: {}", error.msg), RULES);
            return None;
        }
    };
    // One more than allowed tells that there are too many.
    let files: Vec<PathBuf> =
        paths.filter_map(Result::ok).filter(|path| path.is_file()).take(RULES_MAX + 1).collect();
    if files.is_empty() && !(bundled && text.contains(['*', '?', '['])) {
        let remedy =
            "put the rules there, name others, or remove the key to use the bundled rules alone";
        pattern.wrong(format!("no file matches {}", whole.display()), remedy);
        return None;
    }
    Some(files)
}

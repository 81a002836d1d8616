//! From the file's tables to the resolved configuration.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use gantry_config::{Table, Value, duration_text};
use gantry_daemon::log::{FORMATS, Format};
use gantry_protocol::limits;
use gantry_protocol::policy::BUILT_IN;

use super::mailbox::mailbox;
use super::policy::digest;
use super::{
    Config, DialledWorker, Intake, Limits, Mailbox, Release, Reservation, keys, retention,
};
use crate::journal;
use crate::spool::CONTROL_SOCKET;

/// Mailboxes of one hook: their index travels as 16 bits, and each has a listener of its own.
const MAILBOXES_MAX: usize = 256;

/// Sizes that a bound may have: no smaller than what a busy minute needs.
pub(super) const SIZES: RangeInclusive<u64> = 1 << 20..=1 << 50;
/// The steps of some fifty thousand messages.
const HISTORY_DEFAULT: u64 = 64 << 20;

pub(super) const MILLISECOND: Duration = Duration::from_millis(1);
pub(super) const SECOND: Duration = Duration::from_secs(1);
pub(super) const MINUTE: Duration = Duration::from_secs(60);
pub(super) const HOUR: Duration = Duration::from_secs(60 * 60);
pub(super) const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The longest path of a socket that every Unix takes: its address has 104 bytes there at least, one of them the end.
const SOCKET_PATH_BYTES_MAX: usize = 103;

pub(super) fn config(top: &Table<'_>) -> Option<Config> {
    top.allow(keys::TOP);
    let name = top.required("name", "write the host's name, such as name = \"mx1\"");
    let name = name.and_then(|value| value.node_name());
    let spool =
        top.required("spool", "write the folder for the messages, such as spool = \"spool\"");
    let spool = spool.and_then(|value| spool_folder(&value));
    let listen = top
        .required("listen", "write the UDP address for workers, such as listen = \"0.0.0.0:4733\"");
    let listen = listen.and_then(|value| value.listen());
    // The file's own folder, unless it says otherwise.
    let identity_dir = top.or("identity", Some(top.folder()), |value| Some(value.path()));
    let advertise = top.value("advertise").and_then(|value| value.endpoint());
    let policy = top.value("policy").map_or(Some(BUILT_IN), |value| digest(&value));

    let policy_also = top.value("policy_also").and_then(|value| digest(&value));
    if policy_also.is_some() && policy_also == policy {
        let remedy = "remove it, or write the former policy while the new one is being rolled out";
        top.wrong("policy_also", "it is the same as policy", remedy);
    }
    let workers = workers(top);
    let reservation = top.value("reservation").and_then(|value| value.table());
    let reservation =
        reservation.map_or_else(Reservation::default, |table| self::reservation(&table));
    let limits = top.value("limits").and_then(|value| value.table());
    let limits = limits.map_or_else(Limits::default, |table| self::limits(&table));

    let aside = |key, keys| retention::retention(&top.value(key)?.table()?, keys);
    let quarantine = aside("quarantine", keys::QUARANTINE).unwrap_or_default();
    let held = aside("held", keys::HELD).unwrap_or_default();
    let log = top.or("log", Format::default(), |value| value.one_of(&FORMATS));
    let history = top.value("history").and_then(|value| value.table());
    let history_bytes_max = history.map_or(HISTORY_DEFAULT, |table| history_bytes_max(&table));
    let metrics = gantry_config::metrics(top);

    let tables = top.tables("mailbox", 1..=MAILBOXES_MAX);
    let host = name.as_deref().unwrap_or("localhost");
    let read: Vec<_> = tables.iter().map(|table| (table, mailbox(table, host))).collect();
    distinct(&read);
    Some(Config {
        name: name?,
        spool: spool?,
        identity_dir: identity_dir?,
        listen: listen?,
        advertise,
        policy: policy?,
        policy_also,
        workers: workers?,
        mailboxes: read.into_iter().map(|(_, mailbox)| mailbox).collect::<Option<_>>()?,
        reservation,
        limits,
        quarantine,
        held,
        log,
        history_bytes_max,
        metrics,
    })
}

fn workers(top: &Table<'_>) -> Option<Vec<DialledWorker>> {
    let tables = top.tables("worker", 0..=limits::GRABBERS_MAX);
    let mut workers: Vec<Option<DialledWorker>> = Vec::new();
    for table in &tables {
        table.allow(keys::WORKER);
        let remedy = "write where the worker listens, such as address = \"pc-1.example.com:4734\"";
        let address = table.required("address", remedy).and_then(|value| value.endpoint());
        let remedy = "write the worker's name, such as name = \"pc-1\", or a mask such as \"pc-*\"";
        let name = table.required("name", remedy);
        let name = name.and_then(|value| value.parsed(|text: &str| text.parse(), remedy));
        let worker = address.zip(name).map(|(address, name)| DialledWorker { address, name });
        let same = |before: &DialledWorker| {
            worker.as_ref().is_some_and(|worker| worker.address == before.address)
        };
        if workers.iter().flatten().any(same) {
            table.wrong("address", "another [[worker]] has this address", "remove one of them");
        }
        workers.push(worker);
    }
    workers.into_iter().collect()
}

/// The spool's folder, in which the sockets of the commands have room.
fn spool_folder(value: &Value<'_>) -> Option<PathBuf> {
    let path = value.path()?;
    let length = path.join(CONTROL_SOCKET).as_os_str().len();
    if length > SOCKET_PATH_BYTES_MAX {
        value.wrong(
            format!("the path of its socket {CONTROL_SOCKET:?} is {length} bytes long; systems take {SOCKET_PATH_BYTES_MAX}"),
            "name a folder with a shorter path",
        );
        return None;
    }
    Some(path)
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            upstream_memory_bytes_max: 32 << 20,
            upstream_disk_bytes_max: 4 << 30,
            spool_bytes_max: None,
            spool_free_bytes_min: 64 << 20,
        }
    }
}

/// Nothing, or room for two parts.
fn history_bytes_max(table: &Table<'_>) -> u64 {
    table.allow(keys::HISTORY);
    let Some(value) = table.value("max_bytes") else { return HISTORY_DEFAULT };
    let Some(bytes) = value.size(0..=1 << 50) else { return HISTORY_DEFAULT };
    if (1..journal::BYTES_MAX_MIN).contains(&bytes) {
        let least = gantry_config::size_text(journal::BYTES_MAX_MIN);
        let remedy = format!("write {least:?} or more, or \"0B\" for no history");
        value.wrong("too little for any history", remedy);
    }
    bytes
}

fn limits(table: &Table<'_>) -> Limits {
    table.allow(keys::LIMITS);
    let size = |key, default| table.or(key, default, |value| value.size(SIZES));
    let default = Limits::default();
    Limits {
        upstream_memory_bytes_max: size("upstream_memory_max", default.upstream_memory_bytes_max),
        upstream_disk_bytes_max: size("upstream_disk_max", default.upstream_disk_bytes_max),
        spool_bytes_max: table.value("spool_max").and_then(|value| value.size(SIZES)),
        spool_free_bytes_min: table
            .or("spool_free_min", default.spool_free_bytes_min, |value| value.size(0..=1 << 50)),
    }
}

fn reservation(table: &Table<'_>) -> Reservation {
    table.allow(keys::RESERVATION);
    let default = Reservation::default();
    let duration = |key, default, range: RangeInclusive<Duration>| {
        table.or(key, default, |value| value.duration(range))
    };
    let read = Reservation {
        beat: duration("beat", default.beat, 20 * MILLISECOND..=10 * SECOND),
        beat_idle: duration("beat_idle", default.beat_idle, 100 * MILLISECOND..=MINUTE),
        time_max: duration("time_max", default.time_max, SECOND..=DAY),
        silence_max: duration("silence_max", default.silence_max, SECOND..=limits::SILENCE_MAX),
        attempts_max: table.or("attempts_max", default.attempts_max, |value| value.integer(1..=9)),
        returns_max: table
            .or("returns_max", default.returns_max, |value| value.integer(1..=10_000)),
    };
    if read.beat_idle < read.beat {
        let remedy = format!("write at least {:?}, or a shorter beat", duration_text(read.beat));
        table.wrong("beat_idle", "it is shorter than beat", remedy);
    }
    let silence_max = match table.has("silence_max") {
        true => read.silence_max,
        false => read.silence_max.min(read.time_max),
    };
    if silence_max > read.time_max {
        let remedy =
            format!("write at most {:?}, or a longer time_max", duration_text(read.time_max));
        table.wrong("silence_max", "it is longer than time_max", remedy);
    }
    Reservation { silence_max, ..read }
}

/// Reports mailboxes that share a name, a listener or a folder, or whose mail would come straight back.
fn distinct(read: &[(&Table<'_>, Option<Mailbox>)]) {
    let known = || read.iter().filter_map(|(table, mailbox)| Some((table, mailbox.as_ref()?)));
    for (index, (table, mailbox)) in known().enumerate() {
        for (_, other) in known().take(index) {
            if other.name == mailbox.name {
                table.wrong("name", "another mailbox has this name", "write a name of its own");
            }
            if let Some(taken) = shared(&mailbox.intake, &other.intake) {
                let problem = format!("{taken} is taken by mailbox {:?}", other.name);
                table.wrong("intake", problem, "write another one");
            }
        }
        for (_, other) in known() {
            if let Some(place) = circle(&mailbox.release, &other.intake) {
                let problem = format!(
                    "{place} is the intake of mailbox {:?}, so mail would come back for ever",
                    other.name
                );
                let remedy = "write where the mail is to go next";
                table.wrong("release", problem, remedy);
            }
        }
    }
}

/// What two ways in cannot both have.
fn shared(one: &Intake, other: &Intake) -> Option<String> {
    match (one, other) {
        (Intake::Smtp(one), Intake::Smtp(other)) => {
            overlap(one.listen, other.listen).then(|| format!("listen: {}", one.listen))
        }
        (Intake::Pickup(one), Intake::Pickup(other)) => (one.directory == other.directory)
            .then(|| format!("directory: {}", one.directory.display())),
        _ => None,
    }
}

/// Where a way out leads straight into a way in.
fn circle(release: &Release, intake: &Intake) -> Option<String> {
    match (release, intake) {
        (Release::Smtp(release), Intake::Smtp(intake)) => {
            let address = release.address.socket_addr();
            (address == Some(intake.listen)).then(|| format!("address: {}", release.address))
        }
        (Release::Directory(release), Intake::Pickup(intake)) => {
            (release.path == intake.directory).then(|| format!("path: {}", release.path.display()))
        }
        _ => None,
    }
}

/// Whether two listeners cannot both be bound. Port 0 stands for any free one.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let everywhere = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() != 0 && one.port() == other.port() && (everywhere || one.ip() == other.ip())
}

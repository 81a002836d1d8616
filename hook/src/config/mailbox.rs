//! One `[[mailbox]]`.

use std::cell::Cell;
use std::ops::RangeInclusive;
use std::time::Duration;

use gantry_config::{Network, NoNetwork, Table, Value, duration_text};
use gantry_mail::{Mask, RECIPIENTS_MAX};
use gantry_protocol::limits;
use gantry_protocol::pool::{OriginatedAllowed, RejectLate};

use super::read::{DAY, HOUR, MINUTE, SECOND};
use super::{
    Custody, HookUnprocessed, Intake, Mailbox, Names, Queue, Release, SmtpIntake, SmtpRelease,
    UpstreamUnprocessed, keys, local, tls,
};
use crate::intake::smtp::{IntakeTimeouts, SmtpLimits, StrayCrLf};
use crate::release::{Protocol, SmtpTimeouts};
use crate::spool;

/// No SMTP client waits longer for the answer to the final dot than RFC 5321 4.5.3.2.6 asks of it: ten minutes.
/// A minute of them is for the network.
const ANSWER_WITHIN_MAX: Duration = Duration::from_secs(540);
const ANSWER_WITHIN_DEFAULT: Duration = Duration::from_secs(120);
const WARN_AFTER_DEFAULT: Duration = Duration::from_secs(15 * 60);
/// Networks in one list.
const NETWORKS_MAX: usize = 1_024;
/// Connections to or from one mailbox: each costs a buffer and a descriptor.
const CONNECTIONS_MAX: usize = 10_000;

const INTAKE_TYPES: &str = "write { type = \"smtp\", listen = \"127.0.0.1:10025\" }, or the type \"lmtp\", \"pickup\" or \"mark\"";
const RELEASE_TYPES: &str = "write { type = \"smtp\", address = \"127.0.0.1:10026\" }, or the type \"lmtp\", \"directory\" or \"command\"";
const NEEDS: &str = "write what must have been done with a message before it may leave, such as needs = [\"virus\"]; \
                     needs = [] says that nothing is asked";
const CUSTODY: &str = "write \"upstream\" (the sender keeps the message until it is processed) or \"hook\" (it is \
                       stored here and answered at once)";
const UPSTREAM_UNPROCESSED: &str = "write what happens when no worker answers in time: \"tempfail\" (4xx, the sender \
                                    keeps it), \"wait\" (store it and wait for a worker), \"hold\" (store it for an \
                                    operator) or \"release-unscanned\" (let it through)";
const HOOK_UNPROCESSED: &str = "write what happens when no worker processes it: \"wait\" (for as long as it takes), \
                                \"hold\" (for an operator, after = \"4h\") or \"release-unscanned\" (let it through, \
                                after = \"4h\")";

const ORIGINATED_SENDERS: &str =
    "write whom notices may come from, such as senders = [\"<>\"] (the null sender)";
const ORIGINATED_RECIPIENTS: &str = "write whom they may go to, such as recipients = [\"postmaster@example.com\", \
                                     \"*@example.com\"], \"sender\" (the message's) or \"recipients\" (the message's)";
/// Masks are tried one by one for each address of an originated message.
const ORIGINATED_MASKS_MAX: usize = 256;

/// Reads a mailbox of the host named `host`.
pub(super) fn mailbox(table: &Table<'_>, host: &str) -> Option<Mailbox> {
    table.allow(keys::MAILBOX);
    let name = table.required("name", "write a name, such as name = \"mail.box\"");
    let name = name.and_then(|value| folder_name(&value));
    let needs = table.required("needs", NEEDS).and_then(|value| needs(&value));
    let custody = custody(table);
    let warn_after = duration(table, "warn_after", WARN_AFTER_DEFAULT, SECOND..=30 * DAY);
    let intake = table.required("intake", INTAKE_TYPES).and_then(|value| intake(&value, host));
    let answer_within = match &custody {
        Some(Custody::Upstream { answer_within, .. }) => Some(*answer_within),
        _ => None,
    };
    let release = table
        .required("release", RELEASE_TYPES)
        .and_then(|value| release(&value, host, answer_within));
    if let (Some(Custody::Upstream { .. }), Some(Intake::Pickup(_) | Intake::Mark { .. })) =
        (&custody, &intake)
    {
        let problem = "whoever leaves a message in a folder or with `mark` waits for no answer";
        table.wrong("custody", problem, "write custody = \"hook\", or an intake of type \"smtp\"");
    }
    let upstream = matches!(custody, Some(Custody::Upstream { .. }));
    let originated = table.value("originated").map(|value| originated(&value));
    Some(Mailbox {
        name: name?,
        intake: intake?,
        release: release?,
        needs: needs?,
        warn_after,
        reject_late: table.or("reject_late", RejectLate::Quarantine, reject_late),
        behind_queue: upstream && table.or("behind_queue", false, Value::flag),
        originated: originated.map_or(Some(None), |originated| originated.map(Some))?,
        custody: custody?,
    })
}

fn reject_late(value: &Value<'_>) -> Option<RejectLate> {
    value.one_of(&[
        ("quarantine", RejectLate::Quarantine),
        ("hold", RejectLate::Hold),
        ("discard", RejectLate::Discard),
    ])
}

/// Who may be named in messages that verdicts originate.
fn originated(value: &Value<'_>) -> Option<OriginatedAllowed> {
    let table = value.table()?;
    table.allow(keys::ORIGINATED);
    let senders = table.required("senders", ORIGINATED_SENDERS).and_then(|value| {
        value.list(ORIGINATED_MASKS_MAX, ORIGINATED_SENDERS, |item| mask(item, ORIGINATED_SENDERS))
    });
    let (to_sender, to_recipients) = (Cell::new(false), Cell::new(false));
    let recipients = table.required("recipients", ORIGINATED_RECIPIENTS).and_then(|value| {
        value.list(ORIGINATED_MASKS_MAX, ORIGINATED_RECIPIENTS, |item| {
            let role = match item.text(ORIGINATED_RECIPIENTS)? {
                "sender" => &to_sender,
                "recipients" => &to_recipients,
                "<>" => {
                    item.wrong("nothing goes to the null sender", "remove it");
                    return None;
                }
                _ => return mask(item, ORIGINATED_RECIPIENTS).map(Some),
            };
            role.set(true);
            Some(None)
        })
    });
    let recipients = recipients?.into_iter().flatten().collect();
    let (to_sender, to_recipients) = (to_sender.get(), to_recipients.get());
    Some(OriginatedAllowed { senders: senders?, recipients, to_sender, to_recipients })
}

fn mask(item: &Value<'_>, remedy: &str) -> Option<Mask> {
    let text = item.text(remedy)?;
    if text == "<>" {
        return Some(Mask::new(""));
    }
    if !text.contains(['@', '*']) || text.contains(['<', '>', ',', ' ', '\t']) {
        item.wrong(format!("{text:?} is no address and no mask"), remedy);
        return None;
    }
    Some(Mask::new(text))
}

/// A mailbox's name, which is also its folder's in the spool.
fn folder_name(value: &Value<'_>) -> Option<String> {
    let name = value.name()?;
    if spool::is_own(&name) {
        value.wrong("the spool has a file of its own with this name", "write another name");
        return None;
    }
    Some(name)
}

fn needs(value: &Value<'_>) -> Option<Vec<String>> {
    let needs = value.list(limits::NEEDS_MAX, NEEDS, Value::need)?;
    for (index, need) in needs.iter().enumerate() {
        if needs.iter().take(index).any(|before| before == need) {
            value.wrong(format!("{need:?} stands there twice"), "write it once");
            return None;
        }
    }
    Some(needs)
}

#[derive(Clone, Copy)]
enum Holder {
    Upstream,
    Hook,
}

fn custody(table: &Table<'_>) -> Option<Custody> {
    let holder = table
        .required("custody", CUSTODY)
        .and_then(|value| value.one_of(&[("upstream", Holder::Upstream), ("hook", Holder::Hook)]));
    match holder? {
        Holder::Upstream => upstream(table),
        Holder::Hook => hook(table),
    }
}

fn upstream(table: &Table<'_>) -> Option<Custody> {
    table.refuse(
        "after",
        "the sender does not wait that long",
        "remove it; answer_within says how long it waits",
    );
    let answer_within = table.or("answer_within", ANSWER_WITHIN_DEFAULT, |value| {
        value.duration(SECOND..=ANSWER_WITHIN_MAX)
    });
    let upstream_timeout =
        table.value("upstream_timeout").and_then(|value| value.duration(2 * SECOND..=DAY));
    if let Some(timeout) = upstream_timeout
        && timeout <= answer_within
    {
        let problem = format!(
            "the sender gives up after {:?} (upstream_timeout), so an answer within {:?} comes too late",
            duration_text(timeout),
            duration_text(answer_within)
        );
        table.wrong("answer_within", problem, "write a shorter one, or let the sender wait longer");
    }
    use UpstreamUnprocessed::{Hold, ReleaseUnscanned, TempFail, Wait};
    let when_unprocessed =
        table.required("when_unprocessed", UPSTREAM_UNPROCESSED).and_then(|value| {
            value.one_of(&[
                ("tempfail", TempFail),
                ("wait", Wait),
                ("hold", Hold),
                ("release-unscanned", ReleaseUnscanned),
            ])
        });
    Some(Custody::Upstream { answer_within, upstream_timeout, when_unprocessed: when_unprocessed? })
}

#[derive(Clone, Copy)]
enum InHook {
    Wait,
    Hold,
    Release,
}

fn hook(table: &Table<'_>) -> Option<Custody> {
    for key in ["answer_within", "upstream_timeout", "behind_queue"] {
        let remedy = "remove it, or write custody = \"upstream\"";
        table.refuse(key, "in the hook's custody the sender is answered at once", remedy);
    }
    let after = table.value("after").and_then(|value| value.duration(SECOND..=30 * DAY));
    let value = table.required("when_unprocessed", HOOK_UNPROCESSED)?;
    if value.says("tempfail") {
        value.wrong("in the hook's custody the sender already has our yes", HOOK_UNPROCESSED);
        return None;
    }
    let word = value.one_of(&[
        ("wait", InHook::Wait),
        ("hold", InHook::Hold),
        ("release-unscanned", InHook::Release),
    ])?;
    let when_unprocessed = match word {
        InHook::Wait => {
            table.refuse(
                "after",
                "\"wait\" is for as long as it takes",
                "remove it, or write when_unprocessed = \"hold\"",
            );
            HookUnprocessed::Wait
        }
        InHook::Hold | InHook::Release if !table.has("after") => {
            value.wrong("it needs the time after which it happens", "add after = \"4h\"");
            return None;
        }
        InHook::Hold => HookUnprocessed::Hold { after: after? },
        InHook::Release => HookUnprocessed::ReleaseUnscanned { after: after? },
    };
    Some(Custody::Hook { when_unprocessed })
}

fn intake(value: &Value<'_>, host: &str) -> Option<Intake> {
    let table = value.table()?;
    let kind = table.required("type", INTAKE_TYPES)?.one_of(&[
        ("smtp", IntakeType::Mail(Protocol::Smtp)),
        ("lmtp", IntakeType::Mail(Protocol::Lmtp)),
        ("pickup", IntakeType::Pickup),
        ("mark", IntakeType::Mark),
    ])?;
    match kind {
        IntakeType::Mail(protocol) => smtp_intake(&table, host, protocol).map(Intake::Smtp),
        IntakeType::Pickup => local::pickup(&table).map(Intake::Pickup),
        IntakeType::Mark => Some(local::mark(&table)),
    }
}

#[derive(Clone, Copy)]
enum IntakeType {
    Mail(Protocol),
    Pickup,
    Mark,
}

#[derive(Clone, Copy)]
enum ReleaseType {
    Mail(Protocol),
    Directory,
    Command,
}

fn smtp_intake(table: &Table<'_>, host: &str, protocol: Protocol) -> Option<SmtpIntake> {
    table.allow(keys::SMTP_INTAKE);
    let listen = table
        .required(
            "listen",
            "write the TCP address for the mail server, such as \"127.0.0.1:10025\"",
        )
        .and_then(|value| value.listen());
    if protocol == Protocol::Lmtp && listen.is_some_and(|address| address.port() == 25) {
        let problem = "port 25 is SMTP's, and LMTP must not be spoken there (RFC 2033, 5)";
        table.wrong("listen", problem, "write another port");
    }
    let here = listen.is_some_and(|address| address.ip().is_loopback());
    if listen.is_some() && !here && !table.has("peers") {
        table.wrong(
            "peers",
            "a listener that is not on loopback is an open relay unless it says who may use it",
            "write peers = [\"192.0.2.7\"] with your mail servers' addresses, or listen on 127.0.0.1",
        );
    }
    let own = || if here { Network::LOOPBACK.to_vec() } else { Vec::new() };
    let peers = table.value("peers").map_or_else(|| Some(own()), |value| networks(&value));
    if table.has("peers") && peers.as_ref().is_some_and(Vec::is_empty) {
        table.wrong(
            "peers",
            "nobody may use this listener",
            "write at least one address or network",
        );
    }
    let encryption = table.value("tls").map(|value| tls::intake(&value));
    Some(SmtpIntake {
        protocol,
        listen: listen?,
        host_name: table.or("hostname", host.to_owned(), Value::host_name),
        peers: peers?,
        xforward_from: table.or("xforward_from", own(), networks),
        stray_cr_lf: table.or("stray_cr_lf", StrayCrLf::Reject, |value| {
            value.one_of(&[("reject", StrayCrLf::Reject), ("normalise", StrayCrLf::Normalise)])
        }),
        tls: encryption.map_or(Some(None), |read| read.map(Some))?,
        limits: intake_limits(table),
        timeouts: intake_timeouts(table),
    })
}

fn intake_limits(table: &Table<'_>) -> SmtpLimits {
    let default = SmtpLimits::default();
    let connections_max = table
        .or("connections_max", default.connections_max, |value| value.integer(1..=CONNECTIONS_MAX));
    let per_client = default.connections_per_client_max.min(connections_max);
    let per_client = table
        .or("connections_per_client_max", per_client, |value| value.integer(1..=CONNECTIONS_MAX));
    if per_client > connections_max {
        let remedy = format!("write at most {connections_max}, or a larger connections_max");
        table.wrong("connections_per_client_max", "it is more than connections_max", remedy);
    }
    let recipients_max = u16::try_from(RECIPIENTS_MAX).unwrap_or(u16::MAX);
    SmtpLimits {
        message_bytes_max: table.or("message_size_max", default.message_bytes_max, |value| {
            value.size(1 << 10..=limits::MESSAGE_BYTES_MAX)
        }),
        recipients_max: table.or("recipients_max", default.recipients_max, |value| {
            value.integer(1..=recipients_max)
        }),
        connections_max,
        connections_per_client_max: per_client,
        ..default
    }
}

fn intake_timeouts(table: &Table<'_>) -> IntakeTimeouts {
    let default = IntakeTimeouts::default();
    IntakeTimeouts {
        command: duration(table, "command_timeout", default.command, SECOND..=HOUR),
        data: duration(table, "data_timeout", default.data, SECOND..=HOUR),
        message: duration(table, "message_timeout", default.message, SECOND..=DAY),
    }
}

pub(super) fn duration(
    table: &Table<'_>,
    key: &'static str,
    default: Duration,
    range: RangeInclusive<Duration>,
) -> Duration {
    table.or(key, default, |value| value.duration(range))
}

fn networks(value: &Value<'_>) -> Option<Vec<Network>> {
    let remedy = "write addresses or networks, such as [\"192.0.2.7\", \"10.0.0.0/8\"]";
    value.list(NETWORKS_MAX, remedy, |item| {
        item.parsed(
            |text| {
                text.parse().map_err(|problem: NoNetwork| match problem {
                    NoNetwork::HostBits { network } => {
                        format!("{problem}; did you mean \"{network}\"?")
                    }
                    NoNetwork::Malformed => problem.to_string(),
                })
            },
            remedy,
        )
    })
}

fn release(value: &Value<'_>, host: &str, answer_within: Option<Duration>) -> Option<Release> {
    let table = value.table()?;
    let kind = table.required("type", RELEASE_TYPES)?.one_of(&[
        ("smtp", ReleaseType::Mail(Protocol::Smtp)),
        ("lmtp", ReleaseType::Mail(Protocol::Lmtp)),
        ("directory", ReleaseType::Directory),
        ("command", ReleaseType::Command),
    ])?;
    match kind {
        ReleaseType::Mail(protocol) => {
            smtp_release(&table, host, answer_within, protocol).map(Release::Smtp)
        }
        ReleaseType::Directory => local::directory(&table, host).map(Release::Directory),
        ReleaseType::Command => local::command(&table, host, answer_within).map(Release::Command),
    }
}

fn smtp_release(
    table: &Table<'_>,
    host: &str,
    answer_within: Option<Duration>,
    protocol: Protocol,
) -> Option<SmtpRelease> {
    table.allow(keys::SMTP_RELEASE);
    let address = table
        .required("address", "write the next mail server, such as address = \"127.0.0.1:10026\"")
        .and_then(|value| value.endpoint());
    let queue = queue(table);
    let names = names(table, host);
    let demand = tls::demand(table, address.as_ref());
    let credentials = tls::credentials(table, address.as_ref(), demand.as_ref());
    Some(SmtpRelease {
        protocol,
        tls: demand?,
        credentials: credentials?,
        address: address?,
        authserv_id: names.authserv_id,
        host_name: names.host_name,
        xforward: table.or("xforward", true, Value::flag),
        connections_max: table
            .or("connections_max", 20, |value| value.integer(1..=CONNECTIONS_MAX)),
        timeouts: release_timeouts(table, answer_within),
        queue,
    })
}

/// What every way out has to say of itself.
pub(super) fn names(table: &Table<'_>, host: &str) -> Names {
    let host_name = table.or("hostname", host.to_owned(), Value::host_name);
    let authserv_id = table.or("authserv_id", host_name.clone(), Value::host_name);
    Names { host_name, authserv_id }
}

/// When every way out tries again.
pub(super) fn queue(table: &Table<'_>) -> Queue {
    let retry_first = duration(table, "retry_first", 30 * SECOND, SECOND..=DAY);
    let retry_max = duration(table, "retry_max", HOUR.max(retry_first), SECOND..=DAY);
    let lifetime = duration(table, "queue_lifetime", 5 * DAY, MINUTE..=30 * DAY);
    for (key, time) in [("retry_max", retry_max), ("queue_lifetime", lifetime)] {
        if time < retry_first {
            let remedy = format!("write at least {:?}", duration_text(retry_first));
            table.wrong(key, "it is shorter than retry_first", remedy);
        }
    }
    Queue { lifetime, retry_first, retry_max }
}

fn release_timeouts(table: &Table<'_>, answer_within: Option<Duration>) -> SmtpTimeouts {
    let default = SmtpTimeouts::default();
    // A next hop that is gone must not use up what the sender waits for our answer.
    let patience = answer_within.unwrap_or(HOUR);
    let connect_default = default.connect.min(patience / 2);
    let connect = duration(table, "connect_timeout", connect_default, SECOND / 10..=10 * MINUTE);
    if connect >= patience {
        let problem = format!(
            "the sender is answered within {:?} (answer_within), before a connection is given up",
            duration_text(patience)
        );
        table.wrong("connect_timeout", problem, "write a shorter one");
    }
    SmtpTimeouts {
        connect,
        command: duration(table, "command_timeout", default.command, SECOND..=HOUR),
        data: duration(table, "data_timeout", default.data, SECOND..=HOUR),
        block: duration(table, "block_timeout", default.block, SECOND..=HOUR),
        final_dot: duration(table, "final_dot_timeout", default.final_dot, SECOND..=HOUR),
        total: duration(table, "total_timeout", default.total, SECOND..=DAY),
        ..default
    }
}

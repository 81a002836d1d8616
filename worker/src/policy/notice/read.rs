//! From `[[notice]]` to a notice.

use gantry_config::{Table, Value};
use gantry_mail::is_address;

use super::{ADDRESSES_MAX, NOTICES_MAX, Notice, Template};
use crate::policy::keys;

/// Longest template in the file, in bytes: what fields stand for takes its place beside it.
const TEMPLATE_BYTES_MAX: usize = super::TEXT_BYTES_MAX / 2;

const ADDRESS: &str = "write an address such as \"postmaster@example.com\"";
const TO: &str = "write whom it goes to, such as [\"postmaster\"], [\"security@example.com\"], [\"sender\"] or \
                  [\"recipients\"]";
const TEXT: &str = "write what it says, such as \"{findings} in a message from {sender}\"";

/// Where a notice stands, by its name.
pub(in crate::policy) type Names = Vec<String>;

/// Reads all notices. A wrong one is still known by its name, so that its uses are not reported as well.
pub(in crate::policy) fn notices(top: &Table<'_>) -> (Names, Option<Vec<Notice>>) {
    let postmaster = top.value("postmaster").map(|value| address(&value));
    let (mut names, mut notices, mut whole) = (Names::new(), Vec::new(), true);
    for table in top.tables("notice", 0..=NOTICES_MAX) {
        let (name, notice) = notice(&table, postmaster.as_ref());
        let name = name.unwrap_or_default();
        if names.contains(&name) {
            table.wrong("name", "another [[notice]] has this name", "write a name of its own");
        }
        names.push(name);
        match notice {
            Some(notice) => notices.push(notice),
            None => whole = false,
        }
    }
    let whole = whole && postmaster.is_none_or(|postmaster| postmaster.is_some());
    (names, whole.then_some(notices))
}

/// The places of the notices that a rule names.
pub(in crate::policy) fn named(value: &Value<'_>, names: &Names) -> Option<Vec<usize>> {
    let remedy = "write a list such as [\"infected\"], and a [[notice]] of this name";
    let places = value.list(NOTICES_MAX, remedy, |item| {
        let name = item.text(remedy)?;
        let place = names.iter().position(|known| known == name);
        if place.is_none() {
            let remedy = match gantry_config::closest(name, names.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean {meant:?}?"),
                None => "write a [[notice]] of this name".to_owned(),
            };
            item.wrong(format!("there is no notice {name:?}"), remedy);
        }
        place
    })?;
    if places.is_empty() {
        value.wrong("the list is empty", remedy);
        return None;
    }
    Some(places)
}

fn notice(
    table: &Table<'_>,
    postmaster: Option<&Option<String>>,
) -> (Option<String>, Option<Notice>) {
    table.allow(keys::NOTICE);
    let name = table.required("name", "write a name, such as name = \"infected\"");
    let name = name.and_then(|value| value.name());
    let to = table.required("to", TO).and_then(|value| recipients(&value, postmaster));
    let from = table.required("from", ADDRESS).and_then(|value| address(&value));
    let envelope_sender = table.value("sender").map_or(Some(String::new()), |value| {
        if value.says("<>") { Some(String::new()) } else { address(&value) }
    });
    let subject = table.required("subject", TEXT).and_then(|value| {
        value.text(TEXT)?;
        template(&value)
    });
    let text = table.required("text", TEXT).and_then(|value| template(&value));
    let attach = table
        .value("attach")
        .map_or(Some(false), |value| value.one_of(&[("nothing", false), ("message", true)]));
    let notice = || {
        let To { addresses, to_sender, to_recipients } = to?;
        Some(Notice {
            name: name.clone()?,
            addresses,
            to_sender,
            to_recipients,
            from: from?,
            envelope_sender: envelope_sender?,
            subject: subject?,
            text: text?,
            attach: attach?,
        })
    };
    let notice = notice();
    (name, notice)
}

/// Whom a notice goes to.
struct To {
    addresses: Vec<String>,
    to_sender: bool,
    to_recipients: bool,
}

fn recipients(value: &Value<'_>, postmaster: Option<&Option<String>>) -> Option<To> {
    let mut to = To { addresses: Vec::new(), to_sender: false, to_recipients: false };
    for word in value.list(ADDRESSES_MAX, TO, |item| recipient(item, postmaster))? {
        match word {
            Word::Address(address) if to.addresses.contains(&address) => {}
            Word::Address(address) => to.addresses.push(address),
            Word::Sender => to.to_sender = true,
            Word::Recipients => to.to_recipients = true,
        }
    }
    if to.addresses.is_empty() && !to.to_sender && !to.to_recipients {
        value.wrong("the list is empty", TO);
        return None;
    }
    Some(to)
}

enum Word {
    Address(String),
    Sender,
    Recipients,
}

fn recipient(item: &Value<'_>, postmaster: Option<&Option<String>>) -> Option<Word> {
    match item.text(TO)? {
        "sender" => Some(Word::Sender),
        "recipients" => Some(Word::Recipients),
        "postmaster" => match postmaster {
            Some(postmaster) => postmaster.clone().map(Word::Address),
            None => {
                let remedy = "write postmaster = \"postmaster@example.com\" at the top of the file";
                item.wrong("nothing says who the postmaster is", remedy);
                None
            }
        },
        _ => address(item).map(Word::Address),
    }
}

/// What the hook takes for an address, too.
fn address(value: &Value<'_>) -> Option<String> {
    let text = value.text(ADDRESS)?;
    if !is_address(text) {
        value.wrong(format!("{text:?} is no address"), ADDRESS);
        return None;
    }
    Some(text.to_owned())
}

fn template(value: &Value<'_>) -> Option<Template> {
    value.parsed(
        |text| match text.len() {
            0 => Err("it is empty".to_owned()),
            length if length > TEMPLATE_BYTES_MAX => {
                Err(format!("it has {length} bytes; at most {TEMPLATE_BYTES_MAX} fit"))
            }
            _ => Template::parse(text),
        },
        TEXT,
    )
}

//! Notices that rules ask for: whom they go to, and what they say. Pure; the hook sends them, if it allows them.

pub(super) mod read;
mod template;

use std::collections::BTreeSet;

use gantry_mail::compose::{Attached, Letter, compose};
use gantry_mail::{BodyType, Envelope, header};
use gantry_protocol::frame::Assign;
use gantry_protocol::limits::{ORIGINATED_BYTES_MAX, ORIGINATED_MAX};
use gantry_protocol::verdict::{Finding, Originated, OriginatedTo};

use super::{Answer, Decision, Kind, Policy};

pub use template::FIELDS;
pub(super) use template::Template;
use template::{Values, cut};

/// Notices of one policy. Each becomes at most three messages, for those it names, for the sender and for the recipients,
/// so all of them fit into a verdict.
pub(super) const NOTICES_MAX: usize = ORIGINATED_MAX / 3;
/// Addresses that one notice names.
pub(super) const ADDRESSES_MAX: usize = 8;
/// Longest text of a notice, in bytes, with its fields filled in. Encoded it may take three times that, which leaves
/// room for the header below [`ORIGINATED_BYTES_MAX`].
pub(super) const TEXT_BYTES_MAX: usize = ORIGINATED_BYTES_MAX / 4;
/// Longest subject, in bytes, with its fields filled in.
pub(super) const SUBJECT_BYTES_MAX: usize = 256;
/// Longest value of a field that comes from the mail, in bytes.
const VALUE_BYTES_MAX: usize = 256;
/// Recipients and findings that are told one by one.
const TOLD_MAX: usize = 20;

/// A `[[notice]]`.
#[derive(Clone, Debug)]
pub(super) struct Notice {
    pub(super) name: String,
    /// Addresses, the postmaster's among them.
    pub(super) addresses: Vec<String>,
    pub(super) to_sender: bool,
    pub(super) to_recipients: bool,
    pub(super) from: String,
    /// The envelope's sender; empty for the null sender.
    pub(super) envelope_sender: String,
    pub(super) subject: Template,
    pub(super) text: Template,
    /// The message itself goes with it, and the notice only where the message is released.
    pub(super) attach: bool,
}

/// What a mailbox of `hook.toml` has to say so that these go out, as TOML.
pub(super) fn allowed_by(notices: &[Notice]) -> String {
    let (mut senders, mut recipients) = (BTreeSet::new(), BTreeSet::new());
    for notice in notices {
        let sender = notice.envelope_sender.as_str();
        senders.insert(if sender.is_empty() { "<>" } else { sender });
        recipients.extend(notice.addresses.iter().map(String::as_str));
        recipients.extend(notice.to_sender.then_some("sender"));
        recipients.extend(notice.to_recipients.then_some("recipients"));
    }
    let (senders, recipients) = (Vec::from_iter(senders), Vec::from_iter(recipients));
    format!("originated = {{ senders = {senders:?}, recipients = {recipients:?} }}")
}

/// A message whose every recipient has its answer.
#[derive(Clone, Copy, Debug)]
pub struct Told<'a> {
    pub assign: &'a Assign,
    /// The start of the message; only its header block is looked at.
    pub start: &'a [u8],
    pub findings: &'a [Finding],
    pub decisions: &'a [Decision],
    pub worker: &'a str,
    pub unix_seconds: u64,
}

/// For whom a notice was asked, and by which rules.
struct Asked<'a> {
    notice: &'a Notice,
    recipients: Vec<u16>,
    decisions: Vec<&'a Decision>,
    rules: BTreeSet<&'a str>,
}

impl Policy {
    /// The notices that the rules which applied ask for: each once for the message, and one at most to its sender.
    pub fn originate(&self, told: &Told<'_>) -> Vec<Originated> {
        let mut originated = Vec::new();
        let mut sender_told = !may_be_answered(&told.assign.envelope.sender, told.start);
        for asked in self.asked(told) {
            let Asked { notice, recipients, .. } = &asked;
            let mut write = |to: Vec<OriginatedTo>, shown: &[&str], values: &Values| {
                let number = originated.len();
                originated.push(one(told, notice, to, shown, values, number));
            };
            let values = values(told, &asked);
            if !notice.addresses.is_empty() {
                let to = notice.addresses.iter().cloned().map(OriginatedTo::Address).collect();
                let shown: Vec<&str> = notice.addresses.iter().map(String::as_str).collect();
                write(to, &shown, &values);
            }
            if notice.to_sender && !std::mem::replace(&mut sender_told, true) {
                let sender = told.assign.envelope.sender.as_str();
                write(vec![OriginatedTo::Sender], &[sender], &values);
            }
            if notice.to_recipients {
                // Who else gets it may be nobody's business: think of Bcc.
                let others = match recipients.len() {
                    1 => values.clone(),
                    count => {
                        let mut others = values.clone();
                        others.insert("recipients", format!("{count} recipients"));
                        others
                    }
                };
                let to = recipients.iter().copied().map(OriginatedTo::Recipient).collect();
                write(to, &[], &others);
            }
        }
        originated
    }

    fn asked<'a>(&'a self, told: &Told<'a>) -> Vec<Asked<'a>> {
        let of = |(place, notice): (usize, &'a Notice)| {
            let mut asked = Asked {
                notice,
                recipients: Vec::new(),
                decisions: Vec::new(),
                rules: BTreeSet::new(),
            };
            for (index, decision) in (0..=u16::MAX).zip(told.decisions) {
                let rules = decision.rules.iter().filter_map(|rule| self.rules.get(*rule));
                let mut names = rules
                    .filter(|rule| rule.notify.contains(&place))
                    .map(|rule| rule.name.as_str())
                    .peekable();
                if names.peek().is_some() {
                    asked.rules.extend(names);
                    asked.recipients.push(index);
                    asked.decisions.push(decision);
                }
            }
            let released = |decision: &&Decision| decision.answer == Answer::Release;
            let wanted = !asked.recipients.is_empty()
                && (!notice.attach || asked.decisions.iter().any(released));
            wanted.then_some(asked)
        };
        self.notices.iter().enumerate().filter_map(of).collect()
    }
}

/// Whether a notice to the sender does no harm: to nobody who is no person, and not in answer to what no person wrote
/// (RFC 3834, 2; RFC 5321, 4.5.5).
fn may_be_answered(sender: &str, start: &[u8]) -> bool {
    let local = sender.rsplit_once('@').map_or(sender, |(local, _)| local).to_ascii_lowercase();
    let robot = sender.is_empty()
        || ["mailer-daemon", "postmaster"].contains(&local.as_str())
        || local.starts_with("owner-")
        || local.ends_with("-owner")
        || local.ends_with("-request")
        || local.ends_with("-bounces");
    let automatic = header::fields(start).any(|field| {
        let name = String::from_utf8_lossy(field.name).to_ascii_lowercase();
        let value = String::from_utf8_lossy(field.value).trim().to_ascii_lowercase();
        match name.as_str() {
            "auto-submitted" => value != "no",
            "precedence" => ["bulk", "list", "junk"].contains(&value.as_str()),
            name => name.starts_with("list-"),
        }
    });
    !robot && !automatic
}

fn one(
    told: &Told<'_>,
    notice: &Notice,
    to: Vec<OriginatedTo>,
    shown: &[&str],
    values: &Values,
    number: usize,
) -> Originated {
    let Assign { message, fence, digest, envelope, .. } = told.assign;
    let domain = notice.from.rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let parameters = &envelope.parameters;
    let eight_bit = parameters.smtputf8 || parameters.body == Some(BodyType::EightBitMime);
    let digest = digest.to_string();
    let composed = compose(&Letter {
        from: &notice.from,
        to: shown,
        subject: &notice.subject.fill(values, SUBJECT_BYTES_MAX),
        unix_seconds: told.unix_seconds,
        message_id: &format!("{message}.{fence}.{number}@{domain}"),
        text: &notice.text.fill(values, TEXT_BYTES_MAX),
        attached: notice.attach.then_some(Attached { unlike: &digest, eight_bit }),
    });
    Originated {
        sender: notice.envelope_sender.clone(),
        recipients: to,
        message: composed.message,
        original_at: composed.attached_at.and_then(|at| u32::try_from(at).ok()),
    }
}

/// What the fields stand for.
fn values(told: &Told<'_>, asked: &Asked<'_>) -> Values {
    let Envelope { sender, recipients, peer, .. } = &told.assign.envelope;
    let address = |index: &u16| {
        recipients.get(usize::from(*index)).map_or(String::new(), |to| bounded(&to.address))
    };
    let client = super::condition::client(peer).map(|address| address.to_string());
    let distinct = |of: fn(&Decision) -> String| -> Vec<String> {
        let all: BTreeSet<String> = asked.decisions.iter().map(|decision| of(decision)).collect();
        all.into_iter().collect()
    };
    let findings = told.findings.iter().map(|finding| {
        let what = Kind::of(&finding.outcome).map_or("clean".to_owned(), |kind| {
            super::outcome::problem(finding).map_or(kind.key().to_owned(), |problem| problem.text)
        });
        bounded(&format!("{}: {what}", finding.need))
    });
    Values::from([
        ("id", told.assign.message.to_string()),
        ("mailbox", told.assign.mailbox.clone()),
        ("sender", if sender.is_empty() { "<>".to_owned() } else { bounded(sender) }),
        ("recipients", listed(asked.recipients.iter().map(address), ", ")),
        ("subject", subject(told.start)),
        ("size", told.assign.length.to_string()),
        ("client", client.unwrap_or_default()),
        ("answer", distinct(|decision| decision.answer.word().to_owned()).join(", ")),
        ("reason", listed(distinct(|decision| bounded(&decision.reason)), "; ")),
        ("findings", listed(findings, "\n")),
        ("rules", listed(asked.rules.iter().map(|rule| bounded(rule)), ", ")),
        ("worker", told.worker.to_owned()),
    ])
}

/// The message's subject as it stands there, unfolded; encoded words are not decoded.
fn subject(start: &[u8]) -> String {
    let field = header::fields(start).find(|field| field.is("Subject"));
    field.map_or(String::new(), |field| bounded(String::from_utf8_lossy(field.value).trim()))
}

fn listed(all: impl IntoIterator<Item = String>, between: &str) -> String {
    let all: Vec<String> = all.into_iter().collect();
    let mut told: Vec<String> = all.iter().take(TOLD_MAX).cloned().collect();
    if all.len() > TOLD_MAX {
        told.push(format!("and {} more", all.len() - TOLD_MAX));
    }
    told.join(between)
}

/// One line, of bounded length: it comes from the mail.
fn bounded(text: &str) -> String {
    let line: String =
        text.replace("\r\n", "").chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    cut(&line, VALUE_BYTES_MAX).to_owned()
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]
mod tests;

//! `gantry policy check` and `gantry policy test`.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gantry_mail::{Envelope, HeaderEdit, Peer, Recipient, header};
use gantry_protocol::frame::Assign;
use gantry_protocol::grabber::Processed;
use gantry_protocol::id::{Digest, Fence, MessageId};
use gantry_protocol::limits::{RESERVATION_TIME_MAX, SILENCE_MAX};
use gantry_protocol::time::millis;
use gantry_protocol::verdict::{Disposition, Finding, Originated, OriginatedTo, Outcome};
use gantry_scanners::api::{Module, Source};
use gantry_scanners::registry;
use sha2::{Digest as _, Sha256};

use super::runtime;
use crate::cli::{PolicyAction, PolicyTestArgs};
use crate::config::Config;
use crate::exit::{self, Failure, failure, line};
use crate::pipeline::{Examined, Pipeline};
use crate::policy::{Kind, Policy};

/// Largest message that is tried, in bytes: it is read into memory.
const MESSAGE_BYTES_MAX: u64 = 1 << 30;

pub(super) fn execute(
    config: &Path,
    action: PolicyAction,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    match action {
        PolicyAction::Check { file } => check(config, file, out),
        PolicyAction::Test(arguments) => test(config, &arguments, out),
    }
}

/// A policy that these modules can follow.
pub(super) fn load(file: &Path, modules: &[Arc<dyn Module>]) -> Result<Policy, Failure> {
    let provides: Vec<&str> = modules.iter().map(|module| module.provides()).collect();
    Policy::load_for(file, &provides).map_err(exit::mistakes)
}

fn check(config: &Path, file: Option<PathBuf>, out: &mut dyn Write) -> Result<(), Failure> {
    // A file alone can be checked where there is no worker.
    let (file, policy) = match file {
        Some(file) => {
            let policy = Policy::load(&file).map_err(exit::mistakes)?;
            (file, policy)
        }
        None => {
            let config = super::load(config)?;
            let file = config.policy.clone().ok_or_else(no_policy)?;
            let policy = load(&file, &modules(config)?)?;
            (file, policy)
        }
    };
    for note in policy.notes() {
        line(out, &format!("note: {note}"))?;
    }
    let rules = policy.rules();
    line(out, &format!("{}: no mistakes, {rules} rule(s)", file.display()))?;
    line(out, &format!("digest {}", policy.digest()))
}

fn no_policy() -> Failure {
    let text = "the configuration names no policy file, so the built-in policy counts; name a FILE, or write policy = \
                \"policy.toml\"";
    Failure { code: exit::EX_USAGE, text: text.to_owned() }
}

fn modules(config: Config) -> Result<Vec<Arc<dyn Module>>, Failure> {
    registry::build(config.modules).map_err(|error| failure(exit::EX_CONFIG, error))
}

fn test(config: &Path, arguments: &PolicyTestArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let config = super::load(config)?;
    let file = arguments.policy.clone().or_else(|| config.policy.clone());
    let name = config.name.clone();
    let modules = modules(config)?;
    let policy = file.map(|file| load(&file, &modules)).transpose()?.map(Arc::new);
    let mut pipeline = Pipeline::new(modules, &name);
    if let Some(policy) = &policy {
        pipeline = pipeline.with_policy(Arc::clone(policy));
    }
    let message = read(&arguments.message)?;
    let assign = Arc::new(assign(arguments, &pipeline, &message));
    let source = Source::Memory(message.clone().into());
    let (prepared, _work) = pipeline.prepare(Arc::clone(&assign), source);
    let examined = runtime()?.block_on(prepared.examine());
    let report = Report { policy: policy.as_deref(), assign: &assign, examined, message: &message };
    if arguments.json {
        let text = serde_json::to_string(&report.json())
            .map_err(|error| failure(exit::EX_SOFTWARE, error))?;
        line(out, &text)
    } else {
        line(out, report.text().trim_end())
    }
}

/// The message with CRLF at its line ends, as SMTP would bring it.
fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let read = std::fs::metadata(file).and_then(|metadata| {
        if metadata.len() > MESSAGE_BYTES_MAX {
            return Err(std::io::Error::other("it is larger than 1GiB"));
        }
        std::fs::read(file)
    });
    let bytes = read
        .map_err(|error| failure(exit::EX_NOINPUT, format!("read {}: {error}", file.display())))?;
    let mut message = Vec::with_capacity(bytes.len());
    let mut before = 0;
    for byte in bytes {
        if byte == b'\n' && before != b'\r' {
            message.push(b'\r');
        }
        message.push(byte);
        before = byte;
    }
    Ok(message)
}

/// As a host would assign it.
fn assign(arguments: &PolicyTestArgs, pipeline: &Pipeline, message: &[u8]) -> Assign {
    let provided = || {
        let mut needs: Vec<String> = pipeline.provides().into_iter().map(str::to_owned).collect();
        needs.sort();
        needs.dedup();
        needs
    };
    let recipient =
        |address: &String| Recipient { address: address.clone(), ..Recipient::default() };
    let needs = arguments.needs.clone().unwrap_or_else(provided);
    Assign {
        message: MessageId { epoch: 0, counter: 0 },
        fence: Fence { epoch: 0, counter: 0 },
        attempt: 1,
        mailbox: arguments.mailbox.clone(),
        asked: needs.clone(),
        needs,
        findings: Vec::new(),
        envelope: Envelope {
            sender: arguments.from.clone(),
            recipients: arguments.to.iter().map(recipient).collect(),
            peer: Peer { address: arguments.client, ..Peer::default() },
            ..Envelope::default()
        },
        length: u64::try_from(message.len()).unwrap_or(u64::MAX),
        digest: Digest(Sha256::digest(message).into()),
        time_max_ms: millis(RESERVATION_TIME_MAX),
        silence_max_ms: millis(SILENCE_MAX),
    }
}

struct Report<'a> {
    policy: Option<&'a Policy>,
    assign: &'a Assign,
    examined: Examined,
    message: &'a [u8],
}

/// What becomes of some recipients.
struct Part {
    recipients: Vec<String>,
    what: String,
    /// Lines of the header block that would leave, marked with `+`, those that would not with `-`.
    diff: Vec<String>,
}

/// A message that would be sent beside this one.
struct Notice {
    to: Vec<String>,
    message: String,
}

impl Report<'_> {
    fn text(&self) -> String {
        let mut lines = Vec::new();
        for finding in &self.examined.findings {
            lines.push(format!("module {}: {}", finding.module, said(finding)));
        }
        for (recipient, rules) in self.rules() {
            for rule in rules {
                lines.push(format!("rule {rule:?} applies to {recipient}"));
            }
        }
        for notice in self.notices() {
            lines.push(format!("notice to {}:", notice.to.join(", ")));
            lines.extend(
                notice.message.lines().map(|line| format!("  {line}").trim_end().to_owned()),
            );
        }
        for part in self.parts() {
            lines.push(format!("{}: {}", part.recipients.join(", "), part.what));
            lines.extend(part.diff.into_iter().map(|line| format!("  {line}")));
        }
        lines.join("\n")
    }

    fn json(&self) -> serde_json::Value {
        let findings = self.examined.findings.iter().map(|finding| {
            let kind = Kind::of(&finding.outcome).map_or("clean", Kind::key);
            serde_json::json!({
                "need": finding.need, "module": finding.module, "engine": finding.engine,
                "signatures": finding.signatures, "outcome": kind, "said": said(finding),
            })
        });
        let recipients = self.rules().into_iter().zip(&self.examined.decisions);
        let recipients = recipients.map(|((recipient, rules), decision)| {
            serde_json::json!({
                "recipient": recipient, "rules": rules, "answer": decision.answer.word(),
                "reason": decision.reason,
            })
        });
        let parts = self.parts().into_iter().map(|part| {
            serde_json::json!({
                "recipients": part.recipients, "what": part.what, "diff": part.diff,
            })
        });
        let notices = self
            .notices()
            .into_iter()
            .map(|notice| serde_json::json!({ "to": notice.to, "message": notice.message }));
        serde_json::json!({
            "findings": findings.collect::<Vec<_>>(),
            "decisions": recipients.collect::<Vec<_>>(),
            "leaves": parts.collect::<Vec<_>>(),
            "notices": notices.collect::<Vec<_>>(),
        })
    }

    /// What the verdict originates, as the hook would write it.
    fn notices(&self) -> Vec<Notice> {
        let Processed::Verdict(verdict) = &self.examined.processed else { return Vec::new() };
        let envelope = &self.assign.envelope;
        let address = |to: &OriginatedTo| match to {
            OriginatedTo::Address(address) => Some(address.clone()),
            OriginatedTo::Sender => Some(envelope.sender.clone()),
            OriginatedTo::Recipient(index) => {
                Some(envelope.recipients.get(usize::from(*index))?.address.clone())
            }
        };
        let notice = |one: &Originated| {
            let at = one.original_at.and_then(|at| usize::try_from(at).ok());
            let (before, behind) = at
                .and_then(|at| one.message.split_at_checked(at))
                .unwrap_or((one.message.as_slice(), &[]));
            let mut message = String::from_utf8_lossy(before).into_owned();
            if at.is_some() {
                message.push_str(&format!("(the message itself, {} bytes)", self.assign.length));
                message.push_str(&String::from_utf8_lossy(behind));
            }
            Notice { to: one.recipients.iter().filter_map(address).collect(), message }
        };
        verdict.originated.iter().map(notice).collect()
    }

    /// Which rules applied to whom.
    fn rules(&self) -> Vec<(&str, Vec<&str>)> {
        let recipients = self.assign.envelope.recipients.iter();
        let name = |place: &usize| self.policy.map_or("", |policy| policy.rule(*place));
        recipients
            .zip(&self.examined.decisions)
            .map(|(recipient, decision)| {
                (recipient.address.as_str(), decision.rules.iter().map(name).collect())
            })
            .collect()
    }

    fn parts(&self) -> Vec<Part> {
        let address = |index: &u16| {
            let recipient = self.assign.envelope.recipients.get(usize::from(*index));
            recipient.map_or(String::new(), |recipient| recipient.address.clone())
        };
        let all =
            || self.assign.envelope.recipients.iter().map(|one| one.address.clone()).collect();
        match &self.examined.processed {
            Processed::Return(returned) => {
                let what = format!("another attempt ({:?}): {}", returned.kind, returned.reason);
                vec![Part { recipients: all(), what, diff: Vec::new() }]
            }
            // All was asked of it.
            Processed::Part(_) => Vec::new(),
            Processed::Verdict(verdict) => {
                let part = |group: &gantry_protocol::verdict::Group| {
                    let (what, diff) = self.disposition(&group.disposition);
                    Part { recipients: group.recipients.iter().map(address).collect(), what, diff }
                };
                verdict.groups.iter().map(part).collect()
            }
        }
    }

    fn disposition(&self, disposition: &Disposition) -> (String, Vec<String>) {
        match disposition {
            Disposition::Deliver { edits, .. } => ("release".to_owned(), diff(self.message, edits)),
            Disposition::Refuse { code, enhanced, text } => {
                (format!("reject: {code} {enhanced} {text}"), Vec::new())
            }
            Disposition::Discard => ("discard".to_owned(), Vec::new()),
            Disposition::Quarantine { reason } => (format!("quarantine: {reason}"), Vec::new()),
            Disposition::Hold { reason } => (format!("hold: {reason}"), Vec::new()),
        }
    }
}

fn said(finding: &Finding) -> String {
    match &finding.outcome {
        Outcome::Clean => "clean".to_owned(),
        Outcome::Found { names } => format!("found {}", names.join(", ")),
        Outcome::Unscanned { reason } => format!("unscanned: {reason}"),
        Outcome::Encrypted { reason } => format!("encrypted: {reason}"),
        Outcome::Malformed { reason } => format!("malformed: {reason}"),
        Outcome::OverBudget { reason } => format!("over budget: {reason}"),
    }
}

/// What the edits add and take away; lines that stay as they are are counted.
fn diff(message: &[u8], edits: &[HeaderEdit]) -> Vec<String> {
    let mut lines = Vec::new();
    for edit in edits {
        if let HeaderEdit::Prepend { field } = edit {
            lines.extend(field.split("\r\n").map(|line| format!("+{line}")));
        }
    }
    let removed = |field: &header::Field<'_>| {
        edits.iter().any(|edit| matches!(edit, HeaderEdit::Remove { name } if field.is(name)))
    };
    let mut unchanged = 0;
    for field in header::fields(message) {
        if removed(&field) {
            let text = String::from_utf8_lossy(field.raw);
            lines.extend(text.trim_end().split("\r\n").map(|line| format!("-{line}")));
        } else {
            unchanged += 1;
        }
    }
    lines.push(format!(" and {unchanged} field(s) as they are"));
    lines
}

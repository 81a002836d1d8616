//! The built-in policy ([`gantry_protocol::policy::BUILT_IN`]): a finding quarantines; what could not be said leads to
//! another attempt and then to held; the rest is released with one result header.

use gantry_mail::{FIELD_BYTES_MAX, HeaderEdit};
use gantry_protocol::frame::{Assign, ReturnKind};
use gantry_protocol::grabber::Processed;
use gantry_protocol::text::bounded;
use gantry_protocol::verdict::{Body, Disposition, Finding, Group, Originated, Outcome, Verdict};

use super::give_back;
use super::part::{is_open, name_open_needs, part};
use crate::policy::Kind;

/// Names of findings in one reason; a message may match any number of rules.
const NAMES_MAX: usize = 8;

/// What becomes of a message, by what earlier workers' modules and this one's own found. Something that was found needs
/// nobody else's word.
pub(super) fn decide(assign: &Assign, worker: &str, mut own: Vec<Finding>) -> Processed {
    let all: Vec<Finding> = assign.findings.iter().chain(&own).cloned().collect();
    if let Some(found) = all.iter().find_map(found) {
        name_open_needs(assign, &mut own);
        return verdict(assign, own, Disposition::Quarantine { reason: found });
    }
    if let Some(reason) = all.iter().find_map(unsaid) {
        return give_back(ReturnKind::Failed, reason);
    }
    if is_open(assign, &all) {
        return part(assign, &own);
    }
    let field = result_field(assign, worker, &all);
    let edits = vec![HeaderEdit::Prepend { field }];
    verdict(assign, own, Disposition::Deliver { edits, body: Body::Original })
}

fn verdict(assign: &Assign, findings: Vec<Finding>, disposition: Disposition) -> Processed {
    let recipients = (0..assign.envelope.recipients.len())
        .filter_map(|index| u16::try_from(index).ok())
        .collect();
    verdict_of(assign, findings, vec![Group { recipients, disposition }], Vec::new())
}

/// A verdict on the message as it was assigned.
pub(super) fn verdict_of(
    assign: &Assign,
    findings: Vec<Finding>,
    groups: Vec<Group>,
    originated: Vec<Originated>,
) -> Processed {
    let (length, digest) = (assign.length, assign.digest);
    Processed::Verdict(Box::new(Verdict { length, digest, groups, findings, originated }))
}

/// What was found, in a sentence.
fn found(finding: &Finding) -> Option<String> {
    let Outcome::Found { names } = &finding.outcome else { return None };
    let names: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
    Some(bounded(format!("{} found {}", finding.module, names.join(", "))))
}

/// Why a module could not say whether there is something, in a sentence.
fn unsaid(finding: &Finding) -> Option<String> {
    let (what, reason) = match &finding.outcome {
        Outcome::Clean | Outcome::Found { .. } => return None,
        Outcome::Unscanned { reason } => ("unscanned", reason),
        Outcome::Encrypted { reason } => ("encrypted", reason),
        Outcome::Malformed { reason } => ("malformed", reason),
        Outcome::OverBudget { reason } => ("over budget", reason),
    };
    Some(bounded(format!("{}: {what}: {reason}", finding.module)))
}

/// `X-Gantry: clean; id=...; worker=...;` and a line for each module: what it said, and with which engine and
/// signatures. Another word than `clean` tells that a policy let through what was not.
pub(super) fn result_field(assign: &Assign, worker: &str, findings: &[Finding]) -> String {
    let all_clean = findings.iter().all(|finding| finding.outcome == Outcome::Clean);
    let word = match (findings.is_empty(), all_clean) {
        (true, _) => "nothing asked",
        (false, true) => "clean",
        (false, false) => "released by policy",
    };
    let mut field = format!("X-Gantry: {word}; id={}; worker={}", assign.message, plain(worker));
    for finding in findings {
        let (engine, signatures) = (plain(&finding.engine), plain(&finding.signatures));
        let by = if signatures.is_empty() { engine } else { format!("{engine}, {signatures}") };
        let line = format!(
            ";\r\n\t{}={} by {} ({by})",
            plain(&finding.need),
            Kind::of(&finding.outcome).map_or("clean", Kind::key),
            plain(&finding.module)
        );
        if field.len() + line.len() > FIELD_BYTES_MAX {
            break;
        }
        field.push_str(&line);
    }
    field
}

/// Printable ASCII, short enough for a header line.
fn plain(text: &str) -> String {
    text.chars().take(128).map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests {
    use gantry_mail::{Envelope, Recipient};
    use gantry_protocol::id::{Digest, Fence, MessageId};

    use super::*;

    fn assign() -> Assign {
        Assign {
            message: MessageId { epoch: 1, counter: 2 },
            fence: Fence { epoch: 1, counter: 3 },
            attempt: 1,
            mailbox: "mail.box".into(),
            needs: vec!["virus".into()],
            asked: vec!["virus".into()],
            findings: Vec::new(),
            envelope: Envelope {
                recipients: vec![Recipient::default(), Recipient::default()],
                ..Envelope::default()
            },
            length: 7,
            digest: Digest([9; 32]),
            time_max_ms: 1,
            silence_max_ms: 1,
        }
    }

    fn finding(module: &str, outcome: Outcome) -> Finding {
        Finding {
            need: "virus".into(),
            module: module.into(),
            engine: "Engine 1\r\nX-Forged: yes".into(),
            signatures: "27000".into(),
            outcome,
            duration_ms: 1,
        }
    }

    #[test]
    fn clean_mail_is_released_to_all_with_one_header_that_nothing_can_break_out_of() {
        let Processed::Verdict(verdict) =
            decide(&assign(), "pc-1", vec![finding("rules", Outcome::Clean)])
        else {
            panic!("returned")
        };
        assert_eq!((verdict.length, verdict.digest), (7, Digest([9; 32])));
        assert_eq!(verdict.groups[0].recipients, [0, 1]);
        let Disposition::Deliver { edits, body: Body::Original } = &verdict.groups[0].disposition
        else {
            panic!()
        };
        let [HeaderEdit::Prepend { field }] = edits.as_slice() else { panic!("{edits:?}") };
        assert_eq!(
            field,
            "X-Gantry: clean; id=1-2; worker=pc-1;\r\n\tvirus=clean by rules (Engine 1??X-Forged: yes, 27000)"
        );
        gantry_mail::check_edits(edits).unwrap();
    }

    #[test]
    fn one_finding_outweighs_what_the_others_say() {
        let clean = finding("rules", Outcome::Clean);
        let over = finding("rules", Outcome::OverBudget { reason: "big".into() });
        let found = finding("clamav", Outcome::Found { names: vec!["Eicar".into()] });
        let Processed::Verdict(verdict) = decide(&assign(), "pc-1", vec![clean, over, found])
        else {
            panic!()
        };
        let Disposition::Quarantine { reason } = &verdict.groups[0].disposition else { panic!() };
        assert_eq!(reason, "clamav found Eicar");
        assert_eq!(verdict.findings.len(), 3);
    }

    #[test]
    fn no_answer_is_never_clean() {
        for outcome in [
            Outcome::Unscanned { reason: "x".into() },
            Outcome::Encrypted { reason: "x".into() },
            Outcome::Malformed { reason: "x".into() },
            Outcome::OverBudget { reason: "x".into() },
        ] {
            let findings = vec![finding("rules", Outcome::Clean), finding("other", outcome)];
            let Processed::Return(returned) = decide(&assign(), "pc-1", findings) else {
                panic!("released")
            };
            assert_eq!(returned.kind, ReturnKind::Failed);
        }
    }

    #[test]
    fn something_found_needs_nobody_elses_word_and_clean_does() {
        let assign = Assign { needs: vec!["virus".into(), "sign".into()], ..assign() };
        let found = finding("clamav", Outcome::Found { names: vec!["Eicar".into()] });
        let Processed::Verdict(verdict) = decide(&assign, "pc-1", vec![found]) else { panic!() };
        assert!(matches!(verdict.groups[0].disposition, Disposition::Quarantine { .. }));
        assert_eq!(verdict.findings[1].need, "sign", "that it was not asked is said");
        assert!(!verdict.findings[1].outcome.is_answer());
        let clean = vec![finding("clamav", Outcome::Clean)];
        let Processed::Part(part) = decide(&assign, "pc-1", clean.clone()) else { panic!() };
        assert_eq!(part.findings, clean);
    }
}

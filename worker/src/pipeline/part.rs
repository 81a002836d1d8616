//! What a worker returns that was asked for only some of what a message needs.

use gantry_protocol::frame::{Assign, Part, ReturnKind};
use gantry_protocol::grabber::Processed;
use gantry_protocol::verdict::{Body, Finding, Outcome};

use super::give_back;

/// Whether other workers have to do something yet, after all of these findings.
pub(super) fn is_open(assign: &Assign, all: &[Finding]) -> bool {
    assign.needs.iter().any(|need| !all.iter().any(|finding| finding.need == *need))
}

/// What this worker found for the needs that it was asked for. One without any answer stays open, and where that is all,
/// the attempt came to nothing.
pub(super) fn part(assign: &Assign, own: &[Finding]) -> Processed {
    let answered = |need: &String| own.iter().any(|f| f.need == *need && f.outcome.is_answer());
    let findings: Vec<Finding> = own
        .iter()
        .filter(|finding| assign.asked.contains(&finding.need) && answered(&finding.need))
        .cloned()
        .collect();
    if findings.is_empty() {
        let reason = own.iter().find_map(|finding| match &finding.outcome {
            Outcome::Unscanned { reason } => Some(format!("{}: {reason}", finding.module)),
            _ => None,
        });
        let reason = reason.unwrap_or_else(|| "nothing of it could be done here".to_owned());
        return give_back(ReturnKind::Failed, reason);
    }
    let (length, digest, body) = (assign.length, assign.digest, Body::Original);
    Processed::Part(Box::new(Part { length, digest, findings, body }))
}

/// The host wants a finding for each need, also where nobody gets the message.
fn not_asked(need: &str) -> Finding {
    Finding {
        need: need.to_owned(),
        module: "policy".to_owned(),
        engine: String::new(),
        signatures: String::new(),
        outcome: Outcome::Unscanned { reason: "the policy decided without it".to_owned() },
        duration_ms: 0,
    }
}

/// Adds for each need that nobody was asked for that this is so.
pub(super) fn name_open_needs(assign: &Assign, own: &mut Vec<Finding>) {
    for need in &assign.needs {
        if !assign.findings.iter().chain(own.iter()).any(|finding| finding.need == *need) {
            own.push(not_asked(need));
        }
    }
}

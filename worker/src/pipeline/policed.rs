//! Running what a policy file asks for, step by step, and making a verdict of its decisions.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use gantry_mail::HeaderEdit;
use gantry_mail::header::HEADER_BLOCK_BYTES_MAX;
use gantry_protocol::frame::ReturnKind;
use gantry_protocol::grabber::Processed;
use gantry_protocol::text::bounded;
use gantry_protocol::verdict::{Body, Disposition, Finding, Group, Outcome};
use gantry_scanners::api::{Job, Module, ModuleError};

use super::part::{name_open_needs, part};
use super::policy::{result_field, verdict_of};
use super::{Prepared, give_back};
use crate::policy::{Answer, Decision, Facts, Kind, Policy, Ran, Said, Step, Told};

/// What came of a message, and how.
#[derive(Clone, Debug)]
pub struct Examined {
    pub processed: Processed,
    pub findings: Vec<Finding>,
    /// One for each recipient; none where a module was unavailable.
    pub decisions: Vec<Decision>,
}

impl Examined {
    /// By the built-in policy, which has no rules.
    pub(super) fn of(processed: Processed) -> Self {
        let findings = match &processed {
            Processed::Verdict(verdict) => verdict.findings.clone(),
            Processed::Part(part) => part.findings.clone(),
            Processed::Return(_) => Vec::new(),
        };
        Self { processed, findings, decisions: Vec::new() }
    }
}

impl Prepared {
    /// Takes the policy's steps until every recipient has its answer.
    pub(super) async fn run_policed(mut self, policy: &Policy) -> Examined {
        let start = match self.start(policy).await {
            Ok(start) => start,
            Err(reason) => return gave_back(ReturnKind::Unavailable, reason, Vec::new()),
        };
        let assign = Arc::clone(&self.assign);
        let mut ran = Ran::new();
        for finding in &assign.findings {
            ran.entry(finding.need.clone())
                .or_insert_with(|| said(policy, &finding.need, &assign.findings));
        }
        let mut findings = Vec::new();
        let facts = Facts {
            mailbox: &assign.mailbox,
            needs: &assign.needs,
            envelope: &assign.envelope,
            size: assign.length,
            start: &start,
        };
        loop {
            let needs = match policy.step(&facts, &ran) {
                Step::Run(needs) => needs,
                Step::Decided(decisions) => {
                    return self.decided(policy, &start, findings, decisions);
                }
            };
            let needs: Vec<String> = needs.into_iter().filter(|need| self.can_run(need)).collect();
            if needs.is_empty() {
                let processed = part(&assign, &findings);
                return Examined { processed, findings, decisions: Vec::new() };
            }
            match self.run_needs(policy, &needs).await {
                Ok(found) => findings.extend(found),
                Err((reason, found)) => {
                    findings.extend(found);
                    return gave_back(ReturnKind::Unavailable, reason, findings);
                }
            }
            for need in needs {
                let said = said(policy, &need, &findings);
                ran.insert(need, said);
            }
        }
    }

    /// As much of the message as its header block may take up, if any rule looks at it.
    async fn start(&self, policy: &Policy) -> Result<bytes::Bytes, String> {
        if !policy.reads_headers() {
            return Ok(bytes::Bytes::new());
        }
        let source = self.source.clone();
        let read = tokio::task::spawn_blocking(move || source.start(HEADER_BLOCK_BYTES_MAX)).await;
        match read {
            Ok(Ok(start)) => Ok(start),
            Ok(Err(error)) => Err(format!("read the message: {error}")),
            Err(broken) => Err(format!("read the message: {broken}")),
        }
    }

    /// Whether it is for this worker to run a need's modules: not so where another one is to do it.
    fn can_run(&self, need: &String) -> bool {
        self.assign.asked.contains(need) || !self.assign.needs.contains(need)
    }

    /// All modules of these needs at once. An error names the module without which a need cannot be met.
    async fn run_needs(
        &mut self,
        policy: &Policy,
        needs: &[String],
    ) -> Result<Vec<Finding>, (String, Vec<Finding>)> {
        let mut running = tokio::task::JoinSet::new();
        let (now, later): (Vec<_>, Vec<_>) = std::mem::take(&mut self.jobs)
            .into_iter()
            .partition(|(_, need, _)| needs.contains(need));
        self.jobs = later;
        for (place, (module, need, job)) in now.into_iter().enumerate() {
            running.spawn(async move { (place, ask(module, need, job).await) });
        }
        let mut all = Vec::new();
        while let Some(ended) = running.join_next().await {
            // A task that asks catches what breaks down inside of the module.
            if let Ok(answer) = ended {
                all.push(answer);
            }
        }
        all.sort_by_key(|(place, _)| *place);
        let answers: Vec<(Finding, bool)> = all.into_iter().map(|(_, answer)| answer).collect();
        let away = needs.iter().find_map(|need| missed(policy, need, &answers));
        let findings = answers.into_iter().map(|(finding, _)| finding).collect();
        match away {
            Some(reason) => Err((reason, findings)),
            None => Ok(findings),
        }
    }

    fn decided(
        self,
        policy: &Policy,
        start: &[u8],
        mut findings: Vec<Finding>,
        decisions: Vec<Decision>,
    ) -> Examined {
        let retry = decisions.iter().find(|decision| decision.answer == Answer::Retry);
        if let Some(reason) = retry.map(|decision| decision.reason.clone()) {
            // For one is for all: nothing has left yet, and the next attempt decides anew.
            let processed = give_back(ReturnKind::Failed, reason);
            return Examined { processed, findings, decisions };
        }
        name_open_needs(&self.assign, &mut findings);
        let all: Vec<Finding> = self.assign.findings.iter().chain(&findings).cloned().collect();
        let field = result_field(&self.assign, &self.worker, &all);
        let groups = groups(&decisions, &field);
        let told = Told {
            assign: &self.assign,
            start,
            findings: &all,
            decisions: &decisions,
            worker: &self.worker,
            unix_seconds: unix_seconds(),
        };
        let originated = policy.originate(&told);
        let processed = verdict_of(&self.assign, findings.clone(), groups, originated);
        Examined { processed, findings, decisions }
    }
}

/// For the dates of notices.
fn unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// The finding of one module, and whether that is only that it was unavailable.
async fn ask(module: Arc<dyn Module>, need: String, job: Job) -> (Finding, bool) {
    let name = module.name().to_owned();
    let running = tokio::spawn(async move { module.process(&job).await });
    let mut stop = StopOnDrop(Some(running.abort_handle()));
    let ended = running.await;
    stop.0 = None;
    let unscanned = |reason: String| Finding {
        need: need.clone(),
        module: name.clone(),
        engine: String::new(),
        signatures: String::new(),
        outcome: Outcome::Unscanned { reason: bounded(reason) },
        duration_ms: 0,
    };
    match ended {
        Ok(Ok(finding)) => (Finding { need: need.clone(), ..finding }, false),
        Ok(Err(ModuleError::Unavailable { reason, .. })) => (unscanned(reason), true),
        Ok(Err(ModuleError::Failed { reason, .. })) => (unscanned(reason), false),
        Err(broken) => (unscanned(format!("it broke down: {broken}")), false),
    }
}

struct StopOnDrop(Option<tokio::task::AbortHandle>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        if let Some(running) = &self.0 {
            running.abort();
        }
    }
}

/// Whether so many of a need's modules were unavailable that it is for another worker to say. Something that was found
/// needs nobody else's word.
fn missed(policy: &Policy, need: &str, answers: &[(Finding, bool)]) -> Option<String> {
    let of_need: Vec<&(Finding, bool)> =
        answers.iter().filter(|(finding, _)| finding.need == need).collect();
    let away = of_need.iter().find(|(_, away)| *away);
    let findings: Vec<&Finding> = of_need.iter().map(|(finding, _)| finding).collect();
    let said = Said::of(&findings, policy.engines(need));
    match away {
        Some((finding, _)) if !said.has(Kind::Found) && !said.problems.is_empty() => {
            let Outcome::Unscanned { reason } = &finding.outcome else { return None };
            Some(format!("{} is unavailable: {reason}", finding.module))
        }
        None if findings.is_empty() => Some(format!("no module here provides {need:?}")),
        _ => None,
    }
}

fn said(policy: &Policy, need: &str, findings: &[Finding]) -> Said {
    let of_need: Vec<&Finding> = findings.iter().filter(|finding| finding.need == need).collect();
    Said::of(&of_need, policy.engines(need))
}

fn gave_back(kind: ReturnKind, reason: String, findings: Vec<Finding>) -> Examined {
    Examined { processed: give_back(kind, reason), findings, decisions: Vec::new() }
}

/// Recipients that share a disposition share a group.
fn groups(decisions: &[Decision], result_field: &str) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for (index, decision) in decisions.iter().enumerate() {
        let Ok(index) = u16::try_from(index) else { continue };
        let disposition = disposition(decision, result_field);
        match groups.iter_mut().find(|group| group.disposition == disposition) {
            Some(group) => group.recipients.push(index),
            None => groups.push(Group { recipients: vec![index], disposition }),
        }
    }
    groups
}

fn disposition(decision: &Decision, result_field: &str) -> Disposition {
    let reason = decision.reason.clone();
    match &decision.answer {
        Answer::Release => {
            let result = HeaderEdit::Prepend { field: result_field.to_owned() };
            let edits = std::iter::once(result).chain(decision.edits.iter().cloned()).collect();
            Disposition::Deliver { edits, body: Body::Original }
        }
        Answer::Quarantine => Disposition::Quarantine { reason },
        // A retry never comes here; were it to, somebody looks.
        Answer::Hold | Answer::Retry => Disposition::Hold { reason },
        Answer::Discard => Disposition::Discard,
        Answer::Reject { code, enhanced, text } => {
            Disposition::Refuse { code: *code, enhanced: enhanced.clone(), text: text.clone() }
        }
    }
}

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use gantry_mail::{Envelope, HeaderEdit, Recipient, check_edits};
use gantry_protocol::id::{Digest, Fence, MessageId};
use gantry_protocol::verdict::{Disposition, Outcome, Verdict};
use gantry_scanners::api::{ModuleFuture, ModuleState};

use super::*;

/// A module that says what a test wants, and counts how often it was asked.
struct Says {
    name: &'static str,
    provides: &'static str,
    answer: fn() -> Result<Outcome, ModuleError>,
    asked: Arc<AtomicUsize>,
}

impl Module for Says {
    fn name(&self) -> &str {
        self.name
    }

    fn provides(&self) -> &str {
        self.provides
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn probe(&self) -> ModuleFuture<'_, ModuleState> {
        Box::pin(async {
            ModuleState { engine: String::new(), signatures: String::new(), not_ready: None }
        })
    }

    fn process<'a>(&'a self, _job: &'a Job) -> ModuleFuture<'a, Result<Finding, ModuleError>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let finding = |outcome| Finding {
            need: self.provides.to_owned(),
            module: self.name.to_owned(),
            engine: "Engine".to_owned(),
            signatures: "1".to_owned(),
            outcome,
            duration_ms: 1,
        };
        Box::pin(async move { (self.answer)().map(finding) })
    }
}

fn clean() -> Result<Outcome, ModuleError> {
    Ok(Outcome::Clean)
}

fn found() -> Result<Outcome, ModuleError> {
    Ok(Outcome::Found { names: vec!["Eicar".to_owned()] })
}

fn away() -> Result<Outcome, ModuleError> {
    Err(ModuleError::Unavailable { module: "m".to_owned(), reason: "reloading".to_owned() })
}

fn failed() -> Result<Outcome, ModuleError> {
    Err(ModuleError::Failed { module: "m".to_owned(), reason: "no answer".to_owned() })
}

fn broken() -> Result<Outcome, ModuleError> {
    panic!("a module breaks down")
}

type Answers = [(&'static str, fn() -> Result<Outcome, ModuleError>)];

/// What comes of a message to two recipients that needs `virus`, and how often any module was asked.
async fn process(rules: &str, modules: &Answers) -> (Processed, usize) {
    process_assigned(rules, modules, |_| {}).await
}

/// The same, of an assignment that a test has changed.
async fn process_assigned(
    rules: &str,
    modules: &Answers,
    change: impl FnOnce(&mut Assign),
) -> (Processed, usize) {
    let text = format!(
        "{rules}\n[outcomes]\nfound = \"quarantine\"\nunscanned = \"hold\"\nencrypted = \"hold\"\n\
         malformed = \"hold\"\nover-budget = \"retry\"\n"
    );
    let policy = Policy::from_text(Path::new("policy.toml"), &text).unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let module = |(at, (provides, answer)): (usize, &(&'static str, _))| {
        let name = ["one", "two", "three"][at];
        let says = Says { name, provides, answer: *answer, asked: Arc::clone(&asked) };
        Arc::new(says) as Arc<dyn Module>
    };
    let modules = modules.iter().enumerate().map(module).collect();
    let pipeline = Pipeline::new(modules, "pc-1").with_policy(Arc::new(policy));
    let message = b"Subject: urgent\r\n\r\nbody\r\n";
    let recipient = |address: &str| Recipient { address: address.into(), ..Recipient::default() };
    let mut assign = Assign {
        message: MessageId { epoch: 1, counter: 2 },
        fence: Fence { epoch: 1, counter: 3 },
        attempt: 1,
        mailbox: "mail.box".into(),
        needs: vec!["virus".into()],
        asked: vec!["virus".into()],
        findings: Vec::new(),
        envelope: Envelope {
            recipients: vec![recipient("a@example.com"), recipient("b@example.com")],
            ..Envelope::default()
        },
        length: message.len() as u64,
        digest: Digest([9; 32]),
        time_max_ms: 60_000,
        silence_max_ms: 60_000,
    };
    change(&mut assign);
    let source = Source::Memory(message.as_slice().into());
    let (prepared, _work) = pipeline.prepare(Arc::new(assign), source);
    let processed = prepared.run().await;
    (processed, asked.load(Ordering::Relaxed))
}

fn verdict(processed: Processed) -> Verdict {
    match processed {
        Processed::Verdict(verdict) => {
            let mut named: Vec<u16> =
                verdict.groups.iter().flat_map(|group| group.recipients.clone()).collect();
            named.sort_unstable();
            assert_eq!(named, [0, 1], "every recipient exactly once");
            let met = |need: &str| verdict.findings.iter().any(|finding| finding.need == need);
            assert!(met("virus"), "the host wants a finding for each need");
            *verdict
        }
        other => panic!("no verdict: {other:?}"),
    }
}

fn kind(processed: Processed) -> ReturnKind {
    match processed {
        Processed::Return(returned) => returned.kind,
        other => panic!("not given back: {other:?}"),
    }
}

const ANY: &str = "need = [{ name = \"virus\", engines = \"any\" }]";

#[tokio::test]
async fn clean_mail_leaves_with_the_rules_headers_below_the_result() {
    let rules = "rule = [{ name = \"r\", when.header = [{ name = \"Subject\", matches = [\"urgent\"] }], \
                 when.recipient = [\"a@*\"], add_headers = [\"X-Urgent: yes\"] }]";
    let (processed, asked) = process(rules, &[("virus", clean)]).await;
    let verdict = verdict(processed);
    assert_eq!((asked, verdict.groups.len()), (1, 2));
    let Disposition::Deliver { edits, .. } = &verdict.groups[0].disposition else { panic!() };
    let [HeaderEdit::Prepend { field: result }, HeaderEdit::Prepend { field: added }] =
        edits.as_slice()
    else {
        panic!("{edits:?}")
    };
    assert_eq!(result, "X-Gantry: clean; id=1-2; worker=pc-1;\r\n\tvirus=clean by one (Engine, 1)");
    assert_eq!(added, "X-Urgent: yes");
    check_edits(edits).unwrap();
}

#[tokio::test]
async fn all_engines_are_asked_and_the_policy_says_how_many_must_answer() {
    let (processed, asked) = process("", &[("virus", clean), ("virus", found)]).await;
    assert_eq!(asked, 2);
    let disposition = &verdict(processed).groups[0].disposition;
    assert_eq!(*disposition, Disposition::Quarantine { reason: "two found Eicar".to_owned() });

    let (processed, _) = process("", &[("virus", clean), ("virus", away)]).await;
    assert_eq!(kind(processed), ReturnKind::Unavailable, "all must answer");
    let (processed, _) = process(ANY, &[("virus", clean), ("virus", away)]).await;
    let released = verdict(processed);
    let Disposition::Deliver { edits, .. } = &released.groups[0].disposition else { panic!() };
    let [HeaderEdit::Prepend { field }] = edits.as_slice() else { panic!("{edits:?}") };
    assert!(field.contains("virus=clean by one") && field.contains("virus=unscanned by two"));
    let (processed, _) = process(ANY, &[("virus", away), ("virus", away)]).await;
    assert_eq!(kind(processed), ReturnKind::Unavailable);

    // What was found needs nobody else's word.
    let (processed, _) = process("", &[("virus", away), ("virus", found)]).await;
    assert!(matches!(verdict(processed).groups[0].disposition, Disposition::Quarantine { .. }));
}

#[tokio::test]
async fn no_answer_is_for_the_policy_to_decide() {
    for answer in [failed, broken] {
        let (processed, _) = process("", &[("virus", answer)]).await;
        let verdict = verdict(processed);
        assert!(matches!(verdict.groups[0].disposition, Disposition::Hold { .. }));
        assert!(matches!(verdict.findings[0].outcome, Outcome::Unscanned { .. }));
    }
    let over: fn() -> Result<Outcome, ModuleError> =
        || Ok(Outcome::OverBudget { reason: "big".to_owned() });
    let (processed, _) = process("", &[("virus", over)]).await;
    assert_eq!(kind(processed), ReturnKind::Failed, "another attempt");
}

#[tokio::test]
async fn what_is_decided_before_a_scan_is_not_scanned() {
    let rules = "rule = [{ name = \"r\", then = \"reject\" }]";
    let (processed, asked) = process(rules, &[("virus", found)]).await;
    assert_eq!(asked, 0);
    let verdict = verdict(processed);
    assert!(matches!(verdict.groups[0].disposition, Disposition::Refuse { code: 550, .. }));
}

#[tokio::test]
async fn a_rule_runs_what_the_mailbox_did_not_ask_for() {
    let rules = "rule = [{ name = \"look\", run = [\"spam\"] }, \
                 { name = \"mark\", when.found = [\"spam\"], add_headers = [\"X-Spam: yes\"], then = \"release\" }]";
    let (processed, asked) = process(rules, &[("virus", clean), ("spam", found)]).await;
    let verdict = verdict(processed);
    assert_eq!((asked, verdict.findings.len()), (2, 2));
    let Disposition::Deliver { edits, .. } = &verdict.groups[0].disposition else { panic!() };
    let [HeaderEdit::Prepend { field }, HeaderEdit::Prepend { .. }] = edits.as_slice() else {
        panic!("{edits:?}")
    };
    assert!(field.starts_with("X-Gantry: released by policy;"), "{field}");
    let (processed, _) = process(rules, &[("virus", clean)]).await;
    assert_eq!(kind(processed), ReturnKind::Unavailable);
}

#[test]
fn a_worker_is_ready_while_enough_of_its_engines_are() {
    let profile = |name: &str, not_ready: Option<&str>| ModuleProfile {
        name: name.to_owned(),
        provides: "virus".to_owned(),
        engine: String::new(),
        signatures: String::new(),
        not_ready: not_ready.map(str::to_owned),
    };
    let modules = [profile("one", None), profile("two", Some("reloading"))];
    let built_in = Pipeline::new(Vec::new(), "pc-1");
    assert_eq!(built_in.lacking(&modules), Some("two: reloading".to_owned()));
    let text = "[outcomes]\nfound = \"hold\"\nunscanned = \"hold\"\nencrypted = \"hold\"\nmalformed = \"hold\"\n\
                over-budget = \"hold\"\n[[need]]\nname = \"virus\"\nengines = \"any\"\n";
    let policy = Policy::from_text(Path::new("policy.toml"), text).unwrap();
    let any = built_in.with_policy(Arc::new(policy));
    assert_eq!(any.lacking(&modules), None);
    assert!(any.lacking(&modules[1..]).is_some());
}

fn unscanned() -> Result<Outcome, ModuleError> {
    Ok(Outcome::Unscanned { reason: "too busy".to_owned() })
}

fn earlier(need: &str, outcome: Outcome) -> Finding {
    Finding {
        need: need.to_owned(),
        module: "other".to_owned(),
        engine: "Other".to_owned(),
        signatures: "2".to_owned(),
        outcome,
        duration_ms: 1,
    }
}

/// A message that needs `virus` and `sign`, of which this worker was asked for one.
fn of_both(asked: &str, findings: Vec<Finding>) -> impl FnOnce(&mut Assign) {
    let asked = vec![asked.to_owned()];
    move |assign| {
        assign.needs.push("sign".to_owned());
        (assign.asked, assign.findings) = (asked, findings);
    }
}

#[tokio::test]
async fn who_is_asked_for_some_returns_a_part_with_what_was_found() {
    let modules: &Answers = &[("virus", found)];
    let (processed, asked) = process_assigned("", modules, of_both("virus", Vec::new())).await;
    let Processed::Part(part) = processed else { panic!("{processed:?}") };
    let [Finding { outcome: Outcome::Found { .. }, .. }] = &part.findings[..] else { panic!() };
    assert_eq!((part.digest, asked), (Digest([9; 32]), 1));
}

#[tokio::test]
async fn who_is_asked_for_the_rest_decides_by_all_that_was_found() {
    let infected = Outcome::Found { names: vec!["Eicar".to_owned()] };
    for (outcome, quarantined) in [(Outcome::Clean, false), (infected, true)] {
        let modules: &Answers = &[("sign", clean), ("virus", clean)];
        let change = of_both("sign", vec![earlier("virus", outcome)]);
        let (processed, asked) = process_assigned("", modules, change).await;
        assert_eq!(asked, 1, "what is done is not done again");
        let Processed::Verdict(verdict) = processed else { panic!("{processed:?}") };
        assert_eq!(verdict.findings.len(), 1, "the host knows the others");
        match &verdict.groups[0].disposition {
            Disposition::Quarantine { .. } => assert!(quarantined),
            Disposition::Deliver { edits, .. } => {
                let HeaderEdit::Prepend { field } = &edits[0] else { panic!() };
                assert!(field.contains("virus=clean by other") && field.contains("sign=clean"));
                assert!(!quarantined);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn a_need_without_an_answer_is_no_part() {
    let modules: &Answers = &[("virus", unscanned)];
    let (processed, _) = process_assigned("", modules, of_both("virus", Vec::new())).await;
    assert_eq!(kind(processed), ReturnKind::Failed);
}

#[tokio::test]
async fn a_rule_that_needs_no_module_decides_at_once() {
    let rules = "[[rule]]\nname = \"no\"\nthen = \"discard\"";
    let modules: &Answers = &[("virus", clean)];
    let (processed, asked) = process_assigned(rules, modules, of_both("virus", Vec::new())).await;
    let verdict = verdict(processed);
    assert_eq!((verdict.findings.len(), asked), (2, 0), "each need is named, and none was run");
}

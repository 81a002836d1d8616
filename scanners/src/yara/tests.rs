#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::expect_used,
    reason = "tests fail by panicking"
)]

use std::fs;
use std::io::Write;
use std::time::Duration;

use bytes::Bytes;
use tempfile::{SpooledTempFile, TempDir};

use super::*;
use crate::api::{Progress, Source};
use crate::testkit::eicar;

fn job(source: Source) -> Job {
    let progress = Progress::new(Duration::from_secs(60));
    Job { message_id: "1-1".to_owned(), envelope: Arc::default(), source, progress }
}

fn memory(bytes: impl Into<Vec<u8>>) -> Job {
    job(Source::Memory(Bytes::from(bytes.into())))
}

fn mail(body: &[u8]) -> Vec<u8> {
    [b"Subject: a test\r\nFrom: <a@example.org>\r\n\r\n", body, b"\r\n"].concat()
}

fn found(name: &str) -> Outcome {
    Outcome::Found { names: vec![name.to_owned()] }
}

async fn outcome(module: &YaraModule, job: &Job) -> Outcome {
    module.process(job).await.unwrap().outcome
}

fn bundled() -> YaraModule {
    YaraModule::new(YaraConfig::new("rules", "virus")).unwrap()
}

fn with_rules(texts: &[&str]) -> (TempDir, Result<YaraModule, BuildError>) {
    let folder = TempDir::new().unwrap();
    let mut config = YaraConfig { bundled: false, ..YaraConfig::new("rules", "virus") };
    for (number, text) in texts.iter().enumerate() {
        let path = folder.path().join(format!("{number}.yar"));
        fs::write(&path, text).unwrap();
        config.rules.push(path);
    }
    (folder, YaraModule::new(config))
}

#[tokio::test]
async fn the_bundled_rules_find_eicar_in_memory_and_on_disk() {
    let module = bundled();
    let clean = memory(mail(b"nothing to see"));
    assert_eq!(outcome(&module, &clean).await, Outcome::Clean);
    assert!(clean.progress.state().work > 0, "looking at a piece is progress");

    let infected = mail(&eicar());
    let finding = module.process(&memory(infected.clone())).await.unwrap();
    assert_eq!(finding.outcome, found("Eicar_Test_String"));
    assert_eq!((finding.need.as_str(), finding.module.as_str()), ("virus", "rules"));
    assert_eq!(finding.engine, ENGINE);
    assert_eq!(finding.signatures, module.probe().await.signatures);

    let mut file = SpooledTempFile::new(10);
    file.write_all(&infected).unwrap();
    let on_disk = job(Source::spooled(file).unwrap());
    assert_eq!(outcome(&module, &on_disk).await, found("Eicar_Test_String"));
}

#[test]
fn the_bundled_rules_do_not_hold_what_they_find() {
    let text = include_bytes!("bundled.yar");
    assert!(!text.windows(eicar().len()).any(|window| window == eicar()));
}

#[test]
fn the_engine_in_findings_is_the_one_that_is_built_in() {
    let version = ENGINE.strip_prefix("boreal ").unwrap();
    let line = format!("boreal = {{ version = \"{version}.");
    assert!(include_str!("../../Cargo.toml").contains(&line));
}

#[tokio::test]
async fn a_message_over_the_budget_is_not_read_and_not_clean() {
    let mut config = YaraConfig::new("rules", "virus");
    config.limits.bytes_max = 100;
    let module = YaraModule::new(config).unwrap();
    let outcome = outcome(&module, &memory(vec![b'a'; 101])).await;
    assert!(matches!(outcome, Outcome::OverBudget { .. }), "{outcome:?}");
}

#[tokio::test]
async fn rules_that_take_too_long_are_over_budget_and_not_clean() {
    let slow = "rule slow { condition: for all i in (1..2000000000) : (i > 0) }";
    let (_folder, module) = with_rules(&[slow]);
    let mut module = module.unwrap();
    module.config.limits.time_max = Duration::from_millis(50);
    let outcome = outcome(&module, &memory(mail(b"x"))).await;
    assert!(matches!(outcome, Outcome::OverBudget { .. }), "{outcome:?}");
}

#[tokio::test]
async fn two_files_may_have_a_rule_of_the_same_name() {
    let rule = |word: &str| format!("rule same {{ strings: $a = \"{word}\" condition: $a }}");
    let (_folder, module) = with_rules(&[&rule("first"), &rule("second")]);
    let module = module.unwrap();
    for word in ["first", "second"] {
        assert_eq!(outcome(&module, &memory(mail(word.as_bytes()))).await, found("same"));
    }
    let not_bundled = outcome(&module, &memory(mail(&eicar()))).await;
    assert_eq!(not_bundled, Outcome::Clean);
}

#[test]
fn a_mistake_in_a_rule_names_the_file_and_the_place() {
    let (folder, module) =
        with_rules(&["rule ok { condition: true }", "rule bad {\n condition: $x }"]);
    let error = module.err().unwrap();
    let place = format!("{}:2:", folder.path().join("1.yar").display());
    assert_eq!(error.module, "rules");
    assert!(error.problem.contains(&place), "{error}");

    let (_folder, module) = with_rules(&["import \"pe\"\n"]);
    let problem = module.err().unwrap().problem;
    assert!(problem.contains("no rule at all"), "{problem}");

    let mut config = YaraConfig::new("rules", "virus");
    config.rules.push("/nowhere/rules.yar".into());
    let error = YaraModule::new(config).err().unwrap();
    assert!(error.problem.starts_with("read rules /nowhere/rules.yar: "), "{error}");
}

#[tokio::test]
async fn reloading_takes_new_rules_and_keeps_the_old_where_the_new_are_wrong() {
    let (folder, module) = with_rules(&["rule one { strings: $a = \"one\" condition: $a }"]);
    let (module, path) = (module.unwrap(), folder.path().join("0.yar"));
    let before = module.probe().await.signatures;
    let two = memory(mail(b"two"));
    assert_eq!(outcome(&module, &two).await, Outcome::Clean);

    fs::write(&path, "rule two { strings: $a = \"two\" condition: $a }").unwrap();
    module.reload().await.unwrap();
    let after = module.probe().await.signatures;
    assert_ne!(before, after);
    assert_eq!(outcome(&module, &two).await, found("two"));

    fs::write(&path, "rule three {").unwrap();
    module.reload().await.unwrap_err();
    assert_eq!(module.probe().await.signatures, after);
    assert_eq!(outcome(&module, &two).await, found("two"));
}

#[tokio::test]
async fn an_abandoned_scan_gives_its_place_back() {
    let module = YaraModule::new(YaraConfig { concurrency: 1, ..YaraConfig::new("r", "virus") });
    let module = module.unwrap();
    let job = memory(mail(&vec![b'x'; 1 << 20]));
    for _ in 0..20 {
        let mut scan = module.process(&job);
        // Polled once, so that it has its place and its thread; then nobody waits for it any more.
        std::future::poll_fn(|context| {
            let _ = scan.as_mut().poll(context);
            std::task::Poll::Ready(())
        })
        .await;
    }
    assert_eq!(outcome(&module, &job).await, Outcome::Clean);
    assert_eq!(module.permits.available_permits(), 1);
}

#[test]
fn what_could_not_be_looked_at_is_never_clean() {
    use crate::unpack::{Remark, Report};
    let remark = |make: fn(String) -> Remark, text: &str| make(text.to_owned());
    let outcome = |remarks: &[Remark], names: &[&str]| {
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        let report = Report { remarks: remarks.to_vec(), ..Report::default() };
        scan::outcome(scan::Seen { names, unfinished: Vec::new() }, report)
    };
    let malformed = remark(Remark::Malformed, "1: torn");
    let encrypted = remark(Remark::Encrypted, "2: locked");
    let over = remark(Remark::OverBudget, "3: too much");
    let unknown = remark(Remark::Unknown, "4: method 99");

    assert_eq!(outcome(&[], &[]), Outcome::Clean);
    assert_eq!(
        outcome(std::slice::from_ref(&malformed), &[]),
        Outcome::Malformed { reason: "1: torn".into() }
    );
    assert_eq!(
        outcome(&[malformed.clone(), encrypted.clone()], &[]),
        Outcome::Encrypted { reason: "2: locked; 1: torn".into() }
    );
    assert_eq!(
        outcome(&[malformed, encrypted, over.clone()], &[]),
        Outcome::OverBudget { reason: "3: too much; 2: locked; 1: torn".into() }
    );
    assert!(matches!(outcome(&[unknown], &[]), Outcome::OverBudget { .. }));
    assert_eq!(outcome(&[over], &["A"]), found("A"));
    let stopped = Report { stopped: true, ..Report::default() };
    assert!(matches!(scan::outcome(scan::Seen::default(), stopped), Outcome::OverBudget { .. }));
}

//! The module `command` with real programs: clamscan, and this test itself, started again in one of several roles.

#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "tests fail by panicking, and the roles speak on standard output"
)]

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_protocol::verdict::{Finding, Outcome};
use gantry_scanners::api::{Job, ModuleError, Progress, Source};
use gantry_scanners::command::{Argument, CommandConfig, Meaning, NameLine};
use gantry_scanners::registry::{ModuleConfig, build};
use gantry_scanners::testkit::eicar;
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the started program does is in `ROLE`; it never returns from here.
#[test]
#[ignore = "this is the program that the tests start"]
fn program() {
    let Ok(role) = std::env::var("ROLE") else { return };
    let file = std::env::args().next_back().unwrap();
    let code = match role.as_str() {
        "code" => {
            // Whatever it says, it says of a message that it has read.
            std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
            std::env::var("CODE").unwrap().parse().unwrap()
        }
        "file" => look_at_file(&file),
        "stdin" => {
            let mut message = Vec::new();
            std::io::stdin().read_to_end(&mut message).unwrap();
            println!("\n{} bytes: Some.Virus FOUND", message.len());
            i32::from(message.windows(5).any(|part| part == b"virus"))
        }
        "deaf" => 0,
        "chatty" => {
            let line = [b'x'; 1_024];
            for _ in 0..4_096 {
                std::io::stdout().write_all(&line).unwrap();
            }
            0
        }
        "family" => {
            #[allow(clippy::zombie_processes, reason = "leaving it behind is what is tried")]
            let mut child = Command::new(std::env::current_exe().unwrap())
                .args(["--ignored", "--exact", "program", "--nocapture"])
                .env("ROLE", "sleep")
                .spawn()
                .unwrap();
            std::fs::write(std::env::var("PIDS").unwrap(), child.id().to_string()).unwrap();
            if std::env::var("WAITS").is_ok() {
                child.wait().unwrap();
            }
            0
        }
        "sleep" => {
            std::thread::sleep(10 * PATIENCE);
            0
        }
        "environment" => {
            let mut names: Vec<_> = std::env::vars().map(|(name, _)| name).collect();
            names.sort();
            println!("\nis {} END", names.join(" "));
            1
        }
        other => panic!("no role {other}"),
    };
    std::process::exit(code);
}

/// The file is private, in a private folder, which is also the program's own.
fn look_at_file(file: &str) -> i32 {
    let file = Path::new(file);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(file), 0o600);
    assert_eq!(mode(file.parent().unwrap()), 0o700);
    let here = std::env::current_dir().unwrap();
    assert_eq!(here.canonicalize().unwrap(), file.parent().unwrap().canonicalize().unwrap());
    assert_eq!(std::env::var_os("TMPDIR").unwrap(), file.parent().unwrap().as_os_str());
    println!("\n{}: {} FOUND", file.display(), std::fs::read_to_string(file).unwrap());
    1
}

struct Scene {
    config: CommandConfig,
    scratch: TempDir,
}

fn scene(role: &str) -> Scene {
    let scratch = tempfile::tempdir().unwrap();
    let text = |text: &str| Argument::Text(text.to_owned());
    let config = CommandConfig {
        arguments: ["--ignored", "--exact", "program", "--nocapture"].map(text).to_vec(),
        environment: vec![("ROLE".to_owned(), role.to_owned())],
        exit_codes: BTreeMap::from([(0, Meaning::Clean), (1, Meaning::Found)]),
        names: Some(NameLine { prefix: String::new(), suffix: " FOUND".to_owned() }),
        scratch_dir: scratch.path().to_owned(),
        ..CommandConfig::new("program", "virus", std::env::current_exe().unwrap())
    };
    Scene { config, scratch }
}

fn job(message: impl Into<Vec<u8>>) -> Job {
    Job {
        message_id: "1-1".to_owned(),
        envelope: Arc::default(),
        source: Source::Memory(message.into().into()),
        progress: Progress::new(PATIENCE),
    }
}

impl Scene {
    async fn process(&self, job: &Job) -> Result<Finding, ModuleError> {
        let config = ModuleConfig::Command(Box::new(self.config.clone()));
        let module = build(vec![config]).unwrap().remove(0);
        module.process(job).await
    }

    async fn outcome(&self, message: impl Into<Vec<u8>>) -> Result<Outcome, ModuleError> {
        self.process(&job(message)).await.map(|finding| finding.outcome)
    }

    fn set(&mut self, name: &str, value: impl ToString) {
        self.config.environment.push((name.to_owned(), value.to_string()));
    }

    /// Nothing of a run is left, however it ended.
    fn is_clean(&self) -> bool {
        std::fs::read_dir(self.scratch.path())
            .unwrap()
            .all(|entry| !entry.unwrap().file_name().to_string_lossy().starts_with("gantry-"))
    }
}

fn found(name: &str) -> Outcome {
    Outcome::Found { names: vec![name.to_owned()] }
}

#[tokio::test]
async fn every_exit_code_means_what_is_written_and_any_other_that_it_failed() {
    use Meaning::*;
    let mut scene = scene("code");
    scene.config.exit_codes = BTreeMap::from([
        (0, Clean),
        (1, Found),
        (2, Unscanned),
        (3, Encrypted),
        (4, Malformed),
        (5, OverBudget),
        (6, Failed),
        (7, Unavailable),
    ]);
    let mut said = Vec::new();
    for code in 0..=8 {
        scene.config.environment.truncate(1);
        scene.set("CODE", code);
        said.push(match scene.outcome("mail").await {
            Ok(Outcome::Clean) => "clean",
            Ok(outcome @ Outcome::Found { .. }) => {
                assert_eq!(outcome, found("exit code 1"), "nothing named it");
                "found"
            }
            Ok(Outcome::Unscanned { .. }) => "unscanned",
            Ok(Outcome::Encrypted { .. }) => "encrypted",
            Ok(Outcome::Malformed { .. }) => "malformed",
            Ok(Outcome::OverBudget { .. }) => "over budget",
            Err(ModuleError::Failed { .. }) => "failed",
            Err(ModuleError::Unavailable { .. }) => "unavailable",
        });
    }
    assert_eq!(
        said,
        [
            "clean",
            "found",
            "unscanned",
            "encrypted",
            "malformed",
            "over budget",
            "failed",
            "unavailable",
            "failed"
        ]
    );
}

#[tokio::test]
async fn the_message_comes_as_a_private_file() {
    let mut scene = scene("file");
    scene.config.arguments.push(Argument::File);
    scene.config.names = Some(NameLine { prefix: "{file}: ".into(), suffix: " FOUND".into() });
    assert_eq!(scene.outcome("The.Name").await, Ok(found("The.Name")));
    assert!(scene.is_clean());
}

#[tokio::test]
async fn the_message_comes_on_standard_input_whole() {
    let scene = scene("stdin");
    let mut message = vec![b'.'; 3 << 20];
    assert_eq!(scene.outcome(message.clone()).await, Ok(Outcome::Clean));
    message.extend_from_slice(b"virus");
    assert_eq!(scene.outcome(message).await, Ok(found("3145733 bytes: Some.Virus")));
}

#[tokio::test]
async fn a_program_that_did_not_read_everything_cannot_say_clean() {
    let error = scene("deaf").outcome(vec![b'.'; 3 << 20]).await.unwrap_err();
    assert!(error.to_string().contains("before it had read the whole message"), "{error}");
}

#[tokio::test]
async fn endless_output_is_read_and_not_kept() {
    assert_eq!(scene("chatty").outcome("mail").await, Ok(Outcome::Clean));
}

#[tokio::test]
async fn the_environment_is_empty_but_for_what_was_configured() {
    let mut scene = scene("environment");
    scene.config.names = Some(NameLine { prefix: "is ".into(), suffix: " END".into() });
    assert_eq!(scene.outcome("mail").await, Ok(found("ROLE TMPDIR")));
}

/// Waits until a process is gone, or nobody's child any more but a zombie.
async fn gone(pid: &Path) -> bool {
    let deadline = Instant::now() + PATIENCE;
    let pid = std::fs::read_to_string(pid).unwrap();
    while Instant::now() < deadline {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") {
            return true;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    false
}

async fn written(path: &Path) {
    let deadline = Instant::now() + PATIENCE;
    while std::fs::read_to_string(path).unwrap_or_default().is_empty() {
        assert!(Instant::now() < deadline, "the program did not start its child");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn at_the_end_of_its_time_it_is_killed_with_its_children() {
    let mut scene = scene("family");
    let pids = scene.scratch.path().join("pids");
    scene.set("PIDS", pids.display());
    scene.set("WAITS", "yes");
    scene.config.time_max = Duration::from_secs(3);
    let error = scene.outcome("mail").await.unwrap_err();
    assert!(matches!(&error, ModuleError::Failed { .. }), "{error}");
    assert!(error.to_string().contains("longer than 3000 ms"), "{error}");
    assert!(gone(&pids).await, "the child lives on");
    assert!(scene.is_clean());
}

#[tokio::test]
async fn a_child_that_is_left_behind_holds_nothing_up() {
    let mut scene = scene("family");
    let pids = scene.scratch.path().join("pids");
    scene.set("PIDS", pids.display());
    assert_eq!(scene.outcome("mail").await, Ok(Outcome::Clean));
    assert!(gone(&pids).await, "the child lives on");
}

#[tokio::test]
async fn nobody_who_waits_any_more_is_a_kill_too() {
    let mut scene = scene("family");
    let pids = scene.scratch.path().join("pids");
    scene.set("PIDS", pids.display());
    scene.set("WAITS", "yes");
    let job = job("mail");
    tokio::select! {
        ended = scene.process(&job) => panic!("{ended:?}"),
        () = written(&pids) => {}
    }
    assert!(gone(&pids).await, "the child lives on");
    assert!(scene.is_clean());
}

#[tokio::test]
async fn too_large_a_message_is_over_budget_and_not_given_to_it() {
    let mut scene = scene("sleep");
    scene.config.bytes_max = 3;
    assert!(matches!(scene.outcome("mail").await, Ok(Outcome::OverBudget { .. })));
}

#[tokio::test]
async fn readiness_is_the_probes_answer_or_that_the_program_can_be_run() {
    let probe = async |config: CommandConfig| {
        build(vec![ModuleConfig::Command(Box::new(config))]).unwrap().remove(0).probe().await
    };
    let scene = scene("code");
    assert_eq!(probe(scene.config.clone()).await.not_ready, None);

    let missing = CommandConfig { program: "/no/such/program".into(), ..scene.config.clone() };
    let reason = probe(missing.clone()).await.not_ready.unwrap();
    assert!(reason.starts_with("/no/such/program: "), "{reason}");
    let gone = Scene { config: missing, scratch: tempfile::tempdir().unwrap() };
    assert!(matches!(gone.outcome("mail").await, Err(ModuleError::Unavailable { .. })));

    let text = scene.scratch.path().join("text");
    std::fs::write(&text, "no program").unwrap();
    let reason = probe(CommandConfig { program: text, ..scene.config.clone() }).await.not_ready;
    assert!(reason.unwrap().ends_with("is no program that may be run"));

    let said = |probe: &str, argument: &str| CommandConfig {
        probe: Some((PathBuf::from(probe), vec![argument.to_owned()])),
        ..scene.config.clone()
    };
    let state = probe(said("/bin/echo", "Engine 7")).await;
    assert_eq!((state.engine.as_str(), state.not_ready), ("Engine 7", None));
    let reason = probe(said("/bin/false", "")).await.not_ready.unwrap();
    assert!(reason.starts_with("probe: exit status: 1"), "{reason}");
}

/// clamscan as an administrator would configure it, with a database of one signature.
#[tokio::test]
async fn clamscan_finds_what_its_database_knows() {
    let program = Path::new("/usr/bin/clamscan");
    if !program.exists() {
        println!("skipped: clamscan is not installed (Debian: clamav)");
        return;
    }
    let mut scene = scene("");
    let database = scene.scratch.path().join("database");
    std::fs::create_dir(&database).unwrap();
    let hex: String = eicar().iter().map(|byte| format!("{byte:02x}")).collect();
    std::fs::write(database.join("test.ndb"), format!("Gantry.Eicar:0:*:{hex}\n")).unwrap();
    let option = format!("--database={}", database.display());
    let text = |text: &str| Argument::Text(text.to_owned());
    scene.config = CommandConfig {
        program: program.to_owned(),
        arguments: vec![text("--no-summary"), text(&option), Argument::File],
        environment: Vec::new(),
        names: Some(NameLine { prefix: "{file}: ".into(), suffix: " FOUND".into() }),
        probe: Some((program.to_owned(), vec!["--version".to_owned()])),
        ..scene.config
    };
    assert_eq!(scene.outcome("Subject: hello\r\n\r\nworld\r\n").await, Ok(Outcome::Clean));
    let infected = [&b"Subject: hello\r\n\r\n"[..], &eicar(), b"\r\n"].concat();
    let finding = scene.process(&job(infected.clone())).await.unwrap();
    assert_eq!(finding.outcome, found("Gantry.Eicar.UNOFFICIAL"));
    assert!(finding.engine.starts_with("ClamAV "), "{}", finding.engine);

    // Without a database it ends with 2, which nobody has called clean.
    std::fs::remove_file(database.join("test.ndb")).unwrap();
    let error = scene.outcome(infected).await.unwrap_err();
    assert!(matches!(&error, ModuleError::Failed { .. }), "{error}");
    assert!(scene.is_clean());
}

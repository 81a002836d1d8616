//! The local ways in and out with real processes: files, commands, and crashes of the hook in between.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use gantry::demo::mail::eicar;
use gantry_tests::{Cluster, Setup, await_that, binary};

/// Mailboxes beside the cluster's own.
const TABLES: &str = r#"
[[mailbox]]
name = "files"
intake = { type = "pickup", directory = "in", format = "directory", envelope = "headers", settle = "100ms" }
release = { type = "directory", path = "out", format = "maildir", envelope = "sidecar" }
needs = ["virus"]
custody = "hook"
when_unprocessed = "wait"
[[mailbox]]
name = "commands"
intake = { type = "mark" }
release = { type = "command", program = "/bin/sh", arguments = ["deliver.sh", "{sender}", "{recipients}"] }
needs = ["virus"]
custody = "hook"
when_unprocessed = "wait"
"#;

/// A cluster with both mailboxes and no worker, whose hook does not run yet.
fn prepare() -> Cluster {
    let tables = TABLES.to_owned();
    let cluster = Cluster::prepare(&Setup { tables, ..Setup::default() });
    fs::create_dir(cluster.path().join("in")).unwrap();
    let script = cluster.path().join("deliver.sh");
    let into = cluster.path().join("delivered");
    fs::create_dir(&into).unwrap();
    // Each run gets a file of its own, which appears when it is whole.
    let text = format!(
        "f={}/$$; printf '%s\\n' \"$@\" > $f.new && cat >> $f.new && mv $f.new $f.mail\n",
        into.display()
    );
    fs::write(&script, text).unwrap();
    let config = fs::read_to_string(cluster.config()).unwrap();
    let config = config.replace("\"deliver.sh\"", &format!("{:?}", script.to_str().unwrap()));
    fs::write(cluster.config(), config).unwrap();
    cluster
}

fn mark(cluster: &Cluster, arguments: &[&str], message: &[u8]) -> Output {
    let mut command = Command::new(binary("gantry-hook"));
    command.arg("--config").arg(cluster.config()).arg("mark").args(arguments);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // A command that fails early need not read.
    let _ = child.stdin.take().unwrap().write_all(message);
    child.wait_with_output().unwrap()
}

/// Whole files in a folder whose names have this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().ends_with(ending)).collect()
}

fn pickup(cluster: &Cluster, number: usize, body: &str) {
    let text = format!(
        "X-Sender: <a@client.example>\nX-Receiver: <b@recipient.example>\nMessage-ID: <{number}@x>\n\
         Subject: {number}\n\n{body}\n"
    );
    let folder = cluster.path().join("in");
    fs::write(folder.join(format!(".{number}")), text).unwrap();
    let mut rename = Command::new("mv");
    rename.arg(folder.join(format!(".{number}"))).arg(folder.join(number.to_string()));
    assert!(rename.status().unwrap().success());
}

#[test]
fn files_go_through_and_the_infected_do_not() {
    let mut cluster = prepare();
    cluster.start_hook();
    cluster.add_worker("pc-1", gantry_tests::cluster::RULES);
    let infected = eicar();
    for number in 0..20 {
        pickup(&cluster, number, if number == 7 { &infected } else { "clean" });
    }
    let out = cluster.path().join("out/new");
    await_that("all clean files are out", || (files(&out, ".mx1").len() == 19).then_some(()));
    await_that("the infected one lies in quarantine", || {
        (cluster.stored("q").len() == 1).then_some(())
    });
    for path in files(&out, ".mx1") {
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("\nX-Gantry: ") && text.ends_with("\n\nclean\n"), "{text}");
        assert!(!text.contains("X-Receiver") && !text.contains('\r'), "{text}");
        let sidecar = fs::read_to_string(format!("{}.envelope", path.display())).unwrap();
        let expected = r#"{"sender":"a@client.example","recipients":["b@recipient.example"]}"#;
        assert_eq!(sidecar, expected);
    }
    assert_eq!(files(&out, ".envelope").len(), 19);
    let claimed = cluster.path().join("in/claimed/mx1.files");
    assert_eq!(files(&cluster.path().join("in"), "").len(), 2, "the folders alone");
    await_that("nothing is claimed any more", || files(&claimed, "").is_empty().then_some(()));
}

/// The hook is killed again and again while it picks up; nobody's file is lost or becomes two messages.
#[test]
fn a_hook_that_is_killed_while_it_picks_up_loses_and_doubles_nothing() {
    const FILES: usize = 150;
    let mut cluster = prepare();
    for number in 0..FILES {
        pickup(&cluster, number, "clean");
    }
    let mut seen = 0;
    while seen < FILES {
        cluster.start_hook();
        await_that("more is stored", || {
            let stored = cluster.stored("m0").len();
            (stored > seen).then(|| seen = stored)
        });
        cluster.kill_hook();
        seen = cluster.stored("m0").len();
    }
    cluster.start_hook();
    cluster.add_worker("pc-1", gantry_tests::cluster::RULES);
    let out = cluster.path().join("out/new");
    await_that("all files are out", || (files(&out, ".mx1").len() >= FILES).then_some(()));
    await_that("the spool is empty", || cluster.stored_at_all().is_empty().then_some(()));
    let subject = |path: PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        text.lines().find(|line| line.starts_with("Subject: ")).unwrap().to_owned()
    };
    let mut subjects: Vec<_> = files(&out, ".mx1").into_iter().map(subject).collect();
    assert_eq!(subjects.len(), FILES);
    subjects.sort();
    subjects.dedup();
    assert_eq!(subjects.len(), FILES, "each once");
}

#[test]
fn marked_messages_reach_a_program_whether_or_not_the_hook_runs() {
    let mut cluster = prepare();
    let message = b"Subject: x\n\nHello\n";
    let whom = ["--mailbox", "commands", "-f", "a@client.example", "--", "b@y", "c@y"];
    let before = mark(&cluster, &whom, message);
    assert_eq!(before.status.code(), Some(0), "{before:?}");
    assert_eq!(cluster.stored("m0").len(), 1, "durable although no hook runs");

    cluster.start_hook();
    let null = ["--mailbox", "commands", "-f", "", "--", "b@y"];
    let during = mark(&cluster, &null, message);
    assert_eq!(during.status.code(), Some(0), "{during:?}");
    let infected = mark(&cluster, &whom, format!("Subject: x\n\n{}\n", eicar()).as_bytes());
    assert_eq!(infected.status.code(), Some(0), "{infected:?}");
    assert!(during.stdout.is_empty() && during.stderr.is_empty(), "{during:?}");

    cluster.add_worker("pc-1", gantry_tests::cluster::RULES);
    let delivered = cluster.path().join("delivered");
    await_that("both are delivered", || (files(&delivered, ".mail").len() == 2).then_some(()));
    await_that("the infected one lies in quarantine", || {
        (cluster.stored("q").len() == 1 && cluster.stored_at_all().len() == 1).then_some(())
    });
    let mut texts: Vec<_> = files(&delivered, ".mail")
        .into_iter()
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    texts.sort();
    assert!(texts[0].starts_with("<>\nb@y\nReceived: "), "{texts:?}");
    assert!(texts[1].starts_with("a@client.example\nb@y\nc@y\nReceived: "), "{texts:?}");
    assert!(texts.iter().all(|text| text.ends_with("\nSubject: x\n\nHello\n")), "{texts:?}");
}

/// An MTA returns mail for every code but 75.
#[test]
fn mark_says_try_again_for_everything_but_a_message_that_cannot_be_taken() {
    let mut cluster = prepare();
    cluster.start_hook();
    let whom = ["--mailbox", "commands", "-f", "a@x", "--", "b@y"];
    for (arguments, code) in [
        (["--mailbox", "commands", "-f", "a@x", "--", "b\u{1}@y"].as_slice(), 65),
        (&["--mailbox", "commands", "-f", "a@x", "--"], 75),
        (&["--nonsense"], 75),
        (&["--mailbox", "nowhere", "-f", "a@x", "--", "b@y"], 75),
        // Its sender waits for an answer, which a command cannot.
        (&["--mailbox", "up.box", "-f", "a@x", "--", "b@y"], 75),
    ] {
        let output = mark(&cluster, arguments, b"Subject: x\n\nx\n");
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {output:?}");
    }
    let loops = "Received: from a by b; now\n".repeat(101);
    let output = mark(&cluster, &whom, format!("{loops}\nx\n").as_bytes());
    assert_eq!(output.status.code(), Some(65), "{output:?}");
    assert_eq!(cluster.stored_at_all().len(), 0);

    cluster.kill_hook();
    fs::write(cluster.config(), "nonsense").unwrap();
    let output = mark(&cluster, &whom, b"x\n");
    assert_eq!(output.status.code(), Some(75), "{output:?}");
}

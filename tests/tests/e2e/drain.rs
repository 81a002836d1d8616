//! `gantry-hook drain`: an end that leaves nothing undone that could be done.

use std::process::{Command, Stdio};

use gantry_tests::cluster::{RULES, said};
use gantry_tests::smtp::{Client, deliver, note};
use gantry_tests::{Cluster, Setup, await_that, binary};
use serde_json::Value;

use crate::operators::{join_operator, told};

fn drain(cluster: &Cluster, arguments: &[&str]) -> std::process::Child {
    let mut command = Command::new(binary("gantry-hook"));
    command.arg("--config").arg(cluster.config()).arg("drain").args(arguments);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ended(cluster: &mut Cluster) -> bool {
    cluster.hook.as_mut().is_some_and(|hook| hook.ended().is_some())
}

/// Mail that waits is processed before the hook ends; meanwhile nobody gets in, and it can be taken back.
#[test]
fn a_drained_hook_finishes_what_it_has_and_ends() {
    let mut cluster = Cluster::start(&Setup::default());
    for number in 0..5 {
        deliver(cluster.intake, "b@recipient.example", &note(&format!("waits-{number}"), "text"));
    }
    let mut open = Client::greet(cluster.intake);
    let mut first = drain(&cluster, &[]);
    await_that("it takes no more mail", || {
        cluster.status()?.0.get("draining").filter(|drain| drain["waiting"] == 5).map(drop)
    });
    assert_eq!(open.try_reply().unwrap().code, 421, "idle sessions end");
    let refused = Client::try_connect(cluster.intake).err().unwrap().to_string();
    assert!(refused.contains("421"), "{refused}");
    let marked = Command::new(binary("gantry-hook"))
        .arg("--config")
        .arg(cluster.config())
        .args([
            "mark",
            "--mailbox",
            "hook.box",
            "-f",
            "a@client.example",
            "--",
            "b@recipient.example",
        ])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert_eq!(marked.status.code(), Some(75), "{}", said(&marked));

    let back = cluster.hook_command(&["drain", "--cancel"]);
    assert!(back.status.success(), "{}", said(&back));
    assert_eq!(first.wait().unwrap().code(), Some(75), "whoever waits for the end is told");
    deliver(cluster.intake, "b@recipient.example", &note("again", "text"));

    let last = drain(&cluster, &["--json", "--reason", "a new kernel"]);
    cluster.add_worker("pc-1", RULES);
    let output = last.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.first().unwrap()["waiting"], 6, "{text}");
    let end = lines.last().unwrap();
    assert_eq!((&end["ended"], &end["left"]), (&Value::Bool(true), &Value::from(0)), "{text}");
    assert!(ended(&mut cluster), "the hook has ended");
    assert_eq!((cluster.sink.count(), cluster.stored_at_all().len()), (6, 0));
    let audit = std::fs::read_to_string(cluster.path().join("spool/audit.log")).unwrap();
    assert!(audit.contains("a new kernel"), "{audit}");
    let nobody = cluster.hook_command(&["drain"]);
    assert_eq!(nobody.status.code(), Some(69), "{}", said(&nobody));
}

/// With nobody to process it, mail stays where it is, and the next start finds it.
#[test]
fn a_drain_ends_in_its_time_and_what_is_left_is_safe() {
    let mut cluster = Cluster::start(&Setup::default());
    deliver(cluster.intake, "b@recipient.example", &note("stays", "text"));
    let output = drain(&cluster, &["--within", "1s"]).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.contains("1 wait") && text.contains("1 messages are left"), "{text}");
    assert!(ended(&mut cluster));
    assert_eq!(cluster.stored_at_all().len(), 1);
    cluster.start_hook();
    cluster.add_worker("pc-1", RULES);
    cluster.await_released(1);
}

/// A next hop that is away keeps nobody: such mail has been tried, and stays.
#[test]
fn deferred_mail_does_not_keep_a_draining_hook() {
    let nowhere = std::net::SocketAddr::from(([127, 0, 0, 1], gantry_tests::free_port().unwrap()));
    let setup = Setup { release: Some(nowhere), ..Setup::default() };
    let mut cluster = Cluster::with_workers(&setup, &["pc-1"]);
    deliver(cluster.intake, "b@recipient.example", &note("deferred", "text"));
    let output = drain(&cluster, &[]).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(ended(&mut cluster));
    assert_eq!(cluster.stored("r").len(), 1);
}

/// From an operator's machine, by the host's name; the state is to be seen, and it can be taken back.
#[test]
fn an_operator_drains_a_host_and_takes_it_back() {
    let mut cluster = Cluster::start(&Setup::default());
    join_operator(&cluster, "alice", "");
    deliver(cluster.intake, "b@recipient.example", &note("waits", "text"));
    let text = told(&cluster, "alice", &["drain", "mx1", "--reason", "a new disk"]);
    assert!(text.starts_with("mx1 was told to finish what it has"), "{text}");
    await_that("it takes no more mail", || Client::try_connect(cluster.intake).err());
    for command in [["status"].as_slice(), &["top", "--once"]] {
        let shown = told(&cluster, "alice", command);
        assert!(shown.contains("DRAINING: takes no mail, 1 left"), "{shown}");
    }
    let local = said(&cluster.hook_command(&["status"]));
    assert!(local.contains("INTAKE    DRAINING: "), "{local}");

    let text = told(&cluster, "alice", &["ready", "mx1"]);
    assert!(text.starts_with("mx1 is ready again"), "{text}");
    await_that("it takes mail again", || Client::try_connect(cluster.intake).ok());
    assert!(told(&cluster, "alice", &["status"]).contains("\ttaking mail\n"));

    told(&cluster, "alice", &["drain", "mx1"]);
    cluster.add_worker("pc-1", RULES);
    await_that("it has ended", || ended(&mut cluster).then_some(()));
    assert_eq!((cluster.sink.count(), cluster.stored_at_all().len()), (1, 0));
    let audit = std::fs::read_to_string(cluster.path().join("spool/audit.log")).unwrap();
    assert!(audit.contains(r#""who":"alice""#) && audit.contains("a new disk"), "{audit}");
}

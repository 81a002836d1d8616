//! What administrators type, and what they are told.

use std::fs;

use gantry_tests::cluster::said;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Cluster, Setup, await_that};

/// EX_CONFIG of sysexits.h.
const CONFIG: Option<i32> = Some(78);

#[test]
fn check_accepts_what_is_right() {
    let cluster = Cluster::prepare(&Setup::default());
    cluster.write_worker("pc-1", gantry_tests::cluster::RULES);
    for output in [cluster.hook_command(&["check"]), cluster.worker_command("pc-1", &["check"])] {
        assert!(output.status.success(), "{}", said(&output));
    }
}

/// Every mistake names file, line and key, and says what would be right.
#[test]
fn check_names_file_line_and_key() {
    let cluster = Cluster::prepare(&Setup::default());
    let good = fs::read_to_string(cluster.config()).unwrap();
    let cases = [
        ("needs = [\"virus\"]\n", "", "needs"),
        ("spool = \"spool\"", "spol = \"spool\"", "spool"),
        ("listen = \"", "listen = \"nowhere", "listen"),
        (
            "custody = \"upstream\"",
            "custody = \"upstream\"\nanswer_within = \"600s\"",
            "answer_within",
        ),
        (
            "custody = \"upstream\"",
            "custody = \"upstream\"\nanswer_within = \"60s\"\nupstream_timeout = \"30s\"",
            "upstream_timeout",
        ),
        ("when_unprocessed = \"wait\"", "when_unprocessed = \"tempfail\"", "when_unprocessed"),
        ("type = \"smtp\", listen = \"127.0.0.1", "type = \"smtp\", listen = \"0.0.0.0", "peers"),
        ("custody = \"hook\"", "custody = \"nobody\"", "custody"),
    ];
    for (right, wrong, key) in cases {
        assert!(good.contains(right), "{right}");
        fs::write(cluster.config(), good.replacen(right, wrong, 1)).unwrap();
        let output = cluster.hook_command(&["check"]);
        let text = said(&output);
        assert_eq!(output.status.code(), CONFIG, "{key}: {text}");
        let place = text.lines().any(|line| line.contains("hook.toml:") && line.contains(key));
        assert!(place || (text.contains("hook.toml:") && text.contains(key)), "{key}: {text}");
        // `run` must not start with it either.
        let run = cluster.hook_command(&["run"]);
        assert_eq!(run.status.code(), CONFIG, "{key}: {}", said(&run));
    }
}

#[test]
fn the_workers_check_names_its_mistakes() {
    let cluster = Cluster::prepare(&Setup::default());
    for (modules, key) in [
        ("[[module]]\nname = \"a\"\ntype = \"yarra\"\nprovides = \"virus\"\n", "yarra"),
        ("[[module]]\nname = \"a\"\ntype = \"clamd\"\nprovides = \"virus\"\n", "address"),
        ("[[module]]\nname = \"a\"\ntype = \"yara\"\n", "provides"),
        (
            "[[module]]\nname = \"a\"\ntype = \"yara\"\nprovides = \"virus\"\nrules = [\"no/own.yar\"]\n",
            "rules",
        ),
    ] {
        cluster.write_worker("pc-1", modules);
        let output = cluster.worker_command("pc-1", &["check"]);
        let text = said(&output);
        assert_eq!(output.status.code(), CONFIG, "{key}: {text}");
        assert!(text.contains("worker.toml:") && text.contains(key), "{key}: {text}");
    }
}

#[test]
fn a_second_hook_on_the_same_spool_is_refused() {
    let cluster = Cluster::start(&Setup::default());
    // Other ports, so that nothing but the spool can be the reason.
    let other = Cluster::prepare(&Setup::default());
    let spool = format!("spool = \"{}\"", cluster.path().join("spool").display());
    let text = fs::read_to_string(other.config()).unwrap();
    fs::write(other.config(), text.replace("spool = \"spool\"", &spool)).unwrap();
    let output = other.hook_command(&["run"]);
    assert!(!output.status.success());
    let text = said(&output);
    assert!(text.contains("spool") && !text.contains("panicked"), "{text}");
    // The first one is none the worse for it.
    deliver(cluster.intake, "b@recipient.example", &note("1", "x"));
}

#[test]
fn status_tells_where_each_message_is() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    assert!(cluster.workers["pc-1"].freeze());
    deliver(cluster.intake, "b@recipient.example", &note("1", "x"));
    await_that("the message is dispatched for pc-1", || {
        let messages = cluster.status()?.messages();
        messages.iter().any(|(_, state)| state == "dispatched for pc-1").then_some(())
    });
    assert!(cluster.workers["pc-1"].thaw());
    cluster.await_released(1);
    let table = said(&cluster.hook_command(&["status"]));
    assert!(table.contains("pc-1") && table.contains("mx1"), "{table}");
    let status = cluster.status().unwrap();
    assert!(status.counter("released") >= 1 && status.counter("marked") >= 1, "{}", status.0);
}

#[test]
fn status_without_a_running_hook_says_so() {
    let cluster = Cluster::prepare(&Setup::default());
    let text = said(&cluster.hook_command(&["status"]));
    assert!(text.to_lowercase().contains("run") && !text.contains("panicked"), "{text}");
}

/// Listed, shown, released and deleted by their ids; released mail goes through the pool again.
#[test]
fn quarantined_mail_is_listed_shown_and_deleted() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    let virus = gantry::demo::mail::eicar();
    deliver(cluster.intake, "b@recipient.example", &note("infected", &virus));
    await_that("it lies in quarantine", || (cluster.stored("q").len() == 1).then_some(()));
    let file = cluster.stored("q").remove(0);
    let id = file.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned();
    let list = said(&cluster.hook_command(&["quarantine", "list"]));
    assert!(list.contains(&id), "{list}");
    let show = said(&cluster.hook_command(&["quarantine", "show", &id]));
    assert!(
        show.contains("b@recipient.example") && show.to_lowercase().contains("eicar"),
        "{show}"
    );
    // Scanned again, so it comes back.
    let release = cluster.hook_command(&["quarantine", "release", &id]);
    assert!(release.status.success(), "{}", said(&release));
    await_that("it is back in quarantine", || {
        let status = cluster.status()?;
        (status.counter("quarantined") >= 2 && cluster.stored("q").len() == 1).then_some(())
    });
    let delete = cluster.hook_command(&["quarantine", "delete", &id]);
    assert!(delete.status.success(), "{}", said(&delete));
    await_that("it is gone", || cluster.stored_at_all().is_empty().then_some(()));
    let again = cluster.hook_command(&["quarantine", "delete", "7-7"]);
    assert!(!again.status.success(), "{}", said(&again));
    assert_eq!(cluster.sink.count(), 0);
}

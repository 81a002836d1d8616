//! How workers come to be trusted, and how that ends, over the command line.

use std::fs;

use gantry_tests::cluster::{RULES, said};
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Cluster, Setup, await_that};

#[test]
fn a_token_works_once_and_for_its_name_only() {
    let cluster = Cluster::start(&Setup::default());
    for name in ["pc-1", "pc-2"] {
        cluster.write_worker(name, RULES);
    }
    let token = cluster.token("pc-1");
    let other = cluster.worker_command("pc-2", &["join", &token]);
    assert!(!other.status.success(), "pc-2 joined with pc-1's token: {}", said(&other));
    let first = cluster.worker_command("pc-1", &["join", &token]);
    assert!(first.status.success(), "{}", said(&first));

    let own = cluster.path().join("again");
    std::fs::create_dir(&own).unwrap();
    cluster.write_worker("again", RULES);
    let text = std::fs::read_to_string(own.join("worker.toml")).unwrap();
    std::fs::write(own.join("worker.toml"), text.replace("\"again\"", "\"pc-1\"")).unwrap();
    let second = cluster.worker_command("again", &["join", &token]);
    assert!(!second.status.success(), "the token worked twice: {}", said(&second));
    assert!(said(&second).to_lowercase().contains("token"), "{}", said(&second));
}

#[test]
fn a_mask_admits_what_it_matches() {
    let cluster = Cluster::start(&Setup::default());
    cluster.write_worker("pc-1.lab", RULES);
    let token = cluster.token("*.lab");
    let joined = cluster.worker_command("pc-1.lab", &["join", &token]);
    assert!(joined.status.success(), "{}", said(&joined));
}

#[test]
fn an_altered_token_is_refused_with_a_sentence() {
    let cluster = Cluster::start(&Setup::default());
    cluster.write_worker("pc-1", RULES);
    for token in ["nonsense", "", &cluster.token("pc-1").chars().rev().collect::<String>()] {
        let output = cluster.worker_command("pc-1", &["join", token]);
        let text = said(&output);
        assert!(!output.status.success() && !text.contains("panicked"), "{token:?}: {text}");
    }
}

/// At once, with the worker linked; what it held goes to others, and it cannot come back.
#[test]
fn a_revoked_worker_is_out_at_once() {
    let mut cluster = Cluster::with_workers(&Setup::default(), &["pc-1", "pc-2"]);
    let revoke = cluster.hook_command(&["revoke", "pc-1"]);
    assert!(revoke.status.success(), "{}", said(&revoke));
    await_that("pc-1 is not linked any more", || {
        let linked = cluster.status()?.worker("pc-1").is_some_and(|worker| worker.linked);
        (!linked).then_some(())
    });
    deliver(cluster.intake, "b@recipient.example", &note("1", "x"));
    cluster.await_released(1);
    cluster.workers.remove("pc-1");
    cluster.start_worker("pc-1", &[]);
    await_that("pc-1 says why", || {
        cluster.workers["pc-1"].log().to_lowercase().contains("revoked").then_some(())
    });
    assert!(!cluster.status().unwrap().worker("pc-1").is_some_and(|worker| worker.linked));

    // With a new token it is let in again, and the worker that runs takes that up.
    let joined = cluster.worker_command("pc-1", &["join", &cluster.token("pc-1")]);
    assert!(joined.status.success(), "{}", said(&joined));
    cluster.await_ready(2);
}

/// A worker of another cluster, whose certificate some other authority has signed.
#[test]
fn a_stranger_is_refused() {
    let mut cluster = Cluster::start(&Setup::default());
    let mut foreign = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    foreign.workers.clear();
    let config = foreign.path().join("pc-1/worker.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace(&foreign.quic.to_string(), &cluster.quic.to_string());
    std::fs::write(&config, text).unwrap();
    foreign.start_worker("pc-1", &[]);
    // It is refused on sight, so there is nothing to wait for but its own words.
    await_that("the stranger says that it is not let in", || {
        assert!(cluster.status().is_none_or(|status| status.ready() == 0));
        (!foreign.workers["pc-1"].log().is_empty()).then_some(())
    });
    cluster.add_worker("pc-2", RULES);
    cluster.await_ready(1);
    assert!(cluster.status().unwrap().worker("pc-1").is_none_or(|worker| !worker.linked));
}

#[test]
fn a_worker_that_never_joined_says_so() {
    let cluster = Cluster::start(&Setup::default());
    cluster.write_worker("pc-1", RULES);
    let output = cluster.worker_command("pc-1", &["run"]);
    let text = said(&output);
    assert!(!output.status.success() && text.contains("join"), "{text}");
}

/// A machine that was copied with its certificate: the newer process works, the other one is sent away when it comes back.
#[test]
fn of_two_processes_with_one_certificate_the_older_is_refused_as_a_clone() {
    let mut cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    let twin = cluster.path().join("twin");
    fs::create_dir(&twin).unwrap();
    for entry in fs::read_dir(cluster.path().join("pc-1")).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, twin.join(path.file_name().unwrap())).unwrap();
        }
    }
    cluster.start_worker("twin", &[]);
    let words = "two processes use one certificate";
    await_that("the older one hears it", || {
        cluster.workers["pc-1"].log().contains(words).then_some(())
    });
    await_that("the host says it", || cluster.hook.as_ref()?.log().contains(words).then_some(()));
    cluster.await_ready(1);
    assert!(!cluster.workers["twin"].log().contains(words), "{}", cluster.logs());
}

//! Messages that need more than any one worker was granted.

use gantry::demo::mail::eicar;
use gantry_tests::cluster::RULES;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Cluster, Received, Setup, await_that};

/// A program that looks at a message and finds nothing.
const HOUSE: &str = "[[module]]\nname = \"house-rules\"\ntype = \"command\"\nprovides = \"house\"\n\
                     program = \"/bin/cat\"\nclean = [0]\n";

fn both() -> Setup {
    Setup { needs: Some("[\"virus\", \"house\"]".to_owned()), ..Setup::default() }
}

/// What stands on top of a message that has left: the findings of both workers.
fn is_processed_by_both(received: &Received) -> bool {
    let out = std::fs::read_to_string(&received.path).unwrap();
    out.contains("X-Gantry: clean")
        && out.contains("virus=clean by rules")
        && out.contains("house=clean by house-rules")
}

#[test]
fn what_no_worker_can_do_alone_is_done_in_turn() {
    let mut cluster = Cluster::start(&both());
    cluster.add_worker_for("pc-1", RULES, "virus");
    cluster.add_worker_for("pc-2", HOUSE, "house");
    cluster.await_ready(2);
    for number in 0..5 {
        for address in [cluster.upstream, cluster.intake] {
            deliver(address, "b@recipient.example", &note(&format!("both-{number}"), "text"));
        }
    }
    deliver(cluster.intake, "b@recipient.example", &note("infected", &eicar()));
    let received = cluster.await_released(10);
    assert!(received.iter().all(is_processed_by_both), "{}", cluster.logs());
    await_that("the infected is in quarantine", || {
        (cluster.stored("q").len() == 1 && cluster.stored_at_all().len() == 1).then_some(())
    });
    assert!(cluster.counter("parts") >= 10);
    assert_eq!(cluster.sink.count(), 10);
}

/// The first worker is killed after its part, then the hook, and only then the second one comes.
#[test]
fn a_part_survives_its_worker_and_the_hook() {
    let mut cluster = Cluster::start(&both());
    cluster.add_worker_for("pc-1", RULES, "virus");
    for number in 0..5 {
        let message = note(&format!("part-{number}"), "text");
        deliver(cluster.intake, "b@recipient.example", &message);
    }
    await_that("one part of all is done", || (cluster.stored("p0").len() == 5).then_some(()));
    let status = cluster.status().unwrap().0;
    assert_eq!(status["messages"][0]["remaining"], serde_json::json!(["house"]), "{status}");
    drop(cluster.workers.remove("pc-1"));
    cluster.kill_hook();
    cluster.start_hook();
    assert_eq!((cluster.stored("p0").len(), cluster.sink.count()), (5, 0));
    cluster.add_worker_for("pc-2", HOUSE, "house");
    let received = cluster.await_released(5);
    assert!(received.iter().all(is_processed_by_both), "{}", cluster.logs());
    await_that("the spool is empty", || cluster.stored_at_all().is_empty().then_some(()));
    assert_eq!(cluster.sink.count(), 5, "each is out once");
}

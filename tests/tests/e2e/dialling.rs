//! Hosts that dial out to their workers.

use std::thread;

use gantry::demo::mail::Mail;
use gantry::demo::process::freeze_holding;
use gantry_tests::cluster::{RULES, said};
use gantry_tests::site::slow;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Lan, PATIENCE, Place, Site, await_that, seed};

use crate::topologies::pc_2_takes_over_from_pc_1;

const TO: &str = "b@recipient.example";

/// No worker reaches the host: they join, link, take over from each other, and hear of a revocation, all by being dialled. Cables are
/// pulled meanwhile.
#[test]
fn workers_that_cannot_reach_the_host_work_for_it() {
    let Some(mut lan) = Lan::make("a host that dials out") else { return };
    let (host, pcs) = (lan.machine("mx"), [lan.machine("pc-1"), lan.machine("pc-2")]);
    let mut site = Site::new();
    site.add_host("mx1", &host, lan.own(), &lan.network());
    site.hide_host("mx1");
    for (name, place) in ["pc-1", "pc-2"].iter().zip(&pcs) {
        site.add_dialled_worker(name, place, "mx1", &slow(50));
    }
    site.await_ready("mx1", 2);
    let sent = pc_2_takes_over_from_pc_1(&site, &lan, &pcs[0], 120);

    let revoked = site.hook_command("mx1", &["revoke", "pc-2"]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    await_that("pc-2 is out", || {
        let linked = site.status("mx1")?.worker("pc-2")?.linked;
        (!linked).then_some(())
    });
    await_that("pc-2 is told why", || site.workers["pc-2"].log().contains("revoked").then_some(()));
    await_that("pc-1 has heard of it, too", || {
        site.workers["pc-1"].log().contains("took over a newer trust list").then_some(())
    });
    deliver(site.hosts["mx1"].intake, TO, &note("after", "text"));
    await_that("pc-1 goes on", || (site.received().len() == sent_out(&sent) + 1).then_some(()));
}

/// How many of them come out.
fn sent_out(sent: &[gantry::demo::source::Sent]) -> usize {
    sent.iter().filter(|one| !one.infected).count()
}

/// A worker that dials and one that is dialled share one host's mail, and each takes over from the other.
#[test]
fn a_dialling_and_a_dialled_worker_take_over_from_each_other() {
    let (mut site, here) = (Site::new(), Place::here());
    site.add_host("mx1", &here, here.address, "127.0.0.0/8");
    site.add_dialled_worker("pc-1", &here, "mx1", &slow(50));
    site.add_worker("pc-2", &here, &[("mx1", "")], &slow(50));
    site.await_ready("mx1", 2);
    let source = site.source(&["mx1"], 8);
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&Mail::generated(seed(), 120), &|_| {}).unwrap());
        for (round, name) in [(1, "pc-1"), (2, "pc-2")] {
            let holding = || site.holding("mx1", name);
            let held = freeze_holding(&site.workers[name], PATIENCE, holding);
            assert!(held.is_some(), "{name} holds a reservation\n{}", site.logs());
            await_that("the other takes over", || {
                (site.status("mx1")?.counter("taken_over") >= round).then_some(())
            });
            site.workers[name].thaw();
        }
        sending.join().unwrap()
    });
    site.balance(&sent);
}

/// Host and worker each have the other's address. Whoever comes first, there is one link, and nothing takes its place for nothing; a
/// host that starts anew is linked to again although the worker does not know yet that the old link is dead.
#[test]
fn both_directions_make_one_link() {
    let (mut site, here) = (Site::new(), Place::here());
    site.add_host("mx1", &here, here.address, "127.0.0.0/8");
    let listen = site.add_dialled_worker("pc-1", &here, "mx1", &slow(20));
    let both = site.address_of("mx1");
    site.change_worker("pc-1", |text| {
        text.replace("name = \"mx1\"\n", &format!("name = \"mx1\"\naddress = \"{both}\"\n"))
    });
    site.await_ready("mx1", 1);
    for round in 0..3 {
        if round > 0 {
            site.restart_host("mx1");
            site.await_ready("mx1", 1);
        }
        let source = site.source(&["mx1"], 4);
        let sent = source.send(&Mail::generated(seed() + round, 30), &|_| {}).unwrap();
        await_that("all is out", || site.all_is_out(&sent).then_some(()));
    }
    let log = site.hosts["mx1"].hook.log();
    assert!(!log.contains("took this one's place"), "{listen}: {}", site.logs());
}

/// A host that the worker's file does not name is refused, and both say so; so is a worker that is not the one looked for.
#[test]
fn who_is_not_in_the_file_is_refused_with_a_sentence() {
    let (mut site, here) = (Site::new(), Place::here());
    for name in ["mx1", "mx2"] {
        site.add_host(name, &here, here.address, "127.0.0.0/8");
    }
    let listen = site.add_dialled_worker("pc-1", &here, "mx1", RULES);
    site.await_ready("mx1", 1);
    let line = format!("[[worker]]\naddress = \"{listen}\"\nname = \"pc-*\"\n");
    site.change_host("mx2", |text| text + &line);
    let words = "this worker takes no link from mx2: no [[host]] of its file has this name";
    await_that("the host says so", || site.hosts["mx2"].hook.log().contains(words).then_some(()));
    assert!(site.workers["pc-1"].log().contains("takes no link from mx2"), "{}", site.logs());

    site.change_worker("pc-1", |text| text.replace("\"mx1\"", "\"mx*\""));
    site.await_ready("mx2", 1);
    site.change_host("mx2", |text| text.replace("\"pc-*\"", "\"pc-7\""));
    let words = "pc-7 was looked for at this address, and pc-1 is here";
    await_that("the host says so", || site.hosts["mx2"].hook.log().contains(words).then_some(()));
    site.await_ready("mx1", 1);
    deliver(site.hosts["mx1"].intake, TO, &note("1", "text"));
    await_that("the other host's mail goes on", || (site.received().len() == 1).then_some(()));
}

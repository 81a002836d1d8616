//! Several hosts, several workers: the three topologies over network namespaces, and what does not need them on loopback.

use std::thread;

use gantry::demo::mail::Mail;
use gantry::demo::process::freeze_holding;
use gantry::demo::source::Sent;
use gantry_tests::cluster::{RULES, said};
use gantry_tests::site::slow;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Lan, PATIENCE, Place, Site, await_that, seed, until};

const TO: &str = "b@recipient.example";

/// Two hosts of one cluster on loopback.
fn two_hosts() -> Site {
    let (mut site, here) = (Site::new(), Place::here());
    for name in ["mx1", "mx2"] {
        site.add_host(name, &here, here.address, "127.0.0.0/8");
    }
    site
}

/// Each machine is a host and a worker, and each worker serves both hosts. The two are parted while mail flows, and each
/// goes on alone.
#[test]
fn symmetric_machines_survive_their_partition() {
    let Some(mut lan) = Lan::make("the symmetric topology") else { return };
    let (a, b) = (lan.machine("a"), lan.machine("b"));
    let mut site = Site::new();
    for (name, place) in [("mx1", &a), ("mx2", &b)] {
        site.add_host(name, place, lan.own(), &lan.network());
    }
    for (name, place) in [("pc-1", &a), ("pc-2", &b)] {
        site.add_worker(name, place, &[("mx1", ""), ("mx2", "")], &slow(20));
    }
    for host in ["mx1", "mx2"] {
        site.await_ready(host, 2);
    }
    let source = site.source(&["mx1", "mx2"], 8);
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&Mail::generated(seed(), 240), &|_| {}).unwrap());
        await_that("mail flows", || (site.received().len() >= 20).then_some(()));
        lan.part(&[&a, &b], true);
        let before = site.received().len();
        await_that("each goes on alone", || (site.received().len() >= before + 60).then_some(()));
        lan.part(&[&a, &b], false);
        sending.join().unwrap()
    });
    site.balance(&sent);
    for host in ["mx1", "mx2"] {
        site.await_ready(host, 2);
    }
}

/// One PC for one host. Its cable is pulled while it holds something; what it held waits for it.
#[test]
fn one_pc_for_a_host_loses_its_cable_for_a_while() {
    let Some(mut lan) = Lan::make("one PC for a host") else { return };
    let (host, pc) = (lan.machine("mx"), lan.machine("pc"));
    let mut site = Site::new();
    site.add_host("mx1", &host, lan.own(), &lan.network());
    site.add_worker("pc-1", &pc, &[("mx1", "")], &slow(50));
    site.await_ready("mx1", 1);
    let source = site.source(&["mx1"], 4);
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&Mail::generated(seed(), 60), &|_| {}).unwrap());
        await_that("mail flows", || (site.received().len() >= 5).then_some(()));
        await_that("it holds something", || {
            (!site.holding("mx1", "pc-1")?.is_empty()).then_some(())
        });
        lan.pull(&pc);
        await_that("the host has noticed", || {
            let linked = site.status("mx1")?.worker("pc-1")?.linked;
            (!linked).then_some(())
        });
        lan.plug(&pc);
        sending.join().unwrap()
    });
    site.balance(&sent);
}

/// Two PCs for one host, which watch each other. The cable of one is pulled while it holds a reservation, and the other
/// takes over.
#[test]
fn two_pcs_for_a_host_take_over_from_each_other() {
    let Some(mut lan) = Lan::make("two PCs for a host") else { return };
    let (host, pcs) = (lan.machine("mx"), [lan.machine("pc-1"), lan.machine("pc-2")]);
    let mut site = Site::new();
    site.add_host("mx1", &host, lan.own(), &lan.network());
    for (name, place) in ["pc-1", "pc-2"].iter().zip(&pcs) {
        site.add_worker(name, place, &[("mx1", "")], &slow(50));
    }
    site.await_ready("mx1", 2);
    pc_2_takes_over_from_pc_1(&site, &lan, &pcs[0], 150);
}

/// Mail flows, the cable of one of two workers is pulled while it holds a reservation, and the other takes over; then the
/// cable is in again, everything is where it belongs, and both are ready. Gives what was sent.
pub(crate) fn pc_2_takes_over_from_pc_1(
    site: &Site,
    lan: &Lan,
    pc_1: &Place,
    letters: usize,
) -> Vec<Sent> {
    let source = site.source(&["mx1"], 8);
    let sent = thread::scope(|scope| {
        let sending =
            scope.spawn(|| source.send(&Mail::generated(seed(), letters), &|_| {}).unwrap());
        await_that("mail flows", || (site.received().len() >= 10).then_some(()));
        // Stopped so that it surely holds something when its cable goes; then it goes on, alone.
        let holding = || site.holding("mx1", "pc-1");
        let held = freeze_holding(&site.workers["pc-1"], PATIENCE, holding);
        assert!(held.is_some(), "pc-1 holds a reservation\n{}", site.logs());
        lan.pull(pc_1);
        site.workers["pc-1"].thaw();
        await_that("pc-2 takes over", || {
            (site.status("mx1")?.counter("taken_over") >= 1).then_some(())
        });
        lan.plug(pc_1);
        sending.join().unwrap()
    });
    site.balance(&sent);
    site.await_ready("mx1", 2);
    sent
}

/// One host is loaded, the other has little to do: the worker of both does not keep the one waiting for the other.
#[test]
fn a_loaded_host_does_not_keep_another_ones_mail_waiting() {
    let mut site = two_hosts();
    let hosts = [("mx1", ""), ("mx2", "")];
    site.add_worker("pc-1", &Place::here(), &hosts, &format!("concurrency = 1\n{}", slow(100)));
    site.await_ready("mx1", 1);
    site.await_ready("mx2", 1);
    for number in 0..40 {
        deliver(site.hosts["mx1"].intake, TO, &note(&format!("much-{number}"), "text"));
    }
    deliver(site.hosts["mx2"].intake, TO, &note("little", "text"));
    await_that("the other host's message is out", || {
        (site.hosts["mx2"].sink.count() == 1).then_some(())
    });
    let left = site.status("mx1").unwrap().backlog();
    assert!(left > 0, "the loaded host was served first\n{}", site.logs());
    await_that("all is out", || (site.hosts["mx1"].sink.count() == 40).then_some(()));
}

/// A worker of two hosts, with nothing to do at its own, relieves the other one.
#[test]
fn an_idle_worker_relieves_the_loaded_host() {
    let (mut site, here) = (two_hosts(), Place::here());
    site.add_worker("pc-1", &here, &[("mx1", ""), ("mx2", "")], &slow(100));
    site.add_worker("pc-2", &here, &[("mx2", ""), ("mx1", "")], &slow(100));
    for host in ["mx1", "mx2"] {
        site.await_ready(host, 2);
    }
    for number in 0..40 {
        deliver(site.hosts["mx1"].intake, TO, &note(&format!("load-{number}"), "text"));
    }
    await_that("both work for the loaded host", || {
        let status = site.status("mx1")?;
        let works = |name| status.worker(name).is_some_and(|worker| !worker.holding.is_empty());
        (works("pc-1") && works("pc-2")).then_some(())
    });
    await_that("all is out", || (site.hosts["mx1"].sink.count() == 40).then_some(()));
}

/// A host that hangs with reservations out keeps no place of its worker once what was worked on is done.
#[test]
fn a_dead_host_does_not_hold_back_its_workers() {
    let mut site = two_hosts();
    let hosts = [("mx1", ""), ("mx2", "")];
    site.add_worker("pc-1", &Place::here(), &hosts, &format!("concurrency = 1\n{}", slow(300)));
    site.await_ready("mx1", 1);
    site.await_ready("mx2", 1);
    deliver(site.hosts["mx1"].intake, TO, &note("held", "text"));
    await_that("the worker holds it", || (!site.holding("mx1", "pc-1")?.is_empty()).then_some(()));
    assert!(site.hosts["mx1"].hook.freeze());
    for number in 0..3 {
        deliver(site.hosts["mx2"].intake, TO, &note(&format!("other-{number}"), "text"));
    }
    await_that("the other host's mail goes on", || {
        (site.hosts["mx2"].sink.count() == 3).then_some(())
    });
    assert!(site.hosts["mx1"].hook.thaw());
    await_that("and then the first one's", || (site.hosts["mx1"].sink.count() == 1).then_some(()));
    assert_eq!(site.received().len(), 4, "each message is out once");
}

/// A worker of tier 1 leaves the mail to a slower one of tier 0 for as long as that one lives, and takes all when it hangs.
#[test]
fn a_standby_works_when_it_is_needed() {
    let (mut site, here) = (Site::new(), Place::here());
    site.add_host("mx1", &here, here.address, "127.0.0.0/8");
    let one_slow = format!("concurrency = 1\n{}", slow(50));
    site.add_worker("pc-1", &here, &[("mx1", "")], &one_slow);
    site.await_ready("mx1", 1);
    site.add_worker("pc-2", &here, &[("mx1", "tier = 1")], RULES);
    site.await_ready("mx1", 2);
    let send = |from: usize| {
        for number in from..from + 20 {
            deliver(site.hosts["mx1"].intake, TO, &note(&format!("tier-{number}"), "text"));
        }
        await_that("all is out", || (site.hosts["mx1"].sink.count() == from + 20).then_some(()));
    };
    send(0);
    let reserved = || site.workers["pc-2"].log().matches("reserved id=").count();
    // On a machine that is too busy, tier 0 may have seemed dead for a moment. If both worked, the faster one would have had most.
    let before = reserved();
    assert!(before <= 5, "the standby has worked\n{}", site.logs());
    assert!(site.workers["pc-1"].freeze());
    send(20);
    assert!(reserved() >= before + 19, "{}", site.logs());
    assert!(site.workers["pc-1"].thaw());
}

/// Mail that waits for longer than `standby_after` brings the standby in although tier 0 lives.
#[test]
fn a_standby_helps_where_mail_waits_too_long() {
    let (mut site, here) = (Site::new(), Place::here());
    site.add_host("mx1", &here, here.address, "127.0.0.0/8");
    let one_slow = format!("concurrency = 1\n{}", slow(400));
    site.add_worker("pc-1", &here, &[("mx1", "")], &one_slow);
    site.await_ready("mx1", 1);
    site.add_worker("pc-2", &here, &[("mx1", "tier = 1\nstandby_after = \"1s\"")], RULES);
    site.await_ready("mx1", 2);
    for number in 0..30 {
        deliver(site.hosts["mx1"].intake, TO, &note(&format!("late-{number}"), "text"));
    }
    await_that("all is out", || (site.hosts["mx1"].sink.count() == 30).then_some(()));
    assert!(site.workers["pc-2"].log().contains("reserved"), "{}", site.logs());
    assert!(!site.workers["pc-1"].log().contains("another worker has it"));
}

/// What is revoked on the first host is out at the second one, too; and the second one cannot do it itself.
#[test]
fn a_revocation_reaches_the_other_host() {
    let (mut site, here) = (two_hosts(), Place::here());
    for name in ["pc-1", "pc-2"] {
        site.add_worker(name, &here, &[("mx1", ""), ("mx2", "")], RULES);
    }
    site.await_ready("mx2", 2);
    for command in [&["token", "--name", "pc-3"][..], &["revoke", "pc-1"]] {
        let output = site.hook_command("mx2", command);
        let text = said(&output);
        assert!(!output.status.success() && text.contains("give the command there"), "{text}");
    }
    let revoked = site.hook_command("mx1", &["revoke", "pc-1"]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    for host in ["mx1", "mx2"] {
        await_that("pc-1 is not linked any more", || {
            let linked = site.status(host)?.worker("pc-1").is_some_and(|worker| worker.linked);
            (!linked).then_some(())
        });
    }
    deliver(site.hosts["mx2"].intake, TO, &note("1", "text"));
    await_that("pc-2 goes on", || (site.hosts["mx2"].sink.count() == 1).then_some(()));
    let told = until(PATIENCE, || site.workers["pc-1"].log().contains("revoked").then_some(()));
    assert!(told.is_some(), "pc-1 is told why\n{}", site.logs());
}

/// A host that was revoked is left by its workers.
#[test]
fn a_revoked_host_is_left() {
    let (mut site, here) = (two_hosts(), Place::here());
    site.add_worker("pc-1", &here, &[("mx1", ""), ("mx2", "")], RULES);
    site.await_ready("mx1", 1);
    site.await_ready("mx2", 1);
    let revoked = site.hook_command("mx1", &["revoke", "mx2"]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    await_that("mx2 is left", || {
        let linked = site.status("mx2")?.worker("pc-1").is_some_and(|worker| worker.linked);
        (!linked).then_some(())
    });
    await_that("mx2 says so", || site.hosts["mx2"].hook.log().contains("revoked").then_some(()));
    deliver(site.hosts["mx1"].intake, TO, &note("1", "text"));
    await_that("mx1 goes on", || (site.hosts["mx1"].sink.count() == 1).then_some(()));
}

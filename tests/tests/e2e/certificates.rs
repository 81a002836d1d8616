//! The life of certificates, with real processes and a clock that the test moves under them (libfaketime, where it is
//! installed): renewal, warnings, a new authority, its key offline.

use std::fs;

use gantry::demo::mail::Mail;
use gantry::demo::source::Sent;
use gantry_tests::cluster::{RULES, said};
use gantry_tests::{FakeClock, PATIENCE, Place, Site, await_that, until};
use serde_json::Value;

/// One host and a worker under a clock of their own; `None`, and said so, where there is no libfaketime.
fn site(name: &str) -> Option<Site> {
    let clock = FakeClock::find(name)?;
    let mut site = Site::under(clock);
    site.add_host("mx1", &Place::here(), Place::here().address, "127.0.0.1");
    site.add_worker("pc-1", &Place::here(), &[("mx1", "")], RULES);
    site.await_ready("mx1", 1);
    Some(site)
}

fn status(site: &Site, host: &str) -> Value {
    let output = site.hook_command(host, &["status", "--json"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// A certificate in a host's status.
fn certificate(site: &Site, host: &str, name: &str) -> Option<Value> {
    let status = status(site, host);
    let all = status["certificates"].as_array()?.clone();
    all.into_iter().find(|one| one["name"] == name)
}

fn expires(site: &Site, host: &str, name: &str) -> u64 {
    certificate(site, host, name).and_then(|one| one["expires_unix_s"].as_u64()).unwrap_or(0)
}

fn has_moved(site: &Site, host: &str, name: &str, authority: &str) -> bool {
    certificate(site, host, name).is_some_and(|one| one["authority"] == authority)
}

fn done(site: &Site, arguments: &[&str]) -> String {
    let output = site.hook_command("mx1", arguments);
    assert!(output.status.success(), "{arguments:?}: {}\n{}", said(&output), site.logs());
    said(&output)
}

fn refused(site: &Site, arguments: &[&str]) -> String {
    let output = site.hook_command("mx1", arguments);
    assert!(!output.status.success(), "{arguments:?} was done: {}", said(&output));
    said(&output)
}

fn send(site: &Site, hosts: &[&str], count: usize) -> Vec<Sent> {
    site.source(hosts, 2).send(&Mail::generated(1, count), &|_| {}).unwrap()
}

/// The authority that issues now.
fn newest_authority(site: &Site) -> String {
    let output = site.hook_command("mx1", &["authority", "status", "--json"]);
    let all: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
    let newest = all.iter().rev().find(|one| one["role"] == "root" || one["role"] == "issuing");
    newest.and_then(|one| one["name"].as_str()).unwrap_or_default().to_owned()
}

#[test]
fn certificates_renew_themselves_while_everything_runs() {
    let Some(mut site) = site("certificates_renew_themselves_while_everything_runs") else {
        return;
    };
    let first = (expires(&site, "mx1", "mx1"), expires(&site, "mx1", "pc-1"));
    assert!(first.0 > 0 && first.1 > 0, "{}", status(&site, "mx1"));
    assert_eq!(status(&site, "mx1")["warnings"], Value::Array(Vec::new()));
    site.set_clock(61);
    await_that("both are renewed", || {
        let now = (expires(&site, "mx1", "mx1"), expires(&site, "mx1", "pc-1"));
        (now.0 > first.0 && now.1 > first.1).then_some(())
    });
    // Beyond the end of the first ones, also after a restart.
    site.set_clock(100);
    site.restart_host("mx1");
    site.start_worker("pc-1", &Place::here());
    site.await_ready("mx1", 1);
    let sent = send(&site, &["mx1"], 4);
    site.balance(&sent);
}

#[test]
#[allow(clippy::disallowed_methods, reason = "nothing here has to outlive a crash")]
fn what_is_not_renewed_is_told_louder_as_its_end_comes_nearer() {
    let Some(mut site) = site("what_is_not_renewed_is_told_louder_as_its_end_comes_nearer") else {
        return;
    };
    let keys = site.path().join("mx1/ca");
    fs::rename(&keys, site.path().join("away")).unwrap();
    fs::create_dir(&keys).unwrap();
    site.set_clock(61);
    await_that("the worker warns", || {
        let log = site.workers["pc-1"].log();
        log.lines()
            .find(|line| line.contains("WARN") && line.contains("renew this worker's certificate"))
            .map(|line| assert!(line.contains("key is offline"), "{line}"))
    });
    let warned = until(PATIENCE, || {
        let status = status(&site, "mx1");
        let told = status["warnings"].to_string();
        (told.contains("certificate of worker pc-1 expires in 28 d")
            && told.contains("certificate of hook mx1 expires in 28 d"))
        .then_some(())
    });
    assert!(warned.is_some(), "{}", status(&site, "mx1"));
    assert_eq!(certificate(&site, "mx1", "pc-1").unwrap()["standing"], "due");
    let shown = done(&site, &["status"]);
    assert!(shown.contains("WARNING") && shown.contains("pc-1"), "{shown}");

    site.set_clock(85);
    await_that("it is an error now", || {
        let error = |log: String| {
            log.lines().any(|line| line.contains("ERROR") && line.contains("expires in 4 d"))
        };
        error(site.hosts["mx1"].hook.log()).then_some(())
    });
    assert_eq!(certificate(&site, "mx1", "pc-1").unwrap()["standing"], "urgent");
    let words = refused(&site, &["token", "--name", "pc-2"]);
    assert!(words.contains("authority import FILE"), "{words}");

    // The key comes back, and all is well without anybody joining anew.
    fs::remove_dir(&keys).unwrap();
    fs::rename(site.path().join("away"), &keys).unwrap();
    site.restart_host("mx1");
    site.start_worker("pc-1", &Place::here());
    await_that("nothing is left to warn of", || {
        let status = status(&site, "mx1");
        let renewed = certificate(&site, "mx1", "pc-1")?["standing"] == "good";
        (renewed && status["warnings"] == Value::Array(Vec::new())).then_some(())
    });
}

#[test]
fn a_cluster_moves_to_a_new_authority_while_it_works() {
    let Some(mut site) = site("a_cluster_moves_to_a_new_authority_while_it_works") else { return };
    site.add_host("mx2", &Place::here(), Place::here().address, "127.0.0.1");
    for name in ["pc-2", "pc-3"] {
        site.add_worker(name, &Place::here(), &[("mx1", ""), ("mx2", "")], RULES);
    }
    site.await_ready("mx2", 2);
    site.workers.remove("pc-3");
    let old = newest_authority(&site);

    done(&site, &["authority", "rotate"]);
    let new = newest_authority(&site);
    assert_ne!(old, new);
    let moved = |site: &Site, all: &[(&str, &str)]| {
        let moved =
            || all.iter().all(|(host, name)| has_moved(site, host, name, &new)).then_some(());
        let all_moved = until(PATIENCE, moved).is_some();
        assert!(all_moved, "{}\n{}\n{}", status(site, "mx1"), status(site, "mx2"), site.logs());
    };
    moved(
        &site,
        &[("mx1", "mx1"), ("mx1", "pc-1"), ("mx1", "pc-2"), ("mx2", "mx2"), ("mx2", "pc-2")],
    );
    // One worker was off; nobody takes its trust away by mistake.
    let words = refused(&site, &["authority", "retire"]);
    assert!(words.contains("worker pc-3") && words.contains("--force"), "{words}");
    site.restart_host("mx1");
    site.restart_host("mx2");
    site.set_clock(70);
    site.start_worker("pc-3", &Place::here());
    moved(&site, &[("mx1", "pc-3"), ("mx2", "pc-3")]);
    done(&site, &["authority", "retire"]);
    await_that("no host trusts the former one", || {
        let gone = |host: &str| !status(&site, host)["certificates"].to_string().contains(&old);
        (gone("mx1") && gone("mx2")).then_some(())
    });
    site.await_ready("mx1", 3);
    site.await_ready("mx2", 2);
    let sent = send(&site, &["mx1", "mx2"], 8);
    site.balance(&sent);
}

#[test]
fn with_the_authoritys_key_offline_certificates_are_renewed_for_the_chosen_time() {
    let Some(mut site) =
        site("with_the_authoritys_key_offline_certificates_are_renewed_for_the_chosen_time")
    else {
        return;
    };
    let (key, words) = (site.path().join("safe.key"), site.path().join("words"));
    fs::write(&words, "five words are much better\n").unwrap();
    let (key, words) = (key.to_str().unwrap().to_owned(), words.to_str().unwrap().to_owned());
    let root = newest_authority(&site);
    let export = ["authority", "export", &key, "--issue-for", "100d", "--passphrase-file", &words];
    done(&site, &export);
    let issuing = newest_authority(&site);
    assert!(!site.path().join(format!("mx1/ca/{root}.key")).exists());
    let refusal = refused(&site, &["authority", "rotate"]);
    assert!(refusal.contains("key is offline"), "{refusal}");

    site.set_clock(61);
    await_that("they are renewed by the key in its place", || {
        (has_moved(&site, "mx1", "mx1", &issuing) && has_moved(&site, "mx1", "pc-1", &issuing))
            .then_some(())
    });
    site.add_worker("pc-2", &Place::here(), &[("mx1", "")], RULES);
    site.await_ready("mx1", 2);
    done(&site, &["revoke", "pc-2"]);
    await_that("it is out", || site.workers["pc-2"].log().contains("was revoked").then_some(()));

    // What was chosen is over: everything says how to go on, and then does.
    site.set_clock(99);
    await_that("the end is near", || {
        let told = status(&site, "mx1")["warnings"].to_string();
        told.contains("authority import FILE").then_some(())
    });
    site.set_clock(101);
    let refusal = refused(&site, &["token", "--name", "pc-4"]);
    assert!(refusal.contains("authority import FILE"), "{refusal}");
    done(&site, &["authority", "import", &key, "--passphrase-file", &words]);
    site.add_worker("pc-4", &Place::here(), &[("mx1", "")], RULES);
    site.await_ready("mx1", 1);
}

/// A host that cannot ask the authority's host hears of a revocation from a worker that both have.
#[test]
fn a_revocation_reaches_a_host_through_a_worker() {
    let mut site = Site::new();
    let here = Place::here();
    for host in ["mx1", "mx2"] {
        site.add_host(host, &here, here.address, "127.0.0.1");
    }
    for name in ["pc-1", "pc-9"] {
        site.add_worker(name, &here, &[("mx1", ""), ("mx2", "")], RULES);
    }
    site.await_ready("mx1", 2);
    // Nobody is there.
    fs::write(site.path().join("mx2/authority"), "127.0.0.1:9\n").unwrap();
    site.restart_host("mx2");
    site.await_ready("mx2", 2);
    done(&site, &["revoke", "pc-9"]);
    let out = || site.hosts["mx2"].hook.log().contains("pc-9 was revoked").then_some(());
    assert!(until(PATIENCE, out).is_some(), "{}", site.logs());
    site.await_ready("mx2", 1);
}

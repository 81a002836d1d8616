//! Policies that change while mail flows.

use std::fs;
use std::path::Path;
use std::thread;

use gantry::demo::mail::Mail;
use gantry_tests::cluster::said;
use gantry_tests::site::slow;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Place, Site, await_that};

/// A policy that writes its name into what it lets out.
fn policy(name: &str) -> String {
    format!(
        "[outcomes]\nfound = \"quarantine\"\nunscanned = \"retry\"\nencrypted = \"quarantine\"\n\
         malformed = \"hold\"\nover-budget = \"hold\"\n\
         [[rule]]\nname = \"mark\"\nadd_headers = [\"X-Policy: {name}\"]\n"
    )
}

/// Renamed over the former one, so that no half of it is read.
#[allow(clippy::disallowed_methods, reason = "nothing here has to survive a crash")]
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    fs::write(&beside, text).unwrap();
    fs::rename(beside, path).unwrap();
}

/// The two policies that the host's file names, of which the second may be none.
fn host_accepts(site: &Site, policy: &str, also: &str) {
    let path = site.file("mx1", "hook.toml");
    let text = fs::read_to_string(&path).unwrap();
    let rest = text.lines().filter(|line| !line.starts_with("policy"));
    let rest: String = rest.map(|line| format!("{line}\n")).collect();
    put(&path, &format!("policy = \"{policy}\"\n{also}{rest}"));
    let output = site.hook_command("mx1", &["reload"]);
    assert!(output.status.success() && said(&output).contains("read again"), "{}", said(&output));
}

/// The policies that let this one out, by the names in its header.
fn let_out_by(message: &Path) -> Vec<String> {
    let text = String::from_utf8_lossy(&fs::read(message).unwrap()).into_owned();
    let names = text.lines().filter_map(|line| line.trim_end().strip_prefix("X-Policy: "));
    names.map(str::to_owned).collect()
}

fn is_barred(site: &Site, name: &str) -> Option<bool> {
    let status = site.status("mx1")?;
    let worker = status.0["workers"].as_array()?.iter().find(|worker| worker["name"] == name)?;
    Some(worker["barred"].is_string())
}

/// Hook, first worker, second worker, hook again, under load: nothing waits for it and nothing is lost; each message has gone
/// by one policy, and none by one that does not count.
#[test]
fn a_policy_is_rolled_out_under_load() {
    let (mut site, here) = (Site::new(), Place::here());
    site.add_host("mx1", &here, here.address, "127.0.0.0/8");
    for name in ["former.toml", "newer.toml"] {
        let name = site.file("mx1", name);
        fs::write(&name, policy(name.file_stem().unwrap().to_str().unwrap())).unwrap();
    }
    host_accepts(&site, "former.toml", "");
    let with_policy = format!("policy = \"policy.toml\"\n{}", slow(20));
    for name in ["pc-1", "pc-2"] {
        let file = site.file(name, "policy.toml");
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, policy("former")).unwrap();
        site.add_worker(name, &here, &[("mx1", "")], &with_policy);
    }
    site.await_ready("mx1", 2);
    let seed = u64::from(std::process::id());
    println!("seed {seed}");
    let source = site.source(&["mx1"], 6);
    let sent = thread::scope(|scope| {
        let sending = scope.spawn(|| source.send(&Mail::generated(seed, 300), &|_| {}).unwrap());
        await_that("mail flows", || (site.received().len() >= 20).then_some(()));
        host_accepts(&site, "newer.toml", "policy_also = \"former.toml\"\n");
        for name in ["pc-1", "pc-2"] {
            put(&site.file(name, "policy.toml"), &policy("newer"));
            await_that("the worker is back with it", || {
                let linked = site.status("mx1")?.worker(name)?.linked && !is_barred(&site, name)?;
                (linked && site.workers[name].log().contains("a new policy is in force"))
                    .then_some(())
            });
        }
        host_accepts(&site, "newer.toml", "");
        sending.join().unwrap()
    });
    site.balance(&sent);
    deliver(site.hosts["mx1"].intake, "b@recipient.example", &note("after", "text"));
    let all = sent.iter().filter(|sent| !sent.infected).count() + 1;
    await_that("the last one is out", || (site.received().len() >= all).then_some(()));
    let received = site.received();
    for one in &received {
        let by = let_out_by(&one.path);
        assert!(by == ["former"] || by == ["newer"], "{by:?}: {:?}", one.path);
    }
    let last = received.iter().find(|one| {
        String::from_utf8_lossy(&fs::read(&one.path).unwrap()).contains("Subject: after")
    });
    assert_eq!(let_out_by(&last.expect("the last one").path), ["newer"]);
    for name in ["former", "newer"] {
        assert!(received.iter().any(|one| let_out_by(&one.path) == [name]), "none by {name}");
    }

    // Only the former one counts from now on: both workers get nothing, and say so.
    host_accepts(&site, "former.toml", "");
    await_that("both are barred", || {
        (is_barred(&site, "pc-1")? && is_barred(&site, "pc-2")?).then_some(())
    });

    // What needs a restart is said, and a file with mistakes changes nothing.
    let path = site.file("mx1", "hook.toml");
    let text = fs::read_to_string(&path).unwrap();
    put(&path, &format!("{text}[limits]\nupstream_disk_max = \"1GiB\"\n"));
    let output = site.hook_command("mx1", &["reload"]);
    assert!(said(&output).contains("under limits counts after a restart"), "{}", said(&output));
}

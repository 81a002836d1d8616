//! What the programs show of themselves: metrics over HTTP, the log, and the lives of messages.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gantry_tests::cluster::RULES;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Cluster, Setup, await_that, free_port};

use super::operators::{join_operator, json};

fn free() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, free_port().unwrap()).into()
}

/// `GET /metrics`, by hand; the body.
fn scrape(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n").unwrap();
    let mut said = String::new();
    stream.read_to_string(&mut said).unwrap();
    let (head, body) = said.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    body.to_owned()
}

/// Samples by name and labels, read as strictly as the format is written: each metric with help and type, once, before its
/// samples; the naming rules; counters and histograms that hold together.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut families = BTreeMap::new();
    let (mut current, mut helped) = (String::new(), String::new());
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').expect(line);
            assert!(!words.is_empty(), "{line}");
            helped = name.to_owned();
            continue;
        }
        if let Some(family) = line.strip_prefix("# TYPE ") {
            let (name, kind) = family.split_once(' ').expect(line);
            assert_eq!(name, helped, "a type without its help");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert!(families.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            current = name.to_owned();
            continue;
        }
        let (what, value) = line.rsplit_once(' ').expect(line);
        let name = what.split('{').next().unwrap();
        assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{line}");
        let suffixes: &[&str] = match families[&current].as_str() {
            "histogram" => &["_bucket", "_sum", "_count"],
            _ => &[""],
        };
        assert!(suffixes.iter().any(|s| name == format!("{current}{s}")), "{line} in {current}");
        for label in labels(what) {
            let allowed = ["mailbox", "worker", "module", "outcome", "version", "le"];
            assert!(allowed.contains(&label.as_str()), "{line}");
        }
        let value: f64 = value.parse().expect(line);
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert!(samples.insert(what.to_owned(), value).is_none(), "twice: {line}");
    }
    for (sample, value) in samples.iter().filter(|(sample, _)| sample.contains("le=\"+Inf\"")) {
        let count = sample.replace("_bucket", "_count").replace(",le=\"+Inf\"", "");
        assert_eq!(samples[&count], *value, "{sample}");
    }
    samples
}

/// The names of a sample's labels.
fn labels(sample: &str) -> Vec<String> {
    let Some(inner) = sample.split_once('{').map(|(_, rest)| rest.strip_suffix('}').unwrap())
    else {
        return Vec::new();
    };
    inner.split("\",").map(|label| label.split_once("=\"").unwrap().0.to_owned()).collect()
}

#[test]
fn both_programs_show_their_figures_and_whoever_is_rude_disturbs_no_mail() {
    let (of_hook, of_worker) = (free(), free());
    let setup =
        Setup { tables: format!("[metrics]\nlisten = \"{of_hook}\"\n"), ..Setup::default() };
    let mut cluster = Cluster::start(&setup);
    cluster.add_worker("pc-1", &format!("{RULES}[metrics]\nlisten = \"{of_worker}\"\n"));
    cluster.await_ready(1);
    let idle = parse(&scrape(of_hook));
    assert_eq!(idle["gantry_hook_oldest_waiting_seconds{mailbox=\"hook.box\"}"], 0.0);
    assert_eq!(idle["gantry_hook_ready_workers"], 1.0);

    // Connections that never say what they want, and some that talk nonsense.
    let slow: Vec<TcpStream> = (0..32)
        .map(|count| {
            let mut stream = TcpStream::connect(of_hook).unwrap();
            let _ =
                stream.write_all(if count % 2 == 0 { b"GET /m" } else { b"\0\xff\n\n\r\n\r\n" });
            stream
        })
        .collect();
    deliver(cluster.upstream, "b@recipient.example", &note("clean", "x"));
    deliver(cluster.intake, "b@recipient.example", &note("bad", &gantry::demo::mail::eicar()));
    cluster.await_released(1);
    await_that("it lies in quarantine", || (cluster.stored("q").len() == 1).then_some(()));
    drop(slow);

    let hook = await_that("the figures are there", || {
        let mut stream = TcpStream::connect(of_hook).ok()?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").ok()?;
        let mut said = String::new();
        stream.read_to_string(&mut said).ok()?;
        let figures = parse(said.split_once("\r\n\r\n")?.1);
        (figures["gantry_hook_quarantined_messages{mailbox=\"hook.box\"}"] == 1.0)
            .then_some(figures)
    });
    assert_eq!(hook["gantry_hook_messages_marked_total"], 2.0);
    assert_eq!(hook["gantry_hook_messages_released_total"], 1.0);
    assert_eq!(hook["gantry_hook_worker_linked{worker=\"pc-1\"}"], 1.0);
    assert_eq!(hook["gantry_hook_intake_stopped"], 0.0);
    let worker = parse(&scrape(of_worker));
    assert_eq!(worker["gantry_worker_messages_total{outcome=\"verdict\"}"], 2.0);
    let said = |outcome| {
        worker[&format!(
            "gantry_worker_module_outcomes_total{{module=\"rules\",outcome=\"{outcome}\"}}"
        )]
    };
    assert_eq!((said("clean"), said("found"), said("malformed")), (1.0, 1.0, 0.0));
    assert_eq!(worker["gantry_worker_module_duration_seconds_count{module=\"rules\"}"], 2.0);
    assert_eq!(worker["gantry_worker_module_ready{module=\"rules\"}"], 1.0);
    // A certificate lives for 90 days.
    for (figures, name) in [(&hook, "hook"), (&worker, "worker")] {
        let expiry = figures[&format!("gantry_{name}_certificate_expiry_timestamp_seconds")];
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        assert!((80.0..100.0).contains(&((expiry - now) / 86_400.0)), "{name}: {expiry}");
    }
}

/// Everything that is the mail's own carries the word `secret`.
#[test]
fn the_log_has_every_step_and_nothing_of_the_mails_own() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    deliver(cluster.upstream, "secret@recipient.example", &note("secret", "secret"));
    // A zip that ends within its only entry, so that its name is told to operators.
    let mut zip = b"PK\x03\x04\x14\x00\x00\x00\x00\x00\x00\x00\x00\x00\x11\x11\x11\x11".to_vec();
    zip.extend_from_slice(&[100, 0, 0, 0, 100, 0, 0, 0, 10, 0, 0, 0]);
    zip.extend_from_slice(b"secret.txtabc");
    let part = STANDARD.encode(&zip);
    let damaged = format!(
        "Subject: secret\r\nMIME-Version: 1.0\r\nContent-Type: application/zip; name=\"secret.zip\"\r\n\
         Content-Transfer-Encoding: base64\r\n\r\n{part}\r\n"
    );
    deliver(cluster.intake, "secret@recipient.example", damaged.as_bytes());
    cluster.await_released(1);
    let file = await_that("it is set aside", || cluster.stored("h").into_iter().next());
    assert!(file.exists());
    let held = cluster.hook_command(&["held", "list"]);
    assert!(String::from_utf8_lossy(&held.stdout).contains("secret.txt"), "operators see the name");

    let hook = await_that("the log has the steps", || {
        let log = cluster.hook.as_ref().unwrap().log();
        log.contains("held id=").then_some(log)
    });
    for step in [
        "INFO marked id=1-1 mailbox=\"up.box\" to=\"waiting\" attempt=0",
        "INFO dispatched id=1-1 mailbox=\"up.box\" from=\"waiting\" to=\"reserved\" attempt=1 fence=1/1 worker=\"pc-1\"",
        "INFO verdict id=1-1 mailbox=\"up.box\" from=\"reserved\" to=\"settling\"",
        "INFO settled id=1-1 mailbox=\"up.box\" from=\"settling\" to=\"releasing\"",
        "INFO released id=1-1 mailbox=\"up.box\"",
        "INFO done id=1-1 mailbox=\"up.box\" from=\"releasing\" to=\"gone\"",
        "INFO held id=1-2 mailbox=\"hook.box\" from=\"settling\" to=\"held\"",
    ] {
        assert!(hook.contains(step), "{step}\n{hook}");
    }
    let dispatched = hook.lines().find(|line| line.contains("dispatched id=1-1")).unwrap();
    assert!(dispatched.contains("since_ms=") && dispatched.contains("age_ms="), "{dispatched}");
    let worker = cluster.workers["pc-1"].log();
    assert!(worker.contains("result=\"verdict\" modules=\"virus=clean by rules in "), "{worker}");
    assert!(worker.contains("result=\"failed\" reason=\"rules: malformed: ‹…›: "), "{worker}");
    for log in [&hook, &worker] {
        assert!(!log.contains("secret"), "{log}");
    }
}

#[test]
fn a_life_survives_the_hook() {
    let mut cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    join_operator(&cluster, "alice", "");
    deliver(cluster.intake, "b@recipient.example", &note("1", "x"));
    cluster.await_released(1);
    await_that("it has left", || cluster.stored("r").is_empty().then_some(()));
    let before = await_that("its life is told to the end", || {
        let life = json(&cluster, &["message", "mx1/1-1"])["message"].clone();
        let steps = life["steps"].as_array()?;
        (steps.last()?["what"] == "done").then_some(life)
    });
    cluster.kill_hook();
    cluster.start_hook();
    let after = await_that("the operator is answered again", || {
        let life = json(&cluster, &["message", "mx1/1-1"])["message"].clone();
        (!life.is_null()).then_some(life)
    });
    assert_eq!(after["steps"], before["steps"]);
    assert_eq!((&after["state"], &after["mailbox"]), (&"gone".into(), &"hook.box".into()));
    assert!(after["forgotten"].is_null(), "{after}");
}

//! All of the corpus goes in by SMTP and comes out by SMTP, and is compared byte by byte.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use gantry_tests::corpus::{self, Sample};
use gantry_tests::smtp::{Client, Reply, crlf, put_on_top};
use gantry_tests::{Cluster, Setup, await_that, skip};

/// Connections at once.
const CONNECTIONS: usize = 8;

#[test]
fn real_mail_comes_out_as_it_went_in() {
    let Some(mut samples) = read() else { return };
    for sample in &mut samples {
        sample.bytes = crlf(&sample.bytes, false);
    }
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1", "pc-2"]);
    for address in [cluster.upstream, cluster.intake] {
        let before = cluster.sink.count();
        let refused = send_all(address, &samples, |reply| reply.code != 250);
        assert!(refused.is_empty(), "{refused:?}");
        compare(&cluster, &samples, before);
    }
}

/// The same bytes as they lie in the files: stray CR and LF become CRLF.
#[test]
fn stray_line_ends_are_normalised() {
    let Some(samples) = read() else { return };
    let setup = Setup { intake: ", stray_cr_lf = \"normalise\"".to_owned(), ..Setup::default() };
    let cluster = Cluster::with_workers(&setup, &["pc-1"]);
    let refused = send_all(cluster.upstream, &samples, |reply| reply.code != 250);
    assert!(refused.is_empty(), "{refused:?}");
    let normalised: Vec<Sample> = samples
        .into_iter()
        .map(|Sample { name, bytes }| Sample { name, bytes: crlf(&ended(bytes), false) })
        .collect();
    compare(&cluster, &normalised, 0);
}

/// The same bytes as they lie in the files: what has a stray CR or LF is refused, and nothing else.
#[test]
fn stray_line_ends_are_refused() {
    let Some(samples) = read() else { return };
    let setup = Setup { intake: ", stray_cr_lf = \"reject\"".to_owned(), ..Setup::default() };
    let cluster = Cluster::with_workers(&setup, &["pc-1"]);
    let refused = send_all(cluster.upstream, &samples, |reply| reply.code / 100 == 5);
    let (clean, stray): (Vec<Sample>, Vec<Sample>) = samples
        .into_iter()
        .map(|Sample { name, bytes }| Sample { name, bytes: ended(bytes) })
        .partition(|sample| crlf(&sample.bytes, false) == sample.bytes);
    assert!(!clean.is_empty() && !stray.is_empty(), "the corpus has both");
    for sample in &clean {
        let reply = refused.get(&sample.name);
        assert!(reply.is_none(), "{} was refused: {reply:?}", sample.name);
    }
    for sample in &stray {
        assert!(refused.contains_key(&sample.name), "{} was taken", sample.name);
    }
    compare(&cluster, &clean, 0);
}

fn read() -> Option<Vec<Sample>> {
    let samples = corpus::read();
    if samples.is_none() {
        skip("corpus", "there is none beside the project");
    }
    samples
}

/// Sends all, each to a recipient of its own; gives the answers that are as asked for.
fn send_all(
    address: SocketAddr,
    samples: &[Sample],
    asked: impl Fn(&Reply) -> bool + Sync,
) -> BTreeMap<String, Reply> {
    let (next, answers) = (AtomicUsize::new(0), Mutex::new(BTreeMap::new()));
    let work = || {
        while let Some(sample) = samples.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut client = Client::greet(address);
            let to = recipient(&sample.name);
            let reply = client.transact("sender@client.example", &[&to], &sample.bytes);
            let reply = reply.unwrap_or_else(|error| panic!("{}: {error}", sample.name));
            if asked(&reply) {
                answers.lock().unwrap().insert(sample.name.clone(), reply);
            }
        }
    };
    thread::scope(|scope| (0..CONNECTIONS).for_each(|_| drop(scope.spawn(work))));
    answers.into_inner().unwrap()
}

/// Waits until as many messages are out, and compares each with its sample.
fn compare(cluster: &Cluster, samples: &[Sample], before: usize) {
    let expected = before + samples.len();
    let there = || {
        let aside = cluster.stored("h").len() + cluster.stored("q").len();
        (cluster.sink.count() >= expected
            || (aside > 0 && cluster.sink.count() + aside >= expected))
            .then_some(())
    };
    await_that("all messages are out", there);
    let received = cluster.sink.received();
    let out: BTreeMap<&str, _> = received[before..]
        .iter()
        .map(|one| (one.recipients().next().unwrap_or_default(), one))
        .collect();
    let mut faults = Vec::new();
    for sample in samples {
        let Some(one) = out.get(recipient(&sample.name).as_str()) else {
            faults.push(format!("{} did not come out", sample.name));
            continue;
        };
        let bytes = fs::read(&one.path).unwrap();
        match put_on_top(&bytes, &sample.bytes) {
            Err(fault) => faults.push(format!("{}: {fault}", sample.name)),
            Ok(top) if !top.lines().any(|line| line.starts_with("X-Gantry:")) => {
                faults.push(format!("{} has no result", sample.name));
            }
            Ok(_) => {}
        }
    }
    let shown = faults.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
    assert!(
        faults.is_empty(),
        "{} of {}:\n{shown}\n{}",
        faults.len(),
        samples.len(),
        cluster.logs()
    );
    assert_eq!(received.len(), expected, "each message is out once");
}

/// An address made of the sample's name.
fn recipient(name: &str) -> String {
    let local: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    format!("{local}@corpus.example")
}

/// SMTP ends the last line with CRLF where the file does not.
fn ended(mut bytes: Vec<u8>) -> Vec<u8> {
    if !bytes.ends_with(b"\r\n") {
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

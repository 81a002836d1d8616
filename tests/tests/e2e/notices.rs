//! What a policy has sent beside a message: to whom it goes, to whom it does not, and what a killed hook makes of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use gantry::demo::mail::eicar;
use gantry_tests::cluster::RULES;
use gantry_tests::smtp::{Client, deliver, note};
use gantry_tests::{Cluster, Setup, await_that};

use crate::operators::{join_operator, told};

const POLICY: &str = r#"postmaster = "postmaster@host.example"

[outcomes]
found = "quarantine"
unscanned = "retry"
encrypted = "quarantine"
malformed = "quarantine"
over-budget = "hold"

[[notice]]
name = "infected"
to = ["postmaster"]
from = "gantry@host.example"
subject = "{answer}: {subject}"
text = "{id}\n{findings}\n"

[[notice]]
name = "yours"
to = ["sender"]
from = "gantry@host.example"
subject = "stopped: {subject}"
text = "{id}\n"

[[notice]]
name = "journal"
to = ["archive@host.example"]
from = "gantry@host.example"
subject = "copy: {subject}"
text = "{id}\n"
attach = "message"

[[rule]]
name = "tell"
when.found = ["virus"]
notify = ["infected", "yours"]

[[rule]]
name = "journal"
when.header = [{ name = "Subject", matches = ["journalled*"] }]
notify = ["journal"]
"#;

const ALLOWED: &str =
    "originated = { senders = [\"<>\"], recipients = [\"*@host.example\", \"sender\"] }";

/// A hook that expects the policy and allows this much, and a worker that follows it.
fn cluster(allowed: &str) -> Cluster {
    let setup =
        Setup { upstream: allowed.to_owned(), hook: allowed.to_owned(), ..Setup::default() };
    let mut cluster = Cluster::prepare(&setup);
    fs::write(cluster.path().join("policy.toml"), POLICY).unwrap();
    let config = fs::read_to_string(cluster.config()).unwrap();
    fs::write(cluster.config(), format!("policy = \"policy.toml\"\n{config}")).unwrap();
    cluster.start_hook();
    cluster
}

fn with_worker(mut cluster: Cluster) -> Cluster {
    cluster.add_worker_with("pc-1", "policy = \"../policy.toml\"\n", RULES);
    cluster.await_ready(1);
    cluster
}

/// What the sink got: the recipient, the line of MAIL and the text of each.
fn received(cluster: &Cluster) -> Vec<(String, String, String)> {
    let all = cluster.sink.received();
    let one = |one: &gantry_tests::Received| {
        let to: Vec<&str> = one.recipients().collect();
        (to.join(","), one.mail.clone(), fs::read_to_string(&one.path).unwrap())
    };
    all.iter().map(one).collect()
}

fn subjects(cluster: &Cluster) -> BTreeSet<String> {
    let field = |text: &str| {
        let subject = text.lines().find_map(|line| line.strip_prefix("Subject: "));
        subject.unwrap_or_default().trim().to_owned()
    };
    received(cluster).iter().map(|(to, _, text)| format!("{to} {}", field(text))).collect()
}

/// One notice to the postmaster, one to a sender who is a person, and none to the forged sender of a list's mail.
#[test]
fn an_infected_message_is_told_of_once_and_not_to_lists() {
    let cluster = with_worker(cluster(ALLOWED));
    join_operator(&cluster, "alice", "");
    let plain = note("plain", &eicar());
    let list = [b"List-Id: <l.example>\r\n".as_slice(), &note("list", &eicar())].concat();
    deliver(cluster.intake, "b@recipient.example", &plain);
    deliver(cluster.upstream, "b@recipient.example", &list);
    let mut null = Client::greet(cluster.intake);
    let bounce = note("bounce", &eicar());
    assert_eq!(null.transact("", &["b@recipient.example"], &bounce).unwrap().code, 250);
    cluster.await_released(4);
    await_that("only the infected are left", || {
        (cluster.stored("q").len() == 3 && cluster.stored_at_all().len() == 3).then_some(())
    });
    let expected = [
        "postmaster@host.example quarantine: bounce",
        "postmaster@host.example quarantine: list",
        "postmaster@host.example quarantine: plain",
        "sender@client.example stopped: plain",
    ];
    assert_eq!(subjects(&cluster), expected.map(str::to_owned).into());
    for (_, mail, text) in received(&cluster) {
        assert!(mail.starts_with("MAIL FROM:<>"), "{mail}");
        let automatic = text.matches("Auto-Submitted: auto-generated\r\n").count();
        assert!(automatic == 1 && text.contains("Received: ") && text.contains("X-Gantry-Trace"));
        assert!(!text.contains("EICAR-STANDARD"), "the virus itself stays");
    }
    assert_eq!(cluster.counter("originated"), 4);

    // The life of each names the other.
    let (_, _, text) =
        received(&cluster).into_iter().find(|one| one.2.contains(": plain")).unwrap();
    let parent = text.split("\r\n\r\n").nth(1).unwrap().lines().next().unwrap().to_owned();
    let life = told(&cluster, "alice", &["message", &parent]);
    let step =
        life.lines().find(|line| line.contains("originates")).unwrap_or_else(|| panic!("{life}"));
    let child = step.split_whitespace().last().unwrap();
    let life = told(&cluster, "alice", &["message", child]);
    assert!(life.contains(&format!("by the verdict on {parent}")), "{life}");
}

#[test]
fn a_copy_carries_what_leaves_and_nothing_that_was_stopped() {
    let cluster = with_worker(cluster(ALLOWED));
    let clean = note("journalled", "figures");
    deliver(cluster.upstream, "b@recipient.example", &clean);
    deliver(cluster.intake, "b@recipient.example", &note("journalled-too", &eicar()));
    cluster.await_released(4);
    let all = received(&cluster);
    let copy = all.iter().find(|(to, ..)| to == "archive@host.example").expect("a copy");
    let whole = String::from_utf8(clean).unwrap();
    assert!(copy.2.contains("Content-Type: message/rfc822\r\n"), "{}", copy.2);
    assert!(copy.2.contains(&whole), "byte by byte: {}", copy.2);
    assert_eq!(all.iter().filter(|(to, ..)| to == "archive@host.example").count(), 1);
}

/// A hook that was not told refuses the verdict, says which key is missing, and nothing leaves.
#[test]
fn nobody_is_told_whom_the_hook_does_not_allow() {
    let cluster = with_worker(cluster(""));
    deliver(cluster.intake, "b@recipient.example", &note("plain", &eicar()));
    await_that("it is held", || (cluster.stored("h").len() == 1).then_some(()));
    assert_eq!(cluster.sink.count(), 0);
    let list = gantry_tests::cluster::said(&cluster.hook_command(&["held", "list"]));
    assert!(list.contains("[mailbox.originated]"), "{list}");
}

/// Killed again and again while it settles: each notice goes out, and none is made twice.
#[test]
fn a_hook_that_is_killed_while_it_settles_loses_and_doubles_no_notice() {
    const MAILS: usize = 40;
    let mut cluster = cluster(ALLOWED);
    for number in 0..MAILS {
        let mail = note(&format!("virus-{number:02}"), &eicar());
        deliver(cluster.intake, "b@recipient.example", &mail);
    }
    let mut cluster = {
        cluster.add_worker_with("pc-1", "policy = \"../policy.toml\"\n", RULES);
        cluster
    };
    for round in 1..=5 {
        await_that("some notices are out", || (cluster.sink.count() >= 8 * round).then_some(()));
        cluster.kill_hook();
        cluster.start_hook();
    }
    await_that("only quarantined mail is left", || {
        let quarantined = cluster.stored("q").len();
        (quarantined == MAILS && cluster.stored_at_all().len() == MAILS).then_some(())
    });
    // By the message that a notice is about and whom it goes to: the notices' own ids.
    let mut notices: BTreeMap<(String, String), BTreeSet<String>> = BTreeMap::new();
    for (to, _, text) in received(&cluster) {
        let of = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        let (subject, id) = (of("Subject: ").to_owned(), of("Message-ID: ").to_owned());
        notices.entry((to, subject)).or_default().insert(id);
    }
    assert_eq!(notices.len(), 2 * MAILS, "{}", cluster.logs());
    let doubled: Vec<_> = notices.iter().filter(|(_, ids)| ids.len() > 1).collect();
    assert!(doubled.is_empty(), "{doubled:?}");
}

//! Operators at real hosts: what they see, what they steer, and what is written down of it.

use std::fs;
use std::process::{Command, Output};

use gantry_link::{Authority, Role, TokenRequest, system_clock};
use gantry_tests::cluster::said;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Cluster, Setup, await_that, binary};
use serde_json::Value;

/// sysexits.h
const DATAERR: Option<i32> = Some(65);
const USAGE: Option<i32> = Some(64);
const UNAVAILABLE: Option<i32> = Some(69);
const NOPERM: Option<i32> = Some(77);

/// Joins an operator at a cluster, with these further hosts in its file.
pub(crate) fn join_operator(cluster: &Cluster, name: &str, more: &str) {
    let folder = cluster.path().join(name);
    fs::create_dir_all(&folder).unwrap();
    let hosts = format!("[[host]]\naddress = \"{}\"\n{more}", cluster.quic);
    fs::write(folder.join("operator.toml"), format!("name = \"{name}\"\n{hosts}")).unwrap();
    let token = cluster.hook_command(&["token", "--name", name, "--role", "operator"]);
    let token = String::from_utf8(token.stdout).unwrap();
    let joined = operator(cluster, name, &["join", token.lines().last().unwrap()]);
    assert!(joined.status.success(), "{}", said(&joined));
}

/// `gantry --config operator.toml ARGUMENTS`, to its end.
fn operator(cluster: &Cluster, name: &str, arguments: &[&str]) -> Output {
    let config = cluster.path().join(name).join("operator.toml");
    let mut command = Command::new(binary("gantry"));
    command.arg("--config").arg(config).args(arguments);
    command.output().unwrap()
}

/// The text of a command that must succeed.
pub(crate) fn told(cluster: &Cluster, name: &str, arguments: &[&str]) -> String {
    let output = operator(cluster, name, arguments);
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// Its JSON's first host.
pub(crate) fn json(cluster: &Cluster, arguments: &[&str]) -> Value {
    let text = told(cluster, "alice", &[arguments, &["--json"]].concat());
    let value: Value = serde_json::from_str(&text).unwrap();
    value["hosts"][0].clone()
}

/// Sends one infected message and waits until it is quarantined; its id.
fn quarantined(cluster: &Cluster) -> String {
    let virus = gantry::demo::mail::eicar();
    deliver(cluster.intake, "b@recipient.example", &note("infected", &virus));
    await_that("it lies in quarantine", || (cluster.stored("q").len() == 1).then_some(()));
    let file = cluster.stored("q").remove(0);
    file.file_name().unwrap().to_str().unwrap().split('.').next().unwrap().to_owned()
}

fn audit(cluster: &Cluster) -> Vec<Value> {
    let text = fs::read_to_string(cluster.path().join("spool/audit.log")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Hosts and workers with their engines; a message from its coming to the next hop's reply.
#[test]
fn status_queue_and_a_messages_life() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    join_operator(&cluster, "alice", "");
    deliver(cluster.upstream, "b@recipient.example", &note("1", "x"));
    cluster.await_released(1);

    let status = json(&cluster, &["status"]);
    assert_eq!(status["host"], "mx1");
    let worker = &status["status"]["workers"][0];
    assert_eq!((&worker["name"], &worker["linked"]), (&"pc-1".into(), &true.into()));
    assert!(worker["software"].as_str().unwrap().starts_with("gantry "), "{worker}");
    assert!(!worker["profile"]["modules"][0]["engine"].as_str().unwrap().is_empty());
    let plain = told(&cluster, "alice", &["status"]);
    for (kind, cell) in [("host", "mx1"), ("worker", "pc-1"), ("engine", "rules")] {
        let found = |line: &str| line.starts_with(&format!("{kind}\t")) && line.contains(cell);
        assert!(plain.lines().any(found), "{kind}: {plain}");
    }
    let top = told(&cluster, "alice", &["top", "--once"]);
    assert!(top.contains("mx1") && top.contains("pc-1") && !top.contains('\x1b'), "{top}");

    // The first message of the first start.
    let life = json(&cluster, &["message", "mx1/1-1"]);
    let life = &life["message"];
    assert_eq!(life["state"], "gone");
    let steps = life["steps"].as_array().unwrap();
    let step = |what: &str| {
        let found = steps.iter().find(|step| step["what"] == what);
        found.unwrap_or_else(|| panic!("no {what} in {life}"))
    };
    assert_eq!(steps[0]["what"], "marked");
    assert_eq!(step("dispatched")["node"], "pc-1");
    let verdict = step("verdict")["detail"].as_str().unwrap();
    assert!(verdict.starts_with("virus: clean (rules, "), "{verdict}");
    let reply = step("released")["detail"].as_str().unwrap();
    assert!(reply.starts_with("accepted: 250 "), "{reply}");
    let top = told(&cluster, "alice", &["top", "--once", "--json"]);
    let top: Value = serde_json::from_str(&top).unwrap();
    assert_eq!(top["hosts"][0]["status"]["workers"][0]["name"], "pc-1");
    let times: Vec<u64> = steps.iter().map(|step| step["unix_ms"].as_u64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");

    let id = quarantined(&cluster);
    let queue = json(&cluster, &["queue", "--state", "quarantined"]);
    let first = &queue["queue"]["messages"][0];
    assert_eq!(first["id"], id.as_str());
    assert_eq!(first["reasons"][0], "rules found Eicar_Test_String", "{first}");
    let plain = told(&cluster, "alice", &["message", &id]);
    for line in
        ["\nsender\t", "\nrecipient\tb@recipient.example\n", "\nwhy\trules found ", "\nstep\t"]
    {
        assert!(plain.contains(line), "no {line:?} in {plain}");
    }
    let nothing = json(&cluster, &["queue", "--state", "held,waiting"]);
    assert_eq!(nothing["queue"]["messages"], Value::Array(Vec::new()));
    let life = told(&cluster, "alice", &["message", &id]);
    assert!(life.contains("quarantined") && life.contains("found"), "{life}");
    let unknown = operator(&cluster, "alice", &["message", "7-7"]);
    assert_eq!(unknown.status.code(), DATAERR);
    assert!(said(&unknown).contains("no message 7-7 is known at mx1"), "{}", said(&unknown));
}

/// Of two operators who decide about one message one wins, and the other is told who was first.
#[test]
fn decisions_are_conditional_and_audited() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    join_operator(&cluster, "alice", "");
    join_operator(&cluster, "bob", "");
    let id = quarantined(&cluster);
    let list = told(&cluster, "bob", &["quarantine", "list"]);
    assert!(list.contains(&format!("mx1/{id}")), "{list}");
    let shown = told(&cluster, "bob", &["quarantine", "show", &id]);
    assert!(shown.contains("b@recipient.example"), "{shown}");
    let wrong = operator(&cluster, "alice", &["held", "delete", &id]);
    assert_eq!(wrong.status.code(), DATAERR);
    assert!(
        said(&wrong).contains("is quarantined, not held; nothing was changed"),
        "{}",
        said(&wrong)
    );

    let delete = ["quarantine", "delete", &id, "--reason", "a test virus"];
    let cluster = &cluster;
    let both = std::thread::scope(|scope| {
        let ask =
            |name: &'static str| scope.spawn(move || (name, operator(cluster, name, &delete)));
        [ask("alice"), ask("bob")].map(|asked| asked.join().unwrap())
    });
    let (winners, losers): (Vec<_>, Vec<_>) =
        both.iter().partition(|(_, output)| output.status.success());
    let ([(winner, _)], [(loser, late)]) = (winners.as_slice(), losers.as_slice()) else {
        panic!("{both:?}")
    };
    assert_eq!(late.status.code(), DATAERR);
    let sentence = format!("{winner} deleted it: a test virus");
    assert!(said(late).contains(&sentence), "{}", said(late));
    assert!(cluster.stored_at_all().is_empty(), "it is gone when the operator hears so");

    let lines = audit(cluster);
    let of = |who: &str| -> Vec<&str> {
        let its = lines.iter().filter(|line| line["who"] == who && line["ask"] == "delete");
        let its = its.filter(|line| line["aside"] == "quarantined");
        its.map(|line| line["outcome"].as_str().unwrap()).collect()
    };
    assert_eq!(of(winner), ["begun", "done"]);
    assert_eq!(of(loser)[0], "begun");
    assert!(of(loser)[1].starts_with("refused: "), "{lines:?}");
    assert!(lines.iter().all(|line| !line["time"].as_str().unwrap().is_empty()));
    assert!(lines.iter().any(|line| line["reason"] == "a test virus" && line["id"] == id.as_str()));

    // The administrator at the host is written down, too.
    let local = cluster.hook_command(&["quarantine", "delete", &id, "--reason", "again"]);
    assert_eq!(local.status.code(), DATAERR);
    let lines = audit(cluster);
    assert!(lines.iter().any(|line| line["who"] == "root@local" && line["reason"] == "again"));
}

/// What cannot be read any more is set aside, and who decided about it is told; nothing else stops.
#[test]
fn who_releases_a_damaged_message_is_told() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    let id = quarantined(&cluster);
    let file = cluster.stored("q").remove(0);
    let mut bytes = fs::read(&file).unwrap();
    bytes[40] ^= 1;
    fs::write(&file, bytes).unwrap();
    let released = cluster.hook_command(&["quarantine", "release", &id]);
    assert_eq!(released.status.code(), DATAERR, "{}", said(&released));
    assert!(said(&released).contains("set aside"), "{}", said(&released));
    assert_eq!((cluster.stored("bad").len(), cluster.counter("corrupted")), (1, 1));
    let lines = audit(&cluster);
    let last = lines.last().unwrap()["outcome"].as_str().unwrap();
    assert!(last.starts_with("refused: "), "{lines:?}");
    deliver(cluster.upstream, "b@recipient.example", &note("1", "x"));
    cluster.await_released(1);
}

/// Nobody looks at it again, so it takes a reason, and the recipient sees who said so.
#[test]
fn a_message_leaves_as_it_is_only_for_a_reason() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    join_operator(&cluster, "alice", "");
    let id = quarantined(&cluster);
    let release = ["quarantine", "release", &id, "--as-is", "--reason"];
    for without in [&release[..4], &[&release[..], &[" "]].concat()] {
        let refused = operator(&cluster, "alice", without);
        assert!(!refused.status.success() && said(&refused).contains("--reason"), "{refused:?}");
        let refused = cluster.hook_command(without);
        assert!(!refused.status.success() && said(&refused).contains("--reason"), "{refused:?}");
    }
    assert_eq!((cluster.sink.count(), cluster.stored("q").len()), (0, 1));

    let release = [&release[..], &["ticket 17"]].concat();
    let text = told(&cluster, "alice", &release);
    assert!(text.contains("is on its way as it is"), "{text}");
    let received = cluster.await_released(1).remove(0);
    let message = fs::read_to_string(&received.path).unwrap();
    let field = "X-Gantry: released as it is by the operator alice\r\n";
    assert!(message.contains(field), "{message}");
    assert_eq!(cluster.counter("released_as_is"), 1);
    let life = told(&cluster, "alice", &["message", &id]);
    assert!(life.contains("released it as it is: ticket 17") && life.contains("found"), "{life}");
    let again = operator(&cluster, "alice", &release);
    assert_eq!(again.status.code(), DATAERR);
    let lines = audit(&cluster);
    let line = lines.iter().find(|line| line["as_is"] == true && line["outcome"] == "done");
    let line = line.unwrap_or_else(|| panic!("{lines:?}"));
    assert_eq!((&line["who"], &line["reason"]), (&"alice".into(), &"ticket 17".into()));
}

/// A worker that an operator made not ready gets nothing, also after it, or its host, has started anew.
#[test]
fn a_worker_is_not_ready_until_it_is_made_ready() {
    let mut cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    join_operator(&cluster, "alice", "");
    let order = ["not-ready", "pc-1", "--reason", "new disk"];
    let text = told(&cluster, "alice", &order);
    assert!(text.contains("gets nothing more from mx1"), "{text}");
    assert_eq!(told(&cluster, "alice", &order), text);
    let not_ready = |cluster: &Cluster| {
        let status = json(cluster, &["status"]);
        let worker = &status["status"]["workers"][0];
        let linked = worker["linked"] == true;
        let readiness = worker["readiness"].as_str().unwrap_or_default();
        (linked && readiness.contains("new disk")).then_some(worker["ordered"].clone())
    };
    let ordered = await_that("its profile says so", || not_ready(&cluster));
    assert_eq!(ordered, "new disk (alice)");
    deliver(cluster.intake, "b@recipient.example", &note("1", "x"));

    cluster.workers.remove("pc-1");
    cluster.start_worker("pc-1", &[]);
    await_that("it is linked anew and still not ready", || not_ready(&cluster));
    cluster.kill_hook();
    cluster.start_hook();
    await_that("the host remembers", || not_ready(&cluster));
    let waiting = json(&cluster, &["queue", "--state", "waiting"]);
    assert_eq!(waiting["queue"]["messages"].as_array().unwrap().len(), 1, "{waiting}");
    assert_eq!(cluster.sink.count(), 0);

    told(&cluster, "alice", &["ready", "pc-1"]);
    cluster.await_released(1);
    cluster.await_ready(1);
    let nobody = operator(&cluster, "alice", &["not-ready", "pc-7"]);
    assert_eq!(nobody.status.code(), DATAERR);
    assert!(said(&nobody).contains("no worker \"pc-7\" has linked"), "{}", said(&nobody));
    let orders: Vec<_> = audit(&cluster).iter().map(|line| line["order"].clone()).collect();
    assert!(orders.contains(&"not-ready".into()) && orders.contains(&"ready".into()), "{orders:?}");
}

#[test]
fn a_drained_worker_finishes_and_ends() {
    let mut cluster = Cluster::with_workers(&Setup::default(), &["pc-1", "pc-2"]);
    join_operator(&cluster, "alice", "");
    told(&cluster, "alice", &["drain", "pc-1"]);
    await_that("it has ended", || cluster.workers.get_mut("pc-1").unwrap().ended().map(|_| ()));
    await_that("its host knows", || {
        let status = json(&cluster, &["status"]);
        let workers = status["status"]["workers"].as_array()?;
        workers.iter().any(|one| one["name"] == "pc-1" && one["linked"] == false).then_some(())
    });
    let again = operator(&cluster, "alice", &["drain", "pc-1"]);
    assert_eq!(again.status.code(), DATAERR);
    assert!(said(&again).contains("is not linked to this host now"), "{}", said(&again));
    deliver(cluster.upstream, "b@recipient.example", &note("1", "x"));
    cluster.await_released(1);
}

/// One view of all hosts; what does not answer is shown as such.
#[test]
fn two_hosts_in_one_status() {
    let first = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    let mut second = Cluster::prepare(&Setup::default());
    join_as_host(&first, &second, "mx2");
    second.start_hook();
    let more = format!("[[host]]\naddress = \"{}\"\n", second.quic);
    join_operator(&first, "alice", &more);

    let text = told(&first, "alice", &["status", "--json"]);
    let value: Value = serde_json::from_str(&text).unwrap();
    let hosts: Vec<&str> = value["hosts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|host| host["status"]["host"].as_str().unwrap())
        .collect();
    assert_eq!(hosts, ["mx1", "mx2"]);
    let one = told(&first, "alice", &["status", "--host", "mx2"]);
    assert!(one.contains("mx2") && !one.contains("mx1"), "{one}");
    let ambiguous = operator(&first, "alice", &["quarantine", "delete", "1-1"]);
    assert_eq!(ambiguous.status.code(), USAGE);
    assert!(said(&ambiguous).contains("mx1/1-1"), "{}", said(&ambiguous));
    let nowhere = operator(&first, "alice", &["status", "--host", "mx3"]);
    assert_eq!(nowhere.status.code(), USAGE);
    assert!(said(&nowhere).contains("those that do are mx1, mx2"), "{}", said(&nowhere));
    // It links to the first alone; that the second does not know it is no mistake.
    let text = told(&first, "alice", &["not-ready", "pc-1"]);
    assert!(text.contains("from mx1 until"), "{text}");

    second.kill_hook();
    let output = operator(&first, "alice", &["status"]);
    assert_eq!(output.status.code(), UNAVAILABLE, "{}", said(&output));
    let text = said(&output);
    assert!(text.contains("mx1") && text.contains("NO ANSWER"), "{text}");
}

/// An operator who knows the former authority alone goes on, and has the new one's certificate after one command.
#[test]
fn an_operator_finds_the_hosts_under_a_new_authority() {
    let cluster = Cluster::start(&Setup::default());
    join_operator(&cluster, "alice", "");
    let authority = |action| {
        let output = cluster.hook_command(&["authority", action]);
        (output.status.success(), said(&output))
    };
    assert!(authority("rotate").0);
    let (retired, words) = authority("retire");
    assert!(!retired && words.contains("operator alice"), "{words}");
    told(&cluster, "alice", &["status"]);
    let (retired, words) = authority("retire");
    assert!(retired, "{words}");
    let certificates = told(&cluster, "alice", &["status"]);
    assert_eq!(certificates.matches("\troot\t").count(), 1, "{certificates}");
}

/// Makes `second` a host of the first one's cluster.
fn join_as_host(first: &Cluster, second: &Cluster, name: &str) {
    for entry in fs::read_dir(second.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|end| end == "pem" || end == "key") {
            fs::remove_file(path).unwrap();
        }
    }
    fs::remove_file(second.path().join("trust")).unwrap();
    fs::remove_dir_all(second.path().join("ca")).unwrap();
    let config = fs::read_to_string(second.config()).unwrap();
    fs::write(second.config(), config.replace("name = \"mx1\"", &format!("name = \"{name}\"")))
        .unwrap();
    let authority = Authority::open(first.path(), system_clock()).unwrap();
    let request = TokenRequest {
        mask: name.parse().unwrap(),
        role: Role::Hook,
        provides: Vec::new(),
        expires_in: 3_600,
        advertise: first.quic.to_string(),
    };
    let token = authority.issue_token(&request).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clock = system_clock();
    let joining = gantry_link::join(&token, second.path(), name, Role::Hook, &clock);
    runtime.block_on(joining).unwrap();
}

/// A worker's certificate does not do, nor an operator's that was revoked; a file serves one role.
#[test]
fn who_is_no_operator_is_told_so() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    let output = cluster.worker_command("pc-1", &["status"]);
    assert_eq!(output.status.code(), NOPERM);
    let text = said(&output);
    assert!(text.contains("is for the role worker") && text.contains("--role operator"), "{text}");

    let token = cluster.hook_command(&["token", "--name", "pc-1", "--role", "operator"]);
    let token = String::from_utf8(token.stdout).unwrap();
    let output = cluster.worker_command("pc-1", &["join", token.lines().last().unwrap()]);
    assert_eq!(output.status.code(), USAGE, "{}", said(&output));
    assert!(said(&output).contains("has joined as worker already"), "{}", said(&output));

    join_operator(&cluster, "alice", "");
    told(&cluster, "alice", &["status"]);
    let revoked = cluster.hook_command(&["revoke", "alice"]);
    assert!(revoked.status.success(), "{}", said(&revoked));
    let output = operator(&cluster, "alice", &["status"]);
    assert_eq!(output.status.code(), NOPERM, "{}", said(&output));
    assert!(said(&output).contains("was revoked"), "{}", said(&output));
    // The worker was ready all the time.
    assert_eq!(cluster.status().unwrap().ready(), 1);
}

//! A worker with a valid certificate that keeps no rule, beside others that do their work.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use gantry_link::{
    CloseCode, Closed, ConnectOptions, NodeIdentity, Role, WorkerLink, connect, join, system_clock,
};
use gantry_protocol::frame::{
    Beat, Credit, Hello, Hint, HostReservation, Progress, Resume, Return, ReturnKind,
    WorkerControl, WorkerReservation,
};
use gantry_protocol::id::{Fence, Incarnation, MessageId};
use gantry_protocol::limits::VERSIONS;
use gantry_protocol::policy::BUILT_IN;
use gantry_protocol::profile::{Action, Profile, Readiness};
use gantry_protocol::verdict::Verdict;
use gantry_tests::smtp::{deliver, note};
use gantry_tests::{Cluster, PATIENCE, Setup, await_that};
use tokio::runtime::Runtime;

const TO: &str = "b@recipient.example";
const NAME: &str = "bad";

/// The worker, with what it needs to link.
struct Bad {
    runtime: Runtime,
    identity: NodeIdentity,
    host: String,
    incarnation: u64,
}

impl Bad {
    fn join(cluster: &Cluster) -> Self {
        let runtime = Runtime::new().unwrap();
        let folder = cluster.path().join(NAME);
        fs::create_dir_all(&folder).unwrap();
        let token = cluster.token(NAME);
        let clock = system_clock();
        let joined = runtime.block_on(join(&token, &folder, NAME, Role::Worker, &clock));
        let host = cluster.quic.to_string();
        Self { runtime, identity: joined.unwrap(), host, incarnation: 0 }
    }

    /// Each time as a process of its own.
    fn link(&mut self) -> WorkerLink {
        self.incarnation += 1;
        let hello = Hello {
            version_min: VERSIONS.0,
            version_max: VERSIONS.1,
            software: "bad".to_owned(),
            name: NAME.to_owned(),
            incarnation: Incarnation(self.incarnation),
            tier: 0,
            policy: BUILT_IN,
            provides: vec!["virus".to_owned()],
            revocations: 0,
            resume: Vec::new(),
        };
        let options = ConnectOptions { clock: system_clock(), time_max: PATIENCE };
        let linking = connect(&self.host, &self.identity, &hello, &options);
        self.runtime.block_on(linking).unwrap().1
    }

    /// Says this for ever, in vain, and gives how the link ended.
    fn flood(&self, link: WorkerLink, frames: impl Fn(u64) -> WorkerControl) -> Closed {
        self.flood_until(link, frames, || false).expect("the host ends it")
    }

    /// The same until it is enough; `None` if the host has not ended it by then.
    fn flood_until(
        &self,
        mut link: WorkerLink,
        frames: impl Fn(u64) -> WorkerControl,
        enough: impl Fn() -> bool,
    ) -> Option<Closed> {
        self.runtime.block_on(async {
            let ended = tokio::time::timeout(PATIENCE, async {
                for count in 0.. {
                    if enough() {
                        return None;
                    }
                    if link.sender.send(&frames(count)).await.is_err() {
                        break;
                    }
                }
                Some(link.connection.closed().await)
            });
            ended.await.expect("it ends")
        })
    }
}

fn profile(incarnation: u64) -> WorkerControl {
    WorkerControl::Profile(Profile {
        grabber: NAME.to_owned(),
        incarnation: Incarnation(incarnation),
        readiness: Readiness::Ready,
        tier: 0,
        last_action: Action::Linked,
        last_action_ago_ms: 0,
        modules: Vec::new(),
        holding: Vec::new(),
    })
}

fn misbehaved(closed: &Closed) -> bool {
    matches!(closed, Closed::ByPeer { code: CloseCode::Misbehaved, .. })
}

/// So many more of the others' messages come out.
fn others_flow(cluster: &Cluster, what: &str, out: &mut usize) {
    for number in 0..10 {
        deliver(cluster.intake, TO, &note(&format!("{what}-{number}"), "text"));
    }
    *out += 10;
    cluster.await_released(*out);
}

fn faults(cluster: &Cluster) -> u64 {
    let worker = cluster.status().and_then(|status| {
        let workers = status.0["workers"].as_array()?.clone();
        workers.into_iter().find(|worker| worker["name"] == NAME)
    });
    worker.and_then(|worker| worker["faults"].as_u64()).unwrap_or_default()
}

/// Each kind of misbehaviour is bounded, refused and counted by its name, and the others' mail flows.
#[test]
fn a_worker_that_misbehaves_stops_nobody() {
    let cluster = Cluster::with_workers(&Setup::default(), &["pc-1"]);
    let mut bad = Bad::join(&cluster);
    let mut out = 0;

    // Beats and hints against somebody who lives, without end: read at the pace.
    let living = |count: u64| match count % 2 {
        0 => WorkerControl::Beat(Beat { count }),
        _ => WorkerControl::Hint(Hint {
            grabber: "pc-1".to_owned(),
            message: MessageId { epoch: 1, counter: count },
            fence: Fence { epoch: 1, counter: count },
        }),
    };
    let link = bad.link();
    let enough = AtomicBool::new(false);
    let closed = std::thread::scope(|scope| {
        let is_enough = || enough.load(Ordering::Relaxed);
        let (bad, link) = (&bad, link);
        let flooding = scope.spawn(move || bad.flood_until(link, living, is_enough));
        for round in 0..3 {
            others_flow(&cluster, &format!("flood-{round}"), &mut out);
        }
        enough.store(true, Ordering::Relaxed);
        flooding.join().unwrap()
    });
    // Where the flood was fast enough for long enough.
    assert!(closed.as_ref().is_none_or(misbehaved), "{closed:?}");

    // Profiles of somebody else, and wants beyond all bounds, are refused at once.
    let link = bad.link();
    let closed = bad.flood(link, |_| profile(u64::MAX));
    assert!(misbehaved(&closed), "{closed:?}");
    let link = bad.link();
    let greedy = Credit { messages: u64::MAX, bytes: u64::MAX };
    let closed = bad.flood(link, |_| WorkerControl::Want(greedy));
    assert!(misbehaved(&closed), "{closed:?}");
    await_that("each is counted", || (faults(&cluster) >= 2).then_some(()));
    others_flow(&cluster, "refused", &mut out);

    answers_for_others(&cluster, &mut bad, &mut out);
    never_returns(&cluster, &mut bad, &mut out);
    talks_on_about_one_message(&cluster, &mut bad, &mut out);
    let log = cluster.hook.as_ref().unwrap().log();
    assert!(log.contains("misbehaved worker=\"bad\""), "{}", cluster.logs());
    assert!(cluster.stored("h").is_empty(), "nothing is held for it\n{}", cluster.logs());
}

/// Streams that resume what it never had, with verdicts and progress on them: nothing counts.
fn answers_for_others(cluster: &Cluster, bad: &mut Bad, out: &mut usize) {
    let link = bad.link();
    assert!(cluster.workers["pc-1"].freeze());
    deliver(cluster.intake, TO, &note("foreign", "text"));
    await_that("pc-1 has it", || {
        let holding = cluster.status()?.worker("pc-1")?.holding;
        (!holding.is_empty()).then_some(())
    });
    let id: MessageId =
        cluster.status().unwrap().worker("pc-1").unwrap().holding[0].parse().unwrap();
    bad.runtime.block_on(async {
        for counter in 1..64 {
            let fence = Fence { epoch: id.epoch, counter };
            let (mut sender, _receiver) =
                link.connection.open_resume(Resume { message: id, fence }).await.unwrap();
            let verdict = Verdict {
                length: 1,
                digest: gantry_protocol::id::Digest([0; 32]),
                groups: Vec::new(),
                findings: Vec::new(),
                originated: Vec::new(),
            };
            let _ = sender.send(&WorkerReservation::Verdict(Box::new(verdict))).await;
            let _ = sender.finish();
        }
    });
    await_that("they are refused", || (cluster.counter("verdicts_refused") >= 60).then_some(()));
    assert!(cluster.workers["pc-1"].thaw());
    *out += 1;
    cluster.await_released(*out);
    others_flow(cluster, "foreign", out);
}

/// It takes a message and says nothing more: the other one takes it over.
fn never_returns(cluster: &Cluster, bad: &mut Bad, out: &mut usize) {
    let mut link = bad.link();
    assert!(cluster.workers["pc-1"].freeze());
    bad.runtime.block_on(async {
        link.sender
            .send(&WorkerControl::Want(Credit { messages: 1, bytes: 1 << 20 }))
            .await
            .unwrap();
    });
    deliver(cluster.intake, TO, &note("kept", "text"));
    // It reads no body and says no more, and keeps the stream.
    let _kept = bad.runtime.block_on(async {
        let assigned = tokio::time::timeout(PATIENCE, link.connection.accept_reservation()).await;
        let (sender, mut receiver) = assigned.expect("it is assigned").unwrap();
        let first = receiver.recv().await.unwrap();
        assert!(matches!(first, Some(HostReservation::Assign(_))), "{first:?}");
        (sender, receiver)
    });
    assert!(cluster.workers["pc-1"].thaw());
    *out += 1;
    cluster.await_released(*out);
    others_flow(cluster, "kept", out);
}

/// Progress without end about one message ends the link, and so does a frame after the return.
fn talks_on_about_one_message(cluster: &Cluster, bad: &mut Bad, out: &mut usize) {
    for after_its_return in [false, true] {
        let mut link = bad.link();
        assert!(cluster.workers["pc-1"].freeze());
        deliver(cluster.intake, TO, &note("talked about", "text"));
        let closed = bad.runtime.block_on(async {
            let want = Credit { messages: 1, bytes: 1 << 20 };
            link.sender.send(&WorkerControl::Want(want)).await.unwrap();
            let assigned = tokio::time::timeout(PATIENCE, link.connection.accept_reservation());
            let (mut sender, _receiver) = assigned.await.expect("it is assigned").unwrap();
            assert!(cluster.workers["pc-1"].thaw());
            if after_its_return {
                let returned = Return { kind: ReturnKind::HandBack, reason: "not mine".to_owned() };
                sender.send(&WorkerReservation::Return(returned)).await.unwrap();
            }
            let talking = async {
                for work in 1.. {
                    let progress = Progress { work, silence_ms: 1_000 };
                    let beat = WorkerControl::Beat(Beat { count: work });
                    if sender.send(&WorkerReservation::Progress(progress)).await.is_err() {
                        break;
                    }
                    if work % 1_000 == 1 && link.sender.send(&beat).await.is_err() {
                        break;
                    }
                }
                link.connection.closed().await
            };
            tokio::time::timeout(PATIENCE, talking).await.expect("the host ends it")
        });
        assert!(misbehaved(&closed), "{closed:?}");
        *out += 1;
        cluster.await_released(*out);
        others_flow(cluster, "talked", out);
    }
}

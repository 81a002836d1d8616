//! A hook and one worker between the source and the drain.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use super::drain::Drain;
use super::letters::Letters;
use super::load::{Sent, Target, Until, send};
use super::meter::{Noise, measure};
use super::report::quantile;
use crate::cluster::{Cluster, Setup, said};
use crate::{PATIENCE, await_that};

/// The worker's name.
const WORKER: &str = "pc-1";
/// Messages at once at the worker: as many as the busiest source has on the way.
const WORKER_CONCURRENCY: usize = 16;

/// Who keeps a message until it is processed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Custody {
    Upstream,
    Hook,
}

impl Custody {
    pub(super) const BOTH: [Self; 2] = [Self::Upstream, Self::Hook];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Upstream => "upstream custody",
            Self::Hook => "hook custody",
        }
    }
}

/// What runs, and what it is asked to do.
pub(super) struct Rig {
    pub(super) cluster: Cluster,
    pub(super) drain: Drain,
}

/// One round, complete: every letter is out.
pub(super) struct Round {
    /// Letters a second, from the first connection to the last letter's arrival.
    pub(super) rate: f64,
    pub(super) messages: f64,
    /// From the connection to the answer, in milliseconds.
    pub(super) answered_ms: Vec<f64>,
    /// From the connection to the arrival at the drain, in milliseconds.
    pub(super) arrived_ms: Vec<f64>,
    /// CPU seconds of the measured processes.
    pub(super) cpu_s: Vec<f64>,
    pub(super) noise: Noise,
}

impl Rig {
    /// A hook without workers.
    pub(super) fn hook_alone(needs: &str) -> Self {
        let drain = Drain::start();
        let setup = Setup {
            release: Some(drain.address()),
            needs: Some(needs.to_owned()),
            ..Setup::default()
        };
        Self { cluster: Cluster::start(&setup), drain }
    }

    /// A hook that has not started, over a spool that `fill` has made, with these further tables, in which `DRAIN` stands
    /// for the drain's address.
    pub(super) fn prepared(needs: &str, tables: &str, fill: impl FnOnce(&Path)) -> Self {
        let drain = Drain::start();
        let setup = Setup {
            release: Some(drain.address()),
            needs: Some(needs.to_owned()),
            tables: tables.replace("DRAIN", &drain.address().to_string()),
            ..Setup::default()
        };
        let cluster = Cluster::prepare(&setup);
        fill(&cluster.path().join("spool"));
        Self { cluster, drain }
    }

    /// A worker without modules, if there is none yet.
    pub(super) fn add_idle_worker(&mut self) {
        self.cluster.add_worker(WORKER, "");
        self.cluster.await_ready(1);
    }

    /// Waits until nothing but so many messages waits.
    pub(super) fn await_backlog(&self, waiting: usize) {
        let waiting = u64::try_from(waiting).unwrap();
        await_that("only the old messages wait", || {
            self.cluster.status().filter(|status| status.backlog() == waiting)
        });
    }

    /// The same with a worker that has these module tables.
    pub(super) fn with_worker(needs: &str, modules: &str) -> Self {
        let mut rig = Self::hook_alone(needs);
        let cluster = &mut rig.cluster;
        cluster.write_worker(WORKER, modules);
        let config = cluster.path().join(WORKER).join("worker.toml");
        let text = fs::read_to_string(&config).expect("read worker.toml");
        fs::write(&config, format!("concurrency = {WORKER_CONCURRENCY}\n{text}"))
            .expect("write worker.toml");
        let joined = cluster.worker_command(WORKER, &["join", &cluster.token(WORKER)]);
        assert!(joined.status.success(), "gantry join: {}", said(&joined));
        cluster.start_worker(WORKER, &[]);
        cluster.await_ready(1);
        rig
    }

    pub(super) fn hook(&self) -> u32 {
        self.cluster.hook.as_ref().expect("the hook runs").pid()
    }

    pub(super) fn worker(&self) -> u32 {
        self.cluster.workers.get(WORKER).expect("the worker runs").pid()
    }

    /// The way in of the mailbox in this custody.
    pub(super) fn target(&self, custody: Custody) -> Target {
        Target::Smtp(match custody {
            Custody::Upstream => self.cluster.upstream,
            Custody::Hook => self.cluster.intake,
        })
    }

    /// Waits until the hook has nothing left, so that one round's work does not count for the next.
    pub(super) fn settle(&self) {
        await_that("the hook's pool is empty", || {
            self.cluster.status().filter(|status| status.backlog() == 0)
        });
    }
}

/// Sends a round to a target whose letters come out at the drain, and measures these processes.
pub(super) fn round(
    target: &Target,
    drain: &Drain,
    letters: &Letters,
    connections: usize,
    round_ms: u64,
    pids: &[u32],
) -> Round {
    let begin = Instant::now();
    let until = Until::Elapsed(Duration::from_millis(round_ms));
    let ((sent, arrived), spent) = measure(pids, || {
        let sent = send(target, letters, connections, until);
        let arrived = drain.take(sent.len());
        (sent, arrived)
    });
    let end = arrived.iter().map(|(_, at)| *at).max().unwrap_or(begin);
    Round::new(&sent, &arrived, end - begin, spent.cpu_s, spent.noise)
}

/// The same for a target that answers and passes nothing on.
pub(super) fn round_alone(
    target: &Target,
    letters: &Letters,
    connections: usize,
    round_ms: u64,
    pids: &[u32],
) -> Round {
    let begin = Instant::now();
    let until = Until::Elapsed(Duration::from_millis(round_ms));
    let (sent, spent) = measure(pids, || send(target, letters, connections, until));
    let end = sent.iter().map(|one| one.answered).max().unwrap_or(begin);
    Round::new(&sent, &[], end - begin, spent.cpu_s, spent.noise)
}

/// Sends one letter after the other, each when the one before is out.
pub(super) fn singles(target: &Target, drain: &Drain, letters: &Letters, count: usize) -> Round {
    let begin = Instant::now();
    let (mut sent, mut arrived) = (Vec::new(), Vec::new());
    let ((), spent) = measure(&[], || {
        for _ in 0..count {
            sent.extend(send(target, letters, 1, Until::Sent(1)));
            arrived.extend(drain.take(1));
        }
    });
    Round::new(&sent, &arrived, begin.elapsed(), spent.cpu_s, spent.noise)
}

impl Round {
    fn new(
        sent: &[Sent],
        arrived: &[(u64, Instant)],
        elapsed: Duration,
        cpu_s: Vec<f64>,
        noise: Noise,
    ) -> Self {
        assert!(elapsed < PATIENCE * 10, "a round took {elapsed:?}");
        let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        let began: std::collections::HashMap<u64, Instant> =
            sent.iter().map(|one| (one.number, one.began)).collect();
        let messages = u32::try_from(sent.len()).map(f64::from).expect("a countable round");
        Self {
            rate: messages / elapsed.as_secs_f64(),
            messages,
            answered_ms: sent.iter().map(|one| ms(one.began, one.answered)).collect(),
            arrived_ms: arrived.iter().map(|(number, at)| ms(began[number], *at)).collect(),
            cpu_s,
            noise,
        }
    }

    /// CPU milliseconds a message of the measured process at this place.
    pub(super) fn cpu_ms(&self, place: usize) -> f64 {
        self.cpu_s[place] * 1e3 / self.messages
    }

    pub(super) fn answered(&self, share: f64) -> f64 {
        quantile(&self.answered_ms, share)
    }

    pub(super) fn arrived(&self, share: f64) -> f64 {
        quantile(&self.arrived_ms, share)
    }
}

//! The way through hook and worker without any module.

use super::letters::Letters;
use super::load::Target;
use super::meter::quiet;
use super::report::{Findings, Report, Row, median};
use super::rig::{Custody, Rig, Round, round, singles};
use super::{Effort, progress};

const PEER: &str = "the source straight to the sink";
const SIZES: [(&str, usize); 3] = [("5 KB", 5_000), ("100 KB", 100_000), ("5 MB", 5_000_000)];
const CONNECTIONS: [usize; 2] = [4, 16];

pub(super) fn run(effort: &Effort) -> Report {
    let rig = Rig::with_worker("[]", "");
    let direct = Target::Smtp(rig.drain.address());
    let mut findings = Findings::new("bridge");
    for (name, size) in SIZES {
        let letters = Letters::of(size);
        for connections in CONNECTIONS {
            let case = format!("{name}, {connections} at once");
            if effort.wants(&case) {
                progress(format_args!("{case}"));
                rates(&mut findings, &rig, &direct, &letters, &case, connections, effort);
            }
        }
        let case = format!("{name}, one at a time");
        if effort.wants(&case) {
            progress(format_args!("{case}"));
            latency(&mut findings, &rig, &direct, &letters, &case, effort);
        }
    }
    findings.report()
}

fn rates(
    findings: &mut Findings,
    rig: &Rig,
    direct: &Target,
    letters: &Letters,
    case: &str,
    connections: usize,
    effort: &Effort,
) {
    let ways = ways(rig, direct);
    let mut all: [Vec<Round>; 3] = Default::default();
    for _ in 0..effort.rounds {
        for (way, rounds) in ways.iter().zip(&mut all) {
            quiet(effort.patience_ms);
            let pids = [rig.hook(), rig.worker()];
            rounds.push(round(way, &rig.drain, letters, connections, effort.round_ms, &pids));
            rig.settle();
        }
    }
    let [peer, ours @ ..] = &all;
    note(findings, &all);
    let middle = |rounds: &[Round], of: &dyn Fn(&Round) -> f64| {
        median(&rounds.iter().map(of).collect::<Vec<_>>())
    };
    for (custody, rounds) in Custody::BOTH.into_iter().zip(ours) {
        let case = format!("{case}, {}", custody.name());
        let rate = |rounds| middle(rounds, &|round| round.rate);
        findings.add(
            Row::new(format!("{case}: messages"), rate(rounds), "1/s").beside(PEER, rate(peer)),
        );
        let hook = middle(rounds, &|round| round.cpu_ms(0));
        findings.add(Row::new(format!("{case}: the hook's CPU a message"), hook, "ms"));
        let worker = middle(rounds, &|round| round.cpu_ms(1));
        findings.add(Row::new(format!("{case}: the worker's CPU a message"), worker, "ms"));
    }
}

/// What a message that is alone on the way waits longer than without Gantry: until its sender is answered, and until it
/// is out. In upstream custody both are the same but for a reply.
fn latency(
    findings: &mut Findings,
    rig: &Rig,
    direct: &Target,
    letters: &Letters,
    case: &str,
    effort: &Effort,
) {
    let ways = ways(rig, direct);
    let mut all: [Vec<Round>; 3] = Default::default();
    for _ in 0..effort.rounds {
        for (way, rounds) in ways.iter().zip(&mut all) {
            quiet(effort.patience_ms);
            rounds.push(singles(way, &rig.drain, letters, effort.singles));
            rig.settle();
        }
    }
    let [peer, ours @ ..] = &all;
    note(findings, &all);
    let middle = |rounds: &[Round], of: &dyn Fn(&Round) -> f64| {
        median(&rounds.iter().map(of).collect::<Vec<_>>())
    };
    for (custody, rounds) in Custody::BOTH.into_iter().zip(ours) {
        for (share, quantile) in [(0.5, "p50"), (0.99, "p99")] {
            let named =
                |what: &str| format!("{case}, {}: added until {what}, {quantile}", custody.name());
            let answered = |rounds| middle(rounds, &|round| round.answered(share));
            let arrived = |rounds| middle(rounds, &|round| round.arrived(share));
            let (without, without_out) = (answered(peer), arrived(peer));
            let added = Row::new(named("answered"), answered(rounds) - without, "ms");
            findings.add(added.beside(PEER, without));
            let added = Row::new(named("out"), arrived(rounds) - without_out, "ms");
            findings.add(added.beside(PEER, without_out));
        }
    }
}

fn ways(rig: &Rig, direct: &Target) -> [Target; 3] {
    [direct.clone(), rig.target(Custody::Upstream), rig.target(Custody::Hook)]
}

fn note(findings: &mut Findings, all: &[Vec<Round>]) {
    for rounds in all {
        rounds.iter().for_each(|round| findings.noise(round.noise));
        findings.spread(&rounds.iter().map(|round| round.rate).collect::<Vec<_>>());
    }
}

//! Gantry in front of clamd beside clamd alone.

use gantry_scanners::testkit::{Clamd, ClamdOptions};

use super::letters::Letters;
use super::load::Target;
use super::meter::quiet;
use super::report::{Findings, Report, Row, median};
use super::rig::{Custody, Rig, Round, round, round_alone};
use super::{Effort, Unavailable, progress};

const PEER: &str = "the same clamd, driven directly by INSTREAM over its Unix socket";
/// clamd's own default.
const CLAMD_THREADS: u32 = 10;
/// Name, size in bytes, and the CPU of hook and worker as a share of clamd's that is aimed at.
const SIZES: [(&str, usize, f64); 3] =
    [("5 KB", 5_000, 0.5), ("100 KB", 100_000, 0.2), ("5 MB", 5_000_000, 0.1)];
const CONNECTIONS: [usize; 2] = [4, 16];

/// A clamd with the file that says which process it is; `None` where it is not installed.
pub(super) fn clamd(folder: &std::path::Path) -> Option<(Clamd, u32)> {
    let pid_file = folder.join("clamd.pid");
    let extra = format!("PidFile {}", pid_file.display());
    let options = ClamdOptions { threads: CLAMD_THREADS, extra, ..ClamdOptions::default() };
    let clamd = Clamd::start(&options).expect("start clamd")?;
    let pid = std::fs::read_to_string(pid_file).expect("read clamd's process id");
    Some((clamd, pid.trim().parse().expect("a process id")))
}

pub(super) fn run(effort: &Effort) -> Result<Report, Unavailable> {
    let folder = tempfile::tempdir().expect("make a temporary folder");
    let Some((clamd, clamd_pid)) = clamd(folder.path()) else {
        return Err(Unavailable("clamd is not installed (Debian: clamav-daemon)"));
    };
    let module = format!(
        "[[module]]\nname = \"clamav\"\ntype = \"clamd\"\nprovides = \"virus\"\naddress = \"unix:{}\"\n\
         connections_max = 16\n",
        clamd.socket().display()
    );
    let rig = Rig::with_worker("[\"virus\"]", &module);
    let direct = Target::Clamd(clamd.socket());
    let mut findings = Findings::new("offload");
    for (name, size, goal) in SIZES {
        let letters = Letters::of(size);
        for connections in CONNECTIONS {
            let case = format!("{name}, {connections} at once");
            if !effort.wants(&case) {
                continue;
            }
            progress(format_args!("{case}: {} bytes", letters.size()));
            let mut peer = Vec::new();
            let mut ours = [Vec::new(), Vec::new()];
            for _ in 0..effort.rounds {
                quiet(effort.patience_ms);
                peer.push(round_alone(
                    &direct,
                    &letters,
                    connections,
                    effort.round_ms,
                    &[clamd_pid],
                ));
                for (custody, rounds) in Custody::BOTH.into_iter().zip(&mut ours) {
                    quiet(effort.patience_ms);
                    let pids = [rig.hook(), rig.worker(), clamd_pid];
                    let target = rig.target(custody);
                    rounds.push(round(
                        &target,
                        &rig.drain,
                        &letters,
                        connections,
                        effort.round_ms,
                        &pids,
                    ));
                    rig.settle();
                }
            }
            for (custody, rounds) in Custody::BOTH.into_iter().zip(&ours) {
                let case = format!("{case}, {}", custody.name());
                tell(&mut findings, &case, rounds, &peer, goal);
            }
        }
    }
    Ok(findings.report())
}

fn tell(findings: &mut Findings, case: &str, ours: &[Round], peer: &[Round], goal: f64) {
    let middle = |rounds: &[Round], of: &dyn Fn(&Round) -> f64| {
        median(&rounds.iter().map(of).collect::<Vec<_>>())
    };
    for rounds in [ours, peer] {
        rounds.iter().for_each(|round| findings.noise(round.noise));
        findings.spread(&rounds.iter().map(|round| round.rate).collect::<Vec<_>>());
    }
    let rate = |rounds| middle(rounds, &|round| round.rate);
    findings.add(Row::new(format!("{case}: messages"), rate(ours), "1/s").beside(PEER, rate(peer)));
    let clamd = middle(peer, &|round| round.cpu_ms(0));
    let both = middle(ours, &|round| round.cpu_ms(0) + round.cpu_ms(1));
    let cpu = Row::new(format!("{case}: CPU of hook and worker a message"), both, "ms");
    findings.add(cpu.beside(PEER, clamd).at_most(goal));
    let hook = middle(ours, &|round| round.cpu_ms(0));
    findings.add(Row::new(format!("{case}: of which the hook's"), hook, "ms").beside(PEER, clamd));
}

//! The demo: a hook and three workers on this machine, a few hundred messages, and one worker killed in the middle.
//!
//! A [`source`] sends and a [`sink`] receives, both written without the hook's code, and the [`ledger`] compares ids
//! and hashes. What Gantry counts of itself is shown but proves nothing.

pub mod ledger;
pub mod mail;
pub mod own;
pub mod process;
pub mod show;
pub mod sink;
pub mod source;
mod stage;
pub mod status;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;

use self::ledger::Ledger;
use self::mail::Mail;
use self::own::OwnMail;
use self::process::{Cost, freeze_holding, until};
use self::show::{Show, print};
use self::sink::{Received, Sink};
use self::source::{Sent, Source};
use self::stage::Stage;
use self::status::Status;
use crate::cli::DemoArgs;
use crate::exit;

/// Connections of the source at once: more than three workers take, so that there is always something waiting.
const CONNECTIONS: usize = 12;
/// The part of the messages (1 in so many) after which the worker is stopped.
const KILL_AFTER: usize = 3;
/// The pause after each message, on each connection, while the worker is being caught with something in hand.
const BREATH: Duration = Duration::from_millis(150);
/// How long the stopped worker may take to be seen holding a reservation.
const HOLD_WITHIN: Duration = Duration::from_secs(20);
/// How long the source tries, and how long what was accepted may take to come out.
const SEND_WITHIN: Duration = Duration::from_secs(600);
const SETTLE_WITHIN: Duration = Duration::from_secs(180);

/// What the mail is made from: the same mail in every run, so that two runs can be compared.
const SEED: u64 = 1;

/// What can be chosen.
#[derive(Clone, Debug)]
pub struct Options {
    /// One's own mail: a folder of messages, or an mbox file.
    pub mail: Option<PathBuf>,
    /// How many messages are sent; one's own mail is all sent, if it is more.
    pub messages: usize,
    /// How many workers there are; the first is killed.
    pub workers: u8,
    /// The folder for everything, instead of a new temporary one.
    pub keep: Option<PathBuf>,
    /// What the made-up mail is made from.
    pub seed: u64,
    /// Nothing but one object on the last line.
    pub json: bool,
}

impl From<DemoArgs> for Options {
    fn from(arguments: DemoArgs) -> Self {
        let DemoArgs { mail, json, messages, workers, keep } = arguments;
        let messages = usize::try_from(messages).unwrap_or(usize::MAX);
        Self { mail, messages, workers, keep, seed: SEED, json }
    }
}

/// The object on the last line of `--json`.
#[derive(Clone, Debug, Serialize)]
struct Outcome {
    sent: usize,
    released: usize,
    quarantined: usize,
    held: usize,
    lost: usize,
    released_unprocessed: usize,
    duplicates: usize,
    altered: usize,
    not_accepted: usize,
    infected: usize,
    /// By the hook's count.
    taken_over: u64,
    takeover_ms_max: u64,
    possible_duplicates: u64,
    verdicts_refused: u64,
    /// From the first connection until all was accounted for.
    seconds: f64,
    /// The hook's peak; null where the system does not tell.
    hook_rss_bytes: Option<u64>,
    hook_cpu_s_per_1000: Option<f64>,
    worker_killed: bool,
    killed: String,
    seed: u64,
    released_in: PathBuf,
    quarantined_in: PathBuf,
    remarks: Vec<String>,
}

/// The demo as a command: runs it, says what kept it from running, and gives the exit code.
pub fn main(arguments: DemoArgs) -> u8 {
    match run(&Options::from(arguments)) {
        Ok(true) => exit::OK,
        Ok(false) => exit::EX_SOFTWARE,
        Err(error) => {
            // Nobody is left to tell where this fails.
            let _ = writeln!(io::stderr(), "gantry: {error:#}");
            exit::EX_UNAVAILABLE
        }
    }
}

/// Runs the demo and tells whether nothing was lost, nothing left unprocessed and a takeover happened. Blocks for its
/// whole length; call it outside of an async runtime, or where blocking is allowed.
///
/// # Errors
/// Where something cannot be started or read; what goes wrong with the mail is an outcome, not an error.
pub fn run(options: &Options) -> Result<bool> {
    let show = Show::new(options.json);
    let mail = letters(options, &show)?;
    let folder = folder(options)?;
    let sink = Sink::start(&folder.join("released"))?;
    let mut stage = Stage::set(&folder, sink.address(), options.workers, &show)?;

    show.step(format_args!("sending {} messages, a part of them infected", mail.count()));
    let begin = Instant::now();
    let (sent, killed) = play(&mut stage, &mail, &sink, &show)?;
    let ledger = settle(&stage, &sent, &sink, &show);
    let seconds = begin.elapsed().as_secs_f64();
    show.end();

    let status = stage.status().unwrap_or_default();
    let outcome = Outcome::new(options, &ledger, &status, seconds, killed, &stage);
    let good = ledger.is_clean() && outcome.taken_over > 0 && outcome.worker_killed;
    if options.json {
        print(&serde_json::to_string(&outcome).context("write the outcome")?);
    } else {
        print(&table(&outcome, good, &folder));
    }
    Ok(good)
}

/// The folder stays behind: the mail in it is the demo's evidence.
fn folder(options: &Options) -> Result<PathBuf> {
    let Some(folder) = &options.keep else {
        let folder = tempfile::Builder::new().prefix("gantry-demo-").tempdir();
        return Ok(folder.context("make a temporary folder")?.keep());
    };
    let about = || format!("make the folder {}", folder.display());
    std::fs::create_dir_all(folder).with_context(about)?;
    let empty = std::fs::read_dir(folder).with_context(about)?.next().is_none();
    ensure!(empty, "{}: it is not empty", about());
    // The processes are told of it, and paths in a configuration are relative to its file.
    folder.canonicalize().with_context(about)
}

fn letters(options: &Options, show: &Show) -> Result<Mail> {
    let Some(path) = &options.mail else {
        return Ok(Mail::generated(options.seed, options.messages));
    };
    let own = OwnMail::open(path)?;
    let (count, left_out) = (own.count(), own.left_out);
    show.step(format_args!("{count} messages found in {}, {left_out} left out", path.display()));
    Ok(Mail::with_own(options.seed, options.messages.max(count), own))
}

/// Sends everything, and kills a worker in the middle. Gives what was sent, and whether the worker was seen holding
/// a reservation when it was killed.
fn play(stage: &mut Stage, mail: &Mail, sink: &Sink, show: &Show) -> Result<(Vec<Sent>, bool)> {
    let source = Source {
        addresses: stage.intakes.clone(),
        connections: CONNECTIONS,
        give_up: Instant::now() + SEND_WITHIN,
    };
    let (told, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let due = mail.count() / KILL_AFTER;
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            source.send(mail, &|_| {
                let done = told.fetch_add(1, Ordering::Relaxed) + 1;
                show.progress(done, mail.count(), "sent");
                // A fast machine would be through before there is anything to kill in the middle of.
                if done >= due && !over.load(Ordering::Relaxed) {
                    thread::sleep(BREATH);
                }
            })
        });
        let middle =
            || (told.load(Ordering::Relaxed) >= due || sending.is_finished()).then_some(());
        let killed = until(SEND_WITHIN, middle).is_some() && kill_one(stage, show);
        over.store(true, Ordering::Relaxed);
        let sent =
            sending.join().map_err(|_| anyhow::anyhow!("send mail: a thread panicked"))??;
        show.step(format_args!("all sent; {} are out so far", sink.count()));
        Ok((sent, killed))
    })
}

/// Stops a worker, waits until the hook says that it holds a reservation, and kills it.
fn kill_one(stage: &mut Stage, show: &Show) -> bool {
    let Some(victim) = stage.workers.first() else { return false };
    let name = victim.name.clone();
    let holding = || Some(stage.status()?.worker(&name)?.holding);
    let holds = freeze_holding(victim, HOLD_WITHIN, holding);
    let what = match &holds {
        Some(held) => format!("it holds {}", held.join(", ")),
        None => "it was not seen holding anything".to_owned(),
    };
    if let Some(victim) = stage.workers.first_mut() {
        victim.kill();
    }
    show.step(format_args!("{name} was stopped and killed (SIGKILL); {what}"));
    holds.is_some()
}

/// Waits until every accepted message has been found, or the time is up.
fn settle(stage: &Stage, sent: &[Sent], sink: &Sink, show: &Show) -> Ledger {
    show.step("waiting until every message is accounted for");
    let balance = |received: &[Received]| {
        Ledger::balance(sent, received, &stage.stored("q"), &stage.stored("h"))
    };
    let complete = || {
        let ledger = balance(&sink.received());
        show.progress(ledger.accounted(), ledger.sent, "accounted for");
        (ledger.lost == 0).then_some(())
    };
    // Complete or not, the last look counts.
    let _ = until(SETTLE_WITHIN, complete);
    balance(&sink.received())
}

impl Outcome {
    fn new(
        options: &Options,
        ledger: &Ledger,
        status: &Status,
        seconds: f64,
        killed: bool,
        stage: &Stage,
    ) -> Self {
        let Cost { rss_bytes, cpu_s } = stage.hook.cost();
        let thousands = u32::try_from(ledger.sent).map(f64::from).unwrap_or(f64::MAX) / 1000.0;
        Self {
            sent: ledger.sent,
            released: ledger.released,
            quarantined: ledger.quarantined,
            held: ledger.held,
            lost: ledger.lost,
            released_unprocessed: ledger.released_unprocessed,
            duplicates: ledger.duplicates,
            altered: ledger.altered,
            not_accepted: ledger.not_accepted,
            infected: ledger.infected,
            taken_over: status.counter("taken_over"),
            takeover_ms_max: status.counter("takeover_ms_max"),
            possible_duplicates: status.counter("possible_duplicates"),
            verdicts_refused: status.counter("verdicts_refused"),
            seconds,
            hook_rss_bytes: rss_bytes,
            hook_cpu_s_per_1000: cpu_s.filter(|_| thousands > 0.0).map(|cpu| cpu / thousands),
            worker_killed: killed,
            killed: stage.workers.first().map(|one| one.name.clone()).unwrap_or_default(),
            seed: options.seed,
            released_in: stage.folder.join("released"),
            quarantined_in: stage.spool(),
            remarks: ledger.remarks.clone(),
        }
    }
}

fn table(outcome: &Outcome, good: bool, folder: &Path) -> String {
    let or_unknown = |text: Option<String>| text.unwrap_or_else(|| "unknown here".to_owned());
    let mib = outcome.hook_rss_bytes.map(|bytes| format!("{} MiB", bytes.div_ceil(1024 * 1024)));
    let cpu = outcome.hook_cpu_s_per_1000.map(|cpu| format!("{cpu:.2} s per 1,000 messages"));
    let rows = [
        ("sent", outcome.sent.to_string()),
        ("released", outcome.released.to_string()),
        ("quarantined", format!("{} ({} were infected)", outcome.quarantined, outcome.infected)),
        ("held", outcome.held.to_string()),
        ("lost", outcome.lost.to_string()),
        ("released unprocessed", outcome.released_unprocessed.to_string()),
        ("changed on the way", outcome.altered.to_string()),
        ("not accepted", outcome.not_accepted.to_string()),
        ("duplicates", outcome.duplicates.to_string()),
        ("taken over", format!("{} (at most {} ms)", outcome.taken_over, outcome.takeover_ms_max)),
        ("time", format!("{:.1} s", outcome.seconds)),
        ("hook's memory", or_unknown(mib)),
        ("hook's processor time", or_unknown(cpu)),
    ];
    let mut text = String::from("\n");
    for (name, value) in rows {
        text.push_str(&format!("  {name:<22} {value}\n"));
    }
    text.push_str(&format!(
        "\nreleased mail:    {}\nquarantined mail: {} (files ending in .q)\nlogs:             {}\n",
        outcome.released_in.display(),
        outcome.quarantined_in.display(),
        folder.display()
    ));
    for remark in &outcome.remarks {
        text.push_str(&format!("  ! {remark}\n"));
    }
    text.push_str(match (good, outcome.taken_over > 0 && outcome.worker_killed) {
        (true, _) => "\nNothing was lost, nothing left unprocessed, and the others took over from the killed worker.",
        (false, true) => "\nThis is not as it should be: see above.",
        (false, false) => "\nNo takeover was seen: see above and the logs.",
    });
    text
}

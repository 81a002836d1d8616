//! Real processes that crash at named points and at random moments, while independent witnesses keep books.
//!
//! Each trial has a hook and two workers of its own, sends mail in both custodies (with infected messages, recipients that the
//! next hop refuses, and notices of a policy), lets one fault happen, starts again what has died, and waits until all mail has
//! ended. What a trial does follows from its seed, but for the kernel's scheduling.

mod books;
mod trial;

use std::any::Any;
use std::fmt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use gantry_daemon::crash;
use serde::Serialize;

pub use self::books::Books;
use self::trial::Played;

/// What is played.
#[derive(Clone, Debug)]
pub struct Options {
    /// Trials of each fault.
    pub trials: u64,
    /// The first trial's seed; the others follow it.
    pub seed: u64,
    /// Trials at once. They spend most of their time waiting.
    pub jobs: usize,
    /// Only faults with this text in their names.
    pub only: String,
}

/// What befalls one of the processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It dies at a named point.
    At(Side, &'static str),
    /// SIGKILL at a random moment.
    Killed(Side),
    /// SIGSTOP at a random moment, and SIGCONT some time later.
    Stopped(Side),
}

/// Whom a fault befalls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Hook,
    /// One of the two workers.
    Worker,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Hook { "hook" } else { "worker" })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(side, point) => write!(f, "{side}:{point}"),
            Self::Killed(side) => write!(f, "{side} killed"),
            Self::Stopped(side) => write!(f, "{side} stopped"),
        }
    }
}

impl Fault {
    /// All that there are.
    pub fn all() -> impl Iterator<Item = Self> {
        let at = |side, points: &'static [&'static str]| {
            points.iter().map(move |point| Self::At(side, point))
        };
        let sides = [Side::Hook, Side::Worker];
        at(Side::Hook, crash::HOOK)
            .chain(at(Side::Worker, crash::WORKER))
            .chain(sides.map(Self::Killed))
            .chain(sides.map(Self::Stopped))
    }

    /// Whether the hook dies of it.
    fn kills_hook(self) -> bool {
        matches!(self, Self::At(Side::Hook, _) | Self::Killed(Side::Hook))
    }
}

/// What all trials of a fault came to.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    pub fault: String,
    pub trials: u64,
    #[serde(flatten)]
    pub books: Books,
    /// Each failed trial's seed, with what was wrong.
    pub failed: Vec<(u64, String)>,
}

/// What a campaign came to.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    pub seed: u64,
    pub rows: Vec<Row>,
}

/// Plays them; `told` hears of each trial when it is over.
pub fn run(options: &Options, told: impl Fn(Fault, u64) + Sync) -> Report {
    let wanted = |fault: &Fault| fault.to_string().contains(&options.only);
    let faults: Vec<Fault> = Fault::all().filter(wanted).collect();
    let seeds = options.seed..options.seed.saturating_add(options.trials);
    let trials: Vec<(usize, u64)> =
        seeds.flat_map(|seed| (0..faults.len()).map(move |place| (place, seed))).collect();
    let row = |fault: &Fault| Row { fault: fault.to_string(), ..Row::default() };
    let rows: Mutex<Vec<Row>> = Mutex::new(faults.iter().map(row).collect());
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((place, seed)) = trials.get(next.fetch_add(1, Ordering::Relaxed)) {
            let played = play(faults[*place], *seed);
            told(faults[*place], *seed);
            rows.lock().expect("no thread panics with it")[*place].enter(*seed, played);
        }
    };
    thread::scope(|scope| {
        for _ in 0..options.jobs.max(1) {
            scope.spawn(work);
        }
    });
    let rows = rows.into_inner().expect("no thread has panicked with it");
    Report { seed: options.seed, rows }
}

impl Row {
    fn enter(&mut self, seed: u64, played: Result<Played, String>) {
        self.trials += 1;
        match played {
            Ok(Played { books, complaint }) => {
                self.books.add(&books);
                self.failed.extend(complaint.map(|complaint| (seed, complaint)));
            }
            Err(reason) => self.failed.push((seed, reason)),
        }
    }
}

/// The kit fails by panicking, which here ends one trial.
fn play(fault: Fault, seed: u64) -> Result<Played, String> {
    let trial = thread::spawn(move || trial::play(fault, seed));
    trial.join().unwrap_or_else(|panic| Err(words(panic.as_ref())))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
    text.unwrap_or_else(|| "the trial panicked".to_owned())
}

impl Report {
    /// Whether every trial ended well.
    pub fn is_clean(&self) -> bool {
        self.rows.iter().all(|row| row.failed.is_empty())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:<28}{:>7}{:>10}{:>6}{:>13}{:>9}{:>8}{:>12}{:>13}",
            "fault",
            "trials",
            "messages",
            "lost",
            "unprocessed",
            "altered",
            "resent",
            "unrecorded",
            "unexplained"
        )?;
        let mut total = Row { fault: "all".to_owned(), ..Row::default() };
        for row in &self.rows {
            total.trials += row.trials;
            total.books.add(&row.books);
            writeln!(f, "{row}")?;
        }
        writeln!(f, "{total}")?;
        for row in &self.rows {
            for (seed, reason) in &row.failed {
                writeln!(
                    f,
                    "\nFAILED {:?}, again with --only {:?} --trials 1 --seed {seed}:\n{reason}",
                    row.fault, row.fault
                )?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Books { messages, lost, unprocessed, altered, resent, unrecorded, unexplained, .. } =
            self.books;
        write!(
            f,
            "{:<28}{:>7}{messages:>10}{lost:>6}{unprocessed:>13}{altered:>9}{resent:>8}{unrecorded:>12}{unexplained:>13}",
            self.fault, self.trials
        )
    }
}

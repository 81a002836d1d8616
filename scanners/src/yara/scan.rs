//! The rules on the pieces of one message.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use boreal::scanner::ScanError;
use gantry_protocol::text::{bounded, private};
use gantry_protocol::verdict::Outcome;

use super::joined;
use super::rules::Rules;
use crate::api::Progress;
use crate::unpack::{Limits, Piece, Remark, Report, unpack};

/// Names in one outcome. More than a few help nobody.
const NAMES_MAX: usize = 16;

/// One scan of one message, for a thread of its own.
pub(super) struct Scan {
    pub(super) rules: Arc<Rules>,
    pub(super) limits: Limits,
    pub(super) piece_time_max: Duration,
    pub(super) progress: Progress,
    /// Set when nobody waits for the outcome any more.
    pub(super) abandoned: Arc<AtomicBool>,
}

/// What the pieces have shown so far.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) names: Vec<String>,
    /// Pieces on which the rules did not come to an end.
    pub(super) unfinished: Vec<String>,
}

impl Scan {
    /// Blocks until every piece has been looked at, the budget is used up, or nobody waits any more.
    pub(super) fn run(&self, message: &[u8]) -> Outcome {
        let deadline = Instant::now() + self.limits.time_max;
        let mut seen = Seen::default();
        let report = unpack(message, &self.limits, &mut |piece| {
            let time = deadline.saturating_duration_since(Instant::now()).min(self.piece_time_max);
            self.look_at(piece, time, &mut seen);
            self.progress.advance(1);
            if self.abandoned.load(Ordering::Relaxed) || seen.names.len() >= NAMES_MAX {
                return ControlFlow::Break(());
            }
            ControlFlow::Continue(())
        });
        outcome(seen, report)
    }

    fn look_at(&self, piece: Piece<'_>, time: Duration, seen: &mut Seen) {
        // A clone shares the rules; only its parameters are its own.
        let mut scanner = self.rules.scanner.clone();
        scanner.set_scan_params(scanner.scan_params().clone().timeout_duration(Some(time)));
        let (found, error) = match scanner.scan_mem(piece.bytes) {
            Ok(found) => (found, None),
            Err((error, found)) => (found, Some(error)),
        };
        for rule in found.rules {
            if !seen.names.iter().any(|name| name == rule.name) {
                seen.names.push(bounded(rule.name));
            }
        }
        if let Some(error) = error {
            let problem = match error {
                ScanError::Timeout => format!("the rules took longer than {time:?}"),
                other => other.to_string(),
            };
            let place = match piece.path {
                "" => "the message".to_owned(),
                path => private(path),
            };
            // One tells the whole story; a hostile message could cause thousands.
            if seen.unfinished.is_empty() {
                seen.unfinished.push(format!("{place}: {problem}"));
            }
        }
    }
}

/// Something found outweighs whatever could not be looked at; of that, what was left out for its cost outweighs
/// what needs a key, and that outweighs what is damaged. The reason names all of it.
pub(super) fn outcome(seen: Seen, report: Report) -> Outcome {
    if !seen.names.is_empty() {
        return Outcome::Found { names: seen.names };
    }
    let mut over_budget = seen.unfinished;
    if report.stopped {
        over_budget.push("the scan was broken off".to_owned());
    }
    let (mut encrypted, mut malformed) = (Vec::new(), Vec::new());
    for remark in report.remarks {
        match remark {
            // A packing that this build cannot open is as far out of reach as one that costs too much.
            Remark::OverBudget(text) | Remark::Unknown(text) => over_budget.push(text),
            Remark::Encrypted(text) => encrypted.push(text),
            Remark::Malformed(text) => malformed.push(text),
        }
    }
    let reason = joined(&[over_budget.as_slice(), &encrypted, &malformed].concat());
    if !over_budget.is_empty() {
        Outcome::OverBudget { reason }
    } else if !encrypted.is_empty() {
        Outcome::Encrypted { reason }
    } else if !malformed.is_empty() {
        Outcome::Malformed { reason }
    } else {
        Outcome::Clean
    }
}

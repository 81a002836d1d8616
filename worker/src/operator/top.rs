//! The live view: a picture each second, with what happened in between.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gantry_mail::date;
use gantry_operator::Request;
use gantry_operator::show::{admission, why};
use gantry_operator::table::{Table, span};
use gantry_protocol::pool::Counters;
use tokio::time::{Instant, MissedTickBehavior};

use super::hosts::{Answer, Hosts};
use super::show::{no_answer, sections, status_of, workers};
use crate::exit::{self, Failure, failure};

/// Pictures follow each other this fast.
const EVERY: Duration = Duration::from_secs(1);
/// Messages shown: the oldest of all hosts.
const MESSAGES_SHOWN: usize = 10;
/// The cursor to the upper left corner, and everything behind it away (ECMA-48: CUP, ED).
const CLEAR: &str = "\x1b[H\x1b[J";

/// What a host had counted, and when.
type Before = HashMap<String, (Counters, Instant)>;

/// How the pictures come.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub once: bool,
    pub terminal: bool,
    /// Each picture is a line with what `status --json` says.
    pub json: bool,
}

/// Draws until it is interrupted, or once.
pub(super) async fn run(
    hosts: &mut Hosts,
    How { once, terminal, json }: How,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let mut before = Before::new();
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let answers = hosts.ask(&Request::Status).await;
        let picture = match json {
            true => super::as_json(&answers) + "\n",
            false => picture(&answers, &mut before, terminal),
        };
        let clear = if terminal && !once && !json { CLEAR } else { "" };
        write!(out, "{clear}{picture}")
            .and_then(|()| out.flush())
            .map_err(|error| failure(exit::EX_IOERR, error))?;
        if once {
            return super::problems(&answers);
        }
    }
}

fn picture(answers: &[Answer], before: &mut Before, terminal: bool) -> String {
    let tables = [hosts(answers, before), workers(answers), oldest(answers)];
    let text = sections(&tables, terminal);
    if !terminal {
        return text;
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = date::rfc3339(u64::try_from(now.as_millis()).unwrap_or(u64::MAX));
    let name = concat!("gantry ", env!("CARGO_PKG_VERSION"));
    format!("{name}  {now}  Ctrl-C ends\n\n{text}")
}

/// What each host does per second, since the last picture or its start.
fn hosts(answers: &[Answer], before: &mut Before) -> Table {
    let heading = [
        "HOST",
        "WAITING",
        "OLDEST",
        "RESERVED",
        "RELEASING",
        "HELD",
        "QUARANTINED",
        "IN/S",
        "OUT/S",
        "TAKEN OVER",
        "STATE",
    ];
    let mut table = Table::new("host", heading);
    for answer in answers {
        let Some(status) = status_of(answer) else {
            before.remove(&answer.address);
            let mut row = ["-"; 11];
            let state = no_answer(answer);
            (row[0], row[10]) = (answer.name(), &state);
            table.push(row);
            continue;
        };
        let (pool, now) = (&status.pool, Instant::now());
        let last = before.insert(answer.address.clone(), (pool.counters.clone(), now));
        let rate = |count: fn(&Counters) -> u64| match &last {
            Some((last, at)) => rate(count(&pool.counters), count(last), now.duration_since(*at)),
            None => rate(count(&pool.counters), 0, Duration::from_secs(status.uptime_s)),
        };
        table.push([
            &status.host,
            &pool.waiting.to_string(),
            &span(pool.backlog.oldest_s),
            &(pool.reserved + pool.settling).to_string(),
            &pool.releasing.to_string(),
            &pool.held.to_string(),
            &pool.quarantined.to_string(),
            &rate(|counters| counters.marked),
            &rate(|counters| counters.released),
            &pool.counters.taken_over.to_string(),
            &admission(status),
        ]);
    }
    table
}

/// Per second, to one decimal; a hook that started anew counts from zero.
fn rate(now: u64, before: u64, span: Duration) -> String {
    let counted = now.saturating_sub(before).saturating_mul(10_000);
    let ms = u64::try_from(span.as_millis()).unwrap_or(u64::MAX).max(1);
    let tenths = counted / ms;
    format!("{}.{}", tenths / 10, tenths % 10)
}

/// The messages that have been in the pools longest, of what is neither held nor quarantined.
fn oldest(answers: &[Answer]) -> Table {
    let mut table = Table::new("message", ["MESSAGE", "STATE", "AGE", "ATTEMPTS", "WHY"]);
    let mut messages: Vec<_> = answers
        .iter()
        .filter_map(|answer| Some((answer.name(), status_of(answer)?)))
        .flat_map(|(host, status)| status.pool.messages.iter().map(move |one| (host, one)))
        .filter(|(_, message)| !matches!(message.state.as_str(), "held" | "quarantined"))
        .collect();
    messages.sort_by_key(|(_, message)| std::cmp::Reverse(message.age_s));
    for (host, message) in messages.into_iter().take(MESSAGES_SHOWN) {
        table.push([
            &format!("{host}/{}", message.id),
            &message.state,
            &span(message.age_s),
            &message.attempts.to_string(),
            &why(message),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second() {
        let second = Duration::from_secs(1);
        assert_eq!(rate(25, 0, 10 * second), "2.5");
        assert_eq!(rate(25, 20, second / 2), "10.0");
        assert_eq!(rate(3, 20, second), "0.0");
        assert_eq!(rate(3, 3, Duration::ZERO), "0.0");
    }
}

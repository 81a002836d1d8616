//! `gantry-hook drain`: asks the running hook to empty itself, and tells how far it is.

use std::io::Write;
use std::thread::sleep;
use std::time::Duration;

use gantry_operator::{DrainStatus, Reply, Request};
use gantry_protocol::pool::Remaining;

use super::{ask, print_json, unexpected};
use crate::admin;
use crate::cli::{DrainArgs, Output};
use crate::config::Config;
use crate::exit::{self, Failure, failure, line};
use crate::spool::left;

/// How often the hook is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);

pub(super) fn drain(
    config: &Config,
    arguments: DrainArgs,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let DrainArgs { within, cancel, reason, output: Output { json } } = arguments;
    let within_s = within.map(|time| time.as_secs());
    match ask(config, &Request::Drain { within_s, cancel, reason })? {
        None => {
            let text = "no hook is running, so there is nothing to drain";
            return Err(failure(exit::EX_UNAVAILABLE, text));
        }
        Some(Reply::Done) => {}
        Some(other) => return Err(unexpected(other)),
    }
    if cancel {
        return line(out, &format!("{} takes mail again", config.name));
    }
    follow(config, json, out)
}

/// Tells each change until the hook has gone.
fn follow(config: &Config, json: bool, out: &mut dyn Write) -> Result<(), Failure> {
    let mut told: Option<Remaining> = None;
    loop {
        // A hook that is just going may break the answer off; the next look finds that it has gone.
        match admin::ask(&config.spool, &Request::Status) {
            Ok(None) => break,
            Ok(Some(Reply::Status(status))) => {
                let Some(drain) = status.draining else {
                    let text = "the drain was taken back by somebody: the hook goes on";
                    return Err(failure(exit::EX_TEMPFAIL, text));
                };
                if told.replace(drain.remaining) != Some(drain.remaining) {
                    tell(config, &drain, json, out)?;
                }
            }
            Ok(Some(_)) | Err(_) => {}
        }
        sleep(ASK_EVERY);
    }
    // What happened since the last look only the disk can tell.
    let left = left(&config.spool)
        .map_err(|error| failure(exit::EX_IOERR, format!("count what is left: {error}")))?;
    if json {
        return print_json(
            out,
            &serde_json::json!({ "host": config.name, "ended": true, "left": left }),
        );
    }
    let rest = match left {
        0 => "nothing is left on its way".to_owned(),
        left => format!("{left} messages are left, safe in the spool"),
    };
    line(out, &format!("{} has ended; {rest}", config.name))
}

fn tell(
    config: &Config,
    drain: &DrainStatus,
    json: bool,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    if json {
        return print_json(out, drain);
    }
    let Remaining { waiting, reserved, settling, releasing, deferred } = drain.remaining;
    let until = match drain.ends_in_s {
        Some(seconds) => format!(", ends in {seconds} s at the latest"),
        None => String::new(),
    };
    line(
        out,
        &format!(
            "{}: {waiting} wait, {reserved} with workers, {settling} being stored, {releasing} being released, \
             {deferred} to be tried again later{until}",
            config.name
        ),
    )
}

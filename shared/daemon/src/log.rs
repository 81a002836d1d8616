//! The log: lines on standard error, which the service manager keeps. A thread of its own writes them, so that whoever
//! reads them slowly holds up no loop.

use std::io::{self, Write};
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;
use tracing_subscriber::fmt::MakeWriter;

use crate::lines::{self, Draining, Lines, Sink};

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Time, level, what happened, and `key=value` fields.
    #[default]
    Text,
    /// One JSON object.
    Json,
}

/// The words for it in a configuration.
pub const FORMATS: [(&str, Format); 2] = [("text", Format::Text), ("json", Format::Json)];

/// Logs from INFO up, or from the level that `GANTRY_LOG` names: error, warn, info, debug, trace or off. What is to be
/// written still is when the value that this gives is dropped. A process has one log: a second start changes nothing.
#[must_use = "dropping it ends the log"]
pub fn start(format: Format) -> Option<Draining> {
    let wanted = std::env::var("GANTRY_LOG").ok();
    let level = wanted.as_deref().map(str::parse::<LevelFilter>);
    let builder = tracing_subscriber::fmt()
        .with_max_level(match &level {
            Some(Ok(level)) => *level,
            Some(Err(_)) | None => LevelFilter::INFO,
        })
        .with_target(false)
        .with_ansi(false);
    let (lines, draining) = lines::spawn("log", Duration::ZERO, StandardError).ok()?;
    let started = match format {
        Format::Text => builder.with_writer(ToLines(lines)).try_init(),
        Format::Json => builder.json().flatten_event(true).with_writer(ToLines(lines)).try_init(),
    };
    if let (Some(Err(_)), Some(wanted)) = (level, wanted) {
        tracing::warn!(
            "GANTRY_LOG={wanted:?} is no level; write error, warn, info, debug, trace or off"
        );
    }
    started.ok().map(|()| draining)
}

struct StandardError;

impl Sink for StandardError {
    fn take(&mut self, lines: &[u8], lost: u64) {
        let mut error = io::stderr().lock();
        // Nobody is left to tell that standard error is gone.
        if lost > 0 {
            let _ = writeln!(error, "{lost} lines of the log were lost: what reads it is too slow");
        }
        let _ = error.write_all(lines);
    }
}

/// Each event is written as a whole, with its end of line.
struct ToLines(Lines);

impl<'a> MakeWriter<'a> for ToLines {
    type Writer = ToLine<'a>;

    fn make_writer(&'a self) -> ToLine<'a> {
        ToLine(&self.0)
    }
}

struct ToLine<'a>(&'a Lines);

impl Write for ToLine<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

//! What people see while the demo runs.

use std::fmt::Display;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Progress as a bar on a terminal, as plain lines elsewhere, and not at all with `--json`.
pub struct Show {
    bar: ProgressBar,
    terminal: bool,
    lines: bool,
    /// Tenths already shown as a line.
    tenths: AtomicU64,
}

impl Show {
    pub fn new(json: bool) -> Self {
        let terminal = io::stderr().is_terminal() && !json;
        let bar = ProgressBar::new(0);
        bar.set_draw_target(if terminal {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        });
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self { bar, terminal, lines: !json && !terminal, tenths: AtomicU64::new(0) }
    }

    /// Something has begun or happened.
    pub fn step(&self, text: impl Display) {
        if self.terminal {
            self.bar.suspend(|| print(&text));
        } else if self.lines {
            print(&text);
        }
    }

    /// So many of so many messages.
    pub fn progress(&self, done: usize, of: usize, what: &'static str) {
        let (done, of) = (u64::try_from(done).unwrap_or(0), u64::try_from(of).unwrap_or(0));
        self.bar.set_length(of);
        self.bar.set_position(done);
        self.bar.set_message(what);
        let tenth = (done * 10).checked_div(of).unwrap_or(0);
        if self.lines && self.tenths.fetch_max(tenth, Ordering::Relaxed) < tenth {
            print(&format!("  {done} of {of} {what}"));
        }
    }

    /// Takes the bar away.
    pub fn end(&self) {
        self.bar.finish_and_clear();
    }
}

/// One line on standard output. Where nobody reads any more the demo still has its exit status to give.
pub fn print(text: &impl Display) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

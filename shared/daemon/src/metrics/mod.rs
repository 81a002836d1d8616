//! Metrics in Prometheus' text format, version 0.0.4, and the small room in which they are shown.

mod serve;
#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests;

use std::fmt::{Display, Write};
use std::time::Duration;

pub use serve::{Asked, open};

/// The upper bounds of a [`Histogram`]'s buckets, as they are written and in milliseconds: what a module takes for a
/// message lies between a rule's glance and the longest silence.
const BOUNDS: [(&str, u64); 8] = [
    ("0.005", 5),
    ("0.02", 20),
    ("0.1", 100),
    ("0.5", 500),
    ("2", 2_000),
    ("10", 10_000),
    ("60", 60_000),
    ("600", 600_000),
];

/// A page of metrics.
#[derive(Clone, Debug, Default)]
pub struct Page {
    text: String,
}

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Rises, and begins at zero with the process.
    Counter,
    Gauge,
    Histogram,
}

/// The samples of one metric.
pub struct Family<'p> {
    name: &'static str,
    text: &'p mut String,
}

/// How long something took, in a few buckets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BOUNDS.len()],
    count: u64,
    sum_ms: u64,
}

/// Names and values of labels.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

impl Page {
    /// Begins a metric. Its samples must follow before the next one begins, which the borrow sees to.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family { name, text: &mut self.text }
    }

    /// A counter without labels.
    pub fn counter(&mut self, name: &'static str, help: &str, value: u64) {
        self.family(name, Kind::Counter, help).sample(&[], value);
    }

    /// A gauge without labels.
    pub fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, Kind::Gauge, help).sample(&[], value);
    }

    pub fn text(self) -> String {
        self.text
    }
}

impl Family<'_> {
    pub fn sample(&mut self, labels: Labels<'_>, value: impl Display) -> &mut Self {
        self.line("", labels, None, value);
        self
    }

    pub fn histogram(&mut self, labels: Labels<'_>, histogram: &Histogram) -> &mut Self {
        let mut below = 0;
        for ((bound, _), count) in BOUNDS.iter().zip(histogram.counts) {
            below += count;
            self.line("_bucket", labels, Some(bound), below);
        }
        self.line("_bucket", labels, Some("+Inf"), histogram.count);
        let sum = Duration::from_millis(histogram.sum_ms).as_secs_f64();
        self.line("_sum", labels, None, sum);
        self.line("_count", labels, None, histogram.count);
        self
    }

    fn line(&mut self, part: &str, labels: Labels<'_>, bound: Option<&str>, value: impl Display) {
        let _ = write!(self.text, "{}{part}", self.name);
        let mut open = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.text, "{open}{name}=\"{value}\"");
            open = ',';
        }
        let close = if open == ',' { "}" } else { "" };
        let _ = writeln!(self.text, "{close} {value}");
    }
}

impl Histogram {
    pub fn add(&mut self, took_ms: u64) {
        self.count += 1;
        self.sum_ms = self.sum_ms.saturating_add(took_ms);
        let bucket = BOUNDS.iter().position(|(_, bound)| took_ms <= *bound);
        if let Some(count) = bucket.and_then(|bucket| self.counts.get_mut(bucket)) {
            *count += 1;
        }
    }
}

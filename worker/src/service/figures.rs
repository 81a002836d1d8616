//! What the worker counts and shows as metrics, and its line in the log for each message that it has processed. Names and
//! labels stand in `docs/operations.md` and stay as they are.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_daemon::metrics::{Histogram, Kind as Metric, Page};
use gantry_protocol::frame::{Assign, ReturnKind};
use gantry_protocol::grabber::Processed;
use gantry_protocol::profile::ModuleProfile;
use gantry_protocol::text::discreet;
use gantry_protocol::time::millis;
use gantry_protocol::verdict::Finding;
use tokio::time::Instant;

use super::Service;
use crate::policy::Kind;

/// A module's outcomes, by the words of the policy file.
const OUTCOMES: [&str; 6] =
    ["clean", "found", "unscanned", "encrypted", "malformed", "over-budget"];
/// What became of messages.
const ENDS: [&str; 4] = ["verdict", "part", "failed", "handed-back"];

/// Counted since the worker's start.
#[derive(Debug, Default)]
pub(super) struct Figures {
    ended: BTreeMap<&'static str, u64>,
    /// By the modules of the configuration.
    modules: BTreeMap<String, Module>,
    /// As they were when they were asked last.
    probed: Vec<ModuleProfile>,
}

#[derive(Debug, Default)]
struct Module {
    outcomes: BTreeMap<&'static str, u64>,
    took: Histogram,
}

impl Figures {
    pub(super) fn handle_probed(&mut self, modules: &[ModuleProfile]) {
        self.probed = modules.to_vec();
    }

    /// Counts what came of a message, and says so in the log.
    pub(super) fn handle_processed(
        &mut self,
        host: &str,
        assign: &Arc<Assign>,
        processed: &Processed,
        began: Option<Instant>,
    ) {
        let (result, reason, findings) = match processed {
            Processed::Verdict(verdict) => ("verdict", None, verdict.findings.as_slice()),
            Processed::Part(part) => ("part", None, part.findings.as_slice()),
            Processed::Return(returned) => {
                let failed = returned.kind == ReturnKind::Failed;
                let result = if failed { "failed" } else { "handed-back" };
                (result, Some(returned.reason.as_str()), Default::default())
            }
        };
        *self.ended.entry(result).or_default() += 1;
        for finding in findings {
            // Only what was probed is a module of ours: nothing else may become a label.
            if self.probed.iter().any(|module| module.name == finding.module) {
                let module = self.modules.entry(finding.module.clone()).or_default();
                *module.outcomes.entry(word(finding)).or_default() += 1;
                module.took.add(u64::from(finding.duration_ms));
            }
        }
        let words: Vec<String> = findings.iter().map(in_words).collect();
        let reason = reason.map(|reason| {
            if tracing::enabled!(tracing::Level::DEBUG) {
                reason.to_owned()
            } else {
                discreet(reason)
            }
        });
        tracing::info!(
            id = %assign.message, host, mailbox = assign.mailbox, attempt = assign.attempt, fence = %assign.fence,
            bytes = assign.length, result, reason, modules = words.join("; "),
            duration_ms = began.map(|began| millis(began.elapsed())), "processed"
        );
    }
}

/// Its outcome, in the words of the policy file.
fn word(finding: &Finding) -> &'static str {
    Kind::of(&finding.outcome).map_or("clean", Kind::key)
}

fn in_words(finding: &Finding) -> String {
    format!(
        "{}={} by {} in {} ms",
        finding.need,
        word(finding),
        finding.module,
        finding.duration_ms
    )
}

impl Service {
    pub(super) fn metrics(&self) -> Page {
        let mut page = Page::default();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.family("gantry_worker_info", Metric::Gauge, "The running program.")
            .sample(&version, 1);
        let uptime = self.origin.elapsed().as_secs();
        page.gauge("gantry_worker_uptime_seconds", "Time since the worker's start.", uptime);
        page.gauge(
            "gantry_worker_certificate_expiry_timestamp_seconds",
            "When the certificate of this worker expires, in seconds since 1970.",
            self.identity.identity().expires,
        );
        page.gauge("gantry_worker_hosts", "Hosts of the configuration.", self.hosts.len());
        let linked = self.hosts.iter().filter(|host| host.linked.is_some()).count();
        page.gauge("gantry_worker_linked_hosts", "Hosts that it is linked to.", linked);
        page.gauge("gantry_worker_held_messages", "Messages that it has.", self.held.len());
        page.gauge(
            "gantry_worker_messages_max",
            "Messages that it processes at once.",
            self.concurrency,
        );
        self.figures.show(&mut page);
        page
    }
}

impl Figures {
    fn show(&self, page: &mut Page) {
        let mut ended = page.family(
            "gantry_worker_messages_total",
            Metric::Counter,
            "Messages, by what came of them: a verdict, a failed attempt, or handed back unprocessed.",
        );
        for end in ENDS {
            ended.sample(&[("outcome", end)], self.ended.get(end).copied().unwrap_or(0));
        }
        let mut ready = page.family(
            "gantry_worker_module_ready",
            Metric::Gauge,
            "1 while a module can be used.",
        );
        for module in &self.probed {
            ready.sample(&[("module", &module.name)], u8::from(module.not_ready.is_none()));
        }
        let mut outcomes = page.family(
            "gantry_worker_module_outcomes_total",
            Metric::Counter,
            "Messages that a module was run on, by what it said.",
        );
        for (name, module) in &self.modules {
            for outcome in OUTCOMES {
                let count = module.outcomes.get(outcome).copied().unwrap_or(0);
                outcomes.sample(&[("module", name), ("outcome", outcome)], count);
            }
        }
        let mut took = page.family(
            "gantry_worker_module_duration_seconds",
            Metric::Histogram,
            "How long a module took for a message.",
        );
        for (name, module) in &self.modules {
            took.histogram(&[("module", name)], &module.took);
        }
    }
}

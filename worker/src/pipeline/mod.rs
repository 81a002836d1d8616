//! Running the modules that a message's needs ask for, and making a verdict of what they say.

mod policy;

use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::frame::{Assign, Return, ReturnKind};
use gantry_protocol::grabber::Processed;
use gantry_protocol::text::bounded;
use gantry_protocol::verdict::Finding;
use gantry_scanners::api::{Job, Module, ModuleError, Progress, Source};

/// The modules of a worker, in the order of its configuration.
#[derive(Clone)]
pub struct Pipeline {
    modules: Arc<[Arc<dyn Module>]>,
    worker: Arc<str>,
}

/// One message's way through the pipeline, as seen from outside.
#[derive(Clone, Debug, Default)]
pub struct Work {
    progress: Arc<[Progress]>,
}

impl Work {
    /// Work done so far over all modules, and the longest silence that one of them needs.
    pub fn state(&self) -> (u64, Duration) {
        let states = self.progress.iter().map(Progress::state);
        states.fold((0, Duration::ZERO), |(work, silence), state| {
            (work + state.work, silence.max(state.silence))
        })
    }
}

/// A message whose modules are chosen and that can be run.
pub struct Prepared {
    assign: Arc<Assign>,
    jobs: Vec<(Arc<dyn Module>, String, Job)>,
    worker: Arc<str>,
    /// A need that no module of this worker meets.
    missing: Option<String>,
}

impl Pipeline {
    pub fn new(modules: Vec<Arc<dyn Module>>, worker: &str) -> Self {
        Self { modules: modules.into(), worker: worker.into() }
    }

    pub fn modules(&self) -> &[Arc<dyn Module>] {
        &self.modules
    }

    /// How many messages can be processed at once without one waiting for another in a module.
    pub fn concurrency(&self, configured: usize) -> usize {
        self.modules.iter().map(|module| module.concurrency()).fold(configured, usize::min).max(1)
    }

    /// Chooses the modules: every one that provides a need of the message runs.
    pub fn prepare(&self, assign: Arc<Assign>, source: Source) -> (Prepared, Work) {
        let silence_max = Duration::from_millis(assign.silence_max_ms);
        let envelope = Arc::new(assign.envelope.clone());
        let mut jobs = Vec::new();
        let mut missing = None;
        for need in &assign.needs {
            let before = jobs.len();
            for module in self.modules.iter().filter(|module| module.provides() == need) {
                let job = Job {
                    message_id: assign.message.to_string(),
                    envelope: Arc::clone(&envelope),
                    source: source.clone(),
                    progress: Progress::new(silence_max),
                };
                jobs.push((Arc::clone(module), need.clone(), job));
            }
            if jobs.len() == before {
                missing = Some(need.clone());
            }
        }
        let progress = jobs.iter().map(|(_, _, job)| job.progress.clone()).collect();
        (Prepared { assign, jobs, worker: Arc::clone(&self.worker), missing }, Work { progress })
    }
}

impl Prepared {
    /// Runs all modules at once and makes one answer of theirs. Dropping the future stops them.
    pub async fn run(self) -> Processed {
        if let Some(need) = self.missing {
            return give_back(ReturnKind::Unavailable, format!("no module here provides {need:?}"));
        }
        #[cfg(debug_assertions)]
        fail_point::crash_on(&self.jobs);
        let mut running = tokio::task::JoinSet::new();
        for (place, (module, need, job)) in self.jobs.into_iter().enumerate() {
            running.spawn(async move { (place, need, module.process(&job).await) });
        }
        let mut findings: Vec<(usize, Finding)> = Vec::new();
        while let Some(ended) = running.join_next().await {
            match ended {
                Ok((place, need, Ok(finding))) => {
                    findings.push((place, Finding { need, ..finding }))
                }
                Ok((_, _, Err(error))) => return not_said(&error),
                Err(panicked) => {
                    return give_back(
                        ReturnKind::Failed,
                        format!("a module broke down: {panicked}"),
                    );
                }
            }
        }
        findings.sort_by_key(|(place, _)| *place);
        let findings = findings.into_iter().map(|(_, finding)| finding).collect();
        policy::decide(&self.assign, &self.worker, findings)
    }
}

fn not_said(error: &ModuleError) -> Processed {
    let kind = match error {
        ModuleError::Unavailable { .. } => ReturnKind::Unavailable,
        ModuleError::Failed { .. } => ReturnKind::Failed,
    };
    give_back(kind, error.to_string())
}

fn give_back(kind: ReturnKind, reason: String) -> Processed {
    Processed::Return(Return {
        kind,
        reason: bounded(reason),
        findings: Vec::new(),
        remaining: Vec::new(),
    })
}

/// A way for the tests to have a worker die of a message, in debug builds alone.
#[cfg(debug_assertions)]
mod fail_point {
    use super::{Arc, Job, Module};

    /// Ends the process where the message contains the text in `GANTRY_CRASH_ON`.
    pub(super) fn crash_on(jobs: &[(Arc<dyn Module>, String, Job)]) {
        let Ok(text) = std::env::var("GANTRY_CRASH_ON") else { return };
        let Some((_, _, job)) = jobs.first() else { return };
        let bytes = job.source.read().unwrap_or_default();
        if !text.is_empty() && bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
            std::process::abort();
        }
    }
}

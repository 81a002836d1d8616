//! Running the modules that a message's needs ask for, and making a verdict of what they say.

mod part;
mod policed;
mod policy;

use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::frame::{Assign, Return, ReturnKind};
use gantry_protocol::grabber::Processed;
use gantry_protocol::id::Digest;
use gantry_protocol::policy::BUILT_IN;
use gantry_protocol::profile::ModuleProfile;
use gantry_protocol::text::bounded;
use gantry_protocol::verdict::Finding;
use gantry_scanners::api::{Job, Module, ModuleError, Progress, Source};

pub use policed::Examined;

use crate::policy::{Engines, Policy};

/// The modules of a worker, in the order of its configuration, and the policy that says what follows from them.
#[derive(Clone)]
pub struct Pipeline {
    modules: Arc<[Arc<dyn Module>]>,
    worker: Arc<str>,
    /// From its file; without one the built-in policy counts.
    policy: Option<Arc<Policy>>,
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
    source: Source,
    policy: Option<Arc<Policy>>,
    jobs: Vec<(Arc<dyn Module>, String, Job)>,
    worker: Arc<str>,
    /// A need that no module of this worker meets.
    missing: Option<String>,
}

impl Pipeline {
    pub fn new(modules: Vec<Arc<dyn Module>>, worker: &str) -> Self {
        Self { modules: modules.into(), worker: worker.into(), policy: None }
    }

    /// The same modules under another policy. What has been prepared keeps the one that it was prepared with.
    #[must_use]
    pub fn with_policy(self, policy: Arc<Policy>) -> Self {
        Self { policy: Some(policy), ..self }
    }

    /// Stands for the policy; a host assigns nothing to workers whose policy is another.
    pub fn policy_digest(&self) -> Digest {
        self.policy.as_ref().map_or(BUILT_IN, |policy| policy.digest())
    }

    /// Why the modules, as they are, cannot meet a need that they are there for: the first reason.
    pub fn lacking(&self, modules: &[ModuleProfile]) -> Option<String> {
        modules.iter().find_map(|module| {
            let reason = module.not_ready.as_ref()?;
            let of_need = || modules.iter().filter(|other| other.provides == module.provides);
            let ready = of_need().filter(|other| other.not_ready.is_none()).count();
            let required = self.engines(&module.provides).required(of_need().count());
            (ready < required).then(|| format!("{}: {reason}", module.name))
        })
    }

    fn engines(&self, need: &str) -> Engines {
        self.policy.as_ref().map_or(Engines::All, |policy| policy.engines(need))
    }

    pub fn modules(&self) -> &[Arc<dyn Module>] {
        &self.modules
    }

    /// What the modules provide, an item for each.
    pub fn provides(&self) -> Vec<&str> {
        self.modules.iter().map(|module| module.provides()).collect()
    }

    /// How many messages can be processed at once without one waiting for another in a module.
    pub fn concurrency(&self, configured: usize) -> usize {
        self.modules.iter().map(|module| module.concurrency()).fold(configured, usize::min).max(1)
    }

    /// Chooses the modules: every one that provides a need that this worker was asked for, or that the policy may run beside them.
    pub fn prepare(&self, assign: Arc<Assign>, source: Source) -> (Prepared, Work) {
        let silence_max = Duration::from_millis(assign.silence_max_ms);
        let envelope = Arc::new(assign.envelope.clone());
        let mut jobs = Vec::new();
        let mut missing = None;
        let beside = self.policy.iter().flat_map(|policy| policy.runs());
        let mut needs: Vec<&str> = assign.asked.iter().map(String::as_str).collect();
        needs.extend(beside.filter(|need| !assign.needs.iter().any(|own| own == need)));
        for need in needs {
            let before = jobs.len();
            for module in self.modules.iter().filter(|module| module.provides() == need) {
                let job = Job {
                    message_id: assign.message.to_string(),
                    envelope: Arc::clone(&envelope),
                    source: source.clone(),
                    progress: Progress::new(silence_max),
                };
                jobs.push((Arc::clone(module), need.to_owned(), job));
            }
            if jobs.len() == before {
                missing = Some(need.to_owned());
            }
        }
        let progress = jobs.iter().map(|(_, _, job)| job.progress.clone()).collect();
        let (worker, policy) = (Arc::clone(&self.worker), self.policy.clone());
        (Prepared { assign, source, policy, jobs, worker, missing }, Work { progress })
    }
}

impl Prepared {
    /// Runs the modules and makes one answer of theirs. Dropping the future stops them.
    pub async fn run(self) -> Processed {
        self.examine().await.processed
    }

    /// As [`Prepared::run`], and tells how it came about.
    pub async fn examine(self) -> Examined {
        if let Some(need) = self.missing {
            let reason = format!("no module here provides {need:?}");
            return Examined::of(give_back(ReturnKind::Unavailable, reason));
        }
        #[cfg(debug_assertions)]
        fail_point::crash_on(&self.jobs);
        match self.policy.clone() {
            Some(policy) => self.run_policed(&policy).await,
            None => Examined::of(self.run_built_in().await),
        }
    }

    /// All modules at once; the first that gives no answer ends it.
    async fn run_built_in(self) -> Processed {
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
    Processed::Return(Return { kind, reason: bounded(reason) })
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

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]
mod tests;

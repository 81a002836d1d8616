//! YARA rules, run inside the worker by boreal on every piece of a message.

mod rules;
mod scan;
#[cfg(test)]
mod tests;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use gantry_protocol::limits::TEXT_BYTES_MAX;
use gantry_protocol::text::bounded;
use gantry_protocol::verdict::{Finding, Outcome};
use tokio::sync::Semaphore;

use self::rules::Rules;
use crate::api::{Job, Module, ModuleError, ModuleFuture, ModuleState};
use crate::registry::BuildError;
use crate::unpack::Limits;

/// Engine and version, as they stand in findings.
pub const ENGINE: &str = "boreal 1.4";

/// The longest that the rules may run on one piece. Rules that need longer are at fault or under attack.
pub const PIECE_TIME_MAX: Duration = Duration::from_secs(15);

/// A `[[module]]` of type `yara`.
#[derive(Clone, Debug)]
pub struct YaraConfig {
    pub name: String,
    /// The need that it meets.
    pub provides: String,
    /// Rule files. A file is a namespace of its own, so that two may have rules of the same name.
    pub rules: Vec<PathBuf>,
    /// Whether the rules that come with the worker are used, too. They always are where `rules` is empty.
    pub bundled: bool,
    /// The budget of one message. `time_max` bounds the rules' time as well.
    pub limits: Limits,
    /// Messages at once, at least one. Each takes a thread, and memory for the message and what is unpacked of it.
    pub concurrency: usize,
}

impl YaraConfig {
    /// The bundled rules alone, one message at a time for each processor.
    pub fn new(name: impl Into<String>, provides: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            provides: provides.into(),
            rules: Vec::new(),
            bundled: true,
            limits: Limits::default(),
            concurrency: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

/// The module. Rules are compiled when it is made and when it is told to read them again.
pub struct YaraModule {
    config: YaraConfig,
    rules: RwLock<Arc<Rules>>,
    permits: Arc<Semaphore>,
}

impl YaraModule {
    /// Reads and compiles the rules.
    ///
    /// # Errors
    /// A file that cannot be read, or the first rule that does not compile, with its file, line and column.
    pub fn new(config: YaraConfig) -> Result<Self, BuildError> {
        let rules = compile(&config)?;
        let permits = Arc::new(Semaphore::new(config.concurrency.max(1)));
        Ok(Self { config, rules: RwLock::new(Arc::new(rules)), permits })
    }

    /// The rules of this moment; scans that have begun keep theirs.
    fn rules(&self) -> Arc<Rules> {
        self.rules.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn failed(&self, reason: impl Into<String>) -> ModuleError {
        ModuleError::Failed { module: self.config.name.clone(), reason: bounded(reason) }
    }

    fn unavailable(&self, reason: impl Into<String>) -> ModuleError {
        ModuleError::Unavailable { module: self.config.name.clone(), reason: bounded(reason) }
    }

    async fn scan(&self, job: &Job) -> Result<Finding, ModuleError> {
        let began = Instant::now();
        let rules = self.rules();
        let outcome = if job.source.length() > self.config.limits.bytes_max {
            let (length, limit) = (job.source.length(), self.config.limits.bytes_max);
            Outcome::OverBudget {
                reason: format!("the message has {length} bytes, and {limit} are allowed"),
            }
        } else {
            self.scan_on_thread(job, rules.clone()).await?
        };
        Ok(Finding {
            need: self.config.provides.clone(),
            module: self.config.name.clone(),
            engine: ENGINE.to_owned(),
            signatures: rules.version.clone(),
            outcome,
            duration_ms: u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX),
        })
    }

    async fn scan_on_thread(&self, job: &Job, rules: Arc<Rules>) -> Result<Outcome, ModuleError> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|_closed| self.unavailable("it is shutting down"))?;
        let abandoned = Arc::new(AtomicBool::new(false));
        // Unpacking a piece and scanning it each get half of the silence.
        let silence = job.progress.expect_silence(2 * PIECE_TIME_MAX);
        let scan = scan::Scan {
            rules,
            limits: self.config.limits,
            piece_time_max: silence / 2,
            progress: job.progress.clone(),
            abandoned: abandoned.clone(),
        };
        let source = job.source.clone();
        let _abandon = SetOnDrop(abandoned);
        let thread = tokio::task::spawn_blocking(move || {
            // Held until the thread ends, also when nobody waits for it any more.
            let _permit = permit;
            source.read().map(|message| scan.run(&message))
        });
        match thread.await {
            Ok(Ok(outcome)) => Ok(outcome),
            Ok(Err(error)) => Err(self.unavailable(format!("read the message: {error}"))),
            // The message may have caused it, and the worker lives on.
            Err(_panic) => Err(self.failed("the scan panicked")),
        }
    }

    async fn reload_on_thread(&self) -> Result<(), String> {
        let config = self.config.clone();
        let compiled = tokio::task::spawn_blocking(move || compile(&config)).await;
        let rules = match compiled {
            Ok(Ok(rules)) => rules,
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_panic) => return Err("compile the rules: the compiler panicked".to_owned()),
        };
        *self.rules.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(rules);
        Ok(())
    }
}

impl Module for YaraModule {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn provides(&self) -> &str {
        &self.config.provides
    }

    fn concurrency(&self) -> usize {
        self.config.concurrency.max(1)
    }

    fn probe(&self) -> ModuleFuture<'_, ModuleState> {
        let signatures = self.rules().version.clone();
        let state = ModuleState { engine: ENGINE.to_owned(), signatures, not_ready: None };
        Box::pin(std::future::ready(state))
    }

    fn process<'a>(&'a self, job: &'a Job) -> ModuleFuture<'a, Result<Finding, ModuleError>> {
        Box::pin(self.scan(job))
    }

    fn reload(&self) -> ModuleFuture<'_, Result<(), String>> {
        Box::pin(self.reload_on_thread())
    }
}

fn compile(config: &YaraConfig) -> Result<Rules, BuildError> {
    Rules::compile(&config.rules, config.bundled)
        .map_err(|problem| BuildError { module: config.name.clone(), problem })
}

/// Tells the thread that nobody waits for it any more.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Joins what there is to say, as much as fits into one sentence.
fn joined(parts: &[String]) -> String {
    let mut text = String::new();
    for part in parts {
        if text.len() > TEXT_BYTES_MAX {
            break;
        }
        if !text.is_empty() {
            text.push_str("; ");
        }
        text.push_str(part);
    }
    bounded(text)
}

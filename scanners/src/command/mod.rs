//! Any program that looks at one message and says with its exit code what it found.
//!
//! It gets the message as a private file or on standard input, an environment that is empty but for what was
//! configured, a folder of its own that vanishes with the run, and a time limit; it is killed with its children.

mod config;
mod platform;
mod run;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use gantry_protocol::text::{bounded, private};
use gantry_protocol::verdict::{Finding, Outcome};
use tempfile::TempDir;
use tokio::sync::{Mutex, Semaphore};

pub use self::config::{Argument, CommandConfig, Meaning, NameLine};
use self::run::{Ended, Run, RunError};
use crate::api::{Job, Module, ModuleError, ModuleFuture, ModuleState, Source};

/// How long a probe may take.
const PROBE_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a good answer of the probe counts: starting a program every second would cost more than it tells.
const PROBE_KEPT: Duration = Duration::from_secs(30);
/// Names in one finding; a message may match any number of signatures.
const NAMES_MAX: usize = 8;

/// The module.
pub struct CommandModule {
    config: CommandConfig,
    permits: Semaphore,
    /// The last answer of the probe, and when it came.
    probed: Mutex<Option<(Instant, ModuleState)>>,
}

impl CommandModule {
    pub fn new(config: CommandConfig) -> Self {
        let permits = Semaphore::new(config.concurrency.max(1));
        Self { config, permits, probed: Mutex::default() }
    }

    fn failed(&self, reason: impl Into<String>) -> ModuleError {
        ModuleError::Failed { module: self.config.name.clone(), reason: bounded(reason) }
    }

    fn unavailable(&self, reason: impl Into<String>) -> ModuleError {
        ModuleError::Unavailable { module: self.config.name.clone(), reason: bounded(reason) }
    }

    async fn look(&self, job: &Job) -> Result<Finding, ModuleError> {
        let began = Instant::now();
        let permit = self.permits.acquire().await;
        let _permit = permit.map_err(|_closed| self.unavailable("it is shutting down"))?;
        let outcome = if job.source.length() > self.config.bytes_max {
            let (length, limit) = (job.source.length(), self.config.bytes_max);
            Outcome::OverBudget {
                reason: format!("the message has {length} bytes, and {limit} are allowed"),
            }
        } else {
            self.outcome(job).await?
        };
        let state = self.state().await;
        Ok(Finding {
            need: self.config.provides.clone(),
            module: self.config.name.clone(),
            engine: state.engine,
            signatures: state.signatures,
            outcome,
            duration_ms: u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX),
        })
    }

    async fn outcome(&self, job: &Job) -> Result<Outcome, ModuleError> {
        let time_max = job.progress.expect_silence(self.config.time_max);
        let folder = self.folder().map_err(|error| self.unavailable(error))?;
        let file = folder.path().join("message");
        if self.config.takes_file() {
            let (source, path) = (job.source.clone(), file.clone());
            let written = tokio::task::spawn_blocking(move || write_private(&source, &path)).await;
            let written = written.unwrap_or_else(|broken| Err(io::Error::other(broken)));
            written.map_err(|error| {
                self.unavailable(format!("write the message for it to {}: {error}", file.display()))
            })?;
        }
        let argument = |argument: &Argument| match argument {
            Argument::Text(text) => OsString::from(text),
            Argument::File => file.clone().into_os_string(),
        };
        let run = Run {
            program: &self.config.program,
            arguments: self.config.arguments.iter().map(argument).collect(),
            environment: &self.config.environment,
            folder: folder.path(),
            input: (!self.config.takes_file()).then_some(&job.source),
            time_max,
            progress: Some(&job.progress),
        };
        let ended = run.run().await.map_err(|error| match error {
            RunError::TooLong(_) => self.failed(error.to_string()),
            RunError::Start { .. } | RunError::Input(_) | RunError::Wait(_) => {
                self.unavailable(error.to_string())
            }
        })?;
        self.meaning(&ended, &file)
    }

    fn meaning(&self, ended: &Ended, file: &Path) -> Result<Outcome, ModuleError> {
        let said = first_line(&ended.complaint).or_else(|| first_line(&ended.output));
        let said = said.map_or_else(String::new, |line| format!(": {}", private(&line)));
        let Some(code) = ended.status.code() else {
            return Err(self.failed(format!("it was ended by a signal ({}){said}", ended.status)));
        };
        let reason = bounded(format!("exit code {code}{said}"));
        Ok(match self.config.exit_codes.get(&code) {
            // What it did not read it has not looked at.
            Some(Meaning::Clean) if !ended.input_taken => {
                return Err(self.failed("it said clean before it had read the whole message"));
            }
            Some(Meaning::Clean) => Outcome::Clean,
            Some(Meaning::Found) => {
                let path = file.to_string_lossy();
                let line = self.config.names.as_ref();
                let names = line.map(|line| line.names(&ended.output, &path, NAMES_MAX));
                let names: Vec<String> =
                    names.unwrap_or_default().into_iter().map(bounded).collect();
                let unnamed = || vec![format!("exit code {code}")];
                Outcome::Found { names: if names.is_empty() { unnamed() } else { names } }
            }
            Some(Meaning::Unscanned) => Outcome::Unscanned { reason },
            Some(Meaning::Encrypted) => Outcome::Encrypted { reason },
            Some(Meaning::Malformed) => Outcome::Malformed { reason },
            Some(Meaning::OverBudget) => Outcome::OverBudget { reason },
            Some(Meaning::Unavailable) => return Err(self.unavailable(reason)),
            Some(Meaning::Failed) | None => return Err(self.failed(reason)),
        })
    }

    /// For one run, and for nobody else.
    fn folder(&self) -> Result<TempDir, String> {
        let scratch = &self.config.scratch_dir;
        let mut builder = tempfile::Builder::new();
        builder.prefix("gantry-command-");
        platform::private_folder(&mut builder);
        builder
            .tempdir_in(scratch)
            .map_err(|error| format!("make a folder in {}: {error}", scratch.display()))
    }

    /// As the probe said lately.
    async fn state(&self) -> ModuleState {
        let mut probed = self.probed.lock().await;
        if let Some((at, state)) = &*probed
            && state.not_ready.is_none()
            && at.elapsed() < PROBE_KEPT
        {
            return state.clone();
        }
        let state = self.ask().await;
        *probed = Some((Instant::now(), state.clone()));
        state
    }

    async fn ask(&self) -> ModuleState {
        let engine = self.config.program.file_name().unwrap_or_default().to_string_lossy();
        let state = |engine: String, not_ready: Option<String>| ModuleState {
            engine: bounded(engine),
            signatures: String::new(),
            not_ready: not_ready.map(bounded),
        };
        if let Err(reason) = can_run(&self.config.program) {
            return state(String::new(), Some(reason));
        }
        let Some((program, arguments)) = &self.config.probe else {
            return state(engine.into_owned(), None);
        };
        match self.run_probe(program, arguments).await {
            Ok(line) => state(line.unwrap_or_else(|| engine.into_owned()), None),
            Err(reason) => state(String::new(), Some(reason)),
        }
    }

    /// The first line of its output.
    async fn run_probe(
        &self,
        program: &Path,
        arguments: &[String],
    ) -> Result<Option<String>, String> {
        let folder = self.folder()?;
        let run = Run {
            program,
            arguments: arguments.iter().map(OsString::from).collect(),
            environment: &self.config.environment,
            folder: folder.path(),
            input: None,
            time_max: PROBE_TIME_MAX,
            progress: None,
        };
        let ended = run.run().await.map_err(|error| format!("probe: {error}"))?;
        if ended.status.success() {
            return Ok(first_line(&ended.output));
        }
        let said = first_line(&ended.complaint).or_else(|| first_line(&ended.output));
        Err(format!("probe: {}: {}", ended.status, said.unwrap_or_default()))
    }
}

impl Module for CommandModule {
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
        Box::pin(self.state())
    }

    fn process<'a>(&'a self, job: &'a Job) -> ModuleFuture<'a, Result<Finding, ModuleError>> {
        Box::pin(self.look(job))
    }
}

fn can_run(program: &PathBuf) -> Result<(), String> {
    match std::fs::metadata(program) {
        Ok(metadata) if platform::is_executable(&metadata) => Ok(()),
        Ok(_) => Err(format!("{} is no program that may be run", program.display())),
        Err(error) => Err(format!("{}: {error}", program.display())),
    }
}

/// A new file that nobody else may read.
fn write_private(source: &Source, path: &Path) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    platform::private_file(&mut options);
    let mut file = options.open(path)?;
    source.write_to(&mut file)?;
    file.flush()
}

fn first_line(text: &str) -> Option<String> {
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(bounded)
}

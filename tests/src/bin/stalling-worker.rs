//! `stalling-worker CONFIG HOW [FILE]`: a real worker whose one module stalls in one way or another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use gantry::config::Config;
use gantry::service;
use gantry_protocol::verdict::{Finding, Outcome};
use gantry_scanners::api::{Job, Module, ModuleError, ModuleFuture, ModuleState};
use sha2::{Digest as _, Sha256};

/// What the module does with every message.
enum How {
    /// It waits for ever, and leaves the worker alone.
    Waits,
    /// It holds on to the thread on which it was called.
    Blocks,
    /// It computes, step by step, until this file is there, and then says clean.
    Works(PathBuf),
}

struct Stalling(How);

impl Module for Stalling {
    fn name(&self) -> &str {
        "stalling"
    }

    fn provides(&self) -> &str {
        "virus"
    }

    fn concurrency(&self) -> usize {
        1
    }

    fn probe(&self) -> ModuleFuture<'_, ModuleState> {
        let state = ModuleState {
            engine: "stalling 1".to_owned(),
            signatures: String::new(),
            not_ready: None,
        };
        Box::pin(async { state })
    }

    fn process<'a>(&'a self, job: &'a Job) -> ModuleFuture<'a, Result<Finding, ModuleError>> {
        Box::pin(async move {
            match &self.0 {
                How::Waits => std::future::pending().await,
                How::Blocks => loop {
                    thread::park();
                },
                How::Works(until) => work(job, until).await,
            }
        })
    }
}

/// Every step is work on the message, and nothing else is told as progress.
async fn work(job: &Job, until: &Path) -> Result<Finding, ModuleError> {
    let failed = |reason: String| ModuleError::Failed { module: "stalling".to_owned(), reason };
    let bytes = job.source.read().map_err(|error| failed(error.to_string()))?;
    let mut digest = Sha256::digest(&bytes);
    while !until.exists() {
        digest = Sha256::digest([digest.as_slice(), &bytes].concat());
        job.progress.advance(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Finding {
        need: "virus".to_owned(),
        module: "stalling".to_owned(),
        engine: "stalling 1".to_owned(),
        signatures: String::new(),
        outcome: Outcome::Clean,
        duration_ms: 0,
    })
}

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (config, how, file) = match arguments.as_slice() {
        [config, how] => (config, how.as_str(), None),
        [config, how, file] => (config, how.as_str(), Some(file)),
        _ => bail!("call it as stalling-worker CONFIG HOW [FILE]"),
    };
    let config = Config::load(Path::new(config));
    let config =
        config.map_err(|mistakes| anyhow::anyhow!("read the configuration: {mistakes:?}"))?;
    ensure!(config.modules.is_empty(), "the module is this program's own: configure none");
    // Of four threads a module can block one; of one, all.
    let (threads, how) = match (how, file) {
        ("waits", None) => (4, How::Waits),
        ("blocks-a-thread", None) => (4, How::Blocks),
        ("blocks-all", None) => (1, How::Blocks),
        ("works", Some(file)) => (4, How::Works(file.into())),
        _ => bail!("HOW is waits, blocks-a-thread, blocks-all, or works with a FILE"),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .context("start the runtime")?;
    let module: Arc<dyn Module> = Arc::new(Stalling(how));
    let running = runtime.spawn(service::run_modules(config, vec![module]));
    Ok(runtime.block_on(running).context("run the worker")??)
}

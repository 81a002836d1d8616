//! Real mail, whole: every message gets an answer, and none is taken for what it is not.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "tests fail by panicking and say what they skip"
)]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::verdict::Outcome;
use gantry_scanners::api::{Job, Module, Progress, Source};
use gantry_scanners::clamd::{ClamdAddress, ClamdConfig};
use gantry_scanners::registry::{ModuleConfig, build};
use gantry_scanners::testkit::{Clamd, ClamdOptions};
use gantry_scanners::yara::YaraConfig;

/// It lies beside the project, where there is one.
fn corpus() -> Option<PathBuf> {
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .ancestors()
        .map(|folder| folder.join("../shared/corpus"))
        .find(|folder| folder.is_dir());
    if found.is_none() {
        println!("skipped: there is no corpus of real mail beside the project");
    }
    found
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut folders = vec![folder.to_owned()];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    assert!(!files.is_empty());
    files
}

async fn all_are_clean(module: &dyn Module, corpus: &Path) {
    for path in files(corpus) {
        let job = Job {
            message_id: path.display().to_string(),
            envelope: Arc::default(),
            source: Source::Memory(fs::read(&path).unwrap().into()),
            progress: Progress::new(Duration::from_secs(600)),
        };
        let outcome = module.process(&job).await.map(|finding| finding.outcome);
        assert_eq!(outcome, Ok(Outcome::Clean), "{}", path.display());
    }
}

#[tokio::test]
async fn the_bundled_rules_call_all_of_it_clean() {
    let Some(corpus) = corpus() else { return };
    let config = ModuleConfig::Yara(YaraConfig::new("rules", "virus"));
    for module in build(vec![config]).unwrap() {
        all_are_clean(module.as_ref(), &corpus).await;
    }
}

#[cfg(unix)]
#[tokio::test]
async fn clamd_with_our_signatures_calls_all_of_it_clean() {
    let Some(corpus) = corpus() else { return };
    let Some(clamd) = Clamd::start(&ClamdOptions::default()).unwrap() else { return };
    let address = ClamdAddress::Unix(clamd.socket());
    let config = ModuleConfig::Clamd(ClamdConfig::new("clamav", "virus", address));
    for module in build(vec![config]).unwrap() {
        all_are_clean(module.as_ref(), &corpus).await;
    }
}

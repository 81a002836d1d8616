//! What fuzzers found worth keeping, through the targets again: every input that ever broke something is among them.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests fail by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use gantry_fuzz_targets::TARGETS;
use gantry_tests::pages::{files, page, shown};
use gantry_tests::project;

/// What is kept of one target: enough for all that it reaches, little enough for a repository.
const FILES_MAX: usize = 200;
const BYTES_MAX: u64 = 500_000;

fn kept(target: &str) -> Vec<PathBuf> {
    files(&format!("tests/fuzz/corpus/{target}"), "")
}

#[test]
fn what_was_found_is_found_no_more() {
    let mut broken = Vec::new();
    for (name, target) in TARGETS {
        let kept = kept(name);
        assert!(!kept.is_empty(), "tests/fuzz/corpus/{name} has no file");
        for path in kept {
            let bytes = fs::read(&path).unwrap();
            if catch_unwind(|| target(&bytes)).is_err() {
                broken.push(shown(&path));
            }
        }
    }
    assert!(broken.is_empty(), "targets panicked, as said above, on {broken:?}");
}

#[test]
fn a_corpus_stays_small() {
    for (name, _) in TARGETS {
        let kept = kept(name);
        let bytes: u64 = kept.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(kept.len() <= FILES_MAX && bytes <= BYTES_MAX, "{name}: {} files", kept.len());
    }
}

/// A target has a program, a corpus and a record of how long it ran, and nothing has these that is no target.
#[test]
fn every_target_is_run() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let manifest: toml::Table = page("tests/fuzz/Cargo.toml").parse().unwrap();
    let programs = manifest.get("bin").and_then(toml::Value::as_array).unwrap().iter();
    let programs = programs.map(|bin| bin.get("name").unwrap().as_str().unwrap().to_owned());
    assert_eq!(programs.collect::<BTreeSet<_>>(), targets, "tests/fuzz/Cargo.toml");
    let hours: toml::Table = page("tests/fuzz/HOURS.toml").parse().unwrap();
    assert_eq!(hours.keys().cloned().collect::<BTreeSet<_>>(), targets, "tests/fuzz/HOURS.toml");
    let folders = fs::read_dir(project().join("tests/fuzz/corpus")).unwrap();
    let folders = folders.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(folders.collect::<BTreeSet<_>>(), targets, "tests/fuzz/corpus");
}

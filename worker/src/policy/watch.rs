//! Noticing that the policy file or one of its lists has changed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::mpsc;

use super::Policy;

/// A change is noticed within this. Looking costs a few calls of the system and reads nothing.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What tells that a file is no longer the one that was read.
type Stamp = Vec<Option<(SystemTime, u64)>>;

/// What is watched, and for whom.
pub struct Watch {
    /// The policy file.
    pub path: PathBuf,
    /// What was read of it last.
    pub current: Arc<Policy>,
    /// What the worker's modules provide, an item for each.
    pub provides: Vec<String>,
}

/// Reads the policy again whenever a file of it changes or `told` says so, and hands on what is new and without a
/// mistake. A bad file is reported and the former policy stays. Ends when nobody listens.
pub async fn run<T: Send>(
    watch: Watch,
    mut told: mpsc::Receiver<()>,
    changed: mpsc::Sender<T>,
    wrap: impl Fn(Arc<Policy>) -> T,
) {
    let Watch { path, mut current, provides } = watch;
    let mut files = current.files().to_vec();
    // What was changed between its reading and the first look is noticed, too.
    let mut seen = Stamp::new();
    while !changed.is_closed() {
        let asked = tokio::select! {
            // Where there are no such signals the channel is closed, and only the clock counts.
            Some(()) = told.recv() => true,
            () = tokio::time::sleep(LOOK_EVERY) => false,
        };
        let now = stamp(&files);
        if now == seen && !asked {
            continue;
        }
        seen = now;
        match read(&path, &provides).await {
            Ok(policy) => {
                if files != policy.files() {
                    // It names other lists now, and they may have changed since they were read.
                    (files, seen) = (policy.files().to_vec(), Stamp::new());
                }
                if policy.digest() == current.digest() {
                    if asked {
                        tracing::info!(policy = %policy.digest(), "the policy is as before");
                    }
                    continue;
                }
                current = Arc::new(policy);
                if changed.send(wrap(Arc::clone(&current))).await.is_err() {
                    return;
                }
            }
            Err(mistakes) => {
                for mistake in mistakes {
                    tracing::error!("{mistake}");
                }
                let digest = current.digest();
                tracing::error!(policy = %digest, "the new policy has mistakes: the former one stays in force");
            }
        }
    }
}

async fn read(path: &Path, provides: &[String]) -> Result<Policy, Vec<String>> {
    let (path, provides) = (path.to_owned(), provides.to_vec());
    let read = tokio::task::spawn_blocking(move || {
        let provides: Vec<&str> = provides.iter().map(String::as_str).collect();
        Policy::load_for(&path, &provides)
    });
    read.await.unwrap_or_else(|broken| Err(vec![format!("read the policy: {broken}")]))
}

fn stamp(files: &[PathBuf]) -> Stamp {
    let one = |path: &PathBuf| {
        let metadata = std::fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files.iter().map(one).collect()
}

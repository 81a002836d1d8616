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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    /// Longer than anything here takes on a busy machine.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn text(found: &str) -> String {
        format!(
            "[outcomes]\nfound = {found:?}\nunscanned = \"retry\"\nencrypted = \"hold\"\nmalformed = \"hold\"\n\
             over-budget = \"hold\"\n[[rule]]\nname = \"r\"\nwhen.sender = [\"file:list\"]\nthen = \"hold\"\n"
        )
    }

    #[tokio::test]
    async fn a_good_change_is_handed_on_and_a_bad_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let (path, list) = (folder.path().join("policy.toml"), folder.path().join("list"));
        std::fs::write(&list, "a@example.com\n").unwrap();
        std::fs::write(&path, text("hold")).unwrap();
        let current = Arc::new(Policy::load(&path).unwrap());
        let first = current.digest();
        let (tell, told) = mpsc::channel(1);
        let (sender, mut changed) = mpsc::channel(1);
        let watch = Watch { path: path.clone(), current, provides: vec!["virus".to_owned()] };
        tokio::spawn(run(watch, told, sender, |policy| policy));
        let mut next = async || tokio::time::timeout(PATIENCE, changed.recv()).await.unwrap();

        // Told to look at the same file and at a bad one: nothing comes of it, since the next is what is good again.
        tell.send(()).await.unwrap();
        std::fs::write(&path, "[outcomes]\n").unwrap();
        tell.send(()).await.unwrap();
        tell.send(()).await.unwrap();
        std::fs::write(&path, text("discard")).unwrap();
        tell.send(()).await.unwrap();
        let second = next().await.unwrap().digest();
        assert_ne!(second, first);
        assert_eq!(second, Policy::load(&path).unwrap().digest());

        // A list counts, too, and nobody has to tell.
        std::fs::write(&list, "a@example.com\nb@example.com\n").unwrap();
        assert_ne!(next().await.unwrap().digest(), second);
    }
}

//! A wall clock for real processes that the test moves, also while they run: Debian's libfaketime, preloaded. Their monotonic
//! clock, by which they wait, stays the machine's.

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::skip;

/// A clock that some processes share.
#[derive(Debug)]
pub struct FakeClock {
    library: PathBuf,
    folder: TempDir,
}

impl FakeClock {
    /// A clock that shows the time; `None`, and said so, where libfaketime is not installed.
    pub fn find(test: &str) -> Option<Self> {
        let Some(library) = library() else {
            skip(test, "libfaketime is not installed");
            return None;
        };
        let folder = TempDir::with_prefix("gantry-clock-").expect("make a temporary folder");
        let clock = Self { library, folder };
        clock.set(0);
        Some(clock)
    }

    /// Sets it so many days ahead of the time.
    pub fn set(&self, days: u32) {
        // Renamed into place: whoever reads finds the old offset or the new one.
        let new = self.folder.path().join("new");
        fs::write(&new, format!("+{days}d\n")).expect("write the clock's offset");
        #[allow(clippy::disallowed_methods, reason = "nothing here has to outlive a crash")]
        fs::rename(new, self.file()).expect("set the clock");
    }

    /// What makes a process have this clock.
    pub fn environment(&self) -> [(&'static str, String); 5] {
        [
            ("LD_PRELOAD", self.library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.file().display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("DONT_FAKE_MONOTONIC", "1".to_owned()),
            // Files keep their true times.
            ("NO_FAKE_STAT", "1".to_owned()),
        ]
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("offset")
    }
}

/// Where Debian and others put it.
fn library() -> Option<PathBuf> {
    let machine = std::env::consts::ARCH;
    let folders = [
        format!("/usr/lib/{machine}-linux-gnu/faketime"),
        "/usr/lib/faketime".to_owned(),
        "/usr/lib64/faketime".to_owned(),
    ];
    // The one for programs with threads.
    let files = folders.iter().map(|folder| Path::new(folder).join("libfaketimeMT.so.1"));
    files.into_iter().find(|file| file.exists())
}

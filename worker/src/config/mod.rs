//! The worker's configuration, resolved: what these types can say is valid.

mod command;
mod keys;
mod read;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gantry_config::{ConfigError, Document, Endpoint};
use gantry_link::NameMask;
use gantry_scanners::registry::ModuleConfig;

pub use keys::KEYS;

/// Hosts of one worker; each is a link with its own beats.
pub const HOSTS_MAX: usize = 64;

/// Everything that `worker.toml` says, defaults filled in and paths made absolute.
#[derive(Clone, Debug)]
pub struct Config {
    /// What is no mistake but worth saying, in sentences.
    pub remarks: Vec<String>,
    /// The worker's name in the cluster.
    pub name: String,
    /// The UDP address at which hosts may dial this worker; `None` where none does.
    pub listen: Option<SocketAddr>,
    /// The folder that holds the key and certificate: the file's own unless it says otherwise.
    pub identity_dir: PathBuf,
    /// At least one.
    pub hosts: Vec<Host>,
    /// Every name once. May be empty: such a worker serves only mailboxes that need nothing.
    pub modules: Vec<ModuleConfig>,
    /// Messages processed at once.
    pub concurrency: usize,
    /// Bytes of messages held in memory at once; larger ones lie in temporary files.
    pub memory_bytes_max: u64,
    /// Where messages lie that are too large for memory.
    pub scratch_dir: PathBuf,
    /// The policy file; without one the built-in policy counts.
    pub policy: Option<PathBuf>,
    /// After being told to stop, how long what is being processed may take before it is handed back.
    pub drain_timeout: Duration,
    /// How the lines of the log are written.
    pub log: gantry_daemon::log::Format,
    /// The address on which metrics are shown, if they are.
    pub metrics: Option<SocketAddr>,
}

/// A host to link to: one that is dialled, or those that may dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Where this worker dials it; `None` where it only waits to be dialled.
    pub address: Option<Endpoint>,
    /// Which hosts may dial this worker, by the names in their certificates. With an address, the one host that is there.
    pub name: Option<NameMask>,
    /// Tier 0 works always, higher ones when the lower are dead, not ready or too slow.
    pub tier: u8,
    /// In a higher tier: how long the oldest message may wait there before this worker helps the lower ones.
    pub standby_after: Option<Duration>,
}

impl Config {
    /// Reads and resolves a file. Starts and connects nothing.
    ///
    /// # Errors
    /// Every mistake found, in the order of the file; at most [`gantry_config::MISTAKES_MAX`].
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        let document = Document::load(path).map_err(|error| vec![error])?;
        document.resolve(read::config)
    }

    /// As [`Config::load`], for text that would stand in the file `path`.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, Vec<ConfigError>> {
        Document::new(path, text).resolve(read::config)
    }
}

// The example names a Unix socket.
#[cfg(all(test, unix))]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests;

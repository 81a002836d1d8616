//! The log: lines on standard error, which the service manager keeps.

use tracing_subscriber::filter::LevelFilter;

/// Logs from INFO up, or from the level that `GANTRY_LOG` names.
pub fn start() {
    let level = std::env::var("GANTRY_LOG")
        .ok()
        .and_then(|level| level.parse().ok())
        .unwrap_or(LevelFilter::INFO);
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
}

//! The log: lines on standard error, which the service manager keeps.

use tracing_subscriber::filter::LevelFilter;

/// Logs from INFO up, or from the level that `GANTRY_LOG` names: error, warn, info, debug, trace or off.
pub fn start() {
    let wanted = std::env::var("GANTRY_LOG").ok();
    let level = wanted.as_deref().map(str::parse::<LevelFilter>);
    tracing_subscriber::fmt()
        .with_max_level(level.as_ref().map_or(LevelFilter::INFO, |level| match level {
            Ok(level) => *level,
            Err(_) => LevelFilter::INFO,
        }))
        .with_writer(std::io::stderr)
        .with_target(false)
        .with_ansi(false)
        .init();
    if let (Some(Err(_)), Some(wanted)) = (level, wanted) {
        tracing::warn!(
            "GANTRY_LOG={wanted:?} is no level; write error, warn, info, debug, trace or off"
        );
    }
}

//! Where clamd is, and what it may be asked.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// A `[[module]]` of type `clamd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClamdConfig {
    pub name: String,
    /// The need that it meets.
    pub provides: String,
    pub address: ClamdAddress,
    /// The longest that connecting may take, and an answer to PING or VERSION.
    pub connect_timeout: Duration,
    /// The longest that one scan may take, sending included; less where the host grants less silence, since clamd
    /// shows no progress while it scans. Beyond half of it the module is not ready. Must be less than clamd's
    /// `MaxScanTime` (120 s unless set): when that is over, clamd stops looking and says clean.
    pub scan_timeout: Duration,
    /// clamd's `StreamMaxLength`, in bytes. Nothing larger is sent.
    pub stream_bytes_max: u64,
    /// The smaller of clamd's `MaxFileSize` and `MaxScanSize`, in bytes. clamd skips what is larger and calls it
    /// clean unless `AlertExceedsMax` is set, so nothing larger is sent.
    pub scan_bytes_max: u64,
    /// Signatures older than this make the module not ready: clamd goes on with old ones when its updates fail. `None` does
    /// not look at their age.
    pub signatures_age_max: Option<Duration>,
    /// Connections that scan at once, at least one. More than clamd's `MaxThreads` only wait there.
    pub connections_max: usize,
}

/// Where clamd listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClamdAddress {
    /// Not on Windows.
    Unix(PathBuf),
    /// `host:port`.
    Tcp(String),
}

/// Text that is no address of a clamd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no address of a clamd; one looks like unix:/run/clamav/clamd.ctl or tcp:127.0.0.1:3310"
)]
pub struct NoClamdAddress {
    pub text: String,
}

impl ClamdConfig {
    /// With the limits of Debian's `clamd.conf` and its number of threads.
    pub fn new(
        name: impl Into<String>,
        provides: impl Into<String>,
        address: ClamdAddress,
    ) -> Self {
        Self {
            name: name.into(),
            provides: provides.into(),
            address,
            connect_timeout: Duration::from_secs(5),
            scan_timeout: Duration::from_secs(60),
            stream_bytes_max: 25 << 20,
            scan_bytes_max: 25 << 20,
            signatures_age_max: None,
            connections_max: 10,
        }
    }
}

impl FromStr for ClamdAddress {
    type Err = NoClamdAddress;

    fn from_str(text: &str) -> Result<Self, NoClamdAddress> {
        let wrong = || NoClamdAddress { text: text.chars().take(64).collect() };
        if let Some(path) = text.strip_prefix("unix:") {
            return if path.is_empty() { Err(wrong()) } else { Ok(Self::Unix(path.into())) };
        }
        let address = text.strip_prefix("tcp:").unwrap_or(text);
        match address.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok_and(|p| p > 0) => {
                Ok(Self::Tcp(address.to_owned()))
            }
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for ClamdAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp:{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_as_they_are_written() {
        for (text, whole) in [
            ("unix:/run/clamav/clamd.ctl", "unix:/run/clamav/clamd.ctl"),
            ("tcp:127.0.0.1:3310", "tcp:127.0.0.1:3310"),
            ("[::1]:3310", "tcp:[::1]:3310"),
            ("scanner.example:3310", "tcp:scanner.example:3310"),
        ] {
            assert_eq!(text.parse::<ClamdAddress>().map(|a| a.to_string()), Ok(whole.to_owned()));
        }
        for text in ["", "unix:", "scanner", "scanner:", ":3310", "scanner:0", "scanner:70000"] {
            assert!(text.parse::<ClamdAddress>().is_err(), "{text}");
        }
    }
}

//! What reads clamd's bytes, for tests outside of this crate that feed it any bytes.

use gantry_protocol::verdict::Outcome;

use super::reply::{Reply, Version};

/// What a reply to INSTREAM comes to.
///
/// # Errors
/// No answer about the message, and why.
pub fn outcome(reply: &[u8]) -> Result<Outcome, String> {
    Reply::parse(reply).outcome()
}

/// Engine and signatures in a reply to VERSION.
///
/// # Errors
/// What was said instead.
pub fn version(reply: &[u8]) -> Result<(String, String), String> {
    Version::parse(reply).map(|version| (version.engine, version.signatures))
}

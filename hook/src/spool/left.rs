//! What is on its way in a spool that no hook has: from the names alone, without opening it.

use std::path::Path;

use gantry_protocol::pool::StoredState;
use walkdir::WalkDir;

use super::name::FileName;

/// A message's file lies in a folder of its mailbox's folder.
const DEPTH: usize = 3;

/// Counts the messages that wait or are being released, leaving out what is held or quarantined.
///
/// # Errors
/// A folder cannot be read.
pub fn left(root: &Path) -> std::io::Result<u64> {
    let mut count = 0;
    for entry in WalkDir::new(root).min_depth(DEPTH).max_depth(DEPTH) {
        let entry = entry?;
        let name = entry.file_name().to_str().and_then(|name| name.parse().ok());
        if let Some(FileName::Message(name)) = name
            && !matches!(name.state, StoredState::Held | StoredState::Quarantined)
        {
            count += 1;
        }
    }
    Ok(count)
}

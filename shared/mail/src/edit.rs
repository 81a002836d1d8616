//! Edits of the header block, as data.

use serde::{Deserialize, Serialize};

/// Most edits in one delivery.
pub const EDITS_MAX: usize = 64;
/// Longest field that an edit may add, in bytes, folds and all.
pub const FIELD_BYTES_MAX: usize = 4_096;

/// One change to the header block. What is added stands on top, in the order given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderEdit {
    /// A whole field without its final CRLF: `Name: value`, folded with CRLF + white space if need be.
    Prepend { field: String },
    /// Every field of this name goes (ASCII case does not matter).
    Remove { name: String },
}

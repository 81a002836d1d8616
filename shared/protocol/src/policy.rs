//! The policy that is built in: every module that the needs ask for runs; a finding quarantines; what could not be
//! said leads to another attempt and then to held; the rest is released.

use crate::id::Digest;

/// Stands for the built-in policy's meaning and changes with it, so that hook and worker never differ unnoticed. A
/// policy that is read from a file has the SHA-256 of its content instead.
pub const BUILT_IN: Digest = Digest(*b"gantry built-in policy, number 1");

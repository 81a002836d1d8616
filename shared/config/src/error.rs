//! A mistake in a configuration file.

use std::fmt;
use std::path::PathBuf;

/// Mistakes told of one file: more than anybody mends in one go.
pub const MISTAKES_MAX: usize = 20;

/// One mistake: where it is, what is wrong and what would be right.
///
/// Shown as `hook.toml:7: mailbox "mail.box": answer_within: "120" has no unit; write "120s"`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError {
    /// The file as it was named.
    pub file: PathBuf,
    /// Counted from 1; `None` when the file as a whole is meant.
    pub line: Option<usize>,
    /// The way to the key, its parts separated by `": "`; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong.
    pub problem: String,
    /// What to do about it, as an order: "write ...", "remove ...".
    pub remedy: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, "{line}:")?;
        }
        if !self.key.is_empty() {
            write!(f, " {}:", self.key)?;
        }
        write!(f, " {}; {}", self.problem, self.remedy)
    }
}

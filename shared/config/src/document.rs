//! A configuration file as text, and the mistakes found in it.

use std::cell::RefCell;
use std::fmt::Display;
use std::io::Read;
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::error::{ConfigError, MISTAKES_MAX};
use crate::table::Table;

/// Largest configuration file, in bytes: hundreds of times what anybody writes.
pub const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// The text of a configuration file.
#[derive(Clone, Debug)]
pub struct Document {
    file: PathBuf,
    /// The folder that paths in the file are relative to.
    folder: PathBuf,
    text: String,
}

impl Document {
    /// Reads the configuration.
    ///
    /// # Errors
    /// It cannot be read, is no UTF-8, or is larger than [`FILE_BYTES_MAX`].
    pub fn load(file: &Path) -> Result<Self, ConfigError> {
        Self::load_as(file, "configuration", "name the file with --config")
    }

    /// Reads a file of another kind; `absent` says what to do where it is not there.
    ///
    /// # Errors
    /// As for [`load`](Self::load).
    pub fn load_as(file: &Path, kind: &str, absent: &str) -> Result<Self, ConfigError> {
        let whole = |problem: String, remedy: &str| ConfigError {
            file: file.to_owned(),
            line: None,
            key: String::new(),
            problem,
            remedy: remedy.to_owned(),
        };
        let mut text = String::new();
        let read = std::fs::File::open(file)
            .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
        if let Err(error) = read {
            let remedy = match error.kind() {
                std::io::ErrorKind::NotFound => absent,
                std::io::ErrorKind::PermissionDenied => "let the user that runs this read it",
                std::io::ErrorKind::InvalidData => "write it in UTF-8",
                _ => "name a file that can be read",
            };
            return Err(whole(format!("read the {kind}: {error}"), remedy));
        }
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
            return Err(whole("it is larger than 1MiB".to_owned(), &format!("name a {kind} file")));
        }
        Ok(Self::new(file, text))
    }

    /// Text that would stand in `file`.
    pub fn new(file: &Path, text: impl Into<String>) -> Self {
        let absolute = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
        let folder = absolute.parent().map_or_else(|| absolute.clone(), Path::to_owned);
        Self { file: file.to_owned(), folder, text: text.into() }
    }

    /// The text as it stands in the file.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Parses the text and hands its top table to `read`, which reports mistakes by way of the tables and values and
    /// may give `None` only if it has.
    ///
    /// # Errors
    /// Every mistake, in the order of the file; at most [`MISTAKES_MAX`]. Mistakes in the syntax hide all others.
    pub fn resolve<T>(
        &self,
        read: impl FnOnce(&Table<'_>) -> Option<T>,
    ) -> Result<T, Vec<ConfigError>> {
        let ledger = Ledger { document: self, mistakes: RefCell::default() };
        let (root, syntax) = DeTable::parse_recoverable(&self.text);
        for error in &syntax {
            let offset = error.span().map_or(0, |span| span.start);
            ledger.report(offset, "", error.message(), "write valid TOML (https://toml.io)");
        }
        let mut resolved = None;
        if syntax.is_empty() {
            resolved = read(&Table::new(&ledger, root.get_ref(), String::new(), 0));
        }
        let mut mistakes = ledger.mistakes.into_inner();
        mistakes.sort_by_key(|mistake| mistake.line);
        match resolved {
            Some(resolved) if mistakes.is_empty() => Ok(resolved),
            _ => Err(mistakes),
        }
    }
}

/// Collects the mistakes.
pub(crate) struct Ledger<'d> {
    document: &'d Document,
    mistakes: RefCell<Vec<ConfigError>>,
}

impl Ledger<'_> {
    /// The folder that paths in the file are relative to.
    pub(crate) fn folder(&self) -> &Path {
        &self.document.folder
    }

    /// Notes a mistake at a place in the text, unless there are too many already.
    pub(crate) fn report(
        &self,
        offset: usize,
        key: &str,
        problem: impl Display,
        remedy: impl Display,
    ) {
        let mut mistakes = self.mistakes.borrow_mut();
        if mistakes.len() >= MISTAKES_MAX {
            return;
        }
        let before = self.document.text.as_bytes().get(..offset).unwrap_or_default();
        mistakes.push(ConfigError {
            file: self.document.file.clone(),
            line: Some(1 + before.iter().filter(|byte| **byte == b'\n').count()),
            key: key.to_owned(),
            problem: problem.to_string(),
            remedy: remedy.to_string(),
        });
    }
}

//! Reading configuration files with errors that name file, line, key and remedy.
//!
//! A file is read once, into a [`Document`]; [`Document::resolve`] hands its top [`Table`] to a function that takes
//! every value by a typed getter. A getter that meets a mistake reports it and goes on, so one run tells all of them.
//! What comes out is the resolved configuration, which cannot be invalid.

mod error;
pub mod exit;
mod net;
mod table;
mod text;

pub use error::{ConfigError, MISTAKES_MAX};
pub use net::{Endpoint, Network, NoNetwork};
pub use table::{Document, FILE_BYTES_MAX, Table, Value};
pub use text::{check_name, check_need, closest, duration, duration_text, size, size_text};

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests;

//! Reading configuration files with errors that name file, line, key and remedy.
//!
//! A file is read once, into a [`Document`]; [`Document::resolve`] hands its top [`Table`] to a function that takes
//! every value by a typed getter. A getter that meets a mistake reports it and goes on, so one run tells all of them.
//! What comes out is the resolved configuration, which cannot be invalid.

mod document;
mod error;
pub mod exit;
mod metrics;
mod net;
mod table;
mod text;
mod value;

pub use document::{Document, FILE_BYTES_MAX};
pub use error::{ConfigError, MISTAKES_MAX};
pub use metrics::{METRICS, metrics};
pub use net::{Endpoint, Network, NoNetwork};
pub use table::Table;
pub use text::{check_name, check_need, closest, duration, duration_text, size, size_text};
pub use value::Value;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests fail by panicking")]
mod tests;

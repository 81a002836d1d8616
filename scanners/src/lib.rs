//! Modules that workers run on messages.
//!
//! [`api`] says what a module is, [`registry`] makes modules from their configuration, [`unpack`] takes messages
//! apart under one budget, and each further folder is one module.

pub mod api;
pub mod clamd;
pub mod command;
pub mod registry;
#[cfg(any(test, feature = "testkit"))]
pub mod testkit;
pub mod unpack;
pub mod yara;

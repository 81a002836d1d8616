//! The exit codes of `gantry`.

pub use gantry_config::exit::*;

//! The exit codes of `gantry-hook`.

pub use gantry_config::exit::*;

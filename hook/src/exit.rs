//! How `gantry-hook` ends.

pub use gantry_config::exit::*;

//! How `gantry` ends.

pub use gantry_config::exit::*;

//! What both daemons need of the platform: signals and the log. What is particular to a platform stands here.

pub mod log;
pub mod signals;

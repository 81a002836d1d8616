//! What both daemons need of the platform and of those who look after them: signals, the log, metrics. What is
//! particular to a platform stands here.

pub mod crash;
pub mod lines;
pub mod log;
pub mod metrics;
pub mod signals;

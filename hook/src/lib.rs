//! The hook: takes messages in on the mail host, serves them to workers, applies what comes back.

pub mod cli;
pub mod config;
pub mod disk;
pub mod exit;
pub mod intake;
pub mod release;
pub mod spool;

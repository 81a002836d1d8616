//! The hook: takes messages in on the mail host, serves them to workers, applies what comes back.

pub mod disk;
pub mod spool;

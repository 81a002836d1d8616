//! The hook: takes messages in on the mail host, serves them to workers, applies what comes back.

pub mod admin;
pub mod audit;
pub mod cli;
pub mod commands;
pub mod config;
pub mod disk;
mod dots;
pub mod exit;
pub mod intake;
pub mod journal;
pub mod local;
pub mod release;
pub mod service;
pub mod spool;
pub mod tls;

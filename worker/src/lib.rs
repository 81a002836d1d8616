//! The worker: grabbers, pipeline, and what operators need.
pub mod demo;
pub mod cli;
pub mod config;
pub mod exit;

//! The worker: grabbers, pipeline, and what operators need.

pub mod cli;
pub mod config;
pub mod demo;
pub mod exit;

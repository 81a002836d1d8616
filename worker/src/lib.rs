//! The worker: grabbers, pipeline, and what operators need.

pub mod cli;
pub mod commands;
pub mod config;
pub mod demo;
pub mod exit;
pub mod operator;
pub mod pipeline;
pub mod policy;
pub mod service;

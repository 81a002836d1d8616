//! The worker: grabbers, pipeline, and what operators need.

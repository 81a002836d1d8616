//! Real processes: hooks, workers, clamd and Postfix, with mail from one end to the other.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they skip"
)]

mod backlog;
mod bad_worker;
mod certificates;
mod clamd;
mod corpus;
mod demo;
mod dialling;
mod drain;
mod enrolment;
mod faults;
mod notices;
mod observe;
mod operation;
mod operators;
mod overload;
mod parts;
mod policies;
mod postfix;
mod room;
mod stalled;
mod topologies;
mod true_path;
mod ways;
mod weather;

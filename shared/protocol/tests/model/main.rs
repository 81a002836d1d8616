//! The pool against a simple reference: whatever happens in whatever order, no message is lost, doubled or let through, and
//! once the world is kind for long enough every message comes to its end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod ops;
mod pool;
mod reference;
mod world;

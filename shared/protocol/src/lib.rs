//! What hook and workers say to each other, and the state machines on both sides.
//!
//! Pure: no I/O, no clock, no randomness. Time comes in as a [`time::Moment`]; what is to be done comes out as data.

pub mod frame;
pub mod grabber;
pub mod id;
pub mod limits;
pub mod monitor;
pub mod policy;
pub mod pool;
pub mod profile;
pub mod spread;
pub mod text;
pub mod time;
pub mod timer;
pub mod verdict;

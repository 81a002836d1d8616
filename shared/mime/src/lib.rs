//! A MIME walk by byte offset (RFC 2045, 2046, 2231), for looking at mail, never for rewriting it.
//!
//! [`Parts`] gives every part of a message as ranges of its bytes; [`base64`], [`quoted_printable`] and
//! [`uuencode`] decode what they hold. Mail readers disagree about malformed MIME, and attackers live on the
//! disagreement. So where a message can be read in more than one way, it is walked in each of them (a
//! [`Reading`]), and a part is given if any of the readings has it. Nothing is ever refused.
//!
//! Pure: no clock, no files. The machine's stack does not grow with the message, one walk takes time linear in
//! the message (times the depth, at worst), and there are at most [`READINGS_MAX`] of them.

mod decode;
mod header;
mod parameter;
mod parts;
mod reading;
mod uuencode_blocks;
mod walk;

#[cfg(test)]
mod corpus_tests;

pub use decode::{Decoded, base64, quoted_printable};
pub use header::{Encoding, looks_like_message};
pub use parts::Parts;
pub use reading::{READINGS_MAX, Reading};
pub use uuencode_blocks::{UuBlock, uuencode};
pub use walk::{DEPTH_LIMIT, Kind, Limits, Part, Walk};

/// The bytes in `range`, or none where it does not fit: offsets come from the same bytes, and if they ever did
/// not, an empty part is better than a dead worker.
fn slice(bytes: &[u8], range: std::ops::Range<usize>) -> &[u8] {
    bytes.get(range).unwrap_or_default()
}

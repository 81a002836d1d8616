//! What must hold whatever bytes come. A target takes any bytes, does with them what the product does with those of
//! strangers, and panics where something is not as it must be.
//!
//! `tests/fuzz` runs them under cargo-fuzz, which looks for such bytes; the test `corpus` of gantry-tests runs them on
//! the bytes that were worth keeping. They see the products' crates as everybody does, but for the modules named
//! `testkit`, behind a feature that nothing installed has.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a target fails by panicking"
)]

mod clamd;
mod frames;
mod header;
mod mime;
mod peer;
mod pool;
mod smtp;
mod spool;
mod unpack;

/// A target, by its name.
pub type Target = (&'static str, fn(&[u8]));

/// Every target. `tests/fuzz` has a program for each.
pub const TARGETS: &[Target] = &[
    ("bad_host", peer::frames_from_a_host),
    ("bad_worker", peer::frames_from_a_worker),
    ("clamd", clamd::replies),
    ("frames", frames::frames),
    ("header", header::header),
    ("mime", mime::walk),
    ("pool", pool::operations),
    ("smtp_commands", smtp::commands),
    ("smtp_data", smtp::data),
    ("spool", spool::folder),
    ("spool_names", spool::names),
    ("spool_records", spool::records),
    ("unpack", unpack::unpack_anything),
];

/// Runs a target on some bytes.
///
/// # Panics
/// Where there is no target of this name, and where the target does.
pub fn run(name: &str, bytes: &[u8]) {
    let (_, target) = TARGETS.iter().find(|(known, _)| *known == name).expect("a target");
    target(bytes);
}

/// Pieces of `bytes`, cut where the bytes of `cuts` say: each piece is so many bytes longer than none.
fn pieces<'a>(bytes: &'a [u8], cuts: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut rest = bytes;
    let mut cuts = cuts.iter().cycle();
    std::iter::from_fn(move || {
        let length = cuts.next().map_or(rest.len(), |cut| usize::from(*cut).clamp(1, 64));
        let (piece, behind) = rest.split_at(length.min(rest.len()));
        rest = behind;
        (!piece.is_empty()).then_some(piece)
    })
}

/// The first bytes, as many as the first of them says (at most 16), and the others.
fn with_cuts(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((count, rest)) = bytes.split_first() else { return (&[], &[]) };
    rest.split_at(usize::from(count % 17).min(rest.len()))
}

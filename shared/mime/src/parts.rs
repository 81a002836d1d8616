//! The parts of a message in every reading that makes sense.

use std::{collections::HashSet, ops::Range};

use crate::{Encoding, Kind, Limits, Part, Reading, Walk};

/// The parts of a message: first those of the strict reading, then what other readings have beside them.
///
/// A part that several readings have is given once.
#[derive(Debug)]
pub struct Parts<'a> {
    bytes: &'a [u8],
    /// Set if the bytes are a multipart's body and no whole message.
    boundary: Option<Vec<u8>>,
    limits: Limits,
    walk: Walk<'a>,
    tried: Vec<Reading>,
    points: Reading,
    seen: HashSet<(Kind, Range<usize>, Vec<Encoding>)>,
    too_many: bool,
}

impl<'a> Parts<'a> {
    /// The parts of a message. [`Limits::parts_max`] holds for all readings together.
    pub fn of_message(bytes: &'a [u8], limits: Limits) -> Self {
        Self::new(bytes, None, limits)
    }

    /// The parts of a multipart's decoded body.
    pub fn of_multipart(bytes: &'a [u8], boundary: Vec<u8>, limits: Limits) -> Self {
        Self::new(bytes, Some(boundary), limits)
    }

    fn new(bytes: &'a [u8], boundary: Option<Vec<u8>>, limits: Limits) -> Self {
        let walk = walk(bytes, boundary.as_deref(), Reading::STRICT, limits);
        Self {
            bytes,
            boundary,
            limits,
            walk,
            tried: vec![Reading::STRICT],
            points: Reading::STRICT,
            seen: HashSet::new(),
            too_many: false,
        }
    }

    /// Readings begun so far; 1 at the end if there is nothing to disagree about.
    pub fn readings(&self) -> usize {
        self.tried.len()
    }

    /// Whether some parts were left out because of [`Limits::parts_max`].
    pub fn too_many(&self) -> bool {
        self.too_many
    }
}

impl Iterator for Parts<'_> {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        loop {
            if let Some(part) = self.walk.next() {
                let key = (part.kind, part.body.clone(), part.encodings.clone());
                if self.seen.contains(&key) {
                    continue;
                }
                if self.seen.len() >= usize::try_from(self.limits.parts_max).unwrap_or(usize::MAX) {
                    self.too_many = true;
                    return None;
                }
                self.seen.insert(key);
                return Some(part);
            }
            self.too_many |= self.walk.too_many();
            self.points.add(self.walk.points());
            let reading =
                self.points.alternatives().find(|reading| !self.tried.contains(reading))?;
            self.tried.push(reading);
            self.walk = walk(self.bytes, self.boundary.as_deref(), reading, self.limits);
        }
    }
}

fn walk<'a>(
    bytes: &'a [u8],
    boundary: Option<&[u8]>,
    reading: Reading,
    limits: Limits,
) -> Walk<'a> {
    match boundary {
        Some(boundary) => Walk::multipart(bytes, boundary.to_vec(), reading, limits),
        None => Walk::message(bytes, reading, limits),
    }
}

//! Everything a message contains, one piece after the other: MIME parts, nested messages, uuencoded blocks,
//! zip entries and gzip streams, and what is inside those, under one budget for the whole message.
//!
//! A scanner that misses a part is worse than one that looks twice. Where mail readers disagree about what a
//! message says, every reading is taken; bytes that could not be looked at end as a [`Remark`], never as silence.

mod archive;
mod budget;
mod inflate;
mod walker;
mod zip;

#[cfg(test)]
mod tests;

use std::{ops::ControlFlow, time::Duration};

use walker::Walker;

/// What one message may cost. All bounds hold for the message as a whole, however deep a piece lies.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of all pieces beside the message itself, counted as they are made; what an archive says of its size
    /// is ignored. This is also the memory that unpacking may use.
    pub bytes_max: u64,
    /// How many times its own size an archive may grow (a first MiB is always allowed).
    pub ratio_max: u32,
    /// MIME parts and archive entries in total.
    pub entries_max: u32,
    /// Containers within containers: multiparts, nested messages, archives.
    pub depth_max: u16,
    /// Time for the whole of it, the visitor's own work included; looked at between pieces and while inflating.
    pub time_max: Duration,
}

/// Far above what mail that people send needs, and what a worker can spend on one message.
impl Default for Limits {
    fn default() -> Self {
        Self {
            bytes_max: 256 << 20,
            ratio_max: 250,
            entries_max: 10_000,
            depth_max: 32,
            time_max: Duration::from_secs(60),
        }
    }
}

/// What a piece is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The whole message as it came, header block included. Always the first piece.
    Message,
    /// The content of a MIME part, decoded.
    Part,
    /// The content of a MIME part as it stands in the message, where its decoding left doubts.
    Undecoded,
    /// What stands before the first boundary of a multipart.
    Preamble,
    /// What stands after a multipart's end.
    Epilogue,
    /// A uuencoded block.
    Uuencoded,
    /// The content of an archive's entry.
    Entry,
}

/// Bytes to scan.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// Where the piece was found, for people: `2/1/eicar.zip/eicar.com`. Comes from the sender, so it is personal
    /// data and not to be trusted; control characters are replaced and its length is bounded.
    pub path: &'a str,
    /// The bytes; never empty.
    pub bytes: &'a [u8],
    /// What they are.
    pub kind: Kind,
    /// False if the piece was cut short by the budget or by damage.
    pub whole: bool,
}

/// Why something in the message was not looked at. Starts with the path of the piece concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Remark {
    /// A limit was reached.
    OverBudget(String),
    /// An archive is damaged, and what could be read of it has been.
    Malformed(String),
    /// A key would be needed.
    Encrypted(String),
    /// An archive uses a compression method that is not known here.
    Unknown(String),
}

/// What became of a message.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Pieces that the visitor was shown.
    pub pieces: u64,
    /// Bytes in these, the message itself not counted.
    pub bytes: u64,
    /// Ways in which the message's MIME structure was read; 1 if all mail readers should agree about it.
    pub readings: u32,
    /// The visitor broke off, so that the rest was not looked at.
    pub stopped: bool,
    /// What was not looked at: the first [`REMARKS_MAX`] of them, with at least one of each kind that occurred.
    pub remarks: Vec<Remark>,
    /// Remarks beyond those.
    pub remarks_dropped: u32,
}

/// Shows `visit` every piece of a message until it breaks, the budget is used up, or all has been seen.
///
/// The message as it came is the first piece. What lies deeper comes after what lies above it, so that an archive
/// that uses up the budget does not hide what stands beside it. Never fails: what could not be looked at is in the
/// report. Blocks; made for a thread of its own.
pub fn unpack(
    message: &[u8],
    limits: &Limits,
    visit: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
) -> Report {
    Walker::new(limits, visit).run(message)
}

/// Remarks kept of one message; a hostile one can cause any number.
pub const REMARKS_MAX: usize = 64;

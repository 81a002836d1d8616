//! Decompression that makes no more than it is told to, and looks at the clock.

use std::io::{ErrorKind, Read};

use flate2::{Decompress, FlushDecompress, Status, bufread::MultiGzDecoder};

/// Output made between two looks at the limits.
const STEP_BYTES: usize = 64 * 1024;

/// Why decompression ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The stream was complete.
    Complete,
    /// The stream is damaged or cut short.
    Damaged,
    /// There would have been more than was allowed.
    Full,
    /// The clock said so.
    Late,
}

/// What came out.
#[derive(Debug)]
pub(super) struct Inflated {
    pub(super) bytes: Vec<u8>,
    /// Bytes of input used.
    pub(super) used: usize,
    pub(super) end: End,
}

/// Inflates a raw deflate stream (RFC 1951) that starts `input`, to at most `bytes_max` bytes.
pub(super) fn inflate(input: &[u8], bytes_max: usize, late: &dyn Fn() -> bool) -> Inflated {
    let mut stream = Decompress::new(false);
    let mut bytes = Vec::new();
    let mut step = vec![0; STEP_BYTES];
    let end = loop {
        if late() {
            break End::Late;
        }
        let (used, made) = (stream.total_in(), stream.total_out());
        let rest = usize::try_from(used).ok().and_then(|used| input.get(used..));
        let status = stream.decompress(rest.unwrap_or_default(), &mut step, FlushDecompress::None);
        // An error loses what that step made before it, unless the counters tell.
        let new = usize::try_from(stream.total_out() - made).unwrap_or(STEP_BYTES);
        if !append(&mut bytes, step.get(..new).unwrap_or_default(), bytes_max) {
            break End::Full;
        }
        match status {
            Ok(Status::StreamEnd) => break End::Complete,
            Err(_) => break End::Damaged,
            Ok(_) if stream.total_in() == used && new == 0 => break End::Damaged,
            Ok(_) => {}
        }
    };
    Inflated { bytes, used: usize::try_from(stream.total_in()).unwrap_or(usize::MAX), end }
}

/// Decompresses the gzip members (RFC 1952) that start `input`, to at most `bytes_max` bytes.
pub(super) fn gunzip(input: &[u8], bytes_max: usize, late: &dyn Fn() -> bool) -> Inflated {
    let mut stream = MultiGzDecoder::new(input);
    let mut bytes = Vec::new();
    let mut step = vec![0; STEP_BYTES];
    let end = loop {
        if late() {
            break End::Late;
        }
        match stream.read(&mut step) {
            Ok(0) => break End::Complete,
            Ok(new) => {
                if !append(&mut bytes, step.get(..new).unwrap_or_default(), bytes_max) {
                    break End::Full;
                }
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break End::Damaged,
        }
    };
    Inflated { bytes, used: input.len(), end }
}

/// Appends as much as is allowed; false if that was not all.
fn append(bytes: &mut Vec<u8>, new: &[u8], bytes_max: usize) -> bool {
    let room = bytes_max - bytes.len();
    bytes.extend_from_slice(new.get(..room).unwrap_or(new));
    new.len() <= room
}

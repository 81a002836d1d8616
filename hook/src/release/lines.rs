//! Line ends of messages that leave for a program or a folder of this machine.

use super::letter::Encoding;
use crate::local::crlf_to_lf;

/// How lines end in a file or on a program's standard input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEnds {
    /// As in SMTP: every byte leaves as it is.
    Crlf,
    /// Each CRLF becomes LF, which is what Unix programs and Maildirs have.
    Lf,
}

/// Writes a message with such line ends.
#[derive(Debug)]
pub(super) struct Lines {
    ends: LineEnds,
    pending_cr: bool,
}

impl Lines {
    pub(super) fn new(ends: LineEnds) -> Self {
        Self { ends, pending_cr: false }
    }
}

impl Encoding for Lines {
    fn push(&mut self, message: &[u8], out: &mut Vec<u8>) {
        match self.ends {
            LineEnds::Crlf => out.extend_from_slice(message),
            LineEnds::Lf => crlf_to_lf(message, &mut self.pending_cr, out),
        }
    }

    fn finish(self, out: &mut Vec<u8>) {
        if self.pending_cr {
            out.push(b'\r');
        }
    }
}

//! Finds the end of the header block while a message comes in.

use super::{HEADER_BLOCK_BYTES_MAX, is_blank, is_mailbox_separator, is_name_byte};

/// Most `X-Gantry-Trace` fields that are kept, from the top. A host removes all of them and adds one, so that only its
/// own stands there when a message comes back.
pub const TRACES_MAX: usize = 16;
/// Longest value that is kept (a trace, the Message-ID), in bytes without its folds. Longer ones count as absent: none
/// that a Gantry wrote is half as long, and RFC 5322, 2.1.1 allows a line of 998.
pub const VALUE_BYTES_MAX: usize = 998;
/// The longest name that the scanner has to know: `X-Gantry-Trace`.
const NAME_BYTES_KEPT: usize = 14;

/// What a header block says that a hook has to know.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// Length of the block in bytes, with the empty line if there is one: the body starts here.
    pub length: usize,
    /// How many `Received` fields there are.
    pub received: usize,
    /// The values of the first [`TRACES_MAX`] `X-Gantry-Trace` fields, unfolded and trimmed.
    pub traces: Vec<Vec<u8>>,
    /// The value of the first `Message-ID`, unfolded and trimmed; at most [`VALUE_BYTES_MAX`] bytes.
    pub message_id: Option<Vec<u8>>,
}

/// The header block exceeds [`HEADER_BLOCK_BYTES_MAX`]. The sender is at fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("scan header block: it has more than {HEADER_BLOCK_BYTES_MAX} bytes")]
pub struct HeaderTooLong;

/// Reads the start of a message in pieces of any size. It takes no byte behind the block's end into account, but
/// to know a line that is no field it has to see that line up to the first byte that no name can have.
#[derive(Clone, Debug, Default)]
pub struct HeaderScanner {
    header: Header,
    state: State,
    /// Bytes taken so far.
    offset: usize,
    /// Where the current line began.
    line: usize,
    /// The start of the current line's name, one byte longer than any we know.
    name: Vec<u8>,
    /// The value being kept.
    value: Option<Kept>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    LineStart,
    /// A CR stands at the line's start: an LF makes it the empty line.
    LineStartCr,
    Name,
    /// White space after the name; `separator`: it began with the space of a mailbox separator.
    NameBlank {
        separator: bool,
    },
    Value {
        cr: bool,
    },
    Ended,
}

#[derive(Clone, Debug)]
struct Kept {
    kind: Kind,
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Trace,
    MessageId,
}

/// Scans a whole message, or its header block, at once.
///
/// # Errors
/// [`HeaderTooLong`] as in [`HeaderScanner::push`].
pub fn scan(message: &[u8]) -> Result<Header, HeaderTooLong> {
    let mut scanner = HeaderScanner::new();
    scanner.push(message)?;
    Ok(scanner.finish())
}

impl HeaderScanner {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the next bytes of the message; those behind the header block are ignored. Gives the block's length as
    /// soon as it is known.
    ///
    /// # Errors
    /// [`HeaderTooLong`] once the block exceeds [`HEADER_BLOCK_BYTES_MAX`], and then for ever.
    pub fn push(&mut self, bytes: &[u8]) -> Result<Option<usize>, HeaderTooLong> {
        for &byte in bytes {
            if self.state == State::Ended {
                break;
            }
            if self.offset == HEADER_BLOCK_BYTES_MAX {
                return Err(HeaderTooLong);
            }
            self.state = self.take(byte);
            self.offset += 1;
        }
        Ok(self.end())
    }

    /// The length of the header block, once its end has been seen.
    pub fn end(&self) -> Option<usize> {
        (self.state == State::Ended).then_some(self.header.length)
    }

    /// The message is over, or nothing below the block is of interest. Where no end was seen, all whole fields
    /// are the block.
    pub fn finish(mut self) -> Header {
        match self.state {
            State::Ended => {}
            State::LineStart | State::Value { .. } => _ = self.end_at(self.offset),
            State::LineStartCr | State::Name | State::NameBlank { .. } => {
                _ = self.end_at(self.line)
            }
        }
        self.header
    }

    fn take(&mut self, byte: u8) -> State {
        match (self.state, byte) {
            (State::LineStart, _) => self.take_line_start(byte),
            (State::LineStartCr, b'\n') => self.end_at(self.offset + 1),
            (State::Name | State::NameBlank { .. }, b':') => self.begin_value(),
            (State::Name, _) if is_name_byte(byte) => {
                if self.name.len() <= NAME_BYTES_KEPT {
                    self.name.push(byte);
                }
                State::Name
            }
            (State::Name, _) if is_blank(byte) => {
                let first = self.line == 0 && byte == b' ';
                State::NameBlank { separator: first && is_mailbox_separator(&self.name) }
            }
            (State::NameBlank { separator }, _) if is_blank(byte) => State::NameBlank { separator },
            (State::Value { cr }, _) => self.take_value(byte, cr),
            (State::NameBlank { separator: true }, _) => self.take_value(byte, false),
            (State::LineStartCr | State::Name | State::NameBlank { .. }, _) => {
                self.end_at(self.line)
            }
            (State::Ended, _) => State::Ended,
        }
    }

    fn take_line_start(&mut self, byte: u8) -> State {
        if is_blank(byte) && self.offset > 0 {
            return self.take_value(byte, false);
        }
        self.line = self.offset;
        match byte {
            b'\r' => State::LineStartCr,
            _ if is_name_byte(byte) => {
                self.end_field();
                self.name.clear();
                self.name.push(byte);
                State::Name
            }
            _ => self.end_at(self.offset),
        }
    }

    fn begin_value(&mut self) -> State {
        let is = |name: &[u8]| self.name.eq_ignore_ascii_case(name);
        let kind = if is(b"Received") {
            self.header.received += 1;
            None
        } else if is(b"X-Gantry-Trace") && self.header.traces.len() < TRACES_MAX {
            Some(Kind::Trace)
        } else if is(b"Message-ID") && self.header.message_id.is_none() {
            Some(Kind::MessageId)
        } else {
            None
        };
        self.value = kind.map(|kind| Kept { kind, bytes: Vec::new() });
        State::Value { cr: false }
    }

    fn take_value(&mut self, byte: u8, cr: bool) -> State {
        if let Some(kept) = &mut self.value
            && kept.bytes.len() <= VALUE_BYTES_MAX
            && byte != b'\r'
            && byte != b'\n'
        {
            kept.bytes.push(byte);
        }
        match byte {
            b'\n' if cr => State::LineStart,
            _ => State::Value { cr: byte == b'\r' },
        }
    }

    fn end_field(&mut self) {
        let Some(Kept { kind, bytes }) = self.value.take() else { return };
        if bytes.len() > VALUE_BYTES_MAX {
            return;
        }
        let value = bytes.trim_ascii().to_vec();
        match kind {
            Kind::Trace => self.header.traces.push(value),
            Kind::MessageId => self.header.message_id = Some(value),
        }
    }

    fn end_at(&mut self, length: usize) -> State {
        self.end_field();
        self.header.length = length;
        State::Ended
    }
}

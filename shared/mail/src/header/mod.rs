//! The header block of a message: where it ends, which fields it has, and how it is changed without touching
//! a byte that is not meant.
//!
//! The block is the run of fields (RFC 5322, 2.2) at the top and the empty line behind them. Lines end with CRLF
//! alone: a CR or LF by itself is an ordinary byte of a value, so that what an intake lets through cannot shift the
//! end. A line that is neither a field nor a continuation ends the block before itself, as it does for
//! Postfix, Sendmail and Exim; a message whose first line is such a line has an empty block. Only a mailbox
//! separator (`From ` or `>From `, as older software leaves it) is tolerated as the very first line.

mod authentication_results;
mod scanner;

use crate::edit::{EditError, HeaderEdit, check_edits};

pub use scanner::{Header, HeaderScanner, HeaderTooLong, TRACES_MAX, VALUE_BYTES_MAX, scan};

/// Largest header block, in bytes with its empty line. The largest in real mail are some 100 KB of lists of
/// recipients; Postfix stops at 100 KiB, Sendmail at 32 KiB.
pub const HEADER_BLOCK_BYTES_MAX: usize = 1024 * 1024;

/// One field, as it stands in the block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field<'a> {
    /// Without white space before the colon. Empty for a mailbox separator.
    pub name: &'a [u8],
    /// What follows the colon, folds and all, without the final CRLF.
    pub value: &'a [u8],
    /// The whole field with all its lines and the final CRLF, if it has one.
    pub raw: &'a [u8],
}

impl Field<'_> {
    /// Whether the field has this name; ASCII case does not matter.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// The fields of a block, from the top. Given a whole message it stops at the end of the header block.
pub fn fields(block: &[u8]) -> impl Iterator<Item = Field<'_>> {
    let mut rest = block;
    let mut first = true;
    std::iter::from_fn(move || {
        let (field, tail) = split_field(rest, first)?;
        (rest, first) = (tail, false);
        Some(field)
    })
}

/// The header block with the edits applied; every other byte is unchanged, and what stands behind the block
/// in `block` is never touched. What the edits add stands on top, in their order; removals apply only to what
/// was there.
///
/// An empty block (see the module's text) gets the empty line it lacks when something is added, since otherwise
/// the body's first line would continue what was added, or pass for a field. A mailbox separator stays above the fields
/// that it came with; readers as strict as this module then take it and what follows for the body.
///
/// # Errors
/// When the edits do not pass [`check_edits`].
pub fn edit(block: &[u8], edits: &[HeaderEdit]) -> Result<Vec<u8>, EditError> {
    check_edits(edits)?;
    let mut edited = Vec::with_capacity(block.len() + 1_024);
    for edit in edits {
        if let HeaderEdit::Prepend { field } = edit {
            edited.extend_from_slice(field.as_bytes());
            edited.extend_from_slice(b"\r\n");
        }
    }
    if block.is_empty() && !edited.is_empty() {
        edited.extend_from_slice(b"\r\n");
    }
    let removed = |field: &Field<'_>| {
        edits.iter().any(|edit| matches!(edit, HeaderEdit::Remove { name } if field.is(name)))
    };
    retain(block, |field| !removed(field), &mut edited);
    Ok(edited)
}

/// The header block of incoming mail without what only this host may say: `X-Gantry`, `X-Gantry-*`, and
/// `Authentication-Results` that claims our `authserv_id` (RFC 8601, 5) or whose id cannot be read.
pub fn strip(block: &[u8], authserv_id: &str) -> Vec<u8> {
    let ours = |field: &Field<'_>| {
        let gantry =
            field.name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case(b"x-gantry"))
                && matches!(field.name.get(8), None | Some(b'-'));
        gantry
            || field.is("Authentication-Results")
                && authentication_results::may_claim(field.value, authserv_id)
    };
    let mut stripped = Vec::with_capacity(block.len());
    retain(block, |field| !ours(field), &mut stripped);
    stripped
}

/// Whether these bytes can name a field (RFC 5322, 2.2: printable ASCII but the colon).
pub(crate) fn is_field_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().copied().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b':'
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

fn is_mailbox_separator(name: &[u8]) -> bool {
    name == b"From" || name == b">From"
}

/// Appends the block to `kept` without the fields that are not to be kept.
fn retain(block: &[u8], keep: impl Fn(&Field<'_>) -> bool, kept: &mut Vec<u8>) {
    let mut length = 0;
    for field in fields(block) {
        length += field.raw.len();
        if keep(&field) {
            kept.extend_from_slice(field.raw);
        }
    }
    kept.extend_from_slice(block.get(length..).unwrap_or_default());
}

/// The field at the start of `bytes` and what follows it; `None` where no field starts.
fn split_field(bytes: &[u8], first: bool) -> Option<(Field<'_>, &[u8])> {
    let name_end = bytes.iter().position(|&byte| !is_name_byte(byte))?;
    let (name, behind) = bytes.split_at_checked(name_end)?;
    let blanks = behind.iter().take_while(|&&byte| is_blank(byte)).count();
    let (raw, tail) = bytes.split_at_checked(field_length(bytes))?;
    let end = raw.strip_suffix(b"\r\n").unwrap_or(raw);
    if !name.is_empty() && behind.get(blanks) == Some(&b':') {
        let value = end.get(name_end + blanks + 1..).unwrap_or_default();
        return Some((Field { name, value, raw }, tail));
    }
    let separator = first && is_mailbox_separator(name) && behind.first() == Some(&b' ');
    // A separator that the message ends within, or that has nothing but blanks, is a line like any other.
    let text = behind.get(blanks).is_some();
    (separator && text).then_some((Field { name: &[], value: end, raw }, tail))
}

/// The length of the lines at the start of `bytes` up to one that does not begin with white space.
fn field_length(bytes: &[u8]) -> usize {
    let mut length = 0;
    let mut rest = bytes;
    while let Some(line_end) = rest.windows(2).position(|pair| pair == b"\r\n") {
        length += line_end + 2;
        rest = bytes.get(length..).unwrap_or_default();
        if !rest.first().copied().is_some_and(is_blank) {
            return length;
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests;

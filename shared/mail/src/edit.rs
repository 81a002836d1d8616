//! Edits of the header block, as data.

use serde::{Deserialize, Serialize};

use crate::header::is_field_name;

/// Most edits in one delivery.
pub const EDITS_MAX: usize = 64;
/// Longest field that an edit may add, in bytes, folds and all.
pub const FIELD_BYTES_MAX: usize = 4_096;
/// Longest line of a field that an edit may add, in bytes without its CRLF (RFC 5322, 2.1.1).
const LINE_BYTES_MAX: usize = 998;

/// One change to the header block. What is added stands on top, in the order given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum HeaderEdit {
    /// A whole field without its final CRLF: `Name: value`, folded with CRLF + white space if need be.
    Prepend { field: String },
    /// Every field of this name goes (ASCII case does not matter). What other edits of the same list add stays.
    Remove { name: String },
}

/// Edits that would not leave a header block behind. Whoever wrote the edits is at fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    #[error("edit header block: {count} edits, more than {EDITS_MAX}")]
    TooMany { count: usize },
    #[error("edit header block: a field of {length} bytes, more than {FIELD_BYTES_MAX}: {start:?}")]
    FieldTooLong { start: String, length: usize },
    #[error("edit header block: a line of more than {LINE_BYTES_MAX} bytes in {start:?}")]
    LineTooLong { start: String },
    #[error("edit header block: {start:?} is no `Name: value`")]
    NoField { start: String },
    #[error("edit header block: {start:?} has a line end that is no fold, or a NUL")]
    BadFold { start: String },
    #[error("edit header block: {start:?} is no name of a field")]
    NoName { start: String },
}

/// Checks edits from outside: what passes can neither end the header block nor smuggle in a second field.
///
/// # Errors
/// The first edit that may not be, with its first 64 characters.
pub fn check_edits(edits: &[HeaderEdit]) -> Result<(), EditError> {
    if edits.len() > EDITS_MAX {
        return Err(EditError::TooMany { count: edits.len() });
    }
    edits.iter().try_for_each(|edit| match edit {
        HeaderEdit::Prepend { field } => check_field(field),
        HeaderEdit::Remove { name } if is_field_name(name.as_bytes()) => Ok(()),
        HeaderEdit::Remove { name } => Err(EditError::NoName { start: start(name) }),
    })
}

fn check_field(field: &str) -> Result<(), EditError> {
    if field.len() > FIELD_BYTES_MAX {
        return Err(EditError::FieldTooLong { start: start(field), length: field.len() });
    }
    let Some((name, _)) = field.split_once(':') else {
        return Err(EditError::NoField { start: start(field) });
    };
    if !is_field_name(name.as_bytes()) {
        return Err(EditError::NoField { start: start(field) });
    }
    for (number, line) in field.split("\r\n").enumerate() {
        let folded = number == 0 || line.starts_with([' ', '\t']);
        // A fold with nothing behind it looks like the end of the block to careless readers.
        let blank = number > 0 && line.trim_matches([' ', '\t']).is_empty();
        if !folded || blank || line.contains(['\r', '\n', '\0']) {
            return Err(EditError::BadFold { start: start(field) });
        }
        if line.len() > LINE_BYTES_MAX {
            return Err(EditError::LineTooLong { start: start(field) });
        }
    }
    Ok(())
}

fn start(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prepend(field: &str) -> Result<(), EditError> {
        check_edits(&[HeaderEdit::Prepend { field: field.into() }])
    }

    #[test]
    fn fields_that_stay_one_field_pass() {
        for good in
            ["X-Gantry: clean", "X-Gantry:", "X-Gantry: a\r\n b\r\n\tc", "Subject: gr\u{fc}n"]
        {
            assert_eq!(prepend(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn a_field_cannot_smuggle() {
        for (bad, is_fold) in [
            ("X-Gantry clean", false),
            ("X Gantry: clean", false),
            (": clean", false),
            ("", false),
            ("X-Gantry: a\r\nSubject: b", true),
            ("X-Gantry: a\r\n\r\nbody", true),
            ("X-Gantry: a\r\n", true),
            ("X-Gantry: a\r\n \t", true),
            ("X-Gantry: a\n b", true),
            ("X-Gantry: a\r b", true),
            ("X-Gantry: a\0b", true),
        ] {
            match prepend(bad) {
                Err(EditError::BadFold { .. }) => assert!(is_fold, "{bad:?}"),
                Err(EditError::NoField { .. }) => assert!(!is_fold, "{bad:?}"),
                other => panic!("{bad:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn bounds_hold_at_their_edges() {
        let line = format!("X: {}", "a".repeat(LINE_BYTES_MAX - 3));
        assert_eq!(prepend(&line), Ok(()));
        assert!(matches!(prepend(&format!("{line}a")), Err(EditError::LineTooLong { .. })));

        let fold = format!("\r\n {}", "a".repeat(900));
        let long = format!("X: {}", fold.repeat(5));
        assert!(matches!(prepend(&long), Err(EditError::FieldTooLong { length: 4518, .. })));

        let remove = HeaderEdit::Remove { name: "Subject".into() };
        assert_eq!(check_edits(&vec![remove.clone(); EDITS_MAX]), Ok(()));
        assert_eq!(
            check_edits(&vec![remove; EDITS_MAX + 1]),
            Err(EditError::TooMany { count: EDITS_MAX + 1 })
        );
        let no_name = HeaderEdit::Remove { name: "Subject:".into() };
        assert!(matches!(check_edits(&[no_name]), Err(EditError::NoName { .. })));
    }
}

//! Sentences for people, within their bound.

use crate::limits::TEXT_BYTES_MAX;

/// Cuts a text to [`TEXT_BYTES_MAX`] bytes at a character's end and turns control characters into spaces, so that
/// what a peer says cannot forge a log line.
pub fn bounded(text: impl Into<String>) -> String {
    let mut text: String = text.into();
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
    }
    if text.chars().any(char::is_control) {
        text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_cut_between_characters_and_loses_its_controls() {
        let long = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(bounded(long).len(), TEXT_BYTES_MAX);
        assert_eq!(bounded("a\r\nb\u{7f}"), "a  b ");
    }
}

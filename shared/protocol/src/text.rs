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

/// Marks a part of a sentence that is the mail's own, such as the name of an attachment, so that [`discreet`] finds it.
pub fn private(part: &str) -> String {
    let inner: String =
        part.chars().map(|c| if matches!(c, '‹' | '›') { '\'' } else { c }).collect();
    format!("‹{inner}›")
}

/// A sentence as it may stand in a log above DEBUG: without what [`private`] marks, and without addresses.
pub fn discreet(sentence: &str) -> String {
    let mut open = false;
    let mut kept = String::with_capacity(sentence.len());
    for c in sentence.chars() {
        match c {
            '‹' => {
                open = true;
                kept.push_str("‹…›");
            }
            '›' => open = false,
            // What was cut off within a mark has no end, and stays out.
            c if !open => kept.push(c),
            _ => {}
        }
    }
    if !kept.contains('@') {
        return kept;
    }
    let words = kept.split(' ').map(|word| if word.contains('@') { "<…>" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_discreet_sentence_has_neither_attachments_names_nor_addresses() {
        let name = private("pay ‹roll›.zip");
        assert_eq!(name, "‹pay 'roll'.zip›");
        let sentence = format!("{name}: damaged; 550 <bob@example.com> unknown");
        assert_eq!(discreet(&sentence), "‹…›: damaged; 550 <…> unknown");
        assert_eq!(discreet("‹pay rol"), "‹…›");
        assert_eq!(discreet("3 attempts came to nothing"), "3 attempts came to nothing");
    }

    #[test]
    fn a_text_is_cut_between_characters_and_loses_its_controls() {
        let long = "é".repeat(TEXT_BYTES_MAX);
        assert_eq!(bounded(long).len(), TEXT_BYTES_MAX);
        assert_eq!(bounded("a\r\nb\u{7f}"), "a  b ");
    }
}

//! Folding of what we write ourselves (RFC 5322, 2.2.3).

/// Longest line that folding aims at, in characters without CRLF (RFC 5322, 2.1.1).
const COLUMNS: usize = 78;

/// `start` and the words behind it, with a space before each word or, where the line would get too long, a fold.
/// A word is never split, so that a line of one long word may exceed 78.
pub(crate) fn fold<'a>(start: &str, words: impl IntoIterator<Item = &'a str>) -> String {
    let mut folded = start.to_owned();
    let mut column = start.chars().count();
    let mut begun = false;
    for word in words.into_iter().filter(|word| !word.is_empty()) {
        let width = word.chars().count();
        // The first word stays beside the name where it can: some readers trip over an empty first line.
        if column + 1 + width > COLUMNS && begun {
            folded.push_str("\r\n ");
            column = 1;
        } else {
            folded.push(' ');
            column += 1;
        }
        folded.push_str(word);
        column += width;
        begun = true;
    }
    folded
}

/// `text` on one line of printable ASCII: runs of white space and control characters become one space,
/// anything else `?`. At most `bytes_max` bytes.
pub(crate) fn one_line(text: &str, bytes_max: usize) -> String {
    let printable = |character: char| if character.is_ascii_graphic() { character } else { '?' };
    let blank = |character: char| character.is_whitespace() || character.is_control();
    let words = text.split(blank).filter(|word| !word.is_empty());
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push(' ');
        }
        line.extend(word.chars().map(printable));
        if line.len() > bytes_max {
            break;
        }
    }
    line.truncate(bytes_max);
    line.truncate(line.trim_end().len());
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folds_between_words_only() {
        let long = "w".repeat(100);
        let folded = fold("Name:", ["aa", &"b".repeat(69), &"c".repeat(76), &long, "d", "", "e"]);
        let lines: Vec<&str> = folded.split("\r\n").collect();
        let widths: Vec<usize> = lines.iter().map(|line| line.len()).collect();
        assert_eq!(widths, [78, 77, 101, 4], "{folded}");
        assert_eq!(lines.last(), Some(&" d e"));
    }

    #[test]
    fn one_line_is_one_line() {
        assert_eq!(
            one_line("550 5.1.1 no\r\n such\t user \u{fc}\0x", 99),
            "550 5.1.1 no such user ? x"
        );
        assert_eq!(one_line(" \r\n ", 99), "");
        assert_eq!(one_line("aaa bbb", 4), "aaa");
    }
}

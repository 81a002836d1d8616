//! Masks for addresses and names.

/// Text in which `*` stands for any run of characters. Letters match without regard to case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Lower-case.
    text: Vec<char>,
}

impl Mask {
    pub fn new(text: &str) -> Self {
        let mut characters: Vec<char> = text.to_lowercase().chars().collect();
        characters.dedup_by(|one, other| *one == '*' && *other == '*');
        Self { text: characters }
    }

    /// Whether all of `text`, which is lower-case, is as the mask says. Looks back to the last `*` alone, so it takes
    /// at most length times length.
    pub fn matches(&self, text: &str) -> bool {
        let mut rest = text.chars();
        let mut at = 0;
        // Where the last `*` stands in the mask, and the text that it has not yet taken.
        let mut star: Option<(usize, std::str::Chars<'_>)> = None;
        loop {
            let before = rest.clone();
            match (self.text.get(at), rest.next()) {
                (Some('*'), _) => {
                    rest = before.clone();
                    star = Some((at, before));
                    at += 1;
                }
                (Some(wanted), Some(character)) if *wanted == character => at += 1,
                (None, None) => return true,
                _ => {
                    let Some((place, taken)) = &mut star else { return false };
                    if taken.next().is_none() {
                        return false;
                    }
                    (at, rest) = (*place + 1, taken.clone());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn masks() {
        for (mask, text) in [
            ("*", ""),
            ("*", "anything"),
            ("A*", "abc"),
            ("*c", "abc"),
            ("a*c", "ac"),
            ("a**c", "abbc"),
            ("*ab*ab", "abxabab"),
            ("*@*.example.com", "u@mail.example.com"),
            ("", ""),
            ("ß", "ß"),
        ] {
            assert!(Mask::new(mask).matches(text), "{mask} {text}");
        }
        for (mask, text) in [
            ("", "a"),
            ("a", ""),
            ("a*c", "acb"),
            ("*@*.example.com", "u@example.com"),
            ("a*b*c", "acb"),
            ("abc", "ab"),
        ] {
            assert!(!Mask::new(mask).matches(text), "{mask} {text}");
        }
    }

    proptest! {
        /// As a plain recursion over the same two texts decides.
        #[test]
        fn masks_as_the_definition_says(mask in "[ab*]{0,8}", text in "[ab]{0,8}") {
            fn model(mask: &[u8], text: &[u8]) -> bool {
                match (mask.split_first(), text.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) if model(rest, text) => true,
                    (Some((b'*', _)), Some((_, text))) => model(mask, text),
                    (Some((a, mask)), Some((b, text))) if a == b => model(mask, text),
                    _ => false,
                }
            }
            prop_assert_eq!(Mask::new(&mask).matches(&text), model(mask.as_bytes(), text.as_bytes()));
        }
    }
}

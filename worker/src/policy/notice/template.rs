//! Text with named fields: `{sender}`, and `{{` and `}}` for the braces themselves.

use std::collections::BTreeMap;

use gantry_config::closest;

/// Every field, and what it stands for; `docs/policy.md` has them, too.
pub const FIELDS: &[&str] = &[
    "id",
    "mailbox",
    "sender",
    "recipients",
    "subject",
    "size",
    "client",
    "answer",
    "reason",
    "findings",
    "rules",
    "worker",
];

/// What the fields stand for in one notice. A missing one is empty.
pub(super) type Values = BTreeMap<&'static str, String>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field(&'static str),
}

impl Template {
    /// # Errors
    /// What is wrong, as half a sentence, with the remedy where one can be guessed.
    pub(in crate::policy) fn parse(text: &str) -> Result<Self, String> {
        let (mut pieces, mut plain) = (Vec::new(), String::new());
        let mut rest = text.chars();
        let mut line = 1;
        while let Some(character) = rest.next() {
            line += usize::from(character == '\n');
            match character {
                '{' | '}' if rest.as_str().starts_with(character) => {
                    rest.next();
                    plain.push(character);
                }
                '}' => return Err(format!("line {line} of it has a }} without a {{; write }}}}")),
                '{' => {
                    let ended = rest.as_str().split_once(['{', '}']).filter(|(name, _)| {
                        rest.as_str().as_bytes().get(name.len()) == Some(&b'}')
                    });
                    let Some((name, behind)) = ended else {
                        return Err(format!("line {line} of it has a {{ without a }}; write {{{{"));
                    };
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(Piece::Field(field(name, line)?));
                    rest = behind.chars();
                }
                other => plain.push(other),
            }
        }
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self(pieces))
    }

    /// With the fields filled in, and cut off after so many bytes.
    pub(super) fn fill(&self, values: &Values, bytes_max: usize) -> String {
        let mut filled = String::new();
        for piece in &self.0 {
            filled.push_str(match piece {
                Piece::Text(text) => text,
                Piece::Field(name) => values.get(name).map_or("", String::as_str),
            });
        }
        if filled.len() > bytes_max {
            filled.truncate(cut(&filled, bytes_max.saturating_sub(3)).len());
            filled.push_str("...");
        }
        filled
    }
}

/// As many whole characters as fit.
pub(super) fn cut(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

fn field(name: &str, line: usize) -> Result<&'static str, String> {
    let known = FIELDS.iter().find(|field| **field == name);
    known.copied().ok_or_else(|| {
        let remedy = match closest(name, FIELDS.iter().copied()) {
            Some(meant) => format!("did you mean {{{meant}}}?"),
            None => format!("there are {}", FIELDS.join(", ")),
        };
        let name: String = name.chars().take(40).collect();
        format!("line {line} of it has {{{name}}}, which is no field: {remedy}")
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn fields_are_filled_in_and_nothing_in_them_is_a_field() {
        let values = Values::from([("sender", "{recipients}".to_owned())]);
        let template = Template::parse("from {sender}, {{sender}} {subject}.").unwrap();
        assert_eq!(template.fill(&values, 100), "from {recipients}, {sender} .");
        assert_eq!(template.fill(&values, 10), "from {r...");
        assert_eq!(Template::parse("ä{sender}").unwrap().fill(&values, 4), "...");
    }

    #[test]
    fn mistakes_name_the_line_and_what_was_meant() {
        for (text, said) in [
            ("a\n{sendr}", "line 2 of it has {sendr}, which is no field: did you mean {sender}?"),
            ("{colour of the sky}", "there are id, mailbox"),
            ("a { b", "a { without a }; write {{"),
            ("a } b", "a } without a {; write }}"),
        ] {
            let error = Template::parse(text).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}

//! Structured field values: `main; name=value; ...` (RFC 2045, 5.1) with RFC 2231's continuations, read generously.

/// Parameters kept of one field. Real ones have fewer than ten.
const PARAMETERS_MAX: usize = 64;

/// A field's value, taken apart.
#[derive(Debug, Default)]
pub(crate) struct Value {
    /// What stands before the first `;`, in lower case, without comments and space.
    pub(crate) main: String,
    parameters: Vec<Parameter>,
}

#[derive(Debug)]
struct Parameter {
    name: String,
    raw: Vec<u8>,
}

impl Value {
    /// Reads an unfolded value. Anything can be read; what makes no sense is left out.
    pub(crate) fn parse(value: &[u8]) -> Self {
        let mut segments = split(value).into_iter();
        let first = without_comments(segments.next().unwrap_or_default());
        let first = first.trim_ascii();
        let main_end = first.iter().position(u8::is_ascii_whitespace).unwrap_or(first.len());
        let (main, rest) = first.split_at(main_end);
        let mut this = Self {
            main: String::from_utf8_lossy(main).to_ascii_lowercase(),
            parameters: Vec::new(),
        };
        // `multipart/mixed boundary=x` lacks its semicolon; some readers do not mind.
        for segment in std::iter::once(rest).chain(segments).take(PARAMETERS_MAX) {
            if let Some(equals) = segment.iter().position(|byte| *byte == b'=') {
                let (name, raw) = segment.split_at(equals);
                let name = without_comments(name);
                this.parameters.push(Parameter {
                    name: String::from_utf8_lossy(&name).trim().to_ascii_lowercase(),
                    raw: raw.get(1..).unwrap_or_default().trim_ascii().to_vec(),
                });
            }
        }
        this
    }

    /// Everything that a reader might take for the parameter's value, without doubles, in order of likelihood for
    /// each parameter of that name, these in the order of the field. RFC 2231's forms come last.
    pub(crate) fn candidates(&self, name: &str) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        for parameter in self.parameters.iter().filter(|parameter| parameter.name == name) {
            found.extend(readings(&parameter.raw));
        }
        found.extend(self.extended(name));
        let mut seen = Vec::new();
        found.retain(|candidate| {
            let new = !seen.contains(candidate);
            if new {
                seen.push(candidate.clone());
            }
            new
        });
        found
    }

    /// The value put together from `name*`, `name*0`, `name*1*` and so on (RFC 2231, 3 and 4).
    fn extended(&self, name: &str) -> Option<Vec<u8>> {
        let mut pieces: Vec<(u32, Vec<u8>)> = Vec::new();
        for parameter in &self.parameters {
            let Some(suffix) = parameter.name.strip_prefix(name) else { continue };
            let Some(suffix) = suffix.strip_prefix('*') else { continue };
            let (number, encoded) = match suffix.strip_suffix('*') {
                Some(number) => (number, true),
                None => (suffix, suffix.is_empty()),
            };
            let number = if number.is_empty() { 0 } else { number.parse().ok()? };
            let value = readings(&parameter.raw).into_iter().next().unwrap_or_default();
            let value = if encoded { percent_decoded(&value, number == 0) } else { value };
            pieces.push((number, value));
        }
        pieces.sort_by_key(|(number, _)| *number);
        let joined: Vec<u8> = pieces.into_iter().flat_map(|(_, piece)| piece).collect();
        (!joined.is_empty()).then_some(joined)
    }
}

/// Splits at each `;` that is not in a quoted string. Where a quote is never closed, `;` splits all the same.
fn split(value: &[u8]) -> Vec<&[u8]> {
    let mut quoted = false;
    let mut escaped = false;
    let segments: Vec<&[u8]> = value
        .split(|byte| {
            let was_escaped = std::mem::take(&mut escaped);
            match byte {
                b'\\' if quoted && !was_escaped => escaped = true,
                b'"' if !was_escaped => quoted = !quoted,
                _ => {}
            }
            *byte == b';' && !quoted
        })
        .collect();
    if quoted { value.split(|byte| *byte == b';').collect() } else { segments }
}

/// What readers might take a raw parameter value for: with and without escapes, quotes, comments and inner space.
fn readings(raw: &[u8]) -> Vec<Vec<u8>> {
    if let Some(inner) = raw.strip_prefix(b"\"") {
        let mut value = Vec::new();
        let mut literal = Vec::new();
        let mut bytes = inner.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'"' => break,
                b'\\' => {
                    literal.push(b'\\');
                    if let Some(next) = bytes.next() {
                        value.push(*next);
                        literal.push(*next);
                    }
                }
                _ => {
                    value.push(*byte);
                    literal.push(*byte);
                }
            }
        }
        return if literal == value { vec![value] } else { vec![value, literal] };
    }
    let end = raw.iter().position(|byte| byte.is_ascii_whitespace() || *byte == b'(');
    let mut found = vec![slice_to(raw, end).to_vec()];
    if end.is_some() {
        found.push(raw.to_vec());
        found.push(without_comments(raw).trim_ascii().to_vec());
    }
    if let Some(inner) = raw.strip_prefix(b"'").and_then(|inner| inner.strip_suffix(b"'")) {
        found.push(inner.to_vec());
    }
    found
}

fn slice_to(bytes: &[u8], end: Option<usize>) -> &[u8] {
    end.and_then(|end| bytes.get(..end)).unwrap_or(bytes)
}

/// Without `(...)` outside quoted strings (RFC 5322, 3.2.2); nesting is counted, an open end is allowed.
pub(crate) fn without_comments(value: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(value.len());
    let mut depth = 0_u32;
    let mut quoted = false;
    for byte in value {
        match byte {
            b'"' if depth == 0 => quoted = !quoted,
            b'(' if !quoted => depth = depth.saturating_add(1),
            b')' if !quoted && depth > 0 => {
                depth -= 1;
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            kept.push(*byte);
        }
    }
    kept
}

/// Undoes RFC 2231's `charset'language'%41` (the charset only on the first piece); the bytes stay in their charset.
fn percent_decoded(value: &[u8], first: bool) -> Vec<u8> {
    let mut quotes = value.split(|byte| *byte == b'\'');
    let text = match (first, quotes.next(), quotes.next(), quotes.next()) {
        (true, Some(charset), Some(language), Some(_)) => {
            value.get(charset.len() + language.len() + 2..).unwrap_or_default()
        }
        _ => value,
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        if *byte == b'%'
            && let Some(([high, low], after)) = rest.split_first_chunk::<2>().map(|(a, b)| (*a, b))
            && let (Some(high), Some(low)) = (hex(high), hex(low))
        {
            decoded.push(high << 4 | low);
            rest = after;
        } else {
            decoded.push(*byte);
        }
    }
    decoded
}

/// The value of a hexadecimal digit of either case.
pub(crate) fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn boundary(value: &str, expected: &[&str]) {
        let found = Value::parse(value.as_bytes()).candidates("boundary");
        let found: Vec<_> = found.iter().map(|value| String::from_utf8_lossy(value)).collect();
        assert_eq!(found, expected, "{value}");
    }

    #[test]
    fn plain_and_quoted_values() {
        boundary("multipart/mixed; boundary=abc", &["abc"]);
        boundary("multipart/mixed; charset=x; BOUNDARY = \"a;b c\" ; x=y", &["a;b c"]);
        boundary("multipart/mixed boundary=abc", &["abc"]);
        boundary("multipart/mixed; boundary=\"abc", &["abc"]);
        boundary("multipart/mixed; boundary=\"abc; charset=us-ascii", &["abc"]);
    }

    #[test]
    fn disputed_values_give_every_candidate() {
        boundary("multipart/mixed; boundary=a; boundary=b", &["a", "b"]);
        boundary("multipart/mixed; boundary=\"a\\b\"", &["ab", "a\\b"]);
        boundary("multipart/mixed; boundary='a'", &["'a'", "a"]);
        boundary("multipart/mixed; boundary=a b", &["a", "a b"]);
        boundary("multipart/mixed; boundary=a(b)c", &["a", "a(b)c", "ac"]);
    }

    #[test]
    fn continuations_and_charsets_of_rfc_2231() {
        boundary("multipart/mixed; boundary*1=b; boundary*0=\"a\"", &["ab"]);
        boundary("multipart/mixed; boundary*=us-ascii'en'a%62%2", &["ab%2"]);
        boundary("multipart/mixed; boundary*0*=''%61; boundary*1=%62; boundary=c", &["c", "a%62"]);
    }

    #[test]
    fn main_value_loses_comments_and_case() {
        assert_eq!(Value::parse(b" Multipart/(x(y))Mixed (z); a=b").main, "multipart/mixed");
        assert_eq!(Value::parse(b"").main, "");
    }
}

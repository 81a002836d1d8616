//! xtext, in which ENVID= and ORCPT= travel (RFC 3461, 4).

/// Text that is no xtext.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "decode xtext: a character outside of 33 to 126, an =, or a + without two upper-case hexadecimal digits"
)]
pub struct NoXtext;

/// `+`, `=`, and whatever is not printable ASCII become `+` and two hexadecimal digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    let mut xtext = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_graphic() && byte != b'+' && byte != b'=' {
            xtext.push(char::from(byte));
        } else {
            xtext.push_str(&format!("+{byte:02X}"));
        }
    }
    xtext
}

/// The bytes that xtext stands for.
///
/// # Errors
/// [`NoXtext`] for what the RFC's grammar does not have; lower-case digits are such.
pub fn decode(xtext: &str) -> Result<Vec<u8>, NoXtext> {
    let mut decoded = Vec::with_capacity(xtext.len());
    let mut bytes = xtext.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'+' => {
                let mut digit = || bytes.next().and_then(hex_digit).ok_or(NoXtext);
                decoded.push(digit()? << 4 | digit()?);
            }
            b'=' => return Err(NoXtext),
            _ if byte.is_ascii_graphic() => decoded.push(byte),
            _ => return Err(NoXtext),
        }
    }
    Ok(decoded)
}

fn hex_digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn known_texts() {
        assert_eq!(encode(b"a+b=c d@x"), "a+2Bb+3Dc+20d@x");
        assert_eq!(encode(&[0, 0xff]), "+00+FF");
        assert_eq!(decode("a+2Bb+3Dc+20d@x"), Ok(b"a+b=c d@x".to_vec()));
        for wrong in ["+", "+2", "+2b", "+G0", "a=b", "a b", "\u{fc}", "a\r\n"] {
            assert_eq!(decode(wrong), Err(NoXtext), "{wrong:?}");
        }
    }

    proptest! {
        #[test]
        fn decoding_undoes_encoding(bytes: Vec<u8>) {
            let xtext = encode(&bytes);
            prop_assert!(xtext.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'='));
            prop_assert_eq!(decode(&xtext), Ok(bytes));
        }
    }
}

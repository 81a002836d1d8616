//! A private key in a file that may lie anywhere, sealed with a passphrase: AES-256-GCM, with a key that PBKDF2-HMAC-SHA256
//! makes of the passphrase (both from ring, which is here anyway).
//!
//! ```text
//! gantry authority key 1
//! authority 0123456789abcdef
//! rounds 600000
//! salt 32 digits of hex
//! sealed base64
//! ```
//! A salt is used once, so each file has a key of its own and the nonce may be zero. The lines above `sealed` are authenticated
//! with it.

use std::num::NonZeroU32;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::pbkdf2::{PBKDF2_HMAC_SHA256, derive};
use ring::rand::{SecureRandom, SystemRandom};

use crate::certificate::{from_hex, to_hex};

/// Largest file: a P-256 key has a few hundred bytes.
pub(super) const BYTES_MAX: u64 = 16 * 1024;
/// First line.
const TITLE: &str = "gantry authority key 1";
/// What OWASP recommends for PBKDF2-HMAC-SHA256: about half a second for each guess.
const ROUNDS: NonZeroU32 = match NonZeroU32::new(600_000) {
    Some(rounds) => rounds,
    None => NonZeroU32::MIN,
};
/// More than this a file may not ask for: some ten seconds.
const ROUNDS_MAX: u32 = 10_000_000;
const SALT_BYTES: usize = 16;

/// How a key could not be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    #[error("open the key's file: it is none; it begins with {TITLE:?}")]
    NoFile,
    #[error("open the key's file: the passphrase is wrong, or the file was changed")]
    Passphrase,
    #[error("write the key's file: what was written does not read back; the key was not removed")]
    Damaged,
    #[error("seal the key: the system has no random numbers")]
    Random,
}

/// The file's text.
pub(super) fn seal(authority: &str, secret: &[u8], passphrase: &[u8]) -> Result<String, SealError> {
    let mut salt = [0; SALT_BYTES];
    SystemRandom::new().fill(&mut salt).map_err(|_| SealError::Random)?;
    let head = format!("{TITLE}\nauthority {authority}\nrounds {ROUNDS}\nsalt {}\n", to_hex(&salt));
    let mut sealed = secret.to_vec();
    key(passphrase, &salt, ROUNDS)?
        .seal_in_place_append_tag(nonce(), Aad::from(head.as_bytes()), &mut sealed)
        .map_err(|_| SealError::Random)?;
    Ok(format!("{head}sealed {}\n", STANDARD.encode(sealed)))
}

/// What is sealed in a file's text.
pub(super) fn open(text: &str, passphrase: &[u8]) -> Result<Vec<u8>, SealError> {
    let at = text.find("sealed ").ok_or(SealError::NoFile)?;
    let (head, sealed) = text.split_at(at);
    let mut lines = head.lines();
    if lines.next() != Some(TITLE) {
        return Err(SealError::NoFile);
    }
    let mut value = |key: &str| lines.next().and_then(|line| line.strip_prefix(key));
    value("authority ").ok_or(SealError::NoFile)?;
    let rounds = value("rounds ").and_then(|rounds| rounds.parse::<NonZeroU32>().ok());
    let rounds = rounds.filter(|rounds| rounds.get() <= ROUNDS_MAX).ok_or(SealError::NoFile)?;
    let salt = value("salt ").and_then(from_hex).ok_or(SealError::NoFile)?;
    let sealed = sealed.strip_prefix("sealed ").map(str::trim_end);
    let mut sealed = sealed.and_then(|text| STANDARD.decode(text).ok()).ok_or(SealError::NoFile)?;
    let opened = key(passphrase, &salt, rounds)?
        .open_in_place(nonce(), Aad::from(head.as_bytes()), &mut sealed)
        .map_err(|_| SealError::Passphrase)?;
    Ok(opened.to_vec())
}

fn key(passphrase: &[u8], salt: &[u8], rounds: NonZeroU32) -> Result<LessSafeKey, SealError> {
    let mut bytes = [0; 32];
    derive(PBKDF2_HMAC_SHA256, rounds, salt, passphrase, &mut bytes);
    UnboundKey::new(&AES_256_GCM, &bytes).map(LessSafeKey::new).map_err(|_| SealError::NoFile)
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn only_the_passphrase_opens_an_unchanged_file() {
        let text = seal("0123456789abcdef", b"secret", b"correct horse").unwrap();
        assert_eq!(open(&text, b"correct horse").unwrap(), b"secret");
        assert!(!text.contains("secret"));
        assert_eq!(open(&text, b"correct hors"), Err(SealError::Passphrase));
        let renamed = text.replace("0123456789abcdef", "1123456789abcdef");
        assert_eq!(open(&renamed, b"correct horse"), Err(SealError::Passphrase));
        for bad in
            ["", "hello", &text.replace("600000", "60000000"), &text.replace("key 1", "key 2")]
        {
            assert_eq!(open(bad, b"correct horse"), Err(SealError::NoFile), "{bad}");
        }
    }
}

//! The host's key for trace tokens, by which it knows its own mail again.

use ring::hmac;

/// Keyed with a secret of the host, so that nobody else can write a token that counts.
#[derive(Clone, Debug)]
pub struct TraceKey(hmac::Key);

impl TraceKey {
    /// `secret` should be 32 random bytes.
    pub fn new(secret: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, secret))
    }

    /// The MAC of a token's text.
    pub(crate) fn mac(&self, text: &[u8]) -> Vec<u8> {
        hmac::sign(&self.0, text).as_ref().to_vec()
    }
}

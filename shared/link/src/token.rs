//! The text that lets one node join: one line, safe in URLs and shells, with a prefix to know it by and a checksum.

use std::str::FromStr;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{SHA256, digest};
use serde::{Deserialize, Serialize};

use crate::certificate::to_hex;
use crate::identity::Role;
use crate::name::NameMask;

/// What every token begins with, so that people and scanners for secrets know one.
const PREFIX: &str = "gantry-token-";
/// Longest text: every field at its longest.
const TEXT_BYTES_MAX: usize = 8 * 1024;
/// Bytes of SHA-256 behind the payload: a mistyped token is told from a refused one.
const CHECKSUM_BYTES: usize = 4;

/// A token as its holder sees it. What it grants is the host's to say; the copies of mask, role, needs and expiry here
/// are for people, and for refusing early what the host would refuse.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Where the host listens: `name:port` or `address:port`.
    pub host: String,
    pub mask: NameMask,
    pub role: Role,
    pub provides: Vec<String>,
    /// Its last second, in seconds since 1970.
    pub expires: u64,
    /// SHA-256 of the authority's certificate.
    pub(crate) authority: [u8; 32],
    pub(crate) secret: Secret,
}

/// What the holder of a token knows and nobody else.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Secret(pub(crate) [u8; 32]);

/// Text that is no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("the text is no token; one begins with {PREFIX}")]
    NoToken,
    #[error("the token was cut or changed on its way (its checksum does not fit)")]
    Checksum,
    #[error("the token is of a version of Gantry that this one does not know")]
    Version,
}

/// The first form of the payload; frozen.
#[derive(Serialize, Deserialize)]
struct PayloadV1 {
    version: u8,
    host: String,
    authority: [u8; 32],
    secret: Secret,
    mask: String,
    role: String,
    provides: Vec<String>,
    expires: u64,
}

impl JoinToken {
    /// The text form.
    pub(crate) fn to_text(&self) -> String {
        let payload = PayloadV1 {
            version: 1,
            host: self.host.clone(),
            authority: self.authority,
            secret: self.secret,
            mask: self.mask.to_string(),
            role: self.role.to_string(),
            provides: self.provides.clone(),
            expires: self.expires,
        };
        // Strings and numbers always serialise.
        let mut bytes = postcard::to_stdvec(&payload).unwrap_or_default();
        let sum = checksum(&bytes);
        bytes.extend_from_slice(&sum);
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl FromStr for JoinToken {
    type Err = TokenError;

    /// Reads a token's text; white space around it does not matter.
    fn from_str(text: &str) -> Result<Self, TokenError> {
        let text = text.trim();
        let body = text.strip_prefix(PREFIX).filter(|body| body.len() <= TEXT_BYTES_MAX);
        let body = body.ok_or(TokenError::NoToken)?;
        let bytes = URL_SAFE_NO_PAD.decode(body).map_err(|_| TokenError::Checksum)?;
        let (payload, sum) =
            bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(TokenError::Checksum)?;
        if checksum(payload) != *sum {
            return Err(TokenError::Checksum);
        }
        if payload.first() != Some(&1) {
            return Err(TokenError::Version);
        }
        let payload: PayloadV1 = postcard::from_bytes(payload).map_err(|_| TokenError::Version)?;
        Ok(Self {
            host: payload.host,
            mask: payload.mask.parse().map_err(|_| TokenError::Version)?,
            role: payload.role.parse().map_err(|_| TokenError::Version)?,
            provides: payload.provides,
            expires: payload.expires,
            authority: payload.authority,
            secret: payload.secret,
        })
    }
}

/// Never shows the secret.
impl std::fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinToken")
            .field("host", &self.host)
            .field("mask", &self.mask)
            .field("role", &self.role)
            .field("provides", &self.provides)
            .field("expires", &self.expires)
            .finish_non_exhaustive()
    }
}

impl Secret {
    /// The name of the token's file on the host, which does not tell the secret.
    pub(crate) fn file_name(&self) -> String {
        to_hex(digest(&SHA256, &self.0).as_ref())
    }
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.iter_mut().zip(digest(&SHA256, payload).as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

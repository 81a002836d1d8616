//! The list of certificates that count no more: numbered, signed with the authority's key, the highest number wins.
//!
//! Text form, one entry a line, the signature over everything above it:
//! ```text
//! gantry revocations 1
//! number 2
//! 5d0c...9a worker pc-1 1790000000
//! signature 3045...
//! ```
//! An entry is serial, role, name and the certificate's own end (seconds since 1970), after which it is left out.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use rcgen::{Issuer, KeyPair, SigningKey};
use rustls::pki_types::CertificateDer;

use crate::certificate::{from_hex, is_signed, to_hex};
use crate::durable::{self, Access};
use crate::identity::{Identity, Role, Serial};
use crate::name::is_name;
use crate::refusal::{CloseCode, Refusal};

/// Entries at the most. Each lives at most 90 days, so this is a hundred a day.
pub(crate) const REVOKED_MAX: usize = 10_000;
/// The file's size at the most: that many of the longest entries.
const LIST_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// First line: says what is signed, and in which form.
const TITLE: &str = "gantry revocations 1";

/// A certificate as the authority's books have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) serial: Serial,
    pub(crate) role: Role,
    pub(crate) name: String,
    /// Its last second, in seconds since 1970.
    pub(crate) expires: u64,
}

/// The revoked certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocations {
    number: u64,
    entries: BTreeMap<Serial, Entry>,
}

/// How a list is of no use.
#[derive(Debug, thiserror::Error)]
pub enum RevocationError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("the revocation list is no such list: {0}")]
    Malformed(&'static str),
    #[error("the revocation list is not signed by this cluster's authority")]
    Signature,
    #[error("the revocation list has the number {got}, older than {known}, which is known already")]
    Older { got: u64, known: u64 },
    #[error("the revocation list is full ({REVOKED_MAX} certificates that have not expired)")]
    Full,
    #[error("sign the revocation list: {0}")]
    Sign(#[from] rcgen::Error),
}

impl Revocations {
    /// The list's number: 0 where nothing was ever revoked.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many certificates are revoked that have not expired.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// # Errors
    /// The sentence for a holder whose certificate is revoked.
    pub(crate) fn check(&self, identity: &Identity) -> Result<(), Refusal> {
        if !self.entries.contains_key(&identity.serial) {
            return Ok(());
        }
        let text = format!("the certificate of {} was revoked; join again", identity.name);
        Err(Refusal::new(CloseCode::Revoked, text))
    }

    /// Reads the file, which may be absent: then nothing was revoked yet.
    pub(crate) fn load(
        path: &Path,
        authority: &CertificateDer<'_>,
    ) -> Result<Self, RevocationError> {
        match durable::read(path, LIST_BYTES_MAX) {
            Ok(text) => Self::parse(&text, authority),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(error.into()),
        }
    }

    /// The file's text, for another node to check.
    pub(crate) fn read_text(path: &Path) -> io::Result<String> {
        durable::read(path, LIST_BYTES_MAX)
    }

    /// Keeps a list that another node has, where it is signed by the authority and newer than the one in the file, and
    /// says whether it was. A file that is of no use, or another authority's, is replaced.
    pub(crate) fn keep_newer(
        path: &Path,
        text: &str,
        authority: &CertificateDer<'_>,
    ) -> Result<bool, RevocationError> {
        let newer = Self::parse(text, authority)?;
        let folder = path.parent().unwrap_or(Path::new("."));
        let _lock = durable::lock(folder)?;
        if path.exists()
            && let Ok(known) = Self::load(path, authority)
            && known.number >= newer.number
        {
            return Ok(false);
        }
        durable::write(path, text.as_bytes(), Access::Public)?;
        Ok(true)
    }

    /// Reads a list's text; the signature is checked before anything else.
    pub(crate) fn parse(
        text: &str,
        authority: &CertificateDer<'_>,
    ) -> Result<Self, RevocationError> {
        use RevocationError::Malformed;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > LIST_BYTES_MAX {
            return Err(Malformed("it is too long"));
        }
        let (signed, signature) =
            text.rsplit_once("signature ").ok_or(Malformed("it has no signature"))?;
        let signature = from_hex(signature.trim_end()).ok_or(RevocationError::Signature)?;
        if !is_signed(signed.as_bytes(), &signature, authority) {
            return Err(RevocationError::Signature);
        }
        let mut lines = signed.lines();
        if lines.next() != Some(TITLE) {
            return Err(Malformed("its first line is not that of a list"));
        }
        let number = lines.next().and_then(|line| line.strip_prefix("number ")?.parse().ok());
        let number = number.ok_or(Malformed("it has no number"))?;
        let mut entries = BTreeMap::new();
        for line in lines {
            let entry = Entry::parse(line).ok_or(Malformed("a line is no entry"))?;
            entries.insert(entry.serial, entry);
            if entries.len() > REVOKED_MAX {
                return Err(Malformed("it has too many entries"));
            }
        }
        Ok(Self { number, entries })
    }

    /// The next list: `revoked` in addition, those that have expired by `now` left out.
    pub(crate) fn with(&self, revoked: Vec<Entry>, now: u64) -> Result<Self, RevocationError> {
        let mut entries = self.entries.clone();
        entries.extend(revoked.into_iter().map(|entry| (entry.serial, entry)));
        entries.retain(|_, entry| entry.expires >= now);
        if entries.len() > REVOKED_MAX {
            return Err(RevocationError::Full);
        }
        Ok(Self { number: self.number + 1, entries })
    }

    /// The list's text with the authority's signature.
    pub(crate) fn sign(&self, issuer: &Issuer<'_, KeyPair>) -> Result<String, RevocationError> {
        let mut text = format!("{TITLE}\nnumber {}\n", self.number);
        for entry in self.entries.values() {
            text.push_str(&entry.to_line());
            text.push('\n');
        }
        let signature = issuer.key().sign(text.as_bytes())?;
        text.push_str(&format!("signature {}\n", to_hex(&signature)));
        Ok(text)
    }

    /// Takes over a list that is read while this one is in use.
    ///
    /// # Errors
    /// [`RevocationError::Older`]: a list never goes back.
    pub(crate) fn replace(&mut self, newer: Self) -> Result<(), RevocationError> {
        if newer.number < self.number {
            return Err(RevocationError::Older { got: newer.number, known: self.number });
        }
        *self = newer;
        Ok(())
    }
}

impl Entry {
    pub(crate) fn to_line(&self) -> String {
        format!("{} {} {} {}", self.serial, self.role, self.name, self.expires)
    }

    pub(crate) fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let entry = Self {
            serial: fields.next()?.parse().ok()?,
            role: fields.next()?.parse().ok()?,
            name: fields.next().filter(|name| is_name(name))?.to_owned(),
            expires: fields.next()?.parse().ok()?,
        };
        fields.next().is_none().then_some(entry)
    }
}

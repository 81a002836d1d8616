//! What a node trusts: the authorities whose certificates count, and the certificates that count no more. One list, numbered,
//! signed by one of its authorities; the highest number wins, whoever brings it.
//!
//! Text form, the signature over everything above it:
//! ```text
//! gantry trust 1
//! number 2
//! authority root 2106000000 MIIB... -
//! authority issuing 1822000000 MIIB... 3045...
//! revoked 5d0c...9a worker pc-1 1790000000
//! signature 3045...
//! ```
//! An authority is its kind, its last second (since 1970), its certificate, and its introduction: the signature of an earlier
//! root over all that stands before it. A node that knows a root so takes over those that follow it, and nobody without a
//! root's key can add one. The order is that of their making, so what stands before the last root is on its way out.
//! A revoked certificate is serial, role, name and its own last second, after which it is left out.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rcgen::{Issuer, KeyPair, SigningKey};
use rustls::pki_types::CertificateDer;

use crate::certificate::{fingerprint, from_hex, is_signed, to_hex};
use crate::durable::{self, Access};
use crate::identity::{Identity, Role, Serial};
use crate::name::is_name;
use crate::refusal::{CloseCode, Refusal};

/// The list's file in a node's folder.
pub(crate) const FILE: &str = "trust";
/// Revoked certificates at the most. Each lives at most 90 days, so this is a hundred a day.
pub(crate) const REVOKED_MAX: usize = 10_000;
/// Authorities at the most: two roots with some issuing keys each. Every handshake tries them.
const AUTHORITIES_MAX: usize = 8;
/// The list's size at the most: that many of the longest entries.
pub(crate) const LIST_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// First line: says what is signed, and in which form.
const TITLE: &str = "gantry trust 1";
/// What an introduction begins with, so that no other signature is one.
const INTRODUCES: &str = "gantry introduces 1";

/// What an authority's key may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityKind {
    /// Everything; it alone introduces other authorities.
    Root,
    /// Certificates and revocations, for a time, while the root's key is offline.
    Issuing,
}

impl AuthorityKind {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Issuing => "issuing",
        }
    }
}

impl fmt::Display for AuthorityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Whose certificates count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trusted {
    pub(crate) kind: AuthorityKind,
    /// Its last second, in seconds since 1970.
    pub(crate) expires: u64,
    pub(crate) certificate: CertificateDer<'static>,
    /// `None` for a cluster's first root.
    introduction: Option<Vec<u8>>,
}

/// The first half of a certificate's fingerprint, as text: what people call an authority.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityId([u8; 8]);

impl AuthorityId {
    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Self {
        let mut id = [0; 8];
        id.iter_mut().zip(fingerprint(certificate)).for_each(|(to, from)| *to = from);
        Self(id)
    }

    pub(crate) fn parse(text: &str) -> Option<Self> {
        from_hex(text)?.try_into().ok().map(Self)
    }
}

impl fmt::Display for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&to_hex(&self.0))
    }
}

impl fmt::Debug for AuthorityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An authority as a host sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityState {
    pub id: AuthorityId,
    pub kind: AuthorityKind,
    /// Its last second, in seconds since 1970.
    pub expires: u64,
    /// Whether nodes keep its certificates; else they move to the newer one.
    pub current: bool,
    /// Whether its key is in the folder.
    pub has_key: bool,
}

/// A certificate as the authority's books have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) serial: Serial,
    pub(crate) role: Role,
    pub(crate) name: String,
    /// Its last second, in seconds since 1970.
    pub(crate) expires: u64,
}

/// The authorities that are trusted, and the certificates that were revoked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trust {
    number: u64,
    /// Never empty; in the order of their making.
    authorities: Vec<Trusted>,
    revoked: BTreeMap<Serial, Entry>,
}

/// How a list is of no use.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    #[error(transparent)]
    Read(#[from] io::Error),
    #[error("the trust list is no such list: {0}")]
    Malformed(&'static str),
    #[error("the trust list is not signed by this cluster's authority")]
    Signature,
    #[error("the trust list has the number {got}, older than {known}, which is known already")]
    Older { got: u64, known: u64 },
    #[error("the trust list is full ({REVOKED_MAX} revoked certificates that have not expired)")]
    Full,
    #[error("the trust list is full ({AUTHORITIES_MAX} authorities)")]
    TooManyAuthorities,
    #[error("sign the trust list: {0}")]
    Sign(#[from] rcgen::Error),
}

impl Trust {
    /// A new cluster's list: one root, nothing revoked.
    pub(crate) fn new(root: CertificateDer<'static>, expires: u64) -> Self {
        let kind = AuthorityKind::Root;
        let root = Trusted { kind, expires, certificate: root, introduction: None };
        Self { number: 0, authorities: vec![root], revoked: BTreeMap::new() }
    }

    /// Rises with every change: 0 where nothing was ever revoked and the first authority is the only one.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// How many certificates are revoked that have not expired.
    pub fn revoked(&self) -> usize {
        self.revoked.len()
    }

    /// The authorities, oldest first, as a node knows them that has none of their keys.
    pub fn state(&self) -> Vec<AuthorityState> {
        let state = |authority: &Trusted| AuthorityState {
            id: authority.id(),
            kind: authority.kind,
            expires: authority.expires,
            current: self.is_current(authority.id()),
            has_key: false,
        };
        self.authorities.iter().map(state).collect()
    }

    pub(crate) fn authorities(&self) -> &[Trusted] {
        &self.authorities
    }

    pub(crate) fn authority(&self, id: AuthorityId) -> Option<&Trusted> {
        self.authorities.iter().find(|authority| authority.id() == id)
    }

    /// The root that all nodes have, or move to.
    pub(crate) fn root(&self) -> Option<&Trusted> {
        self.authorities.iter().rev().find(|authority| authority.kind == AuthorityKind::Root)
    }

    /// Whether an authority is the last root or came after it: a node with a certificate of another one moves.
    pub fn is_current(&self, id: AuthorityId) -> bool {
        let after = self.authorities.iter().rev();
        let mut root_seen = false;
        let mut current = after.take_while(|authority| {
            !std::mem::replace(&mut root_seen, authority.kind == AuthorityKind::Root)
        });
        current.any(|authority| authority.id() == id)
    }

    /// Whether there are authorities that nodes are to move away from.
    pub(crate) fn has_former(&self) -> bool {
        self.authorities.iter().any(|authority| !self.is_current(authority.id()))
    }

    pub(crate) fn is_revoked(&self, serial: Serial) -> bool {
        self.revoked.contains_key(&serial)
    }

    /// # Errors
    /// The sentence for a holder whose certificate is revoked, or whose authority is trusted no more.
    pub(crate) fn check(&self, identity: &Identity) -> Result<(), Refusal> {
        let name = &identity.name;
        if self.is_revoked(identity.serial) {
            let text = format!("the certificate of {name} was revoked; join again");
            return Err(Refusal::new(CloseCode::Revoked, text));
        }
        if self.authority(identity.authority).is_none() {
            let text =
                format!("the authority that certified {name} was retired; join again with a token");
            return Err(Refusal::new(CloseCode::UnknownAuthority, text));
        }
        Ok(())
    }

    /// Reads a node's own file.
    pub(crate) fn load(path: &Path) -> Result<Self, TrustError> {
        Self::parse(&Self::read_text(path)?).map(|(trust, _)| trust)
    }

    /// The file's text, for another node to check.
    pub(crate) fn read_text(path: &Path) -> io::Result<String> {
        durable::read(path, LIST_BYTES_MAX)
    }

    /// Keeps a list that another node has where it follows the one in the file, and says whether it does.
    ///
    /// # Errors
    /// [`TrustError::Signature`] where nobody who is trusted now vouches for it.
    pub(crate) fn keep_newer(path: &Path, text: &str) -> Result<bool, TrustError> {
        let (newer, _) = Self::parse(text)?;
        let _lock = durable::lock(path.parent().unwrap_or(Path::new(".")))?;
        let known = Self::load(path)?;
        newer.check_introduced(&known)?;
        if known.number >= newer.number {
            return Ok(false);
        }
        durable::write(path, text.as_bytes(), Access::Public)?;
        Ok(true)
    }

    /// Keeps the list that a joining node was given, which the authority that its token names has signed: there is nobody else
    /// whose word it could have. A newer one of the same cluster stays.
    pub(crate) fn keep_first(
        path: &Path,
        text: &str,
        pinned: &CertificateDer<'_>,
    ) -> Result<(), TrustError> {
        let (first, signer) = Self::parse(text)?;
        if signer != AuthorityId::of(pinned) {
            return Err(TrustError::Signature);
        }
        let _lock = durable::lock(path.parent().unwrap_or(Path::new(".")))?;
        if let Ok(known) = Self::load(path)
            && known.authority(signer).is_some()
            && known.number >= first.number
        {
            return Ok(());
        }
        Ok(durable::write(path, text.as_bytes(), Access::Public)?)
    }

    /// Reads a list's text, and which of its authorities has signed it. Whether those are to be trusted is another question.
    pub(crate) fn parse(text: &str) -> Result<(Self, AuthorityId), TrustError> {
        use TrustError::Malformed;
        if u64::try_from(text.len()).unwrap_or(u64::MAX) > LIST_BYTES_MAX {
            return Err(Malformed("it is too long"));
        }
        let (signed, signature) =
            text.rsplit_once("\nsignature ").ok_or(Malformed("it has no signature"))?;
        let signature = from_hex(signature.trim_end()).ok_or(TrustError::Signature)?;
        let mut lines = signed.lines();
        if lines.next() != Some(TITLE) {
            return Err(Malformed("its first line is not that of a list"));
        }
        let number = lines.next().and_then(|line| line.strip_prefix("number ")?.parse().ok());
        let number = number.ok_or(Malformed("it has no number"))?;
        let mut trust = Self { number, authorities: Vec::new(), revoked: BTreeMap::new() };
        for line in lines {
            if let Some(line) = line.strip_prefix("authority ") {
                let authority = Trusted::parse(line).ok_or(Malformed("a line is no authority"))?;
                trust.authorities.push(authority);
            } else {
                let entry = line.strip_prefix("revoked ").and_then(Entry::parse);
                let entry = entry.ok_or(Malformed("a line is no entry"))?;
                trust.revoked.insert(entry.serial, entry);
            }
            if trust.authorities.len() > AUTHORITIES_MAX || trust.revoked.len() > REVOKED_MAX {
                return Err(Malformed("it has too many entries"));
            }
        }
        let has_signed =
            |authority: &&Trusted| is_signed(signed.as_bytes(), &signature, &authority.certificate);
        let signer = trust.authorities.iter().find(has_signed).ok_or(TrustError::Signature)?.id();
        Ok((trust, signer))
    }

    /// That each authority is known already, or was introduced by a root that is.
    fn check_introduced(&self, known: &Self) -> Result<(), TrustError> {
        let mut roots: Vec<&Trusted> = known.roots().collect();
        for authority in &self.authorities {
            let same = |other: &Trusted| {
                (other.kind, other.expires, &other.certificate)
                    == (authority.kind, authority.expires, &authority.certificate)
            };
            let known = known.authorities.iter().any(same);
            if !known && !roots.iter().any(|root| authority.is_introduced_by(root)) {
                return Err(TrustError::Signature);
            }
            if authority.kind == AuthorityKind::Root {
                roots.push(authority);
            }
        }
        Ok(())
    }

    fn roots(&self) -> impl Iterator<Item = &Trusted> {
        self.authorities.iter().filter(|authority| authority.kind == AuthorityKind::Root)
    }

    /// The next list: `revoked` in addition, those that have expired by `now` left out.
    pub(crate) fn with_revoked(&self, revoked: Vec<Entry>, now: u64) -> Result<Self, TrustError> {
        let mut next = self.next(now);
        next.revoked.extend(revoked.into_iter().map(|entry| (entry.serial, entry)));
        if next.revoked.len() > REVOKED_MAX {
            return Err(TrustError::Full);
        }
        Ok(next)
    }

    /// The next list, with an authority that the holder of a root's key introduces.
    pub(crate) fn with_authority(
        &self,
        kind: AuthorityKind,
        certificate: CertificateDer<'static>,
        expires: u64,
        root: &Issuer<'_, KeyPair>,
        now: u64,
    ) -> Result<Self, TrustError> {
        let mut introduced = Trusted { kind, expires, certificate, introduction: None };
        introduced.introduction = Some(root.key().sign(introduced.statement().as_bytes())?);
        let mut next = self.next(now);
        next.authorities.push(introduced);
        if next.authorities.len() > AUTHORITIES_MAX {
            return Err(TrustError::TooManyAuthorities);
        }
        Ok(next)
    }

    /// The next list, without what stands before the last root.
    pub(crate) fn without_former(&self, now: u64) -> Self {
        let mut next = self.next(now);
        next.authorities.retain(|authority| self.is_current(authority.id()));
        next
    }

    fn next(&self, now: u64) -> Self {
        let mut next = self.clone();
        next.number += 1;
        next.revoked.retain(|_, entry| entry.expires >= now);
        // A root goes by being retired alone, so that one always stands.
        next.authorities.retain(|known| known.kind == AuthorityKind::Root || known.expires >= now);
        next
    }

    /// The list's text with the signature of one of its authorities.
    pub(crate) fn sign(&self, issuer: &Issuer<'_, KeyPair>) -> Result<String, TrustError> {
        let mut text = format!("{TITLE}\nnumber {}", self.number);
        for authority in &self.authorities {
            let introduction = authority.introduction.as_ref();
            let introduction = introduction.map_or("-".to_owned(), |bytes| to_hex(bytes));
            text.push_str(&format!("\nauthority {} {introduction}", authority.to_text()));
        }
        for entry in self.revoked.values() {
            text.push_str(&format!("\nrevoked {}", entry.to_line()));
        }
        let signature = issuer.key().sign(text.as_bytes())?;
        text.push_str(&format!("\nsignature {}\n", to_hex(&signature)));
        Ok(text)
    }

    /// Takes over a list that is read while this one is in use.
    ///
    /// # Errors
    /// [`TrustError::Older`]: a list never goes back.
    pub(crate) fn replace(&mut self, newer: Self) -> Result<(), TrustError> {
        if newer.number < self.number {
            return Err(TrustError::Older { got: newer.number, known: self.number });
        }
        *self = newer;
        Ok(())
    }
}

impl Trusted {
    pub(crate) fn id(&self) -> AuthorityId {
        AuthorityId::of(&self.certificate)
    }

    fn to_text(&self) -> String {
        let certificate = STANDARD.encode(&self.certificate);
        format!("{} {} {certificate}", self.kind, self.expires)
    }

    fn statement(&self) -> String {
        format!("{INTRODUCES}\n{}\n", self.to_text())
    }

    fn is_introduced_by(&self, root: &Self) -> bool {
        self.introduction.as_ref().is_some_and(|signature| {
            is_signed(self.statement().as_bytes(), signature, &root.certificate)
        })
    }

    fn parse(line: &str) -> Option<Self> {
        let mut fields = line.split(' ');
        let kind = match fields.next()? {
            "root" => AuthorityKind::Root,
            "issuing" => AuthorityKind::Issuing,
            _ => return None,
        };
        let expires = fields.next()?.parse().ok()?;
        let certificate = CertificateDer::from(STANDARD.decode(fields.next()?).ok()?);
        let introduction = match fields.next()? {
            "-" => None,
            hex => Some(from_hex(hex)?),
        };
        let authority = Self { kind, expires, certificate, introduction };
        fields.next().is_none().then_some(authority)
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

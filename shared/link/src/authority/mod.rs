//! The cluster's certificate authority: it makes certificates, issues tokens, and revokes.
//!
//! Its folder, beside the first host's own files:
//! ```text
//! ca/ID.key         an authority's private key, named by the authority; the cluster's crown jewel (mode 0600)
//! trust             the signed list of authorities that count, and of certificates that count no more
//! issued            one line for each certificate: serial, role, name, last second, authority
//! tokens/HASH       one file for each unused token, named by SHA-256 of its secret
//! tokens/HASH.used  the same once it was used, kept until it would have expired
//! lock              held while one of these is changed; several processes may do so
//! ```
//! Nothing of it is kept in memory: what a command changes counts in the running hook at once.

mod keys;
mod seal;
mod tokens;

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use gantry_protocol::limits::NEEDS_MAX;
use rcgen::{KeyPair, PublicKeyData};
use rustls::pki_types::CertificateDer;

pub use keys::IssuedCertificate;
pub use seal::SealError;

use self::keys::Signer;
use crate::certificate::{self, Request};
use crate::durable::{self, Access};
use crate::identity::{
    Clock, Identity, IdentityError, NodeIdentity, Role, Serial, load_trust, read, read_certificate,
};
use crate::name::{NameMask, is_name};
use crate::refusal::{CloseCode, Refusal, Span};
use crate::trust::{self, AuthorityId, Entry, Trust, TrustError};

/// The folder of private keys in the authority's folder.
const KEYS: &str = "ca";
/// Largest book of certificates: 100,000 of them.
const ISSUED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A renewal gains at least this, in seconds: near its own end an authority cannot give more, and nobody is to ask for nothing.
const GAIN_MIN: u64 = 86_400;

/// The certificate authority of a folder.
pub struct Authority {
    folder: PathBuf,
    clock: Clock,
}

/// What a token is to grant.
#[derive(Clone, Debug)]
pub struct TokenRequest {
    /// The names that it is good for. One token lets one node join.
    pub mask: NameMask,
    pub role: Role,
    /// The needs that the node may meet; at most [`NEEDS_MAX`].
    pub provides: Vec<String>,
    /// For how long it may be used, in seconds.
    pub expires_in: u64,
    /// Where the node finds this host: `name:port` or `address:port`.
    pub advertise: String,
}

/// What an authority could not do.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error("create an authority in {}: there is one already (trust)", folder.display())]
    Exists { folder: PathBuf },
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("{doing} {}: {source}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("make a key or certificate: {0}")]
    Crypto(#[from] rcgen::Error),
    #[error("draw a random number: the system has none")]
    Random,
    #[error(
        "{need:?} cannot be granted: a need is a word of lower-case letters, digits and hyphens (at most {NEEDS_MAX} of them)"
    )]
    NoNeed { need: String },
    #[error("issue a token: {} wait to be used already; let some expire, or remove files in {}", tokens::TOKENS_MAX, folder.display())]
    TooManyTokens { folder: PathBuf },
    #[error(transparent)]
    Trust(#[from] TrustError),
    #[error(transparent)]
    Seal(#[from] SealError),
    /// No certificate, token or revocation can be made.
    #[error("{}; `gantry-hook authority import FILE` brings it back", offline(*ended))]
    Offline { ended: Option<u64> },
    /// What the key that issues in the root's place may not do.
    #[error(
        "{doing}: the authority's key is offline, and only that may do it; `gantry-hook authority import FILE` brings it back"
    )]
    RootOffline { doing: &'static str },
    #[error(
        "rotate the authority: the former one is still trusted; `gantry-hook authority retire` ends that first"
    )]
    AlreadyRotated,
    #[error(
        "retire the former authority: there is none; `gantry-hook authority rotate` makes a new one"
    )]
    NothingToRetire,
    #[error(
        "retire the former authority: {} still {} a certificate of it ({}); each moves by itself when it links or is used; wait, revoke \
         those that will not come back, or give --force, after which they join anew",
        names.len(), if names.len() == 1 { "has" } else { "have" }, some(names)
    )]
    StillUsed { names: Vec<String> },
    #[error("import the key in {}: it is of no authority that the cluster trusts", path.display())]
    ForeignKey { path: PathBuf },
    #[error("export the key to {}: there is a file already", path.display())]
    FileExists { path: PathBuf },
    #[error(
        "revoke {what}: no certificate that has not expired was issued to that name or with that serial number"
    )]
    NothingToRevoke { what: String },
    /// What a joining node is told.
    #[error(transparent)]
    Refused(Refusal),
}

impl Authority {
    /// Makes an authority, and the identity of its first host, in `folder`.
    ///
    /// # Errors
    /// [`AuthorityError::Exists`] where `folder` has one. A creation that was cut short is simply repeated.
    pub fn create(folder: &Path, host: &str, clock: Clock) -> Result<Self, AuthorityError> {
        if Self::is_at(folder) {
            return Err(AuthorityError::Exists { folder: folder.to_owned() });
        }
        check_node_name(host)?;
        let authority = Self { folder: folder.to_owned(), clock };
        for made in [folder, &authority.tokens(), &folder.join(KEYS)] {
            durable::create_folder(made).map_err(file("make the folder", made))?;
        }
        let now = (authority.clock)();
        let expires = now.saturating_add(certificate::ROOT_SECONDS);
        let key = certificate::new_key()?;
        let root = certificate::authority_certificate(&key, now, expires)?;
        authority.write_key(AuthorityId::of(&root), &key)?;
        let signer = Signer::first(Trust::new(root, expires), key)?;
        let key = certificate::new_key()?;
        let issued = authority.issue_with(&signer, host, Role::Hook, &[], &key)?;
        NodeIdentity::store_key(folder, host, &key.serialize_pem())
            .and_then(|()| NodeIdentity::store(folder, host, &issued))
            .map_err(file("write into", folder))?;
        // Last, since its presence says that all the rest is there.
        authority.write_trust(&signer.trust, &signer)?;
        Ok(authority)
    }

    /// The authority in `folder`; its key may be offline.
    ///
    /// # Errors
    /// [`AuthorityError::Identity`] names the file that is missing or of no use.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, AuthorityError> {
        let authority = Self { folder: folder.to_owned(), clock };
        authority.trust()?;
        match authority.signer() {
            Ok(_) | Err(AuthorityError::Offline { .. }) => Ok(authority),
            Err(error) => Err(error),
        }
    }

    /// Whether a folder is an authority's own, with its key or without.
    pub fn is_at(folder: &Path) -> bool {
        folder.join(KEYS).is_dir() && folder.join(trust::FILE).exists()
    }

    /// Revokes every unexpired certificate of a name, or the one with a serial number, and says how many. A name can
    /// join again with a new token. Running hooks take it up by [`crate::Server::reload_if_changed`].
    ///
    /// # Errors
    /// [`AuthorityError::NothingToRevoke`] where the books have none such.
    pub fn revoke(&self, name_or_serial: &str) -> Result<usize, AuthorityError> {
        let _lock = self.lock()?;
        let signer = self.signer()?;
        let serial = name_or_serial.parse::<Serial>().ok();
        let now = (self.clock)();
        let mut revoked: Vec<Entry> = self.issued()?.into_iter().map(|(entry, _)| entry).collect();
        revoked.retain(|entry| {
            (entry.name == name_or_serial || Some(entry.serial) == serial) && entry.expires >= now
        });
        if revoked.is_empty() {
            let what = name_or_serial.chars().take(64).collect();
            return Err(AuthorityError::NothingToRevoke { what });
        }
        let count = revoked.len();
        self.write_trust(&signer.trust.with_revoked(revoked, now)?, &signer)?;
        Ok(count)
    }

    /// What one of the authority's own certificates says.
    pub(crate) fn read(&self, certificate: &CertificateDer<'static>) -> Result<Identity, Refusal> {
        let strange =
            |error: AuthorityError| Refusal::new(CloseCode::Misbehaved, error.to_string());
        let trust = self.trust().map_err(strange)?;
        certificate::verify_any_role(std::slice::from_ref(certificate), &trust, (self.clock)())
    }

    /// The list as it stands in the folder, signed by the authority that issues now.
    pub(crate) fn trust_text(&self) -> Result<String, AuthorityError> {
        let signer = self.signer()?;
        Ok(signer.trust.sign(&signer.issuer)?)
    }

    /// Another 90 days for the holder of the certificate that `shown` begins with.
    ///
    /// # Errors
    /// [`AuthorityError::Refused`] where that does not count, has more than a third of its time left, or would gain nothing.
    pub(crate) fn renew(
        &self,
        shown: &[CertificateDer<'static>],
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        // Held over both, so that a revocation finds the old certificate or the new one in the books.
        let _lock = self.lock()?;
        let signer = self.signer()?;
        let now = (self.clock)();
        let holder = certificate::verify_any_role(shown, &signer.trust, now)
            .map_err(AuthorityError::Refused)?;
        if !holder.is_due(now) && signer.trust.is_current(holder.authority) {
            let text = "the certificate has more than a third of its time left";
            return Err(AuthorityError::Refused(Refusal::new(CloseCode::Limit, text)));
        }
        if !signer.gives_more_than(&holder, now) {
            let left = Span(signer.authority.expires.saturating_sub(now));
            let text = format!(
                "nothing longer can be had: what certifies here ends in {left}, too; see `gantry-hook authority status` there"
            );
            return Err(AuthorityError::Refused(Refusal::new(CloseCode::Limit, text)));
        }
        self.issue_with(&signer, &holder.name, holder.role, &holder.provides, key)
    }

    /// Renews this host's own certificate where it is due or has expired, and says whether it has. The key stays the same.
    ///
    /// # Errors
    /// Where the host's files are missing or do not belong together, or its certificate was revoked.
    pub fn renew_host(&self, host: &str) -> Result<bool, AuthorityError> {
        check_node_name(host)?;
        let path = self.folder.join(format!("{host}.pem"));
        let certificate = read_certificate(&path)?;
        let key_path = self.folder.join(format!("{host}.key"));
        let malformed = |reason: String| {
            AuthorityError::from(IdentityError::Malformed { path: key_path.clone(), reason })
        };
        let key =
            KeyPair::from_pem(&read(&key_path)?).map_err(|error| malformed(error.to_string()))?;
        if !certificate::belongs_to(&certificate, &key) {
            return Err(malformed(format!("the key is not that of {}", path.display())));
        }
        let _lock = self.lock()?;
        let now = (self.clock)();
        let trust = self.trust()?;
        let own = certificate::verify(&[certificate], &trust, Role::Hook, now)
            .and_then(|own| certificate::check_name(own, host));
        let signer = match own {
            Ok(own) if !own.is_due(now) && trust.is_current(own.authority) => return Ok(false),
            Ok(own) => {
                let signer = self.signer()?;
                if !signer.gives_more_than(&own, now) {
                    return Ok(false);
                }
                signer
            }
            Err(refusal) if refusal.code == CloseCode::Expired => self.signer()?,
            Err(refusal) => return Err(IdentityError::Refused { path, refusal }.into()),
        };
        let issued = self.issue_with(&signer, host, Role::Hook, &[], &key)?;
        durable::write(&path, certificate::to_pem(&issued).as_bytes(), Access::Public)
            .map_err(file("write", &path))?;
        Ok(true)
    }

    /// Makes a certificate and writes it into the books first, so that none exists that cannot be revoked.
    pub(crate) fn issue(
        &self,
        name: &str,
        role: Role,
        provides: &[String],
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let _lock = self.lock()?;
        self.issue_with(&self.signer()?, name, role, provides, key)
    }

    /// [`Self::issue`] for a caller that holds the lock.
    fn issue_with(
        &self,
        signer: &Signer,
        name: &str,
        role: Role,
        provides: &[String],
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let serial = certificate::new_serial().map_err(|_| AuthorityError::Random)?;
        let valid = certificate::validity((self.clock)(), signer.authority.expires);
        let request = Request { name, role, provides, serial, valid };
        let issued = certificate::issue(&signer.issuer, &request, key)?;
        let entry = Entry { serial, role, name: name.to_owned(), expires: valid.1 };
        let line = format!("{} {}", entry.to_line(), signer.authority.id());
        let path = self.folder.join("issued");
        durable::append_line(&path, &line).map_err(file("write", &path))?;
        Ok(issued)
    }

    /// The certificates that were issued, and by whom. A line that a crash has cut short stands for one that was never handed
    /// out.
    fn issued(&self) -> Result<Vec<(Entry, AuthorityId)>, AuthorityError> {
        let path = self.folder.join("issued");
        let text = durable::read(&path, ISSUED_BYTES_MAX).map_err(file("read", &path))?;
        let parse = |line: &str| {
            let (entry, authority) = line.rsplit_once(' ')?;
            Some((Entry::parse(entry)?, AuthorityId::parse(authority)?))
        };
        Ok(text.lines().filter_map(parse).collect())
    }

    fn trust(&self) -> Result<Trust, AuthorityError> {
        Ok(load_trust(&self.folder.join(trust::FILE))?)
    }

    fn write_trust(&self, trust: &Trust, signer: &Signer) -> Result<(), AuthorityError> {
        let path = self.folder.join(trust::FILE);
        let text = trust.sign(&signer.issuer)?;
        durable::write(&path, text.as_bytes(), Access::Public).map_err(file("write", &path))
    }

    /// Until it is dropped, no other process changes the folder.
    fn lock(&self) -> Result<File, AuthorityError> {
        durable::lock(&self.folder).map_err(file("lock", &self.folder))
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

fn check_node_name(name: &str) -> Result<(), IdentityError> {
    let fits = is_name(name);
    fits.then_some(())
        .ok_or_else(|| IdentityError::NoName { name: name.chars().take(64).collect() })
}

fn file<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> AuthorityError + 'a {
    move |source| AuthorityError::File { doing, path: path.to_owned(), source }
}

/// Why nothing can be signed.
fn offline(ended: Option<u64>) -> String {
    let why = "the authority's key is offline";
    match ended {
        None => why.to_owned(),
        Some(ago) => {
            format!("{why}, and the key that issued in its place expired {} ago", Span(ago))
        }
    }
}

/// The first few of many names.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let shown = names.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{shown} and {} more", names.len() - SHOWN) } else { shown }
}

//! The cluster's certificate authority: it makes certificates, issues tokens, and revokes.
//!
//! Its folder, beside the first host's own files:
//! ```text
//! ca.pem ca.key     the authority; the key is the cluster's crown jewel (mode 0600)
//! issued            one line for each certificate: serial, role, name, last second
//! revoked           the signed list of those that count no more
//! tokens/HASH       one file for each unused token, named by SHA-256 of its secret
//! tokens/HASH.used  the same once it was used, kept until it would have expired
//! lock              held while one of these is changed; several processes may do so
//! ```

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use gantry_protocol::limits::NEEDS_MAX;
use rcgen::{Issuer, KeyPair, PublicKeyData};
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;

use crate::certificate::{self, Request};
use crate::durable::{self, Access};
use crate::identity::{
    Clock, Identity, IdentityError, NodeIdentity, Role, Serial, read, read_certificate,
};
use crate::name::{NameMask, is_label, is_name};
use crate::refusal::{CloseCode, Refusal};
use crate::revocation::{Entry, RevocationError, Revocations};
use crate::token::{JoinToken, Secret};

/// Tokens that may wait to be used: far more than a cluster has machines, and a folder stays small.
const TOKENS_MAX: usize = 1_000;
/// Largest token file: every need at its longest.
const TOKEN_BYTES_MAX: u64 = 8 * 1024;
/// Largest book of certificates: 100,000 of them.
const ISSUED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A certificate authority with its key.
pub struct Authority {
    folder: PathBuf,
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
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
    #[error("create an authority in {}: there is one already (ca.pem)", folder.display())]
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
    #[error("issue a token: {TOKENS_MAX} wait to be used already; let some expire, or remove files in {}", folder.display())]
    TooManyTokens { folder: PathBuf },
    #[error(transparent)]
    Revocation(#[from] RevocationError),
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
        let ca_path = folder.join("ca.pem");
        if ca_path.exists() {
            return Err(AuthorityError::Exists { folder: folder.to_owned() });
        }
        check_node_name(host)?;
        durable::create_folder(folder).map_err(file("make the folder", folder))?;
        let tokens = folder.join("tokens");
        durable::create_folder(&tokens).map_err(file("make the folder", &tokens))?;
        let key = certificate::new_key()?;
        let key_path = folder.join("ca.key");
        durable::write(&key_path, key.serialize_pem().as_bytes(), Access::Secret)
            .map_err(file("write", &key_path))?;
        let certificate = certificate::authority_certificate(&key, clock())?;
        let issuer = certificate::issuer(key);
        let authority = Self { folder: folder.to_owned(), certificate, issuer, clock };
        authority.create_host(host)?;
        // Last, since its presence says that all the rest is there.
        durable::write(&ca_path, authority.pem().as_bytes(), Access::Public)
            .map_err(file("write", &ca_path))?;
        Ok(authority)
    }

    /// Reads the authority in `folder`.
    ///
    /// # Errors
    /// [`AuthorityError::Identity`] names the file that is missing or of no use.
    pub fn open(folder: &Path, clock: Clock) -> Result<Self, AuthorityError> {
        let certificate = read_certificate(&folder.join("ca.pem"))?;
        let key_path = folder.join("ca.key");
        let malformed = |reason: String| {
            AuthorityError::from(IdentityError::Malformed { path: key_path.clone(), reason })
        };
        let key =
            KeyPair::from_pem(&read(&key_path)?).map_err(|error| malformed(error.to_string()))?;
        if !certificate::belongs_to(&certificate, &key) {
            return Err(malformed("the key is not that of ca.pem".to_owned()));
        }
        let issuer = certificate::issuer(key);
        Ok(Self { folder: folder.to_owned(), certificate, issuer, clock })
    }

    /// Issues a one-time token, also while the hook runs in another process; its text is one line.
    ///
    /// # Errors
    /// Where a need is none, too many tokens wait, or the token's file cannot be written.
    pub fn issue_token(&self, request: &TokenRequest) -> Result<String, AuthorityError> {
        if let Some(need) = request.provides.iter().find(|need| !is_label(need)) {
            return Err(AuthorityError::NoNeed { need: need.clone() });
        }
        if let Some(need) = request.provides.get(NEEDS_MAX) {
            return Err(AuthorityError::NoNeed { need: need.clone() });
        }
        let _lock = self.lock()?;
        self.prune_tokens()?;
        let mut secret = Secret([0; 32]);
        SystemRandom::new().fill(&mut secret.0).map_err(|_| AuthorityError::Random)?;
        let grant = Grant {
            mask: request.mask.clone(),
            role: request.role,
            provides: request.provides.clone(),
            expires: (self.clock)().saturating_add(request.expires_in),
        };
        let path = self.tokens().join(secret.file_name());
        durable::write(&path, grant.to_text().as_bytes(), Access::Secret)
            .map_err(file("write", &path))?;
        let token = JoinToken {
            host: request.advertise.clone(),
            mask: grant.mask,
            role: grant.role,
            provides: grant.provides,
            expires: grant.expires,
            authority: certificate::fingerprint(&self.certificate),
            secret,
        };
        Ok(token.to_text())
    }

    /// Revokes every unexpired certificate of a name, or the one with a serial number, and says how many. A name can
    /// join again with a new token. Running hooks take it up by [`crate::Server::reload_if_changed`].
    ///
    /// # Errors
    /// [`AuthorityError::NothingToRevoke`] where the books have none such.
    pub fn revoke(&self, name_or_serial: &str) -> Result<usize, AuthorityError> {
        let _lock = self.lock()?;
        let serial = name_or_serial.parse::<Serial>().ok();
        let now = (self.clock)();
        let mut revoked = self.issued()?;
        revoked.retain(|entry| {
            (entry.name == name_or_serial || Some(entry.serial) == serial) && entry.expires >= now
        });
        if revoked.is_empty() {
            let what = name_or_serial.chars().take(64).collect();
            return Err(AuthorityError::NothingToRevoke { what });
        }
        let count = revoked.len();
        let path = self.folder.join("revoked");
        let next = Revocations::load(&path, &self.certificate)?.with(revoked, now)?;
        durable::write(&path, next.sign(&self.issuer)?.as_bytes(), Access::Public)
            .map_err(file("write", &path))?;
        Ok(count)
    }

    /// What one of the authority's own certificates says.
    pub(crate) fn read(&self, certificate: &CertificateDer<'static>) -> Result<Identity, Refusal> {
        let chain = [certificate.clone()];
        let none = Revocations::default();
        certificate::verify_any_role(&chain, &self.certificate, &none, (self.clock)())
    }

    /// Uses up a token and makes the certificate that it grants. The token is gone before the certificate exists, so
    /// whatever happens in between, no token makes two.
    ///
    /// # Errors
    /// [`AuthorityError::Refused`] with the sentence for the node. What does not fit the token (the name, the time) leaves it
    /// unused: who has the secret may use it anyway, and a mistyped name should not cost a new token.
    pub(crate) fn admit(
        &self,
        secret: &Secret,
        name: &str,
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let grant = self.grant(secret)?;
        if !is_name(name) || !grant.mask.covers(name) {
            let shown: String = name.chars().take(64).collect();
            return Err(refused(format!("the token is for {}, not for {shown:?}", grant.mask)));
        }
        let unused = self.tokens().join(secret.file_name());
        let used = used_path(&unused);
        match durable::rename(&unused, &used) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(already_used()),
            Err(source) => {
                return Err(AuthorityError::File { doing: "use up", path: unused, source });
            }
        }
        self.issue(name, grant.role, &grant.provides, key)
    }

    /// The signed list as it stands in the folder; empty where there is none.
    pub(crate) fn revocations_text(&self) -> Result<String, AuthorityError> {
        let path = self.folder.join("revoked");
        let list = Revocations::load(&path, &self.certificate)?;
        Ok(list.sign(&self.issuer)?)
    }

    /// Another 90 days for the holder of the certificate that `shown` begins with.
    ///
    /// # Errors
    /// [`AuthorityError::Refused`] where that does not count, or has more than a third of its time left.
    pub(crate) fn renew(
        &self,
        shown: &[CertificateDer<'static>],
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        // Held over both, so that a revocation finds the old certificate or the new one in the books.
        let _lock = self.lock()?;
        let revocations = Revocations::load(&self.folder.join("revoked"), &self.certificate)?;
        let now = (self.clock)();
        let holder = certificate::verify_any_role(shown, &self.certificate, &revocations, now)
            .map_err(AuthorityError::Refused)?;
        if !holder.is_due(now) {
            let text = "the certificate has more than a third of its time left";
            return Err(AuthorityError::Refused(Refusal::new(CloseCode::Limit, text)));
        }
        self.issue_locked(&holder.name, holder.role, &holder.provides, key)
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
        let revocations = Revocations::load(&self.folder.join("revoked"), &self.certificate)?;
        let chain = [certificate];
        let own = certificate::verify(&chain, &self.certificate, Role::Hook, &revocations, now)
            .and_then(|own| certificate::check_name(own, host));
        match own {
            Ok(own) if !own.is_due(now) => return Ok(false),
            Ok(_) => {}
            Err(refusal) if refusal.code == CloseCode::Expired => {}
            Err(refusal) => return Err(IdentityError::Refused { path, refusal }.into()),
        }
        let issued = self.issue_locked(host, Role::Hook, &[], &key)?;
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
        self.issue_locked(name, role, provides, key)
    }

    /// [`Self::issue`] for a caller that holds the lock.
    fn issue_locked(
        &self,
        name: &str,
        role: Role,
        provides: &[String],
        key: &impl PublicKeyData,
    ) -> Result<CertificateDer<'static>, AuthorityError> {
        let serial = certificate::new_serial().map_err(|_| AuthorityError::Random)?;
        let valid = certificate::validity((self.clock)());
        let request = Request { name, role, provides, serial, valid };
        let issued = certificate::issue(&self.issuer, &request, key)?;
        let entry = Entry { serial, role, name: name.to_owned(), expires: valid.1 };
        let path = self.folder.join("issued");
        durable::append_line(&path, &entry.to_line()).map_err(file("write", &path))?;
        Ok(issued)
    }

    fn create_host(&self, host: &str) -> Result<(), AuthorityError> {
        let key = certificate::new_key()?;
        let issued = self.issue(host, Role::Hook, &[], &key)?;
        let list = Revocations::default().sign(&self.issuer)?;
        NodeIdentity::store_key(&self.folder, host, &key.serialize_pem())
            .and_then(|()| {
                NodeIdentity::store(&self.folder, host, &issued, &self.certificate, &list)
            })
            .map_err(file("write into", &self.folder))
    }

    fn pem(&self) -> String {
        certificate::to_pem(&self.certificate)
    }

    fn tokens(&self) -> PathBuf {
        self.folder.join("tokens")
    }

    /// What a secret grants, if it is one, unused and in time.
    fn grant(&self, secret: &Secret) -> Result<Grant, AuthorityError> {
        let path = self.tokens().join(secret.file_name());
        let text = match durable::read(&path, TOKEN_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if used_path(&path).exists() {
                    return Err(already_used());
                }
                return Err(refused("this host knows no such token (it may have expired)"));
            }
            Err(source) => return Err(AuthorityError::File { doing: "read", path, source }),
        };
        let grant = Grant::parse(&text).ok_or_else(|| IdentityError::Malformed {
            path,
            reason: "it is no token's file".to_owned(),
        })?;
        let now = (self.clock)();
        if grant.expires < now {
            let ago = crate::refusal::Span(now - grant.expires);
            return Err(refused(format!("the token expired {ago} ago; ask for a new one")));
        }
        Ok(grant)
    }

    /// Removes what has expired, and counts the rest.
    fn prune_tokens(&self) -> Result<(), AuthorityError> {
        let folder = self.tokens();
        let now = (self.clock)();
        let mut waiting = 0;
        for entry in fs::read_dir(&folder).map_err(file("read", &folder))? {
            let path = entry.map_err(file("read", &folder))?.path();
            let grant = durable::read(&path, TOKEN_BYTES_MAX).ok();
            match grant.and_then(|text| Grant::parse(&text)) {
                Some(grant) if grant.expires < now => {
                    fs::remove_file(&path).map_err(file("remove", &path))?;
                }
                Some(_) if path.extension().is_none() => waiting += 1,
                // Used ones are kept until they expire, for their own sentence; other files are not ours.
                _ => {}
            }
        }
        if waiting >= TOKENS_MAX {
            return Err(AuthorityError::TooManyTokens { folder });
        }
        Ok(())
    }

    /// The certificates that were issued. A line that a crash has cut short stands for one that was never handed out.
    fn issued(&self) -> Result<Vec<Entry>, AuthorityError> {
        let path = self.folder.join("issued");
        let text = durable::read(&path, ISSUED_BYTES_MAX).map_err(file("read", &path))?;
        Ok(text.lines().filter_map(Entry::parse).collect())
    }

    /// Until it is dropped, no other process changes the folder.
    fn lock(&self) -> Result<File, AuthorityError> {
        durable::lock(&self.folder).map_err(file("lock", &self.folder))
    }
}

/// Never shows the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("folder", &self.folder).finish_non_exhaustive()
    }
}

/// What a token's file says: mask, role, expiry and needs, one a line.
struct Grant {
    mask: NameMask,
    role: Role,
    provides: Vec<String>,
    expires: u64,
}

/// The first line of a token's file.
const GRANT_TITLE: &str = "gantry token 1";

impl Grant {
    fn to_text(&self) -> String {
        let Self { mask, role, provides, expires } = self;
        let provides = provides.join(" ");
        format!("{GRANT_TITLE}\nname {mask}\nrole {role}\nexpires {expires}\nprovides {provides}\n")
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut value = |key: &str| lines.next()?.strip_prefix(key);
        value(GRANT_TITLE)?;
        Some(Self {
            mask: value("name ")?.parse().ok()?,
            role: value("role ")?.parse().ok()?,
            expires: value("expires ")?.parse().ok()?,
            provides: value("provides ")?.split_whitespace().map(str::to_owned).collect(),
        })
    }
}

fn used_path(unused: &Path) -> PathBuf {
    unused.with_extension("used")
}

fn already_used() -> AuthorityError {
    refused("the token was used already; each lets one node join once, so ask for a new one")
}

fn refused(text: impl Into<String>) -> AuthorityError {
    AuthorityError::Refused(Refusal::new(CloseCode::TokenRefused, text))
}

fn check_node_name(name: &str) -> Result<(), IdentityError> {
    let fits = is_name(name);
    fits.then_some(())
        .ok_or_else(|| IdentityError::NoName { name: name.chars().take(64).collect() })
}

fn file<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> AuthorityError + 'a {
    move |source| AuthorityError::File { doing, path: path.to_owned(), source }
}

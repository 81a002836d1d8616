//! Who somebody is, and the files that prove it.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rcgen::KeyPair;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::authority::Authority;
use crate::certificate;
use crate::durable::{self, Access};
use crate::name::is_name;
use crate::refusal::Refusal;
use crate::trust::{self, AuthorityId, Trust, TrustError};

/// Wall time in seconds since 1970, for certificates and tokens alone. Tests move it.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The machine's wall clock.
pub fn system_clock() -> Clock {
    Arc::new(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// What a certificate is for. A certificate has one role, and no role does for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Hook,
    Worker,
    Operator,
}

impl Role {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Worker => "worker",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Text that is no role.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no role; there are hook, worker and operator")]
pub struct NoRole {
    pub text: String,
}

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(text: &str) -> Result<Self, NoRole> {
        [Self::Hook, Self::Worker, Self::Operator]
            .into_iter()
            .find(|role| role.as_str() == text)
            .ok_or_else(|| NoRole { text: text.chars().take(32).collect() })
    }
}

/// A certificate's serial number: 16 random bytes. Text form: 32 digits of lower-case hex.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(pub(crate) [u8; 16]);

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Serial {
    type Err = NoSerial;

    fn from_str(text: &str) -> Result<Self, NoSerial> {
        let bytes = (text.len() == 32).then(|| certificate::from_hex(text)).flatten();
        let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
        bytes.map(Self).ok_or_else(|| NoSerial { text: text.chars().take(64).collect() })
    }
}

/// Text that is no serial number.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no serial number; one has 32 hexadecimal digits")]
pub struct NoSerial {
    pub text: String,
}

/// What a certificate of the cluster's authority says of its holder. Made by verification alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub name: String,
    pub role: Role,
    /// The needs that the holder was granted when its token was issued.
    pub provides: Vec<String>,
    pub serial: Serial,
    /// Who has certified it.
    pub authority: AuthorityId,
    /// The certificate's last second, in seconds since 1970.
    pub expires: u64,
}

/// A node's own certificate and key, and what it knows of its cluster.
#[derive(Debug)]
pub struct NodeIdentity {
    pub(crate) identity: Identity,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
    pub(crate) trust: Trust,
    pub(crate) trust_path: PathBuf,
}

/// How a folder of keys and certificates is of no use.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    #[error("read {}: {source}{}", path.display(), if source.kind() == io::ErrorKind::NotFound { "; a node gets it by joining with a token (a first host by init)" } else { "" })]
    Read { path: PathBuf, source: io::Error },
    #[error("read {}: {reason}", path.display())]
    Malformed { path: PathBuf, reason: String },
    #[error("use the certificate {}: {refusal}", path.display())]
    Refused { path: PathBuf, refusal: Refusal },
    #[error(
        "{name:?} cannot be a name: use lower-case letters, digits, hyphens and dots; at most 64 bytes, and not \"ca\""
    )]
    NoName { name: String },
    #[error("read {}: {source}; the file of any other node of the cluster does as well", path.display())]
    Trust { path: PathBuf, source: TrustError },
}

impl NodeIdentity {
    /// Reads `NAME.pem`, `NAME.key` and `trust` in `folder`, and checks that they belong together and are good now.
    ///
    /// # Errors
    /// Names the file that is missing, unreadable, expired, of another role, or does not fit the others.
    pub fn open(
        folder: &Path,
        name: &str,
        role: Role,
        clock: &Clock,
    ) -> Result<Self, IdentityError> {
        if !is_name(name) {
            return Err(IdentityError::NoName { name: name.chars().take(64).collect() });
        }
        let path = folder.join(format!("{name}.pem"));
        let certificate = read_certificate(&path)?;
        let key_path = folder.join(format!("{name}.key"));
        let key_text = read(&key_path)?;
        let malformed =
            |reason: String| IdentityError::Malformed { path: key_path.clone(), reason };
        let key = PrivateKeyDer::from_pem_slice(key_text.as_bytes())
            .map_err(|error| malformed(error.to_string()))?;
        let pair = KeyPair::from_pem(&key_text).map_err(|error| malformed(error.to_string()))?;
        if !certificate::belongs_to(&certificate, &pair) {
            let reason = format!("the key is not that of {}; join again", path.display());
            return Err(malformed(reason));
        }
        let trust_path = folder.join(trust::FILE);
        let trust = load_trust(&trust_path)?;
        let chain = [certificate.clone()];
        let identity = certificate::verify(&chain, &trust, role, clock())
            .and_then(|identity| certificate::check_name(identity, name))
            .map_err(|refusal| IdentityError::Refused { path, refusal })?;
        Ok(Self { identity, certificate, key, trust, trust_path })
    }

    /// What the node's own certificate says.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What was trusted when the identity was opened.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// Whether a peer's certificate still counts: not revoked, of an authority that is trusted; for links that stand.
    ///
    /// # Errors
    /// The reason, to close the link with.
    pub fn check(&self, peer: &Identity) -> Result<(), Refusal> {
        self.trust.check(peer)
    }

    /// Where the host with the authority's key listens, as the token said that a node of this folder joined with; `None` in the
    /// authority's own folder. One line of text in the file `authority`, for people to change when that host moves.
    pub fn authority_host(folder: &Path) -> Option<String> {
        let text = durable::read(&folder.join("authority"), PEM_BYTES_MAX).ok()?;
        Some(text.trim().to_owned()).filter(|host| !host.is_empty())
    }

    /// Whether the certificate is to be renewed: it has lived two thirds of its time, or there is a newer root.
    pub fn is_due(&self, clock: &Clock) -> bool {
        self.identity.is_due(clock()) || !self.trust.is_current(self.identity.authority)
    }

    /// Keeps a new key. It comes before its certificate: a crash in between leaves a pair that `open` refuses with the remedy.
    pub(crate) fn store_key(folder: &Path, name: &str, pem: &str) -> io::Result<()> {
        durable::create_folder(folder)?;
        durable::write(&folder.join(format!("{name}.key")), pem.as_bytes(), Access::Secret)
    }

    /// Keeps where the authority's host is. The authority's own folder needs no such thing.
    pub(crate) fn store_authority(folder: &Path, host: &str) -> io::Result<()> {
        if Authority::is_at(folder) {
            return Ok(());
        }
        durable::write(&folder.join("authority"), format!("{host}\n").as_bytes(), Access::Public)
    }

    /// Keeps a certificate.
    pub(crate) fn store(folder: &Path, name: &str, own: &CertificateDer<'_>) -> io::Result<()> {
        let pem = certificate::to_pem(own);
        durable::write(&folder.join(format!("{name}.pem")), pem.as_bytes(), Access::Public)
    }
}

impl Identity {
    /// Whether less than a third of the certificate's time is left.
    pub(crate) fn is_due(&self, now: u64) -> bool {
        self.expires.saturating_sub(now) < certificate::NODE_SECONDS / 3
    }
}

/// Longest certificate or key file; ours have about one kilobyte.
const PEM_BYTES_MAX: u64 = 64 * 1024;

pub(crate) fn load_trust(path: &Path) -> Result<Trust, IdentityError> {
    Trust::load(path).map_err(|source| match source {
        TrustError::Read(source) => IdentityError::Read { path: path.to_owned(), source },
        source => IdentityError::Trust { path: path.to_owned(), source },
    })
}

pub(crate) fn read_certificate(path: &Path) -> Result<CertificateDer<'static>, IdentityError> {
    CertificateDer::from_pem_slice(read(path)?.as_bytes()).map_err(|error| {
        IdentityError::Malformed { path: path.to_owned(), reason: error.to_string() }
    })
}

pub(crate) fn read(path: &Path) -> Result<String, IdentityError> {
    durable::read(path, PEM_BYTES_MAX)
        .map_err(|source| IdentityError::Read { path: path.to_owned(), source })
}

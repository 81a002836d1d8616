//! One-time tokens at the authority: issued, kept as files, used up.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use gantry_protocol::limits::NEEDS_MAX;
use rcgen::PublicKeyData;
use ring::rand::{SecureRandom, SystemRandom};
use rustls::pki_types::CertificateDer;

use super::{Authority, AuthorityError, TokenRequest, file};
use crate::certificate;
use crate::durable::{self, Access};
use crate::identity::{IdentityError, Role};
use crate::name::{NameMask, is_label, is_name};
use crate::refusal::{CloseCode, Refusal, Span};
use crate::token::{JoinToken, Secret};

/// Tokens that may wait to be used: far more than a cluster has machines, and a folder stays small.
pub(super) const TOKENS_MAX: usize = 1_000;
/// Largest token file: every need at its longest.
const TOKEN_BYTES_MAX: u64 = 8 * 1024;
impl Authority {
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
        let signer = self.signer()?;
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
            authority: certificate::fingerprint(&signer.authority.certificate),
            secret,
        };
        Ok(token.to_text())
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

    pub(super) fn tokens(&self) -> PathBuf {
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
            let ago = Span(now - grant.expires);
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

//! Which key signs, and how keys come and go: rotation, and the root's key offline.
//!
//! Each change is one new list ([`crate::trust`]), written at once; a key's file comes before the list that names it and goes
//! after the list that does not. So whatever is cut short, the folder is that of before or after.

use std::fs;
use std::io;
use std::path::Path;

use rcgen::{Issuer, KeyPair};

use super::seal;
use super::{Authority, AuthorityError, KEYS, file};
use crate::certificate;
use crate::durable::{self, Access};
use crate::identity::{Identity, IdentityError, Role, read};
use crate::trust::{AuthorityId, AuthorityKind, AuthorityState, Trust, Trusted};

/// The authority that signs now, with its key.
pub(super) struct Signer {
    pub(super) trust: Trust,
    pub(super) authority: Trusted,
    pub(super) issuer: Issuer<'static, KeyPair>,
}

/// The newest certificate of a node, by the authority's books.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuedCertificate {
    pub name: String,
    pub role: Role,
    /// Its last second, in seconds since 1970.
    pub expires: u64,
    pub authority: AuthorityId,
    /// Whether its authority is one that nodes keep.
    pub current: bool,
}

impl Signer {
    /// A new cluster's.
    pub(super) fn first(trust: Trust, key: KeyPair) -> Result<Self, AuthorityError> {
        let root = trust.root().cloned().ok_or(AuthorityError::Offline { ended: None })?;
        Ok(Self { trust, authority: root, issuer: certificate::issuer(key) })
    }

    /// Whether a new certificate would live longer than the one that its holder has, or is of a newer root.
    pub(super) fn gives_more_than(&self, holder: &Identity, now: u64) -> bool {
        let (_, expires) = certificate::validity(now, self.authority.expires);
        !self.trust.is_current(holder.authority)
            || expires >= holder.expires.saturating_add(super::GAIN_MIN)
    }
}

impl Authority {
    /// The authorities that the cluster trusts, oldest first.
    ///
    /// # Errors
    /// Where the list cannot be read.
    pub fn state(&self) -> Result<Vec<AuthorityState>, AuthorityError> {
        let mut state = self.trust()?.state();
        for authority in &mut state {
            authority.has_key = self.key_path(authority.id).exists();
        }
        Ok(state)
    }

    /// The newest certificate of each node, without the expired and the revoked; by role and name.
    ///
    /// # Errors
    /// Where the books cannot be read.
    pub fn certificates(&self) -> Result<Vec<IssuedCertificate>, AuthorityError> {
        let (trust, now) = (self.trust()?, (self.clock)());
        let mut newest = std::collections::BTreeMap::new();
        for (entry, authority) in self.issued()? {
            newest.insert((entry.role, entry.name.clone()), (entry, authority));
        }
        let counts = |(entry, authority): &(crate::trust::Entry, AuthorityId)| {
            entry.expires >= now
                && !trust.is_revoked(entry.serial)
                && trust.authority(*authority).is_some()
        };
        let newest = newest.into_values().filter(counts).map(|(entry, authority)| {
            let current = trust.is_current(authority);
            let (name, role, expires) = (entry.name, entry.role, entry.expires);
            IssuedCertificate { name, role, expires, authority, current }
        });
        Ok(newest.collect())
    }

    /// Makes a new root, which the old one introduces. Both are trusted from now on, new certificates come from the new one, and
    /// every node moves to it. The old one's key is destroyed, since nothing needs it any more. Unused tokens are void: they name
    /// the old one.
    ///
    /// # Errors
    /// [`AuthorityError::RootOffline`]; [`AuthorityError::AlreadyRotated`] until [`Self::retire`].
    pub fn rotate(&self) -> Result<AuthorityId, AuthorityError> {
        let _lock = self.lock()?;
        let signer = self.root_signer("rotate the authority")?;
        if signer.trust.has_former() {
            return Err(AuthorityError::AlreadyRotated);
        }
        let now = (self.clock)();
        let expires = now.saturating_add(certificate::ROOT_SECONDS);
        let new = self.introduce(&signer, AuthorityKind::Root, expires, now)?;
        self.prune_keys(&new.trust)?;
        Ok(new.authority.id())
    }

    /// Ends the trust in the authorities before the last root. Nodes that have a certificate of one of those are shut out and must
    /// join anew, so it is refused while there are any, unless `force`. Says how many there were.
    ///
    /// # Errors
    /// [`AuthorityError::NothingToRetire`], [`AuthorityError::StillUsed`].
    pub fn retire(&self, force: bool) -> Result<usize, AuthorityError> {
        let _lock = self.lock()?;
        let signer = self.signer()?;
        if !signer.trust.has_former() {
            return Err(AuthorityError::NothingToRetire);
        }
        let mut left = self.certificates()?;
        left.retain(|certificate| !certificate.current);
        if !left.is_empty() && !force {
            let names = left.iter().map(|node| format!("{} {}", node.role, node.name)).collect();
            return Err(AuthorityError::StillUsed { names });
        }
        let next = signer.trust.without_former((self.clock)());
        self.write_trust(&next, &signer)?;
        self.prune_keys(&next)?;
        Ok(left.len())
    }

    /// Writes the root's key, sealed with a passphrase, into a new file, and removes it from the folder. A key of its own goes on
    /// issuing certificates, tokens and revocations for so many seconds.
    ///
    /// # Errors
    /// [`AuthorityError::RootOffline`] where it is gone already; [`AuthorityError::FileExists`].
    pub fn export(
        &self,
        path: &Path,
        passphrase: &[u8],
        issue_for: u64,
    ) -> Result<AuthorityState, AuthorityError> {
        let _lock = self.lock()?;
        let signer = self.root_signer("export the authority's key")?;
        if path.exists() {
            return Err(AuthorityError::FileExists { path: path.to_owned() });
        }
        let (root, now) = (signer.authority.id(), (self.clock)());
        let key = signer.issuer.key().serialize_pem();
        let sealed = seal::seal(&root.to_string(), key.as_bytes(), passphrase)?;
        durable::write(path, sealed.as_bytes(), Access::Secret).map_err(file("write", path))?;
        // Before the only other copy goes.
        let again = durable::read(path, seal::BYTES_MAX).map_err(file("read", path))?;
        if seal::open(&again, passphrase)? != key.as_bytes() {
            return Err(seal::SealError::Damaged.into());
        }
        let expires = now.saturating_add(issue_for).min(signer.authority.expires);
        let issuing = self.introduce(&signer, AuthorityKind::Issuing, expires, now)?;
        self.remove_key(root)?;
        let id = issuing.authority.id();
        let kind = AuthorityKind::Issuing;
        Ok(AuthorityState { id, kind, expires, current: true, has_key: true })
    }

    /// Brings an exported key back; the file stays.
    ///
    /// # Errors
    /// [`AuthorityError::Seal`] where the passphrase is wrong, [`AuthorityError::ForeignKey`] where the key is of another cluster or
    /// was retired.
    pub fn import(&self, path: &Path, passphrase: &[u8]) -> Result<AuthorityId, AuthorityError> {
        let sealed = durable::read(path, seal::BYTES_MAX).map_err(file("read", path))?;
        let key = seal::open(&sealed, passphrase)?;
        let foreign = || AuthorityError::ForeignKey { path: path.to_owned() };
        let key = String::from_utf8(key).map_err(|_| foreign())?;
        let key = KeyPair::from_pem(&key).map_err(|_| foreign())?;
        let _lock = self.lock()?;
        let trust = self.trust()?;
        let of = |known: &&Trusted| certificate::belongs_to(&known.certificate, &key);
        let root = trust.root().filter(of).ok_or_else(foreign)?;
        self.write_key(root.id(), &key)?;
        Ok(root.id())
    }

    /// The authority that signs now: the last root, or the key that issues in its place.
    ///
    /// # Errors
    /// [`AuthorityError::Offline`] where there is neither.
    pub(super) fn signer(&self) -> Result<Signer, AuthorityError> {
        let (trust, now) = (self.trust()?, (self.clock)());
        let mut ended = None;
        let current = trust.authorities().iter().filter(|known| trust.is_current(known.id()));
        // The root comes first in the list; of several others the latest has most of its time left.
        let (roots, others): (Vec<_>, Vec<_>) =
            current.partition(|known| known.kind == AuthorityKind::Root);
        for authority in roots.into_iter().chain(others.into_iter().rev()) {
            let path = self.key_path(authority.id());
            if !path.exists() {
                continue;
            }
            if authority.expires < now {
                ended.get_or_insert(now - authority.expires);
                continue;
            }
            let malformed = |reason: String| {
                AuthorityError::from(IdentityError::Malformed { path: path.clone(), reason })
            };
            let key = KeyPair::from_pem(&read(&path)?).map_err(|e| malformed(e.to_string()))?;
            if !certificate::belongs_to(&authority.certificate, &key) {
                return Err(malformed("the key is not that of its authority".to_owned()));
            }
            let (authority, issuer) = (authority.clone(), certificate::issuer(key));
            return Ok(Signer { trust, authority, issuer });
        }
        Err(AuthorityError::Offline { ended })
    }

    fn root_signer(&self, doing: &'static str) -> Result<Signer, AuthorityError> {
        match self.signer() {
            Ok(signer) if signer.authority.kind == AuthorityKind::Root => Ok(signer),
            Ok(_) | Err(AuthorityError::Offline { .. }) => {
                Err(AuthorityError::RootOffline { doing })
            }
            Err(error) => Err(error),
        }
    }

    /// A new authority, with its key and the list that has it, for a caller that holds the lock.
    fn introduce(
        &self,
        root: &Signer,
        kind: AuthorityKind,
        expires: u64,
        now: u64,
    ) -> Result<Signer, AuthorityError> {
        let key = certificate::new_key()?;
        let own = certificate::authority_certificate(&key, now, expires)?;
        let id = AuthorityId::of(&own);
        let trust = root.trust.with_authority(kind, own, expires, &root.issuer, now)?;
        let authority = trust.authority(id).cloned();
        let authority = authority.ok_or(AuthorityError::Offline { ended: None })?;
        self.write_key(id, &key)?;
        let new = Signer { trust, authority, issuer: certificate::issuer(key) };
        self.write_trust(&new.trust, &new)?;
        Ok(new)
    }

    fn key_path(&self, id: AuthorityId) -> std::path::PathBuf {
        self.folder.join(KEYS).join(format!("{id}.key"))
    }

    pub(super) fn write_key(&self, id: AuthorityId, key: &KeyPair) -> Result<(), AuthorityError> {
        let path = self.key_path(id);
        durable::write(&path, key.serialize_pem().as_bytes(), Access::Secret)
            .map_err(file("write", &path))
    }

    fn remove_key(&self, id: AuthorityId) -> Result<(), AuthorityError> {
        let path = self.key_path(id);
        match durable::remove(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(file("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes the keys of authorities that sign nothing any more.
    fn prune_keys(&self, trust: &Trust) -> Result<(), AuthorityError> {
        let folder = self.folder.join(KEYS);
        for entry in fs::read_dir(&folder).map_err(file("read", &folder))? {
            let path = entry.map_err(file("read", &folder))?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            // Other files are not ours.
            if let Some(id) = stem.and_then(AuthorityId::parse)
                && !trust.is_current(id)
            {
                self.remove_key(id)?;
            }
        }
        Ok(())
    }
}

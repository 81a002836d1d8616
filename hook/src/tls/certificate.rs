//! A server's certificate and key, which may be renewed while they are in use.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{Error, InconsistentKeys};
use zeroize::Zeroizing;

use super::{TlsError, certificates, provider, read};

/// How long before its end a certificate is warned about: those who renew by themselves do so earlier.
pub const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// Where they lie.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The server's own certificate first, behind it the chain.
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// What the files hold, fit for use.
#[derive(Debug)]
pub struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// The certificate's last second, in seconds since 1970.
    pub expires_unix: u64,
}

/// By what a change of the files is noticed.
pub(super) type Stamp = [Option<(SystemTime, u64)>; 2];

impl CertificateFiles {
    /// Reads both and makes sure that they belong together. An expired certificate is none the less loaded: whether to take
    /// it is for the other side to say. Blocks.
    ///
    /// # Errors
    /// What cannot be read or does not fit.
    pub fn load(&self) -> Result<Loaded, TlsError> {
        let chain = certificates(&self.certificate)?;
        let wrong = |reason: String| TlsError::Key { path: self.key.clone(), reason };
        let text = Zeroizing::new(read(&self.key)?);
        let key = PrivateKeyDer::from_pem_slice(&text).map_err(|error| wrong(error.to_string()))?;
        let expires_unix = chain.first().and_then(end_of).ok_or_else(|| TlsError::Certificate {
            path: self.certificate.clone(),
            reason: "the first certificate is malformed".to_owned(),
        })?;
        match CertifiedKey::from_der(chain, key, &provider()) {
            Ok(key) => Ok(Loaded { key: Arc::new(key), expires_unix }),
            Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => {
                Err(TlsError::Mismatch {
                    certificate: self.certificate.clone(),
                    key: self.key.clone(),
                })
            }
            Err(error) => Err(wrong(error.to_string())),
        }
    }

    /// Blocks, for two questions to the file system.
    pub(super) fn stamp(&self) -> Stamp {
        [&self.certificate, &self.key].map(|path| {
            let metadata = fs::metadata(path).ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        })
    }
}

/// The certificate's end. webpki tells it only where it lies in the past, and before it asks who has signed.
fn end_of(certificate: &CertificateDer<'_>) -> Option<u64> {
    let far = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX / 4));
    let usage = webpki::KeyUsage::server_auth();
    let own = webpki::EndEntityCert::try_from(certificate).ok()?;
    match own.verify_for_usage(&[], &[], &[], far, usage, None, None) {
        Err(webpki::Error::CertExpired { not_after, .. }) => Some(not_after.as_secs()),
        _ => None,
    }
}

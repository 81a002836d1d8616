//! TLS under SMTP and LMTP (RFC 3207): what intakes show, what the way out asks of the next hop, and the stream that is
//! either encrypted or not.
//!
//! It has nothing to do with the cluster's own certificates ([`gantry_link`]): here they are the administrator's, as mail
//! servers use them. The oldest version is TLS 1.2 (RFC 9325, 3.1.1): there are still mail hosts without 1.3.

mod certificate;
mod client;
mod server;
mod stream;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

pub use certificate::{CertificateFiles, EXPIRY_WARNING, Loaded};
pub use client::{ClientTls, Demand};
pub use server::ServerTls;
pub(crate) use stream::{Stream, Unread};

/// Certificates in one file: a chain has three or four, a list of authorities some 150.
const CERTIFICATES_MAX: usize = 1_000;

/// Why files cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("read {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "read {}: {reason}; it should hold certificates in PEM form, -----BEGIN CERTIFICATE-----",
        path.display()
    )]
    Certificate { path: PathBuf, reason: String },
    #[error(
        "read {}: {reason}; it should hold a private key in PEM form without a passphrase",
        path.display()
    )]
    Key { path: PathBuf, reason: String },
    #[error(
        "use {} with {}: the key is not the certificate's; the first certificate of the file must be the server's own",
        certificate.display(), key.display()
    )]
    Mismatch { certificate: PathBuf, key: PathBuf },
    #[error("verify the next hop as {name:?}: that is no name; write a host name or an address")]
    Name { name: String },
    #[error("prepare TLS: {0}")]
    Rustls(#[from] rustls::Error),
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// All certificates of a file, at least one. Blocks.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(path)?;
    let wrong = |reason: String| TlsError::Certificate { path: path.to_owned(), reason };
    let read: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(&text).take(CERTIFICATES_MAX).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => {
            Err(wrong("there is no certificate in it".to_owned()))
        }
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(wrong(error.to_string())),
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })
}

//! A mail server's certificate, made for a test.

use std::fs;
use std::path::{Path, PathBuf};

use rcgen::{CertifiedKey, generate_simple_self_signed};

/// A certificate that has signed itself, for `127.0.0.1`: what a distribution makes for a mail server when it is installed.
pub struct Certificate {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Certificate {
    /// Makes `NAME.pem` and `NAME.key` in a folder.
    pub fn make(folder: &Path, name: &str) -> Self {
        let names = vec!["127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(names).expect("make a certificate");
        let (certificate, key) =
            (folder.join(format!("{name}.pem")), folder.join(format!("{name}.key")));
        fs::write(&certificate, cert.pem()).expect("write a certificate");
        fs::write(&key, signing_key.serialize_pem()).expect("write a key");
        Self { certificate, key }
    }

    /// As two settings of Postfix's smtpd on one line, each with this before it.
    pub(crate) fn settings(&self, before: &str) -> String {
        let (certificate, key) = (self.certificate.display(), self.key.display());
        format!(
            "{before}smtpd_tls_cert_file={certificate} {before}smtpd_tls_key_file={key} {before}smtpd_tls_loglevel=1"
        )
    }
}

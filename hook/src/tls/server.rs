//! TLS as an intake offers it.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use gantry_mail::date;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

use super::certificate::{CertificateFiles, EXPIRY_WARNING, Stamp};
use super::{Stream, TlsError, provider};
use crate::intake::unix_ms;

/// How often the files are looked at: who renews by ACME replaces them and tells nobody.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// How often a certificate's coming end is told again.
const WARN_EVERY_S: u64 = 24 * 60 * 60;

/// What a mailbox's intake needs for STARTTLS. Clones share the certificate.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Whether mail is taken over TLS alone.
    pub required: bool,
    config: Arc<ServerConfig>,
    certificate: Arc<Certificate>,
}

/// The certificate in use.
#[derive(Debug)]
struct Certificate {
    files: CertificateFiles,
    current: RwLock<Arc<CertifiedKey>>,
    looked: Mutex<Looked>,
}

#[derive(Debug)]
struct Looked {
    /// Of the files when they were last read, whatever came of it: a mistake is told once.
    stamp: Stamp,
    expires_unix: u64,
    warned_unix: u64,
}

impl ServerTls {
    /// Reads certificate and key. Blocks.
    ///
    /// # Errors
    /// Where they cannot be used.
    pub fn open(files: CertificateFiles, required: bool) -> Result<Self, TlsError> {
        let stamp = files.stamp();
        let loaded = files.load()?;
        let looked = Looked { stamp, expires_unix: loaded.expires_unix, warned_unix: 0 };
        let certificate = Arc::new(Certificate {
            files,
            current: RwLock::new(loaded.key),
            looked: Mutex::new(looked),
        });
        let config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(certificate.clone());
        Ok(Self { required, config: Arc::new(config), certificate })
    }

    /// Takes renewed files into use, and warns before a certificate's end, for as long as the mailbox is served. `hangups`
    /// says when to look at once.
    pub async fn follow(self, mailbox: String, mut hangups: mpsc::Receiver<()>) {
        loop {
            let (certificate, mailbox) = (Arc::clone(&self.certificate), mailbox.clone());
            let look = move || certificate.look(&mailbox, unix_ms() / 1_000);
            if let Err(error) = tokio::task::spawn_blocking(look).await {
                tracing::error!("look at a certificate: {error}");
            }
            tokio::select! {
                Some(()) = hangups.recv() => self.certificate.forget(),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    pub(crate) async fn accept(&self, stream: TcpStream) -> std::io::Result<Stream> {
        let stream = TlsAcceptor::from(Arc::clone(&self.config)).accept(stream).await?;
        Ok(Stream::Server(Box::new(stream)))
    }

    #[cfg(test)]
    pub(super) fn look(&self) {
        self.certificate.look("mail.box", unix_ms() / 1_000);
    }
}

impl Certificate {
    /// Reads files that have changed. Where they are no good, the former certificate stays. Blocks.
    fn look(&self, mailbox: &str, now_unix: u64) {
        let mut looked = self.looked.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = self.files.stamp();
        if looked.stamp != stamp {
            looked.stamp = stamp;
            match self.files.load() {
                Ok(loaded) => {
                    *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded.key;
                    looked.expires_unix = loaded.expires_unix;
                    looked.warned_unix = 0;
                    tracing::info!(mailbox, "the renewed certificate is in use");
                }
                Err(error) => tracing::error!(mailbox, "the former certificate stays: {error}"),
            }
        }
        let warn_from = looked.expires_unix.saturating_sub(EXPIRY_WARNING.as_secs());
        if now_unix >= warn_from && now_unix >= looked.warned_unix.saturating_add(WARN_EVERY_S) {
            looked.warned_unix = now_unix;
            let at = date::rfc3339(looked.expires_unix.saturating_mul(1_000));
            match now_unix > looked.expires_unix {
                true => tracing::error!(mailbox, at, "the certificate for STARTTLS has expired"),
                false => tracing::warn!(mailbox, at, "the certificate for STARTTLS expires soon"),
            }
        }
    }

    /// Lets the next look read the files whether they have changed or not.
    fn forget(&self) {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner).stamp = [None, None];
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

//! TLS as the way out asks for it.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Stream, TlsError, certificates, provider};

/// What a way out demands of its next hop.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Demand {
    /// Nothing is encrypted.
    #[default]
    Off,
    /// What the next hop offers is used, whoever it is (RFC 7435); else mail goes in the clear.
    Opportunistic,
    /// No mail without TLS and a certificate that one of this file has signed, or is, for this name.
    Required { ca: PathBuf, name: String },
}

/// What a way out needs for STARTTLS.
#[derive(Clone, Debug)]
pub struct ClientTls {
    pub(crate) required: bool,
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl ClientTls {
    /// Prepares what is demanded of `host`; `None` where that is nothing. Blocks.
    ///
    /// # Errors
    /// Where the file with authorities cannot be used.
    pub fn open(demand: &Demand, host: &str) -> Result<Option<Self>, TlsError> {
        let (name, required) = match demand {
            Demand::Off => return Ok(None),
            Demand::Opportunistic => (host, false),
            Demand::Required { name, .. } => (name.as_str(), true),
        };
        let name = ServerName::try_from(name.to_owned())
            .map_err(|_| TlsError::Name { name: name.to_owned() })?;
        let verifier: Arc<dyn ServerCertVerifier> = match demand {
            Demand::Required { ca, .. } => Arc::new(Trusted::read(ca.clone())?),
            _ => Arc::new(Anybody(provider())),
        };
        let config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Some(Self { required, config: Arc::new(config), name }))
    }

    pub(crate) async fn connect(&self, stream: TcpStream) -> std::io::Result<Stream> {
        let connector = TlsConnector::from(Arc::clone(&self.config));
        let stream = connector.connect(self.name.clone(), stream).await?;
        Ok(Stream::Client(Box::new(stream)))
    }
}

/// Takes what one of these authorities has signed for the name, or one of the certificates itself: who names the next
/// hop's own one means exactly that, whatever name and dates stand in it (as DANE-EE does, RFC 7671, 5.1). So a server
/// with the self-signed certificate that its package made can be verified, too.
#[derive(Debug)]
struct Trusted {
    known: Vec<CertificateDer<'static>>,
    authorities: Arc<WebPkiServerVerifier>,
}

impl Trusted {
    fn read(path: PathBuf) -> Result<Self, TlsError> {
        let known = certificates(&path)?;
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(known.iter().cloned());
        let authorities =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let authorities = authorities.map_err(|error| TlsError::Certificate {
            path,
            reason: format!("none of its certificates can be used: {error}"),
        })?;
        Ok(Self { known, authorities })
    }
}

impl ServerCertVerifier for Trusted {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if self.known.iter().any(|known| known == end_entity) {
            return Ok(ServerCertVerified::assertion());
        }
        self.authorities.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}

/// Takes any certificate: against those who only listen that is as good as a verified one, and who could put himself
/// between could also take STARTTLS out of the offer.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

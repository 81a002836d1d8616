//! QUIC and TLS as both sides use them.
//!
//! TLS itself proves only that the peer has the key of the certificate it shows. Whether that certificate counts is
//! decided right after the handshake, before a byte of the peer's streams is read (see [`crate::certificate::verify`]):
//! a refusal then carries a sentence, where TLS would leave the other side with a number.

use std::sync::Arc;
use std::time::Duration;

use gantry_protocol::limits::RESERVATIONS_PER_GRABBER_MAX;
use quinn::crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig};
use quinn::{IdleTimeout, TransportConfig, VarInt};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    ClientConfig, DigitallySignedStruct, DistinguishedName, PeerIncompatible, ServerConfig,
    SignatureScheme,
};

/// What a connection is for.
pub(crate) const ALPN_LINK: &[u8] = b"gantry/1";
pub(crate) const ALPN_JOIN: &[u8] = b"gantry-join/1";
pub(crate) const ALPN_OPERATOR: &[u8] = b"gantry-op/1";

/// The host name in a client's TLS greeting. A host is known by its certificate alone, and its name is learned there.
pub(crate) const SERVER_NAME: &str = "hook.gantry.internal";

/// Beats tell within a second whether a peer lives. This only frees what a vanished one has left behind.
const IDLE_TIME_MAX: Duration = Duration::from_secs(10);
/// Also keeps a firewall's or a NAT's mapping alive between the slow beats of an idle worker.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Bytes of one stream that the host buffers unread. Verdicts are small; a replaced body still passes at 64 KiB a round trip.
const HOST_STREAM_WINDOW: u32 = 64 * 1024;
/// The same for a worker, which receives every message: 25 MB/s on one stream at 10 ms.
const WORKER_STREAM_WINDOW: u32 = 256 * 1024;
/// Bytes that one side of a link may have under way, in all streams together: what a link can cost the sender in memory.
/// 100 MB/s at 10 ms.
const SEND_WINDOW: u64 = 1024 * 1024;
/// Streams that a worker may have open at the host: its control stream and those of reservations that it resumes.
/// What it resumes beyond that waits for a place.
pub(crate) const WORKER_STREAMS_MAX: u32 = 1 + 256;

/// The transport parameters of the host's side.
pub(crate) fn host_transport() -> TransportConfig {
    let reservations = u32::try_from(RESERVATIONS_PER_GRABBER_MAX).unwrap_or(u32::MAX);
    let streams = WORKER_STREAMS_MAX.saturating_add(reservations);
    let mut transport = transport(HOST_STREAM_WINDOW, streams);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(WORKER_STREAMS_MAX));
    transport
}

/// The transport parameters of the worker's side.
pub(crate) fn worker_transport() -> TransportConfig {
    let reservations = u32::try_from(RESERVATIONS_PER_GRABBER_MAX).unwrap_or(u32::MAX);
    let streams = WORKER_STREAMS_MAX.saturating_add(reservations);
    let mut transport = transport(WORKER_STREAM_WINDOW, streams);
    transport.max_concurrent_bidi_streams(VarInt::from_u32(reservations));
    transport
}

fn transport(stream_window: u32, streams: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .datagram_receive_buffer_size(None)
        .stream_receive_window(VarInt::from_u32(stream_window))
        // Every stream full and unread at once: so one that nobody reads never stops the others.
        .receive_window(VarInt::from_u32(stream_window.saturating_mul(streams)))
        .send_window(SEND_WINDOW)
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(IdleTimeout::try_from(IDLE_TIME_MAX).ok());
    transport
}

/// What cannot happen with our own keys and constants, but is not to be a panic.
#[derive(Debug, thiserror::Error)]
#[error("set up TLS: {0}")]
pub struct TlsError(String);

impl TlsError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// The certificates that a side shows, its own first, and its key.
pub(crate) type Shown = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// TLS for the side that is dialled: 1.3 alone, no resumption, no early data. Which role it has in the protocol is told by
/// `transport`.
pub(crate) fn server_config(
    (chain, key): Shown,
    alpns: &[&[u8]],
    transport: TransportConfig,
) -> Result<quinn::ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let possession = Arc::new(Possession { provider: Arc::clone(&provider) });
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::of)?
        .with_client_cert_verifier(possession)
        .with_single_cert(chain, key)
        .map_err(TlsError::of)?;
    tls.alpn_protocols = alpns.iter().map(|alpn| alpn.to_vec()).collect();
    // Each link proves the certificate anew: a resumed session would outlive a revocation.
    tls.send_tls13_tickets = 0;
    tls.session_storage = Arc::new(NoServerSessionStorage {});
    tls.max_early_data_size = 0;
    let quic = QuicServerConfig::try_from(tls).map_err(TlsError::of)?;
    let mut config = quinn::ServerConfig::with_crypto(Arc::new(quic));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// TLS for the side that dials. `own` is `None` only in tests.
pub(crate) fn client_config(
    own: Option<Shown>,
    alpn: &[u8],
    transport: TransportConfig,
) -> Result<quinn::ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let possession = Arc::new(Possession { provider: Arc::clone(&provider) });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(TlsError::of)?
        .dangerous()
        .with_custom_certificate_verifier(possession);
    let mut tls = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(TlsError::of)?,
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    tls.resumption = Resumption::disabled();
    tls.enable_early_data = false;
    let quic = QuicClientConfig::try_from(tls).map_err(TlsError::of)?;
    let mut config = quinn::ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport));
    Ok(config)
}

/// The certificates that the peer has shown and proved to have the key of; none where it showed none.
pub(crate) fn peer_chain(quic: &quinn::Connection) -> Vec<CertificateDer<'static>> {
    let chain = quic.peer_identity().and_then(|any| any.downcast().ok());
    chain.map_or_else(Vec::new, |chain: Box<Vec<CertificateDer<'static>>>| *chain)
}

/// What the connection is for.
pub(crate) fn alpn(quic: &quinn::Connection) -> Option<Vec<u8>> {
    quic.handshake_data()?.downcast::<HandshakeData>().ok()?.protocol
}

/// Checks in the handshake that the peer has the key of the certificate it shows, and leaves the rest to
/// [`crate::certificate::verify`].
#[derive(Debug)]
struct Possession {
    provider: Arc<CryptoProvider>,
}

impl Possession {
    fn check(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// QUIC has TLS 1.3 alone.
fn no_tls12<T>() -> Result<T, rustls::Error> {
    Err(PeerIncompatible::ServerDoesNotSupportTls12Or13.into())
}

impl ClientCertVerifier for Possession {
    fn client_auth_mandatory(&self) -> bool {
        // Who joins has none yet, and who should have one is told so in words.
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

impl ServerCertVerifier for Possession {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        no_tls12()
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes()
    }
}

//! Joining a cluster with a token: how a node gets its certificate.
//!
//! On a connection of its own (`gantry-join/1`), in which the joining node shows a bare certificate for its new key (which
//! TLS makes it prove it has) and verifies the host by the fingerprint in its token. One stream: request, answer.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::authority::{Authority, AuthorityError};
use crate::certificate::{self, PublicKey};
use crate::client::{LinkError, dial, resolve};
use crate::identity::{Clock, Identity, IdentityError, NodeIdentity, Role};
use crate::link::{Closed, close};
use crate::name::is_name;
use crate::refusal::{CloseCode, Refusal, Span};
use crate::revocation::Revocations;
use crate::server::{GREETING_TIME_MAX, said_nothing};
use crate::token::{JoinToken, Secret, TokenError};
use crate::transport::{self, ALPN_JOIN};

/// Largest request: a secret and a name.
const REQUEST_BYTES_MAX: usize = 256;
/// Largest answer: two certificates and a full revocation list.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Joins under way at once: each writes files and makes a signature.
const JOINS_MAX: usize = 4;
/// Attempts in [`JOINS_WINDOW`], from all together. A secret has 256 bits, so this is not against guessing but against load.
const JOINS_PER_WINDOW_MAX: u32 = 100;
const JOINS_WINDOW: Duration = Duration::from_secs(10);
/// From the first packet to the certificate, for each address.
const JOIN_TIME_MAX: Duration = Duration::from_secs(30);

/// What a joining node says. Frozen with `gantry-join/1`, as is the answer.
#[derive(Serialize, Deserialize)]
struct Request {
    secret: Secret,
    name: String,
}

/// What the host answers.
#[derive(Serialize, Deserialize)]
enum Answer {
    Granted { certificate: Vec<u8>, revocations: String },
    Refused { text: String },
}

/// How a node has not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error("join with the token: it expired {ago} ago; ask for a new one")]
    Expired { ago: String },
    #[error("join with the token: it is for {mask}, not for {name:?}")]
    Name { mask: String, name: String },
    #[error("join with the token: it is for the role {got}, and this is a {wanted}'s")]
    Role { got: Role, wanted: Role },
    /// The host said no, and why.
    #[error("join at {host}: the host refuses: {refusal}")]
    Refused { host: String, refusal: Refusal },
    /// The host is not the one that the token is of.
    #[error("join at {host}: the host is not to be trusted: {refusal}")]
    HostRefused { host: String, refusal: Refusal },
    #[error("join at {host}: {reason}")]
    Unreachable { host: String, reason: String },
    #[error("make a key: {0}")]
    Crypto(#[from] rcgen::Error),
    #[error("keep the new identity in {folder}: {source}")]
    Store { folder: String, source: std::io::Error },
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

/// Joins with a token's text: makes a key, has it certified by the host, and keeps both in `folder`. The key never travels.
///
/// # Errors
/// [`JoinError`]. A token that does not fit the name, the role or the time is refused here, unused.
pub async fn join(
    token: &str,
    folder: &Path,
    name: &str,
    role: Role,
    clock: &Clock,
) -> Result<NodeIdentity, JoinError> {
    let token: JoinToken = token.parse()?;
    check_token(&token, name, role, clock())?;
    let key = certificate::new_key()?;
    let shown = certificate::bare_certificate(&key)?;
    let host = || token.host.clone();
    let unreachable = |reason: String| JoinError::Unreachable { host: host(), reason };
    let addresses = resolve(&token.host).await.map_err(|error| match error {
        LinkError::Unreachable { reason, .. } => unreachable(reason),
        other => unreachable(other.to_string()),
    })?;
    let mut last = unreachable("the name has no address".to_owned());
    for address in addresses {
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let own = (shown.clone(), private);
        let attempt = async {
            let quic = dial(address, Some(own), ALPN_JOIN).await;
            let quic = quic.map_err(|error| unreachable(error.to_string()))?;
            ask(&quic, &token, name, clock()).await
        };
        match timeout(JOIN_TIME_MAX, attempt).await {
            Ok(Ok(granted)) => {
                let Granted { certificate, authority, revocations } = granted;
                NodeIdentity::store(
                    folder,
                    name,
                    &key,
                    &certificate,
                    Some(&authority),
                    &revocations,
                )
                .map_err(|source| JoinError::Store {
                    folder: folder.display().to_string(),
                    source,
                })?;
                return Ok(NodeIdentity::open(folder, name, role, clock)?);
            }
            Ok(Err(error @ JoinError::Unreachable { .. })) => last = error,
            Ok(Err(error)) => return Err(error),
            Err(_) => last = unreachable(format!("{address} does not answer")),
        }
    }
    Err(last)
}

/// What the holder can see for itself, before the host is asked.
fn check_token(token: &JoinToken, name: &str, role: Role, now: u64) -> Result<(), JoinError> {
    if token.role != role {
        return Err(JoinError::Role { got: token.role, wanted: role });
    }
    if !is_name(name) || !token.mask.covers(name) {
        let name = name.chars().take(64).collect();
        return Err(JoinError::Name { mask: token.mask.to_string(), name });
    }
    if token.expires < now {
        return Err(JoinError::Expired { ago: Span(now - token.expires).to_string() });
    }
    Ok(())
}

struct Granted {
    certificate: CertificateDer<'static>,
    authority: CertificateDer<'static>,
    revocations: String,
}

/// Verifies the host by the token's fingerprint, and only then shows it the secret.
async fn ask(
    quic: &quinn::Connection,
    token: &JoinToken,
    name: &str,
    now: u64,
) -> Result<Granted, JoinError> {
    let host = || token.host.clone();
    let chain = transport::peer_chain(quic);
    let authority = pinned(&chain, token, now).map_err(|refusal| {
        close(quic, &refusal);
        JoinError::HostRefused { host: host(), refusal }
    })?;
    let lost = |error: quinn::ConnectionError| match Closed::from(error) {
        Closed::ByPeer { code, text } => {
            JoinError::Refused { host: host(), refusal: Refusal::new(code, text) }
        }
        other => JoinError::Unreachable { host: host(), reason: other.to_string() },
    };
    let broken = |reason: String| JoinError::Unreachable { host: host(), reason };
    let (mut send, mut receive) = quic.open_bi().await.map_err(lost)?;
    let request = Request { secret: token.secret, name: name.to_owned() };
    let request = postcard::to_stdvec(&request).map_err(|error| broken(error.to_string()))?;
    // Where these fail, the answer or the end of the connection says more.
    let _ = send.write_all(&request).await;
    let _ = send.finish();
    let answer = match receive.read_to_end(ANSWER_BYTES_MAX).await {
        Ok(answer) => answer,
        Err(quinn::ReadToEndError::Read(quinn::ReadError::ConnectionLost(error))) => {
            return Err(lost(error));
        }
        Err(error) => return Err(broken(format!("read the answer: {error}"))),
    };
    close(quic, &Refusal::new(CloseCode::Done, ""));
    match postcard::from_bytes(&answer) {
        Ok(Answer::Granted { certificate, revocations }) => {
            Revocations::parse(&revocations, &authority).map_err(|e| broken(e.to_string()))?;
            Ok(Granted { certificate: CertificateDer::from(certificate), authority, revocations })
        }
        Ok(Answer::Refused { text }) => {
            let refusal = Refusal::new(CloseCode::TokenRefused, text);
            Err(JoinError::Refused { host: host(), refusal })
        }
        Err(_) => Err(broken("the host's answer cannot be read".to_owned())),
    }
}

/// The authority whose fingerprint the token has, where the host shows it and was certified by it.
fn pinned(
    chain: &[CertificateDer<'static>],
    token: &JoinToken,
    now: u64,
) -> Result<CertificateDer<'static>, Refusal> {
    let authority = chain.iter().find(|shown| certificate::fingerprint(shown) == token.authority);
    let authority = authority.cloned().ok_or_else(|| {
        let text = "the host is not of the cluster that the token is of";
        Refusal::new(CloseCode::UnknownAuthority, text)
    })?;
    certificate::verify(chain, &authority, Role::Hook, &Revocations::default(), now)?;
    Ok(authority)
}

/// Where the host serves those who join.
pub(crate) struct JoinDesk {
    authority: Arc<Authority>,
    places: Semaphore,
    /// Begin of the window at hand, and attempts in it.
    window: Mutex<(Instant, u32)>,
}

impl JoinDesk {
    pub(crate) fn new(authority: Arc<Authority>) -> Self {
        let window = Mutex::new((Instant::now(), 0));
        Self { authority, places: Semaphore::new(JOINS_MAX), window }
    }

    fn count_attempt(&self) -> Result<(), Refusal> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if window.0.elapsed() > JOINS_WINDOW {
            *window = (Instant::now(), 0);
        }
        window.1 += 1;
        if window.1 > JOINS_PER_WINDOW_MAX {
            let text = "too many nodes try to join; try again in a minute";
            return Err(Refusal::new(CloseCode::Limit, text));
        }
        Ok(())
    }
}

/// The host's side of a join.
///
/// # Errors
/// The sentence that the node has been told, or is to be told by closing.
pub(crate) async fn admit(
    quic: &quinn::Connection,
    desk: Option<&JoinDesk>,
) -> Result<Identity, Refusal> {
    let desk = desk.ok_or_else(|| {
        let text = "this host does not have the authority's key; join at the one that does";
        Refusal::new(CloseCode::TokenRefused, text)
    })?;
    desk.count_attempt()?;
    let strange = |text: &str| Refusal::new(CloseCode::Misbehaved, text);
    let shown = transport::peer_chain(quic);
    let key = shown.first().and_then(PublicKey::of);
    let key = key.ok_or_else(|| strange("a joining node must show its new key (P-256)"))?;
    let asked = timeout(GREETING_TIME_MAX, read_request(quic)).await;
    let (mut send, request) = asked.unwrap_or_else(|_| Err(said_nothing()))?;
    // Only now: who says nothing must not hold a place.
    let Ok(_place) = desk.places.acquire().await else {
        return Err(strange("the host is shutting down"));
    };
    let authority = Arc::clone(&desk.authority);
    let outcome = tokio::task::spawn_blocking(move || grant(&authority, &request, &key)).await;
    let (answer, outcome) = match outcome {
        Ok(Ok((answer, identity))) => (answer, Ok(identity)),
        Ok(Err(refusal)) => (Answer::Refused { text: refusal.text.clone() }, Err(refusal)),
        Err(_) => return Err(strange("the host failed while it made the certificate")),
    };
    let answer = postcard::to_stdvec(&answer).unwrap_or_default();
    // A node that has gone has no use for the answer; its token is used up all the same.
    let _ = send.write_all(&answer).await;
    let _ = send.finish();
    let _ = timeout(GREETING_TIME_MAX, send.stopped()).await;
    outcome
}

async fn read_request(quic: &quinn::Connection) -> Result<(quinn::SendStream, Request), Refusal> {
    let strange = |text: String| Refusal::new(CloseCode::Misbehaved, text);
    let (send, mut receive) = quic.accept_bi().await.map_err(|error| match error.into() {
        Closed::ByPeer { code, text } => {
            Refusal::new(code, format!("the joining node closed the connection: {text}"))
        }
        other => strange(format!("read the request: {other}")),
    })?;
    let request = receive.read_to_end(REQUEST_BYTES_MAX).await;
    let request = request.map_err(|error| strange(format!("read the request: {error}")))?;
    let request = postcard::from_bytes(&request);
    Ok((send, request.map_err(|_| strange("the request cannot be read".to_owned()))?))
}

/// Uses up the token and makes the certificate: file work.
fn grant(
    authority: &Authority,
    request: &Request,
    key: &PublicKey,
) -> Result<(Answer, Identity), Refusal> {
    let told = |error: AuthorityError| match error {
        AuthorityError::Refused(refusal) => refusal,
        other => {
            // The reason has paths of this host in it, which are not a stranger's to know.
            tracing::error!("a join failed: {other}");
            Refusal::new(CloseCode::TokenRefused, "the host failed; its log says why")
        }
    };
    let issued = authority.admit(&request.secret, &request.name, key).map_err(told)?;
    let identity = authority.read(&issued)?;
    let revocations = authority.revocations_text().map_err(told)?;
    Ok((Answer::Granted { certificate: issued.to_vec(), revocations }, identity))
}

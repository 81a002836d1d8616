//! How a node gets its certificate: it joins with a token, and later renews what it has. And how the cluster's nodes, hosts
//! and workers, exchange trust lists with a host.
//!
//! On a connection of its own (`gantry-join/1`). A joining node shows a bare certificate for its new key, which TLS makes it
//! prove it has, and verifies the host by the fingerprint in its token. A node of the cluster shows its certificate as on a
//! link. One stream: request, answer. The host's side is [`crate::desk`].

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use rcgen::KeyPair;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use crate::authority::Authority;
use crate::certificate::{self, PublicKey};
use crate::client::{LinkError, dial, resolve};
use crate::identity::{Clock, IdentityError, NodeIdentity, Role, load_trust};
use crate::link::{Closed, close};
use crate::name::is_name;
use crate::refusal::{CloseCode, Refusal, Span};
use crate::token::{JoinToken, Secret, TokenError};
use crate::transport::{self, ALPN_JOIN, worker_transport};
use crate::trust::{self, Trust, TrustError, Trusted};

/// Largest request: a secret and a name. A trust list comes on top.
pub(crate) const REQUEST_BYTES_MAX: usize = 256;
/// Largest answer: a certificate and a full trust list.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// For one that dials a joining node, from its first packet on: a stranger must not keep the host out for long.
const CALL_TIME_MAX: Duration = Duration::from_secs(5);
/// From the first packet to the certificate, for each address.
const TIME_MAX: Duration = Duration::from_secs(30);

/// What a node asks for. Frozen with `gantry-join/1`, as is the answer.
#[derive(Serialize, Deserialize)]
pub(crate) enum Request {
    /// A first certificate, for the key that it shows.
    Join { secret: Secret, name: String },
    /// Another 90 days of what its certificate says.
    Renew,
    /// The host's trust list, for a node of the cluster.
    Trust,
    /// Here is a newer one.
    Newer { list: String },
}

/// What the host answers.
#[derive(Serialize, Deserialize)]
pub(crate) enum Answer {
    Granted { certificate: Vec<u8>, trust: String },
    Refused { text: String },
    Trust { list: String },
}

/// How a node got no certificate.
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
    #[error("ask {host} for a certificate: the host refuses: {refusal}")]
    Refused { host: String, refusal: Refusal },
    /// The host is not the one that the token is of.
    #[error("ask {host} for a certificate: the host is not to be trusted: {refusal}")]
    HostRefused { host: String, refusal: Refusal },
    #[error("ask {host} for a certificate: {reason}")]
    Unreachable { host: String, reason: String },
    /// Another cluster's authority lies where the new identity was to be kept.
    #[error(
        "join with the token: {folder} has the authority of another cluster; use a folder of its own"
    )]
    OtherAuthority { folder: String },
    /// The address to wait at cannot be had.
    #[error("wait for the host at {address}/udp: {source}")]
    Listen { address: SocketAddr, source: std::io::Error },
    #[error("make a key: {0}")]
    Crypto(#[from] rcgen::Error),
    #[error("keep the new identity in {folder}: {source}")]
    Store { folder: String, source: std::io::Error },
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl JoinError {
    /// The code with which a program ends for it, as in BSD's `sysexits.h`.
    pub fn exit_code(&self) -> u8 {
        const DATA: u8 = 65;
        const UNAVAILABLE: u8 = 69;
        const CANNOT_CREATE: u8 = 73;
        const NO_PERMISSION: u8 = 77;
        match self {
            Self::Refused { .. } => NO_PERMISSION,
            Self::Unreachable { .. } | Self::Listen { .. } => UNAVAILABLE,
            Self::Store { .. } => CANNOT_CREATE,
            _ => DATA,
        }
    }

    /// The host's answer does not do.
    fn useless(host: &str, reason: &impl std::fmt::Display) -> Self {
        Self::Unreachable { host: host.to_owned(), reason: reason.to_string() }
    }
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
    let joining = Joining::new(token, folder, name, role, clock)?;
    let trust = |chain: &[CertificateDer<'static>]| pinned(chain, &joining.token, clock());
    let answer = ask(&joining.token.host, &joining.own, &joining.request, trust).await?;
    joining.store(answer, folder, name, role, clock)
}

/// As [`join()`], for a node that cannot reach the host: it waits at `listen` until the host dials it
/// ([`crate::certify_at`]), for as long as the token is good. `ready` is told the address that was bound. Whoever else dials
/// is hung up on, and is told nothing.
///
/// # Errors
/// [`JoinError`].
pub async fn join_called(
    token: &str,
    listen: SocketAddr,
    ready: impl FnOnce(SocketAddr),
    folder: &Path,
    (name, role): (&str, Role),
    clock: &Clock,
) -> Result<NodeIdentity, JoinError> {
    let joining = Joining::new(token, folder, name, role, clock)?;
    let bound = |source| JoinError::Listen { address: listen, source };
    let own = (vec![joining.own.0.clone()], joining.own.1.clone_key());
    let config = transport::server_config(own, &[ALPN_JOIN], worker_transport());
    let config = config.map_err(|error| bound(std::io::Error::other(error)))?;
    let endpoint = quinn::Endpoint::server(config, listen).map_err(bound)?;
    ready(endpoint.local_addr().map_err(bound)?);
    let trust = |chain: &[CertificateDer<'static>]| pinned(chain, &joining.token, clock());
    let left = Duration::from_secs(joining.token.expires.saturating_sub(clock()));
    let called = async {
        while let Some(incoming) = endpoint.accept().await {
            let host = incoming.remote_address().to_string();
            let exchanged = async {
                let quic = incoming.accept().ok()?.await.ok()?;
                Some(exchange(&quic, &host, &joining.request, &trust).await)
            };
            match timeout(CALL_TIME_MAX, exchanged).await {
                Ok(Some(Ok(answer))) => return Ok(answer),
                Ok(Some(Err(error @ JoinError::Refused { .. }))) => return Err(error),
                Ok(Some(Err(error))) => tracing::warn!("{error}"),
                Ok(None) | Err(_) => tracing::debug!(host, "no host of the token's cluster"),
            }
        }
        let reason = "the port was closed".to_owned();
        Err(JoinError::Unreachable { host: listen.to_string(), reason })
    };
    let answer = timeout(left, called)
        .await
        .unwrap_or_else(|_| Err(JoinError::Expired { ago: Span(0).to_string() }))?;
    let joined = joining.store(answer, folder, name, role, clock);
    // The host is to hear that its answer has arrived.
    let _ = timeout(CALL_TIME_MAX, endpoint.wait_idle()).await;
    joined
}

/// Renews a certificate at the host that has the authority, for the same key, and keeps the new one in `folder`. Links that
/// stand are not touched; the next one uses what is returned. See [`NodeIdentity::is_due`].
///
/// # Errors
/// [`JoinError`]. The old certificate stands then.
pub async fn renew(
    target: &str,
    folder: &Path,
    identity: &NodeIdentity,
    clock: &Clock,
) -> Result<NodeIdentity, JoinError> {
    let answer = ask_as(identity, target, &Request::Renew, clock).await?;
    keep_renewed(target, folder, identity, answer, clock).await
}

/// [`renew`] over a connection that the host made.
pub(crate) async fn renew_over(
    quic: &quinn::Connection,
    host: &str,
    folder: &Path,
    identity: &NodeIdentity,
    clock: &Clock,
) -> Result<NodeIdentity, JoinError> {
    let answer = ask_over(quic, host, identity, &Request::Renew, clock).await?;
    keep_renewed(host, folder, identity, answer, clock).await
}

async fn keep_renewed(
    target: &str,
    folder: &Path,
    identity: &NodeIdentity,
    answer: Answer,
    clock: &Clock,
) -> Result<NodeIdentity, JoinError> {
    let granted = Granted::of(target, answer)?;
    keep_list(target, folder, &granted.trust).await?;
    // What does not count must not take the place of what does.
    let trust = load_trust(&folder.join(trust::FILE))?;
    let own = &identity.identity;
    let renewed = [granted.certificate];
    certificate::verify(&renewed, &trust, own.role, clock())
        .and_then(|renewed| certificate::check_name(renewed, &own.name))
        .map_err(|refusal| JoinError::useless(target, &refusal))?;
    let of_key = PublicKey::of(&identity.certificate);
    if renewed.first().and_then(PublicKey::of) != of_key {
        return Err(JoinError::useless(target, &"the new certificate is for another key"));
    }
    let (place, name) = (folder.to_owned(), own.name.clone());
    // Syncs wait for the disk.
    let kept = tokio::task::spawn_blocking(move || {
        let [certificate] = renewed;
        NodeIdentity::store(&place, &name, &certificate)
    });
    kept.await.unwrap_or_else(|broken| Err(broken.into())).map_err(stored(folder))?;
    Ok(NodeIdentity::open(folder, &own.name, own.role, clock)?)
}

/// Exchanges trust lists with a host of the cluster: what it has that is newer is kept in `folder`, and what is newer here it is
/// told. Gives the identity with what the folder then says, if that is newer than what `identity` knows. The highest number wins,
/// whoever it comes from; a list says by itself whether it counts, so a host whose certificate does not (it may be of a newer root)
/// is asked all the same.
///
/// # Errors
/// [`JoinError`]; also [`JoinError::Identity`] where the newer list revokes this node's own certificate.
pub async fn exchange_trust(
    target: &str,
    folder: &Path,
    identity: &NodeIdentity,
    clock: &Clock,
) -> Result<Option<NodeIdentity>, JoinError> {
    let asked = ask_anybody(identity, target, &Request::Trust).await;
    let theirs = match &asked {
        Ok(Answer::Trust { list }) => Some(keep_list(target, folder, list).await?),
        Ok(_) => return Err(strange(target)),
        // It does not know our certificate: perhaps ours is the newer list.
        Err(JoinError::Refused { refusal, .. }) if refusal.code == CloseCode::UnknownAuthority => {
            None
        }
        Err(_) => return asked.map(|_| None),
    };
    // Another process of the folder may have kept a newer one meanwhile.
    let known = load_trust(&folder.join(trust::FILE))?;
    if theirs.is_none_or(|number| known.number() > number) {
        let list = Trust::read_text(&folder.join(trust::FILE)).map_err(stored(folder))?;
        let told = ask_anybody(identity, target, &Request::Newer { list }).await;
        // Where that changes nothing, the first refusal says more.
        told.or(asked)?;
    }
    newer_than(identity, &known, folder, clock)
}

/// Takes a host's trust list over a connection that the host made; ours it is not told, since it brings its desk for one question.
pub(crate) async fn take_trust_over(
    quic: &quinn::Connection,
    host: &str,
    folder: &Path,
    identity: &NodeIdentity,
    clock: &Clock,
) -> Result<Option<NodeIdentity>, JoinError> {
    let answer = ask_over(quic, host, identity, &Request::Trust, clock).await?;
    let Answer::Trust { list } = answer else { return Err(strange(host)) };
    keep_list(host, folder, &list).await?;
    newer_than(identity, &load_trust(&folder.join(trust::FILE))?, folder, clock)
}

/// The identity with what its folder says, if that is newer.
fn newer_than(
    identity: &NodeIdentity,
    known: &Trust,
    folder: &Path,
    clock: &Clock,
) -> Result<Option<NodeIdentity>, JoinError> {
    if known.number() <= identity.trust.number() {
        return Ok(None);
    }
    let own = &identity.identity;
    Ok(Some(NodeIdentity::open(folder, &own.name, own.role, clock)?))
}

/// Keeps a host's list where it is newer; gives its number.
async fn keep_list(target: &str, folder: &Path, list: &str) -> Result<u64, JoinError> {
    let (path, list) = (folder.join(trust::FILE), list.to_owned());
    // Syncs wait for the disk.
    let kept = tokio::task::spawn_blocking(move || {
        let number = Trust::parse(&list)?.0.number();
        Trust::keep_newer(&path, &list).map(|_| number)
    });
    match kept.await.unwrap_or_else(|broken| Err(std::io::Error::from(broken).into())) {
        Ok(number) => Ok(number),
        Err(TrustError::Read(source)) => Err(stored(folder)(source)),
        Err(error) => Err(JoinError::useless(target, &error)),
    }
}

/// A node with a token, and the key that it has made.
struct Joining {
    token: JoinToken,
    key: KeyPair,
    own: (CertificateDer<'static>, PrivateKeyDer<'static>),
    request: Request,
}

impl Joining {
    fn new(
        token: &str,
        folder: &Path,
        name: &str,
        role: Role,
        clock: &Clock,
    ) -> Result<Self, JoinError> {
        let token: JoinToken = token.parse()?;
        check_token(&token, name, role, clock())?;
        check_folder(&token, folder)?;
        let key = certificate::new_key()?;
        let private = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let own = (certificate::bare_certificate(&key)?, private);
        let request = Request::Join { secret: token.secret, name: name.to_owned() };
        Ok(Self { token, key, own, request })
    }

    fn store(
        &self,
        (answer, authority): (Answer, CertificateDer<'static>),
        folder: &Path,
        name: &str,
        role: Role,
        clock: &Clock,
    ) -> Result<NodeIdentity, JoinError> {
        let host = &self.token.host;
        let granted = Granted::of(host, answer)?;
        NodeIdentity::store_key(folder, name, &self.key.serialize_pem())
            .and_then(|()| NodeIdentity::store_authority(folder, host))
            .map_err(stored(folder))?;
        match Trust::keep_first(&folder.join(trust::FILE), &granted.trust, &authority) {
            Ok(()) => {}
            Err(TrustError::Read(source)) => return Err(stored(folder)(source)),
            Err(error) => return Err(JoinError::useless(host, &error)),
        }
        NodeIdentity::store(folder, name, &granted.certificate).map_err(stored(folder))?;
        Ok(NodeIdentity::open(folder, name, role, clock)?)
    }
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

/// Another cluster's authority must not be joined over.
fn check_folder(token: &JoinToken, folder: &Path) -> Result<(), JoinError> {
    if !Authority::is_at(folder) {
        return Ok(());
    }
    let own = load_trust(&folder.join(trust::FILE))?;
    let pinned = |known: &Trusted| certificate::fingerprint(&known.certificate) == token.authority;
    if own.authorities().iter().any(pinned) {
        return Ok(());
    }
    Err(JoinError::OtherAuthority { folder: folder.display().to_string() })
}

struct Granted {
    certificate: CertificateDer<'static>,
    /// The host's list.
    trust: String,
}

impl Granted {
    fn of(target: &str, answer: Answer) -> Result<Self, JoinError> {
        let Answer::Granted { certificate, trust } = answer else {
            return Err(strange(target));
        };
        Ok(Self { certificate: CertificateDer::from(certificate), trust })
    }
}

fn strange(target: &str) -> JoinError {
    let (host, reason) = (target.to_owned(), "the host's answer cannot be read".to_owned());
    JoinError::Unreachable { host, reason }
}

/// Asks as a node of the cluster, which knows its hosts by their authority.
async fn ask_as(
    identity: &NodeIdentity,
    target: &str,
    request: &Request,
    clock: &Clock,
) -> Result<Answer, JoinError> {
    let own = (identity.certificate.clone(), identity.key.clone_key());
    let trust = |chain: &[CertificateDer<'static>]| {
        certificate::verify(chain, &identity.trust, Role::Hook, clock()).map(drop)
    };
    ask(target, &own, request, trust).await.map(|(answer, ())| answer)
}

/// As [`ask_as`], over a connection that the host made.
async fn ask_over(
    quic: &quinn::Connection,
    host: &str,
    identity: &NodeIdentity,
    request: &Request,
    clock: &Clock,
) -> Result<Answer, JoinError> {
    let trust = |chain: &[CertificateDer<'static>]| {
        certificate::verify(chain, &identity.trust, Role::Hook, clock()).map(drop)
    };
    match timeout(TIME_MAX, exchange(quic, host, request, &trust)).await {
        Ok(outcome) => outcome.map(|(answer, ())| answer),
        Err(_) => Err(JoinError::useless(host, &"it does not answer")),
    }
}

/// Asks whoever is there, for what proves itself.
async fn ask_anybody(
    identity: &NodeIdentity,
    target: &str,
    request: &Request,
) -> Result<Answer, JoinError> {
    let own = (identity.certificate.clone(), identity.key.clone_key());
    ask(target, &own, request, |_| Ok(())).await.map(|(answer, ())| answer)
}

/// Asks at each of the target's addresses until one answers.
async fn ask<T>(
    target: &str,
    own: &(CertificateDer<'static>, PrivateKeyDer<'static>),
    request: &Request,
    trust: impl Fn(&[CertificateDer<'static>]) -> Result<T, Refusal>,
) -> Result<(Answer, T), JoinError> {
    let unreachable = |reason: String| JoinError::Unreachable { host: target.to_owned(), reason };
    let addresses = resolve(target).await.map_err(|error| match error {
        LinkError::Unreachable { reason, .. } => unreachable(reason),
        other => unreachable(other.to_string()),
    })?;
    let mut last = unreachable("the name has no address".to_owned());
    for address in addresses {
        let attempt = async {
            let own = (own.0.clone(), own.1.clone_key());
            let quic = dial(address, Some(own), ALPN_JOIN).await;
            let quic = quic.map_err(|error| unreachable(error.to_string()))?;
            exchange(&quic, target, request, &trust).await
        };
        match timeout(TIME_MAX, attempt).await {
            Ok(Err(error @ JoinError::Unreachable { .. })) => last = error,
            Ok(outcome) => return outcome,
            Err(_) => last = unreachable(format!("{address} does not answer")),
        }
    }
    Err(last)
}

/// Verifies the host, and only then tells it anything. Gives the answer, if it is no refusal, and what the verification gave.
async fn exchange<T>(
    quic: &quinn::Connection,
    target: &str,
    request: &Request,
    trust: &impl Fn(&[CertificateDer<'static>]) -> Result<T, Refusal>,
) -> Result<(Answer, T), JoinError> {
    let host = || target.to_owned();
    let verified = trust(&transport::peer_chain(quic)).map_err(|refusal| {
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
    let request = postcard::to_stdvec(request).map_err(|error| broken(error.to_string()))?;
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
        Ok(answer @ (Answer::Granted { .. } | Answer::Trust { .. })) => Ok((answer, verified)),
        Ok(Answer::Refused { text }) => {
            let refusal = Refusal::new(CloseCode::TokenRefused, text);
            Err(JoinError::Refused { host: host(), refusal })
        }
        Err(_) => Err(strange(target)),
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
        let text = "the host is not of the cluster that the token is of, or has a newer authority; ask for a new token";
        Refusal::new(CloseCode::UnknownAuthority, text)
    })?;
    let trust = Trust::new(authority.clone(), u64::MAX);
    certificate::verify(chain, &trust, Role::Hook, now)?;
    Ok(authority)
}

fn stored(folder: &Path) -> impl FnOnce(std::io::Error) -> JoinError + '_ {
    |source| JoinError::Store { folder: folder.display().to_string(), source }
}

//! The host's side of joining and renewing.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::accept::{GREETING_TIME_MAX, said_nothing};
use crate::authority::{Authority, AuthorityError};
use crate::certificate::PublicKey;
use crate::identity::Identity;
use crate::join::{Answer, REQUEST_BYTES_MAX, Request};
use crate::link::Closed;
use crate::refusal::{CloseCode, Refusal};
use crate::transport;
use crate::trust::{LIST_BYTES_MAX, Trust, TrustError};

/// Joins under way at once: each writes files and makes a signature.
const JOINS_MAX: usize = 4;
/// Attempts in [`JOINS_WINDOW`], from all together. A secret has 256 bits, so this is not against guessing but against load.
const JOINS_PER_WINDOW_MAX: u32 = 100;
const JOINS_WINDOW: Duration = Duration::from_secs(10);
/// Largest trust list of a peer whose own certificate does not count here: it may be of a newer root than this host knows, and
/// its list then says so. That is one with several hundred revocations.
const STRANGERS_LIST_BYTES_MAX: usize = 64 * 1024;

/// Where the host serves those who join, and the cluster's nodes who renew or exchange trust lists.
pub(crate) struct JoinDesk {
    /// `None` where the authority is elsewhere.
    authority: Option<Arc<Authority>>,
    /// The signed list that this host has.
    trust_path: PathBuf,
    places: Semaphore,
    /// Begin of the window at hand, and attempts in it.
    window: Mutex<(Instant, u32)>,
}

impl JoinDesk {
    pub(crate) fn new(authority: Option<Arc<Authority>>, trust_path: PathBuf) -> Self {
        let window = Mutex::new((Instant::now(), 0));
        Self { authority, trust_path, places: Semaphore::new(JOINS_MAX), window }
    }

    fn count_attempt(&self, now: Instant) -> Result<(), Refusal> {
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        if now.saturating_duration_since(window.0) > JOINS_WINDOW {
            *window = (now, 0);
        }
        window.1 += 1;
        if window.1 > JOINS_PER_WINDOW_MAX {
            let text = "too many nodes try to join; try again in a minute";
            return Err(Refusal::new(CloseCode::Limit, text));
        }
        Ok(())
    }
}

/// The host's side of a join, a renewal or an exchange of trust lists. Gives who was certified, if anybody was.
/// `member` verifies that the peer is a node of the cluster.
///
/// # Errors
/// The sentence that the node has been told, or is to be told by closing.
pub(crate) async fn serve(
    quic: &quinn::Connection,
    desk: &JoinDesk,
    member: impl FnOnce() -> Result<Identity, Refusal>,
) -> Result<Option<Identity>, Refusal> {
    let strange = |text: &str| Refusal::new(CloseCode::Misbehaved, text);
    let shown = transport::peer_chain(quic);
    let member = member();
    let list_bytes_max = match &member {
        Ok(_) => usize::try_from(LIST_BYTES_MAX).unwrap_or(usize::MAX),
        Err(_) => STRANGERS_LIST_BYTES_MAX,
    };
    let asked =
        timeout(GREETING_TIME_MAX, read_request(quic, REQUEST_BYTES_MAX + list_bytes_max)).await;
    let (mut send, request) = asked.unwrap_or_else(|_| Err(said_nothing()))?;
    let authority = match request {
        Request::Trust => member.map(|_| None)?,
        // Signed as it is, a list needs nobody's word for it.
        Request::Newer { .. } => desk.count_attempt(Instant::now()).map(|()| None)?,
        Request::Join { .. } | Request::Renew => {
            let authority = desk.authority.as_ref().ok_or_else(no_authority)?;
            desk.count_attempt(Instant::now())?;
            Some(Arc::clone(authority))
        }
    };
    // Only now: who says nothing must not hold a place.
    let Ok(_place) = desk.places.acquire().await else {
        return Err(strange("the host is shutting down"));
    };
    let path = desk.trust_path.clone();
    let work = move || match (&request, authority) {
        (_, Some(authority)) => {
            grant(&authority, &request, &shown).map(|(answer, identity)| (answer, Some(identity)))
        }
        (Request::Newer { list }, None) => keep(&path, list).map(|answer| (answer, None)),
        (_, None) => trust(&path).map(|answer| (answer, None)),
    };
    let (answer, outcome) = match tokio::task::spawn_blocking(work).await {
        Ok(Ok((answer, identity))) => (answer, Ok(identity)),
        Ok(Err(refusal)) => (Answer::Refused { text: refusal.text.clone() }, Err(refusal)),
        Err(_) => return Err(strange("the host failed while it made the answer")),
    };
    let answer = postcard::to_stdvec(&answer).unwrap_or_default();
    // A node that has gone has no use for the answer; its token is used up all the same.
    let _ = send.write_all(&answer).await;
    let _ = send.finish();
    let _ = timeout(GREETING_TIME_MAX, send.stopped()).await;
    outcome
}

async fn read_request(
    quic: &quinn::Connection,
    bytes_max: usize,
) -> Result<(quinn::SendStream, Request), Refusal> {
    let strange = |text: String| Refusal::new(CloseCode::Misbehaved, text);
    let (send, mut receive) = quic.accept_bi().await.map_err(|error| match error.into() {
        Closed::ByPeer { code, text } => {
            Refusal::new(code, format!("the joining node closed the connection: {text}"))
        }
        other => strange(format!("read the request: {other}")),
    })?;
    let request = receive.read_to_end(bytes_max).await;
    let request = request.map_err(|error| strange(format!("read the request: {error}")))?;
    let request = postcard::from_bytes(&request);
    Ok((send, request.map_err(|_| strange("the request cannot be read".to_owned()))?))
}

fn no_authority() -> Refusal {
    let text = "this host does not have the authority's key; join and renew at the one that does";
    Refusal::new(CloseCode::TokenRefused, text)
}

/// Reads the signed list: file work. It is signed, so whoever asked checks it.
fn trust(path: &Path) -> Result<Answer, Refusal> {
    Trust::read_text(path).map(|list| Answer::Trust { list }).map_err(|error| {
        tracing::error!("read {}: {error}", path.display());
        Refusal::new(CloseCode::TokenRefused, "the host cannot read its trust list")
    })
}

/// Keeps a newer list, and answers with what then stands. The host takes it up as it does what a command has written.
fn keep(path: &Path, list: &str) -> Result<Answer, Refusal> {
    match Trust::keep_newer(path, list) {
        Ok(_) => trust(path),
        Err(TrustError::Read(error)) => {
            tracing::error!("keep {}: {error}", path.display());
            Err(Refusal::new(CloseCode::TokenRefused, "the host cannot keep the trust list"))
        }
        Err(error) => Err(Refusal::new(CloseCode::UnknownAuthority, error.to_string())),
    }
}

/// Makes the certificate: file work.
fn grant(
    authority: &Authority,
    request: &Request,
    shown: &[CertificateDer<'static>],
) -> Result<(Answer, Identity), Refusal> {
    let told = |error: AuthorityError| match error {
        AuthorityError::Refused(refusal) => refusal,
        offline @ AuthorityError::Offline { .. } => {
            tracing::error!("certify a node: {offline}");
            Refusal::new(CloseCode::TokenRefused, offline.to_string())
        }
        other => {
            // The reason has paths of this host in it, which are not a stranger's to know.
            tracing::error!("certify a node: {other}");
            Refusal::new(CloseCode::TokenRefused, "the host failed; its log says why")
        }
    };
    let key = shown.first().and_then(PublicKey::of).ok_or_else(|| {
        Refusal::new(CloseCode::Misbehaved, "the node must show the key to certify (P-256)")
    })?;
    let issued = match request {
        Request::Join { secret, name } => authority.admit(secret, name, &key),
        Request::Renew => authority.renew(shown, &key),
        // Answered without it.
        Request::Trust | Request::Newer { .. } => return Err(no_authority()),
    };
    let issued = issued.map_err(told)?;
    let identity = authority.read(&issued)?;
    let trust = authority.trust_text().map_err(told)?;
    Ok((Answer::Granted { certificate: issued.to_vec(), trust }, identity))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_joins_is_stopped_for_a_while() {
        let folder = tempfile::tempdir().unwrap();
        let clock = crate::system_clock();
        let authority = Authority::create(folder.path(), "mx1", clock).unwrap();
        let desk = JoinDesk::new(Some(Arc::new(authority)), folder.path().join("trust"));
        let now = desk.window.lock().unwrap().0;
        for _ in 0..JOINS_PER_WINDOW_MAX {
            desk.count_attempt(now).unwrap();
        }
        let refusal = desk.count_attempt(now + JOINS_WINDOW).unwrap_err();
        assert_eq!(refusal.code, CloseCode::Limit);
        desk.count_attempt(now + JOINS_WINDOW + Duration::from_millis(1)).unwrap();
    }
}

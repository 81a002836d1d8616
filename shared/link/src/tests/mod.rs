//! Real QUIC on loopback: a cluster in a temporary folder, a clock that the test moves.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

mod dialling;
mod hosts;
mod operators;
mod refusals;
mod rotation;
mod streams;
mod tokens;

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_protocol::frame::{Hello, HostControl, Welcome};
use gantry_protocol::id::{Digest, Incarnation, Session};
use gantry_protocol::limits::VERSIONS;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use tempfile::TempDir;

use crate::certificate;
use crate::*;

/// Far above what anything here takes; it only turns a hang into a failure.
const DEADLINE: Duration = Duration::from_secs(30);
const DAY: u64 = 86_400;

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(DEADLINE, future).await.expect("it hangs")
}

/// A clock that starts now and moves when told.
#[derive(Clone, Default)]
struct TestClock(Arc<AtomicU64>);

impl TestClock {
    fn new() -> Self {
        Self(Arc::new(AtomicU64::new(system_clock()())))
    }

    fn forward(&self, seconds: u64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }

    fn back(&self, seconds: u64) {
        self.0.fetch_sub(seconds, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let now = Arc::clone(&self.0);
        Arc::new(move || now.load(Ordering::SeqCst))
    }
}

/// A cluster of one host, `mx1`.
struct Cluster {
    folder: TempDir,
    /// The host's.
    clock: TestClock,
    authority: Arc<Authority>,
}

impl Cluster {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = TestClock::new();
        let authority = Authority::create(folder.path(), "mx1", clock.clock()).unwrap();
        Self { folder, clock, authority: Arc::new(authority) }
    }

    fn host(&self) -> NodeIdentity {
        NodeIdentity::open(self.folder.path(), "mx1", Role::Hook, &self.clock.clock()).unwrap()
    }

    /// The authority's own key.
    fn key_path(&self) -> std::path::PathBuf {
        let id = self.authority.state().unwrap().last().unwrap().id;
        self.folder.path().join("ca").join(format!("{id}.key"))
    }

    fn server(&self) -> Server {
        self.server_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &self.host())
    }

    fn server_at(&self, listen: SocketAddr, host: &NodeIdentity) -> Server {
        let options = ServerOptions { clock: self.clock.clock() };
        Server::bind(listen, host, Some(Arc::clone(&self.authority)), options).unwrap()
    }

    /// A node with a certificate that it got without a token.
    fn node(&self, name: &str, role: Role) -> NodeIdentity {
        let key = certificate::new_key().unwrap();
        let provides = ["virus".to_owned(), "spam".to_owned()];
        let issued = self.authority.issue(name, role, &provides, &key).unwrap();
        let host = self.host();
        NodeIdentity {
            identity: self.authority.read(&issued).unwrap(),
            certificate: issued,
            key: PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der())),
            trust: host.trust,
            trust_path: self.folder.path().join("none"),
        }
    }

    fn token(&self, server: &Server, mask: &str, expires_in: u64) -> String {
        self.token_for(server, mask, Role::Worker, expires_in)
    }

    fn token_for(&self, server: &Server, mask: &str, role: Role, expires_in: u64) -> String {
        let provides = if role == Role::Worker { vec!["virus".to_owned()] } else { Vec::new() };
        let request = TokenRequest {
            mask: mask.parse().unwrap(),
            role,
            provides,
            expires_in,
            advertise: server.local_addr().to_string(),
        };
        self.authority.issue_token(&request).unwrap()
    }
}

fn hello(name: &str) -> Hello {
    Hello {
        version_min: VERSIONS.0,
        version_max: VERSIONS.1,
        software: "gantry test".to_owned(),
        name: name.to_owned(),
        incarnation: Incarnation(7),
        tier: 0,
        policy: Digest([0; 32]),
        provides: vec!["virus".to_owned()],
        revocations: 0,
        resume: Vec::new(),
    }
}

fn welcome(host: &str) -> Welcome {
    Welcome {
        version: VERSIONS.1,
        software: "gantry-hook test".to_owned(),
        host: host.to_owned(),
        session: Session(1),
        policy: Digest([0; 32]),
        revocations: 0,
        beat_ms: 200,
        beat_idle_ms: 5_000,
        resumed: Vec::new(),
    }
}

fn options() -> ConnectOptions {
    ConnectOptions { clock: system_clock(), time_max: DEADLINE }
}

/// The next link at the server, welcomed.
async fn accept(server: &mut Server) -> (Identity, HostLink) {
    match within(server.accept()).await.expect("the server has ended") {
        Incoming::Link(accepted) => {
            let Accepted { identity, mut link, .. } = *accepted;
            link.sender.send(&HostControl::Welcome(welcome("mx1"))).await.unwrap();
            (identity, link)
        }
        other => panic!("no link but {other:?}"),
    }
}

/// What the server says of the next peer that it sends away.
async fn refused(server: &mut Server) -> Refusal {
    match within(server.accept()).await.expect("the server has ended") {
        Incoming::Refused { refusal, .. } => refusal,
        other => panic!("not refused but {other:?}"),
    }
}

/// Both ends of a link.
async fn linked(cluster: &Cluster, server: &mut Server, name: &str) -> (HostLink, WorkerLink) {
    let node = cluster.node(name, Role::Worker);
    let target = server.local_addr().to_string();
    let (hello, options) = (hello(name), options());
    let worker = connect(&target, &node, &hello, &options);
    let (worker, host) = tokio::join!(within(worker), accept(server));
    (host.1, worker.unwrap().1)
}

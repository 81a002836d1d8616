//! Who is sent away, and what both sides say of it.

use gantry_protocol::frame::{Beat, Refused, RefusedCode, WorkerControl};

use super::*;
use crate::client::dial;
use crate::link::Closed;
use crate::transport::ALPN_LINK;

/// Tries to link and gives both sides' sentences: the worker's error and the host's refusal.
async fn both(
    server: &mut Server,
    node: &NodeIdentity,
    hello: &Hello,
    options: &ConnectOptions,
) -> (LinkError, Refusal) {
    let target = server.local_addr().to_string();
    let (error, refusal) =
        tokio::join!(within(connect(&target, node, hello, options)), refused(server));
    (error.map(|_| ()).expect_err("it linked"), refusal)
}

/// The host refuses `node` with `code` and the same sentence at both ends, which has `words` in it.
async fn host_refuses(
    server: &mut Server,
    node: &NodeIdentity,
    hello: &Hello,
    code: CloseCode,
    words: &str,
) {
    let (error, refusal) = both(server, node, hello, &options()).await;
    assert_eq!(refusal.code, code);
    assert!(refusal.text.contains(words), "{refusal}");
    let target = server.local_addr().to_string();
    assert_eq!(error, LinkError::Refused { target, refusal: refusal.clone() });
    assert!(error.to_string().ends_with(&refusal.text));
}

#[tokio::test]
async fn without_a_certificate() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let quic = within(dial(server.local_addr(), None, ALPN_LINK)).await.unwrap();
    let refusal = refused(&mut server).await;
    assert_eq!(refusal.code, CloseCode::NoCertificate);
    assert!(refusal.text.contains("no certificate was shown"));
    let closed = Closed::from(within(quic.closed()).await);
    assert_eq!(closed, Closed::ByPeer { code: refusal.code, text: refusal.text });
}

#[tokio::test]
async fn with_a_certificate_of_another_authority() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let mut server = cluster.server();
    let mut node = other.node("pc-1", Role::Worker);
    // It trusts the host; the host does not know it.
    node.trust = cluster.host().trust;
    let code = CloseCode::UnknownAuthority;
    host_refuses(&mut server, &node, &hello("pc-1"), code, "not one of this cluster's").await;
}

#[tokio::test]
async fn with_a_certificate_that_names_our_authority_but_is_signed_by_another_key() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut node = cluster.node("pc-1", Role::Worker);
    let mut forged = node.certificate.to_vec();
    // The last bytes are the signature's.
    *forged.last_mut().unwrap() ^= 1;
    node.certificate = forged.into();
    let code = CloseCode::UnknownAuthority;
    host_refuses(&mut server, &node, &hello("pc-1"), code, "not one of this cluster's").await;
}

#[tokio::test]
async fn with_a_self_made_certificate() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut node = cluster.node("pc-1", Role::Worker);
    let key = certificate::new_key().unwrap();
    node.certificate = certificate::bare_certificate(&key).unwrap();
    node.key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let code = CloseCode::UnknownAuthority;
    host_refuses(&mut server, &node, &hello("pc-1"), code, "not one of this cluster's").await;
}

#[tokio::test]
async fn with_the_authoritys_own_certificate_in_place_of_a_nodes() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut node = cluster.node("pc-1", Role::Worker);
    let key = std::fs::read_to_string(cluster.key_path()).unwrap();
    let key = rcgen::KeyPair::from_pem(&key).unwrap();
    node.certificate = node.trust.authorities()[0].certificate.clone();
    node.key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let (error, refusal) = both(&mut server, &node, &hello("pc-1"), &options()).await;
    assert_eq!(refusal.code, CloseCode::UnknownAuthority);
    assert!(matches!(error, LinkError::Refused { .. }));
}

#[tokio::test]
async fn with_somebody_elses_certificate_and_another_key() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut thief = cluster.node("pc-1", Role::Worker);
    let key = certificate::new_key().unwrap();
    thief.key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let target = server.local_addr().to_string();
    let error = within(connect(&target, &thief, &hello("pc-1"), &options())).await;
    assert!(matches!(error, Err(LinkError::Unreachable { .. })), "{error:?}");
    // The handshake has failed: nothing came through, and the server goes on.
    let _pair = linked(&cluster, &mut server, "pc-2").await;
}

#[tokio::test]
async fn with_an_expired_certificate() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("pc-1", Role::Worker);
    cluster.clock.forward(93 * DAY);
    let code = CloseCode::Expired;
    host_refuses(&mut server, &node, &hello("pc-1"), code, "expired 3 days ago; join again").await;
}

#[tokio::test]
async fn with_a_certificate_of_tomorrow() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("pc-1", Role::Worker);
    cluster.clock.back(DAY);
    let code = CloseCode::NotYetValid;
    host_refuses(&mut server, &node, &hello("pc-1"), code, "begins in 23 hours").await;
}

#[tokio::test]
async fn with_a_revoked_certificate_and_its_live_link_ends() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("pc-1", Role::Worker);
    let target = server.local_addr().to_string();
    let (hello, options) = (hello("pc-1"), options());
    let worker = connect(&target, &node, &hello, &options);
    let (worker, host) = tokio::join!(within(worker), accept(&mut server));
    let ((_, worker), (identity, host)) = (worker.unwrap(), host);
    server.check(&identity).unwrap();
    assert!(!server.reload_if_changed().unwrap());

    // As `gantry-hook revoke` does, in another process.
    let elsewhere = Authority::open(cluster.folder.path(), cluster.clock.clock()).unwrap();
    assert_eq!(elsewhere.revoke("pc-1").unwrap(), 1);
    assert!(server.reload_if_changed().unwrap());
    assert_eq!(server.trust_number(), 1);
    let refusal = server.check(&identity).unwrap_err();
    assert_eq!(refusal.code, CloseCode::Revoked);
    host.connection.close(refusal.code, &refusal.text);
    let Refusal { code, text } = refusal;
    assert_eq!(within(worker.connection.closed()).await, Closed::ByPeer { code, text });

    let code = CloseCode::Revoked;
    host_refuses(&mut server, &node, &hello, code, "certificate of pc-1 was revoked").await;
    // A host that starts anew knows it, too; the name may come back with another certificate.
    drop(server);
    let mut server = cluster.server();
    host_refuses(&mut server, &node, &hello, code, "certificate of pc-1 was revoked").await;
    let _pair = linked(&cluster, &mut server, "pc-1").await;
}

#[tokio::test]
async fn a_link_that_waits_to_be_accepted_is_checked_again() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("pc-1", Role::Worker);
    let target = server.local_addr().to_string();
    let worker = tokio::spawn(async move {
        connect(&target, &node, &hello("pc-1"), &options()).await.map(|_| ()).unwrap_err()
    });
    // It has passed the gate when it waits in the server's queue.
    within(async {
        while server.waiting() == 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    cluster.authority.revoke("pc-1").unwrap();
    server.reload().unwrap();
    let refusal = tokio::select! {
        error = worker => match error.unwrap() {
            LinkError::Refused { refusal, .. } => refusal,
            other => panic!("{other}"),
        },
        incoming = server.accept() => panic!("given out: {incoming:?}"),
    };
    assert_eq!(refusal.code, CloseCode::Revoked);
}

#[tokio::test]
async fn under_a_name_that_is_not_in_the_certificate() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("pc-1", Role::Worker);
    let words = "calls itself \"pc-2\" but its certificate is for pc-1";
    host_refuses(&mut server, &node, &hello("pc-2"), CloseCode::NameMismatch, words).await;
}

#[tokio::test]
async fn in_a_role_that_is_no_workers() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    for role in [Role::Operator, Role::Hook] {
        let node = cluster.node("pc-1", role);
        let words = format!("for the role {role}; here it takes worker");
        host_refuses(&mut server, &node, &hello("pc-1"), CloseCode::WrongRole, &words).await;
    }
}

#[tokio::test]
async fn without_a_common_version() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("pc-1", Role::Worker);
    let mut newer = hello("pc-1");
    (newer.version_min, newer.version_max) = (VERSIONS.1 + 1, VERSIONS.1 + 2);
    let words = format!("speaks {} to {}, the host", newer.version_min, newer.version_max);
    host_refuses(&mut server, &node, &newer, CloseCode::NoCommonVersion, &words).await;
    assert_eq!(common_version(VERSIONS.1, VERSIONS.1 + 1), Some(VERSIONS.1));
    assert_eq!(common_version(0, VERSIONS.0.saturating_sub(1)), None);
}

#[tokio::test]
async fn whose_first_frame_is_no_hello() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("pc-1", Role::Worker);
    let own = Some((node.certificate.clone(), node.key.clone_key()));
    let quic = within(dial(server.local_addr(), own, ALPN_LINK)).await.unwrap();
    let (send, _receive) = quic.open_bi().await.unwrap();
    let mut sender = FrameSender::new(send);
    sender.send(&WorkerControl::Beat(Beat { count: 1 })).await.unwrap();
    let refusal = refused(&mut server).await;
    assert_eq!(refusal.text, "the first frame was no hello");
    let closed = Closed::from(within(quic.closed()).await);
    assert_eq!(closed, Closed::ByPeer { code: CloseCode::Misbehaved, text: refusal.text });
}

#[tokio::test]
async fn whose_hello_is_over_the_bounds() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("pc-1", Role::Worker);
    let mut greedy = hello("pc-1");
    greedy.provides = vec!["virus".to_owned(); 65];
    let code = CloseCode::Misbehaved;
    host_refuses(&mut server, &node, &greedy, code, "over the protocol's bounds: needs").await;
}

#[tokio::test]
async fn a_host_of_another_cluster_is_refused_by_the_worker() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let mut server = cluster.server();
    let node = other.node("pc-1", Role::Worker);
    // The host may refuse first, or hear that it was refused; either way the worker never says hello.
    let (error, refusal) = both(&mut server, &node, &hello("pc-1"), &options()).await;
    let LinkError::PeerRefused { refusal: ours, .. } = error else { panic!("{error}") };
    assert_eq!(ours.code, CloseCode::UnknownAuthority);
    assert!(ours.text.contains("not one of this cluster's"));
    assert_eq!(refusal.code, CloseCode::UnknownAuthority);
}

#[tokio::test]
async fn a_host_whose_certificate_has_expired_hears_it_from_the_worker() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut node = cluster.node("pc-1", Role::Worker);
    let later = TestClock::new();
    later.forward(91 * DAY);
    node.identity.expires = u64::MAX;
    let late = ConnectOptions { clock: later.clock(), ..options() };
    let (error, refusal) = both(&mut server, &node, &hello("pc-1"), &late).await;
    let LinkError::PeerRefused { refusal: ours, .. } = error else { panic!("{error}") };
    assert_eq!(ours.code, CloseCode::Expired);
    assert_eq!(refusal.text, format!("the worker closed the link: {}", ours.text));
}

#[tokio::test]
async fn a_worker_that_poses_as_a_host_is_refused() {
    let cluster = Cluster::new();
    let impostor = cluster.node("pc-9", Role::Worker);
    let mut server = cluster.server_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &impostor);
    let node = cluster.node("pc-1", Role::Worker);
    let (error, refusal) = both(&mut server, &node, &hello("pc-1"), &options()).await;
    let LinkError::PeerRefused { refusal: ours, .. } = error else { panic!("{error}") };
    assert_eq!(ours.code, CloseCode::WrongRole);
    assert!(ours.text.contains("pc-9 is for the role worker; here it takes hook"));
    assert_eq!(refusal.text, format!("the worker closed the link: {}", ours.text));
}

#[tokio::test]
async fn one_that_says_nothing_keeps_nobody_waiting() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let silent = cluster.node("pc-1", Role::Worker);
    let own = Some((silent.certificate.clone(), silent.key.clone_key()));
    let quic = within(dial(server.local_addr(), own, ALPN_LINK)).await.unwrap();
    let _pair = linked(&cluster, &mut server, "pc-2").await;
    let refusal = refused(&mut server).await;
    assert_eq!(refusal.code, CloseCode::Limit);
    assert!(refusal.text.contains("nothing was said for 5 seconds"));
    let closed = Closed::from(within(quic.closed()).await);
    assert_eq!(closed, Closed::ByPeer { code: CloseCode::Limit, text: refusal.text });
}

#[tokio::test]
async fn many_that_say_nothing_keep_nobody_waiting() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut silent = Vec::new();
    // More than may be greeted without proof of their address, fewer than may be greeted at all.
    for _ in 0..40 {
        let node = cluster.node("pc-1", Role::Worker);
        let own = Some((node.certificate.clone(), node.key.clone_key()));
        silent.push(within(dial(server.local_addr(), own, ALPN_LINK)).await.unwrap());
    }
    let _pair = linked(&cluster, &mut server, "pc-2").await;
}

/// What the host decides after the hello (a clone, for one) reaches the worker by frame, or by the close that may overtake it.
#[tokio::test]
async fn by_the_host_after_the_hello() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("pc-1", Role::Worker);
    let target = server.local_addr().to_string();
    let (hello, options) = (hello("pc-1"), options());
    for close_at_once in [true, false] {
        let worker = connect(&target, &node, &hello, &options);
        let host = async {
            let incoming = server.accept().await;
            let Some(Incoming::Link(accepted)) = incoming else { panic!("{incoming:?}") };
            let HostLink { mut sender, connection, .. } = accepted.link;
            let text = "another process has this certificate".to_owned();
            let refused = Refused { code: RefusedCode::Clone, text: text.clone() };
            sender.send(&HostControl::Refused(refused)).await.unwrap();
            if close_at_once {
                connection.close(CloseCode::Clone, &text);
            } else {
                connection.closed().await;
            }
            text
        };
        let (error, text) = tokio::join!(within(worker), within(host));
        let error = error.map(|_| ()).unwrap_err();
        let refusal = Refusal { code: CloseCode::Clone, text };
        assert_eq!(error, LinkError::Refused { target: target.clone(), refusal });
    }
}

#[tokio::test]
async fn nobody_at_the_address() {
    let free = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let cluster = Cluster::new();
    let node = cluster.node("pc-1", Role::Worker);
    let soon = ConnectOptions { time_max: Duration::from_millis(300), ..options() };
    let error = within(connect(&free.to_string(), &node, &hello("pc-1"), &soon)).await;
    let error = error.map(|_| ()).unwrap_err();
    assert!(error.is_passing());
    assert!(error.to_string().contains("does not answer"), "{error}");
    let error = within(connect("no port", &node, &hello("pc-1"), &soon)).await;
    let error = error.map(|_| ()).unwrap_err();
    assert!(error.to_string().starts_with("link to no port: look up the address:"), "{error}");
}

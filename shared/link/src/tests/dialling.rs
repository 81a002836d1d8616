//! Hosts that dial out to workers that cannot reach them.

use gantry_protocol::frame::{HostReservation, Resume, WorkerReservation};
use gantry_protocol::id::{Fence, MessageId};

use super::*;
use crate::link::Closed;

/// A worker's port.
fn listener(node: &Arc<NodeIdentity>) -> Listener {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Listener::bind(listen, Arc::clone(node), system_clock()).unwrap()
}

fn mask(text: &str) -> NameMask {
    text.parse().unwrap()
}

/// The next host that wants a link.
async fn called(listener: &mut Listener) -> ReachedHost {
    match within(listener.accept()).await {
        Some(Call::Link(host)) => host,
        other => panic!("no link but {other:?}"),
    }
}

/// Dials in vain and gives the host's error.
async fn dial_in_vain(server: &Server, target: &str, expected: &str) -> LinkError {
    let dialled = within(server.dialler().dial(target, &mask(expected))).await;
    dialled.map(drop).unwrap_err()
}

/// Both ends of a link that the host has made.
async fn dialled(server: &mut Server, listener: &mut Listener) -> (HostLink, WorkerLink) {
    let target = listener.local_addr().to_string();
    let dialler = server.dialler();
    let (host, expected) = (async { accept(server).await.1 }, mask("pc-*"));
    let greeting = async {
        let host = called(listener).await;
        assert_eq!((host.identity().name.as_str(), host.identity().role), ("mx1", Role::Hook));
        host.greet(&hello("pc-1"), DEADLINE).await.unwrap().1
    };
    let (handle, host, worker) =
        tokio::join!(dialler.dial(&target, &expected), host, within(greeting));
    assert_eq!(handle.unwrap().identity().name, "pc-1");
    (host, worker)
}

#[tokio::test]
async fn a_link_that_the_host_dialled_is_like_any_other() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut listener = listener(&Arc::new(cluster.node("pc-1", Role::Worker)));
    let dialler = server.dialler();
    assert!(!dialler.is_linked(&mask("pc-1")));
    let (host, worker) = dialled(&mut server, &mut listener).await;
    assert_eq!(host.connection.identity().provides, ["virus", "spam"]);
    assert!(dialler.is_linked(&mask("pc-1")) && !dialler.is_linked(&mask("pc-2")));

    // The host assigns, and the worker resumes, each on a stream that it opens.
    let (mut assigning, _from) = host.connection.open_reservation().await.unwrap();
    let settled = HostReservation::Settled(gantry_protocol::frame::Settled::Applied);
    assigning.send(&settled).await.unwrap();
    let (_to, mut assigned) = within(worker.connection.accept_reservation()).await.unwrap();
    assert_eq!(within(assigned.recv()).await, Ok(Some(settled)));
    let fence = Fence { epoch: 1, counter: 2 };
    let resume = Resume { message: MessageId { epoch: 1, counter: 1 }, fence };
    let _stream = worker.connection.open_resume(resume).await.unwrap();
    let (_answer, mut resumed) = within(host.connection.accept_resume()).await.unwrap();
    assert_eq!(within(resumed.recv()).await, Ok(Some(WorkerReservation::Resume(resume))));

    // It ends with the host's port, as those that were dialled by workers do.
    server.shutdown(CloseCode::ShuttingDown, "the host shuts down").await;
    let text = "the host shuts down".to_owned();
    let closed = Closed::ByPeer { code: CloseCode::ShuttingDown, text };
    assert_eq!(within(worker.connection.closed()).await, closed);
    assert!(!dialler.is_linked(&mask("pc-1")));
}

#[tokio::test]
async fn a_worker_of_another_name_hears_who_was_looked_for() {
    let cluster = Cluster::new();
    let server = cluster.server();
    let mut listener = listener(&Arc::new(cluster.node("pc-1", Role::Worker)));
    let target = listener.local_addr().to_string();
    let (error, host) = tokio::join!(dial_in_vain(&server, &target, "pc-2"), called(&mut listener));
    let LinkError::PeerRefused { refusal, .. } = error else { panic!("{error}") };
    assert_eq!(refusal.code, CloseCode::NameMismatch);
    assert_eq!(refusal.text, "pc-2 was looked for at this address, and pc-1 is here");
    let told = within(host.greet(&hello("pc-1"), DEADLINE)).await.map(drop).unwrap_err();
    let LinkError::Refused { refusal: heard, .. } = told else { panic!("{told}") };
    assert_eq!(heard, refusal);
}

#[tokio::test]
async fn who_is_no_worker_is_not_linked_to() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let server = cluster.server();
    let cases = [
        (cluster.node("pc-1", Role::Operator), CloseCode::WrongRole, "for the role operator"),
        (cluster.host(), CloseCode::WrongRole, "for the role hook"),
        (
            // It trusts this cluster's hosts, but is none of its workers.
            NodeIdentity { trust: cluster.host().trust, ..other.node("pc-1", Role::Worker) },
            CloseCode::UnknownAuthority,
            "not one of this cluster's",
        ),
    ];
    for (node, code, words) in cases {
        let mut listener = listener(&Arc::new(node));
        let target = listener.local_addr().to_string();
        let (error, host) =
            tokio::join!(dial_in_vain(&server, &target, "*"), called(&mut listener));
        let LinkError::PeerRefused { refusal, .. } = error else { panic!("{error}") };
        assert_eq!(refusal.code, code);
        assert!(refusal.text.contains(words), "{refusal}");
        let told = within(host.greet(&hello("pc-1"), DEADLINE)).await.map(drop).unwrap_err();
        let LinkError::Refused { refusal: heard, .. } = told else { panic!("{told}") };
        assert_eq!(heard, refusal);
    }
}

/// A worker's port is for hosts of its cluster that are not revoked; the others hear why.
#[tokio::test]
async fn who_is_no_host_is_hung_up_on_with_a_sentence() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let node = Arc::new(cluster.node("pc-1", Role::Worker));
    let listener = listener(&node);
    let target = listener.local_addr().to_string();
    let impostor = cluster.node("pc-9", Role::Worker);
    let trusting = NodeIdentity { trust: cluster.host().trust, ..other.host() };
    for (shown, code, words) in [
        (&impostor, CloseCode::WrongRole, "pc-9 is for the role worker; here it takes hook"),
        (&trusting, CloseCode::UnknownAuthority, "not one of this cluster's"),
    ] {
        let server = cluster.server_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), shown);
        let error = dial_in_vain(&server, &target, "pc-1").await;
        let LinkError::Refused { refusal, .. } = error else { panic!("{error}") };
        assert_eq!(refusal.code, code);
        assert!(refusal.text.contains(words), "{refusal}");
    }
    // Once the worker knows that a host is revoked, it takes no call of it any more.
    let further = cluster.node("mx2", Role::Hook);
    cluster.authority.revoke("mx2").unwrap();
    let knowing = cluster.node("pc-1", Role::Worker);
    assert!(knowing.trust().number() > node.trust().number());
    listener.use_identity(Arc::new(knowing)).unwrap();
    let server = cluster.server_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), &further);
    let error = dial_in_vain(&server, &target, "pc-1").await;
    let LinkError::Refused { refusal, .. } = error else { panic!("{error}") };
    assert_eq!(refusal.code, CloseCode::Revoked);
}

/// Where nobody listens, the host hears it in time.
#[tokio::test]
async fn nobody_at_the_workers_address() {
    let cluster = Cluster::new();
    let server = cluster.server();
    let error = dial_in_vain(&server, "no port", "pc-1").await;
    assert!(error.is_passing(), "{error}");
}

/// The desk is brought to the worker: it renews its certificate there and hears of revocations.
#[tokio::test]
async fn a_worker_renews_and_hears_of_revocations_without_reaching_the_host() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let folder = tempfile::tempdir().unwrap();
    let token = cluster.token(&server, "pc-1", 60);
    let clock = cluster.clock.clock();
    let joined = within(join(&token, folder.path(), "pc-1", Role::Worker, &clock)).await;
    assert!(matches!(within(server.accept()).await, Some(Incoming::Joined { .. })));
    let node = Arc::new(joined.unwrap());
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut listener = Listener::bind(listen, Arc::clone(&node), clock.clone()).unwrap();
    let (target, dialler) = (listener.local_addr().to_string(), server.dialler());
    cluster.node("pc-2", Role::Worker);
    cluster.authority.revoke("pc-2").unwrap();
    cluster.clock.forward(61 * DAY);
    assert!(node.is_due(&clock));

    for renewing in [false, true] {
        let asking = async {
            match within(listener.accept()).await {
                Some(Call::Desk(desk)) if renewing => {
                    assert_eq!(desk.host().name, "mx1");
                    Some(desk.renew(folder.path(), &node, &clock).await.unwrap())
                }
                Some(Call::Desk(desk)) => {
                    desk.take_trust(folder.path(), &node, &clock).await.unwrap()
                }
                other => panic!("{other:?}"),
            }
        };
        let (brought, newer) = tokio::join!(within(dialler.bring_desk(&target)), within(asking));
        let newer = newer.unwrap();
        assert_eq!(newer.trust().number(), 1);
        assert_eq!(newer.identity().serial != node.identity().serial, renewing);
        assert_eq!(brought.unwrap().map(|identity| identity.name), renewing.then(|| "pc-1".into()));
    }
}

/// With its token a node waits at its own address until its host comes. Strangers change nothing.
#[tokio::test]
async fn a_node_joins_by_being_dialled() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let mut server = cluster.server();
    let token = cluster.token(&server, "pc-1", 60);
    let folder = tempfile::tempdir().unwrap();
    let (ready, at) = tokio::sync::oneshot::channel();
    let clock = system_clock();
    let joining = join_called(
        &token,
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        |address| ready.send(address).unwrap(),
        folder.path(),
        ("pc-1", Role::Worker),
        &clock,
    );
    let dialling = async {
        let target = at.await.unwrap().to_string();
        let stranger = certify_at(&target, &other.host(), Arc::clone(&other.authority)).await;
        let error = stranger.unwrap_err();
        let LinkError::Refused { refusal, .. } = &error else { panic!("{error}") };
        assert_eq!(refusal.code, CloseCode::UnknownAuthority);
        certify_at(&target, &cluster.host(), Arc::clone(&cluster.authority)).await.unwrap()
    };
    let (node, certified) = tokio::join!(within(joining), within(dialling));
    let node = node.unwrap();
    assert_eq!(certified.unwrap().serial, node.identity().serial);
    assert_eq!(node.identity().provides, ["virus"]);
    // The token is used up, as one is that travelled the other way.
    let again = tempfile::tempdir().unwrap();
    assert!(within(join(&token, again.path(), "pc-1", Role::Worker, &clock)).await.is_err());
    assert_eq!(refused(&mut server).await.code, CloseCode::TokenRefused);
    assert!(!again.path().join("pc-1.pem").exists());
    let mut listener = listener(&Arc::new(node));
    let _pair = dialled(&mut server, &mut listener).await;
}

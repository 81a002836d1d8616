//! Further hosts of a cluster, and how revocations reach them and the workers.

use super::*;
use crate::trust::{Trust, TrustError};

/// A further host, which joined with a token of the first one.
struct Further {
    folder: TempDir,
    identity: NodeIdentity,
    server: Server,
}

impl Further {
    async fn join(cluster: &Cluster, first: &mut Server) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = cluster.token_for(first, "mx2", Role::Hook, 60);
        let joined = within(join(&token, folder.path(), "mx2", Role::Hook, &system_clock())).await;
        let identity = joined.unwrap();
        assert!(matches!(within(first.accept()).await, Some(Incoming::Joined { .. })));
        let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = ServerOptions { clock: system_clock() };
        let server = Server::bind(listen, &identity, None, options).unwrap();
        Self { folder, identity, server }
    }

    /// Asks the first host, and takes up what it says.
    async fn follow(&mut self, first: &Server) -> bool {
        let target = first.local_addr().to_string();
        let clock = system_clock();
        let asked = exchange_trust(&target, self.folder.path(), &self.identity, &clock);
        let newer = within(asked).await.unwrap();
        let changed = self.server.reload_if_changed().unwrap();
        assert_eq!(changed, newer.is_some());
        if let Some(newer) = newer {
            self.identity = newer;
        }
        changed
    }
}

/// A worker's folder, with what `Cluster::node` keeps in memory alone.
async fn worker(cluster: &Cluster, first: &mut Server, name: &str) -> (TempDir, NodeIdentity) {
    let folder = tempfile::tempdir().unwrap();
    let token = cluster.token(first, name, 60);
    let node = within(join(&token, folder.path(), name, Role::Worker, &system_clock())).await;
    assert!(matches!(within(first.accept()).await, Some(Incoming::Joined { .. })));
    (folder, node.unwrap())
}

#[tokio::test]
async fn a_further_host_serves_the_clusters_workers_and_certifies_nobody() {
    let cluster = Cluster::new();
    let mut first = cluster.server();
    let mut further = Further::join(&cluster, &mut first).await;
    assert!(!further.folder.path().join("ca").exists(), "the authority's key has travelled");
    let at = NodeIdentity::authority_host(further.folder.path());
    assert_eq!(at, Some(first.local_addr().to_string()));

    let node = cluster.node("pc-1", Role::Worker);
    let target = further.server.local_addr().to_string();
    let (hello, options) = (hello("pc-1"), options());
    let linking = connect(&target, &node, &hello, &options);
    let host = async {
        match within(further.server.accept()).await {
            Some(Incoming::Link(accepted)) => {
                let mut link = accepted.link;
                link.sender.send(&HostControl::Welcome(welcome("mx2"))).await.unwrap();
                link
            }
            other => panic!("{other:?}"),
        }
    };
    let (linked, _host) = tokio::join!(within(linking), host);
    let linked = linked.unwrap().1;
    let host = linked.connection.identity();
    assert_eq!((host.name.as_str(), host.role), ("mx2", Role::Hook));

    let token = cluster.token_for(&further.server, "pc-2", Role::Worker, 60);
    let folder = tempfile::tempdir().unwrap();
    let clock = system_clock();
    let refused = join(&token, folder.path(), "pc-2", Role::Worker, &clock);
    let error = within(refused).await.unwrap_err().to_string();
    assert!(error.contains("join and renew at the one that does"), "{error}");
}

#[tokio::test]
async fn a_revocation_reaches_further_hosts_and_workers() {
    let cluster = Cluster::new();
    let mut first = cluster.server();
    let mut further = Further::join(&cluster, &mut first).await;
    let (folder, node) = worker(&cluster, &mut first, "pc-1").await;
    let (_gone, revoked) = worker(&cluster, &mut first, "pc-9").await;
    assert!(!further.follow(&first).await, "there was nothing new");
    assert!(further.server.check(revoked.identity()).is_ok());

    cluster.authority.revoke("pc-9").unwrap();
    assert!(further.follow(&first).await);
    assert_eq!(further.server.trust_number(), 1);
    let refusal = further.server.check(revoked.identity()).unwrap_err();
    assert_eq!(refusal.code, CloseCode::Revoked);
    assert!(further.server.check(node.identity()).is_ok());
    assert!(!further.follow(&first).await, "it was known already");

    // A worker may ask any host.
    let target = further.server.local_addr().to_string();
    let clock = system_clock();
    let newer = within(exchange_trust(&target, folder.path(), &node, &clock)).await.unwrap();
    let newer = newer.expect("the host's list is newer");
    assert_eq!(newer.trust().number(), 1);
    assert!(newer.check(revoked.identity()).is_err());
    assert!(newer.check(further.identity.identity()).is_ok());
}

#[tokio::test]
async fn a_revoked_host_is_known_as_such() {
    let cluster = Cluster::new();
    let mut first = cluster.server();
    let further = Further::join(&cluster, &mut first).await;
    let (folder, node) = worker(&cluster, &mut first, "pc-1").await;
    cluster.authority.revoke("mx2").unwrap();
    first.reload().unwrap();

    let (target, clock) = (first.local_addr().to_string(), system_clock());
    let newer = within(exchange_trust(&target, folder.path(), &node, &clock)).await.unwrap();
    let newer = newer.expect("the host's list is newer");
    assert_eq!(newer.check(&further.identity.identity).unwrap_err().code, CloseCode::Revoked);
    let target = further.server.local_addr().to_string();
    let error = within(connect(&target, &newer, &hello("pc-1"), &options())).await.unwrap_err();
    assert!(error.to_string().contains("mx2 was revoked"), "{error}");

    let (target, own) = (first.local_addr().to_string(), further.folder.path());
    let asked = exchange_trust(&target, own, &further.identity, &clock);
    let JoinError::Refused { refusal, .. } = within(asked).await.unwrap_err() else { panic!() };
    assert_eq!(refusal.code, CloseCode::Revoked);
}

#[tokio::test]
async fn only_the_clusters_nodes_are_told_the_revocations() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let mut first = cluster.server();
    let folder = tempfile::tempdir().unwrap();
    let (target, clock) = (first.local_addr().to_string(), system_clock());
    let stranger = other.node("pc-1", Role::Worker);
    std::fs::copy(other.folder.path().join("trust"), folder.path().join("trust")).unwrap();
    let asked = exchange_trust(&target, folder.path(), &stranger, &clock);
    let JoinError::Refused { refusal, .. } = within(asked).await.unwrap_err() else { panic!() };
    assert_eq!(refusal.code, CloseCode::UnknownAuthority);
    assert!(refusal.text.contains("join with a token"), "{refusal}");
    // It has also offered its own list, for which nobody here vouches.
    for told in ["join with a token", "not signed by this cluster's authority"] {
        let refusal = refused(&mut first).await;
        assert!(refusal.text.contains(told), "{refusal}");
    }
    assert_eq!(Trust::load(&folder.path().join("trust")).unwrap(), stranger.trust);
}

#[test]
fn a_list_is_kept_where_it_is_signed_and_newer() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let first = std::fs::read_to_string(cluster.folder.path().join("trust")).unwrap();
    let texts: Vec<String> = ["pc-1", "pc-2"]
        .iter()
        .map(|name| {
            cluster.node(name, Role::Worker);
            cluster.authority.revoke(name).unwrap();
            cluster.authority.trust_text().unwrap()
        })
        .collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("trust");
    std::fs::write(&path, first).unwrap();
    let keep = |text: &str| Trust::keep_newer(&path, text);
    assert!(keep(&texts[1]).unwrap());
    assert!(!keep(&texts[0]).unwrap(), "an older list must not take its place");
    assert!(!keep(&texts[1]).unwrap());
    let forged = texts[1].replace("number 2", "number 9");
    assert!(matches!(keep(&forged), Err(TrustError::Signature)));
    other.node("pc-1", Role::Worker);
    other.authority.revoke("pc-1").unwrap();
    let foreign = other.authority.trust_text().unwrap();
    assert!(matches!(keep(&foreign), Err(TrustError::Signature)));
    assert_eq!(Trust::load(&path).unwrap().number(), 2);
}

#[tokio::test]
async fn another_clusters_authority_is_not_joined_over() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let first = cluster.server();
    let token = cluster.token_for(&first, "mx2", Role::Hook, 60);
    let before = std::fs::read(other.folder.path().join("trust")).unwrap();
    let clock = system_clock();
    let joining = join(&token, other.folder.path(), "mx2", Role::Hook, &clock);
    let error = joining.await.unwrap_err();
    assert!(matches!(error, JoinError::OtherAuthority { .. }), "{error}");
    assert_eq!(std::fs::read(other.folder.path().join("trust")).unwrap(), before);
}

//! A cluster's authority changes: a new root, a root whose key is offline. The clock is the test's.

use super::*;
use crate::trust::{Trust, TrustError};

/// A node's folder, with its identity as it was last read.
struct Node {
    folder: TempDir,
    identity: NodeIdentity,
}

impl Node {
    async fn join(cluster: &Cluster, server: &mut Server, name: &str, role: Role) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let token = cluster.token_for(server, name, role, 3_600);
        let clock = cluster.clock.clock();
        let identity = within(join(&token, folder.path(), name, role, &clock)).await.unwrap();
        assert!(matches!(within(server.accept()).await, Some(Incoming::Joined { .. })));
        Self { folder, identity }
    }

    /// As a worker does at each look: exchanges lists, and renews where that is due.
    async fn look(&mut self, cluster: &Cluster, server: &mut Server) -> Result<bool, JoinError> {
        let (target, clock) = (server.local_addr().to_string(), cluster.clock.clock());
        let path = self.folder.path();
        let newer = within(exchange_trust(&target, path, &self.identity, &clock)).await?;
        if let Some(newer) = newer {
            self.identity = newer;
        }
        if !self.identity.is_due(&clock) {
            return Ok(false);
        }
        self.identity = within(renew(&target, path, &self.identity, &clock)).await?;
        // What was refused before may have come later.
        while !matches!(within(server.accept()).await.unwrap(), Incoming::Joined { .. }) {}
        Ok(true)
    }

    async fn links(&self, cluster: &Cluster, server: &mut Server) -> Result<(), LinkError> {
        let target = server.local_addr().to_string();
        let hello = hello(&self.identity.identity.name);
        let options = ConnectOptions { clock: cluster.clock.clock(), time_max: DEADLINE };
        let linking = within(connect(&target, &self.identity, &hello, &options));
        tokio::pin!(linking);
        tokio::select! {
            linked = &mut linking => linked.map(drop),
            incoming = server.accept() => match incoming {
                Some(Incoming::Link(accepted)) => {
                    let mut link = accepted.link;
                    link.sender.send(&HostControl::Welcome(welcome("mx1"))).await.unwrap();
                    linking.await.map(drop)
                }
                _ => linking.await.map(drop),
            },
        }
    }
}

/// What a running hook does when its folder has changed.
fn take_up(cluster: &Cluster, server: &Server) {
    server.reload().unwrap();
    cluster.authority.renew_host("mx1").unwrap();
    server.use_identity(&cluster.host()).unwrap();
}

#[tokio::test]
async fn two_roots_are_trusted_until_the_former_is_retired() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut node = Node::join(&cluster, &mut server, "pc-1", Role::Worker).await;
    let mut away = Node::join(&cluster, &mut server, "pc-2", Role::Worker).await;
    let old = node.identity.identity.authority;
    let void = cluster.token(&server, "pc-3", 3_600);
    let old_key = cluster.key_path();

    let new = cluster.authority.rotate().unwrap();
    assert!(!old_key.exists() && cluster.key_path().exists());
    let again = cluster.authority.rotate().unwrap_err();
    assert!(matches!(again, AuthorityError::AlreadyRotated), "{again}");
    // Before the hook has taken it up, and after.
    node.links(&cluster, &mut server).await.unwrap();
    take_up(&cluster, &server);
    assert_eq!(cluster.host().identity.authority, new);
    let state = cluster.authority.state().unwrap();
    let state: Vec<_> = state.iter().map(|one| (one.id, one.current, one.has_key)).collect();
    assert_eq!(state, [(old, false, false), (new, true, true)]);

    // The host is not known by the new root before its list is; then the node moves, far from its two thirds.
    let error = node.links(&cluster, &mut server).await.unwrap_err();
    assert!(matches!(error, LinkError::PeerRefused { .. }), "{error}");
    assert!(node.look(&cluster, &mut server).await.unwrap());
    assert_eq!(node.identity.identity.authority, new);
    node.links(&cluster, &mut server).await.unwrap();
    assert!(!node.look(&cluster, &mut server).await.unwrap(), "it moved once");

    // A token of before names the old root.
    let folder = tempfile::tempdir().unwrap();
    let clock = cluster.clock.clock();
    let joining = join(&void, folder.path(), "pc-3", Role::Worker, &clock);
    let error = within(joining).await.unwrap_err();
    assert!(error.to_string().contains("ask for a new token"), "{error}");

    // Who was away comes back with its old certificate, within its life.
    let error = cluster.authority.retire(false).unwrap_err();
    assert!(
        matches!(&error, AuthorityError::StillUsed { names } if *names == ["worker pc-2"]),
        "{error}"
    );
    cluster.clock.forward(80 * DAY);
    take_up(&cluster, &server);
    assert!(away.look(&cluster, &mut server).await.unwrap());
    assert_eq!(away.identity.identity.authority, new);
    away.links(&cluster, &mut server).await.unwrap();

    assert!(node.look(&cluster, &mut server).await.unwrap());
    assert_eq!(cluster.authority.retire(false).unwrap(), 0);
    take_up(&cluster, &server);
    assert_eq!(cluster.authority.state().unwrap().len(), 1);
    node.look(&cluster, &mut server).await.unwrap();
    node.links(&cluster, &mut server).await.unwrap();
    let error = cluster.authority.retire(false).unwrap_err();
    assert!(matches!(error, AuthorityError::NothingToRetire), "{error}");
}

#[tokio::test]
async fn who_slept_through_the_whole_rotation_joins_again() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut away = Node::join(&cluster, &mut server, "pc-2", Role::Worker).await;
    cluster.authority.rotate().unwrap();
    take_up(&cluster, &server);
    assert_eq!(cluster.authority.retire(true).unwrap(), 1);
    take_up(&cluster, &server);
    assert_eq!(
        server.check(&away.identity.identity).unwrap_err().code,
        CloseCode::UnknownAuthority
    );
    let error = away.look(&cluster, &mut server).await.unwrap_err();
    refused(&mut server).await;
    assert!(error.to_string().contains("join"), "{error}");
    let token = cluster.token(&server, "pc-2", 3_600);
    let clock = cluster.clock.clock();
    let joining = join(&token, away.folder.path(), "pc-2", Role::Worker, &clock);
    away.identity = within(joining).await.unwrap();
    while !matches!(within(server.accept()).await.unwrap(), Incoming::Joined { .. }) {}
    away.links(&cluster, &mut server).await.unwrap();
}

/// A host that hears nothing of the authority's host learns the new root and revocations from a worker that has both.
#[tokio::test]
async fn a_worker_carries_the_list_to_a_host_that_does_not_have_it() {
    let cluster = Cluster::new();
    let mut first = cluster.server();
    let further = Node::join(&cluster, &mut first, "mx2", Role::Hook).await;
    let mut node = Node::join(&cluster, &mut first, "pc-1", Role::Worker).await;
    let gone = Node::join(&cluster, &mut first, "pc-9", Role::Worker).await;
    let options = ServerOptions { clock: cluster.clock.clock() };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let second = Server::bind(listen, &further.identity, None, options).unwrap();
    cluster.authority.revoke("pc-9").unwrap();
    cluster.authority.rotate().unwrap();
    take_up(&cluster, &first);
    assert!(node.look(&cluster, &mut first).await.unwrap());

    // The worker's certificate is of a root that the host has never heard of.
    assert_eq!((second.trust_number(), node.identity.trust().number()), (0, 2));
    let (target, clock) = (second.local_addr().to_string(), cluster.clock.clock());
    let asked = exchange_trust(&target, node.folder.path(), &node.identity, &clock);
    assert!(within(asked).await.unwrap().is_none());
    assert!(second.reload_if_changed().unwrap());
    assert_eq!(second.trust_number(), 2);
    assert_eq!(second.check(&gone.identity.identity).unwrap_err().code, CloseCode::Revoked);
    second.check(&node.identity.identity).unwrap();
}

#[tokio::test]
async fn with_the_root_offline_a_key_in_its_place_issues_for_a_time() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let mut node = Node::join(&cluster, &mut server, "pc-1", Role::Worker).await;
    let root_key = cluster.key_path();
    let safe = tempfile::tempdir().unwrap();
    let file = safe.path().join("root.key");
    let authority = &cluster.authority;
    let issuing = authority.export(&file, b"correct horse", 200 * DAY).unwrap();
    assert!(!root_key.exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }
    for refused in [
        authority.rotate().unwrap_err(),
        authority.export(&safe.path().join("again"), b"x", DAY).unwrap_err(),
    ] {
        assert!(matches!(refused, AuthorityError::RootOffline { .. }), "{refused}");
    }
    take_up(&cluster, &server);

    // Nobody has to move, and everything but rotation goes on, also what the new key has signed.
    node.links(&cluster, &mut server).await.unwrap();
    cluster.clock.forward(61 * DAY);
    take_up(&cluster, &server);
    assert_eq!(cluster.host().identity.authority, issuing.id);
    let joined = Node::join(&cluster, &mut server, "pc-2", Role::Worker).await;
    assert!(node.look(&cluster, &mut server).await.unwrap());
    assert_eq!(node.identity.identity.authority, issuing.id);
    node.links(&cluster, &mut server).await.unwrap();
    assert_eq!(authority.revoke("pc-2").unwrap(), 1);
    take_up(&cluster, &server);
    assert_eq!(server.check(&joined.identity.identity).unwrap_err().code, CloseCode::Revoked);

    // Near its end it gives what is left and no more, and nobody asks for less than a day.
    cluster.clock.forward(61 * DAY);
    take_up(&cluster, &server);
    assert!(node.look(&cluster, &mut server).await.unwrap());
    assert_eq!(node.identity.identity.expires, issuing.expires);
    cluster.clock.forward(55 * DAY);
    let error = node.look(&cluster, &mut server).await.unwrap_err();
    let refusal = refused(&mut server).await;
    assert!(refusal.text.contains("ends in 23 days, too"), "{refusal}");
    assert!(error.to_string().ends_with(&refusal.text), "{error}");
    node.links(&cluster, &mut server).await.unwrap();

    // When it has ended, each says what brings it back; then it goes on.
    cluster.clock.forward(22 * DAY);
    let bytes = std::fs::read(cluster.folder.path().join("trust")).unwrap();
    cluster.clock.forward(2 * DAY);
    let error = authority.revoke("pc-1").unwrap_err().to_string();
    assert!(
        error.contains("expired 24 hours ago")
            || error.contains("expired 1 day ago")
            || error.contains("expired 2"),
        "{error}"
    );
    assert!(error.contains("authority import FILE"), "{error}");
    assert_eq!(std::fs::read(cluster.folder.path().join("trust")).unwrap(), bytes);
    let error = authority.import(&file, b"correct hors").unwrap_err();
    assert!(matches!(error, AuthorityError::Seal(SealError::Passphrase)), "{error}");
    authority.import(&file, b"correct horse").unwrap();
    assert!(authority.renew_host("mx1").unwrap(), "it had expired");
    take_up(&cluster, &server);
    let token = cluster.token(&server, "pc-1", 3_600);
    let clock = cluster.clock.clock();
    let joining = join(&token, node.folder.path(), "pc-1", Role::Worker, &clock);
    node.identity = within(joining).await.unwrap();
    assert!(matches!(within(server.accept()).await, Some(Incoming::Joined { .. })));
    node.links(&cluster, &mut server).await.unwrap();
}

/// A stolen issuing key can do what it is for, and no more: it introduces nobody.
#[test]
fn only_a_root_introduces_an_authority() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let path = cluster.folder.path().join("trust");
    let first = std::fs::read_to_string(&path).unwrap();
    let safe = tempfile::tempdir().unwrap();
    let authority = &cluster.authority;
    authority.export(&safe.path().join("key"), b"x", 200 * DAY).unwrap();
    let known = Trust::load(&path).unwrap();
    let key = std::fs::read_to_string(cluster.key_path()).unwrap();
    let stolen = certificate::issuer(rcgen::KeyPair::from_pem(&key).unwrap());
    let new = other.host().trust.root().unwrap().certificate.clone();
    let kind = AuthorityKind::Root;
    let forged = known.with_authority(kind, new, u64::MAX, &stolen, 0).unwrap();
    let forged = forged.sign(&stolen).unwrap();
    for trusted in [&first, &std::fs::read_to_string(&path).unwrap()] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("trust");
        std::fs::write(&file, trusted).unwrap();
        let kept = Trust::keep_newer(&file, &forged);
        assert!(matches!(kept, Err(TrustError::Signature)), "{kept:?}");
        assert_eq!(&std::fs::read_to_string(&file).unwrap(), trusted);
    }
}

/// Whatever a crash leaves of a rotation, the folder is that of before or after.
#[test]
fn a_rotation_that_was_cut_short_has_not_been() {
    let cluster = Cluster::new();
    let folder = cluster.folder.path();
    let before = std::fs::read(folder.join("trust")).unwrap();
    let (key_path, key) = (cluster.key_path(), std::fs::read(cluster.key_path()).unwrap());
    let new = cluster.authority.rotate().unwrap();
    // The key was written, the list was not.
    let after = std::fs::read(folder.join("trust")).unwrap();
    let (new_path, new_key) = (cluster.key_path(), std::fs::read(cluster.key_path()).unwrap());
    std::fs::write(folder.join("trust"), &before).unwrap();
    std::fs::write(&key_path, &key).unwrap();
    assert_ne!(cluster.node("pc-1", Role::Worker).identity.authority, new);
    let again = cluster.authority.rotate().unwrap();
    assert_ne!(again, new);
    // The list was written, the old key is still there.
    std::fs::write(folder.join("trust"), &after).unwrap();
    std::fs::write(&new_path, &new_key).unwrap();
    std::fs::write(&key_path, &key).unwrap();
    assert_eq!(cluster.node("pc-2", Role::Worker).identity.authority, new);
    cluster.authority.retire(true).unwrap();
    assert!(!key_path.exists());
}

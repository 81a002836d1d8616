//! Joining, and what tokens do not do.

use super::*;
use crate::trust::TrustError;

async fn join_as(token: &str, folder: &TempDir, name: &str) -> Result<NodeIdentity, JoinError> {
    within(join(token, folder.path(), name, Role::Worker, &system_clock())).await
}

/// The host's and the worker's sentence for a refused join, which must be one and the same.
async fn both(server: &mut Server, token: &str, name: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    let (error, refusal) = tokio::join!(join_as(token, &folder, name), refused(server));
    let error = error.unwrap_err();
    let JoinError::Refused { refusal: told, .. } = &error else { panic!("{error}") };
    assert_eq!(*told, refusal);
    assert_eq!(refusal.code, CloseCode::TokenRefused);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "something was kept");
    refusal.text
}

#[tokio::test]
async fn a_token_makes_a_node_that_can_link() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let token = cluster.token(&server, "pc-*", 3_600);
    assert!(token.starts_with("gantry-token-"));
    assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));

    let folder = tempfile::tempdir().unwrap();
    let joined = join_as(&format!(" {token}\n"), &folder, "pc-1").await.unwrap();
    match within(server.accept()).await.unwrap() {
        Incoming::Joined { identity, .. } => assert_eq!(identity, *joined.identity()),
        other => panic!("{other:?}"),
    }
    let clock = system_clock();
    let node = NodeIdentity::open(folder.path(), "pc-1", Role::Worker, &clock).unwrap();
    assert_eq!(node.identity(), joined.identity());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        for key in [folder.path().join("pc-1.key"), cluster.key_path()] {
            let mode = std::fs::metadata(&key).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", key.display());
        }
    }

    let target = server.local_addr().to_string();
    let (hello, options) = (hello("pc-1"), options());
    let worker = connect(&target, &node, &hello, &options);
    let (worker, (identity, _host)) = tokio::join!(within(worker), accept(&mut server));
    assert_eq!(worker.unwrap().1.connection.identity().name, "mx1");
    // The grant is the token's, whatever the worker claims.
    assert_eq!(identity.provides, ["virus"]);
    assert_eq!((identity.name.as_str(), identity.role), ("pc-1", Role::Worker));
    let left = identity.expires - system_clock()();
    assert!((89 * DAY..=90 * DAY).contains(&left), "{left}");
}

#[tokio::test]
async fn a_token_is_used_once() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let token = cluster.token(&server, "pc-*", 3_600);
    let folder = tempfile::tempdir().unwrap();
    join_as(&token, &folder, "pc-1").await.unwrap();
    assert!(matches!(within(server.accept()).await, Some(Incoming::Joined { .. })));
    for name in ["pc-2", "pc-1"] {
        let text = both(&mut server, &token, name).await;
        assert!(text.starts_with("the token was used already"), "{text}");
    }
}

#[tokio::test]
async fn of_many_that_use_one_token_at_once_one_joins() {
    let cluster = Cluster::new();
    let server = cluster.server();
    let token = cluster.token(&server, "*", 3_600);
    let tries: Vec<_> = (0..8)
        .map(|index| {
            let token = token.clone();
            tokio::spawn(async move {
                let folder = tempfile::tempdir().unwrap();
                join_as(&token, &folder, &format!("pc-{index}")).await.is_ok()
            })
        })
        .collect();
    let mut joined = 0;
    for one in tries {
        joined += u32::from(within(one).await.unwrap());
    }
    assert_eq!(joined, 1);
    let books = std::fs::read_to_string(cluster.folder.path().join("issued")).unwrap();
    assert_eq!(books.lines().count(), 2, "the host's and the one node's: {books}");
}

#[tokio::test]
async fn a_token_that_does_not_fit_is_refused_and_stays_good() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let text = cluster.token(&server, "pc-*", 3_600);
    let folder = tempfile::tempdir().unwrap();
    // The worker itself sees most of it.
    let error = join_as(&text, &folder, "laptop").await.unwrap_err();
    assert_eq!(error.to_string(), "join with the token: it is for pc-*, not for \"laptop\"");
    let operator =
        join(&text, folder.path(), "pc-1", Role::Operator, &system_clock()).await.unwrap_err();
    assert!(operator.to_string().contains("for the role worker"), "{operator}");
    // A holder who changes its own copy gains nothing.
    let mut forged: JoinToken = text.parse().unwrap();
    forged.mask = "*".parse().unwrap();
    let told = both(&mut server, &forged.to_text(), "laptop").await;
    assert_eq!(told, "the token is for pc-*, not for \"laptop\"");
    forged.secret.0[0] ^= 1;
    let told = both(&mut server, &forged.to_text(), "laptop").await;
    assert!(told.starts_with("this host knows no such token"), "{told}");
    join_as(&text, &folder, "pc-1").await.unwrap();
}

#[tokio::test]
async fn an_expired_token_is_refused_by_both() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let token = cluster.token(&server, "pc-1", 3_600);
    cluster.clock.forward(3 * 3_600);
    // The worker's clock is behind, so that the host must see it.
    let told = both(&mut server, &token, "pc-1").await;
    assert_eq!(told, "the token expired 2 hours ago; ask for a new one");
    let folder = tempfile::tempdir().unwrap();
    let error = join(&token, folder.path(), "pc-1", Role::Worker, &cluster.clock.clock()).await;
    assert!(matches!(error, Err(JoinError::Expired { .. })), "{error:?}");
    // The next token that is issued clears it away.
    cluster.token(&server, "pc-1", 3_600);
    assert_eq!(std::fs::read_dir(cluster.folder.path().join("tokens")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_token_is_not_shown_to_a_host_of_another_cluster() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let mut impostor = other.server();
    let token = cluster.token(&impostor, "pc-1", 3_600);
    let folder = tempfile::tempdir().unwrap();
    let (error, refusal) = tokio::join!(join_as(&token, &folder, "pc-1"), refused(&mut impostor));
    let error = error.unwrap_err();
    assert!(matches!(error, JoinError::HostRefused { .. }), "{error}");
    let words = "the host is not of the cluster that the token is of";
    assert!(error.to_string().contains(words), "{error}");
    assert!(refusal.text.contains(words), "{refusal}");
}

#[tokio::test]
async fn a_host_without_the_authoritys_key_says_so() {
    let cluster = Cluster::new();
    let options = ServerOptions { clock: cluster.clock.clock() };
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut server = Server::bind(listen, &cluster.host(), None, options).unwrap();
    let token = cluster.token(&server, "pc-1", 3_600);
    let told = both(&mut server, &token, "pc-1").await;
    assert!(told.contains("does not have the authority's key"), "{told}");
}

#[tokio::test]
async fn certificates_are_renewed_at_two_thirds() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let clock = cluster.clock.clock();
    let folder = tempfile::tempdir().unwrap();
    let token = cluster.token(&server, "pc-1", 3_600);
    let first = join_as(&token, &folder, "pc-1").await.unwrap();
    assert!(matches!(within(server.accept()).await, Some(Incoming::Joined { .. })));
    let target = server.local_addr().to_string();

    // Too early for both.
    assert!(!first.is_due(&clock) && !cluster.authority.renew_host("mx1").unwrap());
    let (error, refusal) =
        tokio::join!(within(renew(&target, folder.path(), &first, &clock)), refused(&mut server));
    assert!(error.unwrap_err().to_string().ends_with(&refusal.text));
    assert!(refusal.text.contains("more than a third of its time left"));

    cluster.clock.forward(61 * DAY);
    assert!(first.is_due(&clock));
    assert!(cluster.authority.renew_host("mx1").unwrap());
    server.use_identity(&cluster.host()).unwrap();
    let second = within(renew(&target, folder.path(), &first, &clock)).await.unwrap();
    assert!(matches!(within(server.accept()).await, Some(Incoming::Joined { .. })));
    assert!(!second.is_due(&clock));
    assert_ne!(second.identity.serial, first.identity.serial);
    let same = |node: &NodeIdentity| {
        let Identity { name, role, provides, .. } = node.identity.clone();
        (name, role, provides)
    };
    assert_eq!(same(&second), same(&first));

    // When the first ones have ended, the second ones link.
    cluster.clock.forward(60 * DAY);
    let (hello, options) =
        (hello("pc-1"), ConnectOptions { clock: clock.clone(), time_max: DEADLINE });
    let worker = connect(&target, &second, &hello, &options);
    let (worker, _host) = tokio::join!(within(worker), accept(&mut server));
    worker.unwrap();
    // A revocation of the name counts for what was renewed, and a revoked certificate is not renewed.
    assert_eq!(cluster.authority.revoke("pc-1").unwrap(), 1);
    let (error, refusal) =
        tokio::join!(within(renew(&target, folder.path(), &second, &clock)), refused(&mut server));
    assert!(error.unwrap_err().to_string().ends_with(&refusal.text));
    assert!(refusal.text.contains("was revoked"), "{refusal}");

    // A host that was off for too long comes back with its authority's help.
    cluster.clock.forward(200 * DAY);
    let error = NodeIdentity::open(cluster.folder.path(), "mx1", Role::Hook, &clock).unwrap_err();
    assert!(error.to_string().contains("expired"), "{error}");
    assert!(cluster.authority.renew_host("mx1").unwrap());
    cluster.host();
}

#[test]
fn a_damaged_token_is_told_from_a_refused_one() {
    let mask = "pc-1".parse().unwrap();
    let token = JoinToken {
        host: "mx1.example.com:4733".to_owned(),
        mask,
        role: Role::Worker,
        provides: vec!["virus".to_owned()],
        expires: 1_800_000_000,
        authority: [1; 32],
        secret: crate::token::Secret([2; 32]),
    };
    let text = token.to_text();
    assert_eq!(text.parse::<JoinToken>().unwrap(), token);
    assert!(!format!("{token:?}").contains("2, 2"), "the secret shows");
    assert_eq!("hello".parse::<JoinToken>(), Err(TokenError::NoToken));
    for index in "gantry-token-".len()..text.len() {
        let mut damaged = text.clone().into_bytes();
        damaged[index] = if damaged[index] == b'A' { b'B' } else { b'A' };
        let damaged = String::from_utf8(damaged).unwrap();
        assert_eq!(damaged.parse::<JoinToken>(), Err(TokenError::Checksum), "{index}");
        assert!(text[..index].parse::<JoinToken>().is_err(), "{index}");
    }
}

#[test]
fn an_authority_is_made_once_and_names_what_is_wrong() {
    let cluster = Cluster::new();
    let (folder, clock) = (cluster.folder.path(), cluster.clock.clock());
    let error = Authority::create(folder, "mx1", cluster.clock.clock()).unwrap_err();
    assert!(matches!(error, AuthorityError::Exists { .. }));
    let error = NodeIdentity::open(folder, "mx2", Role::Hook, &clock).unwrap_err();
    assert!(error.to_string().contains("mx2.pem"), "{error}");
    assert!(error.to_string().contains("joining with a token"), "{error}");
    let error = NodeIdentity::open(folder, "mx1", Role::Worker, &clock).unwrap_err();
    assert!(error.to_string().contains("for the role hook"), "{error}");
    let error = NodeIdentity::open(folder, "../mx1", Role::Hook, &clock).unwrap_err();
    assert!(matches!(error, IdentityError::NoName { .. }));
    std::fs::copy(cluster.key_path(), folder.join("mx1.key")).unwrap();
    let error = NodeIdentity::open(folder, "mx1", Role::Hook, &clock).unwrap_err();
    assert!(error.to_string().contains("the key is not that of"), "{error}");
    let error = Authority::create(&folder.join("new"), "MX 1", clock).unwrap_err();
    assert!(error.to_string().contains("cannot be a name"), "{error}");
}

#[test]
fn only_the_authority_revokes_and_a_list_never_goes_back() {
    let cluster = Cluster::new();
    let (one, two) = (cluster.node("pc-1", Role::Worker), cluster.node("pc-2", Role::Worker));
    let path = cluster.folder.path().join("trust");
    let text = || std::fs::read_to_string(&path).unwrap();
    assert_eq!(cluster.authority.revoke("pc-1").unwrap(), 1);
    let first = text();
    assert_eq!(cluster.authority.revoke(&two.identity.serial.to_string()).unwrap(), 1);
    let list = Trust::parse(&text()).unwrap().0;
    assert_eq!((list.number(), list.revoked()), (2, 2));
    assert!(list.check(&one.identity).is_err() && list.check(&two.identity).is_err());

    let mut known = list;
    let older = Trust::parse(&first).unwrap().0;
    assert!(matches!(known.replace(older), Err(TrustError::Older { got: 1, known: 2 })));
    assert_eq!(known.number(), 2);
    let forged = text().replace("pc-1", "pc-3");
    assert!(matches!(Trust::parse(&forged), Err(TrustError::Signature)));
    let error = cluster.authority.revoke("pc-7").unwrap_err();
    assert!(matches!(error, AuthorityError::NothingToRevoke { .. }), "{error}");

    // What has expired by itself leaves the list; a host refuses to start with a damaged one.
    cluster.clock.forward(60 * DAY);
    cluster.node("pc-4", Role::Worker);
    cluster.clock.forward(60 * DAY);
    assert_eq!(cluster.authority.revoke("pc-4").unwrap(), 1);
    let list = Trust::parse(&text()).unwrap().0;
    assert_eq!((list.number(), list.revoked()), (3, 1));
    std::fs::write(&path, "gantry trust 1\n").unwrap();
    let error =
        NodeIdentity::open(cluster.folder.path(), "mx1", Role::Hook, &cluster.clock.clock());
    assert!(matches!(error, Err(IdentityError::Trust { .. })), "{error:?}");
}

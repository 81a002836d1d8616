//! Operators: who may ask, and what comes of it.

use super::*;
use crate::{CloseCode, LinkError, OperatorLink, connect_operator};

const BYTES_MAX: usize = 1_024;

/// The next operator at the server.
async fn operator(server: &mut Server) -> OperatorLink {
    match within(server.accept()).await.expect("the server has ended") {
        Incoming::Operator(link) => *link,
        other => panic!("no operator but {other:?}"),
    }
}

/// Asks as `node`, which must be refused, and gives both sides' sentences.
async fn asks_in_vain(server: &mut Server, node: &NodeIdentity) -> (LinkError, Refusal) {
    let target = server.local_addr().to_string();
    let ask = async {
        let connection = connect_operator(&target, node, &options()).await?;
        connection.ask(b"status", BYTES_MAX).await
    };
    let (asked, refusal) = tokio::join!(within(ask), refused(server));
    (asked.expect_err("it was answered"), refusal)
}

#[tokio::test]
async fn requests_and_replies_on_streams_of_their_own() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("alice", Role::Operator);
    let target = server.local_addr().to_string();
    let asking = async {
        let connection = connect_operator(&target, &node, &options()).await.unwrap();
        assert_eq!(connection.host(), "mx1");
        for request in [b"one".as_slice(), b"two"] {
            let reply = connection.ask(request, BYTES_MAX).await.unwrap();
            assert_eq!(reply, [request, b"!"].concat());
        }
    };
    let answering = async {
        let mut link = operator(&mut server).await;
        assert_eq!(link.identity().name, "alice");
        while let Some((request, asked)) = link.next(BYTES_MAX).await {
            asked.reply(&[request.as_slice(), b"!"].concat()).await;
        }
    };
    within(async { tokio::join!(asking, answering) }).await;
}

/// Operators are no workers and workers no operators.
#[tokio::test]
async fn a_role_does_not_do_for_another() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    for (node, role) in [("pc-1", Role::Worker), ("mx1", Role::Hook)] {
        let (error, refusal) = asks_in_vain(&mut server, &cluster.node(node, role)).await;
        assert_eq!(refusal.code, CloseCode::WrongRole);
        let words =
            format!("the certificate of {node} is for the role {role}; here it takes operator");
        assert_eq!(refusal.text, words);
        let target = server.local_addr().to_string();
        assert_eq!(error, LinkError::Refused { target, refusal });
    }
    let alice = cluster.node("alice", Role::Operator);
    let (target, hello, options) = (server.local_addr().to_string(), hello("alice"), options());
    let linked = connect(&target, &alice, &hello, &options);
    let (linked, refusal) = tokio::join!(within(linked), refused(&mut server));
    assert!(matches!(linked, Err(LinkError::Refused { .. })));
    assert!(refusal.text.contains("for the role operator; here it takes worker"), "{refusal}");
}

#[tokio::test]
async fn who_is_of_another_cluster_or_was_revoked_is_sent_away() {
    let (cluster, other) = (Cluster::new(), Cluster::new());
    let mut server = cluster.server();
    let mut stranger = other.node("alice", Role::Operator);
    stranger.trust = cluster.host().trust;
    let (_, refusal) = asks_in_vain(&mut server, &stranger).await;
    assert_eq!(refusal.code, CloseCode::UnknownAuthority);
    let alice = cluster.node("alice", Role::Operator);
    cluster.authority.revoke("alice").unwrap();
    server.reload().unwrap();
    let (_, refusal) = asks_in_vain(&mut server, &alice).await;
    assert_eq!(refusal.code, CloseCode::Revoked);
}

#[tokio::test]
async fn a_request_that_is_too_long_ends_the_connection_with_a_sentence() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("alice", Role::Operator);
    let target = server.local_addr().to_string();
    let asking = async {
        let connection = connect_operator(&target, &node, &options()).await.unwrap();
        connection.ask(&[b'x'; BYTES_MAX + 1], BYTES_MAX).await
    };
    let answering = async {
        let mut link = operator(&mut server).await;
        assert!(link.next(BYTES_MAX).await.is_none());
        link
    };
    let (asked, _link) = within(async { tokio::join!(asking, answering) }).await;
    let error = asked.expect_err("it was answered").to_string();
    assert!(error.contains("at most 1024 bytes"), "{error}");
}

/// A full house says so, and a place is free again when an operator has gone.
#[tokio::test]
async fn there_are_so_many_places_for_operators() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let node = cluster.node("alice", Role::Operator);
    let target = server.local_addr().to_string();
    let mut both = Vec::new();
    for _ in 0..crate::operator::OPERATORS_MAX {
        let options = options();
        let connecting = connect_operator(&target, &node, &options);
        let (connection, link) = tokio::join!(within(connecting), operator(&mut server));
        both.push((connection.unwrap(), link));
    }
    let (_, refusal) = asks_in_vain(&mut server, &node).await;
    assert_eq!(refusal.code, CloseCode::Limit);
    let (connection, link) = both.pop().unwrap();
    drop(link);
    within(connection.end()).await;
    let options = options();
    let connecting = connect_operator(&target, &node, &options);
    let (connection, _link) = tokio::join!(within(connecting), operator(&mut server));
    assert_eq!(connection.unwrap().host(), "mx1");
}

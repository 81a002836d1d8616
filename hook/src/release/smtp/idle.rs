//! Connections kept for the next message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::connection::Connection;

/// Messages that go over one connection: some next hops grow tired of a client, and a new one may find a better machine
/// behind the same name.
const TRANSACTIONS_MAX: u32 = 1_000;

/// Idle connections to one next hop. Clones share.
#[derive(Clone, Debug)]
pub(super) struct Idle {
    kept: Arc<Mutex<Kept>>,
    connections_max: usize,
    time_max: Duration,
}

#[derive(Debug, Default)]
struct Kept {
    /// Oldest first, each with when it became idle.
    connections: Vec<(Instant, Connection)>,
    /// A task is about that ends those kept too long.
    reaping: bool,
}

impl Idle {
    pub(super) fn new(connections_max: usize, time_max: Duration) -> Self {
        Self { kept: Arc::default(), connections_max, time_max }
    }

    /// The connection used last, if one is still good.
    pub(super) fn take(&self) -> Option<Connection> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let (since, mut connection) = kept.connections.pop()?;
            if since.elapsed() < self.time_max && connection.is_quiet() {
                return Some(connection);
            }
        }
    }

    /// Keeps a connection on which no transaction is open.
    pub(super) fn put(&self, connection: Connection) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if connection.transactions >= TRANSACTIONS_MAX
            || kept.connections.len() >= self.connections_max
            || self.time_max.is_zero()
        {
            return connection.quit();
        }
        kept.connections.push((Instant::now(), connection));
        if !std::mem::replace(&mut kept.reaping, true) {
            tokio::spawn(self.clone().reap());
        }
    }

    async fn reap(self) {
        loop {
            tokio::time::sleep(self.time_max).await;
            let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
            let old =
                kept.connections.partition_point(|(since, _)| since.elapsed() >= self.time_max);
            for (_, connection) in kept.connections.drain(..old) {
                connection.quit();
            }
            if kept.connections.is_empty() {
                kept.reaping = false;
                return;
            }
        }
    }
}

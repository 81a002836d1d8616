//! Bad weather between workers and a host: a relay of UDP that loses, delays and blocks datagrams, each way on its own.
//!
//! Stands in for a bad network where the system has no emulation of one. It knows nothing of QUIC: it passes datagrams
//! on whole, late or not at all.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Runtime};
use tokio::time::sleep;

/// Largest UDP payload (RFC 768 over IPv4).
const DATAGRAM_BYTES_MAX: usize = 65_507;
/// Loses everything.
pub const ALL: u32 = 100;

/// What happens to datagrams of one direction.
#[derive(Debug, Default)]
pub struct Direction {
    /// Of a hundred.
    loss_percent: AtomicU32,
    delay_ms: AtomicU32,
    passed: AtomicU64,
    lost: AtomicU64,
}

impl Direction {
    /// From now on so many of a hundred are lost; 100 blocks this way.
    pub fn lose(&self, percent: u32) {
        self.loss_percent.store(percent, Ordering::Relaxed);
    }

    /// From now on each is held for so long.
    pub fn delay(&self, delay_ms: u32) {
        self.delay_ms.store(delay_ms, Ordering::Relaxed);
    }

    /// Datagrams passed and lost so far.
    pub fn counts(&self) -> (u64, u64) {
        (self.passed.load(Ordering::Relaxed), self.lost.load(Ordering::Relaxed))
    }

    /// How long this datagram is held; `None` for a lost one.
    fn fate(&self, random: &Mutex<fastrand::Rng>) -> Option<Duration> {
        let drawn = random.lock().unwrap_or_else(PoisonError::into_inner).u32(..100);
        if drawn < self.loss_percent.load(Ordering::Relaxed) {
            self.lost.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        self.passed.fetch_add(1, Ordering::Relaxed);
        Some(Duration::from_millis(self.delay_ms.load(Ordering::Relaxed).into()))
    }
}

/// A running relay to one host; it ends when dropped.
pub struct Weather {
    pub address: SocketAddr,
    /// From the workers to the host.
    pub up: Arc<Direction>,
    /// From the host to the workers.
    pub down: Arc<Direction>,
    // Dropping it ends all tasks.
    _runtime: Runtime,
}

impl Weather {
    /// Fair weather before this host. `seed` decides what is lost.
    pub fn before(host: SocketAddr, seed: u64) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("start the relay's runtime");
        let socket = runtime.block_on(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)));
        let front = Arc::new(socket.expect("bind the relay"));
        let (up, down) = (Arc::new(Direction::default()), Arc::new(Direction::default()));
        let relay = Relay {
            host,
            front: Arc::clone(&front),
            up: Arc::clone(&up),
            down: Arc::clone(&down),
            random: Arc::new(Mutex::new(fastrand::Rng::with_seed(seed))),
        };
        let address = front.local_addr().expect("the relay's address");
        runtime.spawn(relay.run());
        Self { address, up, down, _runtime: runtime }
    }
}

#[derive(Clone)]
struct Relay {
    host: SocketAddr,
    front: Arc<UdpSocket>,
    up: Arc<Direction>,
    down: Arc<Direction>,
    random: Arc<Mutex<fastrand::Rng>>,
}

impl Relay {
    /// Takes what workers send; each of them has a socket of its own towards the host.
    async fn run(self) {
        let mut workers: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            // An error is what ICMP says of an earlier datagram: the network's business, as here.
            let Ok((length, worker)) = self.front.recv_from(&mut buffer).await else { continue };
            let back = match workers.get(&worker) {
                Some(back) => Arc::clone(back),
                None => {
                    let back = UdpSocket::bind((self.host.ip(), 0)).await.expect("bind a socket");
                    back.connect(self.host).await.expect("name the host");
                    let back = Arc::new(back);
                    workers.insert(worker, Arc::clone(&back));
                    tokio::spawn(self.clone().answer(worker, Arc::clone(&back)));
                    back
                }
            };
            let Some(held) = self.up.fate(&self.random) else { continue };
            let datagram = buffer[..length].to_vec();
            later(held, async move {
                let _ = back.send(&datagram).await;
            })
            .await;
        }
    }

    async fn answer(self, worker: SocketAddr, back: Arc<UdpSocket>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        loop {
            let Ok(length) = back.recv(&mut buffer).await else { continue };
            let Some(held) = self.down.fate(&self.random) else { continue };
            let (front, datagram) = (Arc::clone(&self.front), buffer[..length].to_vec());
            later(held, async move {
                let _ = front.send_to(&datagram, worker).await;
            })
            .await;
        }
    }
}

/// Does it now, or lets it wait aside.
async fn later(held: Duration, work: impl Future<Output = ()> + Send + 'static) {
    if held.is_zero() {
        work.await;
    } else {
        tokio::spawn(async move {
            sleep(held).await;
            work.await;
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::UdpSocket as Socket;

    #[test]
    fn datagrams_pass_both_ways_and_are_lost_each_way_on_its_own() {
        let host = Socket::bind("127.0.0.1:0").unwrap();
        let worker = Socket::bind("127.0.0.1:0").unwrap();
        for socket in [&host, &worker] {
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        }
        let weather = Weather::before(host.local_addr().unwrap(), 1);
        let mut buffer = [0; 16];
        worker.send_to(b"up", weather.address).unwrap();
        let (length, from) = host.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"up");

        // What is blocked downwards does not keep anything from going up.
        weather.down.lose(ALL);
        host.send_to(b"lost", from).unwrap();
        worker.send_to(b"again", weather.address).unwrap();
        let (length, _) = host.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"again");
        crate::await_that("the relay has lost it", || (weather.down.counts().1 == 1).then_some(()));

        weather.down.lose(0);
        weather.down.delay(1);
        host.send_to(b"down", from).unwrap();
        let (length, _) = worker.recv_from(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"down");
    }
}

//! The listener: who gets a session.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::SmtpIntake;
use super::session::{DRAINING, Session};
use super::wire::Wire;
use crate::disk::Disk;
use crate::intake::{Admission, Gate};
use crate::spool::Spool;

/// Clients that are being told why they get no session; beyond it they are told nothing.
const REFUSALS_MAX: usize = 64;
/// The pause after a connection could not be accepted: mostly there are no file descriptors left, and asking again at
/// once would only use up the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

const STRANGER: &str = "554 5.7.1 You may not send mail here";
const CROWDED: &str = "421 4.7.0 Too many connections, try again later";
const CROWDED_CLIENT: &str = "421 4.7.0 Too many connections from you, try again later";
const STOPPED: &str = "421 4.3.0 No mail is taken at the moment, try again later";

/// Serves SMTP on `listener` until the gate drains and the last session has ended. Dropping the future ends every
/// session at once: messages that were not answered are still their senders'.
pub async fn serve<D: Disk>(
    listener: TcpListener,
    intake: Arc<SmtpIntake>,
    spool: Arc<Spool<D>>,
    gate: Gate,
) {
    let connections = Arc::new(Mutex::new(Connections::default()));
    let mut sessions = JoinSet::new();
    let mut draining = false;
    while !(draining && sessions.is_empty()) {
        let (stream, address) = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => (stream, address.ip().to_canonical()),
                Err(error) => {
                    tracing::warn!(mailbox = intake.mailbox, "accept SMTP connection: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
            Some(ended) = sessions.join_next() => {
                if let Err(error) = ended {
                    tracing::error!(mailbox = intake.mailbox, "serve SMTP session: {error}");
                }
                continue;
            }
            () = gate.draining(), if !draining => {
                draining = true;
                continue;
            }
        };
        // Replies are small and each is waited for.
        let _ = stream.set_nodelay(true);
        match admit(&connections, &intake, &gate, address) {
            Ok(place) => {
                let wire = Wire::new(stream, intake.timeouts.command);
                let (intake, spool, gate) = (intake.clone(), spool.clone(), gate.clone());
                sessions.spawn(async move {
                    Session::new(wire, address, intake, spool, gate).run().await;
                    drop(place);
                });
            }
            Err(Some((reply, place))) => {
                tracing::debug!(mailbox = intake.mailbox, %address, reply, "SMTP client sent away");
                sessions.spawn(send_away(stream, reply, place));
            }
            Err(None) => drop(stream),
        }
    }
}

async fn send_away(stream: TcpStream, reply: &'static str, place: Place) {
    let mut wire = Wire::new(stream, Duration::from_secs(1));
    wire.reply(reply);
    wire.close().await;
    drop(place);
}

/// Gives a session's place, or the reply to send away with, or nothing where even that is too much.
fn admit(
    connections: &Arc<Mutex<Connections>>,
    intake: &SmtpIntake,
    gate: &Gate,
    address: IpAddr,
) -> Result<Place, Option<(&'static str, Place)>> {
    let mut count = connections.lock().unwrap_or_else(PoisonError::into_inner);
    let of_client = count.of_client.get(&address).copied().unwrap_or_default();
    let refusal = match gate.admission() {
        _ if !intake.peers.iter().any(|peers| peers.contains(address)) => STRANGER,
        Admission::Draining | Admission::Emptying => DRAINING,
        Admission::Stopped { .. } => STOPPED,
        Admission::Open if count.sessions >= intake.limits.connections_max => CROWDED,
        Admission::Open if of_client >= intake.limits.connections_per_client_max => CROWDED_CLIENT,
        Admission::Open => {
            count.sessions += 1;
            *count.of_client.entry(address).or_default() += 1;
            return Ok(Place { connections: connections.clone(), of: Some(address) });
        }
    };
    if count.refusals >= REFUSALS_MAX {
        return Err(None);
    }
    count.refusals += 1;
    Err(Some((refusal, Place { connections: connections.clone(), of: None })))
}

#[derive(Debug, Default)]
struct Connections {
    sessions: usize,
    of_client: HashMap<IpAddr, usize>,
    refusals: usize,
}

/// One connection that counts, until it is dropped: a session of a client, or a refusal.
struct Place {
    connections: Arc<Mutex<Connections>>,
    of: Option<IpAddr>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut count = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(address) = self.of else {
            count.refusals = count.refusals.saturating_sub(1);
            return;
        };
        count.sessions = count.sessions.saturating_sub(1);
        if let Some(of_client) = count.of_client.get_mut(&address) {
            *of_client -= 1;
            if *of_client == 0 {
                count.of_client.remove(&address);
            }
        }
    }
}

//! Dialling out to workers that cannot reach this host: a task for each of them, for as long as the configuration names it.
//!
//! It makes links and looks after nothing else: what happens on them, the loop hears as if the worker had dialled.

use std::collections::BTreeMap;
use std::time::Duration;

use gantry_link::{Backoff, Dialler, HostConnection, LinkError};
use ring::rand::{SecureRandom, SystemRandom};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config::DialledWorker;

/// How often the desk is brought to a worker, which asks there for its certificate's renewal and for revocations: as often as workers
/// ask that dial themselves. A handshake each time.
const DESK_EVERY: Duration = Duration::from_secs(15);
/// How often it is looked whether a worker that has dialled us is still linked.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A link that stood for so long was none that is refused at once: the next try comes soon.
const STOOD_MIN: Duration = Duration::from_secs(10);

/// The workers that are being dialled. What is dropped is dialled no more; links stay.
#[derive(Default)]
pub(super) struct Dialling {
    tasks: BTreeMap<String, (DialledWorker, AbortHandle)>,
}

impl Dialling {
    /// From now on exactly these.
    pub(super) fn set(&mut self, dialler: &Dialler, workers: &[DialledWorker]) {
        self.tasks.retain(|_, (worker, task)| {
            let stays = workers.contains(worker);
            if !stays {
                tracing::info!(address = %worker.address, "this worker is dialled no more");
                task.abort();
            }
            stays
        });
        for worker in workers {
            self.tasks.entry(worker.address.to_string()).or_insert_with(|| {
                let task = tokio::spawn(keep_linked(dialler.clone(), worker.clone()));
                (worker.clone(), task.abort_handle())
            });
        }
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.tasks.values().for_each(|(_, task)| task.abort());
    }
}

/// Dials whenever no worker of this name is linked.
async fn keep_linked(dialler: Dialler, worker: DialledWorker) {
    let target = worker.address.to_string();
    let mut backoff = Backoff::new();
    let mut told = Told::default();
    loop {
        // Where the worker dials, too, the link that stands is enough.
        while dialler.is_linked(&worker.name) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        match dialler.dial(&target, &worker.name).await {
            Ok(connection) => {
                told.clear();
                let since = Instant::now();
                serve_desk(&dialler, &target, &connection).await;
                if since.elapsed() >= STOOD_MIN {
                    backoff.reset();
                }
            }
            Err(error) => told.tell(&target, &error),
        }
        tokio::time::sleep(backoff.next_wait(random())).await;
    }
}

/// Until the link ends: what a worker asks at a host's port is brought to it.
async fn serve_desk(dialler: &Dialler, target: &str, connection: &HostConnection) {
    let worker = connection.identity().name.clone();
    let mut told = Told::default();
    loop {
        tokio::select! {
            closed = connection.closed() => {
                return tracing::info!(worker, address = target, "the link that was dialled has ended: {closed}");
            }
            brought = dialler.bring_desk(target) => match brought {
                Ok(certified) => {
                    told.clear();
                    if let Some(identity) = certified {
                        tracing::info!(name = identity.name, role = %identity.role, "certified");
                    }
                }
                Err(error) => told.tell(target, &error),
            },
        }
        tokio::select! {
            _ = connection.closed() => {}
            () = tokio::time::sleep(DESK_EVERY) => {}
        }
    }
}

/// For a pause's length; where the system gives none, pauses are alike.
fn random() -> u64 {
    let mut bytes = [0; 8];
    match SystemRandom::new().fill(&mut bytes) {
        Ok(()) => u64::from_ne_bytes(bytes),
        Err(_) => 0,
    }
}

/// The same sentence is said once, however often the try is made.
#[derive(Default)]
struct Told(Option<String>);

impl Told {
    fn tell(&mut self, address: &str, error: &LinkError) {
        let text = error.to_string();
        if self.0.as_ref() != Some(&text) {
            tracing::warn!(address, "{text}");
            self.0 = Some(text);
        }
    }

    fn clear(&mut self) {
        self.0 = None;
    }
}

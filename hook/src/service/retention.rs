//! Looking after room: how much is free, and what was set aside and is no longer to be kept.

use std::sync::Arc;
use std::time::Duration;

use gantry_config::duration_text;
use gantry_operator::{Aside, Reply, Request};
use gantry_protocol::id::MessageId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::admin::Asked;
use crate::audit::{Audit, Who};
use crate::config::Retention;
use crate::disk::Disk;
use crate::spool::{Spool, SpoolError};

/// How often the file system is asked how much is free.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often what was set aside is looked through: each time its oldest thousand messages.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// How often the spool's own time is saved. A crash forgets as much of it at the most.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// As whom the administrator's rules act in the audit log and in messages' lives.
const RULES: &str = "retention@local";

/// Keeps [`Spool::room`] informed, and says when mail is no longer taken in for want of room, and when it is again. While
/// there is room, some of it is kept for the audit log.
pub(super) async fn watch_room<D: Disk>(spool: Arc<Spool<D>>, audit: Arc<Audit<D>>) {
    let mut ticks = interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut full = false;
    loop {
        ticks.tick().await;
        let audit = Arc::clone(&audit);
        let look = move |spool: &Spool<D>| {
            spool.look_for_room()?;
            if spool.room(0).is_ok() {
                audit.keep_room();
            }
            Ok::<(), SpoolError>(())
        };
        if let Some(Err(error)) = blocking(&spool, look).await {
            tracing::debug!("{error}");
        }
        match (spool.room(0), full) {
            (Err(error), false) => tracing::warn!("no mail is taken in: {error}"),
            (Ok(()), true) => tracing::info!("there is room again: mail is taken in"),
            _ => {}
        }
        full = spool.room(0).is_err();
    }
}

/// Removes what the rules say, one message after the other and each like an operator's decision: conditional on its
/// state, and in the audit log with its reason before it is done. Ends with the service.
pub(super) async fn sweep<D: Disk>(
    spool: Arc<Spool<D>>,
    rules: [(Aside, Retention); 2],
    requests: mpsc::Sender<Asked>,
) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut saved = Instant::now();
    loop {
        ticks.tick().await;
        if saved.elapsed() >= SAVE_EVERY {
            saved = Instant::now();
            save_time(&spool).await;
        }
        for (aside, rule) in rules {
            for (id, reason) in due(&spool, aside, rule).await {
                if remove(&requests, aside, id, reason).await.is_err() {
                    return;
                }
            }
        }
    }
}

/// What is not saved does not count after a restart, and messages are kept that much longer.
pub(super) async fn save_time<D: Disk>(spool: &Arc<Spool<D>>) {
    if let Some(Err(error)) = blocking(spool, |spool| spool.save_calendar()).await {
        tracing::warn!("save the spool's own time: {error}");
    }
}

/// What is to go by a rule, and why.
async fn due<D: Disk>(
    spool: &Arc<Spool<D>>,
    aside: Aside,
    rule: Retention,
) -> Vec<(MessageId, String)> {
    let mut due = Vec::new();
    if let Some(keep) = rule.keep {
        let kept = blocking(spool, move |spool| spool.kept_for(aside.state(), keep)).await;
        let reason = format!("it has been {} for {}", aside.word(), duration_text(keep));
        due.extend(kept.into_iter().flatten().map(|id| (id, reason.clone())));
    }
    if let Some(bytes_max) = rule.bytes_max.filter(|_| rule.removes_oldest) {
        let beyond = blocking(spool, move |spool| spool.beyond(aside.state(), bytes_max)).await;
        let reason =
            format!("more than {bytes_max} bytes are {}, and it is the oldest", aside.word());
        let beyond = beyond.into_iter().flatten().map(|id| (id, reason.clone()));
        let known: Vec<MessageId> = due.iter().map(|(id, _)| *id).collect();
        due.extend(beyond.filter(|(id, _)| !known.contains(id)));
    }
    due
}

/// `Err` when the service has ended.
async fn remove(
    requests: &mpsc::Sender<Asked>,
    aside: Aside,
    id: MessageId,
    reason: String,
) -> Result<(), ()> {
    let request = Request::Delete { aside, id: id.to_string(), reason: Some(reason) };
    let (reply, replied) = oneshot::channel();
    let who = Who { name: RULES.to_owned(), from: None };
    requests.send(Asked { who, identity: None, request, reply }).await.map_err(drop)?;
    match replied.await {
        // An operator was first.
        Ok(Reply::Refused(reason)) => tracing::info!(id = %id, "not removed: {reason}"),
        Ok(_) => {}
        Err(_) => return Err(()),
    }
    Ok(())
}

/// Runs what touches the disk off the loop. `None` where that panicked.
async fn blocking<D: Disk, T: Send + 'static>(
    spool: &Arc<Spool<D>>,
    work: impl FnOnce(&Spool<D>) -> T + Send + 'static,
) -> Option<T> {
    let spool = Arc::clone(spool);
    tokio::task::spawn_blocking(move || work(&spool)).await.ok()
}

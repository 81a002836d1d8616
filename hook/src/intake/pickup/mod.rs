//! Taking mail out of a folder: plain files, or a Maildir's `new`.
//!
//! A file is claimed by a rename, read into the spool, and removed only when the spool has it durably; only then is its
//! message marked. So wherever a crash falls, the file is in the folder, or claimed and not in the spool (and read
//! again), or claimed and in the spool (and removed at the next start, before anything is processed). Custody is always
//! the hook's.
//!
//! The envelope comes from X-Sender and X-Receiver at the top of the message, or from a file beside it.

mod folder;
mod take;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use self::folder::{Claim, Folder};
use self::take::{Taken, take};
use self::watch::Watch;
use super::arrival::{Arrived, LocalIntake};
use super::{Admission, Gate};
use crate::disk::Disk;
use crate::release::{EnvelopeForm, FolderFormat};
use crate::spool::SpoolError;

pub use folder::FolderError;

/// Files claimed at once: they share their folders' syncs, and no more of them are read again after a crash.
const CLAIMS_MAX: usize = 32;
/// The pause before a file that could not be taken is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// The shortest pause between two looks, however often somebody tells of new files.
const PAUSE_MIN: Duration = Duration::from_millis(10);

/// A folder as a way in, everything resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PickupConfig {
    /// The host's and the mailbox's names, by which claims are told apart.
    pub host: String,
    pub mailbox: String,
    pub directory: PathBuf,
    pub format: FolderFormat,
    pub envelope: EnvelopeForm,
    /// For how long a plain file must not have changed.
    pub settle: Duration,
    /// How often the folder is looked at, whether or not anybody tells of new files.
    pub poll: Duration,
    /// For how long a message waits for its sidecar.
    pub sidecar_wait: Duration,
}

/// A pickup folder that is ready.
pub struct Pickup<D: Disk> {
    config: PickupConfig,
    intake: Arc<LocalIntake<D>>,
    folder: Folder,
    /// Claimed and not yet taken.
    waiting: Vec<Claim>,
    /// In the spool, but not yet removed, so not yet marked.
    unremoved: Vec<(Claim, Arrived)>,
}

/// Why a pickup folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PickupError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error("look for a claimed file's message: {0}")]
    Spool(#[from] SpoolError),
}

/// What one round brought.
#[derive(Default)]
struct Round {
    arrived: Vec<Arrived>,
    /// Why no mail may be taken in any more.
    stop: Option<String>,
    /// When to look again, if before the usual time.
    again: Option<Duration>,
}

impl<D: Disk> Pickup<D> {
    /// Opens the folder and ends what an earlier run had begun: what the spool has already is removed. It must be
    /// called before any message of the spool is processed. Blocks.
    ///
    /// # Errors
    /// The folder or the spool. A claimed file whose message the spool has and that cannot be removed is one too: it
    /// would be taken a second time once that message has left.
    pub fn open(config: PickupConfig, intake: Arc<LocalIntake<D>>) -> Result<Self, PickupError> {
        let folder = Folder::open(config.clone())?;
        let mut waiting = Vec::new();
        for old in folder.leftovers()? {
            match intake.spool.header(old.id) {
                Ok(_) => {
                    folder.remove(&old)?;
                    tracing::info!(message = %old.id, "a claimed file is in the spool already");
                }
                // A damaged message is kept for people and goes nowhere; the file is as good as it was.
                Err(SpoolError::Unknown { .. } | SpoolError::Corrupted { .. }) => {
                    waiting.push(folder.claim_again(&old, intake.spool.allocate())?);
                }
                Err(error) => return Err(error.into()),
            }
        }
        folder.sync_claims()?;
        Ok(Self { config, intake, folder, waiting, unremoved: Vec::new() })
    }

    /// Takes what is there, once. Blocks.
    fn round(&mut self) -> Round {
        let mut round = Round::default();
        if let Err(error) = self.claim(&mut round) {
            // Claims that may not be durable must not be taken: after a crash the files might be in the folder again.
            self.stop(&mut round, &error);
            return round;
        }
        for claim in std::mem::take(&mut self.waiting) {
            if round.stop.is_some() {
                self.waiting.push(claim);
                continue;
            }
            self.take(claim, &mut round);
        }
        self.remove(&mut round);
        if !self.waiting.is_empty() || !self.unremoved.is_empty() {
            round.again = Some(round.again.map_or(RETRY, |again| again.max(RETRY)));
        }
        round
    }

    fn claim(&mut self, round: &mut Round) -> Result<(), FolderError> {
        let held = self.waiting.len() + self.unremoved.len();
        let look = self.folder.look(CLAIMS_MAX.saturating_sub(held));
        round.again = look.again;
        let mut claimed = false;
        for name in look.ready {
            let id = self.intake.spool.allocate();
            if Folder::is_too_long(&name) {
                self.folder.fail_long_name(&name, id)?;
                self.report(id, "its name is too long");
                continue;
            }
            match self.folder.claim(&name, id) {
                Ok(None) => {}
                Ok(Some(claim)) => {
                    self.waiting.push(claim);
                    claimed = true;
                }
                // It stays where it is, whole, and is tried again.
                Err(error) => tracing::warn!(mailbox = self.config.mailbox, "claim file: {error}"),
            }
        }
        if claimed { self.folder.sync_claims() } else { Ok(()) }
    }

    fn take(&mut self, claim: Claim, round: &mut Round) {
        match take(&self.intake, &claim) {
            Taken::Durable(arrived) => self.unremoved.push((claim, arrived)),
            Taken::Wrong(reason) => match self.folder.fail(&claim, &reason) {
                Ok(()) => self.report(claim.id, &reason),
                Err(error) => {
                    tracing::warn!(mailbox = self.config.mailbox, "set file aside: {error}");
                    self.waiting.push(claim);
                }
            },
            Taken::Later { reason, stop } => {
                tracing::warn!(mailbox = self.config.mailbox, reason, "a file waits");
                if stop {
                    round.stop = Some(reason);
                }
                self.waiting.push(claim);
            }
        }
    }

    /// Removes the files of what is durable and lets it be marked: a message that is processed while its file is still
    /// there would be taken again after a crash.
    fn remove(&mut self, round: &mut Round) {
        let (mut removed, mut kept) = (Vec::new(), Vec::new());
        for (claim, arrived) in std::mem::take(&mut self.unremoved) {
            match self.folder.remove(&claim) {
                Ok(()) => removed.push((claim, arrived)),
                Err(error) => {
                    tracing::error!(message = %claim.id, "a message waits for its file to go: {error}");
                    kept.push((claim, arrived));
                }
            }
        }
        self.unremoved = kept;
        if removed.is_empty() {
            return;
        }
        match self.folder.sync_removed() {
            Ok(()) => round.arrived.extend(removed.into_iter().map(|(_, arrived)| arrived)),
            Err(error) => self.stop(round, &error),
        }
    }

    fn stop(&self, round: &mut Round, error: &FolderError) {
        tracing::error!(mailbox = self.config.mailbox, "pickup: {error}");
        round.stop.get_or_insert_with(|| error.to_string());
    }

    fn report(&self, id: gantry_protocol::id::MessageId, reason: &str) {
        tracing::warn!(mailbox = self.config.mailbox, file = %id, reason, "a file was set aside as failed");
    }
}

/// Serves the folder until the gate drains.
pub async fn serve<D: Disk>(mut pickup: Pickup<D>, gate: Gate) {
    let mut watch = Watch::new(&pickup.folder.scanned());
    loop {
        let mut pause = pickup.config.poll;
        if gate.admission() == Admission::Open {
            let blocking = tokio::task::spawn_blocking(move || {
                let round = pickup.round();
                (pickup, round)
            });
            let round = match blocking.await {
                Ok((same, round)) => {
                    pickup = same;
                    round
                }
                Err(error) => return tracing::error!("pickup ended: {error}"),
            };
            for Arrived { marked, looped } in round.arrived {
                gate.mark(marked, looped).await;
            }
            if let Some(reason) = round.stop {
                gate.stop(reason);
            }
            pause = round.again.unwrap_or(pause).min(pause).max(PAUSE_MIN);
        }
        tokio::select! {
            () = gate.draining() => return,
            () = watch.changed() => tokio::time::sleep(PAUSE_MIN).await,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

#[cfg(test)]
mod tests;

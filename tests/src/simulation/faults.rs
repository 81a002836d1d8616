//! What goes wrong, and what it takes with it.

use gantry_hook::disk::sim::Fault as DiskFault;
use gantry_protocol::pool::{Operation, StoredState};

use super::event::{Event, HostEvent, WorkerEvent};
use super::ledger::OPERATOR;
use super::plan::WORKERS;
use super::world::World;

/// A fault that is planned: its kind, and no more, so that what it hits depends on what is there by then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    WorkerCrash,
    /// Everything it held is lost, and yet it comes back under its old number.
    WorkerCrashSameIncarnation,
    WorkerHangs,
    WorkerDrains,
    ModuleNotReady,
    LinkLost,
    SilentToHost,
    SilentToWorker,
    Delay,
    StreamReset,
    /// The process ends; the machine lives.
    HookKilled,
    /// The machine loses its power between two operations of the disk.
    PowerCut,
    /// It loses it in the middle of one.
    CrashInOperation,
    HookHangs,
    HookDrains,
    DiskFull,
    DiskReadOnly,
    /// One operation fails.
    DiskError,
    HopAway,
    /// No fault, but as little foreseen: an operator gives back or deletes what was set aside.
    OperatorReleases,
    OperatorReleasesAsIs,
    OperatorDeletes,
}

/// All of them, each with its name in the counts.
pub(super) const FAULTS: [(Fault, &str); 22] = {
    use Fault::*;
    [
        (WorkerCrash, "fault: worker crashed"),
        (WorkerCrashSameIncarnation, "fault: worker crashed, same incarnation"),
        (WorkerHangs, "fault: worker hung"),
        (WorkerDrains, "fault: worker drained"),
        (ModuleNotReady, "fault: module not ready"),
        (LinkLost, "fault: link lost"),
        (SilentToHost, "fault: silence to the host"),
        (SilentToWorker, "fault: silence to a worker"),
        (Delay, "fault: frames delayed"),
        (StreamReset, "fault: stream reset"),
        (HookKilled, "fault: hook killed"),
        (PowerCut, "fault: power cut"),
        (CrashInOperation, "fault: crash planned in a disk operation"),
        (HookHangs, "fault: hook hung"),
        (HookDrains, "fault: hook drained"),
        (DiskFull, "fault: disk full"),
        (DiskReadOnly, "fault: disk read-only"),
        (DiskError, "fault: disk operation failed"),
        (HopAway, "fault: next hop away"),
        (OperatorReleases, "operator: released"),
        (OperatorReleasesAsIs, "operator: released as it is"),
        (OperatorDeletes, "operator: deleted"),
    ]
};

impl World {
    pub(super) fn on_fault(&mut self, fault: Fault) {
        let worker = self.random.index(WORKERS);
        let hit = match fault {
            Fault::WorkerCrash => self.crash_worker(worker, false),
            Fault::WorkerCrashSameIncarnation => self.crash_worker(worker, true),
            Fault::WorkerHangs => {
                let until = self.queue.now + self.random.between(100, 6_000);
                let hangs = &mut self.workers[worker].hangs_until;
                *hangs = until.max(*hangs);
                self.workers[worker].is_up()
            }
            Fault::WorkerDrains => self.drain_worker(worker),
            Fault::ModuleNotReady => self.module_not_ready(worker),
            Fault::LinkLost => self.lose_link(worker),
            Fault::SilentToHost => self.silence(worker, true),
            Fault::SilentToWorker => self.silence(worker, false),
            Fault::Delay => self.delay(worker),
            Fault::StreamReset => self.reset_stream(worker),
            Fault::HookKilled => self.host_down("killed", false),
            Fault::PowerCut => self.host_down("power cut", true),
            Fault::HookHangs => {
                let until = self.queue.now + self.random.between(100, 4_000);
                self.host.hangs_until = until.max(self.host.hangs_until);
                self.host.up.is_some()
            }
            Fault::HookDrains => self.drain_host(),
            Fault::HopAway => {
                self.hop_away_until = self.queue.now + self.random.between(500, 8_000);
                true
            }
            Fault::CrashInOperation => {
                self.disk.crash_at(self.disk.operations() + self.random.between(1, 12));
                self.host.up.is_some()
            }
            Fault::OperatorReleases => self.operate(Operation::Release),
            Fault::OperatorReleasesAsIs => {
                self.operate(Operation::ReleaseAsIs { by: OPERATOR.to_owned() })
            }
            Fault::OperatorDeletes => self.operate(Operation::Delete),
            Fault::DiskFull => self.fail_disk(DiskFault::Full),
            Fault::DiskReadOnly => self.fail_disk(DiskFault::ReadOnly),
            Fault::DiskError => {
                let operation = self.disk.operations() + self.random.between(1, 12);
                self.disk.fail_at(operation, DiskFault::Io);
                self.host.up.is_some()
            }
        };
        if hit {
            let listed = FAULTS.iter().find(|(listed, _)| *listed == fault);
            self.counts.add(listed.expect("every fault has a name").1);
            self.note(|| format!("FAULT {fault:?}, worker {worker}"));
        }
    }

    /// Something that was set aside, if there is anything.
    fn operate(&mut self, operation: Operation) -> bool {
        let now = self.moment();
        let Some(up) = &mut self.host.up else { return false };
        let aside = |state| matches!(state, StoredState::Held | StoredState::Quarantined);
        let mut listed = up.spool.list(aside, usize::MAX);
        // What verdicts originated is no mail of the plan, and the ledger could say nothing about a verdict on it.
        listed.retain(|one| up.spool.log(one.id).is_ok_and(|log| log.origin.is_none()));
        if listed.is_empty() {
            return false;
        }
        let listed = &listed[self.random.index(listed.len())];
        let take = || up.spool.take(listed.id);
        let decided =
            up.pool.handle_operator(listed.id, listed.state, operation.clone(), take, now);
        self.note(|| format!("operator: {operation:?} {}: {decided:?}", listed.id));
        if decided.is_ok() {
            self.ledger.operator_decided(listed.id, operation);
        }
        self.perform();
        decided.is_ok()
    }

    fn fail_disk(&mut self, fault: DiskFault) -> bool {
        self.disk.fail_from_now(Some(fault));
        let lasts = self.random.between(50, 3_000);
        self.queue.after(lasts, Event::DiskHeals);
        self.host.up.is_some()
    }

    /// The faults are over: what is broken is put right, and from now on everything must come to an end.
    pub(super) fn on_calm(&mut self) {
        self.calm = true;
        self.disk.fail_from_now(None);
        self.hop_away_until = 0;
        // Planned crashes and failures of the disk that have not come yet stay planned: one start ends them.
        if self.host.up.is_some() {
            self.host_down("restarted when the faults ended", true);
        }
    }

    pub(super) fn operator_restarts(&mut self) {
        self.counts.add("operator restarted a hook that took no mail");
        self.host_down("restarted by the operator", false);
    }

    fn drain_host(&mut self) -> bool {
        let now = self.moment();
        let Some(up) = &mut self.host.up else { return false };
        up.draining = true;
        up.pool.handle_drain(now);
        let life = self.host.life;
        self.queue.after(3_000, Event::Host { life, event: HostEvent::DrainOver });
        self.perform();
        true
    }

    fn module_not_ready(&mut self, worker: usize) -> bool {
        if !self.workers[worker].is_up() || self.workers[worker].drains {
            return false;
        }
        self.set_readiness(worker, false);
        let (life, lasts) = (self.workers[worker].life, self.random.between(200, 5_000));
        self.queue.after(lasts, Event::Worker { worker, life, event: WorkerEvent::Ready });
        true
    }
}

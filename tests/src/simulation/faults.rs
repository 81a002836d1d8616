//! What goes wrong, and what it takes with it.

use gantry_hook::disk::sim::Fault as DiskFault;
use gantry_protocol::pool::{Operation, StoredState};

use super::event::{Event, HostEvent, WorkerEvent};
use super::plan::WORKERS;
use super::world::World;

/// A fault that is planned: its kind, and no more, so that what it hits depends on what is there by then.
pub(super) type Fault = FaultKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FaultKind {
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
    OperatorDeletes,
}

pub(super) const FAULTS: [FaultKind; 21] = {
    use FaultKind::*;
    [
        WorkerCrash,
        WorkerCrashSameIncarnation,
        WorkerHangs,
        WorkerDrains,
        ModuleNotReady,
        LinkLost,
        SilentToHost,
        SilentToWorker,
        Delay,
        StreamReset,
        HookKilled,
        PowerCut,
        CrashInOperation,
        HookHangs,
        HookDrains,
        DiskFull,
        DiskReadOnly,
        DiskError,
        HopAway,
        OperatorReleases,
        OperatorDeletes,
    ]
};

impl FaultKind {
    pub(super) fn name(self) -> &'static str {
        match self {
            FaultKind::WorkerCrash => "fault: worker crashed",
            FaultKind::WorkerCrashSameIncarnation => "fault: worker crashed, same incarnation",
            FaultKind::WorkerHangs => "fault: worker hung",
            FaultKind::WorkerDrains => "fault: worker drained",
            FaultKind::ModuleNotReady => "fault: module not ready",
            FaultKind::LinkLost => "fault: link lost",
            FaultKind::SilentToHost => "fault: silence to the host",
            FaultKind::SilentToWorker => "fault: silence to a worker",
            FaultKind::Delay => "fault: frames delayed",
            FaultKind::StreamReset => "fault: stream reset",
            FaultKind::HookKilled => "fault: hook killed",
            FaultKind::PowerCut => "fault: power cut",
            FaultKind::CrashInOperation => "fault: crash planned in a disk operation",
            FaultKind::HookHangs => "fault: hook hung",
            FaultKind::HookDrains => "fault: hook drained",
            FaultKind::DiskFull => "fault: disk full",
            FaultKind::DiskReadOnly => "fault: disk read-only",
            FaultKind::DiskError => "fault: disk operation failed",
            FaultKind::HopAway => "fault: next hop away",
            FaultKind::OperatorReleases => "operator: released",
            FaultKind::OperatorDeletes => "operator: deleted",
        }
    }
}

impl World {
    pub(super) fn on_fault(&mut self, kind: FaultKind) {
        let worker = self.random.index(WORKERS);
        let hit = match kind {
            FaultKind::WorkerCrash => self.crash_worker(worker, false),
            FaultKind::WorkerCrashSameIncarnation => self.crash_worker(worker, true),
            FaultKind::WorkerHangs => {
                let until = self.queue.now + self.random.between(100, 6_000);
                let hangs = &mut self.workers[worker].hangs_until;
                *hangs = until.max(*hangs);
                self.workers[worker].is_up()
            }
            FaultKind::WorkerDrains => self.drain_worker(worker),
            FaultKind::ModuleNotReady => self.module_not_ready(worker),
            FaultKind::LinkLost => self.lose_link(worker),
            FaultKind::SilentToHost => self.silence(worker, true),
            FaultKind::SilentToWorker => self.silence(worker, false),
            FaultKind::Delay => self.delay(worker),
            FaultKind::StreamReset => self.reset_stream(worker),
            FaultKind::HookKilled => self.host_down("killed", false),
            FaultKind::PowerCut => self.host_down("power cut", true),
            FaultKind::HookHangs => {
                let until = self.queue.now + self.random.between(100, 4_000);
                self.host.hangs_until = until.max(self.host.hangs_until);
                self.host.up.is_some()
            }
            FaultKind::HookDrains => self.drain_host(),
            FaultKind::HopAway => {
                self.hop_away_until = self.queue.now + self.random.between(500, 8_000);
                true
            }
            FaultKind::CrashInOperation => {
                self.disk.crash_at(self.disk.operations() + self.random.between(1, 12));
                self.host.up.is_some()
            }
            FaultKind::OperatorReleases => self.operate(Operation::Release),
            FaultKind::OperatorDeletes => self.operate(Operation::Delete),
            FaultKind::DiskFull => self.fail_disk(DiskFault::Full),
            FaultKind::DiskReadOnly => self.fail_disk(DiskFault::ReadOnly),
            FaultKind::DiskError => {
                let operation = self.disk.operations() + self.random.between(1, 12);
                self.disk.fail_at(operation, DiskFault::Io);
                self.host.up.is_some()
            }
        };
        if hit {
            self.counts.add(kind.name());
            self.note(|| format!("FAULT {kind:?}, worker {worker}"));
        }
    }

    /// Something that was set aside, if there is anything.
    fn operate(&mut self, operation: Operation) -> bool {
        let now = self.moment();
        let Some(up) = &mut self.host.up else { return false };
        let aside = |state| matches!(state, StoredState::Held | StoredState::Quarantined);
        let listed = up.spool.list(aside, usize::MAX);
        if listed.is_empty() {
            return false;
        }
        let listed = &listed[self.random.index(listed.len())];
        let decided = up.pool.handle_operator(listed.id, listed.state, operation, now);
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

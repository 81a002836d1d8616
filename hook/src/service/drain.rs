//! Emptying the hook before it ends: no more mail comes in, workers finish what is there.

use std::time::Duration;

use gantry_operator::DrainStatus;
use tokio::time::Instant;

use super::Service;
use crate::audit::Who;
use crate::disk::Disk;

/// Under way since an operator asked for it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Emptying {
    since: Instant,
    until: Option<Instant>,
}

impl<D: Disk> Service<D> {
    /// Begins to empty the hook, or changes by when it ends, or takes it back.
    pub(super) fn drain(
        &mut self,
        who: &Who,
        within_s: Option<u64>,
        cancel: bool,
    ) -> Result<(), String> {
        if self.drain_until.is_some() {
            return Err("the hook is ending already".to_owned());
        }
        let operator = &who.name;
        if cancel {
            self.emptying.take().ok_or("the hook is not being drained")?;
            self.gate.refill();
            tracing::info!(operator, "mail is taken again: the drain was taken back");
            return Ok(());
        }
        let now = Instant::now();
        let since = self.emptying.map_or(now, |emptying| emptying.since);
        let until = within_s.and_then(|seconds| now.checked_add(Duration::from_secs(seconds)));
        self.emptying = Some(Emptying { since, until });
        self.gate.empty();
        tracing::info!(operator, within_s, "draining: no more mail is taken");
        Ok(())
    }

    /// Ends the hook once it is empty, or its time is up. What is only tried again later does not keep it.
    pub(super) fn look_whether_empty(&mut self) {
        let Some(emptying) = self.emptying else { return };
        if self.drain_until.is_some() {
            return;
        }
        let remaining = self.pool.remaining();
        let late = emptying.until.is_some_and(|until| Instant::now() >= until);
        if remaining.is_empty() || late {
            let (left, deferred) = (remaining.messages(), remaining.deferred);
            tracing::info!(
                left,
                deferred,
                "drained: what is left stays in the spool or with its senders"
            );
            self.end();
        }
    }

    pub(super) fn drain_status(&self) -> Option<DrainStatus> {
        let Emptying { since, until } = self.emptying?;
        let ends_in = until.map(|until| until.saturating_duration_since(Instant::now()));
        Some(DrainStatus {
            for_s: since.elapsed().as_secs(),
            ends_in_s: ends_in.map(|time| time.as_secs()),
            remaining: self.pool.remaining(),
        })
    }
}

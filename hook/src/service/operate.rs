//! The administrator's requests.

use gantry_protocol::id::MessageId;
use gantry_protocol::pool::Operation;
use tokio::sync::oneshot;

use super::Service;
use crate::admin::{self, Aside, HookStatus, MESSAGES_MAX, Reply, Request};
use crate::disk::Disk;
use crate::intake::Admission;

impl<D: Disk> Service<D> {
    pub(super) fn on_admin(&mut self, request: Request, reply: oneshot::Sender<Reply>) {
        let answer = match request {
            Request::Status => Reply::Status(Box::new(self.status())),
            Request::Release { aside, id } => self.operate(aside, &id, Operation::Release),
            Request::Delete { aside, id } => self.operate(aside, &id, Operation::Delete),
            Request::Reload => {
                self.on_housekeeping();
                Reply::Done
            }
            Request::List { .. } | Request::Show { .. } => return self.read(request, reply),
        };
        // An asker that has gone wants no answer.
        let _ = reply.send(answer);
    }

    fn operate(&mut self, aside: Aside, id: &str, operation: Operation) -> Reply {
        let done = id.parse::<MessageId>().map_err(|error| error.to_string()).and_then(|id| {
            let now = self.clock.now();
            self.pool
                .handle_operator(id, aside.state(), operation, now)
                .map_err(|error| error.to_string())
        });
        match done {
            Ok(()) => {
                tracing::info!(message = id, ?operation, "an operator's decision");
                Reply::Done
            }
            Err(reason) => Reply::Refused(reason),
        }
    }

    /// Lists and messages are read from the disk, so not on the loop.
    fn read(&self, request: Request, reply: oneshot::Sender<Reply>) {
        let spool = std::sync::Arc::clone(&self.spool);
        let mailboxes: Vec<String> =
            self.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
        tokio::task::spawn_blocking(move || {
            let answer = match request {
                Request::List { aside } => Reply::List(admin::list(&spool, &mailboxes, aside)),
                Request::Show { aside, id } => admin::show(&spool, &mailboxes, aside, &id),
                _ => Reply::Refused("not something to read".to_owned()),
            };
            let _ = reply.send(answer);
        });
    }

    fn status(&self) -> HookStatus {
        HookStatus {
            host: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            running: true,
            epoch: self.epoch,
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            intake_stopped: match self.gate.admission() {
                Admission::Open => None,
                Admission::Stopped { reason } => Some(reason),
                Admission::Draining => Some("the hook is stopping".to_owned()),
            },
            mailboxes: self.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect(),
            pool: self.pool.status(MESSAGES_MAX, self.clock.now()),
        }
    }
}

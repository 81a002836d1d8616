//! What administrators and operators ask of the running hook.
//!
//! What changes something goes into the audit log first, on a blocking thread, and comes back as
//! [`Action::Audited`]; only then is it done.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_mail::date;
use gantry_operator::{
    Aside, HookStatus, MESSAGES_MAX, MessageLife, Order, Queue, QueueState, REASON_BYTES_MAX,
    Reply, Request,
};
use gantry_protocol::frame;
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::Operation;
use gantry_protocol::time::millis;

use super::Service;
use super::action::Action;
use crate::admin::{self, Asked};
use crate::audit::{Outcome, Who};
use crate::disk::Disk;
use crate::intake::{Admission, unix_ms};

impl<D: Disk> Service<D> {
    pub(super) fn on_admin(&mut self, asked: Asked) {
        // A certificate may have been revoked since the connection began.
        if let Some(Err(refusal)) =
            asked.identity.as_ref().map(|identity| self.server.check(identity))
        {
            return answer(asked, Reply::Refused(refusal.text));
        }
        match &asked.request {
            Request::Status => {
                let status = Reply::Status(Box::new(self.status()));
                answer(asked, status);
            }
            Request::Queue { states } => {
                let queue = Reply::Queue(Box::new(self.queue(states)));
                answer(asked, queue);
            }
            Request::Message { .. } => self.tell_life(asked),
            Request::List { .. } | Request::Show { .. } => self.read(asked),
            Request::Release { .. } | Request::Delete { .. } | Request::Manage { .. } => {
                self.begin(asked)
            }
            Request::Reload => {
                self.on_housekeeping();
                answer(asked, Reply::Done);
            }
        }
    }

    /// Writes down what is about to be done. Where that fails, nothing is done.
    fn begin(&self, asked: Asked) {
        if asked.request.reason().is_some_and(|reason| reason.len() > REASON_BYTES_MAX) {
            let words =
                format!("a reason has at most {REASON_BYTES_MAX} bytes; nothing was changed");
            return answer(asked, Reply::Refused(words));
        }
        let (audit, actions) = (Arc::clone(&self.audit), self.actions.clone());
        tokio::task::spawn_blocking(move || {
            match audit.append(unix_ms(), &asked.who, &asked.request, Outcome::Begun) {
                Ok(()) => drop(actions.blocking_send(Action::Audited(Box::new(asked)))),
                Err(error) => {
                    tracing::error!("{error}");
                    answer(asked, Reply::Refused(error.to_string()));
                }
            }
        });
    }

    /// What stands in the audit log is done now, if the message's or worker's state still allows it.
    pub(super) fn on_audited(&mut self, asked: Asked) {
        let done = match &asked.request {
            Request::Release { aside, id, reason } => {
                let how = (Operation::Release, "released it back into the pool");
                self.operate(&asked.who, *aside, id, how, reason.as_deref())
            }
            Request::Delete { aside, id, reason } => {
                let how = (Operation::Delete, "deleted it");
                self.operate(&asked.who, *aside, id, how, reason.as_deref())
            }
            Request::Manage { node, order, reason } => {
                self.order(&asked.who, node, *order, reason.as_deref())
            }
            _ => Err("there is nothing to be done".to_owned()),
        };
        // Of two pictures that are being written the newer has the higher number.
        self.orders_number += 1;
        let number = self.orders_number;
        let kept: Option<BTreeMap<String, String>> =
            matches!(asked.request, Request::Manage { .. }).then(|| {
                let orders = self.pool.orders();
                orders.map(|(name, reason)| (name.to_owned(), reason.to_owned())).collect()
            });
        let (audit, orders) = (Arc::clone(&self.audit), Arc::clone(&self.orders));
        tokio::task::spawn_blocking(move || {
            let done = done.and_then(|()| match kept {
                None => Ok(()),
                Some(kept) => orders.save(number, &kept).map_err(|error| {
                    format!("it is so now, but will not be after a restart of the hook: {error}")
                }),
            });
            let outcome = match &done {
                Ok(()) => Outcome::Done,
                Err(reason) => Outcome::Refused(reason),
            };
            if let Err(error) = audit.append(unix_ms(), &asked.who, &asked.request, outcome) {
                tracing::error!("after the action: {error}");
            }
            answer(asked, done.map_or_else(Reply::Refused, |()| Reply::Done));
        });
    }

    fn operate(
        &mut self,
        who: &Who,
        aside: Aside,
        id: &str,
        (operation, words): (Operation, &str),
        reason: Option<&str>,
    ) -> Result<(), String> {
        let id: MessageId = id.parse().map_err(|error| format!("{error}"))?;
        let now = self.clock.now();
        let done = self.pool.handle_operator(id, aside.state(), operation, now);
        done.map_err(|error| match self.last_decision(id) {
            Some(decision) => format!("{error} ({decision})"),
            None => error.to_string(),
        })?;
        let words = match reason {
            Some(reason) => format!("{words}: {reason}"),
            None => words.to_owned(),
        };
        tracing::info!(id = %id, operator = who.name, "{words}");
        self.lives.handle_operator(id, &who.name, words, unix_ms());
        Ok(())
    }

    /// What an operator who comes too late is told.
    fn last_decision(&self, id: MessageId) -> Option<String> {
        let steps = self.lives.steps(id);
        let step = steps.into_iter().rev().find(|step| step.what == "operator")?;
        let who = step.node.unwrap_or_default();
        Some(format!("{who} {}, at {}", step.detail, date::rfc3339(step.unix_ms)))
    }

    fn order(
        &mut self,
        who: &Who,
        node: &str,
        order: Order,
        reason: Option<&str>,
    ) -> Result<(), String> {
        let reason = match reason {
            Some(reason) => format!("{reason} ({})", who.name),
            None => format!("{} said so", who.name),
        };
        let frame = match order {
            Order::Ready => frame::Order::Ready,
            Order::NotReady => frame::Order::NotReady { reason: reason.clone() },
            Order::Drain => frame::Order::Drain { reason: reason.clone() },
        };
        let now = self.clock.now();
        self.pool.handle_order(node, frame, now).map_err(|error| error.to_string())?;
        tracing::info!(worker = node, operator = who.name, reason, "ordered: {order}");
        Ok(())
    }

    fn queue(&self, states: &[QueueState]) -> Queue {
        let wanted =
            |word: &str| states.is_empty() || states.iter().any(|state| state.matches(word));
        let (messages, more) = self.pool.messages(wanted, MESSAGES_MAX, self.clock.now());
        Queue { messages, more }
    }

    /// A message's life: what the hook remembers, and what is stored with the message.
    fn tell_life(&self, asked: Asked) {
        let Request::Message { id } = &asked.request else { return };
        let id: MessageId = match id.parse() {
            Ok(id) => id,
            Err(error) => return answer(asked, Reply::Refused(format!("{error}"))),
        };
        let steps = self.lives.steps(id);
        let status = self.pool.message(id, self.clock.now());
        if status.is_none() && steps.is_empty() {
            let words = format!(
                "no message {id} is known at {}: none is here, and of those that have left only the lives since the \
                 hook's start are remembered, the latest of them",
                self.name
            );
            return answer(asked, Reply::Refused(words));
        }
        let cut = steps.first().is_none_or(|step| step.what != "marked");
        let mut life = MessageLife {
            id: id.to_string(),
            host: self.name.clone(),
            state: "gone".to_owned(),
            forgotten: cut.then(|| {
                format!(
                    "earlier steps are not remembered: this hook started {} s ago and keeps the latest lives in memory",
                    millis(self.started.elapsed()) / 1_000
                )
            }),
            steps,
            ..MessageLife::default()
        };
        let here = status.is_some();
        if let Some(status) = status {
            life.mailbox = status.mailbox;
            life.state = status.state;
            life.attempts = status.attempts;
            life.length = Some(status.length);
            life.reasons = status.reasons;
        }
        let spool = Arc::clone(&self.spool);
        tokio::task::spawn_blocking(move || {
            if here {
                admin::message(&spool, id, &mut life);
            }
            answer(asked, Reply::Message(Box::new(life)));
        });
    }

    /// Lists and messages are read from the disk, so not on the loop.
    fn read(&self, asked: Asked) {
        let spool = Arc::clone(&self.spool);
        let mailboxes: Vec<String> =
            self.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
        tokio::task::spawn_blocking(move || {
            let reply = match &asked.request {
                Request::List { aside } => Reply::List(admin::list(&spool, &mailboxes, *aside)),
                Request::Show { aside, id } => admin::show(&spool, &mailboxes, *aside, id),
                _ => Reply::Refused("not something to read".to_owned()),
            };
            answer(asked, reply);
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

/// An asker that has gone wants no answer.
fn answer(asked: Asked, reply: Reply) {
    let _ = asked.reply.send(reply);
}

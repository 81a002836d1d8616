//! What administrators and operators ask of the running hook.
//!
//! What changes something goes into the audit log first, on a blocking thread, and comes back as
//! [`Action::Audited`]; only then is it done. What changes a message is answered when the disk has it.

use std::collections::BTreeMap;
use std::sync::Arc;

use gantry_mail::date;
use gantry_operator::{
    Aside, HookStatus, MESSAGES_MAX, MessageLife, Order, Queue, QueueState, Reply, Request,
    RoomStatus,
};
use gantry_protocol::frame;
use gantry_protocol::id::{MessageId, Token};
use gantry_protocol::pool::{Operation, Shelf, Stored};

use super::Service;
use super::action::Action;
use crate::admin::{self, Asked};
use crate::audit::{Outcome, Who};
use crate::disk::Disk;
use crate::intake::{Admission, unix_ms};
use crate::journal::{Decided, History};

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
                let (spool, mut queue) = (Arc::clone(&self.spool), self.queue(states));
                tokio::task::spawn_blocking(move || {
                    admin::add_reasons(&spool, &mut queue.messages);
                    answer(asked, Reply::Queue(Box::new(queue)));
                });
            }
            Request::Message { .. } => self.tell_life(asked),
            Request::List { .. } | Request::Show { .. } => self.read(asked),
            Request::Release { .. }
            | Request::Delete { .. }
            | Request::Manage { .. }
            | Request::Drain { .. } => self.begin(asked),
            Request::Reload => self.reload(Some(asked)),
        }
    }

    /// Writes down what is about to be done. Where that fails, nothing is done.
    fn begin(&self, asked: Asked) {
        if let Some(problem) = asked.request.problem() {
            return answer(asked, Reply::Refused(problem));
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
        match &asked.request {
            Request::Release { aside, id, as_is: true, .. } => {
                let by = Operation::ReleaseAsIs { by: asked.who.name.clone() };
                let (aside, id) = (*aside, id.clone());
                self.decide(asked, aside, &id, by, "released it as it is");
            }
            Request::Release { aside, id, .. } => {
                let (aside, id) = (*aside, id.clone());
                self.decide(
                    asked,
                    aside,
                    &id,
                    Operation::Release,
                    "released it back into the pool",
                );
            }
            Request::Delete { aside, id, .. } => {
                let (aside, id) = (*aside, id.clone());
                self.decide(asked, aside, &id, Operation::Delete, "deleted it");
            }
            Request::Manage { node, order, reason } => {
                let done = self.order(&asked.who, node, *order, reason.as_deref());
                self.finish(asked, done);
            }
            Request::Drain { within_s, cancel, .. } => {
                let done = self.drain(&asked.who, *within_s, *cancel);
                self.finish(asked, done);
            }
            _ => self.finish(asked, Err("there is nothing to be done".to_owned())),
        }
    }

    /// Writes down how it ended, and answers.
    fn finish(&mut self, asked: Asked, done: Result<(), String>) {
        self.finish_late(asked, None, done);
    }

    /// The same, for a decision about a message that may have come too late.
    fn finish_late(&mut self, asked: Asked, late: Option<MessageId>, done: Result<(), String>) {
        // Of two pictures that are being written the newer has the higher number.
        self.orders_number += 1;
        let number = self.orders_number;
        let kept: Option<BTreeMap<String, String>> =
            matches!(asked.request, Request::Manage { .. }).then(|| {
                let orders = self.pool.orders();
                orders.map(|(name, reason)| (name.to_owned(), reason.to_owned())).collect()
            });
        let (audit, orders) = (Arc::clone(&self.audit), Arc::clone(&self.orders));
        let late = self.journal.history().cloned().zip(late);
        tokio::task::spawn_blocking(move || {
            let done = done.and_then(|()| match kept {
                None => Ok(()),
                Some(kept) => orders.save(number, &kept).map_err(|error| {
                    format!("it is so now, but will not be after a restart of the hook: {error}")
                }),
            });
            let earlier = late.and_then(|(history, id)| last_decision(&history, id));
            let done = done.map_err(|error| match earlier {
                Some(decision) => format!("{error} ({decision})"),
                None => error,
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

    /// Has a decision about a message stored. Who decides about one that another's decision is being stored for waits for
    /// that, so as to hear who was first.
    fn decide(
        &mut self,
        asked: Asked,
        aside: Aside,
        id: &str,
        operation: Operation,
        words: &'static str,
    ) {
        let id: MessageId = match id.parse() {
            Ok(id) => id,
            Err(error) => return self.finish(asked, Err(format!("{error}"))),
        };
        if let Some(earlier) = self.decisions.get_mut(&id) {
            return earlier.later.push(asked);
        }
        let (take, now) = (|| self.spool.take(id), self.clock.now());
        match self.pool.handle_operator(id, aside.state(), operation, take, now) {
            Ok(token) => {
                let decision = Decision { id, token, asked, words, later: Vec::new() };
                self.decisions.insert(id, decision);
            }
            Err(error) => self.finish_late(asked, Some(id), Err(error.to_string())),
        }
    }

    /// The decision that this store is of. Nearly always there is none at all.
    pub(super) fn take_decision(&mut self, token: Token) -> Option<Decision> {
        let mut decisions = self.decisions.values();
        let id = decisions.find(|decision| decision.token == token)?.id;
        self.decisions.remove(&id)
    }

    /// A decision is durable, or is not.
    pub(super) fn on_decided(&mut self, decision: Decision, outcome: Result<(), String>) {
        let Decision { id, asked, words, later, .. } = decision;
        if outcome.is_ok() {
            let (operator, reason) = (&asked.who.name, asked.request.reason());
            let words = match reason {
                Some(reason) => format!("{words}: {reason}"),
                None => words.to_owned(),
            };
            let decided = match &asked.request {
                Request::Release { as_is: true, .. } => Decided::ReleasedAsIs,
                Request::Release { .. } => Decided::Released,
                _ => Decided::Deleted,
            };
            self.journal.handle_operator(id, operator, words, decided, self.clock.now(), unix_ms());
        }
        self.finish(asked, outcome);
        for asked in later {
            self.on_audited(asked);
        }
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
        if let Err(error) = self.pool.handle_order(node, frame, now) {
            // Where a worker has the host's name, the worker is meant.
            return match order {
                _ if node != self.name => Err(error.to_string()),
                Order::Drain => self.drain(who, None, false),
                Order::Ready => self.drain(who, None, true),
                Order::NotReady => Err(format!(
                    "{node} is the host: `gantry drain {node}` lets it take no more mail and end"
                )),
            };
        }
        tracing::info!(worker = node, operator = who.name, reason, "ordered: {order}");
        Ok(())
    }

    fn queue(&self, states: &[QueueState]) -> Queue {
        let wanted =
            |word: &str| states.is_empty() || states.iter().any(|state| state.matches(word));
        let on_shelf = |state| wanted(Shelf::of(state).word());
        let shelved = self.spool.list_shelved(on_shelf, MESSAGES_MAX);
        let (messages, more) = self.pool.messages(wanted, MESSAGES_MAX, &shelved, self.clock.now());
        Queue { messages, more }
    }

    /// A message's life: what the hook remembers, and what is stored with the message.
    fn tell_life(&self, asked: Asked) {
        let Request::Message { id } = &asked.request else { return };
        let id: MessageId = match id.parse() {
            Ok(id) => id,
            Err(error) => return answer(asked, Reply::Refused(format!("{error}"))),
        };
        let now = self.clock.now();
        let status = self.pool.message(id, now).or_else(|| {
            let found = self.spool.shelved(id)?;
            Some(self.pool.shelved_status(&found, now))
        });
        let mut life = MessageLife {
            id: id.to_string(),
            host: self.name.clone(),
            state: "gone".to_owned(),
            ..MessageLife::default()
        };
        let here = status.is_some();
        if let Some(status) = status {
            life.mailbox = status.mailbox;
            life.state = status.state;
            life.attempts = status.attempts;
            life.length = Some(status.length);
            life.reasons = status.reasons;
            life.remaining = status.remaining;
        }
        let (spool, history) = (Arc::clone(&self.spool), self.journal.history().cloned());
        tokio::task::spawn_blocking(move || {
            admin::tell_steps(history.as_ref(), id, &mut life);
            if here {
                admin::message(&spool, id, &mut life);
            } else if life.steps.is_empty() {
                let why = life.forgotten.unwrap_or_default();
                let words =
                    format!("no message {id} is known at {}: none is here, and {why}", life.host);
                return answer(asked, Reply::Refused(words));
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

    fn room_status(&self) -> RoomStatus {
        let usage = self.spool.usage();
        RoomStatus {
            stored: usage.all,
            held: usage.held,
            quarantined: usage.quarantined,
            free: self.spool.free_bytes(),
        }
    }

    fn status(&self) -> HookStatus {
        let (certificates, warnings) = self.certificates_status();
        let shelved = self.spool.list_shelved(|_| true, MESSAGES_MAX);
        HookStatus {
            certificates,
            warnings,
            host: self.name.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            running: true,
            epoch: self.epoch,
            pid: std::process::id(),
            uptime_s: self.started.elapsed().as_secs(),
            intake_stopped: match self.gate.admission() {
                Admission::Open => self.spool.room(0).err().map(|error| error.to_string()),
                Admission::Stopped { reason } => Some(reason),
                Admission::Emptying => Some("the hook is being drained".to_owned()),
                Admission::Draining => Some("the hook is stopping".to_owned()),
            },
            draining: self.drain_status(),
            room: Some(self.room_status()),
            mailboxes: self.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect(),
            pool: self.pool.status(MESSAGES_MAX, &shelved, self.clock.now()),
        }
    }
}

/// A decision about a message that is being stored.
pub(super) struct Decision {
    id: MessageId,
    token: Token,
    asked: Asked,
    words: &'static str,
    /// Others who decide about it meanwhile, as many as ask at the same time.
    later: Vec<Asked>,
}

/// What whoever decided hears of the store.
pub(super) fn outcome_of(stored: &Stored) -> Result<(), String> {
    match stored {
        Stored::Failed { reason } => {
            Err(format!("the disk did not take it, and the message is where it was: {reason}"))
        }
        Stored::Damaged { reason } => {
            Err(format!("the message is damaged or gone; what there is was set aside: {reason}"))
        }
        _ => Ok(()),
    }
}

/// What an operator who comes too late is told.
fn last_decision(history: &History, id: MessageId) -> Option<String> {
    let steps = history.find(id).ok()?.steps;
    let step = steps.into_iter().rev().find(|step| step.what == "operator")?;
    let who = step.node.unwrap_or_default();
    Some(format!("{who} {}, at {}", step.detail, date::rfc3339(step.unix_ms)))
}

/// An asker that has gone wants no answer.
pub(super) fn answer(asked: Asked, reply: Reply) {
    let _ = asked.reply.send(reply);
}

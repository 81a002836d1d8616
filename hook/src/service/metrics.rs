//! What the hook shows as metrics. Names and labels stand in `docs/operations.md` and stay as they are.

use gantry_daemon::metrics::{Kind, Page};
use gantry_protocol::pool::{Counters, MailboxStatus, WorkerStatus};
use gantry_protocol::profile::Readiness;

use super::Service;
use crate::disk::Disk;
use crate::intake::Admission;

impl<D: Disk> Service<D> {
    pub(super) fn metrics(&self) -> Page {
        let mut page = Page::default();
        let now = self.clock.now();
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        page.family("gantry_hook_info", Kind::Gauge, "The running program.").sample(&version, 1);
        let uptime = self.started.elapsed().as_secs();
        page.gauge("gantry_hook_uptime_seconds", "Time since the hook's start.", uptime);
        let stopped = u8::from(matches!(self.gate.admission(), Admission::Stopped { .. }));
        page.gauge(
            "gantry_hook_intake_stopped",
            "1 while no mail is taken, since a store has failed.",
            stopped,
        );
        page.gauge(
            "gantry_hook_certificate_expiry_timestamp_seconds",
            "When the certificate of this host expires, in seconds since 1970.",
            self.certificates.own.expires,
        );
        mailboxes(&mut page, &self.pool.mailboxes(now));
        workers(&mut page, &self.pool.workers(now));
        counters(&mut page, self.pool.counters());
        page
    }
}

/// Messages and bytes of each mailbox.
fn mailboxes(page: &mut Page, mailboxes: &[MailboxStatus]) {
    type Count = fn(&MailboxStatus) -> u64;
    let gauges: [(&'static str, &str, Count); 8] = [
        ("gantry_hook_waiting_messages", "Messages in the pool.", |m| m.waiting),
        ("gantry_hook_waiting_bytes", "Their bytes.", |m| m.waiting_bytes),
        (
            "gantry_hook_oldest_waiting_seconds",
            "Age of the oldest message in the pool; 0 where there is none.",
            |m| m.oldest_s,
        ),
        ("gantry_hook_reserved_messages", "Messages that a worker has.", |m| m.reserved),
        ("gantry_hook_settling_messages", "Messages whose verdict is being stored.", |m| {
            m.settling
        }),
        ("gantry_hook_releasing_messages", "Messages that are being handed on.", |m| m.releasing),
        ("gantry_hook_held_messages", "Messages that wait for an operator.", |m| m.held),
        ("gantry_hook_quarantined_messages", "Messages in quarantine.", |m| m.quarantined),
    ];
    for (name, help, count) in gauges {
        let mut family = page.family(name, Kind::Gauge, help);
        for mailbox in mailboxes {
            family.sample(&[("mailbox", &mailbox.name)], count(mailbox));
        }
    }
}

/// Workers by what they are, and each by its name.
fn workers(page: &mut Page, workers: &[WorkerStatus]) {
    type Is = fn(&WorkerStatus) -> bool;
    let at_work = |worker: &WorkerStatus| {
        let readiness = worker.profile.as_ref().map(|profile| &profile.readiness);
        matches!(readiness, Some(Readiness::Ready | Readiness::Busy))
            && worker.linked
            && worker.barred.is_none()
            && worker.ordered.is_none()
            && !worker.silent
    };
    let gauges: [(&'static str, &str, Is); 6] = [
        ("gantry_hook_linked_workers", "Workers with a link.", |w| w.linked),
        (
            "gantry_hook_ready_workers",
            "Workers that are ready or busy, and are given mail.",
            at_work,
        ),
        ("gantry_hook_silent_workers", "Workers that have missed three beats.", |w| {
            w.linked && w.silent
        }),
        ("gantry_hook_draining_workers", "Workers that leave.", |w| w.linked && w.draining),
        (
            "gantry_hook_barred_workers",
            "Workers that are given nothing, such as for another policy.",
            |w| w.linked && w.barred.is_some(),
        ),
        ("gantry_hook_ordered_workers", "Workers that are not ready by order.", |w| {
            w.ordered.is_some()
        }),
    ];
    for (name, help, is) in gauges {
        let count = workers.iter().filter(|worker| is(worker)).count();
        page.gauge(name, help, count);
    }
    let mut linked = page.family(
        "gantry_hook_worker_linked",
        Kind::Gauge,
        "1 while a worker that has been here since the hook's start is linked.",
    );
    for worker in workers {
        linked.sample(&[("worker", &worker.name)], u8::from(worker.linked));
    }
    let mut holds = page.family(
        "gantry_hook_worker_reserved_messages",
        Kind::Gauge,
        "Messages that a worker has.",
    );
    for worker in workers {
        holds.sample(&[("worker", &worker.name)], worker.holding.len());
    }
}

/// What the pool has counted.
fn counters(page: &mut Page, counted: &Counters) {
    for (name, help, value) in [
        ("gantry_hook_messages_marked_total", "Messages that came in.", counted.marked),
        ("gantry_hook_verdicts_settled_total", "Verdicts that were applied.", counted.settled),
        (
            "gantry_hook_verdicts_refused_total",
            "Late or wrong verdicts, which were not applied.",
            counted.verdicts_refused,
        ),
        (
            "gantry_hook_messages_returned_total",
            "Times that a worker gave a message back.",
            counted.returned,
        ),
        (
            "gantry_hook_messages_released_total",
            "Messages handed on to all their recipients.",
            counted.released,
        ),
        (
            "gantry_hook_recipients_accepted_total",
            "Recipients that the next hop took.",
            counted.recipients_accepted,
        ),
        (
            "gantry_hook_messages_refused_total",
            "Messages whose waiting sender was told no.",
            counted.refused,
        ),
        (
            "gantry_hook_messages_quarantined_total",
            "Messages put into quarantine.",
            counted.quarantined,
        ),
        ("gantry_hook_messages_held_total", "Messages held for an operator.", counted.held),
        (
            "gantry_hook_takeovers_total",
            "Reservations that went from a dead or stalled worker to another.",
            counted.taken_over,
        ),
        (
            "gantry_hook_possible_duplicates_total",
            "Recipients that may have got a message twice.",
            counted.possible_duplicates,
        ),
        (
            "gantry_hook_messages_unprocessed_total",
            "Messages that left unprocessed, by a rule of the configuration.",
            counted.released_unprocessed,
        ),
        (
            "gantry_hook_messages_corrupted_total",
            "Messages whose file could not be read.",
            counted.corrupted,
        ),
        ("gantry_hook_notices_total", "Notices of non-delivery.", counted.notices),
        (
            "gantry_hook_originated_messages_total",
            "Messages that verdicts originated.",
            counted.originated,
        ),
    ] {
        page.counter(name, help, value);
    }
    let slowest = std::time::Duration::from_millis(counted.takeover_ms_max).as_secs_f64();
    page.gauge(
        "gantry_hook_takeover_seconds_max",
        "The longest time without a sign of life before a takeover.",
        slowest,
    );
}

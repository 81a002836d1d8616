//! Everything that can happen in a schedule.

use std::sync::Arc;

use gantry_protocol::frame::{
    Assign, Hello, HostControl, HostReservation, WorkerControl, WorkerReservation,
};
use gantry_protocol::id::{Fence, MessageId, Token};
use gantry_protocol::pool::{
    Assignment, Change, MailboxIndex, Marked, RecipientResult, Recovered, Shelf, Stored, StoredLog,
};
use gantry_protocol::time::Moment;

use super::faults::Fault;
use super::ledger::Reply;
use super::worker::Script;

/// A reservation.
pub(super) type Key = (MessageId, Fence);
/// Counts links over a whole schedule.
pub(super) type LinkId = u64;

pub(super) enum Event {
    /// The sender of this mail connects and sends it.
    Submit {
        mail: usize,
    },
    /// A reply reaches the sender.
    Reply {
        mail: usize,
        submission: usize,
        reply: Reply,
    },
    /// The sender notices that its connection is gone.
    ConnectionLost {
        mail: usize,
        submission: usize,
    },
    /// The sender waits no longer.
    Leave {
        mail: usize,
        submission: usize,
    },
    /// For the hook of this life only.
    Host {
        life: u64,
        event: HostEvent,
    },
    HostStart,
    /// For the worker of this life only.
    Worker {
        worker: usize,
        life: u64,
        event: WorkerEvent,
    },
    WorkerStart {
        worker: usize,
        same_incarnation: bool,
    },
    Fault(Fault),
    DiskHeals,
    /// The faults are over.
    Calm,
}

pub(super) enum HostEvent {
    Marked {
        marked: Marked,
        waiting: Option<(usize, usize)>,
    },
    SenderGone(MessageId),
    /// Says something to a sender.
    Say {
        mail: usize,
        submission: usize,
        reply: Reply,
    },
    /// A message that was answered before it was stored: only a mutant does that.
    LateFinish {
        mail: usize,
        marked: Marked,
    },
    Store {
        token: Token,
        message: MessageId,
        mailbox: MailboxIndex,
        change: Change,
    },
    Stored(Token, Stored),
    Load(Token, MessageId),
    Loaded(Token, StoredLog),
    Release {
        token: Token,
        message: MessageId,
        recipients: Vec<u16>,
    },
    /// The final dot reaches the next hop.
    Dot {
        token: Token,
        message: MessageId,
        letters: Vec<Letter>,
        results: Vec<RecipientResult>,
    },
    Released(Token, Vec<RecipientResult>),
    /// The spool is asked what lies on a shelf.
    Refill {
        mailbox: MailboxIndex,
        shelf: Shelf,
        count: usize,
        due: Moment,
    },
    Refilled(MailboxIndex, Shelf, Vec<Recovered>),
    Assign(Assignment),
    Arrived(LinkId, ToHost),
    LinkLost(LinkId),
    /// The operator starts a hook anew that takes no more mail.
    Operator,
    /// The drain has lasted long enough.
    DrainOver,
}

/// What one group of recipients gets.
pub(super) struct Letter {
    pub(super) recipients: Vec<u16>,
    pub(super) bytes: Vec<u8>,
}

#[derive(Debug)]
pub(super) enum ToHost {
    Hello(Hello),
    Control(WorkerControl),
    /// Opens a stream for a reservation that goes on.
    Resume(Key),
    Frame(Key, WorkerReservation),
    Reset(Key),
}

pub(super) enum ToWorker {
    Control(HostControl),
    Assign(Box<Assign>),
    /// The last byte of the message.
    Body(Key, Arc<Vec<u8>>),
    Frame(Key, HostReservation),
    Reset(Key),
}

pub(super) enum WorkerEvent {
    Connect,
    Arrived(LinkId, ToWorker),
    LinkLost(LinkId),
    Work { key: Key, script: Script, work: u64 },
    Ready,
}

//! The pool against the reference of its model test: the same world, driven by bytes instead of by chance.

use arbitrary::{Result, Unstructured};

#[path = "../../../shared/protocol/tests/model/ops.rs"]
mod ops;
#[path = "../../../shared/protocol/tests/model/reference.rs"]
mod reference;
#[path = "../../../shared/protocol/tests/model/world.rs"]
mod world;

use ops::{Decision, MAILBOXES, Op, Outgoing, WORKERS, Word};
use world::World;

/// More than the model test plays; a longer input only takes longer.
const OPS_MAX: usize = 400;

/// Plays what the bytes say, then lets the world be kind: every message comes to its end.
pub(super) fn operations(bytes: &[u8]) {
    let mut bytes = Unstructured::new(bytes);
    let mut world = World::new();
    for _ in 0..OPS_MAX {
        if bytes.is_empty() {
            break;
        }
        let Ok(op) = op(&mut bytes) else { break };
        world.apply(&op);
        if matches!(op, Op::Drain) {
            break;
        }
    }
    world.be_kind();
}

fn op(bytes: &mut Unstructured<'_>) -> Result<Op> {
    let worker = |bytes: &mut Unstructured<'_>| bytes.int_in_range(0..=WORKERS - 1);
    let which = |bytes: &mut Unstructured<'_>| bytes.arbitrary::<u8>().map(usize::from);
    Ok(match bytes.int_in_range(0..=18_u8)? {
        0 | 1 => Op::Mark {
            mailbox: bytes.int_in_range(0..=MAILBOXES - 1)?,
            upstream: bytes.arbitrary()?,
            recipients: bytes.int_in_range(1..=3)?,
        },
        2 => Op::Link {
            worker: worker(bytes)?,
            anew: bytes.arbitrary()?,
            resume: bytes.arbitrary()?,
        },
        3 => Op::Lose { worker: worker(bytes)? },
        4 => Op::Want { worker: worker(bytes)?, more: bytes.int_in_range(1..=3)? },
        5 => Op::Recall { worker: worker(bytes)? },
        6 => Op::Beat { worker: worker(bytes)? },
        7 => Op::Say {
            which: which(bytes)?,
            over: if bytes.ratio(1, 8)? { Some(worker(bytes)?) } else { None },
            stale: bytes.ratio(1, 5)?,
            word: word(bytes)?,
        },
        8 => Op::StreamLost { which: which(bytes)? },
        9 => Op::Stored { which: which(bytes)?, fails: bytes.ratio(1, 5)? },
        10 => Op::Assigned { which: which(bytes)?, outcome: outgoing(bytes)? },
        11 => Op::Released {
            which: which(bytes)?,
            results: (0..3).map(|_| bytes.int_in_range(0..=4)).collect::<Result<_>>()?,
        },
        12 => Op::Loaded { which: which(bytes)?, fails: bytes.ratio(1, 8)? },
        13 => Op::SenderGone { which: which(bytes)? },
        14 => Op::Operate {
            which: which(bytes)?,
            decision: *bytes.choose(&[Decision::Release, Decision::AsIs, Decision::Delete])?,
            quarantined: bytes.arbitrary()?,
        },
        15 => Op::Pass {
            ms: *bytes.choose(&[1, 50, 199, 250, 700, 5_000, 40_000, 100_000, 1_000_000])?,
        },
        16 => {
            let durable: u8 = bytes.arbitrary()?;
            Op::Crash { durable: (0..8).map(|bit| durable >> bit & 1 == 1).collect() }
        }
        17 => Op::Refill { which: which(bytes)?, look: bytes.arbitrary()? },
        _ => Op::Drain,
    })
}

fn word(bytes: &mut Unstructured<'_>) -> Result<Word> {
    Ok(match bytes.int_in_range(0..=11_u8)? {
        0 | 1 => Word::Clean,
        2 => Word::Quarantine,
        3 => Word::Mixed,
        4 => Word::Held,
        5 => Word::Refuse,
        6 => Word::Part,
        7 => Word::Wrong(bytes.int_in_range(0..=5)?),
        8 => Word::Progress(bytes.arbitrary()?),
        9 => Word::Failed,
        10 => Word::HandBack,
        _ => Word::Unavailable,
    })
}

fn outgoing(bytes: &mut Unstructured<'_>) -> Result<Outgoing> {
    Ok(match bytes.int_in_range(0..=7_u8)? {
        0 => Outgoing::LinkLost,
        1 => Outgoing::Unreadable,
        _ => Outgoing::Sent,
    })
}

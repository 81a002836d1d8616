//! What may happen, as data. The fuzz targets include this file, too, and make it of bytes.

use gantry_mail::HeaderEdit;
use gantry_protocol::id::Digest;
use gantry_protocol::verdict::{Body, Disposition, Finding, Group, Outcome, Verdict};

pub(crate) const VIRUS: &str = "virus";
pub(crate) const SIGN: &str = "sign";
pub(crate) const WORKERS: usize = 4;
pub(crate) const MAILBOXES: u16 = 4;

/// What an operator decides about a message that was set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    Release,
    AsIs,
    Delete,
}

/// What a worker's certificate grants and its modules do. Only the first can do all that some mailboxes need.
pub(crate) fn grants(worker: usize) -> Vec<String> {
    let grants: &[&str] = match worker {
        0 => &[VIRUS, SIGN],
        1 => &[VIRUS],
        2 => &[SIGN],
        _ => &[],
    };
    grants.iter().map(|grant| (*grant).to_owned()).collect()
}

/// What a mailbox's messages need.
pub(crate) fn needs(mailbox: u16) -> Vec<String> {
    let needs: &[&str] = if mailbox.is_multiple_of(3) { &[VIRUS, SIGN] } else { &[VIRUS] };
    needs.iter().map(|need| (*need).to_owned()).collect()
}

#[derive(Clone, Debug)]
pub(crate) enum Op {
    Mark {
        mailbox: u16,
        upstream: bool,
        recipients: u16,
    },
    Link {
        worker: usize,
        anew: bool,
        resume: bool,
    },
    Lose {
        worker: usize,
    },
    Want {
        worker: usize,
        more: u64,
    },
    Recall {
        worker: usize,
    },
    Beat {
        worker: usize,
    },
    /// About what is reserved now, or (`stale`) about any assignment there ever was, over the link of its owner or over a
    /// worker's present one.
    Say {
        which: usize,
        over: Option<usize>,
        stale: bool,
        word: Word,
    },
    StreamLost {
        which: usize,
    },
    Stored {
        which: usize,
        fails: bool,
    },
    Assigned {
        which: usize,
        outcome: Outgoing,
    },
    Released {
        which: usize,
        results: Vec<u8>,
    },
    Loaded {
        which: usize,
        fails: bool,
    },
    /// The driver looks at a shelf, or tells what it found there.
    Refill {
        which: usize,
        look: bool,
    },
    SenderGone {
        which: usize,
    },
    Operate {
        which: usize,
        decision: Decision,
        quarantined: bool,
    },
    Pass {
        ms: u64,
    },
    /// The hook dies, and each store under way has become durable or not.
    Crash {
        durable: Vec<bool>,
    },
    Drain,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Word {
    Clean,
    Quarantine,
    Mixed,
    Held,
    Refuse,
    /// Some of it is done.
    Part,
    /// A verdict that must not count.
    Wrong(u8),
    Progress(u8),
    Failed,
    HandBack,
    Unavailable,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Outgoing {
    Sent,
    LinkLost,
    Unreadable,
}

pub(crate) fn digest(counter: u64) -> Digest {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&counter.to_be_bytes());
    Digest(digest)
}

/// A verdict with a serial number, so that what is stored can be traced to who said it.
pub(crate) fn verdict(
    word: Word,
    recipients: u16,
    length: u64,
    digest: Digest,
    asked: &[String],
    serial: u32,
) -> Verdict {
    let all: Vec<u16> = (0..recipients).collect();
    let group = |recipients: Vec<u16>, disposition| Group { recipients, disposition };
    let field = "X-Gantry: clean".to_owned();
    let deliver = || Disposition::Deliver {
        edits: vec![HeaderEdit::Prepend { field: field.clone() }],
        body: Body::Original,
    };
    let quarantine = || Disposition::Quarantine { reason: "found".to_owned() };
    let (code, enhanced, text) = (554, "5.7.1".to_owned(), "no".to_owned());
    let groups = match word {
        Word::Quarantine => vec![group(all, quarantine())],
        Word::Mixed if recipients > 1 => {
            vec![group(all[..1].to_vec(), deliver()), group(all[1..].to_vec(), quarantine())]
        }
        Word::Held => vec![group(all, Disposition::Hold { reason: "encrypted".to_owned() })],
        Word::Refuse => vec![group(all, Disposition::Refuse { code, enhanced, text })],
        Word::Wrong(0) => vec![group(all[1..].to_vec(), deliver())],
        Word::Wrong(1) => vec![group(all.clone(), deliver()), group(all, quarantine())],
        _ => vec![group(all, deliver())],
    };
    let outcome = match word {
        Word::Wrong(2) => Outcome::Unscanned { reason: "ERROR".to_owned() },
        _ => Outcome::Clean,
    };
    let finding = |need: &String| Finding {
        need: if matches!(word, Word::Wrong(3)) { "spam".to_owned() } else { need.clone() },
        module: "rules".to_owned(),
        engine: String::new(),
        signatures: String::new(),
        outcome: outcome.clone(),
        duration_ms: serial,
    };
    let findings = asked.iter().map(finding).collect();
    let length = if matches!(word, Word::Wrong(4)) { length + 1 } else { length };
    let digest = if matches!(word, Word::Wrong(5)) { Digest([0xff; 32]) } else { digest };
    Verdict { length, digest, groups, findings, originated: Vec::new() }
}

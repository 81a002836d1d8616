//! What a seed draws before anything happens: the mail, the configuration, and how often what goes wrong.

use std::sync::Arc;
use std::time::Duration;

use gantry_mail::{Envelope, Mask, Recipient};
use gantry_protocol::policy;
use gantry_protocol::pool::{Config, MailboxConfig, OriginatedAllowed, WhenUnprocessed};

use super::faults::{FAULTS, Fault};
use super::originated::POSTMASTER;
use super::random::Random;

/// What all messages need, and what those of some mailboxes need beside.
pub(super) const VIRUS: &str = "virus";
const SIGN: &str = "sign";
/// Recipients of this beginning are refused by the next hop.
pub(super) const REFUSED: &str = "refused";
pub(super) const WORKERS: usize = 3;
/// The virtual clock begins here, so that ages reach back across restarts.
pub(super) const BEGIN: u64 = 100_000_000;
/// Most attempts at a message.
pub(super) const ATTEMPTS_MAX: u8 = 3;

/// Every mailbox's name, custody (whether the sender keeps it until it is answered) and rule. The first of each custody has
/// two needs.
const MAILBOXES: [(&str, bool, WhenUnprocessed); 5] = [
    ("hook.box", false, WhenUnprocessed::Wait),
    ("aging.box", false, WhenUnprocessed::Hold { after: Duration::from_secs(40) }),
    ("tempfail.box", true, WhenUnprocessed::TempFail),
    ("wait.box", true, WhenUnprocessed::Wait),
    ("hold.box", true, WhenUnprocessed::Hold { after: Duration::ZERO }),
];

/// What processing a message comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nature {
    Clean,
    /// Takes its time, and says so.
    Slow,
    Infected,
    /// Clean for the first recipient, quarantined for the others.
    Part,
    /// Refused, as spam.
    Spam,
    Discarded,
    /// Kills every worker.
    Poison,
    /// No module can say anything about it.
    Broken,
    /// Modules fail, stall, die or are not there, until the faults are over; then it is clean.
    Flaky,
}

pub(super) struct Mail {
    pub(super) mailbox: usize,
    pub(super) envelope: Envelope,
    pub(super) bytes: Arc<Vec<u8>>,
    pub(super) nature: Nature,
    /// The verdict on it originates notices.
    pub(super) notified: bool,
    /// When it is sent first.
    pub(super) at: u64,
}

pub(super) struct Plan {
    pub(super) mails: Arc<Vec<Mail>>,
    pub(super) config: Config,
    pub(super) faults: Vec<(u64, Fault)>,
    pub(super) faults_end: u64,
    pub(super) answer_within: u64,
    /// In percent, each time it can happen.
    pub(super) hop_defers: u64,
    pub(super) hop_loses_answer: u64,
    pub(super) sender_leaves: u64,
    pub(super) client_vanishes: u64,
    pub(super) crash_in_recovery: u64,
    pub(super) slots: Vec<u64>,
    pub(super) tiers: Vec<u8>,
    /// What each worker may and can do.
    pub(super) skills: Vec<Vec<String>>,
}

impl Mail {
    pub(super) fn is_upstream(&self) -> bool {
        MAILBOXES[self.mailbox].1
    }

    /// What its mailbox asks for.
    pub(super) fn needs(&self) -> Vec<String> {
        needs(MAILBOXES[self.mailbox].0)
    }

    pub(super) fn recipients(&self) -> u16 {
        u16::try_from(self.envelope.recipients.len()).unwrap()
    }
}

impl Plan {
    pub(super) fn mailbox_names() -> Vec<String> {
        MAILBOXES.iter().map(|(name, ..)| (*name).to_owned()).collect()
    }

    pub(super) fn draw(random: &mut Random) -> Self {
        let lasts = random.between(8_000, 40_000);
        let faults_end = BEGIN + lasts;
        let mails: Vec<Mail> = (0..random.between(3, 30)).map(|n| mail(n, lasts, random)).collect();
        // Some schedules are quiet, some are hell, and most lack some kinds of fault, so that others show.
        let kinds: Vec<Fault> =
            FAULTS.iter().map(|(fault, _)| *fault).filter(|_| random.percent(60)).collect();
        let many = if kinds.is_empty() { 0 } else { random.between(0, 20) };
        let faults =
            (0..many).map(|_| (BEGIN + random.between(500, lasts), random.pick(&kinds))).collect();
        let sometimes = |random: &mut Random, most: u64| {
            if random.percent(50) { random.between(1, most) } else { 0 }
        };
        let split = random.percent(50);
        let tier = |worker, random: &mut Random| u8::from(worker > 0 && random.percent(20));
        Self {
            mails: Arc::new(mails),
            config: config(random),
            faults,
            faults_end,
            answer_within: random.between(4_000, 10_000),
            hop_defers: sometimes(random, 40),
            hop_loses_answer: sometimes(random, 25),
            sender_leaves: sometimes(random, 25),
            client_vanishes: sometimes(random, 15),
            crash_in_recovery: sometimes(random, 50),
            slots: (0..WORKERS).map(|_| random.between(1, 4)).collect(),
            // Who stands by for others must be able to do what they do.
            tiers: (0..WORKERS).map(|n| if split { 0 } else { tier(n, random) }).collect(),
            skills: (0..WORKERS).map(|worker| skills(worker, split)).collect(),
        }
    }
}

fn needs(mailbox: &str) -> Vec<String> {
    let needs: &[&str] =
        if matches!(mailbox, "hook.box" | "wait.box") { &[VIRUS, SIGN] } else { &[VIRUS] };
    needs.iter().map(|need| (*need).to_owned()).collect()
}

/// Either everybody can do all, or one can do nothing but sign, and another nothing but scan.
fn skills(worker: usize, split: bool) -> Vec<String> {
    let skills: &[&str] = match worker {
        1 if split => &[SIGN],
        0 | 2 if split => &[VIRUS],
        _ => &[VIRUS, SIGN],
    };
    skills.iter().map(|skill| (*skill).to_owned()).collect()
}

fn config(random: &mut Random) -> Config {
    let mailboxes = MAILBOXES
        .iter()
        .map(|(name, _, when)| MailboxConfig {
            queue_lifetime: Duration::from_millis(random.between(5_000, 60_000)),
            retry_min: Duration::from_millis(random.between(100, 1_000)),
            retry_max: Duration::from_millis(random.between(1_000, 5_000)),
            releases_max: random.index(4) + 1,
            originated: Some(OriginatedAllowed {
                senders: vec![Mask::new("")],
                recipients: vec![Mask::new(POSTMASTER)],
                to_sender: true,
                to_recipients: false,
            }),
            ..MailboxConfig::new(*name, needs(name), *when)
        })
        .collect();
    Config {
        reservation_time_max: Duration::from_millis(random.between(4_000, 20_000)),
        silence_max: Duration::from_millis(random.between(1_000, 4_000)),
        attempts_max: ATTEMPTS_MAX,
        window: random.index(4) + 1,
        ..Config::new("mx1", policy::BUILT_IN, mailboxes)
    }
}

fn mail(number: u64, lasts: u64, random: &mut Random) -> Mail {
    use Nature::*;
    let nature = random.pick(&[
        Clean, Clean, Clean, Clean, Clean, Slow, Slow, Infected, Infected, Part, Spam, Discarded,
        Poison, Broken, Flaky, Flaky,
    ]);
    let recipient = |index: u64, random: &mut Random| {
        let name = if random.percent(8) { REFUSED } else { "to" };
        Recipient { address: format!("{name}{index}@example.net"), ..Recipient::default() }
    };
    let sender =
        if random.percent(10) { String::new() } else { format!("from{number}@example.org") };
    let recipients = (0..random.between(1, 3)).map(|index| recipient(index, random)).collect();
    let mut bytes = format!("Subject: mail {number}\r\nX-Number: {number}\r\n\r\n").into_bytes();
    bytes.extend(format!("This is mail {number}.\r\n").repeat(random.index(80) + 1).into_bytes());
    Mail {
        mailbox: random.index(MAILBOXES.len()),
        envelope: Envelope { sender, recipients, ..Envelope::default() },
        bytes: Arc::new(bytes),
        nature,
        at: BEGIN + random.between(0, lasts),
        notified: random.percent(40),
    }
}

/// Which mail it is, by a field that even a notice about it quotes.
pub(super) fn number_of(bytes: &[u8]) -> Option<usize> {
    let text = String::from_utf8_lossy(bytes);
    text.split_once("X-Number: ")?.1.split("\r\n").next()?.parse().ok()
}

//! What the administrator decided, as far as the pool goes by it.

use std::time::Duration;

use gantry_mail::Mask;

use crate::id::Digest;
use crate::limits;

#[derive(Clone, Debug)]
pub struct Config {
    /// The host's name.
    pub host: String,
    pub software: String,
    /// Workers with another policy get nothing.
    pub policy: Digest,
    /// A second policy that counts as well, while the first one is being rolled out.
    pub policy_also: Option<Digest>,
    /// The number of the newest revocation list.
    pub revocations: u64,
    pub beat: Duration,
    pub beat_idle: Duration,
    pub reservation_time_max: Duration,
    pub silence_max: Duration,
    pub attempts_max: u8,
    pub returns_max: u16,
    /// Messages of one mailbox that wait in memory; the others wait on disk.
    pub window: usize,
    /// Before the second attempt at a message that a worker itself gave up; further ones wait five times as long each.
    pub failed_pause: Duration,
    /// In the order of [`super::MailboxIndex`].
    pub mailboxes: Vec<MailboxConfig>,
}

impl Config {
    /// Whether what is processed under this policy counts.
    pub fn accepts(&self, policy: &Digest) -> bool {
        *policy == self.policy || self.policy_also.as_ref() == Some(policy)
    }

    /// Defaults for everything that has one.
    pub fn new(host: impl Into<String>, policy: Digest, mailboxes: Vec<MailboxConfig>) -> Self {
        Self {
            host: host.into(),
            software: concat!("gantry-hook ", env!("CARGO_PKG_VERSION")).to_owned(),
            policy,
            policy_also: None,
            revocations: 0,
            beat: limits::BEAT,
            beat_idle: limits::BEAT_IDLE,
            reservation_time_max: limits::RESERVATION_TIME_MAX,
            silence_max: limits::SILENCE_MAX,
            attempts_max: limits::ATTEMPTS_MAX,
            returns_max: limits::RETURNS_MAX,
            window: limits::WINDOW,
            failed_pause: limits::FAILED_PAUSE,
            mailboxes,
        }
    }
}

#[derive(Clone, Debug)]
pub struct MailboxConfig {
    pub name: String,
    /// Capabilities that a message of this mailbox must have been processed with before it leaves.
    pub needs: Vec<String>,
    pub when_unprocessed: WhenUnprocessed,
    /// Age of a waiting message at which it is reported.
    pub warn_after: Duration,
    /// How long the way out is tried before the sender is told.
    pub queue_lifetime: Duration,
    /// First pause after a deferral; doubled each time up to `retry_max`.
    pub retry_min: Duration,
    pub retry_max: Duration,
    /// Most releases under way at once.
    pub releases_max: usize,
    /// What becomes of a rejected message when nobody is there any more to be told no.
    pub reject_late: RejectLate,
    /// In upstream custody: whoever waits for our answer has said yes to the sender itself, so that a no of ours would
    /// be bounced to strangers.
    pub behind_queue: bool,
    /// Messages that verdicts may originate; none, where nothing is said.
    pub originated: Option<OriginatedAllowed>,
}

/// Who may be named in originated messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OriginatedAllowed {
    /// The empty mask is the null sender.
    pub senders: Vec<Mask>,
    pub recipients: Vec<Mask>,
    /// The sender of the message that a verdict is about.
    pub to_sender: bool,
    /// Its recipients.
    pub to_recipients: bool,
}

/// What a rejection becomes after our yes, or behind a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RejectLate {
    #[default]
    Quarantine,
    Hold,
    Discard,
}

impl MailboxConfig {
    /// Defaults for everything that has one.
    pub fn new(
        name: impl Into<String>,
        needs: Vec<String>,
        when_unprocessed: WhenUnprocessed,
    ) -> Self {
        Self {
            name: name.into(),
            needs,
            when_unprocessed,
            warn_after: Duration::from_secs(15 * 60),
            queue_lifetime: Duration::from_secs(5 * 24 * 3600),
            retry_min: Duration::from_secs(10),
            retry_max: Duration::from_secs(15 * 60),
            releases_max: 20,
            reject_late: RejectLate::default(),
            behind_queue: false,
            originated: None,
        }
    }
}

/// What becomes of a message that no worker could process in time: at `answer_within` for a message that the sender
/// still keeps, after `after` for one in the hook's custody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenUnprocessed {
    /// Upstream custody: 4xx; the sender keeps it.
    TempFail,
    /// It stays in the pool, in the hook's custody from here on.
    Wait,
    /// It is set aside for an operator. `after` is for the hook's custody only.
    Hold { after: Duration },
    /// It leaves unprocessed, as the administrator wrote out in full. `after` is for the hook's custody only.
    ReleaseUnscanned { after: Duration },
}

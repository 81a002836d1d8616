//! Senders, who keep a mail until they are answered, and the next hop, which is as moody as it likes.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use gantry_hook::disk::sim::SimDisk;
use gantry_hook::spool::{Finished, Spool, SpoolError};
use gantry_mail::header;
use gantry_protocol::id::{Digest, MessageId, Token};
use gantry_protocol::pool::{Custody, MailboxIndex, Marked, RecipientResult, ReleaseResult};
use gantry_protocol::verdict::{Disposition, Verdict};

use super::Mutant;
use super::event::{Event, HostEvent, Letter};
use super::ledger::Reply;
use super::plan::Mail;
use super::world::World;

impl World {
    /// A client connects: not everybody is let in, and not everybody stays.
    pub(super) fn on_submit(&mut self, number: usize) {
        if self.host.hangs_until > self.queue.now && self.host.up.is_some() {
            return self.queue.at(self.host.hangs_until, Event::Submit { mail: number });
        }
        let mails = Arc::clone(&self.plan.mails);
        let mail = &mails[number];
        let Some(up) = self.host.up.as_ref().filter(|up| !up.stopped && !up.draining) else {
            return self.submit_later(number);
        };
        let spool = Arc::clone(&up.spool);
        if !self.calm && self.random.percent(self.plan.client_vanishes) {
            self.counts.add("fault: client vanished in DATA");
            vanish(&spool, mail, self.unix_ms());
            drop(spool);
            self.crashed("taking in");
            return self.submit_later(number);
        }
        let id = spool.allocate();
        let submission = self.ledger.submitted(number, id);
        self.note(|| format!("mail {number}, {:?}, comes in as {id}", mail.nature));
        let marked = Marked {
            id,
            mailbox: MailboxIndex(u16::try_from(mail.mailbox).unwrap()),
            custody: Custody::Hook,
            length: mail.bytes.len() as u64,
            recipients: mail.recipients(),
            since: self.moment(),
            attempts: 0,
        };
        if self.mutant == Some(Mutant::YesBeforeFinish) && !mail.is_upstream() {
            self.host_soon(200, HostEvent::LateFinish { mail: number, marked });
            return self.say_soon(number, submission, Reply::Yes);
        }
        match take_in(&spool, id, mail, self.unix_ms()) {
            _ if self.disk.is_crashed() => {
                drop(spool);
                self.crashed("taking in");
            }
            Err(error) => {
                self.note(|| format!("mail {number}: {error}"));
                self.counts.add("intake: could not be stored");
                self.ledger.store_failed(id);
                self.say_soon(number, submission, Reply::TryAgain);
            }
            Ok(_) if !mail.is_upstream() => {
                self.host_soon(3, HostEvent::Marked { marked, waiting: None });
                self.say_soon(number, submission, Reply::Yes);
            }
            Ok(finished) => {
                self.mark_and_wait(&spool, (number, submission), marked, finished.digest)
            }
        }
    }

    /// The message is whole, and its sender keeps it and waits.
    fn mark_and_wait(
        &mut self,
        spool: &Spool<SimDisk>,
        waiting: (usize, usize),
        mut marked: Marked,
        digest: Digest,
    ) {
        let (mail, submission) = waiting;
        if let Some(suspect) = spool.suspects().lookup(digest) {
            if suspect.held {
                spool.forget(marked.id);
                self.counts.add("known poison refused");
                return self.say_soon(mail, submission, Reply::No);
            }
            marked.attempts = suspect.attempts;
        }
        if self.mutant == Some(Mutant::YesToWaitingSender) {
            self.say_soon(mail, submission, Reply::Yes);
        }
        let answer_by = self.moment() + Duration::from_millis(self.plan.answer_within);
        marked.custody = Custody::Upstream { answer_by };
        self.host_soon(3, HostEvent::Marked { marked, waiting: Some(waiting) });
        if !self.calm && self.random.percent(self.plan.sender_leaves) {
            let patience = self.random.between(5, self.plan.answer_within);
            self.queue.after(patience, Event::Leave { mail, submission });
        }
    }

    /// The reply follows the mark, as it does in the hook's intake.
    fn say_soon(&mut self, mail: usize, submission: usize, reply: Reply) {
        let (life, delay) = (self.host.life, self.random.between(3, 8));
        let event = HostEvent::Say { mail, submission, reply };
        self.queue.after(delay, Event::Host { life, event });
    }

    fn unix_ms(&self) -> u64 {
        self.host.wall_clock + self.queue.now
    }

    fn submit_later(&mut self, mail: usize) {
        let pause = self.random.between(300, 3_000);
        self.queue.after(pause, Event::Submit { mail });
    }

    /// Words on their way to a sender; a crash does not call them back.
    pub(super) fn say(&mut self, mail: usize, submission: usize, reply: Reply) {
        let latency = self.random.between(1, 10);
        self.queue.after(latency, Event::Reply { mail, submission, reply });
    }

    pub(super) fn on_reply(&mut self, mail: usize, submission: usize, reply: Reply) {
        if !self.ledger.is_pending(mail, submission) {
            return;
        }
        self.note(|| format!("the sender of mail {mail} is told {reply:?}"));
        self.counts.add(match reply {
            Reply::Yes => "senders told yes",
            Reply::TryAgain => "senders told to try again",
            Reply::No => "senders told no",
        });
        self.ledger.replied(mail, submission, reply);
        if reply == Reply::TryAgain {
            self.submit_later(mail);
        }
    }

    /// The hook is gone, and all connections with it. Words that were said before may still arrive first.
    pub(super) fn lose_connections(&mut self) {
        for (mail, submission) in self.ledger.pending() {
            let notices = self.random.between(0, 500);
            self.queue.after(notices, Event::ConnectionLost { mail, submission });
        }
    }

    pub(super) fn on_connection_lost(&mut self, mail: usize, submission: usize) {
        if self.ledger.is_pending(mail, submission) {
            self.ledger.lost(mail, submission);
            self.counts.add("senders lost their connection");
            self.submit_later(mail);
        }
    }

    pub(super) fn on_leave(&mut self, mail: usize, submission: usize) {
        if !self.ledger.is_pending(mail, submission) {
            return;
        }
        let id = self.ledger.left(mail, submission);
        self.counts.add("fault: sender left");
        self.host_soon(10, HostEvent::SenderGone(id));
        self.submit_later(mail);
    }

    /// Only the mutant that answers before it stores comes here.
    pub(super) fn late_finish(&mut self, mail: usize, marked: Marked) {
        let mails = Arc::clone(&self.plan.mails);
        let Some(spool) = self.host.up.as_ref().map(|up| Arc::clone(&up.spool)) else { return };
        let taken = take_in(&spool, marked.id, &mails[mail], self.unix_ms());
        drop(spool);
        if !self.crashed("taking in") && taken.is_ok() {
            self.host_soon(0, HostEvent::Marked { marked, waiting: None });
        }
    }

    // ---- the way out

    /// What the hook's release does up to the final dot.
    pub(super) fn on_release(&mut self, token: Token, id: MessageId, recipients: Vec<u16>) {
        let Some(up) = &self.host.up else { return };
        let read = (|| {
            let (header, log) = (up.spool.header(id)?, up.spool.log(id)?);
            let mut bytes = Vec::new();
            let whole = up.spool.body(id)?.read_to_end(&mut bytes);
            Ok((header, log, whole.map(|_| bytes)))
        })();
        let (header, log, bytes) = match read {
            Ok((header, log, Ok(bytes))) => (header, log, bytes),
            Ok((_, _, Err(error))) => return self.ledger.violated(format!("{id}: {error}")),
            Err(error) => return self.unreadable(id, &error),
        };
        let mut results = Vec::new();
        let mut served = Vec::new();
        let away = self.queue.now < self.hop_away_until;
        for recipient in recipients {
            let address = &header.envelope.recipients[usize::from(recipient)].address;
            let defers = away || (!self.calm && self.random.percent(self.plan.hop_defers));
            let result = match address.starts_with(super::plan::REFUSED) {
                // Senders are there for notices, if not always.
                true => ReleaseResult::Refused,
                false if defers => ReleaseResult::Deferred,
                false => {
                    served.push(recipient);
                    continue;
                }
            };
            self.counts.add(&format!("next hop: {result:?}").to_lowercase());
            results.push(RecipientResult { recipient, result, reply: "as it likes".to_owned() });
        }
        let letters = letters(log.verdict.as_ref(), served, &bytes);
        self.host_soon(40, HostEvent::Dot { token, message: id, letters, results });
    }

    /// The next hop takes the message; its answer may get lost.
    pub(super) fn on_dot(
        &mut self,
        token: Token,
        id: MessageId,
        letters: &[Letter],
        mut results: Vec<RecipientResult>,
    ) {
        for letter in letters {
            let lost = !self.calm && self.random.percent(self.plan.hop_loses_answer);
            if lost {
                self.counts.add("fault: answer after the final dot lost");
            }
            let result = if lost { ReleaseResult::Unknown } else { ReleaseResult::Accepted };
            self.note(|| format!("next hop takes {id} for {:?}: {result:?}", letter.recipients));
            self.ledger.delivered(id, self.host.life, !lost, &letter.recipients, &letter.bytes);
            results.extend(letter.recipients.iter().map(|recipient| RecipientResult {
                recipient: *recipient,
                result,
                reply: "taken".to_owned(),
            }));
        }
        self.host_soon(20, HostEvent::Released(token, results));
    }
}

fn take_in(
    spool: &Arc<Spool<SimDisk>>,
    id: MessageId,
    mail: &Mail,
    received: u64,
) -> Result<Finished, SpoolError> {
    let mailbox = MailboxIndex(u16::try_from(mail.mailbox).unwrap());
    if mail.is_upstream() {
        let mut volatile = spool.begin_volatile(id, mailbox, mail.envelope.clone(), received);
        volatile.write(&mail.bytes)?;
        return volatile.finish();
    }
    let mut incoming = spool.begin(id, mailbox, &mail.envelope, received)?;
    incoming.write(&mail.bytes)?;
    incoming.finish()
}

/// A client that is gone in the middle of a message: nothing of it may stay.
fn vanish(spool: &Arc<Spool<SimDisk>>, mail: &Mail, received: u64) {
    let mailbox = MailboxIndex(u16::try_from(mail.mailbox).unwrap());
    let half = &mail.bytes[..mail.bytes.len() / 2];
    if let Ok(mut incoming) = spool.begin(spool.allocate(), mailbox, &mail.envelope, received) {
        let _ = incoming.write(half);
    }
}

/// What each group of recipients gets: the header block as the verdict wants it, and the rest as it came. Those of
/// whom the verdict says nothing get the message as it is, as the hook's release does it.
fn letters(verdict: Option<&Verdict>, recipients: Vec<u16>, bytes: &[u8]) -> Vec<Letter> {
    let mut left = recipients;
    let mut letters = Vec::new();
    for group in verdict.map(|verdict| verdict.groups.as_slice()).unwrap_or_default() {
        let Disposition::Deliver { edits, .. } = &group.disposition else { continue };
        let (recipients, others) = left.into_iter().partition(|r| group.recipients.contains(r));
        left = others;
        let end =
            bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(bytes.len(), |at| at + 4);
        let mut edited = header::edit(&bytes[..end], edits).expect("edit a header block");
        edited.extend_from_slice(&bytes[end..]);
        letters.push(Letter { recipients, bytes: edited });
    }
    letters.push(Letter { recipients: left, bytes: bytes.to_vec() });
    letters.retain(|letter| !letter.recipients.is_empty());
    letters
}

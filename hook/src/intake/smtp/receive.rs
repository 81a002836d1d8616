//! DATA: a message from its 354 to its answer.

use std::io;

use gantry_daemon::crash;
use gantry_mail::header::{HeaderScanner, HeaderTooLong};
use gantry_protocol::pool::{Answer, Custody, Marked};
use tokio::time::Instant;

use super::IntakeCustody;
use super::StrayCrLf;
use super::data::Decoder;
use super::session::{Next, Session};
use super::taking::{PIECE_BYTES_MAX, Taking};
use super::wire::Gone;
use crate::disk::Disk;
use crate::intake::{RECEIVED_MAX, unix_ms};
use crate::release::Protocol;
use crate::spool::{Finished, SpoolError};

const TOO_LARGE: &str = "552 5.3.4 Message too large";
const STRAY: &str = "554 5.6.0 A CR or LF stands alone in the message (RFC 5321, 2.3.8)";
const HEADER_TOO_LONG: &str = "552 5.6.0 Header block too long";
const HOPS: &str = "554 5.4.6 Too many Received fields: the message goes in circles";
const POISON: &str =
    "550 5.7.0 A message with this content is held here, since it could not be processed";
pub(super) const SPOOL_FULL: &str = "452 4.3.1 No room for the message, try again later";
const SPOOL_FAILED: &str = "451 4.3.0 The message could not be stored, try again later";

/// A message as it comes in.
struct Arriving<D: Disk> {
    decoder: Decoder,
    scanner: HeaderScanner,
    length: u64,
    recipients: u16,
    piece: Vec<u8>,
    /// Gone once the message is refused.
    taking: Option<Taking<D>>,
    refusal: Option<&'static str>,
}

impl<D: Disk> Session<D> {
    /// Reads a message to its end, always, and answers it.
    pub(super) async fn receive(&mut self) -> Result<Next, Gone> {
        let envelope = self.take_envelope();
        let durable = self.intake.custody == IntakeCustody::Hook;
        let mut arriving = Arriving {
            decoder: Decoder::default(),
            scanner: HeaderScanner::new(),
            length: 0,
            recipients: u16::try_from(envelope.recipients.len()).unwrap_or(u16::MAX),
            piece: Vec::new(),
            refusal: None,
            taking: Some(Taking::new(
                self.spool.clone(),
                self.intake.index,
                envelope,
                unix_ms(),
                durable,
            )),
        };
        self.wire.reply("354 Go ahead, end with a dot on a line of its own");
        self.wire.flush().await?;
        if let Err(gone) = self.read_message(&mut arriving).await {
            arriving.refuse(SPOOL_FAILED).await;
            return Err(gone);
        }
        self.answer(arriving).await
    }

    async fn read_message(&mut self, arriving: &mut Arriving<D>) -> Result<(), Gone> {
        let timeouts = self.intake.timeouts;
        let end = Instant::now() + timeouts.message;
        while !arriving.decoder.has_ended() {
            if self.wire.buffered().is_empty() {
                self.wire.fill_message(end.min(Instant::now() + timeouts.data)).await?;
            }
            let (taken, refusal) = arriving.take(self.wire.buffered());
            self.wire.consume(taken);
            let refusal = refusal.or_else(|| {
                let stray =
                    self.intake.stray_cr_lf == StrayCrLf::Reject && arriving.decoder.saw_stray();
                let too_large = self.is_too_large(arriving.length);
                stray.then_some(STRAY).or(too_large.then_some(TOO_LARGE))
            });
            if let Some(refusal) = refusal {
                arriving.refuse(refusal).await;
            }
            if arriving.piece.len() >= PIECE_BYTES_MAX
                && let Some(taking) = arriving.taking.take()
            {
                match taking.write(std::mem::take(&mut arriving.piece)).await {
                    Ok((taking, piece)) => {
                        arriving.taking = Some(taking);
                        arriving.piece = piece;
                    }
                    Err(error) => arriving.refuse(self.on_spool_error(&error)).await,
                }
            }
        }
        Ok(())
    }

    async fn answer(&mut self, mut arriving: Arriving<D>) -> Result<Next, Gone> {
        let header = std::mem::take(&mut arriving.scanner).finish();
        if header.received > RECEIVED_MAX {
            arriving.refuse(HOPS).await;
        }
        let Some(taking) = arriving.taking.take() else {
            self.reply_to_message(arriving.refusal.unwrap_or(SPOOL_FAILED), arriving.recipients);
            return Ok(Next::Command);
        };
        let recipients = taking.recipients();
        let looped = self.intake.trace.is_ours(&self.intake.mailbox, &header, &recipients);
        let since = self.intake.clock.now();
        let id = taking.id;
        let finished = match taking.finish(std::mem::take(&mut arriving.piece)).await {
            Ok(finished) => finished,
            Err(error) => {
                let reply = self.on_spool_error(&error);
                self.reply_to_message(reply, arriving.recipients);
                return Ok(Next::Command);
            }
        };
        let mut marked = Marked {
            id,
            mailbox: self.intake.index,
            custody: Custody::Hook,
            length: finished.length,
            recipients: arriving.recipients,
            since,
            attempts: 0,
        };
        match self.intake.custody {
            IntakeCustody::Hook => {
                crash::at("message-stored");
                self.gate.mark(marked, looped).await;
                crash::at("message-marked");
                let reply = format!("250 2.0.0 Ok, marked as {id}");
                self.reply_to_message(&reply, arriving.recipients);
                Ok(Next::Command)
            }
            IntakeCustody::Upstream { answer_within } => {
                marked.custody = Custody::Upstream { answer_by: since + answer_within };
                self.mark_and_wait(marked, looped, &finished).await
            }
        }
    }

    async fn mark_and_wait(
        &mut self,
        mut marked: Marked,
        looped: bool,
        finished: &Finished,
    ) -> Result<Next, Gone> {
        let (id, recipients) = (marked.id, marked.recipients);
        if let Some(suspect) = self.spool.suspects().lookup(finished.digest) {
            if suspect.held {
                self.spool.forget(id);
                self.reply_to_message(POISON, recipients);
                return Ok(Next::Command);
            }
            marked.attempts = suspect.attempts;
        }
        let answer = tokio::select! {
            biased;
            answer = self.gate.mark_and_wait(marked, looped) => answer,
            gone = self.wire.gone() => return Err(gone),
        };
        crash::at("answering");
        let id = id.to_string();
        let reply = match answer {
            Answer::Accepted { text } => one_line(250, "2.0.0", &format!("{id}: {text}")),
            Answer::TryAgain { text } => one_line(451, "4.3.0", &format!("{id}: {text}")),
            Answer::Refused { code: code @ 500..=599, enhanced, text }
                if is_enhanced(&enhanced) =>
            {
                one_line(code, &enhanced, &text)
            }
            Answer::Refused { text, .. } => one_line(550, "5.7.1", &text),
        };
        self.reply_to_message(&reply, recipients);
        Ok(Next::Command)
    }

    /// The reply to the final dot: in LMTP one for each recipient that was accepted (RFC 2033, 4.2). Here all get the
    /// same, since their message is stored for all or for none, and in upstream custody there is one answer.
    fn reply_to_message(&mut self, reply: &str, recipients: u16) {
        let replies = match self.intake.protocol {
            Protocol::Smtp => 1,
            Protocol::Lmtp => recipients,
        };
        (0..replies).for_each(|_| self.wire.reply(reply));
    }

    /// What the client is told; where nothing more can be stored, the gate is told too.
    fn on_spool_error(&self, error: &SpoolError) -> &'static str {
        let mailbox = &self.intake.mailbox;
        tracing::warn!(mailbox, "take message in: {error}");
        match error {
            SpoolError::Broken { .. } | SpoolError::Sync { .. } => {
                self.gate.stop(error.to_string());
                SPOOL_FAILED
            }
            SpoolError::VolatileFull { .. }
            | SpoolError::FoldersFull { .. }
            | SpoolError::NoRoom { .. } => SPOOL_FULL,
            SpoolError::Io { source, .. }
                if matches!(
                    source.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                SPOOL_FULL
            }
            SpoolError::TooLarge { .. } => TOO_LARGE,
            _ => SPOOL_FAILED,
        }
    }
}

impl<D: Disk> Arriving<D> {
    /// Takes what belongs to the message, and says what it has to be refused for.
    fn take(&mut self, input: &[u8]) -> (usize, Option<&'static str>) {
        let before = self.piece.len();
        // A piece that is full is emptied before the next input, so there is always room.
        let room = input.len().min(PIECE_BYTES_MAX.saturating_sub(before));
        let input = input.get(..room).unwrap_or_default();
        let taken = self.decoder.push(input, &mut self.piece);
        let fresh = self.piece.get(before..).unwrap_or_default();
        self.length += fresh.len() as u64;
        let scanned = self.scanner.push(fresh);
        if self.refusal.is_some() {
            self.piece.clear();
        }
        (taken, matches!(scanned, Err(HeaderTooLong)).then_some(HEADER_TOO_LONG))
    }

    /// The first reason counts. The rest of the message is read and dropped.
    async fn refuse(&mut self, reply: &'static str) {
        self.refusal.get_or_insert(reply);
        self.piece = Vec::new();
        if let Some(taking) = self.taking.take() {
            taking.abandon().await;
        }
    }
}

/// A reply of one line that fits RFC 5321, 4.5.3.1.5, whatever the text is.
fn one_line(code: u16, enhanced: &str, text: &str) -> String {
    /// 512 with CRLF, code and the longest enhanced code.
    const TEXT_BYTES_MAX: usize = 480;
    let plain = text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' });
    let text: String = plain.take(TEXT_BYTES_MAX).collect();
    format!("{code} {enhanced} {text}")
}

/// RFC 3463, 2: class 5, as befits a refusal.
fn is_enhanced(code: &str) -> bool {
    let mut numbers = code.split('.');
    let number = |text: Option<&str>| {
        text.is_some_and(|text| {
            (1..=3).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit())
        })
    };
    numbers.next() == Some("5")
        && number(numbers.next())
        && number(numbers.next())
        && numbers.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_bounded_line() {
        assert_eq!(one_line(550, "5.7.1", "no\r\n250 yés"), "550 5.7.1 no??250 y?s");
        assert!(one_line(550, "5.250.250", &"x".repeat(5_000)).len() <= 510);
    }

    #[test]
    fn enhanced_codes_are_checked() {
        assert!(is_enhanced("5.7.1") && is_enhanced("5.123.999"));
        for wrong in ["", "2.0.0", "5.7", "5.7.1.1", "5.7.1234", "5..1", "5.7.x", "5.7.1 x"] {
            assert!(!is_enhanced(wrong), "{wrong}");
        }
    }
}

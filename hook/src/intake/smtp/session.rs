//! One client's session: what it may say when, and what it is told.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use gantry_mail::{Came, Envelope, Peer, Recipient};
use tokio::time::Instant;

use super::SmtpIntake;
use super::command::{Command, Extensions, Mail, UNKNOWN, XFORWARD_ATTRIBUTES};
use super::receive::SPOOL_FULL;
use super::wire::{Gone, Line, Wire};
use crate::disk::Disk;
use crate::intake::{Admission, Gate};
use crate::release::{ADDED_BYTES_MAX, Protocol};
use crate::spool::Spool;

/// Commands that do nothing (NOOP, RSET, EHLO, HELP, VRFY, XFORWARD) between two messages before they count as wrong.
const IDLE_COMMANDS_MAX: u32 = 100;

/// How long a handshake may take: it is a few kilobytes each way.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);

/// What clients are told while the spool is broken.
const STOPPED: &str = "451 4.3.0 No mail is taken at the moment, try again later";
/// What a draining hook tells its clients.
pub(super) const DRAINING: &str = "421 4.3.2 Service is ending, try again later";

pub(super) struct Session<D: Disk> {
    pub(super) wire: Wire,
    pub(super) intake: Arc<SmtpIntake>,
    pub(super) spool: Arc<Spool<D>>,
    pub(super) gate: Gate,
    pub(super) transaction: Option<Transaction>,
    peer: Peer,
    greeted: bool,
    extensions: Extensions,
    size_max: u64,
    errors: u32,
    idle_commands: u32,
}

/// What MAIL began.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    pub(super) mail: Mail,
    pub(super) recipients: Vec<Recipient>,
    /// RCPTs beyond the limit.
    overshoot: u32,
}

/// Whether the session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Command,
    Close,
}

impl<D: Disk> Session<D> {
    pub(super) fn new(
        wire: Wire,
        address: IpAddr,
        intake: Arc<SmtpIntake>,
        spool: Arc<Spool<D>>,
        gate: Gate,
    ) -> Self {
        Self {
            wire,
            spool,
            gate,
            transaction: None,
            peer: Peer { address: Some(address), ..Peer::default() },
            greeted: false,
            extensions: Extensions::default(),
            size_max: intake.limits.message_bytes_max,
            intake,
            errors: 0,
            idle_commands: 0,
        }
    }

    /// Speaks with the client until either has had enough.
    pub(super) async fn run(mut self) {
        if self.wire.has_input() {
            // RFC 5321, 3.1: a client waits for the greeting. One that does not, is none.
            self.wire.reply("554 5.5.1 You spoke before the greeting");
            return self.wire.close().await;
        }
        let protocol = match self.intake.protocol {
            Protocol::Smtp => "ESMTP",
            Protocol::Lmtp => "LMTP",
        };
        self.wire.reply(&format!("220 {} {protocol} Gantry", self.intake.host_name));
        match self.commands().await {
            Ok(()) => {}
            Err(Gone::TimedOut) => self.wire.reply("421 4.4.2 You were silent for too long"),
            Err(gone @ Gone::Handshake(_)) => {
                let (mailbox, client) = (&self.intake.mailbox, self.peer.address);
                tracing::warn!(mailbox, ?client, "SMTP session ended: {gone}");
            }
            Err(gone) => tracing::debug!("SMTP session ended: {gone}"),
        }
        self.wire.close().await;
    }

    /// Whether a message of this size is too large for us or, as far as is known, for the next hop.
    pub(super) fn is_too_large(&self, size: u64) -> bool {
        size > self.size_max
    }

    /// The envelope of the transaction as it stands; ends the transaction.
    pub(super) fn take_envelope(&mut self) -> Envelope {
        let transaction = self.transaction.take().unwrap_or_default();
        let mut peer = self.peer.clone();
        peer.xforward = std::mem::take(&mut self.peer.xforward);
        self.idle_commands = 0;
        Envelope {
            sender: transaction.mail.sender,
            parameters: transaction.mail.parameters,
            recipients: transaction.recipients,
            peer,
        }
    }

    async fn commands(&mut self) -> Result<(), Gone> {
        loop {
            let deadline = Instant::now() + self.intake.timeouts.command;
            let line = tokio::select! {
                biased;
                line = self.wire.read_line(deadline) => line?,
                () = self.gate.closing() => {
                    self.wire.reply(DRAINING);
                    return Ok(());
                }
            };
            if self.on_line(line).await? == Next::Close {
                return Ok(());
            }
            if self.errors >= self.intake.limits.errors_max {
                self.wire.reply("421 4.7.0 Too many errors");
                return Ok(());
            }
            if self.wire.must_flush() {
                self.wire.flush().await?;
            }
        }
    }

    async fn on_line(&mut self, line: Line) -> Result<Next, Gone> {
        let utf8 = self.transaction.as_ref().is_some_and(|open| open.mail.parameters.smtputf8);
        let command = match line {
            Line::Whole(line) => Command::parse(&line, &self.extensions_now(), utf8),
            Line::TooLong => Err("500 5.5.2 Line too long"),
            Line::NoCr => Err("500 5.5.2 Lines end with CRLF"),
        };
        match command {
            Ok(command) if self.is_too_early(&command) => {
                self.wrong("530 5.7.0 Must issue a STARTTLS command first");
            }
            Ok(Command::StartTls) => return self.on_starttls().await,
            Ok(Command::Data) => return self.on_data().await,
            Ok(Command::Quit) => {
                self.wire.reply("221 2.0.0 Bye");
                return Ok(Next::Close);
            }
            // RFC 2033, 4.1: each protocol has its own greeting and not the other's.
            Ok(Command::Lhlo(_)) if self.intake.protocol == Protocol::Smtp => self.wrong(UNKNOWN),
            Ok(Command::Ehlo(_) | Command::Helo(_)) if self.intake.protocol == Protocol::Lmtp => {
                self.wrong(UNKNOWN);
            }
            Ok(Command::Mail(mail)) => self.on_mail(*mail),
            Ok(Command::Rcpt(recipient)) => self.on_rcpt(*recipient),
            Ok(command) => self.on_idle(command),
            Err(wrong) => self.wrong(wrong),
        }
        Ok(Next::Command)
    }

    /// RFC 3207, 4: where TLS is required, nothing that concerns mail is done before it.
    fn is_too_early(&self, command: &Command) -> bool {
        let required = self.intake.tls.as_ref().is_some_and(|tls| tls.required);
        let concerns_mail = matches!(
            command,
            Command::Mail(_)
                | Command::Rcpt(_)
                | Command::Data
                | Command::Vrfy
                | Command::XForward(_)
        );
        required && concerns_mail && !self.wire.is_encrypted()
    }

    async fn on_starttls(&mut self) -> Result<Next, Gone> {
        let Some(tls) = self.intake.tls.clone() else {
            self.wrong("502 5.5.1 STARTTLS is not offered here");
            return Ok(Next::Command);
        };
        if self.wire.is_encrypted() {
            self.wrong("503 5.5.1 TLS is active already");
            return Ok(Next::Command);
        }
        if self.wire.has_input() {
            // Somebody in between may have put it there, to have it pass for what the client says under TLS.
            self.wire.reply("554 5.5.0 You must wait for the reply to STARTTLS");
            return Ok(Next::Close);
        }
        self.wire.reply("220 2.0.0 Go ahead");
        self.wire.flush().await?;
        let limit = HANDSHAKE_MAX.min(self.intake.timeouts.command);
        self.wire.start_tls(&tls, Instant::now() + limit).await?;
        // RFC 3207, 4.2: what was said in the clear is forgotten.
        self.transaction = None;
        self.peer = Peer { address: self.peer.address, tls: true, ..Peer::default() };
        self.greeted = false;
        self.extensions = Extensions::default();
        Ok(Next::Command)
    }

    /// XFORWARD is taken from those who may, whether or not they said EHLO first; it was offered to them alone.
    fn extensions_now(&self) -> Extensions {
        let may =
            |address: IpAddr| self.intake.xforward_from.iter().any(|net| net.contains(address));
        Extensions { xforward: self.peer.address.is_some_and(may), ..self.extensions }
    }

    fn on_idle(&mut self, command: Command) {
        self.idle_commands += 1;
        if self.idle_commands > IDLE_COMMANDS_MAX {
            self.errors += 1;
        }
        match command {
            Command::Ehlo(name) => self.on_ehlo(name, Came::Esmtp),
            Command::Lhlo(name) => self.on_ehlo(name, Came::Lmtp),
            Command::Helo(name) => {
                self.begin_session(name, Came::Smtp);
                self.extensions = Extensions::default();
                self.wire.reply(&format!("250 {}", self.intake.host_name));
            }
            Command::XForward(attributes) => self.on_xforward(attributes),
            Command::Rset => {
                self.reset();
                self.wire.reply("250 2.0.0 Ok");
            }
            Command::Vrfy => self.wire.reply("252 2.5.2 Send some mail and see"),
            Command::Help => self.wire.reply("214 2.0.0 See RFC 5321"),
            _ => self.wire.reply("250 2.0.0 Ok"),
        }
    }

    fn on_ehlo(&mut self, name: String, came: Came) {
        self.begin_session(name, came);
        let way_out = self.intake.offered.get();
        let offers =
            |with: fn(&crate::release::Capabilities) -> bool| way_out.as_ref().is_none_or(with);
        self.extensions = Extensions {
            size: offers(|way_out| way_out.size.is_some()),
            eight_bit_mime: offers(|way_out| way_out.eight_bit_mime),
            smtputf8: offers(|way_out| way_out.smtputf8),
            dsn: offers(|way_out| way_out.dsn),
            xforward: false,
        };
        let ours = self.intake.limits.message_bytes_max;
        self.size_max = match way_out.as_ref().and_then(|way_out| way_out.size) {
            // What comes out is longer than what came in, and must not be too long for the next hop then.
            Some(theirs @ 1..) => ours.min(theirs.saturating_sub(ADDED_BYTES_MAX).max(1)),
            _ => ours,
        };
        let Extensions { size, eight_bit_mime, smtputf8, dsn, xforward } = self.extensions_now();
        let lines = [
            Some(self.intake.host_name.clone()),
            Some("PIPELINING".into()),
            size.then(|| format!("SIZE {}", self.size_max)),
            eight_bit_mime.then(|| "8BITMIME".into()),
            smtputf8.then(|| "SMTPUTF8".into()),
            dsn.then(|| "DSN".into()),
            (self.intake.tls.is_some() && !self.wire.is_encrypted()).then(|| "STARTTLS".into()),
            xforward.then(|| format!("XFORWARD {}", XFORWARD_ATTRIBUTES.join(" "))),
        ];
        for line in lines.iter().flatten() {
            self.wire.reply(&format!("250-{line}"));
        }
        self.wire.reply("250 ENHANCEDSTATUSCODES");
    }

    /// EHLO and HELO also do what RSET does (RFC 5321, 4.1.4).
    fn begin_session(&mut self, name: String, came: Came) {
        self.reset();
        self.peer.helo = name;
        self.peer.came = came;
        self.greeted = true;
    }

    fn reset(&mut self) {
        self.transaction = None;
        self.peer.xforward.clear();
    }

    fn on_xforward(&mut self, attributes: Vec<(String, String)>) {
        if self.transaction.is_some() {
            return self.wrong("503 5.5.1 XFORWARD stands before MAIL");
        }
        let known = &mut self.peer.xforward;
        for (name, value) in attributes {
            match known.iter_mut().find(|(known, _)| *known == name) {
                Some((_, place)) => *place = value,
                None => known.push((name, value)),
            }
        }
        self.wire.reply("250 2.0.0 Ok");
    }

    fn on_mail(&mut self, mail: Mail) {
        if !self.greeted {
            return self.wrong(match self.intake.protocol {
                Protocol::Smtp => "503 5.5.1 Say EHLO first",
                Protocol::Lmtp => "503 5.5.1 Say LHLO first",
            });
        }
        if self.transaction.is_some() {
            return self.wrong("503 5.5.1 There is a transaction already");
        }
        match self.gate.admission() {
            Admission::Open => {}
            Admission::Stopped { .. } => return self.wire.reply(STOPPED),
            Admission::Draining | Admission::Emptying => {
                return self.wire.reply("451 4.3.2 Service is ending");
            }
        }
        if mail.size.is_some_and(|size| self.is_too_large(size)) {
            return self.wrong("552 5.3.4 Message too large");
        }
        if let Err(error) = self.spool.room(mail.size.unwrap_or(0)) {
            tracing::debug!(mailbox = self.intake.mailbox, "{error}");
            return self.wire.reply(SPOOL_FULL);
        }
        self.transaction = Some(Transaction { mail, ..Transaction::default() });
        self.wire.reply("250 2.1.0 Ok");
    }

    fn on_rcpt(&mut self, recipient: Recipient) {
        let max = usize::from(self.intake.limits.recipients_max);
        let Some(transaction) = &mut self.transaction else {
            return self.wrong("503 5.5.1 MAIL stands before RCPT");
        };
        if transaction.recipients.len() < max {
            transaction.recipients.push(recipient);
            return self.wire.reply("250 2.1.5 Ok");
        }
        // An MTA sends the rest in another transaction (RFC 5321, 4.5.3.1.10), so some overshoot is no mistake.
        transaction.overshoot += 1;
        if transaction.overshoot > u32::from(self.intake.limits.recipients_max) {
            self.errors += 1;
        }
        self.wire.reply("452 4.5.3 Too many recipients");
    }

    async fn on_data(&mut self) -> Result<Next, Gone> {
        if self.wire.has_input() {
            // RFC 2920, 3.1: DATA is the last of its group. What stands behind it may be meant as a message or as
            // commands, and guessing wrong would let the one pass for the other.
            self.wire.reply("554 5.5.0 You must wait for the reply to DATA");
            return Ok(Next::Close);
        }
        match &self.transaction {
            None => self.wrong("503 5.5.1 MAIL and RCPT stand before DATA"),
            Some(transaction) if transaction.recipients.is_empty() => {
                self.wrong(match self.intake.protocol {
                    Protocol::Smtp => "554 5.5.1 There are no valid recipients",
                    // RFC 2033, 4.2.
                    Protocol::Lmtp => "503 5.5.1 There are no valid recipients",
                });
            }
            Some(_) => return self.receive().await,
        }
        Ok(Next::Command)
    }

    fn wrong(&mut self, reply: &str) {
        self.errors += 1;
        self.wire.reply(reply);
    }
}

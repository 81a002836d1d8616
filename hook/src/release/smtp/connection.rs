//! One connection to the next hop: every wait has its end, and what is read is bounded.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::auth::PasswordError;
use super::reply::{NoReply, Partial, Reply};
use super::{Protocol, SmtpReleaseConfig};
use crate::release::Capabilities;
use crate::tls::{ClientTls, Stream, Unread};

/// Longest line of a reply that is read at once. RFC 5321, 4.5.3.1.5 says 512.
const REPLY_LINE_BYTES_MAX: u64 = 4 * 1024;
/// Commands sent in one group (RFC 2920): small enough that the replies fit any socket's buffer, so that neither side
/// waits for the other to read.
const GROUP_BYTES_MAX: usize = 8 * 1024;
/// How long we wait for the reason when the next hop stops reading in the middle of a message.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// How long a handshake may take: it is a few kilobytes each way.
const HANDSHAKE_MAX: Duration = Duration::from_secs(60);
const STARTTLS: &str = "begin TLS with the next hop";

/// The connection can no longer be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum Lost {
    #[error("{doing}: {source}")]
    Io { doing: &'static str, source: io::Error },
    #[error("{doing}: no answer in time")]
    TimedOut { doing: &'static str },
    #[error("{doing}: the next hop closed the connection")]
    Closed { doing: &'static str },
    #[error("{doing}: {source}")]
    NoReply { doing: &'static str, source: NoReply },
    /// It said so itself: 421, or a greeting that is none.
    #[error("{doing}: {reply}")]
    SentAway { doing: &'static str, reply: String },
    /// TLS was tried and did not come about.
    #[error("{STARTTLS}: {0}")]
    Handshake(String),
    #[error(
        "{STARTTLS}: it does not offer it, and with tls = \"required\" no mail goes in the clear"
    )]
    NoTls,
    #[error("log in at the next hop: {0}")]
    Login(String),
    #[error(transparent)]
    Password(#[from] PasswordError),
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<Stream>,
    pub(super) capabilities: Capabilities,
    /// Transactions begun on it.
    pub(super) transactions: u32,
    /// The end of everything that is done with it now.
    pub(super) deadline: Instant,
}

impl Connection {
    /// Connects and greets: EHLO, or HELO where that is not known. Encrypts and logs in as configured.
    pub(super) async fn open(config: &SmtpReleaseConfig, deadline: Instant) -> Result<Self, Lost> {
        match Self::try_open(config, config.tls.as_ref(), deadline).await {
            // Whoever cannot agree on TLS would have got the mail in the clear if it had not offered it.
            Err(Lost::Handshake(reason)) if config.tls.as_ref().is_some_and(|t| !t.required) => {
                tracing::warn!(next_hop = %config.address, reason, "no TLS: mail goes in the clear");
                Self::try_open(config, None, deadline).await
            }
            opened => opened,
        }
    }

    async fn try_open(
        config: &SmtpReleaseConfig,
        tls: Option<&ClientTls>,
        deadline: Instant,
    ) -> Result<Self, Lost> {
        const DOING: &str = "connect to the next hop";
        let timeouts = &config.timeouts;
        let address = (config.address.host.as_str(), config.address.port);
        let end = deadline.min(Instant::now() + timeouts.connect);
        let stream = timeout_at(end, TcpStream::connect(address))
            .await
            .map_err(|_| Lost::TimedOut { doing: DOING })?
            .map_err(|source| Lost::Io { doing: DOING, source })?;
        // Every write is a whole group of commands or a large piece of the message.
        let _ = stream.set_nodelay(true);
        let mut connection = Self {
            stream: BufReader::new(Stream::Plain(stream)),
            capabilities: Capabilities::default(),
            transactions: 0,
            deadline,
        };
        let greeting = connection.reply("wait for the greeting", timeouts.command).await?;
        if greeting.code != 220 {
            // Also 554: the next hop may not know us yet, and mail is not returned for a mistake in our own house.
            return Err(Lost::SentAway {
                doing: "wait for the greeting",
                reply: greeting.to_line(),
            });
        }
        connection.greet(config).await?;
        if let Some(tls) = tls {
            connection.start_tls(tls, config).await?;
        }
        if let Some(credentials) = &config.credentials {
            connection.log_in(credentials, config.timeouts.command).await?;
        }
        Ok(connection)
    }

    /// RFC 3207. In the clear it stays only where that may be.
    async fn start_tls(&mut self, tls: &ClientTls, config: &SmtpReleaseConfig) -> Result<(), Lost> {
        if !self.capabilities.starttls {
            return if tls.required { Err(Lost::NoTls) } else { Ok(()) };
        }
        let reply = self.command("STARTTLS\r\n", STARTTLS, config.timeouts.command).await?;
        if reply.code != 220 {
            return match tls.required {
                true => Err(Lost::SentAway { doing: STARTTLS, reply: reply.to_line() }),
                false => Ok(()),
            };
        }
        if !self.stream.buffer().is_empty() {
            // Somebody in between may have put it there, to have it pass for what the next hop says under TLS.
            let reason = "the next hop said more than its reply to STARTTLS".to_owned();
            return Err(Lost::Handshake(reason));
        }
        let Some(stream) = self.stream.get_mut().take_plain() else {
            return Err(Lost::Closed { doing: STARTTLS });
        };
        let limit = HANDSHAKE_MAX.min(config.timeouts.command);
        let end = self.deadline.min(Instant::now() + limit);
        let stream = timeout_at(end, tls.connect(stream))
            .await
            .map_err(|_| Lost::Handshake("no answer in time".to_owned()))?
            .map_err(|error| Lost::Handshake(error.to_string()))?;
        self.stream = BufReader::new(stream);
        // RFC 3207, 4.2: what it offered in the clear counts no more.
        self.capabilities = Capabilities::default();
        self.greet(config).await
    }

    async fn greet(&mut self, config: &SmtpReleaseConfig) -> Result<(), Lost> {
        let (host_name, limit) = (&config.identity.host_name, config.timeouts.command);
        let (hello, doing) = match config.protocol {
            Protocol::Smtp => ("EHLO", "say EHLO"),
            Protocol::Lmtp => ("LHLO", "say LHLO"),
        };
        let ehlo = self.command(&format!("{hello} {host_name}\r\n"), doing, limit).await?;
        if ehlo.is_positive() {
            self.capabilities = Capabilities::parse(ehlo.lines.iter().map(String::as_str));
            return Ok(());
        }
        let helo = match ehlo.is_permanent() && config.protocol == Protocol::Smtp {
            true => self.command(&format!("HELO {host_name}\r\n"), "say HELO", limit).await?,
            false => ehlo,
        };
        match helo.is_positive() {
            true => Ok(()),
            false => Err(Lost::SentAway { doing: "greet the next hop", reply: helo.to_line() }),
        }
    }

    /// Sends one command and waits for its reply.
    pub(super) async fn command(
        &mut self,
        command: &str,
        doing: &'static str,
        limit: Duration,
    ) -> Result<Reply, Lost> {
        self.write(command.as_bytes(), doing, limit).await?;
        self.reply(doing, limit).await
    }

    /// How many of these commands go out before a reply is waited for.
    pub(super) fn group_length(&self, commands: &[String]) -> usize {
        let mut bytes = 0;
        let fits = commands.iter().take_while(|command| {
            bytes += command.len();
            bytes <= GROUP_BYTES_MAX
        });
        let fits = fits.count();
        if self.capabilities.pipelining { fits.max(1) } else { 1 }
    }

    /// Writes all of it within `limit`.
    pub(super) async fn write(
        &mut self,
        bytes: &[u8],
        doing: &'static str,
        limit: Duration,
    ) -> Result<(), Lost> {
        let end = self.deadline.min(Instant::now() + limit);
        let stream = self.stream.get_mut();
        let write = async {
            stream.write_all(bytes).await?;
            // TLS keeps what the socket did not take at once.
            stream.flush().await
        };
        timeout_at(end, write)
            .await
            .map_err(|_| Lost::TimedOut { doing })?
            .map_err(|source| Lost::Io { doing, source })
    }

    /// Waits for the next reply. 421 ends the connection, whatever it answers (RFC 5321, 3.8).
    pub(super) async fn reply(
        &mut self,
        doing: &'static str,
        limit: Duration,
    ) -> Result<Reply, Lost> {
        let reply = self.any_reply(doing, limit).await?;
        match reply.code {
            421 => Err(Lost::SentAway { doing, reply: reply.to_line() }),
            _ => Ok(reply),
        }
    }

    /// As [`Connection::reply`], with 421 as a reply like others.
    pub(super) async fn any_reply(
        &mut self,
        doing: &'static str,
        limit: Duration,
    ) -> Result<Reply, Lost> {
        let end = self.deadline.min(Instant::now() + limit);
        let mut partial = Partial::default();
        let mut line = Vec::new();
        loop {
            line.clear();
            let mut bounded = (&mut self.stream).take(REPLY_LINE_BYTES_MAX);
            let read = timeout_at(end, bounded.read_until(b'\n', &mut line))
                .await
                .map_err(|_| Lost::TimedOut { doing })?
                .map_err(|source| Lost::Io { doing, source })?;
            if !line.ends_with(b"\n") {
                return Err(match read as u64 == REPLY_LINE_BYTES_MAX {
                    true => Lost::NoReply { doing, source: NoReply::TooLong },
                    false => Lost::Closed { doing },
                });
            }
            match partial.push(&line) {
                Ok(Some(reply)) => return Ok(reply),
                Ok(None) => {}
                Err(source) => return Err(Lost::NoReply { doing, source }),
            }
        }
    }

    /// What the next hop said before it stopped reading, if it said anything.
    pub(super) async fn last_words(&mut self) -> Option<Reply> {
        self.any_reply("listen to the next hop's last words", LAST_WORDS).await.ok()
    }

    /// Whether an idle connection is still open and silent. What the next hop says unasked is a farewell.
    pub(super) fn is_quiet(&mut self) -> bool {
        self.stream.buffer().is_empty() && self.stream.get_mut().unread() == Unread::Nothing
    }

    /// Whether a password may be said: nobody but the next hop that was meant can hear it.
    pub(super) fn is_confidential(&self, config_allows_loopback: bool) -> bool {
        let stream = self.stream.get_ref();
        stream.is_encrypted() || config_allows_loopback && stream.is_loopback()
    }

    /// Says goodbye without waiting for an answer.
    pub(super) fn quit(mut self) {
        self.stream.get_mut().say_last(b"QUIT\r\n");
    }
}

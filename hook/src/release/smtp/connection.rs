//! One connection to the next hop: every wait has its end, and what is read is bounded.

use std::io;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::reply::{NoReply, Partial, Reply};
use super::{Protocol, SmtpReleaseConfig};
use crate::release::Capabilities;

/// Longest line of a reply that is read at once. RFC 5321, 4.5.3.1.5 says 512.
const REPLY_LINE_BYTES_MAX: u64 = 4 * 1024;
/// Commands sent in one group (RFC 2920): small enough that the replies fit any socket's buffer, so that neither side
/// waits for the other to read.
const GROUP_BYTES_MAX: usize = 8 * 1024;
/// How long we wait for the reason when the next hop stops reading in the middle of a message.
const LAST_WORDS: Duration = Duration::from_secs(5);

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
}

#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<TcpStream>,
    pub(super) capabilities: Capabilities,
    /// Transactions begun on it.
    pub(super) transactions: u32,
    /// The end of everything that is done with it now.
    pub(super) deadline: Instant,
}

impl Connection {
    /// Connects and greets: EHLO, or HELO where that is not known.
    pub(super) async fn open(config: &SmtpReleaseConfig, deadline: Instant) -> Result<Self, Lost> {
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
            stream: BufReader::new(stream),
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
        Ok(connection)
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
        timeout_at(end, self.stream.get_mut().write_all(bytes))
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
    pub(super) fn is_quiet(&self) -> bool {
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        self.stream.buffer().is_empty()
            && matches!(
                rustix::net::recv(self.stream.get_ref(), &mut byte, flags),
                Err(Errno::WOULDBLOCK)
            )
    }

    /// Says goodbye without waiting for an answer.
    pub(super) fn quit(self) {
        let _ = self.stream.get_ref().try_write(b"QUIT\r\n");
    }
}

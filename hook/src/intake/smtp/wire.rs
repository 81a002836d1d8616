//! The connection to a client: bounded lines in, replies out, every wait with its end.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};

use super::command::COMMAND_BYTES_MAX;
use crate::tls::{ServerTls, Stream, Unread};

/// Bytes read ahead of what has been handled; holds several of the longest command lines.
const INPUT_BYTES: usize = 16 * 1024;
/// The same while a message comes in faster than so little takes: fewer reads, for as much more memory a connection.
const MESSAGE_INPUT_BYTES: usize = 64 * 1024;
/// Replies kept for one write while a client pipelines (RFC 2920, 3.2).
const OUTPUT_BYTES_MAX: usize = 8 * 1024;
/// How long, and for how many bytes, a client that is being sent away may still speak. Closing with unread input resets
/// the connection, which can take our last reply away from it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES_MAX: usize = 256 * 1024;

/// Why a session cannot go on.
#[derive(Debug, thiserror::Error)]
pub(super) enum Gone {
    #[error("the client closed the connection")]
    Closed,
    #[error("the client was silent for too long")]
    TimedOut,
    #[error("TLS could not be agreed on: {0}")]
    Handshake(io::Error),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
}

/// What came as a command line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its CRLF.
    Whole(Vec<u8>),
    /// Longer than [`COMMAND_BYTES_MAX`]; it was read to its end.
    TooLong,
    /// It ended with LF alone.
    NoCr,
}

#[derive(Debug)]
pub(super) struct Wire {
    stream: Stream,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    output: Vec<u8>,
    write_timeout: Duration,
}

impl Wire {
    pub(super) fn new(stream: TcpStream, write_timeout: Duration) -> Self {
        Self {
            stream: Stream::Plain(stream),
            input: vec![0; INPUT_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            output: Vec::new(),
            write_timeout,
        }
    }

    /// What has been read and not yet been consumed.
    pub(super) fn buffered(&self) -> &[u8] {
        self.input.get(self.start..self.end).unwrap_or_default()
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
    }

    /// Whether the client has sent something that nobody has read yet.
    pub(super) fn has_input(&mut self) -> bool {
        !self.buffered().is_empty() || self.stream.unread() == Unread::Something
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.stream.is_encrypted()
    }

    /// Encrypts from here on. Whatever the client said before in the clear must have been read: what comes now is the
    /// handshake, or the session is over.
    pub(super) async fn start_tls(
        &mut self,
        tls: &ServerTls,
        deadline: Instant,
    ) -> Result<(), Gone> {
        let stream = self.stream.take_plain().ok_or(Gone::Closed)?;
        let accepted = timeout_at(deadline, tls.accept(stream)).await;
        self.stream = accepted.map_err(|_| Gone::TimedOut)?.map_err(Gone::Handshake)?;
        Ok(())
    }

    /// Reads the next command line; sends the replies that wait as soon as the client has nothing more to say.
    pub(super) async fn read_line(&mut self, deadline: Instant) -> Result<Line, Gone> {
        let mut too_long = false;
        loop {
            let found = self.buffered().iter().position(|&byte| byte == b'\n');
            let length = found.map_or(self.buffered().len(), |at| at + 1);
            too_long |= length > COMMAND_BYTES_MAX;
            if found.is_some() {
                let line = self.buffered().get(..length).unwrap_or_default().to_vec();
                self.consume(length);
                return Ok(match line.strip_suffix(b"\r\n") {
                    _ if too_long => Line::TooLong,
                    Some(line) => Line::Whole(line.to_vec()),
                    None => Line::NoCr,
                });
            }
            if too_long {
                self.consume(length);
            }
            self.flush().await?;
            self.fill(deadline).await?;
        }
    }

    /// Waits for more input. There must be room: a caller consumes what it gets.
    pub(super) async fn fill(&mut self, deadline: Instant) -> Result<(), Gone> {
        timeout_at(deadline, self.fill_untimed()).await.map_err(|_| Gone::TimedOut)?
    }

    /// Waits for more of a message; all that came before is consumed. Makes room for more where the last read filled it.
    pub(super) async fn fill_message(&mut self, deadline: Instant) -> Result<(), Gone> {
        if self.end == INPUT_BYTES && self.input.len() == INPUT_BYTES && self.buffered().is_empty()
        {
            self.input = vec![0; MESSAGE_INPUT_BYTES].into_boxed_slice();
            (self.start, self.end) = (0, 0);
        }
        self.fill(deadline).await
    }

    /// Waits until the client is gone, and keeps what it pipelines meanwhile, up to the bound.
    pub(super) async fn gone(&mut self) -> Gone {
        loop {
            if self.buffered().len() == self.input.len() {
                std::future::pending::<()>().await;
            }
            if let Err(gone) = self.fill_untimed().await {
                return gone;
            }
        }
    }

    /// Queues a reply: lines without their final CRLF.
    pub(super) fn reply(&mut self, reply: &str) {
        self.output.extend_from_slice(reply.as_bytes());
        self.output.extend_from_slice(b"\r\n");
    }

    /// Whether so many replies wait that they have to be sent now.
    pub(super) fn must_flush(&self) -> bool {
        self.output.len() >= OUTPUT_BYTES_MAX
    }

    /// Sends what waits. Dropped in between, it loses and repeats nothing.
    pub(super) async fn flush(&mut self) -> Result<(), Gone> {
        while !self.output.is_empty() {
            let write = timeout(self.write_timeout, self.stream.write(&self.output)).await;
            match write.map_err(|_| Gone::TimedOut)?? {
                0 => return Err(Gone::Closed),
                written => drop(self.output.drain(..written)),
            }
        }
        // TLS keeps what the socket did not take at once.
        timeout(self.write_timeout, self.stream.flush()).await.map_err(|_| Gone::TimedOut)??;
        Ok(())
    }

    /// Sends what waits and closes so that the client can read it.
    pub(super) async fn close(mut self) {
        if self.flush().await.is_err() || self.stream.shutdown().await.is_err() {
            return;
        }
        let mut left = LINGER_BYTES_MAX;
        let drained = async {
            while let Ok(count @ 1..) = self.stream.read(&mut self.input).await {
                left = left.saturating_sub(count);
                if left == 0 {
                    break;
                }
            }
        };
        // A client that neither reads nor closes is left to the kernel.
        let _ = timeout(LINGER, drained).await;
    }

    async fn fill_untimed(&mut self) -> Result<(), Gone> {
        if self.start > 0 {
            self.input.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let room = self.input.get_mut(self.end..).unwrap_or_default();
        match self.stream.read(room).await? {
            0 => Err(Gone::Closed),
            count => {
                self.end += count;
                Ok(())
            }
        }
    }
}

//! One connection to clamd, as clamav-client drives it: send everything, then read the reply.
//!
//! clamd closes a connection on which more comes than it takes. Writing then fails while the reply that says so can
//! still be read, so here a failed write ends the writing alone. And a reply ends at its zero byte: waiting for the
//! connection's end could only lose it to a reset.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use clamav_client::tokio::TransportProtocol;
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::ClamdAddress;

/// Longest reply, in bytes: a path and a signature's name have some hundred.
const REPLY_BYTES_MAX: usize = 4 * 1024;

/// Bytes put together before they go out, so that a common message with its framing is one write.
const WRITE_BUFFER_BYTES: usize = 16 * 1024;

/// Says how to connect, and afterwards how it went. One for each connection; clones share.
#[derive(Clone)]
pub(super) struct Conversation {
    address: ClamdAddress,
    connect_timeout: Duration,
    events: Arc<Events>,
}

/// What an [`io::Error`] alone does not tell.
#[derive(Default)]
struct Events {
    connected: AtomicBool,
    cut_short: AtomicBool,
}

impl Conversation {
    pub(super) fn new(address: &ClamdAddress, connect_timeout: Duration) -> Self {
        Self { address: address.clone(), connect_timeout, events: Arc::default() }
    }

    /// Whether clamd, or the system on its behalf, took the connection.
    pub(super) fn connected(&self) -> bool {
        self.events.connected.load(Ordering::Relaxed)
    }

    /// Whether clamd stopped taking before all was sent.
    pub(super) fn cut_short(&self) -> bool {
        self.events.cut_short.load(Ordering::Relaxed)
    }

    async fn open(&self) -> io::Result<Box<dyn Socket>> {
        match &self.address {
            ClamdAddress::Tcp(address) => {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            ClamdAddress::Unix(path) => Ok(Box::new(tokio::net::UnixStream::connect(path).await?)),
            #[cfg(not(unix))]
            ClamdAddress::Unix(_) => {
                Err(io::Error::new(io::ErrorKind::Unsupported, "there are no unix sockets here"))
            }
        }
    }
}

impl TransportProtocol for Conversation {
    type Stream = BufWriter<Wire>;

    async fn connect(&self) -> io::Result<Self::Stream> {
        let socket = timeout(self.connect_timeout, self.open()).await.map_err(|_elapsed| {
            let text = format!("no connection within {:?}", self.connect_timeout);
            io::Error::new(io::ErrorKind::TimedOut, text)
        })??;
        self.events.connected.store(true, Ordering::Relaxed);
        let wire = Wire { socket, events: self.events.clone(), reply_bytes: 0, reply_ended: false };
        Ok(BufWriter::with_capacity(WRITE_BUFFER_BYTES, wire))
    }
}

trait Socket: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Socket for T {}

/// The connection itself.
pub(super) struct Wire {
    socket: Box<dyn Socket>,
    events: Arc<Events>,
    reply_bytes: usize,
    reply_ended: bool,
}

impl Wire {
    /// Turns "the other side takes no more" into "written, whatever it was".
    fn ended<T>(&self, result: io::Result<T>, written: T) -> io::Result<T> {
        match result {
            Err(error) if is_end(&error) => {
                self.events.cut_short.store(true, Ordering::Relaxed);
                Ok(written)
            }
            other => other,
        }
    }

    fn has_ended(&self) -> bool {
        self.events.cut_short.load(Ordering::Relaxed)
    }
}

fn is_end(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.has_ended() {
            return Poll::Ready(Ok(bytes.len()));
        }
        let result = ready!(Pin::new(&mut self.socket).poll_write(context, bytes));
        Poll::Ready(self.ended(result, bytes.len()))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_ended() {
            return Poll::Ready(Ok(()));
        }
        let result = ready!(Pin::new(&mut self.socket).poll_flush(context));
        Poll::Ready(self.ended(result, ()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.reply_ended {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        let new = buffer.filled().get(before..).unwrap_or_default();
        let ended = new.contains(&0);
        self.reply_bytes += new.len();
        if self.reply_bytes > REPLY_BYTES_MAX {
            // A read that fails must not have filled anything.
            buffer.set_filled(before);
            let text = format!("the reply is longer than {REPLY_BYTES_MAX} bytes");
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, text)));
        }
        self.reply_ended = ended;
        Poll::Ready(Ok(()))
    }
}

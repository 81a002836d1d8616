//! A connection that STARTTLS may have encrypted.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use rustix::net::RecvFlags;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Client(Box<tokio_rustls::client::TlsStream<TcpStream>>),
    Server(Box<tokio_rustls::server::TlsStream<TcpStream>>),
    /// The handshake is under way, or has failed: nothing can be said any more.
    Gone,
}

/// What may lie unread on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unread {
    Nothing,
    Something,
    /// The connection has ended or is broken.
    Ended,
}

impl Stream {
    /// The connection under a stream that is in the clear; the stream is [`Stream::Gone`] afterwards.
    pub(crate) fn take_plain(&mut self) -> Option<TcpStream> {
        match std::mem::replace(self, Self::Gone) {
            Self::Plain(stream) => Some(stream),
            _ => None,
        }
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self, Self::Client(_) | Self::Server(_))
    }

    pub(crate) fn is_loopback(&self) -> bool {
        let peer = self.tcp().and_then(|stream| stream.peer_addr().ok());
        peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
    }

    /// Whether the other side has said something that nobody has read yet. Asks the socket itself, since the runtime learns
    /// of input only later. What TLS says for itself counts, too.
    pub(crate) fn unread(&mut self) -> Unread {
        let decrypted = match self {
            Self::Plain(_) => Ok(0),
            Self::Client(stream) => {
                let state = stream.get_mut().1.process_new_packets();
                state.map(|state| state.plaintext_bytes_to_read())
            }
            Self::Server(stream) => {
                let state = stream.get_mut().1.process_new_packets();
                state.map(|state| state.plaintext_bytes_to_read())
            }
            Self::Gone => return Unread::Ended,
        };
        match decrypted {
            Ok(0) => {}
            Ok(_) => return Unread::Something,
            Err(_) => return Unread::Ended,
        }
        let mut byte = [0_u8; 1];
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        match self.tcp().map(|stream| rustix::net::recv(stream, &mut byte, flags)) {
            Some(Err(Errno::WOULDBLOCK)) => Unread::Nothing,
            Some(Ok((_, 1..))) => Unread::Something,
            _ => Unread::Ended,
        }
    }

    /// Writes a few last bytes as far as that goes without waiting.
    pub(crate) fn say_last(&mut self, bytes: &[u8]) {
        let _ = match self {
            Self::Plain(stream) => stream.try_write(bytes).map(drop),
            Self::Client(stream) => {
                let (tcp, session) = stream.get_mut();
                let said = session.writer().write_all(bytes);
                session.send_close_notify();
                said.and_then(|()| session.write_tls(&mut AtOnce(tcp)).map(drop))
            }
            Self::Server(_) | Self::Gone => Ok(()),
        };
    }

    fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Plain(stream) => Some(stream),
            Self::Client(stream) => Some(stream.get_ref().0),
            Self::Server(stream) => Some(stream.get_ref().0),
            Self::Gone => None,
        }
    }
}

/// Writes what the socket takes without waiting.
struct AtOnce<'a>(&'a TcpStream);

impl Write for AtOnce<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Client(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Server(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Client(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Server(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Client(stream) => Pin::new(stream).poll_flush(context),
            Self::Server(stream) => Pin::new(stream).poll_flush(context),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Client(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Server(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Gone => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

//! Frames and message bodies on QUIC streams.

use std::io::{self, Read};
use std::marker::PhantomData;

use bytes::Bytes;
use gantry_protocol::frame::{FRAME_HEADER_BYTES, Frame, FrameError, FrameHeader, decode, encode};
use gantry_protocol::id::Digest;
use quinn::{ReadError, VarInt, WriteError};
use ring::digest::{Context, SHA256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::link::Closed;

/// Bytes read or written at a time: large enough that the cost of a step does not show, small beside the windows.
const PIECE_BYTES: usize = 64 * 1024;

/// The reset code of a body whose source turned out other than said.
const RESET_BAD_SOURCE: u32 = 1;

/// How a stream failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    #[error("the peer broke the protocol: {0}")]
    Frame(#[from] FrameError),
    #[error("the stream ended within a frame")]
    FrameCut,
    #[error("the body ended after {got} bytes; {length} were said")]
    BodyCut { got: u64, length: u64 },
    #[error("more bytes came after the last frame or body")]
    TooLong,
    #[error("the body's SHA-256 is {got}; {said} was said")]
    DigestMismatch { said: Digest, got: Digest },
    /// What we were to send is not what we said it would be; the stream was reset.
    #[error("read the body to send: {reason}")]
    Source { reason: String },
    /// What came could not be written where it was to go.
    #[error("write the received body: {reason}")]
    Sink { reason: String },
    #[error("the peer reset the stream (code {code})")]
    Reset { code: u64 },
    #[error("the peer stopped reading the stream (code {code})")]
    Stopped { code: u64 },
    /// This side has finished or reset it before.
    #[error("the stream is closed on this side")]
    Finished,
    #[error("the link is gone: {0}")]
    LinkLost(Closed),
}

impl StreamError {
    /// Whether the peer is to blame: its link is to be closed.
    pub fn is_misbehaviour(&self) -> bool {
        matches!(
            self,
            Self::Frame(_)
                | Self::FrameCut
                | Self::BodyCut { .. }
                | Self::TooLong
                | Self::DigestMismatch { .. }
        )
    }
}

impl From<ReadError> for StreamError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Reset(code) => Self::Reset { code: code.into_inner() },
            ReadError::ConnectionLost(error) => Self::LinkLost(Closed::from(error)),
            ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Self::Finished,
        }
    }
}

impl From<WriteError> for StreamError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Stopped(code) => Self::Stopped { code: code.into_inner() },
            WriteError::ConnectionLost(error) => Self::LinkLost(Closed::from(error)),
            WriteError::ClosedStream | WriteError::ZeroRttRejected => Self::Finished,
        }
    }
}

/// The sending half of a stream that carries `F`. Dropped without [`Self::finish`], it resets the stream, so that what was cut
/// short never looks whole.
#[derive(Debug)]
pub struct FrameSender<F> {
    stream: quinn::SendStream,
    /// Of the frame at hand, what the stream has not taken yet.
    pending: Bytes,
    finished: bool,
    frames: PhantomData<fn(F)>,
}

impl<F: Frame> FrameSender<F> {
    pub(crate) fn new(stream: quinn::SendStream) -> Self {
        Self { stream, pending: Bytes::new(), finished: false, frames: PhantomData }
    }

    /// Sends a frame; waits while the peer does not read. May be cancelled: the frame is then completed before
    /// whatever is sent next.
    ///
    /// # Errors
    /// [`StreamError::Frame`] where the frame is over the protocol's bounds (nothing is sent then), and what happens to streams.
    pub async fn send(&mut self, frame: &F) -> Result<(), StreamError> {
        self.flush().await?;
        self.pending = Bytes::from(encode(frame)?);
        self.flush().await
    }

    /// Sends bytes read from `reader` as a body; see [`Self::body`]. The reader must end after `length` bytes.
    ///
    /// # Errors
    /// [`StreamError::Source`] where the reader fails or has other bytes than said; the stream is reset then.
    pub async fn send_body(
        &mut self,
        reader: &mut (impl AsyncRead + Unpin),
        length: u64,
        digest: Digest,
    ) -> Result<(), StreamError> {
        let mut body = self.body(length, digest);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            let read = match reader.read(&mut piece).await {
                Ok(0) => return body.end().await,
                Ok(read) => read,
                Err(error) => return Err(body.abandon(error.to_string())),
            };
            body.write(Bytes::copy_from_slice(piece.get(..read).unwrap_or_default())).await?;
        }
    }

    /// [`Self::send_body`] for a reader that blocks, such as a file. Each piece is read on tokio's threads for blocking
    /// work; one piece is in memory at a time.
    ///
    /// # Errors
    /// As [`Self::send_body`].
    pub async fn send_body_blocking<R: Read + Send + 'static>(
        &mut self,
        mut reader: R,
        length: u64,
        digest: Digest,
    ) -> Result<(), StreamError> {
        let mut body = self.body(length, digest);
        loop {
            let read = tokio::task::spawn_blocking(move || {
                let piece = read_piece(&mut reader);
                (reader, piece)
            });
            let piece = match read.await {
                Ok((again, Ok(piece))) => {
                    reader = again;
                    piece
                }
                Ok((_, Err(error))) => return Err(body.abandon(error.to_string())),
                Err(error) => return Err(body.abandon(error.to_string())),
            };
            if piece.is_empty() {
                return body.end().await;
            }
            body.write(Bytes::from(piece)).await?;
        }
    }

    /// Begins a body of `length` bytes with this SHA-256, behind the frame that has told the peer both.
    pub fn body(&mut self, length: u64, digest: Digest) -> BodyWriter<'_, F> {
        let verification = Some((Context::new(&SHA256), digest));
        BodyWriter { sender: self, length, sent: 0, verification }
    }

    /// [`Self::body`] for a caller whose source compares its bytes with their digest itself, such as a hook's spool: they
    /// are not hashed a second time. The caller gives the last piece only after that comparison. The length is checked
    /// as ever, and the peer compares the digest.
    pub fn verified_body(&mut self, length: u64) -> BodyWriter<'_, F> {
        BodyWriter { sender: self, length, sent: 0, verification: None }
    }

    /// Ends the stream cleanly: nothing more will come from this side.
    ///
    /// # Errors
    /// [`StreamError::Finished`] where it has ended before or the last frame was not sent whole.
    pub fn finish(&mut self) -> Result<(), StreamError> {
        if !self.pending.is_empty() {
            return Err(StreamError::Finished);
        }
        self.stream.finish().map_err(|_| StreamError::Finished)?;
        self.finished = true;
        Ok(())
    }

    /// Ends the stream so that the peer does not take what came for the whole.
    pub fn reset(&mut self, code: u32) {
        // It fails only where the stream has ended already.
        let _ = self.stream.reset(VarInt::from_u32(code));
    }

    /// Waits until the peer has got all up to [`Self::finish`], or has stopped reading, or the link is gone.
    ///
    /// # Errors
    /// [`StreamError::Stopped`] or [`StreamError::LinkLost`].
    pub async fn delivered(&mut self) -> Result<(), StreamError> {
        match self.stream.stopped().await {
            Ok(None) => Ok(()),
            Ok(Some(code)) => Err(StreamError::Stopped { code: code.into_inner() }),
            Err(quinn::StoppedError::ConnectionLost(error)) => {
                Err(StreamError::LinkLost(Closed::from(error)))
            }
            Err(quinn::StoppedError::ZeroRttRejected) => Err(StreamError::Finished),
        }
    }

    /// Among the streams of a link, those with a higher priority are served first. 0 unless set.
    pub(crate) fn set_priority(&self, priority: i32) {
        // It fails only where the stream has ended, and then it does not matter.
        let _ = self.stream.set_priority(priority);
    }

    /// What no sender of ours sends.
    #[cfg(test)]
    #[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
    pub(crate) async fn write_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    async fn flush(&mut self) -> Result<(), StreamError> {
        while !self.pending.is_empty() {
            // Takes what fits off the front, without a copy.
            self.stream.write_chunks(std::slice::from_mut(&mut self.pending)).await?;
        }
        Ok(())
    }
}

impl<F> Drop for FrameSender<F> {
    fn drop(&mut self) {
        if !self.finished {
            // quinn would finish a stream that is dropped, and what was cut short would look whole.
            let _ = self.stream.reset(VarInt::from_u32(0));
        }
    }
}

/// A body on its way out.
pub struct BodyWriter<'a, F> {
    sender: &'a mut FrameSender<F>,
    length: u64,
    sent: u64,
    /// What the bytes come to so far, and what they have to come to; `None` where their source looks after that.
    verification: Option<(Context, Digest)>,
}

impl<F: Frame> BodyWriter<'_, F> {
    /// Sends a piece; waits while the peer does not read. Must not be cancelled and gone on with: reset the stream instead.
    ///
    /// # Errors
    /// [`StreamError::Source`] where the body becomes longer than said (the stream is reset then), and what happens to streams.
    pub async fn write(&mut self, piece: Bytes) -> Result<(), StreamError> {
        self.sent = self.sent.saturating_add(size(piece.len()));
        if self.sent > self.length {
            return Err(self.abandon(format!("it is longer than {} bytes", self.length)));
        }
        if let Some((hash, _)) = &mut self.verification {
            hash.update(&piece);
        }
        self.sender.flush().await?;
        self.sender.pending = piece;
        self.sender.flush().await
    }

    /// Ends the body; the stream goes on with frames.
    ///
    /// # Errors
    /// [`StreamError::Source`] where it was shorter or other than said; the stream is reset then.
    pub async fn end(mut self) -> Result<(), StreamError> {
        if self.sent != self.length {
            let reason = format!("it ends after {} of {} bytes", self.sent, self.length);
            return Err(self.abandon(reason));
        }
        if let Some((hash, said)) = self.verification.take() {
            let got = digest(hash);
            if got != said {
                return Err(self.abandon(format!("its SHA-256 is {got}, not {said}")));
            }
        }
        self.sender.flush().await
    }

    fn abandon(&mut self, reason: String) -> StreamError {
        self.sender.reset(RESET_BAD_SOURCE);
        StreamError::Source { reason }
    }
}

/// The receiving half of a stream that carries `F`. Dropped before its end, it tells the peer to stop sending.
#[derive(Debug)]
pub struct FrameReceiver<F> {
    stream: quinn::RecvStream,
    /// Header and payload of the next frame as far as they have come. Grows with what comes, never with what is claimed.
    partial: Vec<u8>,
    frames: PhantomData<fn() -> F>,
}

impl<F: Frame> FrameReceiver<F> {
    pub(crate) fn new(stream: quinn::RecvStream) -> Self {
        Self { stream, partial: Vec::new(), frames: PhantomData }
    }

    /// The next frame; `None` when the peer has finished its side. May be cancelled: nothing is lost.
    ///
    /// # Errors
    /// [`StreamError::Frame`] or [`StreamError::FrameCut`] where the peer misbehaved; the stream is of no more use then.
    pub async fn recv(&mut self) -> Result<Option<F>, StreamError> {
        loop {
            let missing = match self.partial.first_chunk::<FRAME_HEADER_BYTES>() {
                None => FRAME_HEADER_BYTES - self.partial.len(),
                Some(bytes) => {
                    let header = FrameHeader::read::<F>(*bytes)?;
                    let got = self.partial.len() - FRAME_HEADER_BYTES;
                    if got == header.length {
                        let whole = std::mem::take(&mut self.partial);
                        let payload = whole.get(FRAME_HEADER_BYTES..).unwrap_or_default();
                        return Ok(Some(decode(header, payload)?));
                    }
                    header.length - got
                }
            };
            match self.stream.read_chunk(missing.min(PIECE_BYTES), true).await? {
                Some(chunk) => self.partial.extend_from_slice(&chunk.bytes),
                None if self.partial.is_empty() => return Ok(None),
                None => return Err(StreamError::FrameCut),
            }
        }
    }

    /// Begins to receive a body of `length` bytes with this SHA-256, behind the frame that told both.
    pub fn body(&mut self, length: u64, digest: Digest) -> BodyReader<'_, F> {
        BodyReader { receiver: self, length, digest, got: 0, hash: Some(Context::new(&SHA256)) }
    }

    /// Receives a body into `sink` (flushed, not synced). What is in the sink counts only after `Ok`.
    ///
    /// # Errors
    /// As [`BodyReader::next_piece`]; [`StreamError::Sink`] where the sink fails.
    pub async fn receive_body(
        &mut self,
        length: u64,
        digest: Digest,
        sink: &mut (impl AsyncWrite + Unpin),
    ) -> Result<(), StreamError> {
        let failed = |error: io::Error| StreamError::Sink { reason: error.to_string() };
        let mut body = self.body(length, digest);
        while let Some(piece) = body.next_piece().await? {
            sink.write_all(&piece).await.map_err(failed)?;
        }
        sink.flush().await.map_err(failed)
    }

    /// Waits for the clean end of the stream: after a body that ends a stream, this finds what is longer than said.
    ///
    /// # Errors
    /// [`StreamError::TooLong`] where anything else comes.
    pub async fn expect_end(&mut self) -> Result<(), StreamError> {
        if !self.partial.is_empty() {
            return Err(StreamError::TooLong);
        }
        match self.stream.read_chunk(1, true).await? {
            None => Ok(()),
            Some(_) => Err(StreamError::TooLong),
        }
    }

    /// Tells the peer that nothing more will be read.
    pub fn stop(&mut self, code: u32) {
        // It fails only where the stream has ended already.
        let _ = self.stream.stop(VarInt::from_u32(code));
    }
}

/// A body on its way in.
pub struct BodyReader<'a, F> {
    receiver: &'a mut FrameReceiver<F>,
    length: u64,
    digest: Digest,
    got: u64,
    /// `None` once the digest has been compared.
    hash: Option<Context>,
}

impl<F: Frame> BodyReader<'_, F> {
    /// The next bytes, as they come; `None` once all are there and their digest is the one that was said. Only then does what
    /// came before count. May be cancelled.
    ///
    /// # Errors
    /// [`StreamError::BodyCut`] and [`StreamError::DigestMismatch`]: it is not the body that was said.
    /// [`StreamError::Reset`]: the peer gave it up.
    pub async fn next_piece(&mut self) -> Result<Option<Bytes>, StreamError> {
        let Some(hash) = &mut self.hash else { return Ok(None) };
        let missing = usize::try_from(self.length - self.got).unwrap_or(usize::MAX);
        if missing == 0 {
            let got = digest(hash.clone());
            if got != self.digest {
                return Err(StreamError::DigestMismatch { said: self.digest, got });
            }
            self.hash = None;
            return Ok(None);
        }
        let chunk = self.receiver.stream.read_chunk(missing.min(PIECE_BYTES), true).await?;
        let Some(chunk) = chunk else {
            return Err(StreamError::BodyCut { got: self.got, length: self.length });
        };
        hash.update(&chunk.bytes);
        self.got += size(chunk.bytes.len());
        Ok(Some(chunk.bytes))
    }
}

fn read_piece(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    reader.take(size(PIECE_BYTES)).read_to_end(&mut piece)?;
    Ok(piece)
}

fn digest(hash: Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Digest(bytes)
}

fn size(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

//! A message as it leaves: what the hook adds on top, the header block as the verdict wants it, and the rest as it came.

use std::io;
use std::sync::Arc;

use gantry_mail::header::{self, Header, HeaderScanner};
use gantry_mail::received::{self, Received};
use gantry_mail::{EditError, Envelope, HeaderEdit, Recipient};
use gantry_protocol::id::MessageId;

use super::TraceKey;
use crate::disk::Disk;
use crate::spool::{Body, Spool, SpoolError};

/// Bytes read from the spool at once. Messages up to this size cost one step on a blocking thread.
const PIECE_BYTES: u64 = 128 * 1024;

/// Room for what a message gains here: our `Received` and trace fields take up to 2,500 bytes, and the policy's fields stand
/// beside them. An intake offers so much less than its next hop takes (RFC 1870).
pub const ADDED_BYTES_MAX: u64 = 8 * 1024;

/// Why a message cannot be sent now.
#[derive(Debug, thiserror::Error)]
pub(super) enum LetterError {
    #[error(transparent)]
    Spool(#[from] SpoolError),
    #[error("read message {id} from the spool: {source}")]
    Read { id: MessageId, source: io::Error },
    #[error("apply the verdict's edits: {0}")]
    Edits(#[from] EditError),
}

/// A stored message, read up to behind its header block.
pub(super) struct Letter<D: Disk> {
    id: MessageId,
    header: Header,
    /// The header block, and what was read of the body with it.
    block: Vec<u8>,
    start: Vec<u8>,
    length: u64,
    /// Gone once it has been read to its end, where its digest was compared.
    body: Option<Body<D>>,
}

/// As whom a mailbox's way out speaks in the header block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The mailbox's name, of which the trace token speaks.
    pub mailbox: String,
    /// What we call ourselves in `Received`.
    pub host_name: String,
    /// Our authentication service identifier (RFC 8601): results under this name are removed from incoming mail.
    pub authserv_id: String,
}

/// What is said on top of a message.
pub(super) struct Stamp<'a> {
    pub(super) identity: &'a Identity,
    pub(super) trace: &'a TraceKey,
    pub(super) envelope: &'a Envelope,
    pub(super) received_unix_ms: u64,
    pub(super) edits: &'a [HeaderEdit],
}

impl<D: Disk> Letter<D> {
    /// Reads the header block and the first piece. Blocks.
    pub(super) fn open(spool: &Spool<D>, id: MessageId) -> Result<Self, LetterError> {
        let mut body = spool.body(id)?;
        let length = body.length();
        let mut scanner = HeaderScanner::new();
        let mut block = Vec::new();
        let (ended, block_length) = loop {
            let before = block.len();
            let ended = read_piece(&mut body, &mut block)
                .map_err(|source| LetterError::Read { id, source })?;
            let fresh = block.get(before..).unwrap_or_default();
            match scanner.push(fresh) {
                Ok(Some(end)) => break (ended, end),
                Ok(None) if !ended => {}
                // What no intake of ours takes is left alone: nothing of it is a header block.
                Err(_) => break (ended, 0),
                Ok(None) => break (ended, block.len()),
            }
        };
        let header = scanner.finish();
        // At the end of the message all whole fields are the block, and the scanner knows which.
        let start = block.split_off(block_length.min(header.length).min(block.len()));
        Ok(Self { id, header, block, start, length, body: (!ended).then_some(body) })
    }

    /// Bytes of the message under this head, before dots are added.
    pub(super) fn length_under(&self, head: &[u8]) -> u64 {
        self.length.saturating_sub(self.block.len() as u64) + head.len() as u64
    }

    /// Whether the header block can only be said with SMTPUTF8 (RFC 6532).
    pub(super) fn has_utf8_header(&self) -> bool {
        !self.block.is_ascii()
    }

    /// The header block as it leaves for these recipients; what comes in under our own names is removed.
    pub(super) fn head(
        &self,
        stamp: &Stamp<'_>,
        recipients: &[Recipient],
    ) -> Result<Vec<u8>, LetterError> {
        let Stamp { identity, trace, envelope, received_unix_ms, edits } = stamp;
        let addresses: Vec<&str> = recipients.iter().map(|to| to.address.as_str()).collect();
        let received = received::line(&Received {
            helo: &envelope.peer.helo,
            address: envelope.peer.address,
            by: &identity.host_name,
            came: envelope.peer.came,
            tls: envelope.peer.tls,
            utf8: envelope.parameters.smtputf8,
            id: &self.id.to_string(),
            recipients,
            unix_seconds: received_unix_ms / 1_000,
        });
        let trace = trace.field(&identity.mailbox, &self.header, &addresses);
        let stripped = header::strip(&self.block, &identity.authserv_id);
        let edited = header::edit(&stripped, edits)?;
        let mut head = Vec::with_capacity(edited.len() + received.len() + trace.len() + 6);
        for field in [received, trace] {
            head.extend_from_slice(field.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        if edited.is_empty() {
            // Without this the body's first line would continue our fields, or pass for one.
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(&edited);
        Ok(head)
    }

    /// The message under this head, piece by piece, as `encoding` writes it.
    pub(super) fn into_pieces<E: Encoding>(self, head: Vec<u8>, encoding: E) -> Pieces<D, E> {
        let mut unread = head;
        unread.extend_from_slice(&self.start);
        Pieces { id: self.id, unsent: unread, body: self.body, encoding }
    }
}

/// How a message's bytes are written on a way out.
pub(super) trait Encoding: Send + 'static {
    /// Takes the next bytes, in pieces of any size.
    fn push(&mut self, message: &[u8], out: &mut Vec<u8>);
    /// The message has ended.
    fn finish(self, out: &mut Vec<u8>);
}

/// Gives a message piece by piece.
pub(super) struct Pieces<D: Disk, E> {
    id: MessageId,
    unsent: Vec<u8>,
    body: Option<Body<D>>,
    encoding: E,
}

/// A piece of a message as it leaves.
pub(super) struct Piece<D: Disk, E> {
    pub(super) bytes: Vec<u8>,
    /// What follows; `None` where the message ends with this piece.
    pub(super) rest: Option<Pieces<D, E>>,
}

impl<D: Disk, E: Encoding> Pieces<D, E> {
    /// The next piece. The last is given only after all of the message was read and found undamaged.
    pub(super) async fn next(self) -> Result<Piece<D, E>, LetterError> {
        if self.body.is_none() {
            return self.read();
        }
        let id = self.id;
        match tokio::task::spawn_blocking(move || self.read()).await {
            Ok(piece) => piece,
            Err(panic) => Err(LetterError::Read { id, source: io::Error::other(panic) }),
        }
    }

    /// As [`Pieces::next`]. Blocks.
    pub(super) fn read(mut self) -> Result<Piece<D, E>, LetterError> {
        let mut bytes = Vec::with_capacity(self.unsent.len() + 1024);
        self.encoding.push(&std::mem::take(&mut self.unsent), &mut bytes);
        let Some(mut body) = self.body.take() else {
            self.encoding.finish(&mut bytes);
            return Ok(Piece { bytes, rest: None });
        };
        let id = self.id;
        let ended = read_piece(&mut body, &mut self.unsent)
            .map_err(|source| LetterError::Read { id, source })?;
        if !ended {
            self.body = Some(body);
        }
        Ok(Piece { bytes, rest: Some(self) })
    }
}

/// Opens a letter off the loop.
pub(super) async fn open<D: Disk>(
    spool: &Arc<Spool<D>>,
    id: MessageId,
) -> Result<Letter<D>, LetterError> {
    let opened = spool.ask(id, |spool, id| Letter::open(spool, id)).await;
    opened.unwrap_or_else(|| {
        Err(LetterError::Read { id, source: io::Error::other("a thread broke down") })
    })
}

/// Appends up to [`PIECE_BYTES`]; tells whether that was the end.
fn read_piece<D: Disk>(body: &mut Body<D>, piece: &mut Vec<u8>) -> io::Result<bool> {
    Ok(body.read_piece(PIECE_BYTES, piece)? < PIECE_BYTES)
}

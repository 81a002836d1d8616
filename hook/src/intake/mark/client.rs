//! The side of the command.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gantry_protocol::pool::{Change, StoredState};

use super::{MarkRequest, PIECE_BYTES_MAX, REPLY_BYTES_MAX, Reply, socket};
use crate::disk::Disk;
use crate::intake::arrival::{Arrival, LocalIntake, NotTaken};
use crate::local::{self, EnvelopeError, ToCrlf};
use crate::spool::SpoolError;

/// How long a hook that is starting or ending is waited for: it has the spool's lock and no socket.
const PATIENCE: Duration = Duration::from_secs(20);
const PAUSE: Duration = Duration::from_millis(100);
/// The longest wait for the answer, in which the hook makes the message durable.
const ANSWER: Duration = Duration::from_secs(300);

/// Why a message was not marked.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// It never will be: the sender is to be told.
    #[error("this message cannot be taken: {0}")]
    Never(String),
    /// The same may work later.
    #[error("{0}")]
    Later(String),
}

/// Marks a message through the hook that runs on this spool, or, where none runs, with `open`, which takes the spool's
/// lock. Gives the message's id once it is durable.
///
/// # Errors
/// It is not durable, with one exception that nobody can avoid: where the hook or this process dies between the sync and
/// the answer, the message is there twice once it is brought again.
pub fn mark<D: Disk>(
    spool: &Path,
    request: &MarkRequest,
    message: &mut dyn Read,
    open: impl Fn() -> Result<Option<Arc<LocalIntake<D>>>, SpoolError>,
) -> Result<String, Failed> {
    let envelope = local::recipients(&request.sender, &request.recipients)
        .map_err(|error| failed(judge_envelope(&error)))?;
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(stream) = connect(spool)? {
            return through(stream, request, message);
        }
        match open() {
            Ok(Some(intake)) => return directly(&intake, &envelope, message),
            Ok(None) => {
                let mailbox = &request.mailbox;
                return Err(Failed::Later(format!("{mailbox:?} is no mailbox here that takes it")));
            }
            Err(SpoolError::Locked { .. }) if Instant::now() < end => std::thread::sleep(PAUSE),
            Err(error) => return Err(Failed::Later(error.to_string())),
        }
    }
}

#[cfg(unix)]
type Stream = std::os::unix::net::UnixStream;

#[cfg(unix)]
fn connect(spool: &Path) -> Result<Option<Stream>, Failed> {
    let path = socket(spool);
    match Stream::connect(&path) {
        Ok(stream) => Ok(Some(stream)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(Failed::Later(format!("open socket {}: {error}", path.display()))),
    }
}

fn through(
    mut stream: Stream,
    request: &MarkRequest,
    message: &mut dyn Read,
) -> Result<String, Failed> {
    let later = |doing: &str, error: io::Error| Failed::Later(format!("{doing}: {error}"));
    stream.set_read_timeout(Some(ANSWER)).map_err(|error| later("ask the hook", error))?;
    stream.set_write_timeout(Some(ANSWER)).map_err(|error| later("ask the hook", error))?;
    let mut line = serde_json::to_vec(request).map_err(|error| later("ask", error.into()))?;
    line.push(b'\n');
    let mut sent = stream.write_all(&line);
    let mut piece = vec![0; PIECE_BYTES_MAX];
    while sent.is_ok() {
        let count = read(message, &mut piece)?;
        let length = u32::try_from(count).unwrap_or_default().to_be_bytes();
        sent = stream
            .write_all(&length)
            .and_then(|()| stream.write_all(piece.get(..count).unwrap_or_default()));
        if count == 0 {
            break;
        }
    }
    // A hook that stopped reading may have said why.
    let mut answer = String::new();
    let read = BufReader::new(stream.take(REPLY_BYTES_MAX)).read_line(&mut answer);
    match (sent, read) {
        (_, Ok(1..)) => {
            let reply = serde_json::from_str(&answer)
                .map_err(|error| Failed::Later(format!("read the hook's answer: {error}")))?;
            match reply {
                Reply::Marked(id) => Ok(id),
                other => Err(failed(other)),
            }
        }
        (Err(error), _) => Err(later("bring the message to the hook", error)),
        (_, Err(error)) => Err(later("wait for the hook's answer", error)),
        (_, Ok(_)) => Err(Failed::Later("the hook went away without an answer".to_owned())),
    }
}

fn directly<D: Disk>(
    intake: &Arc<LocalIntake<D>>,
    envelope: &gantry_mail::Envelope,
    message: &mut dyn Read,
) -> Result<String, Failed> {
    let id = intake.spool.allocate();
    let mut arrival = Arrival::begin(intake, id, envelope)?;
    let mut lines = ToCrlf::default();
    let (mut piece, mut clean) = (vec![0; PIECE_BYTES_MAX], Vec::new());
    loop {
        let count = read(message, &mut piece)?;
        clean.clear();
        if count == 0 {
            break;
        }
        lines.push(piece.get(..count).unwrap_or_default(), &mut clean);
        arrival.write(&clean)?;
    }
    lines.finish(&mut clean);
    arrival.write(&clean)?;
    let arrived = arrival.finish()?;
    if arrived.looped {
        let change = Change::SetAside {
            state: StoredState::Held,
            verdict: None,
            reasons: vec!["it has passed this mailbox before: a mail loop".to_owned()],
        };
        // Durable it is in any case; where this fails it is processed like any other.
        let _ = intake.spool.apply(id, intake.index, &change);
    }
    Ok(id.to_string())
}

/// The next bytes of standard input. A message whose end is not known is none.
fn read(message: &mut dyn Read, piece: &mut [u8]) -> Result<usize, Failed> {
    loop {
        match message.read(piece) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failed::Later(format!("read the message: {error}"))),
            Ok(count) => return Ok(count),
        }
    }
}

pub(super) fn judge(error: &NotTaken) -> Reply {
    match error {
        NotTaken::Never(reason) => Reply::Never(reason.clone()),
        NotTaken::Later(error) => Reply::Later(error.to_string()),
    }
}

/// Too many recipients are the fault of how the command is called, and wait for that to be mended; an address that is
/// none will never be one.
pub(super) fn judge_envelope(error: &EnvelopeError) -> Reply {
    match error {
        EnvelopeError::Address { .. } => Reply::Never(error.to_string()),
        error => Reply::Later(error.to_string()),
    }
}

fn failed(reply: Reply) -> Failed {
    match reply {
        Reply::Never(reason) => Failed::Never(reason),
        Reply::Later(reason) | Reply::Marked(reason) => Failed::Later(reason),
    }
}

impl From<NotTaken> for Failed {
    fn from(error: NotTaken) -> Self {
        failed(judge(&error))
    }
}

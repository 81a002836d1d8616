//! The side of the running hook.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_mail::Came;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::OwnedReadHalf;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::{MarkRequest, PIECE_BYTES_MAX, REQUEST_BYTES_MAX, Reply, SocketError, socket};
use crate::disk::Disk;
use crate::intake::arrival::{Arrival, Arrived, LocalIntake, NotTaken};
use crate::intake::{Admission, Gate};
use crate::local::{self, ToCrlf};

/// Messages that come in at once; each has two pieces in memory.
const COMMANDS_MAX: usize = 64;
/// The longest silence of a command. What its own input does is not known here, so it is as long as SMTP's for data.
const SILENCE: Duration = Duration::from_secs(180);
/// What a refused command still may send, so that it can read why.
const LINGER_BYTES_MAX: u64 = 1024 * 1024;
const LINGER: Duration = Duration::from_secs(2);
/// The pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Marks what commands bring.
pub struct Marker<D: Disk> {
    /// The mailboxes in the hook's custody.
    mailboxes: Vec<Arc<LocalIntake<D>>>,
    gate: Gate,
    places: Arc<Semaphore>,
}

impl<D: Disk> Marker<D> {
    pub fn new(mailboxes: Vec<Arc<LocalIntake<D>>>, gate: Gate) -> Self {
        Self { mailboxes, gate, places: Arc::new(Semaphore::new(COMMANDS_MAX)) }
    }
}

/// Opens the socket in place of a former hook's, and serves it. The spool's lock must be held.
///
/// # Errors
/// Where the socket cannot be made.
pub fn listen<D: Disk>(spool: &Path, marker: Marker<D>) -> Result<(), SocketError> {
    use std::os::unix::fs::PermissionsExt;

    let path = socket(spool);
    let failed = |source| SocketError { path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let marker = Arc::new(marker);
    tokio::spawn(async move {
        loop {
            // Commands beyond the bound wait in the kernel's queue.
            let Ok(place) = Arc::clone(&marker.places).acquire_owned().await else { return };
            match listener.accept().await {
                Ok((stream, _)) => {
                    let marker = Arc::clone(&marker);
                    tokio::spawn(async move {
                        serve(stream, &marker).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!("accept a mark command: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    });
    Ok(())
}

async fn serve<D: Disk>(stream: UnixStream, marker: &Marker<D>) {
    let (reader, mut writer) = stream.into_split();
    let mut reader = BufReader::new(reader);
    let reply = match take(&mut reader, marker).await {
        Ok(Arrived { marked, looped }) => {
            let id = marked.id.to_string();
            marker.gate.mark(marked, looped).await;
            Reply::Marked(id)
        }
        Err(Refused::Reply(reply)) => reply,
        // Nobody is there to be told.
        Err(Refused::Gone(error)) => return tracing::debug!("a mark command is gone: {error}"),
    };
    let Ok(mut text) = serde_json::to_vec(&reply) else { return };
    text.push(b'\n');
    if writer.write_all(&text).await.is_ok() && !matches!(reply, Reply::Marked(_)) {
        let mut rest = reader.take(LINGER_BYTES_MAX);
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
    }
}

enum Refused {
    Reply(Reply),
    Gone(io::Error),
}

async fn take<D: Disk>(
    reader: &mut BufReader<OwnedReadHalf>,
    marker: &Marker<D>,
) -> Result<Arrived, Refused> {
    let mut line = String::new();
    let mut bounded = (&mut *reader).take(REQUEST_BYTES_MAX);
    in_time(bounded.read_line(&mut line)).await?;
    let request: MarkRequest = serde_json::from_str(&line)
        .map_err(|error| Reply::Later(format!("read the request: {error}")))?;
    let known = marker.mailboxes.iter().find(|intake| intake.mailbox == request.mailbox);
    let Some(intake) = known else {
        let text = format!("{:?} is no mailbox in the hook's custody here", request.mailbox);
        return Err(Reply::Later(text).into());
    };
    match marker.gate.admission() {
        Admission::Open => {}
        Admission::Stopped { reason } => return Err(Reply::Later(reason).into()),
        Admission::Draining | Admission::Emptying => {
            return Err(Reply::Later("the hook is ending".to_owned()).into());
        }
    }
    let mut envelope = local::recipients(&request.sender, &request.recipients)
        .map_err(|error| super::client::judge_envelope(&error))?;
    envelope.peer.came = Came::Mark;
    let (intake, id) = (Arc::clone(intake), intake.spool.allocate());
    let mut arrival = blocking(marker, move || Arrival::begin(&intake, id, &envelope)).await?;
    let mut lines = ToCrlf::default();
    let (mut piece, mut message) = (Vec::new(), Vec::new());
    while read_piece(reader, &mut piece).await? {
        lines.push(&piece, &mut message);
        if message.len() >= PIECE_BYTES_MAX {
            let full = std::mem::take(&mut message);
            arrival = blocking(marker, move || {
                arrival.write(&full)?;
                Ok(arrival)
            })
            .await?;
        }
    }
    lines.finish(&mut message);
    blocking(marker, move || {
        arrival.write(&message)?;
        arrival.finish()
    })
    .await
}

/// Reads the next piece; false where there is none any more.
async fn read_piece(
    reader: &mut BufReader<OwnedReadHalf>,
    piece: &mut Vec<u8>,
) -> Result<bool, Refused> {
    let length = usize::try_from(in_time(reader.read_u32()).await?).unwrap_or(usize::MAX);
    if length > PIECE_BYTES_MAX {
        return Err(Reply::Later(format!("a piece of {length} bytes is too long")).into());
    }
    piece.resize(length, 0);
    in_time(reader.read_exact(piece)).await?;
    Ok(length > 0)
}

async fn in_time<T>(read: impl Future<Output = io::Result<T>>) -> Result<T, Refused> {
    match timeout(SILENCE, read).await {
        Ok(read) => read.map_err(Refused::Gone),
        Err(_) => Err(Reply::Later("it was silent for too long".to_owned()).into()),
    }
}

/// Runs what blocks off the loop; where nothing more can be stored, the gate is told.
async fn blocking<D: Disk, T: Send + 'static>(
    marker: &Marker<D>,
    work: impl FnOnce() -> Result<T, NotTaken> + Send + 'static,
) -> Result<T, Refused> {
    let error = match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => return Ok(done),
        Ok(Err(error)) => error,
        Err(panic) => return Err(Reply::Later(panic.to_string()).into()),
    };
    tracing::warn!("take a marked message in: {error}");
    if error.stops_intake() {
        marker.gate.stop(error.to_string());
    }
    Err(super::client::judge(&error).into())
}

impl From<Reply> for Refused {
    fn from(reply: Reply) -> Self {
        Self::Reply(reply)
    }
}

//! One task for each direction of a link and for each reservation's stream: they move frames and bytes, and decide
//! nothing.

use std::fmt::Display;
use std::io;
use std::sync::Arc;

use gantry_daemon::crash;
use gantry_link::{CloseCode, FrameSender, HostConnection, HostReservationStream, StreamError};
use gantry_protocol::frame::{
    Assign, HostControl, HostReservation, WorkerControl, WorkerReservation,
};
use gantry_protocol::id::{MessageId, Session};
use gantry_protocol::pool::{Assigned, Assignment};
use gantry_protocol::time::millis;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::action::{Action, StreamKey};
use super::pace::{
    CONTROL_PER_SECOND, Pace, RESERVATION_PER_SECOND, RESERVATIONS_PER_SECOND, SharedPace,
};
use crate::disk::Disk;
use crate::spool::{Body, Header, Spool, SpoolError};

/// Control frames queued for one worker. Peers and backlog come once a second, so a worker that far behind does not
/// read, and its link is closed.
pub(super) const CONTROL_QUEUE_MAX: usize = 64;
/// Frames queued for one reservation: its cancel and its answer are all there ever are.
pub(super) const STREAM_QUEUE_MAX: usize = 4;
/// Bytes of a body that are read at once, and in memory for each reservation that is being sent.
const PIECE_BYTES: u64 = 128 * 1024;
/// The stream's reset code for a body that cannot be sent to its end.
const RESET_UNREADABLE: u32 = 1;
/// The same for a reservation that ended while its body was being sent.
const RESET_CANCELLED: u32 = 2;

/// For a link's control writer.
pub(super) enum ControlOut {
    Frame(Box<HostControl>),
    Close(CloseCode, String),
}

/// For a reservation's stream.
pub(super) struct StreamOut {
    pub(super) frame: HostReservation,
    pub(super) finish: bool,
}

/// Moves control frames in both directions and takes in resumed reservations, until the link ends.
pub(super) fn spawn(
    session: Session,
    link: gantry_link::HostLink,
    actions: mpsc::Sender<Action>,
) -> (HostConnection, mpsc::Sender<ControlOut>, SharedPace) {
    let gantry_link::HostLink { sender, receiver, connection } = link;
    let (out, queue) = mpsc::channel(CONTROL_QUEUE_MAX);
    tokio::spawn(write_control(sender, connection.clone(), queue));
    let pace = SharedPace::new(RESERVATIONS_PER_SECOND);
    tokio::spawn(accept_resumes(session, connection.clone(), pace.clone(), actions.clone()));
    tokio::spawn(read_control(session, receiver, connection.clone(), actions));
    (connection, out, pace)
}

async fn read_control(
    session: Session,
    mut receiver: gantry_link::FrameReceiver<WorkerControl>,
    connection: HostConnection,
    actions: mpsc::Sender<Action>,
) {
    let mut pace = Pace::new(CONTROL_PER_SECOND, Instant::now());
    let reason = loop {
        match receiver.recv().await {
            Ok(Some(_)) if !pace.keep().await => {
                let text =
                    format!("more than {CONTROL_PER_SECOND} control frames a second, for long");
                let _ = actions.send(Action::Misbehaved(session, text.clone())).await;
                break text;
            }
            Ok(Some(frame)) => {
                if actions.send(Action::Control(session, Box::new(frame))).await.is_err() {
                    return;
                }
            }
            Ok(None) => {
                connection.close(CloseCode::Done, "the control stream ended");
                break "the worker ended its control stream".to_owned();
            }
            Err(error) => {
                if error.is_misbehaviour() {
                    connection.close(CloseCode::Misbehaved, &error.to_string());
                    let _ = actions.send(Action::Misbehaved(session, error.to_string())).await;
                }
                break error.to_string();
            }
        }
    };
    let _ = actions.send(Action::LinkLost(session, reason)).await;
}

async fn write_control(
    mut sender: gantry_link::FrameSender<HostControl>,
    connection: HostConnection,
    mut queue: mpsc::Receiver<ControlOut>,
) {
    while let Some(out) = queue.recv().await {
        match out {
            ControlOut::Frame(frame) => {
                if let Err(error) = sender.send(&frame).await {
                    tracing::debug!("send control frame: {error}");
                    if matches!(error, StreamError::LinkLost(_)) {
                        return;
                    }
                }
            }
            ControlOut::Close(code, text) => {
                // The sentence stands in the close itself too, should the frame not arrive.
                let _ = sender.finish();
                connection.close(code, &text);
                return;
            }
        }
    }
}

/// A first frame may never come on a stream, so each is awaited in a task of its own; their number is bounded by the
/// link's own limit on streams.
async fn accept_resumes(
    session: Session,
    connection: HostConnection,
    pace: SharedPace,
    actions: mpsc::Sender<Action>,
) {
    while let Ok((sender, mut receiver)) = connection.accept_resume().await {
        pace.keep().await;
        let (actions, connection) = (actions.clone(), connection.clone());
        tokio::spawn(async move {
            match receiver.recv().await {
                Ok(Some(WorkerReservation::Resume(resume))) => {
                    let key = (session, resume.message, resume.fence);
                    let _ = actions.send(Action::Resumed(key, Box::new((sender, receiver)))).await;
                }
                Ok(Some(_)) => connection
                    .close(CloseCode::Misbehaved, "a stream that does not begin with a resume"),
                Ok(None) => {}
                Err(error) if error.is_misbehaviour() => {
                    connection.close(CloseCode::Misbehaved, &error.to_string())
                }
                Err(_) => {}
            }
        });
    }
}

/// What an assignment needs besides the assignment itself.
pub(super) struct Sending<D: Disk> {
    pub(super) assignment: Assignment,
    pub(super) mailbox: String,
    pub(super) needs: Vec<String>,
    pub(super) spool: Arc<Spool<D>>,
    pub(super) connection: HostConnection,
    pub(super) queue: mpsc::Receiver<StreamOut>,
    pub(super) pace: SharedPace,
    pub(super) actions: mpsc::Sender<Action>,
}

/// Reads the header, opens the stream, sends assignment and body, then moves frames until the reservation is over.
pub(super) async fn send_assignment<D: Disk>(sending: Sending<D>) {
    let Sending { assignment, mailbox, needs, spool, connection, mut queue, pace, actions } =
        sending;
    let id = assignment.message;
    let key = (assignment.session, id, assignment.fence);
    let Opened { header, first, body } = match spool.ask(id, read_message).await {
        Some(Ok(opened)) => opened,
        Some(Err(error)) => {
            let reason = super::set_aside(&spool, id, &error);
            let outcome = if error.is_lost() {
                Assigned::Corrupted { reason }
            } else {
                Assigned::Unreadable { reason }
            };
            let _ = actions.send(Action::Assigned(key, outcome)).await;
            return;
        }
        None => return,
    };
    let Ok((mut sender, receiver)) = connection.open_reservation().await else {
        let _ = actions.send(Action::Assigned(key, Assigned::LinkLost)).await;
        return;
    };
    let (length, digest) = (header.length, header.digest);
    let frame = HostReservation::Assign(Box::new(Assign {
        message: id,
        fence: assignment.fence,
        attempt: assignment.attempt,
        mailbox,
        needs,
        asked: assignment.asked,
        findings: assignment.findings,
        envelope: header.envelope,
        length,
        digest,
        time_max_ms: millis(assignment.time_max),
        silence_max_ms: millis(assignment.silence_max),
    }));
    if actions.send(Action::Assigned(key, Assigned::Sent { digest })).await.is_err() {
        return;
    }
    // The worker may give the message back before it has read all of it, so both directions run at once.
    let reading = read_frames(key, receiver, connection.clone(), pace, actions.clone());
    let writing = async {
        sender.send(&frame).await?;
        crash::at("assigned");
        let sent = tokio::select! {
            sent = send_body(&mut sender, first, body, length) => Some(sent),
            _ = queue.recv() => None,
        };
        match sent {
            Some(Ok(())) => {
                crash::at("body-sent");
                write_frames(&mut sender, &mut queue).await
            }
            Some(Err(error)) => {
                // The worker waits for the rest, and we for its answer.
                sender.reset(RESET_UNREADABLE);
                Err(error)
            }
            None => {
                sender.reset(RESET_CANCELLED);
                Ok(())
            }
        }
    };
    let (written, ()) = tokio::join!(writing, reading);
    if let Err(StreamError::Source { reason }) = &written {
        // Our file, not the worker: the spool knows which of its own faults it is.
        let outcome = match check_message(&spool, id).await {
            Err(error) if error.is_lost() => {
                Assigned::Corrupted { reason: super::set_aside(&spool, id, &error) }
            }
            _ => Assigned::Unreadable { reason: reason.clone() },
        };
        let _ = actions.send(Action::Assigned(key, outcome)).await;
    }
    finish(key, written, &actions).await;
}

/// Reads a message to its end, which compares its digest.
pub(super) async fn check_message<D: Disk>(
    spool: &Arc<Spool<D>>,
    id: MessageId,
) -> Result<(), SpoolError> {
    let spool = Arc::clone(spool);
    let read = tokio::task::spawn_blocking(move || spool.check(id)).await;
    read.unwrap_or(Ok(()))
}

/// Moves frames of a reservation that goes on after a new link.
pub(super) async fn go_on(
    key: StreamKey,
    stream: HostReservationStream,
    mut queue: mpsc::Receiver<StreamOut>,
    connection: HostConnection,
    pace: SharedPace,
    actions: mpsc::Sender<Action>,
) {
    let (mut sender, receiver) = stream;
    let reading = read_frames(key, receiver, connection, pace, actions.clone());
    let (written, ()) = tokio::join!(write_frames(&mut sender, &mut queue), reading);
    finish(key, written, &actions).await;
}

async fn finish(key: StreamKey, written: Result<(), StreamError>, actions: &mpsc::Sender<Action>) {
    match written {
        Ok(()) | Err(StreamError::LinkLost(_)) => {}
        Err(error) => {
            let _ = actions.send(Action::StreamLost(key, error.to_string())).await;
        }
    }
    let _ = actions.send(Action::StreamDone(key)).await;
}

async fn write_frames(
    sender: &mut gantry_link::FrameSender<HostReservation>,
    queue: &mut mpsc::Receiver<StreamOut>,
) -> Result<(), StreamError> {
    while let Some(out) = queue.recv().await {
        sender.send(&out.frame).await?;
        if out.finish {
            return sender.finish();
        }
    }
    Ok(())
}

async fn read_frames(
    key: StreamKey,
    mut receiver: gantry_link::FrameReceiver<WorkerReservation>,
    connection: HostConnection,
    link_pace: SharedPace,
    actions: mpsc::Sender<Action>,
) {
    let mut answered = false;
    let mut pace = Pace::new(RESERVATION_PER_SECOND, Instant::now());
    loop {
        let received = receiver.recv().await;
        link_pace.keep().await;
        let problem = match received {
            Ok(Some(_)) if answered => Some("a frame after the verdict or return".to_owned()),
            Ok(Some(_)) if !pace.keep().await => Some(format!(
                "more than {RESERVATION_PER_SECOND} frames a second about one message, for long"
            )),
            _ => None,
        };
        if let Some(text) = problem {
            let _ = actions.send(Action::Misbehaved(key.0, text)).await;
            return;
        }
        match received {
            Ok(Some(frame)) => {
                let verdict = matches!(frame, WorkerReservation::Verdict(_));
                if verdict {
                    crash::at("verdict-received");
                }
                answered |= verdict || matches!(frame, WorkerReservation::Return(_));
                if actions.send(Action::Reservation(key, Box::new(frame))).await.is_err() {
                    return;
                }
            }
            Ok(None) if answered => return,
            Ok(None) => {
                let reason = "the worker ended the stream without a verdict".to_owned();
                let _ = actions.send(Action::StreamLost(key, reason)).await;
                return;
            }
            Err(StreamError::LinkLost(_)) => return,
            Err(error) => {
                if error.is_misbehaviour() {
                    connection.close(CloseCode::Misbehaved, &error.to_string());
                    let _ = actions.send(Action::Misbehaved(key.0, error.to_string())).await;
                }
                let _ = actions.send(Action::StreamLost(key, error.to_string())).await;
                return;
            }
        }
    }
}

/// A message that is about to be sent.
struct Opened<D: Disk> {
    header: Header,
    /// What reading the first piece gave; an error is the body's, and found with it.
    first: io::Result<Vec<u8>>,
    /// Gives what follows.
    body: Body<D>,
}

fn read_message<D: Disk>(spool: &Arc<Spool<D>>, id: MessageId) -> Result<Opened<D>, SpoolError> {
    let (header, mut body) = (spool.header(id)?, spool.body(id)?);
    let first = read_piece(&mut body, header.length);
    Ok(Opened { header, first, body })
}

/// Sends a body whose first piece has been read with the header: most messages are no longer than that, and cost no
/// further step on a blocking thread. What can be damaged, [`Body`] compares with its digest before it gives the last piece.
async fn send_body<D: Disk>(
    sender: &mut FrameSender<HostReservation>,
    first: io::Result<Vec<u8>>,
    mut body: Body<D>,
    length: u64,
) -> Result<(), StreamError> {
    let unreadable = |error: &dyn Display| StreamError::Source { reason: error.to_string() };
    let mut writer = sender.verified_body(length);
    let mut left = length;
    let mut read = first;
    loop {
        let piece = read.map_err(|error| unreadable(&error))?;
        left = left.saturating_sub(piece.len() as u64);
        let ended = piece.is_empty() || left == 0;
        writer.write(piece.into()).await?;
        if ended {
            return writer.end().await;
        }
        let reading = tokio::task::spawn_blocking(move || {
            let piece = read_piece(&mut body, left);
            (body, piece)
        });
        (body, read) = reading.await.map_err(|error| unreadable(&error))?;
    }
}

fn read_piece<D: Disk>(body: &mut Body<D>, left: u64) -> io::Result<Vec<u8>> {
    let mut piece = Vec::new();
    body.read_piece(left.min(PIECE_BYTES), &mut piece)?;
    Ok(piece)
}

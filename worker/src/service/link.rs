//! One task for each direction of a link and for each reservation's stream: they move frames and bytes, and decide
//! nothing.

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use gantry_daemon::crash;
use gantry_link::{
    CloseCode, FrameReceiver, FrameSender, StreamError, WorkerConnection, WorkerLink,
};
use gantry_protocol::frame::{
    Assign, HostControl, HostReservation, WorkerControl, WorkerReservation,
};
use gantry_scanners::api::Source;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::action::{Action, HostIndex, Key};
use crate::pipeline::Pipeline;

/// Control frames queued for one host: beats, profiles and wants of some seconds.
const CONTROL_QUEUE_MAX: usize = 256;
/// How long a message that is handed back may take to be known as such at the host.
const HAND_BACK_TIME_MAX: Duration = Duration::from_secs(1);
/// Frames queued for one reservation. Progress comes ten times a second at the most.
pub(super) const STREAM_QUEUE_MAX: usize = 64;

/// A link as the loop knows it.
pub(super) struct Linked {
    pub(super) connection: WorkerConnection,
    pub(super) control: mpsc::Sender<WorkerControl>,
    /// Rises with every link of the process, so that what a former link still says is known as such.
    pub(super) number: u64,
    pub(super) since: Instant,
    /// With the policy that the hello named: what is assigned on this link is processed by it.
    pub(super) pipeline: Pipeline,
}

/// For a reservation's stream.
pub(super) struct StreamOut {
    pub(super) frame: Box<WorkerReservation>,
    pub(super) finish: bool,
}

/// A reservation whose body is on its way.
pub(super) struct Assigned {
    pub(super) assign: Assign,
    pub(super) stream: mpsc::Sender<StreamOut>,
    pub(super) arrived: Arrived,
}

/// Pieces of a body that have come so far: a long transfer over a thin line is progress, too.
#[derive(Clone, Debug, Default)]
pub(super) struct Arrived(Arc<AtomicU64>);

impl Arrived {
    pub(super) fn pieces(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where message bodies go.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    /// Larger ones lie in a temporary file.
    pub(super) memory_bytes_max: usize,
    pub(super) folder: Arc<PathBuf>,
}

/// Moves frames in both directions and takes in reservations, until the link ends.
pub(super) fn spawn(
    host: HostIndex,
    number: u64,
    link: WorkerLink,
    (scratch, pipeline): (Scratch, Pipeline),
    actions: mpsc::Sender<Action>,
) -> Linked {
    let WorkerLink { mut sender, receiver, connection } = link;
    let (control, mut queue) = mpsc::channel::<WorkerControl>(CONTROL_QUEUE_MAX);
    tokio::spawn(async move {
        while let Some(frame) = queue.recv().await {
            if let Err(error) = sender.send(&frame).await {
                tracing::debug!("send control frame: {error}");
                return;
            }
        }
    });
    tokio::spawn(accept_reservations(host, number, connection.clone(), scratch, actions.clone()));
    tokio::spawn(read_control(host, number, receiver, connection.clone(), actions));
    Linked { connection, control, number, since: Instant::now(), pipeline }
}

async fn read_control(
    host: HostIndex,
    number: u64,
    mut receiver: FrameReceiver<HostControl>,
    connection: WorkerConnection,
    actions: mpsc::Sender<Action>,
) {
    let reason = loop {
        match receiver.recv().await {
            Ok(Some(HostControl::Refused(refused))) => break refused.text,
            Ok(Some(frame)) => {
                if actions.send(Action::Control(host, number, Box::new(frame))).await.is_err() {
                    return;
                }
            }
            Ok(None) => break connection.closed().await.to_string(),
            Err(error) => {
                if error.is_misbehaviour() {
                    connection.close(CloseCode::Misbehaved, &error.to_string());
                }
                break error.to_string();
            }
        }
    };
    connection.close(CloseCode::Done, "the link is over");
    let _ = actions.send(Action::LinkLost(host, number, reason)).await;
}

async fn accept_reservations(
    host: HostIndex,
    number: u64,
    connection: WorkerConnection,
    scratch: Scratch,
    actions: mpsc::Sender<Action>,
) {
    while let Ok((sender, receiver)) = connection.accept_reservation().await {
        tokio::spawn(receive(host, number, sender, receiver, scratch.clone(), actions.clone()));
    }
}

/// Takes in an assignment and its body, then moves frames until the reservation is over.
async fn receive(
    host: HostIndex,
    number: u64,
    sender: FrameSender<WorkerReservation>,
    mut receiver: FrameReceiver<HostReservation>,
    scratch: Scratch,
    actions: mpsc::Sender<Action>,
) {
    let assign = match receiver.recv().await {
        Ok(Some(HostReservation::Assign(assign))) => assign,
        Err(StreamError::LinkLost(_)) => return,
        other => {
            tracing::debug!("a stream that does not begin with an assignment: {other:?}");
            let _ = actions.send(Action::AssignmentLost(host, number)).await;
            return;
        }
    };
    let key = (host, assign.message, assign.fence);
    let (length, digest) = (assign.length, assign.digest);
    let (out, mut queue) = mpsc::channel(STREAM_QUEUE_MAX);
    let arrived = Arrived::default();
    let assigned = Box::new(Assigned { assign: *assign, stream: out, arrived: arrived.clone() });
    if actions.send(Action::Assigned(host, number, assigned)).await.is_err() {
        return;
    }
    let mut sender = sender;
    let received = tokio::select! {
        received = receive_body(&mut receiver, length, digest, &scratch, &arrived) => Some(received),
        // Progress is told meanwhile; what ends our side hands the message back.
        _ = write_frames(&mut sender, &mut queue) => None,
    };
    match received {
        Some(Ok(source)) => {
            if actions.send(Action::Received(key, source)).await.is_err() {
                return;
            }
        }
        Some(Err(error)) => {
            let _ = actions.send(Action::StreamLost(key, error.to_string())).await;
            return;
        }
        None => {
            // Given up before it was here. What the host still answers does not matter any more.
            let _ = tokio::time::timeout(HAND_BACK_TIME_MAX, sender.delivered()).await;
            let reason = "given up before it had arrived".to_owned();
            let _ = actions.send(Action::StreamLost(key, reason)).await;
            return;
        }
    }
    move_frames(key, sender, receiver, queue, actions).await;
}

async fn receive_body(
    receiver: &mut FrameReceiver<HostReservation>,
    length: u64,
    digest: gantry_protocol::id::Digest,
    scratch: &Scratch,
    arrived: &Arrived,
) -> Result<Source, StreamError> {
    let folder = scratch.folder.as_path();
    let mut file = tempfile::spooled_tempfile_in(scratch.memory_bytes_max, folder);
    let mut body = receiver.body(length, digest);
    while let Some(piece) = body.next_piece().await? {
        // Memory, or a file in the page cache: what is written here is read again within seconds.
        file.write_all(&piece).map_err(|error| StreamError::Sink { reason: error.to_string() })?;
        arrived.0.fetch_add(1, Ordering::Relaxed);
    }
    Source::spooled(file).map_err(|error| StreamError::Sink { reason: error.to_string() })
}

/// Moves frames of a reservation whose body is here, in both directions.
async fn move_frames(
    key: Key,
    mut sender: FrameSender<WorkerReservation>,
    mut receiver: FrameReceiver<HostReservation>,
    mut queue: mpsc::Receiver<StreamOut>,
    actions: mpsc::Sender<Action>,
) {
    let reading = async {
        loop {
            match receiver.recv().await {
                Ok(Some(frame)) => {
                    if matches!(frame, HostReservation::Settled(_)) {
                        crash::at("acknowledged");
                    }
                    if actions.send(Action::Reservation(key, Box::new(frame))).await.is_err() {
                        return;
                    }
                }
                // The host's last frame was its answer; without one the loop still holds the message and is told.
                Ok(None) => {
                    let _ =
                        actions.send(Action::StreamLost(key, "the host ended it".to_owned())).await;
                    return;
                }
                Err(StreamError::LinkLost(_)) => return,
                Err(error) => {
                    let _ = actions.send(Action::StreamLost(key, error.to_string())).await;
                    return;
                }
            }
        }
    };
    let (written, ()) = tokio::join!(write_frames(&mut sender, &mut queue), reading);
    if let Err(error) = written {
        tracing::debug!(id = %key.1, "send on a reservation's stream: {error}");
    }
}

async fn write_frames(
    sender: &mut FrameSender<WorkerReservation>,
    queue: &mut mpsc::Receiver<StreamOut>,
) -> Result<(), StreamError> {
    while let Some(StreamOut { frame, finish }) = queue.recv().await {
        send(sender, &frame, finish).await?;
        if finish {
            return Ok(());
        }
    }
    Ok(())
}

async fn send(
    sender: &mut FrameSender<WorkerReservation>,
    frame: &WorkerReservation,
    finish: bool,
) -> Result<(), StreamError> {
    sender.send(frame).await?;
    if matches!(frame, WorkerReservation::Verdict(_)) {
        crash::at("verdict-sent");
    }
    if finish { sender.finish() } else { Ok(()) }
}

/// Opens a stream for a reservation that goes on after a new link, and moves its frames.
pub(super) async fn resume(
    key: Key,
    connection: WorkerConnection,
    queue: mpsc::Receiver<StreamOut>,
    actions: mpsc::Sender<Action>,
) {
    let resume = gantry_protocol::frame::Resume { message: key.1, fence: key.2 };
    if let Ok((sender, receiver)) = connection.open_resume(resume).await {
        move_frames(key, sender, receiver, queue, actions).await;
    }
}

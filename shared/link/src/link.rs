//! A link once both sides have agreed to it.

use std::net::SocketAddr;
use std::sync::Arc;

use gantry_protocol::frame::{
    HostControl, HostReservation, Resume, WorkerControl, WorkerReservation,
};
use gantry_protocol::limits::TEXT_BYTES_MAX;
use quinn::ConnectionError;
use tokio::sync::OwnedSemaphorePermit;

use crate::identity::Identity;
use crate::refusal::{CloseCode, Refusal, sentence};
use crate::stream::{FrameReceiver, FrameSender, StreamError};

/// Both halves of a reservation's stream, as the host has them.
pub type HostReservationStream = (FrameSender<HostReservation>, FrameReceiver<WorkerReservation>);
/// Both halves of a reservation's stream, as the worker has them.
pub type WorkerReservationStream = (FrameSender<WorkerReservation>, FrameReceiver<HostReservation>);

/// Above every reservation's stream, so that beats and refusals overtake message bodies.
pub(crate) const CONTROL_PRIORITY: i32 = 10;

/// The host's end of a link. The parts are for tasks of their own.
#[derive(Debug)]
pub struct HostLink {
    pub sender: FrameSender<HostControl>,
    pub receiver: FrameReceiver<WorkerControl>,
    pub connection: HostConnection,
}

/// The worker's end of a link. The parts are for tasks of their own.
#[derive(Debug)]
pub struct WorkerLink {
    pub sender: FrameSender<WorkerControl>,
    pub receiver: FrameReceiver<HostControl>,
    pub connection: WorkerConnection,
}

/// The host's handle on a link; clones share it.
#[derive(Clone, Debug)]
pub struct HostConnection {
    pub(crate) wire: Wire,
    /// One of the server's bounded places, free again when the last clone is gone.
    pub(crate) _place: Arc<OwnedSemaphorePermit>,
}

/// The worker's handle on a link; clones share it.
#[derive(Clone, Debug)]
pub struct WorkerConnection {
    pub(crate) wire: Wire,
}

impl HostConnection {
    /// QUIC frames that have arrived on this link so far, of the kinds that a living peer sends: it rises as long as the
    /// peer's process runs and the network carries anything from it.
    pub fn frames_arrived(&self) -> u64 {
        self.wire.frames_arrived()
    }

    /// Opens the stream of a new reservation; waits while the worker has as many as it may
    /// ([`gantry_protocol::limits::RESERVATIONS_PER_GRABBER_MAX`]).
    ///
    /// # Errors
    /// [`StreamError::LinkLost`].
    pub async fn open_reservation(&self) -> Result<HostReservationStream, StreamError> {
        self.wire.open().await
    }

    /// The next stream that the worker opens; its first frame must be [`WorkerReservation::Resume`], which the caller reads in a
    /// task of its own, since it may never come. Dropping a stream refuses it.
    ///
    /// # Errors
    /// [`StreamError::LinkLost`].
    pub async fn accept_resume(&self) -> Result<HostReservationStream, StreamError> {
        self.wire.accept().await
    }
}

impl WorkerConnection {
    /// The next reservation's stream from the host; its first frame is [`HostReservation::Assign`].
    ///
    /// # Errors
    /// [`StreamError::LinkLost`].
    pub async fn accept_reservation(&self) -> Result<WorkerReservationStream, StreamError> {
        self.wire.accept().await
    }

    /// Opens a stream for a reservation of an earlier session that the host called live, and sends `resume` on it.
    /// Waits while as many are open as the host allows.
    ///
    /// # Errors
    /// [`StreamError::LinkLost`].
    pub async fn open_resume(
        &self,
        resume: Resume,
    ) -> Result<WorkerReservationStream, StreamError> {
        let (mut sender, receiver) = self.wire.open().await?;
        sender.send(&WorkerReservation::Resume(resume)).await?;
        Ok((sender, receiver))
    }
}

/// What both ends of a link can do.
macro_rules! end_of_a_link {
    ($end:ty) => {
        impl $end {
            /// Who is at the other end, by its verified certificate.
            pub fn identity(&self) -> &Identity {
                &self.wire.peer
            }

            pub fn remote_address(&self) -> SocketAddr {
                self.wire.quic.remote_address()
            }

            /// Ends the link at once; what was sent but not delivered may be lost. The peer sees code and text.
            pub fn close(&self, code: CloseCode, text: &str) {
                close(&self.wire.quic, &Refusal::new(code, text));
            }

            /// Waits until the link has ended, and says how.
            pub async fn closed(&self) -> Closed {
                self.wire.quic.closed().await.into()
            }
        }
    };
}
end_of_a_link!(HostConnection);
end_of_a_link!(WorkerConnection);

/// How a link ended.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    #[error("the peer closed it: {text}")]
    ByPeer { code: CloseCode, text: String },
    #[error("this side closed it")]
    ByUs,
    #[error("the peer has not been heard of for too long")]
    TimedOut,
    #[error("{reason}")]
    Lost { reason: String },
}

impl From<ConnectionError> for Closed {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => Self::ByPeer {
                code: CloseCode::from_number(close.error_code),
                text: sentence(&String::from_utf8_lossy(&close.reason)),
            },
            ConnectionError::LocallyClosed => Self::ByUs,
            ConnectionError::TimedOut => Self::TimedOut,
            other => Self::Lost { reason: sentence(&other.to_string()) },
        }
    }
}

/// A QUIC connection whose other end is verified.
#[derive(Clone, Debug)]
pub(crate) struct Wire {
    pub(crate) quic: quinn::Connection,
    pub(crate) peer: Arc<Identity>,
}

impl Wire {
    /// Of a peer that only listens come acknowledgements, and pings to keep the link alive; all else comes with them.
    fn frames_arrived(&self) -> u64 {
        let arrived = self.quic.stats().frame_rx;
        arrived.acks + arrived.ping + arrived.stream
    }

    pub(crate) async fn open<S, R>(&self) -> Result<(FrameSender<S>, FrameReceiver<R>), StreamError>
    where
        S: gantry_protocol::frame::Frame,
        R: gantry_protocol::frame::Frame,
    {
        let (send, receive) = self.quic.open_bi().await.map_err(lost)?;
        Ok((FrameSender::new(send), FrameReceiver::new(receive)))
    }

    pub(crate) async fn accept<S, R>(
        &self,
    ) -> Result<(FrameSender<S>, FrameReceiver<R>), StreamError>
    where
        S: gantry_protocol::frame::Frame,
        R: gantry_protocol::frame::Frame,
    {
        let (send, receive) = self.quic.accept_bi().await.map_err(lost)?;
        Ok((FrameSender::new(send), FrameReceiver::new(receive)))
    }
}

/// Closes a connection with a code and a sentence; a second close changes nothing.
pub(crate) fn close(quic: &quinn::Connection, refusal: &Refusal) {
    debug_assert!(refusal.text.len() <= TEXT_BYTES_MAX, "a refusal is cut when it is made");
    quic.close(refusal.code.number(), refusal.text.as_bytes());
}

fn lost(error: ConnectionError) -> StreamError {
    StreamError::LinkLost(Closed::from(error))
}

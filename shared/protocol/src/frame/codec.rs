//! Frames to bytes and back.

use serde::{Serialize, de::DeserializeOwned};

use super::{HostControl, HostReservation, WorkerControl, WorkerReservation};
use crate::limits::{CONTROL_FRAME_BYTES_MAX, RESERVATION_FRAME_BYTES_MAX};

/// Number (2) and length (4), both big-endian.
pub const FRAME_HEADER_BYTES: usize = 6;

/// A frame that cannot be sent or that the peer should not have sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("frame {number} is unknown on this stream; a peer one version apart never sends it")]
    UnknownNumber { number: u16 },
    #[error("frame {number} is {length} bytes long; at most {max} are allowed")]
    TooLong { number: u16, length: usize, max: usize },
    #[error("frame {number} cannot be read: {reason}")]
    Malformed { number: u16, reason: String },
}

/// The first bytes of a frame, checked against the bounds before a byte of payload is awaited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    pub number: u16,
    pub length: usize,
}

impl FrameHeader {
    /// Reads a header for a stream that carries `F`.
    pub fn read<F: Frame>(bytes: [u8; FRAME_HEADER_BYTES]) -> Result<Self, FrameError> {
        let [n0, n1, l0, l1, l2, l3] = bytes;
        let number = u16::from_be_bytes([n0, n1]);
        let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).unwrap_or(usize::MAX);
        if !F::NUMBERS.contains(&number) {
            return Err(FrameError::UnknownNumber { number });
        }
        if length > F::BYTES_MAX {
            return Err(FrameError::TooLong { number, length, max: F::BYTES_MAX });
        }
        Ok(Self { number, length })
    }
}

/// One of the four languages.
pub trait Frame: Sized {
    /// Largest payload in bytes.
    const BYTES_MAX: usize;
    /// The numbers of its frames.
    const NUMBERS: &'static [u16];
    /// Number and payload.
    fn payload(&self) -> (u16, Result<Vec<u8>, postcard::Error>);
    /// `None` where the number is not of this language.
    fn from_payload(number: u16, payload: &[u8]) -> Option<Result<Self, postcard::Error>>;
}

/// A frame with its header.
///
/// # Errors
/// [`FrameError::TooLong`] where the payload exceeds what the other side accepts: the sender's mistake.
pub fn encode<F: Frame>(frame: &F) -> Result<Vec<u8>, FrameError> {
    let (number, payload) = frame.payload();
    let payload =
        payload.map_err(|error| FrameError::Malformed { number, reason: error.to_string() })?;
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= F::BYTES_MAX);
    let Some(length) = length else {
        return Err(FrameError::TooLong { number, length: payload.len(), max: F::BYTES_MAX });
    };
    let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + payload.len());
    bytes.extend_from_slice(&number.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&payload);
    Ok(bytes)
}

/// The frame whose header and payload have been read.
pub fn decode<F: Frame>(header: FrameHeader, payload: &[u8]) -> Result<F, FrameError> {
    let number = header.number;
    F::from_payload(number, payload)
        .ok_or(FrameError::UnknownNumber { number })?
        .map_err(|error| FrameError::Malformed { number, reason: error.to_string() })
}

fn whole<T: DeserializeOwned>(payload: &[u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(payload)? {
        (value, []) => Ok(value),
        _ => Err(postcard::Error::SerdeDeCustom),
    }
}

fn bytes<T: Serialize>(value: &T) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(value)
}

/// The table of numbers: the one place where a frame gets its number.
macro_rules! language {
    ($name:ident, $max:expr, { $($number:literal => $variant:ident),+ $(,)? }) => {
        impl Frame for $name {
            const BYTES_MAX: usize = $max;
            const NUMBERS: &'static [u16] = &[$($number),+];

            fn payload(&self) -> (u16, Result<Vec<u8>, postcard::Error>) {
                match self { $($name::$variant(frame) => ($number, bytes(frame)),)+ }
            }

            fn from_payload(number: u16, payload: &[u8]) -> Option<Result<Self, postcard::Error>> {
                match number {
                    $($number => Some(whole(payload).map($name::$variant)),)+
                    _ => None,
                }
            }
        }
    };
}

language!(WorkerControl, CONTROL_FRAME_BYTES_MAX, {
    1 => Hello, 2 => Want, 3 => Recall, 4 => Beat, 5 => Profile, 6 => Hint, 7 => Draining,
});
language!(HostControl, CONTROL_FRAME_BYTES_MAX, {
    65 => Welcome, 66 => Refused, 67 => Recalled, 68 => Backlog, 69 => Peers, 70 => Notice,
    71 => Manage,
});
language!(HostReservation, RESERVATION_FRAME_BYTES_MAX, { 129 => Assign, 130 => Cancel, 131 => Settled });
language!(WorkerReservation, RESERVATION_FRAME_BYTES_MAX, {
    193 => Resume, 194 => Progress, 195 => Return, 196 => Verdict, 197 => Part,
});

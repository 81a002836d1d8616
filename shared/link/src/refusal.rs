//! Why a link ends: a code for programs and a sentence for people.

use std::fmt;

use gantry_protocol::frame::RefusedCode;
use gantry_protocol::limits::TEXT_BYTES_MAX;
use quinn::VarInt;

/// The application error code of a QUIC connection's end. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseCode {
    /// The side that closed it was done.
    Done,
    NoCertificate,
    UnknownAuthority,
    Expired,
    NotYetValid,
    Revoked,
    WrongRole,
    NameMismatch,
    NoCommonVersion,
    Clone,
    Limit,
    Misbehaved,
    ShuttingDown,
    Replaced,
    /// A join was refused: the token is unknown, used, expired, or not for this name.
    TokenRefused,
    /// A code of a newer peer.
    Other(u64),
}

/// Every code with its number: the one place where it gets one.
const NUMBERS: [(CloseCode, u32); 15] = [
    (CloseCode::Done, 0),
    (CloseCode::NoCertificate, 1),
    (CloseCode::UnknownAuthority, 2),
    (CloseCode::Expired, 3),
    (CloseCode::NotYetValid, 4),
    (CloseCode::Revoked, 5),
    (CloseCode::WrongRole, 6),
    (CloseCode::NameMismatch, 7),
    (CloseCode::NoCommonVersion, 8),
    (CloseCode::Clone, 9),
    (CloseCode::Limit, 10),
    (CloseCode::Misbehaved, 11),
    (CloseCode::ShuttingDown, 12),
    (CloseCode::Replaced, 13),
    (CloseCode::TokenRefused, 14),
];

impl CloseCode {
    pub(crate) fn from_number(number: VarInt) -> Self {
        let number = number.into_inner();
        NUMBERS
            .iter()
            .find(|(_, known)| u64::from(*known) == number)
            .map_or(Self::Other(number), |(code, _)| *code)
    }

    pub(crate) fn number(self) -> VarInt {
        if let Self::Other(number) = self {
            return VarInt::from_u64(number).unwrap_or(VarInt::MAX);
        }
        let number =
            NUMBERS.iter().find(|(code, _)| *code == self).map_or(0, |(_, number)| *number);
        VarInt::from_u32(number)
    }
}

impl From<RefusedCode> for CloseCode {
    fn from(code: RefusedCode) -> Self {
        match code {
            RefusedCode::NoCommonVersion => Self::NoCommonVersion,
            RefusedCode::NameMismatch => Self::NameMismatch,
            RefusedCode::WrongRole => Self::WrongRole,
            RefusedCode::Revoked => Self::Revoked,
            RefusedCode::Clone => Self::Clone,
            RefusedCode::Limit => Self::Limit,
            RefusedCode::Misbehaved => Self::Misbehaved,
            RefusedCode::ShuttingDown => Self::ShuttingDown,
            RefusedCode::Replaced => Self::Replaced,
        }
    }
}

/// Why a peer is not served, in one sentence that both sides show.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    pub code: CloseCode,
    pub text: String,
}

impl Refusal {
    pub fn new(code: CloseCode, text: impl Into<String>) -> Self {
        Self { code, text: sentence(&text.into()) }
    }
}

/// A peer's words as one printable line of at most [`TEXT_BYTES_MAX`] bytes: they go to logs and terminals.
pub(crate) fn sentence(text: &str) -> String {
    let mut line = String::with_capacity(text.len().min(TEXT_BYTES_MAX));
    for character in text.chars() {
        if line.len() + character.len_utf8() > TEXT_BYTES_MAX {
            break;
        }
        line.push(if character.is_control() { ' ' } else { character });
    }
    line
}

/// A span of time as people say it, in its largest unit.
pub(crate) struct Span(pub(crate) u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, unit) = match self.0 {
            seconds @ 0..120 => (seconds, "second"),
            seconds @ 120..7_200 => (seconds / 60, "minute"),
            seconds @ 7_200..172_800 => (seconds / 3_600, "hour"),
            seconds => (seconds / 86_400, "day"),
        };
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

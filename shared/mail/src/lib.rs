//! Envelopes and the header block of a message. Pure: bytes in, bytes out; no files, clock, randomness or keys.

pub mod compose;
pub mod date;
pub mod dsn;
mod edit;
mod envelope;
mod fold;
pub mod header;
mod mask;
mod quoted_printable;
pub mod received;
pub mod trace;
pub mod xtext;

pub use edit::{EDITS_MAX, EditError, FIELD_BYTES_MAX, HeaderEdit, check_edits};
pub use envelope::{
    ADDRESS_BYTES_MAX, BodyType, Came, Envelope, Notify, PARAMETER_BYTES_MAX, Peer, RECIPIENTS_MAX,
    Recipient, Ret, SenderParameters, is_address,
};
pub use mask::Mask;

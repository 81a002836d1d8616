//! Envelopes and the header block of a message. Pure: bytes in, bytes out.

mod edit;
mod envelope;

pub use edit::{EDITS_MAX, FIELD_BYTES_MAX, HeaderEdit};
pub use envelope::{
    ADDRESS_BYTES_MAX, BodyType, Envelope, Notify, PARAMETER_BYTES_MAX, Peer, RECIPIENTS_MAX,
    Recipient, Ret, SenderParameters,
};

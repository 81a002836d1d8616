//! Messages in the form that programs and folders of this machine have them in: lines that may end with LF, and the
//! envelope in the header block or in a file of its own. Never in `To` and `Cc`: those are for people to read.

mod envelope;
mod lines;

pub use envelope::{
    AddressError, EnvelopeError, RECEIVER, SENDER, SIDECAR_BYTES_MAX, SIDECAR_ENDING, Sidecar,
    check_address, head_fields, recipients, take_head_fields,
};
pub use lines::{ToCrlf, crlf_to_lf};

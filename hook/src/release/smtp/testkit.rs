//! What is said to the next hop, for tests outside of this crate that compare it with what an intake understands.

use gantry_mail::{Envelope, Peer, Recipient};

use super::{commands, stuffing::Stuffing};
use crate::release::{Capabilities, letter::Encoding};

fn everything() -> Capabilities {
    Capabilities {
        size: Some(0),
        eight_bit_mime: true,
        smtputf8: true,
        dsn: true,
        ..Capabilities::default()
    }
}

/// MAIL, with its CRLF, to a next hop that offers everything.
pub fn mail(envelope: &Envelope) -> String {
    commands::mail(envelope, 0, envelope.parameters.smtputf8, &everything())
}

/// RCPT, with its CRLF, to a next hop that offers everything.
pub fn rcpt(recipient: &Recipient) -> String {
    commands::rcpt(recipient, &everything())
}

/// XFORWARD as often as it takes, each with its CRLF, to a next hop that knows all of these attributes.
pub fn xforward(attributes: &[(String, String)]) -> Vec<String> {
    let offered: Vec<String> = attributes.iter().map(|(name, _)| name.clone()).collect();
    let peer = Peer { xforward: attributes.to_vec(), ..Peer::default() };
    commands::xforward(&peer, &offered)
}

/// A message as it stands between 354 and the reply, final dot and all.
pub fn stuffed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let (mut stuffing, mut wire) = (Stuffing::default(), Vec::new());
    pieces.into_iter().for_each(|piece| stuffing.push(piece, &mut wire));
    stuffing.finish(&mut wire);
    wire
}

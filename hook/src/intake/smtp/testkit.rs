//! What reads a client's bytes, for tests outside of this crate that feed it any bytes.

use gantry_mail::{Recipient, SenderParameters};

use super::{command, data};

/// What a command line says that travels further; the rest is only that it was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Mail {
        sender: String,
        parameters: SenderParameters,
    },
    Rcpt(Recipient),
    /// Decoded.
    XForward(Vec<(String, String)>),
    Other,
}

/// Reads a command line without its CRLF, with everything offered. `utf8`: the transaction was begun with SMTPUTF8.
///
/// # Errors
/// The reply to give.
pub fn command(line: &[u8], utf8: bool) -> Result<Command, &'static str> {
    let all = command::Extensions {
        size: true,
        eight_bit_mime: true,
        smtputf8: true,
        dsn: true,
        xforward: true,
    };
    Ok(match command::Command::parse(line, &all, utf8)? {
        command::Command::Mail(mail) => {
            Command::Mail { sender: mail.sender, parameters: mail.parameters }
        }
        command::Command::Rcpt(recipient) => Command::Rcpt(*recipient),
        command::Command::XForward(attributes) => Command::XForward(attributes),
        _ => Command::Other,
    })
}

/// What stands between DATA's 354 and the final dot.
#[derive(Debug, Default)]
pub struct Decoder(data::Decoder);

impl Decoder {
    /// Takes bytes up to the end of the data, appends the message's to `message`, and returns how many it took.
    pub fn push(&mut self, input: &[u8], message: &mut Vec<u8>) -> usize {
        self.0.push(input, message)
    }

    pub fn has_ended(&self) -> bool {
        self.0.has_ended()
    }

    /// Whether a CR or LF that stood alone was seen.
    pub fn saw_stray(&self) -> bool {
        self.0.saw_stray()
    }
}

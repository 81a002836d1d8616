//! The envelope: what SMTP said about a message outside of the message (RFC 5321, 3461, 6152, 6531).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Most recipients in one message. RFC 5321, 4.5.3.1.8 asks for at least 100.
pub const RECIPIENTS_MAX: usize = 1_000;
/// Longest address, in bytes, without the angle brackets. RFC 5321, 4.5.3.1.3 says 256 with them;
/// SMTPUTF8 and source labels make some room above it sensible.
pub const ADDRESS_BYTES_MAX: usize = 512;
/// Longest single parameter value (ENVID, ORCPT, an XFORWARD attribute), in bytes. RFC 3461, 4.2 and 4.4
/// allow 100 and 500 characters.
pub const PARAMETER_BYTES_MAX: usize = 512;

/// Who sends what to whom, and from where: everything that has to come out of the way out again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Envelope {
    /// The reverse path without angle brackets; empty is the null sender `<>`.
    pub sender: String,
    pub parameters: SenderParameters,
    /// In the order of RCPT; at most [`RECIPIENTS_MAX`]. Verdicts name recipients by their index here.
    pub recipients: Vec<Recipient>,
    pub peer: Peer,
}

/// Parameters of MAIL.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SenderParameters {
    /// BODY= (RFC 6152).
    pub body: Option<BodyType>,
    /// SMTPUTF8 (RFC 6531).
    pub smtputf8: bool,
    /// RET= (RFC 3461, 4.3).
    pub ret: Option<Ret>,
    /// ENVID= (RFC 3461, 4.4), still in xtext.
    pub envid: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BodyType {
    SevenBit,
    EightBitMime,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ret {
    Full,
    Headers,
}

/// One recipient with the parameters of its RCPT.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipient {
    /// The forward path without angle brackets.
    pub address: String,
    /// NOTIFY= (RFC 3461, 4.1); `None` where the sender said nothing.
    pub notify: Option<Notify>,
    /// ORCPT= (RFC 3461, 4.2), still in xtext.
    pub orcpt: Option<String>,
}

/// NOTIFY= of RFC 3461, 4.1. All three false is NOTIFY=NEVER.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    pub success: bool,
    pub failure: bool,
    pub delay: bool,
}

/// The client that spoke to us, or, where an upstream MTA told us with XFORWARD, the client it speaks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// The address that connected to the hook.
    pub address: Option<IpAddr>,
    /// What it said in EHLO or HELO.
    pub helo: String,
    pub came: Came,
    /// Whether what it said was encrypted (STARTTLS, RFC 3207).
    pub tls: bool,
    /// Attributes of XFORWARD as they came, decoded from xtext, in the order of first appearance
    /// (NAME, ADDR, PORT, PROTO, HELO, IDENT, SOURCE); `[UNAVAILABLE]` values are kept as they are.
    pub xforward: Vec<(String, String)>,
}

/// By which way a message came to the hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Came {
    /// SMTP, begun with EHLO.
    #[default]
    Esmtp,
    /// SMTP, begun with HELO.
    Smtp,
    /// LMTP (RFC 2033).
    Lmtp,
    /// A file in a pickup folder.
    Pickup,
    /// The command `gantry-hook mark`.
    Mark,
}

/// Whether a text is an address as we write them ourselves: `local@domain`, which nothing can end or lengthen between the
/// angle brackets of SMTP. What SMTP allows beyond that, such as quotes, is not asked for.
pub fn is_address(text: &str) -> bool {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !"<>,;\"*".contains(c);
    text.len() <= ADDRESS_BYTES_MAX
        && text.chars().all(plain)
        && text.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && !domain.contains('@')
        })
}

impl Envelope {
    /// Whether the sender is the null sender, to whom no notice may ever go (RFC 5321, 4.5.5).
    pub fn is_null_sender(&self) -> bool {
        self.sender.is_empty()
    }
}

//! Names and numbers that identify things, each with its text form.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// The number of a hook's start, synced to disk before the hook listens. It rises with every start, so what is
/// counted within an epoch also rises across restarts.
pub type Epoch = u32;

/// Names one message of one host, for as long as the host's spool lives. Text form: `EPOCH-COUNTER`, lower-case hex.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageId {
    pub epoch: Epoch,
    pub counter: u64,
}

/// A number that rises with each reservation of a message; what carries an old fence is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fence {
    pub epoch: Epoch,
    pub counter: u64,
}

/// One run of one grabber, drawn at random by the worker when it starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Incarnation(pub u64);

/// One link between a host and a grabber, counted by the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Session(pub u64);

/// Pairs an effect that takes time with its completion. Local to one process: never on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub u64);

/// SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.epoch, self.counter)
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}/{:x}", self.epoch, self.counter)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Text that is no message id.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no message id; one looks like 3-1a7 (two hexadecimal numbers)")]
pub struct NoMessageId {
    pub text: String,
}

impl FromStr for MessageId {
    type Err = NoMessageId;

    fn from_str(text: &str) -> Result<Self, NoMessageId> {
        let parse = || {
            let (epoch, counter) = text.split_once('-')?;
            Some(Self { epoch: hex(epoch)?.try_into().ok()?, counter: hex(counter)? })
        };
        parse().ok_or_else(|| NoMessageId { text: text.chars().take(64).collect() })
    }
}

/// Lower-case hex without leading zeros, so that one id has one text.
fn hex(text: &str) -> Option<u64> {
    let plain = !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        && (text == "0" || !text.starts_with('0'));
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_id_has_one_text() {
        let id = MessageId { epoch: 3, counter: 0x1a7 };
        assert_eq!(id.to_string(), "3-1a7");
        assert_eq!("3-1a7".parse(), Ok(id));
        for wrong in ["", "3", "3-", "-1", "03-1", "3-1A7", "3-1g", "100000000-1", "3-1-1", "+3-1"]
        {
            assert!(wrong.parse::<MessageId>().is_err(), "{wrong}");
        }
    }
}

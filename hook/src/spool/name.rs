//! File names, which are where a message's state lives.
//!
//! `ID.RECEIVED.LENGTH.RECIPIENTS.STATE`, numbers in lower-case hex without leading zeros, so that one file has one
//! name: `3-1a7.6553f100.1400.2.m0`. The numbers are there so that a start, which opens nothing, knows all that the
//! pool asks of a message.

use std::fmt;
use std::str::FromStr;

use gantry_protocol::id::MessageId;
use gantry_protocol::limits::MESSAGE_BYTES_MAX;
use gantry_protocol::pool::StoredState;

/// Most attempts that a name can tell; the pool's limit is far below.
pub(super) const ATTEMPTS_NAMED_MAX: u8 = 9;
/// The state of a file that was set aside as damaged.
const BAD: &str = "bad";
/// The end of a file that is being written.
const TEMPORARY: &str = ".tmp";

/// What the name of a message's file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub(super) id: MessageId,
    /// Seconds since 1970: 32 bits last until 2106.
    pub(super) received_unix_s: u32,
    pub(super) length: u64,
    pub(super) recipients: u16,
    pub(super) state: StoredState,
}

/// Whatever a message folder may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FileName {
    Message(Name),
    /// A message that was set aside as damaged.
    Bad(MessageId),
    /// A message that was being written: never answered yes.
    Temporary(MessageId),
}

impl Name {
    /// The name under which the file is kept when it is damaged.
    pub(super) fn bad(&self) -> String {
        format!("{}.{BAD}", self.numbers())
    }

    fn numbers(&self) -> String {
        let Self { id, received_unix_s, length, recipients, .. } = self;
        format!("{id}.{received_unix_s:x}.{length:x}.{recipients:x}")
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.numbers())?;
        match self.state {
            StoredState::Marked { attempts } => write!(f, ".m{}", attempts.min(ATTEMPTS_NAMED_MAX)),
            StoredState::Part { attempts } => write!(f, ".p{}", attempts.min(ATTEMPTS_NAMED_MAX)),
            StoredState::Releasing => f.write_str(".r"),
            StoredState::Held => f.write_str(".h"),
            StoredState::Quarantined => f.write_str(".q"),
        }
    }
}

/// The name of a message's file while it is written.
pub(super) fn temporary(id: MessageId) -> String {
    format!("{id}{TEMPORARY}")
}

/// A name that the spool did not give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Foreign;

impl FromStr for FileName {
    type Err = Foreign;

    fn from_str(text: &str) -> Result<Self, Foreign> {
        if let Some(id) = text.strip_suffix(TEMPORARY) {
            return id.parse().map(FileName::Temporary).map_err(|_| Foreign);
        }
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(Foreign);
        let id = next()?.parse().map_err(|_| Foreign)?;
        let received_unix_s = hex(next()?)?;
        let length = hex(next()?)?;
        let recipients = hex(next()?)?;
        let state = next()?;
        if next().is_ok() || length > MESSAGE_BYTES_MAX {
            return Err(Foreign);
        }
        let message =
            |state| FileName::Message(Name { id, received_unix_s, length, recipients, state });
        Ok(match state {
            "r" => message(StoredState::Releasing),
            "h" => message(StoredState::Held),
            "q" => message(StoredState::Quarantined),
            BAD => FileName::Bad(id),
            _ => message(in_pool(state)?),
        })
    }
}

/// `m0` to `m9`, and `p0` to `p9`.
fn in_pool(state: &str) -> Result<StoredState, Foreign> {
    match state.as_bytes() {
        [b'm', digit @ b'0'..=b'9'] => Ok(StoredState::Marked { attempts: digit - b'0' }),
        [b'p', digit @ b'0'..=b'9'] => Ok(StoredState::Part { attempts: digit - b'0' }),
        _ => Err(Foreign),
    }
}

/// Lower-case hex without leading zeros, that fits.
fn hex<T: TryFrom<u64>>(text: &str) -> Result<T, Foreign> {
    let plain = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && (text == "0" || !text.starts_with('0'));
    let number = plain.then(|| u64::from_str_radix(text, 16).ok()).flatten().ok_or(Foreign)?;
    T::try_from(number).map_err(|_| Foreign)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states() -> impl Strategy<Value = StoredState> {
        prop_oneof![
            (0..=ATTEMPTS_NAMED_MAX).prop_map(|attempts| StoredState::Marked { attempts }),
            (0..=ATTEMPTS_NAMED_MAX).prop_map(|attempts| StoredState::Part { attempts }),
            Just(StoredState::Releasing),
            Just(StoredState::Held),
            Just(StoredState::Quarantined),
        ]
    }

    prop_compose! {
        fn names()(epoch: u32, counter: u64, received_unix_s: u32, length in 0..=MESSAGE_BYTES_MAX,
                   recipients: u16, state in states()) -> Name {
            Name { id: MessageId { epoch, counter }, received_unix_s, length, recipients, state }
        }
    }

    proptest! {
        #[test]
        fn a_name_comes_back(name in names()) {
            prop_assert_eq!(name.to_string().parse(), Ok(FileName::Message(name)));
            prop_assert_eq!(name.bad().parse(), Ok(FileName::Bad(name.id)));
            prop_assert_eq!(temporary(name.id).parse(), Ok(FileName::Temporary(name.id)));
        }

        #[test]
        fn what_is_taken_is_spelled_so(text in "[0-9a-fm]{0,3}-?[0-9a-f.mrhqbdtp+A-F-]{0,24}") {
            if let Ok(file_name) = text.parse() {
                match file_name {
                    FileName::Message(name) => prop_assert_eq!(name.to_string(), text),
                    FileName::Temporary(id) => prop_assert_eq!(temporary(id), text),
                    FileName::Bad(_) => prop_assert!(text.ends_with(".bad")),
                }
            }
        }

        #[test]
        fn one_changed_character_is_another_name_or_none(name in names(), at: prop::sample::Index, with: char) {
            let mut characters: Vec<char> = name.to_string().chars().collect();
            let at = at.index(characters.len());
            if let Some(character) = characters.get_mut(at) {
                *character = with;
            }
            let changed: String = characters.into_iter().collect();
            if changed != name.to_string() {
                prop_assert_ne!(changed.parse(), Ok(FileName::Message(name)));
            }
        }
    }

    #[test]
    fn foreign_names_are_refused() {
        for foreign in [
            "",
            ".",
            "..",
            ".tmp",
            "lost+found",
            "3-1a7",
            "3-1a7.1.1.1.m10",
            "3-1a7.1.1.1.m",
            "3-1a7.1.1.1.x",
            "3-1a7.1.1.1.r.r",
            "3-1a7.1.1.1.R",
            "3-1a7.01.1.1.r",
            "3-1a7.100000000.1.1.r",
            "3-1a7.1.1.10000.r",
            "3-1a7.1.10000000001.1.r",
            "3-1a7.1.1.1.tmp",
            "3-1a7.1..1.r",
        ] {
            assert_eq!(foreign.parse::<FileName>(), Err(Foreign), "{foreign}");
        }
        assert_eq!(
            "3-1a7.6553f100.1400.2.m0".parse(),
            Ok(FileName::Message(Name {
                id: MessageId { epoch: 3, counter: 0x1a7 },
                received_unix_s: 0x6553_f100,
                length: 0x1400,
                recipients: 2,
                state: StoredState::Marked { attempts: 0 },
            }))
        );
    }
}

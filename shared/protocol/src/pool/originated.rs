//! Which messages a verdict may originate; rule 15.

use gantry_mail::{Mask, RECIPIENTS_MAX, is_address};

use super::{MailboxConfig, OriginatedAllowed};
use crate::limits::{ORIGINATED_BYTES_MAX, ORIGINATED_MAX};
use crate::text::bounded;
use crate::verdict::{Originated, OriginatedTo};

/// Why these may not be originated by the verdict on a message with so many recipients.
pub(super) fn check_originated(
    originated: &[Originated],
    recipients: u16,
    mailbox: Option<&MailboxConfig>,
) -> Result<(), String> {
    if originated.is_empty() {
        return Ok(());
    }
    if originated.len() > ORIGINATED_MAX {
        let count = originated.len();
        return Err(format!(
            "it originates {count} messages; at most {ORIGINATED_MAX} are allowed"
        ));
    }
    let name = mailbox.map_or("", |mailbox| mailbox.name.as_str());
    let Some(allowed) = mailbox.and_then(|mailbox| mailbox.originated.as_ref()) else {
        return Err(format!(
            "it originates messages, and hook.toml does not say whom they may come from and go to: add [mailbox.originated] \
             with senders and recipients to the mailbox {name:?}"
        ));
    };
    originated.iter().try_for_each(|one| check_one(one, recipients, allowed, name))
}

fn check_one(
    one: &Originated,
    recipients: u16,
    allowed: &OriginatedAllowed,
    mailbox: &str,
) -> Result<(), String> {
    let (bytes, places) = (one.message.len(), one.recipients.len());
    if bytes > ORIGINATED_BYTES_MAX {
        return Err(format!(
            "it originates {bytes} bytes; at most {ORIGINATED_BYTES_MAX} are allowed in one message"
        ));
    }
    if places == 0 || places > RECIPIENTS_MAX {
        return Err(format!(
            "it originates a message to {places} recipients; 1 to {RECIPIENTS_MAX} are allowed"
        ));
    }
    if one.original_at.is_some_and(|at| usize::try_from(at).map_or(true, |at| at > bytes)) {
        return Err("the original's place is behind the end of an originated message".to_owned());
    }
    let not_allowed = |what: &str, key: &str| {
        let what = bounded(what);
        Err(format!(
            "it originates a message {what}, which {key} under [mailbox.originated] of the mailbox {mailbox:?} in hook.toml \
             does not allow"
        ))
    };
    if !one.sender.is_empty() && !is_address(&one.sender) || !has(&allowed.senders, &one.sender) {
        return not_allowed(&format!("from <{}>", one.sender), "senders");
    }
    for to in &one.recipients {
        let (fits, who) = match to {
            OriginatedTo::Address(address) => {
                let fits = is_address(address) && has(&allowed.recipients, address);
                (fits, format!("to <{address}>"))
            }
            OriginatedTo::Sender => (allowed.to_sender, "to the sender".to_owned()),
            OriginatedTo::Recipient(index) => {
                let fits = allowed.to_recipients && *index < recipients;
                (fits, format!("to recipient {index}"))
            }
        };
        if !fits {
            return not_allowed(&who, "recipients");
        }
    }
    Ok(())
}

fn has(masks: &[Mask], address: &str) -> bool {
    let lower = address.to_lowercase();
    masks.iter().any(|mask| mask.matches(&lower))
}

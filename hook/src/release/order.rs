//! What a release has to do: who gets what, as the verdict says.

use std::sync::Arc;

use gantry_mail::{Envelope, HeaderEdit, Recipient};
use gantry_protocol::id::MessageId;
use gantry_protocol::pool::{RecipientResult, ReleaseResult};
use gantry_protocol::text::bounded;
use gantry_protocol::verdict::{Body, Disposition, Verdict};

use crate::disk::Disk;
use crate::spool::{Header, Log, Spool, SpoolError};

/// Recipients that get the same bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) recipients: Vec<u16>,
    pub(super) edits: Vec<HeaderEdit>,
    pub(super) body: Body,
}

/// Recipients by their delivery, in the order of the verdict.
pub(super) fn groups(verdict: Option<&Verdict>, recipients: Vec<u16>) -> Vec<Group> {
    let mut left = recipients;
    let mut groups = Vec::new();
    for group in verdict.map(|verdict| verdict.groups.as_slice()).unwrap_or_default() {
        let Disposition::Deliver { edits, body } = &group.disposition else { continue };
        let (recipients, others) =
            left.into_iter().partition(|recipient| group.recipients.contains(recipient));
        left = others;
        groups.push(Group { recipients, edits: edits.clone(), body: body.clone() });
    }
    groups.push(Group { recipients: left, edits: Vec::new(), body: Body::Original });
    groups.retain(|group| !group.recipients.is_empty());
    groups
}

/// What the spool knows of a message, read off the loop.
pub(super) async fn load<D: Disk>(
    spool: &Arc<Spool<D>>,
    id: MessageId,
) -> Result<(Header, Log), SpoolError> {
    let spool = spool.clone();
    let load = tokio::task::spawn_blocking(move || Ok((spool.header(id)?, spool.log(id)?)));
    load.await.unwrap_or_else(|panic| {
        Err(SpoolError::Io {
            doing: "read message from the",
            path: "spool".into(),
            source: std::io::Error::other(panic),
        })
    })
}

/// The same result for each.
pub(super) fn all(recipients: &[u16], result: ReleaseResult, reply: &str) -> Vec<RecipientResult> {
    let reply = bounded(reply);
    recipients
        .iter()
        .map(|&recipient| RecipientResult { recipient, result, reply: reply.clone() })
        .collect()
}

/// Recipients of the envelope by their indexes; those that it does not have are left out.
pub(super) fn envelope_recipients(envelope: &Envelope, indexes: &[u16]) -> Vec<Recipient> {
    let known = &envelope.recipients;
    indexes.iter().filter_map(|&index| known.get(usize::from(index)).cloned()).collect()
}

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
    let load = spool.ask(id, |spool, id| Ok((spool.header(id)?, spool.log(id)?)));
    load.await.unwrap_or_else(|| {
        Err(SpoolError::Io {
            doing: "read message from the",
            path: "spool".into(),
            source: std::io::Error::other("a thread broke down"),
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

/// A release that a way out has begun: what is known of the message, who is to be served with what, and what can be
/// told of the others at once.
pub(super) struct Plan {
    pub(super) header: Header,
    pub(super) groups: Vec<Group>,
    pub(super) results: Vec<RecipientResult>,
}

/// Reads a message's verdict and envelope; what neither of them lets a way out do is in the results already.
pub(super) async fn plan<D: Disk>(
    spool: &Arc<Spool<D>>,
    id: MessageId,
    recipients: Vec<u16>,
) -> Result<Plan, Vec<RecipientResult>> {
    let (header, log) = match load(spool, id).await {
        Ok(loaded) => loaded,
        Err(error) => return Err(all(&recipients, ReleaseResult::Deferred, &error.to_string())),
    };
    let mut results = Vec::new();
    let known = header.envelope.recipients.len();
    let mut serve = groups(log.verdict.as_ref(), recipients);
    serve.retain_mut(|group| {
        if group.body != Body::Original {
            // The original in its place might be just what the verdict wanted replaced.
            let reply =
                "hand the message on: its body was to be replaced, and the spool has no other";
            results.extend(all(&group.recipients, ReleaseResult::Deferred, reply));
            return false;
        }
        let (to, unknown): (Vec<u16>, Vec<u16>) =
            group.recipients.iter().partition(|&&index| usize::from(index) < known);
        let reply = "the envelope has no such recipient";
        results.extend(all(&unknown, ReleaseResult::Refused, reply));
        group.recipients = to;
        !group.recipients.is_empty()
    });
    Ok(Plan { header, groups: serve, results })
}

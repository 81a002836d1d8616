//! The host's key for trace tokens, by which it knows its own mail again.

use std::fmt;

use gantry_mail::header::Header;
use gantry_mail::trace::{self, MAC_BYTES, Passage};
use ring::hmac;

/// Keyed with a secret of the host, so that nobody else can write a token that counts.
#[derive(Clone)]
pub struct TraceKey {
    host: String,
    key: hmac::Key,
}

impl TraceKey {
    /// `host` is the host's name in the cluster; `secret` should be 32 random bytes that live as long as the spool.
    pub fn new(host: impl Into<String>, secret: &[u8]) -> Self {
        Self { host: host.into(), key: hmac::Key::new(hmac::HMAC_SHA256, secret) }
    }

    /// The `X-Gantry-Trace` field for a message that leaves `mailbox` for these recipients, without its final CRLF.
    pub fn field(&self, mailbox: &str, header: &Header, recipients: &[&str]) -> String {
        trace::field(&self.passage(mailbox, header, recipients), |bytes| self.mac(bytes))
    }

    /// Whether a message that comes in at `mailbox` for these recipients has left it just so before.
    pub fn is_ours(&self, mailbox: &str, header: &Header, recipients: &[&str]) -> bool {
        let passage = self.passage(mailbox, header, recipients);
        trace::verify(header.traces.iter().map(Vec::as_slice), &passage, |bytes| self.mac(bytes))
    }

    fn passage<'a>(
        &'a self,
        mailbox: &'a str,
        header: &'a Header,
        recipients: &'a [&'a str],
    ) -> Passage<'a> {
        let message_id = header.message_id.as_deref();
        Passage { host: &self.host, mailbox, message_id, recipients }
    }

    fn mac(&self, bytes: &[u8]) -> [u8; MAC_BYTES] {
        let mut mac = [0; MAC_BYTES];
        let tag = hmac::sign(&self.key, bytes);
        mac.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        mac
    }
}

impl fmt::Debug for TraceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TraceKey").field("host", &self.host).finish_non_exhaustive()
    }
}

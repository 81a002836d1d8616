//! The running hook's doors for administrators: a Unix socket in the spool, open to its owner alone, and for operators
//! with a certificate the QUIC port. Through both go the same requests and replies ([`gantry_operator`]): here a line of
//! JSON each, there a stream.

mod aside;
mod client;
mod orders;
mod remote;
mod socket;

use gantry_link::Identity;
use gantry_operator::{REPLY_BYTES_MAX, Reply, Request};
use tokio::sync::oneshot;

pub use aside::{add_reasons, change, list, message, show, tell_steps};
pub(crate) use aside::{finding, result_word};
pub use client::{AdminError, ask};
pub use orders::Orders;
pub use remote::serve;
pub use socket::listen;

use crate::audit::Who;

/// Requests that wait for the loop; each asker has one under way.
pub const REQUESTS_MAX: usize = 16;

/// A request on its way to the loop.
#[derive(Debug)]
pub struct Asked {
    pub who: Who,
    /// The certificate of who asks over the network: it is looked at again with each request.
    pub identity: Option<Identity>,
    pub request: Request,
    /// Where the reply goes. An asker that has gone wants none.
    pub reply: oneshot::Sender<Reply>,
}

/// A reply's text within its bound: of too many messages the last ones are left out.
fn encode(mut reply: Reply) -> Vec<u8> {
    loop {
        match serde_json::to_vec(&reply) {
            Ok(text) if text.len() <= REPLY_BYTES_MAX => return text,
            Ok(_) if shorten(&mut reply) => {}
            Ok(text) => {
                let bytes = text.len();
                let words =
                    format!("the reply has {bytes} bytes; at most {REPLY_BYTES_MAX} travel");
                reply = Reply::Refused(words);
            }
            Err(error) => reply = Reply::Refused(format!("write the reply: {error}")),
        }
    }
}

/// Whether there was something to leave out.
fn shorten(reply: &mut Reply) -> bool {
    match reply {
        Reply::Status(status) => halve(&mut status.pool.messages) > 0,
        Reply::Queue(queue) => {
            let left_out = halve(&mut queue.messages);
            queue.more += left_out;
            left_out > 0
        }
        Reply::List(listed) => halve(listed) > 0,
        Reply::Message(_)
        | Reply::Show(_)
        | Reply::Done
        | Reply::Reloaded(_)
        | Reply::Refused(_) => false,
    }
}

fn halve<T>(list: &mut Vec<T>) -> u64 {
    let before = list.len();
    list.truncate(before / 2);
    u64::try_from(before - list.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;
    use gantry_operator::{MESSAGES_MAX, Queue};
    use gantry_protocol::pool::MessageStatus;

    #[test]
    fn a_reply_beyond_its_bound_loses_messages_and_says_how_many() {
        let message = |index: usize| MessageStatus {
            id: format!("1-{index:x}"),
            mailbox: "mail.box".to_owned(),
            state: "held".to_owned(),
            age_s: 0,
            attempts: 3,
            length: 0,
            remaining: Vec::new(),
            reasons: vec!["x".repeat(512); 16],
        };
        let messages: Vec<_> = (0..MESSAGES_MAX).map(message).collect();
        let text = encode(Reply::Queue(Box::new(Queue { messages, more: 5 })));
        assert!(text.len() <= REPLY_BYTES_MAX);
        let Reply::Queue(queue) = serde_json::from_slice(&text).unwrap() else { panic!() };
        assert!(!queue.messages.is_empty());
        let all = queue.messages.len() + usize::try_from(queue.more).unwrap();
        assert_eq!(all, MESSAGES_MAX + 5);
    }
}

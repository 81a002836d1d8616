//! Operators who ask over the network.

use gantry_link::OperatorLink;
use gantry_operator::{REQUEST_BYTES_MAX, Reply, Request};
use tokio::sync::{mpsc, oneshot};

use super::{Asked, encode};
use crate::audit::Who;

/// Moves an operator's requests to the loop and the replies back, one at a time, until the operator has gone.
pub async fn serve(mut link: OperatorLink, requests: mpsc::Sender<Asked>) {
    let identity = link.identity().clone();
    let who = Who { name: identity.name.clone(), from: Some(link.remote_address().to_string()) };
    while let Some((text, answer)) = link.next(REQUEST_BYTES_MAX).await {
        let reply = match serde_json::from_slice::<Request>(&text) {
            Err(error) => Reply::Refused(format!(
                "read the request: {error}; this host runs Gantry {}",
                env!("CARGO_PKG_VERSION")
            )),
            Ok(request) => {
                let (reply, replied) = oneshot::channel();
                let identity = Some(identity.clone());
                let asked = Asked { who: who.clone(), identity, request, reply };
                match requests.send(asked).await {
                    Ok(()) => replied.await.unwrap_or_else(|_| ending()),
                    Err(_) => ending(),
                }
            }
        };
        answer.reply(&encode(reply)).await;
    }
}

pub(super) fn ending() -> Reply {
    Reply::Refused("the hook is ending; try again when it runs".to_owned())
}

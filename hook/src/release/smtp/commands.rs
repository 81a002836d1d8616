//! What is said to the next hop about a message, with what it offers.

use std::net::IpAddr;

use gantry_mail::{BodyType, Envelope, Notify, Peer, Recipient, Ret, xtext};

use crate::release::Capabilities;

/// Longest line of XFORWARD; what does not fit goes into another. Postfix's own client does so.
const XFORWARD_BYTES_MAX: usize = 512;

/// XFORWARD for the client that the message came from: what an MTA before us told of it, or else who spoke to us.
pub(super) fn xforward(peer: &Peer, offered: &[String]) -> Vec<String> {
    let told = match peer.xforward.is_empty() {
        false => peer.xforward.clone(),
        true => ourselves(peer),
    };
    let mut commands: Vec<String> = Vec::new();
    for (name, value) in told.iter().filter(|(name, _)| offered.contains(name)) {
        let attribute = format!(" {name}={}", xtext::encode(value.as_bytes()));
        match commands.last_mut() {
            Some(line) if line.len() + attribute.len() + 2 <= XFORWARD_BYTES_MAX => {
                line.push_str(&attribute);
            }
            _ => commands.push(format!("XFORWARD{attribute}")),
        }
    }
    commands.iter_mut().for_each(|command| command.push_str("\r\n"));
    commands
}

fn ourselves(peer: &Peer) -> Vec<(String, String)> {
    let Some(address) = peer.address else { return Vec::new() };
    let address = match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("IPV6:{address}"),
    };
    let protocol = gantry_mail::received::protocol(peer.came, peer.tls, false);
    let known =
        |text: &str| if text.is_empty() { "[UNAVAILABLE]".to_owned() } else { text.to_owned() };
    vec![
        ("NAME".into(), "[UNAVAILABLE]".into()),
        ("ADDR".into(), address),
        ("PROTO".into(), protocol.unwrap_or("[UNAVAILABLE]").into()),
        ("HELO".into(), known(&peer.helo)),
    ]
}

/// MAIL with the parameters that came in, as far as the next hop takes them.
pub(super) fn mail(envelope: &Envelope, size: u64, utf8: bool, offered: &Capabilities) -> String {
    let said = &envelope.parameters;
    let mut command = format!("MAIL FROM:<{}>", envelope.sender);
    if offered.size.is_some() {
        command.push_str(&format!(" SIZE={size}"));
    }
    if offered.eight_bit_mime {
        command.push_str(match said.body {
            Some(BodyType::SevenBit) => " BODY=7BIT",
            Some(BodyType::EightBitMime) => " BODY=8BITMIME",
            None => "",
        });
    }
    if utf8 {
        command.push_str(" SMTPUTF8");
    }
    if offered.dsn {
        command.push_str(match said.ret {
            Some(Ret::Full) => " RET=FULL",
            Some(Ret::Headers) => " RET=HDRS",
            None => "",
        });
        if let Some(envid) = &said.envid {
            command.push_str(&format!(" ENVID={envid}"));
        }
    }
    command.push_str("\r\n");
    command
}

/// RCPT with its parameters.
pub(super) fn rcpt(recipient: &Recipient, offered: &Capabilities) -> String {
    let mut command = format!("RCPT TO:<{}>", recipient.address);
    if offered.dsn {
        if let Some(wishes) = recipient.notify {
            command.push_str(&format!(" NOTIFY={}", notify(wishes)));
        }
        if let Some(orcpt) = &recipient.orcpt {
            command.push_str(&format!(" ORCPT={orcpt}"));
        }
    }
    command.push_str("\r\n");
    command
}

/// Whether this can be said in one command line. What intakes take always can; what a worker originates need not.
pub(super) fn is_sayable(text: &str) -> bool {
    !text.chars().any(char::is_control)
}

fn notify(wishes: Notify) -> String {
    let words = [(wishes.success, "SUCCESS"), (wishes.failure, "FAILURE"), (wishes.delay, "DELAY")];
    let wanted: Vec<&str> =
        words.iter().filter(|(wanted, _)| *wanted).map(|(_, word)| *word).collect();
    if wanted.is_empty() { "NEVER".to_owned() } else { wanted.join(",") }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use gantry_mail::SenderParameters;

    use super::*;

    fn all() -> Capabilities {
        Capabilities {
            pipelining: true,
            starttls: false,
            auth: Vec::new(),
            size: Some(0),
            eight_bit_mime: true,
            smtputf8: true,
            dsn: true,
            xforward: vec!["NAME".into(), "ADDR".into(), "HELO".into(), "PROTO".into()],
        }
    }

    #[test]
    fn parameters_go_on_where_they_are_taken() {
        let envelope = Envelope {
            sender: "a@b.example".into(),
            parameters: SenderParameters {
                body: Some(BodyType::EightBitMime),
                smtputf8: true,
                ret: Some(Ret::Headers),
                envid: Some("q+2B".into()),
            },
            ..Envelope::default()
        };
        assert_eq!(
            mail(&envelope, 99, true, &all()),
            "MAIL FROM:<a@b.example> SIZE=99 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=q+2B\r\n"
        );
        let none = Capabilities::default();
        assert_eq!(mail(&envelope, 99, false, &none), "MAIL FROM:<a@b.example>\r\n");
        let recipient = Recipient {
            address: "c@d".into(),
            notify: Some(Notify { success: true, failure: false, delay: true }),
            orcpt: Some("rfc822;c@d".into()),
        };
        assert_eq!(
            rcpt(&recipient, &all()),
            "RCPT TO:<c@d> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;c@d\r\n"
        );
        assert_eq!(rcpt(&recipient, &none), "RCPT TO:<c@d>\r\n");
        let never = Recipient { notify: Some(Notify::default()), ..recipient };
        assert!(rcpt(&never, &all()).contains(" NOTIFY=NEVER "));
    }

    #[test]
    fn xforward_tells_of_the_client_and_splits_its_lines() {
        let mut peer =
            Peer { address: "::1".parse().ok(), helo: "c.example".into(), ..Peer::default() };
        assert_eq!(
            xforward(&peer, &all().xforward),
            ["XFORWARD NAME=[UNAVAILABLE] ADDR=IPV6:::1 PROTO=ESMTP HELO=c.example\r\n"]
        );
        assert!(xforward(&Peer::default(), &all().xforward).is_empty());
        peer.xforward = vec![
            ("NAME".into(), "x".repeat(400)),
            ("ADDR".into(), "192.0.2.1".into()),
            ("SOURCE".into(), "LOCAL".into()),
            ("HELO".into(), "+".repeat(100)),
        ];
        let lines = xforward(&peer, &all().xforward);
        assert_eq!(lines.len(), 2);
        assert!(lines.iter().all(|line| line.len() <= XFORWARD_BYTES_MAX));
        assert!(!lines.concat().contains("SOURCE"), "it was not offered");
        assert!(xforward(&peer, &[]).is_empty());
    }
}

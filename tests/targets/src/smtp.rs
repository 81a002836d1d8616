//! What clients say to the hook, and how it says it again to the next hop.

use gantry_hook::intake::smtp::testkit::{Command, Decoder, command};
use gantry_hook::local::check_address;
use gantry_hook::release::testkit;
use gantry_mail::{ADDRESS_BYTES_MAX, Envelope, Recipient};

use crate::{pieces, with_cuts};

/// A command line. The first byte says whether the transaction has SMTPUTF8.
pub(super) fn commands(bytes: &[u8]) {
    let Some((first, line)) = bytes.split_first() else { return };
    let utf8 = first % 2 == 1;
    match command(line, utf8) {
        Err(reply) => {
            assert!(matches!(reply.as_bytes(), [b'4' | b'5', _, _, b' ', ..]));
            assert!(!reply.chars().any(char::is_control));
        }
        Ok(Command::Mail { sender, parameters }) => {
            address(&sender);
            let envelope = Envelope { sender, parameters, ..Envelope::default() };
            let Envelope { sender, parameters, .. } = envelope.clone();
            let again = said(&testkit::mail(&envelope), utf8);
            assert_eq!(again, Command::Mail { sender, parameters }, "at the next hop");
        }
        Ok(Command::Rcpt(recipient)) => {
            let Recipient { address: to, .. } = &recipient;
            assert!(!to.is_empty());
            address(to);
            let again = said(&testkit::rcpt(&recipient), utf8);
            assert_eq!(again, Command::Rcpt(recipient), "at the next hop");
        }
        Ok(Command::XForward(attributes)) => {
            let mut again = Vec::new();
            for line in testkit::xforward(&attributes) {
                let Command::XForward(some) = said(&line, utf8) else { panic!("{line:?}") };
                again.extend(some);
            }
            assert_eq!(again, attributes, "at the next hop");
        }
        Ok(Command::Other) => {}
    }
}

/// What is taken here can be written wherever envelopes are written.
fn address(address: &str) {
    assert!(address.len() <= ADDRESS_BYTES_MAX);
    assert!(check_address(address).is_ok(), "{address:?}: {:?}", check_address(address));
}

fn said(line: &str, utf8: bool) -> Command {
    let line = line.strip_suffix("\r\n").expect("a line");
    command(line.as_bytes(), utf8).unwrap_or_else(|reply| panic!("{line:?}: {reply}"))
}

/// Data as it comes, in any pieces, and as it leaves again.
pub(super) fn data(bytes: &[u8]) {
    let (cuts, input) = with_cuts(bytes);
    let (message, ended, stray, taken) = decoded([input].into_iter());
    assert_eq!(decoded(pieces(input, cuts)), (message.clone(), ended, stray, taken), "in pieces");

    // Found the slow way: the data ends at its first CRLF . CRLF, and its start counts as behind a CRLF.
    let framed = [b"\r\n", input].concat();
    let end = framed.windows(5).position(|window| window == b"\r\n.\r\n");
    assert_eq!(end.map(|end| end + 3), ended.then_some(taken));
    let text = input[..taken].strip_suffix(b".\r\n").filter(|_| ended);
    if let Some(text) = text {
        assert!(!has_stray(&message) && (message.is_empty() || message.ends_with(b"\r\n")));
        assert_eq!(stray, has_stray(text), "a stray is seen, and nothing else");
    }

    // Whatever a message is, at the next hop it ends where it ends, and is what it was.
    let wire = testkit::stuffed([input]);
    assert_eq!(testkit::stuffed(pieces(input, cuts)), wire, "in pieces");
    let (again, ended, stray, taken) = decoded([&wire[..]].into_iter());
    assert!(ended && !stray && taken == wire.len());
    assert_eq!(testkit::stuffed([&again[..]]), wire);
    if !has_stray(input) && (input.is_empty() || input.ends_with(b"\r\n")) {
        assert_eq!(again, input, "byte for byte");
    }
}

fn decoded<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<u8>, bool, bool, usize) {
    let (mut decoder, mut message, mut taken) = (Decoder::default(), Vec::new(), 0);
    for piece in pieces {
        let before = message.len();
        let count = decoder.push(piece, &mut message);
        assert!(message.len() - before <= 2 * count + 2, "at most twice as much, and two");
        taken += count;
        if decoder.has_ended() {
            break;
        }
        assert_eq!(count, piece.len());
    }
    (message, decoder.has_ended(), decoder.saw_stray(), taken)
}

fn has_stray(bytes: &[u8]) -> bool {
    let at = |at: usize| bytes.get(at).copied();
    (0..bytes.len()).any(|i| match bytes[i] {
        b'\n' => i == 0 || bytes[i - 1] != b'\r',
        b'\r' => at(i + 1) != Some(b'\n'),
        _ => false,
    })
}

//! The exact bytes of every frame. A change here is a change of the protocol: it needs a new version or a new number.

use std::fmt::Debug;
use std::net::{IpAddr, Ipv4Addr};

use gantry_mail::{BodyType, Came, HeaderEdit, Notify, Peer, Recipient, Ret, SenderParameters};
use proptest::prelude::*;

use super::*;
use crate::id::Incarnation;
use crate::limits::{CONTROL_FRAME_BYTES_MAX, RESERVATION_FRAME_BYTES_MAX};
use crate::profile::{Action, Holding, ModuleProfile, Readiness};
use crate::verdict::{Body, Disposition, Group, Originated, OriginatedTo, Outcome};

/// Every kind of frame, and every variant within one, each with its bytes. The file is written by hand only.
const PINNED: &str = include_str!("pinned.txt");

/// A frame's name and bytes; what is read from them is the same frame.
fn pin<F: Frame + Debug + PartialEq>(name: &str, frame: F) -> (String, String) {
    let bytes = encode(&frame).unwrap();
    assert_eq!(read::<F>(&bytes), Ok(frame), "{name}");
    let (header, payload) = bytes.split_at(FRAME_HEADER_BYTES);
    let (number, length) = header.split_at(2);
    let line = [number, length, payload].map(to_hex).join(" ");
    (name.to_owned(), line.trim_end().to_owned())
}

fn read<F: Frame>(bytes: &[u8]) -> Result<F, FrameError> {
    let (header, payload) = bytes.split_at(FRAME_HEADER_BYTES);
    let header = FrameHeader::read::<F>(header.try_into().unwrap())?;
    assert_eq!(header.length, payload.len());
    decode(header, payload)
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

const MESSAGE: MessageId = MessageId { epoch: 3, counter: 0x1a7 };
const FENCE: Fence = Fence { epoch: 3, counter: 9 };
const CREDIT: Credit = Credit { messages: 4, bytes: 1_000 };

fn text(text: &str) -> String {
    text.to_owned()
}

fn digest(byte: u8) -> Digest {
    Digest([byte; 32])
}

fn profile() -> Profile {
    let module = ModuleProfile {
        name: text("r"),
        provides: text("virus"),
        engine: text("e"),
        signatures: text("s"),
        not_ready: Some(text("x")),
    };
    let held = Holding { message: MESSAGE, fence: FENCE, progress_ago_ms: 1, silence_ms: 30_000 };
    Profile {
        grabber: text("a"),
        incarnation: Incarnation(5),
        readiness: Readiness::NotReady { reason: text("y") },
        tier: 1,
        last_action: Action::HandedBack,
        last_action_ago_ms: 7,
        modules: vec![module],
        holding: vec![held],
    }
}

fn finding(outcome: Outcome) -> Finding {
    Finding {
        need: text("virus"),
        module: text("m"),
        engine: text("e"),
        signatures: String::new(),
        outcome,
        duration_ms: 300,
    }
}

fn verdict(
    groups: Vec<Group>,
    findings: Vec<Finding>,
    originated: Vec<Originated>,
) -> WorkerReservation {
    let verdict = Verdict { length: 10, digest: digest(0xab), groups, findings, originated };
    WorkerReservation::Verdict(Box::new(verdict))
}

fn worker_control() -> Vec<(String, String)> {
    use WorkerControl as W;
    let hello = Hello {
        version_min: 1,
        version_max: 300,
        software: text("s"),
        name: text("pc-1"),
        incarnation: Incarnation(0x1234),
        tier: 2,
        policy: digest(1),
        provides: vec![text("virus")],
        revocations: 6,
        resume: vec![Resume { message: MESSAGE, fence: FENCE }],
    };
    let hint = Hint { grabber: text("a"), message: MESSAGE, fence: FENCE };
    let readiness = |readiness| {
        W::Profile(Profile { readiness, modules: Vec::new(), holding: Vec::new(), ..profile() })
    };
    let action = |last_action| {
        let (modules, holding) = (Vec::new(), Vec::new());
        W::Profile(Profile {
            last_action,
            readiness: Readiness::Ready,
            modules,
            holding,
            ..profile()
        })
    };
    vec![
        pin("Hello", W::Hello(hello)),
        pin("Want", W::Want(CREDIT)),
        pin("Recall", W::Recall(CREDIT)),
        pin("Beat", W::Beat(Beat { count: 128 })),
        pin("Profile", W::Profile(profile())),
        pin("Profile ready", readiness(Readiness::Ready)),
        pin("Profile busy", readiness(Readiness::Busy)),
        pin("Profile draining", readiness(Readiness::Draining)),
        pin("Profile started", action(Action::Started)),
        pin("Profile linked", action(Action::Linked)),
        pin("Profile reserved", action(Action::Reserved)),
        pin("Profile processing", action(Action::Processing)),
        pin("Profile returned", action(Action::Returned)),
        pin("Profile handed back", action(Action::HandedBack)),
        pin("Profile drained", action(Action::Drained)),
        pin("Hint", W::Hint(hint)),
        pin("Draining", W::Draining(Draining { reason: text("bye") })),
    ]
}

fn host_control() -> Vec<(String, String)> {
    use HostControl as H;
    let resumed = |answer| Resumed { message: MESSAGE, fence: FENCE, answer };
    use ResumeAnswer::{Applied, Live, Superseded, Unknown};
    let welcome = Welcome {
        version: 1,
        software: text("s"),
        host: text("mx1"),
        session: Session(77),
        policy: digest(1),
        revocations: 6,
        beat_ms: 200,
        beat_idle_ms: 5_000,
        resumed: [Live, Applied, Superseded, Unknown].map(resumed).to_vec(),
    };
    let peers =
        Peers { peers: vec![PeerProfile { profile: profile(), linked: true, heard_ago_ms: 3 }] };
    let manage = |order| H::Manage(Manage { order });
    let mut pinned = vec![
        pin("Welcome", H::Welcome(welcome)),
        pin("Recalled", H::Recalled(CREDIT)),
        pin("Backlog", H::Backlog(Backlog { messages: 1, bytes: 2, oldest_ms: 300 })),
        pin("Peers", H::Peers(peers)),
        pin("Notice", H::Notice(Notice { text: text("hm") })),
        pin("Manage ready", manage(Order::Ready)),
        pin("Manage not ready", manage(Order::NotReady { reason: text("n") })),
        pin("Manage drain", manage(Order::Drain { reason: text("d") })),
    ];
    use RefusedCode as R;
    let codes = [
        R::NoCommonVersion,
        R::NameMismatch,
        R::WrongRole,
        R::Revoked,
        R::Clone,
        R::Limit,
        R::Misbehaved,
        R::ShuttingDown,
        R::Replaced,
    ];
    for code in codes {
        let refused = H::Refused(Refused { code, text: text("t") });
        pinned.push(pin(&format!("Refused {code:?}"), refused));
    }
    pinned
}

fn envelope() -> Envelope {
    Envelope {
        sender: text("a@b"),
        parameters: SenderParameters {
            body: Some(BodyType::EightBitMime),
            smtputf8: true,
            ret: Some(Ret::Headers),
            envid: Some(text("id")),
        },
        recipients: vec![
            Recipient {
                address: text("c@d"),
                notify: Some(Notify { success: false, failure: true, delay: false }),
                orcpt: Some(text("o")),
            },
            Recipient { address: text("e@f"), notify: None, orcpt: None },
        ],
        peer: Peer {
            address: Some(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))),
            helo: text("h"),
            came: Came::Lmtp,
            tls: true,
            xforward: vec![(text("NAME"), text("n"))],
        },
    }
}

fn host_reservation() -> Vec<(String, String)> {
    use HostReservation as H;
    let assign = Assign {
        message: MESSAGE,
        fence: FENCE,
        attempt: 1,
        mailbox: text("mail.box"),
        needs: vec![text("virus"), text("pgp")],
        asked: vec![text("pgp")],
        findings: vec![finding(Outcome::Clean)],
        envelope: envelope(),
        length: 1_000,
        digest: digest(2),
        time_max_ms: 900_000,
        silence_max_ms: 600_000,
    };
    vec![
        pin("Assign", H::Assign(Box::new(assign))),
        pin("Cancel", H::Cancel(Cancel { reason: text("why") })),
        pin("Settled applied", H::Settled(Settled::Applied)),
        pin("Settled refused", H::Settled(Settled::Refused { reason: text("late") })),
    ]
}

fn worker_reservation() -> Vec<(String, String)> {
    use WorkerReservation as W;
    let mut pinned = vec![
        pin("Resume", W::Resume(Resume { message: MESSAGE, fence: FENCE })),
        pin("Progress", W::Progress(Progress { work: 300, silence_ms: 30_000 })),
    ];
    for kind in [ReturnKind::HandBack, ReturnKind::Unavailable, ReturnKind::Failed] {
        let returned = W::Return(Return { kind, reason: text("r") });
        pinned.push(pin(&format!("Return {kind:?}"), returned));
    }
    let edits =
        vec![HeaderEdit::Prepend { field: text("X: y") }, HeaderEdit::Remove { name: text("Z") }];
    let (code, enhanced) = (554, text("5.7.1"));
    let replaced = Body::Replaced { length: 9, digest: digest(3) };
    let dispositions = [
        ("deliver", Disposition::Deliver { edits, body: Body::Original }),
        ("deliver replaced", Disposition::Deliver { edits: Vec::new(), body: replaced.clone() }),
        ("refuse", Disposition::Refuse { code, enhanced, text: text("no") }),
        ("discard", Disposition::Discard),
        ("quarantine", Disposition::Quarantine { reason: text("q") }),
        ("hold", Disposition::Hold { reason: text("h") }),
    ];
    for (name, disposition) in dispositions {
        let group = Group { recipients: vec![0, 300], disposition };
        pinned.push(pin(&format!("Verdict {name}"), verdict(vec![group], Vec::new(), Vec::new())));
    }
    let reason = || text("w");
    let outcomes = [
        ("clean", Outcome::Clean),
        ("found", Outcome::Found { names: vec![text("Eicar")] }),
        ("unscanned", Outcome::Unscanned { reason: reason() }),
        ("encrypted", Outcome::Encrypted { reason: reason() }),
        ("malformed", Outcome::Malformed { reason: reason() }),
        ("over budget", Outcome::OverBudget { reason: reason() }),
    ];
    for (name, outcome) in outcomes {
        let verdict = verdict(Vec::new(), vec![finding(outcome)], Vec::new());
        pinned.push(pin(&format!("Verdict {name}"), verdict));
    }
    let recipients =
        vec![OriginatedTo::Address(text("p@q")), OriginatedTo::Sender, OriginatedTo::Recipient(3)];
    let notice = Originated {
        sender: text("o@p"),
        recipients,
        message: b"m".to_vec(),
        original_at: Some(1),
    };
    pinned.push(pin("Verdict originated", verdict(Vec::new(), Vec::new(), vec![notice])));
    for (name, body) in [("", Body::Original), (" replaced", replaced.clone())] {
        let findings = vec![finding(Outcome::Clean)];
        let part = Part { length: 10, digest: digest(0xab), findings, body };
        pinned.push(pin(&format!("Part{name}"), W::Part(Box::new(part))));
    }
    pinned
}

#[test]
fn every_frame_has_exactly_its_pinned_bytes() {
    let ours: Vec<String> =
        [worker_control(), host_control(), host_reservation(), worker_reservation()]
            .into_iter()
            .flatten()
            .map(|(name, bytes)| format!("{name}: {bytes}"))
            .collect();
    let pinned: Vec<&str> =
        PINNED.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    for (ours, pinned) in ours.iter().zip(&pinned) {
        assert_eq!(ours, pinned);
    }
    assert_eq!(ours.len(), pinned.len(), "{}", ours.join("\n"));
}

/// Every number is in one table once, and every table's bound is the language's.
#[test]
fn numbers_belong_to_one_language_each() {
    let tables = [
        WorkerControl::NUMBERS,
        HostControl::NUMBERS,
        HostReservation::NUMBERS,
        WorkerReservation::NUMBERS,
    ];
    let mut numbers: Vec<u16> = tables.concat();
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
    for number in &numbers {
        let pinned = format!(": {number:04x} ");
        assert!(PINNED.contains(&pinned), "frame {number} is not pinned");
    }
}

fn header(number: u16, length: u32) -> [u8; FRAME_HEADER_BYTES] {
    let mut header = [0; FRAME_HEADER_BYTES];
    header[..2].copy_from_slice(&number.to_be_bytes());
    header[2..].copy_from_slice(&length.to_be_bytes());
    header
}

fn bounds_hold<F: Frame + Debug + PartialEq>(max: usize) {
    let most = u32::try_from(max).unwrap();
    for number in 0..=u16::MAX {
        let known = F::NUMBERS.contains(&number);
        let read = FrameHeader::read::<F>(header(number, most));
        let over = FrameHeader::read::<F>(header(number, most + 1));
        if known {
            assert_eq!(read, Ok(FrameHeader { number, length: max }));
            assert_eq!(over, Err(FrameError::TooLong { number, length: max + 1, max }));
        } else {
            assert_eq!(read, Err(FrameError::UnknownNumber { number }));
            let header = FrameHeader { number, length: 0 };
            assert_eq!(decode::<F>(header, &[]), Err(FrameError::UnknownNumber { number }));
        }
    }
}

#[test]
fn a_header_is_checked_before_a_byte_of_payload_is_awaited() {
    bounds_hold::<WorkerControl>(CONTROL_FRAME_BYTES_MAX);
    bounds_hold::<HostControl>(CONTROL_FRAME_BYTES_MAX);
    bounds_hold::<HostReservation>(RESERVATION_FRAME_BYTES_MAX);
    bounds_hold::<WorkerReservation>(RESERVATION_FRAME_BYTES_MAX);
    let widest = FrameHeader::read::<WorkerControl>(header(4, u32::MAX));
    assert!(matches!(widest, Err(FrameError::TooLong { .. })));
}

#[test]
fn trailing_bytes_and_cut_payloads_are_refused() {
    for (name, line) in
        [worker_control(), host_control(), host_reservation(), worker_reservation()].concat()
    {
        let bytes = from_hex(&line);
        let (start, payload) = bytes.split_at(FRAME_HEADER_BYTES);
        let number = u16::from_be_bytes([start[0], start[1]]);
        let longer = [payload, &[0]].concat();
        assert!(readable(number, payload), "{name}");
        assert!(!readable(number, &longer), "{name} with a byte more");
        for length in 0..payload.len() {
            assert!(!readable(number, &payload[..length]), "{name} cut to {length}");
        }
    }
}

fn from_hex(line: &str) -> Vec<u8> {
    let digits: Vec<u8> = line.bytes().filter(|byte| *byte != b' ').collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(byte).collect()
}

/// Whether any language takes these bytes as this frame.
fn readable(number: u16, payload: &[u8]) -> bool {
    let header = FrameHeader { number, length: payload.len() };
    decode::<WorkerControl>(header, payload).is_ok()
        || decode::<HostControl>(header, payload).is_ok()
        || decode::<HostReservation>(header, payload).is_ok()
        || decode::<WorkerReservation>(header, payload).is_ok()
}

#[test]
fn a_frame_beyond_the_bound_is_the_senders_mistake() {
    let long = HostControl::Notice(Notice { text: "x".repeat(CONTROL_FRAME_BYTES_MAX) });
    assert!(matches!(encode(&long), Err(FrameError::TooLong { number: 70, .. })));
}

/// The bound on a reservation's frames holds the largest envelope that an intake takes.
#[test]
fn the_largest_envelope_fits() {
    use gantry_mail::{ADDRESS_BYTES_MAX, PARAMETER_BYTES_MAX, RECIPIENTS_MAX};
    let mut largest = envelope();
    let recipient = Recipient {
        address: "x".repeat(ADDRESS_BYTES_MAX),
        orcpt: Some("x".repeat(PARAMETER_BYTES_MAX)),
        ..largest.recipients[0].clone()
    };
    largest.recipients = vec![recipient; RECIPIENTS_MAX];
    let assign = Assign {
        message: MESSAGE,
        fence: FENCE,
        attempt: 1,
        mailbox: "x".repeat(64),
        needs: vec!["x".repeat(64); 64],
        asked: vec!["x".repeat(64); 64],
        findings: Vec::new(),
        envelope: largest,
        length: u64::MAX,
        digest: digest(2),
        time_max_ms: u64::MAX,
        silence_max_ms: u64::MAX,
    };
    encode(&HostReservation::Assign(Box::new(assign))).unwrap();
}

proptest! {
    #[test]
    fn random_bytes_never_panic(start in any::<[u8; 6]>(), number in 0_u16..256, payload in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = FrameHeader::read::<WorkerControl>(start);
        let _ = FrameHeader::read::<HostReservation>(start);
        readable(number, &payload);
    }

    /// What is read from damaged frames can be written again, within the same bound of length.
    #[test]
    fn damaged_frames_never_panic(which in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let all = [worker_control(), host_control(), host_reservation(), worker_reservation()].concat();
        let mut bytes = from_hex(&which.get(&all).1);
        let place = at.index(bytes.len());
        bytes[place] = byte;
        let payload = &bytes[FRAME_HEADER_BYTES..];
        readable(u16::from_be_bytes([bytes[0], bytes[1]]), payload);
    }
}

//! What stands between 354 and the reply.

use std::time::Duration;

use gantry_mail::header::HEADER_BLOCK_BYTES_MAX;

use super::*;
use crate::disk::sim::{Fault, SimDisk};
use crate::intake::Admission;

const SMUGGLING: [&str; 10] = [
    "\n.\n",
    "\r.\r",
    "\r\n.\n",
    "\r\n.\r",
    "\n.\r\n",
    "\r.\r\n",
    "\n.\r",
    "\r.\n",
    "\r\n.\r\r\n",
    "\r\r\n.\r\r\n",
];

/// What a smuggler hopes will be commands.
const HIDDEN: &str = "MAIL FROM:<evil@example.com>\r\nRCPT TO:<victim@example.com>\r\nDATA\r\n";

#[tokio::test]
async fn no_form_of_smuggling_passes_the_end_of_the_data() {
    for policy in [StrayCrLf::Reject, StrayCrLf::Normalise] {
        let mut site = Site::start(SmtpIntake { stray_cr_lf: policy, ..hook() }).await;
        let mut client = site.client().await;
        for form in SMUGGLING {
            let wire = format!("Subject: x\r\n\r\none{form}{HIDDEN}.\r\n");
            let reply = client.deliver(wire).await;
            match policy {
                StrayCrLf::Reject => {
                    assert!(reply.starts_with("554 5.6.0"), "{form:?}: {reply}");
                    site.nothing_marked();
                }
                StrayCrLf::Normalise => {
                    assert!(reply.starts_with("250"), "{form:?}: {reply}");
                    let (marked, ..) = site.marked().await;
                    let body = String::from_utf8(site.body(marked.id)).unwrap();
                    assert!(body.ends_with(HIDDEN), "{form:?}: {body:?}");
                    assert!(!body.replace("\r\n", "").contains(['\r', '\n']), "{form:?}: {body:?}");
                }
            }
            // Nothing of it was taken for a command.
            client.expect("NOOP", 250).await;
        }
        site.nothing_marked();
    }
}

#[tokio::test]
async fn every_byte_comes_in_as_it_is() {
    let mut site = Site::start(hook()).await;
    let mut client = site.client().await;
    // Every byte but CR and LF, lines of any length, dots wherever they hurt; more than fits in memory at once.
    let mut message = b"Subject: x\r\n\r\n".to_vec();
    for length in (0_usize..1_500).chain([200_000]) {
        let line = (0..length).map(|at| {
            let byte = u8::try_from((at * 7 + length) % 256).unwrap();
            if byte == b'\r' || byte == b'\n' { b'.' } else { byte }
        });
        message.extend(line);
        message.extend_from_slice(b"\r\n.\r\n");
    }
    let mut wire = Vec::new();
    for line in message.split_inclusive(|&byte| byte == b'\n') {
        if line.starts_with(b".") {
            wire.push(b'.');
        }
        wire.extend_from_slice(line);
    }
    wire.extend_from_slice(b".\r\n");
    client.begin_data().await;
    for piece in wire.chunks(9_973) {
        client.send(piece).await;
    }
    client.expect_reply(250).await;
    let (marked, ..) = site.marked().await;
    assert_eq!(marked.length, message.len() as u64);
    assert!(site.body(marked.id) == message, "the bytes differ");

    assert!(client.deliver(".\r\n").await.starts_with("250"), "an empty message is one");
    let (empty, ..) = site.marked().await;
    assert_eq!(site.body(empty.id), b"");
}

#[tokio::test]
async fn what_is_too_large_is_read_to_its_end_and_refused() {
    for custody in [hook(), upstream()] {
        let limits = SmtpLimits { message_bytes_max: 200_000, ..SmtpLimits::default() };
        let mut site = Site::start(SmtpIntake { limits, ..custody }).await;
        let mut client = site.client().await;
        client.expect("MAIL FROM:<a@b> SIZE=200001", 552).await;
        let line = format!("{}\r\n", "x".repeat(998));
        let reply = client.deliver(format!("{}.\r\n", line.repeat(1_000))).await;
        assert!(reply.starts_with("552 5.3.4"), "{reply}");
        client.expect("NOOP", 250).await;
        site.nothing_marked();
        assert_eq!(site.message_files(), [""; 0]);
    }
}

#[tokio::test]
async fn loops_are_seen() {
    let mut site = Site::start(hook()).await;
    let mut client = site.client().await;
    let hundred = format!("{}\r\nx\r\n", received_fields(100));
    assert!(client.deliver(on_wire(&hundred)).await.starts_with("250"));
    assert!(!site.marked().await.1);
    let more = format!("{}\r\nx\r\n", received_fields(101));
    assert!(client.deliver(on_wire(&more)).await.starts_with("554 5.4.6"));
    site.nothing_marked();

    let header = gantry_mail::header::scan(b"Message-ID: <1@x>\r\n\r\n").unwrap();
    let field = |secret: &[u8]| {
        TraceKey::new("mx1", secret).field("mail.box", &header, &["to@example.com"])
    };
    for (field, expected) in [(field(SECRET), true), (field(b"another's"), false)] {
        let message = format!("{field}\r\nMessage-ID: <1@x>\r\n\r\nx\r\n");
        assert!(client.deliver(on_wire(&message)).await.starts_with("250"));
        assert_eq!(site.marked().await.1, expected);
    }
}

#[tokio::test]
async fn a_header_block_has_its_bound() {
    let mut site = Site::start(hook()).await;
    let mut client = site.client().await;
    let line = format!(" {}\r\n", "x".repeat(990));
    let folds = line.repeat(HEADER_BLOCK_BYTES_MAX / line.len() + 1);
    let reply = client.deliver(format!("X-Long: a\r\n{folds}\r\nbody\r\n.\r\n")).await;
    assert!(reply.starts_with("552 5.6.0"), "{reply}");
    // The same bytes below the header block are nobody's business here.
    assert!(client.deliver(format!("X: a\r\n\r\n{folds}\r\n.\r\n")).await.starts_with("250"));
    site.marked().await;
}

#[tokio::test]
async fn a_client_that_vanishes_in_data_leaves_nothing() {
    for custody in [hook(), upstream()] {
        let mut site = Site::start(custody).await;
        let mut client = site.client().await;
        client.begin_data().await;
        client.send("x".repeat(300_000)).await;
        drop(client);
        site.gate.drain();
        soon(&mut site.serve).await.unwrap();
        site.nothing_marked();
        assert_eq!(site.message_files(), [""; 0]);
        assert!(site.spool.list(|_| true, 10).is_empty());
    }
}

#[tokio::test]
async fn a_slow_client_in_data_is_ended() {
    let pause = Duration::from_millis(50);
    let hour = Duration::from_secs(3_600);
    for (data, message) in [(pause, hour), (hour, pause)] {
        let timeouts = IntakeTimeouts { data, message, ..IntakeTimeouts::default() };
        let mut site = Site::start(SmtpIntake { timeouts, ..hook() }).await;
        let mut client = site.client().await;
        client.begin_data().await;
        client.send("Subject: x\r\n").await;
        assert!(client.expect_reply(421).await.contains("4.4.2"));
        client.expect_end().await;
        site.nothing_marked();
        assert_eq!(site.message_files(), [""; 0]);
    }
}

async fn on_sim_disk(disk: &SimDisk) -> Site<SimDisk> {
    let folder = tempfile::tempdir().unwrap();
    Site::on(disk.clone(), Path::new("/spool"), hook(), folder).await
}

#[tokio::test]
async fn a_full_disk_asks_for_patience() {
    for (fault, code) in [(Fault::Full, "452 4.3.1"), (Fault::ReadOnly, "451 4.3.0")] {
        let disk = SimDisk::new(1);
        let mut site = on_sim_disk(&disk).await;
        let mut client = site.client().await;
        disk.fail_from_now(Some(fault));
        for message in [MESSAGE.to_owned(), "x".repeat(300_000) + "\r\n"] {
            let reply = client.deliver(on_wire(&message)).await;
            assert!(reply.starts_with(code), "{fault:?}: {reply}");
        }
        site.nothing_marked();
        disk.fail_from_now(None);
        assert!(client.deliver(on_wire(MESSAGE)).await.starts_with("250"));
        site.marked().await;
    }
}

#[tokio::test]
async fn whatever_step_of_storing_fails_the_sender_keeps_the_message_and_a_failed_sync_stops_the_intake()
 {
    let disk = SimDisk::new(1);
    let mut site = on_sim_disk(&disk).await;
    let before = disk.operations();
    assert!(site.client().await.deliver(on_wire(MESSAGE)).await.starts_with("250"));
    site.marked().await;
    let steps = disk.operations() - before;
    let mut stopped = 0;
    for step in 1..=steps {
        let disk = SimDisk::new(step);
        let mut site = on_sim_disk(&disk).await;
        let mut client = site.client().await;
        disk.fail_at(disk.operations() + step, Fault::Io);
        let reply = client.deliver(on_wire(MESSAGE)).await;
        assert!(reply.starts_with("451 4.3.0"), "step {step} of {steps}: {reply}");
        site.nothing_marked();
        if site.gate.admission() != Admission::Open {
            stopped += 1;
            client.expect("MAIL FROM:<a@b>", 451).await;
        }
    }
    assert!(stopped >= 2, "the file's sync and its folder's, but {stopped} of {steps}");
}

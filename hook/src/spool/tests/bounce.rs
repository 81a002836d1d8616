//! Notices.

use gantry_mail::Notify;

use super::*;

fn releasing(envelope: Envelope) -> (SimDisk, Arc<Spool<SimDisk>>, MessageId) {
    let (disk, spool) = new_spool();
    let id = spool.allocate();
    let mut incoming = spool.begin(id, MAILBOX, &envelope, RECEIVED).unwrap();
    incoming.write(b"Subject: about\r\n\r\nsecret words\r\n").unwrap();
    incoming.finish().unwrap();
    settle(&spool, id);
    (disk, spool, id)
}

fn refused(recipients: &[u16]) -> Change {
    let refused = |recipient: &u16| result(*recipient, ReleaseResult::Refused);
    Change::Bounce { results: recipients.iter().map(refused).collect() }
}

#[test]
fn a_notice_is_a_message_of_its_own_and_is_written_once() {
    let (disk, spool, id) = releasing(envelope(3));
    let Stored::Bounced { notice: Some(notice) } = spool.apply(id, MAILBOX, &refused(&[1])) else {
        panic!("no notice");
    };
    assert_eq!(spool.apply(id, MAILBOX, &refused(&[1])), Stored::Bounced { notice: None });
    drop(spool);
    disk.restart();
    let opened = open_sim(&disk);
    assert_eq!(opened.recovered().len(), 2);
    assert_eq!(opened.recovered()[1].state, StoredState::Releasing);
    let spool = opened.spool;
    assert_eq!(spool.apply(id, MAILBOX, &refused(&[1])), Stored::Bounced { notice: None });

    let header = spool.header(notice.id).unwrap();
    assert!(header.envelope.is_null_sender());
    assert_eq!(header.envelope.recipients[0].address, "sender@example.org");
    let delivered = spool.log(notice.id).unwrap().verdict.unwrap();
    assert_eq!(delivered.groups[0].recipients, [0]);
    let text = String::from_utf8(read_body(&spool, notice.id).unwrap()).unwrap();
    assert_eq!(text.len() as u64, notice.length);
    assert!(
        text.contains("r1@example.net")
            && text.contains("550 5.1.1")
            && text.contains("Subject: about")
    );
    assert!(!text.contains("r0@example.net") && !text.contains("secret words"));

    // Those that no notice has told of yet.
    let Stored::Bounced { notice: Some(second) } = spool.apply(id, MAILBOX, &refused(&[1, 2]))
    else {
        panic!("no second notice");
    };
    let text = String::from_utf8(read_body(&spool, second.id).unwrap()).unwrap();
    assert!(text.contains("r2@example.net") && !text.contains("r1@example.net"));
}

#[test]
fn nobody_is_told_who_does_not_want_to_be() {
    let mut quiet = envelope(1);
    quiet.recipients[0].notify = Some(Notify::default());
    let (_disk, spool, id) = releasing(quiet);
    assert_eq!(spool.apply(id, MAILBOX, &refused(&[0])), Stored::Bounced { notice: None });

    let (_disk, spool, id) = releasing(Envelope { sender: String::new(), ..envelope(1) });
    assert_eq!(spool.apply(id, MAILBOX, &refused(&[0])), Stored::Unreturnable);
    assert_eq!(spool.list(|_| true, 10).len(), 1);
}

#[test]
fn a_damaged_message_is_told_of_too() {
    let (disk, spool, id) = releasing(envelope(1));
    disk.damage(&path(&spool, id), |bytes| {
        let at = bytes.windows(6).position(|window| window == b"secret").unwrap();
        bytes[at] ^= 1;
    })
    .unwrap();
    assert!(matches!(
        spool.apply(id, MAILBOX, &refused(&[0])),
        Stored::Bounced { notice: Some(_) }
    ));
}

#[test]
fn a_notice_that_fails_half_way_is_never_lost() {
    let opening = releasing(envelope(2)).0.operations();
    for fail_at in opening + 1.. {
        let (disk, spool, id) = releasing(envelope(2));
        disk.fail_at(fail_at, crate::disk::sim::Fault::Io);
        let first = spool.apply(id, MAILBOX, &refused(&[1]));
        if disk.operations() < fail_at {
            assert!(matches!(first, Stored::Bounced { .. }), "the last one went well: {first:?}");
            break;
        }
        drop(spool);
        // The process starts again, and the machine has lost nothing of what was written.
        let opened = open_sim(&disk);
        let again = opened.spool.apply(id, MAILBOX, &refused(&[1]));
        let new = matches!(again, Stored::Bounced { notice: Some(_) });
        let there = opened.recovered().len() > 1;
        assert!(new || there, "operation {fail_at}: {first:?}, then {again:?}: no notice is left");
    }
}

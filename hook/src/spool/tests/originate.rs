//! What a verdict originates: each message once, whatever comes in between.

use gantry_protocol::pool::{Marked, StoredLog};
use gantry_protocol::verdict::{Originated, OriginatedTo};

use super::*;
use crate::disk::sim::Fault;

/// A notice to the postmaster, a copy for the journal, and one to the sender.
fn asked_for() -> Vec<Originated> {
    let to = |to: &str| vec![OriginatedTo::Address(to.to_owned())];
    let journal = b"Subject: copy\r\n\r\n<>".to_vec();
    vec![
        Originated {
            sender: String::new(),
            recipients: to("postmaster@example.net"),
            message: b"Subject: notice\r\n\r\n".to_vec(),
            original_at: None,
        },
        Originated {
            sender: "journal@example.net".to_owned(),
            recipients: to("archive@example.net"),
            original_at: u32::try_from(journal.len() - 1).ok(),
            message: journal,
        },
        Originated {
            sender: String::new(),
            recipients: vec![OriginatedTo::Sender, OriginatedTo::Recipient(1)],
            message: b"Subject: yours\r\n\r\n".to_vec(),
            original_at: None,
        },
    ]
}

fn asking(header: &Header) -> Box<Verdict> {
    Box::new(Verdict { originated: asked_for(), ..*verdict(header) })
}

fn settled(spool: &Arc<Spool<SimDisk>>) -> MessageId {
    let id = take_in(spool, b"Subject: about\r\n\r\nwords\r\n").unwrap();
    let verdict = asking(&spool.header(id).unwrap());
    done(spool, id, &Change::Settle { verdict });
    id
}

fn originate<D: Disk>(spool: &Arc<Spool<D>>, id: MessageId) -> Vec<Marked> {
    match spool.apply(id, MAILBOX, &Change::Originate { verdict: None }) {
        Stored::Originated { messages } => messages,
        other => panic!("originated as {other:?}"),
    }
}

/// The subjects of all messages that this one's verdict originated and that are there.
fn children(spool: &Arc<Spool<SimDisk>>, id: MessageId) -> Vec<String> {
    let listed = spool.list(|state| state == StoredState::Releasing, usize::MAX);
    let mut subjects: Vec<String> = listed
        .iter()
        .filter(|listed| spool.log(listed.id).unwrap().origin == Some(id))
        .map(|child| String::from_utf8(read_body(spool, child.id).unwrap()).unwrap())
        .map(|text| text.lines().next().unwrap_or_default().to_owned())
        .collect();
    subjects.sort();
    subjects
}

fn all() -> Vec<String> {
    ["Subject: copy", "Subject: notice", "Subject: yours"].map(str::to_owned).to_vec()
}

#[test]
fn they_are_messages_of_their_own_and_are_written_once() {
    let (disk, spool) = new_spool();
    let id = settled(&spool);
    assert!(spool.load(id).unwrap().originates);
    let written = originate(&spool, id);
    assert_eq!(written.len(), 3);
    assert_eq!(originate(&spool, id), []);
    assert_eq!(spool.load(id).unwrap(), StoredLog { originates: false, ..spool.load(id).unwrap() });

    drop(spool);
    disk.restart();
    let spool = open_sim(&disk).spool;
    assert_eq!(originate(&spool, id), []);
    assert_eq!(children(&spool, id), all());
    let [notice, copy, yours] = &written[..] else { panic!("{written:?}") };
    let text = String::from_utf8(read_body(&spool, copy.id).unwrap()).unwrap();
    assert_eq!(text, "Subject: copy\r\n\r\n<Subject: about\r\n\r\nwords\r\n>");
    assert_eq!(text.len() as u64, copy.length);
    let envelope = spool.header(yours.id).unwrap().envelope;
    let to: Vec<&str> = envelope.recipients.iter().map(|to| to.address.as_str()).collect();
    assert_eq!(to, ["sender@example.org", "r1@example.net"]);
    assert_eq!(yours.recipients, 2);

    // RFC 3834: says what it is, whatever the worker wrote; and causes no further notice.
    let log = spool.log(notice.id).unwrap();
    let groups = log.verdict.unwrap().groups;
    let Disposition::Deliver { edits, .. } = &groups[0].disposition else { panic!() };
    let edits = format!("{edits:?}");
    assert!(edits.contains("Remove") && edits.contains("Auto-Submitted: auto-generated"));
    let refused = Change::Bounce { results: vec![result(0, ReleaseResult::Refused)] };
    for child in [notice, copy] {
        assert_eq!(spool.apply(child.id, MAILBOX, &refused), Stored::Unreturnable);
    }
}

#[test]
fn a_null_sender_gets_none() {
    let (_disk, spool) = new_spool();
    let id = spool.allocate();
    let null = Envelope { sender: String::new(), ..envelope(1) };
    let mut incoming = spool.begin(id, MAILBOX, &null, RECEIVED).unwrap();
    incoming.write(b"Subject: about\r\n\r\n").unwrap();
    incoming.finish().unwrap();
    let mut verdict = asking(&spool.header(id).unwrap());
    verdict.originated[2].recipients = vec![OriginatedTo::Sender];
    done(&spool, id, &Change::Settle { verdict });
    assert_eq!(originate(&spool, id).len(), 2);
    assert!(!spool.load(id).unwrap().originates);
}

#[test]
fn an_operator_who_puts_it_back_has_it_decided_anew() {
    let (_disk, spool) = new_spool();
    let id = settled(&spool);
    assert_eq!(originate(&spool, id).len(), 3);
    let (state, reasons) = (StoredState::Quarantined, vec!["Eicar".to_owned()]);
    done(&spool, id, &Change::SetAside { state, verdict: None, reasons });
    done(&spool, id, &Change::Requeue);
    settle(&spool, id);
    assert!(!spool.load(id).unwrap().originates);
    assert_eq!(originate(&spool, id), []);
}

#[test]
fn in_the_senders_custody_too() {
    let (disk, spool) = new_spool();
    let id = take_in_volatile(&spool, b"Subject: about\r\n\r\nwords\r\n").unwrap();
    let asked = asking(&spool.header(id).unwrap());
    done(&spool, id, &Change::Settle { verdict: asked.clone() });
    assert_eq!(originate(&spool, id).len(), 3);
    assert_eq!(originate(&spool, id), []);
    spool.forget(id);

    // Without having been settled, as where the sender is told no.
    let other = take_in_volatile(&spool, b"Subject: about\r\n\r\nwords\r\n").unwrap();
    let change = Change::Originate { verdict: Some(asked.clone()) };
    let Stored::Originated { messages } = spool.apply(other, MAILBOX, &change) else { panic!() };
    assert_eq!(messages.len(), 3);
    spool.forget(other);

    // Adopted on its way: the ids go with it.
    let third = take_in_volatile(&spool, b"Subject: about\r\n\r\nwords\r\n").unwrap();
    let (state, verdict) = (StoredState::Releasing, Some(asked));
    let adopt = Change::Adopt { state, verdict, results: Vec::new(), reasons: Vec::new() };
    done(&spool, third, &adopt);
    drop(spool);
    disk.restart();
    let spool = open_sim(&disk).spool;
    assert_eq!((children(&spool, id), children(&spool, other)), (all(), all()));
    assert_eq!(originate(&spool, third).len(), 3);
}

#[test]
fn one_that_is_found_brings_the_others_along_before_it_goes_out() {
    let opening = {
        let (disk, spool) = new_spool();
        settled(&spool);
        disk.operations()
    };
    let mut found_alone = 0;
    for crash_at in opening + 1.. {
        let (disk, spool) = new_spool();
        let id = settled(&spool);
        disk.crash_at(crash_at);
        let _ = spool.apply(id, MAILBOX, &Change::Originate { verdict: None });
        if !disk.is_crashed() {
            break;
        }
        drop(spool);
        disk.restart();
        let opened = open_sim(&disk);
        let found = opened.recovered();
        let spool = opened.spool;
        let child = found.iter().find(|found| found.marked.id != id);
        let Some(child) = child else { continue };
        found_alone += u64::from(found.len() < 4);
        let beside = spool.load(child.marked.id).unwrap().beside;
        assert_eq!(found.len() + beside.len(), 4, "crash at {crash_at}");
        assert_eq!(children(&spool, id), all(), "crash at {crash_at}");
        // It goes out, and what is gone is not written again.
        done(&spool, child.marked.id, &Change::Remove);
        assert!(!spool.load(id).unwrap().originates);
        assert_eq!(originate(&spool, id), [], "crash at {crash_at}");
    }
    assert!(found_alone > 0, "no crash came in between");
}

/// Two crashes, or a fault and a crash, anywhere between the verdict and the last of the messages.
#[test]
fn none_is_lost_or_doubled() {
    let (mut whole, mut steps) = (false, 0);
    for first in 1.. {
        for second in [3, 5, 8, 13, 21] {
            for fault in [None, Some(Fault::Io), Some(Fault::Full)] {
                let run = format!("{fault:?} at {first}, crash at {second}");
                let (disk, spool) = new_spool();
                let id = take_in(&spool, b"Subject: about\r\n\r\nwords\r\n").unwrap();
                let verdict = asking(&spool.header(id).unwrap());
                let at = disk.operations() + first;
                match fault {
                    None => disk.crash_at(at),
                    Some(fault) => disk.fail_at(at, fault),
                }
                let settled = spool.apply(id, MAILBOX, &Change::Settle { verdict });
                if settled == Stored::Done {
                    let _ = spool.apply(id, MAILBOX, &Change::Originate { verdict: None });
                    // The pool asks again where a disk failed.
                    let _ = spool.apply(id, MAILBOX, &Change::Originate { verdict: None });
                }
                whole |= disk.operations() < at;
                drop(spool);
                disk.restart();
                disk.crash_at(disk.operations() + second);
                if let Ok(opened) = try_open(disk.clone(), Path::new(ROOT)) {
                    for found in opened.recovered().iter().rev() {
                        let _ = opened.spool.load(found.marked.id);
                    }
                }
                disk.restart();
                let spool = open_sim(&disk).spool;
                match state(&spool, id) {
                    Some(StoredState::Releasing) => {
                        originate(&spool, id);
                        assert_eq!(children(&spool, id), all(), "{run}");
                    }
                    Some(StoredState::Marked { .. }) if settled != Stored::Done => {
                        assert_eq!(children(&spool, id), Vec::<String>::new(), "{run}");
                    }
                    other => panic!("{run}: it is {other:?}"),
                }
                steps += 1;
            }
        }
        if whole {
            break;
        }
    }
    assert!(steps > 100, "{steps}");
}

use std::path::Path;

use gantry_mail::{Envelope, Recipient};
use gantry_protocol::id::{Digest, Fence, MessageId};
use gantry_protocol::verdict::Outcome;

use super::*;

const OUTCOMES: &str = "[outcomes]\nfound = \"quarantine\"\nunscanned = \"retry\"\nencrypted = \"hold\"\n\
                        malformed = \"hold\"\nover-budget = \"hold\"\n";
const NOTICE: &str = "[[notice]]\nname = \"infected\"\nto = [\"postmaster\"]\nfrom = \"gantry@example.com\"\n\
                      subject = \"{findings}\"\ntext = \"\"\"\n{id} from {sender} to {recipients}: {answer}, {reason} ({rules})\n\"\"\"\n";
const RULE: &str = "[[rule]]\nname = \"tell\"\nnotify = [\"infected\"]\n";

fn text(notices: &str) -> String {
    format!("postmaster = \"postmaster@example.com\"\n{OUTCOMES}{notices}")
}

fn policy(notices: &str) -> Policy {
    Policy::from_text(Path::new("policy.toml"), &text(notices))
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{notices}"))
}

fn mistakes(notices: &str) -> Vec<String> {
    let read = Policy::from_text(Path::new("policy.toml"), &text(notices));
    read.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

fn assign(sender: &str, recipients: usize) -> Assign {
    let recipient = |n| Recipient { address: format!("r{n}@example.com"), ..Recipient::default() };
    Assign {
        message: MessageId { epoch: 1, counter: 2 },
        fence: Fence { epoch: 1, counter: 3 },
        attempt: 1,
        mailbox: "mail.box".into(),
        needs: vec!["virus".into()],
        asked: vec!["virus".into()],
        findings: Vec::new(),
        envelope: Envelope {
            sender: sender.to_owned(),
            recipients: (0..recipients).map(recipient).collect(),
            ..Envelope::default()
        },
        length: 7,
        digest: Digest([9; 32]),
        time_max_ms: 1,
        silence_max_ms: 1,
    }
}

fn found() -> Finding {
    Finding {
        need: "virus".into(),
        module: "rules".into(),
        engine: String::new(),
        signatures: String::new(),
        outcome: Outcome::Found { names: vec!["Eicar\r\nBcc: all@example.com".into()] },
        duration_ms: 1,
    }
}

fn decided(answers: &[(Answer, &[usize])]) -> Vec<Decision> {
    let decision = |(answer, rules): &(Answer, &[usize])| Decision {
        answer: answer.clone(),
        edits: Vec::new(),
        reason: "rules found Eicar".to_owned(),
        rules: rules.to_vec(),
    };
    answers.iter().map(decision).collect()
}

/// What leaves, with the text of each.
fn originate(
    policy: &Policy,
    assign: &Assign,
    start: &str,
    decisions: &[Decision],
) -> Vec<(Vec<OriginatedTo>, String)> {
    let told = Told {
        assign,
        start: start.as_bytes(),
        findings: &[found()],
        decisions,
        worker: "pc-1",
        unix_seconds: 1_234_567_890,
    };
    let all = policy.originate(&told);
    all.into_iter().map(|one| (one.recipients, String::from_utf8(one.message).unwrap())).collect()
}

#[test]
fn a_notice_says_what_happened_and_nothing_breaks_out_of_it() {
    let policy = policy(&format!("{NOTICE}{RULE}"));
    let assign = assign("a@example.org\r\nBcc: all@example.com", 3);
    let decisions =
        decided(&[(Answer::Quarantine, &[0]), (Answer::Release, &[]), (Answer::Discard, &[0])]);
    let all = originate(&policy, &assign, "", &decisions);
    let [(to, text)] = &all[..] else { panic!("{all:?}") };
    assert_eq!(to, &[OriginatedTo::Address("postmaster@example.com".to_owned())]);
    assert!(text.contains("Subject: virus: rules found Eicar Bcc: all@example.com\r\n"), "{text}");
    let body = "1-2 from a@example.orgBcc: all@example.com to r0@example.com, r2@example.com: discard, quarantine, \
                rules found Eicar (tell)\r\n";
    assert!(text.ends_with(body), "{text}");
    assert!(!text.contains("\nBcc"), "{text}");
    assert!(originate(&policy, &assign, "", &decided(&[(Answer::Quarantine, &[])])).is_empty());
}

#[test]
fn the_sender_is_told_once_and_only_where_that_does_no_harm() {
    let two = "[[notice]]\nname = \"a\"\nto = [\"sender\"]\nfrom = \"g@example.com\"\nsubject = \"s\"\ntext = \"t\"\n\
               [[notice]]\nname = \"b\"\nto = [\"sender\", \"postmaster\"]\nfrom = \"g@example.com\"\nsubject = \"s\"\n\
               text = \"t\"\n[[rule]]\nname = \"r\"\nnotify = [\"a\", \"b\"]\n";
    let policy = policy(two);
    let decisions = decided(&[(Answer::Quarantine, &[0])]);
    let to_sender = |sender: &str, start: &str| {
        let all = originate(&policy, &assign(sender, 1), start, &decisions);
        assert!(all.iter().any(|(to, _)| matches!(to[0], OriginatedTo::Address(_))));
        all.iter().filter(|(to, _)| to[0] == OriginatedTo::Sender).count()
    };
    assert_eq!(to_sender("anna@example.org", "Subject: x\r\nAuto-Submitted: no\r\n\r\n"), 1);
    for (sender, start) in [
        ("", ""),
        ("MAILER-DAEMON@example.org", ""),
        ("owner-list@example.org", ""),
        ("list-bounces@example.org", ""),
        ("news-request@example.org", ""),
        ("anna@example.org", "Auto-Submitted: auto-replied\r\n\r\n"),
        ("anna@example.org", "Precedence: BULK\r\n\r\n"),
        ("anna@example.org", "List-Id: <l.example.org>\r\n\r\n"),
    ] {
        assert_eq!(to_sender(sender, start), 0, "{sender} {start}");
    }
}

#[test]
fn recipients_do_not_learn_of_each_other() {
    let policy = policy(&format!("{}{RULE}", NOTICE.replace("postmaster", "recipients")));
    let decisions = decided(&[(Answer::Quarantine, &[0]), (Answer::Quarantine, &[0])]);
    let all = originate(&policy, &assign("a@example.org", 2), "", &decisions);
    let [(to, text)] = &all[..] else { panic!("{all:?}") };
    assert_eq!(to, &[OriginatedTo::Recipient(0), OriginatedTo::Recipient(1)]);
    assert!(text.contains("To: undisclosed-recipients:;\r\n") && text.contains("to 2 recipients:"));
    assert!(!text.contains("r1@example.com"));
}

#[test]
fn a_copy_goes_only_where_the_message_goes() {
    let policy = policy(&format!("{NOTICE}attach = \"message\"\n{RULE}"));
    let told = |answers: &[(Answer, &[usize])]| {
        let (assign, decisions) = (assign("a@example.org", answers.len()), decided(answers));
        let told = Told {
            assign: &assign,
            start: b"",
            findings: &[],
            decisions: &decisions,
            worker: "pc-1",
            unix_seconds: 0,
        };
        policy.originate(&told)
    };
    assert_eq!(told(&[(Answer::Quarantine, &[0]), (Answer::Release, &[])]), []);
    let all = told(&[(Answer::Quarantine, &[0]), (Answer::Release, &[0])]);
    let at = usize::try_from(all[0].original_at.unwrap()).unwrap();
    assert!(all[0].message[..at].ends_with(b"Content-Disposition: attachment\r\n\r\n"));
}

#[test]
fn the_largest_notices_fit() {
    let wide = "ö".repeat(4_000);
    let tables: String = (0..NOTICES_MAX)
        .map(|n| {
            let to = "to = [\"postmaster\", \"sender\", \"recipients\"]";
            NOTICE
                .replace("\"infected\"", &format!("\"n{n}\""))
                .replace("to = [\"postmaster\"]", to)
        })
        .map(|notice| notice.replace("{id}", &format!("{wide}{{recipients}}")))
        .collect();
    let names: Vec<String> = (0..NOTICES_MAX).map(|n| format!("n{n}")).collect();
    let policy = policy(&format!("{tables}[[rule]]\nname = \"r\"\nnotify = {names:?}\n"));
    let many = vec![(Answer::Quarantine, &[0_usize][..]); 100];
    let all = originate(&policy, &assign("a@example.org", 100), "", &decided(&many));
    assert!(all.len() <= ORIGINATED_MAX, "{}", all.len());
    assert!(all.iter().all(|(_, text)| text.len() <= ORIGINATED_BYTES_MAX));
    assert!(all[0].1.len() > 20_000, "it is a large one");
}

#[test]
fn every_mistake_names_what_would_be_right() {
    let ok = format!("{NOTICE}{RULE}");
    assert_eq!(mistakes(&ok), [""; 0]);
    for (change, by, said) in [
        ("{sender}", "{sendr}", "did you mean {sender}?"),
        ("{id}", "{id", "a { without a }"),
        ("notify = [\"infected\"]", "notify = [\"infectd\"]", "did you mean \"infected\"?"),
        ("notify = [\"infected\"]", "notify = []", "the list is empty"),
        ("from = \"gantry@example.com\"\n", "", "from: it is missing"),
        ("gantry@example.com", "Gantry <gantry@example.com>", "is no address"),
        ("[\"postmaster\"]", "[]", "the list is empty"),
        ("[\"postmaster\"]", "[\"postmster\"]", "is no address"),
        ("subject = \"{findings}\"", "subject = \"a\\nBcc: x\"", "control characters"),
    ] {
        let found = mistakes(&ok.replace(change, by));
        assert!(found.iter().any(|mistake| mistake.contains(said)), "{by}: {found:?}");
    }
    let twice = mistakes(&format!("{NOTICE}{NOTICE}{RULE}"));
    assert!(twice[0].contains("another [[notice]] has this name"), "{twice:?}");
    let nobody = Policy::from_text(Path::new("p"), &format!("{OUTCOMES}{ok}")).unwrap_err();
    assert!(nobody[0].to_string().contains("postmaster = "), "{nobody:?}");
    let line = mistakes(&ok.replace("{sender}", "{sendr}"));
    assert!(line[0].contains("policy.toml:13"), "{line:?}");
}

#[test]
fn a_check_says_what_the_hook_has_to_allow() {
    let second =
        NOTICE.replace("name = \"", "name = \"other-").replace("to = [", "to = [\"sender\", ");
    let notes = policy(&format!("{NOTICE}{second}")).notes();
    let allows =
        r#"originated = { senders = ["<>"], recipients = ["postmaster@example.com", "sender"] }"#;
    assert!(notes.iter().any(|note| note.ends_with(allows)), "{notes:?}");
}

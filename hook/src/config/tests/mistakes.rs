//! Every mistake that a file can have, by its line, its key and the remedy.

use super::*;

/// Each line that may stand in for one of the example's, and what is said of it.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "name = \"mx1\"",
        "name = \"MX1\"",
        "hook.toml:1: name: \"MX1\": a name consists of a-z, 0-9, \".\" and \"-\"; write \"mx1\"",
    ),
    (
        "name = \"mx1\"",
        "name = \"ca\"",
        "hook.toml:1: name: \"ca\": this is what the files of the certificate authority are called; write a name \
         such as \"mx1\"",
    ),
    (
        "spool",
        "",
        "hook.toml:1: spool: it is missing; write the folder for the messages, such as spool = \"spool\"",
    ),
    (
        "listen",
        "listen = \"mx1:4733\"",
        "hook.toml:3: listen: \"mx1:4733\": it is no address with a port (names are not looked up); write an address \
         such as \"127.0.0.1:10025\" or \"[::1]:10025\"",
    ),
    (
        "name = \"mail.box\"",
        "name = \"../etc\"",
        "hook.toml:5: mailbox \"../etc\": name: \"../etc\": a name consists of a-z, 0-9, \".\" and \"-\"; write a name \
         such as \"mail.box\"",
    ),
    (
        "name = \"mail.box\"",
        "name = \".box\"",
        "hook.toml:5: mailbox \".box\": name: \".box\": a name, and each of its parts between dots, starts and ends \
         with a letter or digit; write a name such as \"mail.box\"",
    ),
    (
        "name = \"mail.box\"",
        "name = \"lock\"",
        "hook.toml:5: mailbox \"lock\": name: the spool has a file of its own with this name; write another name",
    ),
    (
        "intake",
        "intake = { type = \"smpt\", listen = \"127.0.0.1:10025\" }",
        "hook.toml:6: mailbox \"mail.box\": intake: type: \"smpt\": there is no such word here; did you mean \"smtp\"?; \
         write \"smtp\" or \"lmtp\" or \"pickup\" or \"mark\"",
    ),
    (
        "intake",
        "intake = { listen = \"127.0.0.1:10025\" }",
        "hook.toml:6: mailbox \"mail.box\": intake: type: it is missing; write { type = \"smtp\", listen = \
         \"127.0.0.1:10025\" }, or the type \"lmtp\", \"pickup\" or \"mark\"",
    ),
    (
        "intake",
        "intake = { type = \"smtp\", listen = \"0.0.0.0:10025\" }",
        "hook.toml:6: mailbox \"mail.box\": intake: peers: a listener that is not on loopback is an open relay unless \
         it says who may use it; write peers = [\"192.0.2.7\"] with your mail servers' addresses, or listen on \
         127.0.0.1",
    ),
    (
        "intake",
        "intake = { type = \"smtp\", listen = \"0.0.0.0:10025\", peers = [\"10.1.2.3/8\"] }",
        "hook.toml:6: mailbox \"mail.box\": intake: peers: \"10.1.2.3/8\": its address has bits beyond the prefix; did \
         you mean \"10.0.0.0/8\"?; write addresses or networks, such as [\"192.0.2.7\", \"10.0.0.0/8\"]",
    ),
    (
        "intake",
        "intake = { type = \"smtp\", listen = \"127.0.0.1:10025\", peers = [] }",
        "hook.toml:6: mailbox \"mail.box\": intake: peers: nobody may use this listener; write at least one address \
         or network",
    ),
    (
        "intake",
        "intake = { type = \"smtp\", listen = \"127.0.0.1:10025\", connections_max = 5, \
         connections_per_client_max = 6 }",
        "hook.toml:6: mailbox \"mail.box\": intake: connections_per_client_max: it is more than connections_max; write \
         at most 5, or a larger connections_max",
    ),
    (
        "intake",
        "intake = { type = \"smtp\", listen = \"127.0.0.1:10025\", message_size_max = 1000 }",
        "hook.toml:6: mailbox \"mail.box\": intake: message_size_max: a size has a unit; write \"1000B\" if bytes are \
         meant",
    ),
    (
        "intake",
        "intake = { type = \"smtp\", listen = \"127.0.0.1:10025\", stray_cr_lf = \"keep\" }",
        "hook.toml:6: mailbox \"mail.box\": intake: stray_cr_lf: \"keep\": there is no such word here; write \"reject\" \
         or \"normalise\"",
    ),
    (
        "release",
        "release = { type = \"smtp\", address = \"127.0.0.1\" }",
        "hook.toml:7: mailbox \"mail.box\": release: address: \"127.0.0.1\": it has no port; write host and port, such \
         as \"127.0.0.1:10026\"",
    ),
    (
        "release",
        "release = { type = \"smtp\", address = \"127.0.0.1:10025\" }",
        "hook.toml:7: mailbox \"mail.box\": release: address: 127.0.0.1:10025 is the intake of mailbox \"mail.box\", so \
         mail would come back for ever; write where the mail is to go next",
    ),
    (
        "release",
        "release = { type = \"smtp\", address = \"127.0.0.1:10026\", connect_timeout = \"120s\" }",
        "hook.toml:7: mailbox \"mail.box\": release: connect_timeout: the sender is answered within \"120s\" \
         (answer_within), before a connection is given up; write a shorter one",
    ),
    (
        "release",
        "release = { type = \"smtp\", address = \"127.0.0.1:10026\", retry_first = \"2h\", retry_max = \"1h\" }",
        "hook.toml:7: mailbox \"mail.box\": release: retry_max: it is shorter than retry_first; write at least \"2h\"",
    ),
    (
        "release",
        "release = \"127.0.0.1:10026\"",
        "hook.toml:7: mailbox \"mail.box\": release: it is a string; write a table: { key = value, ... }",
    ),
    (
        "needs",
        "needs = \"virus\"",
        "hook.toml:8: mailbox \"mail.box\": needs: it is a string; write what must have been done with a message \
         before it may leave, such as needs = [\"virus\"]; needs = [] says that nothing is asked",
    ),
    (
        "needs",
        "needs = [\"virus\", \"spam\", \"virus\"]",
        "hook.toml:8: mailbox \"mail.box\": needs: \"virus\" stands there twice; write it once",
    ),
    (
        "needs",
        "needs = [\"a.b\"]",
        "hook.toml:8: mailbox \"mail.box\": needs: \"a.b\": a need has no dots; write a word such as \"virus\"",
    ),
    (
        "answer_within",
        "answer_whitin = \"120s\"",
        "hook.toml:10: mailbox \"mail.box\": answer_whitin: there is no such key; did you mean \"answer_within\"?",
    ),
    (
        "answer_within",
        "answer_within = 120",
        "hook.toml:10: mailbox \"mail.box\": answer_within: a duration has a unit; write \"120s\" if seconds are meant",
    ),
    (
        "answer_within",
        "answer_within = \"10m\"",
        "hook.toml:10: mailbox \"mail.box\": answer_within: \"10m\" is too much; write \"1s\" to \"540s\"",
    ),
    (
        "answer_within",
        "answer_within = \"soon\"",
        "hook.toml:10: mailbox \"mail.box\": answer_within: \"soon\": a duration is a whole number and ms, s, m, h or \
         d; write \"1s\" to \"540s\"",
    ),
    (
        "answer_within",
        "after = \"4h\"",
        "hook.toml:10: mailbox \"mail.box\": after: the sender does not wait that long; remove it; answer_within says \
         how long it waits",
    ),
    (
        "answer_within",
        "upstream_timeout = \"100s\"",
        "hook.toml:4: mailbox \"mail.box\": answer_within: the sender gives up after \"100s\" (upstream_timeout), so an \
         answer within \"120s\" comes too late; write a shorter one, or let the sender wait longer",
    ),
    (
        "when_unprocessed",
        "when_unprocessed = \"release\"",
        "hook.toml:11: mailbox \"mail.box\": when_unprocessed: \"release\": there is no such word here; write \
         \"tempfail\" or \"wait\" or \"hold\" or \"release-unscanned\"",
    ),
    (
        "custody",
        "custody = \"hook\"",
        "hook.toml:10: mailbox \"mail.box\": answer_within: in the hook's custody the sender is answered at once; \
         remove it, or write custody = \"upstream\"",
    ),
];

#[test]
fn every_mistake_names_its_line_its_key_and_the_remedy() {
    for (line, by, message) in MISTAKES {
        let told = mistakes(&with(line, by));
        assert_eq!(told.first().map(String::as_str), Some(*message), "{by}");
    }
}

use gantry_mail::{Envelope, Peer, Recipient};
use gantry_protocol::verdict::{Finding, Outcome};
use proptest::prelude::*;

use super::*;

/// What every policy must say.
const OUTCOMES: &str = "[outcomes]\nfound = \"quarantine\"\nunscanned = \"retry\"\nencrypted = \"hold\"\n\
                        malformed = \"quarantine\"\nover-budget = \"retry\"\n";

fn policy(rules: &str) -> Policy {
    let text = format!("local = [\"*@example.com\"]\n{OUTCOMES}{rules}");
    Policy::from_text(Path::new("policy.toml"), &text)
        .unwrap_or_else(|mistakes| panic!("{mistakes:?}\n{text}"))
}

/// A message that a test changes as it likes.
struct Mail {
    mailbox: &'static str,
    needs: Vec<String>,
    envelope: Envelope,
    size: u64,
    text: &'static str,
    ran: Ran,
}

fn mail(to: &[&str]) -> Mail {
    let recipient = |to: &&str| Recipient { address: (*to).to_owned(), ..Recipient::default() };
    Mail {
        mailbox: "mail.box",
        needs: vec!["virus".to_owned()],
        envelope: Envelope {
            sender: "someone@example.org".to_owned(),
            recipients: to.iter().map(recipient).collect(),
            peer: Peer { address: "192.0.2.7".parse().ok(), ..Peer::default() },
            ..Envelope::default()
        },
        size: 1_000,
        text: "Subject: Your\r\n invoice\r\nX-Spam-Flag: YES\r\n\r\nSubject: body\r\n",
        ran: Ran::new(),
    }
}

fn finding(need: &str, outcome: Outcome) -> Finding {
    Finding {
        need: need.to_owned(),
        module: format!("{need}-module"),
        engine: String::new(),
        signatures: String::new(),
        outcome,
        duration_ms: 0,
    }
}

fn found(name: &str) -> Outcome {
    Outcome::Found { names: vec![name.to_owned()] }
}

fn encrypted() -> Outcome {
    Outcome::Encrypted { reason: "locked".to_owned() }
}

impl Mail {
    fn said(mut self, need: &str, outcome: Outcome) -> Self {
        let finding = finding(need, outcome);
        self.ran.insert(need.to_owned(), Said::of(&[&finding], Engines::All));
        self
    }

    fn clean(self) -> Self {
        self.said("virus", Outcome::Clean)
    }

    fn step(&self, policy: &Policy) -> Step {
        let Mail { mailbox, needs, envelope, size, text, ran } = self;
        let facts = Facts { mailbox, needs, envelope, size: *size, start: text.as_bytes() };
        policy.step(&facts, ran)
    }

    fn decided(&self, policy: &Policy) -> Vec<Decision> {
        match self.step(policy) {
            Step::Decided(decisions) => decisions,
            Step::Run(needs) => panic!("{needs:?} has to run first"),
        }
    }

    /// What becomes of it for each recipient, in a word.
    fn words(&self, policy: &Policy) -> Vec<&'static str> {
        self.decided(policy).iter().map(|decision| decision.answer.word()).collect()
    }
}

/// Whether a rule with these conditions applies to a clean message.
fn applies(conditions: &str, mail: &Mail) -> bool {
    let policy = policy(&format!("[[rule]]\nname = \"r\"\nthen = \"discard\"\n{conditions}\n"));
    mail.words(&policy) == ["discard"]
}

#[test]
fn each_condition_applies_to_what_it_says_and_to_nothing_else() {
    let mail = || mail(&["boss@example.com"]).clean();
    for (yes, no) in [
        ("when.mailbox = [\"other\", \"mail.*\"]", "when.mailbox = [\"mail\"]"),
        ("when.sender = [\"*@example.org\"]", "when.sender = [\"*@example.com\", \"<>\"]"),
        ("when.recipient = [\"BOSS@example.com\"]", "when.recipient = [\"*@example.org\"]"),
        ("when.client = [\"192.0.2.0/24\"]", "when.client = [\"10.0.0.0/8\"]"),
        ("when.larger_than = \"999B\"", "when.larger_than = \"1000B\""),
        ("when.smaller_than = \"1001B\"", "when.smaller_than = \"1000B\""),
        ("when.direction = [\"in\"]", "when.direction = [\"out\", \"internal\", \"through\"]"),
        ("when.header = [{ name = \"x-spam-flag\" }]", "when.header = [{ name = \"X-Spam\" }]"),
        (
            "when.header = [{ name = \"Subject\", matches = [\"your invoice\"] }]",
            "when.header = [{ name = \"Subject\", matches = [\"*body*\"] }]",
        ),
        ("when.clean = [\"virus\"]", "when.clean = [\"spam\"]"),
        ("when = {}", "when.found = [\"virus\"]"),
        ("unless.sender = [\"*@example.com\"]", "unless.sender = [\"*@example.org\"]"),
        (
            "when.sender = [\"*@example.org\"]\nunless.recipient = [\"x@example.com\"]",
            "when.sender = [\"*@example.org\"]\nunless.recipient = [\"boss@*\"]",
        ),
        // All keys have to hold.
        (
            "when.sender = [\"*@example.org\"]\nwhen.larger_than = \"1B\"",
            "when.sender = [\"*@example.org\"]\nwhen.larger_than = \"1MiB\"",
        ),
    ] {
        assert!(applies(yes, &mail()), "{yes}");
        assert!(!applies(no, &mail()), "{no}");
    }
}

#[test]
fn directions_follow_from_both_addresses() {
    for (sender, to, direction) in [
        ("a@example.org", "b@example.com", "in"),
        ("a@example.com", "b@example.org", "out"),
        ("a@example.com", "b@example.com", "internal"),
        ("a@example.org", "b@example.net", "through"),
        ("", "b@example.com", "in"),
    ] {
        let mut mail = mail(&[to]).clean();
        mail.envelope.sender = sender.to_owned();
        for word in ["in", "out", "internal", "through"] {
            let condition = format!("when.direction = [{word:?}]");
            assert_eq!(applies(&condition, &mail), word == direction, "{sender} {to} {word}");
        }
    }
}

#[test]
fn the_client_is_the_original_one_where_somebody_trusted_says_so() {
    for (said, condition) in [
        ("198.51.100.9", "when.client = [\"198.51.100.9\"]"),
        ("IPV6:2001:db8::1", "when.client = [\"2001:db8::/32\"]"),
    ] {
        let mut mail = mail(&["b@example.com"]).clean();
        mail.envelope.peer.xforward = vec![("ADDR".to_owned(), said.to_owned())];
        assert!(applies(condition, &mail), "{said}");
        assert!(!applies("when.client = [\"192.0.2.7\"]", &mail), "the relay is not the client");
    }
    let mut mail = mail(&["b@example.com"]).clean();
    mail.envelope.peer.xforward = vec![("ADDR".to_owned(), "[UNAVAILABLE]".to_owned())];
    assert!(!applies("when.client = [\"0.0.0.0/0\"]", &mail), "nobody knows who it was");
}

#[test]
fn each_outcome_has_its_answer_and_the_strictest_counts() {
    let policy = policy("");
    let reason = || "why".to_owned();
    for (outcome, word) in [
        (Outcome::Clean, "release"),
        (found("Eicar"), "quarantine"),
        (Outcome::Unscanned { reason: reason() }, "retry"),
        (encrypted(), "hold"),
        (Outcome::Malformed { reason: reason() }, "quarantine"),
        (Outcome::OverBudget { reason: reason() }, "retry"),
    ] {
        assert_eq!(mail(&["a@example.com"]).said("virus", outcome).words(&policy), [word]);
    }
    let both = mail(&["a@example.com"]).said("virus", encrypted()).said("spam", found("Spam"));
    assert_eq!(both.words(&policy), ["quarantine"]);
    assert_eq!(both.decided(&policy)[0].reason, "spam-module found Spam");
}

#[test]
fn each_action_does_what_it_says() {
    for (then, word) in [
        ("release", "release"),
        ("retry", "retry"),
        ("hold", "hold"),
        ("quarantine", "quarantine"),
        ("discard", "discard"),
        ("reject", "reject"),
    ] {
        let policy = policy(&format!("[[rule]]\nname = \"r\"\nthen = {then:?}\n"));
        assert_eq!(mail(&["a@example.com"]).clean().words(&policy), [word]);
    }
    let reject = "[[rule]]\nname = \"r\"\nthen = \"reject\"\ncode = 554\nenhanced = \"5.7.0\"\ntext = \"go away\"\n";
    let expected =
        Answer::Reject { code: 554, enhanced: "5.7.0".to_owned(), text: "go away".to_owned() };
    assert_eq!(mail(&["a@example.com"]).decided(&policy(reject))[0].answer, expected);
    let hold = "[[rule]]\nname = \"r\"\nthen = \"hold\"\nreason = \"ask Ann\"\n";
    assert_eq!(mail(&["a@example.com"]).decided(&policy(hold))[0].reason, "ask Ann");
}

#[test]
fn headers_gather_until_stop_or_then() {
    let policy = policy(
        "[[rule]]\nname = \"one\"\nadd_headers = [\"X-One: 1\"]\nremove_headers = [\"X-Spam-Flag\"]\n\
         [[rule]]\nname = \"two\"\nwhen.recipient = [\"a@*\"]\nadd_headers = [\"X-Two: 2\"]\nstop = true\n\
         [[rule]]\nname = \"three\"\nadd_headers = [\"X-Three: 3\"]\n",
    );
    let decisions = mail(&["a@example.com", "b@example.com"]).clean().decided(&policy);
    let add = |field: &str| HeaderEdit::Prepend { field: field.to_owned() };
    let remove = HeaderEdit::Remove { name: "X-Spam-Flag".to_owned() };
    assert_eq!(decisions[0].edits, [add("X-One: 1"), remove.clone(), add("X-Two: 2")]);
    assert_eq!(decisions[0].rules, [0, 1]);
    assert_eq!(decisions[1].edits, [add("X-One: 1"), remove, add("X-Three: 3")]);
    assert_eq!(decisions[1].rules, [0, 2]);
}

#[test]
fn the_first_rule_that_decides_does_and_each_recipient_has_its_own() {
    let policy = policy(
        "[[group]]\nname = \"staff\"\naddresses = [\"*@example.com\"]\n\
         [[rule]]\nname = \"robots\"\nwhen.recipient = [\"robot@example.com\"]\nthen = \"discard\"\n\
         [[rule]]\nname = \"staff\"\nwhen.recipient = [\"group:staff\"]\nthen = \"hold\"\n",
    );
    let mail = mail(&["robot@example.com", "ann@example.com", "x@example.org"]).clean();
    assert_eq!(mail.words(&policy), ["discard", "hold", "release"]);
}

#[test]
fn modules_run_only_when_their_answer_matters() {
    let run = |needs: &[&str]| Step::Run(needs.iter().map(|need| (*need).to_owned()).collect());
    let early = policy(
        "[[rule]]\nname = \"early\"\nwhen.sender = [\"*@example.org\"]\nthen = \"reject\"\n\
         [[rule]]\nname = \"late\"\nwhen.found = [\"virus\"]\nthen = \"discard\"\n",
    );
    let mut unasked = mail(&["a@example.com"]);
    assert_eq!(unasked.words(&early), ["reject"], "refused without a scan");
    unasked.envelope.sender = "a@example.net".to_owned();
    assert_eq!(unasked.step(&early), run(&["virus"]));

    let beside = policy(
        "[[rule]]\nname = \"spam\"\nwhen.direction = [\"in\"]\nrun = [\"spam\"]\n\
         [[rule]]\nname = \"tag\"\nwhen.found = [\"spam\"]\nadd_headers = [\"X-Spam: yes\"]\nthen = \"release\"\n",
    );
    assert_eq!(mail(&["a@example.com"]).step(&beside), run(&["spam"]));
    let asked = mail(&["a@example.com"]).said("spam", found("Spam"));
    assert_eq!(asked.step(&beside), run(&["virus"]));
    assert_eq!(asked.clean().words(&beside), ["release"]);
    // To others it is not run, and a condition on what was not run does not hold.
    let out = mail(&["a@example.org"]).clean().decided(&beside);
    assert_eq!((out[0].answer.word(), out[0].rules.len()), ("release", 0));
    assert_eq!(beside.runs(), ["spam"]);
}

/// The rule for which there is a policy at all: to release never means more than it says.
#[test]
fn a_release_lets_out_only_what_the_rule_itself_names() {
    let trust = policy(
        "[[rule]]\nname = \"partner\"\nwhen.sender = [\"*@example.org\"]\nthen = \"release\"\n",
    );
    let to = &["a@example.com"];
    assert_eq!(mail(to).step(&trust), Step::Run(vec!["virus".to_owned()]), "never unscanned");
    assert_eq!(mail(to).clean().words(&trust), ["release"]);
    assert_eq!(mail(to).said("virus", found("Eicar")).words(&trust), ["quarantine"]);
    assert_eq!(mail(to).said("virus", encrypted()).words(&trust), ["hold"]);

    let locked = policy(
        "[[rule]]\nname = \"locked\"\nwhen = { sender = [\"*@example.org\"], encrypted = [\"virus\"] }\nthen = \"release\"\n",
    );
    assert_eq!(mail(to).said("virus", encrypted()).words(&locked), ["release"]);
    let both = mail(to).said("virus", encrypted()).said("spam", found("Spam"));
    assert_eq!(both.words(&locked), ["quarantine"], "the other need was not meant");
    let mut mixed = mail(to);
    let findings = [finding("virus", encrypted()), finding("virus", found("Eicar"))];
    let said = Said::of(&findings.iter().collect::<Vec<_>>(), Engines::All);
    mixed.ran.insert("virus".to_owned(), said);
    assert_eq!(mixed.words(&locked), ["quarantine"], "the other engine's finding was not meant");
}

#[test]
fn names_that_were_found_must_all_be_meant() {
    let policy = policy(
        "[[rule]]\nname = \"tests\"\nwhen = { found = [\"virus\"], names = [\"Test.*\"] }\nthen = \"release\"\n",
    );
    let to = &["a@example.com"];
    let names = |names: &[&str]| Outcome::Found {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    assert_eq!(mail(to).said("virus", names(&["test.one"])).words(&policy), ["release"]);
    let mixed = names(&["Test.One", "Worm"]);
    assert_eq!(mail(to).said("virus", mixed).words(&policy), ["quarantine"]);
}

#[test]
fn lists_lie_in_files_and_count_for_the_digest() {
    let folder = tempfile::tempdir().unwrap();
    let (file, list) = (folder.path().join("policy.toml"), folder.path().join("vips.txt"));
    std::fs::write(&list, "# who must not wait\nboss@example.com\n\n*@board.example.com # all\n")
        .unwrap();
    let text = format!(
        "{OUTCOMES}[[rule]]\nname = \"vips\"\nwhen.recipient = [\"file:vips.txt\"]\nthen = \"hold\"\n"
    );
    std::fs::write(&file, &text).unwrap();
    let read = Policy::load(&file).unwrap();
    assert_eq!(read.files(), [file.clone(), list.clone()]);
    let mail = mail(&["boss@example.com", "x@board.example.com", "y@example.com"]).clean();
    assert_eq!(mail.words(&read), ["hold", "hold", "release"]);

    std::fs::write(&list, "boss@example.com\n").unwrap();
    assert_ne!(Policy::load(&file).unwrap().digest(), read.digest());
    std::fs::write(&list, "boss\n").unwrap();
    let told = Policy::load(&file).unwrap_err();
    let at = format!("{}:1: it has no @", list.display());
    assert!(told[0].to_string().contains(&at), "{}", told[0]);

    let alone = Policy::from_text(&file, OUTCOMES).unwrap();
    assert_eq!(alone.digest(), Digest(Sha256::digest(OUTCOMES).into()), "as sha256sum says it");
}

#[test]
fn what_modules_lack_is_told() {
    let policy = policy(
        "[[need]]\nname = \"virus\"\nquorum = 2\n[[rule]]\nname = \"r\"\nrun = [\"spam\"]\n",
    );
    assert_eq!(policy.engines("virus"), Engines::AtLeast(2));
    assert_eq!(policy.engines("spam"), Engines::All);
    assert!(policy.lacks(&["virus", "virus", "spam"]).is_empty());
    let lacks = policy.lacks(&["virus"]);
    assert!(lacks[0].starts_with("a rule runs \"spam\", which no module"), "{lacks:?}");
    assert!(lacks[1].starts_with("2 engines must say clean for \"virus\""), "{lacks:?}");
}

/// Mistakes, each with what is said of it.
const MISTAKES: &[(&str, &str)] = &[
    (
        "",
        "policy.toml:1: outcomes: it is missing; write [outcomes] and what happens to mail that is not clean",
    ),
    (
        "[outcomes]\nfound = \"quarantine\"\nunscanned = \"retry\"\nencrypted = \"hold\"\nmalformed = \"hold\"\n",
        "policy.toml:1: outcomes: over-budget: it is missing; say what happens to such mail: \"quarantine\", \"hold\", \
         \"retry\", \"reject\", \"discard\" or \"release\"",
    ),
    (
        "[outcomes]\nfound = \"quarantine\"\nunscanned = \"release\"\nencrypted = \"hold\"\nmalformed = \"hold\"\nover-budget = \"hold\"\n",
        "policy.toml:3: outcomes: unscanned: what nobody has looked at cannot be released: the hook refuses such a \
         verdict; write \"retry\"; to let mail out while no worker is there, see when_unprocessed in hook.toml",
    ),
];

/// Mistakes in rules, behind what every policy must say (six lines), each with what is said of it.
const RULE_MISTAKES: &[(&str, &str)] = &[
    (
        "name = \"r\"",
        "policy.toml:7: rule \"r\": then: the rule does nothing; write what it does, such as then = \"hold\"",
    ),
    (
        "name = \"r\"\nthen = \"relase\"",
        "policy.toml:9: rule \"r\": then: \"relase\": there is no such word here; did you mean \"release\"?; write \
         \"release\" or \"retry\" or \"hold\" or \"quarantine\" or \"discard\" or \"reject\"",
    ),
    (
        "name = \"r\"\nthen = \"release\"\nwhen.unscanned = [\"virus\"]",
        "policy.toml:9: rule \"r\": then: what nobody has looked at cannot be released: the hook refuses such a \
         verdict; write another answer, or leave unscanned out of when",
    ),
    (
        "name = \"r\"\nthen = \"hold\"\nwhen.direction = [\"in\"]",
        "policy.toml:10: rule \"r\": when: direction: nothing says which addresses are local; write local = \
         [\"*@example.com\"] at the top of the file",
    ),
    (
        "name = \"r\"\nthen = \"hold\"\nwhen.sender = [\"group:staf\"]",
        "policy.toml:10: rule \"r\": when: sender: there is no group \"staf\"; write a [[group]] of this name",
    ),
    (
        "name = \"r\"\nthen = \"hold\"\nwhen.sender = []",
        "policy.toml:10: rule \"r\": when: sender: the list is empty; write a list such as [\"boss@example.com\", \
         \"*@example.org\", \"<>\", \"group:staff\", \"file:vips.txt\"]",
    ),
    (
        "name = \"r\"\nthen = \"hold\"\nwhen.subject = \"x\"",
        "policy.toml:10: rule \"r\": when: subject: there is no such key; remove it; the keys here are mailbox, \
         direction, sender, recipient, client, larger_than, smaller_than, header, clean, found, names, unscanned, \
         encrypted, malformed, over-budget",
    ),
    (
        "name = \"r\"\nthen = \"hold\"\nstop = true",
        "policy.toml:10: rule \"r\": stop: then ends the rules already; remove stop",
    ),
    (
        "name = \"r\"\nthen = \"hold\"\ntext = \"no\"",
        "policy.toml:10: rule \"r\": text: only a rule with then = \"reject\" has one; remove it",
    ),
    (
        "name = \"r\"\nthen = \"reject\"\ncode = 450",
        "policy.toml:10: rule \"r\": code: 450 is too little; write 500 to 599",
    ),
    (
        "name = \"r\"\nadd_headers = [\"X-Gantry: clean\"]",
        "policy.toml:9: rule \"r\": add_headers: X-Gantry fields are Gantry's own; write another name",
    ),
    (
        "name = \"r\"\nadd_headers = [\"no field\"]",
        "policy.toml:9: rule \"r\": add_headers: edit header block: \"no field\" is no `Name: value`; write a list such \
         as [\"X-Scanned: yes\"]",
    ),
    (
        "name = \"r\"\nthen = \"hold\"\nwhen.names = [\"x\"]",
        "policy.toml:10: rule \"r\": when: names: only what was found has names; write found = [\"virus\"] beside it",
    ),
];

#[test]
fn every_mistake_names_its_line_its_key_and_the_remedy() {
    let told = |text: &str| {
        let mistakes = Policy::from_text(Path::new("policy.toml"), text).err().unwrap_or_default();
        mistakes.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    for (text, message) in MISTAKES {
        assert_eq!(told(text), [*message], "{text}");
    }
    for (rule, message) in RULE_MISTAKES {
        assert_eq!(told(&format!("{OUTCOMES}[[rule]]\n{rule}\n")), [*message], "{rule}");
    }
}

#[test]
fn every_key_stands_in_the_documentation() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    let document = std::fs::read_to_string(document).unwrap();
    for (table, keys) in KEYS {
        let heading = format!("### `{table}`\n");
        let section = document.split_once(&heading).unwrap_or_else(|| panic!("no {heading}")).1;
        let section = section.split("\n#").next().unwrap();
        for key in *keys {
            assert!(section.contains(&format!("\n| `{key}` |")), "{table}: {key}");
        }
        for line in section.lines().filter_map(|line| line.strip_prefix("| `")) {
            let key = line.split('`').next().unwrap();
            assert!(keys.contains(&key), "{table}: {key} is documented and unknown");
        }
    }
}

/// One rule of those that a file may have, most of them strange.
fn any_rule() -> impl Strategy<Value = String> {
    let need = prop::sample::select(vec!["virus", "spam", "other"]);
    let kind =
        prop::sample::select(vec!["clean", "found", "encrypted", "malformed", "over-budget"]);
    let condition = prop_oneof![
        Just("sender = [\"*@example.org\"]".to_owned()),
        Just("recipient = [\"a@*\"]".to_owned()),
        Just("direction = [\"in\", \"internal\"]".to_owned()),
        Just("larger_than = \"500B\"".to_owned()),
        Just("header = [{ name = \"Subject\" }]".to_owned()),
        (kind, need.clone()).prop_map(|(kind, need)| format!("{kind} = [{need:?}]")),
    ];
    let action = prop_oneof![
        prop::sample::select(vec!["release", "retry", "hold", "quarantine", "discard", "reject"])
            .prop_map(|then| format!("then = {then:?}")),
        need.prop_map(|need| format!("run = [{need:?}]")),
        Just("add_headers = [\"X-A: b\"]\nstop = true".to_owned()),
        Just("remove_headers = [\"Subject\"]".to_owned()),
    ];
    let conditions = (prop::option::of(condition.clone()), prop::option::of(condition));
    (conditions, action).prop_map(|((when, unless), action)| {
        let part = |key: &str, condition: Option<String>| {
            condition.map_or(String::new(), |condition| format!("{key} = {{ {condition} }}\n"))
        };
        let (when, unless) = (part("when", when), part("unless", unless));
        format!("[[rule]]\nname = \"r\"\n{when}{unless}{action}\n")
    })
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    let reason = || "why".to_owned();
    prop::sample::select(vec![
        Outcome::Clean,
        found("Eicar"),
        Outcome::Unscanned { reason: reason() },
        encrypted(),
        Outcome::Malformed { reason: reason() },
        Outcome::OverBudget { reason: reason() },
    ])
}

proptest! {
    /// Whatever the policy and whatever modules say: within as many steps as there are needs, every recipient has
    /// exactly one answer, nothing is released of which a need was not asked, and never what nobody has looked at.
    #[test]
    fn every_recipient_gets_exactly_one_answer(
        rules in prop::collection::vec(any_rule(), 0..6),
        outcomes in prop::collection::vec(any_outcome(), 3),
        to in prop::collection::vec(prop::sample::select(vec!["a@example.com", "b@example.com", "c@example.org"]), 1..5),
    ) {
        let policy = policy(&rules.concat());
        let mut mail = mail(&to);
        let said: BTreeMap<&str, &Outcome> = ["virus", "spam", "other"].into_iter().zip(&outcomes).collect();
        let mut steps = 0;
        let decisions = loop {
            match mail.step(&policy) {
                Step::Decided(decisions) => break decisions,
                Step::Run(needs) => {
                    prop_assert!(!needs.is_empty());
                    for need in needs {
                        prop_assert!(!mail.ran.contains_key(&need), "{} ran already", need);
                        mail = mail.said(&need, said[need.as_str()].clone());
                    }
                }
            }
            steps += 1;
            prop_assert!(steps <= 3);
        };
        prop_assert_eq!(decisions.len(), to.len());
        for decision in decisions.iter().filter(|decision| decision.answer == Answer::Release) {
            prop_assert!(mail.needs.iter().all(|need| mail.ran.contains_key(need)), "{:?}", decision);
            prop_assert!(mail.ran.values().all(|said| !said.has(Kind::Unscanned)), "{:?}", decision);
        }
    }
}

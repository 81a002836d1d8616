//! `gantry policy check` and `gantry policy test`, with the module `yara`, and what `docs/policy.md` shows of them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::path::Path;

use clap::Parser;
use gantry::cli::Cli;
use gantry::commands;
use gantry::policy::Policy;
use tempfile::TempDir;

/// What every policy must say.
const OUTCOMES: &str = "[outcomes]\nfound = \"quarantine\"\nunscanned = \"retry\"\nencrypted = \"hold\"\n\
                        malformed = \"hold\"\nover-budget = \"hold\"\n";
const WORM: &str = "gantry-test-worm-7c1d";

/// The page's fenced blocks: what stands behind the backticks, and the text.
fn blocks() -> Vec<(String, String)> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/policy.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut blocks = Vec::new();
    let mut pieces = page.split("\n```").skip(1);
    while let (Some(block), _behind) = (pieces.next(), pieces.next()) {
        let (info, text) = block.split_once('\n').unwrap();
        blocks.push((info.to_owned(), format!("{text}\n")));
    }
    blocks
}

/// A folder with the files that the page shows, and a rule that finds a worm.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("rules")).unwrap();
    let rule = format!("rule Worm {{ strings: $a = \"{WORM}\" condition: $a }}");
    std::fs::write(folder.path().join("rules/worm.yar"), rule).unwrap();
    for (info, text) in blocks() {
        if let Some((_, name)) = info.split_once(' ') {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
    }
    folder
}

/// Runs a command line in a folder and gives what it prints, or why it failed.
fn run(folder: &Path, words: &[&str]) -> Result<String, String> {
    let config = folder.join("worker.toml");
    let in_folder = |word: &&str| match word.ends_with(".eml") || word.ends_with(".toml") {
        true => folder.join(word).display().to_string(),
        false => (*word).to_owned(),
    };
    let start = ["gantry".to_owned(), "--config".to_owned(), config.display().to_string()];
    let cli = Cli::try_parse_from(start.into_iter().chain(words.iter().map(in_folder))).unwrap();
    let mut out = Vec::new();
    commands::execute(cli, &mut out).map_err(|failure| failure.text)?;
    Ok(String::from_utf8(out).unwrap())
}

#[test]
fn the_policies_that_the_page_shows_have_no_mistakes() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("accounts.txt"), "ann@example.com\n").unwrap();
    let mut tried = 0;
    for (info, text) in blocks() {
        if !info.starts_with("toml") || info == "toml worker.toml" {
            continue;
        }
        // What stands above tables stays above them.
        let whole = match text.contains("[outcomes]") {
            true => text.clone(),
            false => format!("{text}\n{OUTCOMES}"),
        };
        let read = Policy::from_text(&folder.path().join("policy.toml"), &whole);
        assert!(read.is_ok(), "{:?}\n{whole}", read.err());
        tried += 1;
    }
    assert!(tried >= 8, "only {tried} policies were found on the page");
}

#[test]
fn the_example_has_no_mistakes() {
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/policy.toml");
    let policy = Policy::load(&example).unwrap();
    assert_eq!((policy.rules(), policy.runs().len()), (1, 0));
}

#[test]
fn the_page_shows_what_the_command_prints() {
    let folder = folder();
    let mut tried = 0;
    for (_, text) in blocks().into_iter().filter(|(info, _)| info == "console") {
        let (command, expected) = text.split_once('\n').unwrap();
        let words: Vec<&str> = command.split_whitespace().skip(2).collect();
        let printed = run(folder.path(), &words).unwrap();
        // Versions of engines are left out on the page.
        let mut rest = printed.as_str();
        for piece in expected.split("...") {
            let at = rest.find(piece).unwrap_or_else(|| panic!("{piece:?} in\n{printed}"));
            rest = &rest[at + piece.len()..];
        }
        assert_eq!(rest, "");
        tried += 1;
    }
    assert_eq!(tried, 1);
}

#[test]
fn a_message_with_a_worm_is_told_from_one_without() {
    let folder = folder();
    let message = format!("Subject: hello\n\n{WORM}\n");
    std::fs::write(folder.path().join("worm.eml"), message).unwrap();
    let test = ["policy", "test", "worm.eml", "-f", "", "-t", "a@example.com", "robot@example.com"];
    let printed = run(folder.path(), &test).unwrap();
    assert!(printed.contains("module rules: found Worm\n"), "{printed}");
    assert!(printed.contains("\na@example.com: quarantine: rules found Worm\n"), "{printed}");
    assert!(printed.ends_with("\nrobot@example.com: discard\n"), "{printed}");

    let printed = run(folder.path(), &[&test[..], &["--json"]].concat()).unwrap();
    let told: serde_json::Value = serde_json::from_str(&printed).unwrap();
    assert_eq!(told["findings"][0]["outcome"], "found");
    assert_eq!(told["decisions"][0]["answer"], "quarantine");
    assert_eq!(told["decisions"][0]["rules"][0], "mark what comes from outside");
    assert_eq!(told["leaves"][1]["recipients"][0], "robot@example.com");
    assert_eq!(told["leaves"][1]["what"], "discard");
}

#[test]
fn nothing_runs_for_what_is_refused_at_once() {
    let folder = folder();
    let test = ["policy", "test", "message.eml", "-f", "x@example.org", "-t", "robot@example.com"];
    let printed = run(folder.path(), &test).unwrap();
    assert!(printed.starts_with("module policy: unscanned: the policy decided without it\n"));
}

#[test]
fn the_built_in_policy_can_be_tried_too() {
    let folder = folder();
    let config = folder.path().join("worker.toml");
    let text = std::fs::read_to_string(&config).unwrap().replace("policy = \"policy.toml\"\n", "");
    std::fs::write(&config, text).unwrap();
    let test = ["policy", "test", "message.eml", "-f", "a@example.org", "-t", "b@example.com"];
    let printed = run(folder.path(), &test).unwrap();
    assert!(printed.contains("b@example.com: release\n  +X-Gantry: clean;"), "{printed}");
    let error = run(folder.path(), &["policy", "check"]).unwrap_err();
    assert!(error.contains("names no policy file"), "{error}");
}

#[test]
fn check_tells_the_digest_the_notes_and_the_mistakes() {
    let folder = folder();
    let printed = run(folder.path(), &["policy", "check"]).unwrap();
    assert!(printed.contains("policy.toml: no mistakes, 2 rule(s)\ndigest "), "{printed}");
    assert!(run(folder.path(), &["check"]).unwrap().ends_with("no mistakes\n"));

    let policy = folder.path().join("policy.toml");
    let lenient = OUTCOMES.replace("encrypted = \"hold\"", "encrypted = \"release\"");
    std::fs::write(&policy, format!("{lenient}[[rule]]\nname = \"r\"\nrun = [\"spam\"]\n"))
        .unwrap();
    let printed = run(folder.path(), &["policy", "check", "policy.toml"]).unwrap();
    assert!(
        printed.starts_with("note: encrypted = \"release\": such mail reaches its recipients\n")
    );
    for words in [&["policy", "check"][..], &["check"]] {
        let error = run(folder.path(), words).unwrap_err();
        assert!(error.contains("a rule runs \"spam\", which no module of this worker"), "{error}");
    }
    std::fs::write(&policy, "[outcomes]\n").unwrap();
    let error = run(folder.path(), &["check"]).unwrap_err();
    assert_eq!(error.lines().count(), 5, "{error}");
}

const NOTICES: &str = r#"
postmaster = "postmaster@example.com"

[[notice]]
name = "infected"
to = ["postmaster", "sender"]
from = "gantry@example.com"
subject = "{answer}: {subject}"
text = "{findings} in a message from {sender}"

[[rule]]
name = "tell"
when.found = ["virus"]
notify = ["infected"]
"#;

#[test]
fn notices_are_shown_and_their_mistakes_are_told() {
    let folder = folder();
    let (postmaster, rest) = NOTICES.split_once("\n\n").unwrap();
    let write = |rest: &str| {
        let text = format!("{postmaster}\n{OUTCOMES}{rest}");
        std::fs::write(folder.path().join("policy.toml"), text).unwrap();
    };
    write(rest);
    let checked = run(folder.path(), &["policy", "check", "policy.toml"]).unwrap();
    assert!(checked.contains("note: notice \"infected\" goes to senders"), "{checked}");
    let allowed =
        r#"originated = { senders = ["<>"], recipients = ["postmaster@example.com", "sender"] }"#;
    assert!(checked.contains(allowed), "{checked}");

    let message = format!("Subject: hello\n\n{WORM}\n");
    std::fs::write(folder.path().join("worm.eml"), message).unwrap();
    std::fs::write(folder.path().join("clean.eml"), "Subject: hello\n\nhi\n").unwrap();
    let test = |file, from| {
        run(folder.path(), &["policy", "test", file, "-f", from, "-t", "a@example.com"]).unwrap()
    };
    let printed = test("worm.eml", "anna@example.org");
    for piece in [
        "\nnotice to postmaster@example.com:\n",
        "\nnotice to anna@example.org:\n",
        "\n  Subject: quarantine: hello\n",
        "\n  virus: rules found Worm in a message from anna@example.org\n",
    ] {
        assert!(printed.contains(piece), "{piece:?} in\n{printed}");
    }
    assert!(!test("worm.eml", "").contains("notice to anna"), "not to the null sender");
    assert!(!test("clean.eml", "anna@example.org").contains("notice"));
    let arguments = ["policy", "test", "worm.eml", "-f", "", "-t", "a@example.com", "--json"];
    let told: serde_json::Value =
        serde_json::from_str(&run(folder.path(), &arguments).unwrap()).unwrap();
    assert_eq!(told["notices"][0]["to"][0], "postmaster@example.com");

    write(&rest.replace("{sender}", "{sendr}"));
    let told = run(folder.path(), &["policy", "check", "policy.toml"]).unwrap_err();
    assert!(told.contains("did you mean {sender}?"), "{told}");
    assert!(told.contains("policy.toml:14:"), "{told}");
}

//! What the house demands of its own files: sizes, arrows between the crates, and documents that say what is so.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use gantry_daemon::crash;
use gantry_tests::pages::{blocks, files, page, shown};
use gantry_tests::project;

/// A file that grows beyond this is several files.
const LINES_MAX: usize = 800;

/// Who may depend on whom inside the project, dev-dependencies aside. Everything may be used by the tests.
const ARROWS: &[(&str, &[&str])] = &[
    ("gantry-protocol", &["gantry-mail"]),
    ("gantry-mail", &[]),
    ("gantry-mime", &["gantry-mail"]),
    ("gantry-config", &["gantry-protocol"]),
    ("gantry-operator", &["gantry-protocol", "gantry-mail"]),
    ("gantry-link", &["gantry-protocol", "gantry-mail"]),
    ("gantry-daemon", &[]),
    (
        "gantry-hook",
        &[
            "gantry-protocol",
            "gantry-mail",
            "gantry-link",
            "gantry-operator",
            "gantry-config",
            "gantry-daemon",
        ],
    ),
    ("gantry-scanners", &["gantry-protocol", "gantry-link", "gantry-mail", "gantry-mime"]),
    (
        "gantry",
        &[
            "gantry-protocol",
            "gantry-link",
            "gantry-operator",
            "gantry-mail",
            "gantry-mime",
            "gantry-config",
            "gantry-daemon",
            "gantry-scanners",
        ],
    ),
];

#[test]
fn no_source_file_is_too_long() {
    for path in files(".", ".rs") {
        let lines = read(&path).lines().count();
        assert!(lines <= LINES_MAX, "{} has {lines} lines; {LINES_MAX} are allowed", shown(&path));
    }
}

#[test]
fn crates_depend_on_each_other_as_the_architecture_says() {
    let mut seen = BTreeSet::new();
    for path in files(".", "Cargo.toml") {
        let manifest: toml::Table = read(&path).parse().expect("a manifest");
        let Some(package) = manifest.get("package") else { continue };
        let name = package["name"].as_str().expect("a name").to_owned();
        // What is in the folder of the tests may use everything.
        if path.starts_with(project().join("tests")) {
            continue;
        }
        let Some((_, allowed)) = ARROWS.iter().find(|(crate_, _)| *crate_ == name) else {
            panic!("{} is a crate without a line in ARROWS", shown(&path));
        };
        for table in tables_of_dependencies(&manifest) {
            for dependency in table.keys().filter(|key| key.starts_with("gantry")) {
                let fine = allowed.contains(&dependency.as_str());
                assert!(fine, "{name} must not depend on {dependency}");
            }
        }
        seen.insert(name);
    }
    assert_eq!(seen.len(), ARROWS.len(), "a crate of ARROWS is gone: {seen:?}");
}

/// `[dependencies]` and `[build-dependencies]`, also those of single platforms.
fn tables_of_dependencies(manifest: &toml::Table) -> Vec<&toml::Table> {
    let platforms = manifest.get("target").and_then(toml::Value::as_table);
    let platforms = platforms.into_iter().flat_map(|all| all.values()).filter_map(|v| v.as_table());
    std::iter::once(manifest)
        .chain(platforms)
        .flat_map(|table| ["dependencies", "build-dependencies"].map(|key| table.get(key)))
        .flatten()
        .filter_map(toml::Value::as_table)
        .collect()
}

/// Neither straight nor through others does the hook depend on what takes mail apart.
#[test]
fn the_hook_is_built_without_scanners() {
    let lock: toml::Table = read(&project().join("Cargo.lock")).parse().expect("a lock file");
    let packages = lock["package"].as_array().expect("packages");
    let mut needs: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for package in packages {
        let name = package["name"].as_str().expect("a name");
        let all = package.get("dependencies").and_then(toml::Value::as_array);
        // Where there are several versions, the name has the version behind it.
        let names = all.into_iter().flatten().filter_map(|one| one.as_str()?.split(' ').next());
        needs.entry(name).or_default().extend(names);
    }
    let mut reached = BTreeSet::new();
    let mut next = vec!["gantry-hook"];
    while let Some(name) = next.pop() {
        if reached.insert(name) {
            next.extend(&needs[name]);
        }
    }
    assert!(reached.contains("quinn"), "the lock file was read wrongly: {reached:?}");
    for name in ["gantry-scanners", "gantry-mime", "boreal", "zip", "clamav-client"] {
        assert!(!reached.contains(name), "the hook depends on {name}");
    }
}

#[test]
fn every_frame_is_in_the_protocol_document() {
    let text = page("docs/protocol.md");
    let source = read(&project().join("shared/protocol/src/frame/codec.rs"));
    let frames = frames(&source);
    assert!(frames.len() >= 20, "only {} frames were found in the source", frames.len());
    for (number, name) in frames {
        let row = text.lines().any(|line| {
            let words: Vec<&str> = line.split(|c: char| !c.is_alphanumeric()).collect();
            words.contains(&number.as_str()) && words.contains(&name.as_str())
        });
        assert!(row, "docs/protocol.md has no line with frame {number} and its name {name}");
    }
}

/// `number => Name` inside of the `language!` tables.
fn frames(source: &str) -> Vec<(String, String)> {
    let tables = source.split("language!(").skip(1);
    let inside = tables.filter_map(|table| table.split_once('{')?.1.split_once('}'));
    let pairs = inside.flat_map(|(entries, _)| entries.split(','));
    pairs
        .filter_map(|pair| pair.split_once("=>"))
        .map(|(number, name)| (number.trim().to_owned(), name.trim().to_owned()))
        .collect()
}

#[test]
fn every_key_is_in_the_configuration_document() {
    let text = page("docs/configuration.md");
    let keys = gantry_hook::config::KEYS.iter().chain(gantry::config::KEYS);
    for (table, keys) in keys {
        for key in *keys {
            let found = text.contains(&format!("`{key}`")) || text.contains(&format!("`{key} ="));
            assert!(found, "docs/configuration.md does not explain `{key}` of {table}");
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    // In two halves, since this file is looked at, too.
    let forbidden =
        [concat!("FIX", "ME"), concat!("TO", "DO"), concat!("todo", "!("), concat!("XX", "X ")];
    for path in ["rs", "md", "toml", "sh"].iter().flat_map(|ending| files(".", ending)) {
        for (number, line) in read(&path).lines().enumerate() {
            for word in forbidden {
                assert!(!line.contains(word), "{}:{} says {word}", shown(&path), number + 1);
            }
        }
    }
}

/// One that is not listed is never played.
#[test]
fn every_crash_point_is_placed_once() {
    for (folder, points) in [("hook/src", crash::HOOK), ("worker/src", crash::WORKER)] {
        let texts: Vec<String> = files(folder, ".rs").iter().map(|path| read(path)).collect();
        let calls = texts.iter().flat_map(|text| text.split("crash::at(\"").skip(1));
        let mut placed: Vec<&str> = calls.filter_map(|rest| rest.split('"').next()).collect();
        let mut listed = points.to_vec();
        placed.sort_unstable();
        listed.sort_unstable();
        assert_eq!(placed, listed, "in {folder}");
    }
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut checked = 0;
    for path in files(".", ".md") {
        let text = read(&path);
        for target in links(&text) {
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let there = path.parent().unwrap().join(target);
            assert!(there.exists(), "{} links to {target}, which is not there", shown(&path));
            checked += 1;
        }
    }
    assert!(checked > 0, "no link was found: they are read wrongly");
}

/// The targets of `[text](target)`, outside of fenced blocks.
fn links(text: &str) -> Vec<String> {
    let mut fenced = false;
    let mut found = Vec::new();
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let targets = line.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        if !fenced {
            found.extend(targets.map(|(target, _)| target.to_owned()));
        }
    }
    found
}

#[test]
fn configurations_in_the_documents_are_accepted() {
    const HOOK: &str = "name = \"mx1\"\nspool = \"spool\"\nlisten = \"127.0.0.1:4733\"\n";
    const WORKER: &str = "name = \"pc-1\"\n";
    const HOST: &str = "[[host]]\naddress = \"127.0.0.1:4733\"\n";
    let mut checked = 0;
    for path in files(".", ".md") {
        for block in blocks(&read(&path)) {
            let Ok(table) = block.parse::<toml::Table>() else { continue };
            let folder = tempfile::tempdir().unwrap();
            let file = |name: &str| folder.path().join(name);
            fs::create_dir(file("rules")).unwrap();
            fs::write(file("rules/a.yar"), "rule a { condition: false }").unwrap();
            // A page may show a single table; the rest of the file is the usual.
            let unless =
                |key: &str, text: &'static str| if table.contains_key(key) { "" } else { text };
            let mistakes = if table.contains_key("mailbox") {
                let text = format!("{}{block}", unless("name", HOOK));
                gantry_hook::config::Config::from_text(&file("hook.toml"), &text).err()
            } else if table.contains_key("host") || table.contains_key("module") {
                let text = format!("{}{block}{}", unless("name", WORKER), unless("host", HOST));
                gantry::config::Config::from_text(&file("worker.toml"), &text).err()
            } else {
                continue;
            };
            assert!(mistakes.is_none(), "{}: {mistakes:?}\n{block}", shown(&path));
            checked += 1;
        }
    }
    assert!(checked >= 3, "only {checked} configurations were found in the documents");
}

fn read(path: &Path) -> String {
    let text = fs::read(path).unwrap_or_else(|error| panic!("read {}: {error}", shown(path)));
    String::from_utf8(text).unwrap_or_else(|_| panic!("{} is not UTF-8", shown(path)))
}

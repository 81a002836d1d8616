use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const KEYS: &[&str] =
    &["text", "count", "time", "room", "flag", "list", "table", "item", "path", "word"];
const SECOND: Duration = Duration::from_secs(1);

/// Takes one value of each kind, wherever it stands.
fn read(top: &Table<'_>) -> Option<u16> {
    top.allow(KEYS);
    let text = top.value("text").map(|value| value.text("write a text"));
    let _ = top.value("path").map(|value| value.path());
    top.or("time", SECOND, |value| value.duration(SECOND..=60 * SECOND));
    top.or("room", 1024, |value| value.size(1024..=1 << 20));
    top.or("flag", false, |value| value.flag());
    let _ = top.value("list").map(|value| value.list(3, "write a list", Value::name));
    let _ = top.value("word").map(|value| value.one_of(&[("yes", 1), ("no", 2)]));
    if let Some(table) = top.value("table").and_then(|value| value.table()) {
        table.allow(&["count"]);
        table.or("count", 0_u8, |value| value.integer(1..=9));
    }
    for item in top.tables("item", 0..=2) {
        item.allow(&["name", "count"]);
        let _ = item.required("count", "write count = 1");
    }
    let count = top.or("count", 7, |value| value.integer(1..=9));
    text.is_none_or(|text| text.is_some()).then_some(count)
}

fn mistakes(text: &str) -> Vec<String> {
    let read = Document::new(Path::new("x.toml"), text).resolve(read);
    read.err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

#[test]
fn values_are_taken_and_defaults_filled_in() {
    let value = |text: &str| Document::new(Path::new("x.toml"), text).resolve(read);
    assert_eq!(value(""), Ok(7));
    assert_eq!(value("count = 3\ntext = 'a'\ntable = { count = 0x9 }\nlist = ['a', 'b']"), Ok(3));
}

#[test]
fn each_mistake_has_its_place() {
    for (text, message) in [
        ("text = 3", "x.toml:1: text: it is a number; write a text"),
        ("text = ''", "x.toml:1: text: it is empty or has control characters; write a text"),
        ("\n\ncount = 10", "x.toml:3: count: 10 is too much; write 1 to 9"),
        ("count = 0", "x.toml:1: count: 0 is too little; write 1 to 9"),
        ("count = -1", "x.toml:1: count: -1 is out of bounds; write 1 to 9"),
        ("count = 70000", "x.toml:1: count: 70000 is out of bounds; write 1 to 9"),
        ("count = 1.5", "x.toml:1: count: it is a number with a fraction; write 1 to 9"),
        ("time = '90s'", "x.toml:1: time: \"90s\" is too much; write \"1s\" to \"60s\""),
        ("room = '1B'", "x.toml:1: room: \"1B\" is too little; write \"1KiB\" to \"1MiB\""),
        ("flag = 'true'", "x.toml:1: flag: it is a string; write true or false, without quotes"),
        ("list = ['a', 'b', 'c', 'd']", "x.toml:1: list: it has 4 items; write at most 3"),
        (
            "list = [\n'a',\n'B',\n]",
            "x.toml:3: list: \"B\": a name consists of a-z, 0-9, \".\" and \"-\"; write \"b\"",
        ),
        (
            "word = 'yess'",
            "x.toml:1: word: \"yess\": there is no such word here; did you mean \"yes\"?; write \"yes\" or \"no\"",
        ),
        ("table = []", "x.toml:1: table: it is a list; write a table: { key = value, ... }"),
        ("\n[table]\n\ncount = 10", "x.toml:4: table: count: 10 is too much; write 1 to 9"),
        (
            "[table]\n\ncuont = 10",
            "x.toml:3: table: cuont: there is no such key; did you mean \"count\"?",
        ),
        (
            "\n[[item]]\n\nname = 'one'",
            "x.toml:2: item \"one\": count: it is missing; write count = 1",
        ),
        (
            "[[item]]\ncount = 1\n\n[[item]]",
            "x.toml:4: item 2: count: it is missing; write count = 1",
        ),
        ("item = [1]", "x.toml:1: item 1: it is a number; write a table: { key = value, ... }"),
        ("[item]", "x.toml:1: item: it is a table; write [[item]] above its keys"),
        ("table.count = 10", "x.toml:1: table: count: 10 is too much; write 1 to 9"),
    ] {
        assert_eq!(mistakes(text), [message], "{text}");
    }
    let told = mistakes("[[item]]\ncount = 1\n[[item]]\ncount = 1\n[[item]]\ncount = 1\n");
    assert_eq!(told, ["x.toml:1: item: there are 3; write at most 2"]);
}

#[test]
fn an_unknown_key_is_refused_wherever_it_stands() {
    for (text, place) in [
        ("\ncolour = 'red'", "x.toml:2: colour"),
        ("\n[colour]\na = 1", "x.toml:2: colour"),
        ("\n[[colour]]\na = 1\n[[colour]]\na = 2", "x.toml:2: colour"),
        ("count = 1\ncolour.red.dark = 1", "x.toml:2: colour"),
        ("[table]\ncolour = { }", "x.toml:2: table: colour"),
    ] {
        let told = mistakes(text);
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(
            told[0].starts_with(&format!(
                "{place}: there is no such key; remove it; the keys here are "
            )),
            "{told:?}"
        );
    }
}

#[test]
fn tables_that_must_be_there() {
    let told = |text: &str| {
        let document = Document::new(Path::new("x.toml"), text);
        let read = document.resolve(|top| Some(top.tables("item", 1..=2).len()));
        read.map_err(|mistakes| mistakes[0].to_string())
    };
    let none = Err("x.toml:1: item: there is none; write at least one [[item]]".to_owned());
    assert_eq!(told(""), none);
    assert_eq!(told("item = []"), none);
    assert_eq!(told("[[item]]"), Ok(1));
}

#[test]
fn what_is_told_of_a_key_stays_one_line() {
    let told = mistakes("\"a\\nb\" = 1");
    assert!(told[0].starts_with("x.toml:1: a\\nb: there is no such key"), "{told:?}");
}

#[test]
fn broken_syntax_is_told_with_its_line() {
    let told = mistakes("count = 1\ntext = \"open\n");
    assert!(
        told[0].starts_with("x.toml:2: ")
            && told[0].ends_with("; write valid TOML (https://toml.io)"),
        "{told:?}"
    );
    let told = mistakes("count = 1\ncount = 2\n");
    assert!(told[0].starts_with("x.toml:2: "), "{told:?}");
}

#[test]
fn mistakes_are_collected_up_to_a_bound() {
    let text: String = (0..50).map(|number| format!("unknown-{number} = 1\n")).collect();
    let told = mistakes(&text);
    assert_eq!(told.len(), MISTAKES_MAX);
    let shown = mistakes(&format!("text = 1\n\"{}\" = 1", "k".repeat(100_000)));
    assert!(shown.iter().all(|line| line.len() < 300), "a long key is cut");
}

#[test]
fn files_that_cannot_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.toml");
    let told = |file: &Path| Document::load(file).unwrap_err().to_string();
    let start = format!("{}: read the configuration: ", file.display());
    assert!(
        told(&file).starts_with(&start) && told(&file).ends_with("; name the file with --config")
    );
    std::fs::write(&file, [b'a', 0xff]).unwrap();
    assert!(told(&file).ends_with("; write it in UTF-8"), "{}", told(&file));
    std::fs::write(&file, " ".repeat(usize::try_from(FILE_BYTES_MAX).unwrap() + 1)).unwrap();
    assert!(told(&file).ends_with(": it is larger than 1MiB; name a configuration file"));
    std::fs::write(&file, "count = 2").unwrap();
    assert_eq!(Document::load(&file).unwrap().resolve(read), Ok(2));
    assert!(Document::load(folder.path()).is_err(), "a folder");
}

#[test]
fn paths_are_relative_to_the_file() {
    let path = |file: &str, text: &str| -> PathBuf {
        let document = Document::new(Path::new(file), text);
        document.resolve(|top| top.value("path").and_then(|value| value.path())).unwrap()
    };
    let here = std::env::current_dir().unwrap();
    assert_eq!(path("x.toml", "path = 'a/b'"), here.join("a/b"));
    assert_eq!(path("etc/x.toml", "path = 'a'"), here.join("etc/a"));
    let elsewhere = here.join("etc");
    let text = format!("path = {:?}", elsewhere.join("a").display().to_string());
    assert_eq!(path("x.toml", &text), elsewhere.join("a"));
}

#[test]
fn deep_nesting_is_refused_and_not_followed() {
    let text = format!("text = {}1{}", "[".repeat(50_000), "]".repeat(50_000));
    assert!(!mistakes(&text).is_empty());
    let text = format!("{} = 1", vec!["a"; 50_000].join("."));
    assert!(!mistakes(&text).is_empty());
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "\\PC{0,100}|[a-z=\\[\\]{}.,'\"0-9\n -]{0,100}") {
        let _ = mistakes(&text);
    }

    #[test]
    fn random_values_never_panic(
        key in prop::sample::select(KEYS),
        value in "-?[0-9]{1,40}|'[ -&(-~]{0,30}'|\\[('[a-z]{1,3}', ?){0,4}\\]|\\{ ?[a-z]{1,5} ?= ?[0-9]{1,4} ?\\}|[0-9.e-]{1,20}|true",
    ) {
        let _ = mistakes(&format!("{key} = {value}"));
    }

    #[test]
    fn written_durations_and_sizes_come_back(ms in any::<u32>(), bytes in any::<u64>()) {
        let time = Duration::from_millis(ms.into());
        prop_assert_eq!(duration(&duration_text(time)), Some(time));
        prop_assert_eq!(size(&size_text(bytes)), Some(bytes));
    }
}

//! The demo, as the README tells people to start it.

use std::process::Command;

use gantry_tests::binary;
use serde_json::Value;

#[test]
fn the_demo_loses_nothing() {
    binary("gantry-hook");
    let folder = tempfile::tempdir().unwrap();
    let mut demo = Command::new(binary("gantry"));
    // Not under cargo: the programs are built already.
    demo.args(["demo", "--json"]).env_remove("CARGO").env("TMPDIR", folder.path());
    let output = demo.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let said = format!("{}{}", text, String::from_utf8_lossy(&output.stderr));
    let last: Value = serde_json::from_str(text.lines().last().expect("a last line")).expect(&said);
    assert!(output.status.success(), "{said}");
    let number = |name: &str| last[name].as_f64().unwrap_or_else(|| panic!("{name}: {said}"));
    for name in ["lost", "released_unprocessed", "held", "altered", "not_accepted"] {
        assert!(number(name) == 0.0, "{name}: {said}");
    }
    assert!(number("sent") >= 200.0 && number("taken_over") >= 1.0, "{said}");
    assert_eq!(number("released") + number("quarantined"), number("sent"), "{said}");
    assert_eq!(number("quarantined"), number("infected"), "{said}");
    for name in ["duplicates", "takeover_ms_max", "seconds"] {
        number(name);
    }
    if cfg!(target_os = "linux") {
        assert!(number("hook_rss_bytes") > 0.0 && number("hook_cpu_s_per_1000") >= 0.0, "{said}");
    }
    assert_eq!(last["worker_killed"], Value::Bool(true), "{said}");
}

use std::path::Path;
use std::time::Duration;

use gantry_scanners::clamd::ClamdAddress;
use gantry_scanners::command::{Argument, Meaning, NameLine};

use super::*;

/// As the project's documents show it; `docs/configuration.md` has it too.
const EXAMPLE: &str = r#"name = "pc-1"
[[host]]
address = "127.0.0.1:4733"
[[module]]
name = "rules"
type = "yara"
provides = "virus"
rules = ["rules/*.yar"]
[[module]]
name = "clamav"
type = "clamd"
provides = "virus"
address = "unix:/run/clamav/clamd.ctl"
"#;

/// A folder with the rules that the example speaks of.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules");
    std::fs::create_dir(&rules).unwrap();
    for name in ["b.yar", "a.yar", "notes.txt"] {
        std::fs::write(rules.join(name), "").unwrap();
    }
    folder
}

/// The example with one line replaced.
fn with(line: &str, by: &str) -> String {
    assert!(EXAMPLE.lines().any(|own| own.starts_with(line)), "{line:?} is in the example");
    let replaced = EXAMPLE.lines().map(|own| if own.starts_with(line) { by } else { own });
    replaced.collect::<Vec<_>>().join("\n")
}

/// What is said of a text in `worker.toml` beside the rules, without the folder's name.
fn mistakes(text: &str) -> Vec<String> {
    let folder = folder();
    let told =
        Config::from_text(&folder.path().join("worker.toml"), text).err().unwrap_or_default();
    let start = format!("{}/", folder.path().display());
    told.iter().map(|mistake| mistake.to_string().replace(&start, "")).collect()
}

#[test]
fn the_example_means_what_it_says() {
    let folder = folder();
    let file = folder.path().join("worker.toml");
    std::fs::write(&file, EXAMPLE).unwrap();
    let config = Config::load(&file).unwrap();
    assert_eq!(config.name, "pc-1");
    assert_eq!(config.identity_dir, folder.path());
    let address = Some("127.0.0.1:4733".parse().unwrap());
    assert_eq!(config.hosts, [Host { address, name: None, tier: 0, standby_after: None }]);
    assert_eq!(config.listen, None);
    let [ModuleConfig::Yara(yara), ModuleConfig::Clamd(clamd)] = config.modules.as_slice() else {
        panic!("{:?}", config.modules)
    };
    assert_eq!((yara.name.as_str(), yara.provides.as_str()), ("rules", "virus"));
    let rules = folder.path().join("rules");
    assert_eq!(yara.rules, [rules.join("a.yar"), rules.join("b.yar")]);
    assert!(yara.bundled);
    assert_eq!((clamd.name.as_str(), clamd.provides.as_str()), ("clamav", "virus"));
    assert_eq!(clamd.address, ClamdAddress::Unix("/run/clamav/clamd.ctl".into()));
}

#[test]
fn the_bundled_rules_need_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("worker.toml");
    let config = Config::from_text(&file, &with("rules = ", "")).unwrap();
    let ModuleConfig::Yara(yara) = &config.modules[0] else { panic!("{:?}", config.modules) };
    assert!(yara.bundled && yara.rules.is_empty());
}

#[test]
fn a_clamd_is_found_by_each_form_of_its_address() {
    let folder = folder();
    for (text, address) in [
        ("unix:clamd.ctl", ClamdAddress::Unix(folder.path().join("clamd.ctl"))),
        ("tcp:127.0.0.1:3310", ClamdAddress::Tcp("127.0.0.1:3310".to_owned())),
        ("scanner.example:3310", ClamdAddress::Tcp("scanner.example:3310".to_owned())),
        ("[::1]:3310", ClamdAddress::Tcp("[::1]:3310".to_owned())),
    ] {
        let text = with("address = \"unix", &format!("address = {text:?}"));
        let config = Config::from_text(&folder.path().join("worker.toml"), &text).unwrap();
        let ModuleConfig::Clamd(clamd) = &config.modules[1] else { panic!("{:?}", config.modules) };
        assert_eq!(clamd.address, address);
    }
}

#[test]
fn every_key_reaches_its_place() {
    let folder = folder();
    let text = "name = 'pc-1'\nidentity = 'keys'\nlisten = '127.0.0.1:4734'\nscratch = 'tmp'\nconcurrency = 3\nmemory_max = '64MiB'\n\
                drain_timeout = '5s'\npolicy = 'policy.toml'\nlog = 'json'\n\
                [metrics]\nlisten = '[::]:9465'\nbeyond_loopback = true\n[[host]]\naddress = 'mx1:1'\nname = 'mx1'\ntier = 2\nstandby_after = '30s'\n\
                [[module]]\nname = 'y'\ntype = 'yara'\nprovides = 'spam'\nrules = ['rules/a.yar']\nbundled = false\n\
                concurrency = 4\nunpacked_max = '5MiB'\nratio_max = 6\nentries_max = 7\ndepth_max = 8\ntime_max = '9s'\n\
                [[module]]\nname = 'c'\ntype = 'clamd'\nprovides = 'virus'\naddress = 'a:1'\nconnect_timeout = '1s'\n\
                scan_timeout = '2s'\nstream_max = '3MiB'\nscan_max = '4MiB'\nsignatures_age_max = '3d'\nconnections_max = 5\n\
                [[module]]\nname = 'p'\ntype = 'command'\nprovides = 'virus'\nprogram = 'bin/scan'\n\
                arguments = ['-v', '{file}']\nenvironment = ['LANG=C']\nclean = [0]\nfound = [1, 11]\n\
                unscanned = [2]\nencrypted = [3]\nmalformed = [4]\nover-budget = [5]\nfailed = [6]\n\
                unavailable = [7]\nname_prefix = '{file}: '\nname_suffix = ' FOUND'\nprobe = ['/bin/true', '-x']\n\
                time_max = '8s'\nmessage_max = '9KiB'\nconcurrency = 3\n";
    let config = Config::from_text(&folder.path().join("worker.toml"), text).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(config.identity_dir, folder.path().join("keys"));
    assert_eq!(config.scratch_dir, folder.path().join("tmp"));
    assert_eq!((config.concurrency, config.memory_bytes_max), (3, 64 << 20));
    assert_eq!(config.drain_timeout, seconds(5));
    assert_eq!(config.log, gantry_daemon::log::Format::Json);
    assert_eq!(config.metrics, Some("[::]:9465".parse().unwrap()));
    let host = &config.hosts[0];
    assert_eq!(config.listen, Some("127.0.0.1:4734".parse().unwrap()));
    assert_eq!(host.name.as_ref().map(ToString::to_string).as_deref(), Some("mx1"));
    assert_eq!((host.tier, host.standby_after), (2, Some(Duration::from_secs(30))));
    assert_eq!(config.policy, Some(folder.path().join("policy.toml")));
    let [ModuleConfig::Yara(yara), ModuleConfig::Clamd(clamd), ModuleConfig::Command(command)] =
        config.modules.as_slice()
    else {
        panic!("{:?}", config.modules)
    };
    assert_eq!((yara.bundled, yara.concurrency, yara.rules.len()), (false, 4, 1));
    let limits = &yara.limits;
    assert_eq!((limits.bytes_max, limits.ratio_max, limits.entries_max), (5 << 20, 6, 7));
    assert_eq!((limits.depth_max, limits.time_max), (8, seconds(9)));
    assert_eq!((clamd.connect_timeout, clamd.scan_timeout), (seconds(1), seconds(2)));
    assert_eq!((clamd.stream_bytes_max, clamd.scan_bytes_max), (3 << 20, 4 << 20));
    assert_eq!(clamd.connections_max, 5);
    assert_eq!(clamd.signatures_age_max, Some(seconds(3 * 86_400)));
    assert_eq!(command.program, folder.path().join("bin/scan"));
    assert_eq!(command.arguments, [Argument::Text("-v".to_owned()), Argument::File]);
    assert_eq!(command.environment, [("LANG".to_owned(), "C".to_owned())]);
    let codes: Vec<i32> = command.exit_codes.keys().copied().collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 11]);
    assert_eq!(command.exit_codes[&11], Meaning::Found);
    assert_eq!(command.exit_codes[&7], Meaning::Unavailable);
    let names = NameLine { prefix: "{file}: ".to_owned(), suffix: " FOUND".to_owned() };
    assert_eq!(command.names, Some(names));
    assert_eq!(command.probe, Some(("/bin/true".into(), vec!["-x".to_owned()])));
    assert_eq!((command.time_max, command.bytes_max), (seconds(8), 9 << 10));
    assert_eq!((command.concurrency, &command.scratch_dir), (3, &folder.path().join("tmp")));
    use super::keys::{CLAMD, COMMAND, TOP, YARA};
    let keys = TOP.iter().chain(YARA).chain(CLAMD).chain(COMMAND);
    for key in keys.filter(|key| !["host", "module", "metrics"].contains(key)) {
        assert!(text.contains(&format!("{key} = ")), "{key} is tried here");
    }
}

/// Each line that may stand in for one of the example's, and what is said of it.
const MISTAKES: &[(&str, &str, &str)] = &[
    (
        "name = \"pc-1\"",
        "name = \"PC 1\"",
        "worker.toml:1: name: \"PC 1\": a name consists of a-z, 0-9, \".\" and \"-\"; write a name such as \"mx1\"",
    ),
    (
        "address = \"127",
        "address = \"127.0.0.1\"",
        "worker.toml:3: host 1: address: \"127.0.0.1\": it has no port; write host and port, such as \
         \"127.0.0.1:10026\"",
    ),
    (
        "address = \"127",
        "adress = \"127.0.0.1:4733\"",
        "worker.toml:2: host 1: address: it is missing; write where its hook listens, such as address = \
         \"mx1.example.com:4733\"; or name = \"mx1\" for a host that dials this worker",
    ),
    (
        "name = \"clamav\"",
        "name = \"rules\"",
        "worker.toml:10: module \"rules\": name: another module has this name; write a name of its own",
    ),
    (
        "type = \"yara\"",
        "type = \"yarn\"",
        "worker.toml:6: module \"rules\": type: \"yarn\": there is no such word here; did you mean \"yara\"?; write \
         \"yara\" or \"clamd\" or \"command\"",
    ),
    (
        "type = \"yara\"",
        "",
        "worker.toml:4: module \"rules\": type: it is missing; write type = \"yara\" (rules, needs no server), type = \
         \"clamd\" (a ClamAV daemon) or type = \"command\" (any program)",
    ),
    (
        "rules",
        "address = \"unix:/a\"",
        "worker.toml:8: module \"rules\": address: there is no such key; remove it; the keys here are name, type, \
         provides, rules, bundled, concurrency, unpacked_max, ratio_max, entries_max, depth_max, time_max",
    ),
    (
        "rules",
        "rules = [\"rules/*.yar\",\n\"rules/own.yara\"]",
        "worker.toml:9: module \"rules\": rules: no file matches rules/own.yara; put the rules there, name others, or \
         remove the key to use the bundled rules alone",
    ),
    (
        "rules",
        "rules = []",
        "worker.toml:8: module \"rules\": rules: the list is empty; remove it to use the bundled rules alone, or write \
         a pattern",
    ),
    (
        "rules",
        "rules = [\"rules/***\"]",
        "worker.toml:8: module \"rules\": rules: \"rules/***\" is no pattern: wildcards are either regular `*` or \
         recursive `**`; write a list of files or patterns, such as [\"rules/*.yar\"]",
    ),
    (
        "rules",
        "bundled = false",
        "worker.toml:8: module \"rules\": bundled: without bundled and other rules nothing would be found; write rules \
         = [\"rules/*.yar\"], or bundled = true",
    ),
    (
        "address = \"unix",
        "address = \"/run/clamav/clamd.ctl\"",
        "worker.toml:13: module \"clamav\": address: \"/run/clamav/clamd.ctl\": it has no port; write \
         \"unix:/run/clamav/clamd.ctl\" or \"tcp:127.0.0.1:3310\"",
    ),
    (
        "address = \"unix",
        "address = \"unix:\"",
        "worker.toml:13: module \"clamav\": address: it names no socket; write \"unix:/run/clamav/clamd.ctl\" or \
         \"tcp:127.0.0.1:3310\"",
    ),
];

#[test]
fn every_mistake_names_its_line_its_key_and_the_remedy() {
    for (line, by, message) in MISTAKES {
        let told = mistakes(&with(line, by));
        assert_eq!(told.first().map(String::as_str), Some(*message), "{by}");
    }
}

/// Each line of a `command` module, what may stand in for it, and what is said of that.
const COMMAND_MISTAKES: &[(&str, &str, &str)] = &[
    (
        "program",
        "",
        "worker.toml:4: module \"scan\": program: it is missing; write the program's path, such as program = \
         \"/usr/bin/clamscan\"",
    ),
    (
        "arguments",
        "arguments = [\"--file={file}\"]",
        "worker.toml:9: module \"scan\": arguments: \"--file={file}\": {file} is only a whole argument; write \
         \"{file}\" as an argument of its own, or leave it out for standard input",
    ),
    (
        "clean",
        "",
        "worker.toml:4: module \"scan\": clean: it is missing; write the exit codes that say so, such as [0]",
    ),
    (
        "clean",
        "clean = [0, 1]",
        "worker.toml:11: module \"scan\": found: 1 has another meaning already; write it once",
    ),
    (
        "clean",
        "clean = [256]",
        "worker.toml:10: module \"scan\": clean: 256 is out of bounds; write 0 to 255",
    ),
    (
        "arguments",
        "environment = [\"LANG\"]",
        "worker.toml:9: module \"scan\": environment: \"LANG\": it is no NAME=value; write a variable such as \
         \"LANG=C\"",
    ),
];

#[test]
fn mistakes_in_a_command_are_told_too() {
    let good = "name = \"pc-1\"\n[[host]]\naddress = \"mx1:1\"\n[[module]]\nname = \"scan\"\ntype = \"command\"\n\
                provides = \"virus\"\nprogram = \"/usr/bin/clamscan\"\narguments = [\"{file}\"]\nclean = [0]\nfound = [1]\n";
    assert!(mistakes(good).is_empty());
    for (line, by, message) in COMMAND_MISTAKES {
        let text: Vec<_> =
            good.lines().map(|own| if own.starts_with(line) { by } else { own }).collect();
        assert_eq!(mistakes(&text.join("\n")), [*message], "{by}");
    }
}

#[test]
fn all_mistakes_are_told_in_the_order_of_the_file() {
    let told = mistakes(
        "concurrency = 0\n[[host]]\n[[module]]\nname = 'A'\ntype = 'clamd'\nscan_timeout = 5\n",
    );
    let places: Vec<_> = told.iter().map(|line| line.split("; ").next().unwrap()).collect();
    assert_eq!(
        places,
        [
            "worker.toml:1: name: it is missing",
            "worker.toml:1: concurrency: 0 is too little",
            "worker.toml:2: host 1: address: it is missing",
            "worker.toml:3: module \"A\": provides: it is missing",
            "worker.toml:3: module \"A\": address: it is missing",
            "worker.toml:4: module \"A\": name: \"A\": a name consists of a-z, 0-9, \".\" and \"-\"",
            "worker.toml:6: module \"A\": scan_timeout: a duration has a unit",
        ]
    );
    assert_eq!(
        mistakes("name = 'a'"),
        ["worker.toml:1: host: there is none; write at least one [[host]]"]
    );
    let twice = format!("{EXAMPLE}[[host]]\naddress = \"127.0.0.1:4733\"\n");
    assert_eq!(
        mistakes(&twice),
        ["worker.toml:15: host 2: address: another [[host]] has this address; remove one of them"]
    );
}

#[test]
fn every_key_stands_in_the_documentation() {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/configuration.md");
    let document = std::fs::read_to_string(document).unwrap();
    for (table, keys) in KEYS {
        let heading = format!("### worker: `{table}`\n");
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
    assert!(document.contains(EXAMPLE), "the example stands there as it is tested here");
}

#[test]
fn damaged_examples_are_read_or_refused() {
    let folder = folder();
    let file = folder.path().join("worker.toml");
    for from in 0..EXAMPLE.len() {
        for by in ["", "\"", "[", "]]", "= 9\n", "\u{0}", "ß", "{", ".."] {
            let text = format!("{}{by}{}", &EXAMPLE[..from], &EXAMPLE[from + 1..]);
            if let Err(mistakes) = Config::from_text(&file, &text) {
                assert!(!mistakes.is_empty(), "{text}");
            }
        }
    }
}

#[test]
fn rules_that_are_not_there_yet_are_a_remark_beside_the_bundled_ones_and_else_a_mistake() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("worker.toml");
    let config = Config::from_text(&path, EXAMPLE).unwrap();
    assert_eq!(
        config.remarks,
        ["module \"rules\": no file matches its rules yet: only the bundled ones are used"]
    );
    let alone = EXAMPLE.replace("rules = [", "bundled = false\nrules = [");
    assert!(Config::from_text(&path, &alone).is_err());
}

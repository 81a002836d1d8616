//! Real programs: small shell scripts, which only the tests use.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

use std::path::Path;

use gantry_protocol::pool::ReleaseResult::{Accepted, Deferred, Refused, Unknown};

use super::*;
use crate::release::Way;
use crate::release::testing::{MESSAGE, PATIENCE, Store, identity, kinds};

/// A way out through a script that finds its own folder as its first argument.
fn script(store: &Store, text: &str, more: Vec<Argument>) -> CommandReleaseConfig {
    let path = store.path().join("script.sh");
    std::fs::write(&path, text).unwrap();
    let plain = |text: &Path| Argument::Text(text.to_str().unwrap().to_owned());
    let mut arguments = vec![plain(&path), plain(store.path())];
    arguments.extend(more);
    CommandReleaseConfig {
        identity: identity(),
        program: "/bin/sh".into(),
        arguments,
        line_ends: LineEnds::Lf,
        time_max: PATIENCE,
    }
}

fn way(config: CommandReleaseConfig) -> Way {
    Way::Command(CommandRelease::new(config))
}

/// Whether a process lives; one that has ended and that nobody has asked how does not.
fn lives(pid: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with('Z'))
}

async fn until(what: &str, mut done: impl FnMut() -> bool) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !done() {
        assert!(tokio::time::Instant::now() < end, "{what} did not happen");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_program_gets_envelope_and_message_and_nothing_else() {
    let store = Store::new();
    let text = "dir=$1; shift; cat > \"$dir/message\"; /usr/bin/env > \"$dir/environment\"\n\
                pwd > \"$dir/where\"; printf '[%s]\\n' \"$@\" > \"$dir/arguments\"\n";
    let way = way(script(
        &store,
        text,
        vec![Argument::Sender, Argument::Text("--".into()), Argument::Recipients],
    ));
    let id = store.put("", &["a@x", "\"b $(id) ; c\"@x", "-d@x"], MESSAGE);
    assert_eq!(kinds(&store.release(&way, id, &[0, 1, 2]).await), [Accepted; 3]);
    let read = |name: &str| std::fs::read_to_string(store.path().join(name)).unwrap();
    assert_eq!(read("arguments"), "[<>]\n[--]\n[a@x]\n[\"b $(id) ; c\"@x]\n[-d@x]\n");
    let expected = String::from_utf8(MESSAGE.to_vec()).unwrap().replace("\r\n", "\n");
    let message = read("message");
    assert!(message.starts_with("Received: ") && message.ends_with(&expected), "{message}");
    assert_eq!(read("where"), "/\n");
    // What the shell itself sets is all there is.
    let names: Vec<String> = read("environment")
        .lines()
        .filter_map(|line| line.split_once('=').map(|(name, _)| name.to_owned()))
        .filter(|name| !["PWD", "OLDPWD", "SHLVL", "_", "PATH"].contains(&name.as_str()))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[tokio::test]
async fn each_recipient_gets_the_result_of_its_own_run() {
    let store = Store::new();
    let text = "cat > /dev/null; echo \"about $2\" >&2\n\
                case $2 in ok@x) exit 0;; no@x) exit 67;; later@x) exit 75;; crash@x) kill -9 $$;; *) exit 1;; esac\n";
    let way = way(script(&store, text, vec![Argument::Recipient]));
    let id = store.put("s@x", &["ok@x", "no@x", "later@x", "crash@x", "odd@x"], MESSAGE);
    let results = store.release(&way, id, &[0, 1, 2, 3, 4]).await;
    assert_eq!(kinds(&results), [Accepted, Refused, Deferred, Unknown, Deferred]);
    assert_eq!(results[1].reply, "the program ended with exit code 67: about no@x");
    assert!(results[3].reply.starts_with("the program was killed by a signal"), "{results:?}");
}

#[test]
fn exit_codes_mean_what_sysexits_says() {
    let classes =
        |wanted| (0..256).filter(move |code| of_code(*code) == wanted).collect::<Vec<_>>();
    assert_eq!(classes(Accepted), [0]);
    assert_eq!(classes(Refused), [65, 67, 68, 69, 77]);
    assert_eq!(of_code(-1), Deferred);
}

#[tokio::test]
async fn a_program_that_hangs_dies_with_its_children() {
    let store = Store::new();
    let text =
        "cat > /dev/null; sleep 1000 & echo $! > \"$1/child\"; echo $$ > \"$1/self\"; wait\n";
    let config = script(&store, text, vec![Argument::Recipient]);
    let way = way(CommandReleaseConfig { time_max: Duration::from_secs(3), ..config });
    let id = store.put("s@x", &["a@x", "b@x"], MESSAGE);
    let results = store.release(&way, id, &[0, 1]).await;
    // It had all of the message, so it may have done what it should; the other was not begun.
    assert_eq!(kinds(&results), [Unknown, Deferred]);
    assert!(results[0].reply.contains("took too long"), "{results:?}");
    let pid = |name: &str| std::fs::read_to_string(store.path().join(name)).unwrap();
    let (child, own) = (pid("child"), pid("self"));
    until("the end of both", || !lives(&child) && !lives(&own)).await;
}

#[tokio::test]
async fn a_release_that_is_given_up_takes_the_program_with_it() {
    let store = Store::new();
    let text =
        "cat > /dev/null; echo $$ > \"$1/pid.new\"; mv \"$1/pid.new\" \"$1/pid\"; sleep 1000\n";
    let way = way(script(&store, text, vec![Argument::Recipient]));
    let id = store.put("s@x", &["a@x"], MESSAGE);
    let path = store.path().join("pid");
    tokio::select! {
        results = store.release(&way, id, &[0]) => panic!("{results:?}"),
        () = until("the program runs", || path.exists()) => {}
    }
    let pid = std::fs::read_to_string(&path).unwrap();
    until("its end", || !lives(&pid)).await;
}

#[tokio::test]
async fn who_does_not_read_all_cannot_say_yes() {
    let store = Store::new();
    // More than any pipe holds, so that not reading it shows.
    let large = [b"Subject: x\r\n\r\n".as_slice(), &b"line\r\n".repeat(300_000)].concat();
    for (text, expected) in
        [("exec 0<&-; exit 0", Unknown), ("exit 67", Refused), ("exit 75", Deferred)]
    {
        let way = way(script(&store, text, vec![Argument::Recipient]));
        let id = store.put("s@x", &["a@x"], &large);
        let results = store.release(&way, id, &[0]).await;
        assert_eq!(kinds(&results), [expected], "{text}: {results:?}");
        assert!(results[0].reply.contains("had not read all"), "{results:?}");
    }
}

/// A child that lives on keeps the pipes; the program's own end counts.
#[tokio::test]
async fn a_program_that_leaves_a_child_behind_is_not_waited_for() {
    let store = Store::new();
    let text = "cat > /dev/null; sleep 1000 & echo $! > \"$1/child\"; echo said >&2; exit 0\n";
    let way = way(script(&store, text, vec![Argument::Recipient]));
    let id = store.put("s@x", &["a@x"], MESSAGE);
    let results = store.release(&way, id, &[0]).await;
    assert_eq!(kinds(&results), [Accepted]);
    assert_eq!(results[0].reply, "the program ended with exit code 0: said");
    let child = std::fs::read_to_string(store.path().join("child")).unwrap();
    let child = rustix::process::Pid::from_raw(child.trim().parse().unwrap()).unwrap();
    rustix::process::kill_process(child, rustix::process::Signal::KILL).expect("it lives on");
}

#[tokio::test]
async fn an_address_is_never_an_option() {
    let store = Store::new();
    let way = way(script(&store, "cat > \"$1/ran\"", vec![Argument::Recipient]));
    let id = store.put("s@x", &["-oQ/tmp@x", "a\nb@x"], MESSAGE);
    let results = store.release(&way, id, &[0, 1]).await;
    assert_eq!(kinds(&results), [Refused, Refused]);
    assert!(!store.path().join("ran").exists());
}

#[tokio::test]
async fn a_program_that_is_not_there_is_no_reason_to_give_up() {
    let store = Store::new();
    let config = script(&store, "", vec![Argument::Recipient]);
    let way = way(CommandReleaseConfig { program: store.path().join("none"), ..config });
    let id = store.put("s@x", &["a@x"], MESSAGE);
    assert_eq!(kinds(&store.release(&way, id, &[0]).await), [Deferred]);
}

/// Half a message must not look like a whole one: the program dies before its input ends.
#[tokio::test]
async fn a_damaged_message_is_never_given_to_its_end() {
    let store = Store::new();
    let text = "cat > /dev/null; echo whole > \"$1/whole\"\n";
    let way = way(script(&store, text, vec![Argument::Recipient]));
    let large = [b"Subject: x\r\n\r\n".as_slice(), &b"line\r\n".repeat(50_000)].concat();
    let id = store.put("s@x", &["a@x"], &large);
    store.damage(&large);
    assert_eq!(kinds(&store.release(&way, id, &[0]).await), [Deferred]);
    assert!(!store.path().join("whole").exists());
}

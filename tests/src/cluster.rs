//! A hook, workers and a sink as real processes in a temporary folder.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::smtp::Client;
use crate::{PATIENCE, Received, Running, Sink, Status, await_that, binary, free_port, until};

/// What differs from a plain cluster. The texts are TOML.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Where processed mail goes instead of the sink.
    pub release: Option<SocketAddr>,
    /// The needs of both mailboxes instead of `["virus"]`.
    pub needs: Option<String>,
    /// More keys of both intake tables, each with a comma before it.
    pub intake: String,
    /// More keys of both release tables, each with a comma before it.
    pub out: String,
    /// More keys of the mailbox in upstream custody.
    pub upstream: String,
    /// More keys of the mailbox in the hook's custody.
    pub hook: String,
    /// More tables.
    pub tables: String,
}

/// The module table of a worker with the bundled rules.
pub const RULES: &str = "[[module]]\nname = \"rules\"\ntype = \"yara\"\nprovides = \"virus\"\n";

/// A running cluster with two mailboxes, one for each custody. All of it goes when it is dropped.
pub struct Cluster {
    pub hook: Option<Running>,
    pub workers: BTreeMap<String, Running>,
    pub sink: Sink,
    /// The SMTP port of the mailbox in upstream custody.
    pub upstream: SocketAddr,
    /// The SMTP port of the mailbox in the hook's custody.
    pub intake: SocketAddr,
    pub quic: SocketAddr,
    folder: TempDir,
}

impl Cluster {
    /// A hook that runs, with its keys made, and no worker.
    pub fn start(setup: &Setup) -> Self {
        let mut cluster = Self::prepare(setup);
        cluster.start_hook();
        cluster
    }

    /// The same with workers of these names, all ready, each with the bundled rules.
    pub fn with_workers(setup: &Setup, names: &[&str]) -> Self {
        let mut cluster = Self::start(setup);
        for name in names {
            cluster.add_worker(name, RULES);
        }
        cluster.await_ready(names.len());
        cluster
    }

    /// A configuration with its keys made; nothing but the sink runs.
    pub fn prepare(setup: &Setup) -> Self {
        let folder = TempDir::with_prefix("gantry-test-").expect("make a temporary folder");
        let sink = Sink::start(&folder.path().join("sink")).expect("start the sink");
        let port = || SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("find a port")));
        let cluster = Self {
            hook: None,
            workers: BTreeMap::new(),
            sink,
            upstream: port(),
            intake: port(),
            quic: port(),
            folder,
        };
        fs::write(cluster.config(), cluster.hook_toml(setup)).expect("write hook.toml");
        let init = cluster.hook_command(&["init"]);
        assert!(init.status.success(), "gantry-hook init: {}", said(&init));
        cluster
    }

    /// The folder of everything.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The hook's configuration file.
    pub fn config(&self) -> PathBuf {
        self.path().join("hook.toml")
    }

    /// Starts the hook, again if it had ended, and waits until it takes mail.
    pub fn start_hook(&mut self) {
        self.start_hook_with(&[]);
    }

    /// The same with these environment variables.
    pub fn start_hook_with(&mut self, environment: &[(&str, &str)]) {
        let mut command = Command::new(binary("gantry-hook"));
        command.arg("--config").arg(self.config()).arg("run");
        command.envs(environment.iter().copied());
        let log = self.path().join("hook.log");
        let mut hook = Running::start("hook", &mut command, &log).expect("start the hook");
        await_that("the hook takes mail", || {
            assert!(hook.ended().is_none(), "the hook has ended:\n{}", hook.log_tail());
            let greeted = |address| Client::try_connect(address).is_ok();
            (greeted(self.upstream) && greeted(self.intake)).then_some(())
        });
        self.hook = Some(hook);
    }

    /// Kills the hook (SIGKILL).
    pub fn kill_hook(&mut self) {
        self.hook = None;
    }

    /// `gantry-hook --config hook.toml ARGUMENTS`, to its end.
    pub fn hook_command(&self, arguments: &[&str]) -> Output {
        run(&binary("gantry-hook"), &self.config(), arguments)
    }

    /// `gantry --config NAME/worker.toml ARGUMENTS`, to its end.
    pub fn worker_command(&self, name: &str, arguments: &[&str]) -> Output {
        run(&binary("gantry"), &self.worker_config(name), arguments)
    }

    /// Writes the configuration of a worker with these module tables.
    pub fn write_worker(&self, name: &str, modules: &str) {
        let config = self.worker_config(name);
        fs::create_dir_all(config.parent().unwrap()).expect("make the worker's folder");
        let text = format!("name = \"{name}\"\n[[host]]\naddress = \"{}\"\n{modules}", self.quic);
        fs::write(config, text).expect("write worker.toml");
    }

    /// A fresh token for a worker that provides `virus`.
    pub fn token(&self, mask: &str) -> String {
        self.token_for(mask, "virus")
    }

    fn token_for(&self, mask: &str, need: &str) -> String {
        let arguments =
            ["token", "--name", mask, "--role", "worker", "--provides", need, "--expires", "1h"];
        let output = self.hook_command(&arguments);
        assert!(output.status.success(), "gantry-hook token: {}", said(&output));
        let text = String::from_utf8(output.stdout).expect("a token is text");
        text.lines().last().expect("a token on the last line").to_owned()
    }

    /// Enrols and starts a worker with these module tables. Does not wait until it is ready.
    pub fn add_worker(&mut self, name: &str, modules: &str) {
        self.add_worker_with(name, "", modules);
    }

    /// The same for a worker that may meet another need.
    pub fn add_worker_for(&mut self, name: &str, modules: &str, need: &str) {
        self.enrol(name, "", modules, need);
    }

    /// The same with these keys of the file, one a line.
    pub fn add_worker_with(&mut self, name: &str, keys: &str, modules: &str) {
        self.enrol(name, keys, modules, "virus");
    }

    fn enrol(&mut self, name: &str, keys: &str, modules: &str, need: &str) {
        self.join_worker(name, keys, modules, need);
        self.start_worker(name, &[]);
    }

    /// Enrols a worker with these keys of its file, these module tables and this need, and starts nothing.
    pub fn join_worker(&self, name: &str, keys: &str, modules: &str, need: &str) {
        self.write_worker(name, modules);
        let config = self.worker_config(name);
        let text = fs::read_to_string(&config).expect("read worker.toml");
        fs::write(&config, format!("{keys}{text}")).expect("write worker.toml");
        let joined = self.worker_command(name, &["join", &self.token_for(name, need)]);
        assert!(joined.status.success(), "gantry join: {}", said(&joined));
    }

    /// Starts a worker that has joined, with these environment variables.
    pub fn start_worker(&mut self, name: &str, environment: &[(&str, &str)]) {
        let mut command = Command::new(binary("gantry"));
        command.arg("--config").arg(self.worker_config(name)).arg("run");
        command.envs(environment.iter().copied());
        let log = self.path().join(format!("{name}.log"));
        let running = Running::start(name, &mut command, &log).expect("start the worker");
        self.workers.insert(name.to_owned(), running);
    }

    /// Waits until so many workers are linked and ready.
    pub fn await_ready(&self, count: usize) {
        let ready = || {
            let ended = self.workers.values().find(|worker| is_zombie(worker.pid()));
            assert!(ended.is_none(), "a worker has ended\n{}", self.logs());
            self.status().filter(|status| status.ready() >= count)
        };
        if until(PATIENCE, ready).is_none() {
            let status = self.status().unwrap_or_default().0;
            panic!("{count} workers did not become ready: {status}\n{}", self.logs());
        }
    }

    /// `gantry-hook status --json`; `None` while it gives none.
    pub fn status(&self) -> Option<Status> {
        let output = self.hook_command(&["status", "--json"]);
        Status::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// What the running hook counts under this name.
    pub fn counter(&self, name: &str) -> u64 {
        self.status().map_or(0, |status| status.counter(name))
    }

    /// The files of messages in the spool in a state: `q` quarantined, `h` held, `r` releasing, `m0`..`m9` marked,
    /// `p0`..`p9` with parts done.
    pub fn stored(&self, state: &str) -> Vec<PathBuf> {
        self.stored_where(|found| found == state)
    }

    /// All messages in the spool, in whatever state.
    pub fn stored_at_all(&self) -> Vec<PathBuf> {
        self.stored_where(is_state)
    }

    /// Waits until the sink has so many messages and gives them.
    pub fn await_released(&self, count: usize) -> Vec<Received> {
        if until(PATIENCE, || (self.sink.count() >= count).then_some(())).is_none() {
            let status = self.status().unwrap_or_default().0;
            let out = self.sink.count();
            panic!("{out} of {count} messages are out: {status}\n{}", self.logs());
        }
        self.sink.received()
    }

    /// The ends of all logs, for people.
    pub fn logs(&self) -> String {
        let all = self.hook.iter().chain(self.workers.values());
        all.map(|one| format!("--- {}\n{}\n", one.name, one.log_tail())).collect()
    }

    fn worker_config(&self, name: &str) -> PathBuf {
        self.path().join(name).join("worker.toml")
    }

    fn stored_where(&self, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        stored_in(&self.path().join("spool"), wanted)
    }

    fn hook_toml(&self, setup: &Setup) -> String {
        let Setup { intake, out, upstream, hook, tables, .. } = setup;
        let release = setup.release.unwrap_or(self.sink.address());
        let needs = setup.needs.as_deref().unwrap_or("[\"virus\"]");
        let mut text = format!("name = \"mx1\"\nspool = \"spool\"\nlisten = \"{}\"\n", self.quic);
        let custodies = [
            ("up.box", self.upstream, "upstream", "when_unprocessed = \"tempfail\"", upstream),
            ("hook.box", self.intake, "hook", "when_unprocessed = \"wait\"", hook),
        ];
        for (name, listen, custody, unprocessed, more) in custodies {
            let unprocessed = if more.contains("when_unprocessed") { "" } else { unprocessed };
            text.push_str(&format!(
                "[[mailbox]]\nname = \"{name}\"\nintake = {{ type = \"smtp\", listen = \"{listen}\"{intake} }}\n\
                 release = {{ type = \"smtp\", address = \"{release}\"{out} }}\nneeds = {needs}\n\
                 custody = \"{custody}\"\n{unprocessed}\n{more}\n"
            ));
        }
        text + tables
    }
}

/// Whether a file with this ending is a message's.
pub fn is_state(ending: &str) -> bool {
    let marked =
        ending.strip_prefix(['m', 'p']).is_some_and(|attempts| attempts.parse::<u8>().is_ok());
    matches!(ending, "q" | "h" | "r" | "tmp" | "bad") || marked
}

/// The files in a spool with these endings.
pub fn stored_in(spool: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![spool.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().and_then(|state| state.to_str()).is_some_and(&wanted) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// All that a command printed.
pub fn said(output: &Output) -> String {
    let text = [output.stdout.as_slice(), output.stderr.as_slice()].concat();
    format!("{}\n{}", output.status, String::from_utf8_lossy(&text))
}

/// Whether a child has ended and nobody has asked it how; false where the system does not tell.
fn is_zombie(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| rest.trim_start().starts_with('Z'))
}

fn run(program: &Path, config: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(arguments).stdin(Stdio::null());
    command.output().unwrap_or_else(|error| panic!("run {}: {error}", program.display()))
}

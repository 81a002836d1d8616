//! Several hosts and workers of one cluster, on loopback or on machines of a [`Lan`](crate::Lan).

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Instant;

use gantry::demo::ledger::Ledger;
use gantry::demo::source::{Sent, Source};
use tempfile::TempDir;

use crate::cluster::{is_state, said, stored_in};
use crate::smtp::Client;
use crate::{
    FakeClock, PATIENCE, Received, Running, Sink, Status, Weather, await_that, binary, free_port,
    until,
};

/// Where a program runs.
#[derive(Clone, Debug)]
pub struct Place {
    pub address: Ipv4Addr,
    /// `None` for the machine that the test runs on.
    pub namespace: Option<String>,
}

impl Place {
    /// This machine.
    pub fn here() -> Self {
        Self { address: Ipv4Addr::LOCALHOST, namespace: None }
    }

    fn command(&self, program: &Path) -> Command {
        let Some(namespace) = &self.namespace else { return Command::new(program) };
        let mut command = Command::new("ip");
        command.args(["netns", "exec", namespace]).arg(program);
        command
    }

    fn port(&self) -> SocketAddr {
        (self.address, free_port().expect("find a port")).into()
    }
}

/// A module that finds nothing and takes its time, beside the bundled rules: whoever runs it holds something.
pub fn slow(milliseconds: u32) -> String {
    let seconds = f64::from(milliseconds) / 1_000.0;
    format!(
        "{}[[module]]\nname = \"slow\"\ntype = \"command\"\nprovides = \"virus\"\nprogram = \"/bin/sh\"\n\
         arguments = [\"-c\", \"/bin/cat > /dev/null; /bin/sleep {seconds}\"]\nclean = [0]\n",
        crate::cluster::RULES
    )
}

/// A host with two mailboxes, one for each custody, and a sink of its own.
pub struct MailHost {
    pub hook: Running,
    pub sink: Sink,
    pub upstream: SocketAddr,
    pub intake: SocketAddr,
    quic: SocketAddr,
    place: Place,
}

/// Hosts and workers; all of it goes when it is dropped.
pub struct Site {
    pub hosts: BTreeMap<String, MailHost>,
    pub workers: BTreeMap<String, Running>,
    /// Where the mail of hosts that are added from now on goes instead of their sinks.
    pub release: Option<SocketAddr>,
    /// The host with the authority.
    first: Option<String>,
    /// Where workers dial a host instead of its own address.
    routes: BTreeMap<String, SocketAddr>,
    /// The processes' own wall clock, if they have one.
    clock: Option<FakeClock>,
    folder: TempDir,
}

impl Site {
    /// Nothing yet.
    pub fn new() -> Self {
        let folder = TempDir::with_prefix("gantry-site-").expect("make a temporary folder");
        Self {
            hosts: BTreeMap::new(),
            workers: BTreeMap::new(),
            release: None,
            first: None,
            routes: BTreeMap::new(),
            clock: None,
            folder,
        }
    }

    /// Nothing yet; all that runs in it has this wall clock.
    pub fn under(clock: FakeClock) -> Self {
        Self { clock: Some(clock), ..Self::new() }
    }

    /// Sets the wall clock of everything so many days ahead, also of what runs.
    pub fn set_clock(&self, days: u32) {
        self.clock.as_ref().expect("a site under a clock").set(days);
    }

    /// Ends a host's hook by a signal, and starts it again.
    pub fn restart_host(&mut self, name: &str) {
        let Some(mut host) = self.hosts.remove(name) else { panic!("no host {name}") };
        drop(host.hook);
        host.hook = self.start(&host.place, "gantry-hook", name, &[]);
        await_that("the host takes mail again", || {
            Client::try_connect(host.upstream).is_ok().then_some(())
        });
        self.hosts.insert(name.to_owned(), host);
    }

    /// The folder of everything.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Workers that are added from now on dial the host through this weather.
    pub fn send_through(&mut self, host: &str, seed: u64) -> Weather {
        let weather = Weather::before(self.hosts[host].quic, seed);
        self.routes.insert(host.to_owned(), weather.address);
        weather
    }

    /// One more host: the first one makes the cluster, the others join it. Its mail goes to a sink at `sink`, and whoever
    /// is in `peers` may send it some.
    pub fn add_host(&mut self, name: &str, place: &Place, sink: Ipv4Addr, peers: &str) {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("make the host's folder");
        let sink = Sink::on(&folder.join("sink"), sink).expect("start the sink");
        let (upstream, intake, quic) = (place.port(), place.port(), place.port());
        let mut text = format!("name = \"{name}\"\nspool = \"spool\"\nlisten = \"{quic}\"\n");
        for (mailbox, listen, custody, unprocessed) in
            [("up.box", upstream, "upstream", "tempfail"), ("hook.box", intake, "hook", "wait")]
        {
            text.push_str(&format!(
                "[[mailbox]]\nname = \"{mailbox}\"\nneeds = [\"virus\"]\ncustody = \"{custody}\"\n\
                 when_unprocessed = \"{unprocessed}\"\n\
                 intake = {{ type = \"smtp\", listen = \"{listen}\", peers = [\"{peers}\"] }}\n\
                 release = {{ type = \"smtp\", address = \"{}\" }}\n",
                self.release.unwrap_or(sink.address())
            ));
        }
        fs::write(folder.join("hook.toml"), text).expect("write hook.toml");
        let made = match &self.first {
            None => self.run(place, "gantry-hook", name, &["init"]),
            Some(_) => {
                let token = self.token(&["--name", name, "--role", "hook"]);
                self.run(place, "gantry-hook", name, &["join", &token])
            }
        };
        assert!(made.status.success(), "{name}: {}", said(&made));
        let hook = self.start(place, "gantry-hook", name, &[]);
        let host = MailHost { hook, sink, upstream, intake, quic, place: place.clone() };
        await_that("the host takes mail", || {
            let greeted = |address| Client::try_connect(address).is_ok();
            let log = host.hook.log_tail();
            assert!(!log.contains("gantry-hook: "), "{name} has ended:\n{log}");
            (greeted(host.upstream) && greeted(host.intake)).then_some(())
        });
        self.first.get_or_insert_with(|| name.to_owned());
        self.hosts.insert(name.to_owned(), host);
    }

    /// Enrols and starts a worker of these hosts (each with more keys of its table), with these further lines.
    pub fn add_worker(&mut self, name: &str, place: &Place, hosts: &[(&str, &str)], more: &str) {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("make the worker's folder");
        // Keys of the file come before its tables.
        let (keys, modules) = more.split_at(more.find("[[").unwrap_or(more.len()));
        let mut text = format!("name = \"{name}\"\n{keys}\n");
        for (host, keys) in hosts {
            let address = self.routes.get(*host).unwrap_or(&self.hosts[*host].quic);
            text.push_str(&format!("[[host]]\naddress = \"{address}\"\n{keys}\n"));
        }
        fs::write(folder.join("worker.toml"), text + modules).expect("write worker.toml");
        let token = self.token(&["--name", name, "--provides", "virus"]);
        let joined = self.run(place, "gantry", name, &["join", &token]);
        assert!(joined.status.success(), "{name}: {}", said(&joined));
        self.start_worker(name, place);
    }

    /// Starts a worker that was added before, again.
    pub fn start_worker(&mut self, name: &str, place: &Place) {
        let running = self.start(place, "gantry", name, &[("GANTRY_LOG", "debug")]);
        self.workers.insert(name.to_owned(), running);
    }

    /// Enrols and starts a worker that `host` dials and that dials nobody, with these further lines. Restarts the host's hook with
    /// the worker in its file. Gives where the worker listens.
    pub fn add_dialled_worker(
        &mut self,
        name: &str,
        place: &Place,
        host: &str,
        more: &str,
    ) -> SocketAddr {
        let folder = self.folder.path().join(name);
        fs::create_dir_all(&folder).expect("make the worker's folder");
        let listen = place.port();
        let (keys, modules) = more.split_at(more.find("[[").unwrap_or(more.len()));
        let text = format!(
            "name = \"{name}\"\nlisten = \"{listen}\"\n{keys}\n[[host]]\nname = \"{host}\"\n{modules}"
        );
        fs::write(folder.join("worker.toml"), text).expect("write worker.toml");
        let at = &self.hosts[host].place;
        let mut asking = at.command(&binary("gantry-hook"));
        asking.arg("--config").arg(self.config("gantry-hook", host));
        asking.args([
            "token",
            "--name",
            name,
            "--provides",
            "virus",
            "--dial",
            &listen.to_string(),
        ]);
        let mut asking =
            asking.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("ask for a token");
        let mut token = String::new();
        let said_first = asking.stdout.take().expect("a pipe");
        BufReader::new(said_first).read_line(&mut token).expect("read the token");
        let listening = listen.to_string();
        let arguments = ["join", "--listen", &listening, token.trim()];
        let joined = self.run(place, "gantry", name, &arguments);
        assert!(joined.status.success(), "{name}: {}", said(&joined));
        assert!(asking.wait().expect("wait for the token's command").success());
        let line = format!("[[worker]]\naddress = \"{listen}\"\nname = \"{name}\"\n");
        self.change_host(host, |text| text + &line);
        let running = self.start(place, "gantry", name, &[("GANTRY_LOG", "debug")]);
        self.workers.insert(name.to_owned(), running);
        listen
    }

    /// Stops a host's hook, changes its file, and starts it again.
    pub fn change_host(&mut self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.config("gantry-hook", name);
        let text = fs::read_to_string(&path).expect("read hook.toml");
        fs::write(&path, change(text)).expect("write hook.toml");
        self.restart_host(name);
    }

    /// From now on nobody on another machine reaches the host's QUIC port: it is on loopback alone.
    pub fn hide_host(&mut self, name: &str) {
        let hidden = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("find a port")));
        let host = self.hosts.get_mut(name).expect("a host of the site");
        let shown = std::mem::replace(&mut host.quic, hidden);
        self.change_host(name, |text| text.replace(&shown.to_string(), &hidden.to_string()));
    }

    /// Tells a worker to stop, changes its file, and starts it again.
    pub fn change_worker(&mut self, name: &str, change: impl FnOnce(String) -> String) {
        let path = self.config("gantry", name);
        let text = fs::read_to_string(&path).expect("read worker.toml");
        fs::write(&path, change(text)).expect("write worker.toml");
        let mut former = self.workers.remove(name).expect("a worker of the site");
        assert!(former.terminate() && former.wait(PATIENCE).is_some(), "{name} does not stop");
        let running = self.start(&Place::here(), "gantry", name, &[("GANTRY_LOG", "debug")]);
        self.workers.insert(name.to_owned(), running);
    }

    /// Where a host's hook listens for workers.
    pub fn address_of(&self, host: &str) -> SocketAddr {
        self.hosts[host].quic
    }

    /// Whether all that was sent has come out, or is in quarantine.
    pub fn all_is_out(&self, sent: &[Sent]) -> bool {
        let received = self.received();
        let out: std::collections::HashSet<_> =
            received.iter().filter_map(|one| one.id.as_deref()).collect();
        sent.iter().all(|sent| sent.infected || out.contains(sent.id.as_str()))
    }

    /// A node's own file, for tests that change it.
    pub fn file(&self, name: &str, file: &str) -> PathBuf {
        self.folder.path().join(name).join(file)
    }

    /// `gantry-hook --config NAME/hook.toml ARGUMENTS`, to its end.
    pub fn hook_command(&self, host: &str, arguments: &[&str]) -> Output {
        self.run(&self.hosts[host].place, "gantry-hook", host, arguments)
    }

    /// Workers that are added from now on dial the host itself again.
    pub fn send_straight(&mut self, host: &str) {
        self.routes.remove(host);
    }

    /// What a host says of itself.
    pub fn status(&self, host: &str) -> Option<Status> {
        let output = self.hook_command(host, &["status", "--json"]);
        Status::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// What a worker holds of a host's messages, as the host sees it.
    pub fn holding(&self, host: &str, worker: &str) -> Option<Vec<String>> {
        Some(self.status(host)?.worker(worker)?.holding)
    }

    /// Waits until so many workers are linked to this host and ready.
    pub fn await_ready(&self, host: &str, count: usize) {
        let ready = || self.status(host).filter(|status| status.ready() >= count);
        if until(PATIENCE, ready).is_none() {
            let status = self.status(host).unwrap_or_default().0;
            panic!("{count} workers did not become ready at {host}: {status}\n{}", self.logs());
        }
    }

    /// Sends to both mailboxes of these hosts in turn.
    pub fn source(&self, hosts: &[&str], connections: usize) -> Source {
        let addresses = hosts.iter().flat_map(|host| {
            let host = &self.hosts[*host];
            [host.upstream, host.intake]
        });
        let addresses = addresses.collect();
        Source { addresses, connections, give_up: Instant::now() + PATIENCE }
    }

    /// Waits until all that was sent is where it belongs, and balances the books.
    pub fn balance(&self, sent: &[Sent]) -> Ledger {
        let infected = sent.iter().filter(|sent| sent.infected).count();
        let settled = || {
            let received = self.received();
            let ids: std::collections::HashSet<_> =
                received.iter().filter_map(|one| one.id.as_deref()).collect();
            let left: usize = self.hosts.keys().map(|host| self.stored(host, is_state).len()).sum();
            (ids.len() + infected >= sent.len() && left == infected).then_some(received)
        };
        let received = until(PATIENCE, settled).unwrap_or_else(|| self.received());
        let ids = sent.iter().filter(|sent| sent.infected).map(|sent| sent.id.clone()).collect();
        let ledger = Ledger::balance(sent, &received, &ids, &Default::default());
        let quarantined: usize =
            self.hosts.keys().map(|host| self.stored(host, |state| state == "q").len()).sum();
        assert!(ledger.is_clean(), "{ledger:?}\n{}", self.logs());
        assert_eq!(quarantined, infected, "what is infected lies in quarantine\n{}", self.logs());
        ledger
    }

    /// What has come out of all hosts.
    pub fn received(&self) -> Vec<Received> {
        self.hosts.values().flat_map(|host| host.sink.received()).collect()
    }

    /// The files of a host's messages with these endings.
    pub fn stored(&self, host: &str, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
        stored_in(&self.folder.path().join(host).join("spool"), wanted)
    }

    /// The ends of all logs, for people.
    pub fn logs(&self) -> String {
        let all = self.hosts.values().map(|host| &host.hook).chain(self.workers.values());
        all.map(|one| format!("--- {}\n{}\n", one.name, one.log_tail())).collect()
    }

    /// A fresh token of the first host.
    pub fn token(&self, arguments: &[&str]) -> String {
        let first = self.first.as_deref().expect("a first host");
        let output = self.hook_command(first, &[&["token"], arguments].concat());
        assert!(output.status.success(), "gantry-hook token: {}", said(&output));
        let text = String::from_utf8(output.stdout).expect("a token is text");
        text.lines().last().expect("a token on the last line").to_owned()
    }

    fn config(&self, program: &str, name: &str) -> PathBuf {
        let file = if program == "gantry" { "worker.toml" } else { "hook.toml" };
        self.folder.path().join(name).join(file)
    }

    fn run(&self, place: &Place, program: &str, name: &str, arguments: &[&str]) -> Output {
        let mut command = place.command(&binary(program));
        command.arg("--config").arg(self.config(program, name)).args(arguments);
        command.envs(self.clock.iter().flat_map(FakeClock::environment));
        command.stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("run {program}: {e}"))
    }

    fn start(
        &self,
        place: &Place,
        program: &str,
        name: &str,
        environment: &[(&str, &str)],
    ) -> Running {
        let mut command = place.command(&binary(program));
        command.arg("--config").arg(self.config(program, name)).arg("run");
        command.envs(environment.iter().copied());
        command.envs(self.clock.iter().flat_map(FakeClock::environment));
        let log = self.folder.path().join(format!("{name}.log"));
        Running::start(name, &mut command, &log).unwrap_or_else(|e| panic!("start {name}: {e}"))
    }
}

impl Default for Site {
    fn default() -> Self {
        Self::new()
    }
}

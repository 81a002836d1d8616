//! What the demo runs on: a folder, a hook and three workers of their own, enrolled by token.

use std::collections::HashSet;
use std::env;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::mail::ID_FIELD;
use super::process::{Running, free_port, until};
use super::show::Show;
use super::status::Status;

/// How long a process may take to be there. Generous: the machine may be busy.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How much of a stored message is read for its id: the header record of the spool and the top of the message.
const ID_SEARCH_BYTES: usize = 1024 * 1024;

/// The running cast. Everything ends when it is dropped; the folder stays.
pub(super) struct Stage {
    pub(super) folder: PathBuf,
    pub(super) hook: Running,
    pub(super) workers: Vec<Running>,
    /// The mailboxes' SMTP ports: one in upstream custody, one in the hook's.
    pub(super) intakes: Vec<SocketAddr>,
    binary: PathBuf,
    config: PathBuf,
}

impl Stage {
    /// Sets everything up below `folder` and waits until all workers are ready.
    ///
    /// # Errors
    /// Where a program is missing or fails; with the end of its log.
    pub(super) fn set(
        folder: &Path,
        release_to: SocketAddr,
        workers: u8,
        show: &Show,
    ) -> Result<Self> {
        let worker = env::current_exe().context("find this program")?;
        let hook = hook_binary(&worker, show)?;
        let quic = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        let intakes = vec![
            SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
            SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?)),
        ];
        let config = folder.join("hook.toml");
        write(&config, &hook_toml(quic, &intakes, release_to))?;

        show.step("making the cluster's keys, and a token for each worker");
        run(gantry(&hook, &config, &["init"]))?;
        let names: Vec<String> = (1..=workers).map(|number| format!("pc-{number}")).collect();
        let tokens: Vec<String> =
            names.iter().map(|name| token(&hook, &config, name)).collect::<Result<_>>()?;

        show.step(format_args!("starting the hook (log: {})", folder.join("hook.log").display()));
        let log = folder.join("hook.log");
        let mut running = Running::start("hook", &mut gantry(&hook, &config, &["run"]), &log)?;
        for intake in &intakes {
            await_greeting(&mut running, *intake)?;
        }
        show.step(format_args!("joining and starting {workers} workers"));
        let mut workers = Vec::new();
        for (name, token) in names.iter().zip(&tokens) {
            workers.push(enrol(folder, &worker, quic, name, token)?);
        }
        let stage = Self {
            folder: folder.to_owned(),
            hook: running,
            workers,
            intakes,
            binary: hook,
            config,
        };
        stage.await_workers()?;
        Ok(stage)
    }

    /// `gantry-hook status --json`, or nothing where it gives none at this moment.
    pub(super) fn status(&self) -> Option<Status> {
        let mut command = gantry(&self.binary, &self.config, &["status", "--json"]);
        let output = command.stdin(Stdio::null()).output().ok()?;
        Status::parse(&String::from_utf8_lossy(&output.stdout))
    }

    /// The spool's folder.
    pub(super) fn spool(&self) -> PathBuf {
        self.folder.join("spool")
    }

    /// The demo's ids of the messages that lie in the spool in a state (`q` quarantined, `h` held), read from the
    /// files themselves.
    pub(super) fn stored(&self, state: &str) -> HashSet<String> {
        let mut ids = HashSet::new();
        collect(&self.spool(), state, 3, &mut ids);
        ids
    }

    fn await_workers(&self) -> Result<()> {
        let all = || self.status().filter(|status| status.ready() >= self.workers.len());
        if until(START_WITHIN, all).is_some() {
            return Ok(());
        }
        let said: Vec<String> =
            self.workers.iter().map(|one| format!("{}:\n{}", one.name, one.log_tail())).collect();
        let status = self.status().map(|status| status.0.to_string()).unwrap_or_default();
        bail!("wait for the workers to be ready: they are not\n{status}\n{}", said.join("\n"))
    }
}

fn collect(folder: &Path, state: &str, depth: u8, ids: &mut HashSet<String>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for path in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
        if path.is_dir() && depth > 0 {
            collect(&path, state, depth - 1, ids);
        } else if path.extension() == Some(OsStr::new(state)) {
            // A file that vanishes meanwhile has moved on to another state.
            ids.extend(std::fs::read(&path).ok().and_then(|bytes| stored_id(&bytes)));
        }
    }
}

/// The id in a stored message: the first id field in it.
fn stored_id(bytes: &[u8]) -> Option<String> {
    let top = bytes.get(..ID_SEARCH_BYTES.min(bytes.len()))?;
    let field = format!("{ID_FIELD}: ");
    let at = top.windows(field.len()).position(|window| window == field.as_bytes())?;
    let value = top.get(at + field.len()..)?.split(|byte| *byte == b'\r').next()?;
    String::from_utf8(value.to_vec()).ok()
}

/// Two mailboxes, one for each custody.
fn hook_toml(quic: SocketAddr, intakes: &[SocketAddr], release_to: SocketAddr) -> String {
    let mut text = format!("name = \"demo\"\nspool = \"spool\"\nlisten = \"{quic}\"\n");
    let custodies = [
        ("upstream.box", "custody = \"upstream\"\nwhen_unprocessed = \"tempfail\"\n"),
        ("hook.box", "custody = \"hook\"\nwhen_unprocessed = \"wait\"\n"),
    ];
    for (intake, (name, custody)) in intakes.iter().zip(custodies) {
        text.push_str(&format!(
            "\n[[mailbox]]\nname = \"{name}\"\nintake = {{ type = \"smtp\", listen = \"{intake}\" }}\n\
             release = {{ type = \"smtp\", address = \"{release_to}\" }}\nneeds = [\"virus\"]\n{custody}"
        ));
    }
    text
}

/// A worker with the bundled rules, in a folder of its own, since its key lies beside its configuration.
fn enrol(
    folder: &Path,
    binary: &Path,
    quic: SocketAddr,
    name: &str,
    token: &str,
) -> Result<Running> {
    let own = folder.join(name);
    std::fs::create_dir_all(&own).with_context(|| format!("make the folder {}", own.display()))?;
    let config = own.join("worker.toml");
    let text = format!(
        "name = \"{name}\"\n\n[[host]]\naddress = \"{quic}\"\n\n[[module]]\nname = \"rules\"\ntype = \"yara\"\n\
         provides = \"virus\"\n"
    );
    write(&config, &text)?;
    run(gantry(binary, &config, &["join", token]))?;
    Running::start(
        name,
        &mut gantry(binary, &config, &["run"]),
        &folder.join(format!("{name}.log")),
    )
}

fn token(hook: &Path, config: &Path, name: &str) -> Result<String> {
    let arguments =
        ["token", "--name", name, "--role", "worker", "--provides", "virus", "--expires", "1h"];
    let output = run(gantry(hook, config, &arguments))?;
    let token = output.lines().last().unwrap_or_default().trim().to_owned();
    ensure!(!token.is_empty(), "get a token for {name}: the hook printed none");
    Ok(token)
}

/// `PROGRAM --config CONFIG ARGUMENTS`.
fn gantry(program: &Path, config: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.arg("--config").arg(config).args(arguments);
    command
}

/// Runs a command to its end and gives what it printed.
fn run(mut command: Command) -> Result<String> {
    let shown = command.get_program().display().to_string();
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("run {shown}"))?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "run {shown}: {}\n{}", output.status, error.trim_end());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

fn await_greeting(hook: &mut Running, address: SocketAddr) -> Result<()> {
    let there = until(START_WITHIN, || match hook.ended() {
        Some(_) => Some(false),
        None => greets(address).then_some(true),
    });
    let ended = if there == Some(false) { "it has ended" } else { "it does not answer" };
    ensure!(there == Some(true), "start the hook: {ended}\n{}", hook.log_tail());
    Ok(())
}

fn greets(address: SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect(address) else { return false };
    let mut line = String::new();
    let limit = stream.set_read_timeout(Some(START_WITHIN));
    limit.and_then(|()| BufReader::new(&stream).read_line(&mut line)).is_ok()
        && line.starts_with("220")
}

/// `gantry-hook` from beside this program. Under `cargo run` it is built first, so that it is there and current.
fn hook_binary(worker: &Path, show: &Show) -> Result<PathBuf> {
    let path = worker.with_file_name(format!("gantry-hook{}", env::consts::EXE_SUFFIX));
    if let (Some(cargo), Some(manifest)) = (env::var_os("CARGO"), env::var_os("CARGO_MANIFEST_DIR"))
    {
        show.step("building gantry-hook");
        let mut build = Command::new(cargo);
        build.args(["build", "-p", "gantry-hook"]).current_dir(manifest).stdin(Stdio::null());
        if worker.parent().and_then(Path::file_name) == Some(OsStr::new("release")) {
            build.arg("--release");
        }
        // The demo's standard output is its own; what cargo has to say goes to standard error.
        let status = build.stdout(Stdio::null()).status().context("build gantry-hook")?;
        ensure!(status.success(), "build gantry-hook: {status}");
    }
    ensure!(
        path.is_file(),
        "find gantry-hook: there is none at {}; put it beside this program, or use `cargo run --release -- demo`",
        path.display()
    );
    Ok(path)
}

fn write(path: &Path, text: &str) -> Result<()> {
    std::fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_stored_message_is_found_behind_the_header_record() {
        let file = b"\x00magic\xffsender@x X-Demo-Idle\x00X-Demo-Id: demo-000007\r\nTo: x\r\n";
        assert_eq!(stored_id(file).as_deref(), Some("demo-000007"));
        assert_eq!(stored_id(b"nothing"), None);
    }
}

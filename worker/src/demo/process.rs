//! Processes that the demo starts and ends, what they cost, and free ports for them.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(20);
/// How much of a log is shown when something has gone wrong, in lines.
const TAIL_LINES: usize = 15;

/// A process with its output in a file. It is killed when dropped.
#[derive(Debug)]
pub struct Running {
    pub name: String,
    log: PathBuf,
    child: Child,
}

impl Running {
    /// Starts it; standard output and error are added to the log.
    ///
    /// # Errors
    /// Where the log cannot be opened or the program not started.
    pub fn start(name: &str, command: &mut Command, log: &Path) -> Result<Self> {
        let about = || format!("start {name} ({})", command.get_program().display());
        let open = || File::options().create(true).append(true).open(log);
        let (out, err) = (open().with_context(about)?, open().with_context(about)?);
        let about = about();
        let child = command.stdin(Stdio::null()).stdout(out).stderr(err).spawn();
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child: child.context(about)? })
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, up to `within`.
    pub fn wait(&mut self, within: Duration) -> Option<ExitStatus> {
        until(within, || self.ended())
    }

    /// SIGKILL (on Windows its like), and waits until it is gone.
    pub fn kill(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGSTOP, after which it holds what it holds and says nothing. Whether that can be done here.
    pub fn freeze(&self) -> bool {
        signal(self.pid(), Signal::Freeze)
    }

    /// SIGCONT.
    pub fn thaw(&self) -> bool {
        signal(self.pid(), Signal::Thaw)
    }

    /// SIGTERM: asks it to finish what it has and leave.
    pub fn terminate(&self) -> bool {
        signal(self.pid(), Signal::Terminate)
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// The last lines that it has said.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }

    /// Its cost so far, where the system tells.
    pub fn cost(&self) -> Cost {
        Cost::of(self.pid())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// What a process has cost, from /proc; nothing where there is no /proc.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// Largest resident size so far, in bytes.
    pub rss_bytes: Option<u64>,
    /// User and system time, in seconds.
    pub cpu_s: Option<f64>,
}

impl Cost {
    /// That of any process of this machine.
    pub fn of(pid: u32) -> Self {
        let read = |name: &str| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let rss = read("status").and_then(|status| {
            let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
            line.split_whitespace().next()?.parse::<u64>().ok()
        });
        let ticks = read("stat").and_then(|stat| {
            // The name in brackets may hold anything; the fields behind it are numbers (proc(5), utime and stime).
            let (_, fields) = stat.rsplit_once(')')?;
            let mut times = fields.split_whitespace().skip(11).map(str::parse::<u32>);
            Some(f64::from(times.next()?.ok()?) + f64::from(times.next()?.ok()?))
        });
        Self {
            rss_bytes: rss.map(|kib| kib * 1024),
            cpu_s: ticks.zip(ticks_per_second()).map(|(ticks, hertz)| ticks / hertz),
        }
    }
}

/// A loopback port on which nothing listens, neither TCP nor UDP. It lies below the range from which the system
/// gives ports to clients, so that nothing takes it before it is used.
///
/// # Errors
/// Where none is found.
pub fn free_port() -> Result<u16> {
    for _ in 0..200 {
        let port = fastrand::u16(12_000..32_000);
        let address = (Ipv4Addr::LOCALHOST, port);
        if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
            return Ok(port);
        }
    }
    bail!("find a free port: none of 200 tried is free")
}

/// Asks again and again until there is an answer or the time is up.
pub fn until<T>(within: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + within;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if Instant::now() >= end {
            return None;
        }
        thread::sleep(POLL);
    }
}

/// How long a stopped worker is given to be seen holding something, and for how long it must then go on holding it.
const SEEN_WITHIN: Duration = Duration::from_millis(300);
const HELD_FOR: Duration = Duration::from_millis(60);

/// Stops a worker so that it holds a reservation: one that was stopped with nothing in hand, or with its verdict
/// already under way, is let go on and stopped again. `holding` asks the hook what the worker holds. Gives what it
/// holds; the worker stays stopped. Where processes cannot be stopped, it is only looked at.
pub fn freeze_holding(
    worker: &Running,
    within: Duration,
    holding: impl Fn() -> Option<Vec<String>>,
) -> Option<Vec<String>> {
    let end = Instant::now() + within;
    let some = || holding().filter(|held| !held.is_empty());
    while Instant::now() < end {
        worker.freeze();
        if let Some(held) = until(SEEN_WITHIN, some) {
            thread::sleep(HELD_FOR);
            // Whatever was in flight when it was stopped has arrived by now.
            let still = some().unwrap_or_default();
            if still.iter().any(|message| held.contains(message)) {
                return Some(still);
            }
        }
        worker.thaw();
        thread::sleep(HELD_FOR);
    }
    None
}

enum Signal {
    Freeze,
    Thaw,
    Terminate,
}

#[cfg(unix)]
fn signal(pid: u32, signal: Signal) -> bool {
    use rustix::process::{Pid, Signal as Unix, kill_process};
    let signal = match signal {
        Signal::Freeze => Unix::STOP,
        Signal::Thaw => Unix::CONT,
        Signal::Terminate => Unix::TERM,
    };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| kill_process(pid, signal).is_ok())
}

#[cfg(not(unix))]
fn signal(_pid: u32, _signal: Signal) -> bool {
    false
}

#[cfg(unix)]
fn ticks_per_second() -> Option<f64> {
    u32::try_from(rustix::param::clock_ticks_per_second()).ok().map(f64::from)
}

#[cfg(not(unix))]
fn ticks_per_second() -> Option<f64> {
    None
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    #[test]
    #[cfg(unix)]
    fn a_process_is_logged_frozen_and_killed() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo hello; while :; do sleep 0.01; done"]);
        let mut running = Running::start("shell", &mut command, &log).unwrap();
        until(Duration::from_secs(20), || running.log_tail().contains("hello").then_some(()))
            .unwrap();
        assert!(running.freeze() && running.thaw());
        assert_eq!(running.ended(), None);
        if cfg!(target_os = "linux") {
            assert!(running.cost().rss_bytes.unwrap() > 1024);
            assert!(running.cost().cpu_s.is_some());
        }
        running.kill();
        assert!(!running.ended().unwrap().success());
    }

    #[test]
    fn a_free_port_can_be_bound() {
        let port = free_port().unwrap();
        assert!(TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok());
    }
}

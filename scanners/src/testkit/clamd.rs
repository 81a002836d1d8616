//! A clamd of one's own: a folder, two signatures, a socket and a port, gone when it is dropped.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::eicar;

/// How long clamd may take to load two signatures on a machine with much else to do.
const START_TIME_MAX: Duration = Duration::from_secs(60);

/// How long it may take to end.
const STOP_TIME_MAX: Duration = Duration::from_secs(30);

/// Between two looks at whether it has come up.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// What differs from test to test.
#[derive(Clone, Debug)]
pub struct ClamdOptions {
    /// `StreamMaxLength`.
    pub stream_bytes_max: u64,
    /// `MaxThreads`.
    pub threads: u32,
    /// `ConcurrentDatabaseReload`.
    pub concurrent_reload: bool,
    /// Largest file that it can write, as if its disk were full from there on. A multiple of 512.
    pub file_bytes_max: Option<u64>,
    /// Further lines for `clamd.conf`.
    pub extra: String,
}

impl Default for ClamdOptions {
    fn default() -> Self {
        Self {
            stream_bytes_max: 25 << 20,
            threads: 4,
            concurrent_reload: true,
            file_bytes_max: None,
            extra: String::new(),
        }
    }
}

/// A running clamd that knows two signatures: [`Clamd::EICAR`] and [`Clamd::MARKER`]. Runs as whoever runs the test.
pub struct Clamd {
    folder: TempDir,
    port: u16,
    file_bytes_max: Option<u64>,
    child: Option<Child>,
}

impl Clamd {
    /// What it calls the EICAR test string.
    pub const EICAR: &str = "Gantry.Test.Eicar.UNOFFICIAL";
    /// What it calls [`Clamd::MARKER_BYTES`].
    pub const MARKER: &str = "Gantry.Test.Marker.UNOFFICIAL";
    /// Bytes that no other scanner minds.
    pub const MARKER_BYTES: &[u8] = b"gantry-marker-5d0c1f6a9b";

    /// `None`, and a line that says so, where clamd is not installed.
    ///
    /// # Errors
    /// When it is installed and does not come up; the error holds what it said.
    pub fn start(options: &ClamdOptions) -> io::Result<Option<Self>> {
        if program().is_none() {
            say("skipped: clamd is not installed (Debian: clamav-daemon)");
            return Ok(None);
        }
        let folder = TempDir::with_prefix("gantry-clamd-")?;
        let port = free_port()?;
        fs::create_dir(folder.path().join("db"))?;
        fs::create_dir(folder.path().join("tmp"))?;
        fs::write(folder.path().join("db/test.ndb"), signatures())?;
        fs::write(folder.path().join("clamd.conf"), configuration(folder.path(), port, options))?;
        let mut clamd = Self { folder, port, file_bytes_max: options.file_bytes_max, child: None };
        clamd.resume_service()?;
        Ok(Some(clamd))
    }

    /// The path of its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("clamd.sock")
    }

    /// Its TCP address, on loopback.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Starts it again after [`Clamd::stop`] or [`Clamd::kill`], at the same addresses, and waits until it answers.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn resume_service(&mut self) -> io::Result<()> {
        let program = program().ok_or_else(|| io::Error::other("clamd is not installed"))?;
        // A shell sets the limit. With the signal ignored, a write beyond it is an error like any other.
        let limit =
            self.file_bytes_max.map_or("unlimited".to_owned(), |max| (max / 512).to_string());
        let child = Command::new("sh")
            .args([
                "-c",
                "trap '' XFSZ; ulimit -f \"$1\"; exec \"$2\" -c \"$3\" --foreground",
                "sh",
            ])
            .arg(limit)
            .arg(program)
            .arg(self.folder.path().join("clamd.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(self.folder.path().join("stderr"))?)
            .spawn()?;
        self.child = Some(child);
        let deadline = Instant::now() + START_TIME_MAX;
        while !self.answers() {
            let ended = self.child.as_mut().map_or(Ok(None), Child::try_wait)?;
            if ended.is_some() || Instant::now() > deadline {
                return Err(io::Error::other(format!("clamd did not start: {}", self.log())));
            }
            std::thread::sleep(LOOK_EVERY);
        }
        Ok(())
    }

    /// Tells it to end (SIGTERM) and waits until it has.
    ///
    /// # Errors
    /// When it cannot be told, or does not end in time.
    pub fn stop(&mut self) -> io::Result<()> {
        self.signal("TERM")?;
        let deadline = Instant::now() + STOP_TIME_MAX;
        while let Some(child) = &mut self.child {
            if child.try_wait()?.is_some() {
                self.child = None;
            } else if Instant::now() > deadline {
                return Err(io::Error::other("clamd does not stop"));
            } else {
                std::thread::sleep(LOOK_EVERY);
            }
        }
        Ok(())
    }

    /// Ends it at once (SIGKILL), as a crash would.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Makes it hang (SIGSTOP).
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn freeze(&self) -> io::Result<()> {
        self.signal("STOP")
    }

    /// Lets it go on (SIGCONT).
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn thaw(&self) -> io::Result<()> {
        self.signal("CONT")
    }

    /// Takes away the folder in which it keeps what it scans, so that it
    /// closes every connection that asks for a scan, without a reply.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn break_scanning(&self) -> io::Result<()> {
        fs::remove_dir_all(self.folder.path().join("tmp"))
    }

    /// Undoes [`Clamd::break_scanning`].
    ///
    /// # Errors
    /// When the system refuses.
    pub fn mend_scanning(&self) -> io::Result<()> {
        fs::create_dir(self.folder.path().join("tmp"))
    }

    /// Its log and what it said on its standard error, for the message of a failed test.
    pub fn log(&self) -> String {
        ["stderr", "log"]
            .map(|name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default())
            .concat()
    }

    fn answers(&self) -> bool {
        let ping = || -> io::Result<Vec<u8>> {
            let mut stream = TcpStream::connect_timeout(&self.address(), START_TIME_MAX)?;
            stream.set_read_timeout(Some(START_TIME_MAX))?;
            stream.write_all(b"zPING\0")?;
            let mut answer = Vec::new();
            stream.take(16).read_to_end(&mut answer)?;
            Ok(answer)
        };
        // Both ways in must be there; it opens them one after the other.
        self.socket().exists() && ping().is_ok_and(|answer| answer == b"PONG\0")
    }

    fn signal(&self, signal: &str) -> io::Result<()> {
        let Some(child) = &self.child else {
            return Err(io::Error::other("clamd does not run"));
        };
        let status = Command::new("sh")
            .args(["-c", "kill -s \"$1\" \"$2\"", "sh", signal, &child.id().to_string()])
            .status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("kill -{signal}"))) }
    }
}

impl Drop for Clamd {
    fn drop(&mut self) {
        // A test that ends, also by failing, leaves nothing behind; there is nobody to tell of an error.
        let _ = self.kill();
    }
}

/// Debian keeps it where only root's PATH looks.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from))
        .map(|folder| folder.join("clamd"))
        .find(|program| program.is_file())
}

/// Free a moment ago; clamd cannot be asked to choose one and say which.
fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

/// Name, any type of file, anywhere in it, the bytes in hex.
fn signatures() -> String {
    let mut text = String::new();
    for (name, bytes) in [(Clamd::EICAR, eicar().as_slice()), (Clamd::MARKER, Clamd::MARKER_BYTES)]
    {
        // clamd itself adds the suffix, since the database is not signed by ClamAV.
        let _ = write!(text, "{}:0:*:", name.trim_end_matches(".UNOFFICIAL"));
        for byte in bytes {
            let _ = write!(text, "{byte:02x}");
        }
        text.push('\n');
    }
    text
}

fn configuration(folder: &Path, port: u16, options: &ClamdOptions) -> String {
    let folder = folder.display();
    let ClamdOptions { stream_bytes_max, threads, concurrent_reload, extra, .. } = options;
    let reload = if *concurrent_reload { "yes" } else { "no" };
    format!(
        "DatabaseDirectory {folder}/db\n\
         LocalSocket {folder}/clamd.sock\n\
         LocalSocketMode 600\n\
         FixStaleSocket yes\n\
         TCPSocket {port}\n\
         TCPAddr 127.0.0.1\n\
         LogFile {folder}/log\n\
         TemporaryDirectory {folder}/tmp\n\
         MaxThreads {threads}\n\
         StreamMaxLength {stream_bytes_max}\n\
         SelfCheck 0\n\
         ConcurrentDatabaseReload {reload}\n\
         OfficialDatabaseOnly no\n\
         {extra}\n"
    )
}

#[allow(clippy::print_stdout, reason = "whoever runs the tests must see what was skipped")]
fn say(text: &str) {
    println!("{text}");
}

//! An SMTP server that takes everything and remembers what it took. It shares no code with the hook, so that it can
//! bear witness.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use super::mail::ID_FIELD;

/// Longest command line, in bytes; generous, since the sink is no judge of its clients.
const COMMAND_BYTES_MAX: u64 = 64 * 1024;
/// Largest message, in bytes. It is held in memory once.
const MESSAGE_BYTES_MAX: usize = 512 * 1024 * 1024;
/// A client that says nothing for so long is gone.
const SILENCE_MAX: Duration = Duration::from_secs(300);
/// What the sink offers: everything that the hook can hand on.
const OFFERS: &[&str] = &[
    "sink.example",
    "PIPELINING",
    "SIZE 536870912",
    "8BITMIME",
    "SMTPUTF8",
    "DSN",
    "ENHANCEDSTATUSCODES",
    "XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE",
];

/// One message as it came out.
#[derive(Clone, Debug)]
pub struct Received {
    /// The value of the demo's id field, where the message has one in its header block.
    pub id: Option<String>,
    /// The whole lines of MAIL, RCPT and XFORWARD.
    pub mail: String,
    pub rcpt: Vec<String>,
    pub xforward: Vec<String>,
    /// The header fields that stand above the id field, which is what was put on top on the way; empty where there is
    /// no id.
    pub top: String,
    /// SHA-256 of the message from the id field on; of all of it where it has none.
    pub sha256: [u8; 32],
    /// Where all of it is stored.
    pub path: PathBuf,
}

impl Received {
    /// The recipients' addresses, without brackets and parameters.
    pub fn recipients(&self) -> impl Iterator<Item = &str> {
        self.rcpt.iter().filter_map(|line| {
            let (_, rest) = line.split_once('<')?;
            rest.split_once('>').map(|(address, _)| address)
        })
    }

    /// Whether the hook's result field is on top. Only known of a message that has an id.
    pub fn has_result(&self) -> bool {
        self.top.lines().any(|line| {
            line.split_once(':').is_some_and(|(name, _)| name.eq_ignore_ascii_case("X-Gantry"))
        })
    }
}

/// Answers a command line instead of the sink where it gives `Some`; the final dot is asked for as `.`.
pub type Script = dyn Fn(&str) -> Option<String> + Send + Sync;

/// A running sink; it stops taking connections when dropped.
pub struct Sink {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    folder: PathBuf,
    script: Box<Script>,
    received: Mutex<Vec<Received>>,
    number: AtomicUsize,
    stopped: AtomicBool,
}

impl Sink {
    /// Listens on a free port of the loopback address and stores what comes in this folder.
    ///
    /// # Errors
    /// Where the folder cannot be made or no port can be had.
    pub fn start(folder: &Path) -> Result<Self> {
        Self::scripted(folder, |_| None)
    }

    /// The same with a script that can refuse.
    ///
    /// # Errors
    /// As [`Sink::start`].
    pub fn scripted(
        folder: &Path,
        script: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
    ) -> Result<Self> {
        Self::listen(folder, Ipv4Addr::LOCALHOST, Box::new(script))
    }

    /// A sink on another of this machine's addresses, for hosts that are not on it.
    ///
    /// # Errors
    /// As [`Sink::start`].
    pub fn on(folder: &Path, address: Ipv4Addr) -> Result<Self> {
        Self::listen(folder, address, Box::new(|_| None))
    }

    fn listen(folder: &Path, address: Ipv4Addr, script: Box<Script>) -> Result<Self> {
        std::fs::create_dir_all(folder)
            .with_context(|| format!("make the folder {}", folder.display()))?;
        let listener = TcpListener::bind((address, 0)).context("start the sink")?;
        let shared = Arc::new(Shared {
            folder: folder.to_owned(),
            script,
            received: Mutex::default(),
            number: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let sink = Self { address: listener.local_addr()?, shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // A client that breaks off has no message here, which is all there is to say.
                thread::spawn(move || shared.serve(stream));
            }
        });
        Ok(sink)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has come so far, in order.
    pub fn received(&self) -> Vec<Received> {
        self.shared.received().clone()
    }

    /// How many messages have come so far.
    pub fn count(&self) -> usize {
        self.shared.received().len()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn received(&self) -> MutexGuard<'_, Vec<Received>> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(SILENCE_MAX))?;
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut writer = stream;
        writer.write_all(b"220 sink.example ESMTP\r\n")?;
        let mut session = Session::default();
        let mut line = String::new();
        loop {
            line.clear();
            if (&mut reader).take(COMMAND_BYTES_MAX).read_line(&mut line)? == 0 {
                return Ok(());
            }
            let command = line.trim_end();
            let scripted = (self.script)(command);
            let verb = command.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            let reply = match (scripted, verb.as_str()) {
                (Some(reply), _) => format!("{reply}\r\n"),
                (None, "EHLO") => multiline(OFFERS),
                (None, "DATA") => {
                    writer.write_all(b"354 go on\r\n")?;
                    let data = read_data(&mut reader)?;
                    let reply = (self.script)(".").unwrap_or_else(|| "250 2.0.0 taken".to_owned());
                    if reply.starts_with('2') {
                        self.keep(&session, &data)?;
                    }
                    session = Session::default();
                    format!("{reply}\r\n")
                }
                (None, "QUIT") => {
                    writer.write_all(b"221 2.0.0 bye\r\n")?;
                    return Ok(());
                }
                (None, verb) => {
                    session.note(verb, command);
                    "250 2.0.0 ok\r\n".to_owned()
                }
            };
            writer.write_all(reply.as_bytes())?;
        }
    }

    /// Stores first and counts afterwards, so that what is counted can be read.
    fn keep(&self, session: &Session, data: &[u8]) -> io::Result<()> {
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{number:06}.eml"));
        std::fs::write(&path, data)?;
        let (top, id) = find_id(data);
        let (above, below) = data.split_at_checked(top).unwrap_or((&[], data));
        let received = Received {
            id,
            mail: session.mail.clone(),
            rcpt: session.rcpt.clone(),
            xforward: session.xforward.clone(),
            top: String::from_utf8_lossy(above).into_owned(),
            sha256: Sha256::digest(below).into(),
            path,
        };
        self.received().push(received);
        Ok(())
    }
}

/// What has been said before DATA.
#[derive(Default)]
struct Session {
    mail: String,
    rcpt: Vec<String>,
    xforward: Vec<String>,
}

impl Session {
    fn note(&mut self, verb: &str, command: &str) {
        match verb {
            "MAIL" => {
                self.mail = command.to_owned();
                self.rcpt.clear();
            }
            "RCPT" => self.rcpt.push(command.to_owned()),
            "XFORWARD" => self.xforward.push(command.to_owned()),
            "RSET" => *self = Self::default(),
            _ => {}
        }
    }
}

fn multiline(lines: &[&str]) -> String {
    let last = lines.len().saturating_sub(1);
    let line =
        |(at, line): (usize, &&str)| format!("250{}{line}\r\n", if at == last { ' ' } else { '-' });
    lines.iter().enumerate().map(line).collect()
}

/// The message up to CRLF.CRLF, with the doubled dots single again (RFC 5321, 4.5.2).
fn read_data(reader: &mut impl io::BufRead) -> io::Result<Vec<u8>> {
    let mut data = Vec::new();
    let mut line_start = true;
    loop {
        let begin = data.len();
        if reader.read_until(b'\n', &mut data)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let line = data.get(begin..).unwrap_or_default();
        let next_start = line.ends_with(b"\r\n");
        if line_start && line == b".\r\n" {
            data.truncate(begin);
            return Ok(data);
        }
        if line_start && line.starts_with(b".") {
            data.remove(begin);
        }
        line_start = next_start;
        if data.len() > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("the message is larger than the sink takes"));
        }
    }
}

/// Where the id field begins in the header block, and its value.
fn find_id(data: &[u8]) -> (usize, Option<String>) {
    let mut at = 0;
    for line in data.split_inclusive(|byte| *byte == b'\n') {
        if matches!(line, b"\r\n" | b"\n") {
            break;
        }
        let text = String::from_utf8_lossy(line.get(..128.min(line.len())).unwrap_or_default());
        if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case(ID_FIELD)
        {
            return (at, Some(value.trim().to_owned()));
        }
        at += line.len();
    }
    (0, None)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::time::Instant;

    use super::super::mail::Mail;
    use super::super::source::{Fate, Source};
    use super::*;

    #[test]
    fn what_the_source_sends_arrives_byte_by_byte() {
        let folder = tempfile::tempdir().unwrap();
        let once = AtomicBool::new(true);
        // The first final dot is answered 4xx, so that one message is sent twice and kept once.
        let script = move |line: &str| {
            (line == "." && once.swap(false, Ordering::Relaxed))
                .then(|| "451 4.3.0 later".to_owned())
        };
        let sink = Sink::scripted(folder.path(), script).unwrap();
        let source = Source {
            addresses: vec![sink.address()],
            connections: 4,
            give_up: Instant::now() + Duration::from_secs(60),
        };
        let sent = source.send(&Mail::generated(3, 40), &|_| {}).unwrap();
        let received = sink.received();
        assert_eq!((sent.len(), received.len()), (40, 40));
        assert_eq!(sent.iter().map(|sent| sent.attempts).sum::<u32>(), 41);
        for sent in sent {
            let arrived = received.iter().find(|one| one.id.as_ref() == Some(&sent.id)).unwrap();
            assert_eq!((sent.fate, sent.sha256), (Fate::Accepted, arrived.sha256));
            assert!(arrived.recipients().eq(sent.recipients.iter().map(String::as_str)));
            assert!(arrived.top.is_empty() && !arrived.has_result());
        }
    }

    #[test]
    fn the_id_is_found_below_what_was_put_on_top() {
        let data = b"Received: by x\r\n\tfor y\r\nX-Gantry: clean\r\nX-Demo-Id: a1\r\nTo: z\r\n\r\nX-Demo-Id: b\r\n";
        assert_eq!(find_id(data), (41, Some("a1".to_owned())));
        assert_eq!(find_id(b"To: z\r\n\r\nX-Demo-Id: b\r\n"), (0, None));
    }

    #[test]
    fn only_crlf_dot_crlf_ends_the_data() {
        let mut wire: &[u8] = b"a\n.\r\nb\r\n..c\r\n.\r\nQUIT\r\n";
        assert_eq!(read_data(&mut wire).unwrap(), b"a\n.\r\nb\r\n.c\r\n");
        assert_eq!(wire, b"QUIT\r\n");
    }
}

//! An SMTP client that sends letters and remembers what it sent. It shares no code with the hook, so that it can
//! bear witness.

use std::fmt;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use sha2::{Digest as _, Sha256};

use super::mail::{Letter, Mail};

/// Longest wait for an answer. An answer in upstream custody takes up to `answer_within`, at most 540 s.
const ANSWER_WITHIN: Duration = Duration::from_secs(600);
/// Longest reply line and most lines of a reply that are read. RFC 5321, 4.5.3.1.5 says 512 bytes.
const REPLY_BYTES_MAX: u64 = 4_096;
const REPLY_LINES_MAX: usize = 64;
/// First and longest pause before a message is tried again.
const PAUSE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// What became of one letter, as the sender saw it.
#[derive(Clone, Debug)]
pub struct Sent {
    pub id: String,
    pub sha256: [u8; 32],
    pub recipients: Vec<String>,
    pub infected: bool,
    pub attempts: u32,
    pub fate: Fate,
}

/// How the sending of a letter ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// 250 after the final dot.
    Accepted,
    /// 5xx.
    Refused(String),
    /// 4xx, or no connection, until the time was up.
    GivenUp(String),
}

/// Where and how to send.
#[derive(Clone, Debug)]
pub struct Source {
    /// The letters go to these in turn.
    pub addresses: Vec<SocketAddr>,
    /// Connections at once, each with one message.
    pub connections: usize,
    /// When to stop trying again.
    pub give_up: Instant,
}

impl Source {
    /// Sends every letter, trying again on 4xx. `told` hears of each one as it ends, on the thread that sent it.
    ///
    /// # Errors
    /// Where a letter cannot be made; nothing on the network is an error.
    pub fn send(&self, mail: &Mail, told: &(dyn Fn(&Sent) + Sync)) -> Result<Vec<Sent>> {
        let next = AtomicUsize::new(0);
        let take = || Some(next.fetch_add(1, Ordering::Relaxed)).filter(|n| *n < mail.count());
        let work = || -> Result<Vec<Sent>> {
            let mut done = Vec::new();
            while let Some(number) = take() {
                let sent = self.deliver(number, &mail.letter(number)?);
                told(&sent);
                done.push(sent);
            }
            Ok(done)
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.connections).map(|_| scope.spawn(work)).collect();
            let mut all = Vec::with_capacity(mail.count());
            for worker in workers {
                all.extend(
                    worker
                        .join()
                        .map_err(|_| anyhow::anyhow!("send mail: a thread panicked"))??,
                );
            }
            Ok(all)
        })
    }

    fn deliver(&self, number: usize, letter: &Letter) -> Sent {
        let mut sent = Sent {
            id: letter.id.clone(),
            sha256: Sha256::digest(&letter.bytes).into(),
            recipients: letter.recipients.clone(),
            infected: letter.infected,
            attempts: 0,
            fate: Fate::GivenUp("there is no address to send to".to_owned()),
        };
        let Some(index) = number.checked_rem(self.addresses.len()) else { return sent };
        let Some(address) = self.addresses.get(index) else { return sent };
        let mut pause = PAUSE.0;
        loop {
            sent.attempts += 1;
            sent.fate = match transact(*address, letter) {
                Ok(()) => Fate::Accepted,
                Err(Failure::Reply(code, text)) if code >= 500 => Fate::Refused(text),
                Err(failure) => Fate::GivenUp(failure.to_string()),
            };
            if !matches!(sent.fate, Fate::GivenUp(_)) || Instant::now() + pause >= self.give_up {
                return sent;
            }
            thread::sleep(pause);
            pause = (pause * 2).min(PAUSE.1);
        }
    }
}

/// Why a message was not taken.
#[derive(Debug)]
enum Failure {
    Io(io::Error),
    Reply(u16, String),
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "{error}"),
            Self::Reply(code, text) => write!(f, "{code} {text}"),
        }
    }
}

/// One message in a connection of its own, which is what a busy mail host sees.
fn transact(address: SocketAddr, letter: &Letter) -> Result<(), Failure> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.set_write_timeout(Some(ANSWER_WITHIN))?;
    let mut replies = BufReader::new(stream.try_clone()?);
    let mut stream = stream;
    expect(&mut replies, 220)?;
    stream.write_all(b"EHLO source.example\r\n")?;
    let offers = expect(&mut replies, 250)?.to_ascii_uppercase();
    let offered = |word: &str| offers.lines().any(|line| line.split(' ').next() == Some(word));

    let eight_bit = !letter.bytes.is_ascii() && offered("8BITMIME");
    let parameters = if eight_bit { " BODY=8BITMIME" } else { "" };
    let mut commands = vec![(format!("MAIL FROM:<{}>{parameters}", letter.sender), 250)];
    commands.extend(letter.recipients.iter().map(|to| (format!("RCPT TO:<{to}>"), 250)));
    commands.push(("DATA".to_owned(), 354));
    if offered("PIPELINING") {
        let lines: String = commands.iter().map(|(line, _)| format!("{line}\r\n")).collect();
        stream.write_all(lines.as_bytes())?;
    }
    for (line, code) in &commands {
        if !offered("PIPELINING") {
            stream.write_all(format!("{line}\r\n").as_bytes())?;
        }
        // Where one is refused the connection ends here, before any data, and so does the transaction.
        expect(&mut replies, *code)?;
    }
    stream.write_all(&stuffed(&letter.bytes))?;
    expect(&mut replies, 250)?;
    // The message is taken, whatever becomes of the farewell.
    let _ = stream.write_all(b"QUIT\r\n");
    Ok(())
}

/// Reads one reply, of several lines where it has them (RFC 5321, 4.2.1), and gives its text.
fn expect(replies: &mut BufReader<TcpStream>, expected: u16) -> Result<String, Failure> {
    let mut text = String::new();
    for _ in 0..REPLY_LINES_MAX {
        let mut line = Vec::new();
        replies.take(REPLY_BYTES_MAX).read_until(b'\n', &mut line)?;
        let line = String::from_utf8_lossy(&line);
        let code: u16 = line.get(..3).and_then(|code| code.parse().ok()).ok_or_else(no_reply)?;
        text.push_str(line.get(4..).unwrap_or_default().trim_end());
        if line.as_bytes().get(3) != Some(&b'-') {
            return if code == expected { Ok(text) } else { Err(Failure::Reply(code, text)) };
        }
        text.push('\n');
    }
    Err(no_reply().into())
}

fn no_reply() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the connection ended without a reply")
}

/// The message as it travels: dots at the beginning of a line doubled (RFC 5321, 4.5.2), and the final dot.
pub fn stuffed(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + bytes.len() / 64 + 8);
    let mut line_start = true;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        if line_start && line.starts_with(b".") {
            out.push(b'.');
        }
        line_start = line.ends_with(b"\r\n");
        out.extend_from_slice(line);
    }
    if !line_start {
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b".\r\n");
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_are_doubled_at_line_starts_only() {
        assert_eq!(stuffed(b".a\r\n..b\r\nc.\r\n"), b"..a\r\n...b\r\nc.\r\n.\r\n");
        assert_eq!(stuffed(b""), b".\r\n");
        assert_eq!(stuffed(b"x"), b"x\r\n.\r\n");
    }
}

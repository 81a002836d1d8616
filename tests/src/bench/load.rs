//! The source: closed loops that send letters, each in a connection of its own, as a busy mail host sees them.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use super::letters::Letters;
use crate::PATIENCE;

/// Where letters go.
#[derive(Clone, Debug)]
pub(super) enum Target {
    Smtp(SocketAddr),
    /// clamd's Unix socket, spoken to by INSTREAM.
    Clamd(PathBuf),
}

/// One letter on its way.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) number: u64,
    pub(super) began: Instant,
    /// When the receiver had answered.
    pub(super) answered: Instant,
}

/// When a loop ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Until {
    Elapsed(Duration),
    /// So many letters, of all loops together.
    Sent(usize),
}

/// Sends from `connections` loops at once, each with one letter at a time.
///
/// # Panics
/// When a letter is not taken.
pub(super) fn send(
    target: &Target,
    letters: &Letters,
    connections: usize,
    until: Until,
) -> Vec<Sent> {
    let begin = Instant::now();
    let work = |share: usize| {
        let (mut sent, mut letter) = (Vec::new(), Vec::new());
        let goes_on = |sent: &Vec<Sent>| match until {
            Until::Elapsed(limit) => begin.elapsed() < limit,
            Until::Sent(_) => sent.len() < share,
        };
        while goes_on(&sent) {
            let number = letters.write(&mut letter);
            let began = Instant::now();
            target
                .take(&letter)
                .unwrap_or_else(|error| panic!("letter {number} was not taken: {error}"));
            sent.push(Sent { number, began, answered: Instant::now() });
        }
        sent
    };
    let share = |loop_number: usize| match until {
        Until::Elapsed(_) => 0,
        Until::Sent(count) => count / connections + usize::from(loop_number < count % connections),
    };
    thread::scope(|scope| {
        let loops: Vec<_> =
            (0..connections).map(|number| scope.spawn(move || work(share(number)))).collect();
        loops.into_iter().flat_map(|one| one.join().expect("send letters")).collect()
    })
}

impl Target {
    fn take(&self, letter: &[u8]) -> io::Result<()> {
        match self {
            Self::Smtp(address) => by_smtp(*address, letter),
            Self::Clamd(socket) => by_instream(socket, letter),
        }
    }
}

fn by_smtp(address: SocketAddr, letter: &[u8]) -> io::Result<()> {
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (mut replies, mut stream) = (BufReader::new(&stream), &stream);
    expect(&mut replies, "220")?;
    stream.write_all(b"EHLO source.example\r\n")?;
    expect(&mut replies, "250")?;
    stream.write_all(
        b"MAIL FROM:<bench@sender.example>\r\nRCPT TO:<somebody@recipient.example>\r\nDATA\r\n",
    )?;
    for code in ["250", "250", "354"] {
        expect(&mut replies, code)?;
    }
    stream.write_all(letter)?;
    stream.write_all(b".\r\n")?;
    expect(&mut replies, "250")?;
    stream.write_all(b"QUIT\r\n")
}

/// Reads one reply, of several lines where it has them.
fn expect(replies: &mut BufReader<&TcpStream>, code: &str) -> io::Result<()> {
    let mut line = String::new();
    loop {
        line.clear();
        replies.read_line(&mut line)?;
        if !line.starts_with(code) {
            return Err(io::Error::other(format!(
                "{code} was expected and {:?} came",
                line.trim_end()
            )));
        }
        if line.as_bytes().get(3) != Some(&b'-') {
            return Ok(());
        }
    }
}

fn by_instream(socket: &PathBuf, letter: &[u8]) -> io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let length = u32::try_from(letter.len()).expect("a letter is small");
    stream.write_all(&[b"zINSTREAM\0", length.to_be_bytes().as_slice()].concat())?;
    stream.write_all(letter)?;
    stream.write_all(&[0; 4])?;
    let mut reply = Vec::new();
    stream.read_to_end(&mut reply)?;
    match reply.as_slice() {
        b"stream: OK\0" => Ok(()),
        other => Err(io::Error::other(format!("clamd said {:?}", String::from_utf8_lossy(other)))),
    }
}

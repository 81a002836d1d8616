//! An SMTP client that says exactly what it is told to.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

pub use gantry::demo::own::crlf;
pub use gantry::demo::source::stuffed;

use crate::PATIENCE;

/// One connection.
pub struct Client {
    reader: BufReader<TcpStream>,
    stream: TcpStream,
}

/// A reply, of one line or several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    pub lines: Vec<String>,
}

impl Reply {
    pub fn text(&self) -> String {
        self.lines.join("\n")
    }

    /// Whether EHLO offered this word, in a line that begins with it.
    pub fn offers(&self, word: &str) -> bool {
        self.lines.iter().any(|line| line.split(' ').next() == Some(word))
    }
}

impl Client {
    /// Connects and reads the greeting.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).unwrap_or_else(|error| panic!("connect to {address}: {error}"))
    }

    /// The same where the server may be away or refuse.
    ///
    /// # Errors
    /// No connection, or a greeting other than 220.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(2 * PATIENCE))?;
        let mut client = Self { reader: BufReader::new(stream.try_clone()?), stream };
        match client.try_reply()? {
            Reply { code: 220, .. } => Ok(client),
            other => Err(io::Error::other(format!("{} {}", other.code, other.text()))),
        }
    }

    /// Connects and says EHLO.
    pub fn greet(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.expect("EHLO client.example", 250);
        client
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// Where the server has gone.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Reads one reply.
    ///
    /// # Errors
    /// Where the server has gone or says no such thing.
    pub fn try_reply(&mut self) -> io::Result<Reply> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let code = line.get(..3).and_then(|code| code.parse().ok());
            let code = code.ok_or_else(|| io::Error::other(format!("no reply: {line:?}")))?;
            let more = line.as_bytes().get(3) == Some(&b'-');
            lines.push(line.get(4..).unwrap_or_default().trim_end().to_owned());
            if !more {
                return Ok(Reply { code, lines });
            }
        }
    }

    /// Sends a line and reads the reply.
    pub fn command(&mut self, line: &str) -> Reply {
        self.send(format!("{line}\r\n").as_bytes()).unwrap_or_else(|e| panic!("{line}: {e}"));
        self.try_reply().unwrap_or_else(|error| panic!("{line}: {error}"))
    }

    /// Sends a line whose reply must have this code.
    pub fn expect(&mut self, line: &str, code: u16) -> Reply {
        let reply = self.command(line);
        assert_eq!(reply.code, code, "{line}: {}", reply.text());
        reply
    }

    /// A whole transaction, pipelined; gives the first reply that is not a yes, or the one to the final dot.
    ///
    /// # Errors
    /// Where the server goes away in the middle.
    pub fn transact(&mut self, from: &str, to: &[&str], message: &[u8]) -> io::Result<Reply> {
        self.open(from, to)?;
        for expected in std::iter::repeat_n(250, to.len() + 1).chain([354]) {
            let reply = self.try_reply()?;
            if reply.code != expected {
                return Ok(reply);
            }
        }
        self.send(&stuffed(message))?;
        self.try_reply()
    }

    /// Sends MAIL, RCPT and DATA at once and reads nothing.
    ///
    /// # Errors
    /// Where the server has gone.
    pub fn open(&mut self, from: &str, to: &[&str]) -> io::Result<()> {
        let mut lines = format!("MAIL FROM:<{from}> BODY=8BITMIME\r\n");
        for address in to {
            lines.push_str(&format!("RCPT TO:<{address}>\r\n"));
        }
        lines.push_str("DATA\r\n");
        self.send(lines.as_bytes())
    }
}

/// One message in a connection of its own; panics unless it is accepted.
pub fn deliver(address: SocketAddr, to: &str, message: &[u8]) {
    let reply = offer(address, to, message);
    assert_eq!(reply.code, 250, "{}", reply.text());
}

/// The same with whatever answer comes.
pub fn offer(address: SocketAddr, to: &str, message: &[u8]) -> Reply {
    let mut client = Client::greet(address);
    client.transact("sender@client.example", &[to], message).expect("an answer")
}

/// A small message with this subject and text.
pub fn note(subject: &str, text: &str) -> Vec<u8> {
    format!(
        "From: sender@client.example\r\nTo: somebody@recipient.example\r\nSubject: {subject}\r\n\
         Message-ID: <{subject}@client.example>\r\nDate: Fri, 20 Nov 2026 10:00:00 +0000\r\n\r\n{text}\r\n"
    )
    .into_bytes()
}

/// The header fields that stand above `original` in what came out.
///
/// # Errors
/// A sentence where what came out does not end with the original, byte by byte, or something else than whole header
/// fields of the hook stands above it.
pub fn put_on_top<'a>(out: &'a [u8], original: &[u8]) -> Result<&'a str, String> {
    const OURS: [&str; 4] = ["received", "x-gantry", "x-gantry-trace", "authentication-results"];
    let Some(top) = out.strip_suffix(original) else {
        let ends = out.iter().rev().zip(original.iter().rev());
        let same = ends.take_while(|(a, b)| a == b).count();
        return Err(format!(
            "only the last {same} of {} bytes are the same; {} came out",
            original.len(),
            out.len()
        ));
    };
    let top = std::str::from_utf8(top).map_err(|error| format!("on top: {error}"))?;
    // Where the original has no header block, the fields need an empty line to end them.
    let fields = match top.strip_suffix("\r\n\r\n") {
        Some(_) if !begins_with_field(original) => &top[..top.len() - 2],
        _ => top,
    };
    for line in fields.split_inclusive("\r\n") {
        let name = line.split(':').next().unwrap_or_default().to_ascii_lowercase();
        let folded = line.starts_with([' ', '\t']);
        if !line.ends_with("\r\n") || !(folded || OURS.contains(&name.as_str())) {
            return Err(format!("on top stands {line:?}"));
        }
    }
    Ok(top)
}

/// Whether the first line is a header field (RFC 5322, 2.2) or ends an empty header block.
fn begins_with_field(message: &[u8]) -> bool {
    let name =
        message.iter().take_while(|byte| (b'!'..=b'~').contains(*byte) && **byte != b':').count();
    message.starts_with(b"\r\n") || (name > 0 && message.get(name) == Some(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hooks_fields_may_stand_on_top() {
        let original = b"Subject: x\r\n\r\ntext\r\n";
        let with = |top: &str| [top.as_bytes(), original].concat();
        let fine = "Received: by a\r\n\tfor b\r\nX-Gantry: clean\r\n";
        assert_eq!(put_on_top(&with(fine), original), Ok(fine));
        for wrong in ["Subject: y\r\n", "X-Gantry: clean", "X-Gantry: clean\n", "\r\n"] {
            assert!(put_on_top(&with(wrong), original).is_err(), "{wrong:?}");
        }
        assert!(put_on_top(b"X-Gantry: clean\r\n\r\nno field\r\n", b"no field\r\n").is_ok());
        assert!(put_on_top(b"X-Gantry: clean\r\nSubject: x\r\n\r\nText\r\n", original).is_err());
    }
}

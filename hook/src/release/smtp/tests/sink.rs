//! A next hop that does what a test tells it, and remembers what it was told. It shares no code with what it tests.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::tls::{ServerTls, Stream};

/// What is done about a command; `.` stands for the end of the data, `` for a new connection.
#[derive(Clone, Debug)]
pub(super) enum Do {
    /// What any good server would.
    Usual,
    Reply(&'static str),
    Close,
    /// Nothing, ever.
    Silence,
}

/// A message as it came, dots removed.
#[derive(Clone, Debug)]
pub(super) struct Taken {
    pub(super) recipients: Vec<String>,
    pub(super) bytes: Vec<u8>,
}

type Manners = dyn Fn(usize, &str) -> Do + Send + Sync;

#[derive(Clone)]
pub(super) struct Sink {
    pub(super) address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    connections: usize,
    commands: Vec<(usize, String)>,
    taken: Vec<Taken>,
}

struct Connection {
    number: usize,
    stream: Stream,
    tls: Option<ServerTls>,
    read: Vec<u8>,
    offers: &'static [&'static str],
    manners: Arc<Manners>,
    seen: Arc<Mutex<Seen>>,
    recipients: Vec<String>,
}

impl Sink {
    /// `manners` is asked about each command, with the number of its connection, from one.
    pub(super) async fn start(
        offers: &'static [&'static str],
        manners: impl Fn(usize, &str) -> Do + Send + Sync + 'static,
    ) -> Self {
        Self::start_with(offers, None, manners).await
    }

    /// With an answer to STARTTLS.
    pub(super) async fn start_with(
        offers: &'static [&'static str],
        tls: Option<ServerTls>,
        manners: impl Fn(usize, &str) -> Do + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let sink = Self { address: listener.local_addr().unwrap(), seen: Arc::default() };
        let (seen, manners): (_, Arc<Manners>) = (sink.seen.clone(), Arc::new(manners));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let number = {
                    let mut seen = seen.lock().unwrap();
                    seen.connections += 1;
                    seen.connections
                };
                let connection = Connection {
                    number,
                    stream: Stream::Plain(stream),
                    tls: tls.clone(),
                    read: Vec::new(),
                    offers,
                    manners: manners.clone(),
                    seen: seen.clone(),
                    recipients: Vec::new(),
                };
                tokio::spawn(connection.serve());
            }
        });
        sink
    }

    pub(super) fn connections(&self) -> usize {
        self.seen.lock().unwrap().connections
    }

    /// Every command, in order, of all connections.
    pub(super) fn commands(&self) -> Vec<String> {
        self.seen.lock().unwrap().commands.iter().map(|(_, line)| line.clone()).collect()
    }

    pub(super) fn last_taken(&self) -> Taken {
        self.seen.lock().unwrap().taken.last().unwrap().clone()
    }

    pub(super) fn taken(&self) -> Vec<Taken> {
        self.seen.lock().unwrap().taken.clone()
    }
}

impl Connection {
    async fn serve(mut self) {
        if !self.act("", "220 sink.example ESMTP").await {
            return;
        }
        while let Some(line) = self.line().await {
            let pipelines = self.offers.contains(&"PIPELINING");
            assert!(pipelines || self.read.is_empty(), "pipelined without leave behind {line:?}");
            self.seen.lock().unwrap().commands.push((self.number, line.clone()));
            let upper = line.to_ascii_uppercase();
            let usual = match upper.split([' ', ':']).next().unwrap_or_default() {
                "EHLO" | "LHLO" => self.greeting(),
                "STARTTLS" => "220 go".into(),
                "AUTH" => "235 2.7.0 welcome".into(),
                "DATA" if self.recipients.is_empty() => "554 5.5.1 nobody".into(),
                "DATA" => "354 go".into(),
                "QUIT" => "221 bye".into(),
                "HELO" | "MAIL" | "RCPT" | "RSET" | "XFORWARD" => "250 2.0.0 ok".into(),
                _ => "500 what".into(),
            };
            let (goes_on, code) = self.act_and_tell(&line, &usual).await;
            match upper.get(..4) {
                Some("RCPT") if code == "250" => self.recipients.push(line),
                Some("STAR") if code == "220" => {
                    assert!(self.read.is_empty(), "something stands behind STARTTLS");
                    let (Some(tls), Some(plain)) = (&self.tls, self.stream.take_plain()) else {
                        return;
                    };
                    let Ok(stream) = tls.accept(plain).await else { return };
                    self.stream = stream;
                }
                Some("MAIL" | "RSET") => self.recipients.clear(),
                Some("DATA") if code == "354" && !self.data().await => return,
                _ => {}
            }
            if !goes_on {
                return;
            }
        }
    }

    fn greeting(&self) -> String {
        let mut lines = vec!["sink.example"];
        let in_the_clear = |offer: &&&str| **offer != "STARTTLS" || !self.stream.is_encrypted();
        lines.extend(self.offers.iter().filter(in_the_clear));
        let last = lines.len() - 1;
        let each = lines.iter().enumerate();
        let each =
            each.map(|(at, line)| format!("250{}{line}", if at == last { ' ' } else { '-' }));
        each.collect::<Vec<_>>().join("\r\n")
    }

    /// Reads to CRLF, dot, CRLF and nothing else.
    async fn data(&mut self) -> bool {
        if matches!((self.manners)(self.number, "<data>"), Do::Close) {
            return false;
        }
        let mut bytes = Vec::new();
        loop {
            let Some(line) = self.raw_line().await else { return false };
            match line.as_slice() {
                b".\r\n" => break,
                _ if line.first() == Some(&b'.') => bytes.extend_from_slice(&line[1..]),
                _ => bytes.extend_from_slice(&line),
            }
        }
        let recipients = std::mem::take(&mut self.recipients);
        let (goes_on, code) = self.act_and_tell(".", "250 2.0.0 queued as 7").await;
        if code == "250" || code.is_empty() {
            self.seen.lock().unwrap().taken.push(Taken { recipients, bytes });
        }
        goes_on
    }

    async fn act(&mut self, line: &str, usual: &str) -> bool {
        self.act_and_tell(line, usual).await.0
    }

    /// Whether the connection goes on, and the code that was said.
    async fn act_and_tell(&mut self, line: &str, usual: &str) -> (bool, String) {
        let reply = match (self.manners)(self.number, line) {
            Do::Usual => usual,
            Do::Reply(reply) => reply,
            Do::Close => return (false, String::new()),
            Do::Silence => std::future::pending().await,
        };
        let sent = self.stream.write_all(format!("{reply}\r\n").as_bytes()).await;
        let sent = sent.and(self.stream.flush().await);
        (sent.is_ok(), reply.get(..3).unwrap_or_default().to_owned())
    }

    async fn line(&mut self) -> Option<String> {
        let line = self.raw_line().await?;
        Some(String::from_utf8(line[..line.len() - 2].to_vec()).unwrap())
    }

    async fn raw_line(&mut self) -> Option<Vec<u8>> {
        let mut searched = 0;
        loop {
            let from = &self.read[searched..];
            if let Some(end) = from.windows(2).position(|pair| pair == b"\r\n") {
                return Some(self.read.drain(..searched + end + 2).collect());
            }
            searched = self.read.len().saturating_sub(1);
            let mut piece = [0; 4_096];
            match self.stream.read(&mut piece).await {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.read.extend_from_slice(&piece[..count]),
            }
        }
    }
}

//! An SMTP server that takes everything, keeps nothing, and remembers when each letter came.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Instant;

use super::letters::Letters;
use crate::PATIENCE;

/// What is read at once.
const BUFFER_BYTES: usize = 64 * 1024;
/// How much of a message is searched for its number: what the hook puts on top, and the first field.
const NUMBER_WITHIN_BYTES: usize = 4 * 1024;
const OFFERS: &str = "250-drain.example\r\n250-PIPELINING\r\n250-SIZE 536870912\r\n250-8BITMIME\r\n250-SMTPUTF8\r\n250-DSN\r\n\
                      250-ENHANCEDSTATUSCODES\r\n250 XFORWARD NAME ADDR PORT PROTO HELO IDENT SOURCE\r\n";
/// The data ends with it; the message before it has it nowhere, since its dots are stuffed (RFC 5321, 4.5.2).
const END: &[u8] = b"\r\n.\r\n";

/// A running drain; it stops taking connections when dropped.
pub(super) struct Drain {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    arrived: Mutex<Vec<(u64, Instant)>>,
    more: Condvar,
    stopped: AtomicBool,
}

impl Drain {
    pub(super) fn start() -> Self {
        let listener =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("find a port for the drain");
        let shared = Arc::new(Shared::default());
        let drain = Self { address: listener.local_addr().unwrap(), shared: Arc::clone(&shared) };
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if shared.stopped.load(Ordering::Acquire) {
                    return;
                }
                let shared = Arc::clone(&shared);
                // A client that breaks off has no message here, which is all there is to say.
                thread::spawn(move || shared.serve(&stream));
            }
        });
        drain
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until so many letters are there since the last time, and gives and forgets them.
    pub(super) fn take(&self, count: usize) -> Vec<(u64, Instant)> {
        let arrived = self.shared.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            self.shared.more.wait_timeout_while(arrived, PATIENCE, |arrived| arrived.len() < count);
        let (mut arrived, elapsed) = waited.unwrap_or_else(PoisonError::into_inner);
        assert!(
            !elapsed.timed_out(),
            "{} of {count} messages came out within {PATIENCE:?}",
            arrived.len()
        );
        std::mem::take(&mut arrived)
    }
}

impl Drop for Drain {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Release);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, stream);
        let mut writer = stream;
        writer.write_all(b"220 drain.example ESMTP\r\n")?;
        let (mut line, mut replies) = (String::new(), String::new());
        loop {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let verb = line.get(..4).unwrap_or_default().to_ascii_uppercase();
            match verb.as_str() {
                "EHLO" => replies.push_str(OFFERS),
                "DATA" => replies.push_str("354 go on\r\n"),
                "QUIT" => replies.push_str("221 2.0.0 bye\r\n"),
                _ => replies.push_str("250 2.0.0 ok\r\n"),
            }
            // Pipelined commands are answered together (RFC 2920, 3.2).
            if reader.buffer().is_empty() {
                writer.write_all(replies.as_bytes())?;
                replies.clear();
            }
            match verb.as_str() {
                "DATA" => {
                    self.take_message(&mut reader)?;
                    writer.write_all(b"250 2.0.0 taken\r\n")?;
                }
                "QUIT" => return Ok(()),
                _ => {}
            }
        }
    }

    /// Reads up to the final dot. Nothing follows it before it is answered, so it ends a read.
    fn take_message(&self, reader: &mut BufReader<&TcpStream>) -> io::Result<()> {
        let (mut top, mut tail) = (Vec::new(), Vec::new());
        let mut buffer = vec![0; BUFFER_BYTES];
        while tail != END {
            let count = reader.read(&mut buffer)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let bytes = &buffer[..count];
            let room = NUMBER_WITHIN_BYTES.saturating_sub(top.len());
            top.extend_from_slice(&bytes[..room.min(count)]);
            tail.extend_from_slice(&bytes[count.saturating_sub(END.len())..]);
            tail.drain(..tail.len().saturating_sub(END.len()));
        }
        let number = Letters::number(&top).expect("a letter of the bench");
        self.arrived.lock().unwrap_or_else(PoisonError::into_inner).push((number, Instant::now()));
        self.more.notify_all();
        Ok(())
    }
}

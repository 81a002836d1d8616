//! `GET /metrics`, and nothing else, by hand: a web framework would be most of what a hook is made of.
//!
//! Whoever comes here cannot disturb mail: few connections at once, a bound and a time limit for all that one does, and
//! the loop is asked for its figures at most once in [`KEPT_FOR`], however many ask.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};

use super::Page;

/// What the answer is (Prometheus' exposition formats, text format 0.0.4).
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Connections at once. One or two servers scrape; further ones are closed at once.
const CONNECTIONS_MAX: usize = 8;
/// The request line and its header fields, in bytes. Prometheus sends some three hundred.
const HEAD_BYTES_MAX: usize = 4 * 1024;
/// From the connection to its end.
const TIME_MAX: Duration = Duration::from_secs(5);
/// For how long a page is shown again before the loop is asked for a new one.
const KEPT_FOR: Duration = Duration::from_secs(1);
/// The pause after a connection could not be taken: the process has too many files open.
const ACCEPT_RETRY: Duration = Duration::from_millis(500);

/// How the loop is asked: what it sends here is shown.
pub type Asked = oneshot::Sender<Page>;

/// The last page, and when it was made.
type Last = Mutex<Option<(Instant, Arc<str>)>>;

/// Opens the room on an address; `asked` is the way to the loop. One beyond loopback is warned of, since whoever reaches it
/// may read what is there.
///
/// # Errors
/// Where the address cannot be had.
pub async fn open(address: SocketAddr, asked: mpsc::Sender<Asked>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    let local = listener.local_addr()?;
    if address.ip().is_loopback() {
        tracing::info!(http = %local, "showing metrics");
    } else {
        tracing::warn!(http = %local, "showing metrics to everybody who reaches this address");
    }
    tokio::spawn(serve(listener, asked));
    Ok(())
}

/// Shows pages until the listener's runtime ends.
pub(super) async fn serve(listener: TcpListener, asked: mpsc::Sender<Asked>) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let last = Arc::new(Last::default());
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(ACCEPT_RETRY).await;
            continue;
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let (asked, last) = (asked.clone(), Arc::clone(&last));
        tokio::spawn(async move {
            let _place = place;
            // Whoever breaks off or takes too long has no answer, and nobody else is disturbed.
            let _ = timeout(TIME_MAX, answer(stream, &asked, &last)).await;
        });
    }
}

async fn answer(mut stream: TcpStream, asked: &mpsc::Sender<Asked>, last: &Last) -> io::Result<()> {
    let (status, head_only, page) = match read_head(&mut stream).await? {
        Err(refusal) => (refusal, false, None),
        Ok(head) => match wanted(&head) {
            Err(refusal) => (refusal, false, None),
            Ok(head_only) => match page(asked, last).await {
                Some(page) => ("200 OK", head_only, Some(page)),
                None => ("503 Service Unavailable", head_only, None),
            },
        },
    };
    let sentence = format!("{status}\n");
    let (kind, body) = match &page {
        Some(page) => (CONTENT_TYPE, page.as_ref()),
        None => ("text/plain; charset=utf-8", sentence.as_str()),
    };
    let allow = if status.starts_with("405") { "Allow: GET, HEAD\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{allow}Connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).await?;
    if !head_only {
        stream.write_all(body.as_bytes()).await?;
    }
    stream.shutdown().await
}

/// The request line and the header fields, to the empty line behind them, or the status with which they are refused.
async fn read_head(
    stream: &mut (impl AsyncRead + Unpin),
) -> io::Result<Result<Vec<u8>, &'static str>> {
    let mut head = Vec::new();
    let mut piece = [0; 512];
    loop {
        let count = stream.read(&mut piece).await?;
        if count == 0 {
            return Ok(Err("400 Bad Request"));
        }
        head.extend_from_slice(piece.get(..count).unwrap_or_default());
        if head.windows(4).any(|end| end == b"\r\n\r\n") {
            return Ok(Ok(head));
        }
        if head.len() > HEAD_BYTES_MAX {
            return Ok(Err("431 Request Header Fields Too Large"));
        }
    }
}

/// Whether only the head of the answer is wanted, by the request line (RFC 9112 section 3), or how it is refused. The header
/// fields say nothing that matters here.
fn wanted(head: &[u8]) -> Result<bool, &'static str> {
    const BAD: &str = "400 Bad Request";
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = std::str::from_utf8(line).map_err(|_| BAD)?;
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words.as_slice() else { return Err(BAD) };
    if !matches!(*version, "HTTP/1.1" | "HTTP/1.0") {
        return Err(BAD);
    }
    let head_only = match *method {
        "GET" => false,
        "HEAD" => true,
        _ => return Err("405 Method Not Allowed"),
    };
    let path = target.split('?').next().unwrap_or_default();
    if path == "/metrics" {
        Ok(head_only)
    } else {
        Err("404 Not Found: the figures are under /metrics")
    }
}

/// The last page, if it is new enough, or a new one. Of several who ask at once the first one asks the loop.
async fn page(asked: &mpsc::Sender<Asked>, last: &Last) -> Option<Arc<str>> {
    let mut last = last.lock().await;
    if let Some((made, page)) = last.as_ref()
        && made.elapsed() < KEPT_FOR
    {
        return Some(Arc::clone(page));
    }
    let (reply, replied) = oneshot::channel();
    asked.send(reply).await.ok()?;
    let page: Arc<str> = replied.await.ok()?.text().into();
    *last = Some((Instant::now(), Arc::clone(&page)));
    Some(page)
}

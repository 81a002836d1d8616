//! By raw TCP: what a server that scrapes sees, and what others do not get.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::serve::serve;
use super::*;

/// A room whose loop counts how often it was asked.
async fn room() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asked, mut asks) = mpsc::channel::<Asked>(1);
    tokio::spawn(serve(listener, asked));
    tokio::spawn(async move {
        let mut count = 0;
        while let Some(reply) = asks.recv().await {
            count += 1;
            let mut page = Page::default();
            page.counter("asked_total", "How often.", count);
            let _ = reply.send(page);
        }
    });
    address
}

async fn said(address: SocketAddr, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    // Who is refused early may be cut off, too.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).unwrap()
}

#[test]
fn samples_are_written_as_the_format_says() {
    let mut page = Page::default();
    let mut waiting = page.family("waiting_messages", Kind::Gauge, "Two\nlines, a \\.");
    waiting.sample(&[("mailbox", "a\"b\\c\nd")], 3).sample(&[("mailbox", "x"), ("worker", "y")], 4);
    let mut took = Histogram::default();
    [3, 5, 30, 700_000].into_iter().for_each(|ms| took.add(ms));
    page.family("took_seconds", Kind::Histogram, "How long.").histogram(&[("module", "m")], &took);
    assert_eq!(
        page.text(),
        "# HELP waiting_messages Two\\nlines, a \\\\.\n\
         # TYPE waiting_messages gauge\n\
         waiting_messages{mailbox=\"a\\\"b\\\\c\\nd\"} 3\n\
         waiting_messages{mailbox=\"x\",worker=\"y\"} 4\n\
         # HELP took_seconds How long.\n\
         # TYPE took_seconds histogram\n\
         took_seconds_bucket{module=\"m\",le=\"0.005\"} 2\n\
         took_seconds_bucket{module=\"m\",le=\"0.02\"} 2\n\
         took_seconds_bucket{module=\"m\",le=\"0.1\"} 3\n\
         took_seconds_bucket{module=\"m\",le=\"0.5\"} 3\n\
         took_seconds_bucket{module=\"m\",le=\"2\"} 3\n\
         took_seconds_bucket{module=\"m\",le=\"10\"} 3\n\
         took_seconds_bucket{module=\"m\",le=\"60\"} 3\n\
         took_seconds_bucket{module=\"m\",le=\"600\"} 3\n\
         took_seconds_bucket{module=\"m\",le=\"+Inf\"} 4\n\
         took_seconds_sum{module=\"m\"} 700.038\n\
         took_seconds_count{module=\"m\"} 4\n"
    );
}

#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn metrics_are_shown_and_nothing_else_is() {
    let address = room().await;
    let shown = said(address, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(
        shown.starts_with("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4"),
        "{shown}"
    );
    let (head, body) = shown.split_once("\r\n\r\n").unwrap();
    assert!(head.contains(&format!("Content-Length: {}\r\n", body.len())), "{head}");
    assert!(body.ends_with("\nasked_total 1\n"), "{body}");
    let head = said(address, b"HEAD /metrics?x=1 HTTP/1.0\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK") && head.ends_with("\r\n\r\n"), "{head}");
    for (request, refusal) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "404"),
        (b"GET /metrics/../x HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc", "405"),
        (b"GET /metrics\r\n\r\n", "400"),
        (b"GET /metrics HTTP/2.0\r\n\r\n", "400"),
        (b"\xff\xfe\r\n\r\n", "400"),
        (b"\r\n\r\n", "400"),
        (&[b'x'; 5_000], "431"),
    ] {
        let said = said(address, request).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {refusal} ")), "{request:?}: {said}");
    }
    // Shown again within the second, and then made anew.
    assert!(said(address, b"GET /metrics HTTP/1.1\r\n\r\n").await.ends_with("asked_total 1\n"));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(said(address, b"GET /metrics HTTP/1.1\r\n\r\n").await.ends_with("asked_total 2\n"));
}

/// Connections that say nothing take all places there are, and lose them when their time is over.
#[tokio::test(flavor = "current_thread", start_paused = true)]
async fn whoever_is_slow_loses_the_place() {
    let address = room().await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"GET /met").await.unwrap();
        slow.push(stream);
    }
    // All are closed without a word: those without a place at once, the others at the end of their time.
    for stream in &mut slow {
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        assert_eq!(answer, b"");
    }
    let shown = said(address, b"GET /metrics HTTP/1.1\r\n\r\n").await;
    assert!(shown.starts_with("HTTP/1.1 200 OK"), "{shown}");
}

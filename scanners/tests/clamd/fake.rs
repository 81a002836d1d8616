//! A server that speaks clamd's protocol as far as a test wants it to.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// What becomes of a connection that asked to scan.
pub(crate) type Scan = fn(TcpStream) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Answers PING and VERSION, and leaves each INSTREAM to `scan`. Ends with the test's runtime.
pub(crate) async fn serve(scan: Scan) -> ClamdAddress {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(converse(stream, scan));
        }
    });
    ClamdAddress::Tcp(address.to_string())
}

async fn converse(mut stream: TcpStream, scan: Scan) {
    let mut command = Vec::new();
    loop {
        match stream.read_u8().await {
            Ok(0) => break,
            Ok(byte) => command.push(byte),
            Err(_) => return,
        }
    }
    match command.as_slice() {
        b"zPING" => drop(stream.write_all(b"PONG\0").await),
        b"zVERSION" => drop(stream.write_all(b"ClamAV 0.0.1/7/today\0").await),
        b"zINSTREAM" => scan(stream).await,
        other => panic!("{}", String::from_utf8_lossy(other)),
    }
}

/// Reads a stream to its end as clamd would, and returns how many bytes it had.
pub(crate) async fn read_all(stream: &mut TcpStream) -> std::io::Result<usize> {
    let mut total = 0;
    loop {
        let length = usize::try_from(stream.read_u32().await?).unwrap();
        if length == 0 {
            return Ok(total);
        }
        let mut chunk = vec![0; length];
        stream.read_exact(&mut chunk).await?;
        total += length;
    }
}

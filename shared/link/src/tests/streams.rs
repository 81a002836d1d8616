//! Frames and bodies, and peers that send what they should not.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use gantry_protocol::frame::{
    Beat, Cancel, FrameError, HostReservation, Progress, Resume, WorkerControl, WorkerReservation,
    encode,
};
use gantry_protocol::id::{Fence, MessageId};
use gantry_protocol::limits::CONTROL_FRAME_BYTES_MAX;
use ring::digest::{SHA256, digest};

use super::*;
use crate::link::Closed;

fn sha256(bytes: &[u8]) -> Digest {
    Digest(digest(&SHA256, bytes).as_ref().try_into().unwrap())
}

fn cancel() -> HostReservation {
    HostReservation::Cancel(Cancel { reason: "enough".to_owned() })
}

fn message(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index * 31 % 251).unwrap()).collect()
}

/// A host's raw stream to a worker, and the worker's receiver of it.
async fn raw_reservation(
    host: &HostLink,
    worker: &WorkerLink,
    first: &[u8],
) -> (quinn::SendStream, FrameReceiver<HostReservation>) {
    let (mut send, _receive) = within(host.connection.wire.quic.open_bi()).await.unwrap();
    send.write_all(first).await.unwrap();
    let (_sender, receiver) = within(worker.connection.accept_reservation()).await.unwrap();
    (send, receiver)
}

#[tokio::test]
async fn frames_and_bodies_pass_both_ways() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let (mut host, mut worker) = linked(&cluster, &mut server, "pc-1").await;
    let beat = WorkerControl::Beat(Beat { count: 1 });
    worker.sender.send(&beat).await.unwrap();
    assert_eq!(within(host.receiver.recv()).await, Ok(Some(beat)));

    let body = message(300_000);
    let (length, said) = (300_000, sha256(&body));
    let (mut to_worker, mut from_worker) = host.connection.open_reservation().await.unwrap();
    let sent = body.clone();
    let task = tokio::spawn(async move {
        to_worker.send(&cancel()).await.unwrap();
        to_worker.send_body(&mut sent.as_slice(), length, said).await.unwrap();
        to_worker.send_body_blocking(std::io::Cursor::new(sent), length, said).await.unwrap();
        to_worker.send(&cancel()).await.unwrap();
        to_worker.finish().unwrap();
        to_worker.delivered().await.unwrap();
    });
    let (mut to_host, mut from_host) =
        within(worker.connection.accept_reservation()).await.unwrap();
    assert_eq!(within(from_host.recv()).await, Ok(Some(cancel())));
    for _ in 0..2 {
        let mut got = Vec::new();
        within(from_host.receive_body(length, said, &mut got)).await.unwrap();
        assert!(got == body);
    }
    assert_eq!(within(from_host.recv()).await, Ok(Some(cancel())));
    assert_eq!(within(from_host.recv()).await, Ok(None));
    within(task).await.unwrap();

    let progress = WorkerReservation::Progress(Progress { work: 1, silence_ms: 5 });
    to_host.send(&progress).await.unwrap();
    to_host.send_body(&mut [].as_slice(), 0, sha256(b"")).await.unwrap();
    to_host.finish().unwrap();
    assert_eq!(within(from_worker.recv()).await, Ok(Some(progress)));
    let mut got = Vec::new();
    within(from_worker.receive_body(0, sha256(b""), &mut got)).await.unwrap();
    assert_eq!(within(from_worker.expect_end()).await, Ok(()));
}

#[tokio::test]
async fn a_worker_resumes_on_a_stream_of_its_own() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let (host, worker) = linked(&cluster, &mut server, "pc-1").await;
    let resume = Resume {
        message: MessageId { epoch: 1, counter: 2 },
        fence: Fence { epoch: 1, counter: 3 },
    };
    let (_to_host, mut from_host) = within(worker.connection.open_resume(resume)).await.unwrap();
    let (mut to_worker, mut from_worker) = within(host.connection.accept_resume()).await.unwrap();
    assert_eq!(within(from_worker.recv()).await, Ok(Some(WorkerReservation::Resume(resume))));
    to_worker.send(&cancel()).await.unwrap();
    assert_eq!(within(from_host.recv()).await, Ok(Some(cancel())));
}

#[tokio::test]
async fn garbage_on_the_control_stream_is_an_error_of_the_peers() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let seed: u64 = 0x5eed;
    eprintln!("seed {seed:#x}");
    let mut state = seed;
    let garbage: Vec<u8> = (0..4_096)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56).to_le_bytes()[0]
        })
        .collect();
    let too_long = {
        let mut frame = 4u16.to_be_bytes().to_vec();
        let length = u32::try_from(CONTROL_FRAME_BYTES_MAX + 1).unwrap();
        frame.extend(length.to_be_bytes());
        frame
    };
    let unknown = [0, 64, 0, 0, 0, 0].to_vec();
    let malformed = [0, 6, 0, 0, 0, 2, 255, 255].to_vec();
    type Expected = fn(&FrameError) -> bool;
    let cases: [(Vec<u8>, Expected); 4] = [
        (garbage, |_| true),
        (too_long, |error| matches!(error, FrameError::TooLong { number: 4, .. })),
        (unknown, |error| matches!(error, FrameError::UnknownNumber { number: 64 })),
        (malformed, |error| matches!(error, FrameError::Malformed { number: 6, .. })),
    ];
    for (index, (bytes, expected)) in cases.into_iter().enumerate() {
        let (mut host, mut worker) = linked(&cluster, &mut server, &format!("pc-{index}")).await;
        worker.sender.write_raw(&bytes).await;
        let error = within(host.receiver.recv()).await.unwrap_err();
        assert!(error.is_misbehaviour(), "{error}");
        let StreamError::Frame(frame) = &error else { panic!("{error}") };
        assert!(expected(frame), "{index}: {frame}");
        // As the service does: the worker hears why.
        host.connection.close(CloseCode::Misbehaved, &error.to_string());
        let text = error.to_string();
        let closed = within(worker.connection.closed()).await;
        assert_eq!(closed, Closed::ByPeer { code: CloseCode::Misbehaved, text });
    }
}

#[tokio::test]
async fn a_frame_that_is_cut_or_over_the_limit() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let (host, mut worker) = linked(&cluster, &mut server, "pc-1").await;
    let whole = encode(&cancel()).unwrap();
    for cut in 1..whole.len() {
        let (mut send, mut receiver) = raw_reservation(&host, &worker, &whole[..cut]).await;
        send.finish().unwrap();
        assert_eq!(within(receiver.recv()).await, Err(StreamError::FrameCut), "{cut}");
    }
    // What is over the limit is not even sent, and the stream goes on.
    let long = "x".repeat(CONTROL_FRAME_BYTES_MAX);
    let mut greedy = hello("pc-1");
    greedy.software = long;
    let error = worker.sender.send(&WorkerControl::Hello(greedy)).await.unwrap_err();
    assert!(matches!(error, StreamError::Frame(FrameError::TooLong { .. })));
    worker.sender.send(&WorkerControl::Beat(Beat { count: 1 })).await.unwrap();
}

#[tokio::test]
async fn a_body_that_is_not_what_was_said() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let (host, worker) = linked(&cluster, &mut server, "pc-1").await;
    let body = message(1_000);
    let said = sha256(&body);
    let mut sink = Vec::new();

    let (mut send, mut receiver) = raw_reservation(&host, &worker, &body[..999]).await;
    send.finish().unwrap();
    let got = within(receiver.receive_body(1_000, said, &mut sink)).await;
    assert_eq!(got, Err(StreamError::BodyCut { got: 999, length: 1_000 }));

    let (mut send, mut receiver) = raw_reservation(&host, &worker, &body).await;
    send.write_all(b"!").await.unwrap();
    send.finish().unwrap();
    within(receiver.receive_body(1_000, said, &mut sink)).await.unwrap();
    assert_eq!(within(receiver.expect_end()).await, Err(StreamError::TooLong));

    let mut other = body.clone();
    other[500] ^= 1;
    let (_send, mut receiver) = raw_reservation(&host, &worker, &other).await;
    let got = within(receiver.receive_body(1_000, said, &mut sink)).await;
    assert_eq!(got, Err(StreamError::DigestMismatch { said, got: sha256(&other) }));

    let (mut send, mut receiver) = raw_reservation(&host, &worker, &body[..500]).await;
    send.reset(quinn::VarInt::from_u32(9)).unwrap();
    let got = within(receiver.receive_body(1_000, said, &mut sink)).await;
    assert_eq!(got, Err(StreamError::Reset { code: 9 }));
}

#[tokio::test]
async fn a_source_that_is_not_what_was_said_resets_the_stream() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let (host, worker) = linked(&cluster, &mut server, "pc-1").await;
    let body = message(1_000);
    let mut other = body.clone();
    other[0] ^= 1;
    let longer = message(1_001);
    for (source, words) in
        [(&body[..999], "999 of 1000"), (&longer, "longer than 1000"), (&other, "its SHA-256 is")]
    {
        let (mut sender, _receiver) = host.connection.open_reservation().await.unwrap();
        sender.send(&cancel()).await.unwrap();
        let (_back, mut receiver) = within(worker.connection.accept_reservation()).await.unwrap();
        assert_eq!(within(receiver.recv()).await, Ok(Some(cancel())));
        let mut source = source;
        let error = sender.send_body(&mut source, 1_000, sha256(&body)).await.unwrap_err();
        assert!(error.to_string().contains(words), "{error}");
        assert!(!error.is_misbehaviour());
        let mut sink = Vec::new();
        let got = within(receiver.receive_body(1_000, sha256(&body), &mut sink)).await;
        assert!(
            matches!(got, Err(StreamError::Reset { .. } | StreamError::DigestMismatch { .. })),
            "{got:?}"
        );
    }
}

/// Who sends a verified body answers for its bytes; for its length the stream does, and the peer for all of it.
#[tokio::test]
async fn a_verified_body_keeps_its_length_and_is_compared_by_the_peer() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let (host, worker) = linked(&cluster, &mut server, "pc-1").await;
    let body = message(1_000);
    let mut other = body.clone();
    other[0] ^= 1;
    for source in [body.clone(), other.clone(), body[..999].to_vec(), message(1_001)] {
        let (mut sender, _receiver) = host.connection.open_reservation().await.unwrap();
        sender.send(&cancel()).await.unwrap();
        let (_back, mut receiver) = within(worker.connection.accept_reservation()).await.unwrap();
        assert_eq!(within(receiver.recv()).await, Ok(Some(cancel())));
        let mut writer = sender.verified_body(1_000);
        let written = match writer.write(Bytes::from(source.clone())).await {
            Ok(()) => writer.end().await,
            Err(error) => Err(error),
        };
        let mut sink = Vec::new();
        let got = within(receiver.receive_body(1_000, sha256(&body), &mut sink)).await;
        if source == body {
            assert_eq!((written, got), (Ok(()), Ok(())));
            assert_eq!(sink, body);
        } else if source == other {
            assert_eq!(written, Ok(()));
            assert!(matches!(got, Err(StreamError::DigestMismatch { .. })), "{got:?}");
        } else {
            assert!(matches!(written, Err(StreamError::Source { .. })), "{written:?}");
            assert!(matches!(got, Err(StreamError::Reset { .. })), "{got:?}");
        }
    }
}

#[tokio::test]
async fn a_sender_that_is_dropped_never_looks_finished() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let (host, worker) = linked(&cluster, &mut server, "pc-1").await;
    let (mut sender, _receiver) = host.connection.open_reservation().await.unwrap();
    sender.send(&cancel()).await.unwrap();
    let (_back, mut receiver) = within(worker.connection.accept_reservation()).await.unwrap();
    assert_eq!(within(receiver.recv()).await, Ok(Some(cancel())));
    drop(sender);
    assert_eq!(within(receiver.recv()).await, Err(StreamError::Reset { code: 0 }));
}

/// A worker that reads nothing of one reservation: the host's send waits with little in memory, while control frames
/// and other reservations pass.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_stops_reading_stops_nothing_else() {
    const PIECE: usize = 64 * 1024;
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let (mut host, mut worker) = linked(&cluster, &mut server, "pc-1").await;
    let (mut stuck, _from) = host.connection.open_reservation().await.unwrap();
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    let blocked = tokio::spawn(async move {
        let mut body = stuck.body(1 << 30, Digest([0; 32]));
        for _ in 0..(1 << 30) / PIECE {
            body.write(Bytes::from(vec![7; PIECE])).await?;
            counter.fetch_add(u64::try_from(PIECE).unwrap(), Ordering::SeqCst);
        }
        Ok::<(), StreamError>(())
    });
    let (_to_host, unread) = within(worker.connection.accept_reservation()).await.unwrap();

    let body = message(8 * 1024 * 1024);
    let (length, said) = (8 * 1024 * 1024, sha256(&body));
    for count in 0..3 {
        let (mut sender, _receiver) = host.connection.open_reservation().await.unwrap();
        let sent = body.clone();
        let task = tokio::spawn(async move {
            sender.send_body(&mut sent.as_slice(), length, said).await.unwrap();
            sender.finish().unwrap();
            sender.delivered().await.unwrap();
        });
        let (_back, mut receiver) = within(worker.connection.accept_reservation()).await.unwrap();
        within(receiver.receive_body(length, said, &mut tokio::io::sink())).await.unwrap();
        assert_eq!(within(receiver.expect_end()).await, Ok(()));
        within(task).await.unwrap();
        let beat = WorkerControl::Beat(Beat { count });
        worker.sender.send(&beat).await.unwrap();
        assert_eq!(within(host.receiver.recv()).await, Ok(Some(beat)));
    }
    // 24 MB have passed beside it; it got no further than the worker's window for one stream.
    assert!(!blocked.is_finished());
    let taken = taken.load(Ordering::SeqCst);
    assert!(taken <= 256 * 1024, "{taken} bytes were taken");
    drop(unread);
    let ended = within(blocked).await.unwrap();
    assert_eq!(ended, Err(StreamError::Stopped { code: 0 }));
}

#[tokio::test]
async fn a_worker_finds_its_host_again_on_the_same_port() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let address = server.local_addr();
    let (host, worker) = linked(&cluster, &mut server, "pc-1").await;
    within(server.shutdown(CloseCode::ShuttingDown, "mx1 restarts")).await;
    assert_eq!(within(host.connection.closed()).await, Closed::ByUs);
    drop(host);
    let closed = within(worker.connection.closed()).await;
    let text = "mx1 restarts".to_owned();
    assert_eq!(closed, Closed::ByPeer { code: CloseCode::ShuttingDown, text });

    let node = cluster.node("pc-1", Role::Worker);
    let target = address.to_string();
    let again = tokio::spawn(async move {
        let mut backoff = Backoff::new();
        let short = ConnectOptions { time_max: Duration::from_millis(500), ..options() };
        loop {
            match connect(&target, &node, &hello("pc-1"), &short).await {
                Ok((welcome, link)) => return (welcome, link),
                Err(error) => assert!(error.is_passing(), "{error}"),
            }
            tokio::time::sleep(backoff.next_wait(0)).await;
        }
    });
    // The port is free as soon as the old server's tasks have noticed.
    let mut server = within(async {
        loop {
            let options = ServerOptions { clock: cluster.clock.clock() };
            match Server::bind(address, &cluster.host(), None, options) {
                Ok(server) => return server,
                Err(ServerError::Bind { .. }) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await;
    let (_identity, mut host) = accept(&mut server).await;
    let (welcome, mut worker) = within(again).await.unwrap();
    assert_eq!(welcome.host, "mx1");
    let beat = WorkerControl::Beat(Beat { count: 1 });
    worker.sender.send(&beat).await.unwrap();
    assert_eq!(within(host.receiver.recv()).await, Ok(Some(beat)));
}

/// A frame is read whole although its reader was cancelled at each byte of it.
#[tokio::test]
async fn reading_may_be_cancelled() {
    let cluster = Cluster::new();
    let mut server = cluster.server();
    let (host, worker) = linked(&cluster, &mut server, "pc-1").await;
    let whole = encode(&cancel()).unwrap();
    let (mut send, mut receiver) = raw_reservation(&host, &worker, &whole[..1]).await;
    for byte in &whole[1..] {
        let read = async {
            tokio::select! {
                biased;
                got = receiver.recv() => Some(got),
                written = send.write_all(std::slice::from_ref(byte)) => {
                    written.unwrap();
                    None
                }
            }
        };
        if let Some(got) = within(read).await {
            panic!("too early: {got:?}");
        }
    }
    assert_eq!(within(receiver.recv()).await, Ok(Some(cancel())));
}

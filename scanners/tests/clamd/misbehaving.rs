//! Against servers that answer wrongly, late, too much, or not at all.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Semaphore;

use super::fake::{Scan, read_all, serve};
use super::*;

async fn error_of(scan: Scan, bytes: &[u8], change: impl FnOnce(&mut ClamdConfig)) -> ModuleError {
    let module = module(serve(scan).await, change);
    outcome(&module, &job(bytes)).await.unwrap_err()
}

#[track_caller]
fn assert_failed(error: ModuleError, with: &str) {
    let ModuleError::Failed { reason, .. } = &error else { panic!("{error}") };
    assert!(reason.contains(with), "{error}");
}

#[tokio::test]
async fn a_whole_message_arrives_as_it_was() {
    let module = module(
        serve(|mut stream| {
            Box::pin(async move {
                let length = read_all(&mut stream).await.unwrap();
                let reply = format!("stream: Length.{length} FOUND\0");
                stream.write_all(reply.as_bytes()).await.unwrap();
            })
        })
        .await,
        |_| (),
    );
    for length in [0, 1, 65_536, 65_537, 1_000_000] {
        let expected = found(&format!("Length.{length}"));
        assert_eq!(outcome(&module, &job(vec![b'x'; length])).await, expected);
        assert!(outcome(&module, &job_on_disk(&vec![b'x'; length.max(2)])).await.is_ok());
    }
    let finding = module.process(&job(*b"x")).await.unwrap();
    assert_eq!(
        (finding.engine.as_str(), finding.signatures.as_str()),
        ("ClamAV 0.0.1", "7, today")
    );
}

#[tokio::test]
async fn nonsense_and_silence_are_failures_and_never_clean() {
    let nothing = error_of(|_stream| Box::pin(async {}), b"x", |_| ()).await;
    assert!(matches!(nothing, ModuleError::Failed { .. }), "{nothing}");

    let nonsense = error_of(
        |mut stream| {
            Box::pin(async move {
                read_all(&mut stream).await.unwrap();
                stream.write_all(b"stream: OKAY\0").await.unwrap();
            })
        },
        b"x",
        |_| (),
    );
    assert_failed(nonsense.await, "no known reply");

    let cut = error_of(
        |mut stream| {
            Box::pin(async move {
                read_all(&mut stream).await.unwrap();
                stream.write_all(b"stream: OK").await.unwrap();
            })
        },
        b"x",
        |_| (),
    );
    assert_failed(cut.await, "does not end");
}

#[tokio::test]
async fn a_reply_without_end_is_cut_off() {
    let endless = error_of(
        |mut stream| {
            Box::pin(async move {
                read_all(&mut stream).await.unwrap();
                while stream.write_all(&[b'x'; 1024]).await.is_ok() {}
            })
        },
        b"x",
        |_| (),
    );
    assert_failed(endless.await, "longer than");
}

#[tokio::test]
async fn clean_before_the_end_of_the_message_is_a_failure() {
    let large = vec![b'x'; 16 << 20];
    let early = error_of(
        |mut stream| {
            Box::pin(async move {
                stream.write_all(b"stream: OK\0").await.unwrap();
            })
        },
        &large,
        |_| (),
    );
    let early = early.await;
    assert!(matches!(early, ModuleError::Failed { .. }), "{early}");
}

#[tokio::test]
async fn a_clamd_that_serves_others_blames_the_message_it_does_not_answer() {
    let hang: Scan = |stream| {
        Box::pin(async move {
            let _open = stream;
            std::future::pending().await
        })
    };
    let late = error_of(hang, b"x", |config| config.scan_timeout = Duration::from_millis(100));
    assert_failed(late.await, "did not answer within");

    // The host's bound counts, too.
    let module = module(serve(hang).await, |config| config.scan_timeout = 10 * LONG);
    let job = Job { progress: Progress::new(Duration::from_millis(100)), ..job(*b"x") };
    assert_failed(outcome(&module, &job).await.unwrap_err(), "did not answer within");
}

#[tokio::test]
async fn a_scan_that_is_late_makes_the_module_not_ready_until_it_is_dropped() {
    static TAKEN: Semaphore = Semaphore::const_new(0);
    static GONE: Semaphore = Semaphore::const_new(0);
    let address = serve(|mut stream| {
        Box::pin(async move {
            read_all(&mut stream).await.unwrap();
            TAKEN.add_permits(1);
            // Returns when the other side has closed.
            let _ = stream.read_u8().await;
            GONE.add_permits(1);
        })
    });
    let module = module(address.await, |config| config.scan_timeout = LONG);
    let job = job(*b"x");
    {
        let scan = module.process(&job);
        let look = async {
            TAKEN.acquire().await.unwrap().forget();
            assert_eq!(module.probe().await.not_ready, None, "it has only begun");
            tokio::time::pause();
            tokio::time::advance(LONG * 2 / 3).await;
            tokio::time::resume();
            module.probe().await.not_ready
        };
        tokio::select! {
            _ = scan => panic!("there was no reply"),
            not_ready = look => assert!(not_ready.unwrap().contains("waiting for clamd")),
        }
    }
    GONE.acquire().await.unwrap().forget();
    assert_eq!(module.probe().await.not_ready, None);
}

#[tokio::test]
async fn no_more_scans_at_once_than_configured() {
    static NOW: AtomicUsize = AtomicUsize::new(0);
    static MOST: AtomicUsize = AtomicUsize::new(0);
    let address = serve(|mut stream| {
        Box::pin(async move {
            let now = NOW.fetch_add(1, Ordering::SeqCst) + 1;
            MOST.fetch_max(now, Ordering::SeqCst);
            read_all(&mut stream).await.unwrap();
            for _ in 0..100 {
                tokio::task::yield_now().await;
            }
            NOW.fetch_sub(1, Ordering::SeqCst);
            stream.write_all(b"stream: OK\0").await.unwrap();
        })
    });
    let module = Arc::new(module(address.await, |config| config.connections_max = 3));
    assert_eq!(module.concurrency(), 3);
    let mut scans = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let module = module.clone();
        scans.spawn(async move { outcome(&module, &job(*b"x")).await });
    }
    for result in scans.join_all().await {
        assert_eq!(result, Ok(Outcome::Clean));
    }
    assert_eq!(MOST.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn an_absent_socket_is_unavailable() {
    let folder = tempfile::tempdir().unwrap();
    let absent = ClamdAddress::Unix(folder.path().join("clamd.sock"));
    let module = module(absent, |_| ());
    let error = outcome(&module, &job(*b"x")).await.unwrap_err();
    assert!(matches!(error, ModuleError::Unavailable { .. }), "{error}");
    assert!(error.to_string().contains("clamd.sock"), "{error}");
    assert!(module.probe().await.not_ready.is_some());
}

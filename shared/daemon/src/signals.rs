//! Being told to stop, or to read again: what is particular to a platform's signals stands here.

use std::io;

use tokio::sync::mpsc;

/// One item for each SIGTERM or SIGINT (Ctrl-C elsewhere).
///
/// # Errors
/// Where the platform refuses a handler.
pub fn listen() -> io::Result<mpsc::Receiver<()>> {
    // More than two change nothing.
    let (sender, receiver) = mpsc::channel(2);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    told = terminate.recv() => if told.is_none() { return },
                    told = interrupt.recv() => if told.is_none() { return },
                }
                if sender.send(()).await.is_err() {
                    return;
                }
            }
        });
    }
    #[cfg(not(unix))]
    tokio::spawn(async move {
        while tokio::signal::ctrl_c().await.is_ok() && sender.send(()).await.is_ok() {}
    });
    Ok(receiver)
}

/// One item for each SIGHUP, which then no longer ends the process. Closed where there is no such signal.
///
/// # Errors
/// Where the platform refuses a handler.
pub fn hangups() -> io::Result<mpsc::Receiver<()>> {
    // One that waits says as much as several.
    let (sender, receiver) = mpsc::channel(1);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup())?;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() && !sender.is_closed() {
                let _ = sender.try_send(());
            }
        });
    }
    #[cfg(not(unix))]
    drop(sender);
    Ok(receiver)
}

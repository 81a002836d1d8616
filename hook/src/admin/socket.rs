//! The socket of a running hook.

use std::path::Path;

use tokio::sync::{mpsc, oneshot};

use super::{AdminError, LINE_BYTES_MAX, Reply, Request};

/// Requests that wait for the loop; the administrator's commands come one by one.
const REQUESTS_MAX: usize = 16;

/// What the loop receives: a request, and where its reply goes.
type Asked = (Request, oneshot::Sender<Reply>);

/// Opens the socket `control` in the spool's folder, in place of a former hook's. The spool's lock must be held.
///
/// # Errors
/// Where the socket cannot be made.
#[cfg(unix)]
pub fn listen(spool: &Path) -> Result<mpsc::Receiver<Asked>, AdminError> {
    use std::os::unix::fs::PermissionsExt;
    use tokio::net::UnixListener;

    let path = super::client::path(spool);
    let failed = |source| AdminError::Socket { path: path.clone(), source };
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&path).map_err(failed)?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    let (asked, requests) = mpsc::channel(REQUESTS_MAX);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, asked.clone()));
        }
    });
    Ok(requests)
}

/// Elsewhere there is no such socket: the commands work while no hook runs.
#[cfg(not(unix))]
pub fn listen(_spool: &Path) -> Result<mpsc::Receiver<Asked>, AdminError> {
    let (asked, requests) = mpsc::channel(REQUESTS_MAX);
    std::mem::forget(asked);
    Ok(requests)
}

#[cfg(unix)]
async fn serve(stream: tokio::net::UnixStream, asked: mpsc::Sender<Asked>) {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(reader.take(LINE_BYTES_MAX)).read_line(&mut line).await.is_err() {
        return;
    }
    let reply = match serde_json::from_str(&line) {
        Err(error) => Reply::Refused(format!("read request: {error}")),
        Ok(request) => {
            let (sender, receiver) = oneshot::channel();
            match asked.send((request, sender)).await {
                Ok(()) => receiver
                    .await
                    .unwrap_or_else(|_| Reply::Refused("the hook is ending".to_owned())),
                Err(_) => Reply::Refused("the hook is ending".to_owned()),
            }
        }
    };
    if let Ok(mut text) = serde_json::to_vec(&reply) {
        text.push(b'\n');
        let _ = writer.write_all(&text).await;
    }
}

//! The socket of a running hook.

use std::path::Path;

use tokio::sync::mpsc;

use super::{AdminError, Asked};

/// Opens the socket `control` in the spool's folder, in place of a former hook's, and moves what is asked there to the
/// loop. The spool's lock must be held.
///
/// # Errors
/// Where the socket cannot be made.
#[cfg(unix)]
pub fn listen(spool: &Path, asked: mpsc::Sender<Asked>) -> Result<(), AdminError> {
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
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, asked.clone()));
        }
    });
    Ok(())
}

/// Elsewhere there is no such socket: the commands work while no hook runs.
#[cfg(not(unix))]
pub fn listen(_spool: &Path, _asked: mpsc::Sender<Asked>) -> Result<(), AdminError> {
    Ok(())
}

#[cfg(unix)]
async fn serve(stream: tokio::net::UnixStream, asked: mpsc::Sender<Asked>) {
    use gantry_operator::{REQUEST_BYTES_MAX, Reply};
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::sync::oneshot;

    let (reader, mut writer) = stream.into_split();
    let mut line = String::new();
    if BufReader::new(reader.take(REQUEST_BYTES_MAX as u64)).read_line(&mut line).await.is_err() {
        return;
    }
    let reply = match serde_json::from_str(&line) {
        Err(error) => Reply::Refused(format!("read the request: {error}")),
        Ok(request) => {
            let (reply, replied) = oneshot::channel();
            let who = crate::audit::Who::local();
            match asked.send(Asked { who, identity: None, request, reply }).await {
                Ok(()) => replied.await.unwrap_or_else(|_| super::remote::ending()),
                Err(_) => super::remote::ending(),
            }
        }
    };
    let mut text = super::encode(reply);
    text.push(b'\n');
    let _ = writer.write_all(&text).await;
}

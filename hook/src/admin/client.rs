//! Asking a running hook.

use std::io;
use std::path::{Path, PathBuf};

use gantry_operator::{Reply, Request};

/// How asking failed.
#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("open control socket {}: {source}", path.display())]
    Socket { path: PathBuf, source: io::Error },
    #[error("ask the running hook: {0}")]
    Ask(#[from] io::Error),
    #[error("ask the running hook: its reply cannot be read: {0}")]
    Reply(#[from] serde_json::Error),
}

pub(super) fn path(spool: &Path) -> PathBuf {
    spool.join("control")
}

/// Sends a request to the hook that runs on a spool; `None` when none runs.
///
/// # Errors
/// Where a hook runs but cannot be talked to.
#[cfg(unix)]
pub fn ask(spool: &Path, request: &Request) -> Result<Option<Reply>, AdminError> {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::time::Duration;

    /// The reply and the end of its line.
    const REPLY_LINE_BYTES_MAX: u64 = gantry_operator::REPLY_BYTES_MAX as u64 + 1;
    /// The loop answers at once, whatever else it does; a decision when the disk has it, and disks may be slow.
    const PATIENCE: Duration = Duration::from_secs(60);

    let path = path(spool);
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(source) => return Err(AdminError::Socket { path, source }),
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line)?;
    let mut reply = String::new();
    BufReader::new(stream.take(REPLY_LINE_BYTES_MAX)).read_line(&mut reply)?;
    Ok(Some(serde_json::from_str(&reply)?))
}

/// Elsewhere the commands work while no hook runs.
#[cfg(not(unix))]
pub fn ask(_spool: &Path, _request: &Request) -> Result<Option<Reply>, AdminError> {
    Ok(None)
}

//! Logging in at the next hop (RFC 4954), with a password out of a file.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::connection::{Connection, Lost};

/// Longest password, in bytes.
const PASSWORD_BYTES_MAX: usize = 1_024;
/// What may not be set in the mode of a password's file: nobody but its owner may read or write it.
const OTHERS: u32 = 0o077;

const DOING: &str = "log in at the next hop";

/// As whom a way out logs in. The password is read for each connection, so a changed one counts at once, and none is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    pub user: String,
    pub password_file: PathBuf,
    /// Whether the password may be said in the clear to a next hop on this machine; else it takes TLS and a verified
    /// certificate.
    pub without_tls: bool,
}

/// Why there is no password to log in with.
#[derive(Debug, thiserror::Error)]
pub enum PasswordError {
    #[error("read the password in {}: {source}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error(
        "read the password in {}: its mode is {mode:03o}, so others can read it; give it the mode 600",
        path.display()
    )]
    Open { path: PathBuf, mode: u32 },
    #[error(
        "read the password in {}: it should be one line of 1 to {PASSWORD_BYTES_MAX} bytes in UTF-8",
        path.display()
    )]
    Malformed { path: PathBuf },
}

impl Credentials {
    /// Reads the password. Blocks.
    ///
    /// # Errors
    /// The file cannot be read, can be read by others, or holds no password.
    pub fn password(&self) -> Result<Zeroizing<String>, PasswordError> {
        let path = || self.password_file.clone();
        let failed = |source| PasswordError::Read { path: path(), source };
        let mut file = File::open(&self.password_file).map_err(failed)?;
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & OTHERS != 0 {
            return Err(PasswordError::Open { path: path(), mode });
        }
        // As much at once as it may be, so that no copy is left where a growing buffer was.
        let mut bytes = Zeroizing::new(vec![0; PASSWORD_BYTES_MAX + 3]);
        let length = read_up_to(&mut file, &mut bytes).map_err(failed)?;
        password_in(bytes.get(..length).unwrap_or_default())
            .ok_or_else(|| PasswordError::Malformed { path: path() })
    }
}

impl Connection {
    /// PLAIN (RFC 4616) where it is offered, else LOGIN. A refusal is about us, not about the message, which waits.
    pub(super) async fn log_in(
        &mut self,
        credentials: &Credentials,
        limit: Duration,
    ) -> Result<(), Lost> {
        if !self.is_confidential(credentials.without_tls) {
            let reason = "the connection is not encrypted; the password was not sent";
            return Err(Lost::Login(reason.to_owned()));
        }
        let offers = |mechanism| self.capabilities.auth.iter().any(|offer| offer == mechanism);
        let (plain, login) = (offers("PLAIN"), offers("LOGIN"));
        if !plain && !login {
            let offered = self.capabilities.auth.join(" ");
            let reason = format!("it offers neither AUTH PLAIN nor LOGIN, but [{offered}]");
            return Err(Lost::Login(reason));
        }
        let (user, asked) = (&credentials.user, credentials.clone());
        let password = tokio::task::spawn_blocking(move || asked.password())
            .await
            .map_err(|error| Lost::Login(error.to_string()))??;
        let reply = if plain {
            let response = Zeroizing::new(format!("\0{user}\0{}", password.as_str()));
            let line = encoded("AUTH PLAIN ", &response);
            self.command(&line, DOING, limit).await?
        } else {
            let asked = self.command("AUTH LOGIN\r\n", DOING, limit).await?;
            self.go_on(asked.code, &asked.to_line())?;
            let asked = self.command(&encoded("", user), DOING, limit).await?;
            self.go_on(asked.code, &asked.to_line())?;
            self.command(&encoded("", &password), DOING, limit).await?
        };
        match reply.code {
            235 => Ok(()),
            _ => Err(Lost::Login(reply.to_line())),
        }
    }

    fn go_on(&self, code: u16, reply: &str) -> Result<(), Lost> {
        if code == 334 { Ok(()) } else { Err(Lost::Login(reply.to_owned())) }
    }
}

fn encoded(command: &str, text: &str) -> Zeroizing<String> {
    let code = Zeroizing::new(STANDARD.encode(text));
    Zeroizing::new(format!("{command}{}\r\n", code.as_str()))
}

fn read_up_to(file: &mut File, bytes: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(room) = bytes.get_mut(length..).filter(|room| !room.is_empty()) {
        match file.read(room)? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

/// The only line of a file, without its end. NUL would end it early in PLAIN.
fn password_in(bytes: &[u8]) -> Option<Zeroizing<String>> {
    let line = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let text = std::str::from_utf8(line).ok()?;
    let fits = (1..=PASSWORD_BYTES_MAX).contains(&text.len());
    let plain = !text.contains(['\0', '\r', '\n']);
    (fits && plain).then(|| Zeroizing::new(text.to_owned()))
}

//! A Dovecot of one's own that knows one login, for a Postfix that asks it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::postfix::{is_root, which};
use crate::{PATIENCE, Running, await_that, skip};

/// A running Dovecot that only answers whether a login is right. It is ended when dropped.
pub struct Dovecot {
    process: Running,
    folder: TempDir,
}

impl Dovecot {
    /// Starts it with one user. `None`, and a line that says so, where it is not installed or this is not root.
    pub fn start(user: &str, password: &str) -> Option<Self> {
        let Some(program) = which("dovecot") else {
            skip("logins at a real server", "dovecot is not installed (Debian: dovecot-core)");
            return None;
        };
        if !is_root() {
            skip("logins at a real server", "only root can start Dovecot");
            return None;
        }
        let folder = TempDir::with_prefix("gantry-dovecot-").expect("make a temporary folder");
        // Dovecot's and Postfix's own users have to get in.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let at = folder.path().display();
        let config = format!(
            "base_dir = {at}/base\nstate_dir = {at}/base\nlog_path = {at}/log\nprotocols =\nssl = no\n\
             auth_mechanisms = plain login\n\
             passdb {{\n driver = passwd-file\n args = username_format=%u {at}/users\n}}\n\
             userdb {{\n driver = static\n args = uid=65534 gid=65534 home=/nonexistent\n}}\n\
             service auth {{\n unix_listener {at}/auth {{\n mode = 0666\n }}\n}}\n"
        );
        fs::write(folder.path().join("dovecot.conf"), config).expect("write dovecot.conf");
        let users = format!("{user}:{{PLAIN}}{password}::::::\n");
        fs::write(folder.path().join("users"), users).expect("write the users");
        let mut command = Command::new(program);
        command.arg("-F").arg("-c").arg(folder.path().join("dovecot.conf"));
        let said = folder.path().join("said");
        let mut process = Running::start("dovecot", &mut command, &said).expect("start Dovecot");
        let socket = folder.path().join("auth");
        await_that("dovecot listens", || {
            assert!(process.ended().is_none(), "dovecot has ended:\n{}", process.log());
            socket.exists().then_some(())
        });
        Some(Self { process, folder })
    }

    /// Where it is asked.
    pub fn socket(&self) -> PathBuf {
        self.folder.path().join("auth")
    }
}

impl Drop for Dovecot {
    fn drop(&mut self) {
        // Its children end with it only where it can tell them so.
        self.process.terminate();
        self.process.wait(PATIENCE);
    }
}

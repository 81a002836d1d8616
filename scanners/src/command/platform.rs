//! A program and all that it starts, as one thing to kill: what is particular to a platform stands here.

use tokio::process::Command;

/// Makes what is started from here on killable together with all its children.
#[cfg(unix)]
pub(super) fn apart(command: &mut Command) {
    command.process_group(0);
}

/// The programs there do not start without these.
#[cfg(not(unix))]
pub(super) fn apart(command: &mut Command) {
    for key in ["SystemRoot", "SystemDrive"] {
        if let Some(value) = std::env::var_os(key) {
            command.env(key, value);
        }
    }
}

/// Kills a program that was set [`apart`], and its children. One that left the group on purpose escapes.
#[cfg(unix)]
pub(super) fn kill(pid: u32) {
    use rustix::process::{Pid, Signal, kill_process_group};
    if let Some(group) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
        // It may be gone already.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// The system's own tool knows who is whose child.
#[cfg(not(unix))]
pub(super) fn kill(pid: u32) {
    let _ = std::process::Command::new("taskkill")
        .args(["/T", "/F", "/PID", &pid.to_string()])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn();
}

/// Nobody but the worker's user may look into it (mode 0700).
#[cfg(unix)]
pub(super) fn private_folder(builder: &mut tempfile::Builder<'_, '_>) {
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
}

/// What is made there inherits who may read it from the scratch folder.
#[cfg(not(unix))]
pub(super) fn private_folder(_builder: &mut tempfile::Builder<'_, '_>) {}

/// Nobody but the worker's user may read it (mode 0600).
#[cfg(unix)]
pub(super) fn private_file(options: &mut std::fs::OpenOptions) {
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
}

#[cfg(not(unix))]
pub(super) fn private_file(_options: &mut std::fs::OpenOptions) {}

/// Whether the file may be run.
#[cfg(unix)]
pub(super) fn is_executable(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.is_file() && metadata.permissions().mode() & 0o111 != 0
}

#[cfg(not(unix))]
pub(super) fn is_executable(metadata: &std::fs::Metadata) -> bool {
    metadata.is_file()
}

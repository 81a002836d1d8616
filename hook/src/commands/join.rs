//! A further host joins the cluster of the first one.

use std::io::Write;
use std::path::Path;

use gantry_link::{Authority, JoinError, NodeIdentity, Role};

use crate::config::Config;
use crate::exit::{self, Failure, failure, line};

/// Gets this host its certificate for a token of the host that has the authority.
///
/// # Errors
/// Whatever kept it from joining; the token is used up only where the other host has said yes.
pub(super) fn join(config: &Config, token: &str, out: &mut dyn Write) -> Result<(), Failure> {
    let folder = &config.identity_dir;
    if Authority::is_at(folder) {
        let text = format!(
            "{} has an authority of its own: this is the first host of its cluster, and a host is of one cluster",
            folder.display()
        );
        return Err(Failure { code: exit::EX_USAGE, text });
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failure(exit::EX_IOERR, error))?;
    let clock = gantry_link::system_clock();
    let joining = gantry_link::join(token, folder, &config.name, Role::Hook, &clock);
    runtime.block_on(joining).map_err(|error| {
        let code = match &error {
            JoinError::Refused { .. } => exit::EX_NOPERM,
            JoinError::Unreachable { .. } => exit::EX_UNAVAILABLE,
            JoinError::Store { .. } => exit::EX_CANTCREAT,
            _ => exit::EX_DATAERR,
        };
        failure(code, error)
    })?;
    let host = elsewhere(folder).unwrap_or_default();
    let (name, folder) = (&config.name, folder.display());
    line(
        out,
        &format!(
            "{name} has joined the cluster; its key and certificate are in {folder}, and the authority's key stays at {host}"
        ),
    )
}

/// Where the authority's key is, if this folder is that of a node that has joined.
pub(super) fn elsewhere(folder: &Path) -> Option<String> {
    let here = Authority::is_at(folder);
    NodeIdentity::authority_host(folder).filter(|_| !here)
}

//! A further host joins the cluster of the first one; and a node joins that has to be dialled.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gantry_link::{Authority, NodeIdentity, Role};

use crate::config::Config;
use crate::exit::{self, Failure, failure, line};

/// Between two tries to dial a node that does not wait there yet.
const DIAL_PAUSE: Duration = Duration::from_secs(1);

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
    runtime.block_on(joining).map_err(|error| failure(error.exit_code(), error))?;
    let host = elsewhere(folder).unwrap_or_default();
    let (name, folder) = (&config.name, folder.display());
    line(
        out,
        &format!(
            "{name} has joined the cluster; its key and certificate are in {folder}, and the authority's key stays at {host}"
        ),
    )
}

/// Dials the node at `target` until it has got its certificate for the token that was just made.
///
/// # Errors
/// When the token is good no more, or was refused.
pub(super) fn certify(
    config: &Config,
    authority: Authority,
    target: &str,
    expires: Duration,
) -> Result<(), Failure> {
    let clock = gantry_link::system_clock();
    let identity = NodeIdentity::open(&config.identity_dir, &config.name, Role::Hook, &clock)
        .map_err(|error| failure(exit::EX_NOPERM, error))?;
    // On standard error, since the token stands alone on the last line of the output.
    let say = |text: &str| drop(writeln!(std::io::stderr(), "gantry-hook: {text}"));
    say(&format!(
        "dialling {target}: give the token there to `gantry join --listen ADDRESS:PORT TOKEN`"
    ));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| failure(exit::EX_IOERR, error))?;
    let authority = Arc::new(authority);
    let dialling = async {
        let mut told = String::new();
        loop {
            match gantry_link::certify_at(target, &identity, Arc::clone(&authority)).await {
                Ok(Some(node)) => return node,
                Ok(None) => {}
                // While nobody waits there, the first try says why, and the others say nothing.
                Err(error) if error.to_string() != told => {
                    told = error.to_string();
                    say(&told);
                }
                Err(_) => {}
            }
            tokio::time::sleep(DIAL_PAUSE).await;
        }
    };
    match runtime.block_on(async { tokio::time::timeout(expires, dialling).await }) {
        Ok(node) => {
            say(&format!("{} has joined", node.name));
            Ok(())
        }
        Err(_) => {
            let text =
                format!("nobody joined at {target} while the token was good; make a new one");
            Err(Failure { code: exit::EX_UNAVAILABLE, text })
        }
    }
}

/// Where the authority's key is, if this folder is that of a node that has joined.
pub(super) fn elsewhere(folder: &Path) -> Option<String> {
    let here = Authority::is_at(folder);
    NodeIdentity::authority_host(folder).filter(|_| !here)
}

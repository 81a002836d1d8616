//! `gantry-hook mark`.

use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use gantry_protocol::pool::MailboxIndex;

use crate::cli::MarkArgs;
use crate::config::{Config, Custody, Mailbox};
use crate::disk::RealDisk;
use crate::exit::{self, Failure};
use crate::intake::Clock;
use crate::intake::arrival::LocalIntake;
use crate::intake::mark::{self, Failed, MarkRequest};
use crate::service;
use crate::spool::{Spool, SpoolError};

/// Marks the message on `message`, and exits with [`exit::EX_TEMPFAIL`] for everything that goes wrong, a defect in
/// Gantry included: every other code but [`exit::EX_DATAERR`] would make an MTA return the message.
///
/// # Errors
/// The message is not durable.
pub(super) fn mark(
    config: &Path,
    args: MarkArgs,
    message: &mut dyn Read,
) -> Result<String, Failure> {
    std::panic::set_hook(Box::new(|panic| {
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), "gantry-hook: {panic}");
        std::process::exit(i32::from(exit::EX_TEMPFAIL));
    }));
    let later = |text: String| Failure { code: exit::EX_TEMPFAIL, text };
    let config = super::load(config).map_err(|failure| later(failure.text))?;
    let MarkArgs { mailbox: name, sender, recipients } = args;
    let found = config.mailboxes.iter().zip(0..=u16::MAX).find(|(mailbox, _)| mailbox.name == name);
    let Some((mailbox, index)) = found else {
        let stored = |mailbox: &&Mailbox| matches!(mailbox.custody, Custody::Hook { .. });
        let names = config.mailboxes.iter().filter(stored).map(|one| one.name.as_str());
        let names = names.collect::<Vec<_>>().join(", ");
        let text = format!(
            "there is no mailbox {name:?}; those that `mark` can be given have custody = \"hook\": {names}"
        );
        return Err(later(text));
    };
    if !matches!(mailbox.custody, Custody::Hook { .. }) {
        let text = format!(
            "mailbox {name:?} has custody = \"upstream\", where nobody waits for an answer to `mark`"
        );
        return Err(later(text));
    }
    let request = MarkRequest {
        mailbox: name.clone(),
        sender: without_brackets(sender),
        recipients: recipients.into_iter().map(without_brackets).collect(),
    };
    let open = || open(&config, &name, MailboxIndex(index), mailbox.intake.message_bytes_max());
    mark::mark(&config.spool, &request, message, open).map_err(|failed| Failure {
        code: match failed {
            Failed::Never(_) => exit::EX_DATAERR,
            Failed::Later(_) => exit::EX_TEMPFAIL,
        },
        text: failed.to_string(),
    })
}

/// The spool, while no hook has it.
fn open(
    config: &Config,
    mailbox: &str,
    index: MailboxIndex,
    message_bytes_max: u64,
) -> Result<Option<Arc<LocalIntake<RealDisk>>>, SpoolError> {
    let trace = service::trace_key(config)
        .map_err(|error| SpoolError::Broken { reason: error.to_string() })?;
    let clock = Clock::start();
    let names: Vec<String> = config.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
    let options = service::spool_options(config, clock);
    let spool = Spool::open(RealDisk, &config.spool, &names, options)?.spool;
    Ok(Some(Arc::new(LocalIntake {
        mailbox: mailbox.to_owned(),
        index,
        message_bytes_max,
        spool,
        clock,
        trace,
    })))
}

/// `<>` is how mail programs write the null sender.
fn without_brackets(address: String) -> String {
    match address.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')) {
        Some(inside) => inside.to_owned(),
        None => address,
    }
}

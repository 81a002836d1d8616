//! Opening mailboxes: each one's way in and its way out.

use std::sync::Arc;

use gantry_protocol::pool::MailboxIndex;
use tokio::net::TcpListener;

use super::Mailbox;
use super::start::RunError;
use crate::config::{self, Custody};
use crate::disk::RealDisk;
use crate::intake::arrival::LocalIntake;
use crate::intake::pickup::{self, Pickup, PickupConfig};
use crate::intake::smtp::{IntakeCustody, SmtpIntake};
use crate::intake::{Clock, Gate};
use crate::release::{
    Capabilities, CommandRelease, CommandReleaseConfig, DirectoryRelease, DirectoryReleaseConfig,
    Identity, Offered, SmtpRelease, SmtpReleaseConfig, TraceKey, Way, probe,
};
use crate::spool::Spool;
use crate::tls::{ClientTls, ServerTls};

/// For how long a picked up message waits for its sidecar.
const SIDECAR_WAIT: std::time::Duration = std::time::Duration::from_secs(60);

/// What a mailbox's ways in and out share with the service.
pub(super) struct Ways<'a> {
    pub(super) host: &'a str,
    pub(super) clock: Clock,
    pub(super) spool: &'a Arc<Spool<RealDisk>>,
    pub(super) gate: &'a Gate,
    pub(super) trace: &'a Arc<TraceKey>,
}

/// The mailboxes, their ways open, and what `mark` needs of those that take what is marked.
pub(super) type Opened = (Vec<Mailbox>, Vec<Arc<LocalIntake<RealDisk>>>);

/// Opens each way in and prepares each way out. No message of the spool may be processed before.
pub(super) async fn open(
    mailboxes: &[config::Mailbox],
    ways: &Ways<'_>,
) -> Result<Opened, RunError> {
    let (mut opened, mut marked_into) = (Vec::new(), Vec::new());
    for (index, mailbox) in mailboxes.iter().enumerate() {
        let index = MailboxIndex(u16::try_from(index).unwrap_or(u16::MAX));
        let (mailbox, takes_marked) = open_one(mailbox, index, ways).await?;
        opened.push(mailbox);
        marked_into.extend(takes_marked);
    }
    Ok((opened, marked_into))
}

async fn open_one(
    mailbox: &config::Mailbox,
    index: MailboxIndex,
    ways: &Ways<'_>,
) -> Result<(Mailbox, Option<Arc<LocalIntake<RealDisk>>>), RunError> {
    let offered = Offered::default();
    let way = Arc::new(way_out(mailbox, ways.host, &offered)?);
    let local = Arc::new(LocalIntake {
        mailbox: mailbox.name.clone(),
        index,
        message_bytes_max: mailbox.intake.message_bytes_max(),
        spool: Arc::clone(ways.spool),
        clock: ways.clock,
        trace: TraceKey::clone(ways.trace),
    });
    match &mailbox.intake {
        config::Intake::Smtp(intake) => smtp_in(mailbox, index, intake, ways, offered).await?,
        config::Intake::Pickup(intake) => pickup_in(mailbox, intake, ways, &local).await?,
        config::Intake::Mark { .. } => {}
    }
    if matches!(*way, Way::Smtp(_)) {
        // What the next hop offers decides what we offer; until it has been greeted, we offer all we can.
        let (probed, name) = (Arc::clone(&way), mailbox.name.clone());
        tokio::spawn(async move {
            if let Way::Smtp(smtp) = &*probed
                && let Err(error) = probe(smtp).await
            {
                tracing::warn!(mailbox = name, "{error}");
            }
        });
    }
    let takes_marked = matches!(mailbox.custody, Custody::Hook { .. });
    let opened = Mailbox { name: mailbox.name.clone(), needs: mailbox.needs.clone(), way };
    Ok((opened, takes_marked.then_some(local)))
}

fn way_out(mailbox: &config::Mailbox, host: &str, offered: &Offered) -> Result<Way, RunError> {
    let identity = |host_name: &str, authserv_id: &str| Identity {
        mailbox: mailbox.name.clone(),
        host_name: host_name.to_owned(),
        authserv_id: authserv_id.to_owned(),
    };
    Ok(match &mailbox.release {
        config::Release::Smtp(release) => Way::Smtp(Box::new(SmtpRelease::new(
            SmtpReleaseConfig {
                tls: ClientTls::open(&release.tls, &release.address.host)
                    .map_err(|source| RunError::Tls { mailbox: mailbox.name.clone(), source })?,
                credentials: release.credentials.clone(),
                protocol: release.protocol,
                address: release.address.clone(),
                identity: identity(&release.host_name, &release.authserv_id),
                xforward: release.xforward,
                connections_max: release.connections_max,
                timeouts: release.timeouts,
            },
            offered.clone(),
        ))),
        config::Release::Directory(release) => {
            offered.set(Capabilities::local());
            let config = DirectoryReleaseConfig {
                identity: identity(&release.names.host_name, &release.names.authserv_id),
                host: host.to_owned(),
                path: release.path.clone(),
                format: release.format,
                envelope: release.envelope,
                line_ends: release.line_ends,
            };
            Way::Directory(DirectoryRelease::open(config).map_err(|(path, source)| {
                RunError::Folder { mailbox: mailbox.name.clone(), path, source }
            })?)
        }
        config::Release::Command(release) => {
            offered.set(Capabilities::local());
            Way::Command(CommandRelease::new(CommandReleaseConfig {
                identity: identity(&release.names.host_name, &release.names.authserv_id),
                program: release.program.clone(),
                arguments: release.arguments.clone(),
                line_ends: release.line_ends,
                time_max: release.time_max,
            }))
        }
    })
}

async fn smtp_in(
    mailbox: &config::Mailbox,
    index: MailboxIndex,
    intake: &config::SmtpIntake,
    ways: &Ways<'_>,
    offered: Offered,
) -> Result<(), RunError> {
    let custody = match &mailbox.custody {
        Custody::Upstream { answer_within, .. } => {
            IntakeCustody::Upstream { answer_within: *answer_within }
        }
        Custody::Hook { .. } => IntakeCustody::Hook,
    };
    let tls = intake.tls.clone().map(|tls| ServerTls::open(tls.files, tls.required));
    let tls = tls
        .transpose()
        .map_err(|source| RunError::Tls { mailbox: mailbox.name.clone(), source })?;
    if let Some(tls) = &tls {
        let hangups = gantry_daemon::signals::hangups().map_err(RunError::Signals)?;
        tokio::spawn(tls.clone().follow(mailbox.name.clone(), hangups));
    }
    let smtp = SmtpIntake {
        protocol: intake.protocol,
        mailbox: mailbox.name.clone(),
        index,
        host_name: intake.host_name.clone(),
        custody,
        peers: intake.peers.clone(),
        xforward_from: intake.xforward_from.clone(),
        stray_cr_lf: intake.stray_cr_lf,
        tls,
        limits: intake.limits,
        timeouts: intake.timeouts,
        offered,
        clock: ways.clock,
        trace: TraceKey::clone(ways.trace),
    };
    let listener = TcpListener::bind(intake.listen).await.map_err(|source| RunError::Listen {
        mailbox: mailbox.name.clone(),
        address: intake.listen,
        source,
    })?;
    tracing::info!(mailbox = mailbox.name, smtp = %intake.listen, "taking mail");
    tokio::spawn(crate::intake::smtp::serve(
        listener,
        Arc::new(smtp),
        Arc::clone(ways.spool),
        ways.gate.clone(),
    ));
    Ok(())
}

async fn pickup_in(
    mailbox: &config::Mailbox,
    intake: &config::PickupIntake,
    ways: &Ways<'_>,
    local: &Arc<LocalIntake<RealDisk>>,
) -> Result<(), RunError> {
    let failed = |reason: String| RunError::Pickup { mailbox: mailbox.name.clone(), reason };
    let config = PickupConfig {
        host: ways.host.to_owned(),
        mailbox: mailbox.name.clone(),
        directory: intake.directory.clone(),
        format: intake.format,
        envelope: intake.envelope,
        settle: intake.settle,
        poll: intake.poll,
        sidecar_wait: SIDECAR_WAIT,
    };
    let local = Arc::clone(local);
    let opened = tokio::task::spawn_blocking(move || Pickup::open(config, local)).await;
    let pickup = opened
        .map_err(|error| failed(error.to_string()))?
        .map_err(|error| failed(error.to_string()))?;
    tracing::info!(mailbox = mailbox.name, path = %intake.directory.display(), "taking mail");
    tokio::spawn(pickup::serve(pickup, ways.gate.clone()));
    Ok(())
}

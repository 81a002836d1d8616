//! The certificates that this host lives by: its own, which is renewed at two thirds of its life, those of its links, and the
//! authorities behind them all.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use gantry_link::{
    Authority, AuthorityKind, AuthorityState, Clock, Identity, IssuedCertificate, NodeIdentity,
    Reminder, Role, Standing,
};
use gantry_operator::CertificateStatus;
use gantry_operator::table::span;

use super::Service;
use crate::disk::Disk;

/// How often the host's own certificate is looked at, and what is near its end is said, in seconds by the wall clock: a machine
/// that was suspended looks as soon as it is back.
const LOOK_EVERY: u64 = 3_600;

/// What the loop knows of them.
pub(super) struct Certificates {
    pub(super) folder: PathBuf,
    /// Where this is the authority's host.
    pub(super) authority: Option<Arc<Authority>>,
    pub(super) clock: Clock,
    /// Of the certificate in use.
    pub(super) own: Identity,
    /// When its file was last changed.
    pub(super) changed: Option<SystemTime>,
    pub(super) authorities: Vec<AuthorityState>,
    /// Seconds since 1970; `None` until the first look.
    pub(super) looked: Option<u64>,
    /// By role and name.
    pub(super) reminders: BTreeMap<(String, String), Reminder>,
}

impl Certificates {
    /// A host's, at its start.
    pub(super) fn new(
        folder: PathBuf,
        authority: Option<Arc<Authority>>,
        identity: &NodeIdentity,
        clock: Clock,
    ) -> Self {
        let own = identity.identity().clone();
        let mut certificates = Self {
            changed: None,
            folder,
            authority,
            clock,
            own,
            authorities: identity.trust().state(),
            looked: None,
            reminders: BTreeMap::new(),
        };
        certificates.changed = certificates.file_changed();
        certificates
    }

    fn file_changed(&self) -> Option<SystemTime> {
        let file = self.folder.join(format!("{}.pem", self.own.name));
        std::fs::metadata(file).ok()?.modified().ok()
    }
}

impl<D: Disk> Service<D> {
    /// The trust list, the host's own certificate, and those of live links. Some system calls each second; the files of a few
    /// kilobytes are read where one has changed, and once an hour: not worth a thread.
    pub(super) fn look_after_certificates(&mut self) {
        let trust_changed = match self.server.reload_if_changed() {
            Ok(changed) => changed,
            Err(error) => {
                tracing::error!("read the trust list: {error}");
                false
            }
        };
        let (known, now) = (&self.certificates, (self.certificates.clock)());
        let is_time = known.looked.is_none_or(|looked| now.abs_diff(looked) >= LOOK_EVERY);
        if is_time || trust_changed || known.file_changed() != known.changed {
            self.certificates.looked = Some(now);
            self.renew();
            self.certificates.changed = self.certificates.file_changed();
            self.read_authorities();
            self.remind();
        }
        self.check_links();
    }

    /// Also when an operator says that something was changed.
    pub(super) fn look_again(&mut self) {
        self.certificates.looked = None;
        self.look_after_certificates();
    }

    /// Where the authority is elsewhere, [`super::member::follow`] renews, and what it has kept is taken up here.
    fn renew(&mut self) {
        let Certificates { folder, authority, own, clock, .. } = &mut self.certificates;
        if let Some(authority) = authority
            && let Err(error) = authority.renew_host(&self.name)
        {
            tracing::error!("renew this host's certificate: {error}");
        }
        let renewed = match NodeIdentity::open(folder, &self.name, Role::Hook, clock) {
            Ok(identity) if identity.identity().serial == own.serial => return,
            Ok(identity) => {
                *own = identity.identity().clone();
                Ok(self.server.use_identity(&identity))
            }
            Err(error) => Err(error),
        };
        match renewed {
            Ok(Ok(())) => tracing::info!("this host's certificate was renewed"),
            Ok(Err(error)) => tracing::error!("use the renewed certificate: {error}"),
            Err(error) => tracing::error!("read this host's certificate: {error}"),
        }
    }

    fn read_authorities(&mut self) {
        let certificates = &mut self.certificates;
        certificates.authorities = match certificates.authority.as_ref().map(|own| own.state()) {
            Some(Ok(state)) => state,
            Some(Err(error)) => return tracing::error!("read the authority: {error}"),
            None => self.server.authorities(),
        };
    }

    /// Revocations, retirement and expiry take effect on live links too.
    fn check_links(&mut self) {
        self.pool.set_revocations(self.server.trust_number());
        for linked in self.links.values() {
            if let Err(refusal) = self.server.check(linked.connection.identity()) {
                tracing::warn!(worker = linked.connection.identity().name, %refusal, "link ended");
                linked.connection.close(refusal.code, &refusal.text);
            }
        }
    }

    /// Says in the log what is near its end: once a day, and louder as it comes nearer.
    fn remind(&mut self) {
        let now = (self.certificates.clock)();
        let warnings: Vec<_> =
            self.looked_at().filter_map(|one| Some((one.warning()?, one))).collect();
        let mut reminders = BTreeMap::new();
        for (warning, one) in warnings {
            let key = (one.role.to_owned(), one.name);
            let mut reminder = self.certificates.reminders.remove(&key).unwrap_or_default();
            if reminder.is_time(one.standing, now) {
                match one.standing {
                    Standing::Good | Standing::Due => tracing::warn!("{warning}"),
                    Standing::Urgent | Standing::Expired => tracing::error!("{warning}"),
                }
            }
            reminders.insert(key, reminder);
        }
        self.certificates.reminders = reminders;
    }

    /// For the status: all certificates, and what somebody should look at.
    pub(super) fn certificates_status(&self) -> (Vec<CertificateStatus>, Vec<String>) {
        let all: Vec<Looked> = self.looked_at().collect();
        let warnings = all.iter().filter_map(Looked::warning).collect();
        (all.into_iter().map(Looked::status).collect(), warnings)
    }

    fn looked_at(&self) -> impl Iterator<Item = Looked> {
        let Certificates { authorities, own, authority, clock, .. } = &self.certificates;
        let now = clock();
        let links = self.links.values().map(|linked| linked.connection.identity());
        // One for each worker, in the order of their names, whatever number of links a moment has.
        let workers: BTreeMap<&str, &Identity> =
            links.map(|identity| (identity.name.as_str(), identity)).collect();
        looked_at(authorities, authority.is_some(), now)
            .chain([Looked::node(own, authorities, now)])
            .chain(workers.into_values().map(|worker| Looked::node(worker, authorities, now)))
            .collect::<Vec<_>>()
            .into_iter()
    }
}

/// The authorities, on their own host (`at_home`) with what stands and falls with their keys.
pub(crate) fn looked_at(
    authorities: &[AuthorityState],
    at_home: bool,
    now: u64,
) -> impl Iterator<Item = Looked> {
    let root_here =
        authorities.iter().any(|one| one.kind == AuthorityKind::Root && one.current && one.has_key);
    authorities.iter().map(move |one| {
        let note = match one.kind {
            _ if !one.current => "to be retired when every node has moved",
            AuthorityKind::Root if at_home && !one.has_key => "its key is offline",
            AuthorityKind::Issuing if at_home && !root_here => {
                "certifies while the root's key is offline"
            }
            _ => "",
        };
        Looked {
            role: one.kind.as_str(),
            name: one.id.to_string(),
            expires: one.expires,
            now,
            standing: Standing::of_authority(one.kind, one.expires, now),
            authority: one.id.to_string(),
            current: one.current,
            // Elsewhere, and beside the root's key, nothing hangs on it.
            counts: one.current
                && (one.kind == AuthorityKind::Root || (at_home && !root_here && one.has_key)),
            note,
        }
    })
}

/// A certificate at this moment.
pub(crate) struct Looked {
    role: &'static str,
    name: String,
    expires: u64,
    now: u64,
    standing: Standing,
    authority: String,
    current: bool,
    /// Whether its end is anybody's concern.
    counts: bool,
    note: &'static str,
}

impl Looked {
    pub(crate) fn node(identity: &Identity, authorities: &[AuthorityState], now: u64) -> Self {
        let of = |one: &&AuthorityState| one.id == identity.authority;
        Self {
            role: identity.role.as_str(),
            name: identity.name.clone(),
            expires: identity.expires,
            now,
            standing: Standing::of_node(identity.expires, now),
            authority: identity.authority.to_string(),
            current: authorities.iter().find(of).is_some_and(|one| one.current),
            counts: true,
            note: "",
        }
    }

    pub(crate) fn issued(node: &IssuedCertificate, now: u64) -> Self {
        Self {
            role: node.role.as_str(),
            name: node.name.clone(),
            expires: node.expires,
            now,
            standing: Standing::of_node(node.expires, now),
            authority: node.authority.to_string(),
            current: node.current,
            counts: true,
            note: "",
        }
    }

    /// What is wrong and what to do about it.
    pub(crate) fn warning(&self) -> Option<String> {
        if self.standing == Standing::Good || !self.counts {
            return None;
        }
        let end = match self.standing {
            Standing::Expired => format!("expired {} ago", span(self.now - self.expires)),
            _ => format!("expires in {}", span(self.expires.saturating_sub(self.now))),
        };
        Some(match self.role {
            "root" => format!(
                "the cluster's authority {} {end}: `gantry-hook authority rotate` makes a new one",
                self.name
            ),
            "issuing" => format!(
                "the key that certifies while the authority's is offline {end}, and then nothing is renewed: bring the \
                 authority's back with `gantry-hook authority import FILE`"
            ),
            role => format!(
                "the certificate of {role} {} {end} and was not renewed: its log says why, or look whether the authority's \
                 host can be reached and has its key",
                self.name
            ),
        })
    }

    pub(crate) fn status(self) -> CertificateStatus {
        CertificateStatus {
            name: self.name,
            role: self.role.to_owned(),
            expires_unix_s: self.expires,
            standing: self.standing.as_str().to_owned(),
            authority: self.authority,
            current: self.current,
            note: self.note.to_owned(),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use gantry_link::system_clock;

    use super::*;

    const DAY: u64 = 86_400;

    fn warnings(authority: &Authority, now: u64) -> Vec<String> {
        looked_at(&authority.state().unwrap(), true, now).filter_map(|one| one.warning()).collect()
    }

    #[test]
    fn what_nears_its_end_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::create(folder.path(), "mx1", system_clock()).unwrap();
        let now = system_clock()();
        assert!(warnings(&authority, now + 3_400 * DAY).is_empty());
        let told = warnings(&authority, now + 3_500 * DAY);
        assert!(told.len() == 1 && told.concat().contains("expires in 1"), "{told:?}");
        assert!(told.concat().contains("authority rotate"), "{told:?}");

        let safe = tempfile::tempdir().unwrap();
        authority.export(&safe.path().join("key"), b"x", 100 * DAY).unwrap();
        assert!(warnings(&authority, now + 69 * DAY).is_empty());
        let told = warnings(&authority, now + 95 * DAY);
        assert!(told.len() == 1 && told.concat().contains("authority import FILE"), "{told:?}");
        authority.import(&safe.path().join("key"), b"x").unwrap();
        assert!(warnings(&authority, now + 95 * DAY).is_empty(), "the key is back");
    }
}

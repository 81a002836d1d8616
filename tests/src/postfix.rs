//! A Postfix of one's own: before and behind the hook, set up with what `docs/mta/postfix.md` says, or as a relay that
//! wants a login.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::pages::{blocks_of, page};
use crate::smtp::Client;
use crate::{Certificate, Dovecot, PATIENCE, free_port, skip, until};

/// The page whose settings are under test.
const PAGE: &str = "docs/mta/postfix.md";
/// Debian's untouched master.cf, which has the services that every Postfix needs.
const MASTER: &str = "/usr/share/postfix/master.cf.dist";
/// Settings of the test bed alone: where things lie, where mail goes in the end, and no DNS.
const BED: &str = "compatibility_level = 3.6\n\
    command_directory = /usr/sbin\ndaemon_directory = /usr/lib/postfix/sbin\n\
    myhostname = mx.postfix.example\nmydestination =\nmynetworks = 127.0.0.0/8\n\
    inet_interfaces = 127.0.0.1\ninet_protocols = ipv4\nalias_maps =\nlocal_recipient_maps =\n\
    smtpd_recipient_restrictions = permit_mynetworks, reject\nsmtpd_peername_lookup = no\n\
    disable_dns_lookups = yes\nsmtp_host_lookup = native\nsmtp_line_length_limit = 0\n\
    smtp_tls_security_level = none\nsmtpd_tls_security_level = none\nin_flow_delay = 0\n\
    minimal_backoff_time = 1s\nmaximal_backoff_time = 2s\nqueue_run_delay = 1s\n";

/// A running Postfix. It is stopped when dropped.
pub struct Postfix {
    /// Where mail goes in.
    pub front: SocketAddr,
    folder: TempDir,
}

impl Postfix {
    /// Starts it with the hook as its content filter. The hook takes mail at `filter` and gives it back at `back`; in the
    /// end all mail goes to `next`. `None`, and a line that says so, where Postfix is not installed or this is not root.
    pub fn start(filter: SocketAddr, back: SocketAddr, next: SocketAddr) -> Option<Self> {
        let page = page(PAGE);
        Self::with_filter(&page, filter, back, next)
    }

    /// The same with TLS demanded on both sides of the hook, as the page says for a network; `own` is Postfix's.
    pub fn over_tls(
        filter: SocketAddr,
        back: SocketAddr,
        next: SocketAddr,
        own: &Certificate,
    ) -> Option<Self> {
        let (client, server) =
            ("-o smtp_tls_security_level=none", "-o smtpd_tls_security_level=none");
        let page = page(PAGE);
        // The page names both where it says what takes their places.
        let times = |text| page.matches(text).count();
        assert_eq!((times(client), times(server)), (2, 2), "{PAGE} has other settings");
        let server_tls =
            format!("-o smtpd_tls_security_level=encrypt\n    {}", own.settings("-o "));
        let page = page
            .replace(client, "-o smtp_tls_security_level=encrypt\n    -o smtp_tls_loglevel=1")
            .replace(server, &server_tls);
        Self::with_filter(&page, filter, back, next)
    }

    /// Starts a relay: it takes mail only over TLS, and only from whom `login` lets in.
    pub fn relay(next: SocketAddr, own: &Certificate, login: &Dovecot) -> Option<Self> {
        let postfix = Self::prepare()?;
        let options = [
            "smtpd_tls_security_level=encrypt",
            "smtpd_tls_auth_only=yes",
            "smtpd_sasl_auth_enable=yes",
            "smtpd_sasl_type=dovecot",
            &format!("smtpd_sasl_path={}", login.socket().display()),
            "smtpd_relay_restrictions=permit_sasl_authenticated,reject",
            "smtpd_recipient_restrictions=permit_sasl_authenticated,reject",
        ];
        let options = options.map(|option| format!("  -o {option}\n")).concat();
        let front =
            format!("{} inet n - n - - smtpd\n{options}  {}\n", postfix.front, own.settings("-o "));
        Some(postfix.run("", &front, next))
    }

    fn with_filter(
        page: &str,
        filter: SocketAddr,
        back: SocketAddr,
        next: SocketAddr,
    ) -> Option<Self> {
        let postfix = Self::prepare()?;
        let ports = |text: String| {
            assert!(text.contains("10025") || text.contains("10026"), "no port in {text}");
            text.replace("10025", &filter.port().to_string())
                .replace("10026", &back.port().to_string())
        };
        let front = format!(
            "{} inet n - n - - smtpd\n  -o smtpd_authorized_xforward_hosts=127.0.0.0/8\n",
            postfix.front
        );
        let master = front + &ports(blocks_of(page, "/etc/postfix/master.cf"));
        Some(postfix.run(&ports(blocks_of(page, "/etc/postfix/main.cf")), &master, next))
    }

    fn prepare() -> Option<Self> {
        if !Path::new(MASTER).is_file() || which("postfix").is_none() {
            skip("postfix", "it is not installed (Debian: postfix)");
            return None;
        }
        if !is_root() {
            skip("postfix", "only root can start one");
            return None;
        }
        let folder = TempDir::with_prefix("gantry-postfix-").expect("make a temporary folder");
        // Postfix's own user has to get in.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
        let front = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port().expect("find a port")));
        Some(Self { front, folder })
    }

    /// Starts it with these additions to `main.cf` and `master.cf`.
    fn run(self, main: &str, master: &str, next: SocketAddr) -> Self {
        let front = self.front;
        self.configure(main, master, next);
        self.command(&["start"]);
        let answers = || Client::try_connect(front).is_ok().then_some(());
        assert!(until(PATIENCE, answers).is_some(), "postfix does not answer:\n{}", self.log());
        self
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.path("maillog")).unwrap_or_default()
    }

    /// Tries everything in the queue again.
    pub fn flush(&self) {
        self.command(&["flush"]);
    }

    /// How many messages are in its queue.
    pub fn queued(&self) -> usize {
        let mut folders: Vec<PathBuf> =
            ["maildrop", "incoming", "active", "deferred", "hold", "corrupt"]
                .map(|name| self.path("spool").join(name))
                .into();
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
                match entry.path().is_dir() {
                    true => folders.push(entry.path()),
                    false => count += 1,
                }
            }
        }
        count
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn configure(&self, main: &str, master: &str, next: SocketAddr) {
        for name in ["etc", "spool", "data"] {
            fs::create_dir(self.path(name)).expect("make a folder");
        }
        let owner = Command::new("chown").arg("postfix").arg(self.path("data")).status();
        assert!(owner.is_ok_and(|status| status.success()), "give Postfix its data folder");
        let at = self.folder.path().display();
        let main = format!(
            "{BED}queue_directory = {at}/spool\ndata_directory = {at}/data\n\
             maillog_file = {at}/maillog\nmaillog_file_prefixes = {at}\n\
             relayhost = [127.0.0.1]:{}\n{main}",
            next.port(),
        );
        let dist = fs::read_to_string(MASTER).expect("read Debian's master.cf");
        let smtpd = |line: &&str| line.starts_with("smtp ") && line.contains("inet");
        let services: String =
            dist.lines().filter(|line| !smtpd(line)).map(|line| format!("{line}\n")).collect();
        fs::write(self.path("etc/main.cf"), main).expect("write main.cf");
        fs::write(self.path("etc/master.cf"), services + master).expect("write master.cf");
    }

    fn command(&self, arguments: &[&str]) {
        let mut command = Command::new("postfix");
        command.arg("-c").arg(self.path("etc")).args(arguments).stdin(Stdio::null());
        // Not through pipes: the daemon would keep them open.
        let out = fs::File::create(self.path("start.log")).expect("make a log");
        let err = out.try_clone().expect("make a log");
        let status = command.stdout(out).stderr(err).status().expect("run postfix");
        let said = fs::read_to_string(self.path("start.log")).unwrap_or_default();
        assert!(status.success(), "postfix {arguments:?}: {said}\n{}", self.log());
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        // Waits for its master and is silent where that is gone already.
        let mut command = Command::new("postfix");
        command.arg("-c").arg(self.path("etc")).arg("stop").stdin(Stdio::null());
        let _ = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

pub(crate) fn which(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.into_iter().map(|folder| folder.join(program)).find(|path| path.is_file())
}

pub(crate) fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output();
    output.is_ok_and(|output| output.stdout.trim_ascii() == b"0")
}

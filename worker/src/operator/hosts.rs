//! The hosts of the file, asked all at once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use gantry_link::{
    CloseCode, ConnectOptions, IdentityError, LinkError, NodeIdentity, OperatorConnection, Role,
    connect_operator, exchange_trust, system_clock,
};
use gantry_operator::{REPLY_BYTES_MAX, Reply, Request};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::exit::{self, Failure};

/// For the connection to each address, and for each reply.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// The hosts that an operator's file names, in its order.
#[derive(Debug)]
pub(super) struct Hosts {
    identity: Arc<NodeIdentity>,
    identity_dir: PathBuf,
    hosts: Vec<Host>,
}

/// One of them.
#[derive(Debug)]
struct Host {
    address: String,
    /// Of the operator.
    identity_dir: PathBuf,
    /// By its certificate, once it was reached.
    name: Option<String>,
    connection: Option<OperatorConnection>,
}

/// What came of asking one host.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) address: String,
    /// Unknown where it was never reached.
    pub(super) host: Option<String>,
    pub(super) reply: Result<Reply, Problem>,
}

/// Why a host gave no answer.
#[derive(Clone, Debug)]
pub(super) struct Problem {
    pub(super) code: u8,
    pub(super) text: String,
    /// What to do about it.
    pub(super) remedy: &'static str,
}

impl Problem {
    /// What is wrong and what to do about it.
    pub(super) fn sentence(&self) -> String {
        if self.remedy.is_empty() {
            return self.text.clone();
        }
        format!("{}; {}", self.text, self.remedy)
    }
}

impl Answer {
    /// The host's name, or its address where that is not known.
    pub(super) fn name(&self) -> &str {
        self.host.as_deref().unwrap_or(&self.address)
    }
}

impl Hosts {
    /// The file's hosts, and the operator's certificate beside it.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let folder = &config.identity_dir;
        let identity = NodeIdentity::open(folder, &config.name, Role::Operator, &system_clock());
        let identity = identity.map_err(|error| not_an_operator(&config.name, &error))?;
        // Hosts that dial cannot be dialled.
        let addresses = config.hosts.iter().filter_map(|host| host.address.as_ref());
        let host = |address: &gantry_config::Endpoint| Host {
            address: address.to_string(),
            identity_dir: folder.clone(),
            name: None,
            connection: None,
        };
        let hosts: Vec<Host> = addresses.map(host).collect();
        if hosts.is_empty() {
            let text = "no [[host]] of the file has an address, so there is none to ask; write where its hook listens, such \
                        as address = \"mx1.example.com:4733\", or ask with `gantry-hook status` on the host";
            return Err(Failure { code: exit::EX_CONFIG, text: text.to_owned() });
        }
        Ok(Self { identity: Arc::new(identity), identity_dir: folder.clone(), hosts })
    }

    /// Connects, and keeps only the host of this name or address, where one is given.
    pub(super) async fn select(&mut self, wanted: Option<&str>) -> Result<(), Failure> {
        let Some(wanted) = wanted else { return Ok(()) };
        if let Some(at) = self.hosts.iter().position(|host| host.address == wanted) {
            self.hosts = vec![self.hosts.swap_remove(at)];
            return Ok(());
        }
        let problems = self.connect_until(wanted).await;
        if let Some(at) = self.hosts.iter().position(|host| host.name.as_deref() == Some(wanted)) {
            let found = self.hosts.swap_remove(at);
            self.end().await;
            self.hosts = vec![found];
            return Ok(());
        }
        let there: Vec<&str> = self.hosts.iter().filter_map(|host| host.name.as_deref()).collect();
        let mut text = format!("no host of the file that answers is called {wanted:?}");
        if !there.is_empty() {
            text.push_str(&format!("; those that do are {}", there.join(", ")));
        }
        for problem in &problems {
            text.push_str(&format!("\n{}", problem.sentence()));
        }
        let code = problems.first().map_or(exit::EX_USAGE, |problem| problem.code);
        Err(Failure { code, text })
    }

    /// That exactly one host is left, for what must not be done at several.
    pub(super) fn expect_one(&self, example: &str) -> Result<(), Failure> {
        if self.hosts.len() == 1 {
            return Ok(());
        }
        let text = format!(
            "the file names {} hosts, and ids count at each on their own: say which is meant, such as {example}, or \
             with --host",
            self.hosts.len()
        );
        Err(Failure { code: exit::EX_USAGE, text })
    }

    /// Asks all hosts at once; the answers are in the file's order.
    pub(super) async fn ask(&mut self, request: &Request) -> Vec<Answer> {
        let text: Arc<[u8]> = serde_json::to_vec(request).unwrap_or_default().into();
        let mut asking = JoinSet::new();
        for (index, mut host) in std::mem::take(&mut self.hosts).into_iter().enumerate() {
            let (identity, text) = (Arc::clone(&self.identity), Arc::clone(&text));
            asking.spawn(async move {
                let reply = host.ask(&identity, &text).await;
                (index, host, reply)
            });
        }
        let mut asked = asking.join_all().await;
        asked.sort_by_key(|(index, ..)| *index);
        let mut answers = Vec::new();
        for (_, host, reply) in asked {
            let (address, name) = (host.address.clone(), host.name.clone());
            answers.push(Answer { address, host: name, reply });
            self.hosts.push(host);
        }
        answers
    }

    /// Ends all connections, so that the hosts know at once.
    pub(super) async fn end(&mut self) {
        let mut ending = JoinSet::new();
        for connection in self.hosts.iter_mut().filter_map(|host| host.connection.take()) {
            ending.spawn(connection.end());
        }
        ending.join_all().await;
    }

    /// At two thirds of its life, or when there is a newer authority, the operator's certificate is renewed at the first host
    /// that can.
    pub(super) async fn renew_when_due(&self) {
        let clock = system_clock();
        let (folder, name) = (&self.identity_dir, &self.identity.identity().name);
        // With what was learned from the hosts meanwhile.
        let Ok(identity) = NodeIdentity::open(folder, name, Role::Operator, &clock) else { return };
        if !identity.is_due(&clock) {
            return;
        }
        let mut last = None;
        for host in &self.hosts {
            match gantry_link::renew(&host.address, folder, &identity, &clock).await {
                Ok(_) => return,
                Err(error) => last = Some(error),
            }
        }
        if let Some(error) = last {
            tracing::warn!("renew this operator's certificate: {error}");
        }
    }

    /// Connects to all until one with this name is found: nobody waits for those that do not answer then.
    async fn connect_until(&mut self, wanted: &str) -> Vec<Problem> {
        let mut connecting = JoinSet::new();
        for mut host in std::mem::take(&mut self.hosts) {
            let identity = Arc::clone(&self.identity);
            connecting.spawn(async move {
                let connected = host.connect(&identity).await;
                (host, connected.err())
            });
        }
        let mut problems = Vec::new();
        while let Some(connected) = connecting.join_next().await {
            let Ok((host, problem)) = connected else { continue };
            problems.extend(problem);
            let found = host.name.as_deref() == Some(wanted);
            self.hosts.push(host);
            if found {
                break;
            }
        }
        self.hosts.sort_by(|one, other| one.name.cmp(&other.name));
        problems
    }
}

impl Host {
    async fn connect(&mut self, identity: &NodeIdentity) -> Result<(), Problem> {
        if self.connection.is_some() {
            return Ok(());
        }
        let options = ConnectOptions { clock: system_clock(), time_max: ANSWER_TIME_MAX };
        let mut connected = connect_operator(&self.address, identity, &options).await;
        if let Err(LinkError::PeerRefused { refusal, .. }) = &connected
            && refusal.code == CloseCode::UnknownAuthority
        {
            // Perhaps it is of a newer authority, which its trust list then proves.
            let (folder, clock) = (&self.identity_dir, &options.clock);
            if let Ok(Some(newer)) = exchange_trust(&self.address, folder, identity, clock).await {
                connected = connect_operator(&self.address, &newer, &options).await;
            }
        }
        let connection = connected.map_err(problem)?;
        self.name = Some(connection.host().to_owned());
        self.connection = Some(connection);
        Ok(())
    }

    async fn ask(&mut self, identity: &NodeIdentity, request: &[u8]) -> Result<Reply, Problem> {
        self.connect(identity).await?;
        let Some(connection) = &self.connection else {
            return Err(unreachable_now("it was not connected".to_owned(), ""));
        };
        let text = match connection.ask(request, REPLY_BYTES_MAX).await {
            Ok(text) => text,
            Err(error) => {
                // The next question begins with a connection of its own.
                self.connection = None;
                return Err(problem(error));
            }
        };
        serde_json::from_slice(&text).map_err(|error| Problem {
            code: exit::EX_SOFTWARE,
            text: format!("read the reply of {}: {error}", self.address),
            remedy: "its hook may run another version of Gantry",
        })
    }
}

/// What a failed connection means, and what to do about it.
fn problem(error: LinkError) -> Problem {
    const REACH: &str =
        "does its hook run, and can UDP reach it from here? `gantry-hook status` there tells";
    match error {
        LinkError::Unreachable { reason, target } if reason.starts_with(&target) => {
            unreachable_now(reason, REACH)
        }
        LinkError::Unreachable { .. } => unreachable_now(error.to_string(), REACH),
        LinkError::Refused { ref refusal, .. } if refusal.code == CloseCode::ShuttingDown => {
            unreachable_now(error.to_string(), "try again when it runs")
        }
        LinkError::Refused { ref refusal, .. } if refusal.code == CloseCode::Limit => Problem {
            code: exit::EX_TEMPFAIL,
            text: error.to_string(),
            remedy: "try again in a minute",
        },
        LinkError::Refused { .. } | LinkError::PeerRefused { .. } => Problem {
            code: exit::EX_NOPERM,
            text: error.to_string(),
            remedy: "join anew with a token for an operator where the certificate is at fault",
        },
    }
}

fn unreachable_now(text: String, remedy: &'static str) -> Problem {
    Problem { code: exit::EX_UNAVAILABLE, text, remedy }
}

/// The certificate beside the file is none of an operator.
fn not_an_operator(name: &str, error: &IdentityError) -> Failure {
    let text = format!(
        "{error}; these commands need an operator's certificate: a file of its own with a name and the hosts, and \
         `gantry --config operator.toml join TOKEN` with what `gantry-hook token --role operator --name {name}` prints"
    );
    Failure { code: exit::EX_NOPERM, text }
}

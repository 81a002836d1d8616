//! The policy file: what happens to which mail. `docs/policy.md` teaches it.
//!
//! [`Policy::load`] reads it, [`Policy::step`] goes through its rules. Nothing here runs a module or waits: the pipeline
//! runs what a step asks for and takes the next step, until every recipient has its answer.

mod address;
mod condition;
mod evaluate;
mod keys;
mod notice;
mod outcome;
mod read;
pub mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use gantry_config::{ConfigError, Document};
use gantry_mail::HeaderEdit;
use gantry_protocol::id::Digest;
use gantry_protocol::policy::of_files;
use sha2::{Digest as _, Sha256};

use address::Addresses;
use condition::Condition;
use notice::Notice;

pub use condition::{Facts, Ran};
pub use evaluate::{Decision, Step};
pub use keys::KEYS;
pub use notice::{FIELDS, Told};
pub use outcome::{Engines, Kind, Problem, Said};

/// A policy that has been read without a mistake.
#[derive(Clone, Debug)]
pub struct Policy {
    digest: Digest,
    /// The policy file and the lists that it names.
    files: Vec<PathBuf>,
    outcomes: Outcomes,
    /// Needs for which not all engines are asked for.
    engines: BTreeMap<String, Engines>,
    /// Who we are, for directions.
    local: Addresses,
    notices: Vec<Notice>,
    rules: Vec<Rule>,
}

/// What happens to mail of which a module said more than clean, unless a rule says otherwise.
#[derive(Clone, Debug)]
struct Outcomes {
    found: Answer,
    unscanned: Answer,
    encrypted: Answer,
    malformed: Answer,
    over_budget: Answer,
}

/// What becomes of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Handed on.
    Release,
    /// Another attempt, perhaps elsewhere; held when all are used up.
    Retry,
    /// Set aside for an operator.
    Hold,
    /// Kept from its recipients.
    Quarantine,
    /// Refused, with 5xx and an enhanced code of class 5.
    Reject { code: u16, enhanced: String, text: String },
    /// Dropped without a word.
    Discard,
}

#[derive(Clone, Debug)]
struct Rule {
    name: String,
    when: Condition,
    unless: Option<Condition>,
    run: Vec<String>,
    edits: Vec<HeaderEdit>,
    /// Notices, by their place.
    notify: Vec<usize>,
    then: Option<Answer>,
    reason: Option<String>,
    stop: bool,
}

impl Policy {
    /// Reads a policy file and the lists that it names.
    ///
    /// # Errors
    /// Every mistake found, in the order of the file; at most [`gantry_config::MISTAKES_MAX`].
    pub fn load(path: &Path) -> Result<Self, Vec<ConfigError>> {
        Self::of(
            path,
            &Document::load_as(path, "policy", "name a policy file that is there")
                .map_err(|error| vec![error])?,
        )
    }

    /// As [`Policy::load`], for a worker whose modules provide these needs, one item for each module.
    ///
    /// # Errors
    /// As [`Policy::load`], and what the modules lack; a sentence each.
    pub fn load_for(path: &Path, provides: &[&str]) -> Result<Self, Vec<String>> {
        let policy = Self::load(path)
            .map_err(|mistakes| mistakes.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let lacks = policy.lacks(provides);
        match lacks.is_empty() {
            true => Ok(policy),
            false => {
                Err(lacks.into_iter().map(|lack| format!("{}: {lack}", path.display())).collect())
            }
        }
    }

    /// As [`Policy::load`], for text that would stand in the file `path`.
    ///
    /// # Errors
    /// As [`Policy::load`].
    pub fn from_text(path: &Path, text: &str) -> Result<Self, Vec<ConfigError>> {
        Self::of(path, &Document::new(path, text))
    }

    fn of(path: &Path, document: &Document) -> Result<Self, Vec<ConfigError>> {
        let read = document.resolve(read::policy)?;
        let mut contents: Vec<&[u8]> = vec![document.text().as_bytes()];
        contents.extend(read.lists.values().map(Vec::as_slice));
        let digest = of_files(&contents, |bytes| Digest(Sha256::digest(bytes).into()));
        let files = std::iter::once(path.to_owned()).chain(read.lists.into_keys()).collect();
        Ok(Self { digest, files, ..read.policy })
    }

    /// Stands for every byte of the policy file and of the lists that it names; hook and workers compare it.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The policy file, and the lists that it names.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// How many of a need's engines must say clean.
    pub fn engines(&self, need: &str) -> Engines {
        self.engines.get(need).copied().unwrap_or_default()
    }

    /// Whether a rule or a notice looks at the header block.
    pub fn reads_headers(&self) -> bool {
        if !self.notices.is_empty() {
            return true;
        }
        let conditions =
            self.rules.iter().flat_map(|rule| [Some(&rule.when), rule.unless.as_ref()]);
        conditions.flatten().any(|condition| !condition.headers.is_empty())
    }

    /// Needs that rules run beside those that mailboxes ask for, each once.
    pub fn runs(&self) -> Vec<&str> {
        let mut needs: Vec<&str> =
            self.rules.iter().flat_map(|rule| &rule.run).map(String::as_str).collect();
        needs.sort_unstable();
        needs.dedup();
        needs
    }

    /// The rule's name.
    pub fn rule(&self, place: usize) -> &str {
        self.rules.get(place).map_or("", |rule| &rule.name)
    }

    /// How many rules there are.
    pub fn rules(&self) -> usize {
        self.rules.len()
    }

    /// What these modules cannot do that the policy asks for, in a sentence each; `provides` has an item for each
    /// module.
    pub fn lacks(&self, provides: &[&str]) -> Vec<String> {
        let count = |need: &str| provides.iter().filter(|provided| **provided == need).count();
        let missing = self.runs().into_iter().filter(|need| count(need) == 0).map(|need| {
            format!(
                "a rule runs {need:?}, which no module of this worker provides; add such a [[module]], or let the \
                 mailbox's needs ask for it"
            )
        });
        let few = self.engines.iter().filter_map(|(need, engines)| {
            let (modules, required) = (count(need), engines.required(count(need)));
            (modules > 0 && modules < required).then(|| {
                format!(
                    "{required} engines must say clean for {need:?}, and this worker has {modules}; add a [[module]], or \
                     write a smaller quorum"
                )
            })
        });
        missing.chain(few).collect()
    }

    /// What an administrator should know who wrote this, in a sentence each.
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        for kind in Kind::ALL {
            if self.outcomes.answer(kind) == &Answer::Release {
                notes.push(format!(
                    "{} = \"release\": such mail reaches its recipients",
                    kind.key()
                ));
            }
        }
        for rule in self.rules.iter().filter(|rule| rule.then == Some(Answer::Release)) {
            for (kind, needs) in &rule.when.problems {
                let (name, key) = (&rule.name, kind.key());
                notes.push(format!("rule {name:?} releases what is {key} ({})", needs.join(", ")));
            }
        }
        for notice in self.notices.iter().filter(|notice| notice.to_sender) {
            let name = &notice.name;
            notes.push(format!(
                "notice {name:?} goes to senders, whose addresses anybody can forge; let only rules ask for it that say \
                 whom they trust, by client or direction"
            ));
        }
        if !self.notices.is_empty() {
            let allows = notice::allowed_by(&self.notices);
            notes.push(format!(
                "hook.toml has to allow what notices ask for, in each mailbox that they are about: {allows}"
            ));
        }
        notes
    }
}

impl Outcomes {
    fn answer(&self, kind: Kind) -> &Answer {
        match kind {
            Kind::Found => &self.found,
            Kind::Unscanned => &self.unscanned,
            Kind::Encrypted => &self.encrypted,
            Kind::Malformed => &self.malformed,
            Kind::OverBudget => &self.over_budget,
        }
    }
}

impl Answer {
    /// Of several answers to one message the strictest counts.
    fn strictness(&self) -> u8 {
        match self {
            Answer::Release => 0,
            Answer::Retry => 1,
            Answer::Hold => 2,
            Answer::Quarantine => 3,
            Answer::Reject { .. } => 4,
            Answer::Discard => 5,
        }
    }

    /// As the policy file calls it.
    pub fn word(&self) -> &'static str {
        match self {
            Answer::Release => "release",
            Answer::Retry => "retry",
            Answer::Hold => "hold",
            Answer::Quarantine => "quarantine",
            Answer::Reject { .. } => "reject",
            Answer::Discard => "discard",
        }
    }
}

#[cfg(test)]
#[allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests fail by panicking"
)]
mod tests;

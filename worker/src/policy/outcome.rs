//! What the modules of a need said, taken together.

use gantry_mail::Mask;
use gantry_protocol::text::bounded;
use gantry_protocol::verdict::{Finding, Outcome};

/// Names of findings in one reason; a message may match any number of rules.
const NAMES_MAX: usize = 8;

/// What a module can say beside "clean". The order is that of the policy file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Found,
    Unscanned,
    Encrypted,
    Malformed,
    OverBudget,
}

impl Kind {
    pub const ALL: [Kind; 5] =
        [Kind::Found, Kind::Unscanned, Kind::Encrypted, Kind::Malformed, Kind::OverBudget];

    /// As the policy file calls it.
    pub fn key(self) -> &'static str {
        match self {
            Kind::Found => "found",
            Kind::Unscanned => "unscanned",
            Kind::Encrypted => "encrypted",
            Kind::Malformed => "malformed",
            Kind::OverBudget => "over-budget",
        }
    }

    /// `None` for clean.
    pub fn of(outcome: &Outcome) -> Option<Self> {
        Some(match outcome {
            Outcome::Clean => return None,
            Outcome::Found { .. } => Kind::Found,
            Outcome::Unscanned { .. } => Kind::Unscanned,
            Outcome::Encrypted { .. } => Kind::Encrypted,
            Outcome::Malformed { .. } => Kind::Malformed,
            Outcome::OverBudget { .. } => Kind::OverBudget,
        })
    }
}

/// How many of a need's modules must say clean before it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Engines {
    #[default]
    All,
    /// At least one.
    AtLeast(usize),
}

impl Engines {
    /// Of so many modules.
    pub fn required(self, modules: usize) -> usize {
        match self {
            // Nobody at all is never enough.
            Engines::All => modules.max(1),
            Engines::AtLeast(count) => count.max(1),
        }
    }
}

/// What keeps a need from being clean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub kind: Kind,
    /// In a sentence: which module, and what.
    pub text: String,
    /// Of a finding.
    pub names: Vec<String>,
}

/// What the modules of one need said. Clean is no problem at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    pub problems: Vec<Problem>,
}

impl Said {
    /// What was found always counts. What one engine could not say does not, once enough others say clean.
    pub fn of(findings: &[&Finding], engines: Engines) -> Self {
        let clean = findings.iter().filter(|finding| finding.outcome == Outcome::Clean).count();
        let enough = clean >= engines.required(findings.len());
        let mut problems: Vec<Problem> =
            findings.iter().filter_map(|finding| problem(finding)).collect();
        if enough {
            problems.retain(|problem| problem.kind == Kind::Found);
        } else if problems.is_empty() {
            let text = format!("{clean} module(s) said clean, and more are asked for");
            problems.push(Problem { kind: Kind::Unscanned, text, names: Vec::new() });
        }
        Self { problems }
    }

    pub fn has(&self, kind: Kind) -> bool {
        self.problems.iter().any(|problem| problem.kind == kind)
    }

    /// Whether something was found, and every name of it is one of these.
    pub(super) fn found_only(&self, masks: &[Mask]) -> bool {
        let mut names = self.problems.iter().flat_map(|problem| &problem.names).peekable();
        names.peek().is_some()
            && names.all(|name| masks.iter().any(|mask| mask.matches(&name.to_lowercase())))
    }
}

pub(super) fn problem(finding: &Finding) -> Option<Problem> {
    let kind = Kind::of(&finding.outcome)?;
    let module = &finding.module;
    let (text, names) = match &finding.outcome {
        Outcome::Clean => return None,
        Outcome::Found { names } => {
            let told: Vec<&str> = names.iter().take(NAMES_MAX).map(String::as_str).collect();
            (format!("{module} found {}", told.join(", ")), names.clone())
        }
        Outcome::Unscanned { reason }
        | Outcome::Encrypted { reason }
        | Outcome::Malformed { reason }
        | Outcome::OverBudget { reason } => {
            (format!("{module}: {}: {reason}", kind.key()), Vec::new())
        }
    };
    Some(Problem { kind, text: bounded(text), names })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(module: &str, outcome: Outcome) -> Finding {
        Finding {
            need: "virus".into(),
            module: module.into(),
            engine: String::new(),
            signatures: String::new(),
            outcome,
            duration_ms: 0,
        }
    }

    fn kinds(findings: &[Finding], engines: Engines) -> Vec<Kind> {
        let findings: Vec<&Finding> = findings.iter().collect();
        Said::of(&findings, engines).problems.into_iter().map(|problem| problem.kind).collect()
    }

    #[test]
    fn all_is_all_and_any_is_one() {
        let clean = || finding("a", Outcome::Clean);
        let over = || finding("b", Outcome::OverBudget { reason: "big".into() });
        let lost = || finding("c", Outcome::Unscanned { reason: "dead".into() });
        let found = || finding("d", Outcome::Found { names: vec!["Eicar".into()] });
        let any = Engines::AtLeast(1);
        assert_eq!(kinds(&[clean(), clean()], Engines::All), []);
        assert_eq!(kinds(&[clean(), over()], Engines::All), [Kind::OverBudget]);
        assert_eq!(kinds(&[clean(), over(), lost()], any), []);
        assert_eq!(kinds(&[over(), lost()], any), [Kind::OverBudget, Kind::Unscanned]);
        assert_eq!(kinds(&[clean(), found()], any), [Kind::Found]);
        assert_eq!(
            kinds(&[clean(), lost(), found()], Engines::All),
            [Kind::Unscanned, Kind::Found]
        );
    }

    #[test]
    fn a_quorum_counts_those_that_say_clean() {
        let clean = || finding("a", Outcome::Clean);
        let lost = || finding("c", Outcome::Unscanned { reason: "dead".into() });
        let two = Engines::AtLeast(2);
        assert_eq!(kinds(&[clean(), clean(), lost()], two), []);
        assert_eq!(kinds(&[clean(), lost()], two), [Kind::Unscanned]);
        assert_eq!(kinds(&[clean()], two), [Kind::Unscanned], "one alone is no quorum of two");
        for engines in [Engines::All, Engines::AtLeast(0), Engines::AtLeast(1)] {
            assert_eq!(kinds(&[], engines), [Kind::Unscanned], "nobody is never enough");
        }
    }
}

//! Going through the rules: a pure step, taken again whenever more modules have spoken.

use std::cell::OnceCell;
use std::collections::BTreeSet;

use gantry_mail::HeaderEdit;
use gantry_protocol::text::bounded;

use super::condition::{Condition, Facts, Ran};
use super::{Answer, Policy, Rule};

/// What is next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Run the modules of these needs, none of which has been, and ask again.
    Run(Vec<String>),
    /// One for each recipient, in the envelope's order.
    Decided(Vec<Decision>),
}

/// What becomes of the message for one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub answer: Answer,
    /// What the rules change in the header block, should it be released.
    pub edits: Vec<HeaderEdit>,
    /// Why, in a sentence.
    pub reason: String,
    /// The rules that applied, by their place.
    pub rules: Vec<usize>,
}

/// A rule's conditions on the message alone, looked at once for all recipients.
#[derive(Default)]
struct Looked {
    when: OnceCell<bool>,
    unless: OnceCell<bool>,
}

struct Evaluation<'a> {
    policy: &'a Policy,
    facts: &'a Facts<'a>,
    ran: &'a Ran,
    looked: Vec<Looked>,
}

/// Needs that have to run first.
struct Missing(Vec<String>);

impl Policy {
    /// Says what becomes of a message, or what has to be run before that can be said. Each [`Step::Run`] names at
    /// least one need that is not in `ran`, so there are no more steps than needs.
    pub fn step(&self, facts: &Facts<'_>, ran: &Ran) -> Step {
        let looked = self.rules.iter().map(|_| Looked::default()).collect();
        let evaluation = Evaluation { policy: self, facts, ran, looked };
        let decided: Result<Vec<Decision>, Missing> = facts
            .envelope
            .recipients
            .iter()
            .map(|recipient| evaluation.recipient(&recipient.address))
            .collect();
        match decided {
            Ok(decisions) => Step::Decided(decisions),
            Err(Missing(needs)) => Step::Run(needs),
        }
    }
}

impl Evaluation<'_> {
    fn recipient(&self, address: &str) -> Result<Decision, Missing> {
        let mut edits = Vec::new();
        let mut rules = Vec::new();
        for (place, (rule, looked)) in self.policy.rules.iter().zip(&self.looked).enumerate() {
            if !self.applies(rule, looked, address)? {
                continue;
            }
            rules.push(place);
            self.has_run(&rule.run)?;
            edits.extend(rule.edits.iter().cloned());
            match &rule.then {
                Some(Answer::Release) => {
                    let (answer, reason) = self.outcome(Some(rule))?;
                    return Ok(Decision { answer, edits, reason, rules });
                }
                Some(answer) => {
                    let reason = self.reason(rule);
                    return Ok(Decision { answer: answer.clone(), edits, reason, rules });
                }
                None if rule.stop => break,
                None => {}
            }
        }
        let (answer, reason) = self.outcome(None)?;
        Ok(Decision { answer, edits, reason, rules })
    }

    fn applies(&self, rule: &Rule, looked: &Looked, address: &str) -> Result<bool, Missing> {
        if !self.holds(&rule.when, &looked.when, address)? {
            return Ok(false);
        }
        match &rule.unless {
            Some(unless) => Ok(!self.holds(unless, &looked.unless, address)?),
            None => Ok(true),
        }
    }

    /// What costs nothing is asked first, so that modules run only if their answer matters.
    fn holds(
        &self,
        condition: &Condition,
        looked: &OnceCell<bool>,
        address: &str,
    ) -> Result<bool, Missing> {
        let holds = *looked.get_or_init(|| condition.suits_message(self.facts))
            && condition.suits_recipient(self.facts, &self.policy.local, address);
        if !holds || !condition.asks_modules() {
            return Ok(holds);
        }
        self.has_run(self.facts.needs)?;
        Ok(condition.suits_outcomes(self.ran))
    }

    fn has_run(&self, needs: &[String]) -> Result<(), Missing> {
        let missing: BTreeSet<&String> =
            needs.iter().filter(|need| !self.ran.contains_key(*need)).collect();
        match missing.is_empty() {
            true => Ok(()),
            false => Err(Missing(missing.into_iter().cloned().collect())),
        }
    }

    /// What the outcomes say, the strictest of all; those that a releasing rule names itself are left out.
    fn outcome(&self, release: Option<&Rule>) -> Result<(Answer, String), Missing> {
        self.has_run(self.facts.needs)?;
        let mut strictest = (Answer::Release, String::new());
        for (need, said) in self.ran {
            for problem in &said.problems {
                if release.is_some_and(|rule| rule.when.names_problem(need, problem.kind, self.ran))
                {
                    continue;
                }
                let answer = self.policy.outcomes.answer(problem.kind);
                if answer.strictness() > strictest.0.strictness() || strictest.1.is_empty() {
                    strictest = (answer.clone(), problem.text.clone());
                }
            }
        }
        if strictest.1.is_empty() {
            strictest.1 = match release {
                Some(rule) => format!("rule {:?}", rule.name),
                None => "nothing speaks against it".to_owned(),
            };
        }
        Ok(strictest)
    }

    /// The rule's own words, else its name and what was found, if anything.
    fn reason(&self, rule: &Rule) -> String {
        if let Some(reason) = &rule.reason {
            return reason.clone();
        }
        let mut problems = self.ran.values().flat_map(|said| &said.problems);
        match problems.next() {
            Some(problem) => bounded(format!("{} (rule {:?})", problem.text, rule.name)),
            None => bounded(format!("rule {:?}", rule.name)),
        }
    }
}

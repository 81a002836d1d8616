//! Operators' commands: what all hosts of the file say, and what they are told to do.
//!
//! Every command asks all hosts at once. One that does not answer is shown as such, and the command ends with the code
//! for that ([`exit::EX_UNAVAILABLE`]).

pub mod args;
mod hosts;
mod show;
mod top;

use std::io::{IsTerminal, Write};

use gantry_operator::{Order, Queue, Reply, Request};
use serde_json::{Value, json};

use crate::commands::runtime;
use crate::config::Config;
use crate::exit::{self, Failure, failure, line};
use args::{AsideAction, At, Decision, MessageRef, Node, OperatorCommand, Output};
use hosts::{Answer, Hosts};
use top::How;

/// Does what an operator asks for, writing results to `out`.
///
/// # Errors
/// Whatever kept it from being done, also at one of several hosts.
pub fn execute(
    config: &Config,
    command: &OperatorCommand,
    out: &mut dyn Write,
) -> Result<(), Failure> {
    let hosts = Hosts::open(config)?;
    let mut operator = Operator { hosts, terminal: std::io::stdout().is_terminal(), out };
    runtime()?.block_on(async {
        let done = operator.run(command).await;
        operator.hosts.renew_when_due().await;
        operator.hosts.end().await;
        done
    })
}

/// One command's hosts, and where its results go.
struct Operator<'a> {
    hosts: Hosts,
    terminal: bool,
    out: &'a mut dyn Write,
}

impl Operator<'_> {
    async fn run(&mut self, command: &OperatorCommand) -> Result<(), Failure> {
        if let Some((aside, action)) = command.aside() {
            return self.aside(aside, action).await;
        }
        if let Some((order, node)) = command.order() {
            return self.order(order, node).await;
        }
        match command {
            OperatorCommand::Status { at, output } => self.status(at, *output).await,
            OperatorCommand::Queue { state, at, output } => {
                let states = state.iter().map(|state| (*state).into()).collect();
                self.queue(&Request::Queue { states }, at, *output).await
            }
            OperatorCommand::Message { message, at, output } => {
                self.message(message, at, *output).await
            }
            OperatorCommand::Top { once, at, output: Output { json } } => {
                self.hosts.select(at.host.as_deref()).await?;
                let how = How { once: *once, terminal: self.terminal, json: *json };
                top::run(&mut self.hosts, how, self.out).await
            }
            _ => Ok(()),
        }
    }

    async fn status(&mut self, at: &At, Output { json }: Output) -> Result<(), Failure> {
        self.hosts.select(at.host.as_deref()).await?;
        let answers = self.hosts.ask(&Request::Status).await;
        if json {
            self.print_json(&answers)?;
        } else {
            self.print(&show::status(&answers, self.terminal))?;
        }
        problems(&answers)
    }

    async fn queue(
        &mut self,
        request: &Request,
        at: &At,
        Output { json }: Output,
    ) -> Result<(), Failure> {
        self.hosts.select(at.host.as_deref()).await?;
        let answers = self.hosts.ask(request).await;
        if json {
            self.print_json(&answers)?;
        } else {
            self.print(&show::queue(&answers, self.terminal))?;
        }
        problems(&answers)
    }

    /// Any host may know the id; those that do not are no mistake as long as one does.
    async fn message(
        &mut self,
        message: &MessageRef,
        at: &At,
        Output { json }: Output,
    ) -> Result<(), Failure> {
        self.hosts.select(message.host.as_deref().or(at.host.as_deref())).await?;
        let mut answers = self.hosts.ask(&Request::Message { id: message.id.to_string() }).await;
        let known = |answer: &Answer| matches!(answer.reply, Ok(Reply::Message(_)));
        if answers.iter().any(known) {
            answers.retain(|answer| !matches!(answer.reply, Ok(Reply::Refused(_))));
        }
        if json {
            self.print_json(&answers)?;
        } else {
            let lives = answers.iter().filter_map(|answer| match &answer.reply {
                Ok(Reply::Message(life)) => Some(show::life(life, self.terminal)),
                _ => None,
            });
            let text = lives.collect::<Vec<_>>().join("\n");
            self.print(&text)?;
        }
        problems(&answers)
    }

    async fn aside(
        &mut self,
        aside: gantry_operator::Aside,
        action: &AsideAction,
    ) -> Result<(), Failure> {
        let command = if aside == gantry_operator::Aside::Held { "held" } else { "quarantine" };
        match action {
            AsideAction::List { at, output: Output { json } } => {
                self.hosts.select(at.host.as_deref()).await?;
                let answers = self.hosts.ask(&Request::List { aside }).await;
                if *json {
                    self.print_json(&answers)?;
                } else {
                    self.print(&show::list(&answers, aside, self.terminal))?;
                }
                problems(&answers)
            }
            AsideAction::Show { message, at, output: Output { json } } => {
                let id = message.id.to_string();
                let answers = self.at_one(message, at, Request::Show { aside, id }).await?;
                for answer in &answers {
                    if let Ok(Reply::Show(shown)) = &answer.reply {
                        let text = if *json {
                            serde_json::to_string(shown)
                                .map_err(|error| failure(exit::EX_SOFTWARE, error))?
                        } else {
                            gantry_operator::show::shown(shown)
                        };
                        self.print(&text)?;
                    }
                }
                problems(&answers)
            }
            AsideAction::Release { decision: Decision { message, at, reason }, as_is } => {
                let (id, reason) = (message.id.to_string(), reason.clone());
                let request = Request::Release { aside, id, as_is: *as_is, reason };
                let answers = self.at_one(message, at, request).await?;
                problems(&answers)?;
                let name = answers.first().map(Answer::name).unwrap_or_default();
                let id = message.id;
                let what = match as_is {
                    true => "is on its way as it is",
                    false => "is back in the pool and will be processed again",
                };
                self.print(&format!("{name}/{id} {what}; `gantry message {name}/{id}` tells on"))
            }
            AsideAction::Delete(Decision { message, at, reason }) => {
                let (id, reason) = (message.id.to_string(), reason.clone());
                let request = Request::Delete { aside, id, reason };
                let answers = self.at_one(message, at, request).await?;
                problems(&answers).map_err(|Failure { code, text }| Failure {
                    code,
                    text: format!("{text}; `gantry {command} list` shows what is there"),
                })?;
                let name = answers.first().map(Answer::name).unwrap_or_default();
                self.print(&format!("{name}/{} is deleted", message.id))
            }
        }
    }

    /// Asks the one host that a message's reference or `--host` names, or the only one.
    async fn at_one(
        &mut self,
        message: &MessageRef,
        at: &At,
        request: Request,
    ) -> Result<Vec<Answer>, Failure> {
        self.hosts.select(message.host.as_deref().or(at.host.as_deref())).await?;
        self.hosts.expect_one(&format!("mx1/{}", message.id))?;
        Ok(self.hosts.ask(&request).await)
    }

    /// Tells a worker through all its hosts. A host that does not know it is no mistake as long as one does.
    async fn order(&mut self, order: Order, node: &Node) -> Result<(), Failure> {
        let Node { node, at, reason } = node;
        self.hosts.select(at.host.as_deref()).await?;
        let request = Request::Manage { node: node.clone(), order, reason: reason.clone() };
        let answers = self.hosts.ask(&request).await;
        let done: Vec<&str> = answers
            .iter()
            .filter(|answer| matches!(answer.reply, Ok(Reply::Done)))
            .map(Answer::name)
            .collect();
        if !done.is_empty() {
            let hosts = done.join(", ");
            let text = match order {
                // The host itself, or its one worker of the same name.
                Order::Ready if *node == hosts => format!("{node} is ready again"),
                Order::Drain if *node == hosts => {
                    format!("{node} was told to finish what it has and to end")
                }
                Order::Ready => format!("{node} gets messages again from {hosts}"),
                Order::NotReady => format!(
                    "{node} gets nothing more from {hosts} until `gantry ready {node}`; what it holds it finishes"
                ),
                Order::Drain => format!(
                    "{node} was told by {hosts} to finish what it has begun, hand back the rest, and end"
                ),
            };
            self.print(&text)?;
        }
        let told =
            |answer: &&Answer| done.is_empty() || !matches!(answer.reply, Ok(Reply::Refused(_)));
        problems(answers.iter().filter(told))
    }

    fn print(&mut self, text: &str) -> Result<(), Failure> {
        if text.is_empty() { Ok(()) } else { line(self.out, text.trim_end()) }
    }

    fn print_json(&mut self, answers: &[Answer]) -> Result<(), Failure> {
        line(self.out, &as_json(answers))
    }
}

/// One object, whose `hosts` has one object for each host: `address`, `host`, and the answer or `error`.
fn as_json(answers: &[Answer]) -> String {
    let hosts: Vec<Value> = answers.iter().map(to_json).collect();
    json!({ "hosts": hosts }).to_string()
}

fn to_json(answer: &Answer) -> Value {
    let mut object = json!({ "address": answer.address, "host": answer.host });
    let (key, value) = match &answer.reply {
        Ok(Reply::Status(status)) => ("status", json!(status)),
        Ok(Reply::Queue(queue)) => {
            let Queue { messages, more } = queue.as_ref();
            ("queue", json!({ "messages": messages, "more": more }))
        }
        Ok(Reply::Message(life)) => ("message", json!(life)),
        Ok(Reply::List(listed)) => ("messages", json!(listed)),
        Ok(Reply::Show(shown)) => ("message", json!(shown)),
        Ok(Reply::Done) => ("done", json!(true)),
        Ok(Reply::Reloaded(restart)) => ("restart", json!(restart)),
        Ok(Reply::Refused(reason)) => ("error", json!(reason)),
        Err(problem) => ("error", json!(problem.sentence())),
    };
    if let Some(object) = object.as_object_mut() {
        object.insert(key.to_owned(), value);
    }
    object
}

/// A failure with a sentence for each host that gave no answer; the code is that of the first.
fn problems<'a>(answers: impl IntoIterator<Item = &'a Answer>) -> Result<(), Failure> {
    let mut code = None;
    let mut lines = Vec::new();
    for answer in answers {
        let (its_code, text) = match &answer.reply {
            Ok(Reply::Refused(reason)) => {
                (exit::EX_DATAERR, format!("{}: {reason}", answer.name()))
            }
            Ok(_) => continue,
            // It names the address.
            Err(problem) => (problem.code, problem.sentence()),
        };
        code.get_or_insert(its_code);
        lines.push(text);
    }
    match code {
        None => Ok(()),
        Some(code) => Err(Failure { code, text: lines.join("\n") }),
    }
}

//! The reservation core under a model checker: every order in which one host, two workers and what is between them can
//! move, with a bounded number of faults, breadth first.
//!
//! The states are those of the production pool and grabbers. From each of them the world is also made kind: whatever has
//! happened, every message must then come to its end.
//! `GANTRY_MODEL_STATES` sets how many states are looked at from each start.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say what they have looked at"
)]

#[allow(dead_code, reason = "two tests share it, and neither uses all of it")]
#[path = "../cluster/net.rs"]
mod net;
#[allow(dead_code, reason = "two tests share it, and neither uses all of it")]
#[path = "../cluster/node.rs"]
mod node;

use std::hash::{Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};

use gantry_protocol::pool::Config;
use net::{Net, Op};
use stateright::{Checker, Model, Property};

const WORKERS: usize = 2;
const ATTEMPTS_MAX: u8 = 2;
/// How many states are looked at unless the environment says otherwise: some seconds.
const STATES: usize = 20_000;
/// Of so many states one is continued to the end of all messages.
const CONTINUED: u64 = 7;

/// How often each may happen on one path.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    messages: u64,
    /// Links lost, workers and hosts restarted, workers hung, stores failed, modules that give up.
    faults: u32,
    /// Times that the clock goes on to where something is due.
    passes: u32,
}

#[derive(Clone, Debug)]
struct World {
    net: Net,
    faults: u32,
    passes: u32,
    /// What a promise of the drivers' own was broken by.
    broken: Option<String>,
}

impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        // All that the machines hold is in their debug text, in a fixed order.
        format!("{self:?}").hash(state);
    }
}

impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        fingerprint(self) == fingerprint(other)
    }
}

/// Where a path begins.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// Nobody is linked.
    Cold,
    /// All workers are linked and want something.
    Linked,
    /// A worker works on a message, and the other one is linked.
    Held,
}

struct Reservations {
    start: Start,
    bounds: Bounds,
    forgets_fences: bool,
}

impl Reservations {
    fn faults(&self, world: &World) -> Vec<Op> {
        let mut faults = vec![Op::RestartHost];
        for (worker, node) in world.net.nodes.iter().enumerate() {
            if node.link.is_some() {
                faults.push(Op::Lose { worker });
                faults.push(Op::Restart { worker });
                faults.push(Op::Hang { worker, hung: true });
            }
            if !node.hung && !node.jobs.is_empty() {
                faults.push(Op::Work { worker, which: 0, word: 0 });
            }
        }
        faults.extend((0..world.net.stores.len()).map(|which| Op::Store { which, fails: true }));
        faults
    }
}

impl Model for Reservations {
    type State = World;
    type Action = Op;

    fn init_states(&self) -> Vec<World> {
        let config = Config { attempts_max: ATTEMPTS_MAX, ..net::config() };
        let mut net = Net::new(WORKERS, config);
        net.forgets_fences = self.forgets_fences;
        if !matches!(self.start, Start::Cold) {
            (0..WORKERS).for_each(|worker| net.apply(&Op::Link { worker }));
            net.settle_down();
        }
        if matches!(self.start, Start::Held) {
            net.apply(&Op::Mark);
            net.settle_down();
        }
        vec![World { net, faults: 0, passes: 0, broken: None }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Op>) {
        let net = &world.net;
        if net.messages < self.bounds.messages {
            actions.push(Op::Mark);
        }
        actions.extend((0..net.moves()).map(|which| Op::Move { which }));
        actions.extend((0..net.stores.len()).map(|which| Op::Store { which, fails: false }));
        for (worker, node) in net.nodes.iter().enumerate() {
            if node.hung {
                actions.push(Op::Hang { worker, hung: false });
            } else if node.link.is_none() {
                actions.push(Op::Link { worker });
            }
            if !node.hung {
                actions.extend((0..node.jobs.len()).map(|which| Op::Work {
                    worker,
                    which,
                    word: 9,
                }));
            }
        }
        if world.faults < self.bounds.faults {
            actions.extend(self.faults(world));
        }
        if let Some(due) = net.pool.next_timeout()
            && world.passes < self.bounds.passes
        {
            actions.push(Op::Pass { ms: gantry_protocol::time::millis(due.since(net.now)) + 1 });
        }
    }

    fn next_state(&self, world: &World, op: Op) -> Option<World> {
        let mut next = world.clone();
        next.faults += u32::from(self.faults(world).contains(&op));
        next.passes += u32::from(matches!(op, Op::Pass { .. }));
        let applied = catch_unwind(AssertUnwindSafe(|| next.net.apply(&op)));
        next.broken = applied.err().map(said);
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no promise is broken", |_, world: &World| world.broken.is_none()),
            Property::always("only the last reservation's verdict counts", |_, world: &World| {
                let net = &world.net;
                net.settled_by.iter().all(|(id, (fence, worker))| {
                    let given = net.given.get(id);
                    given.is_some_and(|(_, last, to)| last.to_string() == *fence && to == worker)
                })
            }),
            Property::always("attempts stay within their limit", |_, world: &World| {
                let status = world.net.pool.status(99, &[], world.net.now);
                status.messages.iter().all(|message| message.attempts <= ATTEMPTS_MAX)
            }),
            Property::always("in the end every message is out or held", |_, world: &World| {
                if !fingerprint(world).is_multiple_of(CONTINUED) {
                    return true;
                }
                let mut kind = world.net.clone();
                catch_unwind(AssertUnwindSafe(|| kind.be_kind())).map_err(said).is_ok()
            }),
        ]
    }
}

fn fingerprint(world: &World) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    world.hash(&mut hasher);
    hasher.finish()
}

fn said(panic: Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

fn check(model: Reservations, states: usize) -> impl Checker<Reservations> {
    let (start, bounds) = (model.start, model.bounds);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = model.checker().threads(threads).target_state_count(states).spawn_bfs().join();
    println!(
        "{WORKERS} workers, {start:?}, {bounds:?}, {ATTEMPTS_MAX} attempts: {} states, {} of them different, up to {} steps deep",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker
}

/// Says which promise was broken by what, if any was.
fn verdict(checker: &impl Checker<Reservations>) -> Result<(), String> {
    for property in checker.model().properties() {
        if let Some(path) = checker.discovery(property.name) {
            let why = path.last_state().broken.clone().unwrap_or_default();
            return Err(format!("{}: {why} after {:#?}", property.name, path.into_actions()));
        }
    }
    Ok(())
}

/// Nothing that can happen breaks a promise.
#[test]
fn no_order_of_events_breaks_a_promise() {
    let states = std::env::var("GANTRY_MODEL_STATES").ok().and_then(|text| text.parse().ok());
    for start in [Start::Cold, Start::Linked, Start::Held] {
        let bounds = Bounds { messages: 2, faults: 2, passes: 2 };
        let model = Reservations { start, bounds, forgets_fences: false };
        let checker = check(model, states.unwrap_or(STATES));
        verdict(&checker).unwrap_or_else(|broken| panic!("{broken}"));
    }
}

/// The checker bites: a driver that takes a late answer for one under the newest fence is found.
#[test]
fn a_late_answer_under_a_new_fence_is_found() {
    let bounds = Bounds { messages: 1, faults: 0, passes: 1 };
    let model = Reservations { start: Start::Held, bounds, forgets_fences: true };
    let broken = verdict(&check(model, STATES)).expect_err("the defect is found");
    assert!(broken.starts_with("only the last reservation's verdict counts"), "{broken}");
}

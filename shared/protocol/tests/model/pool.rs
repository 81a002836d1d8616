//! Random sequences of everything that can happen to a pool.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::ops::{Decision, MAILBOXES, Op, Outgoing, WORKERS, Word};
use super::world::World;

fn persistent() -> ProptestConfig {
    // What once failed is tried first, for ever.
    let seeds = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(seeds)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(persistent())]

    #[test]
    fn whatever_happens_the_invariants_hold(ops in proptest::collection::vec(op(), 1..250), drain in proptest::bool::weighted(0.1)) {
        let mut world = World::new();
        for op in &ops {
            world.apply(op);
        }
        if drain {
            world.apply(&Op::Drain);
        }
        world.be_kind();
    }
}

fn op() -> impl Strategy<Value = Op> {
    let worker = 0..WORKERS;
    let which = || 0..1_000_usize;
    prop_oneof![
        6 => (0..MAILBOXES, any::<bool>(), 1_u16..4)
            .prop_map(|(mailbox, upstream, recipients)| Op::Mark { mailbox, upstream, recipients }),
        3 => (worker.clone(), any::<bool>(), any::<bool>())
            .prop_map(|(worker, anew, resume)| Op::Link { worker, anew, resume }),
        2 => worker.clone().prop_map(|worker| Op::Lose { worker }),
        6 => (worker.clone(), 1_u64..4).prop_map(|(worker, more)| Op::Want { worker, more }),
        1 => worker.clone().prop_map(|worker| Op::Recall { worker }),
        5 => worker.clone().prop_map(|worker| Op::Beat { worker }),
        12 => (which(), proptest::option::weighted(0.1, worker), proptest::bool::weighted(0.2), word())
            .prop_map(|(which, over, stale, word)| Op::Say { which, over, stale, word }),
        1 => which().prop_map(|which| Op::StreamLost { which }),
        12 => (which(), proptest::bool::weighted(0.2)).prop_map(|(which, fails)| Op::Stored { which, fails }),
        12 => (which(), outgoing()).prop_map(|(which, outcome)| Op::Assigned { which, outcome }),
        8 => (which(), proptest::collection::vec(0_u8..5, 3))
            .prop_map(|(which, results)| Op::Released { which, results }),
        4 => (which(), proptest::bool::weighted(0.1)).prop_map(|(which, fails)| Op::Loaded { which, fails }),
        6 => (which(), any::<bool>()).prop_map(|(which, look)| Op::Refill { which, look }),
        1 => which().prop_map(|which| Op::SenderGone { which }),
        1 => (which(), decision(), any::<bool>())
            .prop_map(|(which, decision, quarantined)| Op::Operate { which, decision, quarantined }),
        6 => prop_oneof![Just(1), Just(50), Just(250), Just(700), Just(5_000), Just(40_000), Just(1_000_000)]
            .prop_map(|ms| Op::Pass { ms }),
        1 => proptest::collection::vec(any::<bool>(), 8).prop_map(|durable| Op::Crash { durable }),
    ]
}

fn word() -> impl Strategy<Value = Word> {
    prop_oneof![
        8 => Just(Word::Clean),
        2 => Just(Word::Quarantine),
        5 => Just(Word::Mixed),
        1 => Just(Word::Held),
        1 => Just(Word::Refuse),
        6 => Just(Word::Part),
        2 => (0_u8..6).prop_map(Word::Wrong),
        3 => any::<u8>().prop_map(Word::Progress),
        2 => Just(Word::Failed),
        2 => Just(Word::HandBack),
        1 => Just(Word::Unavailable),
    ]
}

fn outgoing() -> impl Strategy<Value = Outgoing> {
    prop_oneof![10 => Just(Outgoing::Sent), 1 => Just(Outgoing::LinkLost), 1 => Just(Outgoing::Unreadable)]
}

fn decision() -> impl Strategy<Value = Decision> {
    prop_oneof![Just(Decision::Release), Just(Decision::AsIs), Just(Decision::Delete)]
}

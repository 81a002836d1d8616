//! Random sequences of everything that can happen to a pool.

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

use super::ops::{Op, op};
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

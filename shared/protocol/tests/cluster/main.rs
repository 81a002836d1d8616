//! A pool and several grabbers joined by queues in memory: frames of one stream arrive in order, those of different streams
//! in any; links break, workers hang, die and come back, disks fail.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "tests fail by panicking"
)]

#[allow(dead_code, reason = "two tests share it, and neither uses all of it")]
mod net;
mod node;

use gantry_protocol::pool::Config;
use net::{Net, Op};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

const WORKERS: usize = 3;

/// Of so many faults none may be held against a message.
fn config() -> Config {
    Config { attempts_max: 200, returns_max: 2_000, ..net::config() }
}

fn op() -> impl Strategy<Value = Op> {
    let worker = 0..WORKERS;
    let which = 0..1_000_usize;
    prop_oneof![
        6 => Just(Op::Mark),
        40 => which.clone().prop_map(|which| Op::Move { which }),
        15 => (which.clone(), proptest::bool::weighted(0.05)).prop_map(|(which, fails)| Op::Store { which, fails }),
        12 => (worker.clone(), which, 0_u8..10).prop_map(|(worker, which, word)| Op::Work { worker, which, word }),
        2 => worker.clone().prop_map(|worker| Op::Lose { worker }),
        5 => worker.clone().prop_map(|worker| Op::Link { worker }),
        1 => worker.clone().prop_map(|worker| Op::Restart { worker }),
        3 => (worker.clone(), any::<bool>()).prop_map(|(worker, hung)| Op::Hang { worker, hung }),
        2 => (worker.clone(), proptest::bool::weighted(0.7)).prop_map(|(worker, ready)| Op::Ready { worker, ready }),
        2 => (worker, 0_u64..4).prop_map(|(worker, messages)| Op::Capacity { worker, messages }),
        12 => prop_oneof![Just(1), Just(100), Just(250), Just(700), Just(5_000), Just(40_000)]
            .prop_map(|ms| Op::Pass { ms }),
    ]
}

fn persistent() -> ProptestConfig {
    let seeds = FileFailurePersistence::WithSource("regressions");
    ProptestConfig { failure_persistence: Some(Box::new(seeds)), ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(persistent())]

    #[test]
    fn every_message_is_applied_once_and_no_credit_is_lost(ops in proptest::collection::vec(op(), 1..400)) {
        let mut net = Net::new(WORKERS, config());
        for op in &ops {
            net.apply(op);
        }
        net.be_kind();
    }
}

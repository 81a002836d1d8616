//! Operators' orders to workers: not ready stays until ready, over links and restarts.

use super::super::*;
use super::host::*;
use crate::frame::{HostControl, Order};

impl Host {
    fn order(&mut self, name: &str, order: Order) -> Result<(), OperatorError> {
        let done = self.pool.handle_order(name, order, self.now);
        self.run();
        done
    }

    fn orders(&self, session: Session) -> Vec<Order> {
        let frames = self.controls(session).into_iter();
        frames
            .filter_map(|frame| match frame {
                HostControl::Manage(manage) => Some(manage.order),
                _ => None,
            })
            .collect()
    }

    fn ordered(&self, name: &str) -> Option<String> {
        let workers = self.picture().workers;
        workers.into_iter().find(|worker| worker.name == name)?.ordered
    }
}

fn not_ready() -> Order {
    Order::NotReady { reason: "new disk".to_owned() }
}

#[test]
fn a_worker_that_is_not_ready_by_order_gets_nothing_and_finishes_what_it_has() {
    let mut host = Host::new();
    let session = host.worker("a", 5);
    let held = host.mark();
    assert!(host.is(held, "dispatched for a"));
    host.order("a", not_ready()).unwrap();
    let waiting = host.mark();
    assert!(host.is(waiting, "waiting"));
    host.clean(held);
    assert!(host.is(held, "releasing"));
    host.want(session, 9);
    assert!(host.is(waiting, "waiting"), "a want changes nothing");
    assert_eq!(host.ordered("a").as_deref(), Some("new disk"));
    // Said twice it is the same.
    host.order("a", not_ready()).unwrap();
    host.order("a", Order::Ready).unwrap();
    assert!(host.is(waiting, "dispatched for a"));
    assert_eq!(host.orders(session), [not_ready(), not_ready(), Order::Ready]);
    host.order("a", Order::Ready).unwrap();
    assert_eq!(host.ordered("a"), None);
}

#[test]
fn an_order_outlives_the_link_the_worker_and_the_host() {
    let mut host = Host::new();
    let first = host.worker("a", 5);
    host.order("a", not_ready()).unwrap();
    host.lose(first);
    for incarnation in [1, 2] {
        let session = host.link("a", incarnation);
        host.want(session, 5);
        assert_eq!(host.orders(session), [not_ready()]);
        let id = host.mark();
        assert!(host.is(id, "waiting"));
    }
    let kept: Vec<_> =
        host.pool.orders().map(|(name, why)| (name.to_owned(), why.to_owned())).collect();
    let mut anew = Host::new();
    anew.pool.restore_orders(kept);
    let session = anew.worker("a", 5);
    let id = anew.mark();
    assert!(anew.is(id, "waiting"));
    assert_eq!(anew.orders(session), [not_ready()]);
    anew.order("a", Order::Ready).unwrap();
    assert!(anew.is(id, "dispatched for a"));
}

/// What is not there cannot be told to leave, and a name that nobody has is a mistake.
#[test]
fn orders_are_for_workers_that_are_known() {
    let mut host = Host::new();
    let drain = || Order::Drain { reason: "old".to_owned() };
    for order in [not_ready(), Order::Ready, drain()] {
        let unknown = OperatorError::UnknownWorker { name: "z".to_owned() };
        assert_eq!(host.order("z", order), Err(unknown));
    }
    let session = host.worker("a", 1);
    host.order("a", drain()).unwrap();
    assert_eq!(host.orders(session), [drain()]);
    assert_eq!(host.ordered("a"), None, "draining is the worker's to say");
    host.lose(session);
    assert_eq!(host.order("a", drain()), Err(OperatorError::NotLinked { name: "a".to_owned() }));
    host.order("a", not_ready()).unwrap();
    assert_eq!(host.ordered("a").as_deref(), Some("new disk"));
}

/// What a worker that is not ready by order holds is taken over by others when it dies, and it takes over nothing.
#[test]
fn one_that_is_not_ready_by_order_takes_over_nothing() {
    let mut host = Host::new();
    host.worker("a", 1);
    let id = host.mark();
    let other = host.worker("b", 1);
    host.order("b", not_ready()).unwrap();
    host.pass_beating(secs(2), &[other]);
    assert!(host.is(id, "dispatched for a"));
    host.order("b", Order::Ready).unwrap();
    assert!(host.is(id, "dispatched for b"));
}

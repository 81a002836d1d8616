//! What the worker can start, spread over its hosts.

use gantry_protocol::grabber::Capacity;
use gantry_protocol::spread::{Demand, spread};

use super::Service;

impl Service {
    /// The sum of all wants never exceeds what can be started, and a host where this worker only stands by gets nothing.
    pub(super) fn share_capacity(&mut self) {
        let demands: Vec<Demand> = self
            .hosts
            .iter()
            .map(|host| Demand {
                open: host.grabber.is_open()
                    && host.monitor.is_needed(host.tier, host.standby_after),
                occupied: host.grabber.occupied(),
                outstanding: host.grabber.outstanding(),
                backlog: host.backlog.messages,
                oldest_ms: host.backlog.oldest_ms,
                served_last: host.served_last,
            })
            .collect();
        let room = Capacity { messages: self.concurrency, bytes: self.bytes_max };
        let granted = spread(room, &demands);
        for ((host, demand), granted) in self.hosts.iter_mut().zip(demands).zip(granted) {
            host.grabber.handle_capacity(Capacity {
                messages: demand.occupied.messages.saturating_add(granted.messages),
                bytes: demand.occupied.bytes.saturating_add(granted.bytes),
            });
        }
    }
}

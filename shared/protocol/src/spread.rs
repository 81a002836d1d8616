//! How a worker that serves several hosts spreads what it can start over them.
//!
//! Two rules. What the hosts may assign, together with what is held, never exceeds what the worker can start: where one
//! host is to get more, the others are first asked to give back. And each host with a backlog gets its turn, the emptiest hands first:
//! a host with much mail fills whatever is left, and never keeps one with little waiting.

use std::cmp::Reverse;

use crate::grabber::Capacity;

/// One host, as its worker sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Linked, ready and needed there. Otherwise it gets nothing.
    pub open: bool,
    /// What is held for it.
    pub occupied: Capacity,
    /// What it may still assign by what it was told.
    pub outstanding: Capacity,
    /// Messages that wait there, and for how long the oldest has.
    pub backlog: u64,
    pub oldest_ms: u64,
    /// The last message came from it: among equals the others come first.
    pub served_last: bool,
}

/// What each host may have outstanding from now on, in the order of `hosts`; `room` is what the worker can start in all,
/// with what is held. A host whose share is below what it has outstanding is to be asked to give back the
/// rest; until it has, nobody else gets it.
pub fn spread(room: Capacity, hosts: &[Demand]) -> Vec<Capacity> {
    let sum = |part: fn(&Demand) -> u64| hosts.iter().map(part).fold(0, u64::saturating_add);
    let free = Capacity {
        messages: room.messages.saturating_sub(sum(|host| host.occupied.messages)),
        bytes: room.bytes.saturating_sub(sum(|host| host.occupied.bytes)),
    };
    let shares: Vec<Capacity> = share(free.messages, hosts)
        .into_iter()
        .map(|messages| Capacity { messages, bytes: part(free.bytes, messages, free.messages) })
        .collect();
    let mut left = Capacity {
        messages: free.messages.saturating_sub(sum(|host| host.outstanding.messages)),
        bytes: free.bytes.saturating_sub(sum(|host| host.outstanding.bytes)),
    };
    let mut granted = vec![Capacity::default(); hosts.len()];
    let mut order: Vec<usize> = (0..hosts.len()).collect();
    order.sort_by_key(|index| {
        hosts.get(*index).map(|host| (host.backlog == 0, Reverse(host.oldest_ms)))
    });
    for index in order {
        let (Some(host), Some(share)) = (hosts.get(index), shares.get(index)) else { continue };
        let grant = Capacity {
            messages: raise(host.outstanding.messages, share.messages, &mut left.messages),
            bytes: raise(host.outstanding.bytes, share.bytes, &mut left.bytes),
        };
        if let Some(place) = granted.get_mut(index) {
            *place = grant;
        }
    }
    granted
}

/// Deals out `free` messages one by one.
fn share(free: u64, hosts: &[Demand]) -> Vec<u64> {
    let mut shares = vec![0; hosts.len()];
    for _ in 0..free {
        let open = || hosts.iter().zip(&shares).enumerate().filter(|(_, (host, _))| host.open);
        let waiting = open().filter(|(_, (host, share))| host.backlog > **share).min_by_key(
            |(index, (host, share))| {
                let hands = host.occupied.messages + **share;
                (hands, host.served_last, Reverse(host.oldest_ms), *index)
            },
        );
        // What nobody waits for is spread evenly, so that whatever comes next is taken at once, and stays where it is.
        let next = waiting.or_else(|| {
            open().min_by_key(|(index, (host, share))| {
                let hands = host.occupied.messages + **share;
                (hands, host.outstanding.messages <= **share, *index)
            })
        });
        let Some((index, _)) = next else { break };
        if let Some(share) = shares.get_mut(index) {
            *share += 1;
        }
    }
    shares
}

/// What a host may have that has `outstanding` and is to have `share`: a rise is taken from what is left.
fn raise(outstanding: u64, share: u64, left: &mut u64) -> u64 {
    let rise = share.saturating_sub(outstanding).min(*left);
    *left -= rise;
    share.min(outstanding) + rise
}

/// `whole * numerator / denominator` without overflow.
fn part(whole: u64, numerator: u64, denominator: u64) -> u64 {
    let part = u128::from(whole) * u128::from(numerator) / u128::from(denominator.max(1));
    u64::try_from(part).unwrap_or(u64::MAX)
}

#[cfg(test)]
#[allow(
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "tests fail by panicking, and say their seed"
)]
mod tests {
    use super::*;

    const BYTES: u64 = 1_000;

    fn capacity(messages: u64) -> Capacity {
        Capacity { messages, bytes: messages * BYTES }
    }

    /// An open host for which so much is held, outstanding, and waiting.
    fn host(occupied: u64, outstanding: u64, backlog: u64) -> Demand {
        Demand {
            open: true,
            occupied: capacity(occupied),
            outstanding: capacity(outstanding),
            backlog,
            oldest_ms: backlog * 10,
            served_last: false,
        }
    }

    fn messages(room: u64, hosts: &[Demand]) -> Vec<u64> {
        spread(capacity(room), hosts).into_iter().map(|granted| granted.messages).collect()
    }

    #[test]
    fn an_idle_worker_offers_itself_to_all() {
        assert_eq!(messages(4, &[host(0, 0, 0), host(0, 0, 0)]), [2, 2]);
        assert_eq!(messages(1, &[host(0, 0, 0), host(0, 0, 0)]), [1, 0]);
        assert_eq!(messages(1, &[host(0, 0, 0), host(0, 1, 0)]), [0, 1], "it stays where it is");
        assert_eq!(messages(5, &[]), Vec::<u64>::new());
        assert_eq!(messages(0, &[host(0, 0, 9)]), [0]);
    }

    #[test]
    fn the_loaded_host_gets_what_the_others_do_not_need() {
        assert_eq!(messages(8, &[host(0, 0, 100), host(0, 0, 0)]), [8, 0]);
        assert_eq!(messages(8, &[host(0, 0, 100), host(0, 0, 1)]), [7, 1]);
        assert_eq!(messages(8, &[host(0, 0, 3), host(0, 0, 0)]), [4, 4]);
    }

    #[test]
    fn a_host_with_little_mail_is_not_kept_waiting_by_one_with_much() {
        // One place is free again: it goes to the host for which nothing is held.
        assert_eq!(messages(4, &[host(3, 0, 1_000), host(0, 0, 1)]), [0, 1]);
        // A worker of one message at a time serves them in turn.
        let mut hosts = [host(0, 0, 1_000), host(0, 0, 1)];
        assert_eq!(messages(1, &hosts), [1, 0], "the oldest first");
        hosts[0].served_last = true;
        assert_eq!(messages(1, &hosts), [0, 1]);
    }

    #[test]
    fn what_is_outstanding_elsewhere_is_not_given_twice() {
        // The first host is to give back before the second gets it.
        assert_eq!(messages(1, &[host(0, 1, 0), host(0, 0, 5)]), [0, 0]);
        assert_eq!(messages(1, &[host(0, 0, 0), host(0, 0, 5)]), [0, 1]);
        assert_eq!(messages(4, &[host(0, 4, 0), host(0, 0, 2)]), [2, 0]);
    }

    #[test]
    fn a_host_that_is_away_holds_nothing_back() {
        let away = Demand { open: false, ..host(0, 0, 50) };
        assert_eq!(messages(4, &[away, host(0, 0, 0)]), [0, 4]);
        let working = Demand { open: false, ..host(3, 0, 50) };
        assert_eq!(messages(4, &[working, host(0, 0, 9)]), [0, 1], "what is worked on counts");
    }

    /// Hosts that take, give back and come and go at random: the sum never exceeds the room, and without changes all of it is
    /// in use in the end.
    #[test]
    fn the_sum_never_exceeds_what_can_be_started() {
        let seed = fastrand::u64(..);
        println!("seed {seed}");
        let mut random = fastrand::Rng::with_seed(seed);
        for _ in 0..300 {
            let room = capacity(random.u64(1..12));
            let mut hosts: Vec<Demand> =
                (0..random.usize(1..5)).map(|_| host(0, 0, random.u64(0..9))).collect();
            for _ in 0..60 {
                let granted = spread(room, &hosts);
                for (host, grant) in hosts.iter_mut().zip(&granted) {
                    // Wants rise at once; a recall may take its time.
                    if grant.messages > host.outstanding.messages || random.bool() {
                        host.outstanding = *grant;
                    }
                }
                check(room, &hosts);
                let index = random.usize(0..hosts.len());
                let host = &mut hosts[index];
                match random.u8(0..4) {
                    0 if host.outstanding.messages > 0 => {
                        let bytes = host.outstanding.bytes / host.outstanding.messages;
                        host.outstanding.messages -= 1;
                        host.outstanding.bytes -= bytes;
                        host.occupied.messages += 1;
                        host.occupied.bytes += bytes;
                    }
                    1 => host.occupied = Capacity::default(),
                    2 => host.backlog = random.u64(0..9),
                    _ => {
                        host.open = !host.open;
                        host.outstanding = Capacity::default();
                    }
                }
            }
            for _ in 0..2 {
                let granted = spread(room, &hosts);
                hosts.iter_mut().zip(granted).for_each(|(host, grant)| host.outstanding = grant);
            }
            let used: u64 =
                hosts.iter().map(|h| h.occupied.messages + h.outstanding.messages).sum();
            if hosts.iter().any(|host| host.open) {
                assert_eq!(used, room.messages, "{hosts:?}");
            }
        }
    }

    fn check(room: Capacity, hosts: &[Demand]) {
        let messages: u64 =
            hosts.iter().map(|h| h.occupied.messages + h.outstanding.messages).sum();
        let bytes: u64 = hosts.iter().map(|h| h.occupied.bytes + h.outstanding.bytes).sum();
        assert!(messages <= room.messages && bytes <= room.bytes, "{messages} {bytes}: {hosts:?}");
    }
}

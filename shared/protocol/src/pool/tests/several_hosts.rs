//! What workers of several hosts, and those who only stand by, go by: peers and backlog, told in time.

use super::super::*;
use super::host::*;
use crate::frame::{Backlog, Hello, HostControl, WorkerControl};
use crate::id::Digest;
use crate::profile::{Action, PeerProfile, Profile, Readiness};

fn profile(name: &str, readiness: Readiness) -> WorkerControl {
    WorkerControl::Profile(Profile {
        grabber: name.to_owned(),
        incarnation: crate::id::Incarnation(1),
        readiness,
        tier: 0,
        last_action: Action::Linked,
        last_action_ago_ms: 0,
        modules: Vec::new(),
        holding: Vec::new(),
    })
}

/// A worker of a higher tier, which wants nothing.
fn standby(host: &mut Host, name: &str) -> Session {
    host.link_with(name, &[VIRUS], Hello { tier: 1, ..hello(name, 1) })
}

/// The last list of peers that a session was told.
fn peers(host: &Host, session: Session) -> Option<Vec<PeerProfile>> {
    host.controls(session).into_iter().rev().find_map(|frame| match frame {
        HostControl::Peers(peers) => Some(peers.peers),
        _ => None,
    })
}

fn backlogs(host: &Host, session: Session) -> Vec<Backlog> {
    let frames = host.controls(session).into_iter();
    frames.filter_map(|f| if let HostControl::Backlog(b) = f { Some(b) } else { None }).collect()
}

#[test]
fn who_stands_by_learns_at_once_that_a_lower_tier_is_silent() {
    let mut host = Host::new();
    let a = host.worker("a", 1);
    host.control(a, profile("a", Readiness::Ready));
    let b = standby(&mut host, "b");
    host.pass(secs(1));
    assert!(peers(&host, b).unwrap()[0].linked);
    host.mark();
    host.pass_beating(ms(400), &[a]);
    host.forget_seen();
    host.pass(ms(601));
    assert!(!peers(&host, b).unwrap()[0].linked, "three beats were missed");
}

#[test]
fn who_stands_by_learns_at_once_that_a_lower_tier_is_gone_or_not_ready() {
    let mut host = Host::new();
    let a = host.worker("a", 1);
    host.control(a, profile("a", Readiness::Ready));
    let b = standby(&mut host, "b");
    host.pass(secs(1));
    host.forget_seen();
    host.control(a, profile("a", Readiness::Busy));
    assert_eq!(peers(&host, b), None, "a busy one is as good as a ready one");
    let reason = "clamd is away".to_owned();
    host.control(a, profile("a", Readiness::NotReady { reason }));
    let told = peers(&host, b).unwrap();
    assert!(matches!(told[0].profile.readiness, Readiness::NotReady { .. }));
    host.forget_seen();
    host.lose(a);
    assert!(!peers(&host, b).unwrap()[0].linked);
}

#[test]
fn who_stands_by_is_told_at_once_who_is_there_even_if_nobody_is() {
    let mut host = Host::new();
    let b = standby(&mut host, "b");
    assert_eq!(peers(&host, b), Some(Vec::new()));
    let a = host.link("a", 1);
    assert_eq!(peers(&host, a), None, "tier 0 does not wait for it");
    host.control(a, profile("a", Readiness::Ready));
    let c = standby(&mut host, "c");
    assert_eq!(peers(&host, c).unwrap()[0].profile.grabber, "a");
}

#[test]
fn who_serves_others_too_learns_soon_that_something_waits_or_nothing_does() {
    let mut host = Host::new();
    let (a, b) = (host.link("a", 1), host.link("b", 1));
    host.pass(ms(1_500));
    host.forget_seen();
    let first = host.mark();
    host.pass(ms(30));
    for session in [a, b] {
        let [Backlog { messages: 1, .. }] = backlogs(&host, session)[..] else {
            panic!("{:?}", backlogs(&host, session))
        };
    }
    // More of the same is no news; the next round tells it.
    host.mark();
    host.pass(ms(30));
    assert_eq!(backlogs(&host, a).len(), 1);
    host.want(a, 2);
    assert!(!host.is(first, "waiting"));
    host.forget_seen();
    host.pass(ms(30));
    for session in [a, b] {
        assert_eq!(backlogs(&host, session), [Backlog::default()], "nothing waits any more");
    }
    host.forget_seen();
    host.mark();
    host.pass(ms(30));
    assert_eq!(backlogs(&host, b).len(), 1);
}

#[test]
fn who_would_be_given_nothing_is_told_of_no_backlog() {
    let mut host = Host::new();
    let barred = Hello { policy: Digest([99; 32]), ..hello("a", 1) };
    let a = host.link_with("a", &[VIRUS], barred);
    host.mark();
    host.pass(secs(2));
    let told = backlogs(&host, a);
    assert!(!told.is_empty() && told.iter().all(|told| *told == Backlog::default()), "{told:?}");
}

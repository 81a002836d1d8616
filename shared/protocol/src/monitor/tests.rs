use super::*;
use crate::id::Incarnation;
use crate::profile::{Action, Holding, Profile};

const MESSAGE: MessageId = MessageId { epoch: 1, counter: 1 };
const FENCE: Fence = Fence { epoch: 1, counter: 1 };

fn peer(name: &str, tier: u8) -> PeerProfile {
    let profile = Profile {
        grabber: name.to_owned(),
        incarnation: Incarnation(1),
        readiness: Readiness::Ready,
        tier,
        last_action: Action::Processing,
        last_action_ago_ms: 0,
        modules: Vec::new(),
        holding: Vec::new(),
    };
    PeerProfile { profile, linked: true, heard_ago_ms: 0 }
}

fn holding(progress_ago_ms: u64) -> PeerProfile {
    let mut peer = peer("b", 0);
    let (message, fence, silence_ms) = (MESSAGE, FENCE, 30_000);
    peer.profile.holding.push(Holding { message, fence, progress_ago_ms, silence_ms });
    peer
}

fn hints(peer: PeerProfile) -> usize {
    Monitor::default().handle_peers(vec![peer], Moment(0)).len()
}

#[test]
fn a_stalled_or_silent_owner_is_pointed_at() {
    assert_eq!(hints(holding(30_000)), 0);
    assert_eq!(hints(holding(30_001)), 1, "silent for longer than its module announced");
    assert_eq!(hints(PeerProfile { heard_ago_ms: 600, ..holding(0) }), 0);
    assert_eq!(hints(PeerProfile { heard_ago_ms: 601, ..holding(0) }), 1, "three beats missed");
    assert_eq!(
        hints(PeerProfile { heard_ago_ms: 4_000, ..peer("b", 0) }),
        0,
        "idle ones beat slowly"
    );
}

#[test]
fn each_reservation_is_pointed_at_once() {
    let mut monitor = Monitor::default();
    let expected = Hint { grabber: "b".to_owned(), message: MESSAGE, fence: FENCE };
    assert_eq!(monitor.handle_peers(vec![holding(40_000)], Moment(0)), [expected]);
    assert_eq!(monitor.handle_peers(vec![holding(41_000)], Moment(1_000)), []);
    let mut newer = holding(40_000);
    newer.profile.holding[0].fence.counter = 2;
    assert_eq!(monitor.handle_peers(vec![newer], Moment(2_000)).len(), 1, "under a new fence anew");
}

#[test]
fn what_was_pointed_at_is_remembered_within_a_bound() {
    let mut monitor = Monitor::default();
    for counter in 0..2 * HINTS_REMEMBERED_MAX as u64 {
        let mut one = holding(40_000);
        one.profile.holding[0].message.counter = counter;
        monitor.handle_peers(vec![one], Moment(counter));
    }
    assert_eq!(monitor.hinted.len(), HINTS_REMEMBERED_MAX);
}

#[test]
fn a_higher_tier_is_needed_when_no_lower_one_can_work() {
    let needed = |peers: Vec<PeerProfile>| {
        let mut monitor = Monitor::default();
        monitor.handle_peers(peers, Moment(0));
        monitor.is_needed(1, None)
    };
    assert!(needed(vec![]));
    assert!(!needed(vec![peer("b", 0)]));
    assert!(needed(vec![peer("b", 1), peer("c", 2)]), "its own tier and those above do not count");
    let mut busy = peer("b", 0);
    busy.profile.readiness = Readiness::Busy;
    assert!(!needed(vec![busy]));
    for readiness in [Readiness::Draining, Readiness::NotReady { reason: String::new() }] {
        let mut away = peer("b", 0);
        away.profile.readiness = readiness;
        assert!(needed(vec![away]));
    }
    assert!(needed(vec![PeerProfile { linked: false, ..peer("b", 0) }]));
    assert!(needed(vec![PeerProfile { heard_ago_ms: 3_001, ..peer("b", 0) }]), "it is silent");
    assert!(!needed(vec![PeerProfile { heard_ago_ms: 3_000, ..peer("b", 0) }]));
    let mut monitor = Monitor::default();
    monitor.handle_peers(vec![peer("b", 0)], Moment(0));
    assert!(monitor.is_needed(0, None), "tier 0 always works");
}

#[test]
fn a_higher_tier_waits_until_the_host_has_said_who_is_there() {
    let mut monitor = Monitor::default();
    assert!(!monitor.is_needed(1, None));
    monitor.handle_backlog(Backlog { messages: 1, bytes: 1, oldest_ms: 1 });
    assert!(!monitor.is_needed(1, None), "that may come first");
    monitor.handle_peers(Vec::new(), Moment(0));
    assert!(monitor.is_needed(1, None), "nobody is there");
    monitor.handle_peers(vec![peer("b", 0)], Moment(0));
    assert!(!monitor.is_needed(1, None));
    monitor.handle_link_changed();
    assert!(!monitor.is_needed(1, None), "the next link's host has not said anything yet");
}

#[test]
fn a_higher_tier_helps_where_messages_have_waited_too_long() {
    let patience = Some(Duration::from_secs(30));
    let mut monitor = Monitor::default();
    monitor.handle_peers(vec![peer("b", 0)], Moment(0));
    for (oldest_ms, needed) in [(0, false), (30_000, false), (30_001, true), (10, false)] {
        monitor.handle_backlog(Backlog { messages: 1, bytes: 1, oldest_ms });
        assert_eq!(monitor.is_needed(1, patience), needed, "{oldest_ms}");
        assert!(!monitor.is_needed(1, None), "without such a time it only stands in for the dead");
    }
}

#[test]
fn a_new_list_replaces_the_former_one() {
    let mut monitor = Monitor::default();
    monitor.handle_peers(vec![peer("b", 0), peer("c", 0)], Moment(0));
    monitor.handle_peers(vec![peer("c", 0)], Moment(9));
    let peers: Vec<_> =
        monitor.peers().map(|(peer, at)| (peer.profile.grabber.as_str(), at)).collect();
    assert_eq!(peers, [("c", Moment(9))]);
    monitor.handle_peers((0..600).map(|n| peer(&format!("pc-{n}"), 0)).collect(), Moment(10));
    assert_eq!(monitor.peers().count(), PEERS_MAX);
}

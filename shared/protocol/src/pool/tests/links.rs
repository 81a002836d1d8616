//! Rules 3, 7 and 12: links, incarnations, resume.

use super::super::*;
use super::host::*;
use crate::frame::{
    HostControl, RefusedCode, Resume, ResumeAnswer, Settled, WorkerControl, WorkerReservation,
};
use crate::profile::{Action, Holding, Profile, Readiness};

fn answers(host: &Host, session: Session) -> Vec<ResumeAnswer> {
    let frames = host.controls(session);
    let Some(HostControl::Welcome(welcome)) = frames.into_iter().next() else {
        panic!("the welcome comes first");
    };
    welcome.resumed.iter().map(|resumed| resumed.answer).collect()
}

fn refused_with(host: &Host, session: Session) -> Option<RefusedCode> {
    host.controls(session).into_iter().find_map(|frame| match frame {
        HostControl::Refused(refused) => Some(refused.code),
        _ => None,
    })
}

#[test]
fn a_resume_is_answered_item_by_item_before_anything_new_is_assigned() {
    let mut host = Host::new();
    let (live, applied, passed_on) = (host.mark(), host.mark(), host.mark());
    let a = host.worker("a", 3);
    let [live, applied, passed_on] =
        [live, applied, passed_on].map(|id| host.assigned[&id].clone());
    host.clean(applied.message);
    host.fails(passed_on.message, "no answer");
    host.lose(a);
    let mut back = resuming("a", 1, &[&live, &applied, &passed_on]);
    back.resume.push(Resume { message: MessageId { epoch: 1, counter: 99 }, fence: live.fence });
    host.forget_seen();
    let session = host.link_with("a", &[VIRUS], back);
    use ResumeAnswer::{Applied, Live, Superseded, Unknown};
    assert_eq!(answers(&host, session), [Live, Applied, Superseded, Unknown]);
    host.say_as(
        session,
        live.message,
        live.fence,
        WorkerReservation::Verdict(Box::new(deliver(live.message, 1))),
    );
    assert_eq!(host.settled(session), [Settled::Applied], "it is bound to the new session");
}

#[test]
fn what_the_worker_no_longer_lists_is_free_again_and_no_attempt_counts() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    host.lose(a);
    host.link("a", 1);
    assert!(host.is(id, "waiting"));
    assert_eq!(host.status(id).attempts, 0);
}

#[test]
fn a_verdict_that_is_being_stored_over_a_new_link_is_answered_there() {
    for fails in [false, true] {
        let mut host = Host::new();
        let id = host.mark();
        let a = host.worker("a", 1);
        let held = host.assigned[&id].clone();
        host.prompt = false;
        host.clean(id);
        host.lose(a);
        let session = host.link_with("a", &[VIRUS], resuming("a", 1, &[&held]));
        assert_eq!(answers(&host, session), [ResumeAnswer::Live]);
        host.say_as(session, id, held.fence, WorkerReservation::Verdict(Box::new(deliver(id, 1))));
        assert_eq!(host.settled(session), []);
        if fails {
            host.store_fails();
            assert!(matches!(host.settled(session)[..], [Settled::Refused { .. }]));
        } else {
            host.stored(Stored::Done);
            assert_eq!(host.settled(session), [Settled::Applied]);
            assert_eq!(host.counters().settled, 1);
        }
    }
}

#[test]
fn a_settled_verdict_is_remembered_until_the_worker_asks_no_more() {
    let mut host = Host::new();
    let id = host.mark();
    let a = host.worker("a", 1);
    let held = host.assigned[&id].clone();
    host.clean(id);
    host.lose(a);
    let b = host.link_with("a", &[VIRUS], resuming("a", 1, &[&held]));
    assert_eq!(answers(&host, b), [ResumeAnswer::Applied]);
    host.lose(b);
    let c = host.link("a", 1);
    host.lose(c);
    let d = host.link_with("a", &[VIRUS], resuming("a", 1, &[&held]));
    assert_eq!(answers(&host, d), [ResumeAnswer::Superseded]);
}

#[test]
fn a_new_incarnation_ends_what_the_former_held() {
    let mut host = Host::new();
    let id = host.mark();
    host.worker("a", 1);
    let held = host.assigned[&id].clone();
    let anew = host.link_with("a", &[VIRUS], resuming("a", 2, &[&held]));
    assert_eq!(answers(&host, anew), [ResumeAnswer::Superseded]);
    assert!(host.is(id, "waiting"));
    assert_eq!(host.status(id).attempts, 1, "the process ended while it had the message");
    assert!(host.status(id).reasons[0].contains("anew"));
}

#[test]
fn what_had_not_been_sent_to_a_former_incarnation_is_not_to_blame() {
    let mut host = Host::new();
    host.worker("a", 1);
    host.prompt = false;
    let id = host.mark();
    host.link("a", 2);
    host.stored(Stored::Done);
    assert!(host.is(id, "waiting"));
    assert_eq!(host.status(id).attempts, 0);
}

#[test]
fn a_replaced_incarnation_that_comes_back_is_refused_as_a_clone() {
    let mut host = Host::new();
    let first = host.link("a", 1);
    let second = host.link("a", 2);
    assert_eq!(refused_with(&host, first), Some(RefusedCode::Replaced));
    let back = host.link("a", 1);
    assert_eq!(refused_with(&host, back), Some(RefusedCode::Clone));
    host.want(second, 1);
    let id = host.mark();
    assert!(host.is(id, "dispatched for a"), "the newer one goes on");
}

#[test]
fn names_and_versions_must_fit() {
    let mut host = Host::new();
    let session = host.link_with("a", &[VIRUS], hello("b", 1));
    assert_eq!(refused_with(&host, session), Some(RefusedCode::NameMismatch));
    let mut newer = hello("a", 1);
    (newer.version_min, newer.version_max) = (900, 901);
    let session = host.link_with("a", &[VIRUS], newer);
    assert_eq!(refused_with(&host, session), Some(RefusedCode::NoCommonVersion));
}

#[test]
fn no_more_grabbers_are_linked_than_the_bound() {
    let mut host = Host::new();
    for number in 0..crate::limits::GRABBERS_MAX {
        host.link(&format!("pc-{number}"), 1);
    }
    let more = host.link("one-more", 1);
    assert_eq!(refused_with(&host, more), Some(RefusedCode::Limit));
    host.lose(Session(1));
    let now = host.link("one-more", 1);
    assert_eq!(refused_with(&host, now), None, "one that has gone makes room");
}

#[test]
fn a_second_hello_ends_the_link() {
    let mut host = Host::new();
    let session = host.link("a", 1);
    host.control(session, WorkerControl::Hello(hello("a", 1)));
    assert_eq!(refused_with(&host, session), Some(RefusedCode::Misbehaved));
    let status = host.picture();
    let worker = status.workers.first().unwrap();
    assert_eq!(worker.faults, 1);
    assert!(worker.last_fault.is_some(), "the status names what it did");
}

#[test]
fn a_link_lost_before_the_message_was_sent_gives_it_back() {
    let mut host = Host::new();
    let a = host.worker("a", 1);
    host.prompt = false;
    let id = host.mark();
    host.lose(a);
    host.stored(Stored::Done);
    assert!(host.is(id, "waiting"));
    assert_eq!(host.status(id).attempts, 0);
    host.prompt = true;
    host.worker("b", 1);
    assert!(host.is(id, "dispatched for b"));
}

#[test]
fn a_draining_worker_gets_nothing_more() {
    let mut host = Host::new();
    let session = host.worker("a", 5);
    host.control(
        session,
        WorkerControl::Draining(crate::frame::Draining { reason: "leaves".to_owned() }),
    );
    let id = host.mark();
    assert!(host.is(id, "waiting"));
    host.want(session, 9);
    assert!(host.is(id, "waiting"));
}

fn profile(name: &str, holding: usize) -> Profile {
    let id = MessageId { epoch: u32::MAX, counter: u64::MAX };
    let fence = Fence { epoch: u32::MAX, counter: u64::MAX };
    let one = Holding { message: id, fence, progress_ago_ms: 100, silence_ms: u64::MAX };
    Profile {
        grabber: name.to_owned(),
        incarnation: crate::id::Incarnation(1),
        readiness: Readiness::Ready,
        tier: 0,
        last_action: Action::Processing,
        last_action_ago_ms: 50,
        modules: Vec::new(),
        holding: vec![one; holding],
    }
}

#[test]
fn peers_hear_of_each_other_and_of_the_backlog_once_a_second() {
    let mut host = Host::new();
    let a = host.link("a", 1);
    host.control(a, WorkerControl::Profile(profile("a", 1)));
    host.pass(ms(400));
    let b = host.link("b", 1);
    host.control(b, WorkerControl::Profile(profile("b", 0)));
    let id = host.mark();
    host.pass(ms(700));
    let to_b = host.controls(b);
    let peers =
        to_b.iter().find_map(|f| if let HostControl::Peers(p) = f { Some(p) } else { None });
    let peer = &peers.unwrap().peers[0];
    assert_eq!((peer.profile.grabber.as_str(), peer.linked), ("a", true));
    assert_eq!(peer.profile.last_action_ago_ms, 1_050, "durations are aged by the host");
    assert_eq!(peer.profile.holding[0].progress_ago_ms, 1_100);
    let backlog =
        to_b.iter().find_map(|f| if let HostControl::Backlog(b) = f { Some(b) } else { None });
    assert_eq!(backlog.unwrap().messages, 1);
    assert!(host.is(id, "waiting"));
}

#[test]
fn a_list_of_peers_always_fits_a_frame() {
    let mut host = Host::new();
    for number in 0..crate::limits::GRABBERS_MAX {
        let name = format!("pc-{number}");
        let session = host.link(&name, 1);
        host.control(session, WorkerControl::Profile(profile(&name, 1_024)));
    }
    host.pass(ms(1_500));
    let frames = host.controls(Session(1));
    let peers = frames.iter().find(|frame| matches!(frame, HostControl::Peers(_))).unwrap();
    crate::frame::encode(peers).unwrap();
    let HostControl::Peers(list) = peers else { unreachable!() };
    assert_eq!(list.peers.len(), crate::limits::GRABBERS_MAX - 1, "nobody is left out");
}

#[test]
fn a_profile_of_somebody_else_ends_the_link() {
    let mut host = Host::new();
    let session = host.link("a", 1);
    host.control(session, WorkerControl::Profile(profile("b", 0)));
    assert_eq!(refused_with(&host, session), Some(RefusedCode::Misbehaved));
}

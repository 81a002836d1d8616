//! Operators' decisions: conditional on the state, and safe to repeat.

use super::super::*;
use super::host::*;
use StoredState::{Held, Quarantined};

fn as_is() -> Operation {
    Operation::ReleaseAsIs { by: "alice".to_owned() }
}

#[test]
fn a_held_message_is_processed_again_with_no_attempts_counted() {
    let mut host = Host::new();
    let id = host.recover(Held);
    host.operate(id, Held, Operation::Release).unwrap();
    assert_eq!(host.changes(), [Change::Requeue]);
    assert!(host.is(id, "waiting"));
    host.worker("a", 1);
    assert_eq!(host.assigned[&id].attempt, 1);
}

#[test]
fn a_decision_counts_only_in_the_state_it_was_made_for() {
    let mut host = Host::new();
    let (held, waiting) = (host.recover(Held), host.mark());
    for (id, wanted) in [(held, Quarantined), (waiting, Held), (waiting, Quarantined)] {
        for operation in [Operation::Release, as_is(), Operation::Delete] {
            let error = host.operate(id, wanted, operation).unwrap_err();
            assert!(matches!(error, OperatorError::WrongState { .. }));
        }
    }
    assert_eq!(host.changes(), []);
}

#[test]
fn repeating_a_decision_does_nothing_more() {
    let mut host = Host::new();
    let id = host.recover(Quarantined);
    host.prompt = false;
    host.operate(id, Quarantined, Operation::Delete).unwrap();
    assert!(host.operate(id, Quarantined, Operation::Delete).is_err());
    host.stored(Stored::Done);
    assert_eq!(
        host.operate(id, Quarantined, Operation::Delete),
        Err(OperatorError::Unknown { id })
    );
    assert_eq!(host.changes(), [Change::Remove]);
}

#[test]
fn a_decision_that_could_not_be_stored_changes_nothing() {
    for (state, word) in [(Held, "held"), (Quarantined, "quarantined")] {
        for operation in [Operation::Release, as_is(), Operation::Delete] {
            let mut host = Host::new();
            let id = host.recover(state);
            host.prompt = false;
            host.operate(id, state, operation.clone()).unwrap();
            host.store_fails();
            assert!(host.is(id, word));
            host.operate(id, state, operation).unwrap();
        }
    }
}

/// On an operator's word it leaves without a worker, and says so itself.
#[test]
fn a_message_that_is_released_as_it_is_goes_to_all_who_have_not_had_it() {
    let mut host = Host::new();
    let marked = Marked { recipients: 3, ..host.marked(Custody::Hook) };
    let id = marked.id;
    host.open(vec![(marked, Quarantined)]);
    host.prompt = false;
    host.operate(id, Quarantined, as_is()).unwrap();
    assert!(host.releases.is_empty(), "nothing leaves before it is stored");
    let [Change::ReleaseAsIs { verdict }] = &host.changes()[..] else { panic!() };
    let field = "X-Gantry: released as it is by the operator alice".to_owned();
    let disposition = crate::verdict::Disposition::Deliver {
        edits: vec![gantry_mail::HeaderEdit::Prepend { field }],
        body: crate::verdict::Body::Original,
    };
    let recipients = vec![0, 1, 2];
    assert_eq!(verdict.groups, [crate::verdict::Group { recipients, disposition }]);
    let reply = "250 ok".to_owned();
    let had = RecipientResult { recipient: 1, result: ReleaseResult::Accepted, reply };
    host.stored(Stored::ServedBefore { results: vec![had] });
    let (_, released, recipients) = host.releases.front().unwrap();
    assert_eq!((*released, recipients.as_slice()), (id, &[0, 2][..]));
    assert_eq!(host.counters().released_as_is, 1);
}

#[test]
fn what_an_operator_put_back_never_leaves_by_the_rule_for_unprocessed_mail() {
    for after in [Duration::ZERO, secs(60)] {
        let rule = WhenUnprocessed::ReleaseUnscanned { after };
        let mut host = Host::with(MailboxConfig { when_unprocessed: rule, ..mailbox() });
        let old = Marked { since: host.now - secs(9_000), ..host.marked(Custody::Hook) };
        let id = old.id;
        host.open(vec![(old, Quarantined)]);
        host.operate(id, Quarantined, Operation::Release).unwrap();
        host.pass(secs(86_400));
        assert!(host.is(id, "waiting"));
        host.worker("a", 1);
        assert!(host.is(id, "dispatched for a"));
    }
}

//! A scripted day of a spool, with a crash or a fault at every operation of its disk.
//!
//! The model knows what was promised: states that a message may have after a crash (one, unless a change was under
//! way), and results that must have survived.

use std::collections::BTreeMap;

use super::*;
use crate::disk::sim::Fault;

/// Seeds for each crash point: chance decides what of the unsynced survives.
const SEEDS: u64 = 6;

#[derive(Debug)]
struct Expected {
    body: Vec<u8>,
    /// `None`: it may be gone, or not yet there.
    states: Vec<Option<StoredState>>,
    promised: Vec<RecipientResult>,
    possible: Vec<RecipientResult>,
    /// What workers may have found in turn: the last of it, unless a change was under way.
    findings: Vec<Vec<Finding>>,
    /// Changed behind the spool's back, to be set aside.
    damaged: bool,
}

struct Day {
    disk: SimDisk,
    spool: Arc<Spool<SimDisk>>,
    messages: BTreeMap<MessageId, Expected>,
    /// Messages that had a notice, and how many at least.
    notices: BTreeMap<MessageId, usize>,
    /// Notices that may be there without having been promised.
    stray_notices: usize,
    /// Whose notice was being written.
    bouncing: Option<MessageId>,
    suspect: Option<(Digest, u8)>,
}

const MARKED: Option<StoredState> = Some(StoredState::Marked { attempts: 0 });
const RELEASING: Option<StoredState> = Some(StoredState::Releasing);
const HELD: Option<StoredState> = Some(StoredState::Held);
const QUARANTINED: Option<StoredState> = Some(StoredState::Quarantined);

impl Day {
    fn new(disk: &SimDisk, spool: Arc<Spool<SimDisk>>) -> Self {
        Self {
            disk: disk.clone(),
            spool,
            messages: BTreeMap::new(),
            notices: BTreeMap::new(),
            stray_notices: 0,
            bouncing: None,
            suspect: None,
        }
    }

    /// All of it. A step that fails is not followed up, as the pool would not; the others go on.
    fn run(&mut self) {
        let a = self.take_in(1, 200);
        let b = self.take_in(2, 70_000);
        let c = self.take_in(3, 300);
        self.give_up(4);
        let e = self.take_in(5, 400);
        self.take_in(6, 10);
        let g = self.take_in(9, 600);
        let accepted = [result(0, ReleaseResult::Accepted)];
        let refused = [result(1, ReleaseResult::Refused)];
        let _ = self.release_and_bounce(a, &accepted, &refused);
        let _ = self.hold_and_requeue(b, &accepted);
        let _ = self.quarantine(c);
        let _ = self.hold_and_release_as_is(g);
        let h = self.take_in(9, 250);
        let _ = self.process_in_turn(h);
        self.set_aside(e);
        let _ = self.adopt(7, 70_000, StoredState::Releasing, &accepted);
        let _ = self.adopt(8, 100, StoredState::Held, &[]);
    }

    fn release_and_bounce(
        &mut self,
        id: Option<MessageId>,
        accepted: &[RecipientResult],
        refused: &[RecipientResult],
    ) -> Option<()> {
        let id = id?;
        let once = Some(StoredState::Marked { attempts: 1 });
        let twice = Some(StoredState::Marked { attempts: 2 });
        // Not durable, so both states stay possible until the next durable change.
        self.change(id, Change::Charge { attempts: 1 }, once)?;
        self.messages.get_mut(&id)?.states.push(MARKED);
        self.change(id, Change::Charge { attempts: 2 }, twice)?;
        self.settle(id)?;
        self.results(id, accepted)?;
        self.results(id, refused)?;
        self.bounce(id, refused)?;
        self.change(id, Change::Remove, None)
    }

    fn hold_and_requeue(
        &mut self,
        id: Option<MessageId>,
        results: &[RecipientResult],
    ) -> Option<()> {
        let id = id?;
        self.settle(id)?;
        self.results(id, results)?;
        let (state, reasons) = (StoredState::Held, vec!["nobody to tell".to_owned()]);
        self.change(id, Change::SetAside { state, verdict: None, reasons }, HELD)?;
        self.change(id, Change::Requeue, MARKED)
    }

    fn hold_and_release_as_is(&mut self, id: Option<MessageId>) -> Option<()> {
        let id = id?;
        let (state, reasons) = (StoredState::Held, vec!["tried in vain".to_owned()]);
        self.change(id, Change::SetAside { state, verdict: None, reasons }, HELD)?;
        let verdict = verdict(&self.spool.header(id).ok()?);
        self.change(id, Change::ReleaseAsIs { verdict }, RELEASING)
    }

    /// Two workers do their part, and a third one ends it.
    fn process_in_turn(&mut self, id: Option<MessageId>) -> Option<()> {
        let id = id?;
        self.part(id, &["virus"])?;
        let once = Some(StoredState::Part { attempts: 1 });
        self.change(id, Change::Charge { attempts: 1 }, once)?;
        // Not durable.
        self.messages.get_mut(&id)?.states.push(Some(StoredState::Part { attempts: 0 }));
        self.part(id, &["virus", "sign"])?;
        self.settle(id)
    }

    fn part(&mut self, id: MessageId, needs: &[&str]) -> Option<()> {
        let findings: Vec<Finding> = needs.iter().map(|need| finding(need)).collect();
        let possible = &mut self.messages.get_mut(&id)?.findings;
        possible.push(findings.clone());
        let part = Change::Part { findings: findings.clone(), body: DeliveredBody::Original };
        self.change(id, part, Some(StoredState::Part { attempts: 0 }))?;
        self.messages.get_mut(&id)?.findings = vec![findings];
        Some(())
    }

    fn quarantine(&mut self, id: Option<MessageId>) -> Option<()> {
        let id = id?;
        let verdict = Some(verdict(&self.spool.header(id).ok()?));
        let (state, reasons) = (StoredState::Quarantined, vec!["found: Eicar".to_owned()]);
        self.change(id, Change::SetAside { state, verdict, reasons }, QUARANTINED)
    }

    fn take_in(&mut self, number: u8, length: usize) -> Option<MessageId> {
        let body = message(number, length);
        let id = self.spool.allocate();
        self.expect(id, body.clone(), vec![None, MARKED]);
        let taken = (|| {
            let mut incoming = self.spool.begin(id, MAILBOX, &envelope(2), RECEIVED)?;
            body.chunks(10_000).try_for_each(|piece| incoming.write(piece))?;
            incoming.finish()
        })();
        taken.ok()?;
        self.messages.get_mut(&id)?.states = vec![MARKED];
        Some(id)
    }

    /// A client that vanishes in the middle.
    fn give_up(&mut self, number: u8) {
        let id = self.spool.allocate();
        if let Ok(mut incoming) = self.spool.begin(id, MAILBOX, &envelope(2), RECEIVED) {
            let _ = incoming.write(&message(number, 70_000));
        }
    }

    fn adopt(
        &mut self,
        number: u8,
        length: usize,
        state: StoredState,
        results: &[RecipientResult],
    ) -> Option<()> {
        let body = message(number, length);
        let id = take_in_volatile(&self.spool, &body).ok()?;
        let header = self.spool.header(id).ok()?;
        if state == StoredState::Held {
            self.suspect = Some((header.digest, 0));
            self.apply(id, &Change::Charge { attempts: 2 })?;
            self.suspect = Some((header.digest, 2));
        }
        self.expect(id, body, vec![None, Some(state)]);
        let (verdict, results) = (Some(verdict(&header)), results.to_vec());
        self.messages.get_mut(&id)?.possible = results.clone();
        let adopt = Change::Adopt { state, verdict, results: results.clone(), reasons: Vec::new() };
        self.apply(id, &adopt)?;
        let expected = self.messages.get_mut(&id)?;
        (expected.states, expected.promised) = (vec![Some(state)], results);
        Some(())
    }

    fn set_aside(&mut self, id: Option<MessageId>) {
        let Some(id) = id else { return };
        if self.disk.damage(&path(&self.spool, id), |bytes| bytes[40] ^= 1).is_err() {
            return;
        }
        let expected = self.messages.get_mut(&id).unwrap();
        expected.damaged = true;
        expected.states = vec![MARKED, None];
        if let Err(error) = self.spool.header(id)
            && error.is_corrupted()
            && self.spool.set_aside_corrupted(id, &error.to_string()).is_ok()
        {
            self.messages.get_mut(&id).unwrap().states = vec![None];
        }
    }

    fn settle(&mut self, id: MessageId) -> Option<()> {
        let verdict = verdict(&self.spool.header(id).ok()?);
        self.change(id, Change::Settle { verdict }, RELEASING)
    }

    fn results(&mut self, id: MessageId, results: &[RecipientResult]) -> Option<()> {
        self.messages.get_mut(&id)?.possible.extend_from_slice(results);
        self.apply(id, &Change::Results { results: results.to_vec() })?;
        self.messages.get_mut(&id)?.promised.extend_from_slice(results);
        Some(())
    }

    fn bounce(&mut self, id: MessageId, results: &[RecipientResult]) -> Option<()> {
        (self.stray_notices, self.bouncing) = (1, Some(id));
        let change = Change::Bounce { results: results.to_vec() };
        match self.spool.apply(id, MAILBOX, &change) {
            Stored::Bounced { notice: Some(notice) } => {
                (self.stray_notices, self.bouncing) = (0, None);
                self.notices.insert(id, 1);
                let body = read_body(&self.spool, notice.id).ok()?;
                self.expect(notice.id, body, vec![RELEASING]);
                Some(())
            }
            Stored::Failed { .. } => None,
            other => panic!("bounced as {other:?}"),
        }
    }

    fn change(&mut self, id: MessageId, change: Change, next: Option<StoredState>) -> Option<()> {
        self.messages.get_mut(&id)?.states.push(next);
        self.apply(id, &change)?;
        self.messages.get_mut(&id)?.states = vec![next];
        Some(())
    }

    fn apply(&mut self, id: MessageId, change: &Change) -> Option<()> {
        match self.spool.apply(id, MAILBOX, change) {
            Stored::Done => Some(()),
            Stored::Failed { .. } => None,
            other => panic!("{change:?} ended in {other:?}"),
        }
    }

    fn expect(&mut self, id: MessageId, body: Vec<u8>, states: Vec<Option<StoredState>>) {
        let (promised, possible, findings) = (Vec::new(), Vec::new(), Vec::new());
        let expected = Expected { body, states, promised, possible, findings, damaged: false };
        self.messages.insert(id, expected);
    }

    /// Compares what was promised with what is there after the restart.
    fn check(&self, opened: &Opened<SimDisk>, run: &str) {
        let spool = &opened.spool;
        let mut found = BTreeMap::new();
        for recovered in opened.recovered() {
            let twice = found.insert(recovered.marked.id, recovered.state).is_some();
            assert!(!twice, "{run}: {} is there twice", recovered.marked.id);
        }
        for (id, expected) in &self.messages {
            let state = found.remove(id);
            assert!(
                expected.states.contains(&state),
                "{run}: {id} is {state:?} and not {expected:?}"
            );
            if let Some(state) = state
                && !expected.damaged
            {
                check_content(spool, *id, state, expected, run);
            }
        }
        let strays = found.len();
        assert!(strays <= self.stray_notices, "{run}: nobody wrote {found:?}");
        for (id, state) in found {
            assert_eq!(Some(state), RELEASING, "{run}: stray {id}");
            assert!(spool.header(id).unwrap().envelope.is_null_sender(), "{run}: stray {id}");
            assert!(spool.log(id).unwrap().verdict.is_some(), "{run}: stray {id}");
            read_body(spool, id).unwrap();
        }
        let bad = |report: &Report| report.path.extension().is_some_and(|state| state == "bad");
        assert!(opened.reports.iter().all(bad), "{run}: {:?}", opened.reports);
        if let Some((digest, attempts)) = self.suspect {
            let known = spool.suspects().lookup(digest).map_or(0, |suspect| suspect.attempts);
            assert!(known >= attempts, "{run}: {known} of {attempts} attempts are known");
        }
        if let Some(id) = self.bouncing {
            let again = Change::Bounce { results: vec![result(1, ReleaseResult::Refused)] };
            let again = spool.apply(id, MAILBOX, &again);
            assert!(
                strays > 0 || again != Stored::Bounced { notice: None },
                "{run}: a lost notice"
            );
        }
        for id in self.notices.keys().filter(|id| state(spool, **id).is_some()) {
            let again = Change::Bounce { results: vec![result(1, ReleaseResult::Refused)] };
            assert_eq!(
                spool.apply(*id, MAILBOX, &again),
                Stored::Bounced { notice: None },
                "{run}"
            );
        }
    }
}

fn check_content(
    spool: &Arc<Spool<SimDisk>>,
    id: MessageId,
    state: StoredState,
    expected: &Expected,
    run: &str,
) {
    assert_eq!(read_body(spool, id).unwrap(), expected.body, "{run}: {id}");
    let log = spool.log(id).unwrap_or_else(|error| panic!("{run}: {id}: {error}"));
    for promised in &expected.promised {
        assert!(log.results.contains(promised), "{run}: {id} lost {promised:?}");
    }
    for result in &log.results {
        assert!(expected.possible.contains(result), "{run}: {id} has {result:?}");
    }
    let parted = matches!(state, StoredState::Part { .. });
    assert!(
        !parted || expected.findings.contains(&log.findings),
        "{run}: {id}: {:?}",
        log.findings
    );
    let marked = matches!(state, StoredState::Marked { .. });
    assert!(!marked || log.findings.is_empty(), "{run}: {id}: {:?}", log.findings);
    assert!(Some(state) != RELEASING || log.verdict.is_some(), "{run}: {id} has no verdict");
}

/// The spool works, and everything in it can be taken to its end.
fn check_that_life_goes_on(disk: &SimDisk, opened: Opened<SimDisk>, run: &str) {
    let spool = opened.spool;
    let id = take_in(&spool, b"life goes on").unwrap();
    settle(&spool, id);
    for listed in spool.list(|_| true, usize::MAX) {
        match spool.header(listed.id) {
            Ok(_) => done(&spool, listed.id, &Change::Remove),
            Err(_) => drop(spool.set_aside_corrupted(listed.id, "damaged").unwrap()),
        }
    }
    let epoch = opened.epoch;
    drop(spool);
    disk.restart();
    let opened = open_sim(disk);
    assert!(opened.recovered().is_empty(), "{run}: {:?}", opened.recovered());
    assert!(opened.epoch > epoch, "{run}");
}

/// How many operations a day has, the opening included.
fn operations() -> u64 {
    let disk = SimDisk::new(0);
    let mut day = Day::new(&disk, open_sim(&disk).spool);
    day.run();
    assert!(day.messages.values().all(|expected| expected.states.len() == 1), "a whole day");
    disk.operations()
}

#[test]
fn a_crash_at_any_operation_breaks_no_promise() {
    for crash_at in 1..=operations() {
        for seed in 0..SEEDS {
            let run = format!("crash at {crash_at}, seed {seed}");
            let disk = SimDisk::new(seed);
            disk.crash_at(crash_at);
            let opened = try_open(disk.clone(), Path::new(ROOT)).ok();
            let epoch = opened.as_ref().map_or(0, |opened| opened.epoch);
            let day = opened.map(|opened| {
                let mut day = Day::new(&disk, opened.spool);
                day.run();
                day
            });
            assert!(disk.is_crashed(), "{run}: it did not come so far");
            disk.restart();
            if seed % 2 == 1 {
                // The recovery crashes too, somewhere.
                disk.crash_at(disk.operations() + 1 + (crash_at + seed) % 14);
                drop(try_open(disk.clone(), Path::new(ROOT)));
                disk.restart();
            }
            let opened = open_sim(&disk);
            assert!(opened.epoch > epoch, "{run}: epoch {} after {epoch}", opened.epoch);
            if let Some(day) = day {
                day.check(&opened, &run);
            }
            check_that_life_goes_on(&disk, opened, &run);
        }
    }
}

#[test]
fn what_a_start_has_seen_survives_a_power_cut() {
    for crash_at in 1..=operations() {
        let run = format!("process ends at {crash_at}");
        let disk = SimDisk::new(crash_at);
        disk.crash_at(crash_at);
        let day = try_open(disk.clone(), Path::new(ROOT)).ok().map(|opened| {
            let mut day = Day::new(&disk, opened.spool);
            day.run();
            day
        });
        disk.restart_process();
        let seen = open_sim(&disk);
        let (recovered, epoch) = (seen.recovered(), seen.epoch);
        let bodies = |spool: &Arc<Spool<SimDisk>>| -> Vec<_> {
            let listed = spool.list(|_| true, usize::MAX);
            listed.iter().map(|listed| spool.body(listed.id).is_ok()).collect()
        };
        let whole = bodies(&seen.spool);
        let new = take_in(&seen.spool, b"into a folder that was there").unwrap();
        drop(seen);
        disk.restart();
        let opened = open_sim(&disk);
        assert_eq!(
            read_body(&opened.spool, new).unwrap(),
            b"into a folder that was there",
            "{run}"
        );
        done(&opened.spool, new, &Change::Remove);
        let mut found = opened.recovered();
        found.retain(|found| found.marked.id != new);
        assert_eq!(found, recovered, "{run}");
        assert_eq!(bodies(&opened.spool), whole, "{run}");
        assert!(opened.epoch > epoch, "{run}");
        if let Some(day) = day {
            day.check(&opened, &run);
        }
    }
}

#[test]
fn a_fault_at_any_operation_breaks_no_promise() {
    for fail_at in 1..=operations() {
        for fault in [Fault::Full, Fault::ReadOnly, Fault::Io] {
            let run = format!("{fault:?} at {fail_at}");
            let disk = SimDisk::new(fail_at);
            disk.fail_at(fail_at, fault);
            let day = try_open(disk.clone(), Path::new(ROOT)).ok().map(|opened| {
                let mut day = Day::new(&disk, opened.spool);
                day.run();
                day
            });
            disk.restart();
            let opened = open_sim(&disk);
            if let Some(day) = day {
                day.check(&opened, &run);
            }
            check_that_life_goes_on(&disk, opened, &run);
        }
    }
}

//! For how long what was set aside is kept, and when there is room.

use std::time::Duration;

use super::*;

const DAY: u64 = 86_400;
const KEEP: Duration = Duration::from_secs(10 * DAY);

/// A spool whose clocks a test moves.
struct Aging {
    disk: SimDisk,
    room: RoomLimits,
    /// Milliseconds, of the monotonic clock and of the wall.
    clocks: Arc<Mutex<(u64, u64)>>,
    spool: Arc<Spool<SimDisk>>,
    reports: Vec<Report>,
}

impl Aging {
    fn new(room: RoomLimits) -> Self {
        let disk = SimDisk::new(1);
        let clocks = Arc::new(Mutex::new((RECEIVED, RECEIVED)));
        let Opened { spool, reports, .. } = open(&disk, room, &clocks);
        Self { disk, room, clocks, spool, reports }
    }

    /// Both clocks go on.
    fn pass(&self, days: u64) {
        let mut clocks = self.clocks.lock().unwrap();
        *clocks = (clocks.0 + days * DAY * 1_000, clocks.1 + days * DAY * 1_000);
    }

    fn set_wall_clock(&self, unix_ms: u64) {
        self.clocks.lock().unwrap().1 = unix_ms;
    }

    /// The monotonic clock of a process begins anew.
    fn restart(self) -> Self {
        let Self { disk, room, clocks, spool, .. } = self;
        drop(spool);
        disk.restart();
        clocks.lock().unwrap().0 = 5_000;
        let Opened { spool, reports, .. } = open(&disk, room, &clocks);
        Self { disk, room, clocks, spool, reports }
    }

    fn set_aside(&self, number: u8, state: StoredState) -> MessageId {
        let id = take_in(&self.spool, &message(number, 1_000)).unwrap();
        let reasons = vec!["found".to_owned()];
        done(&self.spool, id, &Change::SetAside { state, verdict: None, reasons });
        id
    }

    fn due(&self) -> Vec<MessageId> {
        self.spool.kept_for(StoredState::Quarantined, KEEP)
    }
}

fn open(disk: &SimDisk, room: RoomLimits, clocks: &Arc<Mutex<(u64, u64)>>) -> Opened<SimDisk> {
    let clocks = Arc::clone(clocks);
    let clock = Arc::new(move || {
        let (moment, unix_ms) = *clocks.lock().unwrap();
        Now { moment: Moment(moment), unix_ms }
    });
    let names = ["mail.box".to_owned()];
    Spool::open(disk.clone(), Path::new(ROOT), &names, Options { room, clock, ..options() })
        .unwrap()
}

#[test]
fn what_was_set_aside_is_due_when_it_has_been_kept() {
    let aging = Aging::new(RoomLimits::default());
    let first = aging.set_aside(1, StoredState::Quarantined);
    aging.set_aside(2, StoredState::Held);
    let waiting = take_in(&aging.spool, &message(3, 100)).unwrap();
    aging.pass(9);
    assert_eq!(aging.due(), []);
    // It came in long ago, and lies there only from now on.
    let reasons = Vec::new();
    let state = StoredState::Quarantined;
    done(&aging.spool, waiting, &Change::SetAside { state, verdict: None, reasons });
    aging.pass(1);
    assert_eq!(aging.due(), [first]);
    // Nothing else was asked for.
    assert_eq!(aging.spool.kept_for(StoredState::Held, 2 * KEEP), []);

    // What is put back and set aside again begins anew.
    done(&aging.spool, first, &Change::Requeue);
    let verdict = Some(verdict(&aging.spool.header(first).unwrap()));
    done(&aging.spool, first, &Change::SetAside { state, verdict, reasons: Vec::new() });
    assert_eq!(aging.due(), []);
    aging.pass(9);
    assert_eq!(aging.due(), [waiting]);
}

/// A clock that is set wrong, while the hook runs or while it does not, makes nothing older.
#[test]
fn no_wall_clock_makes_a_message_older() {
    let year = 366 * DAY * 1_000;
    let aging = Aging::new(RoomLimits::default());
    let id = aging.set_aside(1, StoredState::Quarantined);
    aging.pass(1);
    aging.set_wall_clock(RECEIVED + year);
    assert_eq!(aging.due(), [], "a jump while it runs");
    let aging = aging.restart();
    assert_eq!(aging.due(), [], "and one that it finds at its start");
    aging.set_wall_clock(RECEIVED - year);
    aging.pass(20);
    assert_eq!(aging.due(), [], "a clock that stands too early keeps it longer");
    aging.set_wall_clock(RECEIVED + 11 * DAY * 1_000);
    assert_eq!(aging.due(), [id]);
}

/// The time of which nothing is known does not count.
#[test]
fn time_goes_on_after_a_restart_where_it_was_saved() {
    let aging = Aging::new(RoomLimits::default());
    let id = aging.set_aside(1, StoredState::Quarantined);
    aging.pass(6);
    aging.spool.save_calendar().unwrap();
    aging.pass(3);
    let aging = aging.restart();
    aging.pass(3);
    assert_eq!(aging.due(), [], "three days were not saved");
    aging.pass(1);
    assert_eq!(aging.due(), [id]);
    assert_eq!(aging.reports, []);

    aging
        .disk
        .damage(&Path::new(ROOT).join(CALENDAR_FILE), |bytes| *bytes = b"x\n".to_vec())
        .unwrap();
    let aging = aging.restart();
    assert_eq!(aging.reports.len(), 1, "{:?}", aging.reports);
    assert!(aging.restart().reports.is_empty(), "it is replaced");
}

#[test]
fn the_oldest_are_too_many() {
    let aging = Aging::new(RoomLimits::default());
    let ids: Vec<_> = (0..5).map(|n| aging.set_aside(n, StoredState::Quarantined)).collect();
    let beyond = |bytes| aging.spool.beyond(StoredState::Quarantined, bytes);
    assert_eq!(beyond(5_000), []);
    assert_eq!(beyond(4_999), ids[..1]);
    assert_eq!(beyond(3_000), ids[..2]);
    assert_eq!(beyond(0), ids);
    assert_eq!(aging.spool.beyond(StoredState::Held, 0), []);
}

/// Each bound refuses new mail, and takes it again when there is room; what is here already finds its place.
#[test]
fn what_is_full_takes_nothing_more_until_there_is_room() {
    let none = RoomLimits::default();
    let limits = [
        ("spool_max", RoomLimits { spool_bytes_max: Some(2_500), ..none }),
        ("[held]", RoomLimits { held_bytes_max: Some(1_500), ..none }),
        ("[quarantine]", RoomLimits { quarantined_bytes_max: Some(1_500), ..none }),
    ];
    for (key, room) in limits {
        let state = if key == "[held]" { StoredState::Held } else { StoredState::Quarantined };
        let aging = Aging::new(room);
        let first = aging.set_aside(1, state);
        aging.spool.room(1_000).unwrap();
        let waiting = take_in(&aging.spool, &message(2, 1_000)).unwrap();
        let reasons = Vec::new();
        done(&aging.spool, waiting, &Change::SetAside { state, verdict: None, reasons });
        let aging = aging.restart();
        for refused in
            [aging.spool.room(1_000), take_in(&aging.spool, &message(3, 1_000)).map(drop)]
        {
            let words = refused.unwrap_err().to_string();
            assert!(words.contains("no room") && words.contains(key), "{words}");
        }
        let header = aging.spool.header(waiting).unwrap();
        let adopted = take_in_volatile(&aging.spool, &message(4, 1_000)).unwrap();
        let (verdict, results, reasons) = (Some(super::verdict(&header)), Vec::new(), Vec::new());
        done(&aging.spool, adopted, &Change::Adopt { state, verdict, results, reasons });
        assert!(aging.spool.room(0).is_err());
        for id in [first, waiting, adopted] {
            done(&aging.spool, id, &Change::Remove);
        }
        assert_eq!(aging.spool.usage(), Usage::default());
        take_in(&aging.spool, &message(5, 1_000)).unwrap();
    }
}

#[test]
fn some_of_the_disk_stays_free() {
    let aging = Aging::new(RoomLimits { free_bytes_min: 100_000, ..RoomLimits::default() });
    aging.disk.set_free_bytes(Some(104_000));
    aging.spool.room(u64::MAX).unwrap(); // Nobody has looked yet.
    aging.spool.look_for_room().unwrap();
    aging.spool.room(4_000).unwrap();
    assert!(aging.spool.room(4_001).unwrap_err().to_string().contains("spool_free_min"));
    // What came in since the last look counts.
    let id = take_in(&aging.spool, &message(1, 3_000)).unwrap();
    aging.spool.room(1_000).unwrap();
    assert!(aging.spool.room(1_001).is_err());
    assert!(take_in(&aging.spool, &message(2, 3_000)).is_err(), "nobody has said its size");
    // What is known of a message already is stored all the same.
    settle(&aging.spool, id);
    done(&aging.spool, id, &Change::Remove);
    aging.spool.look_for_room().unwrap();
    take_in(&aging.spool, &message(3, 3_000)).unwrap();
}

//! Folders: filled in order, never more than [`FILES_PER_FOLDER_MAX`] messages each, and synced together.

use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use gantry_protocol::pool::MailboxIndex;

use super::SpoolError;
use crate::disk::Disk;

/// Messages in one folder: looking one up stays quick on any file system.
pub(super) const FILES_PER_FOLDER_MAX: u32 = 4_096;
/// Folders of one mailbox: four hexadecimal digits, 268 million messages.
pub(super) const FOLDERS_MAX: u32 = 0x1_0000;

/// One folder of messages.
pub(super) struct Folder {
    pub(super) mailbox: MailboxIndex,
    pub(super) path: PathBuf,
    sync: SharedSync,
}

/// All folders. A folder's place here never changes.
#[derive(Default)]
pub(super) struct Folders {
    state: Mutex<State>,
    /// One folder is made at a time, so that two messages do not make two.
    making: Mutex<()>,
}

#[derive(Default)]
struct State {
    folders: Vec<Arc<Folder>>,
    /// Files in each.
    files: Vec<u32>,
    mailboxes: Vec<Mailbox>,
}

struct Mailbox {
    path: PathBuf,
    /// Places in `folders`, rising.
    folders: Vec<u32>,
    /// The number of the next folder to be made.
    next: u32,
}

impl Folders {
    /// The next mailbox, in the order of [`MailboxIndex`].
    pub(super) fn add_mailbox(&self, path: PathBuf) {
        lock(&self.state).mailboxes.push(Mailbox { path, folders: Vec::new(), next: 0 });
    }

    /// A folder found or made; those of one mailbox come in rising order. Returns its place here.
    pub(super) fn add(&self, mailbox: MailboxIndex, path: PathBuf, number: u32, files: u32) -> u32 {
        let mut state = lock(&self.state);
        let place = u32::try_from(state.folders.len()).unwrap_or(u32::MAX);
        state.folders.push(Arc::new(Folder { mailbox, path, sync: SharedSync::default() }));
        state.files.push(files);
        if let Some(mailbox) = state.mailboxes.get_mut(usize::from(mailbox.0)) {
            mailbox.folders.push(place);
            mailbox.next = number + 1;
        }
        place
    }

    pub(super) fn get(&self, number: u32) -> Option<Arc<Folder>> {
        lock(&self.state).folders.get(index(number)).cloned()
    }

    /// Places of a mailbox's folders, rising.
    pub(super) fn of(&self, mailbox: MailboxIndex) -> Vec<u32> {
        let state = lock(&self.state);
        let mailbox = state.mailboxes.get(usize::from(mailbox.0));
        mailbox.map(|mailbox| mailbox.folders.clone()).unwrap_or_default()
    }

    /// A place for one more file: in the first folder with room, else in a new one, which is made and durable.
    pub(super) fn take_place<D: Disk>(
        &self,
        disk: &D,
        mailbox: MailboxIndex,
    ) -> Result<(u32, Arc<Folder>), SpoolError> {
        if let Some(place) = self.place_in_old(mailbox) {
            return Ok(place);
        }
        let _making = lock(&self.making);
        if let Some(place) = self.place_in_old(mailbox) {
            return Ok(place);
        }
        let (path, next) = lock(&self.state)
            .mailboxes
            .get(usize::from(mailbox.0))
            .map(|mailbox| (mailbox.path.clone(), mailbox.next))
            .ok_or(SpoolError::NoMailbox { index: mailbox.0 })?;
        let full = || SpoolError::FoldersFull { mailbox: path.clone(), max: FOLDERS_MAX };
        if next >= FOLDERS_MAX {
            return Err(full());
        }
        let folder = path.join(folder_name(next));
        match disk.create_dir(&folder) {
            // An earlier try made it and could not sync it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            result => result.map_err(SpoolError::io("make folder", &folder))?,
        }
        disk.sync_dir(&path).map_err(SpoolError::sync(&path))?;
        let place = self.add(mailbox, folder, next, 1);
        self.get(place).map(|folder| (place, folder)).ok_or_else(full)
    }

    /// A file that was promised a place is gone.
    pub(super) fn give_back(&self, number: u32) {
        if let Some(files) = lock(&self.state).files.get_mut(index(number)) {
            *files = files.saturating_sub(1);
        }
    }

    fn place_in_old(&self, mailbox: MailboxIndex) -> Option<(u32, Arc<Folder>)> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        state.mailboxes.get(usize::from(mailbox.0))?.folders.iter().find_map(|&number| {
            let files = state
                .files
                .get_mut(index(number))
                .filter(|files| **files < FILES_PER_FOLDER_MAX)?;
            *files += 1;
            Some((number, Arc::clone(state.folders.get(index(number))?)))
        })
    }
}

impl Folder {
    /// Makes the folder's names durable as they are at the call. Callers at the same time share one sync.
    pub(super) fn sync<D: Disk>(&self, disk: &D) -> Result<(), SpoolError> {
        let synced = self.sync.run(|| disk.sync_dir(&self.path));
        synced.map_err(|(kind, reason)| SpoolError::sync(&self.path)(io::Error::new(kind, reason)))
    }
}

/// The name of a mailbox's folder of this number.
pub(super) fn folder_name(number: u32) -> String {
    format!("{number:04x}")
}

/// The number of a mailbox's folder, if that is the name of one.
pub(super) fn folder_number(name: &str) -> Option<u32> {
    let number = u32::from_str_radix(name, 16).ok()?;
    (name.len() == 4 && folder_name(number) == name).then_some(number)
}

/// Group commit: who comes while a sync runs waits for the next one, which one of those who wait does for all.
#[derive(Default)]
struct SharedSync {
    rounds: Mutex<Rounds>,
    changed: Condvar,
}

#[derive(Default)]
struct Rounds {
    begun: u64,
    ended: u64,
    /// The first round that failed. It fails all later ones too: a sync that succeeds after one that did not says
    /// nothing about what the first should have made durable.
    failed: Option<(u64, io::ErrorKind, String)>,
    #[cfg(test)]
    waiting: usize,
}

impl SharedSync {
    /// Returns when a round that began after this call has ended, with that round's result.
    fn run(&self, sync: impl FnOnce() -> io::Result<()>) -> Result<(), (io::ErrorKind, String)> {
        let mut rounds = lock(&self.rounds);
        let mine = rounds.begun + 1;
        while rounds.ended < mine && rounds.ended < rounds.begun {
            #[cfg(test)]
            {
                rounds.waiting += 1;
            }
            rounds = self.changed.wait(rounds).unwrap_or_else(PoisonError::into_inner);
        }
        if rounds.ended < mine {
            rounds.begun = mine;
            drop(rounds);
            let result = sync();
            rounds = lock(&self.rounds);
            rounds.ended = mine;
            if let Err(error) = result
                && rounds.failed.is_none()
            {
                rounds.failed = Some((mine, error.kind(), error.to_string()));
            }
            self.changed.notify_all();
        }
        match &rounds.failed {
            Some((round, kind, reason)) if mine >= *round => Err((*kind, reason.clone())),
            _ => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn index(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::mpsc;
    use std::thread;
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn callers_at_the_same_time_share_a_sync_and_its_failure() {
        let shared = SharedSync::default();
        let syncs = &AtomicU64::new(0);
        thread::scope(|scope| {
            let (begun, has_begun) = mpsc::channel();
            let (go, may_go) = mpsc::channel::<()>();
            let shared = &shared;
            let first = scope.spawn(move || {
                shared.run(|| {
                    begun.send(()).unwrap();
                    may_go.recv().unwrap();
                    Ok(())
                })
            });
            has_begun.recv().unwrap();
            let fail = || {
                syncs.fetch_add(1, Ordering::Relaxed);
                Err(io::Error::other("broken"))
            };
            let late: Vec<_> = (0..8).map(|_| scope.spawn(move || shared.run(fail))).collect();
            let deadline = Instant::now() + Duration::from_secs(60);
            while lock(&shared.rounds).waiting < late.len() {
                assert!(Instant::now() < deadline, "callers did not come");
                thread::yield_now();
            }
            go.send(()).unwrap();
            assert_eq!(first.join().unwrap(), Ok(()), "its own sync went well");
            for caller in late {
                assert_eq!(caller.join().unwrap().unwrap_err().1, "broken");
            }
        });
        assert_eq!(syncs.load(Ordering::Relaxed), 1, "one for all who waited");
        assert!(shared.run(|| Ok(())).is_err(), "a later success heals nothing");
    }

    #[test]
    fn folder_names_are_four_digits() {
        assert_eq!(folder_number("00ff"), Some(255));
        for foreign in ["", "0", "00fff", "00FF", "+0ff", "tmp0"] {
            assert_eq!(folder_number(foreign), None, "{foreign}");
        }
    }
}

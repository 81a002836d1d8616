//! Opening a spool: its lock, its format, its epoch, and the names of all that is in it.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gantry_protocol::id::Epoch;
use gantry_protocol::pool::{MailboxIndex, Shelf, Shelved};

use super::calendar::Calendar;
use super::folders::{Folders, folder_number};
use super::index::Index;
use super::name::FileName;
use super::record::FORMAT;
use super::room::Room;
use super::suspects::Suspects;
use super::volatile::VolatileStore;
use super::{
    AUDIT_FILE, CALENDAR_FILE, CONTROL_SOCKET, EPOCH_FILE, FORMAT_FILE, HISTORY_FILE,
    HISTORY_FORMER_FILE, Health, LOCK_FILE, ORDERS_FILE, Opened, Options, Report, SUSPECTS_FILE,
    Spool, SpoolError, VOLATILE_FOLDER,
};
use crate::disk::{Disk, DiskFile};

/// What the format file says before its number.
const FORMAT_WORDS: &str = "gantry-spool ";
/// The small files of the spool hold one line.
const SMALL_FILE_BYTES_MAX: usize = 64;
/// The end of a file that is going to replace another.
const NEW: &str = ".new";

impl<D: Disk> Spool<D> {
    /// Opens the spool in the folder `root`, making it where it is missing: takes the lock, raises the epoch durably,
    /// removes what was never answered yes, and reads the names of all messages, but opens none.
    ///
    /// `mailboxes` are the mailboxes' names; [`MailboxIndex`] is their place in it.
    ///
    /// # Errors
    /// Another hook on the spool, a newer format (left untouched), a damaged file of the spool itself, a name that no
    /// folder can have, or the disk.
    pub fn open(
        disk: D,
        root: &Path,
        mailboxes: &[String],
        options: Options,
    ) -> Result<Opened<D>, SpoolError> {
        mailboxes.iter().try_for_each(|name| check_mailbox_name(name))?;
        make_folder(&disk, root)?;
        let known_format = read_format(&disk, root)?;
        let lock = disk.lock(&root.join(LOCK_FILE)).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => SpoolError::Locked { root: root.to_owned() },
            _ => SpoolError::io("lock spool", root)(error),
        })?;
        if known_format.is_none() {
            let line = format!("{FORMAT_WORDS}{FORMAT}\n");
            replace_file(&disk, &root.join(FORMAT_FILE), line.as_bytes())?;
        }
        empty_volatile_folder(&disk, root)?;

        let mut scan = Scan::default();
        for (index, name) in (0..=u16::MAX).zip(mailboxes) {
            scan.mailbox(&disk, MailboxIndex(index), root.join(name))?;
        }
        scan.root(&disk, root, mailboxes)?;
        let epoch = raise_epoch(&disk, root, scan.epoch_seen)?;
        let suspects = Suspects::open(&disk, root)?;
        let now = (options.clock)();
        let calendar = Calendar::open(&disk, root, now, &mut scan.reports)?;
        let volatile =
            VolatileStore::new(options.volatile_memory_bytes_max, options.volatile_disk_bytes_max);
        let spool = Spool {
            disk,
            root: root.to_owned(),
            options,
            epoch,
            counter: AtomicU64::new(0),
            folders: scan.folders,
            index: scan.index,
            volatile,
            suspects,
            room: scan.room,
            calendar,
            health: Health::default(),
            _lock: lock,
        };
        Ok(Opened { spool: Arc::new(spool), found: scan.found, reports: scan.reports, epoch })
    }
}

/// What has been found so far.
#[derive(Default)]
struct Scan {
    folders: Folders,
    index: Index,
    room: Room,
    found: BTreeMap<(MailboxIndex, Shelf), Shelved>,
    reports: Vec<Report>,
    /// The highest epoch in any name.
    epoch_seen: Epoch,
}

impl Scan {
    fn mailbox<D: Disk>(
        &mut self,
        disk: &D,
        mailbox: MailboxIndex,
        path: PathBuf,
    ) -> Result<(), SpoolError> {
        make_folder(disk, &path)?;
        self.folders.add_mailbox(path.clone());
        let mut entries = disk.read_dir(&path).map_err(SpoolError::io("read folder", &path))?;
        entries.sort_unstable();
        for entry in entries {
            let folder = path.join(&entry.name);
            match folder_number(&entry.name).filter(|_| entry.is_dir) {
                Some(number) => self.folder(disk, mailbox, folder, number)?,
                None => self.report(folder, "is no folder of messages"),
            }
        }
        // What is seen may have been named just before a crash; what is built on it must find it again.
        disk.sync_dir(&path).map_err(SpoolError::sync(&path))
    }

    fn folder<D: Disk>(
        &mut self,
        disk: &D,
        mailbox: MailboxIndex,
        path: PathBuf,
        number: u32,
    ) -> Result<(), SpoolError> {
        let entries = disk.read_dir(&path).map_err(SpoolError::io("read folder", &path))?;
        let files = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let folder = self.folders.add(mailbox, path.clone(), number, files);
        let mut names = Vec::with_capacity(entries.len());
        for entry in entries {
            let name = entry.name.parse::<FileName>().ok().filter(|_| !entry.is_dir);
            let file = || path.join(&entry.name);
            match name {
                Some(FileName::Message(name)) => names.push(name),
                Some(FileName::Bad(id)) => {
                    self.epoch_seen = self.epoch_seen.max(id.epoch);
                    self.report(file(), "is a damaged message that was set aside");
                }
                Some(FileName::Temporary(_)) => {
                    let file = file();
                    disk.remove(&file)
                        .map_err(SpoolError::io("remove unfinished message", &file))?;
                    self.folders.give_back(folder);
                }
                None => self.report(file(), "is no message"),
            }
        }
        // In the order of ids the index takes the least time and room.
        names.sort_unstable();
        for name in names {
            if self.index.insert(&name, folder, true) {
                self.room.add(name.state, name.length);
                self.epoch_seen = self.epoch_seen.max(name.id.epoch);
                let shelf = (mailbox, Shelf::of(name.state));
                self.found.entry(shelf).or_default().add(name.length);
            } else {
                let file = path.join(name.to_string());
                self.report(file, "has the id of another message, which is used");
            }
        }
        disk.sync_dir(&path).map_err(SpoolError::sync(&path))
    }

    /// Names beside the mailboxes.
    fn root<D: Disk>(
        &mut self,
        disk: &D,
        root: &Path,
        mailboxes: &[String],
    ) -> Result<(), SpoolError> {
        let mut entries = disk.read_dir(root).map_err(SpoolError::io("read folder", root))?;
        entries.sort_unstable();
        for entry in entries {
            if !is_own(&entry.name) && !mailboxes.contains(&entry.name) {
                self.report(root.join(&entry.name), "is no mailbox of the configuration");
            }
        }
        Ok(())
    }

    fn report(&mut self, path: PathBuf, what: &str) {
        self.reports.push(Report { path, what: format!("{what}; it is left alone") });
    }
}

/// Names in the spool that no mailbox can have.
const OWN_NAMES: [&str; 11] = [
    CALENDAR_FILE,
    LOCK_FILE,
    FORMAT_FILE,
    EPOCH_FILE,
    SUSPECTS_FILE,
    VOLATILE_FOLDER,
    CONTROL_SOCKET,
    ORDERS_FILE,
    HISTORY_FILE,
    HISTORY_FORMER_FILE,
    crate::intake::mark::MARK_SOCKET,
];

/// Whether the spool has something of its own under this name: those, and the audit log with its older parts.
pub(crate) fn is_own(name: &str) -> bool {
    OWN_NAMES.contains(&name.trim_end_matches(NEW)) || name.starts_with(AUDIT_FILE)
}

/// Makes `bytes` the content of a file, durably: after a crash it has either its old or its new content.
pub(crate) fn replace_file<D: Disk>(disk: &D, path: &Path, bytes: &[u8]) -> Result<(), SpoolError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let mut new = path.as_os_str().to_owned();
    new.push(NEW);
    let new = PathBuf::from(new);
    let io = || SpoolError::io("write", &new);
    match disk.remove(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(io()(error)),
        _ => {}
    }
    let file = disk.create_new(&new).map_err(io())?;
    file.write_all_at(bytes, 0).map_err(io())?;
    file.sync().map_err(SpoolError::sync(&new))?;
    disk.rename(&new, path).map_err(io())?;
    disk.sync_dir(folder).map_err(SpoolError::sync(folder))
}

/// The format, or `None` in a spool that is new. Nothing is touched before it is known.
fn read_format<D: Disk>(disk: &D, root: &Path) -> Result<Option<u32>, SpoolError> {
    let path = root.join(FORMAT_FILE);
    let Some(line) = read_line(disk, root, &path)? else { return Ok(None) };
    let found = line.strip_prefix(FORMAT_WORDS).and_then(|number| number.parse().ok());
    match found {
        Some(found) if found > FORMAT => {
            Err(SpoolError::NewerFormat { root: root.to_owned(), path, found, known: FORMAT })
        }
        Some(found) => Ok(Some(found)),
        None => {
            let reason = format!("it should say \"{FORMAT_WORDS}{FORMAT}\" and says {line:?}");
            Err(SpoolError::Damaged { root: root.to_owned(), path, reason })
        }
    }
}

/// Counts this start. `seen` is the highest epoch that a message's name tells, in case the file was lost.
fn raise_epoch<D: Disk>(disk: &D, root: &Path, seen: Epoch) -> Result<Epoch, SpoolError> {
    let path = root.join(EPOCH_FILE);
    let damaged =
        |reason: String| SpoolError::Damaged { root: root.to_owned(), path: path.clone(), reason };
    let last: Epoch = match read_line(disk, root, &path)? {
        None => 0,
        Some(line) => line.parse().map_err(|_| {
            damaged(format!(
                "it should hold the number of the last start and says {line:?}; write a number there that is higher \
                 than that of any start before"
            ))
        })?,
    };
    let epoch = last.max(seen).checked_add(1);
    let epoch = epoch.ok_or_else(|| damaged("there is no higher number".to_owned()))?;
    replace_file(disk, &path, format!("{epoch}\n").as_bytes())?;
    Ok(epoch)
}

/// The line that a small file holds, or `None` where there is no file.
pub(super) fn read_line<D: Disk>(
    disk: &D,
    root: &Path,
    path: &Path,
) -> Result<Option<String>, SpoolError> {
    let io = || SpoolError::io("read", path);
    let file = match disk.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(io())?,
    };
    let mut bytes = [0; SMALL_FILE_BYTES_MAX];
    let count = file.read_full_at(&mut bytes, 0).map_err(io())?;
    let text = bytes.get(..count).and_then(|bytes| std::str::from_utf8(bytes).ok());
    let line = text.and_then(|text| text.strip_suffix('\n')).map(str::to_owned);
    line.map(Some).ok_or_else(|| SpoolError::Damaged {
        root: root.to_owned(),
        path: path.to_owned(),
        reason: "it should hold one short line".to_owned(),
    })
}

/// Makes a folder, durably. One that is there may have been made just before a crash, so its name is synced too.
fn make_folder<D: Disk>(disk: &D, path: &Path) -> Result<(), SpoolError> {
    let made = disk.create_dir(path);
    // On a read-only disk the question is only whether it is there.
    let was_there = made.is_err() && disk.read_dir(path).is_ok();
    if !was_there {
        made.map_err(SpoolError::io("make folder", path))?;
    }
    let parent = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    match disk.sync_dir(parent) {
        // The administrator made it, where the hook may not even look.
        Err(error) if was_there && error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        result => result.map_err(SpoolError::sync(parent)),
    }
}

/// What a hook that died between making and removing left there.
fn empty_volatile_folder<D: Disk>(disk: &D, root: &Path) -> Result<(), SpoolError> {
    let folder = root.join(VOLATILE_FOLDER);
    make_folder(disk, &folder)?;
    for entry in disk.read_dir(&folder).map_err(SpoolError::io("read folder", &folder))? {
        let path = folder.join(entry.name);
        disk.remove(&path).map_err(SpoolError::io("remove unfinished message", &path))?;
    }
    Ok(())
}

/// A mailbox's name becomes a folder's.
fn check_mailbox_name(name: &str) -> Result<(), SpoolError> {
    let reason = if name.is_empty() || name.starts_with('.') {
        "it is empty or begins with a dot"
    } else if name.contains(['/', '\\', '\0']) {
        "it has a character that separates folders"
    } else if is_own(name) {
        "the spool has a file of that name"
    } else {
        return Ok(());
    };
    Err(SpoolError::MailboxName { name: name.to_owned(), reason })
}

//! A spool full of waiting messages, made by the spool's own code on a disk that syncs nothing: a million within a minute.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use gantry_hook::disk::{DirEntry, Disk, DiskFile, RealDisk, RealFile, RealLock};
use gantry_hook::spool::{Now, Options, RoomLimits, Spool};
use gantry_mail::{Envelope, Recipient};
use gantry_protocol::pool::MailboxIndex;
use gantry_protocol::time::Moment;

/// Writers at once.
const THREADS: usize = 4;

/// Fills the spool at `root` with so many messages that wait in this mailbox, as `write` writes them. No hook runs on it.
pub fn fill(root: &Path, mailbox: &str, count: usize, write: impl Fn(&mut Vec<u8>) + Sync) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let unix_ms = u64::try_from(now.as_millis()).unwrap();
    let options = Options {
        volatile_memory_bytes_max: 0,
        volatile_disk_bytes_max: 0,
        room: RoomLimits::default(),
        host: "mx1".to_owned(),
        clock: Arc::new(move || Now { moment: Moment(unix_ms), unix_ms }),
    };
    let opened = Spool::open(Hasty(RealDisk), root, &[mailbox.to_owned()], options);
    let spool = opened.expect("open the spool").spool;
    let recipient =
        Recipient { address: "somebody@recipient.example".to_owned(), ..Recipient::default() };
    let envelope = Envelope {
        sender: "bench@sender.example".to_owned(),
        recipients: vec![recipient],
        ..Envelope::default()
    };
    let store = |share: usize| {
        let mut letter = Vec::new();
        for _ in 0..share {
            write(&mut letter);
            let incoming = spool.begin(spool.allocate(), MailboxIndex(0), &envelope, unix_ms);
            let mut incoming = incoming.expect("begin a message");
            incoming.write(&letter).expect("write a message");
            incoming.finish().expect("store a message");
        }
    };
    let store = &store;
    thread::scope(|scope| {
        for number in 0..THREADS {
            let share = count / THREADS + usize::from(number < count % THREADS);
            scope.spawn(move || store(share));
        }
    });
}

/// The machine's disk without its promises.
struct Hasty(RealDisk);

struct HastyFile(RealFile);

impl Disk for Hasty {
    type File = HastyFile;
    type Lock = RealLock;

    fn create_new(&self, path: &Path) -> io::Result<HastyFile> {
        self.0.create_new(path).map(HastyFile)
    }

    fn open(&self, path: &Path) -> io::Result<HastyFile> {
        self.0.open(path).map(HastyFile)
    }

    fn open_for_write(&self, path: &Path) -> io::Result<HastyFile> {
        self.0.open_for_write(path).map(HastyFile)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.0.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.0.create_dir(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.0.read_dir(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.0.free_bytes(path)
    }

    fn lock(&self, path: &Path) -> io::Result<RealLock> {
        self.0.lock(path)
    }
}

impl DiskFile for HastyFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.0.set_length(length)
    }

    fn length(&self) -> io::Result<u64> {
        self.0.length()
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

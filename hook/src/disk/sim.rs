//! A disk in memory that crashes where it is told to.
//!
//! It keeps two images: the live one, which reads see, and the durable one, which a crash leaves. Bytes pass to the
//! durable image when their file is synced, names when their folder is. What was not synced survives a crash wholly,
//! in pieces or not at all, by a random choice from the seed: the same seed and the same operations give the same
//! disk. Operations that change something are numbered from one, and a crash or a fault is asked for by number.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{DirEntry, Disk, DiskFile};

/// Unsynced writes survive or vanish in pieces of this size: smaller than any sector, so that every record can tear.
const TORN_PIECE_BYTES: usize = 16;

/// A disk in memory; clones are the same disk. See the [module](self).
#[derive(Clone)]
pub struct SimDisk(Arc<Mutex<State>>);

/// What an operation fails with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No room: a write leaves any part of its bytes. Removing and syncing need none and go on.
    Full,
    /// Read-only: everything but reading and syncing fails.
    ReadOnly,
    /// The medium fails. After a failed sync what was not durable before will never be, whatever later syncs say.
    Io,
}

impl SimDisk {
    /// An empty disk. All its random choices come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            random: Random(seed),
            generation: 0,
            operations: 0,
            crashed: false,
            crash_at: None,
            faults: BTreeMap::new(),
            free_bytes: None,
            failing: None,
            locks: BTreeSet::new(),
            root: Arc::default(),
        })))
    }

    /// How many operations have changed, or tried to change, something.
    pub fn operations(&self) -> u64 {
        self.state().operations
    }

    /// Crashes at the operation of this number: it happens partly or not at all, and everything fails until
    /// [`Self::restart`].
    pub fn crash_at(&self, operation: u64) {
        self.state().crash_at = Some(operation);
    }

    /// Crashes now, between two operations.
    pub fn crash(&self) {
        self.state().crashed = true;
    }

    pub fn is_crashed(&self) -> bool {
        self.state().crashed
    }

    /// The machine after a crash (or a power cut now): only what survived is there, files opened before fail, locks
    /// are gone, and neither faults nor a crash are planned any more.
    pub fn restart(&self) {
        let mut state = self.state();
        let state = &mut *state;
        state.forget_process();
        lock(&state.root).survive(&mut state.random);
    }

    /// The process after it died alone (its crash was its own, or it was killed now): the machine still has all that was
    /// written, synced or not. Files opened before fail, locks are gone, and nothing is planned any more.
    pub fn restart_process(&self) {
        self.state().forget_process();
    }

    /// Fails the operation of this number, once.
    pub fn fail_at(&self, operation: u64, fault: Fault) {
        self.state().faults.insert(operation, fault);
    }

    /// Fails every operation from now on; `None` ends it.
    pub fn fail_from_now(&self, fault: Option<Fault>) {
        self.state().failing = fault;
    }

    /// Makes it a disk on which so many bytes are free: files that grow take of them, and give them back when they
    /// shrink or lose their name. `None` makes it endless again.
    pub fn set_free_bytes(&self, free_bytes: Option<u64>) {
        self.state().free_bytes = free_bytes;
    }

    /// Changes a file behind everybody's back, in both images.
    pub fn damage(&self, path: &Path, change: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let file = self.state().file(path)?;
        let mut file = lock(&file);
        change(&mut file.live);
        file.durable = file.live.clone();
        file.pending.clear();
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.0)
    }

    fn change_names(
        &self,
        path: &Path,
        naming: impl FnOnce(&Folder) -> io::Result<Naming>,
    ) -> io::Result<()> {
        let mut state = self.state();
        let (folder, _) = state.parent(path)?;
        let mut folder = lock(&folder);
        let naming = naming(&folder)?;
        let kind =
            if matches!(naming, Naming::Remove { .. }) { Kind::Remove } else { Kind::Change };
        let step = state.step(kind)?;
        if step.happens() {
            let bytes = folder.bytes();
            naming.apply(&mut folder.live);
            state.took(bytes, folder.bytes());
            folder.pending.push(naming);
        }
        step.end()
    }
}

impl Disk for SimDisk {
    type File = SimFile;
    type Lock = SimLock;

    fn create_new(&self, path: &Path) -> io::Result<SimFile> {
        let image: Arc<Mutex<Content>> = Arc::default();
        let node = Node::File(Arc::clone(&image));
        self.change_names(path, |folder| folder.make(path, node))?;
        Ok(SimFile { disk: self.clone(), generation: self.state().generation, image })
    }

    fn open(&self, path: &Path) -> io::Result<SimFile> {
        let state = self.state();
        let image = state.file(path)?;
        Ok(SimFile { disk: self.clone(), generation: state.generation, image })
    }

    fn open_for_write(&self, path: &Path) -> io::Result<SimFile> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if from.parent() != to.parent() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the seam renames within one folder",
            ));
        }
        self.change_names(from, |folder| {
            let node = folder.live.get(&file_name(from)?).ok_or_else(missing)?.clone();
            Ok(Naming::Rename { node, to: file_name(to)? })
        })
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.change_names(path, |folder| {
            let node = folder.live.get(&file_name(path)?).ok_or_else(missing)?.clone();
            Ok(Naming::Remove { node })
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.change_names(path, |folder| folder.make(path, Node::Folder(Arc::default())))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let folder = self.state().folder(path)?;
        let folder = lock(&folder);
        let entry = |(name, node): (&String, &Node)| DirEntry {
            name: name.clone(),
            is_dir: matches!(node, Node::Folder(_)),
        };
        Ok(folder.live.iter().map(entry).collect())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        let folder = state.folder(path)?;
        let step = state.step(Kind::Sync);
        let mut folder = lock(&folder);
        match step {
            Ok(Step::Happens) => folder.durable = folder.live.clone(),
            Ok(step) => return step.end(),
            Err(error) => {
                folder.pending.clear();
                return Err(error);
            }
        }
        folder.pending.clear();
        Ok(())
    }

    fn free_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.state().free_bytes.unwrap_or(u64::MAX))
    }

    fn lock(&self, path: &Path) -> io::Result<SimLock> {
        match self.create_new(path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        let mut state = self.state();
        if !state.locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(SimLock { disk: self.clone(), generation: state.generation, path: path.to_owned() })
    }
}

/// A file of [`SimDisk`]. Fails after a restart.
pub struct SimFile {
    disk: SimDisk,
    generation: u64,
    image: Arc<Mutex<Content>>,
}

impl SimFile {
    fn state(&self) -> io::Result<MutexGuard<'_, State>> {
        let state = self.disk.state();
        if state.crashed || state.generation != self.generation {
            return Err(crashed());
        }
        Ok(state)
    }

    fn change(&self, write: Write) -> io::Result<()> {
        let mut state = self.state()?;
        let mut image = lock(&self.image);
        let before = image.live.len();
        let fits = state.fits(before, write.length_after(before));
        let step = match state.step(Kind::Change).and_then(|step| fits.map(|()| step)) {
            Err(error) => {
                // A disk that fills up in the middle of a write leaves the bytes that still fitted.
                if let Write::Bytes { offset, mut bytes } = write {
                    bytes.truncate(state.random.below(bytes.len() + 1));
                    let write = Write::Bytes { offset, bytes };
                    if state.fits(before, write.length_after(before)).is_ok() {
                        state.took(before, write.length_after(before));
                        image.push(write);
                    }
                }
                return Err(error);
            }
            Ok(step) => step,
        };
        if step.happens() {
            state.took(before, write.length_after(before));
            image.push(write);
        }
        step.end()
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        let _state = self.state()?;
        let image = lock(&self.image);
        let bytes = usize::try_from(offset)
            .ok()
            .and_then(|offset| image.live.get(offset..))
            .unwrap_or_default();
        let count = bytes.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(bytes) {
            *to = *from;
        }
        Ok(count)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Write::Bytes { offset: size(offset)?, bytes: bytes.to_vec() })
    }

    fn set_length(&self, length: u64) -> io::Result<()> {
        self.change(Write::Length(size(length)?))
    }

    fn length(&self) -> io::Result<u64> {
        let _state = self.state()?;
        Ok(lock(&self.image).live.len() as u64)
    }

    fn sync(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let step = state.step(Kind::Sync);
        let mut image = lock(&self.image);
        match step {
            Ok(Step::Happens) => image.durable = image.live.clone(),
            Ok(step) => return step.end(),
            Err(error) => {
                image.pending.clear();
                return Err(error);
            }
        }
        image.pending.clear();
        Ok(())
    }
}

/// A lock of [`SimDisk`].
pub struct SimLock {
    disk: SimDisk,
    generation: u64,
    path: PathBuf,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state();
        if state.generation == self.generation {
            state.locks.remove(&self.path);
        }
    }
}

struct State {
    random: Random,
    /// Counts restarts, so that a file of an earlier life is known.
    generation: u64,
    operations: u64,
    crashed: bool,
    crash_at: Option<u64>,
    faults: BTreeMap<u64, Fault>,
    failing: Option<Fault>,
    /// What is free, where that is bounded.
    free_bytes: Option<u64>,
    locks: BTreeSet<PathBuf>,
    root: Arc<Mutex<Folder>>,
}

/// What kind of operation it is, for the faults that spare some.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Change,
    Remove,
    Sync,
}

/// What becomes of one operation.
enum Step {
    Happens,
    /// The machine crashes in it, before or after it took effect on the live image.
    Crashes {
        happens: bool,
    },
}

impl Step {
    fn happens(&self) -> bool {
        matches!(self, Step::Happens | Step::Crashes { happens: true })
    }

    fn end(self) -> io::Result<()> {
        match self {
            Step::Happens => Ok(()),
            Step::Crashes { .. } => Err(crashed()),
        }
    }
}

impl State {
    fn forget_process(&mut self) {
        self.generation += 1;
        self.crashed = false;
        self.crash_at = None;
        self.faults.clear();
        self.failing = None;
        self.locks.clear();
    }

    fn step(&mut self, kind: Kind) -> io::Result<Step> {
        if self.crashed {
            return Err(crashed());
        }
        self.operations += 1;
        if self.crash_at == Some(self.operations) {
            self.crashed = true;
            return Ok(Step::Crashes { happens: kind != Kind::Sync && self.random.coin() });
        }
        let fault = self.faults.remove(&self.operations).or(self.failing);
        match (fault, kind) {
            (None, _)
            | (Some(Fault::Full), Kind::Remove | Kind::Sync)
            | (Some(Fault::ReadOnly), Kind::Sync) => Ok(Step::Happens),
            (Some(Fault::Full), _) => Err(io::ErrorKind::StorageFull.into()),
            (Some(Fault::ReadOnly), _) => Err(io::ErrorKind::ReadOnlyFilesystem.into()),
            (Some(Fault::Io), _) => Err(io::Error::other("the simulated disk failed")),
        }
    }

    /// Whether a file may become so long.
    fn fits(&self, before: usize, after: usize) -> io::Result<()> {
        let growth = after.saturating_sub(before) as u64;
        match self.free_bytes.is_none_or(|free| growth <= free) {
            true => Ok(()),
            false => Err(io::ErrorKind::StorageFull.into()),
        }
    }

    /// A file has become longer or shorter.
    fn took(&mut self, before: usize, after: usize) {
        if let Some(free) = &mut self.free_bytes {
            let grown = after.saturating_sub(before) as u64;
            *free = free.saturating_sub(grown) + before.saturating_sub(after) as u64;
        }
    }

    fn folder(&self, path: &Path) -> io::Result<Arc<Mutex<Folder>>> {
        if self.crashed {
            return Err(crashed());
        }
        let mut folder = Arc::clone(&self.root);
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let next = lock(&folder).live.get(name.to_string_lossy().as_ref()).cloned();
            match next {
                Some(Node::Folder(next)) => folder = next,
                Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                None => return Err(missing()),
            }
        }
        Ok(folder)
    }

    fn parent(&self, path: &Path) -> io::Result<(Arc<Mutex<Folder>>, String)> {
        let folder = self.folder(path.parent().unwrap_or(Path::new("")))?;
        Ok((folder, file_name(path)?))
    }

    fn file(&self, path: &Path) -> io::Result<Arc<Mutex<Content>>> {
        let (folder, name) = self.parent(path)?;
        let node = lock(&folder).live.get(&name).cloned();
        match node {
            Some(Node::File(file)) => Ok(file),
            Some(Node::Folder(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(missing()),
        }
    }
}

#[derive(Clone)]
enum Node {
    File(Arc<Mutex<Content>>),
    Folder(Arc<Mutex<Folder>>),
}

impl Node {
    fn is(&self, other: &Node) -> bool {
        match (self, other) {
            (Node::File(one), Node::File(other)) => Arc::ptr_eq(one, other),
            (Node::Folder(one), Node::Folder(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

#[derive(Default)]
struct Folder {
    live: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    pending: Vec<Naming>,
}

/// A change of names, told by the file and not by its old name, so that those of one file can survive while those of
/// another vanish.
#[derive(Clone)]
enum Naming {
    Make { node: Node, name: String },
    Rename { node: Node, to: String },
    Remove { node: Node },
}

impl Naming {
    fn node(&self) -> &Node {
        match self {
            Naming::Make { node, .. } | Naming::Rename { node, .. } | Naming::Remove { node } => {
                node
            }
        }
    }

    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        names.retain(|_, other| !other.is(self.node()));
        if let Naming::Make { node, name } | Naming::Rename { node, to: name } = self {
            names.insert(name.clone(), node.clone());
        }
    }
}

impl Folder {
    /// Bytes of the files in it.
    fn bytes(&self) -> usize {
        let files = self.live.values().filter_map(|node| match node {
            Node::File(file) => Some(lock(file).live.len()),
            Node::Folder(_) => None,
        });
        files.sum()
    }

    fn make(&self, path: &Path, node: Node) -> io::Result<Naming> {
        let name = file_name(path)?;
        if self.live.contains_key(&name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(Naming::Make { node, name })
    }

    /// Of the unsynced changes of each file, any number from the first on survives; files do not wait for each other.
    fn survive(&mut self, random: &mut Random) {
        let pending = std::mem::take(&mut self.pending);
        let mut kept: Vec<(Node, usize)> = Vec::new();
        for naming in &pending {
            if !kept.iter().any(|(node, _)| node.is(naming.node())) {
                let changes = pending.iter().filter(|other| other.node().is(naming.node())).count();
                kept.push((naming.node().clone(), random.below(changes + 1)));
            }
        }
        for naming in &pending {
            if let Some((_, left)) =
                kept.iter_mut().find(|(node, left)| node.is(naming.node()) && *left > 0)
            {
                *left -= 1;
                naming.apply(&mut self.durable);
            }
        }
        self.live = self.durable.clone();
        for node in self.live.values() {
            match node {
                Node::File(file) => lock(file).survive(random),
                Node::Folder(folder) => lock(folder).survive(random),
            }
        }
    }
}

#[derive(Default)]
struct Content {
    live: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Write>,
}

enum Write {
    Bytes { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Write {
    /// The length of a file of this length after it.
    fn length_after(&self, before: usize) -> usize {
        match self {
            Write::Bytes { offset, bytes } => before.max(offset + bytes.len()),
            Write::Length(length) => *length,
        }
    }

    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Write::Bytes { offset, bytes } => put(image, *offset, bytes),
            Write::Length(length) => image.resize(*length, 0),
        }
    }
}

impl Content {
    fn push(&mut self, write: Write) {
        write.apply(&mut self.live);
        self.pending.push(write);
    }

    fn survive(&mut self, random: &mut Random) {
        for write in std::mem::take(&mut self.pending) {
            match (random.below(3), &write) {
                (0, _) => {}
                (1, Write::Bytes { offset, bytes }) => {
                    // Lengths reach the disk before bytes do: a hole reads as zeros.
                    let end = offset + bytes.len();
                    if self.durable.len() < end {
                        self.durable.resize(end, 0);
                    }
                    for (index, piece) in bytes.chunks(TORN_PIECE_BYTES).enumerate() {
                        if random.coin() {
                            put(&mut self.durable, offset + index * TORN_PIECE_BYTES, piece);
                        }
                    }
                }
                _ => write.apply(&mut self.durable),
            }
        }
        self.live = self.durable.clone();
    }
}

fn put(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if image.len() < end {
        image.resize(end, 0);
    }
    for (to, from) in image.iter_mut().skip(offset).zip(bytes) {
        *to = *from;
    }
}

/// SplitMix64: enough chance for a disk, and the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// Below `bound`, which is not zero.
    fn below(&mut self, bound: usize) -> usize {
        let bound = u64::try_from(bound).unwrap_or(u64::MAX).max(1);
        usize::try_from(self.next() % bound).unwrap_or(0)
    }

    fn coin(&mut self) -> bool {
        self.next() & 1 == 1
    }
}

/// A panic of one test thread must not hide what another one found.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn file_name(path: &Path) -> io::Result<String> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    Ok(name.to_string_lossy().into_owned())
}

fn size(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

fn crashed() -> io::Error {
    io::Error::other("the simulated machine has crashed")
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests fail by panicking")]
mod tests {
    use super::*;

    fn read(disk: &SimDisk, path: &str) -> io::Result<Vec<u8>> {
        let file = disk.open(Path::new(path))?;
        let mut bytes = vec![0; usize::try_from(file.length()?).unwrap()];
        file.read_full_at(&mut bytes, 0)?;
        Ok(bytes)
    }

    #[test]
    fn only_what_was_synced_surely_survives() {
        let mut outcomes = BTreeSet::new();
        for seed in 0..64 {
            let disk = SimDisk::new(seed);
            let file = disk.create_new(Path::new("/a")).unwrap();
            file.write_all_at(b"synced", 0).unwrap();
            file.sync().unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            file.write_all_at(&[b'x'; 40], 6).unwrap();
            disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
            disk.restart();
            assert!(file.length().is_err(), "a file of the former life, seed {seed}");
            let content = read(&disk, "/a").or_else(|_| read(&disk, "/b")).unwrap();
            assert!(content.starts_with(b"synced"), "seed {seed}: {content:?}");
            assert!(
                read(&disk, "/a").is_err() || read(&disk, "/b").is_err(),
                "two names, seed {seed}"
            );
            outcomes.insert((read(&disk, "/a").is_ok(), content));
        }
        assert!(outcomes.len() > 6, "chance has too few ends: {}", outcomes.len());
    }

    #[test]
    fn a_seed_repeats_itself() {
        let run = |seed| {
            let disk = SimDisk::new(seed);
            let file = disk.create_new(Path::new("/a")).unwrap();
            disk.sync_dir(Path::new("/")).unwrap();
            file.write_all_at(&[1; 500], 0).unwrap();
            disk.restart();
            read(&disk, "/a").unwrap()
        };
        assert_eq!(run(7), run(7));
    }

    #[test]
    fn faults_come_when_asked_for() {
        let disk = SimDisk::new(1);
        disk.fail_at(2, Fault::Full);
        let file = disk.create_new(Path::new("/a")).unwrap();
        assert_eq!(file.write_all_at(b"abc", 0).unwrap_err().kind(), io::ErrorKind::StorageFull);
        file.write_all_at(b"abc", 0).unwrap();
        disk.fail_from_now(Some(Fault::Io));
        assert!(file.sync().is_err());
        disk.fail_from_now(None);
        file.sync().unwrap();
        assert_eq!(disk.operations(), 5);
        disk.crash_at(6);
        assert!(disk.create_new(Path::new("/b")).is_err());
        assert!(disk.is_crashed() && read(&disk, "/a").is_err());
    }

    #[test]
    fn what_a_failed_sync_lost_stays_lost() {
        let disk = SimDisk::new(1);
        let file = disk.create_new(Path::new("/a")).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        file.write_all_at(b"gone", 0).unwrap();
        disk.fail_at(disk.operations() + 1, Fault::Io);
        assert!(file.sync().is_err());
        assert_eq!(read(&disk, "/a").unwrap(), b"gone");
        disk.restart_process();
        assert_eq!(read(&disk, "/a").unwrap(), b"gone");
        disk.restart();
        assert_eq!(read(&disk, "/a").unwrap(), b"");
    }
}

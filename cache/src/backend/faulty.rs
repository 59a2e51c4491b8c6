//! A disk in memory that fails as disks do, for tests of this crate and of those above it.
//!
//! Every operation that changes something has a number. At a chosen number the power goes, the
//! disk is full, or it answers with an error; from a seed follows what of the unsynced survives.
//! [`Faulty::restart`] gives the disk as the next start would find it.
//!
//! It is as harsh as the promises of [`Backend`] allow, and harsher than any one file system:
//! unsynced writes survive in any combination and in parts, unsynced names likewise, a folder whose
//! own name was lost takes its files along, and what a failed sync was about stays in doubt even
//! when a later sync succeeds.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Backend, Lock, Open, StoreFile};

/// Bytes that reach a disk together or not at all.
const SECTOR_BYTES: usize = 512;

/// The granularity in which holes are told from data.
const BLOCK_BYTES: usize = 4096;

/// What goes wrong, and at which operation, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The power goes: the operation is lost or done in part, and every later one fails.
    PowerCut(u64),
    /// The operation fails with an I/O error. A sync leaves in doubt what it was about.
    Error(u64),
    /// From this operation on there is no room for a new byte or name.
    Full(u64),
    /// A write says that it succeeded and never happened.
    Lost(u64),
    /// A write says that it succeeded and happened in part.
    Torn(u64),
}

/// A faulty disk. Cheap to clone; all clones are the same disk.
#[derive(Clone)]
pub struct Faulty {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    files: BTreeMap<u64, Inode>,
    names: BTreeMap<PathBuf, Node>,
    names_durable: BTreeMap<PathBuf, Node>,
    /// Changes of names since `names_durable`, oldest first.
    name_changes: Vec<NameChange>,
    locks: BTreeSet<PathBuf>,
    faults: Vec<Fault>,
    operations: u64,
    power: Power,
    capacity_bytes: u64,
    random: Random,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Power {
    #[default]
    On,
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Folder,
    File(u64),
}

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// Waiting for a sync.
    Pending,
    Durable,
    /// A sync that was about it failed: no later one settles it.
    Doubtful,
}

struct NameChange {
    folder: PathBuf,
    /// What the names lead to from now on; `None` for a name that is gone.
    bindings: Vec<(PathBuf, Option<Node>)>,
    fate: Fate,
}

/// A file's bytes, whatever its names.
#[derive(Default)]
struct Inode {
    /// As a running process sees them.
    now: Vec<u8>,
    durable: Vec<u8>,
    /// Changes since `durable`, oldest first.
    changes: Vec<(Change, Fate)>,
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

/// What an operation does, as far as faults care.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Operation {
    /// It may need room.
    Grow,
    /// It never does.
    Other,
}

/// What becomes of an operation that is not refused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Course {
    Done,
    Lost,
    Torn,
    /// The power goes while it is under way.
    Cut,
    /// It is refused with an I/O error.
    Refused,
}

impl Default for Faulty {
    fn default() -> Self {
        Self::new()
    }
}

impl Faulty {
    /// Returns an empty disk of 1 GiB without faults.
    pub fn new() -> Self {
        let state = State { capacity_bytes: 1 << 30, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// Plans faults, in place of those planned before. Their numbers count from the disk's start.
    pub fn plan(&self, faults: &[Fault]) {
        self.lock_state().faults = faults.to_vec();
    }

    /// Sets how much the disk holds, in bytes of files.
    pub fn set_capacity(&self, bytes: u64) {
        self.lock_state().capacity_bytes = bytes;
    }

    /// Returns the number of the next operation.
    pub fn operations(&self) -> u64 {
        self.lock_state().operations
    }

    /// Returns the disk as the next start finds it if the power goes now: another disk, without
    /// faults, whose operations count from 0. The same seed gives the same disk. This one runs on.
    #[must_use]
    pub fn restart(&self, seed: u64) -> Self {
        let state = self.lock_state();
        let mut random = Random(seed);
        let names = state.surviving_names(&mut random);
        let mut files = BTreeMap::new();
        for node in names.values() {
            let Node::File(number) = *node else { continue };
            let bytes = state.files[&number].surviving(&mut random);
            let inode = Inode { now: bytes.clone(), durable: bytes, changes: Vec::new() };
            files.insert(number, inode);
        }
        let restarted = State {
            files,
            names_durable: names.clone(),
            names,
            capacity_bytes: state.capacity_bytes,
            random,
            ..State::default()
        };
        Self { state: Arc::new(Mutex::new(restarted)) }
    }

    /// Returns the paths of all files, in order.
    pub fn paths(&self) -> Vec<PathBuf> {
        let state = self.lock_state();
        let files = state.names.iter().filter(|(_, node)| matches!(node, Node::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Flips a bit of a file behind the store's back, durably.
    ///
    /// # Panics
    ///
    /// If there is no such file or byte.
    pub fn flip(&self, path: &Path, offset: usize) {
        let mut state = self.lock_state();
        let Some(Node::File(number)) = state.names.get(path).copied() else {
            panic!("no file at {}", path.display());
        };
        let inode = state.files.get_mut(&number).expect("a name leads to a file");
        inode.now[offset] ^= 1;
        if let Some(byte) = inode.durable.get_mut(offset) {
            *byte ^= 1;
        }
        for (change, _) in &mut inode.changes {
            if let Change::Write { offset: start, bytes } = change
                && let Some(byte) =
                    offset.checked_sub(*start as usize).and_then(|position| bytes.get_mut(position))
            {
                *byte ^= 1;
            }
        }
    }

    fn lock_state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock_state();
        f.debug_struct("Faulty")
            .field("operations", &state.operations)
            .field("power", &state.power)
            .finish_non_exhaustive()
    }
}

impl Backend for Faulty {
    fn open(&self, path: &Path, open: Open) -> io::Result<Box<dyn StoreFile>> {
        let mut state = self.lock_state();
        state.powered()?;
        let number = match (state.names.get(path).copied(), open) {
            (Some(Node::File(_)), Open::CreateNew) => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            (Some(Node::File(number)), _) => number,
            (Some(Node::Folder), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (None, Open::Read | Open::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, Open::Create | Open::CreateNew) => {
                state.parent_exists(path)?;
                let number = state.files.keys().next_back().map_or(0, |last| last + 1);
                state.files.insert(number, Inode::default());
                let made = vec![(path.to_owned(), Some(Node::File(number)))];
                state.change_names(Operation::Grow, made)?;
                number
            }
        };
        Ok(Box::new(FaultyFile { disk: self.clone(), number, open }))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.powered()?;
        match state.names.get(path) {
            Some(Node::Folder) => return Ok(()),
            Some(Node::File(_)) => return Err(io::ErrorKind::AlreadyExists.into()),
            None => state.parent_exists(path)?,
        }
        state.change_names(Operation::Grow, vec![(path.to_owned(), Some(Node::Folder))])
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>> {
        let state = self.lock_state();
        state.powered()?;
        if !path.as_os_str().is_empty() && state.names.get(path) != Some(&Node::Folder) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let within = state.names.keys().filter(|name| name.parent() == Some(path));
        let names = within.filter_map(|name| name.file_name()?.to_str());
        Ok(names.map(str::to_owned).collect())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.powered()?;
        let node = state.names.get(from).copied().ok_or(io::ErrorKind::NotFound)?;
        state.parent_exists(to)?;
        let (gone, made) = ((from.to_owned(), None), (to.to_owned(), Some(node)));
        if from.parent() == to.parent() {
            return state.change_names(Operation::Other, vec![gone, made]);
        }
        // Two folders, each with a fate of its own.
        state.change_names(Operation::Other, vec![made])?;
        state.change_names(Operation::Other, vec![gone])
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        state.powered()?;
        match state.names.get(path) {
            Some(Node::File(_)) => {
                state.change_names(Operation::Other, vec![(path.to_owned(), None)])
            }
            Some(Node::Folder) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.lock_state();
        let settled = state.sync_course()?;
        for change in &mut state.name_changes {
            if change.folder == path {
                settle(&mut change.fate, settled);
            }
        }
        state.fold_names();
        answer(settled)
    }

    fn sync_all(&self) -> io::Result<()> {
        let mut state = self.lock_state();
        let settled = state.sync_course()?;
        for change in &mut state.name_changes {
            settle(&mut change.fate, settled);
        }
        state.fold_names();
        for inode in state.files.values_mut() {
            inode.settle(settled);
        }
        answer(settled)
    }

    fn link(&self, _: &File, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>> {
        drop(self.open(path, Open::Create)?);
        let taken = self.lock_state().locks.insert(path.to_owned());
        let lock = || FaultyLock { disk: self.clone(), path: path.to_owned() };
        Ok(taken.then(|| Box::new(lock()) as Box<dyn Lock>))
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let state = self.lock_state();
        state.powered()?;
        Ok(state.capacity_bytes.saturating_sub(state.held_bytes()))
    }

    fn disk_path(&self) -> Option<&Path> {
        None
    }
}

impl State {
    fn powered(&self) -> io::Result<()> {
        match self.power {
            Power::On => Ok(()),
            Power::Off => Err(io::Error::other("the power is off")),
        }
    }

    /// Numbers an operation, and says what becomes of it.
    fn course(&mut self, operation: Operation) -> io::Result<Course> {
        self.powered()?;
        let number = self.operations;
        self.operations += 1;
        let mut course = Course::Done;
        for fault in &self.faults {
            match *fault {
                Fault::PowerCut(at) if at == number => {
                    self.power = Power::Off;
                    return Ok(Course::Cut);
                }
                Fault::Full(from) if from <= number && operation == Operation::Grow => {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                Fault::Error(at) if at == number => course = Course::Refused,
                Fault::Lost(at) if at == number => course = Course::Lost,
                Fault::Torn(at) if at == number => course = Course::Torn,
                _ => {}
            }
        }
        Ok(course)
    }

    /// Returns the fate of what a sync is about.
    fn sync_course(&mut self) -> io::Result<Fate> {
        match self.course(Operation::Other)? {
            Course::Done | Course::Lost | Course::Torn => Ok(Fate::Durable),
            Course::Cut => Ok(Fate::Pending),
            Course::Refused => Ok(Fate::Doubtful),
        }
    }

    fn change_names(
        &mut self,
        operation: Operation,
        bindings: Vec<(PathBuf, Option<Node>)>,
    ) -> io::Result<()> {
        let course = self.course(operation)?;
        if course == Course::Refused {
            return Err(disk_error());
        }
        for (path, node) in &bindings {
            match node {
                Some(node) => drop(self.names.insert(path.clone(), *node)),
                None => drop(self.names.remove(path)),
            }
        }
        let folder = bindings.first().and_then(|(path, _)| path.parent()).map(Path::to_owned);
        let folder = folder.unwrap_or_default();
        self.name_changes.push(NameChange { folder, bindings, fate: Fate::Pending });
        if course == Course::Cut { self.powered() } else { Ok(()) }
    }

    fn parent_exists(&self, path: &Path) -> io::Result<()> {
        let parent = path.parent().unwrap_or(Path::new(""));
        let there = parent.as_os_str().is_empty() || self.names.get(parent) == Some(&Node::Folder);
        if there { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn held_bytes(&self) -> u64 {
        let files = self.names.values().filter_map(|node| match node {
            Node::File(number) => self.files.get(number),
            Node::Folder => None,
        });
        files.map(|inode| inode.now.len() as u64).sum()
    }

    /// Takes over the durable changes that no undecided one precedes.
    fn fold_names(&mut self) {
        let decided =
            self.name_changes.iter().take_while(|change| change.fate == Fate::Durable).count();
        for change in self.name_changes.drain(..decided) {
            bind(&mut self.names_durable, &change.bindings);
        }
    }

    fn surviving_names(&self, random: &mut Random) -> BTreeMap<PathBuf, Node> {
        let mut names = self.names_durable.clone();
        let survival = Survival::draw(random);
        for change in &self.name_changes {
            if change.fate == Fate::Durable || survival.of_one(random) {
                bind(&mut names, &change.bindings);
            }
        }
        // What lies in a folder that was lost is lost with it.
        let all = names.clone();
        names.retain(|path, _| {
            path.ancestors()
                .skip(1)
                .filter(|above| !above.as_os_str().is_empty())
                .all(|above| all.get(above) == Some(&Node::Folder))
        });
        names
    }
}

impl Inode {
    fn settle(&mut self, settled: Fate) {
        for (_, fate) in &mut self.changes {
            settle(fate, settled);
        }
        let decided = self.changes.iter().take_while(|(_, fate)| *fate == Fate::Durable).count();
        for (change, _) in self.changes.drain(..decided) {
            change.apply(&mut self.durable);
        }
    }

    /// Does a change as the running process sees it, and remembers it until a sync.
    fn change(&mut self, change: Change) {
        change.apply(&mut self.now);
        self.changes.push((change, Fate::Pending));
    }

    fn surviving(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        let survival = Survival::draw(random);
        for (change, fate) in &self.changes {
            if *fate == Fate::Durable || survival.of_one(random) {
                change.apply(&mut bytes);
            } else if survival == Survival::Any {
                change.torn(random).iter().for_each(|part| part.apply(&mut bytes));
            }
        }
        bytes
    }
}

impl Change {
    fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::SetLen(len) => to.resize(*len as usize, 0),
            Self::Write { offset, bytes } => {
                let start = *offset as usize;
                let end = start + bytes.len();
                if to.len() < end {
                    to.resize(end, 0);
                }
                to[start..end].copy_from_slice(bytes);
            }
        }
    }

    /// Returns some of a write's sectors.
    fn torn(&self, random: &mut Random) -> Vec<Self> {
        let Self::Write { offset, bytes } = self else {
            return Vec::new();
        };
        let mut parts = Vec::new();
        let mut start = 0;
        while start < bytes.len() {
            let position = *offset as usize + start;
            let end = (start + SECTOR_BYTES - position % SECTOR_BYTES).min(bytes.len());
            if random.below(2) == 0 {
                parts
                    .push(Self::Write { offset: position as u64, bytes: bytes[start..end].into() });
            }
            start = end;
        }
        parts
    }
}

/// How much of the unsynced survives a power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Survival {
    All,
    None,
    /// Each change by itself: whole, in part or not.
    Any,
}

impl Survival {
    fn draw(random: &mut Random) -> Self {
        match random.below(4) {
            0 => Self::All,
            1 => Self::None,
            _ => Self::Any,
        }
    }

    fn of_one(self, random: &mut Random) -> bool {
        match self {
            Self::All => true,
            Self::None => false,
            Self::Any => random.below(2) == 0,
        }
    }
}

/// Says what a sync made of a change; one in doubt stays so.
fn settle(fate: &mut Fate, settled: Fate) {
    if *fate == Fate::Pending {
        *fate = settled;
    }
}

fn answer(settled: Fate) -> io::Result<()> {
    match settled {
        Fate::Durable => Ok(()),
        Fate::Pending => Err(io::Error::other("the power is off")),
        Fate::Doubtful => Err(disk_error()),
    }
}

fn disk_error() -> io::Error {
    io::Error::from_raw_os_error(rustix::io::Errno::IO.raw_os_error())
}

fn bind(names: &mut BTreeMap<PathBuf, Node>, bindings: &[(PathBuf, Option<Node>)]) {
    for (path, node) in bindings {
        match node {
            Some(node) => drop(names.insert(path.clone(), *node)),
            None => drop(names.remove(path)),
        }
    }
}

#[derive(Debug)]
struct FaultyLock {
    disk: Faulty,
    path: PathBuf,
}

impl Lock for FaultyLock {}

impl Drop for FaultyLock {
    fn drop(&mut self) {
        self.disk.lock_state().locks.remove(&self.path);
    }
}

struct FaultyFile {
    disk: Faulty,
    number: u64,
    open: Open,
}

impl FaultyFile {
    fn with<T>(&self, look: impl FnOnce(&[u8]) -> T) -> io::Result<T> {
        let state = self.disk.lock_state();
        state.powered()?;
        Ok(look(&state.files[&self.number].now))
    }

    fn change(&self, change: Change) -> io::Result<()> {
        if self.open == Open::Read {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        let mut guard = self.disk.lock_state();
        let state = &mut *guard;
        let len = state.files[&self.number].now.len() as u64;
        let end = match &change {
            Change::Write { offset, bytes } => offset + bytes.len() as u64,
            Change::SetLen(len) => *len,
        };
        let grows = end > len;
        let course = state.course(if grows { Operation::Grow } else { Operation::Other })?;
        if grows && state.held_bytes() + (end - len) > state.capacity_bytes {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = state.files.get_mut(&self.number).expect("an open file stays");
        match course {
            Course::Done | Course::Cut => inode.change(change),
            Course::Lost => {}
            Course::Torn => {
                for part in change.torn(&mut state.random) {
                    inode.change(part);
                }
            }
            Course::Refused => {
                for part in change.torn(&mut state.random) {
                    inode.change(part);
                }
                return Err(disk_error());
            }
        }
        state.powered()
    }
}

impl fmt::Debug for FaultyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyFile").field("number", &self.number).finish_non_exhaustive()
    }
}

impl StoreFile for FaultyFile {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|bytes| {
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            let count = rest.len().min(into.len());
            into[..count].copy_from_slice(&rest[..count]);
            count
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.change(Change::Write { offset, bytes: bytes.to_vec() })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.lock_state();
        let settled = state.sync_course()?;
        state.files.get_mut(&self.number).expect("an open file stays").settle(settled);
        answer(settled)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::SetLen(len))
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|bytes| bytes.len() as u64)
    }

    fn data_ranges(&self, within: Range<u64>) -> io::Result<Vec<Range<u64>>> {
        self.with(|bytes| {
            let mut ranges: Vec<Range<u64>> = Vec::new();
            let blocks = bytes.chunks(BLOCK_BYTES).zip((0u64..).step_by(BLOCK_BYTES));
            for (block, start) in blocks.filter(|(block, _)| block.iter().any(|byte| *byte != 0)) {
                let (start, end) =
                    (start.max(within.start), (start + block.len() as u64).min(within.end));
                match ranges.last_mut() {
                    Some(last) if last.end == start && start < end => last.end = end,
                    _ if start < end => ranges.push(start..end),
                    _ => {}
                }
            }
            ranges
        })
    }

    fn reflink_from(&self, _: &File) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn disk_file(&self) -> Option<&File> {
        None
    }
}

/// `SplitMix64`: small, seeded, and the same everywhere.
#[derive(Clone, Copy, Debug, Default)]
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

#[cfg(test)]
mod tests {
    use super::super::read_file;
    use super::*;

    const NAME: &str = "a";

    fn write(disk: &Faulty, name: &str, bytes: &[u8]) -> io::Result<Box<dyn StoreFile>> {
        let file = disk.open(Path::new(name), Open::Create)?;
        file.write_all_at(bytes, 0)?;
        Ok(file)
    }

    fn read(disk: &Faulty, name: &str) -> Option<Vec<u8>> {
        read_file(disk, Path::new(name), 1 << 20).ok()
    }

    #[test]
    fn what_was_synced_survives_every_seed_and_its_name_only_with_the_folder() {
        let disk = Faulty::new();
        write(&disk, NAME, &[7; 2000]).expect("written").sync_data().expect("synced");
        let survivors = |disk: &Faulty| {
            (0..40).filter_map(|seed| read(&disk.restart(seed), NAME)).collect::<Vec<_>>()
        };
        let before = survivors(&disk).len();
        assert!(0 < before && before < 40, "{before} of 40 have the name");
        assert!(survivors(&disk).iter().all(|bytes| *bytes == [7; 2000]));
    }

    #[test]
    fn an_unsynced_write_may_be_whole_torn_or_gone() {
        let disk = Faulty::new();
        let file = write(&disk, NAME, &[1; 4096]).expect("written");
        disk.sync_all().expect("synced");
        file.write_all_at(&[2; 4096], 0).expect("written");
        let images: BTreeSet<Vec<u8>> =
            (0..60).filter_map(|seed| read(&disk.restart(seed), NAME)).collect();
        assert!(images.contains(&vec![1; 4096]) && images.contains(&vec![2; 4096]));
        assert!(images.len() > 2, "some are torn");
        let of_whole_sectors = |image: &Vec<u8>| {
            image.chunks(SECTOR_BYTES).all(|sector| sector.iter().all(|byte| *byte == sector[0]))
        };
        assert!(images.iter().all(of_whole_sectors));
    }

    #[test]
    fn after_a_power_cut_nothing_works_until_the_restart() {
        let disk = Faulty::new();
        disk.plan(&[Fault::PowerCut(1)]);
        assert!(write(&disk, NAME, b"x").is_err());
        assert!(disk.read_dir(Path::new("")).is_err());
        assert!(write(&disk.restart(1), NAME, b"x").is_ok());
    }

    #[test]
    fn what_a_failed_sync_was_about_stays_in_doubt() {
        let disk = Faulty::new();
        let file = write(&disk, NAME, &[1; 512]).expect("written");
        disk.sync_all().expect("synced");
        file.write_all_at(&[2; 512], 0).expect("written");
        disk.plan(&[Fault::Error(disk.operations())]);
        assert!(file.sync_data().is_err());
        file.sync_data().expect("the second says that all is well");
        let old = (0..40).filter(|seed| read(&disk.restart(*seed), NAME) == Some(vec![1; 512]));
        assert!(old.count() > 0);
    }

    #[test]
    fn a_full_disk_still_renames_removes_and_overwrites() {
        let disk = Faulty::new();
        let file = write(&disk, NAME, &[1; 512]).expect("written");
        disk.plan(&[Fault::Full(0)]);
        let refused = file.write_all_at(&[2; 512], 512).map_err(|error| error.kind());
        assert_eq!(refused, Err(io::ErrorKind::StorageFull));
        file.write_all_at(&[3; 512], 0).expect("no new byte");
        disk.rename(Path::new(NAME), Path::new("b")).expect("no new name");
        disk.remove(Path::new("b")).expect("removed");
    }

    #[test]
    fn a_rename_within_a_folder_is_whole_or_not_at_all() {
        let disk = Faulty::new();
        write(&disk, NAME, b"old").expect("written");
        write(&disk, "new", b"new").expect("written");
        disk.sync_all().expect("synced");
        disk.rename(Path::new("new"), Path::new(NAME)).expect("renamed");
        for seed in 0..40 {
            let image = disk.restart(seed);
            let found = (read(&image, NAME), read(&image, "new"));
            let before = (Some(b"old".to_vec()), Some(b"new".to_vec()));
            assert!(found == before || found == (Some(b"new".to_vec()), None), "seed {seed}");
        }
    }

    #[test]
    fn a_lost_folder_takes_its_files_along() {
        let disk = Faulty::new();
        disk.create_dir(Path::new("d")).expect("made");
        write(&disk, "d/a", b"x").expect("written").sync_data().expect("synced");
        disk.sync_dir(Path::new("d")).expect("synced");
        let kept = (0..40).filter(|seed| read(&disk.restart(*seed), "d/a").is_some()).count();
        assert!(0 < kept && kept < 40);
        disk.sync_dir(Path::new("")).expect("synced");
        assert!((0..40).all(|seed| read(&disk.restart(seed), "d/a").is_some()));
    }

    #[test]
    fn a_lock_is_held_by_one_and_gone_after_a_restart() {
        let disk = Faulty::new();
        let held = disk.lock(Path::new("lock")).expect("asked");
        assert!(held.is_some());
        assert!(disk.lock(Path::new("lock")).expect("asked").is_none());
        assert!(disk.restart(0).lock(Path::new("lock")).expect("asked").is_some());
        drop(held);
        assert!(disk.lock(Path::new("lock")).expect("asked").is_some());
    }
}

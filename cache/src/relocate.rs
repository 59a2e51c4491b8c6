//! Moving a whole store to another folder, perhaps on another disk, without losing it on the way.
//!
//! The folder that the user knows keeps a `format` file that says where the store is now, so that
//! nothing else needs to be told. Replacing that file is the whole of the switch: before it the old
//! store is the store, after it the new one is.
//!
//! The order: mark the target, copy, sync, give the target its own format, switch, remove the old.
//! A move that was interrupted before the switch is begun again; one after it is finished by the
//! next start.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::backend::{Backend, Disk, Lock, Open, StoreFile, replace};
use crate::hashing::BLOCK_BYTES;
use crate::layout::{self, CONTENTS, DAMAGED, FORMAT, INDEX, LOCK, MOVING, QUARANTINE, STANDINGS};
use crate::store::{OpenError, check_format, format_text};

/// What the format file of a store that lies elsewhere starts with; the path follows.
const MOVED_PREFIX: &[u8] = b"sutler store moved to ";

/// Bytes of a format file, at most: a path has at most 4096.
const POINTER_BYTES_MAX: u64 = 8 * 1024;

/// What a move did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Relocated {
    /// Files that have moved.
    pub files: u64,
    /// Bytes in them.
    pub bytes: u64,
}

/// Why a store was not moved. It is where it was.
#[derive(Debug, thiserror::Error)]
pub enum RelocateError {
    /// There is no store that could be taken for this.
    #[error("open the store that is to be moved")]
    Open(#[source] OpenError),
    /// Something lies in the target folder already.
    #[error("{} is not empty", path.display())]
    NotEmpty {
        /// The target.
        path: PathBuf,
    },
    /// One of the two folders lies in the other, or they are the same.
    #[error("{} and {} overlap", from.display(), to.display())]
    Overlap {
        /// Where the store is.
        from: PathBuf,
        /// The target.
        to: PathBuf,
    },
    /// The target's name cannot be written down, because there is a line feed in it.
    #[error("a store cannot be moved to {}", path.display())]
    Name {
        /// The target.
        path: PathBuf,
    },
    /// The target folder cannot be made or used.
    #[error("use {}", path.display())]
    Target {
        /// The target, or a file below it.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// A file could not be copied.
    #[error("copy {}", path.display())]
    Copy {
        /// Which, below the store's folder.
        path: PathBuf,
        /// What one of the disks answered.
        source: io::Error,
    },
    /// All is copied, but the known folder could not be told.
    #[error("switch {} to the new folder", path.display())]
    Switch {
        /// The folder that the user knows.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
}

/// Moves the store that is known by the folder `dir` to the folder `to`, which is empty or not
/// there. Contents, standings and quarantine go along; the index is made anew. [`crate::Store::open`]
/// of `dir` finds it there from then on.
///
/// Nobody else may own the store meanwhile. On the same disk files are not copied.
///
/// # Errors
///
/// [`RelocateError`]. The store is where it was, and the move may be tried again.
pub fn relocate(dir: &Path, to: &Path) -> Result<Relocated, RelocateError> {
    let moving = Move::prepare(dir, to)?;
    let relocated = moving.copy()?;
    moving.switch()?;
    moving.remove_old();
    Ok(relocated)
}

/// Returns where the store lies that is known by the folder `dir`: there, or where it was moved to.
///
/// # Errors
///
/// [`OpenError::Elsewhere`] if it was moved to a folder without a store: its disk may be missing.
pub(crate) fn place_of(dir: &Path) -> Result<PathBuf, OpenError> {
    let Some(to) = pointer(dir) else {
        // Half of a store, which a move was making, is no store.
        return if dir.join(MOVING).exists() { Err(OpenError::Moving) } else { Ok(dir.to_owned()) };
    };
    if let Err(source) = fs::metadata(to.join(FORMAT)) {
        return Err(OpenError::Elsewhere { to, source });
    }
    finish(dir, &to);
    Ok(to)
}

/// Does what a move left to do that was interrupted after its switch.
fn finish(known: &Path, place: &Path) {
    // Whoever moves has the lock, and is not interrupted.
    let idle = || Disk::open(known).and_then(|disk| disk.lock(Path::new(LOCK)));
    if known.join(CONTENTS).exists() && matches!(idle(), Ok(Some(_))) {
        remove_store(known);
    }
    if place.join(MOVING).exists()
        && let Err(error) = fs::remove_file(place.join(MOVING))
    {
        tracing::warn!(%error, "mark of a finished move not removed");
    }
}

/// Reads where the store was moved to, if it was.
fn pointer(dir: &Path) -> Option<PathBuf> {
    let path = dir.join(FORMAT);
    if fs::metadata(&path).ok()?.len() > POINTER_BYTES_MAX {
        return None;
    }
    let bytes = fs::read(path).ok()?;
    let to = bytes.strip_prefix(MOVED_PREFIX)?.strip_suffix(b"\n")?;
    Some(PathBuf::from(OsStr::from_bytes(to)))
}

/// A move under way: both folders are ours.
struct Move {
    /// The folder that the user knows.
    known: PathBuf,
    /// Where the store is.
    from: PathBuf,
    to: PathBuf,
    source: Disk,
    target: Disk,
    _locks: Vec<Box<dyn Lock>>,
}

impl Move {
    /// Takes both folders, and marks the target as half a store.
    fn prepare(dir: &Path, to: &Path) -> Result<Self, RelocateError> {
        let absent = |source| RelocateError::Open(OpenError::Folder(source));
        let known = fs::canonicalize(dir).map_err(absent)?;
        let from = place_of(&known).map_err(RelocateError::Open)?;
        let refused = |source| RelocateError::Target { path: to.to_owned(), source };
        let target = Disk::open(to).map_err(refused)?;
        let to = fs::canonicalize(to).map_err(refused)?;
        if to.as_os_str().as_bytes().contains(&b'\n') {
            return Err(RelocateError::Name { path: to });
        }
        let back = to == known && from != known;
        let nested = |a: &Path, b: &Path| a.starts_with(b) || b.starts_with(a);
        if nested(&to, &from) || (!back && nested(&to, &known)) {
            return Err(RelocateError::Overlap { from, to });
        }
        let source = Disk::open(&from).map_err(absent)?;
        let mut locks = vec![take(&source)?];
        check_format(&source).map_err(RelocateError::Open)?;
        let refused = |source| RelocateError::Target { path: to.clone(), source };
        if !is_free(&to, &from).map_err(refused)? {
            return Err(RelocateError::NotEmpty { path: to });
        }
        locks.push(take(&target)?);
        let mark = from.as_os_str().as_bytes();
        replace(&target, Path::new(MOVING), mark).map_err(refused)?;
        // Of an attempt that was interrupted.
        remove_store(&to);
        Ok(Self { known, from, to, source, target, _locks: locks })
    }

    /// Makes the target a store of its own, durably, that nobody knows yet.
    fn copy(&self) -> Result<Relocated, RelocateError> {
        let mut relocated = Relocated::default();
        for folder in [CONTENTS, DAMAGED, QUARANTINE].map(Path::new) {
            self.make_folder(folder)?;
            for name in self.names(folder)? {
                let path = folder.join(&name);
                if folder == Path::new(CONTENTS) {
                    self.make_folder(&path)?;
                    for name in self.names(&path)? {
                        self.copy_file(&path.join(name), &mut relocated)?;
                    }
                } else if !layout::is_passing(&name) {
                    self.copy_file(&path, &mut relocated)?;
                }
            }
        }
        if self.from.join(STANDINGS).exists() {
            self.copy_file(Path::new(STANDINGS), &mut relocated)?;
        }
        let refused = |source| RelocateError::Target { path: self.to.clone(), source };
        self.target.sync_all().map_err(refused)?;
        if self.to != self.known {
            // Where it is to be the known folder again, this is the switch, and comes later.
            self.write_format(format_text().as_bytes()).map_err(refused)?;
        }
        Ok(relocated)
    }

    /// Says in the known folder where the store is now.
    fn switch(&self) -> Result<(), RelocateError> {
        let refused = |source| RelocateError::Switch { path: self.known.clone(), source };
        if self.to == self.known {
            self.write_format(format_text().as_bytes()).map_err(refused)?;
        } else {
            let known = Disk::open(&self.known).map_err(refused)?;
            let mut text = MOVED_PREFIX.to_vec();
            text.extend_from_slice(self.to.as_os_str().as_bytes());
            text.push(b'\n');
            replace(&known, Path::new(FORMAT), &text).map_err(refused)?;
        }
        // If this fails it is done by the next start.
        drop(self.target.remove(Path::new(MOVING)));
        Ok(())
    }

    /// Removes what has moved. Where that fails, the next start goes on with it.
    fn remove_old(&self) {
        remove_store(&self.from);
        if self.from != self.known {
            for name in [FORMAT, LOCK] {
                drop(fs::remove_file(self.from.join(name)));
            }
            // Something of the user's may lie in it.
            drop(fs::remove_dir(&self.from));
        }
    }

    fn write_format(&self, text: &[u8]) -> io::Result<()> {
        replace(&self.target, Path::new(FORMAT), text)
    }

    fn make_folder(&self, path: &Path) -> Result<(), RelocateError> {
        self.target
            .create_dir(path)
            .map_err(|source| RelocateError::Target { path: self.to.join(path), source })
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, RelocateError> {
        self.source
            .read_dir(folder)
            .map_err(|source| RelocateError::Copy { path: folder.to_owned(), source })
    }

    fn copy_file(&self, path: &Path, relocated: &mut Relocated) -> Result<(), RelocateError> {
        let copied = self.source.open(path, Open::Read).and_then(|file| {
            let bytes = file.len()?;
            let linked = file.disk_file().is_some_and(|file| self.target.link(file, path).is_ok());
            if !linked {
                copy(&*file, &*self.target.open(path, Open::CreateNew)?)?;
            }
            Ok(bytes)
        });
        relocated.bytes +=
            copied.map_err(|source| RelocateError::Copy { path: path.to_owned(), source })?;
        relocated.files += 1;
        Ok(())
    }
}

/// Copies a file, holes as holes.
fn copy(from: &dyn StoreFile, to: &dyn StoreFile) -> io::Result<()> {
    if from.disk_file().is_some_and(|file| to.reflink_from(file).is_ok()) {
        return Ok(());
    }
    let len = from.len()?;
    to.set_len(len)?;
    let mut buffer = vec![0; BLOCK_BYTES];
    for range in from.data_ranges(0..len)? {
        let mut offset = range.start;
        while offset < range.end {
            let count = (range.end - offset).min(BLOCK_BYTES as u64) as usize;
            from.read_exact_at(&mut buffer[..count], offset)?;
            to.write_all_at(&buffer[..count], offset)?;
            offset += count as u64;
        }
    }
    Ok(())
}

fn take(disk: &Disk) -> Result<Box<dyn Lock>, RelocateError> {
    let lock = disk.lock(Path::new(LOCK)).map_err(OpenError::Lock).map_err(RelocateError::Open)?;
    lock.ok_or(RelocateError::Open(OpenError::Owned))
}

/// Returns whether a store may be put here: the folder is empty, or holds what an interrupted move
/// of the same store left, or no more than the word that this very store lies elsewhere.
fn is_free(to: &Path, from: &Path) -> io::Result<bool> {
    if fs::read(to.join(MOVING)).is_ok_and(|mark| mark == from.as_os_str().as_bytes()) {
        return Ok(true);
    }
    let points_here = pointer(to).is_some_and(|place| place == from);
    for entry in fs::read_dir(to)? {
        let name = entry?.file_name();
        let ours = name == LOCK || (points_here && name == FORMAT);
        if !ours {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes the contents of a store, not its lock and format. What cannot be removed is reported and
/// left: it is in nobody's way.
fn remove_store(dir: &Path) {
    let mut names: Vec<PathBuf> =
        [CONTENTS, DAMAGED, QUARANTINE, STANDINGS].map(|name| dir.join(name)).into();
    if let Ok(entries) = fs::read_dir(dir) {
        let index = |path: &PathBuf| {
            path.file_name().is_some_and(|name| name.as_bytes().starts_with(INDEX.as_bytes()))
        };
        names.extend(entries.flatten().map(|entry| entry.path()).filter(index));
    }
    for path in names {
        let removed =
            if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        if let Err(error) = removed
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(path = %path.display(), %error, "left behind by a move");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use sutler_protocol::ContentId;

    use crate::{About, ImportFrom, Store, StoreOptions};

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }

        fn open(&self, name: &str) -> Result<Store, OpenError> {
            Store::open(&self.path(name), StoreOptions::default())
        }
    }

    fn bytes() -> Vec<u8> {
        let mut bytes = vec![0; 300_000];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        bytes
    }

    /// A store with a large and a small content.
    fn filled() -> Folder {
        let folder = Folder(tempfile::tempdir().expect("a temporary folder"));
        let store = folder.open("store").expect("opened");
        for data in [&bytes()[..], b"small"] {
            let about = About { name: Some("name".into()), ..About::default() };
            store.import(ImportFrom::Stream(&mut &data[..]), &about).expect("imported");
        }
        folder
    }

    fn is_whole(store: &Store) -> bool {
        let read = |data: &[u8]| {
            let content = store.content(ContentId::of(data)).expect("opened").expect("known");
            let mut read = vec![0; data.len()];
            content.read(0..data.len() as u64, &mut read).expect("read");
            content.is_complete() && read == data
        };
        read(&bytes()) && read(b"small") && store.list().len() == 2
    }

    // R32
    #[test]
    fn a_moved_store_is_found_by_its_old_name_with_all_its_contents() {
        let folder = filled();
        let relocated = relocate(&folder.path("store"), &folder.path("new")).expect("moved");
        assert_eq!(relocated.files, 5, "two contents, one with a list");
        assert!(is_whole(&folder.open("store").expect("opened by its old name")));
        assert!(is_whole(&folder.open("new").expect("opened by its new name")));
        assert!(!folder.path("store/contents").exists(), "nothing is left");
    }

    // R32
    #[test]
    fn a_store_moves_on_and_back_again() {
        let folder = filled();
        let known = folder.path("store");
        for to in ["one", "two", "store", "three"] {
            relocate(&known, &folder.path(to)).expect(to);
            assert!(is_whole(&folder.open("store").expect(to)), "{to}");
        }
        assert!(!folder.path("one").exists() && !folder.path("two").exists());
    }

    #[test]
    fn a_target_that_is_not_empty_or_overlaps_is_refused() {
        let folder = filled();
        let known = folder.path("store");
        fs::create_dir(folder.path("full")).expect("made");
        fs::write(folder.path("full/letter"), b"dear").expect("written");
        let refused = relocate(&known, &folder.path("full"));
        assert!(matches!(refused, Err(RelocateError::NotEmpty { .. })), "{refused:?}");
        assert_eq!(fs::read(folder.path("full/letter")).expect("read"), b"dear");
        for to in ["store", "store/inside", "."] {
            let refused = relocate(&known, &folder.path(to));
            assert!(matches!(refused, Err(RelocateError::Overlap { .. })), "{to}: {refused:?}");
        }
        assert!(is_whole(&folder.open("store").expect("opened")));
    }

    #[test]
    fn a_store_that_somebody_owns_is_not_moved() {
        let folder = filled();
        let owner = folder.open("store").expect("opened");
        let refused = relocate(&folder.path("store"), &folder.path("new"));
        assert!(matches!(refused, Err(RelocateError::Open(OpenError::Owned))), "{refused:?}");
        assert!(is_whole(&owner));
    }

    #[test]
    fn a_move_that_was_interrupted_before_its_switch_changes_nothing_and_can_be_repeated() {
        let folder = filled();
        let moving = Move::prepare(&folder.path("store"), &folder.path("new")).expect("begun");
        moving.copy().expect("copied");
        drop(moving);
        assert!(matches!(folder.open("new"), Err(OpenError::Moving)), "half a store is none");
        assert!(is_whole(&folder.open("store").expect("opened")));
        relocate(&folder.path("store"), &folder.path("new")).expect("moved");
        assert!(is_whole(&folder.open("store").expect("opened")));
    }

    #[test]
    fn a_move_that_was_interrupted_after_its_switch_is_finished_by_the_next_start() {
        let folder = filled();
        let moving = Move::prepare(&folder.path("store"), &folder.path("new")).expect("begun");
        moving.copy().expect("copied");
        moving.switch().expect("switched");
        drop(moving);
        assert!(is_whole(&folder.open("store").expect("opened")));
        assert!(!folder.path("store/contents").exists());
    }

    #[test]
    fn a_moved_store_whose_disk_is_missing_is_not_made_anew() {
        let folder = filled();
        relocate(&folder.path("store"), &folder.path("new")).expect("moved");
        fs::rename(folder.path("new"), folder.path("unmounted")).expect("renamed");
        let refused = folder.open("store");
        assert!(matches!(refused, Err(OpenError::Elsewhere { .. })), "{refused:?}");
        fs::rename(folder.path("unmounted"), folder.path("new")).expect("renamed");
        assert!(is_whole(&folder.open("store").expect("opened")));
    }
}

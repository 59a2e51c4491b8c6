//! The file operations that a store needs, and nothing more.
//!
//! Everything in this crate reaches the disk through [`Backend`], so that a faulty one can stand
//! in for it and lose power at every operation. [`Disk`] is the real one.
//!
//! What an implementation promises, and all that the store relies on after a power cut:
//! - bytes written to a file are there once its [`StoreFile::sync_data`] returned;
//! - a name made, changed or removed in a folder is so once [`Backend::sync_dir`] of it returned;
//! - [`Backend::sync_all`] is both of these for everything done before it was called;
//! - [`Backend::rename`] replaces its target whole or not at all;
//! - nothing else: what was not synced may be there, half there, or absent, in any order.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

mod disk;
pub mod faulty;

pub use disk::Disk;

/// A folder and the operations on what is in it. Every path is relative to that folder, without
/// `..`.
pub trait Backend: Send + Sync + fmt::Debug {
    /// Opens a file.
    ///
    /// # Errors
    ///
    /// `NotFound` or `AlreadyExists` as `open` says; otherwise what the disk answered.
    fn open(&self, path: &Path, open: Open) -> io::Result<Box<dyn StoreFile>>;

    /// Makes a folder, whose parent exists. One that is there already is no error.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    fn create_dir(&self, path: &Path) -> io::Result<()>;

    /// Returns the names in a folder, in no order. Names that are no UTF-8 are left out: the store
    /// makes none.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is no such folder; otherwise what the disk answered.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Gives a file another name, replacing what had it.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Handles that are open keep its bytes.
    ///
    /// # Errors
    ///
    /// `NotFound` if there is none; otherwise what the disk answered.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Makes the names in a folder durable. The empty path is the store's own folder.
    ///
    /// # Errors
    ///
    /// What the disk answered. The names' fate is then unknown.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Makes everything durable that was done before the call: one barrier for many files.
    ///
    /// # Errors
    ///
    /// What the disk answered. What was written since the last barrier is then in doubt.
    fn sync_all(&self) -> io::Result<()>;

    /// Makes `to` a second name of `source`, an open file from anywhere on the same disk.
    ///
    /// # Errors
    ///
    /// `CrossesDevices`, `Unsupported` or `PermissionDenied` where that cannot be, and the caller
    /// copies; otherwise what the disk answered.
    fn link(&self, source: &File, to: &Path) -> io::Result<()>;

    /// Takes the store for this process until the returned lock is dropped, or returns `None` if
    /// another process has it.
    ///
    /// # Errors
    ///
    /// What the disk answered to making or locking the file at `path`.
    fn lock(&self, path: &Path) -> io::Result<Option<Box<dyn Lock>>>;

    /// Returns the bytes that may still be written to this disk.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    fn free_bytes(&self) -> io::Result<u64>;

    /// Returns the folder's path, or `None` if it is not on a disk.
    fn disk_path(&self) -> Option<&Path>;
}

/// An open file of a [`Backend`]. Reads and writes have positions, so that several threads share it.
pub trait StoreFile: Send + Sync + fmt::Debug {
    /// Reads up to `into.len()` bytes from `offset` on, and returns how many; 0 is the end.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`.
    ///
    /// # Errors
    ///
    /// What the disk answered; some of the bytes may have been written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// Makes the file's bytes and length durable, not its name.
    ///
    /// # Errors
    ///
    /// What the disk answered. What was written since the last sync is then in doubt, even if a
    /// later sync succeeds.
    fn sync_data(&self) -> io::Result<()>;

    /// Gives the file a length; new bytes read as zeros and take no room.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Returns the file's length in bytes.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    fn len(&self) -> io::Result<u64>;

    /// Returns whether the file has no bytes.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    fn is_empty(&self) -> io::Result<bool> {
        self.len().map(|len| len == 0)
    }

    /// Returns the parts of `within` that may hold something else than zeros, in order. Where the
    /// disk cannot tell, that is all of it.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    fn data_ranges(&self, within: Range<u64>) -> io::Result<Vec<Range<u64>>>;

    /// Makes this file's bytes those of `source` without copying them, as copy-on-write.
    ///
    /// # Errors
    ///
    /// `Unsupported` or `CrossesDevices` where the disk cannot, and the caller copies.
    fn reflink_from(&self, source: &File) -> io::Result<()>;

    /// Returns the file itself, or `None` if it is not on a disk.
    fn disk_file(&self) -> Option<&File>;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    ///
    /// `UnexpectedEof` if the file ends before; otherwise what the disk answered.
    fn read_exact_at(&self, into: &mut [u8], offset: u64) -> io::Result<()> {
        let mut done = 0;
        while done < into.len() {
            match self.read_at(&mut into[done..], offset + done as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => done += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Holds a store for this process; dropping it lets go.
pub trait Lock: Send + Sync + fmt::Debug {}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// To be read; it exists.
    Read,
    /// To be read and written; it exists.
    Write,
    /// To be read and written; it is made if it is not there.
    Create,
    /// To be read and written; it is not there yet.
    CreateNew,
}

/// Reads all of a file that has at most `bytes_max` bytes.
///
/// # Errors
///
/// `FileTooLarge` if it is longer; `NotFound` if it is not there; otherwise what the disk answered.
pub fn read_file(backend: &dyn Backend, path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = backend.open(path, Open::Read)?;
    let len = file.len()?;
    if len > bytes_max {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    let mut bytes = vec![0; len as usize];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(bytes)
}

/// Puts a file in place, durable and whole: written beside, synced, renamed, folder synced.
///
/// # Errors
///
/// What the disk answered. The file is then the old one or the new one.
pub fn replace(backend: &dyn Backend, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let file = backend.open(&beside, Open::Create)?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    backend.rename(&beside, path)?;
    backend.sync_dir(path.parent().unwrap_or(Path::new("")))
}

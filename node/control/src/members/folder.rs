//! The folder of records: one file for each key, replaced whole, under one lock.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};
use sutler_swarm::enrol::token::hex;
use sutler_swarm::identity::KeyHash;

use super::record::Record;

/// Bytes of a record, at most: a chain of two certificates is below 3 KiB.
const RECORD_BYTES_MAX: u64 = 64 * 1024;

const ENDING: &str = ".json";
const LOCK: &str = "lock";
const STAGING: &str = ".new-";

/// Why the records cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The disk refused.
    #[error("read or write {}", .path.display())]
    Disk {
        /// The file or folder.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A record does not say what one does, or lies under another's name.
    #[error("{} is damaged: restore it from a backup, or remove it to forget that member", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The folder, open.
pub(super) struct Folder {
    dir: PathBuf,
    lock: File,
}

/// Keeps other processes from changing anything for as long as it lives.
pub(super) struct Locked<'a>(&'a File);

impl Folder {
    /// Opens the folder, or makes it.
    pub(super) fn open(dir: &Path) -> Result<Self, OpenError> {
        fs::create_dir_all(dir).map_err(|source| disk(dir.to_owned(), source))?;
        let path = dir.join(LOCK);
        let lock = File::options().create(true).truncate(false).write(true).open(&path);
        Ok(Self { dir: dir.to_owned(), lock: lock.map_err(|source| disk(path, source))? })
    }

    /// Waits until nobody else changes anything. No record is written without it.
    pub(super) fn lock(&self) -> Result<Locked<'_>, OpenError> {
        flock(&self.lock, FlockOperation::LockExclusive)
            .map_err(|error| disk(self.dir.join(LOCK), error.into()))?;
        Ok(Locked(&self.lock))
    }

    /// Returns every record, in no order. What a killed process left half written is passed over.
    pub(super) fn all(&self) -> Result<Vec<Record>, OpenError> {
        let mut records = Vec::new();
        let failed = |source| disk(self.dir.clone(), source);
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.starts_with(STAGING) || !name.ends_with(ENDING) {
                continue;
            }
            let path = self.dir.join(name);
            let record = Self::read(&path).map_err(|source| disk(path.clone(), source))?;
            let is_its_own = |record: &Record| name == hex(&record.key) + ENDING;
            records.push(record.filter(is_its_own).ok_or(OpenError::Damaged { path })?);
        }
        Ok(records)
    }

    /// Returns the record of a key, if there is one.
    pub(super) fn get(&self, key: &KeyHash) -> Result<Option<Record>, OpenError> {
        let path = self.path(key);
        match Self::read(&path) {
            Ok(record) => match record.filter(|record| record.key == *key) {
                Some(record) => Ok(Some(record)),
                None => Err(OpenError::Damaged { path }),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(disk(path, source)),
        }
    }

    /// Writes a record in the place of the one before, in one step that survives a power cut. The
    /// caller holds the lock.
    pub(super) fn put(&self, record: &Record) -> Result<(), OpenError> {
        let path = self.path(&record.key);
        let write = || {
            let mut new = tempfile::Builder::new().prefix(STAGING).tempfile_in(&self.dir)?;
            new.write_all(record.write().as_bytes())?;
            new.as_file().sync_all()?;
            new.persist(&path).map_err(|error| error.error)?;
            File::open(&self.dir)?.sync_all()
        };
        write().map_err(|source| disk(path.clone(), source))
    }

    fn path(&self, key: &KeyHash) -> PathBuf {
        self.dir.join(hex(key) + ENDING)
    }

    fn read(path: &Path) -> io::Result<Option<Record>> {
        let mut text = Vec::new();
        File::open(path)?.take(RECORD_BYTES_MAX).read_to_end(&mut text)?;
        Ok(Record::read(&text))
    }
}

/// Says which file the disk refused.
fn disk(path: PathBuf, source: io::Error) -> OpenError {
    OpenError::Disk { path, source }
}

impl Drop for Locked<'_> {
    fn drop(&mut self) {
        // Closing would do it as well; nothing can be done about a refusal.
        let _ = flock(self.0, FlockOperation::Unlock);
    }
}

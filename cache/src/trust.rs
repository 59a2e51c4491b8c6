//! What a device believes of its manifest, durably: the documents as they came, and the marks that say
//! which they are.
//!
//! One folder, which one process owns. Each top-level document is a file of its own, and `marks` has the
//! version, length and hash of each; so a file that is torn, cut, missing or an older one put back is told
//! from the one that was believed, and then nothing is: [`OpenError::Damaged`] until an admin says
//! [`recover`]. Delegated roles have files and no marks: the snapshot pins them, and one that is not what
//! the snapshot pins is fetched again.
//!
//! Always true: when [`TrustStore::keep`] has returned, a power cut leaves the new document; before, the
//! old one or the new one, and never neither.
//!
//! `FORMAT.md` gives the files byte by byte.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sutler_protocol::ContentId;
use sutler_protocol::manifest::bounds::{
    ROOT_BYTES_MAX, SNAPSHOT_BYTES_MAX, TARGETS_BYTES_MAX, TIMESTAMP_BYTES_MAX,
};
use sutler_protocol::manifest::drive::Keeper;
use sutler_protocol::manifest::{Keep, Kept, LoadError, RoleName, Trusted, Version};

use self::marks::{Entry, Mark, Marks};
use crate::backend::{Backend, Disk, Lock, read_file, replace};

mod marks;
mod recover;

pub use recover::{Outcome, RecoverError, Recovery, Why, recover, recover_on};

const LOCK: &str = "lock";
const MARKS: &str = "marks";

/// Bytes of a file's name: below what every disk allows, with room for the ending of a copy.
const NAME_BYTES_MAX: usize = 200;

/// Holds what a device believes, for this process alone.
#[derive(Debug)]
pub struct TrustStore {
    backend: Arc<dyn Backend>,
    marks: Marks,
    _lock: Box<dyn Lock>,
}

/// Why a store was not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// Another process has the folder.
    #[error("own the trust store: another process has it")]
    InUse,
    /// There is one already; nothing was changed.
    #[error("make a trust store where there is one")]
    Exists,
    /// There are documents, and no marks that say which they are.
    #[error("make a trust store beside {file}, which it did not write")]
    Foreign {
        /// One of them.
        file: String,
    },
    /// The root that was handed over does not hold.
    #[error("believe the root that was handed over")]
    Root(#[source] LoadError),
    /// The disk refused.
    #[error("write the trust store")]
    Write(#[source] io::Error),
}

/// Why nothing in the store is believed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has the folder.
    #[error("own the trust store: another process has it")]
    InUse,
    /// Nobody has handed over a root yet.
    #[error("open a trust store that no root was handed to")]
    NotMade,
    /// A file is not the one that was kept. An admin has to look, and to recover it.
    #[error("open a trust store whose {file} {damage}")]
    Damaged {
        /// Which file.
        file: String,
        /// What is wrong with it.
        damage: Damage,
    },
    /// A replacement was cut short, and the disk refused to settle it.
    #[error("settle the marks of the trust store")]
    Settle(#[source] io::Error),
    /// The disk refused.
    #[error("read {file} of the trust store")]
    Read {
        /// Which file.
        file: String,
        /// What it answered.
        source: io::Error,
    },
}

/// Why something was not kept. What was kept before it still is.
#[derive(Debug, thiserror::Error)]
#[error("write {file} of the trust store")]
pub struct KeepError {
    /// Which file.
    file: String,
    /// What the disk answered.
    source: io::Error,
}

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damage {
    /// It is gone.
    Missing,
    /// It is another one: torn, changed, or an older one put back.
    Changed,
}

impl TrustStore {
    /// Makes a store in the folder at `path`, whose parent exists, with the root that an admin handed
    /// over.
    ///
    /// # Errors
    ///
    /// [`CreateError`], and then there is none.
    pub fn create(path: &Path, root: &Bytes) -> Result<Self, CreateError> {
        let disk = Disk::open(path).map_err(CreateError::Write)?;
        Self::create_on(Arc::new(disk), root)
    }

    /// Makes a store on another kind of disk.
    ///
    /// # Errors
    ///
    /// [`CreateError`], and then there is none.
    pub fn create_on(backend: Arc<dyn Backend>, root: &Bytes) -> Result<Self, CreateError> {
        let kept = Kept { root: root.clone(), ..Kept::default() };
        let version = Trusted::load(&kept).map_err(CreateError::Root)?.root().version();
        let lock = backend.lock(Path::new(LOCK)).map_err(CreateError::Write)?;
        let lock = lock.ok_or(CreateError::InUse)?;
        match Marks::read(&*backend) {
            // A creation that was cut short has marks, and no root yet.
            Ok(Some(marks)) if is_begun(&*backend, &marks) => {}
            Ok(None) => {
                let names = backend.read_dir(Path::new("")).map_err(CreateError::Write)?;
                if let Some(file) = names.into_iter().find(|name| is_document(name)) {
                    return Err(CreateError::Foreign { file });
                }
            }
            Ok(Some(_)) | Err(_) => return Err(CreateError::Exists),
        }
        let mut store = Self { backend, marks: Marks::default(), _lock: lock };
        store
            .keep_marked(&RoleName::root(), version, root)
            .map_err(|error| CreateError::Write(error.source))?;
        Ok(store)
    }

    /// Opens the store in the folder at `path`, and returns what was kept in it.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if any top-level document is not the one that was kept.
    pub fn open(path: &Path) -> Result<(Self, Kept), OpenError> {
        if !path.is_dir() {
            return Err(OpenError::NotMade);
        }
        let disk = Disk::open(path)
            .map_err(|source| OpenError::Read { file: path.display().to_string(), source })?;
        Self::open_on(Arc::new(disk))
    }

    /// Opens a store on another kind of disk.
    ///
    /// # Errors
    ///
    /// [`OpenError`] if any top-level document is not the one that was kept.
    pub fn open_on(backend: Arc<dyn Backend>) -> Result<(Self, Kept), OpenError> {
        let failed = |file: &str| {
            let file = file.to_owned();
            move |source| OpenError::Read { file, source }
        };
        let lock = backend.lock(Path::new(LOCK)).map_err(failed(LOCK))?;
        let lock = lock.ok_or(OpenError::InUse)?;
        let damaged = |file: &str, damage| OpenError::Damaged { file: file.to_owned(), damage };
        let marks = match Marks::read(&*backend) {
            Ok(Some(marks)) => marks,
            Ok(None) => {
                let names = backend.read_dir(Path::new("")).map_err(failed("."))?;
                let is_made = names.iter().any(|name| is_document(name));
                let missing = || damaged(MARKS, Damage::Missing);
                return Err(if is_made { missing() } else { OpenError::NotMade });
            }
            Err(marks::ReadError::Damaged) => return Err(damaged(MARKS, Damage::Changed)),
            Err(marks::ReadError::Read(source)) => return Err(failed(MARKS)(source)),
        };
        let read = marks.clone();
        let mut store = Self { backend, marks, _lock: lock };
        let mut found = BTreeMap::new();
        for role in top_level() {
            let file = file_name(&role);
            match store.settle(&role).map_err(failed(&file))? {
                Settled::Kept(bytes) => drop(found.insert(role, bytes)),
                Settled::Absent => {}
                Settled::Damaged(damage) => return Err(damaged(&file, damage)),
            }
        }
        let root = found.remove(&RoleName::root()).ok_or(OpenError::NotMade)?;
        // What was cut short is settled now, lest the one before, put back later, still passes.
        if store.marks != read {
            store.write_marks().map_err(|error| OpenError::Settle(error.source))?;
        }
        let kept = Kept {
            root,
            timestamp: found.remove(&RoleName::timestamp()),
            snapshot: found.remove(&RoleName::snapshot()),
            targets: found.remove(&RoleName::targets()),
            floors: store.marks.floors(),
        };
        Ok((store, kept))
    }

    /// Finds out which document of a role is here, and settles its mark on it.
    fn settle(&mut self, role: &RoleName) -> io::Result<Settled> {
        let read = match read_document(&*self.backend, role) {
            Ok(bytes) => Some(bytes),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            // Longer than any that is kept.
            Err(error) if error.kind() == io::ErrorKind::FileTooLarge => {
                return Ok(Settled::Damaged(Damage::Changed));
            }
            Err(error) => return Err(error),
        };
        let Mark { now, next, lost } = self.marks.of(role);
        let Some(bytes) = read else {
            // A first document may never have come as far as its file.
            let is_damaged = now.is_some();
            self.marks.set(role, Mark { now, next: None, lost });
            return Ok(if is_damaged {
                Settled::Damaged(Damage::Missing)
            } else {
                Settled::Absent
            });
        };
        let is_known = now.is_some() || next.is_some();
        Ok(match [now, next].into_iter().flatten().find(|entry| entry.is(&bytes)) {
            Some(entry) => {
                self.marks.set(role, Mark { now: Some(entry), ..Mark::default() });
                Settled::Kept(bytes.into())
            }
            None if is_known => Settled::Damaged(Damage::Changed),
            // Forgotten, or lost and set aside: what is left of it counts for nothing.
            None => Settled::Absent,
        })
    }

    /// Replaces a document that has a mark. The mark knows of both while the file is replaced, and of the
    /// new one alone afterwards: the one before it, put back, is then an older one like any other.
    fn keep_marked(
        &mut self,
        role: &RoleName,
        version: Version,
        bytes: &Bytes,
    ) -> Result<(), KeepError> {
        let entry = Entry::of(version, bytes);
        let next = Some(entry.clone());
        self.marks.set(role, Mark { next, ..self.marks.of(role) });
        self.write_marks()?;
        let file = file_name(role);
        replace(&*self.backend, Path::new(&file), bytes)
            .map_err(|source| KeepError { file, source })?;
        self.marks.set(role, Mark { now: Some(entry), ..Mark::default() });
        self.write_marks()
    }

    fn forget(&mut self, role: &RoleName) -> Result<(), KeepError> {
        self.marks.remove(role);
        self.write_marks()?;
        let file = file_name(role);
        let removed = match self.backend.remove(Path::new(&file)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.backend.sync_dir(Path::new("")),
        };
        removed.map_err(|source| KeepError { file, source })
    }

    fn write_marks(&self) -> Result<(), KeepError> {
        self.marks
            .write(&*self.backend)
            .map_err(|source| KeepError { file: MARKS.to_owned(), source })
    }
}

impl Keeper for TrustStore {
    type Error = KeepError;

    fn keep(&mut self, keep: Keep) -> Result<(), KeepError> {
        match keep {
            Keep::Document { role, version, bytes } if top_level().contains(&role) => {
                self.keep_marked(&role, version, &bytes)
            }
            Keep::Document { role, bytes, .. } => {
                let file = file_name(&role);
                replace(&*self.backend, Path::new(&file), &bytes)
                    .map_err(|source| KeepError { file, source })
            }
            Keep::Forget { role } => self.forget(&role),
        }
    }

    fn load(&mut self, role: &RoleName) -> Option<Bytes> {
        // What cannot be read is fetched again: the snapshot says whether it is the right one.
        read_document(&*self.backend, role).ok().map(Bytes::from)
    }
}

/// What was found of a document.
enum Settled {
    Kept(Bytes),
    Absent,
    Damaged(Damage),
}

fn top_level() -> [RoleName; 4] {
    [RoleName::root(), RoleName::timestamp(), RoleName::snapshot(), RoleName::targets()]
}

fn is_document(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|extension| extension == "json")
}

/// Returns whether the marks are those of a creation that never wrote its root.
fn is_begun(backend: &dyn Backend, marks: &Marks) -> bool {
    let root = RoleName::root();
    let never_kept = marks.of(&root).now.is_none();
    let is_absent =
        read_document(backend, &root).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    never_kept && is_absent
}

fn read_document(backend: &dyn Backend, role: &RoleName) -> io::Result<Vec<u8>> {
    let bytes_max = match role.as_str() {
        "root" => ROOT_BYTES_MAX,
        "timestamp" => TIMESTAMP_BYTES_MAX,
        "snapshot" => SNAPSHOT_BYTES_MAX,
        _ => TARGETS_BYTES_MAX,
    };
    read_file(backend, &PathBuf::from(file_name(role)), bytes_max)
}

/// Returns the name of a role's file: the role's, percent-encoded, and never one that begins with a dot;
/// where that is too long for a disk, a hash, behind a `%-` that no encoding has.
fn file_name(role: &RoleName) -> String {
    let name = role.place(None);
    if name.len() > NAME_BYTES_MAX {
        return format!("%-{}.json", ContentId::of(role.as_str().as_bytes()));
    }
    match name.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => name,
    }
}

impl std::fmt::Display for Damage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Missing => "is gone",
            Self::Changed => "is not the one that was kept",
        })
    }
}

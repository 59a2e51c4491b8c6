//! The repository on disk: plain files that any HTTP server can serve to any TUF client.
//!
//! ```text
//! metadata/N.ROLE.json, metadata/timestamp.json      as TUF has them, consistent snapshots
//! targets/FOLDER/SHA256.NAME                         order files, and the contents that have no origin
//! lists/BLAKE3                                       the hash list of each content of more than one chunk
//! ```
//! Nothing that is published is changed or removed: a new state is new files, and the timestamp that leads to
//! them comes last. So whatever ends a publication half way leaves the state before it, and a client that
//! is in the middle of a refresh finishes it.
//!
//! One process owns a repository. Everything here blocks.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sutler_cache::backend::{Backend, Disk, Lock, read_file, replace};
use sutler_protocol::ContentId;
use sutler_protocol::manifest::bounds::{ROOT_BYTES_MAX, TARGETS_BYTES_MAX};
use sutler_protocol::manifest::{Kept, RoleName, TargetFile, TargetPath, Trusted, Version};

use crate::bounds::ORDER_BYTES_MAX;
use crate::state::State;

mod catch_up;
mod content;
mod reading;

pub use catch_up::CatchUpError;
pub use content::{Incoming, PutError};
pub(crate) use content::{has, has_list, link, put_list};
pub use reading::{FileError, ReadError, RoleError, Source};
use reading::{Here, NoKeeper, go_through};

const METADATA: &str = "metadata";
const TARGETS: &str = "targets";
const LISTS: &str = "lists";
const LOCK: &str = "lock";

/// A repository, for this process alone.
#[derive(Debug)]
pub struct Repository {
    backend: Arc<dyn Backend>,
    _lock: Box<dyn Lock>,
}

/// Why a repository was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("own the repository: another process has it")]
    InUse,
    /// The disk refused.
    #[error("open the repository")]
    Open(#[source] io::Error),
}

/// Why something was not published.
#[derive(Debug, thiserror::Error)]
#[error("write {file} of the repository")]
pub struct WriteError {
    /// Which file.
    pub file: String,
    /// What the disk answered.
    #[source]
    pub source: io::Error,
}

/// What is written to publish a new state, in this order.
#[derive(Clone, Debug, Default)]
pub struct Publication {
    /// Target files that are small enough to be at hand.
    pub(crate) files: Vec<(TargetPath, TargetFile, Bytes)>,
    /// Documents with their places: who leads to another comes behind it.
    pub(crate) documents: Vec<(String, Bytes)>,
}

impl Publication {
    /// Returns what has been written after each of its steps, for whoever wants to see what a client meets then.
    pub fn prefixes(&self) -> Vec<Self> {
        let of = |count| Self {
            files: self.files.clone(),
            documents: self.documents.iter().take(count).cloned().collect(),
        };
        (0..=self.documents.len()).map(of).collect()
    }
}

impl Repository {
    /// Opens the repository in the folder at `path`, whose parent exists; an empty one if there is none.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_on(Arc::new(Disk::open(path).map_err(OpenError::Open)?))
    }

    /// Opens a repository on another kind of disk.
    ///
    /// # Errors
    ///
    /// [`OpenError`].
    pub fn open_on(backend: Arc<dyn Backend>) -> Result<Self, OpenError> {
        let lock = backend.lock(Path::new(LOCK)).map_err(OpenError::Open)?;
        let lock = lock.ok_or(OpenError::InUse)?;
        for folder in [METADATA, TARGETS, LISTS] {
            backend.create_dir(Path::new(folder)).map_err(OpenError::Open)?;
        }
        backend.sync_dir(Path::new("")).map_err(OpenError::Open)?;
        Ok(Self { backend, _lock: lock })
    }

    /// Reads what the repository says now, and checks it as a client would whose clock has stopped.
    ///
    /// # Errors
    ///
    /// [`ReadError`].
    pub fn read(&self) -> Result<State, ReadError> {
        let mut trusted = self.first()?;
        let mut here = Here(&*self.backend);
        go_through(&mut trusted, &mut here, &mut NoKeeper)?;
        Ok(reading::read(&trusted, &mut here, None)?.state)
    }

    /// Believes the first root.
    fn first(&self) -> Result<Trusted, ReadError> {
        let place = RoleName::root().place(Some(Version::FIRST));
        let root = match read_file(&*self.backend, &metadata(&place), ROOT_BYTES_MAX) {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Empty),
            Err(error) => return Err(ReadError::Role { place, source: RoleError::Read(error) }),
        };
        let kept = Kept { root: root.into(), ..Kept::default() };
        Trusted::load(&kept).map_err(ReadError::Root)
    }

    /// Returns a document of an earlier version, if it is here; nobody vouches for it any more.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub fn document(&self, role: &RoleName, version: Version) -> io::Result<Option<Bytes>> {
        let place = metadata(&role.place(Some(version)));
        match read_file(&*self.backend, &place, TARGETS_BYTES_MAX) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns a small target file, of this or an earlier state, if it is here and is the right one.
    ///
    /// # Errors
    ///
    /// What the disk answered; `InvalidData` if it is another one.
    pub fn file(&self, path: &TargetPath, file: &TargetFile) -> io::Result<Bytes> {
        let bytes = read_file(&*self.backend, &target(path, file), ORDER_BYTES_MAX)?;
        if bytes.len() as u64 != file.length || file.hashes.check(&bytes).is_err() {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(bytes.into())
    }

    /// Publishes a new state. When it has returned, a power cut leaves the new one; before, the old one or
    /// the new one.
    ///
    /// # Errors
    ///
    /// [`WriteError`]; the state is then the old one or the new one, and the same may be published again.
    pub fn write(&self, publication: &Publication) -> Result<(), WriteError> {
        for (path, file, bytes) in &publication.files {
            let place = target(path, file);
            make_folders(&*self.backend, &place)?;
            self.write_file(&place, bytes)?;
        }
        for (place, bytes) in &publication.documents {
            self.write_file(&metadata(place), bytes)?;
        }
        Ok(())
    }

    fn write_file(&self, place: &Path, bytes: &[u8]) -> Result<(), WriteError> {
        replace(&*self.backend, place, bytes).map_err(|source| failed(place, source))
    }
}

/// Makes the folders above `place`.
fn make_folders(backend: &dyn Backend, place: &Path) -> Result<(), WriteError> {
    let mut folders: Vec<&Path> = place.ancestors().skip(1).collect();
    folders.pop();
    for folder in folders.into_iter().rev() {
        let made = backend.create_dir(folder);
        let above = folder.parent().unwrap_or(Path::new(""));
        made.and_then(|()| backend.sync_dir(above)).map_err(|source| failed(folder, source))?;
    }
    Ok(())
}

fn failed(place: &Path, source: io::Error) -> WriteError {
    WriteError { file: place.display().to_string(), source }
}

fn metadata(place: &str) -> PathBuf {
    Path::new(METADATA).join(place)
}

/// Returns where a target file lies. Submissions with names that a URL would quote are refused before.
fn target(path: &TargetPath, file: &TargetFile) -> PathBuf {
    Path::new(TARGETS).join(path.place(file.hashes.prefix().as_deref()))
}

fn list(content: ContentId) -> PathBuf {
    Path::new(LISTS).join(content.to_string())
}

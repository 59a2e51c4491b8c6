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

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sutler_cache::backend::{Backend, Disk, Lock, read_file, replace};
use sutler_protocol::ContentId;
use sutler_protocol::manifest::bounds::{ROOT_BYTES_MAX, TARGETS_BYTES_MAX};
use sutler_protocol::manifest::drive::{self, DriveError, Keeper};
use sutler_protocol::manifest::signed::VerifyError;
use sutler_protocol::manifest::{
    Answer, Believed, Fetch, Keep, Kept, LoadError, RoleName, Signed, TargetFile, TargetPath,
    Targets, Trusted, Version,
};

use crate::bounds::ORDER_BYTES_MAX;
use crate::state::{State, is_content};

mod content;

pub use content::PutError;

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

/// Why what a repository says cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing was published in it yet.
    #[error("read a repository in which nothing was published")]
    Empty,
    /// The first root does not hold.
    #[error("believe the repository's first root")]
    Root(#[source] LoadError),
    /// A document is missing, or is not what it has to be.
    #[error("go through the repository's documents")]
    Documents(#[source] DriveError<io::Error, Infallible>),
    /// A delegated role's document is missing, or is not what the snapshot pins.
    #[error("read {place} of the repository")]
    Role {
        /// Where it should be.
        place: String,
        /// What was found.
        source: RoleError,
    },
    /// An order file is missing or is another one.
    #[error("read the target file {path} of the repository")]
    File {
        /// Which.
        path: TargetPath,
        /// What was found.
        source: io::Error,
    },
}

/// What is wrong with a delegated role's document.
#[derive(Debug, thiserror::Error)]
pub enum RoleError {
    /// The disk refused.
    #[error("read it")]
    Read(#[source] io::Error),
    /// It is no document.
    #[error("split it into what is signed and by whom")]
    Parse(#[source] sutler_protocol::manifest::ParseError),
    /// It is not the one that the snapshot pins.
    #[error("it is not the document that the snapshot pins")]
    NotPinned,
    /// It breaks a rule.
    #[error("verify it")]
    Verify(#[source] VerifyError),
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
        let root = match read_file(&*self.backend, &metadata("1.root.json"), ROOT_BYTES_MAX) {
            Ok(root) => root,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(ReadError::Empty),
            Err(source) => {
                return Err(ReadError::Role {
                    place: "1.root.json".to_owned(),
                    source: RoleError::Read(source),
                });
            }
        };
        let kept = Kept { root: root.into(), ..Kept::default() };
        let mut trusted = Trusted::load(&kept).map_err(ReadError::Root)?;
        // What has expired has to be read to be signed anew.
        let never = jiff::Timestamp::MIN;
        let mut documents = Documents(&*self.backend);
        drive::refresh(&mut trusted, &mut documents, &mut NoKeeper, never)
            .map_err(ReadError::Documents)?;
        let parts = (trusted.targets(), trusted.snapshot(), trusted.timestamp());
        let (Some(targets), Some(snapshot), Some(timestamp)) = parts else {
            return Err(ReadError::Empty);
        };
        let mut state = State {
            root: trusted.root().clone(),
            targets: targets.clone(),
            snapshot: snapshot.clone(),
            timestamp: timestamp.clone(),
            roles: BTreeMap::new(),
            unvouched: BTreeMap::new(),
            orders: BTreeMap::new(),
        };
        self.read_roles(&mut state)?;
        self.read_orders(&mut state)?;
        Ok(state)
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
            self.make_folders(&place)?;
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

    fn make_folders(&self, place: &Path) -> Result<(), WriteError> {
        let mut folders: Vec<&Path> = place.ancestors().skip(1).collect();
        folders.pop();
        for folder in folders.into_iter().rev() {
            let made = self.backend.create_dir(folder);
            let above = folder.parent().unwrap_or(Path::new(""));
            made.and_then(|()| self.backend.sync_dir(above))
                .map_err(|source| failed(folder, source))?;
        }
        Ok(())
    }

    fn read_roles(&self, state: &mut State) -> Result<(), ReadError> {
        for (file, pin) in &state.snapshot.meta {
            let name = file.strip_suffix(".json").and_then(RoleName::delegated);
            let Some(role) = name else { continue };
            let place = role.place(Some(pin.version));
            let failed = |source| ReadError::Role { place: place.clone(), source };
            let bytes = read_file(&*self.backend, &metadata(&place), TARGETS_BYTES_MAX)
                .map_err(|error| failed(RoleError::Read(error)))?;
            let is_pinned = pin.hashes.as_ref().is_none_or(|hashes| hashes.check(&bytes).is_ok());
            if !is_pinned {
                return Err(failed(RoleError::NotPinned));
            }
            let signed = Signed::<Targets>::parse(bytes.into())
                .map_err(|error| failed(RoleError::Parse(error)))?;
            let keys = state.targets.delegations.as_ref().and_then(|all| all.keys_of(&role));
            match keys.map(|keys| signed.verify(&keys)) {
                Some(Ok(believed)) if believed.version() == pin.version => {
                    state.roles.insert(role, believed);
                }
                Some(Ok(_)) => return Err(failed(RoleError::NotPinned)),
                // Its signers were replaced, or it is delegated to no longer.
                None | Some(Err(VerifyError::Threshold { .. })) => {
                    state.unvouched.insert(role, pin.version);
                }
                Some(Err(error)) => return Err(failed(RoleError::Verify(error))),
            }
        }
        Ok(())
    }

    fn read_orders(&self, state: &mut State) -> Result<(), ReadError> {
        let documents: Vec<&Believed<Targets>> =
            state.roles.values().chain([&state.targets]).collect();
        let mut orders = BTreeMap::new();
        for (path, file) in documents.into_iter().flat_map(|document| document.document().files()) {
            if !is_content(&path) {
                let bytes = self.file(&path, file);
                let failed = |source| ReadError::File { path: path.clone(), source };
                orders.insert(path.clone(), bytes.map_err(failed)?);
            }
        }
        state.orders = orders;
        Ok(())
    }
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

/// The documents of a repository as a client asks for them.
struct Documents<'a>(&'a dyn Backend);

impl drive::Repository for Documents<'_> {
    type Error = io::Error;

    fn fetch(&mut self, fetch: &Fetch) -> Result<Answer, io::Error> {
        match read_file(self.0, &metadata(&fetch.place), fetch.bytes_max) {
            Ok(bytes) => Ok(Answer::Document(bytes.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Answer::Absent),
            Err(error) => Err(error),
        }
    }
}

/// Keeps nothing: what is read lies here already.
struct NoKeeper;

impl Keeper for NoKeeper {
    type Error = Infallible;

    fn keep(&mut self, _: Keep) -> Result<(), Infallible> {
        Ok(())
    }

    fn load(&mut self, _: &RoleName) -> Option<Bytes> {
        None
    }
}

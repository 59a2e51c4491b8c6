//! Taking a store: lock, format, index, and what a bad stop left behind.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use super::scan::{self, Leftovers};
use super::standings::Standings;
use super::{Folders, Inner};
use crate::backend::{Backend, Lock, read_file, replace};
use crate::index::Index;
use crate::layout::{self, CONTENTS, DAMAGED, FORMAT, INDEX, LOCK, QUARANTINE};
use crate::quota::{Limits, Quota};

/// The layout of a store that this program makes and reads.
pub const FORMAT_VERSION: u32 = 1;

/// What the format file starts with; the version in decimal and a line feed follow.
const FORMAT_PREFIX: &str = "sutler store ";

/// Bytes that are read of a format file; no version needs more.
const FORMAT_BYTES_MAX: u64 = 64;

/// Why a store was not opened. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is not there and cannot be made, or is no folder.
    #[error("open the store's folder")]
    Folder(#[source] io::Error),
    /// Another process owns the store.
    #[error("the store is in use by another process")]
    Owned,
    /// The folder cannot be written in: it may be read-only.
    #[error("lock the store, which needs a folder that can be written in")]
    Lock(#[source] io::Error),
    /// A later version of the program made it.
    #[error("the store has format {found}; this program reads format {FORMAT_VERSION}")]
    Newer {
        /// The format found.
        found: u32,
    },
    /// It was moved to a folder that has no store: the folder's disk may be missing.
    #[error("find the store that was moved to {}", to.display())]
    Elsewhere {
        /// Where it was moved to.
        to: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// The folder is the target of a move that was interrupted: half a store. Repeat the move.
    #[error("a store is being moved here, and only half of it has come")]
    Moving,
    /// The format file makes no sense. It is not taken for an empty store.
    #[error("the store's format file is damaged")]
    Format,
    /// The disk refused to make one of the store's own files or folders.
    #[error("prepare {}", path.display())]
    Prepare {
        /// Which, below the store's folder.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// The disk refused to say which contents there are.
    #[error("scan {}", path.display())]
    Scan {
        /// The folder, below the store's folder.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
}

impl Inner {
    /// Takes the store on `backend` and finds out what is in it.
    pub(super) fn open(backend: Arc<dyn Backend>, limits: Limits) -> Result<Self, OpenError> {
        let lock = take(&*backend)?;
        prepare(&*backend)?;
        let folders = folders(&*backend)?;
        let leftovers: Leftovers = Arc::new(Mutex::new(Some(Vec::new())));
        let (scanned, found) = (Arc::clone(&backend), Arc::clone(&leftovers));
        let index = Index::open(
            backend.disk_path().map(|path| path.join(INDEX)),
            Box::new(move || scan::rows(&*scanned, &found)),
        );
        let standings = Standings::read(&*backend);
        let inner = Self {
            backend,
            quota: Quota::new(limits),
            index,
            live: Mutex::default(),
            memory: Mutex::default(),
            opening: Default::default(),
            // A kill may have come between a name and its sync.
            folders: Mutex::new(Folders { made: folders, unsynced: true }),
            standings: Mutex::new(standings),
            parts: Mutex::default(),
            barrier: Mutex::default(),
            barriers_failed: AtomicU64::default(),
            _lock: lock,
        };
        inner.sweep();
        inner.find_parts();
        let had = inner.index.summaries().into_iter().map(|(_, summary)| summary.had_bytes);
        inner.quota.found(had.sum());
        // Only now: while contents are in use, a file without a record may be somebody's work.
        for id in super::lock(&leftovers).take().unwrap_or_default() {
            inner.recover(id);
        }
        Ok(inner)
    }

    /// Removes what a process left that died in the middle of an import.
    fn sweep(&self) {
        let quarantine = Path::new(QUARANTINE);
        let names = self.backend.read_dir(quarantine).unwrap_or_default();
        for name in names.iter().filter(|name| layout::is_passing(name)) {
            if let Err(error) = self.backend.remove(&quarantine.join(name)) {
                tracing::warn!(file = name, %error, "left over and not removed");
            }
        }
    }
}

fn take(backend: &dyn Backend) -> Result<Box<dyn Lock>, OpenError> {
    backend.lock(Path::new(LOCK)).map_err(OpenError::Lock)?.ok_or(OpenError::Owned)
}

/// Returns the folders of contents that there are, by first byte of their ids.
fn folders(backend: &dyn Backend) -> Result<BTreeSet<u8>, OpenError> {
    let path = PathBuf::from(CONTENTS);
    match backend.read_dir(&path) {
        Ok(names) => {
            Ok(names.iter().filter_map(|name| u8::from_str_radix(name, 16).ok()).collect())
        }
        Err(source) => Err(OpenError::Scan { path, source }),
    }
}

/// Checks the format, or gives an empty folder one. The format file is made last, so that a folder
/// without one is known to hold nothing that was acknowledged.
fn prepare(backend: &dyn Backend) -> Result<(), OpenError> {
    match check_format(backend) {
        Err(OpenError::Prepare { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
        other => return other,
    }
    for folder in [CONTENTS, DAMAGED, QUARANTINE] {
        backend
            .create_dir(Path::new(folder))
            .map_err(|source| OpenError::Prepare { path: folder.into(), source })?;
    }
    // A format without its folders would be a store that cannot be opened.
    backend
        .sync_dir(Path::new(""))
        .map_err(|source| OpenError::Prepare { path: CONTENTS.into(), source })?;
    replace(backend, Path::new(FORMAT), format_text().as_bytes())
        .map_err(|source| OpenError::Prepare { path: FORMAT.into(), source })
}

/// Returns what the format file of a store says that this program makes.
pub(crate) fn format_text() -> String {
    format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n")
}

/// Checks that the store has the format that this program reads.
pub(crate) fn check_format(backend: &dyn Backend) -> Result<(), OpenError> {
    let bytes = match read_file(backend, Path::new(FORMAT), FORMAT_BYTES_MAX) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(OpenError::Format),
        Err(source) => return Err(OpenError::Prepare { path: FORMAT.into(), source }),
    };
    let version = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.strip_prefix(FORMAT_PREFIX)?.strip_suffix('\n')?.parse().ok());
    match version {
        Some(FORMAT_VERSION) => Ok(()),
        Some(found) if found > FORMAT_VERSION => Err(OpenError::Newer { found }),
        _ => Err(OpenError::Format),
    }
}

//! Taking a store: lock, format, the mark of an unclean stop, and the scan of its records.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use sutler_protocol::ContentId;

use super::{Catalog, Inner};
use crate::backend::{Backend, Lock, Open, read_file};
use crate::layout::{self, CONTENTS, DAMAGED, FORMAT, Kind, LOCK, QUARANTINE, UNCLEAN};
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
        mark_unclean(&*backend)?;
        let inner = Self {
            backend,
            quota: Quota::new(limits),
            catalog: Catalog::default(),
            live: Mutex::default(),
            memory: Mutex::default(),
            opening: Default::default(),
            folders: Mutex::default(),
            barrier: Mutex::default(),
            _lock: lock,
        };
        inner.scan()?;
        Ok(inner)
    }

    /// Fills the catalog from the records, and deals with what an unclean stop left.
    fn scan(&self) -> Result<(), OpenError> {
        for name in self.names(Path::new(CONTENTS))? {
            let Ok(first) = u8::from_str_radix(&name, 16) else { continue };
            super::lock(&self.folders).insert(first);
            let folder = Path::new(CONTENTS).join(&name);
            let mut found: BTreeMap<ContentId, BTreeSet<Kind>> = BTreeMap::new();
            for name in self.names(&folder)? {
                if let Some((id, kind)) = layout::parse(&name)
                    && id.as_bytes()[0] == first
                {
                    found.entry(id).or_default().insert(kind);
                }
            }
            for (id, kinds) in found {
                self.examine(id, &kinds);
            }
        }
        Ok(())
    }

    fn names(&self, folder: &Path) -> Result<Vec<String>, OpenError> {
        self.backend
            .read_dir(folder)
            .map_err(|source| OpenError::Scan { path: folder.to_owned(), source })
    }
}

fn take(backend: &dyn Backend) -> Result<Box<dyn Lock>, OpenError> {
    backend.lock(Path::new(LOCK)).map_err(OpenError::Lock)?.ok_or(OpenError::Owned)
}

/// Checks the format, or gives an empty folder one. The format file is made last, so that a folder
/// without one is known to hold nothing that was acknowledged.
fn prepare(backend: &dyn Backend) -> Result<(), OpenError> {
    match read_file(backend, Path::new(FORMAT), FORMAT_BYTES_MAX) {
        Ok(bytes) => return check_format(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => return Err(OpenError::Format),
        Err(source) => return Err(OpenError::Prepare { path: FORMAT.into(), source }),
    }
    for folder in [CONTENTS, DAMAGED, QUARANTINE] {
        backend
            .create_dir(Path::new(folder))
            .map_err(|source| OpenError::Prepare { path: folder.into(), source })?;
    }
    let text = format!("{FORMAT_PREFIX}{FORMAT_VERSION}\n");
    replace(backend, Path::new(FORMAT), text.as_bytes())
        .map_err(|source| OpenError::Prepare { path: FORMAT.into(), source })
}

fn check_format(bytes: &[u8]) -> Result<(), OpenError> {
    let version = std::str::from_utf8(bytes)
        .ok()
        .and_then(|text| text.strip_prefix(FORMAT_PREFIX)?.strip_suffix('\n')?.parse().ok());
    match version {
        Some(FORMAT_VERSION) => Ok(()),
        Some(found) if found > FORMAT_VERSION => Err(OpenError::Newer { found }),
        _ => Err(OpenError::Format),
    }
}

/// Leaves the mark that is taken away by a clean stop.
fn mark_unclean(backend: &dyn Backend) -> Result<(), OpenError> {
    let path = Path::new(UNCLEAN);
    let refused = |source| OpenError::Prepare { path: path.to_owned(), source };
    match backend.open(path, Open::CreateNew) {
        Ok(_) => backend.sync_dir(Path::new("")).map_err(refused),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(source) => Err(refused(source)),
    }
}

impl Inner {
    /// Takes away the mark of an unclean stop.
    pub(super) fn mark_clean(&self) -> io::Result<()> {
        match self.backend.remove(Path::new(UNCLEAN)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.backend.sync_dir(Path::new("")),
        }
    }
}

/// Puts a file in place, durable and whole: written beside, synced, renamed, folder synced.
pub(crate) fn replace(backend: &dyn Backend, path: &Path, bytes: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("new");
    let file = backend.open(&beside, Open::Create)?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_data()?;
    backend.rename(&beside, path)?;
    backend.sync_dir(path.parent().unwrap_or(Path::new("")))
}

//! Taking a whole content in from outside: from a file of the user's, or from a stream.
//!
//! Bytes are read once, and what is hashed is what is stored: one thread reads and writes, another
//! hashes, a third computes the vendor's digest where one is claimed. They go to a file that nobody
//! serves, which takes its place among the contents by a rename when all of it is known.
//!
//! Invariants:
//! - nothing becomes a content whose bytes were not hashed here;
//! - a file that changes while it is read is refused, by name;
//! - what an interrupted import leaves is removed by the next start.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sutler_protocol::geometry::{CHUNK_BYTES_MIN, TooLong};
use sutler_protocol::{ChunkIndex, Sha256Digest};

use crate::about::About;
use crate::backend::{Open, StoreFile};
use crate::content::{CommitError, Content};
use crate::eviction::Standing;
use crate::hashing::{Digests, PumpError, Want, digests_of, fill, pump};
use crate::layout;
use crate::quota::Reservation;
use crate::store::{CompleteError, CreateError, Inner, Store};

/// Numbers the imports of this process, so that several at once do not meet.
static IMPORTS: AtomicU64 = AtomicU64::new(0);

/// Where an import's bytes come from.
pub enum ImportFrom<'a> {
    /// A file that the caller opened with its own rights.
    File {
        /// The open file; its position is neither used nor moved.
        file: &'a File,
        /// Its name, for errors.
        path: &'a Path,
        /// How its bytes become the store's.
        how: ImportHow,
    },
    /// Bytes of unknown length, up to their end.
    Stream(&'a mut (dyn Read + Send)),
}

/// How a file's bytes become the store's. Where the disk cannot do it, they are copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ImportHow {
    /// Read and write.
    Copy,
    /// Share the blocks until one side changes.
    #[default]
    Reflink,
    /// Share the file. Whoever changes it then changes the store, which notices at the first read
    /// after a start, or when a peer complains; it never writes to such a file.
    HardLink,
}

/// A content that was taken in.
#[derive(Debug)]
pub struct Imported {
    /// The content, complete.
    pub content: Content,
    /// Whether there was anything to store.
    pub novelty: Novelty,
}

/// Whether a content was new to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Novelty {
    /// Its bytes were stored now.
    New,
    /// All of it was there; what is newly said of it was kept.
    Known,
}

/// Why nothing was imported. The store is as before.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source is a folder, a pipe or a device.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The source.
        path: PathBuf,
    },
    /// The source refused.
    #[error("read {}", path.display())]
    Read {
        /// The source.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// Its length or time of change differ between start and end.
    #[error("{} changed while it was read", path.display())]
    Changed {
        /// The source.
        path: PathBuf,
    },
    /// It is longer than a content may be.
    #[error("read {}", path.display())]
    TooLong {
        /// The source.
        path: PathBuf,
        /// How long it is, as far as it was read.
        source: TooLong,
    },
    /// Its bytes are not those that the vendor published.
    #[error("{} has the digest {found}, not {expected}", path.display())]
    Digest {
        /// The source.
        path: PathBuf,
        /// What the vendor published.
        expected: Sha256Digest,
        /// The digest of its bytes.
        found: Sha256Digest,
    },
    /// Everything that may be evicted has been. Retry once a lease is released.
    #[error("make room for {needed_bytes} bytes")]
    Full {
        /// Bytes that are missing.
        needed_bytes: u64,
    },
    /// The store's disk refused.
    #[error("store the bytes of {}", path.display())]
    Write {
        /// The source.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// The bytes are known, but could not be made a content.
    #[error("make a content of {}", path.display())]
    Create {
        /// The source.
        path: PathBuf,
        /// What stood in the way.
        source: Box<CreateError>,
    },
    /// The content could not be made durable.
    #[error("complete the content of {}", path.display())]
    Complete {
        /// The source.
        path: PathBuf,
        /// What stood in the way.
        source: Box<CompleteError>,
    },
}

impl Store {
    /// Takes a content in and makes it complete: durable when this returns.
    ///
    /// A content that is already here is not stored twice; what `about` adds is kept. Where
    /// `about` claims a digest, the bytes have it or nothing is stored.
    ///
    /// # Errors
    ///
    /// [`ImportError`]. Nothing of the source is left in the store then.
    pub fn import(&self, from: ImportFrom<'_>, about: &About) -> Result<Imported, ImportError> {
        let path = from.path().to_owned();
        let imported = self.stage(from, about)?;
        self.complete(std::slice::from_ref(&imported.content))
            .map_err(|source| ImportError::Complete { path, source: Box::new(source) })?;
        Ok(imported)
    }

    /// Takes a content in without making it durable, so that many small ones can share a barrier:
    /// pass them to [`Store::complete`] together, and acknowledge none before that.
    ///
    /// # Errors
    ///
    /// As [`Store::import`].
    pub fn stage(&self, from: ImportFrom<'_>, about: &About) -> Result<Imported, ImportError> {
        let path = from.path().to_owned();
        let want = if about.sha256.is_some() { Want::HashesAndDigest } else { Want::Hashes };
        let intake = Intake { inner: &self.inner, path: &path, want };
        let staged = match from {
            ImportFrom::File { file, path: _, how } => intake.file(file, how)?,
            ImportFrom::Stream(stream) => intake.stream(stream, None)?,
        };
        if let (Some(expected), Some(found)) = (about.sha256, staged.digests.sha256)
            && expected != found
        {
            return Err(ImportError::Digest { path: path.clone(), expected, found });
        }
        self.settle(staged, about, &path)
    }

    /// Makes a content of bytes that were hashed.
    fn settle(
        &self,
        staged: Staged<'_>,
        about: &About,
        path: &Path,
    ) -> Result<Imported, ImportError> {
        let Staged { digests, bytes, reservation } = staged;
        // The content sets its own room aside.
        drop(reservation);
        let content = self.create(digests.hashes, about).map_err(|source| ImportError::Create {
            path: path.to_owned(),
            source: Box::new(source),
        })?;
        let whole = content.0.state().had.is_full();
        let novelty = if whole { Novelty::Known } else { Novelty::New };
        if novelty == Novelty::New {
            let stored = match bytes {
                Bytes::Small(bytes) => {
                    content.commit(ChunkIndex(0), &bytes).map_err(|error| match error {
                        CommitError::Write { source, .. } => source,
                        other => io::Error::other(other),
                    })
                }
                Bytes::File(file) => {
                    file.file.sync_data().and_then(|()| content.0.place(&file.path))
                }
            };
            stored.map_err(|source| ImportError::Write { path: path.to_owned(), source })?;
        }
        if let Some(found) = digests.sha256 {
            content.0.digest_agrees(found);
        }
        Ok(Imported { content, novelty })
    }
}

impl ImportFrom<'_> {
    fn path(&self) -> &Path {
        match self {
            Self::File { path, .. } => path,
            Self::Stream(_) => Path::new("the stream"),
        }
    }
}

/// Bytes that were hashed and belong to no content yet.
struct Staged<'a> {
    digests: Digests,
    bytes: Bytes<'a>,
    reservation: Option<Reservation>,
}

enum Bytes<'a> {
    /// Those of a content of one chunk.
    Small(Vec<u8>),
    File(Intermediate<'a>),
}

/// A file that is removed unless it takes its place among the contents.
struct Intermediate<'a> {
    inner: &'a Inner,
    path: PathBuf,
    file: Box<dyn StoreFile>,
}

impl Drop for Intermediate<'_> {
    fn drop(&mut self) {
        // It is not there if it took its place; what else remains the next start removes.
        drop(self.inner.backend.remove(&self.path));
    }
}

/// One import.
struct Intake<'a> {
    inner: &'a Arc<Inner>,
    path: &'a Path,
    want: Want,
}

impl<'a> Intake<'a> {
    /// Takes in a file, and makes sure that it was the same at the end.
    fn file(&self, file: &File, how: ImportHow) -> Result<Staged<'a>, ImportError> {
        let before = file.metadata().map_err(|source| self.unread(source))?;
        if !before.is_file() {
            return Err(ImportError::NotAFile { path: self.path.to_owned() });
        }
        let shared = match how {
            // Too small to be worth a call of its own.
            _ if before.len() <= CHUNK_BYTES_MIN => None,
            ImportHow::Copy => None,
            ImportHow::Reflink => self.reflinked(file),
            ImportHow::HardLink => self.hard_linked(file).or_else(|| self.reflinked(file)),
        };
        let staged = match shared {
            Some(shared) => self.hashed(shared, before.len())?,
            None => self.stream(&mut FileReader { file, offset: 0 }, Some(before.len()))?,
        };
        let after = file.metadata().map_err(|source| self.unread(source))?;
        if staged.digests.hashes.geometry().len() != before.len() || !same(&before, &after) {
            return Err(ImportError::Changed { path: self.path.to_owned() });
        }
        Ok(staged)
    }

    /// Takes in a stream: a small one into memory, another into a file.
    fn stream(&self, source: &mut dyn Read, len: Option<u64>) -> Result<Staged<'a>, ImportError> {
        let mut start = vec![0; CHUNK_BYTES_MIN as usize + 1];
        let filled = fill(source, &mut start).map_err(|source| self.unread(source))?;
        start.truncate(filled);
        if filled as u64 <= CHUNK_BYTES_MIN {
            let digests = digests_of(&start, self.want).map_err(|source| self.too_long(source))?;
            return Ok(Staged { digests, bytes: Bytes::Small(start), reservation: None });
        }
        // Of a stream no more than what has come: to evict for what might come would be rash.
        let mut reservation = self.reserve(len.unwrap_or(0))?;
        let file = self.intermediate()?;
        let mut source = (&start[..]).chain(source);
        let digests = pump(&mut source, self.want, |block, offset| {
            let end = offset + block.len() as u64;
            if end > reservation.bytes() {
                reservation.absorb(self.reserve(end - reservation.bytes())?);
            }
            file.file.write_all_at(block, offset).map_err(|source| self.unwritten(source))
        });
        let digests = digests.map_err(|error| self.failed(error))?;
        Ok(Staged { digests, bytes: Bytes::File(file), reservation: Some(reservation) })
    }

    /// Hashes a file that has its bytes already.
    fn hashed(&self, file: Intermediate<'a>, len: u64) -> Result<Staged<'a>, ImportError> {
        let reservation = Some(self.reserve(len)?);
        let mut source = StoredReader { file: &*file.file, offset: 0 };
        let digests = pump(&mut source, self.want, |_, _| Ok(()));
        let digests = digests.map_err(|error| self.failed(error))?;
        Ok(Staged { digests, bytes: Bytes::File(file), reservation })
    }

    fn reflinked(&self, source: &File) -> Option<Intermediate<'a>> {
        let made = self.intermediate().ok()?;
        made.file.reflink_from(source).ok()?;
        Some(made)
    }

    /// `None` where the link cannot be made, or the store could not sync such a file.
    fn hard_linked(&self, source: &File) -> Option<Intermediate<'a>> {
        let path = self.unused_path();
        self.inner.backend.link(source, &path).ok()?;
        let opened = self.inner.backend.open(&path, Open::Write);
        if opened.is_err() {
            drop(self.inner.backend.remove(&path));
        }
        Some(Intermediate { inner: self.inner, path, file: opened.ok()? })
    }

    fn intermediate(&self) -> Result<Intermediate<'a>, ImportError> {
        let path = self.unused_path();
        let opened = self.inner.backend.open(&path, Open::CreateNew);
        let file = opened.map_err(|source| self.unwritten(source))?;
        Ok(Intermediate { inner: self.inner, path, file })
    }

    fn unused_path(&self) -> PathBuf {
        let path = layout::import(IMPORTS.fetch_add(1, Ordering::Relaxed));
        // An earlier process with as many imports may have left one that its sweep missed.
        drop(self.inner.backend.remove(&path));
        path
    }

    fn reserve(&self, bytes: u64) -> Result<Reservation, ImportError> {
        self.inner
            .reserve(bytes, Standing::Unreferenced)
            .map_err(|needed_bytes| ImportError::Full { needed_bytes })
    }

    fn failed(&self, error: PumpError<ImportError>) -> ImportError {
        match error {
            PumpError::Read(source) => self.unread(source),
            PumpError::TooLong(source) => self.too_long(source),
            PumpError::Sink(error) => error,
        }
    }

    fn unread(&self, source: io::Error) -> ImportError {
        ImportError::Read { path: self.path.to_owned(), source }
    }

    fn unwritten(&self, source: io::Error) -> ImportError {
        ImportError::Write { path: self.path.to_owned(), source }
    }

    fn too_long(&self, source: TooLong) -> ImportError {
        ImportError::TooLong { path: self.path.to_owned(), source }
    }
}

/// Returns whether a file has the length and the time of change that it had.
fn same(before: &Metadata, after: &Metadata) -> bool {
    let stamp = |of: &Metadata| (of.len(), of.mtime(), of.mtime_nsec());
    stamp(before) == stamp(after)
}

/// Reads a file from its start, wherever its own position is.
struct FileReader<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for FileReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

/// Reads a file of the store from its start.
pub(crate) struct StoredReader<'a> {
    pub(crate) file: &'a dyn StoreFile,
    pub(crate) offset: u64,
}

impl Read for StoredReader<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(into, self.offset)?;
        self.offset += read as u64;
        Ok(read)
    }
}

//! The bytes of contents that have no origin, and the hash list of every content.
//!
//! Always true: a file appears under its name whole, synced, and found to be what was named.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sutler_cache::backend::{Backend, Open, StoreFile, replace};
use sutler_protocol::geometry::TooLong;
use sutler_protocol::manifest::{Check, MismatchError, TargetFile, TargetPath};
use sutler_protocol::{ContentId, Geometry, HashList, HashListBuilder};

use super::{Repository, WriteError, failed, make_folders, target};

/// Bytes that are read and written at a time.
const BLOCK_BYTES: usize = 512 * 1024;

/// Why a content was not put into the repository.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// Its source cannot be read.
    #[error("read the content {content}")]
    Read {
        /// Which.
        content: ContentId,
        /// What its source answered.
        source: io::Error,
    },
    /// The bytes are not those that were named.
    #[error("compare the bytes with what is said of {path}")]
    Mismatch {
        /// Which.
        path: TargetPath,
        /// What differs.
        source: MismatchError,
    },
    /// Its BLAKE3 is another one.
    #[error("the bytes of {path} are the content {found}, not {expected}")]
    Other {
        /// Which.
        path: TargetPath,
        /// What was named.
        expected: ContentId,
        /// What the bytes are.
        found: ContentId,
    },
    /// It is longer than a content may be.
    #[error("hash the content {content}")]
    TooLong {
        /// Which.
        content: ContentId,
        /// How long.
        source: TooLong,
    },
    /// The disk refused.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// A content on its way into a repository: written beside its place, and measured meanwhile. Dropped, it leaves
/// nothing behind.
pub struct Incoming {
    backend: Arc<dyn Backend>,
    path: TargetPath,
    content: ContentId,
    place: PathBuf,
    beside: PathBuf,
    out: Box<dyn StoreFile>,
    length: u64,
    taken_bytes: u64,
    measures: Option<(Check, HashListBuilder)>,
}

impl Incoming {
    /// Begins to take `content` in, which `path` and `file` name. `ending` tells apart those who do at one time.
    ///
    /// # Errors
    ///
    /// [`PutError`].
    pub(crate) fn begin(
        backend: Arc<dyn Backend>,
        (path, file): (&TargetPath, &TargetFile),
        content: ContentId,
        ending: &str,
    ) -> Result<Self, PutError> {
        let mismatch = |source| PutError::Mismatch { path: path.clone(), source };
        let check = Check::new(file.length, &file.hashes).map_err(mismatch)?;
        let place = target(path, file);
        let beside = place.with_extension(ending);
        make_folders(&*backend, &place)?;
        let begin = || {
            let out = backend.open(&beside, Open::Create)?;
            out.set_len(0)?;
            io::Result::Ok(out)
        };
        let out = begin().map_err(|source| failed(&beside, source))?;
        let measures = Some((check, HashListBuilder::new()));
        let (path, length) = (path.clone(), file.length);
        Ok(Self { backend, path, content, place, beside, out, length, taken_bytes: 0, measures })
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// [`PutError`], as soon as it is longer than it may be; it is then to be dropped.
    pub fn take(&mut self, piece: &[u8]) -> Result<(), PutError> {
        let Some((check, hashes)) = &mut self.measures else { return Ok(()) };
        let mismatch = |source| PutError::Mismatch { path: self.path.clone(), source };
        check.update(piece).map_err(mismatch)?;
        hashes.update(piece);
        let written = self.out.write_all_at(piece, self.taken_bytes);
        written.map_err(|source| failed(&self.beside, source))?;
        self.taken_bytes += piece.len() as u64;
        Ok(())
    }

    /// Gives it its place, if all of it has come and is what was named, and keeps its hash list. It is durable then.
    ///
    /// # Errors
    ///
    /// [`PutError`]; nothing of it is then under its name.
    pub fn settle(mut self) -> Result<(), PutError> {
        let Some((check, hashes)) = self.measures.take() else { return Ok(()) };
        let (path, content) = (self.path.clone(), self.content);
        check.finish().map_err(|source| PutError::Mismatch { path: path.clone(), source })?;
        let hashes = hashes.finish().map_err(|source| PutError::TooLong { content, source })?;
        if hashes.id() != content {
            return Err(PutError::Other { path, expected: content, found: hashes.id() });
        }
        put_list(&*self.backend, content, self.length, hashes.as_bytes())?;
        let settle = || {
            self.out.sync_data()?;
            self.backend.rename(&self.beside, &self.place)?;
            self.backend.sync_dir(self.place.parent().unwrap_or(Path::new("")))
        };
        settle().map_err(|source| PutError::Write(failed(&self.place, source)))
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        // In its place there is nothing beside it any more.
        drop(self.backend.remove(&self.beside));
    }
}

impl Repository {
    /// Copies a content from `source`, and keeps its hash list. A content that is here already is read and
    /// checked all the same.
    ///
    /// # Errors
    ///
    /// [`PutError`]; nothing of it is then under its name.
    pub fn put(
        &self,
        path: &TargetPath,
        file: &TargetFile,
        content: ContentId,
        source: &mut dyn Read,
    ) -> Result<(), PutError> {
        let backend = Arc::clone(&self.backend);
        let mut incoming = Incoming::begin(backend, (path, file), content, "new")?;
        let mut block = vec![0; BLOCK_BYTES];
        loop {
            match source.read(&mut block) {
                Ok(0) => return incoming.settle(),
                Ok(read) => incoming.take(&block[..read])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(PutError::Read { content, source }),
            }
        }
    }

    /// Keeps the hash list of a content whose bytes its origins have.
    ///
    /// # Errors
    ///
    /// [`PutError::Write`].
    pub fn put_list(&self, content: ContentId, length: u64, list: &[u8]) -> Result<(), PutError> {
        put_list(&*self.backend, content, length, list)
    }

    /// Returns whether the bytes of a content are here.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub fn has(&self, path: &TargetPath, file: &TargetFile) -> io::Result<bool> {
        has(&*self.backend, path, file)
    }
}

/// Gives a content its place by `make`, which makes a second name of a file that has its bytes, and returns whether that
/// could be done. It is durable then.
pub(crate) fn link(
    backend: &dyn Backend,
    (path, file): (&TargetPath, &TargetFile),
    ending: &str,
    make: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<bool, WriteError> {
    let place = target(path, file);
    let beside = place.with_extension(ending);
    let Some(disk) = backend.disk_path() else { return Ok(false) };
    make_folders(backend, &place)?;
    // Whatever a kill has left there is a name alone.
    drop(backend.remove(&beside));
    if make(&disk.join(&beside)).is_err() {
        return Ok(false);
    }
    let put = || {
        backend.rename(&beside, &place)?;
        backend.sync_dir(place.parent().unwrap_or(Path::new("")))
    };
    put().map(|()| true).map_err(|source| failed(&place, source))
}

/// Keeps a hash list. Of one chunk it is the content's name.
pub(crate) fn put_list(
    backend: &dyn Backend,
    content: ContentId,
    length: u64,
    list: &[u8],
) -> Result<(), PutError> {
    if HashList::of_one_chunk(content, length).is_none() {
        let place = super::list(content);
        replace(backend, &place, list).map_err(|source| failed(&place, source))?;
    }
    Ok(())
}

/// Returns whether the bytes of a content are there.
pub(crate) fn has(backend: &dyn Backend, path: &TargetPath, file: &TargetFile) -> io::Result<bool> {
    is_there(backend, &target(path, file), file.length)
}

/// Returns whether the hash list of a content is there, or needs not be.
pub(crate) fn has_list(backend: &dyn Backend, content: ContentId, length: u64) -> io::Result<bool> {
    if HashList::of_one_chunk(content, length).is_some() {
        return Ok(true);
    }
    let bytes = Geometry::of(length).map_or(0, |geometry| u64::from(geometry.chunks()) * 32);
    is_there(backend, &super::list(content), bytes)
}

fn is_there(backend: &dyn Backend, place: &Path, length: u64) -> io::Result<bool> {
    match backend.open(place, Open::Read) {
        Ok(open) => Ok(open.len()? == length),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

//! The bytes of contents that have no origin, and the hash list of every content.
//!
//! Always true: a file appears under its name whole, synced, and found to be what was named.

use std::io::{self, Read};
use std::path::Path;

use sutler_cache::backend::{Open, replace};
use sutler_protocol::geometry::TooLong;
use sutler_protocol::manifest::{Check, MismatchError, TargetFile, TargetPath};
use sutler_protocol::{ContentId, HashList, HashListBuilder};

use super::{Repository, WriteError, failed, target};

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
        let place = target(path, file);
        let beside = place.with_extension("new");
        let mismatch = |source| PutError::Mismatch { path: path.clone(), source };
        let mut check = Check::new(file.length, &file.hashes).map_err(mismatch)?;
        let mut hashes = HashListBuilder::new();
        self.make_folders(&place)?;
        let begin = || {
            let out = self.backend.open(&beside, Open::Create)?;
            out.set_len(0)?;
            io::Result::Ok(out)
        };
        let out = begin().map_err(|source| failed(&beside, source))?;
        let mut block = vec![0; BLOCK_BYTES];
        let mut offset = 0;
        loop {
            let read = match source.read(&mut block) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(PutError::Read { content, source }),
            };
            check.update(&block[..read]).map_err(mismatch)?;
            hashes.update(&block[..read]);
            out.write_all_at(&block[..read], offset).map_err(|source| failed(&beside, source))?;
            offset += read as u64;
        }
        check.finish().map_err(mismatch)?;
        let hashes = hashes.finish().map_err(|source| PutError::TooLong { content, source })?;
        if hashes.id() != content {
            let (path, found) = (path.clone(), hashes.id());
            return Err(PutError::Other { path, expected: content, found });
        }
        self.put_list(content, file.length, hashes.as_bytes())?;
        let settle = || {
            out.sync_data()?;
            self.backend.rename(&beside, &place)?;
            self.backend.sync_dir(place.parent().unwrap_or(Path::new("")))
        };
        settle().map_err(|source| failed(&place, source))?;
        Ok(())
    }

    /// Keeps the hash list of a content whose bytes its origins have.
    ///
    /// # Errors
    ///
    /// [`PutError::Write`].
    pub fn put_list(&self, content: ContentId, length: u64, list: &[u8]) -> Result<(), PutError> {
        // Of one chunk the list is its name.
        if HashList::of_one_chunk(content, length).is_none() {
            let place = super::list(content);
            replace(&*self.backend, &place, list).map_err(|source| failed(&place, source))?;
        }
        Ok(())
    }

    /// Returns whether the bytes of a content are here.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub fn has(&self, path: &TargetPath, file: &TargetFile) -> io::Result<bool> {
        match self.backend.open(&target(path, file), Open::Read) {
            Ok(open) => Ok(open.len()? == file.length),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

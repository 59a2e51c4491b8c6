//! Putting a whole file in the place of a content's data, and parting from a file that is shared.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use sutler_protocol::{ChunkRanges, Sha256Digest};

use super::Shared;
use crate::backend::{Open, StoreFile};
use crate::hashing::BLOCK_BYTES;
use crate::layout::{self, Kind};
use crate::record::DigestCheck;

impl Shared {
    /// Makes the file `from`, whose every byte was verified and synced, the content's data. All of
    /// the content is then had; the next slot says so.
    ///
    /// # Errors
    ///
    /// What the disk answered. The content is then as before.
    pub(crate) fn place(&self, from: &Path) -> io::Result<()> {
        // No slot is written meanwhile: what is unsynced of the old file ends here.
        let _slots = self.slots();
        self.store.make_folder(self.id())?;
        self.store.backend.rename(from, &layout::file(self.id(), Kind::Data))?;
        self.store.backend.sync_dir(&layout::folder(self.id()))?;
        self.store.sync_folders()?;
        // Before any chunk is had by the new file: who reads one asks for the file afterwards.
        *self.data.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let mut state = self.state();
        for chunk in state.had.complement().iter() {
            let place = self.geometry().chunk(chunk);
            state.gain(chunk, place.end - place.start, &self.store);
        }
        let chunks = self.geometry().chunks();
        state.trusted = ChunkRanges::full(chunks);
        state.unsynced = ChunkRanges::empty(chunks);
        state.unsynced_bytes = 0;
        state.unsynced_since = None;
        state.data_made = true;
        state.changed = true;
        Ok(())
    }

    /// Gives up the content's bytes, and returns how many there were. It stays known, and nothing
    /// of it is had. The caller has taken it out of everybody's reach.
    ///
    /// # Errors
    ///
    /// The first thing that the disk refused; the rest is done as far as it goes.
    pub(crate) fn vacate(&self) -> io::Result<u64> {
        let mut slots = self.slots();
        let bytes = self.lose_all();
        // The record first: one that says more than the data file holds is found out, but costs a
        // warning.
        let written = match &mut *slots {
            Some(slots) => self.write_slot(slots, super::Standing::Partial),
            None => Ok(()),
        };
        *self.data.lock().unwrap_or_else(PoisonError::into_inner) = None;
        let removed = match self.store.backend.remove(&layout::file(self.id(), Kind::Data)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => self.store.backend.sync_dir(&layout::folder(self.id())),
        };
        written.and(removed).map(|()| bytes)
    }

    /// Counts all of the content as lacking and its room as free, and returns how many bytes were
    /// had.
    pub(crate) fn lose_all(&self) -> u64 {
        let mut state = self.state();
        let bytes = self.bytes_of(&state.had);
        // Nothing is being fetched that it would be kept for.
        state.reservation = None;
        for chunk in state.had.clone().iter() {
            let place = self.geometry().chunk(chunk);
            state.lose(chunk, place.end - place.start, &self.store);
        }
        state.data_made = false;
        bytes
    }

    /// Notes that all of the content's bytes were seen to have this digest.
    pub(crate) fn digest_agrees(&self, found: Sha256Digest) {
        let mut state = self.state();
        if state.about.sha256 == Some(found) && state.sha256 != DigestCheck::Agrees {
            state.sha256 = DigestCheck::Agrees;
            state.changed = true;
        }
    }

    /// Returns the chunks that are not trusted: those that were not hashed since the start.
    pub(crate) fn doubtful(&self) -> ChunkRanges {
        self.state().trusted.complement()
    }

    /// Returns the data file of a content of several chunks, which exists and is nobody else's:
    /// what is a hard link to a user's file is copied before it is written to.
    pub(super) fn data_to_write(&self) -> io::Result<Arc<dyn StoreFile>> {
        let path = layout::file(self.id(), Kind::Data);
        let mut data = self.data.lock().unwrap_or_else(PoisonError::into_inner);
        let open = || self.store.backend.open(&path, Open::Write).map(Arc::from);
        let mut file: Arc<dyn StoreFile> = match &*data {
            Some(file) => Arc::clone(file),
            None => open()?,
        };
        if is_linked(&*file) {
            self.part_from(&*file, &path)?;
            file = open()?;
        }
        *data = Some(Arc::clone(&file));
        Ok(file)
    }

    /// Replaces a file by a copy of it. Holes stay holes.
    fn part_from(&self, file: &dyn StoreFile, path: &Path) -> io::Result<()> {
        let backend = &*self.store.backend;
        let beside = layout::parted(self.id());
        let copy = backend.open(&beside, Open::Create)?;
        copy.set_len(0)?;
        copy.set_len(self.geometry().len())?;
        let mut buffer = vec![0; BLOCK_BYTES];
        for range in file.data_ranges(0..self.geometry().len())? {
            let mut offset = range.start;
            while offset < range.end {
                let count = (range.end - offset).min(BLOCK_BYTES as u64) as usize;
                let read = file.read_at(&mut buffer[..count], offset)?;
                if read == 0 {
                    break;
                }
                copy.write_all_at(&buffer[..read], offset)?;
                offset += read as u64;
            }
        }
        copy.sync_data()?;
        backend.rename(&beside, path)?;
        backend.sync_dir(&layout::folder(self.id()))
    }
}

/// Returns whether a file has another name, outside the store perhaps.
pub(crate) fn is_linked(file: &dyn StoreFile) -> bool {
    let metadata = file.disk_file().and_then(|file| file.metadata().ok());
    metadata.is_some_and(|metadata| metadata.nlink() > 1)
}

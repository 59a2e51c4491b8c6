//! Taking in what a source sent: verify, write, then say that it is had.

use std::io;

use sutler_protocol::{ChunkIndex, ChunkRange, ContentId, HashList};

use super::{Content, Shared, is_linked};
use crate::backend::Open;
use crate::layout::{self, Kind};

/// Why received chunks were not committed to the store.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    /// The bytes do not match the hash list. Those before this chunk are committed.
    #[error("verify chunk {chunk} of {content}")]
    Corrupt {
        /// The content.
        content: ContentId,
        /// The first chunk that is wrong.
        chunk: ChunkIndex,
    },
    /// The bytes are no whole chunks of the content: the caller is wrong, not a peer.
    #[error("{bytes} bytes from chunk {first} on are no whole chunks of {content}")]
    Ragged {
        /// The content.
        content: ContentId,
        /// Where the bytes were to start.
        first: ChunkIndex,
        /// How many there were.
        bytes: usize,
    },
    /// Everything that may be evicted has been, or others have filled the disk. Retry once a lease
    /// is released.
    #[error("make room for {needed_bytes} bytes")]
    Full {
        /// Bytes that are missing.
        needed_bytes: u64,
    },
    /// The disk refused. What was committed before stays.
    #[error("write chunk {chunk} of {content}")]
    Write {
        /// The content.
        content: ContentId,
        /// The first chunk that was to be written.
        chunk: ChunkIndex,
        /// What the disk answered.
        source: io::Error,
    },
}

/// A content of one chunk, all of whose bytes were verified.
#[derive(Debug)]
pub struct Single {
    hashes: HashList,
    bytes: Vec<u8>,
}

impl Single {
    /// Verifies `bytes` as the whole of a content; `None` if they are not, or are more than a chunk.
    pub fn verify(content: ContentId, bytes: Vec<u8>) -> Option<Self> {
        let hashes = HashList::of_one_chunk(content, bytes.len() as u64)?;
        hashes.vouches_for(ChunkIndex(0), &bytes).then_some(Self { hashes, bytes })
    }

    /// Returns its hash list.
    pub const fn hashes(&self) -> &HashList {
        &self.hashes
    }
}

impl Content {
    /// Verifies `bytes` as the whole chunks from `first` on, and writes them at once.
    ///
    /// Several threads may do so at the same time. Chunks that are already had are written again,
    /// harmlessly. Durable after the next [`Content::checkpoint`], or [`crate::Store::complete`].
    ///
    /// # Errors
    ///
    /// [`CommitError`]. On [`CommitError::Corrupt`] the chunks before the wrong one are committed,
    /// and it and those after it are not.
    pub fn commit(&self, first: ChunkIndex, bytes: &[u8]) -> Result<(), CommitError> {
        let shared = &*self.0;
        let content = shared.id();
        let ragged = || CommitError::Ragged { content, first, bytes: bytes.len() };
        let run = shared.run(first, bytes.len() as u64).ok_or_else(ragged)?;
        let good = shared.verified(run, bytes);
        if let Some(good) = good {
            let place = shared.geometry().bytes(good);
            shared.take_in(good, &bytes[..(place.end - place.start) as usize])?;
        }
        let chunk = good.map_or(first, |good| good.end());
        if chunk < run.end() {
            return Err(CommitError::Corrupt { content, chunk });
        }
        Ok(())
    }

    /// Writes a content that was verified already. Otherwise as [`Content::commit`].
    ///
    /// # Errors
    ///
    /// [`CommitError`]; [`CommitError::Ragged`] if `single` is another content.
    pub fn commit_single(&self, single: &Single) -> Result<(), CommitError> {
        let (shared, first) = (&*self.0, ChunkIndex(0));
        let (content, bytes) = (shared.id(), single.bytes.len());
        let run = shared.run(first, bytes as u64).filter(|_| single.hashes.id() == content);
        let run = run.ok_or(CommitError::Ragged { content, first, bytes })?;
        shared.take_in(run, &single.bytes)
    }
}

impl Shared {
    /// Returns the run of whole chunks that `bytes` bytes from `first` on are.
    fn run(&self, first: ChunkIndex, bytes: u64) -> Option<ChunkRange> {
        let geometry = self.geometry();
        if first > geometry.last() {
            return None;
        }
        let count = bytes.div_ceil(geometry.chunk_bytes()).max(1);
        let end = u64::from(first.0) + count;
        if end > u64::from(geometry.chunks()) {
            return None;
        }
        let run = ChunkRange::new(first, ChunkIndex(end as u32))?;
        let place = geometry.bytes(run);
        (place.end - place.start == bytes).then_some(run)
    }

    /// Returns the chunks from the start of `run` that the hash list vouches for.
    fn verified(&self, run: ChunkRange, bytes: &[u8]) -> Option<ChunkRange> {
        let start = self.geometry().bytes(run).start;
        let wrong = run.iter().find(|chunk| {
            let place = self.geometry().chunk(*chunk);
            let bytes = &bytes[(place.start - start) as usize..(place.end - start) as usize];
            !self.hashes.vouches_for(*chunk, bytes)
        });
        ChunkRange::new(run.start(), wrong.unwrap_or(run.end()))
    }

    /// Writes chunks that were verified, and counts them as had.
    fn take_in(&self, run: ChunkRange, bytes: &[u8]) -> Result<(), CommitError> {
        self.reserve_rest()?;
        let written = self.write(self.geometry().bytes(run).start, bytes);
        let (content, chunk) = (self.id(), run.start());
        written.map_err(|source| CommitError::Write { content, chunk, source })?;
        let mut state = self.state();
        for chunk in run.iter() {
            let place = self.geometry().chunk(chunk);
            state.gain(chunk, place.end - place.start, &self.store);
        }
        Ok(())
    }

    /// Sets room aside for what is not had, unless that was done.
    fn reserve_rest(&self) -> Result<(), CommitError> {
        let lacking = {
            let state = self.state();
            if state.reservation.is_some() {
                return Ok(());
            }
            self.geometry().len() - self.bytes_of(&state.had)
        };
        let reserved = self.store.reserve(lacking, self.store.standing(self.id()));
        let reservation = reserved.map_err(|needed_bytes| CommitError::Full { needed_bytes })?;
        // Where another thread was faster, this one's is given back.
        self.state().reservation.get_or_insert(reservation);
        Ok(())
    }

    /// Writes verified bytes, making the data file if there is none.
    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.is_small() {
            return self.write_small(bytes);
        }
        if !self.state().data_made {
            self.make_data()?;
        }
        self.data_to_write()?.write_all_at(bytes, offset)
    }

    /// Makes the data file of a content of several chunks, with its length and nothing in it.
    ///
    /// # Errors
    ///
    /// What the disk answered.
    pub(crate) fn make_data(&self) -> io::Result<()> {
        self.store.make_folder(self.id())?;
        let path = layout::file(self.id(), Kind::Data);
        let file = self.store.backend.open(&path, Open::Create)?;
        file.set_len(self.geometry().len())?;
        file.sync_data()?;
        self.store.sync_folders()?;
        self.store.backend.sync_dir(&layout::folder(self.id()))?;
        self.state().data_made = true;
        Ok(())
    }

    /// Writes all of a small content in the fewest calls. Its name becomes durable with the group.
    fn write_small(&self, bytes: &[u8]) -> io::Result<()> {
        self.state().barriers_failed = self.store.barriers_failed();
        self.store.make_folder(self.id())?;
        let path = layout::file(self.id(), Kind::Data);
        let file = match self.store.backend.open(&path, Open::CreateNew) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let mut file = self.store.backend.open(&path, Open::Write)?;
                if is_linked(&*file) {
                    // Somebody else's too: leave it to them.
                    self.store.backend.remove(&path)?;
                    file = self.store.backend.open(&path, Open::CreateNew)?;
                }
                file.set_len(bytes.len() as u64)?;
                file
            }
            other => other?,
        };
        if !bytes.is_empty() {
            file.write_all_at(bytes, 0)?;
        }
        self.state().data_made = true;
        Ok(())
    }
}

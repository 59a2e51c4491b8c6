//! Giving bytes out: each chunk is hashed at its first read after a start, then trusted.

use std::io;
use std::ops::Range;

use sutler_protocol::ranges::RangeError;
use sutler_protocol::{ChunkIndex, ChunkRange, ContentId};

use super::checkpoint::Standing;
use super::{Content, Shared};
use crate::backend::StoreFile;
use crate::record::RecordError;

/// Why bytes were not given out, or a content was not opened.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The content has no such bytes.
    #[error("read {content}")]
    Range {
        /// The content.
        content: ContentId,
        /// What is wrong with the range.
        source: RangeError,
    },
    /// The buffer's size is not the range's: the caller is wrong.
    #[error("a buffer of {found} bytes for {expected} bytes of {content}")]
    Buffer {
        /// The content.
        content: ContentId,
        /// Bytes asked for.
        expected: u64,
        /// Bytes in the buffer.
        found: usize,
    },
    /// Some of it is not had.
    #[error("chunk {chunk} of {content} is not here")]
    Absent {
        /// The content.
        content: ContentId,
        /// The first chunk that is lacking.
        chunk: ChunkIndex,
    },
    /// The disk gave wrong bytes or none. The chunk counts as lacking now and is to be fetched
    /// again.
    #[error("chunk {chunk} of {content} has gone bad on the disk")]
    Corrupt {
        /// The content.
        content: ContentId,
        /// The chunk that went bad.
        chunk: ChunkIndex,
    },
    /// The content's record is of no use, and neither could it be rebuilt.
    #[error("open {content}")]
    Record {
        /// The content.
        content: ContentId,
        /// What is wrong with it.
        source: RecordError,
    },
    /// The disk refused.
    #[error("read {content}")]
    Read {
        /// The content.
        content: ContentId,
        /// What it answered.
        source: io::Error,
    },
}

impl Content {
    /// Fills `into` with the bytes at `bytes`, every one of them verified.
    ///
    /// # Errors
    ///
    /// [`ReadError`]. On [`ReadError::Corrupt`] the chunk has been put down as lacking; `into` then
    /// holds nothing to be used.
    pub fn read(&self, bytes: Range<u64>, into: &mut [u8]) -> Result<(), ReadError> {
        let shared = &*self.0;
        let content = shared.id();
        if bytes.is_empty() && bytes.start <= shared.geometry().len() && into.is_empty() {
            return Ok(());
        }
        let run = ChunkRange::covering(bytes.clone(), shared.geometry())
            .map_err(|source| ReadError::Range { content, source })?;
        let expected = bytes.end - bytes.start;
        if into.len() as u64 != expected {
            return Err(ReadError::Buffer { content, expected, found: into.len() });
        }
        let doubted = shared.doubted(run)?;
        let data = shared.data().map_err(|source| shared.gone_bad(run, source))?;
        data.read_exact_at(into, bytes.start).map_err(|source| shared.gone_bad(run, source))?;
        shared.hash_doubted(&doubted, &*data, bytes.start, into)
    }

    /// Hashes a chunk as the disk has it now, and returns whether it is right. If it is not, or is
    /// not here, it counts as lacking: what to do when a peer reports a mismatch.
    ///
    /// # Errors
    ///
    /// None yet: a disk that refuses is a chunk that is not right.
    pub fn recheck(&self, chunk: ChunkIndex) -> Result<bool, ReadError> {
        let shared = &*self.0;
        if !shared.state().had.contains(chunk) {
            return Ok(false);
        }
        let mut buffer = Vec::new();
        let good = shared
            .data()
            .and_then(|data| shared.read_chunk(&*data, chunk, &mut buffer))
            .is_ok_and(|()| shared.hashes.vouches_for(chunk, &buffer));
        if good {
            shared.trust(chunk);
        } else {
            shared.put_down(&[chunk]);
        }
        Ok(good)
    }
}

impl Shared {
    /// Returns the chunks of `run` that are to be hashed before their bytes go out.
    fn doubted(&self, run: ChunkRange) -> Result<Vec<ChunkIndex>, ReadError> {
        let state = self.state();
        match run.iter().find(|chunk| !state.had.contains(*chunk)) {
            Some(chunk) => Err(ReadError::Absent { content: self.id(), chunk }),
            None => Ok(run.iter().filter(|chunk| !state.trusted.contains(*chunk)).collect()),
        }
    }

    /// Hashes the doubted chunks: in place where `into`, read from `start` on, has all of one, and
    /// from the disk where it has a part, which is then replaced by what was hashed.
    fn hash_doubted(
        &self,
        doubted: &[ChunkIndex],
        data: &dyn StoreFile,
        start: u64,
        into: &mut [u8],
    ) -> Result<(), ReadError> {
        let end = start + into.len() as u64;
        let mut buffer = Vec::new();
        for chunk in doubted.iter().copied() {
            let place = self.geometry().chunk(chunk);
            let good = if place.start >= start && place.end <= end {
                let whole = &into[(place.start - start) as usize..(place.end - start) as usize];
                self.hashes.vouches_for(chunk, whole)
            } else {
                let read = self.read_chunk(data, chunk, &mut buffer);
                let good = read.is_ok() && self.hashes.vouches_for(chunk, &buffer);
                if good {
                    let (from, to) = (place.start.max(start), place.end.min(end));
                    into[(from - start) as usize..(to - start) as usize].copy_from_slice(
                        &buffer[(from - place.start) as usize..(to - place.start) as usize],
                    );
                }
                good
            };
            if !good {
                self.put_down(&[chunk]);
                return Err(ReadError::Corrupt { content: self.id(), chunk });
            }
            self.trust(chunk);
        }
        Ok(())
    }

    /// Reads one whole chunk, whatever is thought of it.
    pub(super) fn read_chunk(
        &self,
        data: &dyn StoreFile,
        chunk: ChunkIndex,
        buffer: &mut Vec<u8>,
    ) -> io::Result<()> {
        let place = self.geometry().chunk(chunk);
        buffer.resize((place.end - place.start) as usize, 0);
        data.read_exact_at(buffer, place.start)
    }

    /// Finds out which chunks of a run the disk no longer gives, and puts them down as lacking.
    /// If there are none, the disk failed for once, with `source`.
    fn gone_bad(&self, run: ChunkRange, source: io::Error) -> ReadError {
        let data = self.data().ok();
        let mut buffer = Vec::new();
        let bad: Vec<ChunkIndex> = run
            .iter()
            .filter(|chunk| {
                !data.as_ref().is_some_and(|data| {
                    self.read_chunk(&**data, *chunk, &mut buffer).is_ok()
                        && self.hashes.vouches_for(*chunk, &buffer)
                })
            })
            .collect();
        self.put_down(&bad);
        match bad.first() {
            Some(chunk) => ReadError::Corrupt { content: self.id(), chunk: *chunk },
            None => ReadError::Read { content: self.id(), source },
        }
    }

    fn trust(&self, chunk: ChunkIndex) {
        let mut state = self.state();
        if state.had.contains(chunk) {
            state.trusted.insert(chunk);
        }
    }

    /// Counts chunks as lacking and writes that down at once, so that no later start believes in
    /// them. Where that fails the next start finds out by itself, at the first read.
    pub(crate) fn put_down(&self, chunks: &[ChunkIndex]) {
        if chunks.is_empty() {
            return;
        }
        {
            let mut state = self.state();
            for chunk in chunks {
                let place = self.geometry().chunk(*chunk);
                state.lose(*chunk, place.end - place.start, &self.store);
            }
        }
        tracing::warn!(content.id = %self.id(), chunks = chunks.len(), "chunks went bad on the disk");
        let mut slots = self.slots();
        let written = match &mut *slots {
            Some(slots) => self.write_slot(slots, Standing::Partial),
            None => Ok(()),
        };
        if let Err(error) = written {
            tracing::warn!(content.id = %self.id(), %error, "record not written");
        }
    }
}

//! Chunks of which a part had come when their request ended: what came is kept, and the next
//! request for such a chunk asks for the rest.
//!
//! Nobody can vouch for a part of a chunk. Where a chunk that was put together of several sources
//! does not verify, any of them may have sent the wrong bytes; so nobody is blamed, and from then
//! on that chunk is fetched whole from one source.

use std::collections::{BTreeMap, BTreeSet};

use super::{Fetch, RequestId, SourceId};
use crate::geometry::ChunkIndex;

/// Bytes of parts that are kept, at most: as many as the largest chunk has, so that one part can
/// always be kept. They lie in memory.
pub const PARTIAL_BYTES_MAX: u64 = 16 << 20;

/// The first bytes of a chunk, and who sent them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partial {
    chunk: ChunkIndex,
    bytes: Vec<u8>,
    /// Who sent how many of them, in this order, as far as a fetch has been told.
    from: Vec<(SourceId, u64)>,
}

/// The parts that are kept.
#[derive(Debug, Default)]
pub(super) struct Partials {
    kept: BTreeMap<ChunkIndex, Partial>,
    kept_bytes: u64,
    /// Chunks that did not verify when they were put together of several sources.
    whole: BTreeSet<ChunkIndex>,
}

impl Partial {
    /// Returns the part that these bytes are, the first of a chunk.
    pub const fn new(chunk: ChunkIndex, bytes: Vec<u8>) -> Self {
        Self { chunk, bytes, from: Vec::new() }
    }

    /// Returns which chunk it is a part of.
    pub const fn chunk(&self) -> ChunkIndex {
        self.chunk
    }

    /// Returns its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Returns its bytes as a buffer to be filled up.
    pub const fn bytes_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Returns its bytes, for who has all of the chunk.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Returns who sent how many of its bytes.
    pub(super) fn from(&self) -> &[(SourceId, u64)] {
        &self.from
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Counts what is not yet anybody's as sent by `source`.
    fn attribute(&mut self, source: SourceId) {
        let known: u64 = self.from.iter().map(|(_, bytes)| bytes).sum();
        if let Some(sent) = self.len().checked_sub(known).filter(|sent| *sent > 0) {
            self.from.push((source, sent));
        }
    }
}

impl Partials {
    /// Returns whether the first bytes of a chunk are kept.
    pub(super) fn contains(&self, chunk: ChunkIndex) -> bool {
        self.kept.contains_key(&chunk)
    }

    pub(super) fn take(&mut self, chunk: ChunkIndex) -> Option<Partial> {
        let partial = self.kept.remove(&chunk)?;
        self.kept_bytes -= partial.len();
        Some(partial)
    }

    /// Keeps the longer of two parts of a chunk, if there is room; returns what is given up.
    fn keep(&mut self, partial: Partial) -> Option<Partial> {
        let chunk = partial.chunk;
        let before = self.kept.get(&chunk).map_or(0, Partial::len);
        let kept_bytes = self.kept_bytes - before + partial.len();
        if before >= partial.len() || kept_bytes > PARTIAL_BYTES_MAX {
            return Some(partial);
        }
        self.kept_bytes = kept_bytes;
        self.kept.insert(chunk, partial)
    }
}

impl Fetch {
    /// Takes note of the part of a chunk that `source` had sent when a request to it ended.
    ///
    /// To be called before [`Fetch::handle_end`], or on [`super::Event::Cancel`], so that the next
    /// request can ask for the rest.
    pub fn handle_partial(&mut self, source: SourceId, mut partial: Partial) {
        partial.attribute(source);
        let chunk = partial.chunk;
        let is_trusted = |(source, _): &(SourceId, u64)| {
            self.sources.get(source).is_some_and(|source| source.bad_chunks.is_empty())
        };
        let is_of_use = partial.len() > 0
            && partial.len() < self.chunk_len(chunk)
            && self.missing.contains(chunk)
            && !self.partials.whole.contains(&chunk)
            && partial.from.iter().all(is_trusted);
        let given_up = if is_of_use { self.partials.keep(partial) } else { Some(partial) };
        if let Some(partial) = given_up {
            self.credit(&partial.from, false);
        }
    }

    /// Returns the part that a request goes on from, for whoever receives the answer. To be called
    /// once, after [`Fetch::poll_ask`] has said that bytes are to be skipped.
    pub fn take_partial(&mut self, id: RequestId) -> Option<Partial> {
        self.requests.get_mut(&id)?.goes_on_from.take()
    }

    /// Counts who sent the parts of a chunk that was stored, or that came to nothing.
    pub(super) fn credit(&mut self, from: &[(SourceId, u64)], is_fresh: bool) {
        for (id, bytes) in from {
            if let Some(source) = self.sources.get_mut(id) {
                source.credit(*bytes, is_fresh);
            }
        }
    }

    /// Has a chunk fetched whole from now on: it was put together, and did not verify.
    pub(super) fn fetch_whole(&mut self, chunk: ChunkIndex) {
        self.partials.whole.insert(chunk);
        self.drop_partial(chunk);
    }

    /// Gives up what is kept of a chunk.
    pub(super) fn drop_partial(&mut self, chunk: ChunkIndex) {
        if let Some(partial) = self.partials.take(chunk) {
            self.credit(&partial.from, false);
        }
    }

    /// Gives up what is kept that a source has sent some of: it was caught with wrong bytes.
    pub(super) fn drop_partials_of(&mut self, source: SourceId) {
        let is_of = |partial: &&Partial| partial.from.iter().any(|(from, _)| *from == source);
        let chunks: Vec<ChunkIndex> =
            self.partials.kept.values().filter(is_of).map(Partial::chunk).collect();
        for chunk in chunks {
            self.drop_partial(chunk);
        }
    }
}

#[cfg(test)]
mod tests;

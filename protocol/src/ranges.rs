//! Which chunks: one run of them, and a set of them.
//!
//! Positions count *chunks*, never bytes, because a chunk is the least that a hash can vouch for.

use std::fmt;
use std::ops::Range;

use crate::geometry::{CHUNKS_MAX, ChunkIndex, Geometry};

/// A non-empty, half-open run of chunks of one content: `start` is in, `end` is not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkRange {
    start: u32,
    end: u32,
}

/// Why byte positions are covered by no run of chunks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    /// No bytes were asked for.
    #[error("an empty byte range covers no chunk")]
    Empty,
    /// The range reaches beyond the content.
    #[error("byte {end} lies beyond the content's {len} bytes")]
    PastEnd {
        /// The end that was asked for, in bytes.
        end: u64,
        /// The content's length, in bytes.
        len: u64,
    },
}

impl ChunkRange {
    /// Returns the run from `start` up to and without `end`, or `None` if that is empty.
    pub const fn new(start: ChunkIndex, end: ChunkIndex) -> Option<Self> {
        if start.0 < end.0 { Some(Self { start: start.0, end: end.0 }) } else { None }
    }

    /// Returns the run of the first `count` chunks, or `None` if `count` is 0.
    pub const fn first(count: u32) -> Option<Self> {
        Self::new(ChunkIndex(0), ChunkIndex(count))
    }

    /// Returns the run of one chunk. The index is below [`CHUNKS_MAX`], so that its end exists.
    pub const fn one(index: ChunkIndex) -> Self {
        Self { start: index.0, end: index.0 + 1 }
    }

    /// Returns the smallest run that covers `bytes`.
    ///
    /// # Errors
    ///
    /// [`RangeError::Empty`] if `bytes` is empty, [`RangeError::PastEnd`] if it reaches beyond the
    /// content.
    pub fn covering(bytes: Range<u64>, geometry: Geometry) -> Result<Self, RangeError> {
        if bytes.is_empty() {
            return Err(RangeError::Empty);
        }
        if bytes.end > geometry.len() {
            return Err(RangeError::PastEnd { end: bytes.end, len: geometry.len() });
        }
        Ok(Self {
            start: (bytes.start / geometry.chunk_bytes()) as u32,
            end: bytes.end.div_ceil(geometry.chunk_bytes()) as u32,
        })
    }

    /// Returns the first chunk.
    pub const fn start(&self) -> ChunkIndex {
        ChunkIndex(self.start)
    }

    /// Returns the chunk after the last.
    pub const fn end(&self) -> ChunkIndex {
        ChunkIndex(self.end)
    }

    /// Returns the last chunk.
    pub const fn last(&self) -> ChunkIndex {
        ChunkIndex(self.end - 1)
    }

    /// Returns the number of chunks, at least 1.
    pub const fn count(&self) -> u32 {
        self.end - self.start
    }

    /// Returns whether the chunk is in the run.
    pub const fn contains(&self, index: ChunkIndex) -> bool {
        self.start <= index.0 && index.0 < self.end
    }

    /// Returns the chunks in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = ChunkIndex> + use<> {
        (self.start..self.end).map(ChunkIndex)
    }
}

impl fmt::Debug for ChunkRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl fmt::Display for ChunkRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// A set of chunks of one content of a known number of chunks.
///
/// Kept as a bitmap, because chunks arrive in any order: 2 KiB for the largest content.
#[derive(Clone, PartialEq, Eq)]
pub struct ChunkRanges {
    words: Vec<u64>,
    chunks: u32,
    present: u32,
}

/// Why bytes are no bitmap of a content's chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a bitmap of {chunks} chunks has {expected} bytes and no bit beyond them")]
pub struct BitmapError {
    /// Chunks in the content.
    pub chunks: u32,
    /// Bytes that its bitmap has.
    pub expected: usize,
}

impl ChunkRanges {
    /// Returns the empty set over `chunks` chunks.
    ///
    /// # Panics
    ///
    /// If `chunks` exceeds [`CHUNKS_MAX`]; a [`Geometry`] never has more.
    pub fn empty(chunks: u32) -> Self {
        assert!(chunks <= CHUNKS_MAX, "a geometry has at most {CHUNKS_MAX} chunks");
        Self { words: vec![0; chunks.div_ceil(64) as usize], chunks, present: 0 }
    }

    /// Returns the set of all of `chunks` chunks.
    pub fn full(chunks: u32) -> Self {
        let mut set = Self::empty(chunks);
        if let Some(all) = ChunkRange::first(chunks) {
            set.insert_range(all);
        }
        set
    }

    /// Reads the bitmap form: chunk `i` is bit `i % 8` (least significant first) of byte `i / 8`.
    ///
    /// # Errors
    ///
    /// [`BitmapError`] unless there are exactly as many bytes as `chunks` need, with no bit set
    /// beyond the last chunk.
    pub fn from_bitmap(chunks: u32, bitmap: &[u8]) -> Result<Self, BitmapError> {
        let expected = Self::bitmap_bytes(chunks);
        let mut set = Self::empty(chunks.min(CHUNKS_MAX));
        if chunks > CHUNKS_MAX || bitmap.len() != expected {
            return Err(BitmapError { chunks, expected });
        }
        for (position, byte) in bitmap.iter().enumerate() {
            set.words[position / 8] |= u64::from(*byte) << (position % 8 * 8);
        }
        let beyond = chunks % 64;
        if beyond != 0 && set.words.last().is_some_and(|last| last >> beyond != 0) {
            return Err(BitmapError { chunks, expected });
        }
        set.present = set.words.iter().map(|word| word.count_ones()).sum();
        Ok(set)
    }

    /// Returns the bitmap form, [`Self::bitmap_bytes`] long.
    pub fn to_bitmap(&self) -> Vec<u8> {
        let mut bitmap: Vec<u8> = self.words.iter().flat_map(|word| word.to_le_bytes()).collect();
        bitmap.truncate(Self::bitmap_bytes(self.chunks));
        bitmap
    }

    /// Returns the bytes in the bitmap of `chunks` chunks.
    pub const fn bitmap_bytes(chunks: u32) -> usize {
        chunks.div_ceil(8) as usize
    }

    /// Returns the number of chunks in the content, not in the set.
    pub const fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Returns the number of chunks in the set.
    pub const fn count(&self) -> u32 {
        self.present
    }

    /// Returns whether no chunk is in the set.
    pub const fn is_empty(&self) -> bool {
        self.present == 0
    }

    /// Returns whether every chunk is in the set.
    pub const fn is_full(&self) -> bool {
        self.present == self.chunks
    }

    /// Returns whether the chunk is in the set; one past the end is not.
    pub fn contains(&self, index: ChunkIndex) -> bool {
        self.words.get(index.0 as usize / 64).is_some_and(|word| word >> (index.0 % 64) & 1 == 1)
    }

    /// Returns whether every chunk of the run is in the set.
    pub fn contains_range(&self, range: ChunkRange) -> bool {
        range.iter().all(|chunk| self.contains(chunk))
    }

    /// Adds a chunk and returns whether it was absent. One past the end is ignored.
    pub fn insert(&mut self, index: ChunkIndex) -> bool {
        if index.0 >= self.chunks || self.contains(index) {
            return false;
        }
        self.words[index.0 as usize / 64] |= 1 << (index.0 % 64);
        self.present += 1;
        true
    }

    /// Adds every chunk of the run that exists.
    pub fn insert_range(&mut self, range: ChunkRange) {
        let end = range.end.min(self.chunks);
        for chunk in (range.start..end).map(ChunkIndex) {
            self.insert(chunk);
        }
    }

    /// Takes a chunk out and returns whether it was present.
    pub fn remove(&mut self, index: ChunkIndex) -> bool {
        if !self.contains(index) {
            return false;
        }
        self.words[index.0 as usize / 64] &= !(1 << (index.0 % 64));
        self.present -= 1;
        true
    }

    /// Returns the chunks that are not in the set.
    #[must_use]
    pub fn complement(&self) -> Self {
        let mut rest = Self::full(self.chunks);
        for (word, present) in rest.words.iter_mut().zip(&self.words) {
            *word &= !present;
        }
        rest.present = self.chunks - self.present;
        rest
    }

    /// Returns the chunks of the set in order.
    pub fn iter(&self) -> impl Iterator<Item = ChunkIndex> + '_ {
        self.words.iter().zip(0u32..).flat_map(|(word, position)| {
            let mut rest = *word;
            std::iter::from_fn(move || {
                (rest != 0).then(|| {
                    let bit = rest.trailing_zeros();
                    rest &= rest - 1;
                    ChunkIndex(position * 64 + bit)
                })
            })
        })
    }

    /// Returns the set as maximal runs, in order.
    pub fn runs(&self) -> impl Iterator<Item = ChunkRange> + '_ {
        let mut chunks = self.iter().peekable();
        std::iter::from_fn(move || {
            let start = chunks.next()?;
            let mut end = start.0 + 1;
            while chunks.next_if(|next| next.0 == end).is_some() {
                end += 1;
            }
            Some(ChunkRange { start: start.0, end })
        })
    }
}

impl fmt::Debug for ChunkRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.runs()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_comes_back_as_the_same_set() {
        let mut set = ChunkRanges::empty(130);
        for index in [0, 1, 7, 8, 63, 64, 65, 129] {
            assert!(set.insert(ChunkIndex(index)));
        }
        assert!(!set.insert(ChunkIndex(130)));
        assert_eq!(set.count(), 8);
        assert_eq!(ChunkRanges::from_bitmap(130, &set.to_bitmap()), Ok(set.clone()));
        let runs: Vec<String> = set.runs().map(|run| run.to_string()).collect();
        assert_eq!(runs, ["0..2", "7..9", "63..66", "129..130"]);
        assert_eq!(set.complement().count(), 122);
        assert!(set.remove(ChunkIndex(64)) && !set.remove(ChunkIndex(64)));
    }

    #[test]
    fn a_bitmap_of_another_length_or_with_bits_beyond_the_end_is_refused() {
        assert!(ChunkRanges::from_bitmap(9, &[0xff, 0x01]).is_ok());
        assert!(ChunkRanges::from_bitmap(9, &[0xff, 0x02]).is_err());
        assert!(ChunkRanges::from_bitmap(9, &[0xff]).is_err());
        assert!(ChunkRanges::from_bitmap(9, &[0xff, 0x01, 0x00]).is_err());
        assert!(ChunkRanges::from_bitmap(u32::MAX, &[]).is_err());
    }

    #[test]
    fn covering_takes_whole_chunks() {
        let geometry = Geometry::of(200_000).expect("within the bound");
        assert_eq!(ChunkRange::covering(0..1, geometry), Ok(ChunkRange { start: 0, end: 1 }));
        let across = ChunkRange::covering(65_535..65_537, geometry);
        assert_eq!(across, Ok(ChunkRange { start: 0, end: 2 }));
        assert_eq!(ChunkRange::covering(5..5, geometry), Err(RangeError::Empty));
        let past = ChunkRange::covering(0..200_001, geometry);
        assert_eq!(past, Err(RangeError::PastEnd { end: 200_001, len: 200_000 }));
    }
}

//! Where a content's chunks and pieces begin and end, as a function of its length alone.
//!
//! A chunk is the unit of verification, a piece the unit of scheduling. A content of no bytes has
//! one chunk of no bytes, so that every content has a chunk to check.

use std::fmt;
use std::ops::Range;

use crate::ranges::ChunkRange;

/// Bytes in the chunk of a content of up to 1 GiB. The list is then 0.05 % of the content, and
/// hashing runs at 97 % of its peak rate.
pub const CHUNK_BYTES_MIN: u64 = 64 * 1024;

/// Chunks in one content, at most: a hash list fits 512 KiB and a bitmap of chunks 2 KiB.
pub const CHUNKS_MAX: u32 = 16_384;

/// Bytes in one content, at most: 256 GiB, whose chunks of 16 MiB still fit a receive buffer.
pub const CONTENT_BYTES_MAX: u64 = 256 << 30;

/// Chunks in one piece, the unit that a scheduler hands to a source.
pub const PIECE_CHUNKS: u32 = 16;

/// The position of a chunk in its content, counted in chunks from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u32);

/// The position of a piece in its content, counted in pieces from 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PieceIndex(pub u32);

/// The division of a content of a given length into chunks and pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    len: u64,
    chunk_bytes: u64,
}

/// A length beyond [`CONTENT_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a content has at most {CONTENT_BYTES_MAX} bytes, not {len}")]
pub struct TooLong {
    /// The length that was refused, in bytes.
    pub len: u64,
}

impl Geometry {
    /// Returns the division of a content of `len` bytes.
    ///
    /// # Errors
    ///
    /// [`TooLong`] if `len` exceeds [`CONTENT_BYTES_MAX`].
    pub fn of(len: u64) -> Result<Self, TooLong> {
        if len > CONTENT_BYTES_MAX {
            return Err(TooLong { len });
        }
        let mut chunk_bytes = CHUNK_BYTES_MIN;
        while len > chunk_bytes * u64::from(CHUNKS_MAX) {
            chunk_bytes *= 2;
        }
        Ok(Self { len, chunk_bytes })
    }

    /// Returns the content's length in bytes.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Returns whether the content has no bytes. It still has one chunk.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the bytes in every chunk but the last, which may be shorter.
    pub const fn chunk_bytes(&self) -> u64 {
        self.chunk_bytes
    }

    /// Returns the number of chunks, from 1 to [`CHUNKS_MAX`].
    pub const fn chunks(&self) -> u32 {
        let chunks = self.len.div_ceil(self.chunk_bytes) as u32;
        if chunks == 0 { 1 } else { chunks }
    }

    /// Returns the range of all chunks.
    pub fn all(&self) -> ChunkRange {
        ChunkRange::first(self.chunks()).expect("a content has at least one chunk")
    }

    /// Returns the last chunk, the one whose hash vouches for the length.
    pub const fn last(&self) -> ChunkIndex {
        ChunkIndex(self.chunks() - 1)
    }

    /// Returns the byte positions of one chunk; empty past the end.
    pub fn chunk(&self, index: ChunkIndex) -> Range<u64> {
        let start = (u64::from(index.0) * self.chunk_bytes).min(self.len);
        start..(start + self.chunk_bytes).min(self.len)
    }

    /// Returns the byte positions of a run of chunks, clamped to the content.
    pub fn bytes(&self, chunks: ChunkRange) -> Range<u64> {
        self.chunk(chunks.start()).start..self.chunk(chunks.last()).end
    }

    /// Returns the number of pieces, at least 1.
    pub const fn pieces(&self) -> u32 {
        self.chunks().div_ceil(PIECE_CHUNKS)
    }

    /// Returns the chunks of one piece, or `None` past the last.
    pub fn piece(&self, piece: PieceIndex) -> Option<ChunkRange> {
        let start = piece.0.checked_mul(PIECE_CHUNKS)?;
        ChunkRange::new(ChunkIndex(start), ChunkIndex((start + PIECE_CHUNKS).min(self.chunks())))
    }

    /// Returns the piece that a chunk lies in.
    pub const fn piece_of(&self, chunk: ChunkIndex) -> PieceIndex {
        PieceIndex(chunk.0 / PIECE_CHUNKS)
    }
}

impl fmt::Display for ChunkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_double_until_a_content_has_at_most_16384() {
        for (len, chunk_bytes, chunks) in [
            (0, 64 << 10, 1),
            (1, 64 << 10, 1),
            (64 << 10, 64 << 10, 1),
            ((64 << 10) + 1, 64 << 10, 2),
            (1 << 30, 64 << 10, 16_384),
            ((1 << 30) + 1, 128 << 10, 8_193),
            (8 << 30, 512 << 10, 16_384),
            (CONTENT_BYTES_MAX, 16 << 20, 16_384),
        ] {
            let geometry = Geometry::of(len).expect("within the bound");
            assert_eq!((geometry.chunk_bytes(), geometry.chunks()), (chunk_bytes, chunks), "{len}");
            assert_eq!(geometry.bytes(geometry.all()), 0..len);
        }
        let len = CONTENT_BYTES_MAX + 1;
        assert_eq!(Geometry::of(len), Err(TooLong { len }));
    }

    #[test]
    fn pieces_cover_every_chunk_once() {
        let geometry = Geometry::of(33 * CHUNK_BYTES_MIN + 5).expect("within the bound");
        let chunks: Vec<u32> = (0..geometry.pieces())
            .filter_map(|piece| geometry.piece(PieceIndex(piece)))
            .flat_map(|range| range.iter().map(|chunk| chunk.0))
            .collect();
        assert_eq!(chunks, (0..34).collect::<Vec<_>>());
        assert_eq!(geometry.piece(PieceIndex(3)), None);
        assert_eq!(geometry.piece(PieceIndex(u32::MAX)), None);
    }
}

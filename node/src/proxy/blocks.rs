//! Blocks of memory that bodies are read into, used again once a client has taken what was in them.
//!
//! To fill a new block with zeros before each read costs half as much as the read itself. Blocks are
//! large while few are in use, since fewer reads are faster, and small once many are: each client
//! holds some four. At most [`LARGE_SPARE_MAX`] and [`SMALL_SPARE_MAX`] lie ready; what is beyond is
//! given back to the system.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bytes of a large block.
pub(super) const BLOCK_BYTES: usize = 256 * 1024;

/// Bytes of a small one.
const SMALL_BYTES: usize = 64 * 1024;

/// Large blocks in use, before those who want one are given small ones: eight clients at full speed,
/// 8 MiB.
const LARGE_MAX: usize = 32;

/// Blocks that lie ready, at most: 4 MiB of large ones, 4 MiB of small ones.
const LARGE_SPARE_MAX: usize = 16;
const SMALL_SPARE_MAX: usize = 64;

/// The blocks that lie ready. Cheap to clone; all clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks(Arc<Mutex<Spare>>);

#[derive(Debug, Default)]
struct Spare {
    large: Vec<Vec<u8>>,
    small: Vec<Vec<u8>>,
    /// Large blocks that somebody uses.
    large_used: usize,
}

/// A block that somebody uses. It lies ready again when it is dropped.
#[derive(Debug)]
pub(super) struct Block {
    memory: Vec<u8>,
    len: usize,
    blocks: Blocks,
}

impl Blocks {
    /// Returns how many bytes are best read next.
    pub(super) fn room(&self) -> usize {
        if self.spare().large_used < LARGE_MAX { BLOCK_BYTES } else { SMALL_BYTES }
    }

    /// Returns a block for `len` bytes, at most [`BLOCK_BYTES`]. Whatever was in it is in it still.
    pub(super) fn take(&self, len: usize) -> Block {
        let mut spare = self.spare();
        let (found, bytes) = if len > SMALL_BYTES {
            spare.large_used += 1;
            (spare.large.pop(), BLOCK_BYTES)
        } else {
            (spare.small.pop(), SMALL_BYTES)
        };
        drop(spare);
        let memory = found.unwrap_or_else(|| vec![0; bytes]);
        Block { memory, len: len.min(BLOCK_BYTES), blocks: self.clone() }
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        // Each change leaves the lists whole, so a panic elsewhere does not spoil them.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Block {
    /// Returns its bytes, to be filled all of them.
    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.memory[..self.len]
    }

    /// Returns it as what a body is made of.
    pub(super) fn freeze(self) -> Bytes {
        Bytes::from_owner(self)
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.len]
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let memory = std::mem::take(&mut self.memory);
        let mut spare = self.blocks.spare();
        let is_large = memory.len() > SMALL_BYTES;
        if is_large {
            spare.large_used -= 1;
        }
        let (list, max) = if is_large {
            (&mut spare.large, LARGE_SPARE_MAX)
        } else {
            (&mut spare.small, SMALL_SPARE_MAX)
        };
        if list.len() < max {
            list.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_used_again_and_only_what_was_filled_is_seen() {
        let blocks = Blocks::default();
        let mut first = blocks.take(3);
        first.bytes().copy_from_slice(b"abc");
        let bytes = first.freeze();
        assert_eq!(&bytes[..], b"abc");
        let other = bytes.slice(1..);
        drop(bytes);
        assert!(blocks.spare().small.is_empty());
        drop(other);
        assert_eq!(blocks.spare().small.len(), 1);
        let mut second = blocks.take(2);
        assert!(blocks.spare().small.is_empty());
        second.bytes().copy_from_slice(b"xy");
        assert_eq!(&second.freeze()[..], b"xy");
    }

    #[test]
    fn blocks_are_small_while_many_are_in_use_and_no_more_lie_ready_than_the_bound() {
        let blocks = Blocks::default();
        let many: Vec<Block> = (0..200).map(|_| blocks.take(blocks.room())).collect();
        let large = many.iter().filter(|block| block.memory.len() == BLOCK_BYTES).count();
        assert_eq!((large, blocks.room()), (LARGE_MAX, SMALL_BYTES));
        assert!(many.iter().skip(LARGE_MAX).all(|block| block.memory.len() == SMALL_BYTES));
        drop(many);
        assert_eq!(blocks.room(), BLOCK_BYTES);
        let spare = blocks.spare();
        assert_eq!((spare.large.len(), spare.small.len()), (LARGE_SPARE_MAX, SMALL_SPARE_MAX));
        assert_eq!(spare.large_used, 0);
    }
}

//! Blocks of memory that bodies are read into, used again once a client has taken what was in them.
//!
//! To fill a new block with zeros before each read costs half as much as the read itself. At most
//! [`SPARE_MAX`] lie ready; what is beyond is given back to the system.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;

/// Bytes of a block.
pub(super) const BLOCK_BYTES: usize = 256 * 1024;

/// Blocks that lie ready, at most: 16 MiB.
const SPARE_MAX: usize = 64;

/// The blocks that lie ready. Cheap to clone; all clones share them.
#[derive(Clone, Debug, Default)]
pub(super) struct Blocks(Arc<Mutex<Vec<Vec<u8>>>>);

/// A block that somebody uses. It lies ready again when it is dropped.
#[derive(Debug)]
pub(super) struct Block {
    memory: Vec<u8>,
    len: usize,
    blocks: Blocks,
}

impl Blocks {
    /// Returns a block for `len` bytes, at most [`BLOCK_BYTES`]. Whatever was in it is in it still.
    pub(super) fn take(&self, len: usize) -> Block {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let memory = spare.unwrap_or_else(|| vec![0; BLOCK_BYTES]);
        Block { memory, len: len.min(BLOCK_BYTES), blocks: self.clone() }
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
        let mut spare = self.blocks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_MAX {
            spare.push(std::mem::take(&mut self.memory));
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
        assert!(blocks.0.lock().expect("no panic").is_empty());
        drop(other);
        assert_eq!(blocks.0.lock().expect("no panic").len(), 1);
        let mut second = blocks.take(2);
        assert!(blocks.0.lock().expect("no panic").is_empty());
        second.bytes().copy_from_slice(b"xy");
        assert_eq!(&second.freeze()[..], b"xy");
    }

    #[test]
    fn no_more_lie_ready_than_the_bound() {
        let blocks = Blocks::default();
        let many: Vec<Block> = (0..2 * SPARE_MAX).map(|_| blocks.take(1)).collect();
        drop(many);
        assert_eq!(blocks.0.lock().expect("no panic").len(), SPARE_MAX);
    }
}

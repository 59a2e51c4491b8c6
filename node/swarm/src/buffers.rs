//! Buffers that are used again: by a server once the other side has acknowledged what was in them,
//! by a fetch once its chunk was stored.
//!
//! A fresh buffer costs its zeroing and a page fault for every 4 KiB, a tenth of either's time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bytes kept for later, at most: what two busy clients have in flight. A crowd's share of memory goes
/// into its windows, where it counts.
const SPARE_BYTES_MAX: usize = 4 << 20;

/// Spare buffers. Cheap to clone; all clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Buffers(Arc<Mutex<Spare>>);

#[derive(Debug, Default)]
struct Spare {
    buffers: Vec<Vec<u8>>,
    /// What they have room for, all together.
    bytes: usize,
}

/// A buffer that goes back to the others when the last reader is done with it.
struct Lent {
    bytes: Vec<u8>,
    home: Buffers,
}

impl Buffers {
    /// Returns an empty buffer, which may have room already.
    pub(crate) fn take(&self) -> Vec<u8> {
        let mut bytes = self.spare().pop();
        bytes.clear();
        bytes
    }

    /// Keeps a buffer for the next who takes one, unless enough are kept.
    pub(crate) fn give(&self, bytes: Vec<u8>) {
        let mut spare = self.spare();
        if bytes.capacity() > 0 && spare.bytes + bytes.capacity() <= SPARE_BYTES_MAX {
            spare.bytes += bytes.capacity();
            spare.buffers.push(bytes);
        }
    }

    /// Returns bytes filled by `fill`, or what it says stood in the way.
    pub(crate) fn filled<E>(
        &self,
        len: usize,
        fill: impl FnOnce(&mut [u8]) -> Result<(), E>,
    ) -> Result<Bytes, E> {
        let bytes = self.spare().pop();
        // Its old bytes stay: zeroing them costs more than the system call that replaces them.
        let mut lent = Lent { bytes, home: self.clone() };
        lent.bytes.resize(len, 0);
        fill(&mut lent.bytes)?;
        Ok(Bytes::from_owner(lent))
    }

    fn spare(&self) -> MutexGuard<'_, Spare> {
        // A list of spare buffers is whole whatever panicked elsewhere.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Spare {
    /// Returns the buffer that was used last, whose bytes are most likely at hand; a new one if there
    /// is none.
    fn pop(&mut self) -> Vec<u8> {
        let bytes = self.buffers.pop().unwrap_or_default();
        self.bytes -= bytes.capacity();
        bytes
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.home.give(std::mem::take(&mut self.bytes));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_is_used_again_when_its_reader_is_done() {
        let buffers = Buffers::default();
        let fill = |value: u8| {
            buffers.filled::<()>(3, |into| {
                into.fill(value);
                Ok(())
            })
        };
        let first = fill(1).unwrap();
        let place = first.as_ptr();
        let second = fill(2).unwrap();
        assert_eq!((&first[..], &second[..]), (&[1; 3][..], &[2; 3][..]));
        drop(first);
        let third = fill(3).unwrap();
        assert_eq!((third.as_ptr(), &third[..]), (place, &[3; 3][..]));
    }

    #[test]
    fn no_more_is_kept_than_the_bound_whatever_is_given() {
        let buffers = Buffers::default();
        for _ in 0..10 {
            buffers.give(Vec::with_capacity(SPARE_BYTES_MAX / 4));
        }
        buffers.give(Vec::new());
        assert_eq!(buffers.spare().buffers.len(), 4);
        let taken = buffers.take();
        assert_eq!(buffers.spare().bytes, SPARE_BYTES_MAX - taken.capacity());
    }
}

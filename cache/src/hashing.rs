//! Hashing a whole stream while something else is done with it.
//!
//! The calling thread reads, and does with each block what its caller wants; a second thread keeps
//! the hash list, and a third the vendor's digest where one is wanted. A stream that fits one block
//! is hashed where it is: starting a thread costs more.
//!
//! Invariant: every block is seen by all, once, in order, and unchanged.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};

use aws_lc_rs::digest::{Context, SHA256};
use sutler_protocol::geometry::{CONTENT_BYTES_MAX, TooLong};
use sutler_protocol::{HashList, HashListBuilder, Sha256Digest};

/// Bytes in a block. Writes of 256 to 512 KiB are the fastest.
pub(crate) const BLOCK_BYTES: usize = 512 * 1024;

/// Blocks under way at once: one being read or written, one being hashed, and one of slack each.
const BLOCKS: usize = 4;

/// What to compute of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Want {
    /// Its hash list, and with it its id.
    Hashes,
    /// Also the digest that vendors publish.
    HashesAndDigest,
}

/// What a stream turned out to be.
#[derive(Debug)]
pub(crate) struct Digests {
    pub(crate) hashes: HashList,
    /// Absent if it was not wanted.
    pub(crate) sha256: Option<Sha256Digest>,
}

/// Why a stream was not hashed to its end.
#[derive(Debug)]
pub(crate) enum PumpError<E> {
    /// It could not be read.
    Read(io::Error),
    /// It is longer than a content may be.
    TooLong(TooLong),
    /// Whoever was given its blocks wanted no more.
    Sink(E),
}

/// A SHA-256 under way.
pub(crate) struct Sha256(Context);

impl Sha256 {
    pub(crate) fn new() -> Self {
        Self(Context::new(&SHA256))
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    pub(crate) fn finish(self) -> Sha256Digest {
        let digest = self.0.finish();
        let bytes = digest.as_ref().try_into().expect("a SHA-256 has 32 bytes");
        Sha256Digest::from_bytes(bytes)
    }
}

/// Hashes bytes that are in memory.
pub(crate) fn digests_of(bytes: &[u8], want: Want) -> Result<Digests, TooLong> {
    let mut builder = HashListBuilder::new();
    builder.update(bytes);
    let sha256 = (want == Want::HashesAndDigest).then(|| {
        let mut sha256 = Sha256::new();
        sha256.update(bytes);
        sha256.finish()
    });
    Ok(Digests { hashes: builder.finish()?, sha256 })
}

/// Reads `source` to its end, gives each block with its offset to `sink`, and hashes all of it.
pub(crate) fn pump<E>(
    source: &mut dyn Read,
    want: Want,
    mut sink: impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<Digests, PumpError<E>> {
    let mut first = vec![0; BLOCK_BYTES];
    let filled = fill(source, &mut first).map_err(PumpError::Read)?;
    if filled < BLOCK_BYTES {
        sink(&first[..filled], 0).map_err(PumpError::Sink)?;
        return digests_of(&first[..filled], want).map_err(PumpError::TooLong);
    }
    std::thread::scope(|scope| {
        let (seen, was_seen) = channel();
        let (to_list, blocks) = sync_channel(BLOCKS);
        let list_seen = seen.clone();
        let list = scope.spawn(move || {
            let mut builder = HashListBuilder::new();
            each(&blocks, &list_seen, |bytes| builder.update(bytes));
            builder
        });
        let mut hashers = vec![to_list];
        let sha256 = (want == Want::HashesAndDigest).then(|| {
            let (to_sha256, blocks) = sync_channel(BLOCKS);
            hashers.push(to_sha256);
            scope.spawn(move || {
                let mut sha256 = Sha256::new();
                each(&blocks, &seen, |bytes| sha256.update(bytes));
                sha256
            })
        });
        let ring = Ring::new(first, was_seen);
        let outcome = read_on(source, ring, &hashers, &mut sink);
        // Ends the hashers, whatever came of it.
        drop(hashers);
        outcome?;
        let builder = list.join().expect("hashing does not panic");
        let sha256 = sha256.map(|running| running.join().expect("hashing does not panic"));
        let hashes = builder.finish().map_err(PumpError::TooLong)?;
        Ok(Digests { hashes, sha256: sha256.map(Sha256::finish) })
    })
}

/// A block and how much of it is filled.
type Block = (Arc<Vec<u8>>, usize);

/// Hands the blocks of a stream on, the first of which is full already.
fn read_on<E>(
    source: &mut dyn Read,
    mut ring: Ring,
    hashers: &[SyncSender<Block>],
    sink: &mut impl FnMut(&[u8], u64) -> Result<(), E>,
) -> Result<(), PumpError<E>> {
    let mut position = 0;
    let mut filled = BLOCK_BYTES;
    let mut offset = 0u64;
    loop {
        let block = &ring.blocks[position];
        for hasher in hashers {
            hasher.send((Arc::clone(block), filled)).expect("a hasher waits until this one ends");
        }
        // Written while it is hashed: nobody changes it before both are done.
        sink(&block[..filled], offset).map_err(PumpError::Sink)?;
        offset += filled as u64;
        if filled < BLOCK_BYTES {
            return Ok(());
        }
        if offset > CONTENT_BYTES_MAX {
            return Err(PumpError::TooLong(TooLong { len: offset }));
        }
        position = ring.free();
        let block = Arc::get_mut(&mut ring.blocks[position]).expect("a free block is nobody's");
        filled = fill(source, block).map_err(PumpError::Read)?;
        if filled == 0 {
            return Ok(());
        }
    }
}

/// Runs `hash` over each block until no more come, and says each time that one was let go.
fn each(blocks: &Receiver<Block>, seen: &Sender<()>, mut hash: impl FnMut(&[u8])) {
    for (block, filled) in blocks {
        hash(&block[..filled]);
        drop(block);
        if seen.send(()).is_err() {
            // The last block was read: nobody waits for one to be free.
        }
    }
}

/// The blocks of one stream, used again and again: fresh pages are dear.
struct Ring {
    blocks: Vec<Arc<Vec<u8>>>,
    was_seen: Receiver<()>,
}

impl Ring {
    fn new(first: Vec<u8>, was_seen: Receiver<()>) -> Self {
        Self { blocks: vec![Arc::new(first)], was_seen }
    }

    /// Returns the position of a block that nobody else holds, waiting for one if all are held.
    fn free(&mut self) -> usize {
        loop {
            let free = self.blocks.iter_mut().position(|block| Arc::get_mut(block).is_some());
            if let Some(position) = free {
                return position;
            }
            if self.blocks.len() < BLOCKS {
                self.blocks.push(Arc::new(vec![0; BLOCK_BYTES]));
            } else {
                self.was_seen.recv().expect("whoever holds a block says when it lets go");
            }
        }
    }
}

/// Fills `into` as far as the stream goes, and returns how far that was.
pub(crate) fn fill(source: &mut dyn Read, into: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < into.len() {
        match source.read(&mut into[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;

    use sutler_protocol::ContentId;

    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }

    fn bytes(len: usize) -> Vec<u8> {
        (0..len).map(|position| (position * 31 + position / 251) as u8).collect()
    }

    #[test]
    fn a_stream_of_any_length_is_hashed_and_handed_on_whole() {
        let block = BLOCK_BYTES;
        for len in [0, 1, block - 1, block, block + 1, 2 * block, 7 * block + 5] {
            let whole = bytes(len);
            let mut copy = vec![0; len];
            let take = |block: &[u8], offset: u64| {
                copy[offset as usize..][..block.len()].copy_from_slice(block);
                Ok::<(), ()>(())
            };
            let digests = pump(&mut &whole[..], Want::HashesAndDigest, take).expect("in memory");
            assert_eq!(digests.hashes.id(), ContentId::of(&whole), "{len}");
            assert_eq!(copy, whole, "{len}");
            let inline = digests_of(&whole, Want::HashesAndDigest).expect("short");
            assert_eq!(digests.sha256, inline.sha256, "{len}");
            assert_eq!(digests.hashes, inline.hashes, "{len}");
        }
    }

    #[test]
    fn a_sink_or_a_source_that_gives_up_ends_it() {
        let whole = bytes(5 * BLOCK_BYTES);
        let stop = |_: &[u8], offset: u64| if offset > 0 { Err("enough") } else { Ok(()) };
        let stopped = pump(&mut &whole[..], Want::Hashes, stop);
        assert!(matches!(stopped, Err(PumpError::Sink("enough"))));

        let mut source = (&whole[..]).chain(Broken);
        let broken = pump(&mut source, Want::HashesAndDigest, |_, _| Ok::<(), ()>(()));
        assert!(matches!(broken, Err(PumpError::Read(_))));
    }
}

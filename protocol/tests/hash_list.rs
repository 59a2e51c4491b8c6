//! The one verifier against `blake3` itself: what it accepts, and that it accepts nothing else.

use std::num::NonZero;
use std::thread;

use proptest::collection::vec;
use proptest::prelude::*;
use sutler_protocol::geometry::{CHUNK_BYTES_MIN, CHUNKS_MAX};
use sutler_protocol::hash_list::{HASH_BYTES, HashListError};
use sutler_protocol::{ChunkIndex, ContentId, Geometry, HashList, HashListBuilder};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

/// The first length whose chunks are twice as long.
const DOUBLING: u64 = CHUNK_BYTES_MIN * CHUNKS_MAX as u64;

/// Endless bytes that differ from chunk to chunk, as slices of one block: a content of a GiB costs
/// its hashing and nothing else.
struct Flow {
    block: Vec<u8>,
}

impl Flow {
    const STEP: u64 = MIB;

    fn new() -> Self {
        let mut block = vec![0; (Self::STEP + 64 * KIB) as usize];
        blake3::Hasher::new().update(b"flow").finalize_xof().fill(&mut block);
        Self { block }
    }

    /// Calls `take` with the content's slices in order, each [`Flow::STEP`] long but the last.
    fn pour(&self, len: u64, mut take: impl FnMut(&[u8])) {
        let mut position = 0;
        while position < len {
            let now = Self::STEP.min(len - position);
            let shift = (position / Self::STEP * 4_097) % (64 * KIB);
            take(&self.block[shift as usize..(shift + now) as usize]);
            position += now;
        }
    }

    fn bytes(&self, len: u64) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(len as usize);
        self.pour(len, |slice| bytes.extend_from_slice(slice));
        bytes
    }
}

fn list_of(bytes: &[u8]) -> HashList {
    let mut builder = HashListBuilder::new();
    builder.update(bytes);
    builder.finish().unwrap()
}

fn chunk(bytes: &[u8], geometry: Geometry, index: u32) -> &[u8] {
    let place = geometry.chunk(ChunkIndex(index));
    &bytes[place.start as usize..place.end as usize]
}

/// Checks that builder and verifier agree with `blake3` about `bytes`, and vouch for each chunk.
fn agrees_with_blake3(bytes: &[u8]) {
    let id = ContentId::of(bytes);
    let built = list_of(bytes);
    let len = bytes.len() as u64;
    assert_eq!(built.id(), id, "{len} bytes");
    let list = HashList::verify(built.as_bytes(), id, len).unwrap();
    assert!(list == built, "{len} bytes");
    let geometry = list.geometry();
    for index in 0..geometry.chunks() {
        assert!(
            list.vouches_for(ChunkIndex(index), chunk(bytes, geometry, index)),
            "{len}, {index}"
        );
    }
    let past = ChunkIndex(geometry.chunks());
    assert!(!list.vouches_for(past, &[]));
}

#[test]
fn a_list_merges_to_the_id_around_every_boundary() {
    let flow = Flow::new();
    let around = |boundary: u64| [boundary - 1, boundary, boundary + 1];
    let boundaries =
        [KIB, 2 * KIB, 64 * KIB, 128 * KIB, 192 * KIB, 320 * KIB, MIB, 2 * MIB + 64 * KIB];
    for len in [0, 1].into_iter().chain(boundaries.into_iter().flat_map(around)) {
        agrees_with_blake3(&flow.bytes(len));
    }
}

#[test]
fn a_list_merges_to_the_id_around_the_points_where_chunks_double() {
    let flow = Flow::new();
    for (len, chunks) in [
        (DOUBLING - 1, CHUNKS_MAX),
        (DOUBLING, CHUNKS_MAX),
        (DOUBLING + 1, CHUNKS_MAX / 2 + 1),
        (2 * DOUBLING + 128 * KIB + 1, CHUNKS_MAX / 2 + 1),
    ] {
        let (mut builder, mut hasher) = (HashListBuilder::new(), blake3::Hasher::new());
        flow.pour(len, |slice| {
            builder.update(slice);
            hasher.update(slice);
        });
        let list = builder.finish().unwrap();
        let id = ContentId::from_bytes(*hasher.finalize().as_bytes());
        assert_eq!((list.id(), list.geometry().chunks()), (id, chunks), "{len} bytes");
        assert!(HashList::verify(list.as_bytes(), id, len).unwrap() == list);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn a_list_merges_to_the_id_at_any_length(len in 0..3 * MIB) {
        agrees_with_blake3(&Flow::new().bytes(len));
    }

    #[test]
    fn how_the_bytes_were_split_makes_no_difference(
        len in 0..MIB,
        splits in vec(0..200 * KIB, 0..40),
    ) {
        let bytes = Flow::new().bytes(len);
        let (mut builder, mut rest) = (HashListBuilder::new(), &bytes[..]);
        for split in splits {
            let (now, later) = rest.split_at(rest.len().min(split as usize));
            builder.update(now);
            rest = later;
        }
        builder.update(rest);
        prop_assert_eq!(builder.len(), len);
        prop_assert!(builder.finish().unwrap() == list_of(&bytes));
    }

    #[test]
    fn any_reordered_list_is_refused(chunks in 2..40_u64, seed in any::<[u64; 8]>()) {
        let bytes = Flow::new().bytes(chunks * CHUNK_BYTES_MIN - 7);
        let list = list_of(&bytes);
        let mut values: Vec<&[u8]> = list.as_bytes().chunks(HASH_BYTES).collect();
        for (position, choice) in seed.into_iter().enumerate() {
            values.swap(position % chunks as usize, (choice % chunks) as usize);
        }
        let reordered = values.concat();
        let verdict = HashList::verify(&reordered, list.id(), list.geometry().len());
        prop_assert_eq!(verdict.is_ok(), reordered == list.as_bytes());
    }
}

#[test]
fn every_swap_of_two_values_is_refused() {
    let bytes = Flow::new().bytes(13 * CHUNK_BYTES_MIN);
    let list = list_of(&bytes);
    let refused = HashListError::Root { id: list.id() };
    for left in 0..13 {
        for right in 0..left {
            let mut values: Vec<&[u8]> = list.as_bytes().chunks(HASH_BYTES).collect();
            values.swap(left, right);
            let verdict = HashList::verify(&values.concat(), list.id(), list.geometry().len());
            assert_eq!(verdict, Err(refused), "{left} and {right}");
        }
    }
}

#[test]
fn a_cut_or_extended_list_is_refused_whatever_length_is_claimed() {
    let chunks = 21;
    let bytes = Flow::new().bytes(chunks * CHUNK_BYTES_MIN);
    let list = list_of(&bytes);
    let extended = [list.as_bytes(), list.as_bytes()].concat();
    for size in 0..extended.len() {
        let part = &extended[..size];
        // The length that was promised: nothing but the list itself has the right size.
        let promised = HashList::verify(part, list.id(), list.geometry().len());
        assert_eq!(promised.is_ok(), size == list.as_bytes().len(), "{size} bytes");
        // A length that fits the part: then the tree is another one.
        let values = (size / HASH_BYTES) as u64;
        if size % HASH_BYTES == 0 && values != chunks {
            let fitting = HashList::verify(part, list.id(), values * CHUNK_BYTES_MIN);
            assert!(fitting.is_err(), "{values} values");
        }
    }
}

#[test]
fn every_flipped_bit_of_a_list_is_refused() {
    let bytes = Flow::new().bytes(7 * CHUNK_BYTES_MIN + 1);
    let list = list_of(&bytes);
    let mut flipped = list.as_bytes().to_vec();
    for bit in 0..flipped.len() * 8 {
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(HashList::verify(&flipped, list.id(), list.geometry().len()).is_err(), "bit {bit}");
        flipped[bit / 8] ^= 1 << (bit % 8);
    }
}

// T7: no chunk passes that differs by as little as one bit, wherever it is.
#[test]
fn every_flipped_bit_of_a_chunk_is_refused() {
    let bytes = Flow::new().bytes(2 * CHUNK_BYTES_MIN + 5);
    let list = list_of(&bytes);
    let good = chunk(&bytes, list.geometry(), 1);
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        for worker in 0..workers {
            let (list, mut flipped) = (&list, good.to_vec());
            scope.spawn(move || {
                for bit in (worker..flipped.len() * 8).step_by(workers) {
                    flipped[bit / 8] ^= 1 << (bit % 8);
                    assert!(!list.vouches_for(ChunkIndex(1), &flipped), "bit {bit}");
                    flipped[bit / 8] ^= 1 << (bit % 8);
                }
                assert!(list.vouches_for(ChunkIndex(1), &flipped));
            });
        }
    });
}

// T7: the content of one chunk is checked by its root, by another rule than the rest.
#[test]
fn every_flipped_bit_of_a_content_of_one_chunk_is_refused() {
    for len in [1, 64, 65, 1_024, 1_025, 3_000] {
        let mut bytes = Flow::new().bytes(len);
        let list = HashList::of_one_chunk(ContentId::of(&bytes), len).unwrap();
        assert!(list.vouches_for(ChunkIndex(0), &bytes));
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(!list.vouches_for(ChunkIndex(0), &bytes), "bit {bit} of {len} bytes");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}

// T7: right bytes in another place are wrong bytes.
#[test]
fn a_chunk_is_refused_at_another_place_and_at_another_length() {
    let bytes = Flow::new().bytes(5 * CHUNK_BYTES_MIN + 9);
    let list = list_of(&bytes);
    let geometry = list.geometry();
    for index in 0..geometry.chunks() {
        let good = chunk(&bytes, geometry, index);
        for other in (0..geometry.chunks()).filter(|other| *other != index) {
            assert!(!list.vouches_for(ChunkIndex(other), good), "{index} at {other}");
        }
        let longer = [good, &[0]].concat();
        assert!(!list.vouches_for(ChunkIndex(index), &longer));
        assert!(!list.vouches_for(ChunkIndex(index), &good[..good.len() - 1]));
        assert!(!list.vouches_for(ChunkIndex(index), &[]));
    }
}

#[test]
fn a_list_does_not_know_whether_a_content_has_three_quarters_of_a_gib_or_one_and_a_half() {
    let (len, claimed) = (3 * GIB / 4, 3 * GIB / 2);
    let flow = Flow::new();
    let mut builder = HashListBuilder::new();
    flow.pour(len, |slice| builder.update(slice));
    let list = builder.finish().unwrap();
    assert_eq!(Geometry::of(len).unwrap().chunks(), 12_288);
    assert_eq!(Geometry::of(claimed).unwrap().chunks(), 12_288);

    let wrong = HashList::verify(list.as_bytes(), list.id(), claimed).unwrap();
    // Only the chunks can tell: none of the claimed size passes, the last one as little as any.
    let mut tail = Vec::new();
    let (mut position, last) = (0, len - 2 * CHUNK_BYTES_MIN);
    flow.pour(len, |slice| {
        let end = position + slice.len() as u64;
        if end > last {
            tail.extend_from_slice(&slice[(last.max(position) - position) as usize..]);
        }
        position = end;
    });
    let last = list.geometry().last();
    assert!(list.vouches_for(last, &tail[CHUNK_BYTES_MIN as usize..]));
    assert!(!wrong.vouches_for(last, &tail[CHUNK_BYTES_MIN as usize..]));
    assert!(!wrong.vouches_for(last, &tail));
    assert!(!wrong.vouches_for(ChunkIndex(0), &flow.block[..2 * CHUNK_BYTES_MIN as usize]));
}

#[test]
fn a_length_that_is_wrong_by_less_than_a_chunk_is_found_at_the_last_chunk_and_nowhere_else() {
    let len = 3 * CHUNK_BYTES_MIN - 100;
    let bytes = Flow::new().bytes(len + 200);
    let list = list_of(&bytes[..len as usize]);
    for claimed in [2 * CHUNK_BYTES_MIN + 1, len - 1, len + 1, 3 * CHUNK_BYTES_MIN] {
        let wrong = HashList::verify(list.as_bytes(), list.id(), claimed).unwrap();
        let geometry = wrong.geometry();
        assert!(wrong.vouches_for(ChunkIndex(0), chunk(&bytes, geometry, 0)));
        assert!(wrong.vouches_for(ChunkIndex(1), chunk(&bytes, geometry, 1)));
        assert!(!wrong.vouches_for(ChunkIndex(2), chunk(&bytes, geometry, 2)), "{claimed}");
        assert!(!wrong.vouches_for(ChunkIndex(2), chunk(&bytes, list.geometry(), 2)), "{claimed}");
    }
}

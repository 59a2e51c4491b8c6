//! Chunks, pieces and sets of chunks against the plainest model of each.

use std::collections::BTreeSet;

use proptest::collection::{btree_set, vec};
use proptest::prelude::*;
use sutler_protocol::geometry::{CHUNK_BYTES_MIN, CHUNKS_MAX, CONTENT_BYTES_MAX, PieceIndex};
use sutler_protocol::{ChunkIndex, ChunkRange, ChunkRanges, Geometry};

/// Lengths of every magnitude, not just the large ones that a uniform choice would give.
fn lengths() -> impl Strategy<Value = u64> {
    (0..39_u32, any::<u64>())
        .prop_map(|(bits, noise)| ((1 << bits) - 1 + noise % (1 << bits)).min(CONTENT_BYTES_MAX))
}

fn set_of(chunks: u32, model: &BTreeSet<u32>) -> ChunkRanges {
    let mut set = ChunkRanges::empty(chunks);
    for chunk in model {
        set.insert(ChunkIndex(*chunk));
    }
    set
}

proptest! {
    #[test]
    fn chunks_tile_a_content_without_gap_or_overlap(len in lengths()) {
        let geometry = Geometry::of(len).unwrap();
        prop_assert!((1..=CHUNKS_MAX).contains(&geometry.chunks()));
        prop_assert!(geometry.chunk_bytes().is_power_of_two());
        prop_assert!(
            geometry.chunk_bytes() == CHUNK_BYTES_MIN
                || len > geometry.chunk_bytes() / 2 * u64::from(CHUNKS_MAX)
        );
        let mut position = 0;
        for chunk in geometry.all().iter() {
            let place = geometry.chunk(chunk);
            prop_assert_eq!(place.start, position);
            prop_assert!(place.end > place.start || len == 0);
            position = place.end;
        }
        prop_assert_eq!(position, len);
        prop_assert!(geometry.chunk(geometry.all().end()).is_empty());
    }

    #[test]
    fn each_chunk_lies_in_the_piece_that_claims_it(len in lengths(), noise in any::<u32>()) {
        let geometry = Geometry::of(len).unwrap();
        let chunk = ChunkIndex(noise % geometry.chunks());
        let piece = geometry.piece_of(chunk);
        prop_assert!(geometry.piece(piece).is_some_and(|chunks| chunks.contains(chunk)));
        prop_assert_eq!(geometry.piece(PieceIndex(geometry.pieces())), None);
    }

    #[test]
    fn the_chunks_that_cover_some_bytes_are_no_more_than_needed(
        len in lengths(),
        noise in any::<[u64; 2]>(),
    ) {
        let geometry = Geometry::of(len.max(1)).unwrap();
        let start = noise[0] % geometry.len();
        let end = start + 1 + noise[1] % (geometry.len() - start);
        let covering = ChunkRange::covering(start..end, geometry).unwrap();
        prop_assert!(geometry.chunk(covering.start()).contains(&start));
        prop_assert!(geometry.chunk(covering.last()).contains(&(end - 1)));
    }

    #[test]
    fn a_set_of_chunks_does_what_a_set_of_numbers_does(
        chunks in 1..=300_u32,
        insertions in vec((any::<bool>(), 0..320_u32), 0..200),
    ) {
        let (mut set, mut model) = (ChunkRanges::empty(chunks), BTreeSet::new());
        for (goes_in, chunk) in insertions {
            if goes_in {
                let is_new = chunk < chunks && model.insert(chunk);
                prop_assert_eq!(set.insert(ChunkIndex(chunk)), is_new);
            } else {
                prop_assert_eq!(set.remove(ChunkIndex(chunk)), model.remove(&chunk));
            }
        }
        prop_assert_eq!(set.count() as usize, model.len());
        prop_assert_eq!(set.is_full(), model.len() == chunks as usize);
        let listed: Vec<u32> = set.iter().map(|chunk| chunk.0).collect();
        prop_assert_eq!(&listed, &model.iter().copied().collect::<Vec<_>>());
        let from_runs: Vec<u32> = set.runs().flat_map(|run| run.iter()).map(|chunk| chunk.0).collect();
        prop_assert_eq!(listed, from_runs);
        let rest: BTreeSet<u32> = set.complement().iter().map(|chunk| chunk.0).collect();
        prop_assert_eq!(rest, (0..chunks).filter(|chunk| !model.contains(chunk)).collect());
    }

    #[test]
    fn a_bitmap_is_read_back_as_written_and_in_no_other_form(
        chunks in 1..=300_u32,
        model in btree_set(0..300_u32, 0..200),
        noise in vec(any::<u8>(), 0..40),
    ) {
        let model = model.into_iter().filter(|chunk| *chunk < chunks).collect();
        let set = set_of(chunks, &model);
        prop_assert_eq!(ChunkRanges::from_bitmap(chunks, &set.to_bitmap()), Ok(set));
        // Whatever is accepted is written back bit by bit: there is one form of each set.
        if let Ok(read) = ChunkRanges::from_bitmap(chunks, &noise) {
            prop_assert_eq!(read.to_bitmap(), noise);
        }
    }
}

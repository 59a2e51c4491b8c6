//! The hash list: no bytes, id and length make the verifier panic, and what it believes vouches for nothing but itself.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sutler_protocol::{ChunkIndex, ContentId, HashList, HashListBuilder};

fuzz_target!(|bytes: &[u8]| {
    let Some((id, rest)) = bytes.split_first_chunk::<32>() else { return };
    let Some((len, rest)) = rest.split_first_chunk::<8>() else { return };
    let (id, len) = (ContentId::from_bytes(*id), u64::from_le_bytes(*len));
    if let Ok(list) = HashList::verify(rest, id, len) {
        assert_eq!((list.as_bytes(), list.id(), list.geometry().len()), (rest, id, len));
        for index in [ChunkIndex(0), list.geometry().last(), ChunkIndex(u32::MAX)] {
            // Finding bytes for a chosen value would break BLAKE3 itself.
            assert!(!list.vouches_for(index, rest) || ContentId::of(rest) == id);
        }
    }

    // The same bytes as a content, split where they say: the list is the one of the whole.
    let (mut split, mut whole) = (HashListBuilder::new(), HashListBuilder::new());
    let at = len as usize % (rest.len() + 1);
    split.update(&rest[..at]);
    split.update(&rest[at..]);
    whole.update(rest);
    let (split, whole) = (split.finish(), whole.finish());
    assert!(split.as_ref().is_ok_and(|list| list.id() == ContentId::of(rest)));
    assert!(split == whole);
});

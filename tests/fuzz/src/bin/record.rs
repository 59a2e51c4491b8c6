//! A content's record: no bytes on the disk make the reader panic, with a right checksum or without.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sutler_cache::record::{Record, SLOT_BYTES};
use sutler_protocol::Geometry;

/// Where a slot says how long it is, in its first 16 bytes.
const LENGTH_FIELD: std::ops::Range<usize> = 12..16;
const CHECKSUM_BYTES: usize = 32;

fuzz_target!(|bytes: &[u8]| {
    check(bytes);

    // A checksum stops every random input, so here are slots that have a right one.
    let Some((share, slots)) = bytes.split_first() else { return };
    let (first, second) = slots.split_at(slots.len() * usize::from(*share) / 255);
    let mut file = sealed(first);
    file.resize(SLOT_BYTES, 0);
    file.extend(sealed(second));
    check(&file);
});

fn check(bytes: &[u8]) {
    if let Ok((_, record)) = Record::read(bytes) {
        let geometry = Geometry::of(record.len).expect("a record's length is within the bound");
        assert_eq!(record.had.chunks(), geometry.chunks());
        assert!(!record.complete || record.had.is_full());
    }
}

/// Returns the slot with its length and its checksum set right.
fn sealed(slot: &[u8]) -> Vec<u8> {
    let mut slot = slot[..slot.len().min(SLOT_BYTES - CHECKSUM_BYTES)].to_vec();
    let whole = (slot.len() + CHECKSUM_BYTES) as u32;
    if let Some(field) = slot.get_mut(LENGTH_FIELD) {
        field.copy_from_slice(&whole.to_le_bytes());
    }
    let checksum = blake3::hash(&slot);
    slot.extend(checksum.as_bytes());
    slot
}

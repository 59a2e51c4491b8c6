//! The frame codec: whatever a peer sends is refused or read, and what was read is written so that it is read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sutler_protocol::Geometry;
use sutler_protocol::frame::{self, Answer, Frame, Holding, LENGTH_BYTES, Opened, Request};

fuzz_target!(|bytes: &[u8]| {
    if let Some((field, _)) = bytes.split_first_chunk::<LENGTH_BYTES>() {
        // Only the bound matters: how much would be allocated.
        assert!(frame::length(*field).map_or(true, |len| len <= frame::FRAME_BYTES_MAX));
    }
    if let Some(Request::Chunks(chunks)) = read::<Request>(bytes)
        && let Ok(geometry) = Geometry::of(chunks.len)
        && let Ok(range) = chunks.range(geometry)
    {
        let asked = geometry.bytes(range);
        assert!(asked.end <= geometry.len() && chunks.skip_bytes <= asked.end - asked.start);
    }
    if let Some(Answer::Opened(Opened { len, holding, .. })) = read::<Answer>(bytes)
        && let Ok(geometry) = Geometry::of(len)
        && let (Ok(now), Ok(promised)) = (holding.now(geometry), holding.promised(geometry))
    {
        assert!(now.count() <= promised.count() && promised.chunks() == geometry.chunks());
        assert!(!matches!(holding, Holding::Whole) || now.is_full());
    }
});

fn read<F: Frame + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<F> {
    let read: F = frame::decode(bytes).ok()?;
    let written = frame::encode(&read);
    assert!(written.len() - LENGTH_BYTES <= bytes.len(), "the code writes the shortest form");
    assert_eq!(frame::decode::<F>(&written[LENGTH_BYTES..]).as_ref(), Ok(&read));
    Some(read)
}

//! Frames: any that can be said comes back as it went, and nothing else gets in.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use sutler_protocol::frame::{
    Answer, Body, ChunksRequest, Class, FRAME_BYTES_MAX, Frame, FrameError, Holding, LENGTH_BYTES,
    Mismatch, Open, Opened, Refusal, Request, Resolve, decode, detail, encode, length,
};
use sutler_protocol::{ContentId, Sha256Digest};

fn ids() -> impl Strategy<Value = ContentId> {
    any::<[u8; 32]>().prop_map(ContentId::from_bytes)
}

fn classes() -> impl Strategy<Value = Class> {
    prop_oneof![Just(Class::Background), Just(Class::Normal), Just(Class::Urgent)]
}

fn requests() -> impl Strategy<Value = Request> {
    let body = prop_oneof![Just(Body::Nothing), Just(Body::List)];
    let open = (ids(), body, classes())
        .prop_map(|(content, body, class)| Request::Open(Open { content, body, class }));
    let numbers = any::<(u64, u32, u32, u64, u32)>();
    let chunks = (ids(), classes(), numbers).prop_map(|(content, class, numbers)| {
        let (len, start, end, skip_bytes, deadline_ms) = numbers;
        let chunks = ChunksRequest { content, len, start, end, skip_bytes, class, deadline_ms };
        Request::Chunks(chunks)
    });
    let resolve = (any::<[u8; 32]>(), "\\PC{0,300}", classes()).prop_map(|(sha256, url, class)| {
        Request::Resolve(Resolve { sha256: Sha256Digest::from_bytes(sha256), url, class })
    });
    let mismatch = (ids(), any::<u32>())
        .prop_map(|(content, chunk)| Request::Mismatch(Mismatch { content, chunk }));
    prop_oneof![open, chunks, resolve, mismatch]
}

fn refusals() -> impl Strategy<Value = Refusal> {
    let details = || ".{0,400}".prop_map(|text| detail(&text));
    prop_oneof![
        Just(Refusal::Unknown),
        Just(Refusal::NotHeld),
        any::<u64>().prop_map(|len| Refusal::LengthDiffers { len }),
        Just(Refusal::OutOfBounds),
        any::<u32>().prop_map(|retry_ms| Refusal::Busy { retry_ms }),
        Just(Refusal::Damaged),
        Just(Refusal::OriginNotAllowed),
        details().prop_map(|detail| Refusal::OriginFailed { detail }),
        Just(Refusal::DigestDiffers),
        details().prop_map(|detail| Refusal::StoreFailed { detail }),
        Just(Refusal::Draining),
    ]
}

fn answers() -> impl Strategy<Value = Answer> {
    let bitmaps = || vec(any::<u8>(), 0..2_049);
    let holding = prop_oneof![
        Just(Holding::Whole),
        bitmaps().prop_map(Holding::Part),
        bitmaps().prop_map(Holding::Filling),
        bitmaps().prop_map(Holding::Growing),
    ];
    prop_oneof![
        (any::<u64>(), holding, any::<u32>()).prop_map(|(len, holding, body_bytes)| {
            Answer::Opened(Opened { len, holding, body_bytes })
        }),
        any::<u64>().prop_map(|bytes| Answer::Chunks { bytes }),
        (any::<u64>(), option::of(any::<u64>()))
            .prop_map(|(have, len)| Answer::Filling { have, len }),
        (ids(), any::<u64>()).prop_map(|(content, len)| Answer::Resolved { content, len }),
        any::<bool>().prop_map(|good| Answer::Rechecked { good }),
        refusals().prop_map(Answer::Refused),
    ]
}

/// Checks one frame: it comes back, and no beginning or extension of it is taken for a frame.
fn comes_back_whole_or_not_at_all<F>(frame: &F) -> Result<(), TestCaseError>
where
    F: Frame + PartialEq + std::fmt::Debug,
{
    let written = encode(frame);
    let (field, bytes) = written.split_at(LENGTH_BYTES);
    prop_assert_eq!(length(field.try_into().unwrap()), Ok(bytes.len()));
    prop_assert!(bytes.len() <= FRAME_BYTES_MAX);
    let read = decode::<F>(bytes);
    prop_assert_eq!(read.as_ref(), Ok(frame));
    for cut in 0..bytes.len() {
        prop_assert!(decode::<F>(&bytes[..cut]).is_err(), "cut at {}", cut);
    }
    let longer = [bytes, &[0]].concat();
    prop_assert_eq!(decode::<F>(&longer), Err(FrameError::Trailing { extra: 1 }));
    Ok(())
}

proptest! {
    #[test]
    fn a_request_comes_back_whole_or_not_at_all(request in requests()) {
        comes_back_whole_or_not_at_all(&request)?;
    }

    #[test]
    fn an_answer_comes_back_whole_or_not_at_all(answer in answers()) {
        comes_back_whole_or_not_at_all(&answer)?;
    }

    // T5
    #[test]
    fn no_length_field_allows_more_than_the_cap(field in any::<[u8; 4]>()) {
        let claimed = u32::from_be_bytes(field);
        let allowed = (1..=FRAME_BYTES_MAX as u32).contains(&claimed);
        prop_assert_eq!(length(field).is_ok(), allowed);
    }

    // T9
    #[test]
    fn garbage_is_refused_or_means_one_thing(bytes in vec(any::<u8>(), 0..200)) {
        if let Ok(request) = decode::<Request>(&bytes) {
            comes_back_whole_or_not_at_all(&request)?;
        }
        if let Ok(answer) = decode::<Answer>(&bytes) {
            comes_back_whole_or_not_at_all(&answer)?;
        }
    }

    // T5: a text that claims to be longer than its frame is refused before it is made room for.
    #[test]
    fn a_claimed_text_length_allocates_nothing(claimed in 65_536..u64::MAX) {
        let mut frame = vec![1, 2];
        frame.extend([0; 32]);
        frame.push(0xfd);
        frame.extend(claimed.to_le_bytes());
        frame.extend(b"http://");
        prop_assert_eq!(decode::<Request>(&frame), Err(FrameError::Body));
    }

    #[test]
    fn a_detail_is_short_and_still_text(text in "\\PC{0,2000}") {
        let short = detail(&text);
        prop_assert!(short.len() <= 1_024 && text.starts_with(&short));
        prop_assert!(short == text || short.len() > 1_020);
    }
}

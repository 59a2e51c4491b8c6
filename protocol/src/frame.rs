//! What peers say to each other, and how it is written.
//!
//! A stream carries one request: the asker opens it, sends one [`Request`] and finishes; the other
//! side answers with [`Answer`]s, of which some are followed by raw bytes, and finishes. A frame is
//! a length (4 bytes, big-endian), a version byte, and a bincode body; `SPEC.md` has the bytes.
//!
//! Invariants:
//! - nothing is allocated for a frame before its length is known to be within [`FRAME_BYTES_MAX`];
//! - a frame is refused unless its body is consumed to the last byte;
//! - no frame is ever hashed or signed, because bincode reads some values in more than one form.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use self::orders::{
    DENIAL_BYTES_MAX, DOCUMENT_BYTES_MAX, DocumentRequest, News, PLACE_BYTES_MAX, REPORT_BYTES_MAX,
};
use crate::content::{ContentId, Sha256Digest};
use crate::geometry::{ChunkIndex, Geometry};
use crate::ranges::{BitmapError, ChunkRange, ChunkRanges};

mod orders;

/// Bytes of a frame after its length field, at most. The largest honest frame is a holding of
/// 2 KiB or a request with a URL of [`URL_BYTES_MAX`]; the rest is room for later versions.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

/// Bytes of the length field in front of a frame.
pub const LENGTH_BYTES: usize = 4;

/// Bytes of a URL in a frame, at most: longer ones are refused by common HTTP servers too.
pub const URL_BYTES_MAX: usize = 2048;

/// The one version that this crate speaks.
pub const VERSION: u8 = 1;

/// How soon the asker needs the bytes. A later class holds the earlier ones back.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Class {
    /// Staging ahead of need; yields to everything else on the line.
    Background,
    /// What somebody waits for.
    #[default]
    Normal,
    /// Pre-empts the others while it runs.
    Urgent,
}

/// What an asker sends, once per stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// Asks what there is of a content. Answered by [`Answer::Opened`] or [`Answer::Refused`].
    Open(Open),
    /// Asks for a run of chunks. Answered by [`Answer::Chunks`] or [`Answer::Refused`].
    Chunks(ChunksRequest),
    /// Asks for the content behind a vendor's digest, to be filled from its origin if need be.
    /// Answered by [`Answer::Filling`] any number of times, then [`Answer::Resolved`] or
    /// [`Answer::Refused`].
    Resolve(Resolve),
    /// Reports that a chunk received from the other side did not verify. Answered by
    /// [`Answer::Rechecked`] or [`Answer::Refused`].
    Mismatch(Mismatch),
    /// Asks for a document of the manifest, or for a target file that it names. Answered by
    /// [`Answer::Document`] or [`Answer::Refused`].
    Document(DocumentRequest),
    /// Asks to be told of new orders for as long as the stream is open. Answered by [`Answer::News`] any
    /// number of times, the first at once where there is any, or by [`Answer::Refused`].
    Watch,
    /// Passes a denial on: at most [`DENIAL_BYTES_MAX`] bytes. Answered by [`Answer::Taken`] once it is
    /// durable, or by [`Answer::Refused`].
    Deny(Vec<u8>),
    /// Hands over a device's report, whose raw bytes follow the frame. Answered by [`Answer::Taken`] once
    /// it is durable, or by [`Answer::Refused`].
    Report {
        /// Raw bytes that follow, at most [`REPORT_BYTES_MAX`].
        bytes: u32,
    },
    /// Says which machine speaks, so that one identity on two machines is noticed. Answered by
    /// [`Answer::Greeted`].
    Hello {
        /// The machine's life from boot to boot.
        instance: [u8; 16],
    },
}

/// The body of [`Request::Open`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Open {
    /// The content asked about.
    #[serde(with = "content_bytes")]
    pub content: ContentId,
    /// Whether the hash list is wanted, or for a content of one chunk the content itself.
    pub body: Body,
    /// How soon the content is needed, should it have to be fetched first.
    pub class: Class,
}

/// What follows an [`Answer::Opened`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// Nothing: the asker has the hash list and wants to know the holding.
    Nothing,
    /// The hash list; for a content of one chunk, the content's bytes in its place.
    List,
}

/// The body of [`Request::Chunks`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChunksRequest {
    /// The content asked for.
    #[serde(with = "content_bytes")]
    pub content: ContentId,
    /// The content's length as the asker believes it, in bytes: one that differs is refused, so
    /// that two sides never count chunks of different sizes.
    pub len: u64,
    /// The first chunk.
    pub start: u32,
    /// The chunk after the last.
    pub end: u32,
    /// Bytes of the first chunk that the asker already has and does not want again.
    pub skip_bytes: u64,
    /// How soon they are needed.
    pub class: Class,
    /// Milliseconds after which the answer is of no use; 0 for no such bound.
    pub deadline_ms: u32,
}

/// The body of [`Request::Resolve`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolve {
    /// The digest that the vendor published.
    #[serde(with = "digest_bytes")]
    pub sha256: Sha256Digest,
    /// Where the vendor serves the file; at most [`URL_BYTES_MAX`] bytes.
    pub url: String,
    /// How soon it is needed.
    pub class: Class,
}

/// The body of [`Request::Mismatch`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mismatch {
    /// The content.
    #[serde(with = "content_bytes")]
    pub content: ContentId,
    /// The chunk that did not verify.
    pub chunk: u32,
}

/// What the asked side sends back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// The content is known here.
    Opened(Opened),
    /// The chunks asked for follow as raw bytes, in order, up to the end of the stream.
    Chunks {
        /// Raw bytes that follow.
        bytes: u64,
    },
    /// The content is on its way from its origin; more will be said within 5 s.
    Filling {
        /// Bytes had so far.
        have: u64,
        /// Bytes in all, once the origin has said so.
        len: Option<u64>,
    },
    /// The vendor's digest belongs to this content.
    Resolved {
        /// The content.
        #[serde(with = "content_bytes")]
        content: ContentId,
        /// Its length in bytes.
        len: u64,
    },
    /// The reported chunk was hashed again.
    Rechecked {
        /// Whether it verified here, so that the harm was done on the way.
        good: bool,
    },
    /// The request cannot be met. Nothing follows.
    Refused(Refusal),
    /// The document follows as raw bytes, up to the end of the stream.
    Document {
        /// Raw bytes that follow: no more than the asker reads.
        bytes: u32,
    },
    /// Something new; more may come at any time.
    News(News),
    /// What was handed over is kept, and will be passed on.
    Taken,
    /// The machine was heard.
    Greeted {
        /// Whether no other machine was heard under its name in between.
        alone: bool,
    },
}

/// The body of [`Answer::Opened`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The content's length in bytes: a claim, until the last chunk was checked.
    pub len: u64,
    /// Which chunks can be asked for.
    pub holding: Holding,
    /// Raw bytes that follow this frame.
    pub body_bytes: u32,
}

/// Which chunks of a content one side has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holding {
    /// All of them.
    Whole,
    /// Those in this bitmap (see [`ChunkRanges::to_bitmap`]), and nobody brings more; others are
    /// refused.
    Part(Vec<u8>),
    /// Those in this bitmap now, and every other one as it arrives: a request for it waits.
    Filling(Vec<u8>),
    /// Those in this bitmap now. More may arrive, and are refused until then.
    Growing(Vec<u8>),
}

/// Why a request is not met.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such content here, and no origin to fetch it from.
    #[error("the content is not known there")]
    Unknown,
    /// Some of the chunks are not here.
    #[error("some of the chunks are not held there")]
    NotHeld,
    /// The content has another length here.
    #[error("the content has {len} bytes there")]
    LengthDiffers {
        /// The length on this side, in bytes.
        len: u64,
    },
    /// The chunks asked for do not exist, or the request makes no sense.
    #[error("the request is out of bounds")]
    OutOfBounds,
    /// Too much is asked for at once.
    #[error("busy, retry after {retry_ms} ms")]
    Busy {
        /// When to try again, in milliseconds.
        retry_ms: u32,
    },
    /// The bytes were found damaged and are being fetched again.
    #[error("the bytes were found damaged there")]
    Damaged,
    /// The URL is not on the allow-list.
    #[error("the origin is not on the allow-list there")]
    OriginNotAllowed,
    /// The origin does not answer, or not with the file.
    #[error("the origin failed there: {detail}")]
    OriginFailed {
        /// What an operator reads; not interpreted.
        detail: String,
    },
    /// What the origin sent has another digest.
    #[error("what the origin sent has another digest")]
    DigestDiffers,
    /// The disk refused, or has no room.
    #[error("the store failed there: {detail}")]
    StoreFailed {
        /// What an operator reads; not interpreted.
        detail: String,
    },
    /// No new requests are taken before a shutdown.
    #[error("shutting down")]
    Draining,
    /// There is no such document there.
    #[error("there is no such document there")]
    Absent,
    /// What was handed over is not believed, or is older than what is known.
    #[error("it was not taken there: {detail}")]
    NotTaken {
        /// What an operator reads; not interpreted.
        detail: String,
    },
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Longer than any frame may be, or too short to have a version.
    #[error("a frame has 1 to {FRAME_BYTES_MAX} bytes, not {claimed}")]
    Length {
        /// The length field's value.
        claimed: u32,
    },
    /// Another version of the protocol.
    #[error("frame version {found} is not {VERSION}")]
    Version {
        /// The version byte.
        found: u8,
    },
    /// The body is no frame of this version.
    #[error("the frame's body makes no sense")]
    Body,
    /// Bytes are left over behind the body.
    #[error("{extra} bytes follow the frame's body")]
    Trailing {
        /// Bytes left over.
        extra: usize,
    },
}

/// What can be sent as a frame: [`Request`] and [`Answer`], and those of [`crate::join`].
pub trait Frame: Serialize + DeserializeOwned + sealed::Sealed {}

impl Frame for Request {}
impl Frame for Answer {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Request {}
    impl Sealed for super::Answer {}
    impl Sealed for crate::join::JoinRequest {}
    impl Sealed for crate::join::JoinAnswer {}
}

/// Returns the frame as bytes, its length field in front.
///
/// # Panics
///
/// If the frame exceeds [`FRAME_BYTES_MAX`]. Callers bound what they put in: a URL by
/// [`URL_BYTES_MAX`], a bitmap by the number of chunks, a detail by [`detail`].
pub fn encode(frame: &impl Frame) -> Vec<u8> {
    let mut bytes = vec![0; LENGTH_BYTES];
    bytes.push(VERSION);
    let body = bincode::serde::encode_to_vec(frame, bincode::config::standard())
        .expect("frames hold nothing that bincode cannot write");
    bytes.extend_from_slice(&body);
    let len = bytes.len() - LENGTH_BYTES;
    assert!(len <= FRAME_BYTES_MAX, "a frame's parts are bounded where they are made");
    bytes[..LENGTH_BYTES].copy_from_slice(&(len as u32).to_be_bytes());
    bytes
}

/// Returns how many bytes of frame follow this length field.
///
/// # Errors
///
/// [`FrameError::Length`] if that is 0 or more than [`FRAME_BYTES_MAX`]; nothing should then be
/// read or allocated.
pub fn length(field: [u8; LENGTH_BYTES]) -> Result<usize, FrameError> {
    let claimed = u32::from_be_bytes(field);
    match claimed as usize {
        1..=FRAME_BYTES_MAX => Ok(claimed as usize),
        _ => Err(FrameError::Length { claimed }),
    }
}

/// Reads a frame: version byte and body, without the length field.
///
/// # Errors
///
/// [`FrameError`]; the bytes are a peer's, so any of them is the peer's fault.
pub fn decode<F: Frame>(bytes: &[u8]) -> Result<F, FrameError> {
    let (version, body) =
        bytes.split_first().ok_or(FrameError::Length { claimed: bytes.len() as u32 })?;
    if *version != VERSION {
        return Err(FrameError::Version { found: *version });
    }
    let limits = bincode::config::standard().with_limit::<FRAME_BYTES_MAX>();
    let (frame, used) =
        bincode::serde::decode_from_slice(body, limits).map_err(|_| FrameError::Body)?;
    match body.len() - used {
        0 => Ok(frame),
        extra => Err(FrameError::Trailing { extra }),
    }
}

/// Shortens a text for [`Refusal`] to at most 1,024 bytes, at a character's edge.
pub fn detail(text: &str) -> String {
    text[..text.floor_char_boundary(1024)].to_owned()
}

impl ChunksRequest {
    /// Returns the run of chunks asked for.
    ///
    /// # Errors
    ///
    /// The [`Refusal`] to answer with: the length differs, the run is empty or reaches past the
    /// end, or the whole first chunk would be skipped.
    pub fn range(&self, geometry: Geometry) -> Result<ChunkRange, Refusal> {
        if self.len != geometry.len() {
            return Err(Refusal::LengthDiffers { len: geometry.len() });
        }
        let range = ChunkRange::new(ChunkIndex(self.start), ChunkIndex(self.end))
            .filter(|range| range.last() <= geometry.last())
            .ok_or(Refusal::OutOfBounds)?;
        let first = geometry.chunk(range.start());
        if self.skip_bytes > 0 && self.skip_bytes >= first.end - first.start {
            return Err(Refusal::OutOfBounds);
        }
        Ok(range)
    }
}

impl Holding {
    /// Returns the chunks that can be had now.
    ///
    /// # Errors
    ///
    /// [`BitmapError`] if the bitmap does not fit the content.
    pub fn now(&self, geometry: Geometry) -> Result<ChunkRanges, BitmapError> {
        match self {
            Self::Whole => Ok(ChunkRanges::full(geometry.chunks())),
            Self::Part(bitmap) | Self::Filling(bitmap) | Self::Growing(bitmap) => {
                ChunkRanges::from_bitmap(geometry.chunks(), bitmap)
            }
        }
    }

    /// Returns the chunks that may be asked for: those had now, or all if the rest will come.
    ///
    /// # Errors
    ///
    /// [`BitmapError`] if the bitmap does not fit the content.
    pub fn promised(&self, geometry: Geometry) -> Result<ChunkRanges, BitmapError> {
        let now = self.now(geometry)?;
        Ok(if matches!(self, Self::Filling(_)) { ChunkRanges::full(now.chunks()) } else { now })
    }
}

mod content_bytes {
    use super::{ContentId, Deserialize, Serialize};

    pub(super) fn serialize<S: serde::Serializer>(
        id: &ContentId,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        id.as_bytes().serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<ContentId, D::Error> {
        Deserialize::deserialize(from).map(ContentId::from_bytes)
    }
}

mod digest_bytes {
    use super::{Deserialize, Serialize, Sha256Digest};

    pub(super) fn serialize<S: serde::Serializer>(
        digest: &Sha256Digest,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        digest.as_bytes().serialize(to)
    }

    pub(super) fn deserialize<'de, D: serde::Deserializer<'de>>(
        from: D,
    ) -> Result<Sha256Digest, D::Error> {
        Deserialize::deserialize(from).map(Sha256Digest::from_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> Request {
        Request::Chunks(ChunksRequest {
            content: ContentId::from_bytes([7; 32]),
            len: 200_000,
            start: 1,
            end: 3,
            skip_bytes: 0,
            class: Class::Urgent,
            deadline_ms: 0,
        })
    }

    #[test]
    fn a_frame_comes_back_as_it_went() {
        let bytes = encode(&request());
        let (field, frame) = bytes.split_at(LENGTH_BYTES);
        assert_eq!(length(field.try_into().unwrap()), Ok(frame.len()));
        assert_eq!(decode(frame), Ok(request()));
    }

    #[test] // T5
    fn a_length_beyond_the_cap_is_refused_before_anything_is_read() {
        assert_eq!(length([0xff; 4]), Err(FrameError::Length { claimed: u32::MAX }));
        assert_eq!(length([0; 4]), Err(FrameError::Length { claimed: 0 }));
        assert_eq!(length([0, 1, 0, 1]), Err(FrameError::Length { claimed: 65_537 }));
        assert_eq!(length([0, 1, 0, 0]), Ok(65_536));
    }

    #[test]
    fn trailing_bytes_other_versions_and_garbage_are_told_apart() {
        let mut frame = encode(&request()).split_off(LENGTH_BYTES);
        frame.push(0);
        assert_eq!(decode::<Request>(&frame), Err(FrameError::Trailing { extra: 1 }));
        frame[0] = 9;
        assert_eq!(decode::<Request>(&frame), Err(FrameError::Version { found: 9 }));
        assert_eq!(decode::<Request>(&[VERSION, 0xee]), Err(FrameError::Body));
        assert_eq!(decode::<Request>(&[]), Err(FrameError::Length { claimed: 0 }));
    }

    #[test]
    fn a_run_of_chunks_is_checked_against_the_content() {
        let geometry = Geometry::of(200_000).unwrap();
        let asked = |start, end, len, skip_bytes| {
            let Request::Chunks(request) = request() else { unreachable!("it is one of chunks") };
            ChunksRequest { len, start, end, skip_bytes, ..request }.range(geometry)
        };
        assert!(asked(0, 4, 200_000, 0).is_ok());
        assert_eq!(asked(0, 5, 200_000, 0), Err(Refusal::OutOfBounds));
        assert_eq!(asked(2, 2, 200_000, 0), Err(Refusal::OutOfBounds));
        assert_eq!(asked(3, 4, 200_000, 3_392), Err(Refusal::OutOfBounds));
        assert!(asked(3, 4, 200_000, 3_391).is_ok());
        assert_eq!(asked(0, 4, 1, 0), Err(Refusal::LengthDiffers { len: 200_000 }));
    }
}

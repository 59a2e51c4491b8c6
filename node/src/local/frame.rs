//! Frames of the local socket: four bytes of length, the highest first, then JSON.

use std::io::{self, Read, Write};

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of a request, at most: a path and a few URLs.
pub const REQUEST_BYTES_MAX: u32 = 64 * 1024;

/// Bytes of a reply, at most: the hashes of 16,384 chunks in hex are 1.1 MiB.
pub const REPLY_BYTES_MAX: u32 = 4 * 1024 * 1024;

/// Why a frame did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum ReadFrameError {
    /// The other end closed, or was silent for too long.
    #[error("read from the local socket")]
    Read(#[source] io::Error),
    /// Longer than any frame is; nothing was allocated for it.
    #[error("a frame of {bytes} bytes, {bytes_max} at most")]
    TooLong {
        /// The length it claims.
        bytes: u32,
        /// The cap.
        bytes_max: u32,
    },
    /// Not what either end says.
    #[error("decode a frame of the local socket")]
    Decode(#[source] serde_json::Error),
}

/// Reads one frame, or `None` if the other end closed before its first byte.
///
/// # Errors
///
/// [`ReadFrameError`]; the connection is of no use afterwards.
pub fn read<T: DeserializeOwned>(
    from: &mut impl Read,
    bytes_max: u32,
) -> Result<Option<T>, ReadFrameError> {
    let mut len = [0; 4];
    match from.read(&mut len[..1]).map_err(ReadFrameError::Read)? {
        0 => return Ok(None),
        _ => from.read_exact(&mut len[1..]).map_err(ReadFrameError::Read)?,
    }
    let bytes = u32::from_be_bytes(len);
    if bytes > bytes_max {
        return Err(ReadFrameError::TooLong { bytes, bytes_max });
    }
    let mut json = vec![0; bytes as usize];
    from.read_exact(&mut json).map_err(ReadFrameError::Read)?;
    serde_json::from_slice(&json).map(Some).map_err(ReadFrameError::Decode)
}

/// Writes one frame.
///
/// # Errors
///
/// The other end is gone, or the frame is beyond [`REPLY_BYTES_MAX`].
pub fn write(to: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let json = serde_json::to_vec(message)?;
    let len = u32::try_from(json.len())
        .ok()
        .filter(|len| *len <= REPLY_BYTES_MAX)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "frame beyond its cap"))?;
    // One write, so that a frame is never half on its way.
    let mut frame = Vec::with_capacity(4 + json.len());
    frame.extend_from_slice(&len.to_be_bytes());
    frame.extend_from_slice(&json);
    to.write_all(&frame)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::local::message::Request;

    #[test]
    fn a_frame_arrives_as_it_was_sent_and_the_end_is_no_error() {
        let mut wire = Vec::new();
        write(&mut wire, &Request::Inspect { content: "a".to_owned() }).expect("memory takes it");
        let mut from = wire.as_slice();
        let request: Option<Request> = read(&mut from, REQUEST_BYTES_MAX).expect("whole");
        assert_eq!(request, Some(Request::Inspect { content: "a".to_owned() }));
        assert!(read::<Request>(&mut from, REQUEST_BYTES_MAX).expect("the end").is_none());
    }

    // T5
    #[test]
    fn a_frame_beyond_its_cap_is_refused_before_anything_is_allocated() {
        let wire = u32::MAX.to_be_bytes();
        let refused = read::<Request>(&mut wire.as_slice(), REQUEST_BYTES_MAX);
        assert!(matches!(refused, Err(ReadFrameError::TooLong { bytes: u32::MAX, .. })));
    }

    #[test]
    fn a_frame_that_is_cut_short_or_unknown_is_refused() {
        let mut wire = Vec::new();
        write(&mut wire, &"no such request").expect("memory takes it");
        let cut = &wire[..wire.len() - 1];
        let read_of = |mut bytes: &[u8]| read::<Request>(&mut bytes, REQUEST_BYTES_MAX);
        assert!(matches!(read_of(cut), Err(ReadFrameError::Read(_))));
        assert!(matches!(read_of(&wire), Err(ReadFrameError::Decode(_))));
    }
}

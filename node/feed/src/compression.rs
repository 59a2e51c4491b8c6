//! How an index is packed, and unpacking it within bounds (T15).
//!
//! Two bounds hold. What comes out is no longer than the Release says, or where it does not say, no
//! longer than [`PLAIN_BYTES_MAX`] and [`RATIO_MAX`] times what goes in. And what a decoder keeps
//! while it works is bounded by [`WINDOW_BYTES_MAX`], whatever the packed bytes ask for.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use liblzma::bufread::XzDecoder;
use liblzma::stream::{CONCATENATED, Stream};

/// Bytes that a decoder may remember, at most: what `xz -9` asks for. Debian packs with `xz -6`, which
/// asks for 8 MiB, and of what is asked for only as much becomes resident as the index is long.
pub const WINDOW_BYTES_MAX: u64 = 64 << 20;

/// Bytes of an index whose plain length its Release does not say. Debian's largest, of all contents,
/// has 700 MB; of packages, 50 MB.
pub const PLAIN_BYTES_MAX: u64 = 1 << 30;

/// How many times its packed length an index may have, where its Release does not say. Debian's
/// indexes shrink six-fold, an index of all the same shrinks sixty-fold.
pub const RATIO_MAX: u64 = 200;

/// What a decoder needs besides its window: tables and buffers.
const DECODER_BYTES: u64 = 1 << 20;

/// Bytes read at once.
const BUFFER_BYTES: usize = 64 * 1024;

/// How an index is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// `.xz`
    Xz,
    /// `.zst`
    Zstd,
    /// `.gz`
    Gzip,
    /// `.lz4`, which vendors do not use but apt does for its own lists.
    Lz4,
}

impl Compression {
    /// Every one, those first that apt would rather have.
    pub const ALL: [Self; 5] = [Self::Xz, Self::Gzip, Self::Lz4, Self::Zstd, Self::Plain];

    /// Returns what names of such files end with, the dot included; nothing for plain ones.
    pub const fn suffix(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Xz => ".xz",
            Self::Zstd => ".zst",
            Self::Gzip => ".gz",
            Self::Lz4 => ".lz4",
        }
    }

    /// Splits a name into that of the plain file and how it is packed.
    pub fn split(name: &str) -> (&str, Self) {
        let packed = [Self::Xz, Self::Zstd, Self::Gzip, Self::Lz4];
        let found = packed
            .into_iter()
            .find_map(|packed| Some((name.strip_suffix(packed.suffix())?, packed)));
        found.unwrap_or((name, Self::Plain))
    }
}

/// Returns a reader of what is packed in another.
///
/// Its errors are the decoder's, or those of the reader below.
pub(crate) fn unpacked<'r>(
    reader: impl Read + 'r,
    compression: Compression,
) -> io::Result<Box<dyn BufRead + 'r>> {
    let packed = BufReader::with_capacity(BUFFER_BYTES, reader);
    Ok(match compression {
        Compression::Plain => Box::new(packed),
        Compression::Xz => {
            let limit = WINDOW_BYTES_MAX + DECODER_BYTES;
            let stream =
                Stream::new_stream_decoder(limit, CONCATENATED).map_err(io::Error::other)?;
            buffered(XzDecoder::new_stream(packed, stream))
        }
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(packed)?;
            decoder.window_log_max(WINDOW_BYTES_MAX.ilog2())?;
            buffered(decoder)
        }
        Compression::Gzip => buffered(MultiGzDecoder::new(packed)),
        Compression::Lz4 => buffered(lz4_flex::frame::FrameDecoder::new(packed)),
    })
}

fn buffered<'r>(decoder: impl Read + 'r) -> Box<dyn BufRead + 'r> {
    Box::new(BufReader::with_capacity(BUFFER_BYTES, decoder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_how_it_is_packed() {
        for compression in Compression::ALL {
            let name = format!("main/binary-amd64/Packages{}", compression.suffix());
            assert_eq!(Compression::split(&name), ("main/binary-amd64/Packages", compression));
        }
        assert_eq!(Compression::split("Packages.bz2"), ("Packages.bz2", Compression::Plain));
    }
}

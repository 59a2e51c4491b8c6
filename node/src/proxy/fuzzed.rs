//! What strangers send and the proxy reads by itself, for fuzzing; nothing else has a use for it.

use hyper::header::{self, HeaderMap, HeaderValue};
use hyper::{Method, Uri, Version};
use url::Url;

use super::kind::Kind;
use super::range::{self, Part, Version as FileVersion};
use super::strict::Lines;
use super::target::{self, Target};

/// Returns whether bytes can be nothing but heads of requests that every parser reads alike, when
/// they come in pieces of `piece` bytes, at least one.
pub fn is_strict(bytes: &[u8], piece: usize) -> bool {
    let mut lines = Lines::default();
    bytes.chunks(piece.max(1)).all(|piece| lines.read(piece))
}

/// Returns the URL that a request asks for or wants a tunnel to, if it has one.
pub fn target(method: &str, target: &str, hosts: usize) -> Option<Url> {
    let method = Method::from_bytes(method.as_bytes()).ok()?;
    let uri: Uri = target.parse().ok()?;
    match target::read(&method, &uri, Version::HTTP_11, hosts).ok()? {
        Target::File(url, _) | Target::Tunnel(url) => {
            // Any path is of some kind.
            let _ = Kind::of(url.path());
            Some(url)
        }
        Target::Front => None,
    }
}

/// Returns the bytes that a client is given of a file of `len` bytes, if it asks for a part of it
/// with these headers, each beginning with a letter that says which.
pub fn part(headers: &[&[u8]], len: u64) -> Option<(u64, u64)> {
    let mut map = HeaderMap::new();
    for header in headers {
        let Some((which, value)) = header.split_first() else { continue };
        let name = match which % 4 {
            0 => header::RANGE,
            1 => header::IF_RANGE,
            2 => header::IF_NONE_MATCH,
            _ => header::IF_MODIFIED_SINCE,
        };
        if let Ok(value) = HeaderValue::from_bytes(value) {
            map.append(name, value);
        }
    }
    let version =
        FileVersion { etag: Some("\"v1\""), last_modified: Some("Sun, 06 Nov 1994 08:49:37 GMT") };
    match range::part(&map, version, Some(len)) {
        Part::Bytes { start, end } => Some((start, end)),
        _ => None,
    }
}

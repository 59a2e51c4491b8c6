//! Which part of a file a client is given: ranges and conditions of RFC 9110. Pure.
//!
//! One range is served. Several at once are answered with the whole file, which is always allowed
//! (section 14.2): nobody who installs packages asks so, and the absurd sets that somebody else asks
//! for cost nothing then.

use hyper::header::{self, HeaderMap, HeaderName};

/// What is known of a file that conditions are compared with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Version<'a> {
    /// Its `ETag`, quotes included.
    pub(super) etag: Option<&'a str>,
    /// Its `Last-Modified`.
    pub(super) last_modified: Option<&'a str>,
}

/// What a client is given of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// These bytes; `end` is the byte after the last.
    Bytes {
        /// The first byte.
        start: u64,
        /// The byte after the last.
        end: u64,
    },
    /// Nothing: it has this version.
    NotModified,
    /// Nothing: no byte of the range exists.
    Unsatisfiable,
}

/// Decides what a client is given of a file of `len` bytes. Without a length, a range is not served.
pub(super) fn part(headers: &HeaderMap, version: Version<'_>, len: Option<u64>) -> Part {
    if is_not_modified(headers, version) {
        return Part::NotModified;
    }
    let (Some(range), Some(len)) = (once(headers, &header::RANGE), len) else {
        return Part::Whole;
    };
    if !if_range_holds(headers, version) {
        return Part::Whole;
    }
    read_range(range, len)
}

/// `If-None-Match` outranks `If-Modified-Since` (section 13.2.2).
fn is_not_modified(headers: &HeaderMap, version: Version<'_>) -> bool {
    if headers.contains_key(header::IF_NONE_MATCH) {
        let Some(own) = version.etag else { return false };
        let mut values = headers.get_all(header::IF_NONE_MATCH).iter();
        return values.any(|value| {
            let Ok(value) = value.to_str() else { return false };
            value.trim() == "*"
                || value.split(',').any(|tag| weak(tag.trim()) == weak(own) && !tag.is_empty())
        });
    }
    let (Some(asked), Some(own)) =
        (once(headers, &header::IF_MODIFIED_SINCE), version.last_modified)
    else {
        return false;
    };
    match (httpdate::parse_http_date(asked), httpdate::parse_http_date(own)) {
        (Ok(asked), Ok(own)) => own <= asked,
        _ => false,
    }
}

/// `If-Range`: a strong tag that is ours, or the very date.
fn if_range_holds(headers: &HeaderMap, version: Version<'_>) -> bool {
    if !headers.contains_key(header::IF_RANGE) {
        return true;
    }
    let Some(asked) = once(headers, &header::IF_RANGE) else { return false };
    if asked.starts_with('"') {
        return version.etag == Some(asked);
    }
    version.last_modified == Some(asked)
}

fn weak(tag: &str) -> &str {
    tag.strip_prefix("W/").unwrap_or(tag)
}

/// Reads `bytes=FIRST-LAST`, `bytes=FIRST-` or `bytes=-LAST_BYTES`. What is none of these is ignored.
fn read_range(range: &str, len: u64) -> Part {
    let Some((unit, set)) = range.split_once('=') else { return Part::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") || set.contains(',') {
        return Part::Whole;
    }
    let Some((first, last)) = set.trim().split_once('-') else { return Part::Whole };
    let (start, end) = match (digits(first), digits(last)) {
        (Some(first), Some(last)) if first > last => return Part::Whole,
        (Some(first), Some(last)) => (first, last.saturating_add(1).min(len)),
        (Some(first), None) if last.is_empty() => (first, len),
        (None, Some(bytes)) if first.is_empty() => (len.saturating_sub(bytes), len),
        _ => return Part::Whole,
    };
    if start >= end { Part::Unsatisfiable } else { Part::Bytes { start, end } }
}

/// Reads a plain number; one too large for a file is the largest.
fn digits(text: &str) -> Option<u64> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().unwrap_or(u64::MAX))
}

/// Returns a header that came exactly once, as text.
pub(super) fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn given(headers: &[(HeaderName, &str)]) -> Part {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().expect("a value"));
        }
        let version = Version { etag: Some("\"v1\""), last_modified: Some(EARLIER) };
        part(&map, version, Some(1000))
    }

    #[test]
    fn one_range_is_cut_to_the_file_and_all_others_are_the_whole() {
        let bytes = |start, end| Part::Bytes { start, end };
        let many = "0-0,".repeat(2000);
        for (range, part) in [
            ("bytes=0-0", bytes(0, 1)),
            ("bytes=0-", bytes(0, 1000)),
            ("BYTES=10-19", bytes(10, 20)),
            ("bytes=990-5000", bytes(990, 1000)),
            ("bytes=990-99999999999999999999999", bytes(990, 1000)),
            ("bytes=-1", bytes(999, 1000)),
            ("bytes=-5000", bytes(0, 1000)),
            ("bytes=1000-", Part::Unsatisfiable),
            ("bytes=99999999999999999999999-", Part::Unsatisfiable),
            ("bytes=-0", Part::Unsatisfiable),
            ("bytes=5-4", Part::Whole),
            ("bytes=-", Part::Whole),
            ("bytes=+1-2", Part::Whole),
            ("bytes=1", Part::Whole),
            ("lines=1-2", Part::Whole),
            ("bytes", Part::Whole),
            ("bytes=0-1,3-4", Part::Whole),
            ("bytes=0-,0-,0-,0-", Part::Whole),
            (&format!("bytes={many}"), Part::Whole),
        ] {
            assert_eq!(given(&[(header::RANGE, range)]), part, "{range:.60}");
        }
        assert_eq!(
            given(&[(header::RANGE, "bytes=0-1"), (header::RANGE, "bytes=2-3")]),
            Part::Whole
        );
        let mut map = HeaderMap::new();
        map.insert(header::RANGE, "bytes=0-1".parse().expect("a value"));
        assert_eq!(part(&map, Version::default(), None), Part::Whole);
    }

    #[test]
    fn a_range_goes_with_the_version_it_was_begun_with() {
        let range = (header::RANGE, "bytes=5-");
        let cut = Part::Bytes { start: 5, end: 1000 };
        for (condition, part) in [
            ("\"v1\"", cut),
            ("\"v2\"", Part::Whole),
            ("W/\"v1\"", Part::Whole),
            (EARLIER, cut),
            (LATER, Part::Whole),
        ] {
            let given = given(&[range.clone(), (header::IF_RANGE, condition)]);
            assert_eq!(given, part, "{condition}");
        }
    }

    #[test]
    fn who_has_this_version_is_told_so() {
        let none_match = |value| given(&[(header::IF_NONE_MATCH, value)]);
        for same in ["\"v1\"", "W/\"v1\"", "\"v0\", \"v1\"", "*"] {
            assert_eq!(none_match(same), Part::NotModified, "{same}");
        }
        assert_eq!(none_match("\"v2\""), Part::Whole);
        let since = |value| given(&[(header::IF_MODIFIED_SINCE, value)]);
        assert_eq!(since(EARLIER), Part::NotModified);
        assert_eq!(since(LATER), Part::NotModified);
        assert_eq!(since("Sun, 06 Nov 1994 08:49:36 GMT"), Part::Whole);
        assert_eq!(since("yesterday"), Part::Whole);
        // The tag outranks the date.
        assert_eq!(
            given(&[(header::IF_NONE_MATCH, "\"v2\""), (header::IF_MODIFIED_SINCE, LATER)]),
            Part::Whole
        );
    }
}

//! What a reply's status and headers are worth, decided before a byte of its body is read.
//!
//! Pure: [`judge`] is told what was asked and what was answered. It knows no clock; a date in
//! `Retry-After` counts from the reply's own `Date`, so that a wrong clock on either side does not
//! matter. `client` acts on the [`Verdict`].

use std::ops::Range;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{self, HeaderMap, HeaderName};
use sutler_protocol::geometry::CONTENT_BYTES_MAX;

use crate::origin::allow::URL_BYTES_MAX;
use crate::origin::validators::Validators;

/// Bytes read and dropped to reach a range in a reply with the whole file, at most. Beyond it a
/// range is not worth its prefix: the file is to be read as a whole.
pub const SKIP_BYTES_MAX: u64 = 1024 * 1024;

/// The longest pause that an origin's `Retry-After` is believed for.
pub const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// The shortest pause after `429` or `503`, whatever the origin says.
pub const RETRY_AFTER_MIN: Duration = Duration::from_secs(1);

/// What is asked of an origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeRequest {
    first: u64,
    /// The byte after the last; `None`: to the end of the file.
    end: Option<u64>,
    validators: Validators,
    instead: Instead,
}

/// What is done with the whole file where a part was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Instead {
    /// The part is cut out of it.
    Cut,
    /// It is read from its start.
    Read,
}

/// What to do with a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Read its body.
    Read(Reading),
    /// Ask there instead, if that is permitted. As received: perhaps relative.
    Redirect(String),
    /// Drop it.
    Refuse(ReplyFault),
}

/// How the body of a good reply becomes the bytes that were asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Bytes to drop first.
    pub skip: u64,
    /// Bytes to deliver then; `None`: until the body ends.
    pub take: Option<u64>,
    /// Whether more may follow, which is not read.
    pub rest: Rest,
    /// Whether the origin answered a range with a range.
    pub ranges: bool,
    /// What the reply says about the file, its whole length among it.
    pub file: Validators,
}

/// What follows the bytes that were asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Nothing: more bytes are a fault.
    Nothing,
    /// The rest of the file.
    Unread,
}

/// What is wrong with a reply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplyFault {
    /// The file is not the one that the validators were recorded of.
    #[error("the file changed")]
    Changed,
    /// The file, or the part, has another length than it should.
    #[error("{got} bytes where {expected} were expected")]
    WrongLength {
        /// Bytes that were expected, or at least needed.
        expected: u64,
        /// Bytes that the reply announces.
        got: u64,
    },
    /// The file is larger than a content may be (T5).
    #[error("a file of {len} bytes is more than a content may have")]
    TooLarge {
        /// Bytes that the file is said to have.
        len: u64,
    },
    /// The origin does not do ranges, and this one is too far from the start to skip to it.
    #[error("the origin sends only the whole file")]
    WholeOnly {
        /// The whole file's length in bytes, where it is told.
        len: Option<u64>,
    },
    /// `206` with another range than the one asked for, none, or several.
    #[error("the reply is for another range")]
    WrongRange,
    /// `206` in several parts, which nobody asked for.
    #[error("the reply has several parts")]
    Multipart,
    /// `416`: the file ends before the range.
    #[error("the file ends before the range")]
    PastEnd {
        /// The whole file's length in bytes, where it is told.
        len: Option<u64>,
    },
    /// The body would need decoding, though none was offered.
    #[error("the body is encoded")]
    Encoded,
    /// `429` or `503`.
    #[error("status {status}: the origin is busy")]
    Busy {
        /// The status, `429` or `503`.
        status: u16,
        /// The pause that the origin asks for, bounded.
        retry_after: Option<Duration>,
    },
    /// A redirect that does not say where to.
    #[error("a redirect without a readable target")]
    RedirectNowhere,
    /// Any other status.
    #[error("status {status}")]
    Status {
        /// The status.
        status: u16,
    },
}

impl RangeRequest {
    /// Asks for some bytes of a file. `bytes` must not be empty.
    pub fn bytes(bytes: Range<u64>, validators: Validators) -> Self {
        Self {
            first: bytes.start,
            end: Some(bytes.end.max(bytes.start.saturating_add(1))),
            validators,
            instead: Instead::Cut,
        }
    }

    /// Reads the whole file, from its start, where the origin sends that instead of a part.
    #[must_use]
    pub fn or_whole(self) -> Self {
        Self { instead: Instead::Read, ..self }
    }

    /// Asks for all bytes of a file from `first` on.
    pub fn from(first: u64, validators: Validators) -> Self {
        Self { first, end: None, validators, instead: Instead::Cut }
    }

    /// Returns the value of `Range`, or `None` where the whole file is asked for.
    pub fn range(&self) -> Option<String> {
        match self.end {
            Some(end) => Some(format!("bytes={}-{}", self.first, end - 1)),
            None if self.first > 0 => Some(format!("bytes={}-", self.first)),
            None => None,
        }
    }

    /// Returns the value of `If-Range`, which only goes with a range.
    pub fn if_range(&self) -> Option<&str> {
        self.range().and(self.validators.if_range())
    }

    /// Returns the bytes of the answer to a file of `len` bytes.
    fn expected(&self, len: Option<u64>) -> Option<u64> {
        let end = match (self.end, len) {
            (Some(end), Some(len)) => end.min(len),
            (Some(end), None) => end,
            (None, len) => len?,
        };
        end.checked_sub(self.first)
    }

    /// Compares a reply's version and length of the file with the recorded ones.
    fn check_file(&self, file: &Validators) -> Result<(), ReplyFault> {
        if self.validators.contradict(file) {
            return Err(ReplyFault::Changed);
        }
        if let Some(len) = file.len.filter(|len| *len > CONTENT_BYTES_MAX) {
            return Err(ReplyFault::TooLarge { len });
        }
        match (self.validators.len, file.len) {
            (Some(expected), Some(got)) if expected != got => {
                Err(ReplyFault::WrongLength { expected, got })
            }
            _ => Ok(()),
        }
    }
}

/// Judges a reply.
///
/// `path` is the path of the URL it came from: a file that is itself compressed may be labelled so.
pub fn judge(
    request: &RangeRequest,
    path: &str,
    status: StatusCode,
    headers: &HeaderMap,
) -> Verdict {
    let judged = match status {
        StatusCode::OK => whole(request, path, headers).map(Verdict::Read),
        StatusCode::PARTIAL_CONTENT => part(request, path, headers).map(Verdict::Read),
        StatusCode::MOVED_PERMANENTLY
        | StatusCode::FOUND
        | StatusCode::SEE_OTHER
        | StatusCode::TEMPORARY_REDIRECT
        | StatusCode::PERMANENT_REDIRECT => redirect(headers).map(Verdict::Redirect),
        StatusCode::RANGE_NOT_SATISFIABLE => past_end(request, headers).map(Verdict::Read),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            Err(ReplyFault::Busy { status: status.as_u16(), retry_after: retry_after(headers) })
        }
        _ => Err(ReplyFault::Status { status: status.as_u16() }),
    };
    judged.unwrap_or_else(Verdict::Refuse)
}

/// `200`: the whole file, from which the range is cut where it is near the start.
fn whole(request: &RangeRequest, path: &str, headers: &HeaderMap) -> Result<Reading, ReplyFault> {
    check_encoding(path, headers)?;
    let len = content_length(headers);
    let file = Validators { len, ..Validators::of(headers) };
    request.check_file(&file)?;
    // With `If-Range` this status means another version, unless the reply names the same one.
    if request.if_range().is_some() && !request.validators.confirm(&file) {
        return Err(ReplyFault::Changed);
    }
    // A length that only the record knows still bounds the body.
    let known = len.or(request.validators.len);
    if let Some(got) = known {
        let expected = request.end.unwrap_or(request.first);
        if got < expected {
            return Err(ReplyFault::WrongLength { expected, got });
        }
    }
    if request.instead == Instead::Read {
        return Ok(Reading { skip: 0, take: known, rest: Rest::Nothing, ranges: false, file });
    }
    if request.end.is_some() && request.first > SKIP_BYTES_MAX {
        return Err(ReplyFault::WholeOnly { len });
    }
    let take = request.expected(known);
    let rest = match request.end {
        Some(end) if known != Some(end) => Rest::Unread,
        _ => Rest::Nothing,
    };
    Ok(Reading { skip: request.first, take, rest, ranges: false, file })
}

/// `206`: exactly the range that was asked for, or what the file has of it.
fn part(request: &RangeRequest, path: &str, headers: &HeaderMap) -> Result<Reading, ReplyFault> {
    if content_type(headers).starts_with("multipart/") {
        return Err(ReplyFault::Multipart);
    }
    check_encoding(path, headers)?;
    let range = once(headers, &header::CONTENT_RANGE).and_then(content_range);
    let (Some((first, last, len)), Some(_)) = (range, request.range()) else {
        return Err(ReplyFault::WrongRange);
    };
    let file = Validators { len, ..Validators::of(headers) };
    request.check_file(&file)?;
    let got = last - first + 1;
    // Without `*`, the length of the file is the reply's; a shorter file is a changed one.
    let known = len.or(request.validators.len);
    if let (Some(end), Some(known)) = (request.end, known)
        && known < end
    {
        return Err(ReplyFault::WrongLength { expected: end, got: known });
    }
    if first != request.first || request.expected(known).is_some_and(|expected| expected != got) {
        return Err(ReplyFault::WrongRange);
    }
    match content_length(headers) {
        Some(announced) if announced != got => {
            Err(ReplyFault::WrongLength { expected: got, got: announced })
        }
        _ => Ok(Reading { skip: 0, take: Some(got), rest: Rest::Nothing, ranges: true, file }),
    }
}

/// `416`: a fault, unless the file ends exactly where the rest of it was asked for.
fn past_end(request: &RangeRequest, headers: &HeaderMap) -> Result<Reading, ReplyFault> {
    let len = once(headers, &header::CONTENT_RANGE)
        .and_then(|value| value.strip_prefix("bytes */"))
        .and_then(digits);
    let file = Validators { len, ..Validators::of(headers) };
    request.check_file(&file)?;
    if request.end.is_none() && len == Some(request.first) {
        return Ok(Reading { skip: 0, take: Some(0), rest: Rest::Unread, ranges: true, file });
    }
    Err(ReplyFault::PastEnd { len })
}

fn redirect(headers: &HeaderMap) -> Result<String, ReplyFault> {
    once(headers, &header::LOCATION)
        .filter(|target| !target.is_empty() && target.len() <= URL_BYTES_MAX)
        .map(str::to_owned)
        .ok_or(ReplyFault::RedirectNowhere)
}

/// Reads `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3).
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = once(headers, &header::RETRY_AFTER)?;
    let pause = match digits(value) {
        Some(seconds) => Duration::from_secs(seconds),
        // Digits too many for a u64 are still a number: a long pause.
        None if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
            RETRY_AFTER_MAX
        }
        None => {
            let until = httpdate::parse_http_date(value).ok()?;
            let date = httpdate::parse_http_date(once(headers, &header::DATE)?).ok()?;
            until.duration_since(date).unwrap_or_default()
        }
    };
    Some(pause.clamp(RETRY_AFTER_MIN, RETRY_AFTER_MAX))
}

/// Refuses a body that is not the file's bytes. Servers label a file that is itself compressed
/// (`Packages.gz`) as encoded, and send its bytes as they are: those pass.
fn check_encoding(path: &str, headers: &HeaderMap) -> Result<(), ReplyFault> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    let fits = encodings.all(|encoding| {
        let encoding = encoding.as_bytes().to_ascii_lowercase();
        let of_the_file: &[&str] = match encoding.as_slice() {
            b"identity" | b"" => return true,
            b"gzip" | b"x-gzip" => &[".gz", ".tgz"],
            b"bzip2" | b"x-bzip2" => &[".bz2"],
            b"xz" | b"x-xz" => &[".xz"],
            b"zstd" => &[".zst"],
            _ => return false,
        };
        of_the_file.iter().any(|suffix| path.ends_with(suffix))
    });
    if fits { Ok(()) } else { Err(ReplyFault::Encoded) }
}

/// Reads `bytes FIRST-LAST/LEN`, where `LEN` may be `*`.
fn content_range(value: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, len) = value.strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let (first, last) = (digits(first)?, digits(last)?);
    let len = if len == "*" { None } else { Some(digits(len)?) };
    // `u64::MAX` as the last byte would overflow every count.
    let sound = first <= last && last < u64::MAX && len.is_none_or(|len| last < len);
    sound.then_some((first, last, len))
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    // The client frames by the same header and has refused contradictory ones.
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return None;
    }
    once(headers, &header::CONTENT_LENGTH).and_then(digits)
}

fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(header::CONTENT_TYPE).map(header::HeaderValue::as_bytes);
    String::from_utf8_lossy(value.unwrap_or_default()).trim_start().to_ascii_lowercase()
}

/// Returns a header that came exactly once, as text without surrounding blanks.
fn once<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    values.next().is_none().then(|| value.trim())
}

/// Reads a plain number: digits only, so no sign and no blank.
fn digits(text: &str) -> Option<u64> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests;

//! How a file of an origin is recognised as the one that was seen before (RFC 9110, section 8.8).
//!
//! Validators only save work: they find a changed file before its bytes are fetched. What the
//! bytes are worth is decided by hash list or digest.

use std::time::Duration;

use reqwest::header::{self, HeaderMap, HeaderName};

/// Bytes in a recorded validator, at most; a longer one is forgotten, since it lies in records.
const VALIDATOR_BYTES_MAX: usize = 256;

/// What an origin says about the version of a file, and how long that file is.
///
/// All of it is optional: with nothing recorded, nothing is compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validators {
    /// The entity tag as received, quotes and a weak tag's `W/` included.
    pub etag: Option<String>,
    /// The `Last-Modified` date as received.
    pub last_modified: Option<String>,
    /// The length of the whole file in bytes: from the origin, or from the content it must become.
    pub len: Option<u64>,
}

impl Validators {
    /// Returns what a reply says, without its length.
    ///
    /// A date is kept only where it is a strong validator: at least a second before the reply's own
    /// `Date` (RFC 9110, section 8.8.2.2), since a file may change twice within one second.
    pub fn of(headers: &HeaderMap) -> Self {
        let date = text(headers, &header::DATE).and_then(parse_date);
        let settled = |modified: &str| {
            parse_date(modified).zip(date).is_some_and(|(modified, date)| {
                date.duration_since(modified).is_ok_and(|age| age >= Duration::from_secs(1))
            })
        };
        Self {
            etag: text(headers, &header::ETAG).filter(|tag| is_etag(tag)).map(str::to_owned),
            last_modified: text(headers, &header::LAST_MODIFIED)
                .filter(|modified| settled(modified))
                .map(str::to_owned),
            len: None,
        }
    }

    /// Returns the value of `If-Range`: a strong tag, or where there is none, the date. A weak tag
    /// may not be sent (RFC 9110, section 13.1.5).
    pub fn if_range(&self) -> Option<&str> {
        self.strong_etag().or(self.last_modified.as_deref())
    }

    /// Returns whether a reply speaks of another version of the file than this. Lengths are not
    /// compared here.
    pub fn contradict(&self, reply: &Self) -> bool {
        match (self.strong_etag(), reply.strong_etag()) {
            (Some(recorded), Some(replied)) => recorded != replied,
            _ => match (&self.last_modified, &reply.last_modified) {
                (Some(recorded), Some(replied)) => recorded != replied,
                _ => false,
            },
        }
    }

    /// Returns whether a reply speaks of the same version, for certain.
    pub fn confirm(&self, reply: &Self) -> bool {
        match (self.strong_etag(), reply.strong_etag()) {
            (Some(recorded), Some(replied)) => recorded == replied,
            _ => self.last_modified.is_some() && self.last_modified == reply.last_modified,
        }
    }

    fn strong_etag(&self) -> Option<&str> {
        self.etag.as_deref().filter(|tag| !tag.starts_with("W/"))
    }
}

/// Returns a header that came once and is visible ASCII of a sane length.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?.to_str().ok()?;
    (values.next().is_none() && value.len() <= VALIDATOR_BYTES_MAX).then_some(value)
}

/// Returns whether a tag is quoted as RFC 9110, section 8.8.3 has it.
fn is_etag(tag: &str) -> bool {
    tag.strip_prefix("W/")
        .unwrap_or(tag)
        .strip_prefix('"')
        .and_then(|tag| tag.strip_suffix('"'))
        .is_some_and(|opaque| !opaque.contains(['"', ' ', '\t']))
}

fn parse_date(date: &str) -> Option<std::time::SystemTime> {
    httpdate::parse_http_date(date).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const LATER: &str = "Sun, 06 Nov 1994 08:49:38 GMT";

    fn of(headers: &[(HeaderName, &str)]) -> Validators {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, value.parse().expect("a value"));
        }
        Validators::of(&map)
    }

    fn tag(etag: &str) -> Validators {
        Validators { etag: Some(etag.to_owned()), ..Validators::default() }
    }

    fn dated(date: &str) -> Validators {
        Validators { last_modified: Some(date.to_owned()), ..Validators::default() }
    }

    #[test]
    fn a_date_is_recorded_only_when_it_is_a_second_old() {
        let modified =
            |date| of(&[(header::LAST_MODIFIED, EARLIER), (header::DATE, date)]).last_modified;
        assert_eq!(modified(LATER).as_deref(), Some(EARLIER));
        assert_eq!(modified(EARLIER), None);
        assert_eq!(modified("today"), None);
        assert_eq!(of(&[(header::LAST_MODIFIED, EARLIER)]).last_modified, None);
    }

    #[test]
    fn a_malformed_long_or_doubled_tag_is_forgotten() {
        assert_eq!(of(&[(header::ETAG, "\"a-1\"")]).etag.as_deref(), Some("\"a-1\""));
        assert_eq!(of(&[(header::ETAG, "W/\"a\"")]).etag.as_deref(), Some("W/\"a\""));
        for wrong in ["a-1", "\"a", "\"a\"b\"", "w/\"a\"", &format!("\"{}\"", "x".repeat(300))] {
            assert_eq!(of(&[(header::ETAG, wrong)]).etag, None, "{wrong}");
        }
        assert_eq!(of(&[(header::ETAG, "\"a\""), (header::ETAG, "\"b\"")]).etag, None);
    }

    #[test]
    fn only_strong_validators_are_sent_and_compared() {
        assert_eq!(tag("\"a\"").if_range(), Some("\"a\""));
        assert_eq!(tag("W/\"a\"").if_range(), None);
        let both = Validators { etag: Some("W/\"a\"".into()), ..dated(EARLIER) };
        assert_eq!(both.if_range(), Some(EARLIER));

        assert!(tag("\"a\"").contradict(&tag("\"b\"")));
        assert!(!tag("\"a\"").contradict(&tag("W/\"b\"")));
        assert!(!tag("\"a\"").contradict(&Validators::default()));
        assert!(dated(EARLIER).contradict(&dated(LATER)));
        assert!(tag("\"a\"").confirm(&tag("\"a\"")));
        assert!(!tag("W/\"a\"").confirm(&tag("W/\"a\"")));
        assert!(!Validators::default().confirm(&Validators::default()));
    }
}

//! Small values of the order files, each with one spelling, and how serde reads and writes them.
//!
//! Always true: what is read is written the same way again.

use std::fmt::{self, Display};
use std::str::FromStr;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde::de::{self, Deserialize, Deserializer};
use serde::ser::{Serialize, Serializer};
use sutler_protocol::name::{Label, NameError};

use crate::bounds::LINE_BYTES_MAX;

/// An instant to the second, written `2026-11-27T20:00:00Z` and in no other way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Utc(jiff::Timestamp);

/// One line of text for people: 1 to [`LINE_BYTES_MAX`] bytes without control characters.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Line(Box<str>);

/// A device within its organisation: its site and its id, written `SITE/ID`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceName {
    /// The site that its certificate names.
    pub site: Label,
    /// Which of the site's devices.
    pub id: Label,
}

/// Why a text is none of these values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// No instant in the one form that there is.
    #[error("an instant is written 2026-11-27T20:00:00Z, not {found:?}")]
    Instant {
        /// What it was.
        found: String,
    },
    /// Empty, or too long for a line.
    #[error("a line has 1 to {LINE_BYTES_MAX} bytes, not {len}")]
    LineLength {
        /// Bytes found.
        len: usize,
    },
    /// A character that would break the line, or hide what it says.
    #[error("a line has no control character, and this has {found:?}")]
    Control {
        /// The first of them.
        found: char,
    },
    /// Not two names with a slash between them.
    #[error("a device is written SITE/ID, not {found:?}")]
    Device {
        /// What it was.
        found: String,
    },
    /// The site or the id is no name.
    #[error(transparent)]
    Name(#[from] NameError),
}

impl Utc {
    /// Returns the second that `instant` is in.
    pub fn of(instant: jiff::Timestamp) -> Self {
        let second = jiff::Timestamp::from_second(instant.as_second());
        Self(second.expect("a second of an instant is an instant"))
    }

    /// Returns the instant.
    pub fn instant(self) -> jiff::Timestamp {
        self.0
    }

    /// Returns the instant so many hours later, or the last one that there is.
    #[must_use]
    pub fn plus_hours(self, hours: i64) -> Self {
        let later = self.0.checked_add(jiff::SignedDuration::from_hours(hours));
        later.map_or_else(|_| Self::of(jiff::Timestamp::MAX), Self)
    }
}

impl Line {
    /// Returns the line as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Utc {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let shape = b"0000-00-00T00:00:00Z";
        let fits = |(byte, shape): (u8, &u8)| match shape {
            b'0' => byte.is_ascii_digit(),
            shape => byte == *shape,
        };
        let is_shaped = text.len() == shape.len() && text.bytes().zip(shape).all(fits);
        let civil: Option<DateTime> =
            text.strip_suffix('Z').filter(|_| is_shaped).and_then(|text| text.parse().ok());
        let instant = civil.and_then(|civil| TimeZone::UTC.to_timestamp(civil).ok());
        instant.map(Self).ok_or_else(|| TextError::Instant { found: text.to_owned() })
    }
}

impl FromStr for Line {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        if text.is_empty() || text.len() > LINE_BYTES_MAX {
            return Err(TextError::LineLength { len: text.len() });
        }
        match text.chars().find(|character| is_hiding(*character)) {
            Some(found) => Err(TextError::Control { found }),
            None => Ok(Self(text.into())),
        }
    }
}

impl FromStr for DeviceName {
    type Err = TextError;

    fn from_str(text: &str) -> Result<Self, TextError> {
        let (site, id) =
            text.split_once('/').ok_or_else(|| TextError::Device { found: text.to_owned() })?;
        Ok(Self { site: site.parse()?, id: id.parse()? })
    }
}

/// Returns whether a character moves the cursor, or turns the direction of writing so that people
/// read another text than the one that was signed.
fn is_hiding(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'
        )
}

impl Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.site, self.id)
    }
}

impl fmt::Debug for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

macro_rules! as_text {
    ($($value:ident)*) => { $(
        impl Serialize for $value {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $value {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
            }
        }
    )* };
}

as_text!(Utc Line DeviceName);

/// For `#[serde(with)]`: a value that is written as its text.
pub(crate) mod one {
    use super::{Display, FromStr, de};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &T,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_str(value)
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

/// For `#[serde(with)]`: such a value that may be absent. Wants `default`.
pub(crate) mod maybe {
    use super::{AsText, Display, FromStr};
    use serde::{Deserialize, Deserializer, Serializer};

    #[expect(clippy::ref_option, reason = "serde passes a reference")]
    pub(crate) fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => to.collect_str(value),
            None => to.serialize_none(),
        }
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        AsText::deserialize(from).map(|AsText(value)| Some(value))
    }
}

/// For `#[serde(with)]`: a list of such values, which is left out where it has none. Wants `default`.
pub(crate) mod list {
    use super::{AsText, Display, FromStr, de};
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<T: Display, S: Serializer>(
        values: &[T],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(values.iter().map(ToString::to_string))
    }

    pub(crate) fn deserialize<'de, T, D>(from: D) -> Result<Vec<T>, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let values = Vec::<AsText<T>>::deserialize(from)?;
        if values.is_empty() {
            // Whoever writes `"sites": []` may mean nobody, and a list that is left out means everybody.
            return Err(de::Error::custom("an empty list means nothing; leave it out"));
        }
        Ok(values.into_iter().map(|AsText(value)| value).collect())
    }
}

/// For `#[serde(with)]`: a SHA-256 as metadata has it, in hex digits alone.
pub(crate) mod sha256 {
    use super::de;
    use serde::{Deserialize, Deserializer, Serializer};
    use sutler_protocol::Sha256Digest;

    pub(crate) fn serialize<S: Serializer>(
        digest: &Sha256Digest,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let text = digest.to_string();
        to.serialize_str(text.strip_prefix("sha256:").unwrap_or(&text))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Sha256Digest, D::Error> {
        Sha256Digest::from_hex(&String::deserialize(from)?).map_err(de::Error::custom)
    }
}

/// One element of a list, so that an error can say which.
struct AsText<T>(T);

impl<'de, T: FromStr<Err: Display>> Deserialize<'de> for AsText<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

/// Returns whether a flag need not be written.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(crate) fn is_false(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_has_one_spelling() {
        let utc: Utc = "2026-11-27T20:00:00Z".parse().unwrap();
        assert_eq!(utc.to_string(), "2026-11-27T20:00:00Z");
        assert_eq!(utc.plus_hours(72).to_string(), "2026-11-30T20:00:00Z");
        assert!(utc.plus_hours(i64::from(u32::MAX)) > utc);
        for bad in ["2026-11-27T20:00:00+00:00", "2026-11-27 20:00:00Z", "2026-13-01T00:00:00Z", ""]
        {
            assert!(bad.parse::<Utc>().is_err(), "{bad:?}");
        }
        let fraction: jiff::Timestamp = "2026-11-27T20:00:00.75Z".parse().unwrap();
        assert_eq!(Utc::of(fraction), utc);
    }

    #[test]
    fn a_line_hides_nothing() {
        assert!("Größe: 3 KiB".parse::<Line>().is_ok());
        for bad in ["", "a\nb", "a\u{202e}b", "a\0", &"x".repeat(LINE_BYTES_MAX + 1)] {
            assert!(bad.parse::<Line>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_device_is_its_site_and_its_id() {
        let device: DeviceName = "cologne/anna-3".parse().unwrap();
        assert_eq!(device.to_string(), "cologne/anna-3");
        for bad in ["anna", "/anna", "cologne/", "a/b/c", "a b/c"] {
            assert!(bad.parse::<DeviceName>().is_err(), "{bad:?}");
        }
    }
}

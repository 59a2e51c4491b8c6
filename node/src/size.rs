//! Numbers of bytes as people write and read them.
//!
//! `200MB` is 200 million, `1GiB` is 2^30. Config files and the command line share this.

use std::fmt;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer, Visitor};

/// A number of bytes. In text: digits, an optional decimal fraction, and an optional unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(pub u64);

/// Why a text is no number of bytes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ByteCountError {
    /// It does not start with a number.
    #[error("expected a number of bytes such as 200MB or 1GiB, found {text:?}")]
    Number {
        /// The whole text.
        text: String,
    },
    /// The unit is not one of ours.
    #[error("unknown unit {unit:?}: use B, kB, MB, GB, TB, KiB, MiB, GiB or TiB")]
    Unit {
        /// The unit as written.
        unit: String,
    },
    /// More than 2^64 - 1 bytes.
    #[error("{text:?} is more than any disk holds")]
    TooMany {
        /// The whole text.
        text: String,
    },
}

impl FromStr for ByteCount {
    type Err = ByteCountError;

    fn from_str(text: &str) -> Result<Self, ByteCountError> {
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.' && c != '_');
        let (number, unit) = trimmed.split_at(digits.unwrap_or(trimmed.len()));
        let number = number.replace('_', "");
        let (whole, fraction) = number.split_once('.').unwrap_or((number.as_str(), ""));
        let no_number = || ByteCountError::Number { text: text.to_owned() };
        if whole.is_empty() || fraction.contains('.') {
            return Err(no_number());
        }
        let factor = factor(unit.trim())?;
        let too_many = || ByteCountError::TooMany { text: text.to_owned() };
        let whole: u128 = whole.parse().map_err(|_| too_many())?;
        let mut bytes = whole.checked_mul(factor).ok_or_else(too_many)?;
        // Nine digits are finer than any unit that people write fractions of.
        let mut place = 10;
        for digit in fraction.chars().take(9) {
            bytes += factor * u128::from(digit.to_digit(10).ok_or_else(no_number)?) / place;
            place *= 10;
        }
        u64::try_from(bytes).map(Self).map_err(|_| too_many())
    }
}

fn factor(unit: &str) -> Result<u128, ByteCountError> {
    Ok(match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        "kib" => 1 << 10,
        "mib" => 1 << 20,
        "gib" => 1 << 30,
        "tib" => 1 << 40,
        _ => return Err(ByteCountError::Unit { unit: unit.to_owned() }),
    })
}

impl fmt::Display for ByteCount {
    /// Three significant digits in units of 1000, as package managers print them.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, name) = match self.0 {
            0..1_000 => return f.pad(&format!("{} B", self.0)),
            1_000..1_000_000 => (1e3, "kB"),
            1_000_000..1_000_000_000 => (1e6, "MB"),
            1_000_000_000..1_000_000_000_000 => (1e9, "GB"),
            _ => (1e12, "TB"),
        };
        let amount = self.0 as f64 / unit;
        let digits = if amount < 10.0 { 2 } else { usize::from(amount < 100.0) };
        f.pad(&format!("{amount:.digits$} {name}"))
    }
}

impl<'de> Deserialize<'de> for ByteCount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NumberOrText)
    }
}

struct NumberOrText;

impl Visitor<'_> for NumberOrText {
    type Value = ByteCount;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number of bytes, or a text such as \"200MB\" or \"1GiB\"")
    }

    fn visit_u64<E: de::Error>(self, bytes: u64) -> Result<ByteCount, E> {
        Ok(ByteCount(bytes))
    }

    fn visit_i64<E: de::Error>(self, bytes: i64) -> Result<ByteCount, E> {
        u64::try_from(bytes)
            .map(ByteCount)
            .map_err(|_| E::invalid_value(de::Unexpected::Signed(bytes), &self))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<ByteCount, E> {
        text.parse().map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimal_and_binary_units_are_told_apart() {
        for (text, bytes) in [
            ("0", 0),
            ("200MB", 200_000_000),
            ("1GiB", 1 << 30),
            ("1.5 KiB", 1536),
            ("64k", 64_000),
            ("10_000", 10_000),
        ] {
            assert_eq!(text.parse(), Ok(ByteCount(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_of_bytes_is_refused() {
        for text in ["", "MB", "-1", "1XB", "1.2.3", "99999999TiB", "."] {
            assert!(text.parse::<ByteCount>().is_err(), "{text}");
        }
    }

    #[test]
    fn three_digits_are_enough_for_people() {
        for (bytes, text) in [
            (999, "999 B"),
            (1_000, "1.00 kB"),
            (43_910_724, "43.9 MB"),
            (200_000_000, "200 MB"),
            (3_000_000_000_000, "3.00 TB"),
        ] {
            assert_eq!(ByteCount(bytes).to_string(), text);
        }
    }
}

//! What a content is called: by the BLAKE3 of its bytes, or by the digest its vendor published.
//!
//! A [`ContentId`] is the whole trust in a content's bytes. A [`Sha256Digest`] is what vendors
//! print beside a download; it leads to a content, and is checked once over the whole.

use std::fmt;
use std::str::FromStr;

/// The BLAKE3 hash of a content's bytes: 32 bytes, printed as the 64 hex digits of `b3sum`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentId([u8; 32]);

/// The SHA-256 that a vendor published for a file: 32 bytes, printed as `sha256:` and 64 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sha256Digest([u8; 32]);

/// What a user may name a content by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ContentName {
    /// 64 hex digits.
    Id(ContentId),
    /// `sha256:` and 64 hex digits.
    Vendor(Sha256Digest),
}

/// Why a text names no content.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Neither too short nor too long will do: a prefix is never guessed at.
    #[error("a content id has 64 hex digits, this has {len} characters")]
    Length {
        /// Characters found.
        len: usize,
    },
    /// Something other than `0-9`, `a-f`, `A-F`.
    #[error("a content id has hex digits only, found {found:?}")]
    Digit {
        /// The first character that is no hex digit.
        found: char,
    },
}

impl ContentId {
    /// Returns the id with these 32 bytes. It says nothing of whether such a content exists.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the id of `bytes`, all of the content at once.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Sha256Digest {
    /// Returns the digest with these 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Parses 64 hex digits without the `sha256:` in front, as vendors print them.
    ///
    /// # Errors
    ///
    /// [`NameError`] if `text` is not exactly 64 hex digits.
    pub fn from_hex(text: &str) -> Result<Self, NameError> {
        hex_32(text).map(Self)
    }
}

impl FromStr for ContentId {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        hex_32(text).map(Self)
    }
}

impl FromStr for Sha256Digest {
    type Err = NameError;

    /// Parses `sha256:` and 64 hex digits; the prefix may be absent.
    fn from_str(text: &str) -> Result<Self, NameError> {
        hex_32(text.strip_prefix("sha256:").unwrap_or(text)).map(Self)
    }
}

impl FromStr for ContentName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        match text.strip_prefix("sha256:") {
            Some(hex) => Sha256Digest::from_hex(hex).map(Self::Vendor),
            None => text.parse().map(Self::Id),
        }
    }
}

impl fmt::Display for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for ContentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        write_hex(&self.0, f)
    }
}

impl fmt::Debug for Sha256Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ContentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => id.fmt(f),
            Self::Vendor(digest) => digest.fmt(f),
        }
    }
}

fn hex_32(text: &str) -> Result<[u8; 32], NameError> {
    if let Some(found) = text.chars().find(|c| !c.is_ascii_hexdigit()) {
        return Err(NameError::Digit { found });
    }
    if text.len() != 64 {
        return Err(NameError::Length { len: text.len() });
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        *byte = (nibble(pair[0]) << 4) | nibble(pair[1]);
    }
    Ok(bytes)
}

/// Returns the value of one ASCII hex digit; the caller has checked that it is one.
fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

/// Writes all digits at once: a store looks up several paths that are made of them for each content.
fn write_hex(bytes: &[u8; 32], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 64];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    f.write_str(std::str::from_utf8(&text).map_err(|_| fmt::Error)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_form_is_what_b3sum_prints() {
        let id = ContentId::of(b"");
        let text = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
        assert_eq!(id.to_string(), text);
        assert_eq!(text.parse(), Ok(id));
        assert_eq!(text.to_uppercase().parse(), Ok(id));
    }

    #[test]
    fn a_wrong_length_or_digit_is_named() {
        assert_eq!("abc".parse::<ContentId>(), Err(NameError::Length { len: 3 }));
        assert_eq!("xyz".parse::<ContentId>(), Err(NameError::Digit { found: 'x' }));
        assert_eq!("é".repeat(32).parse::<ContentId>(), Err(NameError::Digit { found: 'é' }));
    }

    #[test]
    fn a_name_is_an_id_unless_it_says_sha256() {
        let hex = "00".repeat(32);
        assert_eq!(hex.parse(), Ok(ContentName::Id(ContentId::from_bytes([0; 32]))));
        let vendor = format!("sha256:{hex}");
        assert_eq!(vendor.parse(), Ok(ContentName::Vendor(Sha256Digest::from_bytes([0; 32]))));
        assert_eq!(vendor.parse::<ContentName>().map(|name| name.to_string()), Ok(vendor));
    }
}

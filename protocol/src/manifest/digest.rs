//! Whether bytes are the file that was meant: length and digests, as metadata gives them.
//!
//! SHA-256 and SHA-512 are known. Digests of other kinds are passed over; a file with none of the
//! known ones cannot be checked, and so is refused when it is wanted, not when it is listed.

use std::collections::BTreeMap;
use std::fmt;

use aws_lc_rs::digest;
use serde::de::{self, Deserialize, Deserializer};
use serde::{Serialize, Serializer};

/// The digests of a file that are known here; either may be absent.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Digests {
    sha256: Option<Vec<u8>>,
    sha512: Option<Vec<u8>>,
}

/// Why bytes are not the file that was meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MismatchError {
    /// More bytes came than the file has, or than are allowed.
    #[error("it has more than {bytes_max} bytes")]
    TooLong {
        /// The most that it may have.
        bytes_max: u64,
    },
    /// Fewer or more bytes than the file has.
    #[error("it has {found} bytes instead of {expected}")]
    Length {
        /// What the metadata says.
        expected: u64,
        /// What came.
        found: u64,
    },
    /// Other bytes.
    #[error("its {algorithm} is another one")]
    Digest {
        /// The first digest that differs.
        algorithm: &'static str,
    },
    /// No digest of a known kind is given.
    #[error("it has neither a sha256 nor a sha512 to be checked against")]
    NoDigest,
}

/// Checks bytes that come piece by piece against a length and digests.
///
/// Call [`Check::update`] for each piece, before the piece is written anywhere, and
/// [`Check::finish`] at the end.
#[derive(Clone)]
pub struct Check {
    expected_bytes: u64,
    found_bytes: u64,
    /// Each with what it is to become.
    contexts: Vec<(&'static str, digest::Context, Vec<u8>)>,
}

impl Digests {
    /// Returns the digests of `bytes` that are written here: SHA-256 alone, which every client knows.
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_sha256(sha256(bytes))
    }

    /// Returns digests of which only the SHA-256 is known.
    pub fn from_sha256(sha256: [u8; 32]) -> Self {
        Self { sha256: Some(sha256.to_vec()), sha512: None }
    }

    /// Returns the digest by which a file's name is prefixed: SHA-256 if it is known, else SHA-512, in
    /// small hex digits.
    pub fn prefix(&self) -> Option<String> {
        self.sha256.as_ref().or(self.sha512.as_ref()).map(|digest| hex(digest))
    }

    /// Returns the SHA-256, if it is given.
    pub fn sha256(&self) -> Option<[u8; 32]> {
        self.sha256.as_ref().and_then(|digest| digest.as_slice().try_into().ok())
    }

    /// Returns whether there is nothing to check against.
    pub fn is_empty(&self) -> bool {
        self.sha256.is_none() && self.sha512.is_none()
    }

    /// Checks the whole of a file against every digest that is given.
    ///
    /// # Errors
    ///
    /// [`MismatchError`], as by a [`Check`].
    pub fn check(&self, bytes: &[u8]) -> Result<(), MismatchError> {
        let mut check = Check::new(bytes.len() as u64, self)?;
        check.update(bytes)?;
        check.finish()
    }
}

impl Check {
    /// Starts the check of a file that has `length` bytes.
    ///
    /// # Errors
    ///
    /// [`MismatchError::NoDigest`] if no digest is of a known kind.
    pub fn new(length: u64, digests: &Digests) -> Result<Self, MismatchError> {
        let known = [
            ("sha256", &digest::SHA256, &digests.sha256),
            ("sha512", &digest::SHA512, &digests.sha512),
        ];
        let contexts: Vec<_> = known
            .into_iter()
            .filter_map(|(name, algorithm, digest)| {
                digest.clone().map(|digest| (name, digest::Context::new(algorithm), digest))
            })
            .collect();
        if contexts.is_empty() {
            return Err(MismatchError::NoDigest);
        }
        Ok(Self { expected_bytes: length, found_bytes: 0, contexts })
    }

    /// Takes the next piece.
    ///
    /// # Errors
    ///
    /// [`MismatchError::TooLong`] as soon as there are more bytes than the file has.
    pub fn update(&mut self, piece: &[u8]) -> Result<(), MismatchError> {
        self.found_bytes += piece.len() as u64;
        if self.found_bytes > self.expected_bytes {
            return Err(MismatchError::TooLong { bytes_max: self.expected_bytes });
        }
        for (_, context, _) in &mut self.contexts {
            context.update(piece);
        }
        Ok(())
    }

    /// Says whether the pieces were the file.
    ///
    /// # Errors
    ///
    /// [`MismatchError::Length`] if it ended early, [`MismatchError::Digest`] if any digest differs.
    pub fn finish(self) -> Result<(), MismatchError> {
        if self.found_bytes != self.expected_bytes {
            let (expected, found) = (self.expected_bytes, self.found_bytes);
            return Err(MismatchError::Length { expected, found });
        }
        for (algorithm, context, expected) in self.contexts {
            if context.finish().as_ref() != expected {
                return Err(MismatchError::Digest { algorithm });
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Digests {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut named = BTreeMap::<String, String>::deserialize(deserializer)?;
        let mut take = |name: &str, len: usize| match named.remove(name) {
            Some(text) => match unhex(&text) {
                Some(digest) if digest.len() == len => Ok(Some(digest)),
                _ => Err(de::Error::custom(format_args!("a {name} has {} hex digits", 2 * len))),
            },
            None => Ok(None),
        };
        Ok(Self { sha256: take("sha256", 32)?, sha512: take("sha512", 64)? })
    }
}

impl Serialize for Digests {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let known = [("sha256", &self.sha256), ("sha512", &self.sha512)];
        let given =
            known.into_iter().filter_map(|(name, digest)| Some((name, hex(digest.as_ref()?))));
        serializer.collect_map(given)
    }
}

impl fmt::Debug for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, digest) in [("sha256", &self.sha256), ("sha512", &self.sha512)] {
            if let Some(digest) = digest {
                map.entry(&name, &hex(digest));
            }
        }
        map.finish()
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("expected_bytes", &self.expected_bytes)
            .field("found_bytes", &self.found_bytes)
            .finish_non_exhaustive()
    }
}

/// Returns the SHA-256 of `bytes`.
pub(super) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = digest::digest(&digest::SHA256, bytes);
    digest.as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

/// Returns `bytes` in small hex digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

/// Returns the bytes that `text` spells in hex digits of either case.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).map(|digit| digit as u8);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| Some(digit(pair[0])? << 4 | digit(*pair.get(1)?)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC_256: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    const ABC_512: &str = "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f";

    fn digests(json: &serde_json::Value) -> Digests {
        serde_json::from_value(json.clone()).unwrap()
    }

    #[test]
    fn every_digest_that_is_given_has_to_agree() {
        let both = digests(&serde_json::json!({ "sha256": ABC_256, "sha512": ABC_512 }));
        let upper = digests(&serde_json::json!({ "sha512": ABC_512.to_uppercase(), "md5": "x" }));
        for digests in [&both, &upper, &digests(&serde_json::json!({ "sha256": ABC_256 }))] {
            assert_eq!(digests.check(b"abc"), Ok(()));
            assert!(matches!(digests.check(b"abd"), Err(MismatchError::Digest { .. })));
        }
        let one_wrong = serde_json::json!({ "sha256": ABC_256, "sha512": "0".repeat(128) });
        assert_eq!(
            digests(&one_wrong).check(b"abc"),
            Err(MismatchError::Digest { algorithm: "sha512" })
        );
        assert_eq!(both.prefix().as_deref(), Some(ABC_256));
        assert_eq!(upper.prefix().as_deref(), Some(ABC_512));
    }

    #[test]
    fn without_a_known_digest_nothing_is_right() {
        let none = digests(&serde_json::json!({ "md5": "900150983cd24fb0d6963f7d28e17f72" }));
        assert!(none.is_empty());
        assert_eq!(none.check(b"abc"), Err(MismatchError::NoDigest));
    }

    #[test]
    fn a_digest_of_another_length_is_refused_where_it_is_read() {
        for bad in ["", "ab", "zz", ABC_512, &ABC_256[1..], "é"] {
            let json = serde_json::json!({ "sha256": bad });
            assert!(serde_json::from_value::<Digests>(json).is_err(), "{bad:?}");
        }
    }

    // T5
    #[test]
    fn the_first_byte_too_many_ends_the_check() {
        let digests = digests(&serde_json::json!({ "sha256": ABC_256 }));
        let mut check = Check::new(3, &digests).unwrap();
        check.update(b"ab").unwrap();
        let early = check.clone().finish();
        assert_eq!(early, Err(MismatchError::Length { expected: 3, found: 2 }));
        assert_eq!(check.update(b"cd"), Err(MismatchError::TooLong { bytes_max: 3 }));
    }
}

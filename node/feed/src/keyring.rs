//! Whose signature counts: the public keys of one source, and nobody else's.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use crate::armor;
pub use crate::armor::ArmorError;

/// Bytes of a keyring, at most. Debian's own has 56 KiB; apt reads a keyring whole as well.
pub const KEYRING_BYTES_MAX: u64 = 4 << 20;

/// The public keys of a source. Signatures by any other key vouch for nothing.
///
/// Holds the keys as `gpgv` reads them. Cheap to keep, and read again only when its owner says so.
#[derive(Clone, PartialEq, Eq)]
pub struct Keyring {
    packets: Vec<u8>,
    /// Of the keys above those that count; all of them where this is empty.
    only: Vec<Only>,
}

/// A key's fingerprint: 40 or 64 hex digits, in capitals.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint(String);

/// A key that a source names by fingerprint.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Only {
    fingerprint: Fingerprint,
    /// Its subkeys do not count.
    exact: bool,
}

/// Why there is no keyring.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The file cannot be read.
    #[error("read the keyring {}", path.display())]
    Read {
        /// The keyring's path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is larger than [`KEYRING_BYTES_MAX`].
    #[error("the keyring is larger than {KEYRING_BYTES_MAX} bytes")]
    TooLarge,
    /// It is `GnuPG`'s keybox, which neither apt nor several keyrings at once can do with.
    #[error("the keyring is a keybox; export its keys with: gpg --export")]
    Keybox,
    /// It begins with no public key.
    #[error("the keyring holds no public key")]
    NoKey,
    /// Its armor is damaged.
    #[error("read the keyring's armor")]
    Armor(#[source] ArmorError),
    /// A text is no fingerprint.
    #[error("{0:?} is no fingerprint of a key")]
    Fingerprint(String),
}

impl Keyring {
    /// Reads the keyring in a file, binary or armored.
    ///
    /// # Errors
    ///
    /// [`KeyringError`] if it cannot be read, or holds no key.
    pub fn read(path: &Path) -> Result<Self, KeyringError> {
        let fault = |source| KeyringError::Read { path: path.to_owned(), source };
        let mut bytes = Vec::new();
        let file = File::open(path).map_err(fault)?;
        file.take(KEYRING_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(fault)?;
        Self::parse(&bytes)
    }

    /// Reads a keyring, binary or armored, such as a source has it inline.
    ///
    /// # Errors
    ///
    /// [`KeyringError`] if it holds no key.
    pub fn parse(bytes: &[u8]) -> Result<Self, KeyringError> {
        if bytes.len() as u64 > KEYRING_BYTES_MAX {
            return Err(KeyringError::TooLarge);
        }
        let packets = if armor::is_armored(bytes) {
            let text = String::from_utf8_lossy(bytes);
            armor::public_keys(&text).map_err(KeyringError::Armor)?
        } else {
            bytes.to_vec()
        };
        if packets.get(8..12) == Some(b"KBXf") {
            return Err(KeyringError::Keybox);
        }
        // A transferable public key begins with packet 6, in the old or the new form (RFC 9580, 4.2).
        let is_key = |first: u8| first & 0xfc == 0x98 || first == 0xc6;
        if !packets.first().copied().is_some_and(is_key) {
            return Err(KeyringError::NoKey);
        }
        Ok(Self { packets, only: Vec::new() })
    }

    /// Returns a keyring with the keys of both, for a source that names no keyring of its own: apt
    /// then takes all of `trusted.gpg.d`. Which keys count stays as `self` has it.
    ///
    /// # Errors
    ///
    /// [`KeyringError::TooLarge`] if both together are.
    pub fn and(mut self, other: &Self) -> Result<Self, KeyringError> {
        self.packets.extend_from_slice(&other.packets);
        if self.packets.len() as u64 > KEYRING_BYTES_MAX {
            return Err(KeyringError::TooLarge);
        }
        Ok(self)
    }

    /// Lets only the keys with these fingerprints count, as a source's `Signed-By` may list them:
    /// 40 or 64 hex digits each, with `!` behind where a subkey's signature is not enough.
    ///
    /// # Errors
    ///
    /// [`KeyringError::Fingerprint`] if one is none, or if there are none at all.
    pub fn only<'f>(
        mut self,
        fingerprints: impl IntoIterator<Item = &'f str>,
    ) -> Result<Self, KeyringError> {
        self.only.clear();
        for text in fingerprints {
            let (digits, exact) =
                text.strip_suffix('!').map_or((text, false), |digits| (digits, true));
            self.only.push(Only { fingerprint: digits.parse()?, exact });
        }
        if self.only.is_empty() {
            return Err(KeyringError::Fingerprint(String::new()));
        }
        Ok(self)
    }

    /// Returns the keys as `gpgv` reads them.
    pub(crate) fn packets(&self) -> &[u8] {
        &self.packets
    }

    /// Returns whether a signature by `key`, which belongs to `primary`, counts here.
    pub(crate) fn counts(&self, key: &Fingerprint, primary: &Fingerprint) -> bool {
        let named =
            |only: &Only| only.fingerprint == *key || (!only.exact && only.fingerprint == *primary);
        self.only.is_empty() || self.only.iter().any(named)
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keyring({} bytes, only {:?})", self.packets.len(), self.only)
    }
}

impl Fingerprint {
    /// Returns the hex digits, in capitals.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Fingerprint {
    type Err = KeyringError;

    fn from_str(text: &str) -> Result<Self, KeyringError> {
        let is_one =
            matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        if !is_one {
            return Err(KeyringError::Fingerprint(text.chars().take(80).collect()));
        }
        Ok(Self(text.to_ascii_uppercase()))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &[u8] = &[0x99, 1, 2, 3];

    fn fingerprint(digit: &str) -> Fingerprint {
        digit.repeat(40).parse().unwrap()
    }

    #[test]
    fn what_is_no_keyring_is_told_apart() {
        assert!(matches!(Keyring::parse(b""), Err(KeyringError::NoKey)));
        assert!(matches!(Keyring::parse(b"<html>"), Err(KeyringError::NoKey)));
        assert!(matches!(Keyring::parse(b"\0\0\0\x20\x01\x01\0\0KBXf"), Err(KeyringError::Keybox)));
        assert!(matches!(
            Keyring::parse(b"-----BEGIN PGP PUBLIC KEY BLOCK-----\n"),
            Err(KeyringError::Armor(ArmorError::Cut))
        ));
        assert!(matches!(Keyring::read(Path::new("/nowhere.gpg")), Err(KeyringError::Read { .. })));
    }

    #[test]
    fn a_source_may_name_the_keys_that_count() {
        let keyring = Keyring::parse(KEY).unwrap();
        assert!(keyring.counts(&fingerprint("a"), &fingerprint("b")));
        let named = keyring.clone().only([&*"B".repeat(40)]).unwrap();
        assert!(named.counts(&fingerprint("a"), &fingerprint("b")));
        assert!(!named.counts(&fingerprint("a"), &fingerprint("c")));
        let exact = keyring.clone().only([&*("b".repeat(40) + "!")]).unwrap();
        assert!(!exact.counts(&fingerprint("a"), &fingerprint("b")));
        assert!(exact.counts(&fingerprint("b"), &fingerprint("b")));
        assert!(keyring.clone().only(["--evil"]).is_err());
        assert!(keyring.only([]).is_err(), "an empty list would let every key count");
    }
}

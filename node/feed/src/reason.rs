//! Why something vouches for nothing, in one word: for logs, metrics and `status`.

use std::fmt;

/// Why an index, or what signs it, was refused. Each is a different thing to do for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// No signature at all.
    Unsigned,
    /// Signed, by nobody in the keyring.
    UnknownKey,
    /// Signed by a key whose time is over.
    ExpiredKey,
    /// Signed by a key that its owner revoked.
    RevokedKey,
    /// The signature itself had a time, and it is over.
    ExpiredSignature,
    /// Signed with a hash that can be forged.
    WeakSignature,
    /// The signature is not over these bytes.
    BadSignature,
    /// Its Valid-Until has passed: nothing newer came, or somebody holds it back.
    ExpiredIndex,
    /// It is from the future: a clock is wrong, here or there.
    Clock,
    /// The bytes are not those that the signed file names.
    WrongDigest,
    /// The bytes are signed or vouched for, and yet cannot be read.
    Malformed,
    /// Larger than a vendor's index has any reason to be.
    TooLarge,
    /// Our own trouble: a program that is missing, a file that cannot be read.
    Trouble,
}

impl Reason {
    /// Returns the word, such as `unknown-key`. It never changes.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::UnknownKey => "unknown-key",
            Self::ExpiredKey => "expired-key",
            Self::RevokedKey => "revoked-key",
            Self::ExpiredSignature => "expired-signature",
            Self::WeakSignature => "weak-signature",
            Self::BadSignature => "bad-signature",
            Self::ExpiredIndex => "expired-index",
            Self::Clock => "clock",
            Self::WrongDigest => "wrong-digest",
            Self::Malformed => "malformed",
            Self::TooLarge => "too-large",
            Self::Trouble => "trouble",
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

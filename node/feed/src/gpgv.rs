//! Is this signature by somebody in the keyring? Debian's `gpgv` says.
//!
//! It is started with one keyring and no other, without a shell, on three files that lie in a
//! folder of their own, and it has [`TIME_MAX`] to answer. What counts is what it says on its
//! status descriptor (`doc/DETAILS` in `GnuPG`), read by [`judge`]; its exit code alone cannot tell
//! an unknown key beside a known one from a forgery.

mod status;

use std::io;
use std::process::Command;
use std::time::Duration;

use crate::keyring::{Fingerprint, Keyring};
use crate::program::{ProgramError, run};
use crate::reason::Reason;

pub use status::judge;

/// How long `gpgv` may take. It takes milliseconds; a machine that boots may be slow.
pub const TIME_MAX: Duration = Duration::from_secs(20);

/// Bytes of what it says, at most: some 500 for each signature.
pub const STATUS_BYTES_MAX: u64 = 64 * 1024;

/// Why no signature vouches for a text.
#[derive(Debug, thiserror::Error)]
pub enum SignatureError {
    /// There is no signature in what should hold some.
    #[error("it holds no signature")]
    Unsigned,
    /// The signature is not over this text.
    #[error("the signature by {key} is not over this text")]
    Bad {
        /// The key's id.
        key: String,
    },
    /// None of the keys that signed is in the keyring.
    #[error("no key of the keyring signed it; {} did", keys.join(", "))]
    UnknownKey {
        /// The keys' ids.
        keys: Vec<String>,
    },
    /// The key is in the keyring, and is not one that this source names.
    #[error("the key {key} signed it, which this source does not name")]
    OtherKey {
        /// The key.
        key: Fingerprint,
    },
    /// The key's time was over.
    #[error("the key {key} that signed it has expired")]
    ExpiredKey {
        /// The key's id.
        key: String,
    },
    /// Its owner revoked the key.
    #[error("the key {key} that signed it was revoked")]
    RevokedKey {
        /// The key's id.
        key: String,
    },
    /// The signature itself had a time, and it is over.
    #[error("the signature by {key} has expired")]
    ExpiredSignature {
        /// The key's id.
        key: String,
    },
    /// The signature uses MD5, SHA-1 or RIPEMD-160.
    #[error("the signature by {key} uses a hash that can be forged")]
    Weak {
        /// The key.
        key: Fingerprint,
    },
    /// `gpgv` cannot check this kind of signature.
    #[error("gpgv cannot check the signature by {key}")]
    Unsupported {
        /// The key's id.
        key: String,
    },
    /// This machine has no `gpgv`.
    #[error("this machine has no gpgv; Debian has it in the package of that name")]
    Absent,
    /// `gpgv` could not be run, or ended in a way that it should not.
    #[error("run gpgv")]
    Run(#[source] io::Error),
    /// `gpgv` did not end in time.
    #[error("gpgv did not end within {} s", TIME_MAX.as_secs())]
    Silent,
    /// What `gpgv` said cannot be understood.
    #[error("gpgv says what cannot be understood")]
    Status,
}

impl SignatureError {
    /// Returns the reason in one word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unsigned => Reason::Unsigned,
            Self::Bad { .. } => Reason::BadSignature,
            Self::UnknownKey { .. } | Self::OtherKey { .. } => Reason::UnknownKey,
            Self::ExpiredKey { .. } => Reason::ExpiredKey,
            Self::RevokedKey { .. } => Reason::RevokedKey,
            Self::ExpiredSignature { .. } => Reason::ExpiredSignature,
            Self::Weak { .. } | Self::Unsupported { .. } => Reason::WeakSignature,
            Self::Absent | Self::Run(_) | Self::Silent | Self::Status => Reason::Trouble,
        }
    }
}

/// Checks a detached signature over a text, and returns the keys that signed it and count.
///
/// Blocks for as long as `gpgv` takes, at most [`TIME_MAX`].
pub(crate) fn verify(
    text: &[u8],
    signature: &[u8],
    keyring: &Keyring,
) -> Result<Vec<Fingerprint>, SignatureError> {
    let folder = tempfile::Builder::new().prefix("sutler-feed-").tempdir();
    let folder = folder.map_err(SignatureError::Run)?;
    let mut command = Command::new("gpgv");
    // No file of the user's: neither options nor keys.
    command.arg("--homedir").arg(folder.path()).args(["--status-fd", "1", "--keyring"]);
    for (name, bytes) in
        [("keyring.gpg", keyring.packets()), ("signature", signature), ("text", text)]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).map_err(SignatureError::Run)?;
        // An absolute path, so no option.
        command.arg(path);
    }
    let (status, said) = run(&mut command, TIME_MAX, STATUS_BYTES_MAX)?;
    // 0: all good; 1: a signature is not; 2: it could not check one. Anything else is no answer.
    if !matches!(status.code(), Some(0..=2)) {
        return Err(SignatureError::Run(io::Error::other(format!("gpgv: {status}"))));
    }
    judge(&String::from_utf8(said).map_err(|_| SignatureError::Status)?, keyring)
}

impl From<ProgramError> for SignatureError {
    fn from(fault: ProgramError) -> Self {
        match fault {
            ProgramError::Absent => Self::Absent,
            ProgramError::Run(source) => Self::Run(source),
            ProgramError::Silent => Self::Silent,
            ProgramError::Loud => Self::Status,
        }
    }
}

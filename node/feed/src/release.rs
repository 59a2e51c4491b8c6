//! The one file that a vendor signs: what it names, who signed it, and until when it is to be believed.
//!
//! A [`Release`] comes only out of [`verify_inrelease`], [`verify_detached`] or [`verify_repomd`]:
//! whoever holds one holds the text that a key of the source's keyring signed, read after that was
//! known, and valid at the `now` that was given. Valid-Until passes while it is held, so [`Release::is_valid`] asks again.

mod date;
mod parse;
mod repomd;

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, SystemTime};

use sutler_protocol::Sha256Digest;

use crate::clear_signed::{self, ClearSigned, ShapeError};
use crate::compression::Compression;
use crate::gpgv::{self, SignatureError};
use crate::index::{Index, IndexFile, Table};
use crate::keyring::{Fingerprint, Keyring};
use crate::reason::Reason;

pub use parse::{FILES_MAX, TextError};

/// Bytes of a Release, at most: apt's own bound (`Acquire::MaxReleaseFileSize`). Debian 12's has 150 kB.
pub const RELEASE_BYTES_MAX: usize = 10_000_000;

/// Bytes of a detached signature, at most. Debian's has 2 kB for three keys.
pub const SIGNATURE_BYTES_MAX: usize = 64 * 1024;

/// How far ahead of `now` a Release may be dated: apt's own bound (`Acquire::Max-FutureTime`).
pub const AHEAD_MAX: Duration = Duration::from_secs(10);

/// A verified Release, or the `repomd.xml` of an RPM repository.
///
/// Names of files are relative to the folder that it lies in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    origin: Option<String>,
    label: Option<String>,
    suite: Option<String>,
    codename: Option<String>,
    components: Vec<String>,
    architectures: Vec<String>,
    date: SystemTime,
    valid_until: Option<SystemTime>,
    hashed: Hashed,
    files: BTreeMap<String, IndexFile>,
    by_sha512: HashMap<[u8; 64], Vec<String>>,
    signers: Vec<Fingerprint>,
}

/// How files are to be had under names that hold their digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hashed {
    /// Not at all, as far as is said.
    No,
    /// `FOLDER/by-hash/SHA256/HEX`, as in Debian's archives.
    Folder,
    /// `HEX-NAME`, as in RPM repositories.
    Prefix,
}

/// Why a Release is not believed.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// It, or its signature, is longer than [`RELEASE_BYTES_MAX`] or [`SIGNATURE_BYTES_MAX`].
    #[error("the Release has {bytes} bytes, more than any has reason to")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It is not one signed message, or its signature is something else.
    #[error("the Release is not signed as it should be")]
    Shape(#[source] ShapeError),
    /// Its signature does not count.
    #[error("the Release's signature does not count")]
    Signature(#[source] SignatureError),
    /// It is signed, and is no Release.
    #[error("the Release is signed and cannot be read")]
    Text(#[source] TextError),
    /// Its time is over.
    #[error("the Release was valid until {}", httpdate::fmt_http_date(*valid_until))]
    Expired {
        /// Its Valid-Until.
        valid_until: SystemTime,
    },
    /// It is dated more than [`AHEAD_MAX`] ahead: a clock is wrong, here or at the vendor.
    #[error("the Release is from the future, of {}", httpdate::fmt_http_date(*date))]
    Ahead {
        /// Its Date.
        date: SystemTime,
    },
}

impl ReleaseError {
    /// Returns the reason in one word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Shape(ShapeError::Front) => Reason::Unsigned,
            Self::Signature(fault) => fault.reason(),
            Self::TooLong { .. } | Self::Text(TextError::TooMany) => Reason::TooLarge,
            Self::Shape(_) | Self::Text(_) => Reason::Malformed,
            Self::Expired { .. } => Reason::ExpiredIndex,
            Self::Ahead { .. } => Reason::Clock,
        }
    }
}

/// Verifies a clear-signed `InRelease` against a source's keyring, and reads what was signed of it.
///
/// Blocks while `gpgv` runs: milliseconds, at most [`gpgv::TIME_MAX`].
///
/// # Errors
///
/// [`ReleaseError`] if it is to vouch for nothing.
pub fn verify_inrelease(
    file: &[u8],
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Release, ReleaseError> {
    bounded(file, RELEASE_BYTES_MAX)?;
    let signed = ClearSigned::split(file).map_err(ReleaseError::Shape)?;
    verify(&signed.text, signed.signature, keyring, now, parse::parse)
}

/// Verifies a `Release` with its `Release.gpg` against a source's keyring, and reads it.
///
/// Blocks while `gpgv` runs: milliseconds, at most [`gpgv::TIME_MAX`].
///
/// # Errors
///
/// [`ReleaseError`] if it is to vouch for nothing.
pub fn verify_detached(
    release: &[u8],
    signature: &[u8],
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Release, ReleaseError> {
    beside(release, signature, keyring, now, parse::parse)
}

/// Verifies the `repomd.xml` of an RPM repository with its `repomd.xml.asc`, and reads it.
///
/// Blocks while `gpgv` runs: milliseconds, at most [`gpgv::TIME_MAX`].
///
/// # Errors
///
/// [`ReleaseError`] if it is to vouch for nothing.
pub fn verify_repomd(
    file: &[u8],
    signature: &[u8],
    keyring: &Keyring,
    now: SystemTime,
) -> Result<Release, ReleaseError> {
    beside(file, signature, keyring, now, repomd::parse)
}

/// Verifies a text with the signature that lies beside it.
fn beside(
    text: &[u8],
    signature: &[u8],
    keyring: &Keyring,
    now: SystemTime,
    read: fn(&[u8]) -> Result<Release, TextError>,
) -> Result<Release, ReleaseError> {
    bounded(text, RELEASE_BYTES_MAX)?;
    bounded(signature, SIGNATURE_BYTES_MAX)?;
    let signature = clear_signed::detached(signature).map_err(ReleaseError::Shape)?;
    verify(text, signature, keyring, now, read)
}

fn bounded(file: &[u8], bytes_max: usize) -> Result<(), ReleaseError> {
    let bytes = file.len();
    if bytes > bytes_max { Err(ReleaseError::TooLong { bytes }) } else { Ok(()) }
}

fn verify(
    text: &[u8],
    signature: &[u8],
    keyring: &Keyring,
    now: SystemTime,
    read: fn(&[u8]) -> Result<Release, TextError>,
) -> Result<Release, ReleaseError> {
    let signers = gpgv::verify(text, signature, keyring).map_err(ReleaseError::Signature)?;
    let mut release = read(text).map_err(ReleaseError::Text)?;
    release.signers = signers;
    release.is_valid(now)?;
    Ok(release)
}

/// Reads what an `InRelease` or a `Release` names without asking who signed it. It vouches for
/// nothing: it is for a cache that hands out indexes as it got them, and wants them to fit together.
///
/// # Errors
///
/// [`ReleaseError`] if it is neither.
pub fn read_unverified(file: &[u8]) -> Result<Names, ReleaseError> {
    bounded(file, RELEASE_BYTES_MAX)?;
    let read = match ClearSigned::split(file) {
        Ok(signed) => parse::parse(&signed.text),
        Err(ShapeError::Front) => parse::parse(file),
        Err(fault) => return Err(ReleaseError::Shape(fault)),
    };
    read.map(Names).map_err(ReleaseError::Text)
}

/// Reads what a `repomd.xml` names without asking who signed it, as [`read_unverified`].
///
/// # Errors
///
/// [`ReleaseError`] if it is none.
pub fn read_unverified_repomd(file: &[u8]) -> Result<Names, ReleaseError> {
    bounded(file, RELEASE_BYTES_MAX)?;
    repomd::parse(file).map(Names).map_err(ReleaseError::Text)
}

/// What a Release names that nobody vouches for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Release);

impl Names {
    /// As [`Release::resolve`].
    pub fn resolve(&self, path: &str) -> Option<(&str, &IndexFile)> {
        self.0.resolve(path)
    }

    /// As [`Release::index`]. What is read of it fits together, and is no more believed than this.
    pub fn index(&self, name: &str) -> Option<Index> {
        self.0.index(name)
    }

    /// As [`Release::hashed_name`].
    pub fn hashed_name(&self, name: &str) -> Option<String> {
        self.0.hashed_name(name)
    }

    /// As [`Release::files`].
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &IndexFile)> {
        self.0.files()
    }
}

/// Reads the text of a Release without asking who signed it. It vouches for nothing.
///
/// For fuzzing, which cannot sign; nothing else has a use for it.
///
/// # Errors
///
/// [`TextError`] if it is no Release.
#[doc(hidden)]
pub fn read_unsigned(text: &[u8]) -> Result<Vec<(String, IndexFile)>, TextError> {
    Ok(parse::parse(text)?.files.into_iter().collect())
}

impl Release {
    /// Checks that it is still to be believed at `now`.
    ///
    /// # Errors
    ///
    /// [`ReleaseError::Expired`] after its Valid-Until, [`ReleaseError::Ahead`] long before its Date.
    pub fn is_valid(&self, now: SystemTime) -> Result<(), ReleaseError> {
        if self.date > now + AHEAD_MAX {
            return Err(ReleaseError::Ahead { date: self.date });
        }
        match self.valid_until {
            Some(valid_until) if valid_until < now => Err(ReleaseError::Expired { valid_until }),
            _ => Ok(()),
        }
    }

    /// Returns what it says of the file with this very name, such as `main/binary-amd64/Packages.xz`.
    pub fn file(&self, name: &str) -> Option<&IndexFile> {
        self.files.get(name)
    }

    /// Returns the file that is asked for by `path` below the Release's folder: by its name, or by
    /// `FOLDER/by-hash/SHA256/HEX` or `SHA512`, whether or not the Release announces them; in an RPM
    /// repository by `HEX-NAME`.
    pub fn resolve(&self, path: &str) -> Option<(&str, &IndexFile)> {
        if let Some((name, file)) = self.files.get_key_value(path) {
            return Some((name, file));
        }
        if self.hashed == Hashed::Prefix {
            let (hex, name) = path.split_once('-')?;
            let (name, file) = self.files.get_key_value(name)?;
            let is_it = Sha256Digest::from_hex(hex).is_ok_and(|sha256| sha256 == file.sha256);
            return is_it.then_some((name, file));
        }
        let (folder, rest) = match path.strip_prefix("by-hash/") {
            Some(rest) => ("", rest),
            None => path.split_once("/by-hash/")?,
        };
        let (hash, hex) = rest.split_once('/')?;
        let is_here = |name: &str| name.rsplit_once('/').map_or("", |(folder, _)| folder) == folder;
        match hash {
            "SHA256" => {
                let sha256 = Sha256Digest::from_hex(hex).ok()?;
                let named =
                    |(name, file): &(&String, &IndexFile)| file.sha256 == sha256 && is_here(name);
                self.files.iter().find(named).map(|(name, file)| (name.as_str(), file))
            }
            "SHA512" => {
                let names = self.by_sha512.get(&parse::sha512_of(hex)?)?;
                let name = names.iter().find(|name| is_here(name))?;
                Some((name, self.files.get(name)?))
            }
            _ => None,
        }
    }

    /// Returns the path below the Release's folder under which a file is to be had by its digest, if
    /// the Release says that there is one.
    pub fn hashed_name(&self, name: &str) -> Option<String> {
        let digest = self.file(name)?.sha256.to_string();
        let hex = digest.rsplit(':').next()?;
        match self.hashed {
            Hashed::No => None,
            Hashed::Prefix => Some(format!("{hex}-{name}")),
            Hashed::Folder => Some(match name.rsplit_once('/') {
                Some((folder, _)) => format!("{folder}/by-hash/SHA256/{hex}"),
                None => format!("by-hash/SHA256/{hex}"),
            }),
        }
    }

    /// Returns the index with this name, with what the Release says of its packed and its plain form;
    /// `None` if it is none that says which file has which digest.
    pub fn index(&self, name: &str) -> Option<Index> {
        let (plain, compression) = Compression::split(name);
        let (table, packed) = (Table::of(name)?, Some(*self.file(name)?));
        Some(Index { table, compression, packed, plain: self.file(plain).copied() })
    }

    /// Returns the index whose plain form has this name, packed in a way that the Release does not
    /// know of, as apt does with its lists.
    pub fn repacked(&self, plain: &str, compression: Compression) -> Option<Index> {
        let (table, plain) = (Table::of(plain)?, Some(*self.file(plain)?));
        Some(Index { table, compression, packed: None, plain })
    }

    /// Returns the names of its indexes of packages, in every form that can be read here.
    pub fn packages(&self) -> impl Iterator<Item = &str> {
        let is_packages = |name: &&str| {
            let (plain, _) = Compression::split(name);
            plain == "Packages" || plain.ends_with("/Packages")
        };
        self.files.keys().map(String::as_str).filter(is_packages)
    }

    /// Returns every file that it names, ordered by name.
    pub fn files(&self) -> impl ExactSizeIterator<Item = (&str, &IndexFile)> {
        self.files.iter().map(|(name, file)| (name.as_str(), file))
    }

    /// Returns whether it has this component. Suites of security updates call theirs `updates/main`,
    /// and mean the `main` that their files are under.
    pub fn has_component(&self, component: &str) -> bool {
        let is_it = |listed: &String| {
            listed == component || listed.strip_prefix("updates/") == Some(component)
        };
        self.components.iter().any(is_it)
    }

    /// Returns its components as it lists them.
    pub fn components(&self) -> &[String] {
        &self.components
    }

    /// Returns its architectures.
    pub fn architectures(&self) -> &[String] {
        &self.architectures
    }

    /// Returns its Origin, such as `Debian`.
    pub fn origin(&self) -> Option<&str> {
        self.origin.as_deref()
    }

    /// Returns its Label, such as `Debian-Security`.
    pub fn label(&self) -> Option<&str> {
        self.label.as_deref()
    }

    /// Returns its Suite, such as `stable`.
    pub fn suite(&self) -> Option<&str> {
        self.suite.as_deref()
    }

    /// Returns its Codename, such as `bookworm`.
    pub fn codename(&self) -> Option<&str> {
        self.codename.as_deref()
    }

    /// Returns when it was made.
    pub fn date(&self) -> SystemTime {
        self.date
    }

    /// Returns until when it is valid, if it says so.
    pub fn valid_until(&self) -> Option<SystemTime> {
        self.valid_until
    }

    /// Returns whether its indexes are also to be had by their digests (`Acquire-By-Hash`).
    pub fn is_by_hash(&self) -> bool {
        self.hashed != Hashed::No
    }

    /// Returns the keys that signed it and count.
    pub fn signers(&self) -> &[Fingerprint] {
        &self.signers
    }
}

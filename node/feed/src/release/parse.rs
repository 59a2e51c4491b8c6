//! The text of a Release file, as signed.

use std::collections::{BTreeMap, HashMap};
use std::str::FromStr;
use std::time::SystemTime;

use sutler_protocol::Sha256Digest;

use super::{Hashed, RELEASE_BYTES_MAX, Release, date};
use crate::deb822::{Limits, Stanza, StanzaError, Stanzas};
use crate::index::IndexFile;
use crate::path::{PATH_BYTES_MAX, confined};
use crate::xml::XmlError;

/// Files that a Release names, at most. Debian 12's names 1,516.
pub const FILES_MAX: usize = 1 << 16;

/// Bytes of a line: a digest, a length and a name; the longest in Debian 12 has 170. Lists of
/// components and architectures are shorter than this, too.
const LINE_BYTES_MAX: usize = 2 * PATH_BYTES_MAX;

const LIMITS: Limits =
    Limits { line_bytes_max: LINE_BYTES_MAX, stanza_bytes_max: RELEASE_BYTES_MAX };

/// Why a text, signed as it may be, is no Release.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// It is no stanza.
    #[error(transparent)]
    Stanza(#[from] StanzaError),
    /// It is no `repomd.xml`.
    #[error(transparent)]
    Xml(#[from] XmlError),
    /// It is empty, or more than one stanza.
    #[error("it is not one stanza")]
    NotOne,
    /// A field is missing.
    #[error("it has no {field}")]
    Missing {
        /// The field.
        field: &'static str,
    },
    /// A field is not what it should be.
    #[error("its {field} is none")]
    Field {
        /// The field.
        field: &'static str,
    },
    /// A line of a list of files is not digest, length and name.
    #[error("in its {field}, {line:?} is no digest, length and name")]
    File {
        /// The list.
        field: &'static str,
        /// The line, or the beginning of it.
        line: String,
    },
    /// A name leads out of the archive.
    #[error("it names {name:?}, which leads out of the archive")]
    Name {
        /// The name, or the beginning of it.
        name: String,
    },
    /// It says two things of one file.
    #[error("it says two things of {name}")]
    Conflict {
        /// The file.
        name: String,
    },
    /// It names more files than [`FILES_MAX`].
    #[error("it names more than {FILES_MAX} files")]
    TooMany,
}

/// Parses a text that was signed by `signers`.
pub(super) fn parse(text: &[u8]) -> Result<Release, TextError> {
    let mut stanzas = Stanzas::new(text, LIMITS);
    let release = read(&stanzas.next_stanza()?.ok_or(TextError::NotOne)?)?;
    match stanzas.next_stanza()? {
        None => Ok(release),
        Some(_) => Err(TextError::NotOne),
    }
}

fn read(stanza: &Stanza<'_>) -> Result<Release, TextError> {
    let text = |field: &'static str| match stanza.field(field) {
        None => Ok(None),
        Some(value) => std::str::from_utf8(value).map(Some).map_err(|_| TextError::Field { field }),
    };
    let owned = |field| text(field).map(|value| value.map(str::to_owned));
    let words = |field| {
        let value = text(field)?.unwrap_or_default();
        Ok::<_, TextError>(value.split_ascii_whitespace().map(str::to_owned).collect())
    };
    let instant = |field: &'static str| -> Result<Option<SystemTime>, TextError> {
        let value = text(field)?;
        value.map(|value| date::parse(value).ok_or(TextError::Field { field })).transpose()
    };
    let sha256 = text("SHA256")?.ok_or(TextError::Missing { field: "SHA256" })?;
    let sha256 = list::<Sha256Digest>("SHA256", sha256, |hex| Sha256Digest::from_hex(hex).ok())?;
    let files: BTreeMap<String, IndexFile> = sha256
        .into_iter()
        .map(|(name, (bytes, sha256))| (name, IndexFile { bytes, sha256 }))
        .collect();
    let is_by_hash = text("Acquire-By-Hash")?.is_some_and(|value| value == "yes");
    let sha512 = list("SHA512", text("SHA512")?.unwrap_or_default(), sha512_of)?;
    Ok(Release {
        origin: owned("Origin")?,
        label: owned("Label")?,
        suite: owned("Suite")?,
        codename: owned("Codename")?,
        components: words("Components")?,
        architectures: words("Architectures")?,
        date: instant("Date")?.ok_or(TextError::Missing { field: "Date" })?,
        valid_until: instant("Valid-Until")?,
        hashed: if is_by_hash { Hashed::Folder } else { Hashed::No },
        by_sha512: by_sha512(&files, sha512)?,
        files,
        signers: Vec::new(),
    })
}

/// Reads lines of digest, length and name.
fn list<D: PartialEq + Copy>(
    field: &'static str,
    value: &str,
    digest: impl Fn(&str) -> Option<D>,
) -> Result<BTreeMap<String, (u64, D)>, TextError> {
    let mut files = BTreeMap::new();
    for line in value.lines().filter(|line| !line.trim().is_empty()) {
        let words: Vec<&str> = line.split_ascii_whitespace().take(4).collect();
        let entry = match *words {
            [hex, bytes, name] => digest(hex).zip(number(bytes)).zip(Some(name)),
            _ => None,
        };
        let fault = || TextError::File { field, line: line.chars().take(200).collect() };
        let ((digest, bytes), name) = entry.ok_or_else(fault)?;
        let Some(name) = confined(name) else {
            return Err(TextError::Name { name: name.chars().take(200).collect() });
        };
        let known = files.insert(name.to_owned(), (bytes, digest));
        if known.is_some_and(|known| known != (bytes, digest)) {
            return Err(TextError::Conflict { name: name.to_owned() });
        }
        if files.len() > FILES_MAX {
            return Err(TextError::TooMany);
        }
    }
    Ok(files)
}

/// Returns which files have which SHA-512; only those of which the SHA-256 is known, too.
fn by_sha512(
    files: &BTreeMap<String, IndexFile>,
    sha512: BTreeMap<String, (u64, [u8; 64])>,
) -> Result<HashMap<[u8; 64], Vec<String>>, TextError> {
    let mut found: HashMap<_, Vec<String>> = HashMap::new();
    for (name, (bytes, digest)) in sha512 {
        match files.get(&name) {
            None => {}
            Some(file) if file.bytes != bytes => return Err(TextError::Conflict { name }),
            Some(_) => found.entry(digest).or_default().push(name),
        }
    }
    Ok(found)
}

/// Reads a plain number.
pub(super) fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { u64::from_str(text).ok() } else { None }
}

/// Reads 128 hex digits.
pub(super) fn sha512_of(hex: &str) -> Option<[u8; 64]> {
    let (front, back) = hex.split_at_checked(64)?;
    let mut digest = [0; 64];
    digest[..32].copy_from_slice(Sha256Digest::from_hex(front).ok()?.as_bytes());
    digest[32..].copy_from_slice(Sha256Digest::from_hex(back).ok()?.as_bytes());
    Some(digest)
}

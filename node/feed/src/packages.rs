//! Which file of the archive has which digest: a `Packages` or `Sources` index, or the `primary.xml` of
//! an RPM repository, read as a stream.
//!
//! The bytes are hashed while they are unpacked and parsed, and the table is given out only once the
//! whole was what the Release names. If it was not, that is the error, whatever the parser came
//! upon before. What is kept is small: digest, length and path, some 120 bytes a package, so that
//! Debian's `main` of 63,000 takes 8 MiB, and its sources with some 130,000 files 15 MiB.

mod primary;
mod stanzas;

use std::io::{self, BufRead, Read};

use sutler_protocol::Sha256Digest;

use crate::compression::{PLAIN_BYTES_MAX, RATIO_MAX, unpacked};
use crate::deb822::StanzaError;
use crate::index::{Checked, FileError, Index, IndexFile, Table};
use crate::path::confined;
use crate::reason::Reason;
use crate::xml::XmlError;

/// Files of one index, at most: four times Debian's `main`, twice its sources. What is kept of them
/// stays below 32 MiB with names of their usual length.
pub const PACKAGES_MAX: usize = 1 << 18;

/// Bytes of all paths together, at most: four times Debian's `main`.
const PATHS_BYTES_MAX: usize = 24 << 20;

/// What a believed index says: each file's path below the archive's root, length and digest.
#[derive(Clone, PartialEq, Eq)]
pub struct Packages {
    paths: String,
    /// Ordered by path, each path once.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry {
    /// Where its path begins in `paths`. Below `PATHS_BYTES_MAX`.
    start: u32,
    /// The path's length; `path::confined` bounds it.
    len: u16,
    bytes: u64,
    sha256: Sha256Digest,
}

/// Why an index says nothing.
#[derive(Debug, thiserror::Error)]
pub enum PackagesError {
    /// It is not the file that the Release names.
    #[error(transparent)]
    File(#[from] FileError),
    /// The Release names neither form of it.
    #[error("no Release names the index")]
    Unnamed,
    /// It is what the Release names, and cannot be unpacked: cut short, damaged, or in need of more
    /// memory than is given.
    #[error("unpack the index")]
    Unpack(#[source] io::Error),
    /// It unpacks to more than the Release says, or than is reasonable.
    #[error("the index unpacks to more than {bytes_max} bytes")]
    Bomb {
        /// The bound, in bytes.
        bytes_max: u64,
    },
    /// It unpacks to less than the Release says.
    #[error("the index unpacks to {found} bytes, and its Release says {wanted}")]
    Short {
        /// What the Release says, in bytes.
        wanted: u64,
        /// What came out, in bytes.
        found: u64,
    },
    /// It is no stanzas.
    #[error("read the index's stanzas")]
    Stanza(#[source] StanzaError),
    /// It is no `primary.xml`.
    #[error("read the index's records")]
    Xml(#[source] XmlError),
    /// A package lacks a field.
    #[error("the package at line {line} has no {field}")]
    Missing {
        /// The field.
        field: &'static str,
        /// The package's first line, from 1.
        line: u64,
    },
    /// A field is not what it should be.
    #[error("the package at line {line} has a {field} that is none")]
    Field {
        /// The field.
        field: &'static str,
        /// The package's first line, from 1.
        line: u64,
    },
    /// A path leads out of the archive.
    #[error("the package at line {line} has a file that leads out of the archive")]
    Path {
        /// The package's first line, from 1.
        line: u64,
    },
    /// A path is there twice, with two digests or lengths.
    #[error("the index names {path} twice and says two things of it")]
    Conflict {
        /// The path.
        path: String,
    },
    /// There are more files than [`PACKAGES_MAX`], or their paths are too long.
    #[error("the index names more than {PACKAGES_MAX} files, or too long ones")]
    TooMany,
}

impl PackagesError {
    /// Returns the reason in one word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::File(fault) => fault.reason(),
            Self::Bomb { .. }
            | Self::TooMany
            | Self::Xml(XmlError::TooLong { .. })
            | Self::Stanza(StanzaError::LineTooLong { .. } | StanzaError::StanzaTooLong { .. }) => {
                Reason::TooLarge
            }
            _ => Reason::Malformed,
        }
    }
}

impl Packages {
    /// Reads an index to its end.
    ///
    /// # Errors
    ///
    /// [`PackagesError`] if the bytes are not the index, or the index is not to be read.
    pub fn read(reader: impl Read, index: &Index) -> Result<Self, PackagesError> {
        let plain_max = plain_bytes_max(index).ok_or(PackagesError::Unnamed)?;
        // Of a form that the Release does not name, the plain bytes are checked instead.
        if let Some(packed) = index.packed {
            let mut checked = Checked::new(reader, packed);
            let parsed = unpacked(&mut checked, index.compression)
                .map_err(PackagesError::Unpack)
                .and_then(|plain| {
                    let wanted = index.plain.map(|plain| plain.bytes);
                    parse(plain, index.table, plain_max, wanted)
                });
            checked.finish()?;
            return parsed;
        }
        let plain = index.plain.ok_or(PackagesError::Unnamed)?;
        let unpacked = unpacked(reader, index.compression).map_err(PackagesError::Unpack)?;
        let mut checked = Checked::new(unpacked, plain);
        let buffered = io::BufReader::new(&mut checked);
        let parsed = parse(buffered, index.table, plain_max, Some(plain.bytes));
        // What cannot be unpacked cannot be hashed either.
        if let Err(PackagesError::Unpack(_)) = &parsed
            && !checked.failed()
        {
            return parsed;
        }
        checked.finish()?;
        parsed
    }

    /// Returns the digest and the length, in bytes, of the file at `path` below the archive's root, if
    /// the index names it.
    pub fn vouches(&self, path: &str) -> Option<IndexFile> {
        let found = self.entries.binary_search_by(|entry| self.path(entry).cmp(path)).ok()?;
        let Entry { bytes, sha256, .. } = self.entries[found];
        Some(IndexFile { bytes, sha256 })
    }

    /// Returns how many files the index names.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns whether the index names none, as those of empty components do.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns every path with what is said of it, ordered by path.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, IndexFile)> {
        self.entries.iter().map(|entry| {
            let Entry { bytes, sha256, .. } = *entry;
            (self.path(entry), IndexFile { bytes, sha256 })
        })
    }

    fn path(&self, entry: &Entry) -> &str {
        &self.paths[entry.start as usize..][..usize::from(entry.len)]
    }
}

/// Returns how long the plain index may be, if anything is known of it.
fn plain_bytes_max(index: &Index) -> Option<u64> {
    match (index.plain, index.packed) {
        (Some(plain), _) => Some(plain.bytes),
        (None, Some(packed)) => Some(packed.bytes.saturating_mul(RATIO_MAX).min(PLAIN_BYTES_MAX)),
        (None, None) => None,
    }
}

/// Parses plain bytes, at most `bytes_max`, and exactly `wanted` where that is known.
fn parse(
    plain: impl BufRead,
    table: Table,
    bytes_max: u64,
    wanted: Option<u64>,
) -> Result<Packages, PackagesError> {
    let mut bounded = Bounded { reader: plain, left: bytes_max, is_over: false };
    let mut packages = Packages { paths: String::new(), entries: Vec::new() };
    let collected = match table {
        Table::Packages => stanzas::collect(&mut packages, &mut bounded, stanzas::package),
        Table::Sources => stanzas::collect(&mut packages, &mut bounded, stanzas::source),
        Table::Primary => primary::collect(&mut packages, &mut bounded),
    };
    if bounded.is_over {
        return Err(PackagesError::Bomb { bytes_max });
    }
    collected?;
    let found = bytes_max - bounded.left;
    if let Some(wanted) = wanted
        && found != wanted
    {
        return Err(PackagesError::Short { wanted, found });
    }
    packages.sort()?;
    Ok(packages)
}

/// Reads a plain number.
fn number(text: &str) -> Option<u64> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { text.parse().ok() } else { None }
}

impl Packages {
    /// Takes a file of the package at `line`.
    fn push(&mut self, path: &str, file: IndexFile, line: u64) -> Result<(), PackagesError> {
        let path = confined(path).ok_or(PackagesError::Path { line })?;
        let start = self.paths.len();
        if self.entries.len() == PACKAGES_MAX || start + path.len() > PATHS_BYTES_MAX {
            return Err(PackagesError::TooMany);
        }
        let IndexFile { bytes, sha256 } = file;
        self.paths.push_str(path);
        self.entries.push(Entry { start: start as u32, len: path.len() as u16, bytes, sha256 });
        Ok(())
    }

    fn sort(&mut self) -> Result<(), PackagesError> {
        let path = |entry: &Entry| &self.paths[entry.start as usize..][..usize::from(entry.len)];
        self.entries.sort_unstable_by(|one, other| path(one).cmp(path(other)));
        for pair in self.entries.windows(2) {
            let (one, other) = (pair[0], pair[1]);
            let same = (one.bytes, one.sha256) == (other.bytes, other.sha256);
            if path(&one) == path(&other) && !same {
                return Err(PackagesError::Conflict { path: path(&one).to_owned() });
            }
        }
        self.entries.dedup_by(|one, other| path(one) == path(other));
        self.entries.shrink_to_fit();
        self.paths.shrink_to_fit();
        Ok(())
    }
}

impl std::fmt::Debug for Packages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Packages({} files)", self.entries.len())
    }
}

/// A reader that ends with an error where more comes than may.
struct Bounded<R> {
    reader: R,
    left: u64,
    is_over: bool,
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let count = available.len().min(buffer.len());
        buffer[..count].copy_from_slice(&available[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let available = self.reader.fill_buf()?;
        if self.left == 0 && !available.is_empty() {
            self.is_over = true;
            return Err(io::Error::other("unpacks to more than it may"));
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(available.len());
        Ok(&available[..count])
    }

    fn consume(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count as u64);
        self.reader.consume(count);
    }
}

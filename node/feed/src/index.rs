//! A file that a verified Release names: how long it is, what it hashes to, and reading it so that
//! nothing else is believed.

use std::io::{self, Read};

use aws_lc_rs::digest::{Context, SHA256};
use sutler_protocol::Sha256Digest;

use crate::compression::Compression;
use crate::reason::Reason;

/// What a Release says of one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct IndexFile {
    /// Its length, in bytes.
    pub bytes: u64,
    /// Its digest.
    pub sha256: Sha256Digest,
}

/// What an index that says which file has which digest is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    /// `Packages`: a stanza a package.
    Packages,
    /// `Sources`: a stanza a source package, which names several files.
    Sources,
    /// `primary.xml` of an RPM repository.
    Primary,
}

/// An index in the form in which somebody has it.
///
/// A Release gives it ([`Release::index`](crate::Release::index)) and names both forms, mostly: the
/// packed file as it is fetched, whose bytes are checked, and the plain one, whose length bounds what
/// the packed one may become. Of a form that the Release does not name, `None` is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Index {
    /// What it is made of.
    pub table: Table,
    /// How it is packed.
    pub compression: Compression,
    /// The file as it is fetched.
    pub packed: Option<IndexFile>,
    /// The file once it is unpacked.
    pub plain: Option<IndexFile>,
}

impl Table {
    /// Returns what the index with this name is made of, packed or not; `None` if it is another.
    pub fn of(name: &str) -> Option<Self> {
        let (plain, _) = Compression::split(name);
        let (folder, last) =
            plain.rsplit_once('/').map_or(("", plain), |(folder, last)| (folder, last));
        match last {
            "Packages" => Some(Self::Packages),
            "Sources" => Some(Self::Sources),
            "primary.xml" if folder.is_empty() => Some(Self::Primary),
            _ => None,
        }
    }
}

/// Why bytes are not the file that was named.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// They cannot be read.
    #[error("read the index")]
    Read(#[source] io::Error),
    /// There are more or fewer of them.
    #[error("the index has {found} bytes{}, and its Release says {wanted}", if *more { " or more" } else { "" })]
    Length {
        /// What the Release says, in bytes.
        wanted: u64,
        /// What there is, in bytes.
        found: u64,
        /// Reading stopped before their end.
        more: bool,
    },
    /// They hash to something else.
    #[error("the index is {found}, and its Release says {wanted}")]
    Digest {
        /// What the Release says.
        wanted: Sha256Digest,
        /// What there is.
        found: Sha256Digest,
    },
}

impl FileError {
    /// Returns the reason in one word.
    pub fn reason(&self) -> Reason {
        match self {
            Self::Read(_) => Reason::Trouble,
            Self::Length { .. } | Self::Digest { .. } => Reason::WrongDigest,
        }
    }
}

impl IndexFile {
    /// Reads a file to its end, and checks that it is this one: for indexes of which nothing but
    /// their being the vendor's is of interest, such as `Contents`.
    ///
    /// # Errors
    ///
    /// [`FileError`] if it cannot be read, or is another.
    pub fn check(&self, reader: impl Read) -> Result<(), FileError> {
        let mut reader = Checked::new(reader, *self);
        reader.finish()
    }
}

/// A reader that hashes what passes, and gives no more than the file may have.
pub(crate) struct Checked<R> {
    reader: R,
    wanted: IndexFile,
    read: u64,
    digest: Context,
    /// Set once the stream below failed, or had more bytes than it should.
    fault: Option<FileError>,
}

impl<R: Read> Checked<R> {
    pub(crate) fn new(reader: R, wanted: IndexFile) -> Self {
        Self { reader, wanted, read: 0, digest: Context::new(&SHA256), fault: None }
    }

    /// Reads what is left, and says whether the whole was the file that was wanted.
    pub(crate) fn finish(&mut self) -> Result<(), FileError> {
        let mut buffer = vec![0; 64 * 1024];
        while self.fault.is_none() {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.fault.get_or_insert(FileError::Read(error));
                }
            }
        }
        if let Some(fault) = self.fault.take() {
            return Err(fault);
        }
        let IndexFile { bytes: wanted, sha256 } = self.wanted;
        if self.read != wanted {
            return Err(FileError::Length { wanted, found: self.read, more: false });
        }
        let digest = self.digest.clone().finish();
        let found = digest.as_ref().try_into().expect("a SHA-256 has 32 bytes");
        let found = Sha256Digest::from_bytes(found);
        if found == sha256 { Ok(()) } else { Err(FileError::Digest { wanted: sha256, found }) }
    }

    /// Returns whether it is the stream below that failed, rather than whoever reads from here.
    pub(crate) fn failed(&self) -> bool {
        self.fault.is_some()
    }
}

impl<R: Read> Read for Checked<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.fault.is_some() {
            return Err(io::Error::other("failed before"));
        }
        let count = match self.reader.read(buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => {
                let kind = error.kind();
                self.fault = Some(FileError::Read(error));
                return Err(kind.into());
            }
        };
        self.digest.update(&buffer[..count]);
        self.read += count as u64;
        if self.read > self.wanted.bytes {
            let IndexFile { bytes: wanted, .. } = self.wanted;
            self.fault = Some(FileError::Length { wanted, found: self.read, more: true });
            return Err(io::Error::other("longer than its Release says"));
        }
        Ok(count)
    }
}

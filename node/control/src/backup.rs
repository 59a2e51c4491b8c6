//! A backup of control: one archive of all that it cannot make again, and what is checked of one before it is believed.
//!
//! ```text
//! FORMAT                 `sutler control backup 1`
//! org.json, …            the files of the folder by their paths in it: [`PARTS`], under the repository's lock
//! repository/targets/…   then those that never change once they are there: [`LATER`]
//! MANIFEST               how many files that was, and one BLAKE3 over their names and bytes
//! ```
//! It is a tar of plain files, so that it is read without us. It holds every key that the folder holds, and has mode
//! 0600. What can be made again stays out: the store, which is filled from the repository, and what control believes of
//! its own repository.
//!
//! Always true: an archive is whole under its name or not there; what is restored was checked as a whole before it gets
//! its place, and begins as [`Restored`]: nothing is signed in it until control has caught up with what devices know.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sutler_orders::text::Utc;

use crate::key::OpenKeyError;
use crate::organisation::{Folder, FolderError};
use crate::repository::ReadError;

mod read;
pub(crate) mod restored;
mod walk;

pub use read::{EntryFault, RestoreError, restore};
pub use restored::{Restored, RestoredError};

/// What an archive begins with.
const FORMAT: &[u8] = b"sutler control backup 1\n";
const FORMAT_NAME: &str = "FORMAT";
const MANIFEST_NAME: &str = "MANIFEST";

/// Bytes of the manifest, at most.
const MANIFEST_BYTES_MAX: u64 = 4 * 1024;

/// What changes, and is small beside contents.
const PARTS: [&str; 15] = [
    "org.json",
    "ca.pem",
    "ca-key.pem",
    "chain.pem",
    "sutler.toml",
    "authority",
    "identity",
    "keys",
    "online",
    "drafts",
    "members",
    "reports",
    "audit",
    "orders/denials",
    "repository/metadata",
];

/// What is never changed nor removed once it is there, and so needs no lock.
const LATER: [&str; 2] = ["repository/lists", "repository/targets"];

/// Files of an archive, at most: the reports of all devices that control takes, and as much again in orders.
const FILES_MAX: u64 = 1_000_000;

/// What an archive says of itself at its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Whose it is.
    pub organisation: String,
    /// When it was made.
    pub at: Utc,
    /// The version of the timestamp that was published then.
    pub version: u64,
    /// How many files are before this.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// BLAKE3 over the name, a zero byte and the BLAKE3 of each.
    pub blake3: String,
}

/// Why there is no backup. Nothing lies under its name, or what did before.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// The organisation's folder cannot be used.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// What is published cannot be told: a backup of it would be worth nothing.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A file cannot be read.
    #[error("read {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// Something is there that is neither a file nor a folder, or has a name that no archive takes.
    #[error("back up {}: it is no file that control made", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
    },
    /// The archive cannot be written.
    #[error("write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// What the disk answered.
        source: io::Error,
    },
    /// Control's own keys are not there: whoever restores it could sign nothing.
    #[error("read control's own keys")]
    Keys(#[from] OpenKeyError),
}

/// Writes a backup of the control in `data` to the file `out`, while it runs or not.
///
/// # Errors
///
/// [`BackupError`].
pub fn write(data: &Path, out: &Path, now: Timestamp) -> Result<Manifest, BackupError> {
    let failed = |source| BackupError::Write { path: out.to_owned(), source };
    let parent = walk::parent_of(out);
    // Mode 0600, as every file that tempfile makes.
    let mut beside =
        tempfile::Builder::new().prefix(".sutler-backup-").tempfile_in(parent).map_err(failed)?;
    let mut archive = Archive::new(data, out, io::BufWriter::new(beside.as_file_mut()))?;
    let (organisation, version, later) = {
        let folder = Folder::open(data)?;
        let state = folder.state()?;
        folder.online_keys()?;
        for part in PARTS {
            for name in walk::files(data, part)? {
                archive.add(&name)?;
            }
        }
        let mut later = Vec::new();
        for part in LATER {
            later.extend(walk::files(data, part)?);
        }
        let version = state.timestamp.version().number();
        (folder.organisation().to_string(), version, later)
    };
    for name in later {
        archive.add(&name)?;
    }
    let manifest = archive.finish(organisation, Utc::of(now), version)?;
    beside.as_file().sync_all().map_err(failed)?;
    beside.persist(out).map_err(|error| failed(error.error))?;
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(failed)?;
    Ok(manifest)
}

/// An archive that is being written.
struct Archive<'a, W: io::Write> {
    data: &'a Path,
    out: &'a Path,
    tar: tar::Builder<W>,
    sum: Sum,
}

/// What was put in so far, or taken out.
#[derive(Default)]
struct Sum {
    files: u64,
    bytes: u64,
    hasher: blake3::Hasher,
}

impl Sum {
    fn add(&mut self, name: &str, bytes: u64, hash: &blake3::Hash) {
        self.files += 1;
        self.bytes = self.bytes.saturating_add(bytes);
        self.hasher.update(name.as_bytes()).update(&[0]).update(hash.as_bytes());
    }

    fn blake3(&self) -> String {
        self.hasher.finalize().to_hex().to_string()
    }
}

impl<'a, W: io::Write> Archive<'a, W> {
    fn new(data: &'a Path, out: &'a Path, file: W) -> Result<Self, BackupError> {
        let mut archive = Self { data, out, tar: tar::Builder::new(file), sum: Sum::default() };
        archive.add_bytes(FORMAT_NAME, FORMAT)?;
        Ok(archive)
    }

    fn failed(&self, source: io::Error) -> BackupError {
        BackupError::Write { path: self.out.to_owned(), source }
    }

    fn add_bytes(&mut self, name: &str, bytes: &[u8]) -> Result<(), BackupError> {
        let mut header = header(bytes.len() as u64, 0o600);
        let added = self.tar.append_data(&mut header, name, bytes);
        added.map_err(|source| self.failed(source))
    }

    /// Adds a file of the folder by its path in it.
    fn add(&mut self, name: &str) -> Result<(), BackupError> {
        let path = self.data.join(name);
        let read = |source| BackupError::File { path: path.clone(), source };
        let file = File::open(&path).map_err(read)?;
        let about = file.metadata().map_err(read)?;
        let mut header = header(about.len(), walk::mode_of(&about));
        // As many as it says: a file that grows meanwhile is cut there, and one that shrinks is no file of ours.
        let mut reader = walk::Hashed::new(io::Read::take(file, about.len()));
        let added = self.tar.append_data(&mut header, name, &mut reader);
        let (bytes, hash) = reader.finish();
        added.map_err(|source| self.failed(source))?;
        if bytes != about.len() {
            return Err(read(io::ErrorKind::UnexpectedEof.into()));
        }
        self.sum.add(name, bytes, &hash);
        Ok(())
    }

    fn finish(
        mut self,
        organisation: String,
        at: Utc,
        version: u64,
    ) -> Result<Manifest, BackupError> {
        let Sum { files, bytes, .. } = self.sum;
        let blake3 = self.sum.blake3();
        let manifest = Manifest { organisation, at, version, files, bytes, blake3 };
        let text = serde_json::to_vec(&manifest).expect("names and numbers are JSON");
        self.add_bytes(MANIFEST_NAME, &text)?;
        let out = self.out;
        let done = self.tar.into_inner().and_then(|mut file| file.flush());
        done.map_err(|source| BackupError::Write { path: out.to_owned(), source })?;
        Ok(manifest)
    }
}

fn header(bytes: u64, mode: u32) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(bytes);
    header.set_mode(mode);
    header.set_mtime(0);
    header
}

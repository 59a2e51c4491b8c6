//! Restoring: an archive is unpacked beside its place, checked as a whole, and only then put there.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufReader, Read};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::restored::{Restored, RestoredError};
use super::walk::{Hashed, is_ours, parent_of};
use super::{FILES_MAX, FORMAT, FORMAT_NAME, MANIFEST_BYTES_MAX, MANIFEST_NAME, Manifest, Sum};
use crate::audit::{Audit, AuditError, Head};
use crate::key::OpenKeyError;
use crate::organisation::{Folder, FolderError};
use crate::repository::ReadError;

/// Why nothing was restored: the place is as it was.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// Something is there already.
    #[error("restore into {}, which is not empty", path.display())]
    NotEmpty {
        /// Where.
        path: PathBuf,
    },
    /// The archive cannot be read, or is none.
    #[error("read the backup {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It is none of ours, or of a later format.
    #[error("the backup begins with {found:?} instead of {:?}", String::from_utf8_lossy(FORMAT).trim_end())]
    Format {
        /// What it begins with.
        found: String,
    },
    /// Something in it may not be there.
    #[error("the backup's entry {name:?} {fault}")]
    Entry {
        /// Its name.
        name: String,
        /// What is wrong with it.
        fault: EntryFault,
    },
    /// It does not end as it should.
    #[error("the backup ends without its manifest: it was cut off")]
    Cut,
    /// What it says of itself cannot be read.
    #[error("read the backup's manifest")]
    Manifest(#[source] serde_json::Error),
    /// Its files are not those that were written.
    #[error("the backup's {what} is {found}, and its manifest says {said}")]
    Differs {
        /// What of it.
        what: &'static str,
        /// What was found.
        found: String,
        /// What the manifest says.
        said: String,
    },
    /// What is in it is no control's folder.
    #[error("open what is in the backup")]
    Folder(#[source] FolderError),
    /// What is published in it cannot be told.
    #[error("read what is published in the backup")]
    State(#[source] ReadError),
    /// Control's own keys in it cannot be read.
    #[error("read control's own keys in the backup")]
    Keys(#[source] OpenKeyError),
    /// The audit log in it does not hold.
    #[error("check the audit log in the backup")]
    Audit(#[source] AuditError),
    /// The disk refused.
    #[error("write {}", path.display())]
    Write {
        /// Which file or folder.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// The disk refused.
    #[error(transparent)]
    Restored(#[from] RestoredError),
}

/// Why an entry may not be in an archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// It is a link, a folder or a device.
    #[error("is no plain file")]
    Kind,
    /// It is not a place that control has.
    #[error("is not where control has files")]
    Name,
    /// It is there twice.
    #[error("is there twice")]
    Twice,
    /// It stands behind the end.
    #[error("stands behind the manifest")]
    Behind,
    /// One too many.
    #[error("is one more than the {FILES_MAX} files that a backup has")]
    TooMany,
}

/// Restores an archive into the folder `data`, which is not there or empty. It is control's from then on, once
/// it has caught up: `restored` says with whom, and is given the archive's version.
///
/// # Errors
///
/// [`RestoreError`].
pub fn restore(
    archive: &Path,
    data: &Path,
    mut restored: Restored,
) -> Result<Manifest, RestoreError> {
    let write = |source| RestoreError::Write { path: data.to_owned(), source };
    let is_free = match fs::read_dir(data) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => true,
        Err(error) => return Err(write(error)),
    };
    let not_empty = || RestoreError::NotEmpty { path: data.to_owned() };
    if !is_free {
        return Err(not_empty());
    }
    let parent = parent_of(data);
    fs::create_dir_all(parent).map_err(write)?;
    let staging = tempfile::Builder::new().prefix(".sutler-restore-").tempdir_in(parent);
    let staging = staging.map_err(write)?;
    let beside = staging.path().join("data");
    DirBuilder::new().mode(0o700).create(&beside).map_err(write)?;
    let manifest = unpack(archive, &beside)?;
    check(&beside, &manifest)?;
    restored.version = manifest.version;
    restored.write(&beside)?;
    // All of it at once: file by file would take a disk's turn for each.
    let opened = File::open(&beside).map_err(write)?;
    rustix::fs::syncfs(&opened).map_err(|error| write(error.into()))?;
    fs::rename(&beside, data).map_err(|error| match error.kind() {
        io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists => not_empty(),
        _ => write(error),
    })?;
    File::open(parent).and_then(|parent| parent.sync_all()).map_err(write)?;
    Ok(manifest)
}

/// Unpacks an archive into an empty folder, and checks that it is what was written.
fn unpack(archive: &Path, into: &Path) -> Result<Manifest, RestoreError> {
    let read = |source| RestoreError::Read { path: archive.to_owned(), source };
    let mut tar = tar::Archive::new(BufReader::new(File::open(archive).map_err(read)?));
    let mut sum = Sum::default();
    let (mut is_begun, mut manifest) = (false, None::<Manifest>);
    for entry in tar.entries().map_err(read)? {
        let mut entry = entry.map_err(read)?;
        let bytes = entry.path_bytes();
        let name = String::from_utf8_lossy(&bytes).into_owned();
        drop(bytes);
        if !is_begun {
            begin(&name, &mut entry).map_err(read)??;
            is_begun = true;
            continue;
        }
        let fault = |fault| RestoreError::Entry { name: name.clone(), fault };
        if manifest.is_some() {
            return Err(fault(EntryFault::Behind));
        }
        if !entry.header().entry_type().is_file() {
            return Err(fault(EntryFault::Kind));
        }
        if name == MANIFEST_NAME {
            let mut text = Vec::new();
            entry.take(MANIFEST_BYTES_MAX).read_to_end(&mut text).map_err(read)?;
            manifest = Some(serde_json::from_slice(&text).map_err(RestoreError::Manifest)?);
            continue;
        }
        if !is_ours(&name) {
            return Err(fault(EntryFault::Name));
        }
        if sum.files == FILES_MAX {
            return Err(fault(EntryFault::TooMany));
        }
        let is_private = entry.header().mode().map_err(read)? & 0o044 == 0;
        let mode = if is_private { 0o600 } else { 0o644 };
        let path = into.join(&name);
        let write = |source| RestoreError::Write { path: path.clone(), source };
        fs::create_dir_all(parent_of(&path)).map_err(write)?;
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path);
        let mut file = file.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => fault(EntryFault::Twice),
            _ => write(error),
        })?;
        let said = entry.size();
        let mut reader = Hashed::new(&mut entry);
        copy(&mut reader, &mut file, read, write)?;
        let (bytes, hash) = reader.finish();
        if bytes != said {
            return Err(read(io::ErrorKind::UnexpectedEof.into()));
        }
        sum.add(&name, bytes, &hash);
    }
    let manifest = manifest.ok_or(RestoreError::Cut)?;
    let differs = |what, found: String, said: String| {
        if found == said { Ok(()) } else { Err(RestoreError::Differs { what, found, said }) }
    };
    differs("number of files", sum.files.to_string(), manifest.files.to_string())?;
    differs("number of bytes", sum.bytes.to_string(), manifest.bytes.to_string())?;
    differs("BLAKE3", sum.blake3(), manifest.blake3.clone())?;
    Ok(manifest)
}

/// Checks the first entry: a format that we know.
fn begin(name: &str, entry: &mut impl Read) -> io::Result<Result<(), RestoreError>> {
    let mut text = Vec::new();
    entry.take(FORMAT.len() as u64 + 1).read_to_end(&mut text)?;
    if name == FORMAT_NAME && text == FORMAT {
        return Ok(Ok(()));
    }
    let text = if name == FORMAT_NAME {
        String::from_utf8_lossy(&text).into_owned()
    } else {
        name.to_owned()
    };
    Ok(Err(RestoreError::Format { found: text.chars().take(64).collect() }))
}

/// Copies one file, and tells a disk that refuses from an archive that ends.
fn copy(
    from: &mut impl Read,
    to: &mut impl io::Write,
    read: impl Fn(io::Error) -> RestoreError,
    write: impl Fn(io::Error) -> RestoreError,
) -> Result<(), RestoreError> {
    let mut buffer = vec![0; 128 * 1024];
    loop {
        let filled = from.read(&mut buffer).map_err(&read)?;
        if filled == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..filled]).map_err(&write)?;
    }
}

/// Checks what was unpacked: a control's folder whose documents and audit log hold.
fn check(folder: &Path, manifest: &Manifest) -> Result<(), RestoreError> {
    let opened = Folder::open(folder).map_err(RestoreError::Folder)?;
    let state = opened.state().map_err(RestoreError::State)?;
    opened.online_keys().map_err(RestoreError::Keys)?;
    let (found, said) = (opened.organisation().to_string(), manifest.organisation.clone());
    if found != said {
        return Err(RestoreError::Differs { what: "organisation", found, said });
    }
    let (found, said) = (state.timestamp.version().number(), manifest.version);
    if found != said {
        let (found, said) = (found.to_string(), said.to_string());
        return Err(RestoreError::Differs { what: "published version", found, said });
    }
    let log = folder.join("audit").join("log");
    let head = Head::from_extra(&state.timestamp.extra);
    if log.exists() || head.is_some() {
        Audit::open(&log, head).map_err(RestoreError::Audit)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tar::EntryType;

    use super::*;

    /// An archive of these entries behind the format, whatever they are called.
    fn archive(entries: &[(&str, EntryType, &[u8])]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.as_file());
        let format = (FORMAT_NAME, EntryType::Regular, FORMAT);
        for (name, kind, bytes) in [&format].into_iter().chain(entries) {
            let mut header = tar::Header::new_gnu();
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*kind);
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.finish().unwrap();
        drop(tar);
        file
    }

    /// What comes of unpacking it, and every file that is there afterwards.
    fn unpacked(entries: &[(&str, EntryType, &[u8])]) -> (RestoreError, Vec<PathBuf>) {
        let around = tempfile::tempdir().unwrap();
        let into = around.path().join("a/b");
        fs::create_dir_all(&into).unwrap();
        let error = unpack(archive(entries).path(), &into).unwrap_err();
        let entries = fs::read_dir(around.path()).unwrap();
        (error, entries.map(|entry| entry.unwrap().path()).collect())
    }

    // T14
    #[test]
    fn an_entry_that_leads_elsewhere_or_is_no_file_is_refused() {
        for (name, kind, expected) in [
            ("../stolen", EntryType::Regular, EntryFault::Name),
            ("online/../../../stolen", EntryType::Regular, EntryFault::Name),
            ("/tmp/stolen", EntryType::Regular, EntryFault::Name),
            ("store/x", EntryType::Regular, EntryFault::Name),
            ("online", EntryType::Symlink, EntryFault::Kind),
            ("online/timestamp.key", EntryType::Link, EntryFault::Kind),
            ("online", EntryType::Directory, EntryFault::Kind),
            ("online/x", EntryType::Char, EntryFault::Kind),
        ] {
            let (error, left) = unpacked(&[(name, kind, b"")]);
            let fault = match &error {
                RestoreError::Entry { fault, .. } => Some(*fault),
                _ => None,
            };
            assert_eq!(fault, Some(expected), "{name}: {error}");
            assert_eq!(left.len(), 1, "{left:?}");
        }
    }

    #[test]
    fn an_archive_that_is_not_as_it_was_written_is_refused() {
        let key = ("online/timestamp.key", EntryType::Regular, &b"a key"[..]);
        let said = |files: u64, bytes: u64, blake3: &str| {
            let at = "2026-11-28T00:00:00Z";
            let manifest = serde_json::json!({
                "organisation": "acme", "at": at, "version": 1, "files": files, "bytes": bytes, "blake3": blake3,
            });
            manifest.to_string().into_bytes()
        };
        let mut sum = Sum::default();
        sum.add(key.0, 5, &blake3::hash(key.2));
        let (whole, wrong) = (said(1, 5, &sum.blake3()), said(1, 5, "00"));
        let (less, none) = (said(2, 5, &sum.blake3()), b"{}".to_vec());
        let end = |text: &'_ [u8]| (MANIFEST_NAME, EntryType::Regular, text.to_owned());
        let of = |entries: &[(&str, EntryType, Vec<u8>)]| {
            let entries: Vec<_> =
                entries.iter().map(|(name, kind, text)| (*name, *kind, &text[..])).collect();
            unpacked(&entries).0.to_string()
        };
        let key = (key.0, key.1, key.2.to_vec());
        assert!(of(&[key.clone(), key.clone(), end(&whole)]).contains("is there twice"));
        assert!(of(&[key.clone(), end(&whole), key.clone()]).contains("behind the manifest"));
        assert!(of(&[key.clone(), end(&wrong)]).contains("manifest says 00"));
        assert!(of(&[key.clone(), end(&less)]).contains("manifest says 2"));
        assert!(of(&[key.clone(), end(&none)]).contains("read the backup's manifest"));
        assert!(of(std::slice::from_ref(&key)).contains("cut off"));
        // And one that is, unpacks.
        let file = archive(&[(key.0, key.1, &key.2), (MANIFEST_NAME, EntryType::Regular, &whole)]);
        let into = tempfile::tempdir().unwrap();
        unpack(file.path(), into.path()).unwrap();
        assert_eq!(fs::read(into.path().join(key.0)).unwrap(), key.2);
    }

    #[test]
    fn another_format_is_said() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut tar = tar::Builder::new(file.as_file());
        let later = b"sutler control backup 2\n";
        let mut header = super::super::header(later.len() as u64, 0o600);
        tar.append_data(&mut header, FORMAT_NAME, &later[..]).unwrap();
        tar.finish().unwrap();
        drop(tar);
        let into = tempfile::tempdir().unwrap();
        let error = unpack(file.path(), into.path()).unwrap_err();
        assert!(matches!(error, RestoreError::Format { .. }), "{error}");
        assert!(error.to_string().contains("backup 2"), "{error}");
    }
}
